"""Claims judged by evidence."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Cache": "cache",
    "Item": "items",
    "Judgement": "items",
    "Ledger": "items",
    "judge": "claims",
    "kernel_items": "kernels",
    "prove": "proving",
    "write_evidence": "writing",
    "write_ledger": "writing",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import what judges only when it is asked for: records alone are cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
