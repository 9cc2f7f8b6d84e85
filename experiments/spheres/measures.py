"""Bounds of a VQ-VAE whose codes are balls, against its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.spheres.declaration import RADII, Sizes
from experiments.store import Json
from kahler_verify.models import QuantisedVAE, ball_divergence


@torch.no_grad()
def limit(model: QuantisedVAE, x: Tensor, sizes: Sizes) -> Json:
    """For each radius, what the bound and its parts differ by from the VQ-VAE's, of images x."""
    codes, numbers = model.encoder.codebook.codes, model.encoder.numbers(x)[:, 0]
    apart = torch.cdist(codes, codes).fill_diagonal_(torch.inf).amin(-1)
    unit = float(apart[apart > 0].median())
    exact = model.log_likelihood(codes[numbers], x)
    log_k = math.log(len(codes))
    values: Json = {"vq": {"mixture": 0.0, "divergence": 0.0, "reconstruction": 0.0, "fixed": 0.0}}
    for k, radius in enumerate(RADII):
        generator = torch.Generator().manual_seed(k)
        found = ball_divergence(codes, radius * unit, draws=sizes.draws, generator=generator)
        likelihood = torch.stack(
            [
                model.log_likelihood(codes[numbers] + radius * unit * noise, x)
                for noise in torch.randn(
                    sizes.draws, len(x), codes.shape[1], dtype=codes.dtype, generator=generator
                )
            ]
        )
        rest = (log_k - found.value)[numbers].mean()
        gained = (likelihood.mean(0) - exact).mean()
        inside = bool(
            ((log_k - found.value) <= found.gap + 4 * found.error + 1e-12).all()
            & (log_k - found.value >= -4 * found.error - 1e-12).all()
        )
        values[f"r{k}"] = {
            "mixture": float(gained + rest),
            "divergence": float(rest),
            "reconstruction": float(gained),
            "fixed": float((found.fixed - log_k)[numbers].mean()),
            "bound": float(found.gap[numbers].mean()),
            "inside": inside,
        }
    values["perplexity"] = model.perplexity(x)
    return values
