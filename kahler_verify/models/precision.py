"""How a precision of radial basis functions is fitted to a model whose mean is trained.

Centres are those of k-means on codes, bandwidths follow the mean distance of codes to their centre,
and weights solve a problem of their own, convex and separate for each output:

  minimise ½ ⟨E_j b_j - log b_j⟩ over w_j ≥ 0, with b_j = Φ w_j + ζ_j,

where E are squared residuals of the mean at latents drawn from q(z|x) and ⟨·⟩ is their average:
the negative log likelihood of the decoder.  It has one minimum, which an interior-point method
finds for all outputs at once in some twenty steps, and optimality conditions that say how well.

Source: Arvanitidis, Hansen, Hauberg, arXiv 1710.11379; the recipe is this project's.  Solver:
Boyd, Vandenberghe, *Convex Optimization*, 2004, section 11.7.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.models.real_vae import RealVAE

__all__ = ["PrecisionFit", "fit_precision", "nonnegative_precision"]

POINTS = 10_000  # latents that a fit looks at, at most
DRAWS = 10  # of each sample's latents, where so many fit
REACH = 2.0  # standard deviations of a feature, in mean distances of codes to their centre
BLOCK = 128  # outputs that are solved for at once
MOST_STEPS, PRECISION = 100, 1e-10
LARGEST_DEVIATION = 1000.0  # far from all centres, in units of the mean's residuals


class PrecisionFit(NamedTuple):
    """What a fit came to.

    Attributes:
        weights: w [K, n].
        residual: of the optimality conditions, in units in which each output's mean E is one: the
            largest |∂f/∂w_k| where w_k > 0, and of a negative one where w_k = 0.
        evaluations: of the objective's derivatives, for the outputs that took most.
    """

    weights: Tensor
    residual: float
    evaluations: int


def nonnegative_precision(features: Tensor, errors: Tensor, floor: Tensor) -> PrecisionFit:
    """The weights w ≥ 0 [K, n] with the least ½ ⟨E b - log b⟩, b = Φ w + ζ, for each output.

    Args:
        features: Φ [N, K] ≥ 0.
        errors: E [N, n] ≥ 0, with a positive mean for each output.
        floor: ζ [n] > 0.

    Raises:
        InputError: shapes or signs are others.
    """
    _require_problem(features, errors, floor)
    size = errors.mean(0)
    outputs = zip((errors / size).split(BLOCK, 1), (floor * size).split(BLOCK), strict=True)
    found = [_solve(features, own, least) for own, least in outputs]
    weights = torch.cat([w for w, _, _ in found], 1) / size
    return PrecisionFit(weights, max(r for _, r, _ in found), max(n for _, _, n in found))


def _require_problem(features: Tensor, errors: Tensor, floor: Tensor) -> None:
    if features.ndim != 2 or errors.ndim != 2 or len(features) != len(errors) or len(errors) == 0:
        raise InputError(
            "features, errors: expected [N, K] and [N, n] with N ≥ 1, got "
            f"{list(features.shape)} and {list(errors.shape)}"
        )
    if floor.shape != errors.shape[1:] or not bool((floor > 0).all()):
        raise InputError(
            f"floor: expected {errors.shape[1]} positive numbers, got {list(floor.shape)}"
            f"{'' if floor.numel() == 0 else f', the least {floor.min():.3g}'}"
        )
    if not bool(torch.isfinite(features).all() and (features >= 0).all()):
        raise InputError("features: expected finite numbers that are not negative")
    if not bool(
        torch.isfinite(errors).all() and (errors >= 0).all() and (errors.mean(0) > 0).all()
    ):
        raise InputError(
            "errors: expected finite numbers that are not negative, with a positive mean for each "
            "output (an output that is reproduced exactly has no least variance: take noise > 0)"
        )


def _solve(features: Tensor, errors: Tensor, floor: Tensor) -> tuple[Tensor, float, int]:
    """The weights [K, n] of outputs whose mean E is one, the residual, and the evaluations.

    A primal-dual interior-point method: with multipliers λ ≥ 0 of w ≥ 0 it takes Newton's steps
    towards ∂f/∂w = λ and w λ = μ, where μ falls tenfold in each.
    """
    count, (i, k) = len(features), torch.triu_indices(features.shape[1], features.shape[1])
    pairs = (
        features[:, i] * features[:, k]
    ).float()  # of which Hessians are sums; steps need no more
    tiny = torch.finfo(features.dtype).tiny
    unit = 1 / features.sum(1).mean().clamp_min(tiny)
    slope_unit = features.mean(0)[:, None].clamp_min(1e-6) / 2
    w = unit.expand(features.shape[1], errors.shape[1])
    multiplier = slope_unit.expand_as(w)
    hessian = features.new_zeros(errors.shape[1], *2 * [features.shape[1]])
    evaluations = 0
    while evaluations < MOST_STEPS:
        evaluations += 1
        slope, bend = _slope(features, errors, floor, w)
        outer = torch.minimum(w / unit, multiplier / slope_unit) * slope_unit
        if max((slope - multiplier).abs().max(), outer.max()) < PRECISION:
            break
        target = 0.1 * (w * multiplier).mean(0)
        sums = (pairs.mT @ bend.float()).to(w).mT / (2 * count)
        hessian[:, i, k] = hessian[:, k, i] = sums
        shifted = hessian + torch.diag_embed((multiplier / w).mT)
        step = torch.linalg.solve(shifted, (target / w - slope).mT[..., None])[..., 0].mT
        rise = target / w - multiplier - multiplier / w * step
        w, multiplier = _inside(w, step), _inside(multiplier, rise)
    w = torch.where(w / unit < multiplier / slope_unit, 0, w)
    slope, _ = _slope(features, errors, floor, w)
    residual = torch.where(w > 0, slope.abs(), -slope.clamp(max=0)).max()
    return w, residual.item(), evaluations


def _slope(features: Tensor, errors: Tensor, floor: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """∂f/∂w [K, n], and 1/b² [N, n]."""
    variance = 1 / (features @ w + floor)
    return features.mT @ (errors - variance) / (2 * len(features)), variance.square()


def _inside(x: Tensor, step: Tensor) -> Tensor:
    """A step of each output [K, n], shortened so that everything stays positive."""
    longest = 0.995 / (-step / x).amax(0).clamp_min(0.995)
    return x + longest * step


@torch.no_grad()
def fit_precision(model: RealVAE, x: Tensor) -> PrecisionFit:
    """Give a model's ``decoder.precision`` its centres, bandwidths, floor and weights.

    Mean and encoder stay as they are.  Noise is that of the model's training; everything follows
    from its seed.

    Args:
        model: of real latents, with a Gaussian likelihood and ``variance="rbf"``, trained.
        x: training data [n, D].

    Raises:
        InputError: the model has no such precision, there are fewer samples than centres, or all
            codes are one.
    """
    precision = model.decoder.precision
    if precision is None:
        raise InputError(
            f"model: expected one of variance 'rbf', got {model.config.variance!r} "
            f"({model.config.likelihood} likelihood)"
        )
    count = len(precision.centres)
    if len(x) < count:
        raise InputError(f"centres: expected at most as many as samples, {len(x)}, got {count}")
    centres, bandwidths = _centres(model.encoder(x)[0].double(), count, model.config.seed)
    z, errors = _residuals(model, x)
    if precision.weights.shape[1] == 1:
        errors = errors.mean(1, keepdim=True)
    floor = (LARGEST_DEVIATION**2 * errors.mean()).reciprocal().expand(errors.shape[1])
    apart = torch.cdist(z, centres, compute_mode="donot_use_mm_for_euclid_dist")
    fit = nonnegative_precision(torch.exp(-bandwidths * apart.square()), errors, floor)
    for own, new in (
        (precision.centres, centres),
        (precision.bandwidths, bandwidths),
        (precision.weights, fit.weights),
        (precision.log_floor, floor.log()),
    ):
        own.copy_(new)
    return fit


def _centres(codes: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Centres [K, d] of codes, and the bandwidths ½ (2 s_k)⁻², s_k the mean distance of codes."""
    from sklearn.cluster import KMeans  # slow to import, and only needed here

    with threadpool_limits(1):  # the same bits on any number of cores
        found = KMeans(count, n_init=5, random_state=seed).fit(codes.numpy())
    centres = torch.from_numpy(found.cluster_centers_)
    labels = torch.from_numpy(found.labels_).long()
    apart = (codes - centres[labels]).square().sum(-1).sqrt()
    members = torch.bincount(labels, minlength=count)
    size = torch.zeros(count, dtype=codes.dtype).index_add(0, labels, apart) / members.clamp_min(1)
    usual = size[size > 0].median() if bool((size > 0).any()) else size.amax()
    if not bool(usual > 0):
        raise InputError(
            f"centres: expected more different codes than {count} centres (has the encoder "
            "collapsed onto the prior, or are there so many centres as samples?)"
        )
    return centres, 0.5 * (REACH * size.clamp_min(usual / 2)).square().reciprocal()


def _residuals(model: RealVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents z [N, d] of q(z|x) for noisy data, and (x - μ(z))² [N, D] in units of the data's."""
    generator = torch.Generator().manual_seed(model.config.seed)
    if len(x) > POINTS:
        x = x[torch.randperm(len(x), generator=generator)[:POINTS]]
    copies = x.repeat(max(1, min(DRAWS, POINTS // len(x))), 1)
    noise = torch.randn(copies.shape, generator=generator, dtype=copies.dtype)
    copies = copies + model.config.training_noise * model.decoder.scale * noise
    z, _ = model.draw_latents(copies, generator=generator)
    residuals = (copies - model.decoder.mean(z)) / model.decoder.scale
    return z.double(), residuals.double().square()
