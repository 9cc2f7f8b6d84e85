"""Writing generated modules to disk, and checking that what is there is what derives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.calculus.pointwise import Pointwise
from kahler_verify.codegen.formatting import difference
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.pointwise import generate_pointwise
from kahler_verify.codegen.progress import Step, progress_line
from kahler_verify.codegen.real_functions import generate_real_functions
from kahler_verify.codegen.registry import KERNELS, declared, shipped, shipped_pointwise
from kahler_verify.errors import GenerationError, KahlerVerifyError
from kahler_verify.files import write_text


@dataclass
class GenerationReport:
    """Lines to print, and whether a check failed."""

    lines: list[str] = field(default_factory=list)
    failed: bool = False


def targets(paths: Sequence[Path], out: Path | None) -> list[tuple[Derivation | Pointwise, Path]]:
    """Every derivation with the file its kernels belong in.

    Shipped kernels live in the package; a user's go beside the user's file as ``NAME_kernels.py``.
    """
    if not paths:
        known: list[Derivation | Pointwise] = [d for d in shipped().values() if d.kernels]
        known += shipped_pointwise()
        return [(d, (out or KERNELS) / f"{d.name}.py") for d in known]
    found: dict[Path, Derivation | Pointwise] = {}
    for path in paths:
        for derivation in declared(path):
            if isinstance(derivation, Derivation) and not derivation.kernels:
                continue
            target = (out or path.parent) / f"{derivation.name}_kernels.py"
            if target in found:
                raise GenerationError(f"two derivations would be written to {target}")
            found[target] = derivation
    return [(d, target) for target, d in found.items()]


def _generated(declaration: Derivation | Pointwise, step: Step) -> Module:
    try:
        if isinstance(declaration, Pointwise):
            step(f"{declaration.name}: deriving")
            real = declaration.variable.is_real
            return generate_real_functions(declaration) if real else generate_pointwise(declaration)
        return generate_module(declaration, step)
    except KahlerVerifyError as error:
        raise type(error)(f"{declaration.name}: {error}") from error


def generate_files(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    check: bool = False,
    progress: bool | None = None,
) -> GenerationReport:
    """Generate kernels and write them, or with ``check`` compare them with what is on disk.

    All derivations are generated before the first file is written.  After two seconds ``progress``
    shows what is being done: by default where standard error is a terminal.
    """
    report = GenerationReport()
    wanted = targets(paths, out)
    with progress_line(progress) as step:
        modules = [(_generated(d, step), path) for d, path in wanted]
    for module, path in modules:
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not check:
            if old == module.text:
                report.lines.append(f"{path.name}: unchanged")
            else:
                write_text(path, module.text)
                report.lines.append(f"{path.name}: written")
            continue
        diff = difference(old, module.text, path.name) if old else "the file is missing"
        if diff:
            report.failed = True
            report.lines += [f"{module.name}: kernels differ from their derivation", diff]
        elif old != module.text:
            report.lines.append(
                f"{module.name}: the same kernels, but another header (another SymPy?)"
            )
    if not paths:
        expected = {path.name for _, path in modules} | {"__init__.py"}
        for stray in sorted((out or KERNELS).glob("*.py")):
            if stray.name not in expected:
                report.lines.append(f"{stray.name}: no derivation generates this file")
                report.failed = report.failed or check
    if check and not report.failed:
        report.lines.append(f"all generated modules agree with their derivations ({len(modules)})")
    return report
