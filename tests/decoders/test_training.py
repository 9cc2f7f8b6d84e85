"""Training: it learns, to the same bits each time, and can be interrupted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kahler_verify.decoders.data import Dataset, Split
from kahler_verify.decoders.models import ComplexVAE, VAEConfig
from kahler_verify.decoders.training import TrainingOptions, _log_density, state_path, train
from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.geometry import FisherMetric

OPTIONS = TrainingOptions(epochs=6, batch_size=32, save_every=2, warmup_epochs=2)


def _data(kind="complex", scale=1.0):
    """Points near a curve in C^3 or R^3."""
    generator = torch.Generator().manual_seed(0)
    t = torch.randn(200, 1, dtype=torch.complex64, generator=generator)
    x = torch.cat([t, t * t, 1 - t], dim=-1)
    x = scale * (x if kind == "complex" else torch.cat([x.real, x.imag], dim=-1))
    parts = [Split(part, None) for part in x.split([160, 20, 20])]
    return Dataset("curve", kind, x.shape[-1], *parts)


def _config(data, /, **changes):
    return VAEConfig(
        **{
            "data": data.source,
            "data_dim": data.dim,
            "likelihood": data.kind,
            "latent_dim": 1,
            "hidden": (8,),
            "seed": 4,
            **changes,
        }
    )


def _stop_at(epoch):
    def on_progress(progress):
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.parametrize(
    ("kind", "decoder", "covariance"),
    [
        ("complex", "holomorphic", "diagonal"),
        ("complex", "modulus", "scalar"),
        ("real", "split", "constant"),
    ],
)
def test_training_learns(kind, decoder, covariance, tmp_path):
    data = _data(kind)
    config = _config(data, decoder=decoder, covariance=covariance)
    losses = []
    options = TrainingOptions(epochs=40, batch_size=32, learning_rate=1e-2, warmup_epochs=2)
    checkpoint = train(
        config,
        data,
        tmp_path / "model",
        options=options,
        on_progress=lambda progress: losses.append(progress.loss),
    )
    assert len(losses) == 40
    assert losses[-1] < losses[3] - 0.5
    assert checkpoint.report["test_elbo"] == pytest.approx(
        checkpoint.model.elbo(data.test.x, seed=config.seed), abs=1e-5
    )
    assert checkpoint.report["seconds"] > 0
    assert not state_path(tmp_path / "model").exists()


def test_same_seed_same_bits(tmp_path):
    data = _data()
    for name in ("first", "second"):
        torch.manual_seed(hash(name) % 1000)  # the global generator plays no part
        train(_config(data), data, tmp_path / name, options=OPTIONS)
    train(_config(data, seed=5), data, tmp_path / "other", options=OPTIONS)
    first, second, other = (load_file(tmp_path / name) for name in ("first", "second", "other"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_an_interrupted_run_resumes_to_the_same_bits(epoch, tmp_path):
    data = _data()
    config = _config(data)
    train(config, data, tmp_path / "whole", options=OPTIONS)
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        train(config, data, out, options=OPTIONS, on_progress=_stop_at(epoch))
    assert not out.exists()
    assert state_path(out).exists() == (epoch > OPTIONS.save_every)
    epochs = []
    train(
        config,
        data,
        out,
        options=OPTIONS,
        resume=True,
        on_progress=lambda progress: epochs.append(progress.epoch),
    )
    assert epochs[0] == 1 + OPTIONS.save_every * ((epoch - 1) // OPTIONS.save_every)
    whole, resumed = load_file(tmp_path / "whole"), load_file(out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def _interrupted(tmp_path: Path) -> tuple[Dataset, Path]:
    data, out = _data(), tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        train(_config(data), data, out, options=OPTIONS, on_progress=_stop_at(5))
    return data, out


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"seed": 9}, OPTIONS, r"configuration differs.*'seed': \(4, 9\)"),
        ({}, TrainingOptions(epochs=7), "options differs"),
    ],
)
def test_the_state_of_another_run_is_refused(changes, options, message, tmp_path):
    data, out = _interrupted(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        train(_config(data, **changes), data, out, options=options, resume=True)


def test_damaged_states_are_refused(tmp_path):
    data, out = _interrupted(tmp_path)
    state = state_path(out)
    whole = state.read_bytes()
    state.write_bytes(whole[:-50])
    with pytest.raises(CheckpointError, match="truncated"):
        train(_config(data), data, out, options=OPTIONS, resume=True)
    state.write_bytes(whole)
    tensors = load_file(state)
    tensors["exp_avg.decoder.mean_head.weight_pairs"][0] = torch.nan
    save_file(tensors, state, metadata={"format": "kahler_verify.training_state", "version": "1"})
    with pytest.raises(CheckpointError, match="'config' in its metadata"):
        train(_config(data), data, out, options=OPTIONS, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_dim": 4}, "to be those of the data"),
        ({"likelihood": "real", "decoder": "split"}, "to be those of the data"),
        ({"data": "digits"}, "to be those of the data"),
    ],
)
def test_configurations_must_fit_the_data(changes, message, tmp_path):
    data = _data()
    with pytest.raises(InputError, match=message):
        train(_config(data, **changes), data, tmp_path / "model", options=OPTIONS)


def test_a_loss_that_is_not_finite_is_an_error_with_causes(tmp_path):
    data = _data()
    options = TrainingOptions(epochs=20, learning_rate=1e4, clip=1e9)
    with pytest.raises(InputError, match="pole of a holomorphic activation"):
        train(_config(data, activation="cubic"), data, tmp_path / "model", options=options)


def test_the_thread_count_is_put_back(tmp_path):
    before = torch.get_num_threads()
    train(_config(_data()), _data(), tmp_path / "model", options=TrainingOptions(epochs=1))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch_size": 1.5}, {"learning_rate": 0.0}, {"clip": float("nan")}],
)
def test_bad_options(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        TrainingOptions(**changes)


REGULARIZED = TrainingOptions(
    epochs=6,
    batch_size=32,
    save_every=2,
    warmup_epochs=2,
    regularizer="log-volume",
    weight=0.3,
    regularizer_batch=8,
)


@pytest.mark.parametrize("regularizer", ["logdet-hermitian", "log-volume"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("complex", {"covariance": "constant"}),
        ("complex", {"covariance": "diagonal", "latent_dim": 2}),
        ("complex", {"covariance": "scalar", "decoder": "modulus"}),
        ("real", {"covariance": "diagonal", "decoder": "split"}),
    ],
)
def test_the_sign_of_the_weight_decides_which_way_the_density_goes(
    regularizer, kind, changes, tmp_path
):
    data = _data(kind)
    config = _config(data, **changes)
    final = {}
    for weight in (-1.0, 1.0):
        options = replace(
            REGULARIZED, epochs=12, learning_rate=1e-2, regularizer=regularizer, weight=weight
        )
        seen = []
        model = train(
            config, data, tmp_path / "model", options=options, on_progress=seen.append
        ).model.double()
        x = data.test.x.to(torch.complex128 if kind == "complex" else torch.float64)
        metric = FisherMetric(model.decoder)
        function = metric.log_volume if regularizer == "log-volume" else metric.log_det_hermitian
        with torch.no_grad():
            final[weight] = float(function(model.encoder(x)[0]).mean())
        last = seen[-1]
        assert last.loss == pytest.approx(
            last.divergence - last.log_likelihood + weight * last.log_density
        )
    assert final[1.0] < final[-1.0] - 0.3


@pytest.mark.parametrize("regularizer", ["logdet-hermitian", "log-volume"])
@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
@pytest.mark.parametrize("decoder", ["holomorphic", "split"])
def test_gradients_of_the_regularizer_are_those_of_differences(regularizer, covariance, decoder):
    """In encoder and decoder alike, with reduced heads or without."""
    data = _data()
    config = _config(data, covariance=covariance, decoder=decoder, hidden=(2,))
    model = ComplexVAE(config)
    model.standardise(data.train.x)
    model.double()
    x = data.train.x[:40].to(torch.complex128)
    log_density = _log_density(model, regularizer)
    assert log_density is not None

    def term():
        z, _ = model.draw_latents(x, generator=torch.Generator().manual_seed(1))
        return log_density(z).mean()

    term().backward()
    for weight in (
        model.encoder.layers[0].weight,
        model.decoder.layers[0].weight_pairs,
        model.decoder.mean_head.weight_pairs,
    ):
        direction = torch.randn(
            weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(2)
        )
        values = []
        with torch.no_grad():
            for step in (1e-5, -1e-5):
                weight.add_(direction, alpha=step)
                values.append(float(term()))
                weight.sub_(direction, alpha=step)
        slope = (values[0] - values[1]) / 2e-5
        assert float((weight.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_a_regularized_run_resumes_to_the_same_bits(tmp_path):
    data = _data()
    config = _config(data, latent_dim=2)
    train(config, data, tmp_path / "whole", options=REGULARIZED)
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        train(config, data, out, options=REGULARIZED, on_progress=_stop_at(3))
    other = replace(REGULARIZED, weight=-0.3)
    with pytest.raises(CheckpointError, match=r"'weight': \(0.3, -0.3\)"):
        train(config, data, out, options=other, resume=True)
    train(config, data, out, options=REGULARIZED, resume=True)
    train(config, data, tmp_path / "plain", options=OPTIONS)
    whole, resumed, plain = (load_file(tmp_path / n) for n in ("whole", "resumed", "plain"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not all(torch.equal(whole[name], plain[name]) for name in whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regularizer": "volume", "weight": 1.0}, "regularizer: expected one of none, logdet"),
        ({"regularizer": "log-volume"}, "weight: expected a number other than 0 with"),
        ({"weight": 1.0}, "with regularizer 'none'"),
        ({"regularizer": "log-volume", "weight": float("nan")}, "weight: expected a finite number"),
        ({"regularizer_batch": 0}, "regularizer_batch"),
    ],
)
def test_bad_regularizers_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TrainingOptions(**changes)


def test_a_degenerate_metric_is_named(tmp_path):
    """Two complex latents, four real directions; three real outputs with a constant Σ see three."""
    x = _data("real").train.x[:, :3].contiguous()
    data = Dataset("flat", "real", 3, *[Split(x, None)] * 3)
    config = _config(data, latent_dim=2, decoder="split", covariance="constant")
    with pytest.raises(InputError, match=r"regularizer: the mean log-volume is -?(inf|nan)"):
        train(config, data, tmp_path / "model", options=REGULARIZED)
