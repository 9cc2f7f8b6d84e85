"""Recordings as points: powers of sines that the tests write, and bad files."""

import sys
from pathlib import Path

import numpy as np
import pytest

from kahler_verify.errors import InputError
from kahler_verify.models.recordings import BANDS, SUFFIXES, band_powers, principal

RATE, SECONDS = 100, 30


def write(path: Path, signals: dict[str, np.ndarray], rate: float = RATE) -> Path:
    edfio = pytest.importorskip("edfio")
    edfio.Edf([edfio.EdfSignal(x, rate, label=name) for name, x in signals.items()]).write(path)
    return path


def sine(frequency: float, amplitude: float, windows: int = 1, rate: float = RATE) -> np.ndarray:
    time = np.arange(round(windows * SECONDS * rate)) / rate
    return amplitude * np.sin(2 * np.pi * frequency * time)


def test_each_band_has_its_sine(tmp_path: Path) -> None:
    """A window a band: a sine in its middle has amplitude²/2 of power, over the band's width."""
    noise = 0.05 * np.random.default_rng(0).standard_normal(5 * SECONDS * RATE)
    middles = [(low + high) / 2 for low, high in BANDS.values()]
    signal = np.concatenate([sine(f, 20) for f in middles]) + noise
    path = write(tmp_path / "night.edf", {"EEG Fpz-Cz": signal, "EOG": 0 * noise + noise})
    found = band_powers(path)
    assert found.shape == (5, 5)  # of the EEG alone
    assert found.argmax(1).tolist() == [0, 1, 2, 3, 4]
    widths = np.array([high - low for low, high in BANDS.values()])
    assert np.allclose(np.exp(found.diagonal()) * widths, 200, rtol=0.05)


def test_windows_that_are_flat_or_not_whole_are_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    signal = random.standard_normal(4 * SECONDS * RATE - RATE)  # three whole ones
    signal[SECONDS * RATE : 2 * SECONDS * RATE] = 0
    path = write(tmp_path / "a.edf", {"C3": signal, "C4": -signal})
    found = band_powers(path)
    assert found.shape == (2, 10)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("seconds", "rate", "message"),
    [(10, 100, "no window of 30 seconds"), (60, 40, "60 samples a second, got 40")],
)
def test_recordings_that_have_no_powers(
    tmp_path: Path, seconds: int, rate: int, message: str
) -> None:
    signal = np.random.default_rng(0).standard_normal(seconds * rate)
    path = write(tmp_path / "a.edf", {"EEG": signal}, rate)
    with pytest.raises(InputError, match=message):
        band_powers(path)


@pytest.mark.parametrize("content", [b"", b"no recording", b"0" * 300])
def test_files_that_are_no_recordings(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("edfio")
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match="data: cannot read a recording"):
            band_powers(path)


def test_without_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edfio", None)
    with pytest.raises(InputError, match=r"night.edf .*edfio: pip install 'kahler-verify\[eeg\]'"):
        band_powers(Path("night.edf"))


def test_principal_components() -> None:
    """Along the widest direction first, without a mean, and the same whatever the SVD's signs."""
    x = np.random.default_rng(0).standard_normal((40, 3)) * [0.1, 3, 1] + 5
    found = principal(x)
    assert np.allclose(found.mean(0), 0)
    assert np.allclose(np.abs(np.corrcoef(found[:, 0], x[:, 1])[0, 1]), 1, atol=1e-2)
    assert np.corrcoef(found[:, 0], x[:, 1])[0, 1] > 0
    assert abs(np.cov(found.T)[0, 1]) < 1e-10
    with pytest.raises(InputError, match="more than 2 windows, got 2"):
        principal(x[:2])
