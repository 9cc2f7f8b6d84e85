"""Distances of all pairs by tiles: those of one process, symmetric, done once, gone on with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray

from kahler_verify import fields
from kahler_verify.curves import Status, distances
from kahler_verify.errors import InputError
from kahler_verify.fields.matrices import tile_order
from kahler_verify.fields.mending import MendJob, ThirdJob
from kahler_verify.fields.stores import add_variables, chunk_file
from kahler_verify.fields.tiles import DistanceJob
from kahler_verify.fields.work import State
from kahler_verify.geometry import PulledBackMetric
from tests.command import run
from tests.fields.test_cli_field import folder  # noqa: F401 - a fixture
from tests.manifolds import SPHERE


def exact(x: np.ndarray) -> np.ndarray:
    square = ((x[:, None] - x) ** 2).sum(-1)
    r = 1 + (x**2).sum(1)
    return np.arccos(np.clip(1 - 2 * square / (r[:, None] * r), -1, 1))


CODES = 0.6 * np.random.default_rng(0).standard_normal((7, 2))


def found_by(engine: fields.Array, out: Path, tile: int = 3) -> fields.DistanceMatrix:
    source = fields.of_metric(SPHERE, 2)
    codes = fields.codes(source.space, CODES)
    fields.compute_distances(source, codes, out, tile=tile, engine=engine)
    return fields.open_distances(out)


def test_tiles_make_the_whole_matrix(tmp_path: Path) -> None:
    found = found_by(fields.Array(), tmp_path / "d.zarr")
    assert np.allclose(found["length"], exact(CODES), atol=1e-8)
    assert np.array_equal(found["length"], found["length"].T)
    assert (found["status"] == Status.MINIMUM).all()
    assert found.detours() == 0
    assert np.array_equal(found["z"], CODES)
    whole = distances(SPHERE, torch.from_numpy(CODES)).lengths
    assert np.allclose(found["length"], whole.numpy(), atol=1e-9)
    read = xarray.open_zarr(found.path)
    assert read.length.dims == ("code", "other")
    assert float(read.length.sel(code=2, other=5)) == found["length"][2, 5]
    assert "0 MINIMUM" in read.status.attrs["long_name"]


def test_each_tile_is_done_once_whoever_does_it(tmp_path: Path) -> None:
    out = tmp_path / "d.zarr"
    whole = found_by(fields.Array(), tmp_path / "whole.zarr")["length"]
    found = found_by(fields.Array(1, 2), out)
    assert np.isnan(found["length"]).any()
    job = DistanceJob(out, fields.of_metric(SPHERE, 2), 7, 3)
    assert (job.count, sum(map(job.amount, range(job.count)))) == (6, 21)
    source = fields.of_metric(SPHERE, 2)
    summary = fields.compute_distances(
        source, fields.codes(source.space, CODES), out, tile=3, engine=fields.Array()
    )
    assert (summary.kept, len(summary.done)) == (3, 3)
    assert np.array_equal(found["length"], whole)


@pytest.mark.parametrize(("block", "name"), [(1, "length"), (3, "gap"), (0, "status")])
def test_a_damaged_tile_is_done_again(tmp_path: Path, block: int, name: str) -> None:
    """Also where the mirror image is damaged."""
    out = tmp_path / "d.zarr"
    before = found_by(fields.Array(), out)["length"]
    source = fields.of_metric(SPHERE, 2)
    job = DistanceJob(out, source, 7, 3)
    (variable,) = [each for each in job.variables if each.name == name]
    chunk_file(out, variable, block).write_bytes(b"nothing")
    codes = fields.codes(source.space, CODES)
    summary = fields.compute_distances(source, codes, out, tile=3, engine=fields.Array())
    assert len(summary.done) == 1
    assert np.array_equal(fields.open_distances(out)["length"], before)


def test_detours_are_counted(tmp_path: Path) -> None:
    found = found_by(fields.Array(), tmp_path / "d.zarr", tile=7)
    length = found["length"].copy()
    length[0, 1] = length[1, 0] = length[0, 1:].max() * 3
    import zarr

    zarr.open_group(found.path)["length"][...] = length
    assert found.detours() == 1


def lengthened(found: fields.DistanceMatrix, pairs: list[tuple[int, int]], by: float) -> None:
    """Let the store have longer curves of some pairs, by their places in it, or none (NaN)."""
    import zarr

    array = zarr.open_group(found.path)["length"]
    length = array[...]
    for i, k in pairs:
        length[i, k] = length[k, i] = by * length[i, k]
    array[...] = length


@pytest.mark.parametrize("by", [3.0, np.nan])
def test_detours_across_tiles_are_mended_once(tmp_path: Path, by: float) -> None:
    """Inside a tile and between two, with their mirror images, and then no more."""
    out, said = tmp_path / "d.zarr", list[str]()
    found = found_by(fields.Array(), out)
    before = {name: found[name] for name in found.names}
    lengthened(found, [(0, 1), (0, 5), (4, 6)], by)
    source = fields.of_metric(SPHERE, 2)
    codes = fields.codes(source.space, CODES)

    def again() -> fields.Summary:
        return fields.compute_distances(
            source, codes, out, tile=3, engine=fields.Array(), say=said.append
        )

    assert not again().stopped
    after = {name: found[name] for name in found.names}
    assert found.detours() == 0
    assert np.allclose(after["length"], exact(CODES), atol=1e-8)
    assert np.array_equal(after["length"], after["length"].T)
    searched = after["evaluations"] != before["evaluations"]
    assert searched.sum() == 6
    assert np.array_equal(after["length"][~searched], before["length"][~searched])
    assert (
        sorted(line.split(": ")[1] for line in said)
        == ["1 of 1 pairs became shorter over a third code"] * 3
    )
    lengthened(found, [(0, 1)], 3.0)
    assert not again().notes  # each tile has its one pass
    assert found.detours() == 1
    assert set(xarray.open_zarr(out).data_vars) == {*found.names, "z"}


def noted(out: Path) -> MendJob:
    """What mends a store, all of whose triangles were looked at."""
    tiles = DistanceJob(out, fields.of_metric(SPHERE, 2), 7, 3)
    first, last = ThirdJob(tiles), MendJob(tiles)
    for _ in range(2):
        add_variables(out, [first.third, last.mark])
    for task in range(tiles.count):
        first.run(task, 0)
    return last


def test_an_interrupted_mending_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "d.zarr"
    found = found_by(fields.Array(), out)
    lengthened(found, [(0, 1), (0, 5)], 3.0)
    job = noted(out)
    assert job.run(0, 0).notes
    assert found.detours() == 1
    assert [job.state(task) for task in range(2)] == [State.WHOLE, State.ABSENT]
    found_by(fields.Array(), out)
    assert found.detours() == 0


def test_mending_does_not_depend_on_the_order_of_tiles(tmp_path: Path) -> None:
    """One pair's shorter way may go over another pair that is mended, too."""
    answers = []
    for name, order in (("forth", range(6)), ("back", reversed(range(6)))):
        found = found_by(fields.Array(), tmp_path / name)
        lengthened(found, [(0, 1), (0, 2), (1, 5), (0, 5), (2, 5), (4, 6), (2, 4)], 3.0)
        before, job = found.detours(), noted(tmp_path / name)
        for task in order:
            job.run(task, 0)
        answers.append({each: found[each] for each in found.names})
        assert found.detours() < before
    for each, values in answers[0].items():
        assert np.array_equal(values, answers[1][each]), each


def test_near_codes_come_into_one_tile() -> None:
    rng = np.random.default_rng(0)
    centres, names = rng.standard_normal((5, 3)), rng.permutation(np.repeat(np.arange(5), 8))
    order = tile_order(100 * centres[names] + rng.standard_normal((40, 3)), 8)
    assert sorted(order) == list(range(40))
    assert all(len(set(tile)) == 1 for tile in names[order].reshape(5, 8))
    assert np.array_equal(tile_order(np.ones((3, 2)), 3), np.arange(3))


def test_tiles_with_bounds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 8))
    source = fields.of_metric(PulledBackMetric(net.double().requires_grad_(False)), 2)
    codes = fields.codes(source.space, CODES)
    fields.compute_distances(
        source, codes, tmp_path / "d.zarr", tile=3, segments=32, engine=fields.Array()
    )
    found = fields.open_distances(tmp_path / "d.zarr")
    lower, length, upper = (found[name] for name in ("lower", "length", "upper"))
    apart = ~np.eye(len(CODES), dtype=bool)
    assert (lower <= length * (1 + 1e-12)).all()
    assert (length <= upper * (1 + 1e-12)).all()
    assert (upper[apart] < 1.01 * length[apart]).all()
    assert (lower[apart] > 0.5 * length[apart]).all()
    assert xarray.open_zarr(found.path).attrs["bounds"] == "proved by intervals"
    with pytest.raises(InputError, match="segments 32, not 0"):
        fields.compute_distances(source, codes, tmp_path / "d.zarr", tile=3, engine=fields.Array())
    with pytest.raises(InputError, match="segments: expected a number of segments or 0, got -1"):
        fields.compute_distances(source, codes, tmp_path / "e.zarr", segments=-1)
    with pytest.raises(InputError, match=r"name: expected z or one of .*'upper'"):
        found["lenght"]


def test_the_command_goes_on(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    out, summary = tmp_path / "d.zarr", tmp_path / "d.json"
    what = ("distances", str(folder / "real.safetensors"), "--data", str(folder / "real.npy"))
    what += ("--points", "4", "--tile", "2", "--segments", "8", "--out", str(out))
    done = run(*what, "--engine", "array", "--task", "0/2")
    assert done.returncode == 0, done.stderr
    done = run(*what, "--engine", "array", "--task", "0/1", "--json", str(summary))
    assert done.returncode == 0, done.stderr
    assert "6 of 6 pairs ended at a minimum" in done.stdout
    told = json.loads(summary.read_text())
    assert told["detours"] == 0
    assert 0 <= told["median_lower_share"] <= 1  # estimated: the decoder has a variance of its own
    assert 0 < told["median_upper_excess"] < 1
    metric = fields.of_checkpoint(folder / "real.safetensors").metric()
    found = fields.open_distances(out)
    whole = distances(metric, torch.from_numpy(found["z"]))
    assert np.allclose(found["length"], whole.lengths.numpy(), rtol=1e-6)
    for more, message in (
        (("--kept", "k.npz"), "kept: expected none with a store"),
        (("--points", "3"), "holds another field: points count 4, not 3"),
        (("--segments", "-1"), "segments: expected 0 or more, got -1"),
    ):
        done = run(*what, *more)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    done = run("field", what[1], "--points", "3", "--out", str(out))
    assert "expected a store of kind field, but" in done.stderr
    done = run("field", "plot", str(out), "--out", str(tmp_path / "d.png"))
    assert "expected a field of format 1, but it is one of distances" in done.stderr
    done = run(*what[:-1], str(tmp_path / "d.npz"), "--workers", "2")
    assert "out: expected a store (.zarr) where an engine is named" in done.stderr


def test_what_a_worker_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer pairs at once, where workers died; and another metric computes nothing."""
    out, asked = tmp_path / "d.zarr", []
    found_by(fields.Array(0, 7), out)

    def told(*_: object, pairs_at_once: int, **__: object) -> None:
        asked.append(pairs_at_once)
        raise ValueError("no more")

    monkeypatch.setattr("kahler_verify.fields.tiles.distances", told)
    job = DistanceJob(out, fields.of_metric(SPHERE, 2), 7, 3)
    for attempt in range(3):
        with pytest.raises(ValueError, match="no more"):
            job.run(1, attempt)
    assert asked == [256, 64, 16]
    other = DistanceJob(out, fields.of_metric(PulledBackMetric(lambda z: 2 * z), 2), 7, 3)
    with pytest.raises(InputError, match="another one than the work began with: model"):
        other.run(1, 0)


def test_what_is_no_matrix(tmp_path: Path) -> None:
    source = fields.of_metric(SPHERE, 2)
    codes = fields.codes(source.space, CODES)
    with pytest.raises(InputError, match="tile: expected at least 1"):
        fields.compute_distances(source, codes, tmp_path / "d.zarr", tile=0)
    plan = fields.plan_for(source, "det", lambda _: codes)
    fields.compute(source, plan, tmp_path / "f.zarr", engine=fields.Array())
    with pytest.raises(InputError, match="expected distances"):
        fields.open_distances(tmp_path / "f.zarr")
