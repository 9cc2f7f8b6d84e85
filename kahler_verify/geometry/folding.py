"""The mean of a real Gaussian with constant or scalar Σ, seen through a smaller last layer.

Behind a last layer μ = W h + b with constant Σ the Fisher-Rao metric is (∂_a h)ᵀ WᵀΣ⁻¹W ∂_b h.
With Σ^{-1/2} W = QR it is the pull-back along R h, which has the rows of the hidden features and
not of the data, and so are all its derivatives: the last layer's products with tangents go from
D × h to h × h.  Where autograd records weights, WᵀΣ⁻¹W itself takes the place of R, for g alone.

With Σ = σ²(z) 1 the metric is (∂_a h)ᵀ WᵀW ∂_b h/σ² + D ∂_aσ² ∂_bσ²/(2σ⁴): that of N(R h, σ² 1),
which has the second term once for each row of R, and D less those rows more of the second term,
which is the metric of N(0, σ²).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kahler_verify.geometry.plans import GRAM_RATIO, Fold
from kahler_verify.jets import Jet
from kahler_verify.likelihoods import Fields
from kahler_verify.likelihoods.outputs import through_unit_variance
from kahler_verify.linear_algebra.heads import reduced
from kahler_verify.linear_algebra.kept import ReducedHeads, is_recorded
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.rules.expansion import Expansion, Head

__all__ = ["GramRows", "Smaller", "of_the_variance", "smaller_layer", "with_smaller_layer"]


class Smaller(NamedTuple):
    """What takes the place of a last layer W [D, h].

    Attributes:
        matrix: R [min(D, h), h], or RᵀR [h, h].
        gram: is it the latter?
        varies: does Σ, which is one number for all outputs then?
        outputs: D.
    """

    matrix: Tensor
    gram: bool
    varies: bool
    outputs: int

    @property
    def lacking(self) -> int:
        """How many outputs a law with a varying Σ has that R gives it no mean of."""
        return self.outputs - len(self.matrix) if self.varies and not self.gram else 0


@dataclass(frozen=True)
class GramRows:
    """Rows X Rᵀ of X [..., d, h] that are not multiplied out, as products need G = RᵀR alone.

    It stands for ∂μ in a kernel that multiplies it with its transpose, and with numbers.
    """

    rows: Tensor
    gram: Tensor
    outputs: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it stands for, [..., d, D]."""
        return (*self.rows.shape[:-1], self.outputs)

    @property
    def mT(self) -> GramRows:
        """The transpose, to multiply with."""
        return self

    def __mul__(self, factor: Tensor) -> GramRows:
        """Times numbers [..., 1, 1]."""
        return GramRows(self.rows * factor, self.gram, self.outputs)

    def __matmul__(self, other: GramRows) -> Tensor:
        """X G Yᵀ, [..., d, d]."""
        return (self.rows @ self.gram) @ other.rows.mT


def smaller_layer(
    fields: Fields, kept: ReducedHeads, fold: Fold, fold_ratio: float, order: int
) -> Smaller | None:
    """What takes the place of the mean's last layer, or None where nothing does.

    Args:
        fields: of jets at points z [B, d].
        kept: where R is kept for as long as the weights stay the same.
        fold: see :class:`FisherRaoMetric`.
        fold_ratio: see :class:`FisherRaoMetric`.
        order: of the metric's derivatives that are wanted.
    """
    head = _head(fields)
    if fold == "never" or head is None:
        return None
    (D, h), (points, _) = head.weight.shape, head.hidden.value.shape
    rows = min(D, h)
    variance, varies = None, False
    if "Sigma" in fields.letters:
        variance = _constant_variance(fields.letters["Sigma"], D)
        varies = variance is None
        if varies and fields.family.layout != "scalar":
            return None
    sources = [x for x in (head.weight, variance, head.bias) if x is not None]

    def scaled(weight: Tensor, *rest: Tensor) -> Tensor:
        return weight if variance is None else weight * rest[0].rsqrt().unsqueeze(-1)

    def make(*sources: Tensor) -> Tensor | None:
        if not all(bool(torch.isfinite(x).all()) for x in (*sources, scaled(*sources))):
            return None  # the whole layer's way has the message
        return reduced(scaled(*sources))

    if is_recorded(sources):
        tangents = points * head.hidden.frame.directions
        pays = tangents * D >= GRAM_RATIO * (tangents + D) * h
        if order > 0 or not (pays or fold == "always"):
            return None
        if variance is not None and bool(variance.isnan().any()):
            return None  # as above
        weight = scaled(*sources)
        return Smaller(weight.mT @ weight, True, varies, D)
    if fold_ratio * rows > D and fold != "always":
        return None
    triangle = kept.get("mean", sources, make)
    return None if triangle is None else Smaller(triangle, False, varies, D)


def with_smaller_layer(fields: Fields, smaller: Smaller) -> Fields:
    """A Gaussian with the same metric, of unit variance where Σ does not vary.

    Where Σ varies it lacks what ``smaller.lacking`` says; of a Gram matrix, h is in the mean's
    place.
    """
    head = _head(fields)
    assert head is not None
    hidden = head.hidden
    if not smaller.gram:
        value = hidden.value @ smaller.matrix.mT
        hidden = Expansion(value, None, None, hidden.frame, Head(hidden, smaller.matrix, None))
    if smaller.varies:
        return fields._replace(letters={**fields.letters, "mu": Jet(hidden)})
    return Fields(through_unit_variance(fields.family), {"mu": Jet(hidden)}, {})


def of_the_variance(tensors: dict[str, Any]) -> dict[str, Any]:
    """A kernel's arguments for N(0, σ²), of those for N(μ, σ² 1)."""
    return {
        name: x.new_zeros(*x.shape[:-1], 1) if name.startswith("mu") else x
        for name, x in tensors.items()
    }


def _head(fields: Fields) -> Head | None:
    """The last layer of a Gaussian's mean, where it waits to be multiplied out."""
    mean = fields.letters.get("mu")
    if not fields.family.independent_gaussian or not isinstance(mean, Jet):
        return None
    head = mean.expansion.waiting_head
    if head is None or head.real or mean.dtype not in (torch.float32, torch.float64):
        return None
    hidden = head.hidden
    plain = hidden.value.ndim == 2 and hidden.value.dtype == head.weight.dtype == mean.dtype
    if not (plain and hidden.varies):
        return None
    head.require_unwritten()
    return head


def _are_equal(x: Tensor, y: Tensor) -> bool:
    try:
        return torch.equal(x, y)
    except RuntimeError:  # numbers are not to be had where a program is traced
        return False


def _constant_variance(variance: Tensor, outputs: int) -> Tensor | None:
    """Σ [outputs] of [B] or [B, outputs], where it is the same at all points; else None."""
    if isinstance(variance, Jet):
        if variance.varies:
            return None
        variance = variance.value
    if is_transformed(variance):
        return None
    first = variance[:1]
    same = len(variance) == 1 or variance.stride(0) == 0
    if len(variance) == 0 or not (same or _are_equal(variance, first.expand_as(variance))):
        return None
    return first[0].expand(outputs)
