"""Where derivations are found: the shipped ones and any file that a user names.

A derivation file is Python code and is executed: run only files that you trust.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from traceback import extract_tb

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.calculus.pointwise import Pointwise
from kahler_verify.errors import DerivationError

PACKAGE = Path(__file__).resolve().parent.parent
KERNELS = PACKAGE / "kernels"
FAILURES = (  # what a mistake in a user's file raises; interrupts and exits pass
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def shipped_folder() -> Path:
    """The folder of shipped derivations: in the wheel, or at the top of a checkout."""
    for folder in (PACKAGE / "_derivations", PACKAGE.parent / "derivations"):
        if folder.is_dir():
            return folder
    raise DerivationError("the shipped derivations are missing from this installation")


def load_file(path: str | Path) -> list[Derivation]:
    """Execute a derivation file and return the derivations at its top level, in order.

    Raises:
        DerivationError: the file is missing, fails, or declares nothing.
    """
    return [each for each in declared(path) if isinstance(each, Derivation)]


def declared(path: str | Path) -> list[Derivation | Pointwise]:
    """Everything that a derivation file declares; see :func:`load_file`."""
    path = Path(path)
    if not path.is_file():
        raise DerivationError(f"path: expected a derivation file, got {path}, which is not a file")
    name = f"_derivation_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DerivationError(f"path: expected a Python file (.py), got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except FAILURES as error:
        inside = [f for f in extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f", line {inside[-1].lineno}" if inside else ""
        raise DerivationError(f"{path}{line}: {type(error).__name__}: {error}") from error
    finally:
        sys.modules.pop(name, None)
    found = [v for v in vars(module).values() if isinstance(v, Derivation | Pointwise)]
    unique = list({id(d): d for d in found}.values())
    if not unique:
        raise DerivationError(f"{path}: declares no Derivation at its top level")
    return unique


def shipped_pointwise() -> list[Pointwise]:
    """All shipped families of pointwise functions."""
    found = [each for path in sorted(shipped_folder().glob("[!_]*.py")) for each in declared(path)]
    return [each for each in found if isinstance(each, Pointwise)]


def shipped() -> dict[str, Derivation]:
    """All shipped derivations by name, in the order of their files."""
    out: dict[str, Derivation] = {}
    for path in sorted(shipped_folder().glob("[!_]*.py")):
        for derivation in load_file(path):
            if derivation.name in out:
                raise DerivationError(f"two derivations are named {derivation.name}")
            out[derivation.name] = derivation
    return out
