"""Locally adaptive normal laws fitted by maximum likelihood, in scikit-learn's manner.

The mean climbs the exact gradient of its profile likelihood; mixtures are fitted by a generalised
EM algorithm whose likelihood never falls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from kahler_verify.curves.energy import unchecked
from kahler_verify.curves.smoothness import warn_of_kinks
from kahler_verify.errors import InputError, PropertyViolation
from kahler_verify.files import require_writable, write_bytes
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.jets.kinks import AT_C1
from kahler_verify.statistics.adaptive.component import UNSEEN, Settings, fewest_rays
from kahler_verify.statistics.adaptive.expectation import ExpectationMaximisation
from kahler_verify.statistics.adaptive.law import AdaptiveLaw
from kahler_verify.statistics.estimators import points

SMALL = 1e-3  # of the tolerance: weights that are lost unseen change no fit by more
FALL = 1e-7  # of the mean log-likelihood, that geodesics' tolerance may make it fall by


class AdaptiveNormalMixture(DensityMixin, BaseEstimator):
    """A mixture of locally adaptive normal laws.

    Args:
        metric: of the latent space, on R^d.
        components: K.
        rays: geodesics in each fan.
        periods: of the coordinates, 0 where there is none.
        tolerance: of the mean log-likelihood's gain, below which a fit ends.
        precision: of geodesics and logarithms.
        most_iterations: of the fit.
        exact: shoot a geodesic to every point, for exact logarithms; without it those that fans
            interpolate are taken (d = 2), in a small part of the time where points are many.
        seed: of starts, and of directions in three or more dimensions.
        progress: called after each iteration with its number and the mean log-likelihood by the
            chart's measure.
        kept: a file (.npz) that each iteration is kept in: a fit of the same data in the same
            metric goes on from it.

    Attributes:
        means_: [K, d].
        covariances_: of tangent vectors in the chart's coordinates, [K, d, d].
        weights_: [K].
        log_likelihoods_: mean log-likelihoods by the chart's measure, of all iterations.
        converged_: whether the last gain was below the tolerance.
        fans_: how many fans of geodesics were made.
        evaluations_: of the metric.
        searched_: points that no fan had, and that were searched for one by one.
        unreached_: for each component, points beyond its fan's reach, that count as 0 there.
        law_: the :class:`AdaptiveLaw`.

    Source: Arvanitidis, Hansen, Hauberg, arXiv 1606.02518; gradients are right here.
    """

    def __init__(
        self,
        metric: RiemannianMetric,
        components: int = 2,
        *,
        rays: int = 128,
        periods: Sequence[float] = (),
        tolerance: float = 1e-6,
        precision: float = 1e-8,
        most_iterations: int = 100,
        exact: bool = True,
        seed: int = 0,
        progress: Callable[[int, float], None] | None = None,
        kept: str | Path | None = None,
    ):
        self.metric = metric
        self.components = components
        self.rays = rays
        self.periods = periods
        self.tolerance = tolerance
        self.precision = precision
        self.most_iterations = most_iterations
        self.exact = exact
        self.seed = seed
        self.progress = progress
        self.kept = kept

    # ------------------------------------------------------------- fitting
    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Fit to points [N, d], a tensor or an array.

        Raises:
            InputError: points are malformed or too few, or no law of this kind fits them best.
            CurveError: a point has no geodesic from any component; ``report`` has the status of
                each.
        """
        self._check_metric()
        x = self._checked(X)
        self._check_settings(x)
        unseen = min(max(UNSEEN, SMALL * self.tolerance), FALL)
        settings = Settings(
            self.rays, tuple(self.periods), self.precision, self.seed, bool(self.exact), unseen
        )
        with torch.no_grad():
            volume = float(self.metric.log_volume(x).mean())
            fit = ExpectationMaximisation(
                self.metric, x, self.components, settings, self.tolerance / 10
            )
            name = self._fingerprint(x)
            history = self._resumed(fit, name)
            if not history:
                fit.begin(self.seed)
            self.converged_ = False
            for n in range(len(history), self.most_iterations + 1):
                fit.expect()
                history.append(fit.likelihood + volume)
                self._keep(fit, name, history)
                if self.progress is not None:
                    self.progress(n, history[-1])
                gain = history[-1] - history[-2] if n else np.inf
                if gain < -FALL * (1 + abs(history[-1])):
                    raise PropertyViolation(
                        f"the mean log-likelihood fell by {-gain:.3g} in iteration {n}: the "
                        "metric's derivatives or its geodesics are not what they are said to be"
                    )
                if fit.ended or (self.components > 1 and gain < self.tolerance):
                    self.converged_ = True
                    break
                if n < self.most_iterations:
                    fit.maximise()
        fit.require_laws()
        frames = torch.stack([c.fan.frame for c in fit.parts])
        covariances = torch.stack([c.covariance for c in fit.parts])
        self.means_ = torch.stack([c.fan.mean for c in fit.parts]).numpy()
        self.covariances_ = (frames @ covariances @ frames.mT).numpy()
        self.weights_ = fit.weights.numpy()
        self.log_likelihoods_ = history
        self.fans_, self.evaluations_ = settings.fans[0], settings.evaluations[0]
        self.searched_ = int(sum(int(c.logs.searched.sum()) for c in fit.parts))
        self.unreached_ = [int((~c.logs.found).sum()) for c in fit.parts]
        self.n_features_in_ = x.shape[1]
        self.law_ = AdaptiveLaw(
            self.metric,
            torch.from_numpy(self.means_),
            torch.from_numpy((self.covariances_ + self.covariances_.swapaxes(1, 2)) / 2),
            fit.weights,
            rays=self.rays,
            periods=self.periods,
            tolerance=self.precision,
            seed=self.seed,
            exact=self.exact,
        )
        return self

    def _check_settings(self, x: Tensor) -> None:
        if type(self.components) is not int or self.components < 1:
            raise InputError(f"components: expected a whole number ≥ 1, got {self.components!r}")
        count, d = x.shape
        least = fewest_rays(d)
        if type(self.rays) is not int or self.rays < least:
            raise InputError(f"rays: expected a whole number ≥ {least}, got {self.rays!r}")
        if self.periods and len(self.periods) != d:
            raise InputError(f"periods: expected {d} numbers, got {self.periods!r}")
        if count <= d:
            raise InputError(
                f"X: expected more points than dimensions, got {count} in {d} dimensions"
            )
        distinct = len(torch.unique(x, dim=0))
        if distinct <= d:
            raise InputError(
                f"X: expected more than {d} distinct points in {d} dimensions, got {distinct}"
            )
        if self.components > distinct:
            raise InputError(
                f"components: expected at most as many as the {distinct} distinct points, got "
                f"{self.components}"
            )

    def _check_metric(self) -> None:
        if not isinstance(self.metric, RiemannianMetric):
            raise InputError(
                "metric: expected a RiemannianMetric (of a Hermitian one, its riemannian()), got "
                f"{type(self.metric).__name__}"
            )

    def _require_smooth(self, x: Tensor) -> None:
        known = self.metric._kinks(x[:1])
        if known and known[0][1] < AT_C1:
            raise InputError(
                "metric: expected a smooth one, whose geodesics spread by its curvature, but "
                f"{known[0][0]} has kinks"
            )
        warn_of_kinks(self.metric, x[:1])

    def _checked(self, X: Any) -> Tensor:
        """Points as float64 [N, d] in the metric's domain."""
        x = points(self.metric, X).cpu().double()
        self._require_smooth(x)
        g = unchecked(self.metric).metric_matrix(x)
        sound = g.isfinite().all(-1).all(-1)
        sound &= torch.linalg.cholesky_ex(torch.where(sound[:, None, None], g, 0))[1] == 0
        if not bool(sound.all()):
            rows = (~sound).nonzero().squeeze(-1).tolist()
            raise InputError(
                f"X: {len(rows)} of {len(x)} points lie where the metric is not positive definite "
                f"(outside of the chart?), the first of them {rows[:8]}"
            )
        return x

    # ------------------------------------------------------------- interruptions
    def _fingerprint(self, x: Tensor) -> str:
        """Of the data, the metric at them, and the settings that a fit depends on."""
        digest = hashlib.sha256(b"3" + x.numpy().tobytes())  # of what is kept, the third form
        digest.update(self.metric.metric_matrix(x).contiguous().numpy().tobytes())
        settings = (self.components, self.rays, tuple(self.periods), self.precision, self.seed)
        digest.update(repr(settings).encode())
        return digest.hexdigest()

    def _keep(self, fit: ExpectationMaximisation, name: str, history: list[float]) -> None:
        if self.kept is None:
            return
        if len(history) == 1:
            require_writable("kept", self.kept)
        archive = BytesIO()
        saved: dict[str, Any] = {"name": np.array(name), "history": np.array(history)}
        saved |= fit.saved()
        np.savez(archive, **saved)
        write_bytes(self.kept, archive.getvalue())

    def _resumed(self, fit: ExpectationMaximisation, name: str) -> list[float]:
        """What a fit kept, without its last iteration; nothing where it was another fit."""
        if self.kept is None or not Path(self.kept).exists():
            return []
        try:
            with np.load(self.kept, allow_pickle=False) as archive:
                saved = {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"kept: cannot read {self.kept}: {error}") from error
        if saved.get("name", np.array("")).item() != name:
            raise InputError(
                f"kept: {self.kept} is of other data, another metric or other settings; name "
                "another file or remove it"
            )
        fit.restore(saved)
        return [float(value) for value in saved["history"][:-1]]

    # ------------------------------------------------------------- what a fit answers
    def score_samples(self, X: Any) -> np.ndarray:
        """Log densities of points by the chart's Lebesgue measure, [N]."""
        check_is_fitted(self, "law_")
        return self.law_.log_prob(self._checked(X)).numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """Their mean."""
        return float(self.score_samples(X).mean())

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the components at points, [N, K]."""
        check_is_fitted(self, "law_")
        return self.law_.log_components(self._checked(X)).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest component of each point, [N]."""
        return self.predict_proba(X).argmax(-1)

    def sample(self, n_samples: int = 1, *, seed: int = 0) -> np.ndarray:
        """Points drawn from the law, [n, d]."""
        check_is_fitted(self, "law_")
        if type(n_samples) is not int or n_samples < 1:
            raise InputError(f"n_samples: expected a whole number ≥ 1, got {n_samples!r}")
        generator = torch.Generator().manual_seed(seed)
        return self.law_.sample((n_samples,), generator=generator).numpy()

    def bic(self, X: Any) -> float:
        """The Bayesian information criterion, by the chart's measure: lower is better."""
        x = self._checked(X)
        count, d = x.shape
        parameters = self.components * (1 + d + d * (d + 1) // 2) - 1
        return -2 * count * self.score(x) + parameters * float(np.log(count))


class AdaptiveNormal(AdaptiveNormalMixture):
    """A locally adaptive normal law: one component; see :class:`AdaptiveNormalMixture`."""

    def __init__(
        self,
        metric: RiemannianMetric,
        *,
        rays: int = 128,
        periods: Sequence[float] = (),
        tolerance: float = 1e-9,
        precision: float = 1e-9,
        most_iterations: int = 50,
        exact: bool = True,
        seed: int = 0,
        progress: Callable[[int, float], None] | None = None,
        kept: str | Path | None = None,
    ):
        super().__init__(
            metric,
            1,
            rays=rays,
            periods=periods,
            tolerance=tolerance,
            precision=precision,
            most_iterations=most_iterations,
            exact=exact,
            seed=seed,
            progress=progress,
            kept=kept,
        )
