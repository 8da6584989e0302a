"""``deploykit run``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.cli.arguments import seconds, thread_count
from deploykit.errors import EXIT_OK

if TYPE_CHECKING:
    from deploykit.flow.run import ImageRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that convert wrote")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--runner", action="append", default=[], metavar="NAME", help="only this runner (repeat)"
    )
    parser.add_argument("--threads", type=thread_count, default=1, help="threads of each runtime")
    parser.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S", help="time limit of each runtime"
    )
    parser.add_argument("--json", action="store_true", help="print the classes as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the five likeliest classes of each image, by artefact and runner."""
    import json
    from dataclasses import asdict

    from deploykit.flow.run import run_images

    runs = run_images(
        args.bundle,
        args.images,
        runners=args.runner,
        threads=args.threads,
        timeout_s=args.timeout,
    )
    if args.json:
        document = {"schema": "deploykit.run/1", "runs": [asdict(r) for r in runs]}
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        print(render_runs(runs))
    return EXIT_OK


def render_runs(runs: tuple[ImageRun, ...]) -> str:
    """The runs of each image: artefact, runner, time, and the classes with their scores."""
    lines: list[str] = []
    for image in dict.fromkeys(r.image for r in runs):
        lines.append(image)
        for one in (r for r in runs if r.image == image):
            kind = f", {one.kind}" if one.kind else ""
            lines.append(f"  {one.path} on {one.runner} ({one.milliseconds:.1f} ms{kind})")
            lines += [f"    {g.score:10.4g}  {g.label}" for g in one.guesses]
    return "\n".join(lines)
