"""Gamma outputs."""

from torch.distributions import Gamma

from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(
    Gamma,
    Likelihood(
        "Gamma",
        "gamma",
        lambda law: {"alpha": law.concentration, "beta": law.rate},
        positive=("alpha", "beta"),
    ),
)
