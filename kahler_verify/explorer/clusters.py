"""What is fitted to codes: regions of k-means, and contours of locally adaptive normal laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from contourpy import contour_generator
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from kahler_verify.curves import STRAIGHT, Mesh, Nearby, Status
from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import CurveError, InputError
from kahler_verify.explorer.maps import grid
from kahler_verify.explorer.paths import COARSE
from kahler_verify.explorer.work import Job, interruptible
from kahler_verify.geometry import table_about
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics import AdaptiveLaw, AdaptiveNormalMixture, RiemannianKMeans

MOST = 12  # clusters or components
CODES = {2: 60, 3: 40}  # that are fitted, by dimension; of more, every so many
FEWEST = 24  # in more dimensions, where a geodesic takes a tenth of a second
SIDE = 81  # of the grids that regions and contours are drawn by
STEPS = 20
ITERATIONS = 25
PRECISION = 1e-3  # of rays, and of geodesics: contours are drawn to a hundredth
RAYS = 32
ATTEMPTS = 4  # at a fit, each without the codes that no geodesic reached
ROUGH = Nearby(tolerance=1e-3, levels=(Mesh(8, 4), Mesh(8, 8)))
MASSES = (0.5, 0.9, 0.99)  # that contours of a density hold
FINEST = 96  # nodes of the table for laws, along the codes' extent
Window = tuple[float, float, float, float]


def regions(
    metric: RiemannianMetric, codes: Tensor, count: int, window: Window, job: Job
) -> dict[str, Any]:
    """k-means by geodesic distances; in a plane with the borders between its centres."""
    x = _some(codes, count)
    job.tell({"progress": 0.0, "words": f"first centres among {len(x)} codes"})

    def progress(run: int, step: int, inertia: float) -> None:  # noqa: ARG001 - one run
        job.tell(
            {"progress": step / STEPS, "words": f"step {step}: mean d² {inertia / len(x):.4g}"}
        )

    fit = RiemannianKMeans(
        metric,
        count,
        random_state=0,
        max_iter=STEPS,
        tol=1e-3,
        solver=ROUGH if codes.shape[1] == 2 else COARSE,
        starts=STRAIGHT,
        progress=progress,
    ).fit(x)
    centres = torch.from_numpy(fit.cluster_centers_)
    found = {
        "kind": "kmeans",
        "centres": centres,
        "fitted": x,
        "labels": fit.labels_.tolist(),
        "inertia": fit.inertia_ / len(x),
        "settled": fit.converged_,
        "lines": [],
    }
    if codes.shape[1] == 2 and count > 1:
        job.tell({"progress": 1.0, "words": "borders"})
        found["lines"] = _borders(metric, centres, window)
    return found


def laws(
    metric: RiemannianMetric, codes: Tensor, count: int, window: Window, job: Job
) -> dict[str, Any]:
    """A mixture of locally adaptive normal laws, and contours of its density."""
    if codes.shape[1] != 2:
        raise InputError("cluster: contours of laws are drawn for latent planes alone")
    x = _some(codes, 3 * count)
    # A decoder saturates far from its codes: the space ends there, see the command fit-land.
    table = interruptible(table_about(metric, x, finest=FINEST), job.check)
    job.tell({"progress": 0.0, "words": f"first laws of {len(x)} codes"})

    def progress(n: int, likelihood: float) -> None:
        job.tell(
            {
                "progress": min(1.0, n / ITERATIONS),
                "words": f"iteration {n}: {likelihood:.4f} nats per code",
            }
        )

    fit = AdaptiveNormalMixture(
        table,
        count,
        rays=RAYS,
        precision=PRECISION,
        tolerance=1e-3,
        most_iterations=ITERATIONS,
        exact=False,
        progress=progress,
    )
    law, left_out = _without_unreached(fit, x, 3 * count, job)
    x = x[~left_out]
    density = law.quick().log_prob(grid(window, SIDE)).exp().nan_to_num(0).reshape(SIDE, SIDE)
    order = np.sort(density.numpy().ravel())[::-1]
    mass = np.cumsum(order) / max(float(order.sum()), 1e-300)
    lines = [
        {"level": level, "line": line.tolist()}
        for level in MASSES
        for line in _contours(density.numpy(), float(order[np.searchsorted(mass, level)]), window)
    ]
    return {
        "kind": "land",
        "centres": law.means,
        "weights": law.weights,
        "likelihood": float(law.log_prob(x).mean()),
        "left_out": int(left_out.sum()),
        "lines": lines,
    }


def _without_unreached(
    fit: AdaptiveNormalMixture, x: Tensor, least: int, job: Job
) -> tuple[AdaptiveLaw, Tensor]:
    """A law, and which codes [N] were left out for it, as no geodesic reached them."""
    left_out = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(ATTEMPTS - 1):
        try:
            return fit.fit(x[~left_out]).law_, left_out
        except CurveError as error:
            lost = torch.as_tensor(error.report) != Status.MINIMUM
            kept = (~left_out).nonzero().squeeze(-1)
            if lost.shape != kept.shape or not 0 < int(lost.sum()) <= len(kept) - least:
                raise
            left_out[kept[lost]] = True
            job.tell({"progress": 0.0, "words": f"again without {int(left_out.sum())} codes"})
    return fit.fit(x[~left_out]).law_, left_out


KINDS = {"kmeans": regions, "land": laws}


def _some(codes: Tensor, least: int) -> Tensor:
    """As many of the codes as are fitted, evenly through their order."""
    if len(codes) < least:
        raise InputError(f"components: expected at most what {len(codes)} codes can be fitted by")
    most = max(least, CODES.get(codes.shape[1], FEWEST))
    return codes[:: max(1, -(-len(codes) // most))].clone()


def _borders(metric: RiemannianMetric, centres: Tensor, window: Window) -> list[dict[str, Any]]:
    """Lines between the regions of points nearest to each centre, by shortest paths on a grid."""
    away = _grid_distances(metric, centres, window)
    lines = []
    for k in range(len(centres)):
        others = np.delete(away, k, 0).min(0)
        lines += [
            {"level": k, "line": line.tolist()}
            for line in _contours((away[k] - others).reshape(SIDE, SIDE), 0.0, window)
        ]
    return lines


def _grid_distances(metric: RiemannianMetric, centres: Tensor, window: Window) -> np.ndarray:
    """From each centre to all places [K, SIDE²], along edges in sixteen directions."""
    places = grid(window, SIDE)
    g = unchecked(metric).metric_matrix(places)
    index = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    edges = []
    for i, k in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)):
        first = index[: SIDE - i, max(0, -k) : SIDE - max(0, k)]
        second = index[i:, max(0, k) : SIDE + min(0, k)]
        edges.append(np.stack([first.ravel(), second.ravel()], -1))
    near, far = torch.from_numpy(np.concatenate(edges)).unbind(-1)
    step = places[far] - places[near]
    squared = torch.einsum("na,nac,nc->n", step, (g[near] + g[far]) / 2, step)
    lengths = squared.clamp_min(1e-300).sqrt().nan_to_num(torch.inf).numpy()
    known = np.isfinite(lengths)
    graph = csr_array(
        (lengths[known], (near.numpy()[known], far.numpy()[known])),
        shape=(len(places), len(places)),
    )
    nearest = torch.cdist(centres, places).argmin(-1).numpy()
    away: np.ndarray = dijkstra(graph, directed=False, indices=nearest)
    return np.where(np.isfinite(away), away, 1e300)


def _contours(values: np.ndarray, level: float, window: Window) -> Any:
    left, right, bottom, top = window
    sides = np.linspace(left, right, SIDE), np.linspace(bottom, top, SIDE)
    lines: Any = contour_generator(*sides, values).lines(level)
    return lines
