"""Whether something fits this machine's memory, asked before it is allocated."""

from __future__ import annotations

import os

from kahler_verify.errors import InputError

SHARE = 0.5  # of the memory: what is read or drawn is copied at least once


def memory_limit() -> int:
    """Bytes that one array may take here: half of the memory of the machine, or of the process."""
    limits = []
    try:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # not on this system
        limits.append(16 * 2**30)
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    except ImportError:  # Windows
        pass
    return int(SHARE * min(limits))


def require_memory(name: str, count: int, bytes_each: int) -> None:
    """Make sure that ``count`` things of ``bytes_each`` fit.

    Raises:
        InputError: they do not; the message says how many would.
    """
    most = memory_limit() // max(1, bytes_each)
    if count > most:
        raise InputError(
            f"{name}: expected at most {most} on this machine (its memory holds no more), "
            f"got {count}"
        )
