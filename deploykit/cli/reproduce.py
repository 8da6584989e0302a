"""``deploykit reproduce``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploykit.cli.arguments import add_remembered_arguments, remembered_arguments
from deploykit.errors import EXIT_OK, EXIT_PARITY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that convert wrote")
    parser.add_argument(
        "--source", type=Path, required=True, metavar="MODEL", help="what it was made from"
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        default=None,
        metavar="PATH",
        help="what it was calibrated with, if that was not the checkpoint's own sample",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the new bundle"
    )
    add_remembered_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress lines")


def run(args: argparse.Namespace) -> int:
    """Make the bundle again; exit code 1 if a file is another one."""
    from deploykit.flow.reproduce import reproduce

    def progress(line: str) -> None:
        if not args.quiet:
            print(f"  {line}", file=sys.stderr, flush=True)

    found = reproduce(
        args.bundle,
        args.source,
        args.out,
        calibration=args.calibrate,
        **remembered_arguments(args),
        progress=progress,
    )
    for path in found.same:
        print(f"same       {path}")
    for path in found.different:
        print(f"different  {path}")
    if found.different and found.libraries:
        print(f"other versions: {', '.join(found.libraries)}")
    return EXIT_PARITY if found.different else EXIT_OK
