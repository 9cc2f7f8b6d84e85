"""A precision of radial basis functions: large near centres, and at its floor far from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RadialPrecision"]


class RadialPrecision(nn.Module):
    """β_j(z) = Σ_k W_kj exp(-λ_k |z - c_k|²) + ζ_j, so that the variance 1/β grows away from c.

    With W = 0, as it begins, β is the constant ζ.  Its derivatives are those of
    derivations/geometry/data_metrics.py.

    Attributes:
        centres: c [K, d].
        bandwidths: λ [K], not negative.
        weights: W [K, n], not negative.
        log_floor: log ζ [n], the one parameter that gradients reach.

    Source: Arvanitidis, Hansen, Hauberg, arXiv 1710.11379.
    """

    centres: Tensor
    bandwidths: Tensor
    weights: Tensor

    def __init__(self, latent_dim: int, outputs: int, centres: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(centres, latent_dim))
        self.register_buffer("bandwidths", torch.ones(centres))
        self.register_buffer("weights", torch.zeros(centres, outputs))
        self.log_floor = nn.Parameter(torch.zeros(outputs))

    def features(self, z: Tensor) -> Tensor:
        """v_k = exp(-λ_k |z - c_k|²), [..., d] to [..., K]."""
        apart = z.unsqueeze(-2) - self.centres
        return torch.exp(-self.bandwidths * apart.square().sum(-1))

    def forward(self, z: Tensor) -> Tensor:
        """[..., d] to β [..., n]."""
        return self.features(z) @ self.weights + self.log_floor.exp()

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        (count, d), outputs = self.centres.shape, len(self.log_floor)
        return f"latent_dim={d}, outputs={outputs}, centres={count}"
