"""Sampling from latent spaces by their volume (Chadebec & Allassonnière, arXiv 2209.07370)."""

from kahler_verify.calculus import Claim, paper

geometry_aware_vae = paper(
    "geometry_aware_vae",
    "Sampling from the volume of a latent space",
    "Chadebec, Allassonnière, arXiv 2209.07370",
    claims=(
        Claim("C1", "√det G sampling has finite volume iff τ > 0", "GPVAE", waits_for="samplers"),
        Claim("C2", "the widely used HMC sampler targets √det G", "GPVAE", waits_for="samplers"),
    ),
)
