"""Training of complex VAEs: seeded, bit-reproducible, resumable.

Randomness is counted, not carried: batches and noise of epoch n follow from (seed, n) alone.
The state between two epochs is therefore weights, Adam's moments and n (with early stopping also
the best weights, their epoch and loss), and an interrupted run that is resumed gives the very bits
of the uninterrupted one, on one machine with one thread count.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.files import is_standard_output, require_writable
from kahler_verify.models.checkpoint import (
    Checkpoint,
    Config,
    Model,
    config_from_json,
    format_of,
    load_checkpoint,
    read_tensors,
    require_tensors,
    save_checkpoint,
    write_tensors,
)
from kahler_verify.models.data import Dataset
from kahler_verify.models.real_vae import RealVAE

__all__ = ["Progress", "Regularizer", "RegularizerMetric", "TrainingOptions", "state_path", "train"]

Regularizer = Literal["none", "logdet-hermitian", "log-volume"]
RegularizerMetric = Literal["fisher", "mixture"]
# At points [n, d], where the step's latents are [m, d]: a log density [n].
LogDensity = Callable[[Tensor, Tensor], Tensor]

_STATE_FORMAT = "kahler_verify.training_state"
_STATE_VERSION = 1
_HELD_OUT_DRAWS = 4  # latents for each held-out sample, the same in every epoch


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train; the defaults take well under 90 seconds on 2 cores for digits.

    Attributes:
        epochs: passes over the training data.
        batch_size: samples per step.
        learning_rate: Adam's, at its peak: it rises over the first 2% of the steps and falls to 0
            along a half cosine.
        warmup_epochs: over these, the KL term's weight rises linearly to beta.
        clip: gradients of greater norm are scaled down to it; near the poles of a holomorphic
            activation a single sample could otherwise ruin the weights.
        save_every: epochs between two training states on disk.
        threads: of torch while it trains; models of this size are fastest with one, and with one
            the weights do not depend on how many cores a machine has.
        regularizer: the log density of the decoder's Fisher metric whose mean joins the loss:
            "logdet-hermitian" is log det g, "log-volume" the log of the true volume density.
        weight: λ, of either sign: λ > 0 makes the density small where data are encoded, λ < 0
            large. It rises over the warm-up as the KL term's weight does.
        regularizer_batch: at how many latents of each step's batch the log density is taken.
        metric: whose density it is: "fisher", the decoder's metric itself, or "mixture", the
            log-sum-exp mixture potential with P_k = g(c_k)ᵀ and equal weights, made anew in every
            step at latents c_k of its batch.  It is differentiated in the decoder's weights through
            the P_k, and in the encoder's through all latents.
        components: how many centres c_k the mixture has: the last latents of the batch.
        early_stopping: stop where the held-out loss has not fallen for so many epochs; 0 for never.
            It is that of the validation part with the weights that hold after the warm-up, β and λ,
            and is looked at from the last epoch of the warm-up on.  The weights with the least are
            kept, also where training goes on to the end.
    """

    epochs: int = 300
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_epochs: int = 20
    clip: float = 10.0
    save_every: int = 25
    threads: int = 1
    regularizer: Regularizer = "none"
    weight: float = 0.0
    regularizer_batch: int = 16
    metric: RegularizerMetric = "fisher"
    components: int = 8
    early_stopping: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("warmup_epochs", 0),
            ("save_every", 1),
            ("threads", 1),
            ("regularizer_batch", 1),
            ("components", 1),
            ("early_stopping", 0),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"expected {name} to be a whole number ≥ {least}, got {value!r}")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"expected {name} to be positive and finite, but got {value!r}")
        if self.regularizer not in get_args(Regularizer):
            raise InputError(
                f"regularizer: expected one of {', '.join(get_args(Regularizer))}, "
                f"got {self.regularizer!r}"
            )
        if self.metric not in get_args(RegularizerMetric):
            raise InputError(
                f"metric: expected one of {', '.join(get_args(RegularizerMetric))}, "
                f"got {self.metric!r}"
            )
        if self.metric != "fisher" and self.regularizer == "none":
            raise InputError(
                f"metric: expected a regularizer whose metric it is, got {self.metric!r} with "
                "regularizer 'none'"
            )
        if self.early_stopping and self.warmup_epochs > self.epochs:
            raise InputError(
                "early_stopping: expected a warm-up that ends before training does, got "
                f"warmup_epochs {self.warmup_epochs} of epochs {self.epochs}"
            )
        if not isinstance(self.weight, int | float) or not math.isfinite(self.weight):
            raise InputError(f"weight: expected a finite number, got {self.weight!r}")
        if (self.regularizer == "none") != (self.weight == 0):
            raise InputError(
                "weight: expected a number other than 0 with a regularizer, and 0 without, got "
                f"weight {self.weight!r} with regularizer {self.regularizer!r}"
            )


@dataclass(frozen=True)
class Progress:
    """What the callback is told after every epoch, averages over the epoch in nats per sample.

    ``log_density`` is the regularizer's log det g or log volume, without λ; None without one.
    ``held_out_loss`` and ``best_epoch`` are None without early stopping, and during the warm-up.
    """

    epoch: int
    epochs: int
    loss: float
    log_likelihood: float
    divergence: float
    log_density: float | None = None
    held_out_loss: float | None = None
    best_epoch: int | None = None


@dataclass
class _Best:
    """The weights with the least held-out loss so far; epoch 0 where there are none yet."""

    epoch: int = 0
    loss: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


def state_path(out: str | Path) -> Path:
    """Where the training state of an unfinished run stands, beside its checkpoint."""
    out = Path(out)
    return out.with_name(out.name + ".training")


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
    log_density = _log_density(model, options)
    best = _Best()
    done, seconds_before = 0, 0.0
    if resume and state_path(out).exists():
        done, seconds_before = _load_state(state_path(out), model, optimizer, options, best)
    while done < options.epochs:
        progress = _train_epoch(model, optimizer, data.train.x, done, options, log_density)
        done += 1
        if options.early_stopping and done >= options.warmup_epochs:
            loss = _held_out_loss(model, data.validation.x, done, options, log_density)
            if loss < best.loss:
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                best = _Best(done, loss, weights)
            progress = replace(progress, held_out_loss=loss, best_epoch=best.epoch)
        if on_progress is not None:
            on_progress(progress)
        if best.epoch and done - best.epoch >= options.early_stopping:
            break
        if done % options.save_every == 0 and done < options.epochs:
            seconds = seconds_before + time.perf_counter() - started
            _save_state(state_path(out), model, optimizer, options, best, done, seconds)
    if best.epoch:
        model.load_state_dict(best.weights)
    model.eval()
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


def _log_density(model: Model, options: TrainingOptions) -> LogDensity | None:
    """The log density that the options name, or None without a regularizer."""
    if options.regularizer == "none":
        return None
    if isinstance(model, RealVAE):
        return _log_volume_at_real_latents(model, options)
    from kahler_verify.geometry.fisher import FisherMetric  # which itself imports decoders
    from kahler_verify.statistics.proxy import closed_form_mixture

    name = {"log-volume": "log_volume", "logdet-hermitian": "log_det_hermitian"}
    quantity = name[options.regularizer]
    fisher = FisherMetric(model.decoder, check=False, validate_args=False)

    def of_fisher(points: Tensor, _: Tensor) -> Tensor:
        out: Tensor = getattr(fisher, quantity)(points)
        return out

    def of_mixture(points: Tensor, latents: Tensor) -> Tensor:
        centres = latents[-options.components :]
        mixture = closed_form_mixture(fisher, centres, detach=False)
        out: Tensor = getattr(mixture, quantity)(points)
        return out

    return of_fisher if options.metric == "fisher" else of_mixture


def _log_volume_at_real_latents(model: RealVAE, options: TrainingOptions) -> LogDensity:
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric

    if options.regularizer != "log-volume" or options.metric != "fisher":
        raise InputError(
            "regularizer: expected log-volume of the Fisher metric at real latents, got "
            f"{options.regularizer} of {options.metric}"
        )
    metric = FisherRaoMetric(model.decoder, validate_args=False)

    def of_fisher(points: Tensor, _: Tensor) -> Tensor:
        return metric.log_volume(points)

    return of_fisher


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


# The training state


def _save_state(
    path: Path,
    model: Model,
    optimizer: torch.optim.Adam,
    options: TrainingOptions,
    best: _Best,
    epoch: int,
    seconds: float,
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.weights.items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    write_tensors(
        path,
        {name: tensor.detach().cpu() for name, tensor in tensors.items()},
        {
            "format": _STATE_FORMAT,
            "model": format_of(model.config),
            "version": str(_STATE_VERSION),
            "config": json.dumps(model.config.to_dict(), sort_keys=True),
            "options": json.dumps(asdict(options), sort_keys=True),
            "progress": json.dumps(
                {
                    "epoch": epoch,
                    "seconds": seconds,
                    "best_epoch": best.epoch,
                    "held_out_loss": best.loss if best.epoch else None,
                }
            ),
        },
    )


def _load_state(
    path: Path,
    model: Model,
    optimizer: torch.optim.Adam,
    options: TrainingOptions,
    best: _Best,
) -> tuple[int, float]:
    """Put the saved state into model, optimizer and best; the epochs done and their seconds."""
    metadata, tensors = read_tensors(path, (_STATE_FORMAT,), _STATE_VERSION)
    config = config_from_json(path, metadata)
    found = _json_or_none(metadata.get("options"))
    if isinstance(found, dict):  # a state may be older than an option, whose default it has then
        found = asdict(TrainingOptions()) | found
    for expected, got, what in (
        (model.config.to_dict(), config.to_dict(), "configuration"),
        (asdict(options), found, "options"),
    ):
        if expected != got:
            difference = {
                key: (got.get(key) if isinstance(got, dict) else got, value)
                for key, value in expected.items()
                if not isinstance(got, dict) or got.get(key) != value
            }
            raise CheckpointError(
                f"{path} is the state of another run: its {what} differs, (found, expected) = "
                f"{difference}; delete it, or train without resuming"
            )
    progress = _json_or_none(metadata.get("progress"))
    match progress:
        case {"epoch": int(epoch), "seconds": int() | float() as seconds} if (
            0 < epoch < options.epochs
        ):
            pass
        case _:
            raise CheckpointError(
                f"{path}: expected its progress to name an epoch below {options.epochs} and "
                f"seconds, but got {progress!r}"
            )
    best.epoch, best.loss = _best_of(path, progress, epoch, options)
    expected_tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if best.epoch:
        expected_tensors |= {f"best.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        expected_tensors[f"step.{name}"] = torch.zeros(())
        expected_tensors[f"exp_avg.{name}"] = parameter
        expected_tensors[f"exp_avg_sq.{name}"] = parameter
    require_tensors(path, tensors, expected_tensors)
    model.load_state_dict(
        {name: tensors[f"model.{name}"] for name in model.state_dict()}, strict=True
    )
    if best.epoch:
        best.weights = {name: tensors[f"best.{name}"] for name in model.state_dict()}
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            key: tensors[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
        }
    return epoch, float(seconds)


def _best_of(
    path: Path, progress: dict[str, Any], epoch: int, options: TrainingOptions
) -> tuple[int, float]:
    """The best epoch and its loss; (0, inf) where there is none yet."""
    match progress.get("best_epoch", 0), progress.get("held_out_loss"):
        case 0, None:
            return 0, math.inf
        case int(best), float(loss) if (
            0 < best <= epoch < best + options.early_stopping and math.isfinite(loss)
        ):
            return best, loss
        case _:
            raise CheckpointError(
                f"{path}: expected its progress to name a best epoch, less than "
                f"{options.early_stopping} before epoch {epoch}, and its loss, but got {progress!r}"
            )


def _json_or_none(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None
