"""What a decoder's mean and its covariance add to the Fisher metric, behind affine heads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kahler_verify.geometry.plans import Plan
from kahler_verify.jets.tangents import Rows, Tangents, deviation, image, real_image
from kahler_verify.linear_algebra.heads import AffineHeads, reduced, reduced_real
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.linear_algebra.planes import Weight
from kahler_verify.running.kernel_set import KernelSet

KERNELS = KernelSet("gaussian_kl")


def from_mean(
    heads: AffineHeads,
    hidden: Tangents,
    plan: Plan,
    kept: ReducedHeads,
    *,
    complementary: bool,
) -> tuple[Tensor, Tensor | None]:
    """That of the mean, in units of the data's scale, which cancels from the metric."""
    real, constant = heads.real, heads.constant
    if constant is None:
        sigma = deviation(heads, hidden, kept)
    else:  # in the weights
        sigma = torch.ones_like(heads.scale)[None]

    def make(weight: Tensor, constant: Tensor | None = None) -> Weight:
        if constant is not None:
            weight = weight / (constant / 2).exp()[:, None]
        if plan.mean == "reduced":
            weight = reduced_real(weight) if real else reduced(weight)
        return Weight(weight)

    sources = [heads.mean] if constant is None else [heads.mean, constant]
    weight = kept.get(f"mean {plan.mean}", sources, make)
    multiply = plan.mean != "gram"
    if real:
        # without conjugates, Gram matrices need real rows
        rows = hidden.real() if complementary and not multiply else hidden
        mu_d = real_image(rows, weight, multiply=multiply)
        mu_b: Rows | None = mu_d.conj()
    else:
        mu_d, mu_b = image(hidden, weight, multiply=multiply)
    if mu_b is None:
        tensors: dict[str, Tensor | Rows] = {"Sigma_factor": sigma, "mu_d": mu_d}
        return KERNELS.call("fisher_metric_diagonal_holomorphic", tensors), None
    # what came is 2∂ and 2∂̄: those of a mean in units of half the length
    tensors = {"Sigma_factor": 2 * sigma, "mu_d": mu_d, "mu_b": mu_b}
    return _summand("constant_covariance", tensors, complementary)


def from_covariance(
    heads: AffineHeads,
    hidden: Tangents,
    plan: Plan,
    kept: ReducedHeads,
    *,
    complementary: bool,
) -> tuple[Tensor, Tensor | None]:
    """That of the covariance, of outputs scaled to Σ = 2 I here: there ∂Σ = 2∂ log Σ.

    A variance that all D outputs share counts D times, which Σ/√D in place of Σ does.
    """
    copies = len(heads.mean) if heads.covariance == "scalar" else 1
    complex_triangle = not complementary and hidden.holomorphic

    def make(weight: Tensor) -> Weight:
        if plan.covariance == "reduced":
            weight = (reduced if complex_triangle else reduced_real)(weight)
        return Weight(weight)

    name = f"log variance {plan.covariance} {complex_triangle}"
    assert heads.log_variance is not None
    weight = kept.get(name, [heads.log_variance], make)
    multiply = plan.covariance != "gram"
    rows = hidden.real() if complementary and not multiply else hidden
    sigma_d = real_image(rows, weight, multiply=multiply)
    sigma = torch.full_like(heads.scale, math.sqrt(2 / math.sqrt(copies)))[None]
    tensors: dict[str, Tensor | Rows] = {"Sigma_factor": sigma, "Sigma_d": sigma_d}
    return _summand("constant_mean", tensors, complementary)


def _summand(
    which: str, tensors: dict[str, Tensor | Rows], complementary: bool
) -> tuple[Tensor, Tensor | None]:
    """g and k of the mean's or of the covariance's part of the metric; or g alone."""
    if not complementary:
        return KERNELS.call(f"hermitian_part_diagonal_{which}", tensors), None
    both: tuple[Tensor, Tensor] = KERNELS.call(f"fisher_metric_diagonal_{which}", tensors)
    return both
