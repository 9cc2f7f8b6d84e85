"""What ``kahler-verify derive`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from sympy import latex as to_latex

from kahler_verify.calculus.derivation import Derivation


def describe(derivation: Derivation, *, latex: bool = False) -> Iterator[str]:
    """Lines that show a derivation: definition, assumptions, and each kernel's derived outputs."""
    write = to_latex if latex else str
    yield f"{derivation.name}: {derivation.title}"
    if derivation.source:
        yield f"source: {derivation.source}"
    for assumption in derivation.assumptions:
        yield f"assumes: {assumption}"
    if derivation.definition is not None:
        yield f"definition: {write(derivation.definition)}"
    seen: dict[str, str] = {}
    for kernel in derivation.kernels:
        for name, out in kernel.outputs.items():
            indices = "".join(map(str, out.indices))
            subscript = (
                f"_{{{indices}}}" if latex and indices else f"[{indices}]" if indices else ""
            )
            explicit = derivation.coordinates and out.indices
            derived = out.definition if explicit else out.derived(*kernel.assumptions)
            text = f"{name}{subscript} = {write(derived)}"
            if text in seen:  # layouts share one derivation
                yield f"{kernel.name}: as {seen[text]}"
            else:
                seen[text] = kernel.name
                yield f"{kernel.name}: {text}"
