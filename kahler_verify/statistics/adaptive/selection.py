"""Which metric, and how many components: by validated Lebesgue likelihood, a flat one among them.

Likelihoods by the volumes of two metrics cannot be compared; by the chart's measure they can, with
each other and with those of a Gaussian mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.constant import ConstantMetric
from kahler_verify.geometry.data_metrics import LocalVarianceMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.geometry.tabulated import TabulatedMetric
from kahler_verify.statistics.adaptive.law import AdaptiveLaw

FLAT = "flat"
SHARE = 2.2e-3  # ρ/(Nσ²): the only number besides σ that matters to a fit
REACH = 6.0  # standard deviations of the data that a table goes beyond them
STARTS = 5


class Candidate(NamedTuple):
    """A fit and how it validates.

    Attributes:
        metric: its name.
        components: K.
        training: mean log-likelihood by the chart's measure of the points that it was fitted to.
        validated: of the others; -inf where some of these cannot be reached.
        law: the fit; None where it failed.
        failure: why, where it failed.
    """

    metric: str
    components: int
    training: float
    validated: float
    law: AdaptiveLaw | None
    failure: str


def data_metric(x: Tensor, sigma: float, rho: float | None = None) -> RiemannianMetric:
    """LAND's metric of points x [N, d], read off a table in the plane.

    ρ is ``SHARE`` N σ² by default.
    """
    exact = LocalVarianceMetric(x, sigma, SHARE * len(x) * sigma**2 if rho is None else rho)
    if x.shape[1] != 2:
        return exact
    wide = max(REACH * sigma, 0.5 * float((x.amax(0) - x.amin(0)).max()))
    return TabulatedMetric(exact, x.amin(0) - wide, x.amax(0) + wide, sigma / 8)


def flat_law(x: Tensor, components: int, seed: int = 0) -> AdaptiveLaw:
    """What a fit in a flat metric is: a Gaussian mixture, by scikit-learn's EM."""
    fit = GaussianMixture(components, n_init=STARTS, random_state=seed, tol=1e-6).fit(x.numpy())
    d = x.shape[1]
    covariances = torch.from_numpy(fit.covariances_)
    return AdaptiveLaw(
        ConstantMetric(torch.eye(d, dtype=torch.float64)),
        torch.from_numpy(fit.means_),
        (covariances + covariances.mT) / 2,
        torch.from_numpy(fit.weights_),
        rays=max(32, 8 * d),
    )


def candidates(
    x: Tensor,
    validation: Tensor,
    metrics: Mapping[str, RiemannianMetric],
    components: Sequence[int],
    fit: Callable[[str, RiemannianMetric, int], AdaptiveLaw],
    *,
    seed: int = 0,
) -> list[Candidate]:
    """Fits of all metrics, and of a flat one, with all numbers of components; the best first.

    Args:
        x: points [N, d].
        validation: others [M, d].
        metrics: by name.
        components: numbers K.
        fit: how a metric's law is fitted, of its name, itself and K.
        seed: of the flat ones.

    Raises:
        InputError: validation is not of the same kind as x.
    """
    if validation.ndim != 2 or validation.shape[1:] != x.shape[1:] or not len(validation):
        raise InputError(
            f"validation: expected points [M, {x.shape[1]}], got {list(validation.shape)}"
        )
    found = []
    for k in components:
        mixture = flat_law(x, k, seed)
        normal = torch.distributions.MultivariateNormal(mixture.means, mixture.covariances)
        gaussian = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(mixture.weights), normal
        )
        training, validated = (float(gaussian.log_prob(y).mean()) for y in (x, validation))
        found.append(Candidate(FLAT, k, training, validated, mixture, ""))
        for name, metric in metrics.items():
            found.append(_judged(x, validation, name, metric, k, fit))
    return sorted(found, key=lambda each: each.validated, reverse=True)


def _judged(
    x: Tensor,
    validation: Tensor,
    name: str,
    metric: RiemannianMetric,
    k: int,
    fit: Callable[[str, RiemannianMetric, int], AdaptiveLaw],
) -> Candidate:
    try:
        law = fit(name, metric, k)
        training = float(law.log_prob(x).mean())
    except (InputError, CurveError) as error:
        return Candidate(name, k, -np.inf, -np.inf, None, str(error))
    try:
        validated = float(law.log_prob(validation).mean())
    except CurveError as error:
        return Candidate(name, k, training, -np.inf, law, str(error))
    return Candidate(name, k, training, validated, law, "")
