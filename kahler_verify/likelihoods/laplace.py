"""Laplace outputs."""

from torch.distributions import Laplace

from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(
    Laplace,
    Likelihood(
        "Laplace",
        "laplace",
        lambda law: {"location": law.loc, "scale": law.scale},
        positive=("scale",),
    ),
)
