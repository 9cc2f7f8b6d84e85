"""Writing files: whole or not at all, and never in the place of what is no regular file.

A regular file is written beside its name and then renamed, so that what stands under a name is
whole.  Symbolic links are followed.  Devices, pipes and sockets (``/dev/stdout``) are written in
place, and ``-`` is standard output: none of them is ever replaced by a file.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kahler_verify.errors import InputError

STANDARD_OUTPUT = "-"


def is_standard_output(path: str | Path | None) -> bool:
    """Whether ``path`` is ``-``, or another name of standard output, such as ``/dev/stdout``."""
    if path is None or str(path) == STANDARD_OUTPUT:
        return path is not None
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))  # noqa: PTH116
    except (OSError, ValueError, AttributeError):  # no such file, or no real standard output
        return False


def _is_special(path: str | Path) -> bool:
    """Whether ``path``, with links followed, is a device, a pipe or a socket."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8.

    Raises:
        OSError: the file cannot be written; what was under its name is as before.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content``; see the module's text for what is replaced and what is written in place.

    Raises:
        OSError: the file cannot be written; what was under its name is as before.
    """
    write_with(path, lambda place: place.write_bytes(content))


def write_with(path: str | Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a new file, which then gets the name ``path``.

    Raises:
        OSError: the file cannot be written; what was under its name is as before.
    """
    if is_standard_output(path):
        sys.stdout.flush()
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "output"
            write(draft)
            sys.stdout.buffer.write(draft.read_bytes())
        sys.stdout.buffer.flush()
        return
    if _is_special(path):
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "output"
            write(draft)
            with Path(path).open("wb") as device:
                device.write(draft.read_bytes())
        return
    place = Path(path).resolve()  # of a link, what it points to
    if place.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file")
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{place.name[:200]}.", dir=place.parent)
    os.close(handle)
    draft = Path(name)
    try:
        write(draft)
        draft.chmod(_mode(place))
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


def _mode(place: Path) -> int:
    """The mode of the file that is replaced, or of a new one; mkstemp's files are private."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(place.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def require_writable(name: str, path: str | Path | None, ending: str = "") -> None:
    """Make sure, before long work, that its result can be written to ``path``.

    Args:
        name: of the argument, for the message.
        path: where the result will go; None, where there is none.
        ending: that a file's name has, of a result that is of one kind only.

    Raises:
        InputError: it is a folder, its folder cannot be made, or it must not be written; or it has
            the name of something else.
    """
    if path is None or is_standard_output(path):
        return
    if not str(path) or "\0" in str(path):
        raise InputError(f"{name}: expected the path of a file to write, got {str(path)!r}")
    try:
        if _is_special(path):
            if not os.access(path, os.W_OK):
                raise InputError(
                    f"{name}: expected a file to write, but {path} must not be written"
                )
            return
        place = Path(path).resolve()
        if place.is_dir():
            raise InputError(f"{name}: expected a file to write, but {path} is a folder")
        if ending and Path(path).suffix.lower() not in (ending, ""):
            raise InputError(f"{name}: expected the name of a {ending} file, got {path}")
        folder = place.parent
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        if not folder.is_dir():
            raise InputError(
                f"{name}: expected a file to write, but {folder} on the way to {path} is no folder"
            )
        # a file is made, and removed: only this sees read-only disks, quotas and odd names
        handle, draft = tempfile.mkstemp(prefix=f".{place.name[:200]}.", dir=folder)
        os.close(handle)
        Path(draft).unlink()
        if len(os.fsencode(place.name)) > 255:  # what common file systems take
            raise InputError(f"{name}: expected a file name of at most 255 bytes, got {path}")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{name}: cannot write {path}: {reason}") from error
    except RuntimeError as error:  # a loop of links
        raise InputError(f"{name}: cannot write {path}: {error}") from error
