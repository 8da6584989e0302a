"""``deploykit evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploykit.cli.arguments import (
    add_fail_on,
    add_remembered_arguments,
    positive,
    remembered_arguments,
    seconds,
    terminal_width,
    thread_count,
)
from deploykit.cli.progress import shown_progress
from deploykit.cli.view_files import add_view_arguments, check_view_files, write_view_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that convert wrote")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder of class folders with images, .csv of file,label, .npz with 'images' "
        "(n,H,W,C uint8) and 'labels', or folder of IDX files",
    )
    parser.add_argument(
        "--source",
        default="",
        metavar="MODEL",
        help="the source model, for the float reference; its hash must be the bundle's",
    )
    add_remembered_arguments(parser)
    parser.add_argument("--samples", type=positive, default=None, help="use at most so many")
    parser.add_argument(
        "--runner", action="append", default=[], metavar="NAME", help="only this runner (repeat)"
    )
    parser.add_argument("--threads", type=thread_count, default=1, help="threads of each runtime")
    parser.add_argument(
        "--timeout", type=seconds, default=600.0, metavar="S", help="time limit of each runtime"
    )
    add_fail_on(parser)
    add_view_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress lines")


def run(args: argparse.Namespace) -> int:
    """Print top-1 of every artefact beside the reference."""
    from deploykit.flow.evaluate import evaluate
    from deploykit.report.accuracy_views import accuracy_to_json, render_accuracy

    check_view_files(args)
    with shown_progress(quiet=args.quiet) as progress:
        table = evaluate(
            args.bundle,
            args.data,
            source=args.source,
            **remembered_arguments(args),
            samples=args.samples,
            runners=args.runner,
            threads=args.threads,
            timeout_s=args.timeout,
            progress=progress,
        )
    text = accuracy_to_json(table) if args.json else render_accuracy(table, width=terminal_width())
    print(text)
    write_view_files(args, table, args.bundle)
    return table.exit_code_with(fail_on_warning=args.fail_on == "warning")
