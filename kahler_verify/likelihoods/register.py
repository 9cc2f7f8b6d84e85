"""The register of likelihoods, by types of distributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.distributions import (
    Distribution,
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
        positive: letters and constants that are positive, or no law has them.
        independent_gaussian: are the outputs, or functions of them, independent Gaussians with the
            letters mu and, but for unit variance, Sigma?
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
    positive: tuple[str, ...] = ()
    independent_gaussian: bool = False

    def kernel(self, stem: str) -> str:
        """The name of the kernel for this layout."""
        return f"{stem}_{self.layout}" if self.layout else stem


_FAMILIES: dict[type[Distribution], Likelihood] = {}
FAMILIES: Mapping[type[Distribution], Likelihood] = MappingProxyType(_FAMILIES)
"""The families by types of torch distributions."""


def likelihood(law: type[Distribution], family: Likelihood) -> Likelihood:
    """Register ``family`` for a type of distributions.

    Raises:
        KahlerVerifyError: the type has one already.
    """
    if law in _FAMILIES:
        raise KahlerVerifyError(f"there are two likelihoods for {law.__name__}")
    _FAMILIES[law] = family
    return family


def family_of(law: Distribution) -> Likelihood:
    """The family of a law, by its type or one of its bases.

    Raises:
        InputError: it has none; the message lists those that are known.
    """
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
