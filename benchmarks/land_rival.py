"""A LAND beside its author's own code: ``python -m benchmarks.land_rival``, some minutes.

geometric_ml (Arvanitidis) fits one law to ``benchmarks.land_semicircle``, N = 200, in the
same metric, with the settings of its own third example: boundary value problems by SciPy to a
tolerance of .1, 100 normal directions for each normaliser, steps of .1.  Then we do, with fans of
32 rays, and logarithms between them.  Both run on one thread; geodesics are counted, and both laws'
likelihoods are those by the right normaliser, from a fan of 256 rays.  It is not installed with us:

- ``git clone https://github.com/georgiosarvanitidis/geometric_ml``, that folder on PYTHONPATH
- ``python -m pip install "numpy<2.4"``
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.land_semicircle import RHO, SIGMA, semicircle
from experiments.store import write_json
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics import AdaptiveNormal, data_metric
from kahler_verify.statistics.adaptive.fans import fan
from kahler_verify.statistics.adaptive.logs import logs
from kahler_verify.statistics.adaptive.rays import orthonormal_frame

EXAMPLE = {"K": 1, "S": 100, "max_iter": 10, "tol": 0.1, "step_size": 0.1, "mixing_param": 0}
REACH, JUDGING, PANELS = 9.0, 256, 120  # of the fan that judges: reach, rays, and parts of these
RAYS, PRECISION = 32, 1e-4


def counted(module: Any, names: tuple[str, ...]) -> Counter[str]:
    """Calls of a module's functions from now on."""
    calls: Counter[str] = Counter()

    def follow(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **named)

        return called

    for name in names:
        setattr(module, name, follow(name, getattr(module, name)))
    return calls


def theirs(x: Tensor, metric: RiemannianMetric) -> dict[str, Any]:
    """Their law, the seconds and geodesics that it took, and its mean log-likelihood, by volume.

    Raises:
        ModuleNotFoundError: geometric_ml is not on PYTHONPATH.
    """
    from python.core import geodesics, geometric_methods, manifolds

    points = x.numpy()
    manifold = manifolds.LocalDiagPCA(data=points, sigma=SIGMA, rho=RHO)
    g = manifold.metric_tensor(points[:5].T)
    same = metric.metric_matrix(x[:5]).diagonal(dim1=1, dim2=2)  # but for a table, right to 1e-6
    np.testing.assert_allclose(g, same, rtol=1e-5)
    calls = counted(geodesics, ("compute_geodesic", "expmap"))
    np.random.seed(0)  # noqa: NPY002 - theirs
    settings = {**EXAMPLE, "means": points.mean(0)[None]}
    begin = time.process_time()
    with redirect_stdout(StringIO()):
        solver = geodesics.SolverBVP(NMax=100, tol=1e-1)
        law = geometric_methods.land_mixture_model(manifold, solver, points, settings)
    seconds = time.process_time() - begin
    found = torch.from_numpy(law["Logmaps"][0])
    lost = int(found.isnan().any(-1).sum())
    mean, covariance = torch.from_numpy(law["means"][0]), torch.from_numpy(law["Sigmas"][0])
    right, own = log_likelihood(metric, x, mean, covariance, by_length=True)
    return {
        "seconds": seconds,
        "geodesics": dict(calls),
        "mean": mean.tolist(),
        "points without a logarithm": lost,
        "log-likelihood": right,
        "log C": own,
        "log C, its own estimate": float(np.log(law["Consts"][0, 0])),
    }


def log_likelihood(
    metric: RiemannianMetric, x: Tensor, mean: Tensor, covariance: Tensor, *, by_length: bool
) -> tuple[float, float]:
    """The mean of log exp(-½ LᵀΣ⁻¹L)/C by volume, and log C, by one fan of 256 rays.

    L are tangent vectors in the chart; or with ``by_length`` vectors of the same directions, whose
    norms in the chart are the Riemannian lengths, as geometric_ml has them.
    """
    inverse = torch.linalg.inv(orthonormal_frame(metric, mean))
    own = covariance if by_length else inverse @ covariance @ inverse.mT
    own = (own + own.mT) / 2
    reach = max(REACH, 8 * float(torch.linalg.eigvalsh(own)[-1]) ** 0.5)
    made = fan(metric, mean, own, reach, rays=JUDGING, panels=PANELS, tolerance=1e-8)
    found = logs(made, x)

    def half_square(v: Tensor) -> Tensor:
        vector = v @ made.frame.mT
        if by_length:
            vector = vector * (v.norm(dim=-1) / vector.norm(dim=-1))[:, None]
        return (vector * torch.linalg.solve(covariance, vector.mT).mT).sum(-1) / 2

    constant = float((made.weights * (-half_square(made.v)).exp()).sum().log())
    return -float(half_square(found.v[found.found]).mean()) - constant, constant


def ours(x: Tensor, metric: RiemannianMetric) -> dict[str, Any]:
    """The same of our fit."""
    begin = time.process_time()
    fit = AdaptiveNormal(metric, rays=RAYS, precision=PRECISION, exact=False).fit(x)
    seconds = time.process_time() - begin
    mean, covariance = torch.from_numpy(fit.means_[0]), torch.from_numpy(fit.covariances_[0])
    right, constant = log_likelihood(metric, x, mean, covariance, by_length=False)
    return {
        "seconds": seconds,
        "geodesics": {"rays": RAYS * fit.fans_, "fans": fit.fans_, "single": fit.searched_},
        "mean": mean.tolist(),
        "log-likelihood": right,
        "log C": constant,
    }


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.land_rival", description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = semicircle()
    metric = data_metric(x, SIGMA, RHO)
    report = {"ours": ours(x, metric)}
    print(json.dumps(report), flush=True)
    report["geometric_ml"] = theirs(x, metric)
    print(json.dumps(report["geometric_ml"]), flush=True)
    if options.json is not None:
        write_json(options.json, report)


if __name__ == "__main__":
    main()
