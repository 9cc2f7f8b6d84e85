"""Half a circle of noisy points, which benchmarks of locally adaptive normal laws share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["MEAN_OF_THE_FIT", "RHO", "SIGMA", "semicircle"]

SIGMA, RHO = 0.15, 0.01  # of the data metric
MEAN_OF_THE_FIT = (-0.029321661965491873, 0.8677394558561338)


def semicircle(seed: int = 1, count: int = 200) -> Tensor:
    """Noisy points of half a circle, [count, 2]."""
    random = np.random.default_rng(seed)
    angle = np.pi * random.random(count)
    place = np.stack([np.cos(angle), np.sin(angle)], 1)
    return torch.from_numpy(place + 0.1 * random.standard_normal((count, 2)))
