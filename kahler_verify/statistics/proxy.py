"""A log-sum-exp mixture potential fitted to another metric, and how well it stands for it.

Gracyk (arXiv 2511.15172) calls the potential Φ = log Σ_k π_k e^{q_k} of `MixtureMetric` a rough
proxy of the Fisher metric.  Here all its parameters are fitted, and it is judged beside metrics
that do not depend on z at all.

It can only stand for the Hermitian part g: a potential's metric has no complementary part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.mixture import MixtureMetric

Start = Literal["best", "closed form", "constant"]


@dataclass(frozen=True)
class Agreement:
    """How a metric h agrees with a target g at some points.

    Attributes:
        relative_error: the mean of ‖h - g‖ / ‖g‖, Frobenius.
        log_volume_correlation: Pearson's, between the log volumes; None where one is constant.
        eigenvalue_ratios: smallest, median and largest eigenvalue of g⁻¹h over all points.
    """

    relative_error: float
    log_volume_correlation: float | None
    eigenvalue_ratios: tuple[float, float, float]


@dataclass(frozen=True)
class ProxyFit:
    """A fitted proxy with what it has to be compared with.

    Attributes:
        metric: the mixture with the least error at the held-out latents among all steps.
        initial: the closed-form mixture, P_k = g(c_k)ᵀ with equal weights.
        mean: the constant metric that is the mean of g.
        constant: the constant metric fitted as the mixture is, to the same error.
        fitted_latents: [n, d].
        held_out_latents: [m, d]; they choose the step, and are not seen by the gradient.
        errors: relative errors at the held-out latents, one for each step.
    """

    metric: MixtureMetric
    initial: MixtureMetric
    mean: MixtureMetric
    constant: MixtureMetric
    fitted_latents: Tensor
    held_out_latents: Tensor
    errors: tuple[float, ...]


def closed_form_mixture(
    target: HermitianMetric, centres: Tensor, *, detach: bool = True
) -> MixtureMetric:
    """The mixture with equal weights and P_k = g(c_k)ᵀ at centres c [K, d].

    Transposed, since ∂_a ∂_b̄ of (z-c)ᴴP(z-c) is P_{ba}.  It does not equal g at its centres: there
    the component is the smallest of all, and the others, farther away, weigh more.

    With ``detach=False`` its values can be differentiated in the centres and in whatever the target
    depends on; nothing is checked then.
    """
    precisions = target.metric_matrix(centres).mT.resolve_conj().contiguous()
    precisions = (precisions + precisions.mH) / 2
    weights = torch.full_like(centres[:, 0].real, 1 / len(centres))
    if detach:
        return MixtureMetric(weights, centres.detach(), precisions.detach())
    return MixtureMetric(weights, centres, precisions, validate_args=False)


def constant_metric(matrix: Tensor) -> MixtureMetric:
    """The metric that is ``matrix`` [d, d] everywhere: a mixture of one component."""
    precision = matrix.mT.resolve_conj().contiguous()[None]
    return MixtureMetric(
        torch.ones_like(precision[:, 0, 0].real),
        torch.zeros_like(precision[:, 0]),
        (precision + precision.mH) / 2,
    )


def relative_errors(h: Tensor, g: Tensor) -> Tensor:
    """‖h - g‖ / ‖g‖ [...], Frobenius, of matrices [..., d, d]."""
    return torch.linalg.matrix_norm(h - g) / torch.linalg.matrix_norm(g)


def agreement(metric: HermitianMetric, target: HermitianMetric, z: Tensor) -> Agreement:
    """How ``metric`` agrees with ``target`` at z [n, d]; see `Agreement`."""
    with torch.no_grad():
        h, g = metric.metric_matrix(z), target.metric_matrix(z)
        factor = torch.linalg.cholesky(g)
        half = torch.linalg.solve_triangular(factor, h, upper=False)
        ratios = torch.linalg.eigvalsh(
            torch.linalg.solve_triangular(factor, half.mH, upper=False)
        ).flatten()
        volumes = torch.stack([metric.log_volume(z), target.log_volume(z)])
        # spreads below rounding mean nothing
        varied = bool((volumes.std(1) > 1e-6 * (1 + volumes.abs().amax(1))).all())
        return Agreement(
            float(relative_errors(h, g).mean()),
            float(torch.corrcoef(volumes)[0, 1]) if varied else None,
            (float(ratios.min()), float(ratios.median()), float(ratios.max())),
        )


def fit_mixture(
    target: HermitianMetric,
    latents: Tensor,
    *,
    components: int = 8,
    start: Start = "best",
    steps: int = 500,
    learning_rate: float = 0.02,
    held_out: float = 0.25,
    seed: int = 0,
) -> ProxyFit:
    """Fit weights, centres and precisions of a mixture to the Hermitian part of ``target``.

    Adam descends the mean relative Frobenius error at most of the latents, and the step with the
    least error at the others, which are held out, is kept.  The same seed gives the same fit.

    Args:
        target: the metric to stand for, as a decoder's `FisherMetric`.
        latents: where it matters, encoded data as a rule, complex [n, d].
        components: K; the centres start at random latents.
        start: "closed form" from P_k = g(c_k)ᵀ, or "constant" from the mean metric in all
            components, with the centres drawn so close to the latents' mean that the mixture is
            nearly constant; "best" from both, whichever ends with the lesser held-out error.
        steps: of Adam.
        learning_rate: Adam's at first, in units of the metric's and of the latents' own size; it
            falls to 0 along a half cosine.
        held_out: the fraction of latents that is held out.
        seed: of the partition and of the centres.

    Raises:
        InputError: an argument is malformed, or too few latents are given.
    """
    fitted, others, centres = _partition(latents, components, held_out, seed)
    if start not in get_args(Start):
        raise InputError(f"start: expected one of {', '.join(get_args(Start))}, got {start!r}")
    if type(steps) is not int or steps < 1:
        raise InputError(f"steps: expected a whole number ≥ 1, got {steps!r}")
    if not learning_rate > 0:
        raise InputError(f"learning_rate: expected a positive number, got {learning_rate!r}")
    with torch.no_grad():
        g, g_others = target.metric_matrix(fitted), target.metric_matrix(others)
        initial = closed_form_mixture(target, centres)
        mean = constant_metric(g.mean(0))
        begins = {"closed form": initial, "constant": _nearly_constant(mean, initial, fitted)}

    def descend(begin: MixtureMetric) -> tuple[MixtureMetric, list[float]]:
        return _descend(begin, (fitted, g), (others, g_others), steps, learning_rate)

    chosen = list(begins.values()) if start == "best" else [begins[start]]
    metric, errors = min(map(descend, chosen), key=lambda found: min(found[1]))
    constant, _ = descend(mean)
    return ProxyFit(metric, initial, mean, constant, fitted, others, tuple(errors))


def _nearly_constant(mean: MixtureMetric, initial: MixtureMetric, latents: Tensor) -> MixtureMetric:
    """``mean`` in each component of ``initial``, with its centres drawn together."""
    middle = latents.mean(0)
    # Cov_w(∂q) is of the order |P Δc|², which has to be far below P
    shrunk = 0.1 / torch.linalg.eigvalsh(mean.precisions[0])[-1].sqrt()
    precisions = mean.precisions.expand_as(initial.precisions).contiguous()
    return MixtureMetric(initial.weights, middle + (initial.centres - middle) * shrunk, precisions)


def _partition(
    latents: Tensor, components: int, held_out: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents to fit, those held out, and centres among the first."""
    if not isinstance(latents, Tensor) or not latents.is_complex() or latents.ndim != 2:
        got = f"{latents.dtype} {list(latents.shape)}" if isinstance(latents, Tensor) else latents
        raise InputError(f"latents: expected a complex tensor [n, d], got {got}")
    if type(components) is not int or components < 1:
        raise InputError(f"components: expected a whole number ≥ 1, got {components!r}")
    if not 0 < held_out < 1:
        raise InputError(f"held_out: expected a fraction between 0 and 1, got {held_out!r}")
    count = max(1, round(held_out * len(latents)))
    if len(latents) - count < components:
        raise InputError(
            f"latents: expected at least {components} besides the {count} held out, one for each "
            f"component, got {len(latents)} in all"
        )
    order = torch.randperm(len(latents), generator=torch.Generator().manual_seed(seed))
    shuffled = latents.detach()[order.to(latents.device)]
    return shuffled[count:], shuffled[:count], shuffled[count : count + components]


def _descend(
    begin: MixtureMetric,
    fitted: tuple[Tensor, Tensor],
    others: tuple[Tensor, Tensor],
    steps: int,
    learning_rate: float,
) -> tuple[MixtureMetric, list[float]]:
    """The best of Adam's steps by the held-out error, and all those errors."""
    parameters, build = _parametrised(begin, fitted[0])
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    errors: list[float] = []
    best = [p.detach().clone() for p in parameters]
    for _ in range(steps):
        metric = build(parameters)
        with torch.no_grad():
            errors.append(float(relative_errors(metric.metric_matrix(others[0]), others[1]).mean()))
        if errors[-1] <= min(errors):
            best = [p.detach().clone() for p in parameters]
        optimizer.zero_grad()
        relative_errors(metric.metric_matrix(fitted[0]), fitted[1]).mean().backward()
        optimizer.step()
        schedule.step()
    found = build(best)
    weights = found.weights / found.weights.sum()
    precisions = (found.precisions + found.precisions.mH) / 2
    return MixtureMetric(weights, found.centres, precisions), errors


def _parametrised(
    begin: MixtureMetric, latents: Tensor
) -> tuple[list[Tensor], Callable[[list[Tensor]], MixtureMetric]]:
    """Free real parameters of the order 1 that give ``begin``, and what makes a mixture of them."""
    size = begin.precisions.diagonal(dim1=-2, dim2=-1).real.mean()
    spread = (latents - latents.mean(0)).abs().square().mean().sqrt()
    factor = torch.linalg.cholesky(begin.precisions / size)
    # q_k is of the order P |z|², and so are the log weights that can change anything
    energy = 1 + size * spread.square() * latents.shape[-1]
    parameters = [
        begin.weights.log() / energy,
        torch.view_as_real(begin.centres / spread),
        factor.diagonal(dim1=-2, dim2=-1).real.log(),
        torch.view_as_real(factor.tril(-1)),
    ]

    def build(parameters: list[Tensor]) -> MixtureMetric:
        log_weights, centres, log_diagonal, lower = parameters
        diagonal = torch.diag_embed(log_diagonal.exp()).to(factor.dtype)
        cholesky = torch.view_as_complex(lower).tril(-1) + diagonal
        weights = torch.softmax(energy * log_weights, -1)
        return MixtureMetric(
            weights.clamp_min(torch.finfo(weights.dtype).tiny),  # log 0 has no derivative
            torch.view_as_complex(centres) * spread,
            size * cholesky @ cholesky.mH,
            validate_args=False,
        )

    return [p.detach().clone().requires_grad_() for p in parameters], build
