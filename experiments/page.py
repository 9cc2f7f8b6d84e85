"""A results page: whatever lies between two markers is rewritten.

A block begins with ``<!-- EXPERIMENT NAME -->`` and ends with ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.store import Json
from kahler_verify.errors import InputError


def rewrite(path: Path, experiment: str, blocks: Mapping[str, str]) -> None:
    """Rewrite every block of the page.

    Raises:
        InputError: the page lacks a block, or has one that is not known.
    """
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(rf"<!-- {experiment} (\w+) -->", text))
    if found != set(blocks):
        raise InputError(
            f"page: expected the markers {sorted(blocks)} in {path.name}, got {sorted(found)}"
        )
    for name, block in blocks.items():
        text = re.sub(
            rf"(<!-- {experiment} {name} -->\n).*?(<!-- end -->)",
            lambda match, block=block: f"{match[1]}\n{block}\n\n{match[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    path.write_text(text, encoding="utf-8")


def table(
    cell: Json, baseline: str, arms: Mapping[str, str], measures: Mapping[str, tuple[str, int]]
) -> str:
    """A cell's differences from its baseline, measure after measure.

    Args:
        cell: with ``values`` and ``differences``.
        baseline: an arm.
        arms: the others, with their words.
        measures: with their titles and how many digits they are given.
    """
    lines = []
    for measure, (title, digits) in measures.items():
        start = np.mean(cell["values"][baseline][measure])
        lines += [
            f"**{title}** ({baseline}: {start:.{digits}f})",
            "",
            "| | mean | difference, with its interval | p, adjusted |",
            "| --- | --- | --- | --- |",
        ]
        for arm, words in arms.items():
            row = next(r for r in cell["differences"] if (r["arm"], r["measure"]) == (arm, measure))
            mean = np.mean(cell["values"][arm][measure])
            lines.append(f"| {words} | {mean:.{digits}f} | {_interval(row, digits)} | {_p(row)} |")
        lines.append("")
    return "\n".join(lines[:-1])


def _interval(row: Json, digits: int) -> str:
    if row["low"] is None:
        return f"{row['difference']:+.{digits}f}"
    return (
        f"{row['difference']:+.{digits}f} ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})"
    )


def _p(row: Json) -> str:
    return "–" if row.get("p_holm") is None else f"{row['p_holm']:.2g}"
