"""Claims of three papers on generators, measured on ordinary VAEs of digits.

*Latent space oddity* (O5, O7, O8), *The Riemannian geometry of deep generative models* (S4) and
*From points to spheres* (P2).
"""
