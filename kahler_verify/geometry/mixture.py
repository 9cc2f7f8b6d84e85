"""Metrics of mixtures of quadratic forms: log densities, and potentials that favour far centres."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MEMORY_BUDGET, WORKSPACE
from kahler_verify.geometry.components import Components, DiagonalComponents, FullComponents, Jets
from kahler_verify.geometry.layouts import on_layouts
from kahler_verify.geometry.metric import PartwiseMetric
from kahler_verify.geometry.potential import chern
from kahler_verify.kernels import quadratic_form
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.running.kernel_set import KernelSet
from kahler_verify.running.variants import AT_ONCE, UnrolledKernels, mixture_tracer

# Slopes of a mixture's components made at one time, in real numbers, and how many points should
# share a block of components; as measured.
BLOCK = 2**20
BLOCK_ON_GPU = 2**26  # where caches are small beside what keeps all processors busy; not measured
ROWS = 64
BLOCKS_HELD = 6  # arrays of that size at one time
# Kernels of a mixture that take traces of the second derivatives of g without forming them.
CONTRACTED = {
    "chern_ricci": "ricci",
    "chern_scalar": "scalar",
    "holomorphic_sectional": "holomorphic_sectional",
}


class MixtureMetric(PartwiseMetric):
    """∂∂̄ of a mixture of quadratic forms q_k = (z - c_k)ᴴP_k(z - c_k).

    ``kind="potential"``: Φ = log Σ_k π_k e^{q_k}, plurisubharmonic; its weights favour FAR centres,
    and its metric is at least as large as the smallest of the P_k.
    ``kind="density"``: Ψ = -log Σ_k π_k det P_k e^{-q_k}, minus the log density of a mixture of
    circular complex Gaussians up to d log π; not plurisubharmonic in general.

    The metric itself is made of blocks of components, joined by the law of total covariance, so
    that any number of them fits a budget; its time grows like K.  Derivatives and curvature take
    memory in proportion to K d², as the precisions do, for one point at least.

    Args:
        weights: π_k > 0, real [K], summing to one.
        centres: c_k, complex [K, d].
        precisions: P_k, Hermitian positive definite, complex [K, d, d], or their diagonals if they
            have nothing else, real and positive [K, d].
        kind: which of the two potentials.
        validate_args: see :class:`HermitianMetric`.
        memory_budget: see :class:`HermitianMetric`.  A copy of the parameters and what is made of
            them take five times their room; up to a quarter of the budget they are kept besides,
            until the parameters change.
        compile: see :class:`PotentialMetric`; a mixture's logits, weights and moments become one
            function.  It takes precisions to be Hermitian, and reads their upper triangles.

    Raises:
        InputError: shapes, dtypes or values are not as above.
    """

    def __init__(
        self,
        weights: Tensor,
        centres: Tensor,
        precisions: Tensor,
        *,
        kind: Literal["potential", "density"] = "potential",
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
        compile: bool = False,  # noqa: A002 - as in torch
    ):
        super().__init__(validate_args=validate_args, memory_budget=memory_budget)
        if kind not in ("potential", "density"):
            raise InputError(f"kind: expected 'potential' or 'density', got {kind!r}")
        _check_mixture(weights, centres, precisions, validate_args)
        self.weights, self.centres, self.precisions = weights, centres, precisions
        self.kind = kind
        self._sign = 1 if kind == "potential" else -1
        self._mixture = KernelSet(f"mixture_{kind}")
        self._kept = ReducedHeads()
        self._unrolled: UnrolledKernels | None = None
        if compile:
            diagonal = not precisions.is_complex()
            tracer = mixture_tracer(quadratic_form, self._mixture.module, self._sign, diagonal)
            self._unrolled = UnrolledKernels(tracer)

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.weights, self.centres = move(self.weights), move(self.centres)
        self.precisions = move(self.precisions)

    @property
    def _components(self) -> Components:
        """Of the present parameters: kept until these change, or for a call that records them."""
        parameters = (self.weights, self.centres, self.precisions)
        structure = FullComponents if self.precisions.is_complex() else DiagonalComponents

        def make(weights: Tensor, centres: Tensor, precisions: Tensor) -> Components:
            room = self.memory_budget // 4
            return structure(weights, centres, precisions, self._sign, room)

        components = make(*parameters)
        return self._kept.get("components", parameters, make) if components.fit else components

    # ------------------------------------------------------------- blocks
    def _block_numbers(self) -> int:
        """How many real numbers the slopes of a block of components may have."""
        room = self.memory_budget // (BLOCKS_HELD * self.weights.itemsize)
        return min(self._block_limit(), max(1, room))

    def _block_limit(self) -> int:
        return BLOCK_ON_GPU if self.centres.is_cuda else BLOCK

    def _blocks(self) -> list[slice]:
        """The components in blocks that leave room for as many rows as a matrix product wants."""
        count, d = self.centres.shape
        size = max(1, self._block_numbers() // (2 * d * ROWS))
        return [slice(k, min(k + size, count)) for k in range(0, count, size)]

    def _points_at_once(self, z: Tensor, order: int) -> int:
        count, d = self.centres.shape
        if order == 0 and self._unrolled is None:
            block = self._blocks()[0]
            return max(1, self._block_numbers() // (2 * d * max(block.stop, d)))
        numbers = count * d**2 + d ** (2 + order)
        room = self.memory_budget // (WORKSPACE[order] * z.element_size())
        if self._unrolled is not None:
            return max(1, min(room // numbers, AT_ONCE // count))
        return max(1, min(room, self._block_limit() // 2) // numbers)  # they are complex here

    def _by_chunks(
        self, compute: Callable[..., Tensor], order: int, z: Tensor, *vectors: Tensor
    ) -> Tensor:
        if z.dtype != self.centres.dtype or z.shape[-1] != self.centres.shape[-1]:
            raise InputError(
                f"z: expected {self.centres.dtype} [..., {self.centres.shape[-1]}] like the "
                f"centres, got {z.dtype} {list(z.shape)}"
            )
        with self._kept.call(math.prod(z.shape[:-1])):
            return super()._by_chunks(compute, order, z, *vectors)

    # ------------------------------------------------------------- the function itself
    def value(self, z: Tensor) -> Tensor:
        """Φ(z) or Ψ(z), real [...]."""
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            masses = [torch.logsumexp(logits, -1) for logits in self._logits(z)]
            return torch.logsumexp(torch.stack(masses), 0).reshape(z.shape[:-1])

        out = self._by_chunks(compute, 0, z)
        return self._checked(z, out if self.kind == "potential" else -out)

    def responsibilities(self, z: Tensor) -> Tensor:
        """The weights w_k ∝ π_k e^{±q_k} at z, real [..., K]."""
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            weights = torch.softmax(torch.cat(self._logits(z), -1), -1)
            return weights.reshape(*z.shape[:-1], len(self.centres))

        return self._checked(z, self._by_chunks(compute, 0, z))

    def _logits(self, z: Tensor) -> list[Tensor]:
        """log π_k ± q_k, up to what all have in common, [b, k] for each block of components."""
        components = self._components
        x = components.coordinates(z.reshape(-1, z.shape[-1]))
        return [components.jets(x, some).logits for some in self._blocks()]

    # ------------------------------------------------------------- unrolled kernels
    def _unrolled_at(self, kernel: str, z: Tensor, more: Mapping[str, Tensor]) -> Tensor | None:
        """A kernel by its unrolled variant, where there is one for this call."""
        if self._unrolled is None:
            return None
        components, p = self._components, self.precisions
        parameters = {
            "centre": self.centres,
            "precision": p,
            "log_weights": components.log_weights(slice(0, len(p))),
            **more,
        }
        if kernel != "metric":  # derivatives of g see differences of the P_k alone
            parameters["deviation"] = components.made("deviation", lambda: p - p.mean(0))
        return self._unrolled(kernel, z, parameters)

    # ------------------------------------------------------------- the metric
    def _parts(self, z: Tensor) -> tuple[Tensor, None]:
        unrolled = self._unrolled_at("metric", z, {})
        if unrolled is not None:
            return unrolled, None
        components, blocks = self._components, self._blocks()
        x = components.coordinates(z.reshape(-1, z.shape[-1]))
        if len(blocks) == 1:
            g = self._metric(components.jets(x, blocks[0]))
        else:
            first, *others = (partial(self._block, components.jets, x, some) for some in blocks)
            g = reduce(lambda whole, block: self._joined(whole, block()), others, first()).metric
        return g.reshape(*z.shape, z.shape[-1]), None

    def _metric(self, jets: Jets) -> Tensor:
        """E[∂∂̄q] ± Cov(∂q, ∂̄q) [b, d, d], where these are all components."""
        metric = on_layouts(self._mixture.function("metric"))
        out: Tensor = metric(q_d=jets.q_d, q_db=jets.q_db, w=torch.softmax(jets.logits, -1))
        return out

    def _block(self, jets_of: Callable[..., Jets], x: Tensor, some: slice) -> _Block:
        """Some components as if there were no others."""
        logits, q_d, q_db = jets_of(x, some)
        kernel = on_layouts(self._mixture.function("gradient_and_metric"))
        gradient, metric = kernel(q_d=q_d, q_db=q_db, w=torch.softmax(logits, -1))
        return _Block(torch.logsumexp(logits, -1), gradient.tensor(), metric)

    def _joined(self, *blocks: _Block) -> _Block:
        """Blocks as one: each is a component whose potential is its own log-sum-exp."""
        masses, q_d, q_db = (torch.stack(parts, 1) for parts in zip(*blocks, strict=True))
        kernel = self._mixture.function("gradient_and_metric")
        gradient, metric = kernel(q_d, q_db, torch.softmax(masses, -1).to(q_d.dtype))
        return _Block(torch.logsumexp(masses, -1), gradient, metric)

    # ------------------------------------------------------------- derivatives and curvature
    def _every_jet(self, z: Tensor) -> Jets:
        """Those of all components, for the points z in one row."""
        x = self._components.coordinates(z.reshape(-1, z.shape[-1]))
        return self._components.jets(x, slice(0, len(self.centres)))

    def _component_jets(self, z: Tensor, jets: Jets) -> dict[str, Tensor]:
        """What kernels take: w [..., K], q_d [..., K, d], q_db [K, d, d] up to a common term."""
        q_d, w = jets.q_d.tensor(), torch.softmax(jets.logits, -1).to(z.dtype)
        return {
            "w": w.reshape(*z.shape[:-1], len(self.centres)),
            "q_d": q_d.reshape(*z.shape[:-1], *q_d.shape[1:]),
            "q_db": self._components.deviations(),
        }

    def _evaluate(self, kernel: str, z: Tensor) -> Tensor:
        unrolled = self._unrolled_at(kernel, z, {})
        if unrolled is not None:
            return unrolled
        out: Tensor = self._mixture.call(kernel, self._component_jets(z, self._every_jet(z)))
        return out

    def _metric_d(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_d", z)

    def _metric_db(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_db", z)

    def _derivatives(self, z: Tensor, order: int) -> dict[str, Tensor]:
        if self._unrolled is not None:
            return {**super()._derivatives(z, order), "z": z}
        every = self._every_jet(z)
        jets = self._component_jets(z, every)
        g = self._metric(every).reshape(*z.shape, z.shape[-1])
        tensors = {"g": g, "g_d": self._mixture.call("metric_d", jets), **jets}
        if order > 1:
            tensors["g_db"] = self._mixture.call("metric_db", jets)
        return tensors

    def _curved(self, z: Tensor, kernel: str, order: int, **more: Tensor) -> Tensor:
        return super()._curved(z, kernel, 1 if kernel in CONTRACTED else order, **more)

    def _curvature(self, kernel: str, tensors: dict[str, Tensor]) -> Tensor:
        if kernel not in CONTRACTED:
            unrolled = chern(kernel, tensors["g"][..., 0], tensors) if self._unrolled else None
            return super()._curvature(kernel, tensors) if unrolled is None else unrolled
        if "z" in tensors:
            z, more = tensors["z"], {n: x for n, x in tensors.items() if n != "z"}
            unrolled = self._unrolled_at(CONTRACTED[kernel], z, more)
            if unrolled is not None:
                return unrolled
            tensors = {**more, **self._component_jets(z, self._every_jet(z))}
        out: Tensor = self._mixture.call(CONTRACTED[kernel], tensors)
        return out


class _Block(NamedTuple):
    """A part of a mixture: log Σ e^{logits} [b], and ∂ [b, d] and ∂∂̄ [b, d, d] of its potential."""

    mass: Tensor
    gradient: Tensor
    metric: Tensor


def _check_mixture(weights: Tensor, centres: Tensor, precisions: Tensor, values: bool) -> None:
    for name, x in (("weights", weights), ("centres", centres), ("precisions", precisions)):
        if not isinstance(x, Tensor):
            raise InputError(f"{name}: expected a tensor, got {type(x).__name__}")
        if x.device != centres.device:
            raise InputError(
                f"{name}: expected a tensor on {centres.device} like the centres, got {x.device}"
            )
    if centres.ndim != 2 or not centres.is_complex() or 0 in centres.shape:
        raise InputError(
            f"centres: expected a complex tensor [K, d] with K, d ≥ 1, "
            f"got {centres.dtype} {list(centres.shape)}"
        )
    count, d = centres.shape
    _expect("weights", weights, (count,), centres.real.dtype)
    diagonal = precisions.ndim == 2 and not precisions.is_complex()
    if diagonal:
        _expect("precisions", precisions, (count, d), centres.real.dtype)
    else:
        _expect("precisions", precisions, (count, d, d), centres.dtype)
    if not values or centres.device.type == "meta":
        return
    for name, x in (("weights", weights), ("centres", centres), ("precisions", precisions)):
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"{name}: expected finite values, got NaN or infinities")
    tolerance = 100 * torch.finfo(weights.dtype).eps
    if bool((weights <= 0).any()) or abs(weights.sum().item() - 1) > tolerance * count:
        raise InputError(
            f"weights: expected positive values that sum to one, got minimum "
            f"{weights.min().item():.3g} and sum {weights.sum().item():.6g}"
        )
    if diagonal:
        smallest = precisions.min().item()
        if smallest <= 0:
            raise InputError(f"precisions: expected positive diagonals, got {smallest:.3g}")
        return
    gap = (precisions - precisions.mH).abs().max().item()
    if gap > tolerance * precisions.abs().max().item():
        raise InputError(f"precisions: expected Hermitian matrices, got |P - Pᴴ| up to {gap:.3g}")
    if bool((torch.linalg.cholesky_ex(precisions)[1] > 0).any()):
        smallest = torch.linalg.eigvalsh(precisions).min().item()
        raise InputError(
            f"precisions: expected positive definite matrices, got the eigenvalue {smallest:.3g}"
        )


def _expect(name: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    if tuple(x.shape) != tuple(shape) or x.dtype != dtype:
        raise InputError(f"{name}: expected {dtype} {list(shape)}, got {x.dtype} {list(x.shape)}")
