"""The Riemannian geometry of deep generative models (Shao, Kumar, Fletcher, arXiv 1711.08014)."""

from kahler_verify.calculus import Claim, paper

deep_generative_models = paper(
    "deep_generative_models",
    "The Riemannian geometry of deep generative models",
    "Shao, Kumar, Fletcher, arXiv 1711.08014",
    claims=(
        Claim("S1", "the discrete curve energy's gradient", "RGDGM", waits_for="curves"),
        Claim(
            "S2", "the encoder's Jacobian keeps a descent direction", "RGDGM", waits_for="curves"
        ),
        Claim("S3", "parallel transport by projection converges", "RGDGM", waits_for="curves"),
        Claim("S4", "learned manifolds are nearly flat", "RGDGM", waits_for="curves"),
        Claim(
            "S5", "energy minimisers have constant speed and L² ≤ 2E", "RGDGM", waits_for="curves"
        ),
    ),
)
