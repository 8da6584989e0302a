"""Arguments that several subcommands share, and what they mean for the library."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploykit.model import Model
    from deploykit.preprocess_flags import PreprocessChanges


#: Beyond these a number on the command line is a slip.
MOST_THREADS = 256
MOST_GOLDEN = 10_000
MOST_SAMPLES = 10_000_000
LONGEST_S = 7 * 86_400.0


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """How a model is loaded: `load_source` reads them."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="checkpoint, safetensors, exported program (.pt2), TorchScript, .onnx, .keras or the "
        "folder of a SavedModel; distinguished by content",
    )
    group = parser.add_argument_group("source")
    group.add_argument(
        "--arch",
        default="",
        metavar="NAME",
        help="timm/NAME, torchvision/NAME, deploykit/NAME or package.module:callable; default: "
        "the checkpoint's own",
    )
    group.add_argument(
        "--arch-kwargs",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="arguments of the architecture, e.g. num_classes=10",
    )
    group.add_argument(
        "--key",
        default="",
        help="entry of the checkpoint that holds the weights, or signature of the SavedModel",
    )
    group.add_argument(
        "--input",
        default="",
        metavar="1x3x224x224",
        help="input shape (NCHW); default: the checkpoint's or architecture's own",
    )
    group.add_argument(
        "--trust-code",
        "--trust-pickle",
        action="store_true",
        dest="trust_code",
        help="load a pickled module, a Keras model with custom layers, or a program with any "
        "operators: this RUNS CODE that the file brings, unchecked and with your rights",
    )
    group.add_argument(
        "--preprocess",
        default="",
        metavar="FILE.json",
        help="the preprocessing contract, for a source that has none or another (the fields of "
        "'preprocess' in a bundle's deploykit.json)",
    )
    group.add_argument("--name", default="", help="the model's name; default: the file's")
    _add_preprocess_arguments(parser)


def _add_preprocess_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("preprocessing (changes what the model or --preprocess says)")
    group.add_argument(
        "--mean", default="", metavar="M|R,G,B", help="subtracted, for pixels scaled to 0..1"
    )
    group.add_argument(
        "--std", default="", metavar="S|R,G,B", help="divided by, for pixels scaled to 0..1"
    )
    group.add_argument(
        "--resize",
        default="",
        metavar="N|HxW|none",
        help="shorter side, or exact size, before the centre crop",
    )
    group.add_argument("--crop", default="", metavar="N|HxW", help="size that the network reads")
    group.add_argument("--interpolation", default="", help="nearest, bilinear or bicubic")
    group.add_argument("--color", default="", help="RGB, BGR or GRAY: the order of the channels")
    group.add_argument(
        "--labels",
        default="",
        metavar="FILE|A,B,...",
        help="class names in the order of the outputs: a text file, one a line, or a list",
    )


def add_remembered_arguments(parser: argparse.ArgumentParser) -> None:
    """What a bundle remembers of its source and may be given again; code must be."""
    parser.add_argument(
        "--arch",
        default="",
        metavar="NAME",
        help="the source's architecture, where the bundle cannot remember it: "
        "package.module:callable",
    )
    parser.add_argument("--arch-kwargs", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--trust-code", action="store_true", help="load a source that RUNS CODE that it brings"
    )


def remembered_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of `add_remembered_arguments`, for `deploykit.flow.recall`."""
    from deploykit.sources.parse import parse_arch_kwargs

    kwargs = parse_arch_kwargs(args.arch_kwargs)
    return {"arch": args.arch, "arch_kwargs": kwargs, "trust_code": args.trust_code}


def load_source(args: argparse.Namespace) -> Model:
    """The exported stage of the model that the arguments name."""
    from deploykit.sources.load import load
    from deploykit.sources.options import LoadOptions
    from deploykit.sources.parse import parse_arch_kwargs, parse_input_shape

    options = LoadOptions(
        arch=args.arch,
        arch_kwargs=parse_arch_kwargs(args.arch_kwargs),
        key=args.key,
        input_shape=parse_input_shape(args.input) if args.input else (),
        trust_code=args.trust_code,
    )
    if args.trust_code:
        print(
            f"warning: --trust-code: {args.model} is not checked for code, and what it holds runs "
            "with your rights",
            file=sys.stderr,
        )
    changes = read_preprocess_changes(args)  # before the model is loaded, which takes seconds
    return _with_changes(load(args.model, options=options, name=args.name), changes)


def read_preprocess_changes(args: argparse.Namespace) -> PreprocessChanges:
    """What the flags say of the preprocessing contract and the labels.

    Raises:
        UserError: a value that cannot be read.
    """
    from deploykit.preprocess_flags import (
        PreprocessChanges,
        read_contract,
        read_flags,
        read_labels,
    )

    names = ("mean", "std", "resize", "crop", "interpolation", "color")
    fields = read_flags({name: getattr(args, name) for name in names})
    whole = read_contract(Path(args.preprocess)) if args.preprocess else None
    return PreprocessChanges(whole, fields, read_labels(args.labels))


def _with_changes(model: Model, changes: PreprocessChanges) -> Model:
    from deploykit.preprocess import ContractOrigin

    if changes:
        shape = model.inputs[0].shape if len(model.inputs) == 1 else ()
        contract = changes.apply(model.preprocess, shape)
        model = replace(model, preprocess=contract, preprocess_origin=ContractOrigin.USER)
    return model if changes.labels is None else replace(model, labels=changes.labels)


def source_lines(model: Model) -> list[str]:
    """What a user should see of what was loaded: the architecture, and what an image becomes."""
    lines = [f"loaded {model.name}: {model.source.kind} {model.source.arch}".rstrip()]
    if model.identified:
        lines.append(model.identified)
    if model.preprocess is not None:
        lines.append(f"image: {model.preprocess.describe()}; {model.preprocess_origin.value}")
    return lines


def add_verdict_arguments(parser: argparse.ArgumentParser) -> None:
    """Which runners verify, how strictly, and how that is shown."""
    group = parser.add_argument_group("verification")
    group.add_argument(
        "--runner", action="append", default=[], metavar="NAME", help="only this runner (repeat)"
    )
    group.add_argument(
        "--phone",
        action="store_true",
        help="run the files on ARM64 CPUs too, emulated: a53, a76 and i8mm, or those of --cpu",
    )
    group.add_argument(
        "--cpu",
        action="append",
        default=[],
        metavar="NAME",
        help="an ARM64 CPU to run on too: a53, a76, i8mm or sve2 (repeat)",
    )
    group.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="PRECISION.METRIC=VALUE",
        help="another limit, e.g. int8.max_error_lsb=3 (repeat)",
    )
    add_fail_on(group)
    group.add_argument("--threads", type=thread_count, default=1, help="threads of each runtime")
    group.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S", help="time limit of each runtime"
    )
    group.add_argument("--json", action="store_true", help="print the report as JSON")


def add_fail_on(parser: argparse._ActionsContainer) -> None:
    """``--fail-on``: which verdicts end with exit code 1."""
    parser.add_argument(
        "--fail-on",
        choices=("failure", "warning"),
        default="failure",
        help="exit code 1 for verdicts FAIL (default), or for WARN too",
    )


def arm64_cpus(args: argparse.Namespace) -> tuple[str, ...]:
    """The ARM64 CPUs that ``--cpu`` and ``--phone`` ask for."""
    from deploykit.runners.arm64 import PHONE_CPUS

    named = tuple(cpu for text in args.cpu for cpu in text.split(",") if cpu)
    return tuple(dict.fromkeys(named)) or (PHONE_CPUS if args.phone else ())


def terminal_width() -> int | None:
    """Columns to write in: of ``COLUMNS`` or the terminal; None where neither is."""
    if not os.environ.get("COLUMNS") and not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def positive(text: str) -> int:
    """An integer above zero, for argparse; so large a one that it must be a slip is refused."""
    return _bounded(text, MOST_SAMPLES)


def thread_count(text: str) -> int:
    """A number of threads, for argparse."""
    return _bounded(text, MOST_THREADS)


def sample_count(text: str) -> int:
    """A number of golden inputs, all of which are held in memory, for argparse."""
    return _bounded(text, MOST_GOLDEN)


def seconds(text: str) -> float:
    """A time limit above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0 < value <= LONGEST_S:  # NaN is neither
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {LONGEST_S:g} seconds")
    return value


def seed(text: str) -> int:
    """A seed of random numbers, for argparse."""
    return _bounded(text, 2**32 - 1, least=0)


def _bounded(text: str, most: int, *, least: int = 1) -> int:
    if not (text.strip().lstrip("+-").isdecimal() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number")
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    if value > most:
        raise argparse.ArgumentTypeError(f"{text} is more than {most:,}")
    return value
