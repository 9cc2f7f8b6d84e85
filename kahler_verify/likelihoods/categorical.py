"""Categorical outputs."""

import torch
from torch.distributions import Categorical, OneHotCategorical

from kahler_verify.likelihoods.register import Likelihood, likelihood

CATEGORICAL = Likelihood(
    "categorical",
    "categorical",
    lambda law: {"eta": law.logits},
    values=lambda letters: {"w": torch.softmax(letters["eta"], -1)},
    axes={"eta": 1},
    component=("eta",),
)
for kind in (Categorical, OneHotCategorical):
    likelihood(kind, CATEGORICAL)
