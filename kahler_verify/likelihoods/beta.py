"""Beta outputs."""

from torch.distributions import Beta

from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(
    Beta,
    Likelihood(
        "Beta",
        "beta",
        lambda law: {"alpha": law.concentration1, "beta": law.concentration0},
        positive=("alpha", "beta"),
    ),
)
