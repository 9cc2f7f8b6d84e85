"""The independent routes to each number, their comparison, and what they prove."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Certificate": "proofs.certificates",
    "Enclosure": "proofs.enclosures",
    "Mixture": "proofs.potentials",
    "RegionResult": "proofs.regions",
    "certify": "proofs.certificates",
    "enclose_cholesky": "proofs.enclosures",
    "enclose_log_det": "proofs.enclosures",
    "enclose_softmax": "proofs.enclosures",
    "prove_plurisubharmonic": "proofs.regions",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import SymPy and FLINT only when evidence is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
