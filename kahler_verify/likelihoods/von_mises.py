"""Von Mises outputs: angles, each a direction in the plane."""

import torch
from torch.distributions import VonMises

from kahler_verify.bessel import bessel_quotient
from kahler_verify.likelihoods.register import Letters, Likelihood, likelihood


def _fields(law: VonMises) -> Letters:
    return {
        "concentration": law.concentration,
        "resultant": bessel_quotient(law.concentration, 2),
        "direction": torch.stack([torch.cos(law.loc), torch.sin(law.loc)], -1),
    }


likelihood(
    VonMises,
    Likelihood(
        "von Mises",
        "von_mises_fisher",
        _fields,
        axes={"direction": 1},
        positive=("concentration",),
    ),
)
