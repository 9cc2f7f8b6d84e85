"""Where derivations are found: the shipped ones and any file that a user names.

A derivation file is Python code and is executed: run only files that you trust.
"""

from __future__ import annotations

import importlib.util
import re
import site
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from traceback import extract_tb

from kahler_verify import derivations
from kahler_verify.calculus.derivation import Derivation
from kahler_verify.calculus.pointwise import Pointwise
from kahler_verify.derivations import shipped_folder
from kahler_verify.errors import DerivationError, KahlerVerifyError

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
# What SymPy's sums and products lack, although letters may have it.
NO_ATTRIBUTE = {
    "H": "adjoint(…) from kahler_verify.calculus for the adjoint",
    "T": "adjoint(…) from kahler_verify.calculus for the adjoint (there is no transpose)",
    "mH": "adjoint(…) from kahler_verify.calculus for the adjoint",
    "conj": "conjugate(…) from sympy for the conjugate",
    "real": "re(…) from sympy for the real part",
    "imag": "im(…) from sympy for the imaginary part",
}


def shipped_files() -> list[Path]:
    """The files of shipped derivations, in the order of their folders and names."""
    return sorted(path for path in shipped_folder().rglob("*.py") if path.name[0] != "_")


def shipped_file(name: str) -> Path | None:
    """The shipped file of this name, in whatever folder; None where there is none."""
    return next((path for path in shipped_files() if path.stem == name), None)


def load_file(path: str | Path) -> list[Derivation]:
    """Execute a derivation file and return the derivations at its top level, in order.

    Raises:
        DerivationError: the file is missing, fails, or declares nothing.
    """
    return [each for each in declared(path) if isinstance(each, Derivation)]


def declared(path: str | Path) -> list[Derivation | Pointwise]:
    """Everything that a derivation file declares; see :func:`load_file`.

    What it imports from a shipped file is declared there.
    """
    path = Path(path)
    if not path.is_file():
        raise DerivationError(f"path: expected a derivation file, got {path}, which is not a file")
    name = "_derivation_" + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DerivationError(f"path: expected a Python file (.py), got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    known, writes = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # bytecode of this very second would hide a later edit
    try:
        spec.loader.exec_module(module)
    except KahlerVerifyError as error:
        raise type(error)(_located(path, error)) from error
    except FAILURES as error:
        raise DerivationError(_located(path, error)) from error
    finally:
        sys.dont_write_bytecode = writes
        shipped_ones = _imported_derivations()
        theirs = {id(v) for other in shipped_ones for v in vars(sys.modules[other]).values()}
        for own in {name, *own_modules(set(sys.modules) - known), *shipped_ones}:
            sys.modules.pop(own, None)  # so that it is loaded as it then stands
    found = [v for v in vars(module).values() if isinstance(v, Derivation | Pointwise)]
    found = [v for v in found if id(v) not in theirs]
    unique = list({id(d): d for d in found}.values())
    if not unique:
        raise DerivationError(f"{path}: declares no Derivation at its top level")
    return unique


def _imported_derivations() -> list[str]:
    """The names of loaded modules that are shipped derivations."""
    return [name for name in sys.modules if name.startswith(f"{derivations.__name__}.")]


@cache
def _installations() -> tuple[Path, ...]:
    """Folders of the standard library, of installed distributions and of this package."""
    folders = {sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages(), str(PACKAGE)}
    return tuple(Path(f).resolve() for f in sorted(folders))


@cache
def is_installed(path: str) -> bool:
    """Whether a file belongs to Python, to an installed distribution or to this package."""
    parents = Path(path).resolve().parents
    return any(folder in parents for folder in _installations())


def own_modules(among: Iterable[str]) -> set[str]:
    """Names of loaded modules whose files are a user's."""
    found = set()
    for name in among:
        own = getattr(sys.modules.get(name), "__dict__", {})  # attributes may load what is lazy
        files = [own.get("__file__")]
        if not files[0]:  # built into Python, or a package without a file of its own
            files = [f"{folder}/_" for folder in own.get("__path__") or ()]
        if any(isinstance(f, str) and not is_installed(f) for f in files):
            found.add(name)
    return found


def _located(path: Path, error: Exception) -> str:
    """One line: the file, the line in it that failed, what failed, and what to write instead."""
    own = path.resolve()  # Python reports absolute paths
    lines = [f.lineno for f in extract_tb(error.__traceback__) if Path(f.filename).resolve() == own]
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == own:
        lines.append(error.lineno)
    where = f"{path}, line {lines[-1]}" if lines and lines[-1] else f"{path}"
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    kind = "" if isinstance(error, KahlerVerifyError) else f"{type(error).__name__}: "
    text = f"{where}: {kind}{' '.join(reason.split())}"
    name = error.name if isinstance(error, AttributeError) else None
    if name in NO_ATTRIBUTE:
        text += f": write {NO_ATTRIBUTE[name]} of a sum or a product"
    return text


def shipped_pointwise() -> list[Pointwise]:
    """All shipped families of pointwise functions."""
    return [each for each in _shipped(_stamps()) if isinstance(each, Pointwise)]


def shipped() -> dict[str, Derivation]:
    """All shipped derivations by name, in the order of their files.

    Raises:
        DerivationError: a file fails, or two derivations have one name.
    """
    out: dict[str, Derivation] = {}
    for derivation in _shipped(_stamps()):
        if not isinstance(derivation, Derivation):
            continue
        if derivation.name in out:
            raise DerivationError(f"two derivations are named {derivation.name}")
        out[derivation.name] = derivation
    return out


Stamps = tuple[tuple[Path, int, int], ...]


def _stamps() -> Stamps:
    """What changes when a shipped file does."""
    return tuple(
        (path, (stat := path.stat()).st_mtime_ns, stat.st_size) for path in shipped_files()
    )


@lru_cache(maxsize=1)
def _shipped(stamps: Stamps) -> tuple[Derivation | Pointwise, ...]:
    """What the shipped files declare, executed once: they take a second."""
    return tuple(each for path, *_ in stamps for each in declared(path))
