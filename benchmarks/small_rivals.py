"""Batches of small matrices, and generated kernels on arguments in their own layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.decoder_rivals import AnalyticLogDet, log_det
from benchmarks.networks import build_decoder, latent_points
from benchmarks.problem import Problem, Rival
from benchmarks.timing import Run
from kahler_verify.geometry.metric import HermitianJet, HermitianMetric
from kahler_verify.jets.fields import decoder_jets
from kahler_verify.running.kernel_set import KernelSet

# Rivals also get chunks of so many matrices, whose temporaries stay in the cache.
MATRICES_AT_ONCE = 512


class GivenMetric(HermitianMetric):
    """The metric whose values at its points are given, [B, d, d]; all at once, then."""

    def __init__(self, values: Tensor):
        super().__init__(validate_args=False)
        self.values = values

    def _by_chunks(
        self, compute: Callable[..., Tensor], order: int, z: Tensor, *vectors: Tensor
    ) -> Tensor:
        del order
        return compute(z, *vectors)

    def jet(self, z: Tensor, order: int) -> HermitianJet:  # noqa: ARG002
        """The values; their derivatives are not given."""
        if order:
            raise NotImplementedError("derivatives are not given")
        return HermitianJet(self.values)


def log_det_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """log det and its gradient for B Hermitian d × d matrices; sizes: d, B."""
    d, points = sizes["d"], sizes["B"]
    generator = torch.Generator().manual_seed(3)
    pairs = torch.randn(points, d, 2 * d + 4, 2, generator=generator, dtype=torch.float64)
    root = torch.view_as_complex(pairs).to(device, dtype.to_complex())
    g = (root @ root.mH / (2 * d)).contiguous().requires_grad_()
    metric = GivenMetric(g)
    z = latent_points(sizes, dtype, device)

    def with_gradient(function: Callable[[Tensor], Tensor]) -> Run:
        def run() -> list[Tensor]:
            value = function(g)
            (slope,) = torch.autograd.grad(value.sum(), g)
            return [value, slope]

        return run

    def in_chunks(function: Callable[[Tensor], Tensor]) -> Run:
        pieces = [piece.detach().requires_grad_() for piece in g.split(MATRICES_AT_ONCE)]

        def run() -> list[Tensor]:
            values, slopes = [], []
            for piece in pieces:
                values.append(function(piece))
                slopes += torch.autograd.grad(values[-1].sum(), piece)
            return [torch.cat(values).detach(), torch.cat(slopes)]

        return run

    functions = {
        "cholesky_ex, autograd": log_det,
        "slogdet, autograd": lambda g: torch.linalg.slogdet(g).logabsdet,
        "cholesky_ex, analytic gradient": AnalyticLogDet.apply,
    }
    rivals = {name: Rival(partial(with_gradient, f)) for name, f in functions.items()}
    if points > MATRICES_AT_ONCE and device.type == "cpu":
        rivals |= {
            f"{name}, in chunks": Rival(partial(in_chunks, f)) for name, f in functions.items()
        }
    ours = with_gradient(lambda _: metric.log_det_hermitian(z))
    return Problem(points, ours, rivals, 0.0)


def kernel_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """The generated kernel of the Fisher metric on jets that are at hand; sizes as for a decoder.

    The kernel gives g and its complementary part k.  Rivals contract the same jets by hand: einsum
    as one would write it, and batched products of scaled rows, the best form known.
    """
    decoder = build_decoder(sizes, dtype, device).requires_grad_(False)
    z = latent_points(sizes, dtype, device)
    kernels = KernelSet("gaussian_kl")
    name = "fisher_metric_diagonal"
    with torch.no_grad():
        jets = decoder_jets(decoder, z, kernels.arguments(name))
    precision = jets["Sigma_factor"] ** -2
    mean, spread = jets["mu_d"], jets["Sigma_d"]
    anti = jets["mu_b"]

    def ours() -> list[Tensor]:
        return list(kernels.call(name, jets))

    def einsum() -> list[Tensor]:
        p = precision.to(mean.dtype)
        g = torch.einsum("...i,...ai,...bi->...ab", p, mean, mean.conj())
        g = g + torch.einsum("...i,...bi,...ai->...ab", p, anti, anti.conj())
        g = g + torch.einsum("...i,...ai,...bi->...ab", p * p, spread, spread.conj())
        mixed = torch.einsum("...i,...ai,...bi->...ab", p, mean, anti.conj())
        k = mixed + mixed.mT
        return [g, k + torch.einsum("...i,...ai,...bi->...ab", p * p, spread, spread)]

    def rows() -> list[Tensor]:
        scale = precision.sqrt().unsqueeze(-2)
        first, second, third = mean * scale, anti.conj() * scale, spread * scale**2
        stacked = torch.cat([first, second, third], -1)
        swapped = torch.cat([second, first, third], -1)
        return [stacked @ stacked.mH, stacked @ swapped.mT]

    rivals = {
        "einsum of three factors": Rival(lambda: einsum),
        "batched products of scaled rows": Rival(lambda: rows),
    }
    d, D = sizes["d"], sizes["D"]
    return Problem(sizes["B"], ours, rivals, sizes["B"] * 48.0 * d * d * D)
