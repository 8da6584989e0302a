"""One folder in the place of another, so that a killed process leaves the old one or the new one.

Linux and macOS exchange two names in one step. Where the file system cannot, two renames do it, and
a journal beside the folder says how far they got: the next command that touches the folder finishes
them (`finish_swap`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

from deploykit.temporary import step

_AT_FDCWD = -100
_EXCHANGE = 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def swap(new: Path, path: Path) -> None:
    """Put the folder ``new`` under the name ``path``; what was there is then under ``new``'s.

    Raises:
        OSError: it cannot be done; ``path`` is as it was.
    """
    if not path.exists():
        new.rename(path)
        step("renamed")
    elif exchange(new, path):
        step("exchanged")
    else:
        _rename_twice(new, path)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot.

    Raises:
        OSError: another reason.
    """
    if sys.platform == "win32":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*names, _EXCHANGE)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _rename_twice(new: Path, path: Path) -> None:
    journal, old = _journal_of(path), _old_of(path)
    journal.write_text(new.name, encoding="utf-8")
    step("wrote the journal")
    try:
        path.rename(old)
        step("renamed the old one")
        new.rename(path)
        step("renamed the new one")
    except BaseException:
        finish_swap(path)
        raise
    old.rename(new)  # where whoever called has it removed
    step("put the old one aside")
    journal.unlink()


def finish_swap(path: Path) -> None:
    """Finish or undo two renames that a killed process began; else nothing.

    Raises:
        OSError: the folders cannot be renamed.
    """
    journal, old = _journal_of(path), _old_of(path)
    if not journal.is_file() or journal.is_symlink():
        return
    if not path.exists() and old.is_dir():
        # The new one may have been removed with the temporary folders: the old one always is there.
        old.rename(path)
    elif path.exists() and old.is_dir() and not old.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
    journal.unlink()


def _journal_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.deploykit-journal")


def _old_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.deploykit-old")
