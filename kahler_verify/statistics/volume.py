"""The density that samplers target: prior × volume^γ, with γ of either sign.

Mind the sign.  For a pulled-back metric the volume is large AWAY from data, so that γ < 0 favours
the data; for metrics built to be large outside, or for [GPVAE]'s √det G near data, it is the
other way round.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric

RADII = (1e3, 1e2, 1e1)  # at which the tail of a target is looked at


class ImproperTargetWarning(UserWarning):
    """The target's mass seems to be infinite, so that no sample can represent it."""


@dataclass(frozen=True)
class VolumeTarget:
    """p(z) ∝ prior(z) · v(z)^γ, where v is a volume density of the metric on C^d.

    Args:
        metric: whose volume.
        dimension: d.
        gamma: γ, of either sign; 0 gives the prior, or the uniform law on the region.
        volume: ``log_volume`` for the true Riemannian volume √det g_ℝ, or
            ``log_det_hermitian`` for det g; they differ unless k vanishes.
        prior: whether to include the standard complex normal prior e^{-|z|²}.
        radius: restrict to the ball |z| < radius; needed for improper targets.

    Raises:
        InputError: an argument is out of its range.
    """

    metric: HermitianMetric
    dimension: int
    gamma: float = 1.0
    volume: Literal["log_volume", "log_det_hermitian"] = "log_volume"
    prior: bool = True
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise InputError(f"dimension: expected d ≥ 1, got {self.dimension}")
        if not math.isfinite(self.gamma):
            raise InputError(f"gamma: expected a finite number, got {self.gamma}")
        if self.volume not in ("log_volume", "log_det_hermitian"):
            raise InputError(
                f"volume: expected 'log_volume' or 'log_det_hermitian', got {self.volume!r}"
            )
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise InputError(f"radius: expected a positive number, got {self.radius}")

    def log_volume_power(self, z: Tensor) -> Tensor:
        """γ log v(z), real [...]."""
        if self.gamma == 0:
            return z.real.sum(-1) * 0
        dtype, device = self.home
        with torch.device(device):
            out: Tensor = getattr(self.metric, self.volume)(z.to(device, dtype))
        return self.gamma * out.to(z.device, z.real.dtype)

    @property
    def home(self) -> tuple[torch.dtype, torch.device]:
        """Complex dtype and device of the latents that the metric takes, where its tensors tell."""
        owner = getattr(self.metric, "decoder", self.metric)
        if isinstance(owner, torch.nn.Module):
            tensors = [*owner.parameters(), *owner.buffers()]
        else:
            tensors = [x for x in vars(owner).values() if isinstance(x, Tensor)]
            tensors += getattr(owner, "parameters", {}).values()
        for x in tensors:
            if x.is_floating_point() or x.is_complex():
                return (x.dtype if x.is_complex() else x.dtype.to_complex()), x.device
        return torch.complex128, torch.device("cpu")

    def log_density(self, z: Tensor) -> Tensor:
        """The log density at z [..., d] up to a constant, real [...]; -inf outside the region."""
        out = self.log_volume_power(z)
        square = (z * z.conj()).real.sum(-1)
        if self.prior:
            out = out - square
        if self.radius is not None:
            out = torch.where(square < self.radius**2, out, -torch.inf)
        return out

    def warn_if_improper(self, seed: int = 0) -> bool:
        """Look at the tail along random rays; warn, and return True, where the mass does not decay.

        The mass in |z| < r grows like r^{2d} p(r): it is finite only if log p falls faster than
        -2d log r.  This is numerical evidence on radii up to 10³, not a proof; where the metric
        overflows there, on radii up to 10² or 10.
        """
        if self.radius is not None:
            return False
        with torch.device("cpu"), torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            rays = torch.randn(32, self.dimension, dtype=torch.complex128, generator=generator)
            rays = rays / (rays * rays.conj()).real.sum(-1, keepdim=True).sqrt()
            slope = torch.full((len(rays),), torch.nan, dtype=torch.float64)
            for radius in RADII:  # nearer in where numbers overflow farther out
                near, far = self._tail(rays * radius / 8), self._tail(rays * radius)
                here = (far - near) / math.log(8) + 2 * self.dimension
                here = torch.where((far == -torch.inf) & ~near.isnan(), -torch.inf, here)
                slope = torch.where(slope.isnan(), here, slope)
        if bool((slope < -1e-3).all()):
            return False
        unknown, growing = int(slope.isnan().sum()), slope[~slope.isnan() & (slope >= -1e-3)]
        found = [f"it grows by r^{growing.max().item():.3g} or faster"] if len(growing) else []
        found += [f"it is not finite along {unknown} of {len(rays)} rays"] if unknown else []
        warnings.warn(
            "the target's mass does not decay along every ray: "
            f"{' and '.join(found)}. It seems improper; give a radius",
            ImproperTargetWarning,
            stacklevel=2,
        )
        return True

    def _tail(self, z: Tensor) -> Tensor:
        """The log density along rays; NaN where the metric is not finite.

        Where the metric is degenerate to working precision its volume is 0.
        """
        try:
            return self.log_density(z)
        except InputError:
            if len(z) > 1:
                return torch.cat([self._tail(each) for each in z.split(1)])
        dtype, device = self.home
        try:
            self.metric.metric_matrix(z.to(device, dtype))
        except InputError:
            return torch.full(z.shape[:-1], torch.nan, dtype=torch.float64)
        return torch.full(z.shape[:-1], -self.gamma * torch.inf, dtype=torch.float64)


@dataclass(frozen=True)
class Draws:
    """Samples with their diagnostics.

    Attributes:
        z: [n, d] complex; for chains [chains · n, d], chain after chain.
        effective_sample_size: of importance weights, or the smallest over
            coordinates and log(1 + |z|²) of the chains.
        acceptance: mean acceptance probability of the chains, None for importance resampling.
        r_hat: largest split R-hat over the same, None for importance resampling.
        details: what else the sampler knows.
    """

    z: Tensor
    effective_sample_size: float
    acceptance: float | None
    r_hat: float | None
    details: Mapping[str, float]
