"""Types of libraries, by name."""

from __future__ import annotations

from typing import Any

__all__ = ["is_of"]


def is_of(thing: Any, library: str, *names: str) -> bool:
    """Is its type, or a base of it, one of a library's classes of these names (any, by default)?

    Args:
        thing: an object.
        library: the module that the class stands in begins so, ``"diffusers"`` for one.
        names: of classes.
    """
    return any(
        (kind.__module__ == library or kind.__module__.startswith(library + "."))
        and (not names or kind.__name__ in names)
        for kind in type(thing).__mro__
    )
