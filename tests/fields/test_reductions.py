"""Means, quantiles, integrals and pictures of fields."""

import json
import math
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import zarr
from matplotlib.axes import Axes
from matplotlib.image import imread

from kahler_verify import fields
from kahler_verify.errors import InputError
from kahler_verify.fields.pictures import picture
from tests.command import run
from tests.manifolds import SPHERE

SOURCE = fields.of_metric(SPHERE, 2)


def field(out: Path, place: object, name: str = "log_volume", **more: object) -> fields.Field:
    plan = fields.plan_for(SOURCE, name, place, **more)
    fields.compute(SOURCE, plan, out, engine=fields.Array())
    return fields.open_field(out)


def box(count: int, chunk: int | None = None) -> object:
    return lambda c: fields.box(SOURCE.space, count, [-1], [1], seed=1, chunk=chunk or c)


def cap() -> float:
    """∫ 4/(1 + |z|²)² over [-1, 1]², by the arctangent that is left of one integration."""
    x, w = np.polynomial.legendre.leggauss(60)
    a = 1 + x**2
    inner = 4 * (1 / (a * (a + 1)) + np.arctan(1 / np.sqrt(a)) / a**1.5)
    return float(w @ inner)


def test_moments_and_quantiles_are_numpys(tmp_path: Path) -> None:
    own = field(tmp_path / "f.zarr", box(1000), chunk=130)
    values = np.random.default_rng(0).standard_normal(1000) ** 3 * 1e3
    values[[3, 700]], values[[5, 6]] = np.nan, -np.inf
    values[10:300] = values[10]  # ties
    values[400:420] = 0.0
    zarr.open_group(own.path)["log_volume"][...] = values
    found = fields.reduce_field(fields.open_field(own.path), quantiles=(0, 0.1, 0.377, 0.5, 1))
    finite = values[np.isfinite(values)]
    assert (found.points, found.missing, found.infinite) == (1000, 2, 2)
    assert np.isclose(found.mean, finite.mean(), rtol=1e-12)
    assert np.isclose(found.deviation, finite.std(ddof=1), rtol=1e-12)
    assert np.isclose(found.error, finite.std(ddof=1) / np.sqrt(996), rtol=1e-12)
    assert (found.minimum, found.maximum) == (finite.min(), finite.max())
    there = values[~np.isnan(values)]
    for q, value in found.quantiles.items():
        assert value == np.quantile(there, q) or np.isclose(
            value, np.quantile(there, q), rtol=1e-14
        )


def test_the_volume_of_a_cap_by_draws_and_by_a_grid(tmp_path: Path) -> None:
    drawn = fields.reduce_field(field(tmp_path / "a.zarr", box(20000)), engine=fields.Array())
    assert drawn.integral.what == "∫ √det g over the box"
    assert abs(drawn.integral.value - cap()) < 4 * drawn.integral.error
    assert 0.002 < drawn.integral.error / cap() < 0.01
    grid = fields.grid(SOURCE.space, [41, 41], [-1], [1])
    on_grid = fields.reduce_field(
        field(tmp_path / "b.zarr", lambda _: grid, chunk=300), engine=fields.Array()
    )
    apart = abs(on_grid.integral.value - cap())
    assert apart < 1e-3 * cap()
    assert 0.9 < on_grid.integral.error / apart < 1.1
    det = field(tmp_path / "c.zarr", lambda _: grid, "det", chunk=300)
    found = fields.reduce_field(det, engine=fields.Array()).integral
    root = np.exp(fields.open_field(tmp_path / "b.zarr").values)
    by_hand = np.trapezoid(np.trapezoid(root**2, dx=0.05), dx=0.05)
    assert np.isclose(found.value, by_hand, rtol=1e-12)


def test_a_slice_is_measured_in_its_own_directions(tmp_path: Path) -> None:
    slanted = fields.grid(SOURCE.space, [401], [-1], [1], along=[[3.0, 4.0]])
    found = fields.reduce_field(
        field(tmp_path / "a.zarr", lambda _: slanted), engine=fields.Array()
    )
    wanted = 2 * (5 / 26 + math.atan(5)) * 2  # ∫ 4/(1 + s²)² ds from -5 to 5
    assert np.isclose(found.integral.value, wanted, rtol=1e-3)


def test_the_priors_mean(tmp_path: Path) -> None:
    place = lambda c: fields.prior(SOURCE.space, 20000, seed=0, chunk=c)  # noqa: E731
    found = fields.reduce_field(field(tmp_path / "f.zarr", place), engine=fields.Array())
    r = np.linspace(0, 12, 20001)
    wanted = np.trapezoid(r * np.exp(-(r**2) / 2) * 4 / (1 + r**2) ** 2, r)
    assert found.integral.what == "mean of √det g over the prior"
    assert abs(found.integral.value - wanted) < 4 * found.integral.error
    det = field(
        tmp_path / "d.zarr", lambda c: fields.prior(SOURCE.space, 90, seed=0, chunk=c), "det"
    )
    mean = fields.reduce_field(det).integral
    assert np.isclose(mean.error, det.values.std(ddof=1) / math.sqrt(90), rtol=1e-12)


def test_nothing_overflows(tmp_path: Path) -> None:
    own = field(tmp_path / "f.zarr", box(100), chunk=30)
    zarr.open_group(own.path)["log_volume"][...] = np.linspace(-5000, 600, 100)
    found = fields.reduce_field(fields.open_field(own.path), engine=fields.Array())
    assert np.isclose(math.log(found.integral.value), 600 + math.log(4 / 100), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "place", "chunk"),
    [
        ("map", lambda c: fields.grid(SOURCE.space, [30, 20], [-2], [2]), None),
        ("curve", lambda c: fields.grid(SOURCE.space, [30], [-2], [2], along=["z1"]), None),
        ("cloud", lambda c: fields.prior(SOURCE.space, 500, seed=0, chunk=c), None),
    ],
)
def test_pictures(name: str, place: object, chunk: int | None, tmp_path: Path) -> None:
    field(tmp_path / "f.zarr", place)
    out = tmp_path / "f.png"
    done = run("field", "plot", str(tmp_path / "f.zarr"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    pixels = imread(BytesIO(out.read_bytes()))[..., :3]
    colours = np.unique((pixels.reshape(-1, 3) * 15).astype(int), axis=0)
    assert len(colours) > (60 if name != "curve" else 10)


def test_the_command_reduce(tmp_path: Path) -> None:
    field(tmp_path / "f.zarr", box(50), chunk=20)
    out = tmp_path / "f.json"
    done = run(
        "field",
        "reduce",
        str(tmp_path / "f.zarr"),
        "--quantiles",
        "0.5",
        "--json",
        str(out),
        "--workers",
        "1",
    )
    assert done.returncode == 0, done.stderr
    assert "∫ √det g over the box" in done.stdout
    told = json.loads(out.read_text())
    assert told["quantiles"].keys() == {"0.5"}
    page = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text("utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith("| `field` |")]
    assert set(re.findall(r"`(\w+)`", row)) - {"field", "what", "value"} == set(told)
    assert told["integral"]["error"] > 0


def test_what_cannot_be_reduced_or_drawn(tmp_path: Path) -> None:
    field(tmp_path / "m.zarr", box(5), "metric")
    whole = fields.open_field(tmp_path / "m.zarr")
    with pytest.raises(InputError, match="expected a field of numbers, got matrices"):
        fields.reduce_field(whole)
    done = run("field", "plot", str(tmp_path / "m.zarr"), "--out", str(tmp_path / "m.png"))
    assert "plot: expected a field of numbers" in done.stderr
    plan = fields.plan_for(SOURCE, "det", box(50), chunk=10)
    fields.compute(SOURCE, plan, tmp_path / "p.zarr", engine=fields.Array(0, 2))
    with pytest.raises(InputError, match="expected a finished field, but 3 of 5 blocks are there"):
        fields.reduce_field(fields.open_field(tmp_path / "p.zarr"))
    assert run("field", "reduce", str(tmp_path / "p.zarr"), "--quantiles", "x").returncode == 2


def test_a_picture_says_what_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda _, title, **__: titles.append(title))
    plan = fields.plan_for(SOURCE, "log_volume", box(50), chunk=10)
    for share in (0, 1):
        fields.compute(SOURCE, plan, tmp_path / "p.zarr", engine=fields.Array(share, 2))
        picture(fields.open_field(tmp_path / "p.zarr"))
    assert titles[1::2] == ["30 points, 20 not finite\n3 of 5 chunks are done", "50 points"]


def test_no_volume_is_a_volume(tmp_path: Path) -> None:
    """Points where √det g = 0 count in its mean."""
    own = field(tmp_path / "f.zarr", box(100), chunk=30)
    zarr.open_group(own.path)["log_volume"][...] = np.where(np.arange(100) < 25, -np.inf, 0.0)
    found = fields.reduce_field(fields.open_field(own.path)).integral
    assert np.isclose(found.value, 4 * 0.75, rtol=1e-12)
    assert np.isclose(found.error, 4 * math.sqrt(0.75 * 0.25 / 99), rtol=1e-12)
