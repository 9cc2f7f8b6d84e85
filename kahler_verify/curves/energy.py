"""Discrete energies of curves, with exact first and second derivatives by the nodes.

E(z) = ½ ∫ g(ż, ż) dt.  A pull-back's energy is that of the image curve, f(z) interpolated at the
nodes: second derivatives of f are enough for its Hessian.  Any other metric's is a quadrature at
the nodes, and takes the metric's second derivatives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kahler_verify.curves.elements import Mesh, rule
from kahler_verify.curves.regularised import WithCoordinates
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.jets import propagate

POINTS_AT_ONCE = 512  # whose jets stay in the processor's cache: up to three times faster
# Up to this d, jets of second order are faster than two backward passes (d = 2: 18 against 24 µs a
# point of a tanh decoder, d = 8: 128 against 57).
SMALL = 3


class Expansion(NamedTuple):
    """An energy to second order at nodes [B, n, d]; derivatives by elements, to be added up.

    Attributes:
        value: [B].
        gradient: [B, E, (p + 1) d].
        hessian: [B, E, (p + 1) d, (p + 1) d].
        gauss_newton: a part of the Hessian that is positive semidefinite, of the same shape.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    gauss_newton: Tensor

    def chosen(self, rows: Tensor) -> Expansion:
        """Those of the batch where ``rows`` [B] is true."""
        if bool(rows.all()):
            return self
        return Expansion(*[part[rows] for part in self])

    def where(self, condition: Tensor, other: Expansion) -> Expansion:
        """This one where the condition [B] holds, and the other elsewhere."""
        if bool(condition.all()):
            return self
        pairs = zip(self, other, strict=True)
        shaped = [(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs]
        return Expansion(*[torch.where(*some) for some in shaped])


class Energy(Protocol):
    """The energy of curves on a mesh."""

    @property
    def metric(self) -> RiemannianMetric:
        """Whose energy it is; it answers NaN where it is not defined."""

    def value(self, nodes: Tensor, mesh: Mesh) -> Tensor:
        """E [B] of nodes [B, n, d]; NaN where a node is outside the metric's domain."""

    def expand(self, nodes: Tensor, mesh: Mesh) -> Expansion:
        """E with its derivatives."""

    def pairs_at_once(self, nodes: Tensor) -> int:
        """How many curves like these fit the metric's memory budget."""


def unchecked(metric: RiemannianMetric) -> RiemannianMetric:
    """The same metric, but NaN where its input is bad: one point must not stop a batch."""
    quiet = copy.copy(metric)
    quiet.validate_args = False
    return quiet


def by_pieces(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """``function`` of a few rows [N, ...] at a time, so that its work stays in the cache."""
    pieces = zip(*[x.split(POINTS_AT_ONCE) for x in rows], strict=True)
    return torch.cat([function(*piece) for piece in pieces])


def energy_of(metric: RiemannianMetric) -> Energy:
    """The discrete energy that suits a metric."""
    quiet = unchecked(metric)
    if isinstance(quiet, PulledBackMetric):
        return ImageEnergy(reduced(quiet))
    return MetricEnergy(quiet)


def reduced(metric: PulledBackMetric) -> PulledBackMetric:
    """The same metric with fewer outputs, where a network ends in a linear layer W h + c, D > h.

    With W = Q R, |W h| = |R h|: the image lies in an affine space of as many dimensions as h has.
    Weights that are to be differentiated stay as they are.  A floor stays beside fewer outputs.
    """
    if type(metric) is not PulledBackMetric:
        return metric
    function = _with_fewer_outputs(metric.function)
    if function is metric.function:
        return metric
    smaller = copy.copy(metric)
    smaller.function = function
    smaller._outputs = 0
    return smaller


def _with_fewer_outputs(network: Any) -> Any:
    """A network whose squared velocities are the same; itself where nothing is gained."""
    hooked = isinstance(network, nn.Module) and bool(network._forward_hooks)
    if type(network) is WithCoordinates and not hooked:
        inner = _with_fewer_outputs(network.function)
        return network if inner is network.function else WithCoordinates(inner, network.scale)
    last = network[-1] if type(network) is nn.Sequential and len(network) else None
    if type(last) is not nn.Linear or last.out_features <= last.in_features:
        return network
    plain = not (hooked or last._forward_hooks or last._forward_pre_hooks)
    if not plain or (torch.is_grad_enabled() and last.weight.requires_grad):
        return network
    triangle = nn.Linear(last.in_features, last.in_features, bias=False, device="meta")
    factor = torch.linalg.qr(last.weight.detach(), mode="r")[1]
    triangle.weight = nn.Parameter(factor, requires_grad=False)
    return nn.Sequential(*list(network)[:-1], triangle)


class MetricEnergy:
    """Quadrature of ½ g(ż, ż) at the nodes; see :class:`Energy`."""

    def __init__(self, metric: RiemannianMetric):
        self.metric = metric

    def pairs_at_once(self, nodes: Tensor) -> int:
        """See :class:`Energy`."""
        return max(1, self.metric._points_at_once(nodes.flatten(0, 1), 2) // nodes.shape[1])

    def value(self, nodes: Tensor, mesh: Mesh) -> Tensor:
        """See :class:`Energy`."""
        velocity, weights, _ = self._velocity(nodes, mesh)
        g = self.metric.jet(nodes.flatten(0, 1), 0).g.unflatten(0, nodes.shape[:2])
        g = g[:, mesh.index]
        return (torch.einsum("beqa,beqac,beqc->beq", velocity, g, velocity) * weights).sum(
            (1, 2)
        ) / 2

    def expand(self, nodes: Tensor, mesh: Mesh) -> Expansion:
        """See :class:`Energy`.

        With L = ½ g(v, v): L_z = ½ ∂g(v, v), L_v = g v, and L_zz, L_zv, L_vv alike.
        """
        count, size = len(nodes), (mesh.degree + 1) * nodes.shape[-1]
        velocity, weights, slope = self._velocity(nodes, mesh)
        jets = [self.metric.jet(z, 2) for z in nodes.flatten(0, 1).split(POINTS_AT_ONCE)]
        g, g_d, g_dd = (
            torch.cat(parts).unflatten(0, nodes.shape[:2])[:, mesh.index]
            for parts in zip(*jets, strict=True)
        )
        momentum = torch.einsum("beqac,beqc->beqa", g, velocity)
        turn = torch.einsum("beqcax,beqx->beqca", g_d, velocity)  # L_zv as [c, a]
        force = torch.einsum("beqca,beqa->beqc", turn, velocity) / 2
        bend = torch.einsum("beqcfax,beqa,beqx->beqcf", g_dd, velocity, velocity) / 2
        value = (momentum * velocity).sum(-1)
        along = weights[:, None] * momentum
        gradient = weights[:, None] * force + torch.einsum("qk,beqa->beka", slope, along)
        products = weights[:, None, None] * slope[:, :, None] * slope[:, None, :]
        main = torch.einsum("qjk,beqac->bejakc", products, g)
        mixed = torch.einsum("qk,beqca->beqcka", weights[:, None] * slope, turn)
        hessian = main + mixed + mixed.permute(0, 1, 4, 5, 2, 3)
        hessian.diagonal(dim1=2, dim2=4).add_(
            (weights[:, None, None] * bend).permute(0, 1, 3, 4, 2)
        )
        shape = (count, mesh.elements, size, size)
        return Expansion(
            (value * weights).sum((1, 2)) / 2,
            gradient.flatten(2),
            hessian.reshape(shape),
            main.reshape(shape),
        )

    @staticmethod
    def _velocity(nodes: Tensor, mesh: Mesh) -> tuple[Tensor, Tensor, Tensor]:
        basis = rule(mesh.degree)
        slope = (basis.slope * mesh.elements).to(nodes)
        own = nodes[:, mesh.index]
        return slope @ (own - own[:, :, :1]), (basis.weights / mesh.elements).to(nodes), slope


class ImageEnergy:
    """½ ∫ |ẋ|² of x = f(z), interpolated at the nodes; see :class:`Energy`."""

    def __init__(self, metric: PulledBackMetric):
        self.metric = metric

    def pairs_at_once(self, nodes: Tensor) -> int:
        """See :class:`Energy`."""
        return max(1, self.metric._points_at_once(nodes.flatten(0, 1), 1) // nodes.shape[1])

    def value(self, nodes: Tensor, mesh: Mesh) -> Tensor:
        """See :class:`Energy`."""
        x = self.metric.embed(nodes.flatten(0, 1)).unflatten(0, nodes.shape[:2])
        x = self._relative(x, mesh)
        return (x * (mesh.stiffness.to(nodes) @ x)).sum((1, 2, 3)) / 2

    def expand(self, nodes: Tensor, mesh: Mesh) -> Expansion:
        """See :class:`Energy`."""
        (count, n, d), size = nodes.shape, (mesh.degree + 1) * nodes.shape[-1]
        stiffness = mesh.stiffness.to(nodes)
        points = nodes.flatten(0, 1)
        small = d <= SMALL
        jet = propagate(self.metric.embed, points, 2 if small else 1, chunk_size=POINTS_AT_ONCE)
        x, x_d = jet.value.unflatten(0, (count, n)), jet.d.unflatten(0, (count, n))
        x = self._relative(x, mesh)
        pull = stiffness @ x  # [B, E, q, D]
        value = (x * pull).sum((1, 2, 3)) / 2
        x_d = x_d[:, mesh.index]
        gradient = (x_d @ pull.unsqueeze(-1)).squeeze(-1)
        rows = x_d.reshape(count * mesh.elements, size, -1)
        gram = torch.bmm(rows, rows.mT).view(-1, mesh.degree + 1, d, mesh.degree + 1, d)
        main = (gram * stiffness[:, None, :, None]).view(count, mesh.elements, size, size)
        hessian = main.clone()
        # at a shared node the two elements' pulls add up before they meet x_dd
        whole = torch.zeros(count, n, pull.shape[-1], dtype=x.dtype, device=x.device)
        whole.index_add_(1, mesh.index.flatten().to(x.device), pull.flatten(1, 2))
        covector = whole.flatten(0, 1)
        if small:
            bend = (jet.dd @ covector[:, None, :, None]).squeeze(-1)
        else:
            bend = self._bend(points, covector)
        own = bend.reshape(nodes.shape[0], n, d, d)[:, 1:].unflatten(
            1, (mesh.elements, mesh.degree)
        )
        blocks = hessian.view(count, mesh.elements, mesh.degree + 1, d, mesh.degree + 1, d)
        blocks.diagonal(dim1=2, dim2=4)[..., 1:].add_(own.permute(0, 1, 3, 4, 2))
        return Expansion(value, gradient.flatten(2), hessian, main)

    def _bend(self, points: Tensor, covector: Tensor) -> Tensor:
        """⟨c, ∂∂f⟩ [B, d, d] of covectors c [B, D], by differentiating ⟨c, f⟩ backwards twice."""

        def bend(z: Tensor, c: Tensor) -> Tensor:
            z = z.detach().requires_grad_()
            with torch.enable_grad():
                along = (self.metric.embed(z) * c.detach()).sum()
                slope = torch.autograd.grad(along, z, create_graph=True)[0]
                if not slope.requires_grad:  # f is linear
                    return z.new_zeros(*z.shape, z.shape[-1])
                sums = [part.sum() for part in slope.unbind(-1)]
                rows = [torch.autograd.grad(one, z, retain_graph=True)[0] for one in sums]
            return torch.stack(rows, 1)

        return by_pieces(bend, points, covector)

    @staticmethod
    def _relative(x: Tensor, mesh: Mesh) -> Tensor:
        """Values by elements, from each element's first node on: the rest is lost to rounding."""
        own = x[:, mesh.index]
        return own - own[:, :, :1]
