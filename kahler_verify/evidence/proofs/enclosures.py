"""Transcendental and factoring heads enclosed in balls, and a bound on the error of torch's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import flint
import numpy as np
import torch
from flint import acb, arb
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.evidence.numbers.arithmetic import ball
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.proofs.dyadic import (
    FIRST_BITS,
    MOST_BITS,
    balls_of,
    batch_of,
    floor_of,
    larger,
    rational,
    rounded_up,
    unit_of,
)


@dataclass(frozen=True)
class Enclosure:
    """A head enclosed in balls, and a bound on the error of torch's own.

    ``values`` are balls (python-flint's acb); ``error_bound`` is the largest error of an entry in
    the frame that ``frame`` names, None where the enclosure stayed wide at the limit.
    """

    head: str
    values: Array
    error_bound: Fraction | None
    frame: str
    bits: int

    @property
    def verdict(self) -> str:
        """``certified`` or ``undecided``."""
        return "undecided" if self.error_bound is None else "certified"

    def __str__(self) -> str:
        shown = "" if self.error_bound is None else f", error within {float(self.error_bound):.2e}"
        return f"{self.head}: {self.verdict}{shown} {self.frame} ({self.bits} bits)"


def enclose_cholesky(S: Tensor, *, most_bits: int = MOST_BITS) -> Enclosure:
    """L with S = L Lᴴ, from the lower triangle of S [..., n, n] as torch reads it.

    The error of ``torch.linalg.cholesky`` is in units of √S_ii, the length of L's row i.
    """
    root = torch.linalg.cholesky_ex(S)[0]
    return _enclose("cholesky", S, root, 2, _cholesky, _row_lengths, "in units of √S_ii", most_bits)


def enclose_softmax(logits: Tensor, *, most_bits: int = MOST_BITS) -> Enclosure:
    """Weights e^{x_k}/Σe^{x_l} of real logits [..., K]; ``torch.softmax``'s error is relative."""
    if logits.is_complex():
        raise InputError(f"logits: expected a real tensor, got {logits.dtype}")
    weights = torch.softmax(logits, -1)
    return _enclose("softmax", logits, weights, 1, _softmax, lambda _, w: w, "relative", most_bits)


def enclose_log_det(S: Tensor, *, most_bits: int = MOST_BITS) -> Enclosure:
    """Log det S of [..., n, n]; the error of 2 Σ log diag cholesky(S) is absolute."""
    root = torch.linalg.cholesky_ex(S)[0]
    value = 2 * root.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
    ones = lambda _, v: array([acb(1)] * v.size, v.shape)  # noqa: E731
    return _enclose("log det", S, value, 2, _log_det, ones, "absolutely", most_bits)


def _enclose(
    head: str,
    given: Tensor,
    computed: Tensor,
    rank: int,
    function: Callable[[Array], Array],
    scale: Callable[[Array, Array], Array],
    frame: str,
    most_bits: int,
) -> Enclosure:
    """Raise the precision until the enclosure of a head is narrow beside torch's error."""
    batch = batch_of(head, given, rank)
    floor, bits = rational(floor_of(unit_of(head, given))), FIRST_BITS
    while True:
        with flint.ctx.workprec(bits):
            worst = radius = arb(0)
            parts = []
            for where in product(*map(range, batch)):
                balls = balls_of(given[where])
                values = function(balls)
                sizes = scale(balls, values)
                parts.append(values)
                for v, c, s in zip(
                    values.ravel(), balls_of(computed[where]).ravel(), sizes.ravel(), strict=True
                ):
                    worst = larger(worst, (abs(v - c) / s.real).upper())
                    radius = larger(radius, ((v.real.rad() + v.imag.rad()) / s.real).upper())
            narrow = bool(radius <= worst / 1024) or bool(radius <= floor / 4)
            narrow = narrow and bool(worst.is_finite())
            if narrow or bits >= most_bits:
                stacked = array(np.stack([np.asarray(x) for x in parts]))
                values = array(stacked.reshape(*batch, *stacked.shape[1:]))
                return Enclosure(head, values, rounded_up(worst) if narrow else None, frame, bits)
        bits = min(2 * bits, most_bits)


def _cholesky(s: Array) -> Array:
    n = len(s)
    out = ball.zeros(n, n)
    for j in range(n):
        for i in range(j, n):
            rest = s[i, j]
            for k in range(j):
                rest = rest - out[i, k] * out[j, k].conjugate()
            out[i, j] = acb(rest.real.sqrt()) if i == j else rest / out[j, j]
    return out


def _row_lengths(s: Array, factor: Array) -> Array:
    roots = [acb(s[i, i].real.sqrt()) for i in range(len(s))]
    return array(np.broadcast_to(np.asarray(array(roots, (len(s), 1))), factor.shape).copy())


def _softmax(x: Array) -> Array:
    each = range(len(x))
    totals = [sum(((x[m] - x[k]).exp() for m in each), acb(0)) for k in each]
    return array([1 / t for t in totals], x.shape)


def _log_det(s: Array) -> Array:
    factor = _cholesky(s)
    return array(sum((2 * factor[i, i].log() for i in range(len(s))), acb(0)))
