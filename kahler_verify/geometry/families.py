"""The metric of a family of laws, of its letters and of their derivatives, by generated kernels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.folding import of_the_variance
from kahler_verify.jets import Jet
from kahler_verify.likelihoods import Fields, Likelihood
from kahler_verify.running.kernel_set import KernelSet

__all__ = ["bent", "lowered", "metric_of", "plain"]

_SUFFIXES = ("", "_d", "_dd", "_ddd")
_kernels = cache(KernelSet)


def metric_of(
    fields: Fields, derivatives: Mapping[str, Any], order: int = 0, *, lacking: int = 0
) -> MetricJet:
    """The metric, and its derivatives up to ``order``.

    Args:
        fields: at points [B, ...], or at one for all.
        derivatives: by the kernels' names, [B, r, ...] for ``mu_d`` along r directions.
        order: 0, 1 or 2.
        lacking: of the outputs of one variance, those that a smaller last layer has not.
    """
    family, derivatives = fields.family, dict(derivatives)
    tensors: dict[str, Any] = {**fields.letters, **fields.constants}
    try:
        tensors |= family.values(tensors) if family.values else {}
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise InputError(
            f"decoder: expected positive definite covariances of a {family.name}, but torch says "
            f"{error}"
        ) from error
    for name in fields.letters if family.axes else ():
        for suffix in _SUFFIXES[1 : order + 2]:  # outputs with own axes become a batch
            x = derivatives[name + suffix].movedim(len(suffix), 1)
            if name in family.component:
                x = x.movedim(-1, 2)
            derivatives[name + suffix] = x
    tensors |= derivatives
    kernels, stem = _kernels(family.kernels), family.stem
    names = [family.kernel(stem + suffix) for suffix in _SUFFIXES[: order + 1]]
    parts = [kernels.call(name, tensors) for name in names]
    if lacking:
        rest = of_the_variance(tensors)
        parts = [
            part + lacking * kernels.call(name, rest)
            for part, name in zip(parts, names, strict=True)
        ]
    return MetricJet(*[part.sum(1) if family.axes else part for part in parts])


def lowered(fields: Fields, tangents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The covectors F t of tangents t [B, ...] of the letters, F the law's Fisher information.

    The kernel's g(t, s) is linear in s, so that F t is its derivative by s: no family needs more
    than its kernel.
    """
    given = (*tangents.values(), *fields.letters.values(), *fields.constants.values())
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    with torch.enable_grad():
        others = {name: torch.zeros_like(t).requires_grad_() for name, t in tangents.items()}
        pairs = {f"{name}_d": torch.stack([t, others[name]], 1) for name, t in tangents.items()}
        inner = metric_of(fields, pairs).g[:, 0, 1].sum()
        found = torch.autograd.grad(
            inner, list(others.values()), create_graph=recorded, materialize_grads=True
        )
    return dict(zip(tangents, found, strict=True))


def bent(fields: Fields, tangents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Γ_k(t, t) = ∂_t (F t)_k - ½ ∂_k (t F t) of the laws' own space, letters its coordinates.

    A curve of letters is a geodesic there where F λ̈ + Γ(λ̇, λ̇) = 0.

    Args:
        fields: at points [B, ...].
        tangents: t [B, ...] of the letters.
    """
    given = (*tangents.values(), *fields.letters.values(), *fields.constants.values())
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    names = list(tangents)
    with torch.enable_grad():
        # clones: one letter may have been computed of another, and derivatives are partial ones
        letters = {
            name: x.clone() if x.requires_grad else x.detach().requires_grad_()
            for name, x in fields.letters.items()
        }
        own = [letters[name] for name in names]
        others = [torch.zeros_like(tangents[name]).requires_grad_() for name in names]
        ts = {
            f"{name}_d": torch.stack([tangents[name], other], 1)
            for name, other in zip(names, others, strict=True)
        }
        g = metric_of(fields._replace(letters=letters), ts).g
        options: dict[str, Any] = {"create_graph": True, "materialize_grads": True}
        along = torch.autograd.grad(g[:, 0, 1].sum(), own, **options)
        slope = sum(
            ((a * tangents[name]).sum() for a, name in zip(along, names, strict=True)),
            start=g.new_zeros(()),
        )
        if not slope.requires_grad:  # F is the same everywhere
            return {name: torch.zeros_like(t) for name, t in tangents.items()}
        options["create_graph"] = recorded
        first = torch.autograd.grad(slope, others, retain_graph=True, **options)
        second = torch.autograd.grad(g[:, 0, 0].sum(), own, **options)
    return {name: a - b / 2 for name, a, b in zip(names, first, second, strict=True)}


def plain(constants: Mapping[str, Tensor], family: Likelihood) -> dict[str, Tensor]:
    """Constants without derivatives, which they must not have.

    Raises:
        InputError: they have some.
    """
    out = {}
    for name, x in constants.items():
        if isinstance(x, Jet):
            if bool((x.tangents != 0).any()):
                raise InputError(
                    f"decoder: expected the {name} of a {family.name} likelihood not to depend on "
                    "z: with it the laws are no exponential family, whose Fisher metric is known"
                )
            x = x.value
        out[name] = x
    return out
