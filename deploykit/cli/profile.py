"""``deploykit profile``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.cli.arguments import (
    add_source_arguments,
    load_source,
    positive,
    seconds,
    thread_count,
)
from deploykit.cli.convert import add_calibration_arguments, parse_observer
from deploykit.errors import EXIT_OK
from deploykit.target_options import DEFAULT_TARGET

if TYPE_CHECKING:
    from deploykit.model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "w8", "int8"),
        default="fp32",
        help="whose element sizes the bytes are counted in (fp32)",
    )
    parser.add_argument(
        "--layers",
        choices=("none", "before", "after", "both"),
        default="after",
        help="which layers to list: before fusion, after it (default), both, or totals alone",
    )
    group = parser.add_argument_group("measuring")
    group.add_argument(
        "--measure", action="store_true", help="also run each layer and the whole (fp32)"
    )
    group.add_argument(
        "--int8",
        action="store_true",
        help="count and measure the int8 form of --on's target, quantized as convert --int8 does",
    )
    group.add_argument(
        "--runtime-profiler",
        action="store_true",
        help="as --measure, and the whole under the runtime's own profiler",
    )
    group.add_argument(
        "--on",
        default=DEFAULT_TARGET,
        metavar="TARGET",
        help="whose runtime measures (%(default)s)",
    )
    group.add_argument(
        "--rounds", type=positive, default=30, metavar="N", help="times are medians of N (30)"
    )
    group.add_argument("--threads", type=thread_count, default=1, help="threads of the runtime (1)")
    group.add_argument(
        "--timeout", type=seconds, default=300.0, metavar="S", help="time limit of the measurement"
    )
    add_calibration_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--html", type=Path, default=None, metavar="FILE", help="also write one page with charts"
    )


def run(args: argparse.Namespace) -> int:
    """Count, measure if asked to, and print."""
    from deploykit.cost.profile import fused_stage, profile_stages
    from deploykit.model import Precision
    from deploykit.report.profile_json import profile_to_json
    from deploykit.report.profile_terminal import render_profile
    from deploykit.target import find_target

    find_target(args.on)  # refuses an unknown one before torch is loaded
    model = load_source(args)
    fused = fused_stage(model)
    precision = Precision.FP32
    if args.int8:
        fused, precision = _quantized(fused, args), Precision.INT8
    profile = profile_stages(
        model, fused, Precision.INT8 if args.int8 else Precision(args.precision)
    )
    if args.measure or args.runtime_profiler:
        from deploykit.cost.measure import measure_profile

        profile = measure_profile(
            profile,
            fused,
            args.on,
            precision=precision,
            rounds=args.rounds,
            threads=args.threads,
            timeout_s=args.timeout,
            runtime_profiler=args.runtime_profiler,
        )
    if args.json:
        print(profile_to_json(profile))
    else:
        stages = {
            "none": (),
            "before": (profile.before,),
            "after": (profile.after,),
            "both": (profile.before, profile.after),
        }
        print(render_profile(profile, layers=stages[args.layers]))
    if args.html is not None:
        from deploykit.files import write_atomically
        from deploykit.report.profile_html import profile_to_html

        write_atomically(args.html, profile_to_html(profile).encode())
        if not args.json:
            print(f"wrote {args.html}")
    return EXIT_OK


def _quantized(fused: Model, args: argparse.Namespace) -> Model:
    from deploykit.flow.convert import quantize_for_target
    from deploykit.flow.plan import ConvertRequest
    from deploykit.target import find_target

    request = ConvertRequest(
        targets=(args.on,),
        precisions=("int8",),
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
    return quantize_for_target(fused, find_target(args.on), request)
