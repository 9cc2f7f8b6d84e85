"""Metrics with known normal laws, by their jets."""

import math

import torch
from torch import Tensor

from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.riemannian import RiemannianMetric

DOUBLE = torch.float64


class SpaceForm(RiemannianMetric):
    """4 I/(1 + k |z|²)²: the unit sphere in stereographic coordinates (k = 1), or the Poincaré
    ball (k = -1, NaN outside)."""

    def __init__(self, curvature: int, dimension: int = 2):
        super().__init__(dimension)
        self.curvature = curvature

    def jet(self, z: Tensor, order: int) -> MetricJet:
        k, one = self.curvature, torch.eye(z.shape[-1]).to(z)
        q = 1 + k * (z * z).sum(-1)
        q = torch.where(q > 0, q, torch.nan)
        g = 4 * q[:, None, None] ** -2 * one
        d = dd = None
        if order > 0:
            d = (-16 * k * q[:, None] ** -3 * z)[..., None, None] * one
        if order > 1:
            squares = z[:, :, None] * z[:, None]
            h = 96 * q[:, None, None] ** -4 * squares - 16 * k * q[:, None, None] ** -3 * one
            dd = h[..., None, None] * one
        return MetricJet(g, d, dd)


class Mercator(RiemannianMetric):
    """The unit sphere by longitude and latitude: diag(cos² y, 1)."""

    def __init__(self) -> None:
        super().__init__(2)

    def jet(self, z: Tensor, order: int) -> MetricJet:
        y = z[:, 1]
        zero = torch.zeros_like(y)
        inside = torch.where(y.abs() < math.pi / 2, y, torch.nan)
        g = torch.diag_embed(torch.stack([inside.cos() ** 2, zero + 1], -1))
        first = torch.diag_embed(torch.stack([-(2 * y).sin(), zero], -1))
        second = torch.diag_embed(torch.stack([-2 * (2 * y).cos(), zero], -1))
        none = torch.zeros_like(first)
        d = torch.stack([none, first], 1)
        row = torch.stack([none, none], 1)
        return MetricJet(
            g,
            d if order > 0 else None,
            torch.stack([row, torch.stack([none, second], 1)], 1) if order > 1 else None,
        )


class Flat(RiemannianMetric):
    """A constant metric."""

    def __init__(self, matrix: Tensor):
        super().__init__(len(matrix))
        self.matrix = matrix

    def jet(self, z: Tensor, order: int) -> MetricJet:
        n, d = z.shape
        return MetricJet(
            self.matrix.expand(n, d, d).clone(),
            z.new_zeros(n, d, d, d) if order > 0 else None,
            z.new_zeros(n, d, d, d, d) if order > 1 else None,
        )


class Halves(RiemannianMetric):
    """diag(1/x², 1): two flat half planes that are infinitely far from the line between them."""

    def __init__(self) -> None:
        super().__init__(2)

    def jet(self, z: Tensor, order: int) -> MetricJet:
        x = z[:, 0]
        zero = torch.zeros_like(x)
        g = torch.diag_embed(torch.stack([x**-2, zero + 1], -1))
        first = torch.diag_embed(torch.stack([-2 * x**-3, zero], -1))
        second = torch.diag_embed(torch.stack([6 * x**-4, zero], -1))
        none = torch.zeros_like(first)
        row = torch.stack([none, none], 1)
        return MetricJet(
            g,
            torch.stack([first, none], 1) if order > 0 else None,
            torch.stack([torch.stack([second, none], 1), row], 1) if order > 1 else None,
        )


def sphere_exp(mean: Tensor, v: Tensor, chart: SpaceForm | None = None) -> Tensor:
    """exp of tangent vectors v [N, 2], orthonormal components, in stereographic coordinates."""
    q = 1 + mean @ mean
    point = torch.cat([2 * mean, (2 - q)[None]]) / q
    # ∂x/∂z of the lift, orthonormal after a division by 2/q
    d = len(mean)
    frame = torch.cat(
        [
            torch.eye(d, dtype=DOUBLE) - 2 * mean[:, None] * mean / q,
            (-2 * mean / q)[None],
        ]
    )
    r = v.norm(dim=-1, keepdim=True)
    x = r.cos() * point + torch.sinc(r / math.pi) * (v @ frame.T)
    return x[:, :d] / (1 + x[:, d:])
