"""Chains as an InferenceData: names, dimensions, complex latents; ArviZ's own numbers of them."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from kahler_verify.errors import InputError
from kahler_verify.geometry import PotentialMetric
from kahler_verify.guests import to_inference_data
from kahler_verify.models import RealVAE, RealVAEConfig
from kahler_verify.models.checkpoint import save_checkpoint
from kahler_verify.statistics import VolumeTarget, importance_resample, vectorised_chains
from tests.command import run

INSTALLED = importlib.util.find_spec("arviz") is not None
needs_arviz = pytest.mark.skipif(not INSTALLED, reason="ArviZ is not installed")
FLAT = VolumeTarget(PotentialMetric("flat"), 2, gamma=0.0)


@needs_arviz
def test_complex_chains() -> None:
    draws = vectorised_chains(FLAT, 40, chains=6, warmup=40)
    data = to_inference_data(draws)
    posterior = data.posterior
    assert dict(posterior.sizes) == {"chain": 6, "draw": 40, "latent": 2}
    z = posterior["z_real"].values + 1j * posterior["z_imag"].values
    np.testing.assert_array_equal(z, draws.by_chain.numpy())
    assert posterior.attrs["warmup"] == 40
    stats = data.sample_stats
    assert set(stats) >= {"lp", "acceptance_rate", "diverging", "n_steps"}
    np.testing.assert_array_equal(stats["lp"].values, draws.statistics["lp"].numpy())
    assert stats["diverging"].dtype == bool


@needs_arviz
def test_their_statistics_run_on_it_and_agree_with_ours() -> None:
    import arviz

    from tests.statistics.test_real_sampling import SPHERE

    draws = vectorised_chains(VolumeTarget(SPHERE, 2, 2.0, prior=False), 50, chains=16, warmup=80)
    summary = arviz.summary(to_inference_data(draws), kind="diagnostics")
    assert list(summary.index) == ["z[0]", "z[1]"]
    assert float(summary["r_hat"].max()) < 1.1
    least = float(summary["ess_bulk"].min())
    assert draws.effective_sample_size < 1.5 * least  # ours also watches |z|, which mixes last


@needs_arviz
def test_importance_resampling_is_one_chain() -> None:
    data = to_inference_data(importance_resample(FLAT, 7))
    assert dict(data.posterior.sizes) == {"chain": 1, "draw": 7, "latent": 2}
    assert "sample_stats" not in data.groups()


@needs_arviz
def test_the_command_writes_what_arviz_reads(tmp_path: Path) -> None:
    import arviz

    save_checkpoint(tmp_path / "vae.safetensors", RealVAE(RealVAEConfig(data_dim=7, hidden=(5,))))
    done = run(
        *("sample", str(tmp_path / "vae.safetensors"), "--out", str(tmp_path / "z.npz")),
        *("--method", "chains", "--count", "9", "--inference-data", str(tmp_path / "z.nc")),
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    data, chosen = arviz.from_netcdf(str(tmp_path / "z.nc")), np.load(tmp_path / "z.npz")["z"]
    assert dict(data.posterior.sizes) == {"chain": 64, "draw": 50, "latent": 2}
    all_draws = data.posterior["z"].values.reshape(-1, 2)
    np.testing.assert_array_equal(all_draws[np.linspace(0, 3199, 9).round().astype(int)], chosen)
    assert data.sample_stats["diverging"].dtype == bool


@needs_arviz
def test_the_command_wants_a_file_of_its_own(tmp_path: Path) -> None:
    model = tmp_path / "vae.nc"
    save_checkpoint(model, RealVAE(RealVAEConfig(data_dim=7, hidden=(5,))))
    before, out = model.read_bytes(), tmp_path / "z.nc"
    for there, reason in (
        (out, "a file of its own"),
        (model, "a file of its own"),
        (tmp_path / "z.txt", "the name of a .nc file"),
    ):
        done = run(
            *("sample", str(model), "--out", str(out), "--inference-data", str(there)),
            *("--count", "9"),
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: inference_data: expected")
        assert reason in done.stderr
        assert not out.exists()
        assert model.read_bytes() == before


def test_it_is_missed_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(InputError, match=r"arviz: expected .*kahler-verify\[arviz\]") as caught:
        to_inference_data(importance_resample(FLAT, 3))
    assert "\n" not in str(caught.value)
