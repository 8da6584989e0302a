"""``deploykit analyze``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploykit.cli.arguments import add_source_arguments, load_source, positive, source_lines
from deploykit.cli.convert import add_calibration_arguments, parse_observer
from deploykit.errors import EXIT_OK, EXIT_PARITY, UserError
from deploykit.target_options import DEFAULT_TARGET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    parser.add_argument(
        "--to",
        default=DEFAULT_TARGET,
        metavar="TARGET",
        help="whose int8 is analyzed (%(default)s)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TARGET.NAME=VALUE",
        help="an option of the target (repeat)",
    )
    parser.add_argument(
        "--budget",
        metavar="snr=DB",
        help="also find the layers that, kept in floats, reach so many dB at the outputs",
    )
    parser.add_argument(
        "--compare", action="store_true", help="also quantize by every method, and compare"
    )
    parser.add_argument(
        "--samples", type=positive, default=None, metavar="N", help="run at most N samples (16)"
    )
    parser.add_argument("--all", action="store_true", help="every source of noise")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    add_calibration_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Analyze, print, and return the exit code: 1 if a budget cannot be met."""
    from deploykit.flow.analyze import DEFAULT_SAMPLES, analyze
    from deploykit.flow.plan import ConvertRequest
    from deploykit.flow.preflight import check_before_loading
    from deploykit.report.noise_views import noise_to_json, render_noise
    from deploykit.target_options import parse_target_options

    def progress(line: str) -> None:
        if not args.quiet:
            print(f"  {line}", file=sys.stderr, flush=True)

    budget = parse_budget(args.budget)
    if args.observer is not None:
        raise UserError("--observer for an analysis", expected="--method, which analyze compares")
    request = ConvertRequest(
        targets=(args.to,),
        precisions=("int8",),
        options=parse_target_options(args.option),
        calibration=args.calibrate,
        calibration_limit=args.calibration_samples,
        calibration_table=args.calibration_table,
        skip_unreadable=args.skip_unreadable,
        allow_suspicious=args.allow_suspicious_calibration,
        method=args.method,
        observer=parse_observer(args.observer),
        keep_float=tuple(args.keep_float),
        verify=False,
    )
    check_before_loading(Path(args.model), request)
    model = load_source(args)
    for line in source_lines(model):
        progress(line)
    report = analyze(
        model,
        request,
        budget_db=budget,
        compare=args.compare,
        samples=args.samples or DEFAULT_SAMPLES,
        progress=progress,
    )
    print(noise_to_json(report) if args.json else render_noise(report, everything=args.all))
    return EXIT_OK if report.meets_budget else EXIT_PARITY


def parse_budget(text: str | None) -> float | None:
    """The dB of ``snr=DB``; None for None.

    Raises:
        UserError: anything else.
    """
    if text is None:
        return None
    name, _, value = text.partition("=")
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if name != "snr" or not 0 < found < 200:
        raise UserError(f"--budget {text!r}", expected="snr=DB, e.g. snr=35")
    return found
