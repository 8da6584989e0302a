"""``deploykit verify``."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploykit.cli.arguments import add_verdict_arguments, arm64_cpus, terminal_width
from deploykit.cli.view_files import add_view_arguments, check_view_files, write_view_files
from deploykit.errors import EXIT_OK, EXIT_PARITY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that convert wrote")
    add_verdict_arguments(parser)
    add_view_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Verify the bundle, print the verdicts, and return the exit code."""
    from deploykit.flow.verify import verify
    from deploykit.report.json import report_to_json
    from deploykit.report.terminal import render_report

    check_view_files(args)
    report = verify(
        args.bundle,
        runners=args.runner,
        cpus=arm64_cpus(args),
        limits=args.limit,
        threads=args.threads,
        timeout_s=args.timeout,
    )
    if args.json:
        print(report_to_json(report))
    else:
        print(render_report(report, width=terminal_width()))
    write_view_files(args, report, args.bundle)
    failed = not report.passed or (args.fail_on == "warning" and report.warned)
    return EXIT_PARITY if failed else EXIT_OK
