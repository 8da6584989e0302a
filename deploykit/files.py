"""Writing files so that a failed or killed run leaves the old file or none."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploykit.errors import BundleError

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
    """Write a temporary sibling, then rename it over ``path``.

    Raises:
        BundleError: the folder cannot be written, or the disk is full. ``path`` is then as it was.
    """
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def folder_written_atomically(path: Path) -> Iterator[Path]:
    """A temporary sibling folder to fill; on success it takes the place of ``path``.

    If the block raises (Ctrl-C included), the temporary folder is removed and ``path`` is as it
    was. The swap itself is two renames; if the second fails, the first is undone.

    Raises:
        BundleError: the parent cannot be written, or the disk is full.
    """
    path = path.resolve()  # a link stays a link: what it leads to is replaced
    with as_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        temporary.chmod(0o755)
        try:
            yield temporary
            _swap(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.rename(old / path.name)
    try:
        new.rename(path)
    except BaseException:
        (old / path.name).rename(path)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


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
