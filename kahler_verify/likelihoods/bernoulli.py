"""Bernoulli outputs."""

from torch.distributions import Bernoulli

from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(Bernoulli, Likelihood("Bernoulli", "bernoulli", lambda law: {"eta": law.logits}))
