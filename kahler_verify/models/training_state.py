"""The state of an interrupted training: written whole, and taken up by the same run alone."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import CheckpointError
from kahler_verify.models.checkpoint import (
    Model,
    config_from_json,
    format_of,
    read_tensors,
    require_tensors,
    write_tensors,
)
from kahler_verify.models.training_options import TrainingOptions

_STATE_FORMAT = "kahler_verify.training_state"
_STATE_VERSION = 1


@dataclass
class Best:
    """The weights with the least held-out loss so far; epoch 0 where there are none yet."""

    epoch: int = 0
    loss: float = math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


def state_path(out: str | Path) -> Path:
    """Where the training state of an unfinished run stands, beside its checkpoint."""
    out = Path(out)
    return out.with_name(out.name + ".training")


def save_state(
    path: Path,
    model: Model,
    optimizer: torch.optim.Adam,
    options: TrainingOptions,
    best: Best,
    epoch: int,
    seconds: float,
) -> None:
    """Write weights, Adam's moments, the best weights so far, and what epoch it is."""
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


def load_state(
    path: Path,
    model: Model,
    optimizer: torch.optim.Adam,
    options: TrainingOptions,
    best: Best,
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
