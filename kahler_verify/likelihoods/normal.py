"""Independent real Gaussians, and what is one up to a map of x that does not depend on z."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.distributions import LogNormal, Normal

from kahler_verify.likelihoods.register import Letters, Likelihood, likelihood


def _factor(letters: Letters) -> Letters:
    return {"Sigma_factor": letters["Sigma"].sqrt()}


def entrywise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Once for all points, where memory holds one row for all, so that this is still to be seen."""
    if type(x) is Tensor and x.ndim > 0 and x.stride(0) == 0 and len(x) > 1:
        return function(x[:1]).expand_as(x)
    return function(x)


def _moments(law: Any) -> Letters:
    return {"mu": law.loc, "Sigma": entrywise(Tensor.square, law.scale)}


def with_one_variance(family: Likelihood, law: Any) -> Likelihood:
    """The same family, by its one variance at each point where all outputs of a law share theirs.

    They do where torch has one number for all: of a scale [B, 1], say, or a float.
    """
    if family.layout != "diagonal":
        return family
    scale = law.scale
    shared = all(step == 0 for step in scale.stride()[1:])
    if scale.ndim < 2 or not shared or scale[:1].numel() == 1:
        return family
    return replace(
        family,
        fields=lambda law: {
            "mu": law.loc,
            "Sigma": entrywise(Tensor.square, law.scale[(slice(None), *[0] * (scale.ndim - 1))]),
        },
        layout="scalar",
    )


SCALAR = Likelihood(
    "Gaussian with one variance",
    "real_gaussian_kl",
    lambda law: {"mu": law.loc, "Sigma": law.variance},
    values=_factor,
    layout="scalar",
    positive=("Sigma",),
    independent_gaussian=True,
)
DIAGONAL = likelihood(
    Normal,
    Likelihood(
        "Gaussian",
        "real_gaussian_kl",
        _moments,
        values=_factor,
        layout="diagonal",
        positive=("Sigma",),
        independent_gaussian=True,
    ),
)
likelihood(
    LogNormal,
    Likelihood(
        "log-normal",
        "real_gaussian_kl",
        _moments,
        values=_factor,
        layout="diagonal",
        positive=("Sigma",),
        independent_gaussian=True,
    ),
)
