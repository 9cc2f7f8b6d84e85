"""The shipped derivations as a package, so that one may import from another.

``from kahler_verify.derivations.likelihoods.gaussian_kl import KL`` works in a checkout, where the
files stand at the top of the repository, and in an installation, where they travel as package data.
"""

from __future__ import annotations

from pathlib import Path

from kahler_verify.errors import DerivationError

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder() -> Path:
    """The folder of shipped derivations: in the wheel, or at the top of a checkout."""
    for folder in (_PACKAGE / "_derivations", _PACKAGE.parent / "derivations"):
        if folder.is_dir():
            return folder
    raise DerivationError("the shipped derivations are missing from this installation")


__path__ = [str(shipped_folder())]
