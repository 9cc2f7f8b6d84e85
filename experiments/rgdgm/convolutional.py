"""VAEs of the digits with convolutional decoders, and precisions of radial basis functions."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from experiments.generators.ablation import minimised
from experiments.generators.declaration import config
from experiments.store import fingerprint
from kahler_verify.files import write_with
from kahler_verify.models import RealVAE
from kahler_verify.models.data import Dataset
from kahler_verify.models.precision import fit_precision


def model_of(folder: Path, data: Dataset, seed: int, epochs: int) -> RealVAE:
    """A trained model in double precision, from disk if it was trained before."""
    model = untrained(seed)
    name = fingerprint({**model.config.to_dict(), "epochs": epochs, "layers": str(model)})
    path = folder / "models" / f"convolutional-{seed}-{name}.safetensors"
    if not path.exists():
        x = data.train.x
        model.standardise(x)
        minimised(model, x, epochs, blur=model.config.noise * float(model.decoder.scale))
        with torch.no_grad():
            fit_precision(model, x)
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        write_with(path, lambda draft: save_file(weights, draft))
    model.load_state_dict(load_file(path))
    return model.double().eval().requires_grad_(False)


def untrained(seed: int) -> RealVAE:
    """The ordinary model with other layers from z [B, 2] to the mean's 8 × 8."""
    model = RealVAE(config(seed, "rbf"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder: nn.Module = model.decoder
        decoder.layers = nn.Sequential(
            nn.Linear(2, 128),
            nn.Tanh(),
            nn.Unflatten(-1, (32, 2, 2)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        decoder.head = nn.Sequential(
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Flatten()
        )
    return model
