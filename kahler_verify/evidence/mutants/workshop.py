"""The shipped kernels as targets, and every mutant of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sympy import Expr

from kahler_verify.calculus.derivation import Kernel
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import KERNELS
from kahler_verify.evidence.mutants.bench import ELSEWHERE, Bench, shipped_derivations
from kahler_verify.evidence.mutants.candidate import Candidate, to_torch
from kahler_verify.evidence.mutants.derived_faults import derived_mutants
from kahler_verify.evidence.mutants.faults import (
    LONGEST_BODY,
    Mutant,
    Target,
    body_of_kernel,
    printed_body,
)
from kahler_verify.evidence.mutants.misprints import Misprint, misprinted
from kahler_verify.evidence.mutants.planted import MISPRINTS, RULES
from kahler_verify.evidence.mutants.rules import rule_mutants
from kahler_verify.evidence.mutants.text_faults import kernel_mutants
from kahler_verify.evidence.numbers.arithmetic import decimal
from kahler_verify.evidence.numbers.samples import draw


@dataclass
class Workshop:
    """The shipped kernels as targets, with their modules' heads."""

    targets: list[Target] = field(default_factory=list)
    heads: dict[str, Mapping[Expr, str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    benches: dict[str, Bench] = field(default_factory=dict)

    @classmethod
    def open(cls) -> Workshop:
        """Read every shipped module of a derivation with tensor kernels."""
        shop = cls()
        for name, derivation in shipped_derivations().items():
            path = KERNELS / f"{name}.py"
            kernels = [k for k in derivation.kernels if isinstance(k, Kernel)]
            if derivation.coordinates or not kernels or not path.is_file():
                continue  # unrolled kernels have no indices to transpose
            text = path.read_text(encoding="utf-8")
            shop.texts[name] = text
            shop.heads[name] = generate_module(derivation).heads if "\nHEADS = " in text else {}
            for kernel in kernels:
                if f"def {kernel.name}(" in text:
                    target = Target(derivation, kernel, body_of_kernel(text, kernel.name))
                    shop.targets.append(replace(target, shapes=shop._shapes(target)))
        return shop

    def _shapes(self, target: Target) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a kernel at sizes that tell the axes apart."""
        heads = self.heads[target.derivation.name]
        sample = draw(target.kernel, decimal, random.Random(0), ELSEWHERE[0][0], heads)
        body = target.body
        lines = tuple(line for line in body.lines if line[0] != "return")
        probe = Candidate(body.name, replace(body, lines=(*lines, ("return", "locals()"))).text)
        (found,) = probe.outputs({n: to_torch(x) for n, x in sample.tensors.items()})
        return {n: tuple(x.shape) for n, x in found.items()}

    def bench(self, name: str) -> Bench:
        """The evidence of one kernel."""
        if name not in self.benches:
            target = next(t for t in self.targets if t.name == name)
            own = target.derivation.name
            self.benches[name] = Bench(target, self.heads[own], self.texts[own], trusted=True)
        return self.benches[name]

    def mutants(self) -> Iterator[Mutant]:
        """Every mutant of every place; each source once with its true definition."""
        seen: set[tuple[str, str, bool]] = set()
        for mutant in self._all():
            key = mutant.kernel, mutant.text, mutant.definition is None
            if key not in seen:
                seen.add(key)
                yield mutant

    def _all(self) -> Iterator[Mutant]:
        for target in self.targets:
            yield from kernel_mutants(target)
        for target in self.targets:
            yield from derived_mutants(target, self.heads[target.derivation.name])
        regular = [(t, t.kernel.derived()) for t in self.targets if self._is_current(t)]
        for number, rule in enumerate(RULES, start=1):
            yield from rule_mutants(rule, number, regular, self.heads)
        for number, misprint in enumerate(MISPRINTS, start=1):
            yield misprint_mutant(number, misprint)

    def _is_current(self, target: Target) -> bool:
        """Whether the generator, unedited, prints what is shipped; long kernels are left out."""
        if len(target.body.lines) > LONGEST_BODY:
            return False
        heads = self.heads[target.derivation.name]
        return printed_body(target, target.kernel.derived(), heads).lines == target.body.lines


def misprint_mutant(number: int, misprint: Misprint) -> Mutant:
    """The kernel that the true generator makes of a mistyped definition."""
    derivation = misprinted(misprint)
    name = misprint.kernel.split(".")[1]
    return Mutant(
        f"derivation/misprint {number}/{misprint.kernel}",
        misprint.fault,
        "derivation",
        misprint.kernel,
        f"{misprint.file}: {misprint.old.strip()} → {misprint.new.strip() or '(nothing)'}",
        body_of_kernel(generate_module(derivation).text, name).text,
        derivation,
    )
