"""Exponential outputs."""

from torch.distributions import Exponential

from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(
    Exponential,
    Likelihood("exponential", "exponential", lambda law: {"rate": law.rate}, positive=("rate",)),
)
