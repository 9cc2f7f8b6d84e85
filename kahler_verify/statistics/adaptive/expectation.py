"""Components fitted together: a generalised EM algorithm, and a climb where there is one alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.adaptive.ascent import Step, ascending
from kahler_verify.statistics.adaptive.component import (
    Component,
    Settings,
    fitting,
    no_law,
    refitted,
)
from kahler_verify.statistics.adaptive.medoids import medoids
from kahler_verify.statistics.adaptive.together import T, Work, together

SHARE = 0.1  # of a point's weight, that all components have of it at first
REACH = 1.3  # of the longest path on the graph, that first fans reach


class ExpectationMaximisation:
    """A generalised EM algorithm: each maximisation is one step uphill for each component."""

    def __init__(
        self,
        metric: RiemannianMetric,
        x: Tensor,
        components: int,
        settings: Settings,
        tolerance: float,
    ):
        self.metric, self.x, self.settings = metric, x, settings
        self.count, self.tolerance = components, tolerance
        self.parts: list[Component] = []
        self.weights = torch.full((components,), 1 / components, dtype=torch.float64)
        self.shares = x.new_ones(components, len(x))
        self.likelihood = -np.inf
        self.ended = False
        self.curvature: tuple[Tensor | None, Tensor | None] = (None, None)

    def begin(self, seed: int) -> None:
        """Medoids of the points on the graph of their neighbours, and what belongs to each."""
        numbers, distances, label = medoids(self.metric, self.x, self.count, seed)
        d = self.x.shape[1]
        works = []
        for k, number in enumerate(numbers.tolist()):
            own = label == k
            if int(own.sum()) <= d:  # too few: the nearest few points as well
                own = torch.zeros_like(own)
                own[distances[:, k].argsort()[: 2 * d + 2]] = True
            size = float((distances[own, k] ** 2).mean()) / d
            works.append(
                fitting(
                    self.metric,
                    self.x,
                    own.double(),
                    self.x[number],
                    size * torch.eye(d).to(self.x),
                    self.settings,
                    reach=REACH * float(distances[own, k].max()),
                    needed=own,
                    strict=False,
                )
            )
        self.parts = self._together(works)
        if self.count > 1:
            reached = torch.stack([part.logs.found for part in self.parts])
            hard = torch.nn.functional.one_hot(label, self.count).T.double()
            self.shares = ((1 - SHARE) * hard + SHARE / self.count) * reached
            self.shares = self.shares / self.shares.sum(0).clamp_min(1e-300)
            self._suit()

    def expect(self) -> None:
        """Shares of the components in each point, and the mean log-likelihood."""
        logs = self._log_components()
        missing = (logs == -torch.inf).all(0)
        if bool(missing.any()) and self.count > 1:
            works = [
                fitting(
                    self.metric,
                    self.x,
                    share,
                    part.fan.mean,
                    part.moments,
                    self.settings,
                    reach=part.reach,
                    needed=missing,
                    strict=False,
                )
                for part, share in zip(self.parts, self.shares, strict=True)
            ]
            self.parts = self._together(works)
            logs = self._log_components()
            missing = (logs == -torch.inf).all(0)
        if bool(missing.any()):
            raise CurveError(
                f"no geodesic was found from any component to {int(missing.sum())} of "
                f"{len(self.x)} points, the first of them "
                f"{missing.nonzero().squeeze(-1).tolist()[:8]}; this error's report is the status "
                "of each point by each component",
                torch.stack([part.logs.status for part in self.parts], -1),
            )
        total = torch.logsumexp(logs, 0)
        self.likelihood = float(total.mean())
        self.shares = (logs - total).exp()

    def maximise(self) -> None:
        """New weights and precisions, then one step for each mean."""
        if self.count == 1:
            inverse, slope = self.curvature
            step = self._ascended(inverse=inverse, slope=slope)[0]
            if not step.moved and inverse is not None:  # once more, by scoring
                step = self._ascended()[0]
            self.parts[0] = step.component
            self.curvature = (step.inverse, step.slope) if step.moved else (None, None)
            self.ended = not step.moved
            return
        self._suit()
        self.parts = [step.component for step in self._ascended()]

    def _ascended(self, **known: Tensor | None) -> list[Step]:
        """A step of each component; what has weight in it must not be lost by a step."""
        return self._together(
            [
                ascending(
                    self.metric,
                    self.x,
                    share,
                    part,
                    self.settings,
                    tolerance=self.tolerance,
                    needed=self._weighty(part, share),
                    **known,
                )
                for part, share in zip(self.parts, self.shares, strict=True)
            ]
        )

    def _weighty(self, part: Component, share: Tensor) -> Tensor | None:
        """Points that a component has and that have weight in it; None: all."""
        if self.count == 1:
            return None
        return part.logs.found & (share > self.settings.unseen / len(share) * share.sum())

    def _together(self, works: list[Work[T]]) -> list[T]:
        return together(self.metric, works, tolerance=self.settings.tolerance)

    def _suit(self) -> None:
        """Weights and precisions for the present shares: no new geodesics."""
        self.weights = self.shares.mean(1)
        self.weights = self.weights / self.weights.sum()
        for k, share in enumerate(self.shares):
            try:
                self.parts[k] = refitted(self.parts[k], share)
            except InputError as error:
                raise InputError(
                    f"components: component {k} has collapsed on {float(share.sum()):.2g} points; "
                    f"take fewer components ({error})"
                ) from error

    def _log_components(self) -> Tensor:
        return (
            torch.stack([part.log_density() for part in self.parts]) + self.weights.log()[:, None]
        )

    def require_laws(self) -> None:
        """Raise InputError where a component's precision is not positive definite in the end."""
        for part, share in zip(self.parts, self.shares, strict=True):
            if not part.proper:
                raise InputError(no_law(part, share))

    def saved(self) -> dict[str, np.ndarray]:
        """What :meth:`restore` needs."""
        return {
            "means": torch.stack([part.fan.mean for part in self.parts]).numpy(),
            "roots": torch.stack([part.fan.root for part in self.parts]).numpy(),
            "found": torch.stack([part.logs.found for part in self.parts]).numpy(),
            "weights": self.weights.numpy(),
            "shares": self.shares.numpy(),
            "reaches": np.array([part.fan.reach for part in self.parts]),
        }

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """The components that were saved, on fans like theirs, with all points that they had."""
        self.weights = torch.from_numpy(saved["weights"])
        self.shares = torch.from_numpy(saved["shares"])
        works = []
        for k, reach in enumerate(saved["reaches"]):
            root = torch.from_numpy(saved["roots"][k])
            works.append(
                fitting(
                    self.metric,
                    self.x,
                    self.shares[k],
                    torch.from_numpy(saved["means"][k]),
                    root @ root.mT,
                    self.settings,
                    reach=float(reach),
                    needed=torch.from_numpy(saved["found"][k]),
                    strict=False,
                )
            )
        self.parts = self._together(works)
