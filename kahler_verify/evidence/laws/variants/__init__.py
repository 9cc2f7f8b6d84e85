"""Variants of kernels, as geometry runs them, against the plain kernels."""
