"""``--junit``, ``--html`` and ``--markdown``: results as files, beside what is printed."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploykit.verdict import AccuracyTable, Report

#: Flags; `deploykit.report.view_files` has a view of each name (tested).
FLAGS = {
    "junit": "also write JUnit XML, a test case for each verdict",
    "html": "also write one page with tables and charts",
    "markdown": "also write a Markdown table, for a comment",
}


def add_view_arguments(parser: argparse._ActionsContainer) -> None:
    """Declare a flag for each view."""
    for name, text in FLAGS.items():
        parser.add_argument(f"--{name}", type=Path, default=None, metavar="FILE", help=text)


def check_view_files(args: argparse.Namespace) -> None:
    """Refuse files that cannot be written before minutes of work.

    Raises:
        UserError: a folder, two views in one file, or a place where nothing can be written.
    """
    from deploykit.errors import UserError

    taken: dict[Path, str] = {}
    for name in FLAGS:
        path: Path | None = getattr(args, name)
        if path is None:
            continue
        other = taken.setdefault(path.resolve(), name)
        if other != name:
            raise UserError(f"--{other} and --{name} name the same file {path}", expected="two")
        if path.is_dir():
            raise UserError(f"--{name} {path} is a folder", expected="the name of a file")
        above = next(p for p in path.resolve().parents if p.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise UserError(
                f"--{name} {path} cannot be written", expected=f"a folder to write in at {above}"
            )


def write_view_files(
    args: argparse.Namespace, result: Report | AccuracyTable, folder: Path | None
) -> None:
    """Write each view that was asked for.

    Args:
        args: The command's arguments.
        result: What the command found.
        folder: The bundle, whose files a view may name.
    """
    wanted = {name: getattr(args, name) for name in FLAGS if getattr(args, name) is not None}
    if not wanted:
        return
    from deploykit.bundle import read_bundle
    from deploykit.files import write_atomically
    from deploykit.report.verdict_html import MadeBy
    from deploykit.report.view_files import FILE_VIEWS, ViewRequest

    artifacts = read_bundle(folder, check_hashes=False).artifacts if folder is not None else ()
    files = tuple((a.path, a.bytes, a.sha256) for a in artifacts)
    made_by = MadeBy(shlex.join(["deploykit", *sys.argv[1:]]), files)
    request = ViewRequest(fail_on_warning=args.fail_on == "warning", made_by=made_by)
    for name, path in wanted.items():
        write_atomically(path, FILE_VIEWS[name].render(result, request).encode())
        print(f"wrote {path}", file=sys.stderr)
