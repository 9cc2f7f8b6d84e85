"""Arrays from files that nobody vouches for: sizes are checked before they are believed."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kahler_verify.errors import InputError
from kahler_verify.models.arrays import read_arrays
from kahler_verify.models.data import load_data


def _header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    file = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, fields)
    return file.getvalue()


def test_both_formats_are_read(tmp_path: Path) -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x=x, y=y)
    assert np.array_equal(read_arrays(tmp_path / "x.npy")[0], x)
    samples, labels = read_arrays(tmp_path / "x.npz")
    assert labels is not None
    assert np.array_equal(samples, x)
    assert np.array_equal(labels, y)


def _npy_of_terabytes(path: Path) -> None:
    path.write_bytes(_header((10**12, 4)) + bytes(64))


def _overflowing(path: Path) -> None:
    path.write_bytes(_header((2**62, 2**62, 8)) + bytes(64))


def _npz_of_terabytes(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", _header((10**12, 4)) + bytes(64))


def _truncated(path: Path) -> None:
    path.write_bytes(_header((100, 4)) + bytes(64))


@pytest.mark.parametrize("write", [_npy_of_terabytes, _overflowing, _npz_of_terabytes, _truncated])
def test_claims_that_the_file_cannot_hold(write, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write(path)
    with pytest.raises(InputError, match=r"expected the .* bytes of an array of shape") as caught:
        load_data(path)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kahler_verify.models.arrays.memory_limit", lambda: 2**20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((2**19, 4)))
    assert path.stat().st_size < 2**17
    with pytest.raises(InputError, match=r"at most .* what the memory of this machine can take"):
        load_data(path)


def _encrypted(path: Path) -> None:
    np.savez(path, x=np.zeros((4, 2)))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1  # the flag of encryption, in the directory
    path.write_bytes(content)


def _foreign_compression(path: Path) -> None:
    np.savez(path, x=np.zeros((4, 2)))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 77
    path.write_bytes(content)


def _damaged(path: Path) -> None:
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(50, 2)))
    content = bytearray(path.read_bytes())
    content[120:200] = bytes(80)
    path.write_bytes(content)


def _header_of_code(path: Path) -> None:
    text = b"__import__('os').system('false')".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def _objects(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.array([{}, {}]), allow_pickle=True)
    path.with_suffix(".npy").replace(path)


def _future_version(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\x09\x00" + bytes(64))


@pytest.mark.parametrize(
    "write",
    [_encrypted, _foreign_compression, _damaged, _header_of_code, _objects, _future_version],
)
def test_hostile_files_are_one_line(write, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write(path)
    with pytest.raises(InputError, match=r"is not a \.npy or .npz file of numbers") as caught:
        load_data(path)
    assert "\n" not in str(caught.value)
