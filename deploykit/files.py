"""Writing files so that a failed or killed run leaves the old file or none."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from deploykit.errors import BundleError
from deploykit.swap import finish_swap, swap
from deploykit.temporary import step, temporary_file, temporary_folder

_REFUSALS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
    *(errno.EEXIST, errno.ENAMETOOLONG),
)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in chunks.

    Of a folder: of the relative paths and the hashes of all files in it.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in files_in(path):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def files_in(path: Path) -> list[Path]:
    """The file itself, or all files of a folder, sorted."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    return [path]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary sibling, then rename it over ``path``; a link stays a link.

    Raises:
        BundleError: the folder cannot be written, the disk is full, or ``path`` is a device, a pipe
            or anything else that is no file. ``path`` is then as it was.
    """
    with as_user_error(path):
        refuse_special_file(path)
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            write_file(temporary, data)
            temporary.chmod(0o644)
            refuse_special_file(path)
            temporary.replace(path)
            step("renamed")


def write_file(path: Path, data: bytes) -> None:
    """Write a new file, in the two halves that a killed process may leave.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("wb", buffering=0) as stream:
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            view = memoryview(part)
            while view.nbytes:
                view = view[stream.write(view) or 0 :]
            step(f"wrote {path.name}")


def refuse_special_file(path: Path) -> None:
    """Refuse to write over anything but a file.

    Raises:
        BundleError: ``path`` is a device, a pipe, a socket or a folder.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing is there, or what writes it says why it cannot
    if stat.S_ISREG(mode):
        return
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    kind = next((name for test, name in kinds if test(mode)), "device")
    raise BundleError(
        f"{path} is a {kind}; it was left as it is",
        expected="a file, or a name that is free",
        advice="give another path",
    )


@contextlib.contextmanager
def folder_written_atomically(
    path: Path, check: Callable[[Path], None] = lambda _: None
) -> Iterator[Path]:
    """A temporary sibling folder to fill; on success it takes the place of ``path``.

    If the block raises (Ctrl-C included), the temporary folder is removed and ``path`` is as it
    was; so it is if the process is killed, and the next run removes what is left
    (`deploykit.temporary`). The two change places in one step (`deploykit.swap`).

    Args:
        path: The folder.
        check: Raises if what is in a folder must not be removed. It is asked before the swap, and
            of the old folder after it, when nothing more can appear in it under its name.

    Raises:
        BundleError: the parent cannot be written, or the disk is full.
    """
    path = path.resolve()  # a link stays a link: what it leads to is replaced
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        finish_swap(path)
        with temporary_folder(path) as temporary:
            yield temporary
            if path.exists():
                check(path)
            swap(temporary, path)
            if temporary.exists():
                try:
                    check(temporary)
                except BaseException:
                    swap(temporary, path)
                    raise
        step("removed the old one")


@contextlib.contextmanager
def as_user_error(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write ``path`` into a `BundleError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BundleError(
                f"the disk is full: {path} was not written",
                advice="free some space; what was there before is untouched",
            ) from error
        if error.errno in _REFUSALS:
            raise BundleError(
                f"cannot write {path}: {error.strerror}",
                advice="give another path with --out",
            ) from error
        raise
