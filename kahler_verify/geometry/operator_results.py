"""What a metric as an operator answers, with what it took and how far it may be off."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.quadrature import LogDet

__all__ = ["Measured", "Solved", "TopDirections"]

USEFUL = 1.0  # nats: a log volume that is less certain compares no two points


@dataclass(frozen=True)
class TopDirections:
    """The largest eigenvalues of g with their directions.

    Attributes:
        values: [k], the largest first, in float64.
        directions: [k, d], or [k, *latent shape], orthonormal in coordinates.
        errors: [k], estimated, of the values.
        converged: are they within the tolerance?
        passes: through the decoder.
        how: they were found.
    """

    values: Tensor
    directions: Tensor
    errors: Tensor
    converged: bool
    passes: int
    how: str

    def __repr__(self) -> str:
        sizes = self.values.abs().clamp_min(torch.finfo(self.values.dtype).tiny)
        relative = (self.errors / sizes).max().item()
        end = "" if self.converged else ", not converged"
        return (
            f"TopDirections({len(self.values)} of {list(self.directions.shape[1:])}, largest "
            f"{self.values[0].item():.6g}, errors up to {relative:.1e} of a value{end}; "
            f"{self.how}; {self.passes} passes)"
        )


@dataclass(frozen=True)
class Solved:
    """The solution of (g + ridge) x = b.

    Attributes:
        x: in the shape of b.
        residual: the largest |b - (g + ridge) x| / |b|.
        ridge: what was added to g.
        converged: is the residual within the tolerance?
        passes: through the decoder.
        how: it was found.
    """

    x: Tensor
    residual: float
    ridge: float
    converged: bool
    passes: int
    how: str

    def __repr__(self) -> str:
        end = "" if self.converged else ", not converged"
        return (
            f"Solved({list(self.x.shape)}, residual {self.residual:.1e}, ridge "
            f"{self.ridge:.3g}{end}; {self.how}; {self.passes} passes)"
        )


@dataclass(frozen=True)
class Measured:
    """A number of g.

    Attributes:
        name: what it is.
        value: of it.
        error: of rounding, or half the width of a 95% interval over probes with their bias.
        passes: through the decoder.
        how: it was found.
    """

    name: str
    value: float
    error: float
    passes: int
    how: str
    _probes: LogDet | None = field(default=None, repr=False)

    @property
    def useful(self) -> bool:
        """Is a log volume certain to less than a nat, or another number to a tenth of it?"""
        if self.name.startswith("log volume"):
            return self.error < USEFUL
        return self.error < 0.1 * abs(self.value)

    def minus(self, other: Measured) -> Measured:
        """The difference of log volumes at two points, by common probes where there are such.

        Raises:
            InputError: they are not two log volumes, or are of other probes.
        """
        if not (self.name == other.name == "log volume"):
            raise InputError("other: expected the log volumes of two points")
        name, passes = "log volume difference", self.passes + other.passes
        if self._probes is None or other._probes is None:
            error = self.error + other.error
            return Measured(name, self.value - other.value, error, passes, self.how)
        apart = self._probes.minus(other._probes)
        how = f"{self.how}, common"
        return Measured(name, apart.value / 2, apart.error / 2, passes, how)

    def __repr__(self) -> str:
        end = "" if self.useful else ": useless for comparisons"
        return (
            f"Measured({self.name} {self.value:.6g} ± {self.error:.2g}{end}; {self.how}; "
            f"{self.passes} passes)"
        )
