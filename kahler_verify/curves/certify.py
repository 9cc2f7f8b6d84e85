"""Reasons to trust a curve: residual, speed, second variation, and its gap one level finer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.elements import Mesh, gauss, rule
from kahler_verify.curves.elimination import assembled, negative_eigenvalues
from kahler_verify.curves.energy import Energy, by_pieces, energy_of
from kahler_verify.geometry.riemannian import RiemannianMetric

RESIDUALS = 3  # points of each element where the geodesic equation is looked at


class Measures(NamedTuple):
    """Of each curve, [...]: see :class:`CurveReport`; ``inside`` where the metric is one."""

    length: Tensor
    energy: Tensor
    residual: Tensor
    speed_variation: Tensor
    inside: Tensor


def measure(curve: Curve, points: int | None = None) -> Measures:
    """Length, energy, residual of the geodesic equation and constancy of speed, by quadrature.

    Args:
        curve: any.
        points: quadrature points in each element, degree + 2 by default; the residual is looked at
            in RESIDUALS of them.
    """
    metric, d = energy_of(curve.metric).metric, curve.nodes.shape[-1]
    z, v, weights = curve.quadrature(points)
    at = gauss(RESIDUALS)[0]
    place, velocity, bend = (
        curve.mesh.local(curve.nodes, at, order).reshape(-1, d) for order in range(3)
    )
    g = by_pieces(metric.metric_matrix, torch.cat([z.reshape(-1, d), place]))
    g, g_there = g[: -len(place)].reshape(*z.shape, d), g[-len(place) :]
    inside = torch.linalg.cholesky_ex(g)[1] == 0
    squared = _squared(v, g)
    speed = squared.sqrt()
    length = (speed * weights).sum(-1)
    scale = torch.where(length == 0, 1, length)
    turn = bend - by_pieces(metric.geodesic_acceleration, place, velocity)
    turn = _squared(turn, g_there).sqrt().reshape(*length.shape, -1)
    whole = inside.all(-1) & length.isfinite()
    energy, spread = (squared * weights).sum(-1) / 2, speed.amax(-1) - speed.amin(-1)
    length, energy, residual, variation = (
        torch.where(whole, x, torch.nan)
        for x in (length, energy, turn.amax(-1) / scale, spread / scale)
    )
    return Measures(length, energy, residual, variation, whole)


def _squared(v: Tensor, g: Tensor) -> Tensor:
    """g(v, v) of vectors [..., d], not below 0."""
    return (v * (g @ v.unsqueeze(-1)).squeeze(-1)).sum(-1).clamp_min(0)


class SecondVariation(NamedTuple):
    """The second derivative of the energy at curves [B].

    Attributes:
        morse_index: the number of negative eigenvalues; Morse's index for a geodesic.
        smallest: the least eigenvalue relative to ∫ |∇_ż w|² dt; 1 in a flat space, 1 - (L/π)² on
            the unit sphere, 0 where the end is conjugate to the beginning.
    """

    morse_index: Tensor
    smallest: Tensor


def second_variation(curve: Curve) -> SecondVariation:
    """Index and least eigenvalue of the second derivative, on the curve's own mesh.

    The index is Morse's where the curve is a geodesic: it counts conjugate points before the end.

    Source: Milnor, Morse Theory, 1963, § 15.
    """
    batch, (n, d) = curve.nodes.shape[:-2], curve.nodes.shape[-2:]
    nodes, mesh = curve.nodes.reshape(-1, n, d), curve.mesh
    energy = energy_of(curve.metric)
    with torch.no_grad():
        hessian = assembled(energy.expand(nodes, mesh).hessian, d)
        factor = torch.linalg.cholesky(assembled(_covariant_form(energy.metric, nodes, mesh), d))
        half = torch.linalg.solve_triangular(factor, hessian, upper=False)
        relative = torch.linalg.solve_triangular(factor, half.mT, upper=False)
        eigenvalues = torch.linalg.eigvalsh((relative + relative.mT) / 2)
    index = (eigenvalues < 0).sum(-1)
    return SecondVariation(index.reshape(batch), eigenvalues[..., 0].reshape(batch))


def _covariant_form(metric: RiemannianMetric, nodes: Tensor, mesh: Mesh) -> Tensor:
    """∫ g(∇_ż w, ∇_ż w) dt of w at the nodes, by elements; ∇_ż w = ẇ + Γ(ż, w)."""
    d, basis = nodes.shape[-1], rule(mesh.degree)
    slope, weights = (
        (basis.slope * mesh.elements).to(nodes),
        (basis.weights / mesh.elements).to(nodes),
    )
    own = nodes[:, mesh.index]
    velocity = slope @ (own - own[:, :, :1])
    g = metric.metric_matrix(own)
    symbols = torch.einsum("beqyxc,beqx->beqyc", metric.christoffels(own), velocity)
    rate = torch.einsum("qk,yc->qykc", slope, torch.eye(d).to(nodes))
    rate = rate.expand(*own.shape[:2], *rate.shape).clone()
    rate.diagonal(dim1=2, dim2=4).add_(symbols.permute(0, 1, 3, 4, 2))
    rate = rate.flatten(4)  # [B, E, q, d, (p + 1) d]
    return torch.einsum("beqxm,beqxy,beqyn,q->bemn", rate, g, rate, weights)


def morse_index(energy: Energy, nodes: Tensor, mesh: Mesh) -> Tensor:
    """The index alone, [B], by elimination: no eigenvalues of the whole matrix."""
    return negative_eigenvalues(energy.expand(nodes, mesh).hessian, nodes.shape[-1])
