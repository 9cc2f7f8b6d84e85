"""Training: it learns, to the same bits each time, and can be interrupted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.geometry import FisherMetric
from kahler_verify.models.data import Dataset, Split
from kahler_verify.models.regularizer import log_density_of
from kahler_verify.models.training import (
    TrainingOptions,
    _held_out_loss,
    state_path,
    train,
)
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.statistics.proxy import closed_form_mixture

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


MODELS = [
    ("complex", {"covariance": "constant"}),
    ("complex", {"covariance": "diagonal", "latent_dim": 2}),
    ("complex", {"covariance": "scalar", "decoder": "modulus"}),
    ("real", {"covariance": "diagonal", "decoder": "split"}),
]
VOLUMES = [
    (metric, regularizer)
    for metric in ("fisher", "mixture")
    for regularizer in ("logdet-hermitian", "log-volume")
]


@pytest.mark.parametrize(
    ("metric", "regularizer", "kind", "changes"),
    [  # each model and each volume once, all together where thorough
        pytest.param(*volume, *model, marks=() if i == k else pytest.mark.thorough)
        for i, volume in enumerate(VOLUMES)
        for k, model in enumerate(MODELS)
    ],
)
def test_the_sign_of_the_weight_decides_which_way_the_density_goes(
    metric, regularizer, kind, changes, tmp_path
):
    """That of the Fisher metric itself, also where its mixture is in the loss."""
    data = _data(kind)
    config = _config(data, **changes)
    final = {}
    for weight in (-1.0, 1.0):
        options = replace(
            REGULARIZED,
            epochs=12,
            learning_rate=1e-2,
            regularizer=regularizer,
            weight=weight,
            metric=metric,
        )
        seen = []
        model = train(
            config, data, tmp_path / "model", options=options, on_progress=seen.append
        ).model.double()
        x = data.test.x.to(torch.complex128 if kind == "complex" else torch.float64)
        fisher = FisherMetric(model.decoder)
        function = fisher.log_volume if regularizer == "log-volume" else fisher.log_det_hermitian
        with torch.no_grad():
            final[weight] = float(function(model.encoder(x)[0]).mean())
        last = seen[-1]
        assert last.loss == pytest.approx(
            last.divergence - last.log_likelihood + weight * last.log_density
        )
    assert final[1.0] < final[-1.0] - 0.3


@pytest.mark.parametrize(
    ("regularizer", "metric"),
    [("logdet-hermitian", "fisher"), ("log-volume", "fisher"), ("log-volume", "mixture")],
)
@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
@pytest.mark.parametrize("decoder", ["holomorphic", "split"])
def test_gradients_of_the_regularizer_are_those_of_differences(
    regularizer, metric, covariance, decoder
):
    """In encoder and decoder alike, with reduced heads or without."""
    data = _data()
    config = _config(data, covariance=covariance, decoder=decoder, hidden=(2,))
    model = ComplexVAE(config)
    model.standardise(data.train.x)
    model.double()
    x = data.train.x[:40].to(torch.complex128)
    options = replace(REGULARIZED, regularizer=regularizer, metric=metric, components=3)
    log_density = log_density_of(model, options)
    assert log_density is not None

    def term():
        z, _ = model.draw_latents(x, generator=torch.Generator().manual_seed(1))
        return log_density(z[:20], z).mean()

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
        assert abs(slope) > 1e-3  # a gradient that does not get here would be 0 on both sides
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
        ({"metric": "flat"}, "metric: expected one of fisher, mixture, got 'flat'"),
        ({"metric": "mixture"}, "metric: expected a regularizer whose metric it is"),
        ({"components": 0}, "components"),
        ({"early_stopping": -1}, "early_stopping"),
        ({"early_stopping": 5, "epochs": 10}, "early_stopping: expected a warm-up that ends"),
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


def test_a_mixture_has_the_metrics_at_its_centres_as_precisions():
    data = _data()
    model = ComplexVAE(_config(data, latent_dim=2)).double()
    z = torch.randn(9, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(3))
    options = replace(REGULARIZED, metric="mixture", components=4)
    log_density = log_density_of(model, options)
    assert log_density is not None
    proxy = closed_form_mixture(FisherMetric(model.decoder), z[-4:])
    torch.testing.assert_close(log_density(z[:3], z), proxy.log_volume(z[:3]))


STOPPED = TrainingOptions(
    epochs=60, batch_size=32, save_every=2, warmup_epochs=2, learning_rate=3e-2, early_stopping=3
)


def _seen(config, data, out, options, **more):
    seen = []
    checkpoint = train(config, data, out, options=options, on_progress=seen.append, **more)
    return checkpoint, seen


@pytest.mark.parametrize("regularizer", ["none", "log-volume"])
def test_training_stops_early_and_keeps_the_best_weights(regularizer, tmp_path):
    data = _data()
    config = _config(data)
    weight = 0.3 if regularizer != "none" else 0.0
    options = replace(STOPPED, regularizer=regularizer, weight=weight)
    checkpoint, seen = _seen(config, data, tmp_path / "model", options)
    losses = {p.epoch: p.held_out_loss for p in seen}
    assert losses.pop(1) is None  # of the warm-up
    best = min(losses, key=losses.get)
    assert len(seen) == best + 3 < 60
    assert seen[-1].best_epoch == best == checkpoint.report["best_epoch"]
    assert checkpoint.report["epochs"] == len(seen)
    # the same epochs without stopping, ended at the best one by an interruption's state
    out = tmp_path / "other"
    until = replace(options, save_every=best)
    with pytest.raises(KeyboardInterrupt):
        train(config, data, out, options=until, on_progress=_stop_at(best + 1))
    state = load_file(state_path(out))
    weights = load_file(tmp_path / "model")
    assert all(torch.equal(state[f"model.{name}"], weights[name]) for name in weights)
    assert checkpoint.report["held_out_loss"] == losses[best]
    loss = _held_out_loss(
        checkpoint.model,
        data.validation.x,
        best,
        options,
        log_density_of(checkpoint.model, options),
    )
    assert loss == losses[best]


def test_the_held_out_loss_is_minus_the_elbo_with_the_regularizer(tmp_path):
    data = _data()
    model = ComplexVAE(_config(data, beta=0.5))
    model.standardise(data.train.x)
    options = replace(REGULARIZED, weight=-2.0)
    plain = _held_out_loss(model, data.test.x, 1, options, None)
    whole = _held_out_loss(model, data.test.x, 1, options, lambda z, _: z.real.sum(-1) * 0 + 3)
    assert whole == pytest.approx(plain - 6)
    x = data.test.x.repeat(500, 1)
    likelihood, divergence = model.elbo_terms(x, generator=torch.Generator().manual_seed(7))
    sampled = float((0.5 * divergence - likelihood).mean().detach())
    assert plain == pytest.approx(sampled, rel=0.05)


@pytest.mark.parametrize(
    ("epoch", "metric"),
    [(2, "fisher"), (3, "mixture")]
    + [
        pytest.param(*case, marks=pytest.mark.thorough)
        for case in ((3, "fisher"), (5, "fisher"), (2, "mixture"), (5, "mixture"))
    ],
)
def test_a_run_that_stops_early_resumes_to_the_same_bits(epoch, metric, tmp_path):
    data = _data()
    config = _config(data)
    options = replace(STOPPED, regularizer="log-volume", weight=0.3, metric=metric, components=5)
    checkpoint, whole_run = _seen(config, data, tmp_path / "whole", options)
    assert len(whole_run) > epoch
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        train(config, data, out, options=options, on_progress=_stop_at(epoch))
    resumed_checkpoint, rest = _seen(config, data, out, options, resume=True)
    assert rest == whole_run[-len(rest) :]
    whole, resumed = load_file(tmp_path / "whole"), load_file(out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    times = {"seconds": 0}
    assert checkpoint.report | times == resumed_checkpoint.report | times


@pytest.mark.parametrize(
    "changes",
    [
        {"best_epoch": 99},
        {"best_epoch": 1},  # training would have stopped before
        {"held_out_loss": None},
        {"held_out_loss": "low"},
    ],
)
def test_a_state_with_an_impossible_best_epoch_is_refused(changes, tmp_path):
    data, out = _data(), tmp_path / "model"
    options = replace(STOPPED, early_stopping=4)
    with pytest.raises(KeyboardInterrupt):
        train(_config(data), data, out, options=options, on_progress=_stop_at(7))
    state = state_path(out)
    tensors = load_file(state)
    with safe_open(state, framework="pt") as opened:
        metadata = dict(opened.metadata())
    progress = json.loads(metadata["progress"]) | changes
    save_file(tensors, state, metadata=metadata | {"progress": json.dumps(progress)})
    with pytest.raises(CheckpointError, match="expected its progress to name a best epoch"):
        train(_config(data), data, out, options=options, resume=True)


def test_a_state_that_is_older_than_an_option_is_taken(tmp_path):
    data, out = _interrupted(tmp_path)
    state = state_path(out)
    tensors = load_file(state)
    with safe_open(state, framework="pt") as opened:
        metadata = dict(opened.metadata())
    options = json.loads(metadata["options"])
    del options["early_stopping"]
    progress = json.loads(metadata["progress"])
    del progress["best_epoch"], progress["held_out_loss"]
    changed = {"options": json.dumps(options), "progress": json.dumps(progress)}
    save_file(tensors, state, metadata=metadata | changed)
    train(_config(data), data, out, options=OPTIONS, resume=True)
    train(_config(data), data, tmp_path / "whole", options=OPTIONS)
    whole, resumed = load_file(tmp_path / "whole"), load_file(out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
