"""Fields: their values, points, coordinates and stores, and what does not fit."""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from torch import Tensor

from kahler_verify import fields
from kahler_verify.errors import CheckpointError, FieldError, InputError
from kahler_verify.fields.field import FieldJob
from kahler_verify.fields.plan import Plan
from kahler_verify.fields.points import Points
from kahler_verify.fields.sources import Source
from kahler_verify.fields.stores import chunk_file
from kahler_verify.fields.work import State
from kahler_verify.geometry import FisherMetric, PotentialMetric
from kahler_verify.geometry.base import Metric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models import (
    ComplexVAE,
    RealVAE,
    RealVAEConfig,
    VAEConfig,
    load_checkpoint,
    save_checkpoint,
)

pytestmark = pytest.mark.xdist_group("fields")  # one worker makes what the tests share


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """Untrained models at real and at complex latents."""
    folder = tmp_path_factory.mktemp("models")
    x = torch.randn(40, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    shape = {"data": "x.npy", "data_dim": 6, "latent_dim": 2, "hidden": (8,), "seed": 3}
    found = {}
    for name, model in (
        ("complex", ComplexVAE(VAEConfig(**shape))),
        ("real", RealVAE(RealVAEConfig(**shape))),
    ):
        model.standardise(x if name == "complex" else x.real)
        save_checkpoint(folder / f"{name}.safetensors", model)
        found[name] = fields.of_checkpoint(folder / f"{name}.safetensors")
    return found


def draws(source: Source, count: int = 60) -> Points:
    return lambda chunk: fields.prior(source.space, count, seed=5, chunk=chunk)


def planned(source: Source, name: str = "log_volume", place: object = None, **more: object) -> Plan:
    return fields.plan_for(source, name, place or draws(source), **more)


def made(source: Source, plan: Plan, out: Path) -> fields.Field:
    fields.compute(source, plan, out, engine=fields.Array())
    return fields.open_field(out)


def expected(name: str, metric: Metric, z: Tensor) -> Tensor:
    """By other words than the table's."""
    if name == "det":
        return torch.linalg.det(metric.metric_matrix(z)).real
    if name == "condition":
        g = metric.real_metric_matrix(z) if z.is_complex() else metric.metric_matrix(z)
        return torch.linalg.cond(g)
    if name == "sectional_curvature":
        x = torch.cat([z.real, z.imag], -1) if z.is_complex() else z
        real = metric.riemannian() if z.is_complex() else metric
        u, v = (torch.eye(x.shape[1], dtype=x.dtype)[k].expand_as(x) for k in (0, 1))
        r = real.riemann_tensor(x)[:, 0, 1, 0, 1]
        g = real.metric_matrix(x)
        return r / (g[:, 0, 0] * g[:, 1, 1] - g[:, 0, 1] ** 2) + 0 * (u + v).sum()
    return getattr(metric, {"metric": "metric_matrix"}.get(name, name))(z)


@pytest.mark.parametrize("latents", ["complex", "real"])
@pytest.mark.parametrize("name", fields.QUANTITIES)
def test_values_are_the_metrics(
    sources: dict[str, Source], latents: str, name: str, tmp_path: Path
) -> None:
    source = sources[latents]
    plane = np.eye(source.space.real_dimension)[:2] if name == "sectional_curvature" else ()
    if name == "kahler_defect" and latents == "real":
        with pytest.raises(InputError, match="defined at complex latents alone"):
            planned(source, name)
        return
    plan = planned(source, name, draws(source, 9), plane=plane, chunk=4)
    found = made(source, plan, tmp_path / "f.zarr")
    z = torch.from_numpy(found.points)
    assert z.shape == (9, 2)
    assert z.is_complex() == source.space.complex
    if name == "kahler_defect":
        assert np.all(found.values > 1e-3)  # a split decoder is not Kähler
        return
    wanted = expected(name, source.metric(), z)
    assert np.allclose(found.values, wanted.numpy(), rtol=1e-9, atol=0)
    assert found.values.shape == wanted.shape
    assert found.attributes["units"] in ("nat", "1")


def test_the_defect_of_a_kahler_metric_is_nothing(tmp_path: Path) -> None:
    source = fields.of_metric(PotentialMetric("fubini_study"), 2)
    plan = planned(source, "kahler_defect", draws(source, 5))
    assert np.abs(made(source, plan, tmp_path / "f.zarr").values).max() < 1e-14


def test_draws_depend_on_seed_and_chunk_alone(sources: dict[str, Source], tmp_path: Path) -> None:
    """Any order, any share, and any range read back."""
    source = sources["real"]
    plan = planned(source, chunk=7)
    whole = made(source, plan, tmp_path / "whole.zarr")
    for part in (2, 0, 1):
        fields.compute(source, plan, tmp_path / "parts.zarr", engine=fields.Array(part, 3))
    parts = fields.open_field(tmp_path / "parts.zarr")
    assert np.array_equal(parts.values, whole.values)
    assert np.array_equal(whole.points[11:31], whole.rows(11, 31))
    other = planned(
        source, "log_volume", lambda chunk: fields.prior(source.space, 60, seed=6, chunk=7)
    )
    assert not np.isin(other.points.rows(0, 60), whole.points).any()


def test_the_prior_is_the_spaces_normal_law(sources: dict[str, Source]) -> None:
    for source in sources.values():
        z = fields.prior(source.space, 20000, seed=0, chunk=5000).rows(0, 20000)
        assert abs((z**2).sum(1).mean() - 2) < 0.05  # E|z_a|² = 1 at both latents
        assert np.abs(np.corrcoef(z.T) - np.eye(z.shape[1])).max() < 0.03
        assert len(np.unique(z[:, 0])) == 20000


def test_grids_slices_boxes_and_codes(sources: dict[str, Source], tmp_path: Path) -> None:
    real, complex_ = sources["real"], sources["complex"]
    grid = fields.grid(real.space, [5, 7], [-1], [2])
    found = made(real, planned(real, "log_volume", lambda _: grid, chunk=14), tmp_path / "a.zarr")
    assert found.values.shape == found.shape == (5, 7)
    assert found.dims == ("z1", "z2")
    axes = np.linspace(-1, 2, 5), np.linspace(-1, 2, 7)
    wanted = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    assert np.allclose(found.points, wanted, atol=1e-15)
    assert found.done == (3, 3)

    along = ["y2", [1.0, 0, 1.0, 0]]
    slice_ = fields.grid(complex_.space, [3, 2], [0, -1], [2, 1], origin=[0, 0, 1, 0], along=along)
    place = made(complex_, planned(complex_, "det", lambda _: slice_), tmp_path / "b.zarr").points
    assert np.allclose(place[0], [-1 + 0j, 0])  # t1 = 0, t2 = -1
    assert np.allclose(place[-1], [1 + 2j, 2j])

    box = fields.box(real.space, 50, [0, 2], [1, 3], seed=0, chunk=20)
    points = made(real, planned(real, "log_volume", lambda _: box), tmp_path / "c.zarr").points
    assert points.min(0).tolist() > [0, 2]
    assert points.max(0).tolist() < [1, 3]

    own = np.array([[0.5 + 1j, 0.25], [0, 1j]])
    codes = fields.codes(complex_.space, own)
    found = made(complex_, planned(complex_, "det", lambda _: codes), tmp_path / "d.zarr")
    assert np.array_equal(found.points, own)


def test_xarray_reads_it(sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["complex"]
    made(source, planned(source, "metric", draws(source, 9), chunk=4), tmp_path / "m.zarr")
    grid = fields.grid(source.space, [4, 3], [-1], [1], along=["x1", "y2"])
    made(source, planned(source, "det", lambda _: grid), tmp_path / "g.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrices, slice_ = (xarray.open_zarr(tmp_path / f"{n}.zarr") for n in "mg")
    assert matrices.metric.dims == ("point", "a", "b_bar")
    assert matrices.metric.dtype == np.complex128
    assert matrices.z.dims == ("point", "coordinate")
    assert "z" in matrices.coords
    assert slice_.det.dims == ("x1", "y2")
    assert slice_.det.sel(x1=1.0, y2=0.0).shape == ()
    assert slice_.det.attrs["units"] == "1"
    assert "first index of g is holomorphic" in slice_.attrs["conventions"]
    assert "(x1, x2, y1, y2)" in slice_.origin.attrs["long_name"]


def test_float32(sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["real"]
    found = made(source, planned(source, dtype="float32"), tmp_path / "f.zarr")
    assert found.values.dtype == np.float32
    double = made(source, planned(source), tmp_path / "d.zarr")
    assert np.allclose(found.values, double.values, atol=1e-3)


def test_a_poisoned_point_is_nan_with_a_report(sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["real"]
    own = np.random.default_rng(0).standard_normal((30, 2))
    clean = own.copy()
    own[17] = [1e200, np.inf]  # where tanh saturates
    plan = planned(source, "log_volume", lambda _: fields.codes(source.space, own), chunk=10)
    said = []
    summary = fields.compute(
        source, plan, tmp_path / "f.zarr", engine=fields.Array(), say=said.append
    )
    (note,) = said
    assert note.startswith(
        "task 1: 1 of 10 points are NaN, the first is z = (1e+200, inf) (InputError"
    )
    assert summary.notes == said
    values = fields.open_field(tmp_path / "f.zarr").values
    assert np.isnan(values).nonzero()[0].tolist() == [17]
    good = np.delete(np.arange(30), 17)
    wanted = source.metric().log_volume(torch.from_numpy(clean[good])).numpy()
    assert np.allclose(values[good], wanted, rtol=1e-12)


class Fussy(FisherRaoMetric):
    """Its decoder raises where a coordinate is above 1, and memory is refused to many points."""

    most = 10**9

    def jet(self, z: Tensor, order: int):
        if len(z) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        if bool((z > 1).any()):
            raise ValueError("no more than 1, please")
        return super().jet(z, order)


def fussy(source: Source, most: int = 10**9) -> Source:
    metric = Fussy(source.metric().decoder, 2)
    metric.most = most
    return fields.of_metric(metric)


def test_points_that_decoders_refuse_are_found_by_halves(
    sources: dict[str, Source], tmp_path: Path
) -> None:
    source = fussy(sources["real"])
    plan = planned(source, "scalar_curvature", draws(source, 40), chunk=20)
    found = made(source, plan, tmp_path / "f.zarr")
    assert np.array_equal(np.isnan(found.values), (found.points > 1).any(1))
    assert np.isnan(found.values).any()
    wanted = sources["real"].metric().scalar_curvature(torch.from_numpy(found.points)).numpy()
    good = np.isfinite(found.values)
    assert np.allclose(found.values[good], wanted[good], rtol=1e-9)


def test_where_memory_is_refused_fewer_points_are_taken(
    sources: dict[str, Source], tmp_path: Path
) -> None:
    source = fussy(sources["real"], most=3)
    box = lambda chunk: fields.box(source.space, 40, [-1], [1], seed=0, chunk=chunk)  # noqa: E731
    plan = planned(source, "scalar_curvature", box, chunk=40)
    said = []
    fields.compute(source, plan, tmp_path / "f.zarr", engine=fields.Array(), say=said.append)
    assert said[0] == "task 0: memory was refused; now 10 points at a time"
    assert said[-1] == "task 0: memory was refused; now 2 points at a time"
    assert np.isfinite(fields.open_field(tmp_path / "f.zarr").values).all()
    starved = fussy(sources["real"], most=0)
    with pytest.raises(FieldError, match=r"1 of 1 tasks .* can't allocate memory"):
        made(starved, plan, tmp_path / "g.zarr")


def test_a_task_that_killed_its_worker_begins_with_fewer_points(
    sources: dict[str, Source], tmp_path: Path
) -> None:
    source = fussy(sources["real"], most=3)
    plan = planned(source, "log_volume", draws(source, 40), chunk=40)
    fields.compute(source, plan, tmp_path / "f.zarr", engine=fields.Array())
    job = FieldJob(tmp_path / "f.zarr", source)
    refused = "memory was refused; now 2 points at a time"
    assert refused in job.run(0, 0).notes
    assert refused not in job.run(0, 2).notes  # 40 / 4²


def test_a_task_keeps_to_one_thread_to_its_end(
    sources: dict[str, Source],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Threads that have worked once wait for more, on the core of another worker."""
    source, seen = sources["real"], []
    plan = planned(source, "log_volume", draws(source, 40), chunk=40)
    fields.compute(source, plan, tmp_path / "f.zarr", engine=fields.Array())
    monkeypatch.setattr(
        "kahler_verify.fields.field.write_block", lambda *_: seen.append(torch.get_num_threads())
    )
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    FieldJob(tmp_path / "f.zarr", source).run(0, 0)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_every_bit_of_a_chunk_is_under_its_checksum(
    sources: dict[str, Source], tmp_path: Path
) -> None:
    """Compressed ones too: the decoder of a flipped bit often finds nothing wrong."""
    source, out = sources["real"], tmp_path / "f.zarr"
    plan = planned(source, "log_volume", lambda _: fields.grid(source.space, [9, 9], [-1], [1]))
    made(source, plan, out)
    job, place = FieldJob(out, source), chunk_file(out, plan.value, 0)
    content = place.read_bytes()
    for number in range(0, len(content), len(content) // 25):
        place.write_bytes(content[:number] + bytes([content[number] ^ 4]) + content[number + 1 :])
        assert job.state(0) is State.DAMAGED
        assert not place.exists()
    place.write_bytes(content)
    assert job.state(0) is State.WHOLE


def test_a_worker_with_another_model_computes_nothing(
    sources: dict[str, Source], tmp_path: Path
) -> None:
    """As when a file is replaced after the work has begun."""
    source, out = sources["real"], tmp_path / "f.zarr"
    made(source, planned(source), out)
    halved = fields.of_metric(FisherRaoMetric(lambda z: source.metric().decoder(z / 2), 2))
    with pytest.raises(InputError, match="another one than the work began with: model fingerprint"):
        FieldJob(out, halved).run(0, 0)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(source.load.args[0].read_bytes())
    begun = fields.of_checkpoint(copy)
    copy.write_bytes(sources["complex"].load.args[0].read_bytes())
    with pytest.raises(CheckpointError, match="expected the checkpoint that the work began with"):
        begun.load()


def test_another_plan_is_refused(sources: dict[str, Source], tmp_path: Path) -> None:
    real, out = sources["real"], tmp_path / "f.zarr"
    made(real, planned(real), out)
    for other, what in (
        (planned(real, "det"), "quantity log_volume, not det"),
        (planned(real, chunk=30), "chunk 1000, not 30"),
        (planned(real, dtype="float32"), "dtype float64, not float32"),
        (planned(real, "log_volume", draws(real, 61)), "points count 60, not 61"),
    ):
        with pytest.raises(InputError, match=f"holds another field: .*{what}"):
            fields.compute(real, other, out)
    elsewhere = sources["complex"]
    with pytest.raises(InputError, match="holds another field: latents complex false, not true"):
        fields.compute(elsewhere, planned(elsewhere), out)


def test_other_weights_are_refused(sources: dict[str, Source], tmp_path: Path) -> None:
    """Also those of a metric that is at hand, which has no fingerprint: its values tell."""
    metric = sources["real"].metric()
    source = fields.of_metric(metric)
    out = tmp_path / "f.zarr"
    made(source, planned(source), out)
    changed = load_checkpoint(sources["real"].load.args[0]).model.double()
    with torch.no_grad():
        next(changed.decoder.parameters()).mul_(1.01)
    other = fields.of_metric(FisherRaoMetric(changed.decoder, 2))
    with pytest.raises(InputError, match="holds another field: model probe"):
        fields.compute(other, planned(other), out)


def test_what_is_no_store_is_left_alone(sources: dict[str, Source], tmp_path: Path) -> None:
    source = sources["real"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "file"):
        with pytest.raises(InputError, match=f"{name} is something else"):
            fields.compute(source, planned(source), tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(InputError, match="cannot write"):
        fields.compute(source, planned(source), tmp_path / "file" / "f.zarr")
    for path, message in ((tmp_path / "none", "there is nothing"), (tmp_path / "file", "else")):
        with pytest.raises(InputError, match=message):
            fields.open_field(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_quantity_without_values_writes_nothing(
    sources: dict[str, Source], tmp_path: Path
) -> None:
    line = fields.of_metric(FisherMetric(sources["complex"].metric().decoder).riemannian(), 4)
    flat = np.array([[1.0, 0, 0, 0], [2.0, 0, 0, 0]])
    with pytest.raises(InputError, match=r"no value at any point tried: u, v: expected vectors"):
        planned(line, "sectional_curvature", plane=flat)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: fields.grid(s, [3], [-1], [1]), "grid: expected 2 counts of a grid of 2"),
        (lambda s: fields.grid(s, [3, 0], [-1], [1]), "grid: expected counts of at least 1, got 0"),
        (lambda s: fields.grid(s, [3, 3], [1], [1]), "box: expected finite bounds"),
        (lambda s: fields.grid(s, [3], [-1], [1], along=["x1"]), "along: expected one of z1, z2"),
        (
            lambda s: fields.grid(s, [3, 3], [-1], [1], along=["z1", [2.0, 0.0]]),
            "along: expected directions that are linearly independent",
        ),
        (lambda s: fields.grid(s, [3, 3], [-1], [1], origin=[0]), "origin: expected 2 real"),
        (lambda s: fields.grid(s, [2**30, 2**30], [-1], [1]), "grid: expected from 1 to"),
        (lambda s: fields.prior(s, 0, seed=0, chunk=1), "points: expected from 1 to"),
        (lambda s: fields.prior(s, 5, seed=-1, chunk=1), "seed: expected 0 or more"),
        (lambda s: fields.box(s, 5, [0, 0, 0], [1, 1, 1], seed=0, chunk=1), "box: expected one"),
        (lambda s: fields.codes(s, np.zeros((3, 3))), "codes: expected points of 2 coordinates"),
        (lambda s: fields.codes(s, np.zeros(3)), r"codes: expected numbers \[N, d\]"),
        (lambda s: fields.codes(s, np.zeros((3, 2), complex)), "codes: expected real points"),
    ],
)
def test_bad_points(sources: dict[str, Source], make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(sources["real"].space)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("volume", {}, "quantity: expected one of log_volume, det"),
        ("sectional_curvature", {}, "plane: expected 2 vectors with sectional_curvature, got 0"),
        ("det", {"plane": np.eye(2)}, "plane: expected no vectors with det, got 2"),
        ("det", {"dtype": "float16"}, "dtype: expected one of float64, float32"),
        ("det", {"chunk": 0}, "chunk: expected at least 1 point, got 0"),
    ],
)
def test_bad_plans(sources: dict[str, Source], name: str, more: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(sources["real"], name, **more)
