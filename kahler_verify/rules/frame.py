"""Which derivatives are carried through a module, and what was met on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Frame", "Record", "pairs"]

SecondOrder = Literal["none", "along", "all"]


@dataclass
class Record:
    """What a propagation met that its reader should know of.

    Attributes:
        autograd: calls that no rule knows, differentiated by nested autograd of that call alone.
        kinks: calls that are not smooth everywhere, with the highest k for which they are C^k; -1
            stands for jumps.
        stopped: calls that leave tensors behind whose derivatives are taken to be 0 (detach, item).
        branches: calls whose outcome Python code may have branched on.
        opaque_gradients: calls under ``no_grad`` while gradients were wanted: derivatives by z are
            right, and the weights get no gradient from there.
        gradients_wanted: were gradients enabled when the propagation began?
    """

    autograd: Counter[str] = field(default_factory=Counter)
    kinks: dict[str, int] = field(default_factory=dict)
    stopped: Counter[str] = field(default_factory=Counter)
    branches: Counter[str] = field(default_factory=Counter)
    opaque_gradients: Counter[str] = field(default_factory=Counter)
    gradients_wanted: bool = False

    def kink(self, name: str, smoothness: int) -> None:
        """Note a call that is C^smoothness only."""
        self.kinks[name] = min(smoothness, self.kinks.get(name, smoothness))

    def smooth_to(self, order: int) -> bool:
        """Is nothing known that stands against the function being C^order?"""
        return all(smoothness >= order for smoothness in self.kinks.values())

    def lines(self) -> list[str]:
        """The same for a report, a line for each kind that was met."""
        out = [f"{name}: {_smoothness(k)}" for name, k in sorted(self.kinks.items())]
        for counts, what in (
            (self.autograd, "differentiated by autograd"),
            (self.stopped, "derivatives end there, as in autograd"),
            (self.branches, "Python code may branch on it"),
            (self.opaque_gradients, "under no_grad: no gradients for weights"),
        ):
            out += [f"{name} ({count}x): {what}" for name, count in sorted(counts.items())]
        return out


def _smoothness(k: int) -> str:
    return "jumps" if k < 0 else "has kinks (C⁰)" if k == 0 else f"is C{'¹²³'[k - 1]} only"


@dataclass(frozen=True)
class Frame:
    """Which derivatives are carried.

    Attributes:
        directions: r.
        second: no second derivatives, those along each direction by itself, or those of all pairs.
        holomorphic: directions are complex: everything so far is holomorphic.
        record: what was met on the way, shared by all of one propagation.
    """

    directions: int
    second: SecondOrder
    holomorphic: bool
    record: Record = field(compare=False)

    @property
    def order(self) -> int:
        """1 or 2."""
        return 1 if self.second == "none" else 2

    def pair_up(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of first derivatives, so that row k of both belongs to the k-th pair."""
        if self.second == "along":
            return rows, rows
        i, j = pairs(self.directions, rows.device)
        return rows.index_select(0, i), rows.index_select(0, j)

    def real(self) -> Frame:
        """Two real directions v, iv for each complex one."""
        return replace(self, directions=2 * self.directions, holomorphic=False)


def pairs(r: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pairs i ≤ j < r."""
    with torch.inference_mode(False):
        return _pairs(r, device)


@cache
def _pairs(r: int, device: torch.device) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(r, r, device=device)
    return i, j
