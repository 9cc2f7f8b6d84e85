"""Is a potential strictly plurisubharmonic on a box of C^d?  Proved, refuted or undecided.

First a search for a counterexample: the least eigenvalue of g = ∂∂̄Φ is minimised in floating point,
the point and its eigenvector are rounded to rational numbers, and vᴴgv < 0 is certified in balls.
Failing that, branch and bound: boxes of balls on which LDLᴴ certifies g ≻ 0, halved where it does
not.

The search and the splitting are not trusted.  What certifies a box or a witness is the bounding
code of :mod:`kahler_verify.evidence.recheck`, which evaluates every leaf again from the JSON; and
the bounding code is compared here with the generated kernel's text.  The claim is about the given
box only: a proof on it says nothing of the rest of C^d.
"""

from __future__ import annotations

import heapq
import importlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import prod
from typing import Any

import flint
import numpy as np
from flint import acb, arb
from scipy.optimize import minimize
from sympy import Expr

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.errors import EvidenceError, InputError
from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.proofs.generated import ball_function
from kahler_verify.evidence.proofs.potentials import (
    KERNELS,
    Box,
    Formula,
    Mixture,
    Real,
    fmpq_of,
    fraction_of,
    text_of,
)
from kahler_verify.evidence.recheck import POTENTIALS, digest, positive


@dataclass(frozen=True)
class RegionResult:
    """What was found on a box: ``proved``, ``refuted`` or ``undecided``.

    ``proved``: g ≻ 0 at every point of ``box``; ``leaves`` fill it.  ``refuted``: Σ g_{ab̄} v_a v̄_b
    ≤ ``value`` |v|² < 0 at the rational ``point`` for ``vector`` v.  ``undecided``: proved on the
    ``leaves``, unknown on the ``leftover``.
    """

    potential: Mapping[str, Any]
    box: Box
    verdict: str
    bits: int
    evaluated: int
    seconds: float
    leaves: tuple[Box, ...] = ()
    leftover: tuple[Box, ...] = ()
    point: tuple[tuple[Fraction, Fraction], ...] = ()
    vector: tuple[tuple[Fraction, Fraction], ...] = ()
    value: Fraction | None = None

    @property
    def leftover_volume(self) -> Fraction:
        """The volume on which nothing is known."""
        return sum((_volume(b) for b in self.leftover), Fraction(0))

    def to_json(self) -> dict[str, Any]:
        """An item for an evidence file; see ``recheck``.

        Raises:
            EvidenceError: the result is undecided.
        """
        if self.verdict == "undecided":
            raise EvidenceError(
                "to_json: the result is undecided, so that nothing can be re-checked"
            )
        item: dict[str, Any] = {
            "kind": "region",
            "title": f"strictly plurisubharmonic on a box of C^{len(self.box) // 2}",
            "potential": dict(self.potential),
            "box": [text_of(side) for side in self.box],
            "verdict": self.verdict,
            "bits": self.bits,
            "leaves": [[text_of(side) for side in b] for b in self.leaves],
        }
        if self.verdict == "refuted":
            item |= {
                "point": [text_of(x) for x in self.point],
                "vector": [text_of(x) for x in self.vector],
                "value": str(self.value),
            }
        return {**item, "digest": digest(item)}

    def __str__(self) -> str:
        sides = " × ".join(f"[{lo}, {hi}]" for lo, hi in self.box)
        text = f"{self.verdict} on {sides}"
        if self.verdict == "refuted":
            at = ", ".join(f"{x} + {y}i" for x, y in self.point)
            text += f": an eigenvalue of g at ({at}) is at most {float(self.value or 0):.3g}"
        else:
            text += f": {len(self.leaves)} leaves certified"
        if self.leftover:
            share = float(self.leftover_volume / _volume(self.box))
            text += f", {len(self.leftover)} boxes ({share:.2%} of the volume) left over"
        return f"{text} ({self.evaluated} boxes tried, {self.seconds:.2f} s)"


def prove_plurisubharmonic(
    potential: Mixture | Formula | Derivation | Expr,
    box: Sequence[tuple[Real, Real]] | None = None,
    *,
    d: int | None = None,
    most_boxes: int = 20_000,
    bits: int = 64,
    seed: int = 0,
) -> RegionResult:
    """Decide whether g = ∂∂̄Φ is positive definite on a box.

    Args:
        potential: a :class:`Mixture`, a :class:`Formula`, a derivation with a potential, or a SymPy
            expression in z1, z2, ….
        box: sides (lo, hi) of Re z1, Im z1, Re z2, …; by default a mixture's ``critical_box()``.
        d: the dimension, for a derivation that holds in every dimension.
        most_boxes: give up, ``undecided``, after so many boxes.
        bits: the precision of balls.
        seed: of the random starting points of the search.

    Raises:
        InputError: the box is missing or malformed.
        EvidenceError: bounding code and generated kernel disagree.
    """
    start = time.perf_counter()
    if isinstance(potential, Derivation | Expr):
        potential = Formula.of(potential, d)
    sides = _box(box, potential)

    def result(verdict: str, evaluated: int, **found: Any) -> RegionResult:
        seconds = time.perf_counter() - start
        return RegionResult(potential.data, sides, verdict, bits, evaluated, seconds, **found)

    with flint.ctx.workprec(bits):
        metric = POTENTIALS[potential.data["type"]](dict(potential.data))
        if isinstance(potential, Mixture):
            _compare_with_kernel(potential, metric, _centre(sides))
        guesses = _guesses(potential, sides, random.Random(seed))
        for z in (_least(metric, sides, guess) for guess in guesses):
            witness = _witness(metric, sides, z)
            if witness is not None:
                if isinstance(potential, Mixture):
                    _compare_with_kernel(potential, metric, witness["point"])
                return result("refuted", 0, **witness)
        leaves: list[Box] = []
        heap: list[tuple[Fraction, int, Box]] = [(-_volume(sides), 0, sides)]
        evaluated = 0
        while heap and evaluated < most_boxes:
            _, _, here = heapq.heappop(heap)
            evaluated += 1
            if _is_positive(metric, _over(here)):
                leaves.append(here)
                continue
            if _is_positive(metric, _balls(_centre(here)), below=False) is False:
                witness = _witness(metric, sides, np.array(_floats(_centre(here))))
                if witness is not None:
                    return result("refuted", evaluated, **witness)
            for i, half in enumerate(_halves(here)):
                heapq.heappush(heap, (-_volume(half), 2 * evaluated + i, half))
    left = tuple(b for _, _, b in heap)
    verdict = "undecided" if left else "proved"
    return result(verdict, evaluated, leaves=tuple(sorted(leaves)), leftover=tuple(sorted(left)))


def _is_positive(
    metric: Callable[..., Any], z: Sequence[Any], *, below: bool = True
) -> bool | None:
    """Is g certainly positive definite, or not, over balls?  None where balls cannot tell."""
    try:
        return positive(metric(z, below=below))
    except ZeroDivisionError:  # a ball that is inverted contains zero
        return None


# ---------------------------------------------------------------------- the search


def _guesses(
    potential: Mixture | Formula, box: Box, rng: random.Random, count: int = 4
) -> Iterator[np.ndarray]:
    """Starting points in real coordinates: where weights balance, the box's centre, random ones."""
    if isinstance(potential, Mixture):
        for z in potential.points_of_balance():
            yield np.array([p for x in z for p in (x.real, x.imag)])
    yield np.array([float(lo + hi) / 2 for lo, hi in box])
    for _ in range(count):
        yield np.array([rng.uniform(float(lo), float(hi)) for lo, hi in box])


def _least(metric: Callable[..., Any], box: Box, guess: np.ndarray) -> np.ndarray:
    """Where the least eigenvalue of g is small, by a simplex search inside the box."""
    low, high = (np.array([float(side[i]) for side in box]) for i in (0, 1))

    def least(x: np.ndarray) -> float:
        g = _matrix(metric, [acb(*p) for p in np.clip(x, low, high).reshape(-1, 2)])
        return float(np.linalg.eigvalsh(g)[0]) if np.isfinite(g).all() else np.inf

    options = {"maxfev": 40 * len(guess), "xatol": 1e-4, "fatol": 1e-9}
    found = minimize(least, np.clip(guess, low, high), method="Nelder-Mead", options=options)
    return np.clip(found.x, low, high).reshape(-1, 2) @ np.array([1, 1j])


def _witness(metric: Callable[..., Any], box: Box, z: np.ndarray) -> dict[str, Any] | None:
    """A rational point near z and a rational vector with vᴴgv certainly negative, or None."""
    for digits in (6, 12, 24, 48):
        step = 2**digits
        reals = [Fraction(round(p * step), step) for x in z for p in (x.real, x.imag)]
        parts = [min(max(x, lo), hi) for x, (lo, hi) in zip(reals, box, strict=True)]
        point = tuple(zip(parts[::2], parts[1::2], strict=True))
        g = _matrix(metric, _balls(point))
        if not np.isfinite(g).all():
            continue
        values, vectors = np.linalg.eigh(g)
        if values[0] >= 0:
            continue
        # Σ g_ab v_a v̄_b is the form of gᵀ
        v = vectors[:, 0].conj()
        v = v / v[np.argmax(abs(v))]
        vector = tuple((Fraction(round(x.real * step), step), Fraction(round(x.imag * step), step))
                       for x in v)  # fmt: skip
        column = flint.acb_mat([[x] for x in _balls(vector)])
        form = column.transpose() * flint.acb_mat(metric(_balls(point))) * column.conjugate()
        norm = column.conjugate().transpose() * column
        bound = (form[0, 0].real / norm[0, 0].real).upper()
        if bound < 0:
            with flint.ctx.workprec(24):
                top = (bound * (1 - arb(2) ** -12)).upper().fmpq()
            value = Fraction(int(top.p), int(top.q))
            return {"point": point, "vector": vector, "value": value}
    return None


def _matrix(metric: Callable[..., Any], z: Sequence[Any]) -> np.ndarray:
    """Midpoints of g at a point."""
    try:
        return np.array([[complex(x.mid()) for x in row] for row in metric(z)])
    except ZeroDivisionError:
        return np.full((len(z), len(z)), np.nan)


def _compare_with_kernel(
    mixture: Mixture, metric: Callable[..., Any], point: Sequence[tuple[Fraction, Fraction]]
) -> None:
    """The kernel's text over balls and the bounding code must enclose the same g."""
    z = _balls(point)
    data = mixture.data
    sign = 1 if mixture.kind == "log_sum_exp" else -1
    slopes, precisions, logits = [], [], []
    for weight, centre, rows in zip(
        data["weights"], data["centres"], data["precisions"], strict=True
    ):
        p = flint.acb_mat([[acb(*map(fmpq_of, x)) for x in row] for row in rows])
        x = flint.acb_mat([[u - acb(*map(fmpq_of, c))] for u, c in zip(z, centre, strict=True)])
        q = (x.conjugate().transpose() * p * x)[0, 0]
        scale = p.det().real if sign < 0 else arb(1)
        logits.append((acb(fmpq_of(weight)) * scale).log() + sign * q)
        slopes += (p * x).conjugate().entries()
        precisions += p.transpose().entries()
    total = sum((a.exp() for a in logits), acb(0))
    count, d = len(logits), mixture.d
    module = importlib.import_module(f"kahler_verify.kernels.{KERNELS[mixture.kind]}")
    g = ball_function(module.metric)(
        q_d=array(slopes, (count, d)),
        q_db=array(precisions, (count, d, d)),
        w=array([a.exp() / total for a in logits], (count,)),
    )
    if not all(x.overlaps(y) for x, y in zip(g.ravel(), chain(*metric(z)), strict=True)):
        raise EvidenceError(
            f"the bounding code and {KERNELS[mixture.kind]}.metric disagree at {point}"
        )


# ---------------------------------------------------------------------- boxes and numbers


def _box(box: Sequence[tuple[Real, Real]] | None, potential: Mixture | Formula) -> Box:
    if box is None:
        if isinstance(potential, Mixture):
            return potential.critical_box()
        raise InputError("box: expected sides (lo, hi) of Re z1, Im z1, …, got None")
    sides = tuple((fraction_of(lo), fraction_of(hi)) for lo, hi in box)
    if len(sides) != 2 * potential.d or any(lo >= hi for lo, hi in sides):
        raise InputError(f"box: expected {2 * potential.d} sides with lo < hi, got {box}")
    return sides


def _halves(box: Box) -> tuple[Box, Box]:
    """Cut across the longest side."""
    i = max(range(len(box)), key=lambda j: box[j][1] - box[j][0])
    lo, hi = box[i]
    middle = (lo + hi) / 2
    return (*box[:i], (lo, middle), *box[i + 1 :]), (*box[:i], (middle, hi), *box[i + 1 :])


def _volume(box: Box) -> Fraction:
    return prod((hi - lo for lo, hi in box), start=Fraction(1))


def _centre(box: Box) -> tuple[tuple[Fraction, Fraction], ...]:
    middles = [(lo + hi) / 2 for lo, hi in box]
    return tuple(zip(middles[::2], middles[1::2], strict=True))


def _over(box: Box) -> list[Any]:
    """Complex balls that contain the box."""
    sides = [arb(fmpq_of(lo)).union(arb(fmpq_of(hi))) for lo, hi in box]
    return [acb(x, y) for x, y in zip(sides[::2], sides[1::2], strict=True)]


def _balls(point: Sequence[tuple[Fraction, Fraction]]) -> list[Any]:
    return [acb(arb(fmpq_of(x)), arb(fmpq_of(y))) for x, y in point]


def _floats(point: Sequence[tuple[Fraction, Fraction]]) -> list[complex]:
    return [complex(x, y) for x, y in point]
