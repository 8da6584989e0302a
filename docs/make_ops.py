"""Writes docs/ops.md: the canonical set, and which target carries what.

python docs/make_ops.py
"""

from __future__ import annotations

from pathlib import Path

from deploykit.files import write_atomically
from deploykit.graph.ops import CANONICAL_OPS
from deploykit.target import available_targets, find_target

FILE = Path(__file__).parent / "ops.md"

_HEAD = """\
# Ops

The canonical set: the only ops that a target ever sees, each with its one spelling. Every source is
brought to it (`deploykit inspect MODEL --stage fused` prints the result). Written by
`python docs/make_ops.py`.

"""


def ops_page() -> str:
    """The page as Markdown."""
    targets = [find_target(name) for name in available_targets()]
    names = " | ".join(t.name for t in targets)
    lines = [f"| op | spelling | {names} |", f"|---|---|{'---|' * len(targets)}"]
    reasons = []
    for op in CANONICAL_OPS:
        key = (op.domain, op.op_type)
        shown = f"{op.domain}::{op.op_type}" if op.domain else op.op_type
        cells = []
        for target in targets:
            table = target.lowerings()
            if key in table.ops:
                cells.append("yes")
            elif key in table.refused:
                cells.append("no")
                reasons.append(f"- {shown}, {target.name}: {table.refused[key]}")
            else:
                cells.append("**missing**")
        lines.append(f"| {shown} | {op.spelling} | {' | '.join(cells)} |")
    tail = ["", "Not carried, and why:", "", *reasons] if reasons else []
    return _HEAD + "\n".join(lines + tail) + "\n"


if __name__ == "__main__":
    write_atomically(FILE, ops_page().encode())
