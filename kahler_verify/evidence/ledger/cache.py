"""Verdicts that are kept on disk while nothing that they depend on has changed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import flint
import numpy as np
import sympy
import torch

from kahler_verify.codegen.registry import PACKAGE
from kahler_verify.derivations import shipped_folder
from kahler_verify.evidence.ledger import measurements
from kahler_verify.evidence.ledger.dependencies import Reads
from kahler_verify.evidence.ledger.items import Item, Judgement
from kahler_verify.files import write_text


class Cache:
    """Verdicts on disk, valid while nothing that they depend on has changed."""

    def __init__(self, profile: str, files: Sequence[str], reads: Reads | None = None):
        digest = hashlib.sha256(profile.encode())
        sources = sorted(shipped_folder().rglob("*.py")) + [Path(f) for f in files]
        sources += sorted(PACKAGE.rglob("*.py"))
        sources += [
            p for folder in measurements.results_folders() for p in sorted(folder.glob("*.json"))
        ]
        sources += [p for f in files for p in sorted(Path(f).parent.glob("*_kernels.py"))]
        covered = {s.resolve() for s in sources}
        helpers = sorted((reads.files if reads is not None and files else set()) - covered)
        for source in (*sources, *helpers):
            digest.update(source.name.encode() + source.read_bytes())
        versions = (sympy.__version__, flint.__version__, torch.__version__, np.__version__)
        digest.update(f"{versions} {platform.python_version()}".encode())
        try:
            home = os.environ.get("KAHLER_VERIFY_CACHE") or Path.home() / ".cache" / "kahler_verify"
        except RuntimeError:  # nobody's home
            home = Path(tempfile.gettempdir()) / "kahler_verify"
        self.folder = Path(home) / digest.hexdigest()[:24]
        self.reads, self.covered = reads if files else None, covered | set(helpers)
        self.failure: OSError | None = None  # verdicts do not depend on whether they can be kept

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"

    def _is_unforeseen(self) -> bool:
        """Whether files were read that the folder's name does not tell of; its own do not count."""
        if self.reads is None:
            return False
        home = self.folder.parent.resolve()
        return any(home not in path.parents for path in self.reads.files - self.covered)

    def get(self, name: str) -> Judgement | list[Item] | None:
        """A stored verdict, or None."""
        path = self._path(name)
        try:
            if not path.is_file():
                return None
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, list):
                return [Item(**i) for i in data]
            return Judgement(**{**data, "evidence": [Item(**i) for i in data["evidence"]]})
        except (OSError, ValueError, TypeError, KeyError):  # not what was written: judge again
            return None

    def put(self, name: str, result: Judgement | list[Item]) -> None:
        """Store a verdict, or remember in ``failure`` why that cannot be done.

        One that depends on files that were first read while it was found is not kept.
        """
        if self._is_unforeseen():
            return
        data = [asdict(i) for i in result] if isinstance(result, list) else asdict(result)
        if self.failure is None:
            try:
                write_text(self._path(name), json.dumps(data))
            except OSError as error:
                self.failure = error
