"""A ledger as JSON: all of it, or what the independent re-checker can judge again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from kahler_verify.evidence.ledger.items import METHODS, Ledger
from kahler_verify.files import write_text


def write_evidence(ledger: Ledger, path: Path) -> int:
    """Write what the independent re-checker can judge again; how many items there are.

    ``python -m kahler_verify.evidence.recheck FILE`` evaluates them without the rest of the
    project.
    """
    items = [i.data["recheck"] for j in ledger.claims for i in j.evidence if "recheck" in i.data]
    write_text(path, json.dumps({"format": 1, "items": items}, indent=1, ensure_ascii=False))
    return len(items)


def write_ledger(ledger: Ledger, path: Path) -> None:
    """Write the ledger as JSON: ``{"claims": [{"id", "verdict", …}], "kernels": […]}``.

    ``"methods"`` gives, for each public method of a metric, the kernels that its calls ran.
    """
    data = {
        "claims": [asdict(j) for j in ledger.claims],
        "kernels": [asdict(i) for i in ledger.kernels if i.route != METHODS],
        "methods": [asdict(i) for i in ledger.methods],
        "passed": ledger.passed,
    }
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False))
