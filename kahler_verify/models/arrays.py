"""Reading ``.npy`` and ``.npz`` files that nobody vouches for: no code, no surprise in size.

What a file claims to hold is compared with what it can hold before anything is allocated.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from kahler_verify.errors import InputError
from kahler_verify.memory import memory_limit

# What NumPy and zipfile raise of damaged, foreign, encrypted or hostile files.
FORMAT_ERRORS = (
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    LookupError,
    SyntaxError,
    RuntimeError,  # encrypted; NotImplementedError, of unknown compression, is one
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: Path, key: str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples, and labels where an ``.npz`` has an entry ``y``.

    Args:
        path: of a ``.npy`` file, or of an ``.npz`` with an entry ``x`` (or only one besides ``y``).
        key: the entry of an ``.npz`` to read instead.

    Raises:
        InputError: no such entry, or arrays larger than the file or this machine can hold.
        OSError, FORMAT_ERRORS: the file cannot be read, or is of no such format.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return _array(path, "", file, path.stat().st_size), None
        with zipfile.ZipFile(file) as archive:
            sizes = {
                info.filename.removesuffix(".npy"): info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            chosen = _entry(path, list(sizes), key)

            def read(name: str) -> np.ndarray:
                info = sizes[name]
                with archive.open(info) as member:
                    return _array(path, f", entry {name!r}", member, info.file_size)

            labels = read("y") if "y" in sizes and chosen != "y" else None
            return read(chosen), labels


def _array(path: Path, where: str, file: IO[bytes], size: int) -> np.ndarray:
    """The array at the start of ``file``, which claims to have ``size`` bytes."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"format version {version}")
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size:
        raise InputError(
            f"{path}{where}: expected the {claimed:.3g} bytes of an array of shape {shape}, but it "
            f"has {size}"
        )
    if claimed > memory_limit():
        raise InputError(
            f"{path}{where}: expected at most {memory_limit():.3g} bytes, what the memory of this "
            f"machine can take, but an array of shape {shape} and {dtype} has {claimed:.3g}"
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _entry(path: Path, names: list[str], key: str | None) -> str:
    if key is None:
        others = [name for name in names if name != "y"]
        key = "x" if "x" in names else others[0] if len(others) == 1 else None
        if key is None:
            raise InputError(
                f"{path}: expected an entry 'x', or a single entry besides the labels 'y', "
                f"but it holds {names}; name one with key="
            )
    if key not in names:
        raise InputError(f"{path}: expected an entry {key!r}, but it holds {names}")
    return key
