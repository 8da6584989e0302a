"""``deploykit inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploykit.cli.arguments import add_source_arguments, load_source
from deploykit.errors import EXIT_OK, UserError

_STAGES = ("exported", "simplified", "fused")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source_arguments(parser)
    parser.add_argument(
        "--stage", choices=_STAGES, default="fused", help="which stage to print (fused)"
    )
    parser.add_argument(
        "--no-notes",
        action="store_true",
        help="leave out what each pass did, or why not",
    )
    parser.add_argument(
        "--save", type=Path, default=None, metavar="FILE.onnx", help="write the stage as .onnx"
    )


def run(args: argparse.Namespace) -> int:
    """Print a stage, or an artefact if a target knows the file."""
    from deploykit.target import available_targets, find_target

    path = Path(args.model)
    if path.is_file() or path.is_dir():  # to open a pipe would wait for its other end
        for name in available_targets():
            target = find_target(name)
            if target.recognizes(path):
                if args.save is not None:
                    raise UserError(f"{path} is a {name} artefact", expected="--save of a model")
                print(target.inspect(path))
                return EXIT_OK
    from deploykit.graph.text import format_graph, format_notes
    from deploykit.model import Stage
    from deploykit.passes.pipeline import advance

    model = advance(load_source(args), Stage(args.stage))
    print(format_graph(model))
    if model.notes and not args.no_notes:
        print(f"\n{format_notes(model.notes)}")
    if args.save is not None:
        model.save(args.save)
        print(f"wrote {args.save}")
    return EXIT_OK
