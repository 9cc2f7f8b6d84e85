"""Recordings of sleep (EDF, BDF) as points: powers in bands of frequency, window by window.

The recording's EEG is cut into windows of 30 seconds, as sleep is scored.  Of each window and each
signal come the logarithms of the mean power in the bands that are named after Greek letters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kahler_verify.errors import InputError
from kahler_verify.models.arrays import FORMAT_ERRORS

SECONDS = 30.0
BANDS = {  # Hz
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 12.0),
    "sigma": (12.0, 16.0),
    "beta": (16.0, 30.0),
}
FLAT = 1e-6  # of the whole signal's deviation
SUFFIXES = (".edf", ".bdf")


def band_powers(path: Path) -> np.ndarray:
    """Log powers [windows, signals times bands] of a recording, of signals named EEG, or of all.

    Windows in which a signal is flat have none, and are left out.

    Raises:
        InputError: there is no reader, or the file is of no such format, or the recording has no
            whole window, or a signal that is sampled too slowly for the bands.
    """
    try:
        from edfio import read_bdf, read_edf
    except ImportError as error:
        raise InputError(
            f"data: {path} is a recording, which needs edfio: pip install 'kahler-verify[eeg]'"
        ) from error
    read = read_bdf if path.suffix.lower() == ".bdf" else read_edf
    try:
        return _of_signals(path, list(read(path).signals))
    except InputError:
        raise
    except (OSError, ArithmeticError, *FORMAT_ERRORS) as error:
        raise InputError(f"data: cannot read a recording from {path}: {error}") from error


def _of_signals(path: Path, recorded: list[Any]) -> np.ndarray:
    signals = [s for s in recorded if s.label.upper().startswith("EEG")]
    signals = signals or recorded
    if not signals:
        raise InputError(f"data: {path} has no signals")
    highest = max(high for _, high in BANDS.values())
    columns = []
    for signal in signals:
        rate = signal.sampling_frequency
        if rate < 2 * highest:
            raise InputError(
                f"data: {path}: expected signals of at least {2 * highest:g} samples a second, got "
                f"{rate:g} of {signal.label!r}"
            )
        columns.append(_log_powers(np.asarray(signal.data, dtype=np.float64), rate))
    points = np.concatenate([c[: min(map(len, columns))] for c in columns], 1)
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        raise InputError(f"data: {path} has no window of {SECONDS:g} seconds that is not flat")
    return points


def _log_powers(signal: np.ndarray, rate: float) -> np.ndarray:
    """[windows, bands]; -inf where the signal is flat."""
    from scipy.signal import welch

    length = round(SECONDS * rate)
    windows = signal[: len(signal) // length * length].reshape(-1, length)
    if not len(windows):
        return np.empty((0, len(BANDS)))
    frequency, power = welch(windows, rate, nperseg=round(4 * rate))
    inside = [(frequency >= low) & (frequency < high) for low, high in BANDS.values()]
    flat = windows.std(1) <= FLAT * signal.std()
    with np.errstate(divide="ignore"):
        powers = np.log(np.stack([power[:, band].mean(1) for band in inside], 1))
    return np.where(flat[:, None], -np.inf, powers)


def principal(points: np.ndarray, count: int = 2) -> np.ndarray:
    """The first principal components [N, count], each with the signs that make its axis lean up."""
    if len(points) <= count:
        raise InputError(f"data: expected more than {count} windows, got {len(points)}")
    centred = points - points.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:count]
    return centred @ (axes * np.sign(axes.sum(1, keepdims=True))).T
