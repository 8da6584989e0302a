"""What `inspect` prints."""

from __future__ import annotations

from deploykit.graph.provenance import MODULE_KEY, SOURCE_KEY
from deploykit.graph.text import format_graph, format_notes
from deploykit.model import PassNote, Stage
from deploykit.passes.pipeline import advance
from deploykit_testing.graphs import as_model, parse

_TEXT = """g (float[1,3,4,4] x, float[2,3,3,3] W, float[2] B) => (float[1,2,2,2] y)
    <float low = {0}, float high = {6}> {
    c = Conv (x, W, B) s = Sigmoid (c) m = Mul (c, s) y = Clip (m, low, high) }"""


def test_graph() -> None:
    exported = parse(_TEXT)
    exported.graph[0].metadata_props.update({MODULE_KEY: "stem", SOURCE_KEY: "net.py:7"})
    text = format_graph(advance(as_model(exported), Stage.FUSED))
    assert (
        text
        == """\
test, fused stage, operator sets: ai.onnx 20, deploykit 1
input  x: float32[1, 3, 4, 4]
c: float32[1, 2, 2, 2] = Conv(x, W[2, 3, 3, 3], [-1.288361, 0.3951221]; \
dilations=[1, 1], group=1, kernel_shape=[3, 3], pads=[0, 0, 0, 0], strides=[1, 1])\
  # stem, net.py:7
m: float32[1, 2, 2, 2] = deploykit::Silu(c)
y: float32[1, 2, 2, 2] = Clip(m, 0, 6)
output y: float32[1, 2, 2, 2]

3 nodes, 58 constant elements
  Clip             1
  Conv             1
  deploykit::Silu  1
function deploykit::Silu(x) -> (y): Sigmoid, Mul"""
    )


def test_an_exported_graph_with_open_shapes_prints() -> None:
    model = parse(
        "g (float[N,2] x) => (float[N,2] y) { c = Constant <value = float {1}> () y = Add (x, c) }"
    )
    text = format_graph(as_model(model))
    assert "input  x: float32[N, 2]" in text
    assert "Constant(; value=<tensor>)" in text


def test_notes_are_grouped_and_ordered() -> None:
    notes = [
        *(PassNote("fold", f"n{i}", True, "into the Conv before it") for i in range(6)),
        PassNote("fuse", "a", False, "two readers"),
        PassNote("fold", "z", False, "why not"),
        PassNote("fold", "y", False, "why not"),
        PassNote("fold", "x", False, "a reason"),
        PassNote("fold", "w", True, "something rare"),
    ]
    text = format_notes(notes)
    assert (
        text
        == """\
fold
  done    6 x into the Conv before it  (n0, n1, n2, n3, ...)
  done    1 x something rare  (w)
  not     2 x why not  (z, y)
  not     1 x a reason  (x)
fuse
  not     1 x two readers  (a)"""
    )
    assert format_notes(notes) == text
    assert format_notes([]) == ""
