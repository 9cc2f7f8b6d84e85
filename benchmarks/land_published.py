"""The published updates of locally adaptive normal laws, and what they end with.

They lack det D exp in the normaliser and Hess ½d² in the gradient.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import root
from torch import Tensor

from benchmarks.land_semicircle import RHO, SIGMA, semicircle
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics import AdaptiveNormal, data_metric
from kahler_verify.statistics.adaptive.component import Settings, component
from kahler_verify.statistics.adaptive.fans import Fan, fan, interpolated
from kahler_verify.statistics.adaptive.logs import logs
from kahler_verify.statistics.adaptive.precision import fit_precision, log_normaliser

__all__ = ["Ended", "published", "updates"]

DOUBLE = torch.float64


class Ended(NamedTuple):
    """Where updates end.

    Attributes:
        mean: μ, [2].
        loss: of the total log-likelihood, in nats, against the maximum.
        residual: of the updates' own equation.
    """

    mean: list[float]
    loss: float
    residual: float


def printed_nodes(made: Fan, metric: RiemannianMetric) -> tuple[Tensor, Tensor]:
    """Nodes with the weights √det M(exp v) dv that the paper prints, without det D exp."""
    rays = made.rays
    here = rays.states[:, 1:].isfinite().all(-1) & (rays.times[:, 1:] <= made.ends[:, None])
    row, panel = here.nonzero().unbind(-1)
    inside, weights = np.polynomial.legendre.leggauss(4)
    row, panel = (i.repeat_interleave(4) for i in (row, panel))
    s = torch.from_numpy((inside + 1) / 2).repeat(len(row) // 4)
    span = rays.times[row, panel + 1] - rays.times[row, panel]
    r = rays.times[row, panel] + s * span
    x = interpolated(rays, row, panel, s)[2]
    u = rays.directions
    size = torch.linalg.solve_triangular(made.root, u.mT, upper=False).norm(dim=0)
    angular = 2 * math.pi / len(u) * torch.linalg.det(made.root) * size**2
    flat = torch.from_numpy(weights / 2).repeat(len(row) // 4) * span * r * angular[row]
    return r[:, None] * u[row], flat * metric.log_volume(x).exp()


def published(
    metric: RiemannianMetric,
    x: Tensor,
    start: Tensor,
    best: float,
    *,
    printed: bool,
    settings: Settings,
    reach: float,
) -> Ended:
    """A fixed point of the published updates, mean Log = E[v] with E[vvᵀ] = S.

    Args:
        metric: of the plane.
        x: points [N, 2].
        start: the maximum of the likelihood.
        best: the mean log-likelihood there, by the volume.
        printed: with the normaliser as printed; else with the right one.
        settings: of fans.
        reach: of fans.
    """
    share = torch.ones(len(x), dtype=DOUBLE)
    covariance = component(
        metric, x, share, start, torch.eye(2, dtype=DOUBLE), settings, reach=reach
    )
    spread, last = covariance.covariance, [0.0]

    def residual(at: np.ndarray) -> np.ndarray:
        made = fan(
            metric,
            torch.from_numpy(at),
            spread,
            reach,
            rays=settings.rays,
            panels=60,
            tolerance=1e-6,
        )
        found = logs(made, x, exact=False)
        v = torch.where(found.found[:, None], found.v, 0)
        moments = v.mT @ v / len(x)
        nodes = printed_nodes(made, metric) if printed else (made.v, made.weights)
        fit = fit_precision(*nodes, moments)
        right = log_normaliser(made.v, made.weights, fit.precision)[0]
        last[0] = float(-(fit.precision * moments).sum() / 2 - right)
        gap = v.mean(0) - fit.probabilities @ nodes[0]
        return (made.frame @ gap).numpy()

    found = root(residual, start.numpy(), method="hybr", options={"maxfev": 40, "xtol": 1e-5})
    left = float(np.linalg.norm(residual(found.x)))
    return Ended(found.x.tolist(), len(x) * (best - last[0]), left)


def updates() -> dict[str, Any]:
    """What the published updates lose on the semicircle, N = 200, and what the fit took."""
    x = semicircle()
    metric = data_metric(x, SIGMA, RHO)
    begin = time.perf_counter()
    fit = AdaptiveNormal(metric, precision=1e-7).fit(x)
    spent = time.perf_counter() - begin
    best = fit.log_likelihoods_[-1] - float(metric.log_volume(x).mean())
    settings = Settings(rays=96, tolerance=1e-6, exact=False)
    out: dict[str, Any] = {
        "fit": {
            "fans": fit.fans_,
            "seconds": round(spent, 1),
            "iterations": len(fit.log_likelihoods_) - 1,
            "log-likelihood, volume": best,
            "mean": fit.means_[0].tolist(),
        }
    }
    for name, printed in (("as printed", True), ("right normaliser, published gradient", False)):
        ended = published(
            metric,
            x,
            torch.from_numpy(fit.means_[0]),
            best,
            printed=printed,
            settings=settings,
            reach=9.0,
        )
        out[name] = ended._asdict()
    return out
