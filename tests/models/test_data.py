"""Data: k-space packing, splits, and files by path."""

import numpy as np
import pytest
import torch

from kahler_verify.errors import InputError
from kahler_verify.models.data import (
    held_out_samples,
    load_data,
    pack_kspace,
    to_images,
    unpack_kspace,
)


def test_packing_is_an_isometry_with_an_exact_inverse():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 8, 8, dtype=torch.float64, generator=generator)
    signals = pack_kspace(images)
    assert signals.shape == (5, 32)
    torch.testing.assert_close(unpack_kspace(signals), images, rtol=0, atol=1e-14)
    gram, expected = (signals @ signals.mH).real, images.flatten(1) @ images.flatten(1).T
    torch.testing.assert_close(gram, expected, rtol=1e-13, atol=1e-13)


def test_packing_reaches_every_complex_vector():
    generator = torch.Generator().manual_seed(1)
    signals = torch.randn(3, 32, dtype=torch.complex128, generator=generator)
    torch.testing.assert_close(pack_kspace(unpack_kspace(signals)), signals, rtol=0, atol=1e-14)


def test_packing_agrees_with_the_plain_transform():
    image = torch.arange(64, dtype=torch.float64).reshape(8, 8).sin()
    spectrum, signal = torch.fft.fft2(image, norm="ortho"), pack_kspace(image)
    torch.testing.assert_close(signal[0], spectrum[0, 1] * 2**0.5)
    torch.testing.assert_close(signal[30], torch.complex(spectrum[0, 0].real, spectrum[0, 4].real))


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (pack_kspace, torch.zeros(8, 7)),
        (pack_kspace, torch.zeros(7, 7)),
        (pack_kspace, torch.zeros(8, 8, dtype=torch.complex64)),
        (pack_kspace, torch.zeros(64)),
        (unpack_kspace, torch.zeros(3, 32)),
        (unpack_kspace, torch.zeros(3, 31, dtype=torch.complex64)),
    ],
)
def test_packing_refuses_what_it_cannot_pack(function, argument):
    with pytest.raises(InputError, match="expected"):
        function(argument)


@pytest.mark.parametrize(
    ("source", "kind", "dim", "dtype"),
    [
        ("digits", "complex", 32, torch.complex64),
        ("digits-images", "real", 64, torch.float32),
    ],
)
def test_digits(source, kind, dim, dtype):
    data = load_data(source, seed=3)
    again, other = load_data(source, seed=3), load_data(source, seed=4)
    assert (data.kind, data.dim, data.train.x.dtype) == (kind, dim, dtype)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1437, 180, 180]
    assert torch.equal(data.test.x, again.test.x)
    assert not torch.equal(data.test.x, other.test.x)
    images = to_images(data.train.x, source)
    assert images is not None
    assert images.shape == (1437, 8, 8)
    assert -1e-5 < float(images.min()) <= float(images.max()) < 1 + 1e-5
    assert sorted(set(data.train.labels.tolist())) == list(range(10))


def test_both_digits_are_the_same_images():
    signals, images = load_data("digits", 0), load_data("digits-images", 0)
    torch.testing.assert_close(
        to_images(signals.test.x, "digits"),
        to_images(images.test.x, "digits-images"),
        rtol=0,
        atol=1e-5,
    )
    assert torch.equal(signals.test.labels, images.test.labels)


def test_parts_are_disjoint_and_complete(tmp_path):
    rows = np.arange(23.0)[:, None]
    np.save(tmp_path / "rows.npy", rows)
    data = load_data(tmp_path / "rows.npy", seed=0)
    parts = [part.x.flatten().tolist() for part in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [19, 2, 2]
    assert sorted(row for part in parts for row in part) == list(range(23))
    assert to_images(data.test.x, data.source) is None


def test_files_complex_labelled_and_flattened(tmp_path):
    rows = (np.arange(60) + 1j).reshape(5, 3, 4)
    np.savez(tmp_path / "data.npz", x=rows, y=np.arange(5))
    data = load_data(tmp_path / "data.npz", seed=0)
    assert (data.kind, data.dim) == ("complex", 12)
    for part in (data.train, data.validation, data.test):
        assert part.x[:, 0].real.tolist() == [12 * label for label in part.labels.tolist()]
    np.savez(tmp_path / "named.npz", signal=rows, other=rows)
    assert load_data(tmp_path / "named.npz", key="signal").dim == 12


def _array(array):
    return lambda path: np.save(path, array, allow_pickle=True)


BAD_FILES = {
    "one axis": (_array(np.zeros(5)), "shape"),
    "no axis": (_array(np.array(1.0)), "shape"),
    "empty": (_array(np.zeros((0, 3))), "at least 3 samples"),
    "no features": (_array(np.zeros((5, 0))), "at least 1 feature"),
    "nan": (_array(np.array([[1.0], [np.nan], [2.0]])), "1 entries are NaN"),
    "complex infinity": (_array(np.array([[1j], [complex(0, np.inf)], [2.0]])), "NaN or infinite"),
    "huge": (_array(np.full((4, 2), 1e30)), "up to 1e.18"),
    "tiny": (_array(np.full((4, 2), 1e-50)), "of 1e-30 at least"),
    "objects": (_array(np.array([[{}], [{}], [{}]])), "object arrays are not read"),
    "strings": (_array(np.array([["a"], ["b"], ["c"]])), "real or complex numbers"),
    "text": (lambda path: path.write_text("x,y\n1,2\n"), "not a .npy or .npz file"),
    "no bytes": (lambda path: path.write_bytes(b""), "not a .npy or .npz file"),
    "broken zip": (lambda path: path.write_bytes(b"PK\x03\x04 broken"), "not a .npy or .npz"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(case, tmp_path):
    write, message = BAD_FILES[case]
    path = tmp_path / "bad.npy"
    write(path)
    with pytest.raises(InputError, match=message):
        load_data(path)


@pytest.mark.parametrize(
    ("entries", "key", "message"),
    [
        ({"a": np.ones((4, 2)), "b": np.ones((4, 2))}, None, "expected an entry 'x'"),
        ({"x": np.ones((4, 2))}, "k", "expected an entry 'k'"),
        ({"x": np.ones((4, 2)), "y": np.ones(3, dtype=int)}, None, r"shape \(4,\)"),
        ({"x": np.ones((4, 2)), "y": np.ones(4)}, None, "integer labels"),
    ],
)
def test_bad_archives(entries, key, message, tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **entries)
    with pytest.raises(InputError, match=message):
        load_data(path, key=key)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        load_data(tmp_path / "nothing.npy")
    with pytest.raises(InputError, match="is a folder"):
        load_data(tmp_path)


def test_held_out_samples_are_the_test_part_of_the_same_split(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(60, dtype=np.float32).reshape(30, 2))
    assert held_out_samples(str(path), 3) is None  # a checkpoint's path is not followed
    found = held_out_samples(str(path), 3, path)
    assert found.dtype == torch.float64
    assert torch.equal(found, load_data(path, 3).test.x.double())
    digits = held_out_samples("digits", 4)
    assert torch.equal(digits, load_data("digits", 4).test.x.to(torch.complex128))
