"""Data for complex VAEs: scikit-learn's digits as k-space signals or images, or a user's file.

The 2-D Fourier transform of a *real* image is Hermitian symmetric, X[-k] = conj(X[k]), so half of
it says everything. ``pack_kspace`` keeps that half: one coefficient of each of the 30 conjugate
pairs of an 8 x 8 image, times √2, and the 4 real coefficients as 2 complex ones. This maps the real
images R^64 isometrically onto C^32, and every vector of C^32 is some image's: a holomorphic decoder
into C^32 is free, where one into Hermitian symmetric spectra, or into real images, would be
constant.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.models.arrays import FORMAT_ERRORS, read_arrays

__all__ = [
    "Dataset",
    "Split",
    "held_out_labels",
    "held_out_samples",
    "load_data",
    "pack_kspace",
    "to_images",
    "unpack_kspace",
]

DataKind = Literal["complex", "real"]

# Of the largest entry: variances must stay finite in float32, and deviations keep their digits.
LARGEST, SMALLEST = 1e18, 1e-30
_DIGITS_SIDE = 8
_NAMED = ("digits", "digits-images", "digits-counts")
GRAY_LEVELS = 17  # of scikit-learn's digits: 0 … 16


@dataclass(frozen=True)
class Split:
    """One part of a data set: samples [n, dim] and, when there are any, labels [n]."""

    x: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint parts; complex64 or float32, as its kind says."""

    source: str
    kind: DataKind
    dim: int
    train: Split
    validation: Split
    test: Split


def load_data(source: str | Path, seed: int = 0, *, key: str | None = None) -> Dataset:
    """Load a data set and split it 80 : 10 : 10 by a seeded permutation.

    Args:
        source: "digits" (k-space, C^32), "digits-images" (real, R^64, in [0, 1]), "digits-counts"
            (their gray levels, whole numbers from 0 to 16), or the path of a
            ``.npy`` or ``.npz`` file that holds an array [n, ...]; complex arrays are modelled by a
            complex likelihood, real ones by a real likelihood. Trailing axes are flattened. An
            ``.npz`` is read from the entry ``x`` (or its only entry besides ``y``), and labels from
            the entry ``y`` when there is one.
        seed: of the permutation that splits.
        key: the entry of an ``.npz`` to read instead.

    Raises:
        InputError: there is no such file or entry, or it does not hold finite numbers [n, ...].
    """
    if seed < 0:
        raise InputError(f"expected seed to be ≥ 0, but got {seed}")
    named = str(source) in _NAMED
    samples, labels = _digits(str(source)) if named else _from_file(Path(source), key)
    order = np.random.default_rng(seed).permutation(len(samples))
    held_out = max(1, round(len(order) / 10))
    cuts = [len(order) - 2 * held_out, len(order) - held_out]
    parts = [_split(samples, labels, part) for part in np.split(order, cuts)]
    return Dataset(
        source=str(source),
        kind="complex" if np.iscomplexobj(samples) else "real",
        dim=samples.shape[1],
        train=parts[0],
        validation=parts[1],
        test=parts[2],
    )


def held_out_samples(source: str, seed: int, data: str | Path | None = None) -> Tensor | None:
    """The test part [n, D] of what a checkpoint was trained on, in double precision.

    Args:
        source: the checkpoint's data. A path there is not followed, as a checkpoint is not trusted.
        seed: the checkpoint's, by which its data were split.
        data: the file, where the source is a path; None is returned without it.

    Raises:
        InputError: as for ``load_data``.
    """
    split = _held_out(source, seed, data)
    if split is None:
        return None
    return split.x.to(torch.complex128 if split.x.is_complex() else torch.float64)


def held_out_labels(source: str, seed: int, data: str | Path | None = None) -> Tensor | None:
    """The labels [n] of :func:`held_out_samples`, None where there are none."""
    split = _held_out(source, seed, data)
    return None if split is None else split.labels


def _held_out(source: str, seed: int, data: str | Path | None) -> Split | None:
    chosen = data if data is not None else source if source in _NAMED else None
    return None if chosen is None else load_data(chosen, seed).test


def _split(samples: np.ndarray, labels: np.ndarray | None, rows: np.ndarray) -> Split:
    dtype = np.complex64 if np.iscomplexobj(samples) else np.float32
    return Split(
        x=torch.from_numpy(samples[rows].astype(dtype)),
        labels=None if labels is None else torch.from_numpy(labels[rows].astype(np.int64)),
    )


def _digits(source: str) -> tuple[np.ndarray, np.ndarray | None]:
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    digits = load_digits()
    images = digits.images / 16.0
    if source == "digits-counts":
        return digits.images.reshape(len(images), -1), digits.target
    if source == "digits-images":
        return images.reshape(len(images), -1), digits.target
    return pack_kspace(torch.from_numpy(images)).numpy(), digits.target


def _from_file(path: Path, key: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    if not path.is_file():
        raise InputError(
            f"expected 'digits', 'digits-images' or the path of a .npy or .npz file, but {path} is "
            f"{'a folder' if path.is_dir() else 'not there'}"
        )
    try:
        samples, labels = read_arrays(path, key)
    except InputError:
        raise
    except (*FORMAT_ERRORS, OSError) as error:
        raise InputError(
            f"{path} is not a .npy or .npz file of numbers ({error}); object arrays are not read, "
            "because they would run code"
        ) from error
    except MemoryError as error:
        raise InputError(
            f"{path}: expected an array that fits the memory of this machine"
        ) from error
    if samples.dtype.kind not in "fciub":
        raise InputError(f"{path}: expected real or complex numbers, but got {samples.dtype}")
    if samples.ndim < 2:
        raise InputError(
            f"{path}: expected an array [samples, features...], but got shape {samples.shape}"
        )
    if len(samples) < 3 or samples[0].size == 0:
        raise InputError(
            f"{path}: expected at least 3 samples (one each to train, validate and test) with at "
            f"least 1 feature, but got shape {samples.shape}"
        )
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    if bad:
        raise InputError(f"{path}: expected finite numbers, but {bad} entries are NaN or infinite")
    wide = samples.astype(np.complex128 if samples.dtype.kind == "c" else np.float64)
    largest = float(np.abs(wide).max())
    if largest > LARGEST:
        raise InputError(
            f"{path}: expected entries up to {LARGEST:.0e} in modulus, but got {largest:.1e}: "
            "change their units"
        )
    if 0 < largest < SMALLEST:
        raise InputError(
            f"{path}: expected entries of {SMALLEST:.0e} at least, but the largest is "
            f"{largest:.1e}, of which float32 holds few digits or none: change their units"
        )
    if labels is not None and (labels.shape != (len(samples),) or labels.dtype.kind not in "iu"):
        raise InputError(
            f"{path}: expected integer labels y of shape ({len(samples)},), but got {labels.dtype} "
            f"of shape {labels.shape}"
        )
    return samples.reshape(len(samples), -1), labels


def _half_plane(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat indices: one of each conjugate pair, its partner, and the self-conjugate ones."""
    index = torch.arange(side * side)
    row, column = index // side, index % side
    partner = (-row % side) * side + (-column % side)
    return index[index < partner], partner[index < partner], index[index == partner]


def pack_kspace(images: Tensor) -> Tensor:
    """Real square images [..., s, s], s even, to the half of their spectrum [..., s²/2].

    The orthonormal 2-D Fourier transform, of which one of each conjugate pair is kept, times √2,
    followed by the 4 real coefficients as 2 complex numbers: an isometry R^(s²) → C^(s²/2).
    """
    side = images.shape[-1] if images.ndim >= 2 else 0
    if images.is_complex() or side == 0 or images.shape[-2] != side or side % 2:
        raise InputError(
            "expected real images [..., s, s] with s even, but got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
    spectrum = torch.fft.fft2(images, norm="ortho").flatten(-2)
    kept, _, own = _half_plane(side)
    real = spectrum[..., own].real
    return torch.cat(
        [spectrum[..., kept] * 2**0.5, torch.complex(real[..., ::2], real[..., 1::2])], dim=-1
    )


def unpack_kspace(signals: Tensor) -> Tensor:
    """The exact inverse of ``pack_kspace``: [..., s²/2] complex to real images [..., s, s]."""
    side = round((2 * signals.shape[-1]) ** 0.5) if signals.ndim else 0
    if not signals.is_complex() or side == 0 or side % 2 or side * side != 2 * signals.shape[-1]:
        raise InputError(
            "expected complex signals [..., s²/2] with s even, but got "
            f"{signals.dtype} of shape {tuple(signals.shape)}"
        )
    kept, partner, own = _half_plane(side)
    half = signals[..., : len(kept)] / 2**0.5
    spectrum = signals.new_zeros((*signals.shape[:-1], side * side))
    spectrum[..., kept] = half
    spectrum[..., partner] = half.conj()
    real = torch.view_as_real(signals[..., len(kept) :].resolve_conj()).flatten(-2)
    spectrum[..., own] = real.to(spectrum.dtype)
    return torch.fft.ifft2(spectrum.unflatten(-1, (side, side)), norm="ortho").real


def to_images(samples: Tensor, source: str) -> Tensor | None:
    """Samples of a data set as images [..., 8, 8] in [0, 1] units, or None if they are not images.

    Args:
        samples: data, or a decoder's means, [..., dim].
        source: the data set's ``source``.
    """
    if source == "digits":
        return unpack_kspace(samples)
    if source in ("digits-images", "digits-counts"):
        shape = (_DIGITS_SIDE, _DIGITS_SIDE)
        return samples.unflatten(-1, shape) / (1 if source == "digits-images" else GRAY_LEVELS - 1)
    return None
