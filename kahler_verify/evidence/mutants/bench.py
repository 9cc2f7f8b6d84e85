"""One kernel's evidence: every route with its truth computed once, and what counts as equal.

Whether a mutant computes the same as the original is decided by exact evaluation at sizes, seeds
and batch shapes that no route uses.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sympy import Expr
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.letters import Jet
from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.laws import register
from kahler_verify.evidence.mutants.candidate import (
    FLOAT32,
    FLOAT64,
    Candidate,
    Sizes,
    Tensors,
    Test,
    close,
    equal,
    passes,
    stacked,
    to_torch,
)
from kahler_verify.evidence.mutants.faults import FAILURES, Target
from kahler_verify.evidence.mutants.misprints import metric_of
from kahler_verify.evidence.mutants.verdicts import TESTS
from kahler_verify.evidence.numbers.arithmetic import Arithmetic, decimal, prime_field, rational
from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.numbers.points import Point, Scope, extent
from kahler_verify.evidence.numbers.readings import fields_of, is_real_latent
from kahler_verify.evidence.numbers.samples import Sample, draw
from kahler_verify.evidence.numbers.series import evaluate, evaluate_output
from kahler_verify.evidence.routes.autograd import differentiate
from kahler_verify.evidence.routes.cases import taylor_fields
from kahler_verify.evidence.routes.known_answers import known_answer
from kahler_verify.running.kernel_set import KernelSet

# Equivalence is decided here, and nowhere else: (sizes, seeds, whether the seeds make one batch).
ELSEWHERE: tuple[tuple[Sizes, tuple[int, ...], bool], ...] = (
    ({"d": 3, "n": 4, "K": 5}, (101,), False),
    ({"d": 3, "n": 4, "K": 5}, (102, 103, 104), True),  # as many points as d: broadcasting slips by
    ({"d": 2, "n": 3, "K": 4}, (105, 106), False),
    ({"d": 4, "n": 5, "K": 3}, (107,), False),
)
SMALL = {"d": 2, "n": 2, "K": 2}
LINE = {"d": 1, "n": 2, "K": 3}
SPACE = {"d": 3, "n": 2, "K": 2}  # a scalar curvature at d = 2 knows g⁻¹ by its determinant alone
GENERIC = {"d": 2, "n": 2, "K": 3}  # at K = 2 covariances have rank one, which hides transpositions
FAR, NEAR = 1e8, 1e-4  # where differences of components are 1e-8 of them; what is left of float64
CERTAIN = ("hermitian", "augmented_positive", "positive")
OF_METRICS = (
    "positive",
    "kaehler",
    "curvature_consistent",
    "curvature_chart_free",
    "metric_chart_free",
    "curvature_as_known",
)
# Of one kernel alone; the others are routes by themselves.
NOT_LAWS = ("batched", "vmapped", "precise_in_single")


class Bench:
    """All routes for one kernel, with every truth computed once.

    Raises:
        EvidenceError: the original itself fails a route.
    """

    def __init__(self, target: Target, heads: Mapping[Expr, str], text: str, *, trusted: bool):
        self.target, self.heads, self.text = target, heads, text
        self.kernel, self.derivation = target.kernel, target.derivation
        self.original = Candidate(target.kernel.name, target.body.text)
        self._elsewhere: dict[int, list[tuple[Tensors, list[Any]]]] = {}
        self.tests = self._tests()
        failed = [
            n for n, test in self.tests.items() if trusted and not passes(test, self.original)
        ]
        if failed:
            raise EvidenceError(f"{target.name}: the original fails {', '.join(failed)}")

    def draw(
        self, arithmetic: Arithmetic, seed: int, sizes: Sizes, kernel: Kernel | None = None
    ) -> Sample:
        """A random point."""
        return draw(kernel or self.kernel, arithmetic, random.Random(seed), sizes, self.heads)

    def _truth(self, point: Point) -> list[Any]:
        outputs = self.kernel.outputs.values()
        return [evaluate_output(o.definition, o.indices, point) for o in outputs]

    # -------------------------------------------------------------- routes
    def _tests(self) -> dict[str, Test]:
        tests: dict[str, Test] = {
            "d = 1": self._exact(self.draw(prime_field, 1, LINE)),
            "exact": self._exact(self.draw(prime_field, 2, SMALL)),
            "d = 3": self._at_distinct_indices(self.draw(prime_field, 6, SPACE)),
        }
        held = self._holomorphic()
        if held is not None:
            tests["holomorphic decoders"] = held
        tests |= self._decimals()
        answer = known_answer(self.derivation, self.kernel.name)
        if answer is not None:
            tests["known answers"] = lambda c: all(
                close([value], [truth], FLOAT64) for value, truth in answer(self._set(c))
            )
        laws = self._laws()
        groups = {
            "batch": [x for x in laws if x[0].name == "batched"],
            "Hermitian, positive": [x for x in laws if x[0].name in CERTAIN],
            "laws": [x for x in laws if x[0].name not in (*CERTAIN, *NOT_LAWS)],
        }
        for name, group in groups.items():
            if group:
                tests[name] = partial(self._obeys, group)
        return {n: tests[n] for n in TESTS if n in tests}

    def _exact(self, sample: Sample) -> Test:
        truth = self._truth(sample.point)
        return lambda c: equal(c.outputs(sample.tensors, prime_field), truth)

    def _at_distinct_indices(self, sample: Sample) -> Test:
        """One entry of each output: with two dimensions two of three indices are the same."""
        places, truth = [], []
        for out in self.kernel.outputs.values():
            extents = [extent(i, sample.point.sizes) for i in out.indices]
            place = tuple(n % size for n, size in enumerate(extents))
            scope = Scope(dict(zip(out.indices, place, strict=True)))
            places.append(place)
            truth.append(array([evaluate(out.definition, sample.point, scope).base[0, 0]], (1,)))

        def same(candidate: Candidate) -> bool:
            found = candidate.outputs(sample.tensors, prime_field)
            entries = [array([np.asarray(f)[p]], (1,)) for f, p in zip(found, places, strict=True)]
            return equal(entries, truth)

        return same

    def _holomorphic(self) -> Test | None:
        """μ holomorphic and Σ constant, for kernels of a likelihood that do not assume it."""
        letters = {f.name: Jet(f) for f in fields_of(self.kernel) if "frozen" not in f.traits}
        if not {"mu", "Sigma"} <= set(letters) or self.kernel.assumptions:
            return None
        if "real" in letters["mu"].field.traits:  # and holomorphic would be constant
            return None
        assumed = ((letters["mu"], "holomorphic"), (letters["Sigma"], "constant"))
        kernel = replace(self.kernel, assumptions=assumed)
        sample = self.draw(prime_field, 3, SMALL, kernel)
        full = self.draw(prime_field, 3, SMALL)
        tensors: dict[str, Any] = {n: x - x for n, x in full.tensors.items()}
        return self._exact(Sample(sample.point, {**tensors, **sample.tensors}))

    def _decimals(self) -> dict[str, Test]:
        sample = self.draw(decimal, 4, GENERIC)
        double = {n: to_torch(x) for n, x in sample.tensors.items()}
        single = {n: x.to(torch.complex64) for n, x in double.items()}
        truth = [to_torch(t) for t in self._truth(sample.point)]
        fields = taylor_fields(sample.point, GENERIC["d"], is_real_latent(self.kernel))
        other = [
            differentiate(o.definition, o.indices, fields) for o in self.kernel.outputs.values()
        ]
        return {
            "autograd": lambda c: close(c.outputs(double), other, FLOAT64),
            "float64": lambda c: close(c.outputs(double), truth, FLOAT64),
            "float32": lambda c: close(
                [x.to(torch.complex128) for x in c.outputs(single)], truth, FLOAT32
            ),
        }

    # -------------------------------------------------------------- laws
    @cached_property
    def _module(self) -> Mapping[str, Any]:
        scope: dict[str, Any] = {"__name__": f"<kernels of {self.derivation.name}>"}
        exec(compile(self.text, scope["__name__"], "exec"), scope)
        return {n: v for n, v in scope.items() if n != "__builtins__"}

    def _set(self, candidate: Candidate) -> KernelSet:
        """The module with the candidate in its kernel's place."""
        return KernelSet(SimpleNamespace(**{**self._module, candidate.name: candidate.function}))

    def _laws(self) -> list[tuple[register.Law, Derivation, Kernel, bool]]:
        """Laws with the kernel to try them on, and whether the candidate is the geometry's."""
        found = []
        name = self.kernel.name
        owner = metric_of(name)
        original = self._set(self.original)
        for law, kernels in register.applicable(self.derivation, original):
            for kernel in kernels:
                whole = law.name in OF_METRICS and kernel.name == owner
                if kernel.name == name or whole:
                    found.append((law, self.derivation, kernel, False))
        if self.derivation.name == "hermitian_geometry":
            for subject, metric in (
                ("fubini_study", "metric"),
                ("gaussian_kl", "fisher_metric_scalar"),
            ):
                derivation = shipped_derivations()[subject]
                for law, kernels in register.applicable(derivation, KernelSet(subject)):
                    if law.name.startswith("curvature"):
                        found += [(law, derivation, k, True) for k in kernels if k.name == metric]
        return found

    def _obeys(
        self,
        laws: Sequence[tuple[register.Law, Derivation, Kernel, bool]],
        candidate: Candidate,
    ) -> bool:
        mine = self._set(candidate)
        for law, derivation, kernel, geometry in laws:
            kernels = KernelSet(derivation.name) if geometry else mine
            more = {"geometry": mine} if geometry else {}
            try:
                register.check(law, derivation, kernel, kernels, seed=1, sizes=GENERIC, **more)
            except register.DoesNotApply:  # a law about positive metrics, and there is none
                continue
        return True

    # -------------------------------------------------------------- equivalence
    @property
    def _numbers(self) -> Arithmetic:
        """ℚ(i); a prime field where there are transcendental values, which ℚ(i) has not."""
        return prime_field if self.heads else rational

    def _points(self, n: int) -> list[tuple[Tensors, list[Any]]]:
        if n not in self._elsewhere:
            sizes, seeds, batch = ELSEWHERE[n]
            samples: list[Tensors] = [self.draw(self._numbers, s, sizes).tensors for s in seeds]
            if batch:
                samples = [stacked(samples)]
            self._elsewhere[n] = [(s, self.original.outputs(s, self._numbers)) for s in samples]
        return self._elsewhere[n]

    @cached_property
    def _in_torch(self) -> dict[str, Tensor]:
        sample = self.draw(decimal, 100, ELSEWHERE[0][0])
        return {n: to_torch(x) for n, x in sample.tensors.items()}

    def runs(self, candidate: Candidate) -> bool:
        """Whether it runs at one point in exact arithmetic and in torch, and keeps its shape."""
        ((tensors, truth),) = self._points(0)
        try:
            found = candidate.outputs(tensors, self._numbers)
            in_torch = candidate.outputs(self._in_torch)
        except FAILURES:
            return False
        shapes = [tuple(np.shape(t)) for t in truth]
        return [np.shape(f) for f in found] == shapes == [tuple(f.shape) for f in in_torch]

    def equivalent(self, candidate: Candidate) -> bool:
        """Whether it equals the original in exact numbers, at every point of :data:`ELSEWHERE`."""
        for n in range(len(ELSEWHERE)):
            for tensors, truth in self._points(n):
                try:
                    if not equal(candidate.outputs(tensors, self._numbers), truth):
                        return False
                except FAILURES:
                    return False
        return True

    @cached_property
    def _far(self) -> list[tuple[dict[str, Tensor], list[Tensor]]]:
        """Points with one or two component fields far from 0, where the original keeps digits."""
        if "w" not in self._in_torch:
            return []
        sample = self.draw(decimal, 5, {"d": 2, "n": 1, "K": 3})
        near = {n: to_torch(x) for n, x in sample.tensors.items()}
        fields = [n for n in near if n.startswith("q_")]
        found = []
        for names in [*combinations(fields, 1), *combinations(fields, 2)]:
            tensors = near | {n: near[n] + FAR for n in names}
            exact = {n: self._lifted(x) for n, x in tensors.items()}
            truth = [to_torch(x) for x in self.original.outputs(exact, decimal)]
            if close(self.original.outputs(tensors), truth, NEAR):
                found.append((tensors, truth))
        return found

    def loses_digits(self, candidate: Candidate) -> bool:
        """Whether float64 fails where components nearly agree, and the original does not."""
        return any(not close(candidate.outputs(x), truth, NEAR) for x, truth in self._far)

    @staticmethod
    def _lifted(values: Tensor) -> Any:
        """The same numbers at 50 digits."""
        return array([decimal.number(x) for x in values.ravel().tolist()], tuple(values.shape))


_shipped: dict[str, Derivation] = {}


def shipped_derivations() -> dict[str, Derivation]:
    """The shipped derivations, loaded once."""
    if not _shipped:
        _shipped.update(shipped())
    return _shipped
