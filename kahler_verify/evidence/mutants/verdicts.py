"""Judged mutants: what kills each, what each route alone would miss, and all of it as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kahler_verify.evidence.mutants.faults import FAULTS
from kahler_verify.files import write_text

# The cheapest first; each but "claims" and "holomorphic decoders" is tried on every kernel it fits.
TESTS = {
    "d = 1": "the text in F_p[i], one latent dimension",
    "exact": "the text in F_p[i] at d = n = K = 2",
    "d = 3": "the text in F_p[i] at d = 3, one entry of distinct indices",
    "Hermitian, positive": "g is Hermitian and positive, [[g, k], [k̄, ḡ]] is positive",
    "batch": "a batch of points against its points",
    "known answers": "closed forms from textbooks",
    "laws": "all other properties: charts, symmetry, invariance, curvature",
    "autograd": "the definition differentiated by torch, float64",
    "float64": "the definition at 50 digits against float64",
    "float32": "the definition at 50 digits against float32",
    "holomorphic decoders": "the text in F_p[i], μ holomorphic and Σ constant",
    "heads": "a module's own heads over balls of 50 digits, and in float64",
    "claims": "the ledger's identities",
    "variants": "layouts, blocks, plans, planes and log det against the plain kernels",
}


@dataclass(frozen=True)
class Judged:
    """A mutant with its verdict.

    ``by`` are the routes that kill it, the cheapest first; ``missed_by`` those that apply and let
    it live.  ``runs`` is false where it raises, or has another shape, at a single point, so that no
    evidence is needed; ``loses_digits`` is true where it equals the original, but not in float64.
    """

    id: str
    fault: str
    place: str
    kernel: str
    description: str
    equivalent: bool
    loses_digits: bool
    runs: bool
    killed: bool
    by: list[str]
    missed_by: list[str]
    seconds: float


@dataclass(frozen=True)
class MutantResult:
    """All judged mutants."""

    mutants: list[Judged]

    @property
    def counted(self) -> list[Judged]:
        """Those that run and differ from the original."""
        return [m for m in self.mutants if m.runs and not m.equivalent]

    @property
    def survivors(self) -> list[Judged]:
        """Those that differ from the original and are not noticed."""
        return [m for m in self.mutants if not m.killed and not m.equivalent]

    @property
    def passed(self) -> bool:
        """Whether at least one mutant was judged, and none that differs survived."""
        return bool(self.counted) and not self.survivors

    @property
    def table(self) -> dict[str, dict[str, Any]]:
        """For each fault: how many, what killed them first, what each route alone would miss."""
        out = {}
        for fault in [f for f in FAULTS if any(m.fault == f for m in self.mutants)]:
            own = [m for m in self.mutants if m.fault == fault]
            out[fault] = _row(own)
        out["all"] = _row(self.mutants)
        return out


def _row(mutants: Sequence[Judged]) -> dict[str, Any]:
    counted = [m for m in mutants if m.runs and not m.equivalent]
    first = [m.by[0] for m in counted if m.by]
    return {
        "mutants": len(counted),
        "equivalent": sum(m.equivalent for m in mutants),
        "equivalent, loses digits": sum(m.loses_digits for m in mutants),
        "do not run": sum(not m.runs for m in mutants),
        "survived": sum(not m.killed for m in counted),
        "killed first by": {r: first.count(r) for r in TESTS if r in first},
        "missed by alone": {
            r: [
                sum(r in m.missed_by for m in counted),
                sum(r in m.by + m.missed_by for m in counted),
            ]
            for r in TESTS
        },
    }


def write_mutants(result: MutantResult, path: Path) -> None:
    """Write all mutants and the table as JSON."""
    data = {
        "mutants": [asdict(m) for m in result.mutants],
        "table": result.table,
        "routes": TESTS,
        "passed": result.passed,
    }
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
