"""Temporary files and folders that a later run removes if this process is killed.

Each is locked by the process that made it (``flock``: the system releases it however the process
ends), and bears a name that no user gives. A run first removes what it finds under such names
without a lock. Where the system has no ``flock`` nothing is removed that another run made.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

_END = ".deploykit-tmp"
_SCRATCH = ".deploykit"
_KEPT_LETTERS = 48

#: Called with the name of each step of writing; tests stop or kill the process in it.
step_hook: Callable[[str], None] | None = None


def step(name: str) -> None:
    """Tell the hook of tests that the step ``name`` is done."""
    if step_hook is not None:
        step_hook(name)


@contextlib.contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """An empty folder beside ``beside``, for what will take its place; removed in the end.

    Raises:
        OSError: it cannot be made.
    """
    prefix = _prefix_of(beside)
    remove_dead(beside.parent, prefix)
    with _locked_folder(beside.parent, prefix) as folder:
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder among the system's temporary ones; removed in the end.

    Raises:
        OSError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    remove_dead(parent, _SCRATCH)
    with _locked_folder(parent, f"{_SCRATCH}.") as folder:
        yield folder


@contextlib.contextmanager
def _locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(6)}{_END}"
        folder.mkdir(mode=0o700)
        lock = _lock(folder)
        # Between the two another run may have taken it for a dead process's, and removed it.
        if folder.exists():
            break
        _release(lock)
    step("made a temporary folder")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _release(lock)


@contextlib.contextmanager
def temporary_file(beside: Path) -> Iterator[Path]:
    """An empty file beside ``beside``, to be renamed over it; removed if it is still there.

    Raises:
        OSError: it cannot be made.
    """
    prefix = _prefix_of(beside)
    remove_dead(beside.parent, prefix)
    while True:
        file = beside.parent / f"{prefix}{secrets.token_hex(6)}{_END}"
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        lock = _lock(file)
        if file.exists():
            break
        _release(lock)
    step("made a temporary file")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
        _release(lock)


def _prefix_of(path: Path) -> str:
    return f".{path.name[:_KEPT_LETTERS]}."  # a long name has no room for more letters


def remove_dead(parent: Path, prefix: str) -> None:
    """Remove the temporary files and folders of processes that are gone; nothing else, ever."""
    if fcntl is None:
        return
    try:
        entries = [e for e in os.scandir(parent) if _is_ours(e, prefix)]
    except OSError:
        return
    for entry in entries:
        lock = _lock(Path(entry.path), wait=False)
        if lock is None:
            continue  # its process lives
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()
        _release(lock)


def _is_ours(entry: os.DirEntry[str], prefix: str) -> bool:
    name = entry.name
    if not (name.startswith(prefix) and name.endswith(_END)):
        return False
    middle = name[len(prefix) : -len(_END)].lstrip(".")
    if len(middle) != 12 or not all(c in "0123456789abcdef" for c in middle):
        return False
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return plain and status.st_uid == os.geteuid()


def _lock(path: Path, *, wait: bool = True) -> int | None:
    """A descriptor that holds the lock; None where there are no locks, or another holds it."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _release(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
