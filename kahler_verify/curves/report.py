"""How the search of each curve ended, and how good the curve is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import CurveError


class Status(IntEnum):
    """How a search ended."""

    MINIMUM = 0
    SADDLE = 1
    NOT_CONVERGED = 2
    LEFT_DOMAIN = 3


_WORDS = {
    Status.SADDLE: "ended at a saddle of the energy, not at a minimum",
    Status.NOT_CONVERGED: "did not converge",
    Status.LEFT_DOMAIN: "left the domain where the metric is finite and positive definite",
}


@dataclass(frozen=True)
class CurveReport:
    """Each attribute is a tensor over the batch of pairs.

    Attributes:
        status: a :class:`Status` as an integer.
        length: by quadrature along the curve.
        energy: ½ ∫ g(ż, ż) dt by the same quadrature; length² ≤ 2 energy.
        gap: estimate of how much longer the curve is than the exact geodesic nearby, relative: a
            quarter of the Newton decrement over the energy, one level finer.  An estimate.
        residual: the largest |∇_ż ż| over the length, at quadrature points; 0 for a geodesic.
        speed_variation: (largest - smallest speed)/length.
        agreeing: how many starts led to a curve of this energy.
        starts: how many starts there were.
        morse_index: negative eigenvalues of the energy's second derivative; -1 where unknown.
        iterations: Newton steps, over all levels.
        evaluations: points at which the metric was asked for, its derivatives mostly with it.
        lower: bound of the distance, NaN where none was asked for; see
            :func:`~kahler_verify.curves.proved.bounds`, which says what is proved.
        upper: as lower.
        polished: whether it was found in float32 and then refined in float64.
    """

    status: Tensor
    length: Tensor
    energy: Tensor
    gap: Tensor
    residual: Tensor
    speed_variation: Tensor
    agreeing: Tensor
    starts: Tensor
    morse_index: Tensor
    iterations: Tensor
    evaluations: Tensor
    lower: Tensor
    upper: Tensor
    polished: Tensor

    @property
    def converged(self) -> Tensor:
        """Where a minimum was found."""
        return self.status == Status.MINIMUM

    def reshape(self, *shape: int) -> CurveReport:
        """The same report over a batch of another shape."""
        return CurveReport(*[getattr(self, f.name).reshape(shape) for f in fields(self)])

    def with_status(self, status: Tensor) -> CurveReport:
        """Another status, with NaN for what a curve that was not found does not have."""
        lost = status >= Status.NOT_CONVERGED
        nan = {
            name: torch.where(lost, torch.nan, getattr(self, name))
            for name in ("length", "energy", "residual", "speed_variation")
        }
        index = torch.where(lost, -1, self.morse_index)
        return replace(self, status=status, morse_index=index, **nan)

    def to_json(self) -> dict[str, Any]:
        """Numbers, or lists of them, by the attributes' names; infinity and NaN as they are."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    def require(self) -> None:
        """Raise unless every pair ended at a minimum.

        Raises:
            CurveError: with the report; the message counts the pairs and names the first.
        """
        bad = ~self.converged.reshape(-1)
        if not bool(bad.any()):
            return
        first = int(bad.nonzero()[0])
        status = self.status.reshape(-1)
        said = []
        for kind, words in _WORDS.items():
            number = int((status == kind).sum())
            if number:
                said.append(f"{number} {words}")
        gap = float(self.gap.reshape(-1)[first])
        raise CurveError(
            f"{int(bad.sum())} of {bad.numel()} curves were not found: {'; '.join(said)} (pair "
            f"{first} is the first, with an estimated gap of {gap:.2g}); with "
            "raise_on_failure=False their lengths are NaN and the report says which",
            self,
        )
