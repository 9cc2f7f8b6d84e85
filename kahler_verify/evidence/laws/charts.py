"""Laws of metrics in other holomorphic charts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import jacrev

from kahler_verify.evidence.laws.drawn_metrics import Held, curved, makes_metric
from kahler_verify.evidence.laws.law import Law, Trial, agree, register
from kahler_verify.evidence.laws.readings import multiply_axes
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.geometry.potential import PotentialMetric

LAWS: dict[str, Law] = {}
law = partial(register, LAWS)


@dataclass(frozen=True)
class Chart:
    """The holomorphic chart z = f(w) = z₀ + A(w - w₀) + ½B(w - w₀, w - w₀)."""

    origin: Tensor
    image: Tensor
    slope: Tensor  # A[p, a] = ∂_a f_p
    bend: Tensor  # B[p, a, c] = ∂_a ∂_c f_p

    def __call__(self, w: Tensor) -> Tensor:
        """f(w) for w [..., d]."""
        u = w - self.origin
        return (
            self.image
            + u @ self.slope.mT
            + torch.einsum("pac,...a,...c->...p", self.bend, u, u) / 2
        )

    def pull(self, tensor: Tensor, kinds: str) -> Tensor:
        """A tensor at z₀ in the chart's frame; ``kinds`` has "h" or "a" for each index."""
        names = ["hol" if kind == "h" else "anti" for kind in kinds]
        return multiply_axes(tensor, names, {"hol": self.slope.mT, "anti": self.slope.mH})


def _chart(trial: Trial, z: Tensor) -> Chart:
    d = trial.d
    raw = trial.numbers(d, d, d)
    return Chart(trial.numbers(d), z, trial.invertible(d), 0.3 * (raw + raw.mT))


def _pulled_back(metric: Held, chart: Chart) -> Held:
    """The metric in the chart's coordinates w: its derivatives by the chain rule."""
    a, b, g = chart.slope, chart.bend, metric.g
    g_b = metric.g_d.transpose(1, 2).conj()  # ∂_ē g_{pq̄} = conj(∂_e g_{qp̄})
    g_d = chart.pull(metric.g_d, "hha") + torch.einsum("pca,qb,pq->cab", b, a.conj(), g)
    g_db = (
        chart.pull(metric.g_db, "haha")
        + torch.einsum("rc,pa,qeb,rpq->ceab", a, a, b.conj(), metric.g_d)
        + torch.einsum("pca,qb,se,spq->ceab", b, a.conj(), a.conj(), g_b)
        + torch.einsum("pca,qeb,pq->ceab", b, b.conj(), g)
    )
    return Held(chart.pull(g, "ha"), g_d, g_db, metric._geometry)


@law(
    "in a holomorphic chart log det g gains log |det J|², R and Ricci are tensors, scalar and "
    "sectional curvature are invariant",
    makes_metric,
)
def curvature_chart_free(trial: Trial) -> None:
    """The metric's derivatives pulled back by hand, then the geometry's kernels."""
    _, z, metric = curved(trial)
    chart = _chart(trial, z)
    other, w = _pulled_back(metric, chart), chart.origin
    size = max(metric.size, other.size)
    gain = 2 * torch.linalg.slogdet(chart.slope)[1]
    agree(other.log_det_hermitian(w), metric.log_det_hermitian(z) + gain, "log det g and its gain")
    r, ricci = metric.curvature_tensor(z), metric.ricci_tensor(z)
    agree(other.curvature_tensor(w), chart.pull(r, "haha"), "R in two charts", floor=size)
    agree(other.ricci_tensor(w), chart.pull(ricci, "ha"), "Ricci in two charts", floor=size)
    scalar = metric.scalar_curvature(z)
    agree(other.scalar_curvature(w), scalar, "scalar curvature in two charts", floor=size)
    v = trial.numbers(trial.d)
    there = other.holomorphic_sectional_curvature(w, v)
    here = metric.holomorphic_sectional_curvature(z, chart.slope @ v)
    agree(there, here, "sectional curvature in two charts", floor=size)


def _mixed_hessian(function: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """∂_a∂_b̄ of a real function at w [d], by reverse over reverse in real coordinates."""

    def real(u: Tensor) -> Tensor:
        x, y = u.chunk(2)
        return function(torch.complex(x, y))

    h = jacrev(jacrev(real))(torch.cat([w.real, w.imag]))
    d = len(w)
    xx, xy, yx, yy = h[:d, :d], h[:d, d:], h[d:, :d], h[d:, d:]
    return torch.complex(xx + yy, xy - yx) / 4


@law(
    "the metric of the composition with a holomorphic chart is the metric's pullback, and its "
    "Ricci tensor is -∂∂̄ log det of it",
    makes_metric,
)
def metric_chart_free(trial: Trial) -> None:
    """The function itself is composed: potentials by autograd, decoders as they are."""
    metric, z, held = curved(trial)
    chart = _chart(trial, z)
    w = chart.origin
    if isinstance(metric, FisherMetric):
        decoder = metric.decoder
        other = FisherMetric(lambda w: decoder(chart(w)), check=False)
        other._fisher = metric._fisher
        there, k_there = other._parts(w)
        k = metric._parts(z)[1]
        assert k is not None
        assert k_there is not None
        agree(k_there, chart.pull(k, "hh"), "k in two charts")
        agree(other._metric_d(w), _pulled_back(held, chart).g_d, "∂g in two charts")
    else:
        assert isinstance(metric, PotentialMetric | MixtureMetric)
        value = metric.value
        there = _mixed_hessian(lambda w: value(chart(w)), w)
        bent = _mixed_hessian(lambda w: metric.log_det_hermitian(chart(w)), w)
        pulled = chart.pull(held.ricci_tensor(z), "ha")
        agree(pulled, -bent, "Ricci and -∂∂̄ log det g", floor=held.size)
    agree(there, chart.pull(held.g, "ha"), "g in two charts")
