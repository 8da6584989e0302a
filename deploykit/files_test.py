from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from deploykit.errors import BundleError
from deploykit.files import (
    as_user_error,
    files_in,
    folder_written_atomically,
    sha256_of,
    write_atomically,
)
from deploykit.temporary import remove_dead


def test_write_replaces_and_leaves_no_sibling(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.bin"
    write_atomically(target, b"old")
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((BundleError, KeyboardInterrupt)):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_folder_in_the_place_of_the_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(BundleError, match=r"a\.bin is a folder"):
        write_atomically(tmp_path / "a.bin", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.bin"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_failed_folder_keeps_the_old_one(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "bundle"
    with folder_written_atomically(folder) as new:
        (new / "x").write_text("old")
    with pytest.raises((BundleError, KeyboardInterrupt)), folder_written_atomically(folder) as new:
        (new / "x").write_text("half")
        raise error
    assert (folder / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_folder_replaces_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    for name in ("first", "second"):
        with folder_written_atomically(folder) as new:
            (new / name).write_text(name)
    assert [p.name for p in folder.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_swap_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    with folder_written_atomically(folder) as new:
        (new / "x").write_text("old")
    monkeypatch.setattr("deploykit.swap.exchange", lambda *_: False)
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name.endswith("-tmp") and Path(target) == folder:
            raise OSError(errno.ENOSPC, "full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(BundleError, match="disk is full"), folder_written_atomically(folder) as new:
        (new / "x").write_text("new")
    assert (folder / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "cannot write")]
)
def test_refusals_of_the_system_are_user_errors(number: int, words: str) -> None:
    with pytest.raises(BundleError, match=words), as_user_error(Path("x")):
        raise OSError(number, "no")


def test_other_system_errors_are_not_hidden() -> None:
    with pytest.raises(OSError, match="io"), as_user_error(Path("x")):
        raise OSError(errno.EIO, "io")


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with folder_written_atomically(tmp_path / "link") as new:
        (new / "x").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "x").read_text() == "new"


def test_a_folders_hash_is_that_of_its_paths_and_contents(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> Path:
        for file, text in files.items():
            path = tmp_path / name / file.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    first = sha256_of(folder("a", x="1", inner_y="2"))
    assert sha256_of(folder("b", inner_y="2", x="1")) == first
    assert sha256_of(folder("c", x="1", inner_y="3")) != first
    assert sha256_of(folder("d", x="1", y="2")) != first
    assert [p.name for p in files_in(tmp_path / "a")] == ["y", "x"]
    assert files_in(tmp_path / "a" / "x") == [tmp_path / "a" / "x"]


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(os.devnull)
    for path, words in ((pipe, "is a pipe"), (link, "is a device"), (Path(os.devnull), "device")):
        with pytest.raises(BundleError, match=words):
            write_atomically(path, b"new")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert Path(os.devnull).is_char_device()
    assert link.is_symlink()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs the right to make a device")
def test_a_device_node_is_never_replaced(tmp_path: Path) -> None:
    node = tmp_path / "node"
    try:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:
        pytest.skip("a device cannot be made here")
    with pytest.raises(BundleError, match="is a device"):
        write_atomically(node, b"new")
    assert node.is_char_device()


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    good = "0123456789ab"
    for name in (f".b.{good}.deploykit-tmp", f".c.{good}.deploykit-tmp", ".b.mine.deploykit-tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    (tmp_path / f".b.{good[::-1]}.deploykit-tmp").symlink_to(tmp_path)
    with folder_written_atomically(tmp_path / "b") as living:
        remove_dead(tmp_path, ".b.")
        assert living.is_dir(), "its process lives"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".b.ba9876543210.deploykit-tmp",
        ".b.mine.deploykit-tmp",
        f".c.{good}.deploykit-tmp",
        "b",
    ]


def test_what_appears_in_the_old_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()

    def check(path: Path) -> None:
        if (path / "thesis").exists():
            raise BundleError("a thesis")

    for moment in ("before", "between"):
        asked = 0

        def check_late(path: Path) -> None:
            nonlocal asked
            asked += 1
            if asked == 1 and moment == "between":  # noqa: B023
                (path / "thesis").touch()
                return
            check(path)

        if moment == "before":
            (folder / "thesis").touch()
        with (
            pytest.raises(BundleError, match="thesis"),
            folder_written_atomically(folder, check_late) as new,
        ):
            (new / "x").touch()
        assert [p.name for p in folder.iterdir()] == ["thesis"]
        (folder / "thesis").unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
