"""Metrics pulled back along an embedding x = f(z), with curvature by Gauss' equation.

Curvature takes second derivatives of f, where the derivatives of g would take third ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from kahler_verify.adapters import Output, adapted, described
from kahler_verify.adapters.outputs import known
from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MEMORY_BUDGET, MetricJet
from kahler_verify.geometry.each_point import require_each_point_alone
from kahler_verify.geometry.latent_shapes import dimension_of, keeps_latent_shape, represented
from kahler_verify.geometry.linearised import LawAt
from kahler_verify.geometry.matrix_free import MatrixFreeMetric
from kahler_verify.jets import propagate
from kahler_verify.jets.domain import nowhere
from kahler_verify.jets.gaussian_outputs import at_least_one, explained
from kahler_verify.jets.kinks import never_smooth, require_twice_differentiable
from kahler_verify.likelihoods import fields_of
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.running.kernel_set import KernelSet
from kahler_verify.running.parameters import moved_module
from kahler_verify.torch_state import alone


@keeps_latent_shape
class PulledBackMetric(MatrixFreeMetric):
    """g = JᵀJ, the Euclidean metric pulled back along x = f(z).

    Args:
        function: a module or function from z [B, d] real to a real tensor [B, ...].
        dimension: d; None where any will do.
        check: compare a few points in a batch with each of them, once.
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.
        output: which of several tensors the function returns; see :class:`FisherRaoMetric`.
        latent_shape: of one latent, where that is no row; see :class:`FisherRaoMetric`.

    Raises:
        InputError: ``function`` is not callable; later, where it returns no real tensor.

    Source: Arvanitidis, Hansen, Hauberg, arXiv 1710.11379; derived in
    derivations/geometry/pulled_back_metric.py.
    """

    _gauss = KernelSet("pulled_back_metric")

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        dimension: int | None = None,
        *,
        check: bool = True,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
        output: Output | str | int | Callable[[Any], Any] | None = None,
        latent_shape: tuple[int, ...] | None = None,
    ):
        function = adapted(function, output, latent_shape)
        self.latent_shape = getattr(function, "latent_shape", None)
        dimension = dimension_of(self.latent_shape, dimension)
        super().__init__(dimension, validate_args=validate_args, memory_budget=memory_budget)
        if not callable(function):
            raise InputError(
                f"function: expected a module or another callable, got {type(function).__name__}"
            )
        self.function = function
        self._unchecked = self._smoothness_unchecked = check
        self._outputs = 0
        self._met: list[str] = []  # on the way through the function: kinks, calls without a rule

    def __repr__(self) -> str:
        return represented(self, described(self.function), self._met)

    def embed(self, z: Tensor) -> Tensor:
        """f(z), as [B, n]."""
        with explained(self.function, z):
            x = known(self.function(z))
        if not isinstance(x, Tensor) or x.is_complex() or x.shape[:1] != z.shape[:1]:
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"function: expected a real tensor [{len(z)}, ...], got {got}")
        return x.flatten(1)

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.function = moved_module("function", self.function, move)

    def _kinks(self, z: Tensor) -> list[tuple[str, int]]:
        """See :meth:`RiemannianMetric._kinks`."""
        return never_smooth(self.embed, z, self.function)

    def _require_smooth(self, z: Tensor) -> None:
        if self._smoothness_unchecked:
            require_twice_differentiable(self.embed, z, self.function)
            self._smoothness_unchecked = False

    def _width(self) -> int:
        return self._outputs

    def _points_at_once(self, z: Tensor, order: int) -> int:
        if self._outputs == 0:
            with torch.no_grad():
                self._outputs = self.embed(at_least_one(z)[:1]).shape[1]
        return super()._points_at_once(z, order)

    def _least_numbers(self, d: int, order: int) -> int:
        """Of derivatives of f: Gauss' equation takes one order less than those of g would."""
        return max(1, self._outputs) * d ** min(order + 1, 2)

    def _jets(self, z: Tensor, order: int) -> dict[str, Tensor]:
        """Derivatives of f up to ``order`` (1, 2 or 3), by the kernels' names."""
        jet = propagate(self.embed, z, min(order, 2))
        self._met = jet.record.lines()
        if self._unchecked and not is_transformed(z):
            require_each_point_alone("function", lambda z: [self.embed(z)], z)
            self._unchecked = False
        tensors = {"mu_d": self._where_defined(jet.d, jet.value, z)}
        if order > 1:
            tensors["mu_dd"] = jet.dd
        if order > 2:

            def second(z: Tensor) -> Tensor:
                out: Tensor = propagate(self.embed, z, 2).dd
                return out

            axes = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
            with alone():  # forward-mode levels belong to the process
                slopes = [jvp(second, (z,), (axis.expand_as(z),))[1] for axis in axes]
            tensors["mu_ddd"] = torch.stack(slopes, 1)
        return tensors

    def _where_defined(self, slopes: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """The slopes, but NaN where x = f(z) is not finite; refused with ``validate_args``."""
        out = nowhere(slopes, [x])
        if self.validate_args and out is not slopes and not is_transformed(x):
            if not bool(z.isfinite().all()):
                raise InputError("z: expected finite values, but z has NaN or infinities")
            raise InputError(
                "function: expected finite values f(z), but it has NaN or infinities at z (a "
                "logarithm or a root of what is negative, or z far out?)"
            )
        return out

    def _letters(self, z: Tensor) -> dict[str, Tensor]:
        return {"mu": self.embed(z)}

    def _law(self, z: Tensor) -> LawAt:  # noqa: ARG002
        return LawAt(
            dict,
            lambda tangents: {name: torch.zeros_like(t) for name, t in tangents.items()},
            lambda rows: self._gauss.call("metric", {"mu_d": rows["mu"]}),
            flat=True,
        )

    def _chords(self, z: Tensor) -> Tensor:
        return self.embed(z).diff(dim=0).square().sum(-1)

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        tensors = self._jets(z, order + 1)
        suffixes = ("", "_d", "_dd")[: order + 1]
        return MetricJet(*[self._gauss.call("metric" + suffix, tensors) for suffix in suffixes])

    def _at(self, kernel: str, order: int, z: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        along = kernel == "geodesic_acceleration" and self._goes_along(z, vectors["v"])
        if along or kernel not in self._gauss:
            return super()._at(kernel, order, z, vectors)
        tensors = self._jets(z, 2)
        g = self._gauss.call("metric", tensors)
        tensors |= {"g": g, "g_factor": self._factor(g, kernel)}
        return self._run(self._gauss, kernel, tensors, vectors)


class ExpectedMetric(PulledBackMetric):
    """E[JᵀJ] = J_μᵀJ_μ + J_σᵀJ_σ of a stochastic generator x = μ(z) + σ(z) ε.

    It is the pull-back along z ↦ (μ, σ), and so are its geodesics and its curvature.  It is not the
    decoder's Fisher-Rao metric, which weighs by 1/σ² and counts σ twice.

    Args:
        function: a decoder, from z [B, d] real to a pair (mean, log variance) or a ``Normal``.
        dimension: d; None where any will do.
        check: compare a few points in a batch with each of them, once.
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.

    Raises:
        InputError: ``function`` is not callable; later, where it returns something else.

    Source: Arvanitidis, Hansen, Hauberg, arXiv 1710.11379; derived in
    derivations/geometry/expected_metric.py.
    """

    _expected = KernelSet("expected_metric")

    def _moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ, [B, n] each."""
        with explained(self.function, z):
            fields = fields_of(self.function(z), len(z))
        if fields.family.kernels != "real_gaussian_kl" or fields.family.layout == "full":
            raise InputError(
                "decoder: expected a pair (mean, log variance) or a Normal, got a "
                f"{fields.family.name} likelihood"
            )
        mu, sigma = fields.letters["mu"], fields.letters["Sigma"].sqrt()
        return mu, sigma if sigma.ndim == mu.ndim else sigma.unsqueeze(-1).expand(mu.shape)

    def embed(self, z: Tensor) -> Tensor:
        """(μ, σ), as [B, 2n]."""
        return torch.cat(self._moments(z), -1)

    def variance(self, z: Tensor) -> Tensor:
        """Var [JᵀJ]_ab over ε, as [..., d, d]."""
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            mu_d, sigma_d = self._jets(z, 1)["mu_d"].chunk(2, -1)
            out: Tensor = self._expected.call("variance", {"mu_d": mu_d, "S_d": sigma_d})
            return out

        return self._checked(z, self._by_chunks(compute, 0, z))

    def sampled(self, epsilon: Tensor) -> PulledBackMetric:
        """The metric of one draw, JᵀJ of z ↦ μ(z) + σ(z) ε with ε held: a surface, not a mean.

        Args:
            epsilon: ε [n], a number for each output, such as ``torch.randn(n)``.

        Raises:
            InputError: ``epsilon`` is not a vector; later, where it has another length.
        """
        if not isinstance(epsilon, Tensor) or epsilon.ndim != 1:
            got = list(epsilon.shape) if isinstance(epsilon, Tensor) else type(epsilon).__name__
            raise InputError(f"epsilon: expected a vector [n], got {got}")

        def draw(z: Tensor) -> Tensor:
            mu, sigma = self._moments(z)
            if epsilon.shape != mu.shape[-1:]:
                raise InputError(
                    f"epsilon: expected {mu.shape[-1]} numbers, one for each output, got "
                    f"{len(epsilon)}"
                )
            return mu + sigma * epsilon.to(mu)

        return PulledBackMetric(
            draw,
            self.space.dimension,
            validate_args=self.validate_args,
            memory_budget=self.memory_budget,
            latent_shape=self.latent_shape,
        )
