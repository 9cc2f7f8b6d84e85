"""Bernoulli outputs."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli

from kahler_verify.likelihoods.register import Likelihood, likelihood


def logit(law: Bernoulli) -> Tensor:
    """The logits of success; infinite for a probability of 0 or 1, which torch's own hide."""
    if "probs" not in vars(law):
        logits: Tensor = law.logits
        return logits
    return torch.log(law.probs) - torch.log1p(-law.probs)


likelihood(Bernoulli, Likelihood("Bernoulli", "bernoulli", lambda law: {"eta": logit(law)}))
