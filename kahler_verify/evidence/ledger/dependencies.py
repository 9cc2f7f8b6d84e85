"""What a derivation file is made of: every file that is read while it is loaded and judged.

Helper modules stand beside the file, in packages, or anywhere on Python's path, and may be imported
inside functions; definitions may also be read from data.  So what is opened is observed, instead of
guessed from the text.  Installed distributions, the standard library and this package are left out.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any

from kahler_verify.codegen.registry import is_installed, own_modules

SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_watching: list[Reads] = []
_installed_hook = False


@dataclass
class Reads:
    """Files opened for reading since :func:`watched` began.

    Attributes:
        opened: their absolute paths, of any kind.
        loaded: names at the top of Python's modules that were there before, and that no installed
            distribution has: what they hold may be older than their files.
    """

    opened: set[str] = field(default_factory=set)
    loaded: frozenset[str] = frozenset()

    @property
    def files(self) -> set[Path]:
        """Sources and data, with compiled modules as their sources."""
        found = set()
        for name in sorted(self.opened):
            path = Path(name)
            if name.startswith(SYSTEM) or is_installed(name):
                continue
            if path.suffix == ".pyc" and path.parent.name == "__pycache__":
                source = Path(source_from_cache(name))
                path = source if source.is_file() else path
            if path.is_file():
                found.add(path.resolve())
        return found

    @property
    def certain(self) -> bool:
        """Whether no module that these files import was loaded before, from what it was then."""
        imported = set().union(*[_imported(p) for p in self.files if p.suffix == ".py"])
        return not self.loaded & imported and not (self.loaded and "importlib" in imported)


def _imported(path: Path) -> set[str]:
    """Names at the top of the modules that a file imports anywhere in it; "importlib" for any."""
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {"importlib"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Name) and node.id in ("__import__", "exec", "eval"):
            names.add("importlib")
    return names


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", "import"):
        return
    path = arguments[0] if event == "open" else arguments[1]  # of an extension module
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        return
    if isinstance(path, str | bytes | os.PathLike):
        try:
            absolute = str(Path.cwd() / os.fsdecode(path))
        except OSError:  # the working directory is gone: only absolute paths can be opened
            absolute = os.fsdecode(path)
        for reads in _watching:
            reads.opened.add(absolute)


@contextmanager
def watched() -> Iterator[Reads]:
    """Observe which files are opened for reading."""
    global _installed_hook
    if not _installed_hook:  # Python cannot take a hook away
        sys.addaudithook(_hook)
        _installed_hook = True
    reads = Reads(
        loaded=frozenset(n.partition(".")[0] for n in own_modules(list(sys.modules))) - {"__main__"}
    )
    _watching.append(reads)
    try:
        yield reads
    finally:
        _watching[:] = [r for r in _watching if r is not reads]


__all__ = ["Reads", "watched"]
