"""Ordinary VAEs: every likelihood trains, is saved and read back, and its geometry is checked."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify.errors import InputError
from kahler_verify.evidence.routes.real_decoders import (
    REAL_DECODER_CHECKS,
    RealDecoderTrial,
    christoffels,
    scalar_curvature,
)
from kahler_verify.geometry import diagnose
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models.checkpoint import load_checkpoint, save_checkpoint
from kahler_verify.models.data import load_data
from kahler_verify.models.real_vae import RealVAE, RealVAEConfig
from kahler_verify.models.training import TrainingOptions, state_path, train

SOURCES = {
    "gaussian": "digits-images",
    "bernoulli": "digits-images",
    "poisson": "digits-counts",
    "categorical": "digits-counts",
}


def config(likelihood: str, **changes) -> RealVAEConfig:
    base = {
        "data": SOURCES[likelihood],
        "hidden": (8,),
        "likelihood": likelihood,
        "categories": 17 if likelihood == "categorical" else 0,
    }
    return RealVAEConfig(**{**base, **changes})


@pytest.fixture(scope="module", params=SOURCES)
def checkpoint(request, tmp_path_factory):
    """Trained for two epochs."""
    chosen = config(request.param)
    data = load_data(chosen.data)
    out = tmp_path_factory.mktemp("model") / "model.safetensors"
    options = TrainingOptions(epochs=2, warmup_epochs=1)
    return train(chosen, data, out, options=options), data, out


def test_training_learns_and_the_file_is_the_model(checkpoint) -> None:
    trained, data, out = checkpoint
    again = load_checkpoint(out)
    assert again.config == trained.config
    assert not state_path(out).exists()
    untrained = RealVAE(trained.config)
    untrained.standardise(data.train.x)
    assert trained.report["test_elbo"] > untrained.elbo(data.test.x) + 1
    assert math.isclose(
        again.model.elbo(data.test.x, seed=0), trained.report["test_elbo"], rel_tol=1e-6
    )


def test_its_geometry_agrees_with_every_route(checkpoint) -> None:
    trained, _, _ = checkpoint
    notes: list[str] = []
    trial = RealDecoderTrial.of(trained, None, 0, notes)
    seen = set()
    for check in REAL_DECODER_CHECKS.values():
        for finding in check(trial):
            seen.add((finding.what, finding.route))
            assert finding.passed, finding
    assert ("decoder.metric", "torch_kl") in seen
    assert ("decoder.scalar curvature", "autograd") in seen


def test_diagnosis(checkpoint) -> None:
    trained, data, _ = checkpoint
    model = trained.model.double()
    z = model.encoder(data.test.x[:5].double())[0].detach()
    found = diagnose(FisherRaoMetric(model.decoder), z)
    assert {q.name for q in found.quantities} >= {"log volume", "scalar curvature"}
    trained.model.float()


def test_the_routes_of_evidence_know_the_sphere() -> None:
    """The textbook formulas that `verify` compares with, on a law whose geometry is known."""

    class Simplex(torch.nn.Module):
        def forward(self, z):
            law = torch.distributions.Categorical(
                logits=torch.cat([z, torch.zeros_like(z[..., :1])], -1)
            )
            return torch.distributions.Independent(law, 0)

    z = torch.tensor([0.3, -0.4], dtype=torch.float64)
    assert math.isclose(float(scalar_curvature(Simplex(), z)), 0.5, rel_tol=1e-10)  # 2 · ¼
    flat = christoffels(torch.eye(2), torch.zeros(2, 2, 2))
    assert torch.equal(flat, torch.zeros(2, 2, 2))


def test_a_resumed_run_gives_the_same_bits(tmp_path: Path) -> None:
    chosen, data = config("bernoulli"), load_data("digits-images")
    options = TrainingOptions(epochs=3, warmup_epochs=1, save_every=1)
    whole = train(chosen, data, tmp_path / "whole", options=options)

    class Stop(Exception):
        pass

    def interrupt(progress) -> None:
        if progress.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train(chosen, data, tmp_path / "cut", options=options, on_progress=interrupt)
    resumed = train(chosen, data, tmp_path / "cut", options=options, resume=True)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_the_volume_regulariser_moves_the_volume(tmp_path: Path) -> None:
    chosen, data = config("gaussian", covariance="constant"), load_data("digits-images")
    volumes = []
    for weight in (-1.0, 1.0):
        options = TrainingOptions(
            epochs=2, warmup_epochs=0, regularizer="log-volume", weight=weight
        )
        model = train(chosen, data, tmp_path / "m", options=options).model
        z = model.encoder(data.test.x[:32])[0].detach()
        volumes.append(float(FisherRaoMetric(model.decoder).log_volume(z).mean()))
    assert volumes[0] > volumes[1] + 0.1


@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
def test_round_trip(covariance: str, tmp_path: Path) -> None:
    model = RealVAE(config("gaussian", covariance=covariance)).double()
    save_checkpoint(tmp_path / "model", model)
    loaded = load_checkpoint(tmp_path / "model").model
    z = torch.zeros(2, 2, dtype=torch.float64)
    assert torch.equal(loaded.decoder(z).mean, model.decoder(z).mean)
    assert torch.equal(loaded.decoder(z).stddev, model.decoder(z).stddev)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 0}, "latent_dim to be a whole number from 1"),
        ({"hidden": ()}, "hidden to be a tuple of 1 to 64 widths"),
        ({"activation": "relu"}, "activation among tanh"),
        ({"likelihood": "cauchy"}, "likelihood among gaussian"),
        ({"covariance": "full"}, "covariance among"),
        ({"categories": 3}, "categories to be from 2"),
        ({"likelihood": "categorical"}, "categories to be from 2"),
        ({"beta": math.nan}, "beta to be finite"),
        ({"seed": -1}, "seed to be in"),
    ],
)
def test_bad_configurations(changes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RealVAEConfig(**changes)


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        ("bernoulli", 2.0, r"values in \[0, 1\] for a Bernoulli"),
        ("poisson", 0.5, "counts 0, 1, 2, … for a Poisson"),
        ("poisson", -1.0, "counts"),
        ("categorical", 17.0, "classes 0 … 16"),
        ("gaussian", None, "all equal"),
    ],
)
def test_data_of_another_likelihood(likelihood: str, x: float | None, message: str) -> None:
    data = torch.zeros(5, 64)
    if x is not None:
        data[0, 0] = x
    with pytest.raises(InputError, match=message):
        RealVAE(config(likelihood)).standardise(data)


def test_kinds_of_latents_are_told_apart() -> None:
    decoder = RealVAE(config("gaussian")).decoder
    for z in (
        torch.zeros(1, 2, dtype=torch.complex64),
        torch.zeros(1, 3),
        torch.zeros(1, 2).long(),
    ):
        with pytest.raises(InputError, match=r"expected z to be torch\.float32 of shape"):
            decoder(z)


def test_counts_are_whole_numbers_and_images() -> None:
    data = load_data("digits-counts")
    assert data.kind == "real"
    assert torch.equal(data.train.x, data.train.x.round())
    assert float(data.train.x.max()) == 16
    assert np.isclose(float(load_data("digits-images").train.x.max()), 1)
