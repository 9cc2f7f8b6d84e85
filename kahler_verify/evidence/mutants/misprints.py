"""Faults in derivation files: what a mathematician would mistype."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kahler_verify import derivations
from kahler_verify.calculus.claims import Claim
from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen import kernel as printing
from kahler_verify.codegen.registry import load_file, shipped_file
from kahler_verify.derivations import shipped_folder
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
    with tempfile.TemporaryDirectory() as folder, standing_in(Path(folder)):
        path = Path(folder) / source_of(misprint.file).relative_to(shipped_folder())
        source = path.read_text(encoding="utf-8")
        if source.count(misprint.old) != 1:
            raise EvidenceError(
                f"{misprint.file}: expected {misprint.old!r} once, found it "
                f"{source.count(misprint.old)} times: adapt the mutant to the derivation"
            )
        path.write_text(source.replace(misprint.old, misprint.new), encoding="utf-8")
        owner, name = misprint.kernel.split(".")
        derivation = {d.name: d for d in load_file(path)}[owner]
        claims = claims_about(derivation, misprint.file, Path(folder))
    return _family(replace(derivation, claims=claims), name)


def source_of(name: str) -> Path:
    """The shipped file of this name.

    Raises:
        EvidenceError: there is none.
    """
    path = shipped_file(name)
    if path is None:
        raise EvidenceError(f"{name}: no such derivation file: adapt the mutant")
    return path


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Derivations are imported from a copy of the shipped folder, which may be edited."""
    shutil.copytree(
        shipped_folder(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    before = derivations.__path__
    derivations.__path__ = [str(folder)]
    try:
        yield
    finally:
        derivations.__path__ = before


def claims_about(derivation: Derivation, file: str, folder: Path) -> tuple[Claim, ...]:
    """The claims beside a derivation, and those of papers that import its file."""
    papers = sorted((folder / "papers").glob("*.py"))
    imports = re.compile(rf"^from \S+\b{file} import|^from \S+ import {file}\b", re.MULTILINE)
    chosen = [p for p in papers if imports.search(p.read_text(encoding="utf-8"))]
    return derivation.claims + tuple(c for p in chosen for d in load_file(p) for c in d.claims)


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
