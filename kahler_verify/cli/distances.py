"""The command ``distances``: geodesic distances between all pairs of encoded data."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kahler_verify.cli.consoles import beside, errors, say
from kahler_verify.cli.engine_options import EngineName, Scheduler, Share, Workers, end_if_stopped
from kahler_verify.cli.progress import work_bar
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

    from kahler_verify.fields.work import Engine


def distances(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.")],
    out: Annotated[
        Path,
        typer.Option(help="Where codes and distances go: .npz by one process, .zarr by an engine."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    points: Annotated[int, typer.Option(help="How many encoded test samples to take.")] = 32,
    kept: Annotated[
        Path | None, typer.Option(help="Keep what is done here; goes on from it when run again.")
    ] = None,
    at_once: Annotated[int, typer.Option(help="Pairs in a batch.")] = 256,
    json: Annotated[Path | None, typer.Option(help="Write a summary as JSON.")] = None,
    tile: Annotated[int, typer.Option(help="Codes along a tile of a store's matrix.")] = 64,
    segments: Annotated[
        int, typer.Option(help="Pieces of each curve for bounds of its length; 0: none.")
    ] = 0,
    engine: EngineName = "processes",
    workers: Workers = None,
    scheduler: Scheduler = None,
    task: Share = None,
) -> None:
    """Find the distances of all pairs of encoded samples in the decoder's Fisher-Rao metric."""
    import numpy as np
    from rich.progress import Progress

    from kahler_verify.cli.latents import open_latents
    from kahler_verify.curves import distances as measure
    from kahler_verify.fields.engines import engine as engine_of
    from kahler_verify.models.data import held_out_samples

    stored = out.suffix == ".zarr"
    asked = engine != "processes" or any(x is not None for x in (workers, scheduler, task))
    if not stored and asked:
        raise InputError(f"out: expected a store (.zarr) where an engine is named, got {out}")
    if stored and kept is not None:
        raise InputError("kept: expected none with a store, which is gone on with by itself")
    for name, output in (("out", None if stored else out), ("json", json), ("kept", kept)):
        require_writable(name, output)
    for name, count in (("points", points), ("at-once", at_once)):
        if count < 1:
            raise InputError(f"{name}: expected at least 1, got {count}")
    if segments < 0:
        raise InputError(f"segments: expected 0 or more, got {segments}")
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
    if stored:
        chosen = engine_of(engine, workers=workers, scheduler=scheduler, task=task)
        _into_store(checkpoint, codes, out, tile, segments, chosen, json)
        return
    with Progress(console=errors, transient=True) as bar:
        pairs = bar.add_task("pairs", total=None)
        found = measure(
            latents.metric,
            codes,
            segments=segments,
            pairs_at_once=at_once,
            kept=kept,
            progress=lambda done, total: bar.update(pairs, completed=done, total=total),
            raise_on_failure=False,
        )
    archive = BytesIO()
    report: dict[str, Any] = {
        k: np.array(v) for k, v in found.report.to_json().items() if k != "length"
    }
    np.savez(archive, codes=codes.numpy(), lengths=found.lengths.numpy(), **report)
    write_bytes(out, archive.getvalue())
    values = {name: x.numpy() for name, x in vars(found.report).items()}
    summary = {
        "checkpoint": checkpoint.name,
        "points": len(codes),
        **_counted(values | {"length": found.lengths.numpy()}),
    }
    _tell(summary, out, json)


def _into_store(
    checkpoint: Path,
    codes: Tensor,
    out: Path,
    tile: int,
    segments: int,
    engine: Engine,
    json: Path | None,
) -> None:
    from kahler_verify import fields

    source = fields.of_checkpoint(checkpoint)
    with work_bar(errors, "pairs", "tiles") as progress:
        summary = fields.compute_distances(
            source,
            fields.codes(source.space, codes.numpy()),
            out,
            tile=tile,
            segments=segments,
            engine=engine,
            progress=progress,
            say=lambda text: say(text, to=errors),
        )
    end_if_stopped(summary)
    found = fields.open_distances(out)
    counted = _counted({name: found[name] for name in found.names})
    detours = found.detours()
    _tell(
        {"checkpoint": checkpoint.name, "points": len(codes), **counted, "detours": detours},
        out,
        json,
    )


def _counted(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of pairs: how searches ended, and what they found."""
    import numpy as np

    from kahler_verify.curves import Status

    length, status = found["length"], found["status"]
    apart = ~np.eye(len(length), dtype=bool)
    known = apart & (status == Status.MINIMUM) & (length > 0)
    gaps, lengths = found["gap"][known], length[known]
    summary: dict[str, Any] = {
        "pairs": {s.name.lower(): int((status[apart] == s).sum()) // 2 for s in Status},
        "median_length": float(np.median(lengths)) if lengths.size else None,
        "largest_gap": float(gaps.max()) if gaps.size else None,
        "evaluations": int(found["evaluations"][apart].sum()) // 2,
    }
    if lengths.size and "upper" in found and np.isfinite(found["upper"][known]).any():
        upper, lower = (found[name][known] / lengths for name in ("upper", "lower"))
        summary["median_upper_excess"] = float(np.nanmedian(upper)) - 1
        summary["median_lower_share"] = float(np.nanmedian(lower))
    return summary


def _bounded(summary: Mapping[str, Any]) -> str:
    if "median_upper_excess" not in summary:
        return ""
    return (
        f"; bounds in the median pair: {summary['median_upper_excess']:.1e} above the length, and "
        f"{summary['median_lower_share']:.2f} of it"
    )


def _tell(summary: dict[str, Any], out: Path, json: Path | None) -> None:
    from json import dumps

    pairs, detours = summary["pairs"], summary.get("detours", 0)
    more = f"; {detours} are longer than a way over a third code" if detours else ""
    say(
        f"{out}: {pairs['minimum']} of {sum(pairs.values())} pairs ended at a minimum, with an "
        f"estimated excess of length up to {summary['largest_gap'] or 0:.1e}"
        f"{_bounded(summary)}{more}",
        to=beside(out, json),
    )
    if json is not None:
        write_text(json, dumps(summary, indent=1, allow_nan=False))
