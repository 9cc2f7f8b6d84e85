"""Training of complex VAEs: seeded, bit-reproducible, resumable.

Randomness is counted, not carried: batches and noise of epoch n follow from (seed, n) alone.
The state between two epochs is therefore weights, Adam's moments and n (with early stopping also
the best weights, their epoch and loss), and an interrupted run that is resumed gives the very bits
of the uninterrupted one, on one machine with one thread count.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.files import is_standard_output, require_writable
from kahler_verify.models.checkpoint import (
    Checkpoint,
    Config,
    Model,
    load_checkpoint,
    save_checkpoint,
)
from kahler_verify.models.data import Dataset
from kahler_verify.models.precision import fit_precision
from kahler_verify.models.quantised import QuantisedVAE
from kahler_verify.models.real_vae import RealVAE
from kahler_verify.models.regularizer import LogDensity, log_density_of
from kahler_verify.models.training_options import (
    Progress,
    Regularizer,
    RegularizerMetric,
    TrainingOptions,
)
from kahler_verify.models.training_state import Best, load_state, save_state, state_path

__all__ = ["Progress", "Regularizer", "RegularizerMetric", "TrainingOptions", "state_path", "train"]

_HELD_OUT_DRAWS = 4  # latents for each held-out sample, the same in every epoch


def train(
    config: Config,
    data: Dataset,
    out: str | Path,
    *,
    options: TrainingOptions | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Train a model, write it to ``out`` with its held-out ELBO, and return it.

    While it runs, its state is kept at ``state_path(out)``; the file is removed at the end.

    Args:
        config: the model; its data, data_dim and likelihood must be those of ``data``.
        data: what to train on; the ELBO reported is that of its test part.
        out: where the checkpoint goes.
        options: how to train.
        resume: go on from the training state that an interrupted run of the same configuration and
            options left, if there is one.
        on_progress: called after every epoch; what it raises interrupts the training.

    Raises:
        InputError: config and data do not go together, ``out`` cannot be written (looked at before
            training), or the loss or the regularizer is no longer finite.
        CheckpointError: the training state cannot be read, or is another run's.
    """
    options = options or TrainingOptions()
    _require_match(config, data)
    _require_outputs(out)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        return _train(config, data, Path(out), options, resume, on_progress)
    finally:
        torch.set_num_threads(threads)


def _train(
    config: Config,
    data: Dataset,
    out: Path,
    options: TrainingOptions,
    resume: bool,
    on_progress: Callable[[Progress], None] | None,
) -> Checkpoint:
    started = time.perf_counter()
    model = config.build()
    model.standardise(data.train.x)
    trainable = dict(model.named_parameters())
    optimizer = torch.optim.Adam(trainable.values(), lr=options.learning_rate)
    log_density = log_density_of(model, options)
    best = Best()
    done, seconds_before = 0, 0.0
    if resume and state_path(out).exists():
        done, seconds_before = load_state(state_path(out), model, optimizer, options, best)
    while done < options.epochs:
        progress = _train_epoch(model, optimizer, data.train.x, done, options, log_density)
        done += 1
        if options.early_stopping and done >= options.warmup_epochs:
            loss = _held_out_loss(model, data.validation.x, done, options, log_density)
            if loss < best.loss:
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                best = Best(done, loss, weights)
            progress = replace(progress, held_out_loss=loss, best_epoch=best.epoch)
        if on_progress is not None:
            on_progress(progress)
        if best.epoch and done - best.epoch >= options.early_stopping:
            break
        if done % options.save_every == 0 and done < options.epochs:
            seconds = seconds_before + time.perf_counter() - started
            save_state(state_path(out), model, optimizer, options, best, done, seconds)
    if best.epoch:
        model.load_state_dict(best.weights)
    model.eval()
    fitted: dict[str, float] = {}
    if isinstance(model, RealVAE) and model.decoder.precision is not None:
        fit = fit_precision(model, data.train.x)
        fitted = {"precision_residual": fit.residual, "precision_evaluations": fit.evaluations}
    if isinstance(model, QuantisedVAE):
        fitted = {"test_perplexity": model.perplexity(data.test.x)}
    test_elbo = model.elbo(data.test.x, seed=config.seed)
    _require_finite(test_elbo, options.epochs)
    report = {
        "test_elbo": test_elbo,
        "validation_elbo": model.elbo(data.validation.x, seed=config.seed),
        "train_samples": len(data.train),
        "test_samples": len(data.test),
        "options": asdict(options),
        "epochs": done,
        "seconds": seconds_before + time.perf_counter() - started,
        "torch": str(torch.__version__),
        **fitted,
    }
    if best.epoch:
        report |= {"best_epoch": best.epoch, "held_out_loss": best.loss}
    save_checkpoint(out, model, report=report)
    state_path(out).unlink(missing_ok=True)
    return load_checkpoint(out)


def _require_match(config: Config, data: Dataset) -> None:
    expected = (data.dim, data.kind, data.source)
    got = (config.data_dim, config.data_kind, config.data)
    if expected != got:
        raise InputError(
            "expected the configuration's (data_dim, likelihood, data) to be those of the data, "
            f"{expected}, but got {got}"
        )


def _require_outputs(out: str | Path) -> None:
    """Checkpoint and training state can be written, before anything is trained."""
    if is_standard_output(out):
        raise InputError("out: expected the path of a checkpoint, got '-'")
    require_writable("out", out)
    require_writable("out (its training state)", state_path(out))


def _train_epoch(
    model: Model,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    epoch: int,
    options: TrainingOptions,
    log_density: LogDensity | None,
) -> Progress:
    config = model.config
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    steps = math.ceil(len(x) / options.batch_size)
    warmth = min(1.0, (epoch + 1) / max(1, options.warmup_epochs))
    weight = config.beta * warmth
    noise = config.training_noise * float(model.decoder.scale)
    order = torch.randperm(len(x), generator=generator)
    totals = torch.zeros(3, dtype=torch.float64)
    model.train()
    for step, rows in enumerate(order.split(options.batch_size)):
        rate = _rate(epoch * steps + step, options.epochs * steps) * options.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = x[rows]
        if noise:
            draws = torch.randn(batch.shape, dtype=batch.dtype, generator=generator)
            batch = batch + noise * draws
        z, divergence = model.draw_latents(batch, generator=generator)
        likelihood = model.log_likelihood(z, batch)
        loss = (weight * divergence - likelihood).mean()
        _require_finite(float(loss.detach()), epoch)
        density = torch.zeros(())
        if log_density is not None:  # the order is random, and so are the first latents
            density = log_density(z[: options.regularizer_batch], z).mean()
            _require_finite_density(float(density.detach()), epoch, options.regularizer)
            loss = loss + warmth * options.weight * density
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip, error_if_nonfinite=False)
        optimizer.step()
        totals += torch.stack(
            [
                likelihood.detach().double().sum(),
                divergence.detach().double().sum(),
                density.detach().double() * len(batch),
            ]
        )
    mean_likelihood, mean_divergence, mean_density = (totals / len(x)).tolist()
    return Progress(
        epoch=epoch + 1,
        epochs=options.epochs,
        loss=weight * mean_divergence - mean_likelihood + warmth * options.weight * mean_density,
        log_likelihood=mean_likelihood,
        divergence=mean_divergence,
        log_density=None if log_density is None else mean_density,
    )


@torch.no_grad()
def _held_out_loss(
    model: Model,
    x: Tensor,
    epoch: int,
    options: TrainingOptions,
    log_density: LogDensity | None,
) -> float:
    """The training loss at x [n, D], with full weights and the same draws each time, no noise."""
    model.eval()
    generator = torch.Generator().manual_seed(model.config.seed)
    copies = x.repeat(_HELD_OUT_DRAWS, 1)
    z, divergence = model.draw_latents(copies, generator=generator)
    likelihood = model.log_likelihood(z, copies)
    loss = float((model.config.beta * divergence - likelihood).double().mean())
    if log_density is None:
        return loss
    z = z[: len(x)]
    density = float(log_density(z, z).double().mean())
    _require_finite_density(density, epoch - 1, options.regularizer)
    return loss + options.weight * density


def _rate(step: int, steps: int) -> float:
    rise = max(1, steps // 50)
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def _require_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"the loss is {loss} in epoch {epoch + 1}. Likely causes: a hidden unit met a pole of "
            "a holomorphic activation (take a smaller learning rate, or an entire one such as "
            "sin or cubic), an entire activation grew without bound (take tanh), or noise=0 let a "
            "variance collapse on constant data"
        )


def _require_finite_density(density: float, epoch: int, regularizer: Regularizer) -> None:
    if not math.isfinite(density):
        raise InputError(
            f"regularizer: the mean {regularizer} is {density} in epoch {epoch + 1}: the metric is "
            "degenerate to working precision, or has infinities, at an encoded sample. Likely "
            "causes: more (real, for log-volume) latent directions than the outputs can tell "
            "apart, a positive weight too large, or a pole of a holomorphic activation"
        )
