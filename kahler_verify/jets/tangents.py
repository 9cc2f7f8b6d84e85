"""First derivatives of decoders in closed form, in real planes: all that a metric itself needs.

:mod:`kahler_verify.jets.layers` has jets of every order, as complex tensors.  The first
order alone is worth a second form: it is what every metric, every volume and every training step
goes through.  As long as layers are holomorphic there is one complex tangent for each direction v;
behind the first activation that is not, there are two real ones, along v and -iv, and an
activation is one pass of real multiplications.  In this order the two derivatives of a real
function φ are the planes of 2∂_v φ = (∂_x - i∂_y) φ as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kahler_verify.jets.layers import by_autograd
from kahler_verify.jets.recognition import is_recognised
from kahler_verify.jets.stacked import Jets
from kahler_verify.linear_algebra.heads import AffineHeads
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.linear_algebra.planes import (
    Image,
    Pairs,
    Weight,
    pair_product,
    planes_of,
    real_part_product,
    scaled,
)
from kahler_verify.networks.activations import ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Residual

__all__ = ["Tangents", "deviation", "hidden_tangents", "image", "real_image"]

Rows = Pairs | Image


@dataclass(frozen=True)
class Tangents:
    """A function of z at B points, with its derivatives along r directions v.

    Attributes:
        value: planes [2, B, n].
        rows: complex derivatives ∂_v of a holomorphic function, planes [2, B, r, n]; of another one
            the real ones along v and -iv, [2, 2, B, r, n].  B = 1 where all points have the same.
    """

    value: Tensor
    rows: Tensor

    @property
    def holomorphic(self) -> bool:
        """Is every layer so far?"""
        return self.rows.ndim == 4

    def real(self) -> Tangents:
        """Along v and -iv: of a holomorphic function these are t and -it."""
        if not self.holomorphic:
            return self
        x, y = self.rows
        return replace(self, rows=torch.stack([self.rows, torch.stack([y, -x])], 1))


def hidden_tangents(
    decoder: Any, z: Tensor, kept: ReducedHeads, directions: Tensor | None = None
) -> Tangents:
    """The last hidden layer at z [B, d], along v [B, r, d], by default the coordinates'.

    The decoder is one that hands over affine heads; ``kept`` keeps what products make of weights.
    """
    decoder._check(z)
    if directions is None:
        name = f"identity {z.shape[-1]} {z.dtype} {z.device}"
        rows = kept.get(name, [], lambda: planes_of(_identity(z)[None]))
    else:
        rows = planes_of(directions)
    return through(decoder.layers, Tangents(planes_of(z), rows), kept)


def _identity(z: Tensor) -> Tensor:
    return torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)


def through(
    module: nn.Module, tangents: Tangents, kept: ReducedHeads, name: str = "layers"
) -> Tangents:
    """Behind a module, from what is before it; what is kept of it goes by its name."""
    if not is_recognised(module):
        return _from_jets(by_autograd(_as_jets(tangents), module))
    if isinstance(module, ComplexLinear | nn.Linear):
        return affine(tangents, module, kept, name)
    if isinstance(module, ActivationLayer):
        return activated(tangents, module)
    if isinstance(module, Residual):
        return total(tangents, through(module.body, tangents, kept, f"{name}.body"))
    if isinstance(module, nn.Sequential):
        for number, child in enumerate(module):
            tangents = through(child, tangents, kept, f"{name}.{number}")
    return tangents


def affine(
    tangents: Tangents, layer: ComplexLinear | nn.Linear, kept: ReducedHeads, name: str
) -> Tangents:
    """h ↦ h Wᵀ + b: one real matrix product for all tangents."""

    def make(matrix: Tensor, bias: Tensor | None = None) -> tuple[Weight, Tensor | None]:
        return Weight(matrix), None if bias is None else planes_of(bias)[:, None]

    sources = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    weight, shift = kept.get(name, sources, make)
    value = pair_product(tangents.value, weight)
    return Tangents(value if shift is None else value + shift, pair_product(tangents.rows, weight))


def activated(tangents: Tangents, layer: ActivationLayer) -> Tangents:
    """A registered activation, by its generated derivatives."""
    bias = () if layer.bias is None else (layer.bias,)
    value, slopes, *crossed = layer.activation.slopes(tangents.value, *bias)
    if layer.activation.holomorphic and tangents.holomorphic:
        return Tangents(value, scaled(tangents.rows, slopes[:, :, None]))
    rows, slopes = tangents.real().rows, slopes[:, None, :, None]
    if layer.activation.holomorphic:
        return Tangents(value, scaled(rows, slopes))
    new = rows * slopes
    if crossed:
        new = new + rows.flip(0) * crossed[0][:, None, :, None]
    return Tangents(value, new)


def total(first: Tangents, second: Tangents) -> Tangents:
    """The sum of two functions."""
    if first.holomorphic != second.holomorphic:
        first, second = first.real(), second.real()
    return replace(first, value=first.value + second.value, rows=first.rows + second.rows)


# Heads


def image(
    tangents: Tangents, weight: Weight, *, multiply: bool
) -> tuple[Rows, None] | tuple[Rows, Rows]:
    """∂ [B, r, m] of a holomorphic h Wᵀ, W [m, n], or 2∂ and 2∂̄ of another one.

    Not multiplied out they are what :class:`kahler_verify.linear_algebra.planes.Image` says.
    """
    if tangents.holomorphic:
        return _rows(tangents.rows, weight, multiply), None
    m, n = weight.matrix.shape
    if multiply and m < n:
        d, b = _wirtinger(pair_product(tangents.rows, weight))
        return Pairs(d), Pairs(b)
    d, b = _wirtinger(tangents.rows)
    if multiply:
        d, b = pair_product(torch.stack([d, b], 1), weight).unbind(1)
        return Pairs(d), Pairs(b)
    return _rows(d, weight, False), _rows(b, weight, False)


def _wirtinger(rows: Tensor) -> tuple[Tensor, Tensor]:
    """2∂ = t_v + i t_{-iv} and 2∂̄ = t_v - i t_{-iv} of t [2, 2, ...]."""
    (a, p), (b, q) = rows
    return torch.stack([a - q, b + p]), torch.stack([a + q, b - p])


def _rows(planes: Tensor, weight: Weight, multiply: bool) -> Rows:
    return Pairs(pair_product(planes, weight)) if multiply else Image(planes, weight, real=False)


def real_image(tangents: Tangents, weight: Weight, *, multiply: bool) -> Rows:
    """2∂φ [B, r, m] of φ = Re(h Wᵀ); 2∂̄φ is its conjugate."""
    if tangents.holomorphic:
        return _rows(tangents.rows, weight, multiply)
    if multiply:
        return Pairs(real_part_product(tangents.rows, weight))
    return Image(torch.cat(tuple(tangents.rows), -1), weight, real=True)


def deviation(heads: AffineHeads, tangents: Tangents, kept: ReducedHeads) -> Tensor:
    """exp(φ/2) [B, D] or [B, 1], φ = Re head(h), where Σ varies, in units of scale."""
    assert heads.log_variance is not None
    assert heads.log_variance_bias is not None
    sources = [heads.log_variance, heads.log_variance_bias]

    def make(matrix: Tensor, bias: Tensor) -> tuple[Weight, Tensor]:
        return Weight(matrix), bias.real

    weight, shift = kept.get("deviation", sources, make)
    return torch.add(real_part_product(tangents.value, weight), shift).mul_(0.5).exp_()


# To and from complex jets, for modules that only autograd knows


def _as_jets(tangents: Tangents) -> Jets:
    value, rows = torch.complex(*tangents.value), torch.complex(*tangents.rows)
    if tangents.holomorphic:
        parts = {(1, 0): rows[:, :, None]}
    else:
        x, turned = rows
        parts = {
            (1, 0): ((x + 1j * turned) / 2)[:, :, None],
            (0, 1): ((x - 1j * turned) / 2)[:, None],
        }
    return Jets(tangents.rows.shape[-2], frozenset({(1, 0), (0, 1)}), value, parts)


def _from_jets(jets: Jets) -> Tangents:
    hol, anti = jets.parts[1, 0][:, :, 0], jets.parts[0, 1][:, 0]
    rows = torch.stack([hol + anti, -1j * (hol - anti)])
    value = jets.value if jets.value.is_complex() else torch.complex(jets.value, 0 * jets.value)
    return Tangents(planes_of(value), planes_of(rows))
