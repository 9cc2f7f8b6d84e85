"""The command ``field``: a metric's quantities over many points, into a store; pictures of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from kahler_verify.cli.consoles import beside, errors, say
from kahler_verify.cli.engine_options import (
    EngineName,
    Memory,
    Scheduler,
    Share,
    Workers,
    end_if_stopped,
)
from kahler_verify.cli.progress import work_bar
from kahler_verify.cli.user_models import LATENTS_HELP, MODULE_HELP, require_one
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from kahler_verify.fields.points import Points
    from kahler_verify.fields.sources import Source
    from kahler_verify.spaces import Space

MIB = 2**20


class _Group(TyperGroup):
    """``field CHECKPOINT …`` is ``field compute CHECKPOINT …``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["compute", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


field = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Evaluate a metric's quantities over many points into a store, and look at it: "
    "field CHECKPOINT … --out STORE.zarr computes, field compute --help lists its options.",
)


@field.command()
def compute(
    out: Annotated[Path, typer.Option(help="The store (.zarr): new, or begun before.")],
    checkpoint: Annotated[Path | None, typer.Argument(help="A checkpoint.")] = None,
    module: Annotated[str | None, typer.Option(help=MODULE_HELP)] = None,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
    quantity: Annotated[
        str,
        typer.Option(
            help="log_volume, det, condition, kahler_defect, scalar_curvature, "
            "sectional_curvature (with two --plane) or metric."
        ),
    ] = "log_volume",
    points: Annotated[
        int | None, typer.Option(help="So many draws: of the prior, or uniform in --box.")
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(help="A grid in --box, 200x200: of all real coordinates, or --along some."),
    ] = None,
    codes: Annotated[
        str | None,
        typer.Option(help="Points of a file (.npy, .npz), or #200 for 200 held-out codes."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(help="LOW,HIGH of every coordinate, or one for each. Grids: -3,3."),
    ] = None,
    along: Annotated[
        list[str] | None,
        typer.Option(help="A direction of a slice: z1, x2 and so on, or numbers; repeat it."),
    ] = None,
    origin: Annotated[str | None, typer.Option(help="Of a slice, 0.5,-1 or 1+2j,0.")] = None,
    plane: Annotated[
        list[str] | None, typer.Option(help="Of a sectional curvature: as --along, twice.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of draws.")] = 0,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    chunk: Annotated[
        int | None, typer.Option(help="Points in a chunk; 50000 or fewer by default.")
    ] = None,
    engine: EngineName = "processes",
    workers: Workers = None,
    scheduler: Scheduler = None,
    task: Share = None,
    memory: Memory = 512,
) -> None:
    """Evaluate a quantity over many points, into a store. Run again, it goes on where it was."""
    from kahler_verify import fields
    from kahler_verify.fields.engines import engine as engine_of

    require_one(checkpoint, module)
    chosen = engine_of(engine, workers=workers, scheduler=scheduler, task=task)
    if memory < 1:
        raise InputError(f"memory: expected at least 1 MiB, got {memory}")
    source = _source(checkpoint, module, latents)
    place = _points(source, points, grid, codes, box, along, origin, seed, checkpoint, data)
    vectors = [_vector("plane", each, source.space) for each in plane or []]
    plan = fields.plan_for(
        source, quantity, place, plane=vectors, dtype=dtype, chunk=chunk, memory=memory * MIB
    )
    with work_bar(errors, "points") as progress:
        summary = fields.compute(
            source,
            plan,
            out,
            engine=chosen,
            memory=memory * MIB,
            progress=progress,
            say=lambda text: say(text, to=errors),
        )
    end_if_stopped(summary)
    count = math.prod(plan.points.shape)
    share = "" if summary.tasks == plan.layout.count else f" (its share of {plan.layout.count})"
    say(
        f"{out}: {quantity} at {count} points, {summary.kept + len(summary.done)} chunks{share}, "
        f"{summary.kept} of which were there, in {summary.seconds:.1f} s"
    )


def _source(checkpoint: Path | None, module: str | None, latents: str | None) -> Source:
    if module is None:
        from kahler_verify.fields import of_checkpoint

        assert checkpoint is not None
        return of_checkpoint(checkpoint)
    from kahler_verify.cli.user_models import module_source

    return module_source(module, latents)


def _points(
    source: Source,
    points: int | None,
    grid: str | None,
    codes: str | None,
    box: list[str] | None,
    along: list[str] | None,
    origin: str | None,
    seed: int,
    checkpoint: Path | None,
    data: Path | None,
) -> Callable[[int], Points]:
    """What the options say, told how many points a chunk has."""
    from kahler_verify import fields

    given = {"points": points, "grid": grid, "codes": codes}
    said = [name for name, value in given.items() if value is not None]
    if len(said) != 1:
        got = " and ".join(said) or "none"
        raise InputError(f"points: expected one of --points, --grid and --codes, got {got}")
    if grid is None and (along or origin):
        raise InputError("along: expected --grid with --along and --origin, which make a slice")
    lows, highs = _bounds(box or ["-3,3"])
    space = source.space
    if codes is not None:
        if box:
            raise InputError("box: expected none with --codes")
        own = fields.codes(space, _codes(codes, checkpoint, data))
        return lambda _: own
    if points is not None:
        if box:
            return lambda chunk: fields.box(space, points, lows, highs, seed=seed, chunk=chunk)
        return lambda chunk: fields.prior(space, points, seed=seed, chunk=chunk)
    assert grid is not None
    counts = grid.lower().split("x")
    if not all(count.isdecimal() for count in counts):
        raise InputError(f"grid: expected counts such as 200x200, got {grid!r}")
    names = None if along is None else [_direction(each, space) for each in along]
    start = None if origin is None else _vector("origin", origin, space)
    made = fields.grid(space, list(map(int, counts)), lows, highs, origin=start, along=names)
    return lambda _: made


def _direction(text: str, space: Space) -> str | list[float]:
    """A coordinate's name, or numbers."""
    return text if text[:1].isalpha() else _vector("along", text, space)


def _vector(name: str, text: str, space: Space) -> list[float]:
    """Real coordinates of ``z1``, ``0.5,-1`` or ``1+2j,0``."""
    from kahler_verify.fields.points import coordinate_names, direction, named

    names = coordinate_names(space)
    if text[:1].isalpha():
        return direction(name, text, names)
    try:
        values = [complex(part.replace(" ", "")) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{name}: expected numbers such as 0.5,-1, got {text!r}") from None
    if space.complex and len(values) == space.dimension:
        return [v.real for v in values] + [v.imag for v in values]
    if len(values) != len(names) or any(v.imag for v in values):
        raise InputError(
            f"{name}: expected {len(names)} real coordinates ({named(names)})"
            + (f" or {space.dimension} complex ones" if space.complex else "")
            + f", got {text!r}"
        )
    return [v.real for v in values]


def _bounds(texts: list[str]) -> tuple[list[float], list[float]]:
    try:
        pairs = [tuple(map(float, text.split(","))) for text in texts]
    except ValueError:
        pairs = [()]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"box: expected LOW,HIGH such as -3,3, got {' '.join(texts)}")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _codes(text: str, checkpoint: Path | None, data: Path | None) -> Any:
    """Points [N, d] of a file, or the codes of held-out data."""
    from kahler_verify.models.arrays import FORMAT_ERRORS, read_arrays

    if text.startswith("#"):
        from kahler_verify.cli.latents import open_latents

        if not text[1:].isdecimal() or int(text[1:]) < 1 or checkpoint is None:
            raise InputError(
                f"codes: expected # and how many held-out samples of a checkpoint, got {text!r}"
            )
        own = open_latents(checkpoint)
        samples = own.held_out(data)
        if samples is None:
            raise InputError(
                f"data: expected --data with the file that {checkpoint} was trained on"
            )
        if int(text[1:]) > len(samples):
            raise InputError(f"codes: expected at most #{len(samples)} of {checkpoint}, got {text}")
        return own.encoded(samples[: int(text[1:])]).numpy()
    path = Path(text)
    if not path.is_file():
        raise InputError(f"codes: expected a file (.npy, .npz) or # and a number, got {text!r}")
    try:
        return read_arrays(path)[0]
    except FORMAT_ERRORS as error:
        raise InputError(f"codes: cannot read points from {text}: {error}") from error


@field.command()
def plot(
    store: Annotated[Path, typer.Argument(help="A field's store.")],
    out: Annotated[Path, typer.Option(help="The picture (.png).")],
) -> None:
    """Draw a field: a map of a grid, a cloud of points, and how its values are distributed."""
    from kahler_verify.fields import open_field
    from kahler_verify.fields.pictures import picture

    require_writable("out", out, ".png")
    write_bytes(out, picture(open_field(store)))


@field.command()
def reduce(
    store: Annotated[Path, typer.Argument(help="A field's store.")],
    quantiles: Annotated[
        str, typer.Option(help="Which, exactly, with commas.")
    ] = "0.05,0.25,0.5,0.75,0.95",
    json: Annotated[Path | None, typer.Option(help="Write what is found as JSON.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="processes or dask; this process alone reads what is not large."),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Mean, quantiles and integral of a field, with errors."""
    from json import dumps

    from rich.table import Table

    from kahler_verify.fields import open_field, reduce_field
    from kahler_verify.fields.engines import engine as engine_of

    require_writable("json", json)
    try:
        wanted = [float(part) for part in quantiles.split(",")]
    except ValueError:
        raise InputError(f"quantiles: expected numbers with commas, got {quantiles!r}") from None
    own = open_field(store)
    asked = engine is not None or workers is not None
    chosen = None
    if asked or scheduler is not None:
        chosen = engine_of(engine or "processes", workers=workers, scheduler=scheduler)
    with work_bar(errors, "points") as progress:
        found = reduce_field(own, quantiles=wanted, engine=chosen, progress=progress)
    table = Table("", own.name, title=f"{store.name}: {found.points} points")
    table.add_row("mean", f"{found.mean:.9g} ± {found.error:.2g}")
    table.add_row("deviation", f"{found.deviation:.6g}")
    table.add_row("range", f"{found.minimum:.9g} … {found.maximum:.9g}")
    for q, value in found.quantiles.items():
        table.add_row(f"quantile {q:g}", f"{value:.9g}")
    if found.integral is not None:
        what, value, error = found.integral
        table.add_row(what, f"{value:.9g} ± {error:.2g}")
    for name, count in (("NaN", found.missing), ("infinite", found.infinite)):
        if count:
            table.add_row(name, f"{count} points")
    beside(json).print(table)
    if json is not None:
        written = {"store": store.name, "quantity": own.name, **found.to_json()}
        write_text(json, dumps(written, indent=1, allow_nan=False))
