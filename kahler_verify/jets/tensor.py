"""A tensor that carries its derivatives through whatever torch code it meets."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.rules.expansion import Expansion, Head
from kahler_verify.rules.frame import Record, pairs

__all__ = ["Jet"]


class Jet(Tensor):
    """A value [B, ...] with its derivatives along r directions of the latents.

    It is a ``torch.Tensor`` to whoever asks, and answers every torch function by that function's
    rule (see :mod:`kahler_verify.rules`).

    Along real directions ``d`` and ``dd`` are what they say.  Of complex latents, ``d`` is along
    complex directions v as long as the function is holomorphic, and along v and iv where it is not;
    ``wirtinger`` has ∂ and ∂̄ in either case.
    """

    expansion: Expansion
    _origin: tuple[Jet, Callable[[Tensor], Tensor]] | None  # what this one is a view of, and how
    _views: list[weakref.ref[Jet]]

    @staticmethod
    def __new__(cls, expansion: Expansion) -> Jet:  # noqa: D102  (no __init__ would be reached)
        like = expansion.outside
        jet: Jet = Tensor._make_wrapper_subclass(
            cls, like.shape, dtype=like.dtype, device=like.device
        )
        jet.expansion = expansion
        jet._origin = None
        jet._views = []
        return jet

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        from kahler_verify.jets.dispatch import dispatch

        return dispatch(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise InputError(
            f"expected the module to call torch's functions from Python, but {func} was reached "
            "from compiled code (TorchScript or an extension), where derivatives cannot be followed"
        )

    @property
    def value(self) -> Tensor:
        """[B, ...], as the module computes it."""
        return self.expansion.value

    @property
    def tangents(self) -> Tensor:
        """[r, B, ...]: the first derivatives, directions in front, as they are computed."""
        first = self.expansion.first
        return self._zeros(self.directions) if first is None else first

    @property
    def d(self) -> Tensor:
        """[B, r, ...]: the first derivatives."""
        return self.tangents.movedim(0, 1)

    @property
    def second(self) -> Tensor:
        """[p, B, ...]: second derivatives, a row for each pair i ≤ j (or for each direction)."""
        frame, second = self.expansion.frame, self.expansion.second
        if frame.order < 2:
            raise InputError("expected a jet of order 2: propagate with order=2")
        count = frame.directions
        count = count if frame.second == "along" else count * (count + 1) // 2
        return self._zeros(count) if second is None else second

    @property
    def dd(self) -> Tensor:
        """[B, r, r, ...]: the second derivatives; along each direction by itself [B, r, ...]."""
        frame = self.expansion.frame
        rows = self.second.movedim(0, 1)
        if frame.second == "along":
            return rows
        r = frame.directions
        i, j = pairs(r, rows.device)
        position = torch.empty(r, r, dtype=torch.long, device=rows.device)
        numbers = torch.arange(len(i), device=rows.device)
        position[i, j] = position[j, i] = numbers
        return rows.index_select(1, position.flatten()).unflatten(1, (r, r))

    def wirtinger(self) -> dict[tuple[int, int], Tensor | None]:
        """Derivatives by (how many ∂, how many ∂̄): [B, r, ...] and [B, r, r, ...].

        None where they vanish because the function is holomorphic.  In (1, 1) the first index is
        the holomorphic one.
        """
        frame = self.expansion.frame
        if frame.holomorphic:
            out: dict[tuple[int, int], Tensor | None] = {(1, 0): self.d, (0, 1): None}
            if frame.order == 2:
                out |= {(2, 0): self.dd, (1, 1): None, (0, 2): None}
            return out
        r, odd = divmod(frame.directions, 2)
        if odd or frame.second == "along":
            raise InputError(
                "expected derivatives along v and iv: propagate complex z without along"
            )
        x, y = self.d[:, :r], self.d[:, r:]
        out = {(1, 0): (x - 1j * y) / 2, (0, 1): (x + 1j * y) / 2}
        if frame.order == 2:
            dd = self.dd
            xx, xy, yx, yy = dd[:, :r, :r], dd[:, :r, r:], dd[:, r:, :r], dd[:, r:, r:]
            out[2, 0] = (xx - yy - 1j * (xy + yx)) / 4
            out[1, 1] = (xx + yy + 1j * (xy - yx)) / 4
            out[0, 2] = (xx - yy + 1j * (xy + yx)) / 4
        return out

    @property
    def directions(self) -> int:
        """How many directions r there are."""
        return self.expansion.frame.directions

    @property
    def varies(self) -> bool:
        """Is a derivative known not to vanish?"""
        return self.expansion.varies

    @property
    def record(self) -> Record:
        """What was met on the way here and beside it."""
        return self.expansion.frame.record

    @property
    def head(self) -> Head | None:
        """The last linear map h ↦ h Wᵀ + b, where the value came from one (h an expansion)."""
        return self.expansion.head

    def _zeros(self, count: int) -> Tensor:
        like = self.expansion.outside
        return like.new_zeros(()).expand(count, *like.shape)

    def __repr__(self) -> str:  # type: ignore[override]
        frame, value = self.expansion.frame, self.expansion.outside
        kind = "holomorphic " if frame.holomorphic else ""
        text = f"Jet({list(value.shape)}, {value.dtype}, {kind}order {frame.order}"
        text += f", {frame.directions} directions"
        lines = self.record.lines()
        return f"{text})" + (f"  # {'; '.join(lines)}" if lines else "")

    def __format__(self, specification: str) -> str:
        return repr(self)

    def __deepcopy__(self, memo: Any) -> Jet:
        return Jet(self.expansion)
