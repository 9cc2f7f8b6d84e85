"""Locally adaptive normal laws beside rivals: ``python -m benchmarks.land --json FILE``.

The normaliser's error against the number of geodesics, in the plane (the data metric of a
semicircle, N = 200) and on spheres of 5 and 10 dimensions; how many fans a fit takes; and what the
published updates end with, which lack det D exp in the normaliser and Hess ½d² in the gradient.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm, qmc
from torch import Tensor

from benchmarks.land_published import updates
from benchmarks.land_semicircle import MEAN_OF_THE_FIT, RHO, SIGMA, semicircle
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics import AdaptiveLaw, AdaptiveNormal, AdaptiveNormalMixture, data_metric
from kahler_verify.statistics.adaptive.component import Settings, component
from kahler_verify.statistics.adaptive.fans import Fan, fan
from kahler_verify.statistics.adaptive.precision import log_normaliser
from kahler_verify.statistics.adaptive.rays import orthonormal_frame, trace

DOUBLE = torch.float64


class Sphere(RiemannianMetric):
    """The unit sphere in stereographic coordinates."""

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        one = torch.eye(z.shape[-1]).to(z)
        q = 1 + (z * z).sum(-1)
        g = 4 * q[:, None, None] ** -2 * one
        d = dd = None
        if order > 0:
            d = (-16 * q[:, None] ** -3 * z)[..., None, None] * one
        if order > 1:
            squares = z[:, :, None] * z[:, None]
            bend = 96 * q[:, None, None] ** -4 * squares - 16 * q[:, None, None] ** -3 * one
            dd = bend[..., None, None] * one
        return MetricJet(g, d, dd)


# ---------------------------------------------------------------- the normaliser in the plane


def by_points(whole: Fan, v: Tensor) -> Tensor:
    """|det D exp(v)| of single geodesics v [M, 2], 0 where another is shorter, as the fan knows."""
    times = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    rays = trace(whole.metric, whole.mean, whole.frame, v, times, tolerance=1e-6, stop=False)
    state = rays.state
    volume = torch.linalg.det(torch.nan_to_num(state.spread[:, 1]))
    x, r = state.point[:, 1], v.norm(dim=-1)
    assert whole.patches is not None
    sound = x.isfinite().all(-1) & (volume > 0)
    least = r.clone()
    some = sound.nonzero().squeeze(-1)
    coframes = torch.linalg.inv(orthonormal_frame(whole.metric, x[some]))
    found = whole.patches.locate(x[some], coframes)
    least = least.scatter_reduce(0, some[found.point], found.radius, "amin")
    return torch.where(sound & (least > r * (1 - 1e-3)), volume, 0)


def plane(repeats: int) -> dict[str, Any]:
    """Relative errors of C with 16, 64 and 256 geodesics, root mean squares over repeats."""
    x = semicircle()
    metric = data_metric(x, SIGMA, RHO)
    fit = AdaptiveNormal(metric, precision=1e-7).fit(x)
    mean, covariance = torch.from_numpy(fit.means_[0]), torch.from_numpy(fit.covariances_[0])
    frame = orthonormal_frame(metric, mean)
    inverse = torch.linalg.inv(frame)
    white = inverse @ covariance @ inverse.mT
    white = (white + white.mT) / 2
    reach, precision = 9.0, torch.linalg.inv(white)

    def normaliser(rays: int, matrix: Tensor = white) -> float:
        made = fan(metric, mean, matrix, reach, rays=rays, panels=90, tolerance=1e-8)
        return float(log_normaliser(made.v, made.weights, precision)[0].exp())

    every = 1024
    whole = fan(metric, mean, white, reach, rays=every, panels=90, tolerance=1e-9)
    exact = float(log_normaliser(whole.v, whole.weights, precision)[0].exp())
    masses = whole.weights * (-(whole.v @ precision * whole.v).sum(-1) / 2).exp()
    ray = whole.place(whole.v).round().long() % every
    masses = torch.zeros(every, dtype=DOUBLE).index_add(0, ray, masses)
    cholesky = torch.linalg.cholesky(white)
    flat = 2 * math.pi * float(torch.linalg.det(cholesky))

    def mean_of(normal: np.ndarray) -> float:
        return flat * float(by_points(whole, torch.from_numpy(normal) @ cholesky.mT).mean())

    def root_mean_square(values: list[float]) -> float:
        return float(np.sqrt(np.mean([(value / exact - 1) ** 2 for value in values])))

    out: dict[str, Any] = {"C": exact, "Euclidean constant": flat, "errors": {}}
    for count in (16, 64, 256):
        side = math.isqrt(count)
        nodes, weights = np.polynomial.hermite_e.hermegauss(side)
        grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
        outer = torch.from_numpy(np.outer(weights, weights).ravel() / weights.sum() ** 2)
        volumes = by_points(whole, torch.from_numpy(grid) @ cholesky.mT)
        randoms = [np.random.default_rng(i) for i in range(repeats)]
        sobol = [qmc.Sobol(2, seed=i).random(count) for i in range(repeats)]
        out["errors"][count] = {
            "Monte Carlo": root_mean_square(
                [mean_of(r.standard_normal((count, 2))) for r in randoms]
            ),
            "quasi Monte Carlo": root_mean_square([mean_of(norm.ppf(s)) for s in sobol]),
            "Gauss-Hermite": abs(flat * float(outer @ volumes) / exact - 1),
            "rays": abs(normaliser(count) / exact - 1),
            **turned(masses.reshape(count, -1).sum(0) * (every // count) / exact - 1),
        }
    return out


def turned(errors: Tensor) -> dict[str, float]:
    """Of so many rays in all their orientations."""
    return {
        "rays, turned": float(errors.square().mean().sqrt()),
        "rays, turned, at most": float(errors.abs().max()),
    }


# ---------------------------------------------------------------- more dimensions


def spheres(repeats: int) -> dict[str, Any]:
    """Relative errors of C on S^d at 256 geodesics, Σ from .05 to .6, root mean squares."""
    out = {}
    for d in (5, 10):
        sizes = torch.linspace(0.05, 0.6, d, dtype=DOUBLE)
        scale = sizes.sqrt()
        normals = torch.quasirandom.SobolEngine(d, scramble=True, seed=99).draw(2**17, dtype=DOUBLE)
        exact = float(_volume(torch.special.ndtri(normals.clamp(1e-12, 1 - 1e-12)) * scale).mean())
        flat = (2 * math.pi) ** (d / 2) * float(scale.prod())
        found, simple, quasi = [], [], []
        for seed in range(repeats):
            mean = torch.full((1, d), 0.1, dtype=DOUBLE)
            chart = ((1 + float((mean**2).sum())) / 2) ** 2
            law = AdaptiveLaw(  # of two fans: the second is spread by what the first one saw
                Sphere(d),
                mean,
                chart * torch.diag(sizes)[None],
                rays=128,
                tolerance=1e-5,
                seed=seed,
            )
            found.append(float(law.log_normalisers.exp()) / flat)
            random = np.random.default_rng(seed)
            simple.append(
                float(_volume(torch.from_numpy(random.standard_normal((256, d))) * scale).mean())
            )
            points = norm.ppf(qmc.Sobol(d, seed=seed).random(256))
            quasi.append(float(_volume(torch.from_numpy(points) * scale).mean()))
        errors = {"Monte Carlo": simple, "quasi Monte Carlo": quasi, "rays": found}
        out[d] = {
            name: float(np.sqrt(np.mean((np.array(values) / exact - 1) ** 2)))
            for name, values in errors.items()
        }
    return out


def _volume(v: Tensor) -> Tensor:
    """|det D exp(v)| of the sphere inside its injectivity domain."""
    r = v.norm(dim=-1)
    return torch.where(r < math.pi, torch.sinc(r / math.pi) ** (v.shape[-1] - 1), 0)


# ---------------------------------------------------------------- geodesics for an error


def geodesics(repeats: int) -> dict[str, Any]:
    """How many geodesics the likelihood's error costs, by rays and as the widely used code has it.

    That code (geometric_ml, in its authors' Python) estimates C by geodesics in normal directions,
    one for each sample, and by the volume that the paper prints.  So is it done here, and with the
    right volume too.  The mean is that of the fit in ``updates``.
    """
    x = semicircle()
    metric = data_metric(x, SIGMA, RHO)
    mean = torch.tensor(MEAN_OF_THE_FIT, dtype=DOUBLE)
    share, settings = torch.ones(len(x), dtype=DOUBLE), Settings(rays=256, tolerance=1e-8)
    at = component(metric, x, share, mean, torch.eye(2, dtype=DOUBLE), settings, reach=9.0)
    white, whole = at.covariance, at.fan
    exact = float(at.log_normaliser)
    root = torch.linalg.cholesky(white)
    flat = math.log(2 * math.pi * float(torch.linalg.det(root)))

    def printed_volume(v: Tensor) -> Tensor:
        times = torch.tensor([0.0, 1.0], dtype=DOUBLE)
        rays = trace(metric, mean, whole.frame, v, times, tolerance=1e-6, stop=False)
        volume = metric.log_volume(rays.state.point[:, 1].nan_to_num(0)).exp()
        return torch.where(rays.left, 0, volume * torch.linalg.det(whole.frame))  # of chart's v

    def error(count: int, volume: Callable[[Tensor], Tensor]) -> float:
        found = []
        for seed in range(repeats):
            normal = np.random.default_rng(seed).standard_normal((count, 2))
            mean_volume = volume(torch.from_numpy(normal) @ root.mT).mean()
            found.append(flat + float(mean_volume.log()) - exact)
        return float(np.sqrt(np.mean(np.square(found))))

    out: dict[str, Any] = {"log C": exact, "error of log C, nats": {}}
    errors = out["error of log C, nats"]
    for count in (16, 32, 64):
        made = fan(metric, mean, white, 9.0, rays=count, panels=90, tolerance=1e-7)
        value = log_normaliser(made.v, made.weights, at.precision)[0]
        errors[f"rays, {count}"] = abs(float(value) - exact)
    for count in (256, 1024):
        errors[f"Monte Carlo, {count}"] = error(count, lambda v: by_points(whole, v))
        errors[f"Monte Carlo of the printed volume, {count}"] = error(count, printed_volume)
    constant = errors["Monte Carlo, 1024"] * 1024**0.5
    out["geodesics of Monte Carlo for the error of rays"] = {
        count: round((constant / errors[f"rays, {count}"]) ** 2) for count in (16, 32, 64)
    }
    return out


# ---------------------------------------------------------------- many points


def many(count: int, components: int, kept: Path | None) -> dict[str, Any]:
    """A mixture fitted to many points of five arcs, by logarithms that fans interpolate.

    It goes on from ``kept`` where it was interrupted, and then says no seconds.
    """
    random = np.random.default_rng(0)
    x = semicircle(0, count).numpy()
    centres = np.stack([2.6 * np.arange(components), random.standard_normal(components)], 1)
    x = torch.from_numpy(x + centres[np.arange(count) % components])
    resumed = kept is not None and kept.exists()
    begin, cpu = time.perf_counter(), time.process_time()
    metric = data_metric(x, SIGMA)
    table = time.perf_counter() - begin
    fit = AdaptiveNormalMixture(
        metric, components, precision=1e-6, tolerance=1e-4, exact=False, rays=96, kept=kept
    ).fit(x)
    return {
        "points": count,
        "components": components,
        "seconds": None if resumed else round(time.perf_counter() - begin, 1),
        "CPU seconds": None if resumed else round(time.process_time() - cpu, 1),
        "of these, for the table": round(table, 1),
        "table's error": metric.error if hasattr(metric, "error") else None,
        "iterations": len(fit.log_likelihoods_) - 1,
        "fans": fit.fans_,
        "searched": fit.searched_,
        "log-likelihood": fit.log_likelihoods_[-1],
        "unreached": fit.unreached_,
    }


PARTS = ("plane", "spheres", "updates", "geodesics", "many")


def main() -> None:
    """Run the parts and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kept", type=Path, help="of many: a file that a fit goes on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    known = arguments.json is not None and arguments.json.exists()
    found: dict[str, Any] = json.loads(arguments.json.read_text()) if known else {}
    found["command"] = "python -m benchmarks.land --json benchmarks/results/land.json"
    runs = {
        "plane": lambda: plane(arguments.repeats),
        "spheres": lambda: spheres(arguments.repeats),
        "updates": updates,
        "geodesics": lambda: geodesics(arguments.repeats),
        "many": lambda: many(arguments.points, 5, arguments.kept),
    }
    for part in arguments.parts:
        found[part] = runs[part]()
        print(part, json.dumps(found[part], indent=1), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
