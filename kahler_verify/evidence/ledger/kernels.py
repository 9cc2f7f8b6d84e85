"""Kernels of a derivation against its definition, its laws, and what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen import compiled
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence import methods
from kahler_verify.evidence.laws.register import check_all
from kahler_verify.evidence.laws.variants import groups
from kahler_verify.evidence.ledger.items import METHODS, Item
from kahler_verify.evidence.ledger.parts import MOST_ENTRIES, SIZES, WIDE, is_affordable
from kahler_verify.evidence.proofs.schwartz_zippel import reads_as_written, schwartz_zippel
from kahler_verify.evidence.routes.heads import compare_heads
from kahler_verify.running.kernel_set import KernelSet


def kernel_items(
    derivation: Derivation,
    names: Sequence[str] = (),
    profile: str = "default",
    on_disk: Path | None = None,
) -> list[Item]:
    """Kernels of a derivation (all by default) against their definition, by Schwartz-Zippel.

    What is judged is the text of the file ``on_disk``, where there is one: the code that runs.
    """
    module = generate_module(derivation)
    text = module.text
    if on_disk is not None and on_disk.is_file():
        text = on_disk.read_text(encoding="utf-8")
    due = [k for k in derivation.kernels if f"def {k.name}(" in module.text]
    module = replace(module, text=text)
    chosen = [k for k in due if f"def {k.name}(" in text]
    unknown = set(names) - {k.name for k in due}
    if unknown:
        raise EvidenceError(f"{derivation.name} has no kernels {sorted(unknown)}")
    items = []
    if derivation.written is not None and derivation.written != derivation.definition:
        same = reads_as_written(derivation, SIZES[profile][1])
        outcome = "has the values of what is written" if same else "is not what is written"
        items.append(
            Item("Schwartz-Zippel", f"{derivation.name}: the definition", outcome, same, 3)
        )
    for kernel in chosen:
        if names and kernel.name not in names:
            continue
        sizes = [(s, MOST_ENTRIES[profile]) for s in SIZES[profile]]
        if names and profile == "default":
            sizes.append((WIDE, 1))
        if derivation.coordinates:
            sizes = [({"d": len(derivation.coordinates), "n": 1, "K": 1}, MOST_ENTRIES[profile])]
        definitions = [out.definition for out in kernel.outputs.values()]
        sizes = [(s, m) for s, m in sizes if all(is_affordable(e, s) for e in definitions)]
        entries, equal, worst = 0, True, -1e9
        for size, most in sizes:
            trial = schwartz_zippel(
                kernel, module.text, size, heads=module.heads, most_entries=most
            )
            entries, equal = entries + trial.entries, equal and trial.equal
            worst = max(worst, trial.error_log2)
        outcome = "equals its definition" if equal else "differs from its definition"
        items.append(
            Item(
                "Schwartz-Zippel",
                f"{derivation.name}.{kernel.name}",
                outcome,
                equal,
                entries,
                worst,
                {"sizes": [s for s, _ in sizes]},
            )
        )
    route = "Schwartz-Zippel"
    items += [
        Item(route, f"{derivation.name}.{k.name}", "is not in the file", False, 1)
        for k in due
        if k not in chosen and (not names or k.name in names)
    ]
    return items + _head_items(derivation, module)


def _head_items(derivation: Derivation, module: Module) -> list[Item]:
    """The values that the module itself computes for its kernels."""
    what = partial(Item, "balls and float64", f"{derivation.name}.heads")
    try:
        found = compare_heads(derivation, module.text, module.heads)
    except EvidenceError as error:
        return [what(str(error), False, 0)]
    if found is None:
        return []
    outcome = "; ".join(found.complaints) or f"right over balls, to {found.error:.1e} in float64"
    return [what(outcome, found.passed, found.trials)]


def property_items(derivation: Derivation) -> list[Item]:
    """Every registered property that applies to a derivation, on random trials."""
    results = check_all(derivation, KernelSet(compiled.compile(derivation)), examples=3)
    return [
        Item(
            "property",
            f"{derivation.name}: {name}",
            found.story or "holds",
            found.passed,
            found.trials,
        )
        for name, found in results.items()
    ]


def variant_items() -> list[Item]:
    """Layouts, plans, planes and eliminations against the plain kernels, a line for each group."""
    items = []
    for group in groups.GROUPS:
        found = groups.compared(group)
        failed = [c for c in found if not c.passed]
        worst = max((c.error for c in failed or found), default=float("nan"))
        story = f"agree with the plain kernels to {worst:.1e}"
        if failed:
            story = f"{len(failed)} differ, {failed[0].what} by {failed[0].error:.1e}"
        passed = bool(found) and not failed
        items.append(Item("variants", f"variants of {group}", story, passed, len(found)))
    return items


def method_items() -> list[Item]:
    """The kernels that run when a public method of a metric is called; none is a fault."""
    return [
        Item(
            METHODS,
            f"{row.metric}.{row.method}",
            row.by_module if row.passed else f"no kernel runs: {', '.join(row.without[:3])}",
            row.passed,
            row.calls,
            None,
            {"kernels": sorted(row.kernels)},
        )
        for row in methods.behind_methods()
    ]
