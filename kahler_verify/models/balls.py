"""A variational autoencoder's latents as balls: how large, how far apart, and what they cost.

The posterior N(m, diag s²) of a sample is a ball about its code.  Complex latents count as twice as
many real ones, in the units in which the prior is N(0, I).  Source: Shi, arXiv 2507.17255; what is
proved of its claims stands in ``derivations/papers/points_to_spheres.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import chdtri, ndtri
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.diagnosis import Diagnosis, Quantity
from kahler_verify.jets import propagate
from kahler_verify.models.autoencoder import Autoencoder
from kahler_verify.models.real_vae import RealVAE

__all__ = [
    "Balls",
    "NoiseCost",
    "RadiusLaw",
    "Uniformity",
    "balls_of",
    "coverage",
    "diagnose_balls",
    "noise_cost",
    "overlaps",
    "radius_law",
    "uniformity",
]

LEVEL = 0.95  # of a ball's draws, that lie within the radius up to which it covers
PRIOR_DRAWS = 4096
ROWS = 1 << 14  # that go through f at once
PAIRS_AT_ONCE = 1 << 22  # numbers


class RadiusLaw(NamedTuple):
    """|ε| of ε ~ N(0, I): its mean and its standard deviation."""

    mean: float
    deviation: float


def radius_law(dimension: int) -> RadiusLaw:
    """E|ε| = √2 Γ((d+1)/2)/Γ(d/2), and √(d - (E|ε|)²), which tends to 1/√2.

    Raises:
        InputError: the dimension is not a positive whole number.
    """
    if type(dimension) is not int or dimension < 1:
        raise InputError(f"dimension: expected a whole number ≥ 1, got {dimension!r}")
    mean = math.sqrt(2) * math.exp(math.lgamma((dimension + 1) / 2) - math.lgamma(dimension / 2))
    if dimension < 1000:
        return RadiusLaw(mean, math.sqrt(dimension - mean**2))
    # d - mean² cancels; ½ - 1/(8d) - 1/(16d²) to its digits
    return RadiusLaw(mean, math.sqrt(0.5 - 1 / (8 * dimension) - 1 / (16 * dimension**2)))


@dataclass(frozen=True)
class Balls:
    """Posteriors N(m, diag s²), in units in which the prior is N(0, I).

    Attributes:
        centres: m [N, n], double precision.
        deviations: s [N, n].
    """

    centres: Tensor
    deviations: Tensor

    def __post_init__(self) -> None:
        m, s = self.centres, self.deviations
        if m.ndim != 2 or m.shape != s.shape or 0 in m.shape:
            raise InputError(
                f"centres, deviations: expected [N, n] both, got {list(m.shape)} and "
                f"{list(s.shape)}"
            )
        if not bool(m.isfinite().all() & s.isfinite().all() & (s >= 0).all()):
            raise InputError("centres, deviations: expected finite ones, and deviations ≥ 0")

    @property
    def radii(self) -> Tensor:
        """The root mean square of |z - m|, √Σs², [N]."""
        return self.deviations.norm(dim=-1)


@torch.no_grad()
def balls_of(model: Autoencoder, x: Tensor) -> Balls:
    """Of samples x [N, D], as the model's encoder has them.

    Raises:
        InputError: the model is no autoencoder.
    """
    if not isinstance(model, Autoencoder):
        raise InputError(f"model: expected an autoencoder, got {type(model).__name__}")
    mean, log_variance = model.encoder(x)
    s = (log_variance / 2).exp().double()
    if not mean.is_complex():
        return Balls(mean.double(), s)
    m = math.sqrt(2) * torch.view_as_real(mean.to(torch.complex128)).flatten(-2)
    return Balls(m, s.repeat_interleave(2, -1))


def overlaps(balls: Balls) -> Tensor:
    """The largest Bhattacharyya coefficient of each ball with another one, [N], in [0, 1].

    ∫√(pq) = Π_a √(2 s_a t_a/(s_a² + t_a²)) exp(-(m_a - l_a)²/(4 (s_a² + t_a²))), for balls of one
    radius exp(-|m - l|²/8s²); of points without radius 1 where they are the same, else 0.
    """
    m, s = balls.centres, balls.deviations
    count, n = m.shape
    if count < 2:
        raise InputError(f"balls: expected two or more, got {count}")
    out = []
    numbers = torch.arange(count)
    for rows in numbers.split(max(1, PAIRS_AT_ONCE // (count * n))):
        total = s[rows, None] ** 2 + s**2
        none = total == 0
        size = torch.where(none, 1, 2 * s[rows, None] * s / torch.where(none, 1, total))
        apart = (m[rows, None] - m) ** 2
        far = torch.where(
            none, torch.where(apart == 0, 0, torch.inf), apart / (4 * torch.where(none, 1, total))
        )
        found = (size.log() / 2 - far).sum(-1).exp()
        found[torch.arange(len(rows)), rows] = 0
        out.append(found.amax(-1))
    return torch.cat(out)


def coverage(
    balls: Balls, *, draws: int = PRIOR_DRAWS, generator: torch.Generator | None = None
) -> float:
    """Part of the prior N(0, I) that lies in some ball: where ``LEVEL`` of its own draws lie."""
    if type(draws) is not int or draws < 1:
        raise InputError(f"draws: expected a whole number ≥ 1, got {draws!r}")
    m, s = balls.centres, balls.deviations.clamp_min(torch.finfo(torch.float64).tiny)
    n = m.shape[1]
    z = torch.randn(draws, n, dtype=m.dtype, generator=generator)
    most = float(chdtri(n, 1 - LEVEL))
    inside = [
        (((part[:, None] - m) / s) ** 2).sum(-1).amin(-1) <= most
        for part in z.split(max(1, PAIRS_AT_ONCE // m.numel()))
    ]
    return float(torch.cat(inside).double().mean())


class Uniformity(NamedTuple):
    """How evenly whitened codes lie, and how near to N(0, I).

    Attributes:
        variation: coefficient of variation of distances to the nearest code; .5227 of a Poisson
            process in the plane.
        sliced: 2-Wasserstein distance to N(0, I), root mean square over directions.
        holes: part of N(0, I) farther than ¼ from every code.
    """

    variation: float
    sliced: float
    holes: float


def uniformity(codes: np.ndarray) -> Uniformity:
    """Of codes [N, n]; directions are even ones in the plane, else drawn with a fixed seed."""
    n = codes.shape[-1]
    if codes.ndim != 2 or len(codes) <= n or not np.isfinite(codes).all():
        raise InputError(
            f"codes: expected finite [N, n] with more of them than n, got {list(codes.shape)}"
        )
    covariance = np.atleast_2d(np.cov(codes.T))
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise InputError("codes: expected some that span the space, not a plane of it") from error
    white = (codes - codes.mean(0)) @ np.linalg.inv(root).T
    nearest = cKDTree(white).query(white, 2)[0][:, 1]
    quantiles = ndtri((np.arange(len(white)) + 0.5) / len(white))
    sides = np.sort(white @ _directions(n), 0)
    prior = np.random.default_rng(0).standard_normal((3000, n))
    apart = cKDTree(white).query(prior)[0]
    return Uniformity(
        float(nearest.std() / nearest.mean()),
        float(np.sqrt(((sides - quantiles[:, None]) ** 2).mean())),
        float((apart > 0.25).mean()),
    )


def _directions(n: int) -> np.ndarray:
    """Unit vectors [n, 32]."""
    if n == 2:
        angles = np.linspace(0, np.pi, 33)[:-1]
        return np.stack([np.cos(angles), np.sin(angles)])
    found = np.random.default_rng(0).standard_normal((n, 32))
    return found / np.linalg.norm(found, axis=0)


class NoiseCost(NamedTuple):
    """What noise z = m + s ε adds to |x - f(z)|², to second order, for each sample [N].

    Attributes:
        metric: Σ_a s_a² |∂_af|², the trace of the pulled-back metric.
        residual: -Σ_a s_a² ⟨x - f, ∂_a²f⟩, which is as large and of either sign; 0 where x = f.
        measured: the mean over draws of ε and -ε.
        error: its standard error.
    """

    metric: Tensor
    residual: Tensor
    measured: Tensor
    error: Tensor


@torch.no_grad()
def noise_cost(
    f: Callable[[Tensor], Tensor],
    balls: Balls,
    x: Tensor,
    *,
    draws: int = 256,
    generator: torch.Generator | None = None,
) -> NoiseCost:
    """E|x - f(m + sε)|² - |x - f(m)|² and its two terms of second order (claim P1).

    Args:
        f: real latents [B, n] to [B, D], such as a decoder's mean.
        balls: N of them.
        x: [N, D].
        draws: for each, with their negatives.
        generator: of the draws.
    """
    m, s = balls.centres, balls.deviations
    if x.shape[:1] != m.shape[:1] or x.ndim != 2:
        raise InputError(f"x: expected [{len(m)}, D], got {list(x.shape)}")
    if type(draws) is not int or draws < 2:
        raise InputError(f"draws: expected a whole number ≥ 2, got {draws!r}")
    axes = torch.eye(m.shape[1], dtype=m.dtype)[None]
    jet: Any = propagate(f, m, 2, axes, along=True)
    rest = x.to(m) - jet.value
    slopes = jet.d.square().sum(-1)
    variances = s**2
    loss = rest.square().sum(-1)
    noise = torch.randn(draws, *m.shape, dtype=m.dtype, generator=generator)
    losses = []
    for part in noise.split(max(1, ROWS // len(m))):
        both = torch.stack([m + s * part, m - s * part])
        losses.append(
            (x - f(both.flatten(0, 2)).reshape(*both.shape[:3], -1)).square().sum(-1).mean(0)
        )
    found = torch.cat(losses) - loss
    return NoiseCost(
        (variances * slopes).sum(-1),
        -torch.einsum("na,nai,ni->n", variances, jet.dd, rest),
        found.mean(0),
        found.std(0) / math.sqrt(draws),
    )


def diagnose_balls(model: Autoencoder, x: Tensor, *, seed: int = 0) -> Diagnosis:
    """A diagnosis of the balls of samples x [N, D], as a table of quantities.

    Raises:
        InputError: there are fewer than two samples.
    """
    balls = balls_of(model, x)
    n = balls.centres.shape[1]
    law = radius_law(n)
    round_ball = torch.tensor([law.mean - law.deviation, law.mean, law.mean + law.deviation])
    generator = torch.Generator().manual_seed(seed)
    found = [
        Quantity("ball radius", "root mean square of |z - m|; the prior's is √n", balls.radii),
        Quantity("radius law", "|z - m|/σ of a round ball: its mean ± a deviation", round_ball),
        Quantity(
            "ball overlap", "∫√(pq) with the nearest other ball; 1: the same", overlaps(balls)
        ),
        _one(
            "coverage",
            f"part of N(0, I) in some ball's {LEVEL:.0%}",
            coverage(balls, generator=generator),
        ),
    ]
    if len(x) > n + 1 and bool(
        torch.linalg.matrix_rank(balls.centres - balls.centres.mean(0)) == n
    ):
        even = uniformity(balls.centres.numpy())
        found += [
            _one("unevenness", "variation of whitened codes' nearest distances", even.variation),
            _one("from the prior", "sliced distance of whitened codes to N(0, I)", even.sliced),
            _one("holes", "part of N(0, I) farther than ¼ from whitened codes", even.holes),
        ]
    if isinstance(model, RealVAE) and bool((balls.deviations > 0).all()):
        cost = noise_cost(model.decoder.mean, balls, x, draws=64, generator=generator)
        found += [
            Quantity("noise, metric", "Σ s²|∂f|², what noise adds to |x - f|² (P1)", cost.metric),
            Quantity("noise, residual", "-Σ s²⟨x - f, ∂²f⟩, of the same order", cost.residual),
            Quantity("noise, measured", "what it adds, by draws", cost.measured),
        ]
    return Diagnosis(len(x), n, tuple(found))


def _one(name: str, meaning: str, value: float) -> Quantity:
    return Quantity(name, meaning, torch.tensor([value], dtype=torch.float64))
