"""What the ledger holds: pieces of evidence, judgements of claims, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """One piece of evidence: its route, what it looked at, what came out of how many samples."""

    route: str
    what: str
    outcome: str
    passed: bool
    samples: int
    error_log2: float | None = None  # of the probability that this piece is wrong
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict; ``under`` is the A of “holds under A”."""

    id: str
    statement: str
    source: str
    verdict: str
    under: list[str]
    expected: str
    evidence: list[Item]
    seconds: float
    waits_for: str = ""
    command: str = ""  # that measures again


@dataclass(frozen=True)
class Ledger:
    """All judgements, and the kernels that were compared with their definitions.

    ``kernels`` also holds the properties of a user's derivation, the variants of kernels that run,
    and the public methods with the kernels behind them.
    """

    claims: list[Judgement]
    kernels: list[Item]

    @property
    def methods(self) -> list[Item]:
        """Of ``kernels`` the public methods."""
        return [item for item in self.kernels if item.route == METHODS]

    @property
    def passed(self) -> bool:
        """Whether every kernel equals its definition, and whatever else was tried holds."""
        return all(item.passed for item in self.kernels)


METHODS = "observed calls"
