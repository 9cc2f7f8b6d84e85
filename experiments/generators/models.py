"""The models that are measured: ordinary VAEs of digits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.generators.declaration import Sizes, config
from experiments.store import fingerprint
from kahler_verify.models import RealVAE, TrainingOptions, load_checkpoint, load_data, train


def model_of(folder: Path, seed: int, variance: str, sizes: Sizes) -> RealVAE:
    """A trained model in double precision, from disk if it was trained before."""
    own = config(seed, variance)
    options = TrainingOptions(epochs=sizes.epochs)
    name = fingerprint({**own.to_dict(), **asdict(options)})
    path = folder / "models" / f"{variance}-{seed}-{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train(own, load_data("digits-images", seed), path, options=options)
    model: Any = load_checkpoint(path).model
    return model.double().requires_grad_(False)
