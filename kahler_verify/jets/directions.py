"""A decoder's derivatives along a few seeded directions, in chunks that fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.jets.differentiation import Mode, differentiate, nested, refusal
from kahler_verify.jets.gaussian_outputs import DecoderFunction, Fields, at_point, evaluate

FIELDS = ("mu", "Sigma")
DIRECTIONS = {1: 3, 2: 2, 3: 2}  # by the order of derivatives
# Numbers held at a time for each derivative of each output, as measured with nested forward mode.
WORKSPACE = 16


class Unsupported(InputError):
    """Torch has no rule for what a mode needs."""


def seeded_normal(like: Tensor, *shape: int, seed: int = 0) -> Tensor:
    """Standard complex normal numbers, the same on every device and in every precision."""
    generator = torch.Generator("cpu").manual_seed(seed)
    pairs = torch.randn(*shape, 2, dtype=torch.float64, device="cpu", generator=generator)
    return torch.view_as_complex(pairs / math.sqrt(2)).to(like)


def size_of(points: Tensor) -> Tensor:
    """The root mean square of each point's coordinates, at least 1."""
    return points.abs().square().mean(-1).sqrt().clamp(min=1)


def tensors_of(fields: Fields) -> tuple[Tensor, ...]:
    """The mean and the covariance's factor, in real coordinates."""
    return tuple(
        torch.view_as_real(field.resolve_conj()) if field.is_complex() else field
        for field in (fields.mu, fields.factor)
    )


class Work:
    """A decoder's derivatives along a few directions at points [P, d], in chunks that fit."""

    def __init__(
        self, decoder: DecoderFunction, points: Tensor, directions: int, memory_budget: int
    ) -> None:
        self.decoder, self.points, self.memory_budget = decoder, points, memory_budget
        d = points.shape[-1]
        lines = seeded_normal(points, min(directions, 2 * d), d)
        self.directions = lines / torch.linalg.vector_norm(lines, dim=-1, keepdim=True)
        with torch.no_grad():
            fields = tensors_of(evaluate(decoder, points[:1]))
        self.bytes = WORKSPACE * sum(field.numel() * field.element_size() for field in fields)

    def chunk(self, order: int) -> int:
        """How many points to differentiate at once; one alone would not show faults of batches."""
        return max(2, self.memory_budget // (self.bytes * len(self.directions) ** order))

    def derivatives(self, points: Tensor, order: int, mode: Mode) -> Sequence[tuple[Tensor, ...]]:
        """Of mean and factor at points [N, d], of orders 0 … ``order``, [N, *field, r, …, r]."""
        if order == 0:
            pieces = [
                tensors_of(evaluate(self.decoder, some)) for some in points.split(self.chunk(0))
            ]
            return [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]

        def at(z: Tensor) -> tuple[tuple[Tensor, ...], ...]:
            def value(s: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
                step = torch.complex(s @ self.directions.real, s @ self.directions.imag)
                return tensors_of(at_point(self.decoder, z + step)), s

            zero = torch.zeros(len(self.directions), dtype=z.real.dtype, device=z.device)
            return nested(value, order, mode)(zero)[0]

        size = self.chunk(order)
        found = _differentiated(lambda: torch.vmap(at, chunk_size=size)(points), order)
        return [tuple(level) for level in found]

    def gradients(self, weights: tuple[Tensor, ...]) -> Tensor:
        """Of the weighted sum of mean and factor along the directions [P, r], in reverse mode."""

        def at(z: Tensor) -> Tensor:
            def total(s: Tensor) -> Tensor:
                step = torch.complex(s @ self.directions.real, s @ self.directions.imag)
                fields = tensors_of(at_point(self.decoder, z + step))
                sums = [(w * f).sum() for w, f in zip(weights, fields, strict=True)]
                return sums[0] + sums[1]

            zero = torch.zeros(len(self.directions), dtype=z.real.dtype, device=z.device)
            return torch.func.jacrev(total)(zero)

        found: Tensor = _differentiated(lambda: torch.vmap(at)(self.points), 1)
        return found


def _differentiated(compute: Callable[[], Any], order: int) -> Any:
    try:
        return differentiate(compute)
    except (NotImplementedError, RuntimeError) as error:
        raise Unsupported(str(refusal(error, order))) from error
