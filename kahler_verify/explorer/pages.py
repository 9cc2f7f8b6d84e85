"""The files that pages are made of."""

from __future__ import annotations

from importlib.resources import files


def asset(name: str) -> str:
    """The text of one of them."""
    return (files("kahler_verify.explorer") / "page" / name).read_text(encoding="utf-8")
