"""Faults in the function ``heads`` of generated modules, which proofs of kernels cannot notice.

Each edits one line of the text that users run: of shipped modules, and of two potentials with the
heads that no shipped one has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from sympy import Abs, Rational, Symbol, conjugate, cos, exp, im, log, loggamma, re

from kahler_verify.calculus.derivation import Derivation, explicit_coordinates, potential
from kahler_verify.calculus.letters import coordinates, dimension, parameter
from kahler_verify.calculus.words import LogDet
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.mutants.faults import CONJUGATE, FACTOR, FUNCTION, LOST, SIGN, SWAPPED
from kahler_verify.evidence.routes.heads import compare_heads


@dataclass(frozen=True)
class HeadFault:
    """An edit of the text of ``heads``: ``old``, which stands there once, becomes ``new``."""

    fault: str
    derivation: str
    old: str
    new: str


HEAD_FAULTS = (
    HeadFault(FACTOR, "gamma", "zeta(2, alpha)", "zeta(2, 2 * alpha)"),
    HeadFault(FACTOR, "gamma", "-2 * torch", "-1 * torch"),
    HeadFault(SIGN, "gamma", "-2 * torch", "2 * torch"),
    HeadFault(FUNCTION, "gamma", "zeta(4, alpha)", "zeta(3, alpha)"),
    HeadFault(FUNCTION, "gamma", "torch.special.zeta(2, alpha)", "torch.digamma(alpha)"),
    HeadFault(FACTOR, "gamma", "zeta(2, alpha)", "zeta(2, (1 + 1e-9) * alpha)"),
    HeadFault(SWAPPED, "dirichlet", "zeta(2, t0)", "zeta(2, alpha)"),
    HeadFault(SWAPPED, "dirichlet", '"polygamma_2": polygamma_2_0', '"polygamma_2": polygamma_4_0'),
    HeadFault(LOST, "dirichlet", '"polygamma_5": polygamma_5_0,', ""),
    HeadFault(SIGN, "bernoulli", "s0 = -eta", "s0 = eta"),
    HeadFault(FUNCTION, "bernoulli", "torch.sigmoid(eta)", "torch.tanh(eta)"),
    HeadFault(SWAPPED, "bernoulli", '"logistic_1": logistic_1_0', '"logistic_1": logistic_0_0'),
    HeadFault(FACTOR, "negative_binomial", "torch.sigmoid(eta)", "torch.sigmoid(2 * eta)"),
    HeadFault(CONJUGATE, "fubini_study", "z, z.conj()", "z, z"),
    HeadFault(LOST, "fubini_study", "s0 = 1 + t0", "s0 = t0"),
    HeadFault(SIGN, "complex_ball", "s0 = 1 - t0", "s0 = 1 + t0"),
    HeadFault(FUNCTION, "complex_ball", "torch.log(s0)", "torch.sqrt(s0)"),
    HeadFault(FACTOR, "precision_weighted", "-1 * tau * t0", "-tau * t0 / 2"),
    HeadFault(SWAPPED, "precision_weighted", "s1 = -t2", "s1 = -t1"),
    HeadFault(SIGN, "local_variance", "s0 = -t1", "s0 = t1"),
    HeadFault(FUNCTION, "local_variance", "torch.exp(s0)", "torch.cosh(s0)"),
    HeadFault(SWAPPED, "coordinates", "torch.pow(x2, x3)", "torch.pow(x3, x2)"),
    HeadFault(FACTOR, "coordinates", "one0 / 3", "one0 / 2"),
    HeadFault(CONJUGATE, "coordinates", "z0 * zb1", "z0 * z1"),
    HeadFault(CONJUGATE, "coordinates", "zb0 = z0.conj()", "zb0 = z0"),
    HeadFault(SIGN, "coordinates", "-1j * (", "1j * ("),
    HeadFault(LOST, "coordinates", "1 + s + exp_1_0", "1 + exp_1_0"),
    HeadFault(FUNCTION, "coordinates", "torch.cos(x4)", "torch.cosh(x4)"),
    HeadFault(FUNCTION, "coordinates", "torch.lgamma(s)", "torch.digamma(s)"),
    HeadFault(SWAPPED, "coordinates", "z.select(-1, 1)", "z.select(-1, 0)"),
    HeadFault(FACTOR, "letters", "2 * t2", "t2"),
    HeadFault(CONJUGATE, "letters", "c, z.conj()", "c, z"),
    HeadFault(CONJUGATE, "letters", "1j * t3.conj()", "1j * t3"),
    HeadFault(SIGN, "letters", "s0 - s1", "s1 - s0"),
    HeadFault(LOST, "letters", "1 + t5 + exp_1", "1 + t5"),
    HeadFault(SWAPPED, "letters", "...a,...ba->...b", "...a,...ab->...b"),
)  # fmt: skip


@cache
def _specimens() -> dict[str, Derivation]:
    z1, z2 = explicit_coordinates("z1 z2")
    s = Symbol("s", positive=True)
    third = Rational(1, 3)
    explicit = exp(im(z1 * conjugate(z2) + 2 * z1)) + (1 + Abs(z1) ** 2) ** third
    explicit += (1 + Abs(z2) ** 2) ** (s / 2) + log(1 + exp(Abs(z1) ** 2) + s)
    explicit += cos(re(z1)) + loggamma(s) * re(z1)
    d = dimension("d")
    z, c = coordinates("z", d), parameter("c", d)
    A = parameter("A", d, d, hermitian=True, positive=True)
    letters = LogDet(A) * z.H * z + log(1 + exp(re(c.H * z)) + z.H * A * z) + exp(im(c.H * z))
    made = potential("coordinates", explicit, coordinates=(z1, z2)), potential("letters", letters)
    return {**shipped(), **{p.name: p for p in made}}


@cache
def original(name: str) -> tuple[Derivation, Module]:
    """A derivation with its module as it is generated.

    Raises:
        EvidenceError: its heads are not right.
    """
    derivation = _specimens()[name]
    module = generate_module(derivation)
    found = compare_heads(derivation, module.text, module.heads)
    if found is None or not found.passed:
        raise EvidenceError(f"{name}: the original's heads are not right: {found}")
    return derivation, module


def planted(fault: HeadFault) -> tuple[Derivation, Module, str]:
    """A derivation, its module, and its text with the fault.

    Raises:
        EvidenceError: what is to be edited does not stand there exactly once.
    """
    derivation, module = original(fault.derivation)
    start = module.text.index("\ndef heads(")
    kernels, heads = module.text[:start], module.text[start:]
    if heads.count(fault.old) != 1:
        raise EvidenceError(
            f"{fault.derivation}: expected {fault.old!r} once in heads, found it "
            f"{heads.count(fault.old)} times: adapt the mutant to the generated text"
        )
    return derivation, module, kernels + heads.replace(fault.old, fault.new)


@dataclass(frozen=True)
class FoundFault:
    """A fault of heads: whether it was noticed, and what was said of it."""

    fault: HeadFault
    noticed: bool
    said: str
    seconds: float


def judge_heads(faults: tuple[HeadFault, ...] = HEAD_FAULTS) -> Iterator[FoundFault]:
    """Each fault, judged as ``prove`` and ``verify`` judge a text's heads."""
    for fault in faults:
        derivation, module, text = planted(fault)
        started = time.perf_counter()
        found = compare_heads(derivation, text, module.heads)
        noticed = found is not None and not found.passed
        said = "; ".join(found.complaints) if found else ""
        yield FoundFault(fault, noticed, said, time.perf_counter() - started)


__all__ = ["HEAD_FAULTS", "FoundFault", "HeadFault", "judge_heads", "original", "planted"]
