"""Canonical form of what moves and resizes: one spelling, the same numbers, every reason."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.passes.base import run_passes
from deploykit.passes.canonicalize import Canonicalize
from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.infer_shapes import InferShapes
from deploykit.passes.inline_functions import InlineFunctions
from deploykit_testing.graphs import (
    assert_described,
    assert_same_numbers,
    canonical_reasons,
    check_canonical,
    constants_of,
    ops,
    parse,
    prepare,
)

# --- shapes


@pytest.mark.parametrize(
    ("body", "outputs", "expected"),
    [
        ("z = Flatten (x) y = Neg (z)", "float[2,12] y", ["Reshape", "Neg"]),
        ("z = Unsqueeze (x, a1) y = Neg (z)", "float[2,1,3,4] y", ["Reshape", "Neg"]),
        ("u = Unsqueeze (x, a1) n = Neg (u) y = Squeeze (n, a1)", "float[2,3,4] y", None),
        ("z = Reshape (x, free) y = Neg (z)", "float[2,12] y", ["Reshape", "Neg"]),
        ("y = Transpose (x)", "float[4,3,2] y", ["Transpose"]),
        ("y = Concat <axis = -2> (x, x)", "float[2,6,4] y", ["Concat"]),
        ("y, z = Split <axis = -1, num_outputs = 2> (x)", "float[2,3,2] y, float[2,3,2] z", None),
        ("y = Slice (x, m2, big, m1)", "float[2,3,2] y", ["Slice"]),
        ("y = Slice (x, a1, big)", "float[1,3,4] y", ["Slice"]),
        ("y = Gather <axis = -1> (x, near)", "float[2,3,2] y", ["Slice"]),
        ("y = Gather <axis = 1> (x, last)", "float[2,4] y", ["Slice", "Reshape"]),
        ("y = Gather <axis = 1> (x, far)", "float[2,2,4] y", ["Gather"]),
        ("y = Pad (x, p2, , m1)", "float[2,3,7] y", ["Pad"]),
        ("y = Pad (x, p6)", "float[2,4,4] y", ["Pad"]),
        ("y = Expand (x, e)", "float[5,2,3,4] y", ["Expand"]),
    ],
)
def test_shapes(body: str, outputs: str, expected: list[str] | None) -> None:
    text = f"""g (float[2,3,4] x) => ({outputs}) <int64[1] a1 = {{1}}, int64[2] free = {{0, -1}},
        int64[1] m1 = {{-1}}, int64[1] m2 = {{-2}}, int64[1] big = {{9223372036854775807}},
        int64[2] near = {{1, 2}}, int64 last = {{-1}}, int64[2] far = {{0, -1}},
        int64[2] p2 = {{1, 2}}, int64[6] p6 = {{0, 1, 0, 0, 0, 0}}, int64[4] e = {{5, 1, 1, 1}}>
        {{ {body} }}"""
    before = parse(text)
    after = prepare(before)
    assert_described(after)
    assert_same_numbers(before, after)
    if expected is not None:
        assert ops(after) == expected
    for node in after.graph:
        for numbers in constants_of(node):
            assert np.min(numbers) >= 0
        for name in ("axis", "perm"):
            if name in node.attributes:
                assert np.min(node.attributes[name].value) >= 0


def test_split_to_sequence() -> None:
    for sizes in ("int64 s = {2}", "int64[2] s = {2, 2}"):
        text = f"""g (float[1,4,2] x) => (float[1,2,2] y, float[1,2,2] z)
            <{sizes}, int64 a = {{0}}, int64 b = {{-1}}> {{
            q = SplitToSequence <axis = 1> (x, s) y = SequenceAt (q, a) z = SequenceAt (q, b) }}"""
        before = parse(text)
        after = prepare(before)
        assert ops(after) == ["Split"]
        assert [o.name for o in after.graph[0].outputs] == ["y", "z"]
        assert_same_numbers(before, after)


def test_one_part_taken_twice() -> None:
    text = """g (float[1,4,2] x) => (float[1,2,2] y) <int64 s = {2}, int64 a = {0}> {
        q = SplitToSequence <axis = 1> (x, s) u = SequenceAt (q, a) v = SequenceAt (q, a)
        y = Add (u, v) }"""
    check_canonical(text, ["Split", "Add"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Slice (x, s, e)", "the bounds of Slice are computed"),
        ("y = Slice (x, big, low, one, back)", "Slice with a negative step"),
        ("y = Gather (x, s)", "the indices of Gather are computed"),
        (
            "p = Concat <axis = 0> (s, e) y = Pad (x, p)",
            "the pads of Pad are computed",
        ),
    ],
)
def test_reasons_of_shapes(body: str, reason: str) -> None:
    text = f"""g (float[4] x, int64[1] s, int64[1] e) => (float[4] y) <int64[1] big = {{9}},
        int64[1] low = {{-9}}, int64[1] one = {{0}}, int64[1] back = {{-1}}> {{ {body} }}"""
    model = parse(text)
    for node in model.graph:
        node.outputs[0].shape = node.outputs[0].shape or ir.Shape([4])
        node.outputs[0].dtype = node.outputs[0].dtype or ir.DataType.FLOAT
    passes = [InlineFunctions(), FoldConstants(), InferShapes(), Canonicalize()]
    notes = run_passes(model, passes)
    assert [n.reason for n in notes if not n.matched] == [reason]


# --- Resize


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("scale", [2.0, 0.5])
def test_resize_has_sizes(mode: str, transform: str, scale: float) -> None:
    size = int(6 * scale)
    text = f"""g (float[1,2,6,6] x) => (float[1,2,{size},{size}] y)
        <float[4] s = {{1, 1, {scale}, {scale}}}> {{
        y = Resize <mode = "{mode}", coordinate_transformation_mode = "{transform}",
            nearest_mode = "floor"> (x, , s) }}"""
    node = check_canonical(text, ["Resize"], tolerance=1e-5).graph[0]
    assert constants_of(node) == [[1, 2, size, size]]
    assert ("nearest_mode" in node.attributes) == (mode == "nearest")


@pytest.mark.parametrize(
    ("attributes", "inputs", "reason"),
    [
        ('mode = "cubic"', "x, , s", "Resize with mode cubic"),
        ('mode = "linear"', "x, , odd", "a scale of 1.4 on a length of 6: no whole number"),
        ('mode = "linear", antialias = 1', "x, , s", "Resize with antialias"),
        (
            'mode = "linear", keep_aspect_ratio_policy = "not_larger"',
            "x, , , z",
            "Resize that keeps the aspect ratio",
        ),
    ],
)
def test_reasons_of_resize(attributes: str, inputs: str, reason: str) -> None:
    text = f"""g (float[1,2,6,6] x) => (float[1,2,H,V] y) <float[4] s = {{1, 1, 2, 2}},
        float[4] odd = {{1, 1, 1.4, 1.4}}, int64[4] z = {{1, 2, 12, 12}}> {{
        y = Resize <{attributes}> ({inputs}) }}"""
    assert canonical_reasons(text) == [reason]


def test_half_pixel_of_torch() -> None:
    text = """g (float[1,2,6,6] x) => (float[1,2,1,12] y) <int64[4] z = {1, 2, 1, 12}> {
        y = Resize <mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel">
            (x, , , z) }"""
    assert canonical_reasons(text) == ["pytorch_half_pixel to a length of 1"]
    same = text.replace("1,12]", "3,12]").replace("2, 1, 12", "2, 3, 12")
    node = check_canonical(same, ["Resize"], tolerance=1e-5).graph[0]
    assert node.attributes["coordinate_transformation_mode"].as_string() == "half_pixel"
