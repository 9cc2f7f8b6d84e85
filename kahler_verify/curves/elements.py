"""Piecewise polynomials in time: Gauss-Lobatto-Legendre nodes on equal elements of [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

# what is kept is ordinary, even where it is first made under inference mode
_ordinary = torch.inference_mode(False)


class Rule(NamedTuple):
    """Polynomials of one degree p on [0, 1], by their values at p + 1 nodes; double precision.

    Attributes:
        nodes: Gauss-Lobatto-Legendre nodes, 0 and 1 among them.
        weights: of the quadrature at the nodes, exact to degree 2p - 1.
        slope: derivatives at the nodes of the polynomial, [at, of].
        barycentric: weights of barycentric interpolation.
    """

    nodes: Tensor
    weights: Tensor
    slope: Tensor
    barycentric: Tensor


@cache
@_ordinary
def rule(degree: int) -> Rule:
    """The nodes and matrices of a degree.

    Source: Canuto, Hussaini, Quarteroni, Zang, Spectral Methods, 2006, ch. 2 and 3.
    """
    last = np.zeros(degree + 1)
    last[degree] = 1
    first, second = legendre.legder(last), legendre.legder(last, 2)
    x = np.concatenate([[-1.0], np.sort(legendre.legroots(first).real), [1.0]])
    for _ in range(3):  # the roots of a companion matrix are right to a few digits only
        x[1:-1] -= legendre.legval(x[1:-1], first) / legendre.legval(x[1:-1], second)
    weights = 2 / (degree * (degree + 1) * legendre.legval(x, last) ** 2)
    apart = x[:, None] - x[None, :]
    np.fill_diagonal(apart, 1)
    barycentric = 1 / apart.prod(1)
    slope = barycentric[None, :] / barycentric[:, None] / apart
    np.fill_diagonal(slope, 0)
    np.fill_diagonal(slope, -slope.sum(1))
    parts = ((x + 1) / 2, weights / 2, 2 * slope, barycentric)
    return Rule(*[torch.from_numpy(part) for part in parts])


def interpolation(degree: int, times: Tensor) -> Tensor:
    """Values at ``times`` [T] in [0, 1] of the polynomials that are 1 at one node, [T, p + 1]."""
    nodes, _, _, barycentric = rule(degree)
    apart = times[:, None] - nodes
    hit = apart == 0
    parts = barycentric / torch.where(hit, 1, apart)
    values = parts / parts.sum(1, keepdim=True)
    return torch.where(hit.any(1, keepdim=True), hit.to(values), values)


@dataclass(frozen=True)
class Mesh:
    """Equal elements of [0, 1], with a polynomial on each; neighbours share their end node.

    Attributes:
        elements: how many.
        degree: of the polynomials, at least 1.
    """

    elements: int
    degree: int

    @property
    def size(self) -> int:
        """The number of nodes."""
        return self.elements * self.degree + 1

    @property
    def times(self) -> Tensor:
        """Where the nodes are, [n]."""
        starts = torch.arange(self.elements, dtype=torch.float64)[:, None]
        inner = (starts + rule(self.degree).nodes[:-1]).reshape(-1) / self.elements
        return torch.cat([inner, inner.new_ones(1)])

    @property
    def index(self) -> Tensor:
        """The nodes of each element, [E, p + 1]."""
        return _index(self.elements, self.degree)

    @property
    def stiffness(self) -> Tensor:
        """∫ ẋ² dt over one element is x K x, of values x at its nodes; [p + 1, p + 1]."""
        return _stiffness(self.elements, self.degree)

    def local(self, nodes: Tensor, inside: Tensor, derivative: int = 0) -> Tensor:
        """Values at the same ``inside`` [m] of every element, [..., E, m, d].

        Args:
            nodes: values at the nodes, [..., n, d].
            inside: times within an element, from 0 to 1.
            derivative: of this order by time; at shared nodes from the element's own side.
        """
        own = nodes[..., self.index.to(nodes.device), :]
        return self._apply(self._matrix(inside, derivative).to(nodes), own, derivative)

    def _matrix(self, inside: Tensor, derivative: int) -> Tensor:
        """Values or derivatives at times within an element, of the values at its nodes."""
        slope = rule(self.degree).slope * self.elements
        return interpolation(self.degree, inside) @ torch.linalg.matrix_power(slope, derivative)

    @staticmethod
    def _apply(matrix: Tensor, own: Tensor, derivative: int) -> Tensor:
        """The matrix times values; what stands still has velocity 0, with no rounding."""
        return matrix @ (own - own[..., :1, :] if derivative else own)

    def evaluate(self, nodes: Tensor, times: Tensor, derivative: int = 0) -> Tensor:
        """Values at ``times`` [T] in [0, 1], or derivatives by time, [..., T, d]."""
        element = (times * self.elements).floor().clamp(0, self.elements - 1)
        matrix = self._matrix(times * self.elements - element, derivative).to(nodes)
        own = nodes[..., self.index[element.long()].to(nodes.device), :]  # [..., T, p + 1, d]
        return self._apply(matrix.unsqueeze(-2), own, derivative).squeeze(-2)

    def refined(self, nodes: Tensor, finer: Mesh) -> Tensor:
        """The same curve on a mesh that it fits in exactly, or interpolated on another."""
        if finer == self:
            return nodes
        out = self.evaluate(nodes, finer.times)
        out[..., 0, :], out[..., -1, :] = nodes[..., 0, :], nodes[..., -1, :]
        return out


@cache
@_ordinary
def _index(elements: int, degree: int) -> Tensor:
    starts = torch.arange(elements)[:, None] * degree
    return starts + torch.arange(degree + 1)


@cache
@_ordinary
def _stiffness(elements: int, degree: int) -> Tensor:
    _, weights, slope, _ = rule(degree)
    return slope.mT @ (weights[:, None] * slope) * elements


@cache
@_ordinary
def gauss(points: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    x, weights = legendre.leggauss(points)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(weights / 2)
