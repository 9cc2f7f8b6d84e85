"""The density that samplers target: prior × volume^γ, with γ of either sign.

Mind the sign.  For a pulled-back metric the volume is large AWAY from data, so that γ < 0 favours
the data; for metrics built to be large outside, or for [GPVAE]'s √det G near data, it is the
other way round.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import Metric
from kahler_verify.spaces import Space

RADII = (1e3, 1e2, 1e1)  # at which the tail of a target is looked at


class ImproperTargetWarning(UserWarning):
    """The target's mass seems to be infinite, so that no sample can represent it."""


@dataclass(frozen=True)
class VolumeTarget:
    """p(z) ∝ prior(z) · v(z)^γ, where v is a volume density of the metric on R^d or C^d.

    Args:
        metric: whose volume, with real or complex latents as its ``space`` says.  (Of a
            ``FisherMetric`` at real latents, take ``on_real_latents``.)
        dimension: d.
        gamma: γ, of either sign; 0 gives the prior, or the uniform law on the region.
        volume: ``log_volume`` for the true Riemannian volume, √det g_ℝ of complex latents and
            √det g of real ones, or ``log_det_hermitian`` for det g of complex ones; √det g_ℝ and
            det g differ unless k vanishes.
        prior: whether to include the standard normal prior, e^{-|z|²/2} on R^d and e^{-|z|²} on
            C^d.
        radius: restrict to the ball |z| < radius; needed for improper targets.

    Raises:
        InputError: an argument is out of its range, or the metric has another d or no such volume.
    """

    metric: Metric
    dimension: int
    gamma: float = 1.0
    volume: Literal["log_volume", "log_det_hermitian"] = "log_volume"
    prior: bool = True
    radius: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.metric, Metric):
            raise InputError(f"metric: expected a Metric, got {type(self.metric).__name__}")
        if self.dimension < 1:
            raise InputError(f"dimension: expected d ≥ 1, got {self.dimension}")
        if self.metric.space.dimension not in (None, self.dimension):
            raise InputError(
                f"dimension: expected that of a metric on {self.metric.space}, got {self.dimension}"
            )
        if not math.isfinite(self.gamma):
            raise InputError(f"gamma: expected a finite number, got {self.gamma}")
        if self.volume not in ("log_volume", "log_det_hermitian"):
            raise InputError(
                f"volume: expected 'log_volume' or 'log_det_hermitian', got {self.volume!r}"
            )
        if self.volume == "log_det_hermitian" and not self.space.complex:
            raise InputError(
                f"volume: expected 'log_volume' on {self.space}, got 'log_det_hermitian', which is "
                "a density of metrics at complex latents"
            )
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise InputError(f"radius: expected a positive number, got {self.radius}")

    @property
    def space(self) -> Space:
        """R^d or C^d."""
        return Space(self.metric.space.complex, self.dimension)

    @property
    def real_dimension(self) -> int:
        """The number m of real coordinates: d on R^d, and 2d on C^d."""
        return self.dimension * (2 if self.space.complex else 1)

    def log_volume_power(self, z: Tensor) -> Tensor:
        """γ log v(z) at z [..., d], real [...].

        Raises:
            InputError: z is not of this space, or the metric refuses it.
        """
        self.space.check("z", z)
        if self.gamma == 0:
            return z.real.sum(-1) * 0
        dtype, device = self.home
        with torch.device(device):
            out: Tensor = getattr(self.metric, self.volume)(z.to(device, dtype))
        return self.gamma * out.to(z.device, z.real.dtype)

    @property
    def home(self) -> tuple[torch.dtype, torch.device]:
        """Dtype and device of the latents that the metric takes, where its tensors tell."""
        made_of = getattr(self.metric, "function", self.metric)
        owner = getattr(self.metric, "decoder", made_of)
        is_complex = self.space.complex
        if isinstance(owner, torch.nn.Module):
            tensors = [*owner.parameters(), *owner.buffers()]
        else:
            held = getattr(owner, "__dict__", {})
            tensors = [x for x in held.values() if isinstance(x, Tensor)]
            tensors += getattr(owner, "parameters", {}).values()
        for x in tensors:
            if x.is_floating_point() or x.is_complex():
                return (x.dtype.to_complex() if is_complex else x.dtype.to_real()), x.device
        return (torch.complex128 if is_complex else torch.float64), torch.device("cpu")

    def log_density(self, z: Tensor) -> Tensor:
        """The log density at z [..., d] up to a constant, real [...]; -inf outside the region."""
        out = self.log_volume_power(z)
        if self.prior:
            out = out + self.space.log_normal(z)
        if self.radius is not None:
            square = (z * z.conj()).real.sum(-1)
            out = torch.where(square < self.radius**2, out, -torch.inf)
        return out

    def warn_if_improper(self, seed: int = 0) -> bool:
        """Look at the tail along random rays; warn, and return True, where the mass does not decay.

        The mass in |z| < r grows like r^m p(r) with m real dimensions, d on R^d and 2d on C^d: it
        is finite only if log p falls faster than -m log r.  This is numerical evidence on radii up
        to 10³, not a proof; where the metric overflows there, or γ < 0 and it is degenerate to
        working precision, on radii up to 10² or 10.
        """
        if self.radius is not None:
            return False
        with torch.device("cpu"), torch.no_grad():
            rays = self.space.normal(32, torch.Generator().manual_seed(seed))
            rays = rays / (rays * rays.conj()).real.sum(-1, keepdim=True).sqrt()
            slope = torch.full((len(rays),), torch.nan, dtype=torch.float64)
            for radius in RADII:  # nearer in where numbers over- or underflow farther out
                near, far = self._tail(rays * radius / 8), self._tail(rays * radius)
                here = (far - near) / math.log(8) + self.real_dimension
                here = torch.where((far == -torch.inf) & ~near.isnan(), -torch.inf, here)
                # saturated outputs: a volume too small to be told from 0, to a power γ < 0
                here = torch.where(far == torch.inf, torch.nan, here)
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
        z: [n, d] real or complex; for chains [chains · n, d], chain after chain.
        effective_sample_size: of importance weights, or the smallest over real
            coordinates and log(1 + |z|²) of the chains.
        acceptance: mean acceptance probability of the chains, None for importance resampling.
        r_hat: largest split R-hat over the same, None for importance resampling.
        details: what else the sampler knows.
        statistics: of chains, by name as ArviZ has them, [chains, n] each: the log density ``lp``,
            in the coordinates that chains run in; of vectorised ones also ``acceptance_rate``,
            ``diverging`` and ``n_steps``.
    """

    z: Tensor
    effective_sample_size: float
    acceptance: float | None
    r_hat: float | None
    details: Mapping[str, float]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def by_chain(self) -> Tensor:
        """Draws of chains as [chains, n, d]; of importance resampling [1, n, d]."""
        return self.z.unflatten(0, (int(self.details.get("chains", 1)), -1))
