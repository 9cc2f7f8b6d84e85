"""The commands on curves: what they print and write, that they go on, and their one-line errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify.models import (
    ComplexVAE,
    RealVAE,
    RealVAEConfig,
    VAEConfig,
    save_checkpoint,
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kahler_verify", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained models of a user's files, real.safetensors and complex.safetensors."""
    folder = tmp_path_factory.mktemp("models")
    generator = torch.Generator().manual_seed(0)
    for name, dtype in (("real", torch.float32), ("complex", torch.complex64)):
        x = torch.randn(60, 4, dtype=dtype, generator=generator)
        np.save(folder / f"{name}.npy", x.numpy())
        kind, config = (RealVAE, RealVAEConfig) if name == "real" else (ComplexVAE, VAEConfig)
        model = kind(
            config(data=str(folder / f"{name}.npy"), data_dim=4, latent_dim=2, hidden=(5,), seed=3)
        )
        model.standardise(x)
        save_checkpoint(folder / f"{name}.safetensors", model)
    return folder


def test_geodesic_prints_writes_and_draws(folder: Path) -> None:
    out, picture = folder / "curve.json", folder / "curve.png"
    arguments = ("geodesic", str(folder / "real.safetensors"), "0.5,-0.2", "0.1,0.9")
    done = run(*arguments, "--json", str(out), "--plot", str(picture), "--times", "5")
    assert done.returncode == 0, done.stderr
    assert "geodesic: minimum" in done.stdout
    assert "starts agree; Morse index 0" in done.stdout
    answer = json.loads(out.read_text())
    assert answer["status"] == "MINIMUM"
    assert answer["curve"][0] == [0.5, -0.2]
    assert answer["curve"][4] == [0.1, 0.9]
    assert 0 < answer["report"]["length"] <= answer["straight_line"] * (1 + 1e-9)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_geodesic_between_samples_at_complex_latents(folder: Path) -> None:
    data = ("--data", str(folder / "complex.npy"))
    path = str(folder / "complex.safetensors")
    done = run("geodesic", path, "#0", "0.1+0.1j,0.2", *data, "--json", "-")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["curve"][-1] == [0.1, 0.2, 0.1, 0.0]


def test_distances_go_on_where_they_were(folder: Path) -> None:
    out, kept = folder / "distances.npz", folder / "kept.npz"
    arguments = (
        "distances",
        str(folder / "real.safetensors"),
        "--data",
        str(folder / "real.npy"),
        "--points",
        "4",
        "--out",
        str(out),
        "--kept",
        str(kept),
    )
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "of 6 pairs ended at a minimum" in done.stdout
    with np.load(out) as archive:
        lengths, codes = archive["lengths"], archive["codes"]
    assert lengths.shape == (4, 4)
    assert codes.shape == (4, 2)
    assert np.array_equal(lengths, lengths.T)
    other = run(*arguments[:5], "5", *arguments[6:])
    assert other.returncode == 2
    assert "kept: expected what was kept of these points" in other.stderr


BAD = {
    "words": (("0.5,x", "0,0"), "A: expected coordinates such as"),
    "number of coordinates": (("0,0", "0,0,0"), "B: expected 2 coordinates, got 3"),
    "complex at a real latent": (("0,1j", "0,0"), "A: expected real coordinates"),
    "no data": (("#1", "0,0"), "A: expected # and the number of a held-out sample"),
    "times": (("0,0", "1,1", "--times", "1"), "times: expected at least 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(folder: Path, case: str) -> None:
    arguments, message = BAD[case]
    done = run("geodesic", str(folder / "real.safetensors"), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_analogy_prints_writes_and_draws(folder: Path) -> None:
    out, picture = folder / "analogy.json", folder / "analogy.png"
    points = ("0.5,-0.2", "0.1,0.9", "-0.4,0.3")
    model = str(folder / "real.safetensors")
    done = run("analogy", "--json", str(out), "--plot", str(picture), "--", model, *points)
    assert done.returncode == 0, done.stderr
    assert "C + B - A is" in done.stdout
    answer = json.loads(out.read_text())
    assert np.allclose(answer["arithmetic"], [-0.8, 1.4])
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = done.stdout.split("answer ")[1].split("\n")[0]
    assert np.allclose([float(x) for x in printed.split(",")], answer["answer"], atol=1e-5)
    wrong = run("analogy", model, *points[:2], "1,2,3")
    assert wrong.returncode == 2
    assert "C: expected 2 coordinates" in wrong.stderr
