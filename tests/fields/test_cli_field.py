"""The command field: on real processes, what it prints and writes, and its one-line errors."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify import fields
from kahler_verify.cli.user_models import module_source
from kahler_verify.models import (
    ComplexVAE,
    RealVAE,
    RealVAEConfig,
    VAEConfig,
    save_checkpoint,
)
from tests.command import run

pytestmark = pytest.mark.xdist_group("field_commands")  # one worker makes what the tests share


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models, complex.safetensors and real.safetensors, of data in real.npy."""
    folder = tmp_path_factory.mktemp("models")
    small_models(folder)
    return folder


def small_models(folder: Path) -> None:
    x = torch.randn(60, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    np.save(folder / "real.npy", x.real.numpy())
    shape = {"data": str(folder / "real.npy"), "data_dim": 6, "latent_dim": 2, "hidden": (8,)}
    for name, model in (
        ("complex", ComplexVAE(VAEConfig(**shape))),
        ("real", RealVAE(RealVAEConfig(**shape))),
    ):
        model.standardise(x if name == "complex" else x.real)
        save_checkpoint(folder / f"{name}.safetensors", model)


def chunks(store: Path) -> dict[Path, bytes]:
    places = (p for p in store.rglob("*") if "c" in p.relative_to(store).parts and p.is_file())
    return {p.relative_to(store): p.read_bytes() for p in places}


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.thorough)])
def test_bits_do_not_depend_on_workers(folder: Path, workers: int, tmp_path: Path) -> None:
    one, many = tmp_path / "one.zarr", tmp_path / "many.zarr"
    what = ("field", str(folder / "complex.safetensors"), "--points", "90", "--chunk", "10")
    what += ("--quantity", "scalar_curvature", "--seed", "3")
    done = run(*what, "--out", str(many), "--workers", str(workers))
    assert done.returncode == 0, done.stderr
    assert "scalar_curvature at 90 points, 9 chunks, 0 of which were there" in done.stdout
    assert "9 of 9 chunks, 90 of 90 points" in done.stderr  # no bar on a pipe
    for share in ("1/2", "0/2"):
        assert run(*what, "--out", str(one), "--engine", "array", "--task", share).returncode == 0
    assert len(chunks(one)) == 18
    assert chunks(one) == chunks(many)
    again = run(*what, "--out", str(many))
    assert "9 chunks, 9 of which were there" in again.stdout


@pytest.mark.parametrize(
    ("points", "shape"),
    [
        (("--grid", "3x4"), (3, 4)),
        (("--grid", "5", "--along", "z2", "--origin", "0.5,-1", "--box", "-1,1"), (5,)),
        (("--points", "8", "--box", "-1,0", "--box", "0,1"), (8,)),
        (("--codes", "#3", "--data", "real.npy"), (3,)),
        (("--codes", "real.npz"), (7,)),
    ],
)
def test_points(
    folder: Path, points: tuple[str, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    np.savez(folder / "real.npz", x=np.ones((7, 2)))
    said = [str(folder / p) if p.startswith("real.") else p for p in points]
    out = tmp_path / "f.zarr"
    here = ("--engine", "array", "--task", "0/1", "--out", str(out))
    done = run("field", str(folder / "real.safetensors"), *said, *here)
    assert done.returncode == 0, done.stderr
    found = fields.open_field(out)
    assert found.values.shape == shape
    if "--origin" in said:
        assert np.allclose(found.points, [[0.5, -1 + t] for t in (-1, -0.5, 0, 0.5, 1)])
    if "--points" in said:
        assert ((found.points >= [-1, 0]) & (found.points <= [0, 1])).all()


def test_a_users_module(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_fields.py").write_text(
        "import torch\n\n\ndef decoder():\n    torch.manual_seed(0)\n"
        "    layers = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(),"
        " torch.nn.Linear(8, 20)).double()\n    return lambda z: torch.distributions.Independent("
        "torch.distributions.Normal(layers(z), 1.0), 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    what = ("field", "--module", "mine_for_fields:decoder", "--latents", "3", "--points", "20")
    done = run(*what, "--out", "f.zarr", "--engine", "array", "--task", "0/1")
    assert done.returncode == 0, done.stderr
    found = fields.open_field("f.zarr")
    sent = pickle.loads(pickle.dumps(module_source("mine_for_fields:decoder", "3")))  # noqa: S301
    again = sent.metric().log_volume(torch.from_numpy(found.points)).detach().numpy()
    assert np.allclose(again, found.values, rtol=1e-12)


BAD = {
    "no points": ((), "points: expected one of --points, --grid and --codes, got none"),
    "two kinds": (("--points", "3", "--grid", "2x2"), "got points and grid"),
    "grid": (("--grid", "3x3x3"), "grid: expected 2 counts of a grid of 2 coordinates (z1, z2)"),
    "grid words": (("--grid", "axb"), "grid: expected counts such as 200x200, got 'axb'"),
    "box": (("--points", "3", "--box", "1"), "box: expected LOW,HIGH such as -3,3, got 1"),
    "quantity": (("--points", "3", "--quantity", "x"), "quantity: expected one of log_volume"),
    "latents": (("--points", "3", "--quantity", "kahler_defect"), "complex latents alone"),
    "along": (("--points", "3", "--along", "z1"), "along: expected --grid with --along"),
    "direction": (("--grid", "3", "--along", "y1"), "along: expected one of z1, z2"),
    "origin": (("--grid", "3", "--along", "z1", "--origin", "1"), "origin: expected 2 real"),
    "codes": (("--codes", "nothing.npy"), "codes: expected a file"),
    "engine": (("--points", "3", "--engine", "x"), "engine: expected one of processes, dask"),
    "memory": (("--points", "3", "--memory", "0"), "memory: expected at least 1 MiB"),
    "seed": (("--points", "3", "--seed", "-1"), "seed: expected 0 or more"),
    "width": (("--grid", "3x3", "--box", "-1e308,1e308"), "box: expected finite bounds LOW,HIGH"),
    "counts": (("--grid", "3x3x3"), "2 counts of a grid of 2 coordinates (z1, z2), such as 50x50"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_writes_nothing(
    folder: Path, case: str, tmp_path: Path
) -> None:
    arguments, message = BAD[case]
    out = tmp_path / "f.zarr"
    done = run("field", str(folder / "real.safetensors"), *arguments, "--out", str(out))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_checkpoints_and_places(folder: Path, tmp_path: Path) -> None:
    real, out = str(folder / "real.safetensors"), tmp_path / "f.zarr"
    alone = ("--engine", "array", "--task", "0/1", "--out", str(out))
    here = ("--points", "3", *alone)
    for wrong, message in (
        ((str(folder / "real.npy"),), "expected a safetensors file"),
        ((str(folder / "none"),), "expected a checkpoint at"),
        ((), "checkpoint: expected a checkpoint or --module, got none"),
        (
            (real, "--codes", "#9999", "--data", str(folder / "real.npy")),
            "codes: expected at most #",
        ),
    ):
        done = run("field", *wrong, *(alone if "--codes" in wrong else here))
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
        assert message in done.stderr
        assert not out.exists()
    assert run("field", real, *here).returncode == 0
    other = run("field", str(folder / "complex.safetensors"), *here)
    assert re.search("holds another field: latents complex false, not true", other.stderr)
    (tmp_path / "mine").write_text("mine")
    done = run("field", real, *here[:-1], str(tmp_path / "mine"))
    assert "mine is something else" in done.stderr
    assert (tmp_path / "mine").read_text() == "mine"


def test_help_lists_what_there_is() -> None:
    said = run("field", "--help").stdout
    assert "compute" in said
    assert "--quantity" in run("field", "compute", "--help").stdout


def test_a_picture_has_a_pictures_name(folder: Path, tmp_path: Path) -> None:
    real, store = str(folder / "real.safetensors"), str(tmp_path / "f.zarr")
    here = ("--engine", "array", "--task", "0/1", "--out", store)
    assert run("field", real, "--points", "3", *here).returncode == 0
    done = run("field", "plot", store, "--out", str(tmp_path / "f.jpg"))
    assert "out: expected the name of a .png file, got" in done.stderr
    assert not (tmp_path / "f.jpg").exists()
    done = run("geodesic", real, "#1", "#2", "--plot", str(tmp_path / "f.pdf"))
    assert "plot: expected the name of a .png file, got" in done.stderr
    assert not (tmp_path / "f.pdf").exists()
