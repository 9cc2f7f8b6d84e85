"""The Fisher metric of a decoder z ↦ CN(μ(z), Σ(z)), from its jets and generated kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kahler_verify.decoders.jets import check_decoder, decoder_jets, likelihood_structure
from kahler_verify.errors import InputError
from kahler_verify.geometry.kernel_set import KernelSet
from kahler_verify.geometry.metric import HermitianMetric


class FisherMetric(HermitianMetric):
    """g_{ab̄} = tr(P∂_aΣP∂_b̄Σ) + (∂_bμ)ᴴP∂_aμ + (∂_āμ)ᴴP∂_b̄μ, P = Σ⁻¹, with its other part k.

    KL(p_z ‖ p_{z+ε}) = g(ε, ε̄) + Re k(ε, ε) + O(ε³).  A real Gaussian likelihood has half of
    the formula's value: KL of real Gaussians is half of the complex expression at real μ and Σ.

    Args:
        decoder: a module or function from z [..., d] to a ``ComplexNormal``, to a pair (mean, log
            variance), or to a torch ``Independent(Normal, 1)`` or ``MultivariateNormal``.  It must
            keep the dtype's precision and the device of z.
        check: compare two independent differentiation modes on the first point that is seen, and
            raise :class:`InputError` where torch's derivatives of this decoder are wrong.
        validate_args: see :class:`HermitianMetric`.

    Source: Gracyk, arXiv 2511.15172; derived in derivations/gaussian_kl.py.
    """

    _fisher = KernelSet("gaussian_kl")

    def __init__(
        self, decoder: Callable[[Tensor], Any], *, check: bool = True, validate_args: bool = True
    ):
        super().__init__(validate_args=validate_args)
        if not callable(decoder):
            raise InputError(
                "decoder: expected a module or another callable from z to a distribution, "
                f"got {type(decoder).__name__}"
            )
        self.decoder = decoder
        self._unchecked = check

    def _evaluate(self, name: str, z: Tensor) -> tuple[Any, bool, float]:
        """A kernel's results on the decoder's jets, whether k vanishes, the likelihood's factor."""
        if self._unchecked and z.numel() and not torch.compiler.is_compiling():
            check_decoder(self.decoder, z.reshape(-1, z.shape[-1])[:1].detach())
            self._unchecked = False
        structure = likelihood_structure(self.decoder, z)
        flat = structure.holomorphic_mean and structure.constant_covariance
        kernel = f"{name}_{structure.covariance}" + ("_holomorphic" if flat else "")
        jets = decoder_jets(self.decoder, z, self._fisher.arguments(kernel))
        if structure.covariance == "full":  # solve_triangular drops imaginary parts for a real L
            jets["Sigma_factor"] = jets["Sigma_factor"].to(z.dtype)
        out = self._fisher.call(kernel, jets)
        return out, flat, 0.5 if structure.likelihood == "real" else 1.0

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        out, flat, factor = self._evaluate("fisher_metric", z)
        if flat:
            return factor * out, None
        g, k = out
        return factor * g, factor * k

    def _metric_d(self, z: Tensor) -> Tensor:
        out, _, factor = self._evaluate("fisher_metric_d", z)
        return factor * out

    def _metric_db(self, z: Tensor) -> Tensor:
        out, _, factor = self._evaluate("fisher_metric_db", z)
        return factor * out
