"""The mean of a real Gaussian with constant Σ, seen through a smaller last layer.

Behind a last layer μ = W h + b the Fisher-Rao metric is (∂_a h)ᵀ WᵀΣ⁻¹W ∂_b h.  With
Σ^{-1/2} W = QR it is the pull-back along R h, which has the rows of the hidden features and not of
the data, and so are all its derivatives: the last layer's products with tangents go from D × h to
h × h.  Where autograd records weights, WᵀΣ⁻¹W itself takes the place of R, for g alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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

__all__ = ["GramRows", "Smaller", "smaller_layer", "with_smaller_layer"]


class Smaller(NamedTuple):
    """What takes the place of a last layer W [D, h].

    Attributes:
        matrix: R [min(D, h), h], or RᵀR [h, h].
        gram: is it the latter?
    """

    matrix: Tensor
    gram: bool


@dataclass(frozen=True)
class GramRows:
    """Rows X Rᵀ of X [..., d, h] that are not multiplied out, as products need G = RᵀR alone.

    It stands for ∂μ in a kernel that multiplies it with its transpose.
    """

    rows: Tensor
    gram: Tensor

    @property
    def mT(self) -> GramRows:
        """The transpose, to multiply with."""
        return self

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
    variance = None
    if "Sigma" in fields.letters:
        variance = _constant_variance(fields.letters["Sigma"], D)
        if variance is None:
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
        weight = scaled(*sources)
        return Smaller(weight.mT @ weight, gram=True)
    if fold_ratio * rows > D and fold != "always":
        return None
    triangle = kept.get("mean", sources, make)
    return None if triangle is None else Smaller(triangle, gram=False)


def with_smaller_layer(fields: Fields, smaller: Smaller) -> Fields:
    """A Gaussian of unit variance with the same metric; of a Gram matrix, h in its mean's place."""
    head = _head(fields)
    assert head is not None
    hidden = head.hidden
    if not smaller.gram:
        value = hidden.value @ smaller.matrix.mT
        hidden = Expansion(value, None, None, hidden.frame, Head(hidden, smaller.matrix, None))
    return Fields(through_unit_variance(fields.family), {"mu": Jet(hidden)}, {})


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
    return head if plain and hidden.varies else None


def _constant_variance(variance: Tensor, outputs: int) -> Tensor | None:
    """Σ [outputs] of [B] or [B, outputs], where it is the same at all points; else None."""
    if isinstance(variance, Jet):
        if variance.varies:
            return None
        variance = variance.value
    if is_transformed(variance):
        return None
    first = variance[:1]
    if len(variance) == 0 or not (
        len(variance) == 1 or torch.equal(variance, first.expand_as(variance))
    ):
        return None
    return first[0].expand(outputs)
