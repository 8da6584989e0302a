"""Zip archives that others made, measured before anything in them is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from deploykit.limits import SMALL_ARCHIVE_BYTES, current_limits

_MOST_MEMBERS = 100_000


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip bomb: an archive that unpacks to more than `deploykit.limits` allow.

    Only the table of contents is read; `zipfile` unpacks no more of a member than it says there.

    Raises:
        ValueError: what is too large, and which limit it is.
        OSError: the file cannot be read.
    """
    limits = current_limits()
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"it has {len(members):,} members, more than {_MOST_MEMBERS:,}")
    unpacked = sum(info.file_size for info in members)
    if unpacked > limits.unpacked_bytes:
        raise ValueError(
            f"it unpacks to {unpacked:,} bytes (--max unpacked_bytes=SIZE allows more)"
        )
    allowed = limits.archive_ratio * path.stat().st_size
    if unpacked > SMALL_ARCHIVE_BYTES and unpacked > allowed:
        raise ValueError(
            f"it unpacks to {unpacked:,} bytes, more than {limits.archive_ratio} for each of its "
            "own (--max archive_ratio=N allows more)"
        )
