"""What all metrics share: validation, chunks under a budget, and the look at results."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.products import is_transformed
from kahler_verify.spaces import Space

MEMORY_BUDGET = 512 * 2**20
# Numbers held at one time for each entry of the largest jet, as measured: without derivatives of
# the metric, and with first and second ones.
WORKSPACE = (12, 20, 20)


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

    @abstractmethod
    def jet(self, z: Tensor, order: int) -> MetricJet:
        """The metric at z [B, d], and its derivatives up to ``order`` (0, 1 or 2)."""

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
        """``compute(z, *vectors)``, of a few points [b, d] at a time."""
        shapes = [x.shape[:-1] for x in (z, *vectors)]
        try:
            batch = torch.broadcast_shapes(*shapes)
        except RuntimeError as error:
            listed = ", ".join(str(list(shape)) for shape in shapes)
            raise InputError(f"expected batch dimensions that broadcast, got {listed}") from error
        size = self._points_at_once(z, order)
        rows = [x.expand(*batch, x.shape[-1]).reshape(-1, x.shape[-1]) for x in (z, *vectors)]
        if math.prod(batch) <= size:
            out = compute(*rows)
            return out.reshape((*batch, *out.shape[1:]))
        chunks = zip(*[x.split(size) for x in rows], strict=True)
        first = compute(*next(chunks))
        if first.requires_grad or is_transformed(first):
            out = torch.cat([first, *[compute(*some) for some in chunks]])
        else:  # pieces kept until the end would take the answer's memory twice, and scatter it
            out = first.new_empty(math.prod(batch), *first.shape[1:])
            out[:size] = first
            for n, some in enumerate(chunks, 1):
                out[n * size : (n + 1) * size] = compute(*some)
        return out.reshape((*batch, *out.shape[1:]))

    # ------------------------------------------------------------- checks
    def _vector(self, name: str, v: Tensor, z: Tensor) -> Tensor:
        """``v``, if it is a tensor of tangent vectors like z."""
        self.space.check(name, v)
        if v.dtype != z.dtype or v.shape[-1] != z.shape[-1] or v.device != z.device:
            raise InputError(
                f"{name}: expected a tensor [..., {z.shape[-1]}] like z ({z.dtype}, {z.device}), "
                f"got {v.dtype} {list(v.shape)} on {v.device}"
            )
        return v

    def _looked_at(
        self, z: Tensor, out: Tensor, *, allow_infinite: bool = False, **vectors: Tensor
    ) -> Tensor:
        """One look at the result, which is not finite if anything before it was not."""
        if not self.validate_args or is_transformed(out):
            return out
        bad = out.isnan() if allow_infinite else ~torch.isfinite(out)
        if bool(bad.any()):
            for name, v in vectors.items():
                if not bool(torch.isfinite(v).all()):
                    raise InputError(f"{name}: expected finite vectors, got NaN or infinities")
            culprit = "z" if not bool(torch.isfinite(z).all()) else "the metric at z"
            raise InputError(f"z: expected finite values, but {culprit} has NaN or infinities")
        return out

    def _require_positive(self, g: Tensor, degenerate: Tensor, quantity: str) -> None:
        if is_transformed(g) or not bool(degenerate.any()):
            return
        if not bool(torch.isfinite(g).all()):
            raise InputError(
                f"z: {quantity} needs finite values, but the metric has NaN or infinities"
            )
        smallest = torch.linalg.eigvalsh(g).min().item()
        raise InputError(
            f"z: {quantity} needs a positive definite metric, but its smallest eigenvalue is "
            f"{smallest:.3g} (is a latent direction without effect, or d larger than the outputs?)"
        )
