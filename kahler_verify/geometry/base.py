"""What all metrics share: validation, chunks under a budget, copies, and the look at results."""

from __future__ import annotations

import copy
import ctypes
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from functools import cache, partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.memory import memory_limit
from kahler_verify.running.parameters import mover
from kahler_verify.running.variants import UnrolledKernels
from kahler_verify.spaces import Space
from kahler_verify.torch_state import outside_autocast, refuse_autocast_in_backward

MEMORY_BUDGET = 512 * 2**20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # in malloc.h
# Numbers held at one time for each entry of the largest jet, as measured: without derivatives of
# the metric, and with first and second ones.
WORKSPACE = (12, 20, 20)
MANY = 64  # latent dimensions, from which on one point's derivatives may fill a machine
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


class MetricJet(NamedTuple):
    """A metric with its derivatives at points [...]; None where these were not asked for.

    Attributes:
        g: [..., d, d].
        d: ∂_c g_ab as [..., c, a, b].
        dd: ∂_c ∂_e g_ab as [..., c, e, a, b].
    """

    g: Tensor
    d: Tensor | None = None
    dd: Tensor | None = None


class Metric(ABC):
    """A metric on a latent space.

    Args:
        space: where the latents live.
        validate_args: check every call's input and result, and raise :class:`InputError`.  One
            check is made for a whole call, after its work; it synchronises a GPU.  With False, bad
            input gives NaN, and nothing synchronises.
        memory_budget: bytes that a call may take besides its input and its answer; batches are cut
            into chunks that fit by the metric's own estimate, one point at least.  What autograd
            records for a backward pass comes on top.
    """

    def __init__(
        self, space: Space, *, validate_args: bool = True, memory_budget: int = MEMORY_BUDGET
    ):
        if not isinstance(memory_budget, int) or memory_budget <= 0:
            raise InputError(f"memory_budget: expected bytes > 0, got {memory_budget!r}")
        self.space = space
        self.validate_args = validate_args
        self.memory_budget = memory_budget
        # Ranges of results without rounding errors.  Threads share them without a lock: a list is
        # replaced and never written into, and one that is lost costs another look.
        self._sound: dict[Hashable, list[float]] = {}
        self._sound_of: Hashable = ()  # what the metric was made of then
        keep_freed_memory()

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, shallow or deep, in this process or another: it keeps nothing of its own."""
        kept = (ReducedHeads, UnrolledKernels)
        state = {n: copy.copy(x) if isinstance(x, kept) else x for n, x in vars(self).items()}
        return state | {"_sound": {}}

    # ------------------------------------------------------------- moving and casting
    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """The same metric on another device or of another dtype, of copies of what it is made of.

        ``dtype`` is that of the latents: complex parameters (and buffers of a decoder) get its
        complex kind, real ones its real kind.  As in torch, either may come first, as may a tensor
        that has both.  A metric keeps the precision and the device of z: z of any other kind raises
        :class:`InputError`.

        Raises:
            InputError: dtype is not of the latents' kind, or the metric is made of a plain
                function.
        """
        moved = copy.copy(self)
        moved._move(mover(device, dtype, complex_latents=self.space.complex))
        return moved

    def double(self) -> Self:
        """:meth:`to` complex128, or float64 for real latents."""
        return self.to(dtype=self._kind(torch.float64))

    def float(self) -> Self:
        """:meth:`to` complex64, or float32 for real latents."""
        return self.to(dtype=self._kind(torch.float32))

    def half(self) -> Self:
        """:meth:`to` complex32 or float16, to be stored or sent: nothing is computed in it."""
        return self.to(dtype=self._kind(torch.float16))

    def _kind(self, real: torch.dtype) -> torch.dtype:
        """The latents' dtype of that precision."""
        return real.to_complex() if self.space.complex else real

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:  # noqa: ARG002
        """Move or cast all that the metric is made of."""
        raise InputError(f"to: expected a metric that can be moved, got {type(self).__name__}")

    # ------------------------------------------------------------- products of vectors
    @abstractmethod
    def metric_matrix(self, z: Tensor) -> Tensor:
        """g at z [..., d], as [..., d, d]."""

    @abstractmethod
    def log_volume(self, z: Tensor) -> Tensor:
        """The log of the Riemannian volume density, real [...]; -inf where it is degenerate."""

    @abstractmethod
    def _inner(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """The inner product [...] at z [..., d]."""

    @abstractmethod
    def _covector(self, u: Tensor, z: Tensor) -> Tensor:
        """The covector [..., d] of u at z [..., d]."""

    def inner_product(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """The Riemannian inner product of tangent vectors u and v [..., d] at z, real [...].

        For real latents it is g(u, v), for complex ones 2 Re g(u, v̄) + 2 Re k(u, v).  (geomstats'
        complex ``inner_product`` is the Hermitian form ūᵀMv, whose real part is half of this where
        k = 0.)
        """
        z = self._point(z)
        self._check_vectors(z, u=u, v=v)
        (u, along), (v, across) = unit(u), unit(v)

        def compute(z: Tensor, u: Tensor, v: Tensor) -> Tensor:
            return self._inner(u, v, z)

        out = self._checked(z, self._by_chunks(compute, 0, z, u, v), u=u, v=v)
        return self._in_range(by_power_of_two(out, along + across), "u and v")

    def squared_norm(self, v: Tensor, z: Tensor) -> Tensor:
        """``inner_product(v, v, z)``, [...]."""
        return self.inner_product(v, v, z)

    def norm(self, v: Tensor, z: Tensor) -> Tensor:
        """The length of v [..., d] at z, right also where its square over- or underflows, [...]."""
        self._check_vectors(self._point(z), v=v)
        v, exponent = unit(v)
        return self._in_range(
            by_power_of_two(self.squared_norm(v, z).clamp_min(0).sqrt(), exponent), "v"
        )

    def metric_vector_product(self, u: Tensor, z: Tensor) -> Tensor:
        """The covector w [..., d] of u [..., d]: Re Σ_b w̄_b v_b = ``inner_product(u, v, z)``.

        w_b = Σ_a g_ab u_a, or 2 Σ_a (g_{ab̄} u_a + conj(k_{ab} u_a)) for complex latents: all that
        an iterative solver needs of a metric.
        """
        z = self._point(z)
        self._check_vectors(z, u=u)
        u, exponent = unit(u)

        def compute(z: Tensor, u: Tensor) -> Tensor:
            return self._covector(u, z)

        out = self._checked(z, self._by_chunks(compute, 0, z, u), u=u)
        return self._in_range(by_power_of_two(out, exponent.unsqueeze(-1)), "u")

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
        if z.shape[-1] > MANY and (order or not vectors):
            self._require_memory(z, order)
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

    def _least_numbers(self, d: int, order: int) -> int:
        """How many numbers one point takes at least with derivatives of g up to ``order``."""
        return d ** (order + 2)

    def _require_memory(self, z: Tensor, order: int) -> None:
        """One point fits the budget or the machine; else the machine would end the process."""
        d = z.shape[-1]
        wanted = self._least_numbers(d, order) * z.element_size()
        most = max(self.memory_budget, memory_limit())
        if wanted > most:
            what = ("g", "derivatives of g", "second derivatives of g")[order]
            raise InputError(
                f"memory_budget: one point's {what} take {wanted / 2**30:.3g} GiB at d = {d}, more "
                f"than this machine and the budget hold ({most / 2**30:.3g} GiB); "
                "metric_vector_product, inner_product and norm need no matrix"
            )

    # ------------------------------------------------------------- checks
    def _point(self, z: Tensor) -> Tensor:
        return self.space.check("z", z)

    def _check_vectors(self, z: Tensor, **vectors: Tensor) -> None:
        """Tangent vectors are like z, and their batch dimensions broadcast."""
        for name, v in vectors.items():
            self.space.check(name, v)
            if v.dtype != z.dtype or v.shape[-1] != z.shape[-1] or v.device != z.device:
                raise InputError(
                    f"{name}: expected a tensor [..., {z.shape[-1]}] like z ({z.dtype}, "
                    f"{z.device}), got {v.dtype} {list(v.shape)} on {v.device}"
                )
        everything = {**vectors, "z": z}
        try:
            torch.broadcast_shapes(*[x.shape for x in everything.values()])
        except RuntimeError as error:
            shapes = ", ".join(f"{name}: {list(x.shape)}" for name, x in everything.items())
            raise InputError(f"expected batch dimensions that broadcast, got {shapes}") from error

    def _checked(
        self, z: Tensor, out: Tensor, *, allow_infinite: bool = False, **vectors: Tensor
    ) -> Tensor:
        """One look at z and the result, which is not finite if most things before it were not."""
        if self.validate_args and not is_transformed(out):
            bad = (out.isnan() if allow_infinite else ~torch.isfinite(out)).any()
            if bool(bad | ~torch.isfinite(z).all()):  # a saturated network forgets infinity
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


def unit(v: Tensor) -> tuple[Tensor, Tensor]:
    """v [..., d] over 2^e, which is of the order of one, and e [...], no part of any derivative.

    What is homogeneous in v is computed so: squares of 1e-30 or 1e30 are not to be had in single
    precision, nor fourth powers of 1e-10.
    """
    parts = v.detach()
    sizes = torch.maximum(parts.real.abs(), parts.imag.abs()) if v.is_complex() else parts.abs()
    largest = sizes.amax(-1)
    exponent = torch.frexp(largest).exponent
    return by_power_of_two(v, -exponent.unsqueeze(-1)), exponent


def by_power_of_two(x: Tensor, exponent: Tensor) -> Tensor:
    """x 2^e, in two steps, as 2^e itself may be out of range."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    one = torch.ones_like(half, dtype=x.dtype.to_real() if x.is_complex() else x.dtype)
    return x * torch.ldexp(one, half) * torch.ldexp(one, exponent - half)


def require_volume_in_backward(value: Tensor, degenerate: Tensor) -> None:
    """Make it an error to ask for the gradient of a log volume [...] that is -inf."""
    value.register_hook(partial(_require_volume, degenerate))


def _require_volume(degenerate: Tensor, cotangent: Tensor) -> None:
    if bool((degenerate & (cotangent != 0)).any()):
        raise InputError(
            "z: log_volume has no gradient where the metric is degenerate to working precision and "
            "the volume is zero (is a real latent direction without effect?); leave such points "
            "out of the loss"
        )
