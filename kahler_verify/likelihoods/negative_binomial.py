"""Negative binomial outputs with numbers of failures that do not depend on z; geometric ones."""

import torch
from torch.distributions import Geometric, NegativeBinomial

from kahler_verify.likelihoods.bernoulli import logit
from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(
    NegativeBinomial,
    Likelihood(
        "negative binomial",
        "negative_binomial",
        lambda law: {"eta": logit(law)},
        constants=lambda law: {"count": law.total_count},
        positive=("count",),
    ),
)
likelihood(
    Geometric,
    Likelihood(
        "geometric",
        "negative_binomial",
        lambda law: {"eta": -logit(law)},
        constants=lambda law: {"count": torch.ones_like(law.mean)},
    ),
)
