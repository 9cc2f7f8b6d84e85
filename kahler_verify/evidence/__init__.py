"""The independent routes to each number, their comparison, and what they prove."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Certificate": "certificates",
    "Enclosure": "certificates",
    "Mixture": "regions",
    "RegionResult": "regions",
    "certify": "certificates",
    "enclose_cholesky": "certificates",
    "enclose_log_det": "certificates",
    "enclose_softmax": "certificates",
    "prove_plurisubharmonic": "regions",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import SymPy and FLINT only when evidence is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
