"""Faults in derivation files: what a mathematician would mistype."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen import kernel as printing
from kahler_verify.codegen.registry import load_file, shipped_folder
from kahler_verify.errors import EvidenceError, GenerationError


@dataclass(frozen=True)
class Misprint:
    """An edit of a derivation file: what a mathematician would mistype."""

    fault: str
    file: str
    old: str
    new: str
    kernel: str  # derivation.kernel to judge it by


def misprinted(misprint: Misprint) -> Derivation:
    """The derivation of a mistyped file, with the kernels of the misprint's metric.

    Raises:
        EvidenceError: the line to edit does not stand there exactly once.
    """
    source = (shipped_folder() / f"{misprint.file}.py").read_text(encoding="utf-8")
    if source.count(misprint.old) != 1:
        raise EvidenceError(
            f"{misprint.file}: expected {misprint.old!r} once, found it "
            f"{source.count(misprint.old)} times: adapt the mutant to the derivation"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{misprint.file}.py"
        path.write_text(source.replace(misprint.old, misprint.new), encoding="utf-8")
        owner, name = misprint.kernel.split(".")
        return _family({d.name: d for d in load_file(path)}[owner], name)


def metric_of(name: str) -> str:
    """The metric's kernel that a kernel of its derivatives belongs to."""
    return re.sub(r"metric_db?(?=_|$)", "metric", name)


def _family(derivation: Derivation, name: str) -> Derivation:
    """A derivation with those kernels alone that make one metric, and that can be printed."""
    kept = []
    for kernel in derivation.kernels:
        if metric_of(kernel.name) != metric_of(name) and kernel.name not in ("value", "gradient"):
            continue
        try:
            outputs = {n: (x, kernel.outputs[n].indices) for n, x in kernel.derived().items()}
            printing.print_kernel(outputs, derivation.latent, kernel.layout)
        except GenerationError:  # a misprint may leave no kernel to write
            continue
        kept.append(kernel)
    return replace(derivation, kernels=tuple(kept))
