"""How a model is trained, and what is said of each epoch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from kahler_verify.errors import InputError

Regularizer = Literal["none", "logdet-hermitian", "log-volume"]
RegularizerMetric = Literal["fisher", "mixture"]


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
