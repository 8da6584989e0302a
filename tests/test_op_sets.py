"""What is known of an op stands in its declaration: few files hold sets of ops of their own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from deploykit.graph.op_facts import CANONICAL_OPS

ROOT = Path(__file__).parents[1]

#: Files with such sets: targets' differences, ONNX's own history, dispatch by op in a few passes.
MOST_FILES = 15


def op_displays(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line and names of each display (set, tuple, list, dict) of two canonical ops or more."""
    names = {op.op_type for op in CANONICAL_OPS}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Set | ast.Tuple | ast.List):
            parts: list[ast.expr | None] = list(node.elts)
        elif isinstance(node, ast.Dict):
            parts = list(node.keys)
        else:
            continue
        found = [p.value for p in parts if isinstance(p, ast.Constant) and p.value in names]
        if len(found) >= 2:
            yield node.lineno, [str(name) for name in found]


def test_sets_of_ops_stand_in_few_files() -> None:
    found = {}
    for folder in ("deploykit", "converters", "quantize"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name.endswith("_test.py") or path.parent.name == "op_facts":
                continue
            displays = list(op_displays(path.read_text()))
            if displays:
                found[str(path.relative_to(ROOT))] = displays
    told = "\n".join(f"{path}: {displays}" for path, displays in found.items())
    assert len(found) <= MOST_FILES, (
        "declare what is known of an op in deploykit/graph/op_facts and derive the set:\n" + told
    )


def test_the_counter_counts() -> None:
    text = 'A = {"Conv", "Gemm"}\nB = f("Conv", "Gemm")\nC = {"Relu": 1, "Clip": 2}\nD = {"Conv"}'
    assert [line for line, _ in op_displays(text)] == [1, 3]
