"""Categorical outputs."""

import torch
from torch import Tensor
from torch.distributions import Categorical, OneHotCategorical

from kahler_verify.likelihoods.register import Likelihood, likelihood


def log_weights(law: Categorical) -> Tensor:
    """The logits; infinite for a probability of 0, which torch's own hide."""
    own = getattr(law, "_categorical", law)
    if "probs" in vars(own):
        return torch.log(own.probs)
    logits: Tensor = own.logits
    return logits


CATEGORICAL = Likelihood(
    "categorical",
    "categorical",
    lambda law: {"eta": log_weights(law)},
    values=lambda letters: {"w": torch.softmax(letters["eta"], -1)},
    axes={"eta": 1},
    component=("eta",),
)
for kind in (Categorical, OneHotCategorical):
    likelihood(kind, CATEGORICAL)
