"""What a law is: a statement, the kernels that it speaks of, and a check on a random trial.

The laws themselves live in the files beside this one; what they share is here: the trial that they
draw from, the comparison of two results, and the registering decorator.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sympy import Symbol
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.errors import PropertyViolation
from kahler_verify.evidence.numbers.domains import double, point_inside, point_towards_edge
from kahler_verify.evidence.numbers.readings import coordinate_of, fields_of, is_real_latent
from kahler_verify.evidence.numbers.samples import Sample, draw
from kahler_verify.running.kernel_set import KernelSet

TOLERANCE = 1e-7  # relative; a wrong formula is off by far more, rounding by far less


@dataclass
class Trial:
    """One random check: what is tested, the random source, and the sizes d, n and K."""

    derivation: Derivation
    kernel: Kernel
    kernels: KernelSet
    rng: random.Random
    sizes: Mapping[str, int]
    geometry: KernelSet = field(default_factory=lambda: KernelSet("hermitian_geometry"))

    def __post_init__(self) -> None:
        if self.derivation.coordinates:
            self.sizes = {**self.sizes, "d": len(self.derivation.coordinates)}

    @property
    def d(self) -> int:
        """The dimension of the latent space."""
        return self.sizes["d"]

    def size(self, dimension: Symbol) -> int:
        """The size of a dimension, of whatever name, as ``draw`` takes it."""
        return self.sizes.get(dimension.name, self.sizes["n"])

    @property
    def has_real_latents(self) -> bool:
        """Whether the kernel is about real coordinates."""
        return is_real_latent(self.kernel)

    @property
    def has_real_fields(self) -> bool:
        """Whether all its letters are real."""
        return all("real" in f.traits for f in fields_of(self.kernel))

    @property
    def is_real(self) -> bool:
        """Whether its tensors are real ones."""
        return self.has_real_latents and self.has_real_fields

    def numbers(self, *shape: int) -> Tensor:
        """Complex normal numbers, E|x|² = 2; their real parts where tensors are real."""
        flat = [double.draw(self.rng) for _ in range(math.prod(shape))]
        return self.typed(torch.tensor(flat, dtype=torch.complex128).reshape(shape))

    def typed(self, x: Tensor) -> Tensor:
        """A complex tensor in the dtype of the kernel's."""
        return x.real.clone() if self.is_real else x

    def unitary(self, n: int, *, real: bool = False) -> Tensor:
        """A random unitary matrix, or an orthogonal one."""
        numbers = self.numbers(n, n)
        turn = torch.linalg.qr(numbers.real if real else numbers)[0]
        return turn.to(numbers.dtype)

    def invertible(self, n: int, *, real: bool = False) -> Tensor:
        """A random matrix of modest condition."""
        stretch = self.numbers(n, n)
        stretch = stretch.real.to(stretch.dtype) if real else stretch
        return self.unitary(n, real=real) @ (torch.eye(n) + 0.3 * stretch / (2 * n))

    def draw(self, **sizes: int) -> dict[str, Tensor]:
        """The kernel's inputs at one random point of the domain."""
        sample = draw(self.kernel, double, self.rng, {**self.sizes, **sizes})
        tensors = {n: self.typed(tensor_of(values)) for n, values in sample.tensors.items()}
        if coordinate_of(self.derivation) is not None or self.derivation.coordinates:
            tensors["z"] = self.point(sample)
        return tensors

    def point(self, sample: Sample, reach: float | None = None) -> Tensor:
        """A point z [d] of the domain; ``reach`` in (0, 1) asks for that part of its radius."""
        where = self.derivation, sample.point, self.rng, self.d
        found = point_inside(*where) if reach is None else point_towards_edge(*where, reach)
        return torch.tensor(found, dtype=torch.complex128)

    def extent(self, i: Symbol) -> int:
        """How many values an index takes."""
        size = getattr(i, "size", None)
        return self.d if size in (None, self.derivation.latent) else self.size(size)

    def call(self, tensors: Mapping[str, Tensor], batch: tuple[int, ...] = ()) -> dict[str, Tensor]:
        """The results by name, each [*batch, d, …] (a constant kernel leaves batches out)."""
        out = self.kernels.call(self.kernel.name, tensors)
        results = out if isinstance(out, tuple) else (out,)
        return {
            name: value.expand((*batch, *[self.extent(i) for i in output.indices]))
            for (name, output), value in zip(self.kernel.outputs.items(), results, strict=True)
        }


def tensor_of(values: Any) -> Tensor:
    """An object array of numbers as complex128."""
    flat = [complex(x) for x in np.asarray(values, dtype=object).ravel()]
    return torch.tensor(flat, dtype=torch.complex128).reshape(np.shape(values))


Check = Callable[[Trial], None]


class DoesNotApply(Exception):
    """A law about positive metrics met a derivation that has none and claims none."""


@dataclass(frozen=True)
class Law:
    """A law: one sentence, the kernels of a derivation that it speaks of, and its check."""

    name: str
    statement: str
    applies: Callable[[Derivation, Kernel], bool]
    check: Check


def register(
    laws: dict[str, Law], statement: str, applies: Callable[[Derivation, Kernel], bool]
) -> Callable[[Check], Check]:
    """Add the check that this decorates to ``laws``, under its own name."""

    def registered(check: Check) -> Check:
        laws[check.__name__] = Law(check.__name__, statement, applies, check)
        return check

    return registered


def agree(
    got: Tensor, expected: Tensor, what: str, *, tolerance: float = TOLERANCE, floor: float = 1e-3
) -> None:
    """Compare two results relative to the largest entry."""
    got, expected = torch.as_tensor(got), torch.as_tensor(expected)
    if got.shape != expected.shape:
        raise PropertyViolation(f"{what}: shapes {list(got.shape)} and {list(expected.shape)}")
    if not got.numel():
        return
    scale = max(float(expected.abs().max()), floor)
    error = float((got - expected).abs().max())
    if not error <= tolerance * scale:
        raise PropertyViolation(
            f"{what} differ by {error:.3g}, where the largest entry is {scale:.3g} "
            f"(allowed: {tolerance:.1g} of it)"
        )
