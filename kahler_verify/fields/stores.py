"""Zarr stores of which each chunk is there whole, with a checksum, or not at all.

A store is made beside its name and renamed when it is complete but for its chunks; of several that
are made at one time the first stays.  Zarr writes a chunk in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kahler_verify.errors import InputError
from kahler_verify.fields.layout import Layout
from kahler_verify.fields.work import State

if TYPE_CHECKING:
    import zarr

KEY = "kahler_verify"  # of the attributes that say what a store is
METADATA = "zarr.json"


@dataclass(frozen=True)
class Variable:
    """An array of a store, of which each task owns one block.

    Attributes:
        name: of the array.
        layout: of its first axes, which are cut.
        dims: names of all axes.
        dtype: of its numbers.
        own: the size of axes behind those that are cut.
        attributes: for readers.
        compressed: whether to compress it, which numbers without structure hardly gain from.
    """

    name: str
    layout: Layout
    dims: tuple[str, ...]
    dtype: str
    own: tuple[int, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    compressed: bool = True


def zarr_library() -> Any:
    """Zarr, which is an extra.

    Raises:
        InputError: it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise InputError(
            "zarr: fields need the extra of that name: pip install 'kahler-verify[fields]'"
        ) from error
    return zarr


def fingerprint(plan: Mapping[str, Any]) -> str:
    """A hash of a plan."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def require_store(
    path: Path,
    plan: Mapping[str, Any],
    variables: list[Variable],
    coordinates: Mapping[str, tuple[tuple[str, ...], np.ndarray, Mapping[str, Any]]],
    attributes: Mapping[str, Any],
) -> bool:
    """A store of this plan at ``path``: the one that is there, or a new one.

    Args:
        path: of the store.
        plan: everything that its numbers depend on, as JSON.
        variables: arrays without chunks.
        coordinates: arrays that are written at once, by name: dims, values, attributes.
        attributes: of the group, for readers.

    Returns:
        Whether it was there.

    Raises:
        InputError: there is something else, or nothing can be written.
    """
    if path.exists() or path.is_symlink():
        require_same(path, plan)
        return True
    draft = path.with_name(f".{path.name[:200]}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(draft, plan, variables, coordinates, attributes)
            draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        if path.exists():  # another was quicker
            require_same(path, plan)
            return True
        raise InputError(f"out: cannot write {path}: {error.strerror or error}") from error
    return False


def _write(
    draft: Path,
    plan: Mapping[str, Any],
    variables: list[Variable],
    coordinates: Mapping[str, tuple[tuple[str, ...], np.ndarray, Mapping[str, Any]]],
    attributes: Mapping[str, Any],
) -> None:
    zarr = zarr_library()
    from zarr.codecs import Crc32cCodec, ZstdCodec

    mark = {"fingerprint": fingerprint(plan), "plan": plan}
    group = zarr.open_group(draft, mode="w", attributes={**attributes, KEY: mark})
    for each in variables:
        _create(group, each)
    for name, (dims, values, own) in coordinates.items():
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=tuple(min(n, 2**20) or 1 for n in values.shape),
            dtype=values.dtype,
            dimension_names=dims,
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            attributes=dict(own),
        )
        array[...] = values
    with warnings.catch_warnings():  # xarray looks for it; zarr says that the format has none yet
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(draft)


def add_variables(path: Path, variables: list[Variable]) -> None:
    """Make room in a store for more arrays, where there is none yet."""
    group = opened(path)
    for each in variables:
        with suppress(zarr_library().errors.ContainsArrayError):
            _create(group, each)


def _create(group: zarr.Group, each: Variable) -> None:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    missing = complex(np.nan, np.nan) if each.dtype.startswith("c") else np.nan
    group.create_array(
        each.name,
        shape=(*each.layout.shape, *each.own),
        chunks=(*each.layout.chunks, *each.own),
        shards=each.layout.shards and (*each.layout.shards, *each.own),
        dtype=each.dtype,
        fill_value=missing if each.dtype[0] in "cf" else -1,
        dimension_names=each.dims,
        compressors=[ZstdCodec(level=1), Crc32cCodec()] if each.compressed else [Crc32cCodec()],
        attributes=dict(each.attributes),
        config={"write_empty_chunks": True},  # else what is all NaN would look undone
    )


def marked(path: Path) -> dict[str, Any]:
    """What a store says of itself: ``plan`` and ``fingerprint``.

    Raises:
        InputError: it is no store of ours.
    """
    try:
        found = json.loads((path / METADATA).read_text(encoding="utf-8"))["attributes"][KEY]
        if fingerprint(found["plan"]) == found["fingerprint"]:
            return dict(found)
    except FileNotFoundError as error:
        if not path.exists():
            raise InputError(f"store: expected a field at {path}, but there is nothing") from error
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"store: expected a field at {path}, but it is something else")


def require_same(path: Path, plan: Mapping[str, Any]) -> None:
    """Refuse what is at ``path``, unless it is of this plan.

    Raises:
        InputError: it is something else; the message says what differs.
    """
    try:
        found = marked(path)["plan"]
    except InputError as error:
        raise InputError(
            f"out: expected a new path or the same field begun before, but {path} is something "
            "else; give another path, or remove it"
        ) from error
    if found.get("kind") != plan.get("kind"):
        raise InputError(
            f"out: expected a store of kind {plan.get('kind')}, but {path} is one of kind "
            f"{found.get('kind')}; give another path, or remove it"
        )
    apart = sorted(differences(found, plan), key=lambda line: "chunk" in line)  # which follows
    if apart:
        raise InputError(
            f"out: {path} holds another field: {'; '.join(apart[:3])}; give another path, or "
            "remove it"
        )


def differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """What differs between two plans, in words; a probe may differ in its last digits."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted(set(found) | set(wanted))
        return [
            line
            for key in keys
            for line in differences(found.get(key), wanted.get(key), f"{name} {key}".strip())
        ]
    if name.endswith("probe") and None not in (found, wanted):
        same = abs(found - wanted) <= 1e-4 * abs(wanted)
    else:
        same = json.dumps(found) == json.dumps(wanted)
    return [] if same else [f"{name} {_short(found)}, not {_short(wanted)}"]


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:21] + "..."


# ------------------------------------------------------------- chunks
def opened(path: Path, mode: str = "r+") -> zarr.Group:
    """The store.

    Raises:
        FileNotFoundError: it has vanished, or was never there.
    """
    if not (path / METADATA).is_file():
        raise FileNotFoundError(2, "the store has vanished", str(path))
    group: zarr.Group = zarr_library().open_group(path, mode=mode, use_consolidated=False)
    return group


def chunk_file(path: Path, variable: Variable, task: int) -> Path:
    """Where a task's block of a variable is."""
    index = (*variable.layout.index(task), *(0 for _ in variable.own))
    return path.joinpath(variable.name, "c", *map(str, index))


def state_of(path: Path, group: zarr.Group, variables: list[Variable], task: int) -> State:
    """Of a task's blocks: whole where all are there and their checksums hold; else all go."""
    places = [chunk_file(path, each, task) for each in variables]
    there = [place.is_file() for place in places]
    if not there[-1]:  # which is written last
        return State.ABSENT
    damaged = not all(there)
    for each in [] if damaged else variables:
        try:
            group[each.name][each.layout.slices(task)]  # type: ignore[index]
        except Exception:  # noqa: BLE001 - whatever codecs raise of damaged bytes
            damaged = True
    if not damaged:
        return State.WHOLE
    remove_block(path, variables, task)
    return State.DAMAGED


def remove_block(path: Path, variables: list[Variable], task: int) -> None:
    """Remove what is there of a task, the last first: what is left is not taken for whole."""
    for each in reversed(variables):
        with suppress(FileNotFoundError):
            chunk_file(path, each, task).unlink()


def write_block(
    path: Path, group: zarr.Group, variable: Variable, task: int, values: np.ndarray
) -> None:
    """Write a block whole.

    Raises:
        OSError: the disk is full or read-only, or the store has vanished; nothing is half-written.
    """
    mark, gone = path / METADATA, FileNotFoundError(2, "the store has vanished", str(path))
    if not mark.is_file():
        raise gone
    group[variable.name][variable.layout.slices(task)] = values  # type: ignore[index]
    if not mark.is_file():  # meanwhile: its folders were made anew
        place = chunk_file(path, variable, task)
        place.unlink(missing_ok=True)
        for folder in takewhile(lambda each: each != path.parent, place.parents):
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise gone


def remove_drafts(path: Path) -> None:
    """Of writers that were killed.  Only where nobody writes any more."""
    for draft in path.rglob("*.partial"):
        with suppress(OSError):
            draft.unlink()
