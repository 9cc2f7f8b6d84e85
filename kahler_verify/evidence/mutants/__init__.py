"""Faults planted in derivations, generator, kernels and geometry; the evidence must kill them."""
