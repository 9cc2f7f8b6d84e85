"""The register of likelihoods, by types of distributions; and a decoder's output read by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
)

from kahler_verify.errors import InputError, KahlerVerifyError

Letters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Likelihood:
    """A family of laws.

    Attributes:
        name: of the family, for messages.
        kernels: the generated module that has its Fisher-Rao metric.
        fields: of a law, the letters of the derivation whose derivatives its kernels take: one
            number for each output, [B, ...].
        constants: of a law, letters that must not depend on z (a number of failures).
        values: of the letters, what kernels take besides their derivatives (a Cholesky factor).
        stem: what the names of its kernels begin with.
        layout: behind the kernels' names: "full", "diagonal", "scalar", or "".
        axes: of a law whose outputs are not single numbers, how many last axes of each letter are
            one output's own (1 for a categorical law's logits). There may be several such outputs.
        component: letters whose own axis is one of components, which kernels want in front.
    """

    name: str
    kernels: str
    fields: Callable[[Any], Letters]
    constants: Callable[[Any], Letters] | None = None
    values: Callable[[Letters], Letters] | None = None
    stem: str = "fisher_metric"
    layout: str = ""
    axes: Mapping[str, int] = field(default_factory=dict)
    component: tuple[str, ...] = ()

    def kernel(self, stem: str) -> str:
        """The name of the kernel for this layout."""
        return f"{stem}_{self.layout}" if self.layout else stem


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


_FAMILIES: dict[type[Distribution], Likelihood] = {}
FAMILIES: Mapping[type[Distribution], Likelihood] = MappingProxyType(_FAMILIES)
"""The families by types of torch distributions."""

_UNIT = Likelihood(
    "Gaussian of unit variance", "pulled_back_metric", lambda mean: {"mu": mean}, stem="metric"
)


def likelihood(law: type[Distribution], family: Likelihood) -> Likelihood:
    """Register ``family`` for a type of distributions.

    Raises:
        KahlerVerifyError: the type has one already.
    """
    if law in _FAMILIES:
        raise KahlerVerifyError(f"there are two likelihoods for {law.__name__}")
    _FAMILIES[law] = family
    return family


def fields_of(output: Any, points: int) -> Fields:
    """What a decoder returned at ``points`` points: a tensor, a pair, or a distribution.

    A tensor x [B, ...] is the mean of a Gaussian of unit variance, so that its metric is the
    pull-back JᵀJ; a pair is (mean, log variance), the latter [B, ...] like the mean or [B].

    Raises:
        InputError: it is none of these, or of no known family; the message lists the families.
    """
    if isinstance(output, Tensor):
        letters = {name: _rows(name, x, points, 0) for name, x in _UNIT.fields(output).items()}
        return Fields(_UNIT, letters, {})
    if isinstance(output, tuple | list) and len(output) == 2:
        return _of_pair(output[0], output[1], points)
    if not isinstance(output, Distribution):
        raise InputError(
            "decoder: expected a tensor, a pair (mean, log variance) or a torch distribution, got "
            f"{type(output).__name__}"
        )
    law = output
    while isinstance(law, Independent):
        law = law.base_dist
    family = _family(law)
    letters = {
        name: _rows(name, x, points, family.axes.get(name, 0))
        for name, x in family.fields(law).items()
    }
    like = next(iter(letters.values()))
    constants = {
        name: x.expand(like.shape) if x.ndim < 2 else _rows(name, x, points, 0)
        for name, x in (family.constants(law) if family.constants else {}).items()
    }
    return Fields(family, letters, constants)


def _of_pair(mean: Any, log_variance: Any, points: int) -> Fields:
    from kahler_verify.likelihoods.normal import DIAGONAL, SCALAR

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
        return Fields(SCALAR, {"mu": mu, "Sigma": log_variance.exp()}, {})
    if log_variance.shape != mean.shape:
        raise InputError(
            f"decoder: expected a log variance of shape {list(mean.shape)} like the mean, or "
            f"[{points}], got {list(log_variance.shape)}"
        )
    return Fields(
        DIAGONAL, {"mu": mu, "Sigma": _rows("log variance", log_variance, points, 0).exp()}, {}
    )


def _rows(name: str, x: Tensor, points: int, axes: int) -> Tensor:
    """[B, n] of [B, ...]; [B, m, ...own] where one output has axes of its own."""
    if x.ndim <= axes or x.shape[0] != points:
        raise InputError(
            f"decoder: expected {name} of shape [{points}, ...] for {points} points, got "
            f"{list(x.shape)}"
        )
    outputs = math.prod(x.shape[1 : x.ndim - axes])
    return x.reshape(points, outputs, *x.shape[x.ndim - axes :])


def _family(law: Distribution) -> Likelihood:
    if isinstance(law, MixtureSameFamily):
        raise InputError(
            "decoder: a mixture's Fisher metric has no closed form (its score mixes the components'"
            " by responsibilities), so that MixtureSameFamily is not taken; return one component, "
            "or fit a metric to samples"
        )
    for kind in type(law).__mro__:
        if kind in _FAMILIES:
            return _FAMILIES[kind]
    known = ", ".join(sorted(kind.__name__ for kind in _FAMILIES))
    more = (
        "; a transformed law has its base's metric if the transform does not depend on z: return "
        "the base"
        if isinstance(law, TransformedDistribution)
        else ""
    )
    raise InputError(
        f"decoder: expected one of the families {known} (or Independent of one), got "
        f"{type(law).__name__}{more}"
    )
