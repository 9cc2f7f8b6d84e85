"""A plane in a latent space, which what is drawn lies over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.spaces import COMPLEX, REAL

Extent = tuple[float, float, float, float]  # left, right, bottom, top, as in matplotlib
MARGIN = 0.08  # of the codes' extent
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def coordinate(index: int) -> str:
    """z₁ for 0."""
    return "z" + str(index + 1).translate(SUBSCRIPTS)


@dataclass(frozen=True)
class Plane:
    """The points origin + s·first + t·second, real s and t.

    Attributes:
        origin: [d], real or complex as the latents are.
        first: direction [d] of s.
        second: direction [d] of t.
        extent: left ≤ s ≤ right and bottom ≤ t ≤ top.
        names: of s and t, for the axes' labels.
    """

    origin: Tensor
    first: Tensor
    second: Tensor
    extent: Extent = (-3.0, 3.0, -3.0, 3.0)
    names: tuple[str, str] = ("s", "t")

    def __post_init__(self) -> None:
        parts = {"origin": self.origin, "first": self.first, "second": self.second}
        for name, x in parts.items():
            (COMPLEX if self.complex else REAL).check(name, x)
            if x.ndim != 1 or x.shape != self.origin.shape:
                raise InputError(f"{name}: expected [d], the same d for all, got {list(x.shape)}")
        left, right, bottom, top = require_extent(self.extent)
        object.__setattr__(self, "extent", (left, right, bottom, top))
        if not bool(torch.linalg.matrix_rank(self._basis) == 2):
            raise InputError("first, second: expected directions that span a plane")

    @staticmethod
    def coordinates(
        dimension: int,
        axes: tuple[int, int] = (0, 1),
        *,
        extent: float | Extent = 3.0,
        origin: Tensor | None = None,
    ) -> Plane:
        """Two coordinates of R^d, the others held at those of ``origin`` (0 by default).

        Args:
            dimension: d ≥ 2.
            axes: the two coordinates, counted from 0.
            extent: a half width, or left, right, bottom and top.
            origin: [d].
        """
        _require_axes(axes, dimension)
        start = torch.zeros(dimension, dtype=torch.float64) if origin is None else origin.clone()
        REAL.check("origin", start)
        if start.shape != (dimension,):
            raise InputError(f"origin: expected [{dimension}], got {list(start.shape)}")
        start[list(axes)] = 0
        first, second = torch.eye(dimension, dtype=start.dtype, device=start.device)[list(axes)]
        names = (coordinate(axes[0]), coordinate(axes[1]))
        return Plane(start, first, second, require_extent(extent), names)

    @staticmethod
    def complex_coordinate(
        dimension: int,
        index: int = 0,
        *,
        extent: float | Extent = 3.0,
        origin: Tensor | None = None,
    ) -> Plane:
        """One coordinate of C^d, real part by imaginary part, the others held at ``origin``'s.

        Args:
            dimension: d ≥ 1.
            index: of the coordinate, counted from 0.
            extent: a half width, or left, right, bottom and top.
            origin: complex [d].
        """
        _require_axes((index,), dimension)
        start = torch.zeros(dimension, dtype=torch.complex128) if origin is None else origin.clone()
        COMPLEX.check("origin", start)
        if start.shape != (dimension,):
            raise InputError(f"origin: expected [{dimension}], got {list(start.shape)}")
        start[index] = 0
        first = torch.eye(dimension, dtype=start.dtype, device=start.device)[index]
        name = coordinate(index)
        return Plane(start, first, 1j * first, require_extent(extent), (f"Re {name}", f"Im {name}"))

    @staticmethod
    def of(codes: Tensor) -> Plane:
        """The plane in which codes vary most, just wide enough for them.

        It is the latent space itself for codes in R² or in C, else that of their mean and of their
        two principal directions.

        Args:
            codes: [N, d] with N ≥ 2, in R^d or in C^d.
        """
        space = COMPLEX if isinstance(codes, Tensor) and codes.is_complex() else REAL
        space.check("codes", codes)
        x = space.to_real(codes.detach())
        if codes.ndim != 2 or len(codes) < 2 or x.shape[1] < 2:
            raise InputError(
                "codes: expected two or more, [N, d], in R^d with d ≥ 2 or in C^d, got "
                f"{list(codes.shape)}"
            )
        if not bool(x.isfinite().all()):
            raise InputError("codes: expected finite ones")
        if x.shape[1] == 2:
            whole = Plane.complex_coordinate(1) if space.complex else Plane.coordinates(2, (0, 1))
            plane = whole.to(codes)
        else:
            mean = x.mean(0)
            first, second = torch.linalg.svd(x - mean, full_matrices=False).Vh[:2]
            names = ("first principal direction", "second principal direction")
            mean, first, second = (space.from_real(v) for v in (mean, first, second))
            plane = Plane(mean, first, second, names=names)
        return plane.around(codes)

    def around(self, codes: Tensor) -> Plane:
        """The same plane with the extent of the shadows of codes [N, d], and a margin."""
        shadow = self.shadow(codes).cpu()
        low, high = shadow.amin(0), shadow.amax(0)
        margin = MARGIN * float((high - low).max().clamp_min(1e-6))
        (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
        return Plane(self.origin, self.first, self.second, (left, right, bottom, top), self.names)

    def to(self, like: Tensor) -> Plane:
        """The same plane in the precision and on the device of a tensor."""
        origin, first, second = (x.to(like) for x in (self.origin, self.first, self.second))
        return Plane(origin, first, second, self.extent, self.names)

    @property
    def complex(self) -> bool:
        """Whether the latents are."""
        return self.origin.is_complex()

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.origin)

    @property
    def _basis(self) -> Tensor:
        return torch.stack([_real(self.first), _real(self.second)], -1)  # [real d, 2]

    def sides(self, resolution: int) -> tuple[Tensor, Tensor]:
        """s and t on a grid of so many points along the longer side, float64."""
        if not isinstance(resolution, int) or resolution < 2:
            raise InputError(f"resolution: expected a whole number ≥ 2, got {resolution!r}")
        left, right, bottom, top = self.extent
        longer = max(right - left, top - bottom)
        numbers = [
            max(2, round((resolution - 1) * side / longer) + 1)
            for side in (right - left, top - bottom)
        ]
        return (
            torch.linspace(left, right, numbers[0], dtype=torch.float64),
            torch.linspace(bottom, top, numbers[1], dtype=torch.float64),
        )

    def grid(self, resolution: int) -> Tensor:
        """Points [rows, columns, d]; rows go up ``second``, columns along ``first``."""
        s, t = self.sides(resolution)
        return self.points(*torch.meshgrid(s, t, indexing="xy"))

    def points(self, s: Tensor, t: Tensor) -> Tensor:
        """origin + s·first + t·second, [..., d]."""
        s, t = (x.to(self.origin).unsqueeze(-1) for x in (s, t))
        return self.origin + s * self.first + t * self.second

    def shadow(self, z: Tensor) -> Tensor:
        """(s, t) [..., 2] of the nearest point of the plane to z, in Euclidean distance.

        Args:
            z: [..., d]; also the real coordinates [..., 2d] of complex latents.
        """
        x = _real(z.detach()).to(self._basis)
        if x.shape[-1] != len(self._basis):
            raise InputError(
                f"z: expected latents of the plane's space, [..., {self.dimension}], got "
                f"{list(z.shape)}"
            )
        return (x - _real(self.origin)) @ torch.linalg.pinv(self._basis).mT

    def restricted(self, g: Tensor) -> Tensor:
        """The matrix [..., 2, 2] of a real metric g [..., real d, real d] on (first, second)."""
        basis = self._basis.to(g)
        return basis.mT @ g @ basis


def _real(z: Tensor) -> Tensor:
    return (COMPLEX if z.is_complex() else REAL).to_real(z)


def _require_axes(axes: tuple[int, ...], dimension: int) -> None:
    if len(set(axes)) < len(axes) or not all(0 <= i < dimension for i in axes):
        raise InputError(
            f"axes: expected distinct coordinates from 0 to {dimension - 1}, got {axes}"
        )


def require_extent(extent: float | Extent) -> Extent:
    """Left, right, bottom and top of a half width, or of themselves.

    Raises:
        InputError: a side is empty or infinite.
    """
    sides = (-extent, extent, -extent, extent) if isinstance(extent, (int, float)) else extent
    try:
        left, right, bottom, top = (float(x) for x in sides)
    except (TypeError, ValueError):
        raise InputError(
            f"extent: expected a half width, or left, right, bottom and top, got {extent!r}"
        ) from None
    if not (left < right and bottom < top and all(map(math.isfinite, (left, right, bottom, top)))):
        raise InputError(f"extent: expected left < right and bottom < top, finite, got {extent!r}")
    return left, right, bottom, top
