"""Densities fitted to points, and how they do on others: by the chart's Lebesgue measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import torch
from scipy.spatial import cKDTree
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from torch import Tensor

from experiments.land.codes import encoded, expected
from experiments.land.declaration import (
    CODES,
    DATA,
    EQUAL,
    FACTOR,
    FACTORS,
    FLOOR,
    NEIGHBOUR,
    PILOT_SEED,
    WIDTHS,
    Sizes,
    as_json,
)
from experiments.store import Json, remembered
from kahler_verify.cli.fit_land import named_points
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry import RiemannianMetric
from kahler_verify.statistics import AdaptiveNormalMixture, data_metric


def drawn(name: str, seed: int, sizes: Sizes) -> list[Tensor]:
    """Points to fit to, to validate with and to test with, [N, 2] each."""
    parts = [sizes.train, sizes.validation, sizes.test]
    return list(torch.from_numpy(named_points(name, seed, sum(parts))).split(parts))


def reach(x: Tensor, factor: float) -> float:
    """σ: so many times the mean distance of points to their NEIGHBOUR-th neighbour."""
    return factor * float(cKDTree(x.numpy()).query(x.numpy(), NEIGHBOUR + 1)[0][:, -1].mean())


def local(x: Tensor, factor: float) -> RiemannianMetric:
    """The data metric of points [N, 2], σ being so many times their neighbours' distance."""
    return data_metric(x, reach(x, factor))


def adaptive(
    x: Tensor, others: list[Tensor], metric: Callable[[], RiemannianMetric], k: int, sizes: Sizes
) -> Json:
    """A mixture of LANDs: mean log densities of the others, and how many had no geodesic."""
    fit = AdaptiveNormalMixture(
        metric(),
        k,
        rays=sizes.rays,
        precision=sizes.precision,
        tolerance=sizes.tolerance,
        most_iterations=sizes.most_iterations,
        exact=False,
    )
    try:
        law = fit.fit(x).law_
    except (InputError, CurveError) as error:
        return {"failure": str(error)[:200], "scores": [FLOOR] * len(others), "unreached": 0}
    law.raise_on_failure = False
    found = [law.log_prob(y) for y in others]
    return {
        "scores": [float(each.nan_to_num(FLOOR).clamp_min(FLOOR).mean()) for each in found],
        "unreached": int(sum((~each.isfinite()).sum() for each in found)),
        "iterations": len(fit.log_likelihoods_),
        "fans": fit.fans_,
    }


def gaussian(x: Tensor, others: list[Tensor], k: int, sizes: Sizes) -> Json:
    """A Gaussian mixture, by scikit-learn's EM."""
    fit = GaussianMixture(k, n_init=sizes.starts, random_state=0, reg_covar=1e-5)
    fit.fit(x.numpy())
    return {"scores": [float(fit.score(y.numpy())) for y in others]}


def kernels(x: Tensor, others: list[Tensor], width: float) -> Json:
    """Gaussian kernels at all points."""
    fit = KernelDensity(bandwidth=width).fit(x.numpy())
    return {"scores": [float(fit.score(y.numpy())) / len(y) for y in others]}


def compared(folder: Path, name: str, seed: int, sizes: Sizes) -> Json:
    """All candidates of a data set, and test scores of those that validate best.

    Each fit of a LAND is kept in ``folder``: who lets them have more components repeats none.
    """
    numbers = range(1, DATA[name][1] + 1)
    depends = {"sizes": asdict(sizes), "metric": [FACTOR, NEIGHBOUR], "floor": FLOOR}
    if name == CODES:
        x, *others = encoded(folder, seed, sizes)
        metric = cache(partial(expected, folder, seed, sizes))
        depends["metric"] = as_json(sizes)["codes"]
    else:
        x, *others = drawn(name, seed, sizes)
        metric = cache(partial(local, x, FACTOR))
    lands = {
        k: remembered(
            folder,
            f"fit-{name}-{seed}-{k}",
            depends,
            partial(adaptive, x, others, metric, k, sizes),
        )
        for k in numbers
    }
    mixtures = {k: gaussian(x, others, k, sizes) for k in range(1, sizes.gaussians + 1)}
    widths = {w: kernels(x, others, w) for w in WIDTHS}
    land, mixture, kernel = (
        max(each.items(), key=lambda item: item[1]["scores"][0])
        for each in (lands, mixtures, widths)
    )
    either = max(land[1], mixture[1], key=lambda each: each["scores"][0])
    return {
        "free": {
            "land": land[1]["scores"][1],
            "mixture": mixture[1]["scores"][1],
            "kernel": kernel[1]["scores"][1],
            "either": either["scores"][1],
        },
        "equal": {
            "land": [lands[k]["scores"][1] for k in EQUAL],
            "mixture": [mixtures[k]["scores"][1] for k in EQUAL],
        },
        "chosen": {"land": land[0], "mixture": mixture[0], "kernel": kernel[0]},
        "lands": {str(k): each for k, each in lands.items()},
        "mixtures": {str(k): each for k, each in mixtures.items()},
    }


def pilot(sizes: Sizes) -> Json:
    """Validated log densities of two components on half a circle, by factor of σ."""
    x, validation, _ = drawn("semicircle", PILOT_SEED, sizes)
    return {
        str(factor): adaptive(x, [validation], partial(local, x, factor), 2, sizes)["scores"][0]
        for factor in FACTORS
    }
