"""A decoder's output, read by the family of its law."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Distribution, Independent

from kahler_verify.adapters.outputs import in_torch, read
from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.likelihoods.complex_normal import of_real_parts
from kahler_verify.likelihoods.normal import (
    DIAGONAL,
    SCALAR,
    entrywise,
    with_one_variance,
)
from kahler_verify.likelihoods.register import Likelihood, family_of

_UNIT = Likelihood(
    "Gaussian of unit variance",
    "pulled_back_metric",
    lambda mean: {"mu": mean},
    stem="metric",
    independent_gaussian=True,
)


class Fields(NamedTuple):
    """A decoder's output at z [B, d], read by its family.

    Attributes:
        family: of the law.
        letters: [B, n], or [B, m, ...own] of m outputs with axes of their own.
        constants: in the same shapes.
    """

    family: Likelihood
    letters: dict[str, Tensor]
    constants: dict[str, Tensor]


def fields_of(output: Any, points: int) -> Fields:
    """What a decoder returned at ``points`` points: a tensor, a pair, or a distribution.

    A tensor x [B, ...] is the mean of a Gaussian of unit variance, so that its metric is the
    pull-back JᵀJ; a pair is (mean, log variance), the latter [B, ...] like the mean or [B].  What
    libraries return (pythae's and diffusers' outputs, scVI's laws) is read by its type.

    Raises:
        InputError: it is none of these, or of no known family; the message lists the families.
    """
    output = read(output, None)
    if isinstance(output, Tensor):
        letters = {name: _rows(name, x, points, 0) for name, x in _UNIT.fields(output).items()}
        return Fields(_UNIT, letters, {})
    if isinstance(output, tuple | list) and len(output) == 2:
        return _of_pair(output[0], output[1], points)
    law: Distribution = output
    while isinstance(law, Independent):
        law = law.base_dist
    law = in_torch(law)
    if isinstance(law, ComplexNormal):
        law = of_real_parts(law)
    family = with_one_variance(family_of(law), law)
    letters = {
        name: x
        if family.layout == "scalar" and name == "Sigma"
        else _rows(name, x, points, family.axes.get(name, 0))
        for name, x in family.fields(law).items()
    }
    like = next(iter(letters.values()))
    constants = {
        name: x.expand(like.shape) if x.ndim < 2 else _rows(name, x, points, 0)
        for name, x in (family.constants(law) if family.constants else {}).items()
    }
    return Fields(family, letters, constants)


def through_unit_variance(family: Likelihood) -> Likelihood:
    """The same family, with its mean in units in which the variance is one."""
    return replace(_UNIT, name=family.name)


def _of_pair(mean: Any, log_variance: Any, points: int) -> Fields:
    for name, x in (("mean", mean), ("log variance", log_variance)):
        if not isinstance(x, Tensor):
            raise InputError(f"decoder: expected the {name} to be a tensor, got {type(x).__name__}")
    if mean.is_complex() or log_variance.is_complex():
        raise InputError(
            "decoder: expected a real mean and log variance at real latents, got "
            f"{mean.dtype} and {log_variance.dtype}; return a ComplexNormal for a complex mean"
        )
    mu = _rows("mean", mean, points, 0)
    if log_variance.shape == mean.shape[:1]:
        return Fields(SCALAR, {"mu": mu, "Sigma": entrywise(Tensor.exp, log_variance)}, {})
    if log_variance.shape != mean.shape:
        raise InputError(
            f"decoder: expected a log variance of shape {list(mean.shape)} like the mean, or "
            f"[{points}], got {list(log_variance.shape)}"
        )
    return Fields(
        DIAGONAL,
        {
            "mu": mu,
            "Sigma": entrywise(Tensor.exp, _rows("log variance", log_variance, points, 0)),
        },
        {},
    )


def _rows(name: str, x: Tensor, points: int, axes: int) -> Tensor:
    """[B, n] of [B, ...]; [B, m, ...own] where one output has axes of its own."""
    if x.ndim <= axes or x.shape[0] != points:
        raise InputError(
            f"decoder: expected {name} of shape [{points}, ...] for {points} points, got "
            f"{list(x.shape)}"
        )
    outputs = math.prod(x.shape[1 : x.ndim - axes])
    if x.ndim == axes + 2:  # as it stands, so that a last layer may stay unevaluated
        return x
    return x.reshape(points, outputs, *x.shape[x.ndim - axes :])
