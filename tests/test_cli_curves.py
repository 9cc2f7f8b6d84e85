"""The commands on curves: what they print and write, that they go on, and their one-line errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify.cli.latents import open_latents
from kahler_verify.models import (
    ComplexVAE,
    RealVAE,
    RealVAEConfig,
    VAEConfig,
    save_checkpoint,
    to_images,
)
from tests.command import run

pytestmark = pytest.mark.xdist_group("curve_commands")  # one worker makes what the tests share


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
    low, high = (answer["bounds"][side] for side in ("lower", "upper"))
    assert low <= answer["report"]["length"] <= high <= answer["report"]["length"] * 1.001
    assert answer["bounds"]["inside"] is None
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_geodesic_bounds_all_curves_of_a_box(folder: Path) -> None:
    arguments = ("geodesic", str(folder / "real.safetensors"), "0.5,-0.2", "0.1,0.9", "--json", "-")
    done = run(*arguments, "--cells", "24")
    assert done.returncode == 0, done.stderr
    assert "; within [" in done.stderr
    answer = json.loads(done.stdout)
    found = answer["bounds"]
    assert found["lower"] <= found["inside"] <= answer["report"]["length"]
    (left, bottom), (right, top) = found["box"]
    assert left <= 0.1 < 0.5 <= right
    assert bottom <= -0.2 < 0.9 <= top
    assert json.loads(run(*arguments, "--segments", "0").stdout)["bounds"] is None


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
    "segments": (("0,0", "1,1", "--segments", "-1"), "segments: expected 0 or more, got -1"),
    "cells": (("0,0", "1,1", "--segments", "0", "--cells", "9"), "segments: expected at least 1"),
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


def test_complex_digits_are_decoded_to_images(tmp_path: Path) -> None:
    """Their means are halves of spectra, [32] complex; other data that are no squares are none."""
    for source, dimension in (("digits", 32), ("other.npy", 32)):
        torch.manual_seed(0)
        model = ComplexVAE(VAEConfig(data=source, data_dim=dimension, latent_dim=2, hidden=(5,)))
        model.standardise(torch.randn(20, dimension, dtype=torch.complex64))
        save_checkpoint(tmp_path / "vae.safetensors", model)
        latents = open_latents(tmp_path / "vae.safetensors")
        z = torch.randn(3, 2, dtype=torch.complex128)
        images = latents.images(torch.cat([z.real, z.imag], -1))
        if source == "digits":
            expected = to_images(model.double().decoder.parameters_at(z).mean, source)
            assert expected is not None
            assert images is not None
            assert images.shape == (3, 8, 8)
            assert torch.allclose(images, expected)
        else:
            assert images is None
