"""``deploykit lint``."""

from __future__ import annotations

import argparse

from deploykit.cli.arguments import add_source_arguments, load_source
from deploykit.errors import EXIT_OK, EXIT_PARITY
from deploykit.target_options import DEFAULT_TARGET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    parser.add_argument(
        "--precision",
        action="append",
        choices=("fp32", "fp16", "w8", "int8"),
        default=[],
        help="what it is to be shipped in (repeat; default: fp32 and int8)",
    )
    parser.add_argument(
        "--to",
        default=DEFAULT_TARGET,
        metavar="TARGET",
        help="for whose runtime (%(default)s); '' for none",
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="RULE", help="leave a rule out (repeat)"
    )
    parser.add_argument(
        "--fail-on",
        choices=("warning", "error", "never"),
        default="error",
        help="exit with 1 if a finding is this severe or more (error)",
    )
    parser.add_argument("--all", action="store_true", help="every finding, not the first of each")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Verify, print, and return the exit code."""
    from deploykit.lint import Severity, lint_model
    from deploykit.model import Precision
    from deploykit.report.lint_views import lint_to_json, render_lint

    report = lint_model(
        load_source(args),
        precisions=[Precision(p) for p in dict.fromkeys(args.precision)],
        target=args.to,
        ignore=args.ignore,
    )
    print(lint_to_json(report) if args.json else render_lint(report, everything=args.all))
    reached = args.fail_on != "never" and report.reaches(Severity(args.fail_on))
    return EXIT_PARITY if reached else EXIT_OK
