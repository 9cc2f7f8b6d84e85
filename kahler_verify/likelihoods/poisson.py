"""Poisson outputs."""

from torch.distributions import Poisson

from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(Poisson, Likelihood("Poisson", "poisson", lambda law: {"eta": law.rate.log()}))
