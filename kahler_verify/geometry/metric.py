"""Hermitian metrics on the latent space, and the geometry that follows from their derivatives.

The first index of a metric is holomorphic, the second antiholomorphic: g[..., a, b] = g_{ab̄}.
(geomstats conjugates the first index of its complex metrics; its matrices are the transposes.)
"""

from __future__ import annotations

import copy
import ctypes
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from functools import cache, partial
from typing import Any, Self

import torch
from torch import Tensor

from kahler_verify.decoders.heads import ReducedHeads
from kahler_verify.errors import InputError
from kahler_verify.geometry.cholesky import factored, log_det
from kahler_verify.geometry.kernel_set import KernelSet
from kahler_verify.geometry.parameters import mover
from kahler_verify.geometry.rounding import Rounding
from kahler_verify.geometry.unrolled_kernels import UnrolledKernels
from kahler_verify.products import in_forward_mode, is_transformed
from kahler_verify.torch_state import outside_autocast, refuse_autocast_in_backward

MEMORY_BUDGET = 512 * 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # in malloc.h
# Numbers held at one time for each entry of the largest jet, as measured: without derivatives of
# the metric, and with them.
WORKSPACE = (12, 20, 20)
LARGEST_THRESHOLD = 32 * 2**20  # bytes: glibc takes no more for blocks that it keeps


@cache
def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of megabytes, instead of giving them back at once.

    Else every step of a chunk, or of training, has its results' pages fetched anew, which was
    measured to double the time of a mixture's metric, and to add half to a training step beside a
    regulariser.  Up to ``MEMORY_BUDGET`` is kept.  The setting is the process's own (mallopt(3)),
    and speeds up all of torch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, MEMORY_BUDGET)


# What is left to say where a formula has no value: |z|³ has derivatives at 0, but z̄/|z| has none.
AT_A_ZERO = (
    ": its formula divides by zero there (a modulus, a root or a negative power at its zero?), "
    "even if it has a limit; move z off that point"
)


class HermitianMetric(ABC):
    """A Hermitian metric g with an optional complementary part k.

    The Riemannian metric on R^{2d} is 2 Re g(u, ū) + 2 Re k(u, u).  Where g is Kähler and k = 0 the
    Chern connection and curvature below are the Levi-Civita ones; elsewhere they are Chern's, of
    the Hermitian part g alone.

    Args:
        validate_args: check every call's input and result, and raise :class:`InputError`.  One
            check is made for a whole call, after its work; it synchronises a GPU.  With False, bad
            input gives NaN, and nothing synchronises.
        memory_budget: bytes that a call may take besides its input and its answer; batches are cut
            into chunks that fit by the metric's own estimate, one point at least.  What autograd
            records for a backward pass comes on top.
    """

    _geometry = KernelSet("hermitian_geometry")

    def __init__(self, *, validate_args: bool = True, memory_budget: int = MEMORY_BUDGET):
        if not isinstance(memory_budget, int) or memory_budget <= 0:
            raise InputError(f"memory_budget: expected bytes > 0, got {memory_budget!r}")
        self.validate_args = validate_args
        self.memory_budget = memory_budget
        self._sound: dict[Hashable, list[float]] = {}
        keep_freed_memory()

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, shallow or deep, in this process or another: it keeps nothing of its own."""
        kept = (ReducedHeads, UnrolledKernels)
        state = {n: copy.copy(x) if isinstance(x, kept) else x for n, x in vars(self).items()}
        return state | {"_sound": {}}

    # ------------------------------------------------------------- moving and casting
    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """The same metric on another device or of another dtype, of copies of what it is made of.

        ``dtype`` is complex, that of the latents: complex parameters (and buffers of a decoder) get
        it, real ones its precision.  As in torch, either may come first, as may a tensor that has
        both.  A metric keeps the precision and the device of z: z of any other kind raises
        :class:`InputError`.

        Raises:
            InputError: dtype is not complex, or the metric is made of a plain function.
        """
        moved = copy.copy(self)
        moved._move(mover(device, dtype))
        return moved

    def double(self) -> Self:
        """:meth:`to` complex128."""
        return self.to(dtype=torch.complex128)

    def float(self) -> Self:
        """:meth:`to` complex64."""
        return self.to(dtype=torch.complex64)

    def half(self) -> Self:
        """:meth:`to` complex32, to be stored or sent: nothing is computed in it."""
        return self.to(dtype=torch.complex32)

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:  # noqa: ARG002
        """Move or cast all that the metric is made of."""
        raise InputError(f"to: expected a metric that can be moved, got {type(self).__name__}")

    # ------------------------------------------------------------- what a metric has to provide
    @abstractmethod
    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """g [..., d, d] and k [..., d, d], or None where k = 0."""

    @abstractmethod
    def _metric_d(self, z: Tensor) -> Tensor:
        """∂_c g_{ab̄} as [..., c, a, b]."""

    @abstractmethod
    def _metric_db(self, z: Tensor) -> Tensor:
        """∂_c ∂_ē g_{ab̄} as [..., c, e, a, b]."""

    def _hermitian(self, z: Tensor) -> Tensor:
        """g alone, where that is cheaper."""
        return self._parts(z)[0]

    def _inner(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """2 Re g(u, v̄) + 2 Re k(u, v)."""
        g, k = self._parts(z)
        out = 2 * torch.einsum("...ab,...a,...b->...", g, u, v.conj()).real
        if k is not None:
            out = out + 2 * torch.einsum("...ab,...a,...b->...", k, u, v).real
        return out

    def _covector(self, u: Tensor, z: Tensor) -> Tensor:
        """w_b = 2 Σ_a (g_{ab̄} u_a + conj(k_{ab} u_a))."""
        g, k = self._parts(z)
        out = torch.einsum("...ab,...a->...b", g, u)
        if k is not None:
            out = out + torch.einsum("...ab,...a->...b", k, u).conj()
        return 2 * out

    def _derivatives(self, z: Tensor, order: int) -> dict[str, Tensor]:
        """g, and with order 1 g_d, and with order 2 g_db as well."""
        tensors = {"g": self._hermitian(z), "g_d": self._metric_d(z)}
        if order > 1:
            tensors["g_db"] = self._metric_db(z)
        return tensors

    def _width(self) -> int:
        """How many numbers stand behind an entry of the metric: outputs, or components times d."""
        return 1

    # ------------------------------------------------------------- chunks
    def _points_at_once(self, z: Tensor, order: int) -> int:
        """How many points fit the budget, where derivatives of g up to ``order`` are taken."""
        d = z.shape[-1]
        numbers = WORKSPACE[order] * d ** (order + 1) * (self._width() + d)
        return max(1, self.memory_budget // (numbers * z.element_size()))

    def _by_chunks(
        self, compute: Callable[..., Tensor], order: int, z: Tensor, *vectors: Tensor
    ) -> Tensor:
        """``compute(z, *vectors)``, of a few points at a time, in the precision of z."""
        with outside_autocast():
            out = self._cut(compute, order, z, *vectors)
        refuse_autocast_in_backward(out)
        return out

    def _cut(
        self, compute: Callable[..., Tensor], order: int, z: Tensor, *vectors: Tensor
    ) -> Tensor:
        size = self._points_at_once(z, order)
        batch = z.shape[:-1]
        shapes = [v.shape[:-1] for v in vectors]
        if math.prod(batch) <= size or torch.broadcast_shapes(batch, *shapes) != batch:
            return compute(z, *vectors)
        rows = [x.expand(*batch, x.shape[-1]).reshape(-1, x.shape[-1]) for x in (z, *vectors)]
        chunks = zip(*[x.split(size) for x in rows], strict=True)
        first = compute(*next(chunks))
        if first.requires_grad or is_transformed(first):
            out = torch.cat([first, *[compute(*some) for some in chunks]])
        else:  # pieces kept until the end would take the answer's memory twice, and scatter it
            out = first.new_empty(math.prod(batch), *first.shape[1:])
            out[:size] = first
            for n, some in enumerate(chunks, 1):
                out[n * size : (n + 1) * size] = compute(*some)
        return out.reshape(*batch, *out.shape[1:])

    # ------------------------------------------------------------- the metric itself
    def metric_matrix(self, z: Tensor) -> Tensor:
        """The Hermitian part g_{ab̄} at z [..., d], as [..., d, d]."""
        z = self._point(z)
        return self._checked(z, self._by_chunks(self._hermitian, 0, z))

    def complementary_part(self, z: Tensor) -> Tensor:
        """The (2,0) part k_{ab} at z [..., d], as [..., d, d]; zero for Kähler potentials."""
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            g, k = self._parts(z)
            return torch.zeros_like(g) if k is None else k

        return self._checked(z, self._by_chunks(compute, 0, z))

    def real_metric_matrix(self, z: Tensor) -> Tensor:
        """The Riemannian metric 2 Re g(u, ū) + 2 Re k(u, u) on R^{2d}, [..., 2d, 2d].

        Coordinates are (x_1 … x_d, y_1 … y_d) with z = x + iy.
        """
        z = self._point(z)
        return self._checked(z, self._by_chunks(lambda z: self._real(*self._parts(z)), 0, z))

    @staticmethod
    def _real(g: Tensor, k: Tensor | None) -> Tensor:
        k = torch.zeros_like(g) if k is None else k
        xy = g.imag - k.imag
        top = torch.cat([g.real + k.real, xy], -1)
        bottom = torch.cat([xy.mT, g.real - k.real], -1)
        return 2 * torch.cat([top, bottom], -2)

    def inner_product(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """The Riemannian inner product 2 Re g(u, v̄) + 2 Re k(u, v) of tangent vectors, real [...].

        ``u`` and ``v`` are [..., d] complex.  (geomstats' complex ``inner_product`` is the
        Hermitian form ūᵀMv, whose real part is half of this where k = 0.)
        """
        z = self._point(z)
        _check_tangent("u", u, z)
        _check_tangent("v", v, z)
        _check_broadcast({"u": u, "v": v, "z": z})

        (u, along), (v, across) = _unit(u), _unit(v)

        def compute(z: Tensor, u: Tensor, v: Tensor) -> Tensor:
            return self._inner(u, v, z)

        out = self._checked(z, self._by_chunks(compute, 0, z, u, v), u=u, v=v)
        return self._in_range(_by_power_of_two(out, along + across), "u and v")

    def metric_vector_product(self, u: Tensor, z: Tensor) -> Tensor:
        """The covector w [..., d] of u [..., d]: Re Σ_b w̄_b v_b = ``inner_product(u, v, z)``.

        w_b = 2 Σ_a (g_{ab̄} u_a + conj(k_{ab} u_a)): all that an iterative solver needs of a metric.
        """
        z = self._point(z)
        _check_tangent("u", u, z)
        _check_broadcast({"u": u, "z": z})

        u, length = _unit(u)

        def compute(z: Tensor, u: Tensor) -> Tensor:
            return self._covector(u, z)

        out = self._checked(z, self._by_chunks(compute, 0, z, u), u=u)
        return self._in_range(_by_power_of_two(out, length.unsqueeze(-1)), "u")

    # ------------------------------------------------------------- volumes
    def log_det_hermitian(self, z: Tensor) -> Tensor:
        """log det g, real [...].  This is not the volume unless k = 0 (see :meth:`log_volume`).

        Its gradient is g⁻¹, in closed form, to every order.  Where g is degenerate to working
        precision :class:`InputError` is raised; with ``validate_args=False`` value and gradient are
        NaN there (the gradient is 0 where a mask has made the cotangent 0).
        """
        z = self._point(z)

        def compute(z: Tensor, *, check: bool = True) -> Tensor:
            return self._log_det(self._hermitian(z), "log_det_hermitian" if check else None)

        out = self._by_chunks(compute, 0, z)
        self._watch("log_det_hermitian", partial(compute, check=False), z, out)
        return out

    def log_volume(self, z: Tensor) -> Tensor:
        """log of the volume density √det g_ℝ = 2^d √det [[g, k], [k̄, ḡ]], real [...].

        It is -inf where the metric is degenerate to working precision, as for μ = Re z, whose det g
        is ½ although its volume is zero.  There is no gradient there: to ask for one raises
        :class:`InputError` in the backward pass, and with ``validate_args=False`` it is NaN (but 0
        where a mask has made the cotangent 0).
        """
        z = self._point(z)
        out = self._by_chunks(self._log_volume, 0, z)

        def compute(z: Tensor) -> Tensor:
            return self._log_det(self._hermitian(z), None)  # which differs by a constant

        self._watch("log_volume", compute, z, out)
        return out

    def _log_volume(self, z: Tensor) -> Tensor:
        g, k = self._parts(z)
        d = g.shape[-1]
        if k is None:
            return d * math.log(2) + self._log_det(g, "log_volume")
        # Where k nearly cancels g, an entry's rounding error is still that of g.
        units = g.detach().diagonal(dim1=-2, dim2=-1).real
        units = torch.where(units > 0, 2 * units, 1).sqrt()
        outer = units.unsqueeze(-1) * units.unsqueeze(-2)
        # a metric is never indefinite, so that a failed factorisation means a zero volume
        value, degenerate = log_det(
            self._real(g / outer, k / outer),
            if_degenerate=-torch.inf,
            units=True,
            terms=self._width(),
        )
        value = value + 4 * units.log().sum(-1)
        watched = self.validate_args and value.requires_grad and not is_transformed(value)
        if watched and degenerate is not None:
            value.register_hook(partial(_require_volume, degenerate))
        return self._checked(z, value / 2, allow_infinite=True)

    def _log_det(self, g: Tensor, quantity: str | None) -> Tensor:
        value, degenerate = log_det(g, terms=self._width())
        if self.validate_args and degenerate is not None and quantity is not None:
            self._require_positive(g, degenerate, quantity)
        return value

    # ------------------------------------------------------------- connection and curvature
    def christoffels(self, z: Tensor) -> Tensor:
        """Chern connection Γ^e_{ca} as [..., c, a, e], that is Γ_c = ∂_cG G⁻¹.

        Levi-Civita's where the metric is Kähler.  (geomstats puts the upper index first.)
        """
        z = self._point(z)
        return self._curved(z, "chern_connection", 1)

    def curvature_tensor(self, z: Tensor) -> Tensor:
        """Chern curvature R_{ab̄cē} as [..., a, b, c, e]; R = g g + g g for Fubini-Study."""
        z = self._point(z)
        return self._curved(z, "chern_curvature", 2)

    def ricci_tensor(self, z: Tensor) -> Tensor:
        """Chern-Ricci tensor Ric_{cē} = -∂_c∂_ē log det g as [..., c, e]."""
        z = self._point(z)
        return self._curved(z, "chern_ricci", 2)

    def scalar_curvature(self, z: Tensor) -> Tensor:
        """Chern scalar curvature g^{cē} Ric_{cē}, real [...]: half the Riemannian one if Kähler."""
        z = self._point(z)
        return self._curved(z, "chern_scalar", 2).real

    def holomorphic_sectional_curvature(self, z: Tensor, v: Tensor) -> Tensor:
        """R(v, v̄, v, v̄) / g(v, v̄)² for v [..., d] ≠ 0, real [...]: 2 for Fubini-Study.

        The batch dimensions of z and v broadcast; v may be of any length.
        """
        z = self._point(z)
        _check_tangent("v", v, z)
        _check_broadcast({"v": v, "z": z})
        v, _ = _unit(v)
        if self.validate_args and not is_transformed(v) and bool((v == 0).all(-1).any()):
            raise InputError("v: expected vectors other than 0, which have no curvature, got 0")
        return self._curved(z, "holomorphic_sectional", 2, v=v).real

    def kahler_defect(self, z: Tensor) -> Tensor:
        """∂_c g_{ab̄} - ∂_a g_{cb̄} as [..., c, a, b]: zero if and only if the metric is Kähler."""
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            defect: Tensor = self._geometry.call("kahler_defect", {"g_d": self._metric_d(z)})
            return defect

        return self._checked(z, self._by_chunks(compute, 1, z))

    def _curved(self, z: Tensor, kernel: str, order: int, **more: Tensor) -> Tensor:
        def compute(z: Tensor, *vectors: Tensor, check: bool = True) -> Tensor:
            named = dict(zip(more, vectors, strict=True))
            return self._curved_at(z, kernel, order, named, check=check)

        out = self._by_chunks(compute, order, z, *more.values())
        out = self._checked(z, out, allow_infinite=False, **more)
        again = partial(self._by_chunks, partial(compute, check=False), order)
        self._watch(kernel, again, z, out, *more.values())
        return out

    def _watch(
        self, quantity: str, compute: Callable[..., Tensor], z: Tensor, out: Tensor, *more: Tensor
    ) -> None:
        """See `Rounding`."""
        if self.validate_args and self._cancels and not (is_transformed(out) or in_forward_mode()):
            Rounding(quantity, compute, self._hermitian, self._sound).watch(z, out, *more)

    @property
    def _cancels(self) -> bool:
        """Whether g is a difference of terms that may be much larger, and not a sum of squares."""
        return False

    def _curved_at(
        self, z: Tensor, kernel: str, order: int, more: dict[str, Tensor], *, check: bool
    ) -> Tensor:
        tensors = {**self._derivatives(z, order), **more}
        g = tensors["g"]
        factor, degenerate = factored(g, terms=self._width())
        if self.validate_args and check:
            self._require_positive(g, degenerate, kernel)
        factor = torch.where(degenerate[..., None, None], torch.nan, factor)
        return self._curvature(kernel, {**tensors, "g_factor": factor})

    def _curvature(self, kernel: str, tensors: dict[str, Tensor]) -> Tensor:
        out: Tensor = self._geometry.call(kernel, tensors)
        return out

    # ------------------------------------------------------------- checks
    def _point(self, z: Tensor) -> Tensor:
        if not isinstance(z, Tensor) or not z.is_complex():
            what = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise InputError(f"z: expected a complex tensor [..., d], got {what}")
        if z.dtype is torch.complex32:
            raise InputError("z: expected complex64 or complex128, got complex32")
        if z.ndim == 0 or z.shape[-1] == 0:
            raise InputError(f"z: expected shape [..., d] with d ≥ 1, got {list(z.shape)}")
        return z

    def _checked(
        self, z: Tensor, out: Tensor, *, allow_infinite: bool = False, **vectors: Tensor
    ) -> Tensor:
        """One look at the result, which is not finite if anything before it was not."""
        if self.validate_args and not is_transformed(out):
            bad = out.isnan() if allow_infinite else ~torch.isfinite(out)
            if bool(bad.any()):
                for name, v in vectors.items():
                    if not bool(torch.isfinite(v).all()):
                        raise InputError(f"{name}: expected finite vectors, got NaN or infinity")
                culprit = "z" if not bool(torch.isfinite(z).all()) else "the metric at z"
                raise InputError(
                    f"z: expected finite values, but {culprit} has NaN or infinities"
                    + (AT_A_ZERO if culprit != "z" else "")
                )
        return out

    def _in_range(self, out: Tensor, vectors: str) -> Tensor:
        """One look at what was finite for unit vectors."""
        if self.validate_args and not is_transformed(out) and not bool(torch.isfinite(out).all()):
            raise InputError(f"{vectors}: expected vectors whose product {out.dtype} can hold")
        return out

    def _require_positive(self, g: Tensor, degenerate: Tensor, quantity: str) -> None:
        if is_transformed(g) or not bool(degenerate.any()):
            return
        if not bool(torch.isfinite(g).all()):
            raise InputError(
                f"z: {quantity} needs finite values, but the metric has NaN or infinities"
                + AT_A_ZERO
            )
        smallest = torch.linalg.eigvalsh(g).min().item()
        raise InputError(
            f"z: {quantity} needs a positive definite metric, but its smallest eigenvalue is "
            f"{smallest:.3g} (is a latent direction without effect, or d larger than the outputs?)"
        )


def _check_tangent(name: str, w: Tensor, z: Tensor) -> None:
    if not isinstance(w, Tensor):
        raise InputError(f"{name}: expected a tensor [..., {z.shape[-1]}], got {type(w).__name__}")
    if w.dtype != z.dtype or w.shape[-1:] != z.shape[-1:] or w.device != z.device:
        raise InputError(
            f"{name}: expected a complex tensor [..., {z.shape[-1]}] like z ({z.dtype}, "
            f"{z.device}), got {w.dtype} {list(w.shape)} on {w.device}"
        )


def _unit(v: Tensor) -> tuple[Tensor, Tensor]:
    """v [..., d] over 2^e, which is of the order of one, and e [...], no part of any derivative.

    What is homogeneous in v is computed so: squares of 1e-30 or 1e30 are not to be had in single
    precision, nor fourth powers of 1e-10.
    """
    parts = v.detach()
    largest = torch.maximum(parts.real.abs(), parts.imag.abs()).amax(-1)
    exponent = torch.frexp(largest).exponent
    return _by_power_of_two(v, -exponent.unsqueeze(-1)), exponent


def _by_power_of_two(x: Tensor, exponent: Tensor) -> Tensor:
    """x 2^e, in two steps, as 2^e itself may be out of range."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    one = torch.ones_like(half, dtype=x.dtype.to_real() if x.is_complex() else x.dtype)
    return x * torch.ldexp(one, half) * torch.ldexp(one, exponent - half)


def _check_broadcast(tensors: dict[str, Tensor]) -> None:
    try:
        torch.broadcast_shapes(*[x.shape for x in tensors.values()])
    except RuntimeError as error:
        shapes = ", ".join(f"{name}: {list(x.shape)}" for name, x in tensors.items())
        raise InputError(f"expected batch dimensions that broadcast, got {shapes}") from error


def _require_volume(degenerate: Tensor, cotangent: Tensor) -> None:
    if bool((degenerate & (cotangent != 0)).any()):
        raise InputError(
            "z: log_volume has no gradient where the metric is degenerate to working precision and "
            "the volume is zero (is a real latent direction without effect?); leave such points "
            "out of the loss"
        )
