"""The command fit-land: what it prints, writes and draws, for points and a checkpoint's latents."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify.models import RealVAE, RealVAEConfig, save_checkpoint
from kahler_verify.statistics.adaptive import portrait
from tests.command import run as command


def run(*arguments: str) -> subprocess.CompletedProcess:
    return command("fit-land", *arguments)


def test_points_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two candidates, the best first; a picture; what a fit goes on from."""
    monkeypatch.setattr(portrait, "GRID", 16)
    random = np.random.default_rng(0)
    x = random.standard_normal((24, 2)) @ np.array([[1.0, 0.4], [0.0, 0.5]])
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    out, picture = tmp_path / "land.json", tmp_path / "land.png"
    arguments = (
        str(tmp_path / "x.csv"),
        *("--sigma", "1.5", "--rays", "16", "--kept", str(tmp_path / "kept")),
        *("--json", str(out), "--plot", str(picture)),
    )
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {each["metric"] for each in found["candidates"]} == {"flat", "data, σ = 1.5"}
    validated = [each["validated"] for each in found["candidates"]]
    assert validated == sorted(validated, reverse=True)
    assert found["points"] == {"fitted": 18, "validating": 6}
    assert np.array(found["best"]["covariances"]).shape == (1, 2, 2)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "iteration 0" in done.stderr
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.thorough
def test_a_checkpoints_latents(tmp_path: Path) -> None:
    """Latents in the Fisher-Rao metric of a decoder, read off a table."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    np.save(tmp_path / "x.npy", x.numpy())
    config = RealVAEConfig(
        data=str(tmp_path / "x.npy"), data_dim=4, latent_dim=2, hidden=(5,), seed=3
    )
    model = RealVAE(config)
    model.standardise(x)
    save_checkpoint(tmp_path / "vae.safetensors", model)
    z = torch.randn(16, 2, dtype=torch.float64, generator=generator)
    np.save(tmp_path / "z.npy", z.numpy())
    done = run(
        str(tmp_path / "z.npy"),
        *("--metric", str(tmp_path / "vae.safetensors"), "--rays", "16"),
        *("--json", str(tmp_path / "land.json")),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "land.json").read_text())
    decoder = next(each for each in found["candidates"] if each["metric"] == "decoder")
    # nearly degenerate, as it is untrained: a number, or the reason why there is none
    assert (decoder["fitted"] is None) == ("failure" in decoder)
    assert "at the points" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.npy",), "nowhere.npy"),
        (("moons", "--held-out", "0"), "held-out"),
        (("moons", "--components", "0"), "components"),
        (("moons", "--sigma", "-1"), "sigma"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
