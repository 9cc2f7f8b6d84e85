"""Models as folders in the Hub's layout: ``config.json`` beside ``model.safetensors``.

Any reader of safetensors has the weights, by the names of ``state_dict``: ``decoder.head.weight``,
``encoder.layers.0.weight`` and so on, layers counted with their activations.  Nothing is fetched,
and loading runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kahler_verify.errors import CheckpointError
from kahler_verify.files import write_text
from kahler_verify.models.checkpoint import (
    VERSION,
    Checkpoint,
    Model,
    checked_tensors,
    config_from_json,
    format_of,
    loaded_model,
    read_tensors,
    write_tensors,
)

__all__ = ["from_pretrained", "save_pretrained"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_LARGEST_CONFIG = 16 << 20


def save_pretrained(
    folder: str | Path, model: Model, *, report: Mapping[str, Any] | None = None
) -> None:
    """Write a model to a folder, which is made where it is not there.

    Args:
        folder: of the two files; others in it are left alone.
        model: a ``ComplexVAE`` or a ``RealVAE``.
        report: kept with it in ``config.json``.

    Raises:
        CheckpointError: as of ``save_checkpoint``.
    """
    folder = Path(folder)
    tensors = checked_tensors(folder / WEIGHTS, model)
    config = {
        "model_type": format_of(model.config),
        "architectures": [type(model).__name__],
        "version": VERSION,
        "config": model.config.to_dict(),
        "report": dict(report or {}),
    }
    try:
        text = json.dumps(config, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{folder}: expected a report of finite numbers, strings, lists and dictionaries, as "
            f"JSON has them, but {error}"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error}") from error
    # "pt" is what the Hub's libraries look for
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt", "version": str(VERSION)})
    write_text(folder / CONFIG, text)


def from_pretrained(folder: str | Path) -> Checkpoint:
    """Read a model that ``save_pretrained`` wrote; in evaluation mode, on the CPU.

    Raises:
        CheckpointError: the folder is not one of these, or is damaged; the message says how.
    """
    folder = Path(folder)
    config = _config(folder / CONFIG)
    model_type, values = config.get("model_type"), config.get("config")
    if config.get("version") != VERSION or not isinstance(values, dict):
        raise CheckpointError(
            f"{folder / CONFIG}: expected version {VERSION} with a configuration, got "
            f"version {config.get('version')!r}"
        )
    _, tensors = read_tensors(folder / WEIGHTS, ("pt",), VERSION)
    metadata = {"format": str(model_type), "config": json.dumps(values)}
    found = config_from_json(folder / CONFIG, metadata)
    if format_of(found) != model_type:
        raise CheckpointError(
            f"{folder / CONFIG}: expected a model_type of this package, got {model_type!r}"
        )
    report = config.get("report", {})
    model = loaded_model(folder / WEIGHTS, found, tensors)
    return Checkpoint(model, report if isinstance(report, dict) else {})


def _config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise CheckpointError(f"{path}: expected a configuration, but it is too large for one")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a configuration as JSON, but {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values
