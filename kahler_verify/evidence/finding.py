"""What a route finds: errors against their bounds, in the frame where g has unit diagonal.

Each lower latent index is divided by √g_aa (an upper one is multiplied), and errors count relative
to the largest entry, or to 1 where all entries are smaller.  Kernels, decoders, heads, variants and
laws are all judged by findings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from kahler_verify.calculus.derivation import Output

EPSILON = float(np.finfo(np.float64).eps)
MODEST = 64.0  # the C of the bound C·ε·cond(g)


@dataclass(frozen=True)
class Finding:
    """What a route found of one subject; one without samples fails.

    Attributes:
        errors: the error at each point.
        bounds: what each error must stay below.
        conditions: the condition number of g at each point, in the g-normalised frame.
        unit: "g-frame" (relative, each latent index divided by √g_aa), "relative", "standard
            errors" or "exact".
        note: what was compared.
        complaints: failures that are not errors at points, as where autograd's modes differ.
        scales: whether bounds are C·ε·cond(g).
        trials: samples that have no error of their own.
        what: ``derivation.kernel``, ``decoder.quantity``, or a variant's or law's name.
        route: which way the numbers came, such as a name in ``ROUTES``.
        where: "random points", "held-out latents" or "random latents".
        seconds: how long it took.
    """

    errors: tuple[float, ...] = ()
    bounds: tuple[float, ...] = ()
    conditions: tuple[float, ...] = ()
    unit: str = "g-frame"
    note: str = ""
    complaints: tuple[str, ...] = ()
    scales: bool = False
    trials: int = 0
    what: str = ""
    route: str = ""
    where: str = ""
    seconds: float = 0.0

    def named(self, what: str, route: str, where: str, seconds: float) -> Finding:
        """The same of this subject, by this route."""
        return replace(self, what=what, route=route, where=where, seconds=seconds)

    @property
    def points(self) -> int:
        """How many points have an error."""
        return len(self.errors)

    @property
    def samples(self) -> int:
        """How much was looked at."""
        return self.points + self.trials

    @property
    def passed(self) -> bool:
        """Whether there were samples, no error exceeds its bound, and nobody complained."""
        inside = all(e <= b for e, b in zip(self.errors, self.bounds, strict=True))  # not for NaN
        return self.samples > 0 and inside and not self.complaints

    @property
    def error(self) -> float:
        """The largest error, NaN where there is none."""
        return max(self.errors, default=math.nan)

    @property
    def bound(self) -> float:
        """The bound at the point that comes closest to failing, NaN where there is none."""
        pairs = list(zip(self.errors, self.bounds, strict=True))
        return max(pairs, key=_closeness, default=(math.nan, math.nan))[1]

    @property
    def condition(self) -> float:
        """The largest condition number, NaN where none is known."""
        return max(self.conditions, default=math.nan)

    @property
    def constant(self) -> float:
        """The largest error / (ε cond(g)), where the bound is C ε cond(g); else NaN."""
        if not self.scales:
            return math.nan
        ratios = zip(self.errors, self.conditions, strict=True)
        return max((error / (EPSILON * cond) for error, cond in ratios), default=math.nan)

    @property
    def story(self) -> str:
        """Complaints, and what was compared."""
        return "; ".join(words for words in (*self.complaints, self.note) if words)

    def to_json(self) -> dict[str, Any]:
        """A row of what ``verify --json`` writes."""
        return {
            "kernel": self.what,
            "route": self.route,
            "where": self.where,
            "points": self.points,
            "error": self.error,
            "bound": self.bound,
            "condition": self.condition,
            "unit": self.unit,
            "passed": self.passed,
            "seconds": self.seconds,
            "note": self.story,
            "errors": self.errors,
            "constant": self.constant,
        }


def _closeness(pair: tuple[float, float]) -> float:
    """How near an error is to its bound; infinite beyond it."""
    error, bound = pair
    if not error <= bound:
        return math.inf
    return error / bound if bound else 0.0


def frame_error(value: Tensor, truth: Tensor, scale: Tensor, raised: Sequence[int] = ()) -> float:
    """The largest error in the g-frame, relative to the largest entry of the truth, or to 1."""
    value, truth = value - 0, truth - 0
    for axis in range(value.ndim):
        if scale.ndim and value.shape[axis] != len(scale):
            continue  # an axis over outputs has no frame
        factor = scale if axis in raised else 1 / scale
        shape = [-1 if n == axis else 1 for n in range(value.ndim)]
        value, truth = value * factor.reshape(shape), truth * factor.reshape(shape)
    size = max(1.0, truth.abs().max().item())
    error = (value - truth).abs().max().item() / size
    return math.inf if math.isnan(error) else error


def modest_bound(condition: float) -> float:
    """C·ε·cond(g)."""
    return MODEST * EPSILON * condition


def raised_axes(out: Output) -> tuple[int, ...]:
    """The axes of an output that are upper indices."""
    return tuple(n for n, i in enumerate(out.indices) if i in out.upper)
