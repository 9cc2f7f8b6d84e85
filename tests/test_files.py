"""Files are written whole or not at all, and devices, pipes and links stay what they are."""

import os
import stat
import threading
from pathlib import Path

import pytest

from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_bytes, write_text, write_with


def test_a_regular_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "out.json"
    write_text(path, "∂")
    assert path.read_text(encoding="utf-8") == "∂"
    path.chmod(0o640)
    write_text(path, "second")
    assert path.read_text(encoding="utf-8") == "second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_text(path, "before")

    def fail(draft: Path) -> None:
        draft.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_with(path, fail)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_dangling_link_makes_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "later")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "later").read_text() == "new"


def test_a_pipe_and_a_link_to_it_are_written_in_place(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    got: list[bytes] = []
    for path in (pipe, link):
        reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
        reader.start()
        write_bytes(path, b"through")
        reader.join(10)
    assert got == [b"through", b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()


def test_a_device_is_written_in_place() -> None:
    write_text("/dev/null", "nothing")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_minus_is_standard_output(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    before = list(Path.cwd().glob("-"))
    write_bytes("-", b"\x00\xff")
    assert capfdbinary.readouterr().out == b"\x00\xff"
    assert list(Path.cwd().glob("-")) == before


def test_a_folder_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "x")


def test_outputs_are_looked_at_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "below", "is no folder|Not a directory"),
        (tmp_path / ("n" * 300), "255 bytes|too long"),
        (tmp_path / "loop", "loop|levels of symbolic links"),
        ("", "path of a file"),
        ("a\0b", "path of a file"),
    ):
        with pytest.raises(InputError, match=f"out: .*({message})"):
            require_writable("out", path)
    for path in (tmp_path / "new" / "deep" / "out", tmp_path / "file", "/dev/null", "-", None):
        require_writable("out", path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="out: cannot write"):
        require_writable("out", tmp_path / "out")
