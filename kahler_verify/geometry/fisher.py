"""The Fisher metric of a decoder z ↦ CN(μ(z), Σ(z)), from its jets and generated kernels.

Long, because it is one class, of which a third lists arguments and methods of both latents.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from kahler_verify.adapters import AdaptedDecoder, Output, adapted, described
from kahler_verify.distributions import ComplexNormal
from kahler_verify.geometry.base import LARGEST_THRESHOLD, MEMORY_BUDGET
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.latent_shapes import keeps_latent_shape
from kahler_verify.geometry.latents import by_latents
from kahler_verify.geometry.metric import HermitianMetric, PartwiseMetric
from kahler_verify.geometry.plans import FOLD_RATIO, Fold, Plan, planned, require_fold
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.geometry.summands import KERNELS, from_covariance, from_mean
from kahler_verify.geometry.traced import Compile, Program, program_for, require_compile
from kahler_verify.jets.checks import Examination, examine
from kahler_verify.jets.decoders import affine_heads, has_linear_heads, is_closed_form, routes
from kahler_verify.jets.differentiation import Mode
from kahler_verify.jets.fields import LikelihoodStructure, decoder_jets, likelihood_structure
from kahler_verify.jets.gaussian_outputs import require_decoder
from kahler_verify.jets.layers import is_holomorphic
from kahler_verify.jets.tangents import (
    hidden_tangents,
)
from kahler_verify.likelihoods.complex_normal import of_real_parts
from kahler_verify.linear_algebra.heads import AffineHeads
from kahler_verify.linear_algebra.kept import ReducedHeads, is_recorded
from kahler_verify.linear_algebra.products import in_forward_mode, is_transformed
from kahler_verify.running.parameters import moved_module
from kahler_verify.spaces import COMPLEX

__all__ = ["FisherMetric", "Fold", "Plan"]

# A product of the metric with a vector takes two tangents and a backward pass, which is less than
# d tangents from about this d on (measured at h = 256, D = 784).
COVECTOR_FROM = 12
# On a CPU, products run flat out from some hundred tangents on; more than this gain nothing.
TANGENTS_AT_ONCE = 2048


@keeps_latent_shape
class FisherMetric(PartwiseMetric):
    """g_{ab̄} = tr(P∂_aΣP∂_b̄Σ) + (∂_bμ)ᴴP∂_aμ + (∂_āμ)ᴴP∂_b̄μ, P = Σ⁻¹, with its other part k.

    KL(p_z ‖ p_{z+ε}) = g(ε, ε̄) + Re k(ε, ε) + O(ε³).  A real Gaussian likelihood has half of
    the formula's value: KL of real Gaussians is half of the complex expression at real μ and Σ.

    Real latents z [..., d] are answered by :attr:`on_real_latents`, the Fisher-Rao metric on R^d of
    the same decoder, by methods of the same names.  The two geometries have conventions of their
    own: connection and curvature are Chern's at complex z, with Γ^e_{ca} as [..., c, a, e], and
    Levi-Civita's at real z, with Γ^e_ab as [..., e, a, b]; see :class:`HermitianMetric` and
    :class:`RiemannianMetric`, some of whose methods only one of them has.

    Where the decoder's heads are linear, the metric sees them through Gram products only: with
    constant or scalar Σ the mean's head W, and always the log variance's head, may be replaced by
    the triangle of its QR decomposition, which has the rows of the hidden layer and not of the
    data.  It is fed to the kernels as if it were the head: an exact identity.  Where autograd
    records weights, the Gram product of the head itself takes the place of the triangle.

    Args:
        decoder: a module or function from complex z [..., d] to a ``ComplexNormal``, to a pair
            (mean, log variance), or to a torch ``Independent(Normal, 1)`` or
            ``MultivariateNormal``; for decoders of real z, and whole models of other libraries, see
            :class:`FisherRaoMetric`.  It must
            keep the dtype's precision and the device of z.  A ``ComplexNormal`` with a relation is
            taken as the real Gaussian on R^{2D} that it is, with a full covariance.
        check: compare autograd's derivatives with differences at the first point that is seen, to
            the order that is asked for, and take the mode of differentiation that is right: see
            :func:`check_decoder`.  :class:`InputError` is raised where none is, and where a
            connection or curvature is asked of a decoder with kinks.  Not needed, and not done,
            where all layers are known in closed form.
        validate_args: see :class:`HermitianMetric`.
        memory_budget: see :class:`HermitianMetric`.
        fold: replace heads where it pays ("auto"), wherever possible, or never.
        fold_ratio: "auto" replaces heads with at least this many times the rows of the triangle.
        output: which of several tensors the decoder returns, and of which law; a name, an index, a
            function or an :class:`kahler_verify.adapters.Output`.
        latent_shape: of one latent, where that is no row, such as (4, 32, 32): points and vectors
            may then be given so, and vectors are returned so.
        compile: compute g, and k, at a single point by a compiled program, see
            :mod:`kahler_verify.geometry.traced`; the first such call takes seconds.  At real
            latents batches have one, too, see :class:`FisherRaoMetric`.  True compares every bit of
            the weights with those that the program was made of.  "frozen" asks torch's counters of
            writes in place only: after any other change of the decoder (tensors or layers
            exchanged, hooks, modes, writes through ``.data`` or numpy) call :meth:`forget_heads`.

    Source: Gracyk, arXiv 2511.15172; derived in derivations/likelihoods/gaussian_kl.py.
    """

    _fisher = KERNELS

    def __init__(
        self,
        decoder: Callable[[Tensor], Any],
        *,
        check: bool = True,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
        fold: Fold = "auto",
        fold_ratio: float = FOLD_RATIO,
        output: Output | str | int | Callable[[Any], Any] | None = None,
        latent_shape: tuple[int, ...] | None = None,
        compile: Compile = False,  # noqa: A002 - as in torch
    ):
        super().__init__(validate_args=validate_args, memory_budget=memory_budget)
        decoder = adapted(decoder, output, latent_shape)
        require_decoder(decoder)
        require_fold(fold, fold_ratio)
        require_compile(compile, decoder)
        self.compile = compile
        self.decoder = decoder
        self.latent_shape = getattr(decoder, "latent_shape", None)
        self.fold = fold
        self.fold_ratio = fold_ratio
        self.check = check
        self._examined: dict[int, Examination] = {}  # by the order of derivatives
        self._heads = ReducedHeads()
        self._on_real: FisherRaoMetric | None = None
        self._widest = 0  # of all layers; of a decoder that is not known D, as soon as it is
        self._kinds = 2  # of derivatives: ∂ and ∂̄
        if has_linear_heads(decoder):
            self._widest = decoder.heads().widest
            self._kinds = 1 if is_holomorphic(decoder.layers) else 2

    def __getstate__(self) -> dict[str, Any]:
        """See :class:`Metric`."""
        return super().__getstate__() | {"_on_real": None}

    @property
    def on_real_latents(self) -> FisherRaoMetric:
        """The Fisher-Rao metric of the same decoder on R^d, which answers for real z."""
        if self._on_real is None or self._on_real.decoder is not self.decoder:
            self._on_real = FisherRaoMetric(self.decoder, check=self.check, compile=self.compile)
        self._on_real.validate_args = self.validate_args
        self._on_real.memory_budget = self.memory_budget
        self._on_real.fold, self._on_real.fold_ratio = self.fold, self.fold_ratio
        return self._on_real

    def _matrix_free(self, z: Tensor) -> RiemannianMetric:
        with torch.no_grad():
            law = self.decoder(z[None])
        if isinstance(law, ComplexNormal) and not isinstance(of_real_parts(law), Normal):
            return self.riemannian()

        def on_coordinates(x: Tensor) -> Any:
            return self.decoder(COMPLEX.from_real(x))

        budget = self.memory_budget
        return FisherRaoMetric(on_coordinates, check=self.check, memory_budget=budget)

    metric_matrix = by_latents(HermitianMetric.metric_matrix)
    inner_product = by_latents(HermitianMetric.inner_product)
    squared_norm = by_latents(HermitianMetric.squared_norm)
    norm = by_latents(HermitianMetric.norm)
    metric_vector_product = by_latents(HermitianMetric.metric_vector_product)
    log_volume = by_latents(HermitianMetric.log_volume)
    christoffels = by_latents(HermitianMetric.christoffels)
    ricci_tensor = by_latents(HermitianMetric.ricci_tensor)
    scalar_curvature = by_latents(HermitianMetric.scalar_curvature)
    # at complex z alone
    complementary_part = by_latents(HermitianMetric.complementary_part)
    real_metric_matrix = by_latents(HermitianMetric.real_metric_matrix)
    log_det_hermitian = by_latents(HermitianMetric.log_det_hermitian)
    curvature_tensor = by_latents(HermitianMetric.curvature_tensor)
    holomorphic_sectional_curvature = by_latents(HermitianMetric.holomorphic_sectional_curvature)
    kahler_defect = by_latents(HermitianMetric.kahler_defect)
    operator = by_latents(RiemannianMetric.operator)
    # at real z alone
    log_volume_gradient = by_latents(RiemannianMetric.log_volume_gradient)
    geodesic_acceleration = by_latents(RiemannianMetric.geodesic_acceleration)
    transport_rate = by_latents(RiemannianMetric.transport_rate)
    brownian_drift = by_latents(RiemannianMetric.brownian_drift)
    riemann_tensor = by_latents(RiemannianMetric.riemann_tensor)
    sectional_curvature = by_latents(RiemannianMetric.sectional_curvature)
    jacobi_acceleration = by_latents(RiemannianMetric.jacobi_acceleration)
    exp = by_latents(RiemannianMetric.exp)
    log = by_latents(RiemannianMetric.log)
    geodesic = by_latents(RiemannianMetric.geodesic, "a")
    distance = by_latents(RiemannianMetric.distance, "a")
    distances = by_latents(RiemannianMetric.distances, "x")
    transport = by_latents(RiemannianMetric.transport, "u")

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.decoder = moved_module("decoder", self.decoder, move)
        self._examined = {}

    def __repr__(self) -> str:
        if isinstance(self.decoder, AdaptedDecoder):
            lines = [*described(self.decoder), *self.on_real_latents._met]
            lines.append("at complex latents: autograd")
        else:
            lines = [f"{name}: {route}" for name, route in routes(self.decoder).items()]
        for order, (_, mode, reason) in sorted(self._examined.items()):
            if reason:
                lines.append(f"derivatives of order {order}: autograd in the mode {mode!r}")
        if has_linear_heads(self.decoder):
            plan = self.plan()
            lines.append(f"heads of 256 points: mean {plan.mean}, log variance {plan.covariance}")
        return "FisherMetric(\n  " + "\n  ".join(lines) + "\n)"

    # ------------------------------------------------------------- the plan
    def plan(self, points: int = 256, *, complementary: bool = True) -> Plan:
        """How ``points`` points are computed, with the complementary part or without.

        ``metric_matrix`` and ``log_det_hermitian`` do without; all others need it.
        """
        decoder = self.decoder
        if not has_linear_heads(decoder):
            return Plan("autograd", "full", 0, "none", 0, points, "the heads are not known")
        heads = decoder.heads()
        plan = self._planned(heads, points, complementary, is_holomorphic(decoder.layers))
        latent = heads.scale.to(heads.scale.dtype.to_complex()).expand(heads.latent)
        recorded = ", nothing is kept of weights" if is_recorded([heads.mean]) else ""
        D, h = heads.mean.shape
        reason = (
            f"D = {D}, h = {h}, {heads.covariance} Σ, "
            f"fold {self.fold} from D ≥ {self.fold_ratio:g} rows{recorded}"
        )
        return replace(plan, points=min(points, self._points_at_once(latent, 0)), reason=reason)

    def _planned(
        self, heads: AffineHeads, points: int, complementary: bool, holomorphic: bool
    ) -> Plan:
        return planned(
            heads,
            points,
            complementary=complementary,
            holomorphic=holomorphic,
            fold=self.fold,
            fold_ratio=self.fold_ratio,
        )

    def _width(self) -> int:
        return self._widest

    def _points_at_once(self, z: Tensor, order: int) -> int:
        if self._widest == 0:
            self._checked_structure(z, order + 1)
        fitting = super()._points_at_once(z, order)
        if order or z.is_cuda:
            return fitting
        block = self._kinds * z.shape[-1] * self._widest * z.element_size()
        few = min(TANGENTS_AT_ONCE // z.shape[-1], LARGEST_THRESHOLD // block)
        return min(fitting, max(1, few))

    def _by_chunks(
        self, compute: Callable[..., Tensor], order: int, z: Tensor, *vectors: Tensor
    ) -> Tensor:
        with self._heads.call(math.prod(z.shape[:-1])):
            return super()._by_chunks(compute, order, z, *vectors)

    def forget_heads(self) -> None:
        """Drop reduced heads and what else is kept of weights, to free its memory."""
        self._heads.forget()
        if self._on_real is not None:
            self._on_real.forget_heads()

    # ------------------------------------------------------------- linear heads
    def _split(
        self,
        heads: AffineHeads,
        z: Tensor,
        directions: Tensor | None = None,
        *,
        complementary: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """g and k [..., r, r] along r directions v [..., r, d], by default the coordinates'.

        The sum of what the mean and what the covariance contribute, each in its own width.
        """
        batch, d = z.shape[:-1], z.shape[-1]
        rows = z.reshape(-1, d)
        if directions is not None:
            directions = directions.reshape(-1, *directions.shape[-2:])
        hidden = hidden_tangents(self.decoder, rows, self._heads, directions)
        points = self._heads.points or len(rows)
        plan = self._planned(heads, points, complementary, hidden.holomorphic)
        g, k = from_mean(heads, hidden, plan, self._heads, complementary=complementary)
        if heads.log_variance is not None:
            dg, dk = from_covariance(heads, hidden, plan, self._heads, complementary=complementary)
            g, k = g + dg, dk if k is None else k if dk is None else k + dk

        def shaped(part: Tensor) -> Tensor:
            part = part.expand(len(rows), *part.shape[1:])  # layers that are all affine give one
            part = 0.5 * part if heads.real else part.contiguous()
            return part.reshape(*batch, *part.shape[1:])

        return shaped(g), None if k is None else shaped(k)

    # ------------------------------------------------------------- whole jets
    def _evaluate(self, name: str, z: Tensor, order: int) -> tuple[Any, bool, float]:
        """A kernel's results on the decoder's jets, whether k vanishes, the likelihood's factor."""
        structure = self._checked_structure(z, order)
        flat = structure.holomorphic_mean and structure.constant_covariance
        kernel = f"{name}_{structure.covariance}" + ("_holomorphic" if flat else "")
        jets = self._jets(z, self._fisher.arguments(kernel), order)
        out = self._fisher.call(kernel, jets)
        return out, flat, 0.5 if structure.likelihood == "real" else 1.0

    def _checked_structure(self, z: Tensor, order: int) -> LikelihoodStructure:
        self._mode(z, order)
        structure = likelihood_structure(self.decoder, z)
        self._widest = self._widest or structure.data_dim
        return structure

    def _mode(self, z: Tensor, order: int) -> Mode:
        """How autograd differentiates to this order, found at the first point that is seen."""
        if self.check and order not in self._examined and not is_closed_form(self.decoder):
            if not z.numel() or is_transformed(z):
                return "forward"  # the check is made in a later call
            point = z.reshape(-1, z.shape[-1])[:1]
            found = examine(self.decoder, point, order=order, memory_budget=self.memory_budget)
            if found.reason and not any(known.reason for known in self._examined.values()):
                warnings.warn(f"FisherMetric: {found.reason}", UserWarning, stacklevel=2)
            self._examined[order] = found
        return self._examined[order].mode if order in self._examined else "forward"

    def _by_layers(self, z: Tensor) -> bool:
        """Is forward mode, in which layers are differentiated one by one, right for all?"""
        return self._mode(z, 1) == "forward"

    def _jets(self, z: Tensor, names: Iterable[str], order: int) -> dict[str, Tensor]:
        mode = self._mode(z, order)
        # forward mode is what unknown layers of a known decoder are differentiated in
        jets = decoder_jets(self.decoder, z, names, mode=None if mode == "forward" else mode)
        if "Sigma_factor" in jets and jets["Sigma_factor"].ndim > z.ndim:
            # solve_triangular drops imaginary parts for a real L
            jets["Sigma_factor"] = jets["Sigma_factor"].to(z.dtype)
        return jets

    def _compiled(self, z: Tensor, *, complementary: bool) -> tuple[Tensor, Tensor | None] | None:
        """g and k at one point of a decoder that is known in closed form; None of all others."""
        if z.numel() != z.shape[-1]:
            return None
        options: dict[str, Any] = {"fold": self.fold, "fold_ratio": self.fold_ratio}

        def compute(decoder: Any) -> Program | None:
            if not is_closed_form(decoder):
                return None
            metric = FisherMetric(decoder, check=False, validate_args=False, **options)

            def parts(z: Tensor) -> tuple[Tensor, ...]:
                g, k = metric._split(decoder.heads(), z, complementary=complementary)
                return (g,) if k is None else (g, k)

            return parts

        name = "g and k" if complementary else "g", self.fold, self.fold_ratio
        point = z.reshape(1, -1)
        program = program_for(
            name,
            point,
            self.decoder,  # type: ignore[arg-type]
            self._heads,
            compute,
            compile=self.compile,
        )
        if program is None:
            return None
        with torch.no_grad():
            out = [part.reshape(*z.shape, -1) for part in program(point)]
        return out[0], out[1] if len(out) > 1 else None

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        found = self._compiled(z, complementary=True) if self.compile else None
        if found is not None:
            return found
        heads = affine_heads(self.decoder)
        if heads is not None and self._by_layers(z):
            return self._split(heads, z, complementary=True)
        out, flat, factor = self._evaluate("fisher_metric", z, 1)
        if flat:
            return factor * out, None
        g, k = out
        return factor * g, factor * k

    def _hermitian(self, z: Tensor) -> Tensor:
        found = self._compiled(z, complementary=False) if self.compile else None
        if found is not None:
            return found[0]
        heads = affine_heads(self.decoder)
        if heads is not None and self._by_layers(z):
            return self._split(heads, z, complementary=False)[0]
        return self._parts(z)[0]

    def _inner(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """Along u and v alone, where the decoder is known and d > 2."""
        heads, shape = affine_heads(self.decoder), z.shape
        if heads is None or shape[-1] <= 2 or not shape == u.shape == v.shape:
            return super()._inner(u, v, z)
        if not self._by_layers(z):
            return super()._inner(u, v, z)
        g, k = self._split(heads, z, torch.stack([u, v], -2), complementary=True)
        out = 2 * g[..., 0, 1].real
        return out if k is None else out + 2 * k[..., 0, 1].real

    def _covector(self, u: Tensor, z: Tensor) -> Tensor:
        """The gradient of the inner product in v, which is linear in it: two tangents, not d."""
        known = has_linear_heads(self.decoder) and z.shape == u.shape
        no_graph = torch.is_inference_mode_enabled() or is_transformed(z, u) or in_forward_mode()
        if not known or z.shape[-1] < COVECTOR_FROM or no_graph or z.is_inference():
            return super()._covector(u, z)
        v = torch.zeros_like(z).requires_grad_()
        recorded = torch.is_grad_enabled()
        with torch.enable_grad():
            inner = self._inner(u, v, z).sum()
        (out,) = torch.autograd.grad(inner, v, create_graph=recorded)
        return out

    def _derivatives(self, z: Tensor, order: int) -> dict[str, Tensor]:
        """All from one set of jets."""
        structure = self._checked_structure(z, order + 1)
        flat = structure.holomorphic_mean and structure.constant_covariance
        suffix = f"_{structure.covariance}" + ("_holomorphic" if flat else "")
        kernels = {"g": "fisher_metric", "g_d": "fisher_metric_d", "g_db": "fisher_metric_db"}
        wanted = list(kernels)[: order + 1]
        arguments = [self._fisher.arguments(kernels[name] + suffix) for name in wanted]
        jets = self._jets(z, sorted(set().union(*arguments)), order + 1)
        factor = 0.5 if structure.likelihood == "real" else 1.0
        out = {name: self._fisher.call(kernels[name] + suffix, jets) for name in wanted}
        if not flat:
            out["g"] = out["g"][0]
        return {name: factor * each for name, each in out.items()}

    def _metric_d(self, z: Tensor) -> Tensor:
        out, _, factor = self._evaluate("fisher_metric_d", z, 2)
        return factor * out

    def _metric_db(self, z: Tensor) -> Tensor:
        out, _, factor = self._evaluate("fisher_metric_db", z, 3)
        return factor * out
