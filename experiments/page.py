"""A results page: whatever lies between two markers is rewritten.

A block begins with ``<!-- EXPERIMENT NAME -->`` and ends with ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kahler_verify.errors import InputError


def rewrite(path: Path, experiment: str, blocks: Mapping[str, str]) -> None:
    """Rewrite every block of the page.

    Raises:
        InputError: the page lacks a block, or has one that is not known.
    """
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(rf"<!-- {experiment} (\w+) -->", text))
    if found != set(blocks):
        raise InputError(
            f"page: expected the markers {sorted(blocks)} in {path.name}, got {sorted(found)}"
        )
    for name, block in blocks.items():
        text = re.sub(
            rf"(<!-- {experiment} {name} -->\n).*?(<!-- end -->)",
            lambda match, block=block: f"{match[1]}\n{block}\n\n{match[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    path.write_text(text, encoding="utf-8")
