"""Numbers in the documentation: whatever lies between two markers is rewritten from a report.

A block begins with ``<!-- bench NAME -->`` and ends with ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plots import label
from benchmarks.programs import FOLDED, FROZEN, PROGRAMS
from benchmarks.targets import target_table
from kahler_verify.errors import InputError


def put(page: Path, blocks: Mapping[str, str], kind: str) -> None:
    """Rewrite what stands between ``<!-- KIND NAME -->`` and ``<!-- end -->``.

    Raises:
        InputError: the page has not one such block for each.
    """
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        pattern = rf"<!-- {kind} {name} -->\n.*?<!-- end -->"
        new = f"<!-- {kind} {name} -->\n{block}\n<!-- end -->"
        text, count = re.subn(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
        if count != 1:
            raise InputError(f"page: expected one block <!-- {kind} {name} --> in {page.name}")
    page.write_text(text, encoding="utf-8")


def rewrite(path: Path, report: dict[str, Any]) -> None:
    """Rewrite the blocks of a page for the report's device; other blocks stay as they are.

    Raises:
        InputError: the page has no such block.
    """
    if report["machine"].get("real"):
        blocks = real_blocks(report)
    elif report["machine"]["device"].startswith("cuda"):
        blocks = {"gpu": gpu_block(report)}
    else:
        blocks = cpu_blocks(report)
    put(path, blocks, "bench")


def cpu_blocks(report: dict[str, Any]) -> dict[str, str]:
    """Markdown for each block about the CPU."""
    return {
        "machine": machine_line(report),
        "targets": target_table(report),
        "ratios": ratio_table(report),
        "losses": loss_list(report),
        "floors": floor_table(report),
        "growth": growth_table(report),
        "faults": fault_list(report),
    }


def real_blocks(report: dict[str, Any]) -> dict[str, str]:
    """Markdown about decoders of real latents, and about single points of all."""
    many = [row for row in report["results"] if row["sizes"]["B"] > 1]
    plain = [row for row in many if row["rival"] not in PROGRAMS]
    single = [row for row in report["results"] if row["sizes"]["B"] == 1]
    return {
        "machine": machine_line(report),
        "single points": program_table(single, PROGRAMS),
        "programs of batches": program_table(many, (FROZEN, FOLDED)),
        "real ratios": ratio_table(report | {"results": plain}),
    }


def program_table(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    """Times in units of layer-wise Jacobians by hand, of cells with a program of ours."""
    cells: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["ratio"] is not None:
            cells[label(row)][row["rival"]] = row["ratio"]
    lines = [f"| cell | ours | {' | '.join(columns)} |", "| --- " * (len(columns) + 2) + "|"]
    for name, ratios in cells.items():
        unit = ratios.get("layer-wise Jacobians")
        if unit is None or FROZEN not in ratios:
            continue
        others = [f"{ratios[c] / unit:.2g}" if c in ratios else "–" for c in columns]
        lines.append(f"| {name} | {1 / unit:.2g} | {' | '.join(others)} |")
    return "\n".join(lines)


def machine_line(report: dict[str, Any]) -> str:
    """One sentence about where the numbers come from."""
    m, p = report["machine"], report["peaks"]
    mode = "quick mode" if m["quick"] else "the full grid"
    jax = f", JAX {m['jax']}" if m["jax"] else ""
    others = "".join(
        f"; {name.removeprefix('float32, ')}'s float32 product {rate:.0f} GFLOP/s"
        for name, rate in p.items()
        if name.startswith("float32, ")
    )
    return (
        f"Measured on {m['processor']} ({m['threads']} thread), torch {m['torch']}{jax}, {mode}. "
        f"Peaks in the same run: products at {p['float32']:.0f} / {p['float64']:.0f} / "
        f"{p['complex64']:.0f} / {p['complex128']:.0f} GFLOP/s (float32 / float64 / complex64 / "
        f"complex128), memory {p['memory']:.0f} GB/s{others}."
    )


def gpu_block(report: dict[str, Any]) -> str:
    """Everything about a GPU in one block."""
    m, p = report["machine"], report["peaks"]
    head = (
        f"Measured on {m['gpu']}, torch {m['torch']}. Peaks in the same run: products at "
        f"{p['complex64']:.0f} / {p['complex128']:.0f} GFLOP/s (complex64 / complex128), memory "
        f"{p['memory']:.0f} GB/s."
    )
    return "\n\n".join([head, ratio_table(report), floor_table(report)])


def ratio_table(report: dict[str, Any]) -> str:
    """A line for each kind of cell and rival: the range of ratios over sizes."""
    ranges: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in report["results"]:
        if row["ratio"] is not None:
            ranges[_kind(row), row["rival"]].append(row["ratio"])
    lines = ["| quantity | rival | time of the rival / ours | cells |", "| --- | --- | --- | --- |"]
    for (kind, rival), ratios in ranges.items():
        low, high = min(ratios), max(ratios)
        text = f"{low:.2g}" if len(ratios) == 1 else f"{low:.2g} – {high:.2g}"
        lines.append(f"| {kind} | {rival} | {text} | {len(ratios)} |")
    return "\n".join(lines)


def loss_list(report: dict[str, Any]) -> str:
    """Where a rival is faster."""
    lost = [r for r in report["results"] if r["ratio"] is not None and r["ratio"] < 1]
    if not lost:
        return "In this run no rival was faster than the package."
    lines = [
        f"- {label(row)}: **{row['rival']}** takes {row['ratio']:.2f} of our time"
        for row in sorted(lost, key=lambda row: row["ratio"])
    ]
    return "\n".join(lines)


def floor_table(report: dict[str, Any]) -> str:
    """The fraction of the floor that ours reaches."""
    lines = ["| cell | ours | of the floor |", "| --- | --- | --- |"]
    lines += [
        f"| {label(row)} | {row['seconds'] * 1e3:.3g} ms | {row['fraction']:.2f} |"
        for row in report["floors"]
        if row["fraction"] is not None
    ]
    return "\n".join(lines)


def growth_table(report: dict[str, Any]) -> str:
    """Exponents, and peak memory where it was measured."""
    lines = ["| quantity | in | exponent | of the operation count |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row['quantity']} | {row['in']} | {row['exponent']:.2f} | {row['count_exponent']:.2f} |"
        for row in report["growth"]
    ]
    memory = report.get("memory")
    if memory:
        sizes = ", ".join(f"{k} = {v}" for k, v in memory["sizes"].items() if isinstance(v, int))
        lines.append(
            f"\nPeak memory of the metrics at {sizes}: {memory['peak_mib']:.0f} MiB, of which the "
            f"answer takes {memory['answer_mib']:.0f} MiB."
        )
    return "\n".join(lines)


def fault_list(report: dict[str, Any]) -> str:
    """Rivals that are wrong, or do not run, or take too long."""
    seen: dict[str, str] = {}
    for row in report["results"]:
        if row["error"] is not None:
            seen.setdefault(f"{_kind(row)}, {row['rival']}", row["error"])
    if not seen:
        return "In this run every rival gave the same numbers as the package."
    return "\n".join(f"- {name}: {error}" for name, error in seen.items())


def _kind(row: dict[str, Any]) -> str:
    words = [v for v in row["sizes"].values() if isinstance(v, str)]
    return ", ".join([row["quantity"], *words, row["dtype"]])
