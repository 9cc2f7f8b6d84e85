"""*From points to spheres*: a VQ-VAE as the limit of balls about its codes (P3)."""
