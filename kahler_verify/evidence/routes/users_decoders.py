"""A user's decoder at real latents, by routes that share nothing with its kernels or jets.

The metric against the Hessian of torch's own KL, reverse over reverse, along axes or along random
directions; the connection against differences of that Hessian, as torch's third derivatives of
normalisations are wrong; the metric in single precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence
from torch.nn.attention import SDPBackend, sdpa_kernel

from kahler_verify.adapters.outputs import in_torch, read
from kahler_verify.errors import InputError
from kahler_verify.evidence.finding import Finding, frame_error
from kahler_verify.geometry.fisher_rao import FisherRaoMetric

__all__ = ["USERS_DECODER_CHECKS", "UsersDecoder", "law_at", "require_metric"]

FULL_UP_TO = 32  # latent dimensions up to which all of g is compared
CONNECTED_UP_TO = 12
DIRECTIONS = 6
METRIC, CONNECTION, SINGLE = 1e-10, 1e-6, 1e-4
STEP = 1e-3


@dataclass(frozen=True)
class UsersDecoder:
    """A decoder on trial.

    Attributes:
        name: of what made it.
        metric: of it, in double precision.
        latents: [n, d] float64.
    """

    name: str
    metric: FisherRaoMetric
    latents: Tensor


def law_at(decoder: Callable[[Tensor], Any], z: Tensor) -> Distribution:
    """What a decoder returns at z [B, d], as a torch distribution of all its outputs."""
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivatives
        output = read(decoder(z), None)
    if isinstance(output, Tensor):
        output = Normal(output, torch.ones_like(output), validate_args=False)
    elif isinstance(output, tuple | list):
        mean, log_variance = output
        shape = (-1, *[1] * (mean.ndim - 1)) if log_variance.ndim == 1 else mean.shape
        deviation = (log_variance / 2).exp().reshape(shape).expand(mean.shape)
        output = Normal(mean, deviation, validate_args=False)
    output = in_torch(output)
    return Independent(output, len(output.batch_shape) - 1, validate_args=False)


def _axes(z: Tensor) -> Tensor:
    return torch.eye(len(z), dtype=z.dtype)


def hessian(trial: UsersDecoder, z: Tensor, directions: Tensor) -> Tensor:
    """The second derivative of KL(p_z ‖ ·) at z [d] along directions [r, d], as [r, d]."""
    decoder = trial.metric.decoder
    with torch.no_grad():
        fixed = law_at(decoder, z[None])
    y = z.clone().requires_grad_()
    divergence = kl_divergence(fixed, law_at(decoder, y[None])).sum()
    (slope,) = torch.autograd.grad(divergence, y, create_graph=True)
    rows = [torch.autograd.grad(slope, y, u, retain_graph=True)[0] for u in directions]
    return torch.stack(rows).detach()


def _directions(z: Tensor) -> Tensor:
    """The axes, or random directions where there are many."""
    if len(z) <= FULL_UP_TO:
        return _axes(z)
    generator = torch.Generator().manual_seed(len(z))
    return torch.randn(DIRECTIONS, len(z), dtype=z.dtype, generator=generator)


def _apart(trial: UsersDecoder, z: Tensor, metric: FisherRaoMetric) -> float:
    """Relative to the largest entry; in the g-frame where all of g is compared."""
    u = _directions(z)
    truth = hessian(trial, z, u)
    kind = torch.float32 if metric is not trial.metric else z.dtype
    operator = metric.operator(z.to(kind), method="matrix-free")
    found = operator.product(u.to(kind)).to(z.dtype)
    if len(z) <= FULL_UP_TO:
        scale = truth.diagonal().clamp_min(1e-300).sqrt()
        return frame_error(found, truth, scale)
    return ((found - truth).abs().max() / truth.abs().max()).item()


def _by_torch_kl(trial: UsersDecoder) -> list[Finding]:
    begin = time.perf_counter()
    errors = tuple(_apart(trial, z, trial.metric) for z in trial.latents)
    few = trial.latents.shape[-1] > FULL_UP_TO
    note = "Hessian of torch.distributions' KL, reverse over reverse" + (
        f", along {DIRECTIONS} random directions" if few else ""
    )
    finding = Finding(errors, (METRIC,) * len(errors), unit="relative", note=note)
    seconds = time.perf_counter() - begin
    return [finding.named("decoder.metric", "torch_kl", "random latents", seconds)]


def _by_differences(trial: UsersDecoder) -> list[Finding]:
    """Γ of differences of that Hessian, (8 (f₁ - f₋₁) - (f₂ - f₋₂)) / 12 h."""
    d = trial.latents.shape[-1]
    if d > CONNECTED_UP_TO:
        return []
    begin = time.perf_counter()
    errors = []
    for z in trial.latents[:2]:
        axes = _axes(z)

        def at(shift: Tensor, z: Tensor = z, axes: Tensor = axes) -> Tensor:
            return hessian(trial, z + shift, axes)

        slopes = [
            (8 * (at(STEP * e) - at(-STEP * e)) - (at(2 * STEP * e) - at(-2 * STEP * e)))
            / (12 * STEP)
            for e in axes
        ]
        g_d, g = torch.stack(slopes), at(0 * z)
        first = (torch.einsum("afb->fab", g_d) + torch.einsum("bfa->fab", g_d) - g_d) / 2
        lowered = torch.einsum("ef,fab->eab", g, trial.metric.christoffels(z))
        errors.append(frame_error(lowered, first, g.diagonal().clamp_min(1e-300).sqrt()))
    bounds = (CONNECTION,) * len(errors)
    note = "g Γ against differences of that Hessian"
    finding = Finding(tuple(errors), bounds, note=note)
    seconds = time.perf_counter() - begin
    return [finding.named("decoder.connection", "torch_kl", "random latents", seconds)]


def _in_single_precision(trial: UsersDecoder) -> list[Finding]:
    if not isinstance(getattr(trial.metric.decoder, "model", trial.metric.decoder), nn.Module):
        return []  # a function's weights cannot be cast
    begin = time.perf_counter()
    single = trial.metric.float()
    errors = tuple(_apart(trial, z, single) for z in trial.latents)
    note = "float32 metric against float64 Hessian of torch's KL"
    finding = Finding(errors, (SINGLE,) * len(errors), unit="relative", note=note)
    seconds = time.perf_counter() - begin
    return [finding.named("decoder.metric (float32)", "torch_kl", "random latents", seconds)]


USERS_DECODER_CHECKS: Mapping[str, Callable[[UsersDecoder], list[Finding]]] = {
    "torch's KL": _by_torch_kl,
    "differences": _by_differences,
    "float32": _in_single_precision,
}


def require_metric(name: str, metric: Any) -> FisherRaoMetric:
    """A metric that is compared with a law.

    Raises:
        InputError: it has none.
    """
    if not isinstance(metric, FisherRaoMetric):
        raise InputError(
            f"module: expected {name} to return a decoder or a Fisher metric, whose law the metric "
            f"is compared with, got {type(metric).__name__}"
        )
    return metric
