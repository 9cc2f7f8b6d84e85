"""Proofs: polynomial identities, certificates over balls, regions, witnesses."""
