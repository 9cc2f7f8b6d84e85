"""*Latent space oddity* (O7) on the data that it was published on: triples of MNIST's classes."""
