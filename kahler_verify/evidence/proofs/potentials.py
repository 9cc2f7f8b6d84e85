"""Potentials that the re-checker bounds: mixtures with rational data, and trees of expressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from math import log
from typing import Any

import numpy as np
from flint import acb, fmpq
from sympy import Expr, Symbol

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.calculus.letters import Jet
from kahler_verify.errors import InputError
from kahler_verify.evidence.numbers.trees import tree_of
from kahler_verify.evidence.recheck import positive

Real = int | Fraction | float | str
Complex = Real | complex | tuple[Real, Real]
Side = tuple[Fraction, Fraction]
Box = tuple[Side, ...]
KERNELS = {"density": "mixture_density", "log_sum_exp": "mixture_potential"}


@dataclass(frozen=True)
class Mixture:
    """A potential of K quadratic components q_k = (z-c_k)ᴴP_k(z-c_k) with rational data.

    ``kind`` is ``"density"``, Φ = -log Σ π_k det P_k e^{-q_k} (minus the log density of a circular
    Gaussian mixture), or ``"log_sum_exp"``, Φ = log Σ π_k e^{q_k}.

    Args:
        kind: ``"density"`` or ``"log_sum_exp"``.
        weights: [K] positive, with sum one.
        centres: ``[K][d]``.
        precisions: ``[K][d][d]`` Hermitian; positive definite for a density.

    Numbers are int, Fraction, "p/q", float (taken exactly), or pairs (re, im) of these.

    Raises:
        InputError: shapes disagree, weights are no distribution, or a precision is not Hermitian.
    """

    kind: str
    weights: Sequence[Real]
    centres: Sequence[Sequence[Complex]]
    precisions: Sequence[Sequence[Sequence[Complex]]]
    data: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KERNELS:
            raise InputError(f"kind: expected density or log_sum_exp, got {self.kind!r}")
        weights = [fraction_of(w) for w in self.weights]
        if not weights or sum(weights) != 1 or min(weights) <= 0:
            raise InputError(f"weights: expected positive ones with sum 1, got {self.weights}")
        d = len(self.centres[0])
        shapes = {len(c) for c in self.centres} | {len(r) for p in self.precisions for r in (p, *p)}
        if shapes != {d} or not len(weights) == len(self.centres) == len(self.precisions):
            raise InputError(
                f"precisions: expected {len(weights)} of shape {d} × {d}, as the centres"
            )
        precisions = [[[pair_of(x) for x in row] for row in p] for p in self.precisions]
        for p in precisions:
            if any(p[i][j] != (p[j][i][0], -p[j][i][1]) for i in range(d) for j in range(d)):
                raise InputError(f"precisions: expected Hermitian matrices, got {self.precisions}")
        data = {
            "type": self.kind,
            "weights": [str(w) for w in weights],
            "centres": [[text_of(pair_of(x)) for x in c] for c in self.centres],
            "precisions": [[[text_of(x) for x in row] for row in p] for p in precisions],
        }
        object.__setattr__(self, "data", data)
        if self.kind == "density" and not all(_positive_precision(p) for p in precisions):
            raise InputError("precisions: expected positive definite ones for a density")

    @property
    def d(self) -> int:
        """The complex dimension."""
        return len(self.centres[0])

    def points_of_balance(self) -> Iterator[np.ndarray]:
        """Centres, and for each pair the point of their line near which both weights are equal."""
        centres = [np.array([complex(*map(float, pair_of(x))) for x in c]) for c in self.centres]
        scale = [np.array([[complex(*map(float, pair_of(x))) for x in r] for r in p])
                 for p in self.precisions]  # fmt: skip
        weight = [log(fraction_of(w)) for w in self.weights]
        for k, m in combinations(range(len(centres)), 2):
            delta = centres[k] - centres[m]
            size = float((delta.conj() @ (scale[k] + scale[m]) @ delta / 2).real) or 1.0
            sign = -1 if self.kind == "density" else 1
            ratio = weight[m] - weight[k]
            if self.kind == "density":
                ratio += float(np.linalg.slogdet(scale[m])[1] - np.linalg.slogdet(scale[k])[1])
            # on c_m + (½ + t)δ the log-weights of k and m differ by -ratio - 2 t sign size
            yield centres[m] + (0.5 - sign * ratio / (2 * size)) * delta
        yield from centres

    def critical_box(self) -> Box:
        """A box that holds all centres and points of balance, with a margin of one on every side.

        Far from points of balance one component dominates, and g is near its precision.  But the
        hypersurfaces of balance themselves are unbounded: the claim stays one about this box.
        """
        points = np.array(
            [[p for x in z for p in (x.real, x.imag)] for z in self.points_of_balance()]
        )
        low, high = np.floor(2 * points.min(0)) / 2 - 1, np.ceil(2 * points.max(0)) / 2 + 1
        return tuple((Fraction(a), Fraction(b)) for a, b in zip(low, high, strict=True))


@dataclass(frozen=True)
class Formula:
    """A potential given as the tree of an expression in z1, …, zd; see ``recheck.evaluate``."""

    tree: Any
    d: int

    @property
    def data(self) -> Mapping[str, Any]:
        """As in an evidence file."""
        return {"type": "expression", "tree": self.tree}

    @classmethod
    def of(cls, potential: Derivation | Expr, d: int | None = None) -> Formula:
        """The tree of a derivation's potential, or of a SymPy expression in z1, z2, ….

        ``d`` is needed where the derivation holds in every dimension.

        Raises:
            InputError: the dimension is missing, or a symbol is no coordinate.
            EvidenceError: the re-checker does not know a function in the expression.
        """
        expr = potential.definition if isinstance(potential, Derivation) else potential
        if expr is None:
            raise InputError(f"potential: {potential} has no definition")
        letters = expr.atoms(Jet)
        names = (
            sorted(s.name for s in expr.free_symbols if isinstance(s, Symbol))
            if not letters
            else []
        )
        if letters and d is None:
            raise InputError(f"d: expected the dimension at which to judge {expr}, got None")
        count = d if d is not None else len(names)
        allowed = [f"z{i + 1}" for i in range(count)]
        if set(names) - set(allowed):
            raise InputError(f"potential: expected coordinates {allowed}, got {names}")
        return cls(tree_of(expr, {"d": count}), count)


def fmpq_of(x: Fraction | str) -> fmpq:
    """A fraction as FLINT's."""
    x = Fraction(x)
    return fmpq(x.numerator, x.denominator)


def fraction_of(x: Real) -> Fraction:
    """A real number, exactly."""
    try:
        return Fraction(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"expected a rational number, got {x!r}") from error


def pair_of(x: Complex) -> tuple[Fraction, Fraction]:
    """Real and imaginary part, exactly."""
    if isinstance(x, complex):
        return fraction_of(x.real), fraction_of(x.imag)
    if isinstance(x, tuple):
        return fraction_of(x[0]), fraction_of(x[1])
    return fraction_of(x), Fraction(0)


def text_of(pair: tuple[Fraction, Fraction]) -> list[str]:
    """A pair of fractions as strings p/q."""
    return [str(pair[0]), str(pair[1])]


def _positive_precision(p: list[list[tuple[Fraction, Fraction]]]) -> bool:
    return positive([[acb(fmpq_of(x), fmpq_of(y)) for x, y in row] for row in p]) is True
