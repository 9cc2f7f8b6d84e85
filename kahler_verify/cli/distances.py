"""The command ``distances``: geodesic distances between all pairs of encoded data."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer

from kahler_verify.cli.consoles import beside, errors, say
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_bytes, write_text


def distances(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.")],
    out: Annotated[Path, typer.Option(help="Where codes and distances (.npz) go.")],
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    points: Annotated[int, typer.Option(help="How many encoded test samples to take.")] = 32,
    kept: Annotated[
        Path | None, typer.Option(help="Keep what is done here; goes on from it when run again.")
    ] = None,
    at_once: Annotated[int, typer.Option(help="Pairs in a batch.")] = 256,
    json: Annotated[Path | None, typer.Option(help="Write a summary as JSON.")] = None,
) -> None:
    """Find the distances of all pairs of encoded samples in the decoder's Fisher-Rao metric."""
    from json import dumps

    import numpy as np
    from rich.progress import Progress

    from kahler_verify.cli.latents import open_latents
    from kahler_verify.curves import Status
    from kahler_verify.curves import distances as measure
    from kahler_verify.models.data import held_out_samples

    for name, output in (("out", out), ("json", json), ("kept", kept)):
        require_writable(name, output)
    for name, count in (("points", points), ("at-once", at_once)):
        if count < 1:
            raise InputError(f"{name}: expected at least 1, got {count}")
    latents = open_latents(checkpoint)
    assert latents.checkpoint is not None
    config = latents.checkpoint.config
    samples = held_out_samples(config.data, config.seed, data)
    if samples is None:
        raise InputError(
            f"data: expected --data with the file that {checkpoint} was trained on, as its data "
            f"have no name but {config.data!r}, which is not followed"
        )
    codes = latents.encoded(samples[:points])
    with Progress(console=errors, transient=True) as bar:
        task = bar.add_task("pairs", total=None)
        found = measure(
            latents.metric,
            codes,
            pairs_at_once=at_once,
            kept=kept,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            raise_on_failure=False,
        )
    archive = BytesIO()
    report: dict[str, Any] = {
        k: np.array(v) for k, v in found.report.to_json().items() if k != "length"
    }
    np.savez(archive, codes=codes.numpy(), lengths=found.lengths.numpy(), **report)
    write_bytes(out, archive.getvalue())
    apart = ~np.eye(len(codes), dtype=bool)
    status = found.report.status.numpy()[apart]
    counts = {s.name.lower(): int((status == s).sum()) // 2 for s in Status}
    lengths = found.lengths.numpy()[apart]
    gaps = found.report.gap.numpy()[apart & (found.report.status.numpy() == Status.MINIMUM)]
    summary = {
        "checkpoint": checkpoint.name,
        "points": len(codes),
        "pairs": counts,
        "median_length": float(np.nanmedian(lengths)) if np.isfinite(lengths).any() else None,
        "largest_gap": float(gaps.max()) if gaps.size else None,
        "evaluations": int(found.report.evaluations.sum()) // 2,
    }
    say(
        f"{out}: {counts['minimum']} of {len(status) // 2} pairs ended at a minimum, with an "
        f"estimated excess of length up to {summary['largest_gap'] or 0:.1e}",
        to=beside(out, json),
    )
    if json is not None:
        write_text(json, dumps(summary, indent=1, allow_nan=False))
