"""``deploykit bisect``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import EXIT_OK, EXIT_PARITY

if TYPE_CHECKING:
    from deploykit.flow.bisect import BisectedArtifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that convert wrote")
    parser.add_argument(
        "--runner", required=True, metavar="NAME", help="the runtime in question (NAME or NAME@CPU)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write the layer as a file of its own there"
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="time limit of each run, seconds"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Say which layer is wrong, and return 1 if one is."""
    from deploykit.flow.bisect import bisect, write_wrong_layers

    results = bisect(args.bundle, args.runner, timeout_s=args.timeout)
    written = write_wrong_layers(results, args.out) if args.out is not None else {}
    if args.json:
        document = [_plain(r, written.get(r.path, "")) for r in results]
        print(json.dumps({"schema": "deploykit.bisect/1", "artifacts": document}, indent=1))
    else:
        print("\n".join(line for r in results for line in _lines(r, written.get(r.path, ""))))
    faulty = any(r.found.cause == "kernel fault" for r in results)
    return EXIT_PARITY if faulty else EXIT_OK


def _plain(result: BisectedArtifact, written: str) -> dict[str, Any]:
    found = result.found
    return {
        "path": result.path,
        "runner": result.runner,
        "trusted": result.trusted,
        "cause": found.cause,
        "worst_error_over_range": str(found.worst) if found.worst == float("inf") else found.worst,
        "worst_value": found.worst_value,
        "layer": found.layer,
        "layer_type": found.cut.type if found.cut else None,
        "alone_error_over_range": None if found.alone is None else f"{found.alone:.3g}",
        "mended_error_over_range": None if found.mended is None else f"{found.mended:.3g}",
        "workaround": found.workaround,
        "file": written,
        "tried": list(found.tried),
    }


def _lines(result: BisectedArtifact, written: str) -> list[str]:
    found = result.found
    lines = [
        f"{result.path} on {result.runner} against {result.trusted}: {found.cause}",
        f"  largest difference of a value: {found.worst:.1e} of its range ({found.worst_value})",
    ]
    if found.cut is not None and found.alone is not None:
        lines.append(
            f"  first wrong layer: {found.layer} ({found.cut.type}), by itself {found.alone:.1e} "
            "of its range off"
        )
        if found.workaround:
            lines.append(f"  work-around: {found.workaround} ({found.mended:.1e} with it)")
        if written:
            lines.append(f"  wrote {written}: this layer alone")
    elif found.cause == "rounding":
        lines.append(f"  no layer is wrong by itself; run alone: {', '.join(found.tried) or '-'}")
    return lines
