"""Writes docs/targets.md from what the targets themselves declare.

python docs/make_targets.py           write it
python docs/make_targets.py --check   exit code 1 if it is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploykit.files import write_atomically
from deploykit.graph.ops import CANONICAL_OPS
from deploykit.model import Precision
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.registry import runner_definitions
from deploykit.target import (
    Target,
    available_targets,
    default_precision_of,
    find_target,
    options_of,
)

FILE = Path(__file__).parent / "targets.md"

_HEAD = """\
# Targets

What each target declares, written by `python docs/make_targets.py`. `deploykit targets` tells the
same, with what is installed here; `deploykit doctor` what is missing, and the commands that install
it. Both have `--json`. `deploykit doctor --need tflite,coreml` ends with exit code 2 if one of them
is not usable. Which op is carried where: [ops.md](ops.md). Every trained family on every target:
[families_targets.md](families_targets.md).

"""
_OPTIONS = """
The default is what is written where no precision is asked for. Ops: of the {ops} of the canonical
set.

## Options

Given by `--option NAME=VALUE`, or by the flag that some have.

"""
_RUNNERS = """
## Runners

Each runs in a separate process. `--runner NAME` takes this one only (repeat).

"""
_TAIL = """
## One verdict

`deploykit convert M --to all --fp32 --int8` writes every installed target from one source and one
calibration, and prints one table: target x precision x runner, with size, conversion error,
quantization noise, top-1 agreement and verdict. `deploykit.json` holds the same figures, each check
with its limit. The table fits the terminal: on less than about 165 columns kernels and versions
stand below it only, on less than about 110 each artefact has a heading with its runners below it.

- What `all` leaves out (a target that is not installed, a precision that a target does not write)
  is named with its reason; exit code 0.
- A target that refuses the model, while another takes it, is skipped: the others are written, the
  report and `deploykit.json` (`left_out`) name it with its reason and every op that it lacks, each
  with its module path; exit code 3. Where one target alone is asked for, or none takes the model,
  nothing is written.
- A runtime that dies or takes too long is a verdict, `CRASHED` or `TIMED OUT`, with the signal and
  the last lines that it wrote; the other runners are still asked; exit code 1.
- `--limit PRECISION.METRIC=VALUE` verifies by another limit. One that would verify nothing (a
  metric that the precision does not have, a precision that is not written) is refused.
"""


def targets_page() -> str:
    """The page as Markdown; it says nothing of the machine that it is written on."""
    targets = [find_target(name) for name in available_targets()]
    parts = [
        _HEAD,
        _table(("target", *(p.value for p in Precision), "ops"), map(_precision_row, targets)),
        _OPTIONS.format(ops=len(CANONICAL_OPS)),
        _table(
            ("option", "values", "default", "flag", "precisions", "what it does"),
            (row for target in targets for row in _option_rows(target)),
        ),
        _RUNNERS,
        _table(
            ("runner", "runs", "verifies", "package", "what it is"),
            map(_runner_row, runner_definitions().values()),
        ),
        _TAIL,
    ]
    return "".join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |\n" for row in lines
    )


def _precision_row(target: Target) -> list[str]:
    default = default_precision_of(target)
    has = {p: "default" if p is default else "yes" for p in target.precisions}
    table = target.lowerings()
    carried = sum((op.domain, op.op_type) in table.ops for op in CANONICAL_OPS)
    return [target.name, *(has.get(p, "-") for p in Precision), str(carried)]


def _option_rows(target: Target) -> list[list[str]]:
    return [
        [
            f"`{target.name}.{option.name}`",
            option.format_values(),
            option.default,
            f"`{option.flag}`" if option.flag else "-",
            ", ".join(option.precisions) or "all",
            option.summary,
        ]
        for option in options_of(target)
    ]


def _runner_row(runner: RunnerDefinition) -> list[str]:
    return [
        f"`{runner.name}`",
        runner.runs,
        _when(runner),
        f"`{runner.requires.partition('.')[0]}`" if runner.requires else "-",
        runner.description,
    ]


def _when(runner: RunnerDefinition) -> str:
    """When it verifies where the user names no runner."""
    owned = {own.name for name in available_targets() for own in find_target(name).runners}
    if runner.name not in owned:
        return "is the reference" if runner.runs == "source" else "runs every stage"
    if runner.on_request:
        return "where it is named"
    if runner.environment is not None:
        return f"after `deploykit doctor --setup {runner.environment.name}`"
    if runner.suffix:
        return f"files with `{runner.suffix}`"
    return "where the machine has it" if runner.probe else "always"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if stale")
    page = targets_page()
    if not parser.parse_args().check:
        write_atomically(FILE, page.encode())
        return 0
    if FILE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{FILE.name} is not what the targets declare: run python docs/make_targets.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
