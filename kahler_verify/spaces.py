"""The spaces that latents live in: R^d or C^d, the latter also as R^{2d}."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kahler_verify.errors import InputError

HALVES = (torch.float16, torch.bfloat16, torch.complex32)  # to be stored, not to compute in


@dataclass(frozen=True)
class Space:
    """R^d, or C^d with the real coordinates (x_1 … x_d, y_1 … y_d) where z = x + iy.

    Attributes:
        complex: C^d rather than R^d.
        dimension: d; None where any will do.
    """

    complex: bool
    dimension: int | None = None

    def __str__(self) -> str:
        return f"{'C' if self.complex else 'R'}^{self.dimension or 'd'}"

    @property
    def real_dimension(self) -> int | None:
        """2d for C^d, and d for R^d; None where any will do."""
        return self.dimension and self.dimension * (2 if self.complex else 1)

    def check(self, name: str, z: Tensor) -> Tensor:
        """``z``, if it is a tensor of points or vectors [..., d] of this space.

        Raises:
            InputError: it is not; the message says what was expected and what came.
        """
        kind = "complex" if self.complex else "real floating-point"
        if not isinstance(z, Tensor):
            raise InputError(f"{name}: expected a {kind} tensor [..., d], got {type(z).__name__}")
        if self.complex != z.is_complex() or not (z.is_complex() or z.is_floating_point()):
            other = "; the latents here are " + ("complex" if self.complex else "real")
            raise InputError(f"{name}: expected a {kind} tensor [..., d], got {z.dtype}{other}")
        if z.dtype in HALVES:
            wanted = "complex64 or complex128" if self.complex else "float32 or float64"
            raise InputError(
                f"{name}: expected {wanted}, got {str(z.dtype).removeprefix('torch.')}"
            )
        if z.ndim == 0 or z.shape[-1] == 0:
            raise InputError(f"{name}: expected shape [..., d] with d ≥ 1, got {list(z.shape)}")
        if self.dimension is not None and z.shape[-1] != self.dimension:
            raise InputError(
                f"{name}: expected shape [..., {self.dimension}] in {self}, got {list(z.shape)}"
            )
        return z

    def to_real(self, z: Tensor) -> Tensor:
        """Real coordinates: (x, y) [..., 2d] of z in C^d, z itself in R^d."""
        return torch.cat([z.real, z.imag], -1) if self.complex else z

    def from_real(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`to_real`."""
        return torch.complex(*x.chunk(2, -1)) if self.complex else x

    def normal(
        self, count: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Standard normal points [count, d]: N(0, I), or CN(0, I) with E|z_a|² = 1.

        Args:
            count: how many.
            generator: on the CPU.
            dtype: of the real coordinates.
        """
        if self.dimension is None:
            raise InputError("normal: expected a space of known dimension")
        kind = dtype.to_complex() if self.complex else dtype
        return torch.randn(count, self.dimension, dtype=kind, generator=generator)

    def log_normal(self, z: Tensor) -> Tensor:
        """The log density of :meth:`normal` at z [..., d] up to a constant, real [...].

        It is -|z|²/2 on R^d, and -|z|² on C^d.
        """
        square = (z * z.conj()).real.sum(-1)
        return -square if self.complex else -square / 2


REAL, COMPLEX = Space(complex=False), Space(complex=True)
