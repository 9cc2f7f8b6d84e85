"""Autoencoders with noise in the latents, with the KL term, with both and with neither."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.generators.declaration import VARIANCE, Sizes, config
from kahler_verify.models import RealVAE
from kahler_verify.models.data import Dataset

BATCH = 128
RATE = 3e-3


def trained(data: Dataset, seed: int, sizes: Sizes, *, noise: bool, kl: bool) -> RealVAE:
    """Minimise Σ|x - μ(z)|²/2σ² + KL, σ² fixed, z the code or a draw; the same batches for all."""
    model = config(seed, "constant").build()
    model.standardise(data.train.x)
    variance = model.decoder.constant_log_variance
    assert variance is not None
    unit = float(model.decoder.scale)
    variance.requires_grad_(False).fill_(math.log(VARIANCE / unit**2))
    return minimised(model, data.train.x, sizes.ablation_epochs, noise=noise, kl=kl)


def minimised(
    model: RealVAE, x: Tensor, epochs: int, *, noise: bool = True, kl: bool = True, blur: float = 0
) -> RealVAE:
    """Adam's way down, by the model's own seed; ``blur`` is the deviation of noise in the data."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    generator = torch.Generator().manual_seed(model.config.seed)
    steps = epochs * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            batch = x[rows]
            if blur:
                batch = batch + blur * torch.randn(batch.shape, generator=generator)
            z, divergence = model.draw_latents(batch, generator=generator)
            if not noise:
                z = model.encoder(batch)[0]
            loss = -model.log_likelihood(z, batch)
            loss = (loss + divergence if kl else loss).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 10.0)
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)
