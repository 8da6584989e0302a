"""``deploykit convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.cli.arguments import (
    add_source_arguments,
    add_verdict_arguments,
    arm64_cpus,
    load_source,
    positive,
    sample_count,
    source_lines,
    terminal_width,
)
from deploykit.cli.progress import shown_progress
from deploykit.cli.view_files import add_view_arguments, check_view_files, write_view_files
from deploykit.target_options import DEFAULT_TARGET

if TYPE_CHECKING:
    from deploykit.target_options import TargetOption
    from deploykit_quantize.policy import Observer

_PRECISIONS = {
    "fp32": "float32 weights and activations (default of most targets)",
    "fp16": "float16 weights; activations float32 or float16, as the target has it",
    "w8": "int8 weights, activations quantized by the runtime (dynamic range)",
    "int8": "int8 weights and activations (full integer); needs calibration data",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    parser.add_argument(
        "--to",
        default=DEFAULT_TARGET,
        metavar="TARGETS",
        help="targets, comma-separated, or all (%(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="DIR",
        help="the bundle; default: the model's name",
    )
    group = parser.add_argument_group("precision (several may be given)")
    for name, text in _PRECISIONS.items():
        group.add_argument(
            f"--{name}", action="append_const", const=name, dest="precisions", help=text
        )
    _add_target_options(parser)
    add_calibration_arguments(parser)
    add_verdict_arguments(parser)
    add_view_arguments(parser)
    parser.add_argument(
        "--keep-stages",
        action="store_true",
        help="keep the stages as .onnx files, so that verify compares layers on other machines",
    )
    parser.add_argument("--no-verify", action="store_true", help="write only, run nothing")
    parser.add_argument("--layers", action="store_true", help="compare value by value")
    parser.add_argument(
        "--samples",
        type=sample_count,
        default=None,
        metavar="N",
        help="verify on N samples (64, or as many as there are; 16 synthetic ones without any)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress lines")


def _add_target_options(parser: argparse.ArgumentParser) -> None:
    """``--option``, and the flags that targets declare: each is an ``--option`` spelled shortly."""
    group = parser.add_argument_group("options of targets (deploykit targets lists all)")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TARGET.NAME=VALUE",
        help="an option of one target, e.g. coreml.ios=17 (repeat)",
    )
    for target, option in declared_flags():
        text = f"{target}: {option.summary} (default: {option.default})".replace("%", "%%")
        name = f"{target}.{option.name}"
        if set(option.values) == {"no", "yes"}:
            yes = f"{name}=yes"
            group.add_argument(
                option.flag, action="append_const", dest="option", const=yes, help=text
            )
            continue
        group.add_argument(
            option.flag,
            action="append",
            dest="option",
            type=f"{name}={{}}".format,
            metavar="|".join(option.values) or "VALUE",
            help=text,
        )


def declared_flags() -> list[tuple[str, TargetOption]]:
    """Target and option of every flag that an installed target declares.

    Raises:
        UserError: two of them declare the same one.
    """
    from deploykit.errors import UserError
    from deploykit.target import available_targets, find_target, options_of

    found: dict[str, tuple[str, TargetOption]] = {}
    for name in available_targets():
        try:
            options = options_of(find_target(name))
        except UserError:  # a plug-in that cannot be used: asking for it says why
            continue
        for option in options:
            if not option.flag:
                continue
            other = found.setdefault(option.flag, (name, option))
            if other != (name, option):
                raise UserError(
                    f"the targets {other[0]} and {name} both declare the flag {option.flag}",
                    expected="one of them",
                    advice="remove the package that brings one of the two",
                )
    return list(found.values())


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what int8 is calibrated with."""
    group = parser.add_argument_group("calibration")
    group.add_argument(
        "--calibrate",
        type=Path,
        default=None,
        metavar="PATH",
        help="folder of images, .npy or .npz; of several inputs an .npz with an array for each, "
        "or a folder with an entry for each; default: the checkpoint's own sample",
    )
    group.add_argument(
        "--calibration-samples", type=positive, default=None, metavar="N", help="use at most N"
    )
    group.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be decoded instead of stopping",
    )
    group.add_argument(
        "--calibration-table",
        type=Path,
        default=None,
        metavar="JSON",
        help="a table made before (calibration.json of a bundle)",
    )
    group.add_argument(
        "--allow-suspicious-calibration",
        action="store_true",
        help="warn only where the data look like noise",
    )
    group.add_argument(
        "--method",
        default=None,
        metavar="NAME",
        help="how int8 is quantized: auto (default) keeps each step that helps on samples kept "
        "apart; minmax, sums, second-order, equalize, cross-layer",
    )
    group.add_argument(
        "--observer",
        default=None,
        metavar="METHOD",
        help="how ranges are chosen: minmax, mse, percentile or percentile:99.9; turns "
        "--method auto off",
    )
    group.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="REGEX",
        help="leave layers in floats in int8 files: a regular expression over module paths and "
        "value names, e.g. 'blocks.5' (repeat)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert, print the verdicts, and return the exit code."""
    from deploykit.flow.convert import convert
    from deploykit.flow.plan import ConvertRequest
    from deploykit.flow.preflight import check_before_loading
    from deploykit.report.json import report_to_json
    from deploykit.report.terminal import render_layers, render_report, tensor_lines
    from deploykit.target_options import parse_target_options

    request = ConvertRequest(
        targets=tuple(t for t in args.to.split(",") if t),
        precisions=tuple(args.precisions or ()),
        options=parse_target_options(args.option),
        out=args.out,
        calibration=args.calibrate,
        calibration_limit=args.calibration_samples,
        calibration_table=args.calibration_table,
        skip_unreadable=args.skip_unreadable,
        allow_suspicious=args.allow_suspicious_calibration,
        method=args.method,
        observer=parse_observer(args.observer),
        keep_float=tuple(args.keep_float),
        verify=not args.no_verify,
        keep_stages=args.keep_stages,
        runners=tuple(args.runner),
        cpus=arm64_cpus(args),
        samples=args.samples,
        limits=tuple(args.limit),
        layers=args.layers,
        threads=args.threads,
        timeout_s=args.timeout,
    )
    check_view_files(args)
    check_before_loading(Path(args.model), request)
    with shown_progress(quiet=args.quiet) as progress:
        model = load_source(args)
        for line in source_lines(model):
            progress(line)
        result = convert(model, request, progress=progress)
    report = result.report
    if args.json:
        print(report_to_json(report))
    else:
        if report.verdicts or report.skipped:
            print(render_report(report, width=terminal_width()))
        else:
            print("\n".join(tensor_lines(report.tensors)))
        for verdict in report.verdicts:
            if verdict.layers:
                print(f"\n{verdict.path} on {verdict.runner_name}, value by value:")
                print(render_layers(verdict.layers))
        for artifact in result.bundle.artifacts:
            print(f"wrote {result.folder / artifact.path} ({artifact.bytes:,} bytes)")
        if not report.verdicts:
            print("not verified (--no-verify)")
    write_view_files(args, report, result.folder)
    return report.exit_code_with(fail_on_warning=args.fail_on == "warning")


def parse_observer(text: str | None) -> Observer | None:
    from deploykit.errors import UserError
    from deploykit_quantize.policy import Observer

    if text is None:
        return None
    method, _, percentile = text.partition(":")
    if not percentile:
        return Observer(method)
    try:
        return Observer(method, float(percentile))
    except ValueError:
        raise UserError(
            f"--observer {text!r}", expected="minmax, mse, percentile or percentile:99.9"
        ) from None
