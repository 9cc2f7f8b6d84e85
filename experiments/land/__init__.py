"""Locally adaptive normal laws against Gaussian mixtures, on held-out points (L6 of LAND)."""
