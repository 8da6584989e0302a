"""What the tests of the graph and the passes share: models from ONNX text, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime

from deploykit.graph.reading import constant_array
from deploykit.model import Model, SourceInfo, Stage
from deploykit.passes.base import Pass, PassNote, run_passes
from deploykit.passes.canonicalize import Canonicalize
from deploykit.passes.eliminate_identities import EliminateIdentities
from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.infer_shapes import InferShapes
from deploykit.passes.inline_functions import InlineFunctions
from deploykit.passes.remove_unused import RemoveUnused
from deploykit.tensors import Array

HEADER = '<ir_version: 9, opset_import: ["" : 20]>\n'


def parse(text: str, *, seed: int = 0, header: str = HEADER) -> ir.Model:
    """A model from ONNX text.

    Inputs whose name begins with a capital are weights: they become initializers of seeded normal
    numbers (those that begin with ``Var`` are positive).
    """
    proto = onnx.parser.parse_model(header + text)
    rng = np.random.default_rng(seed)
    kept = []
    for value in proto.graph.input:
        if not value.name[0].isupper():
            kept.append(value)
            continue
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = np.asarray(rng.standard_normal(dims), dtype=np.float32)
        if value.name.startswith("Var"):
            array = np.abs(array) + np.float32(0.3)
        elif array.ndim > 1:  # as networks are initialised: sums stay as large as what they add
            array /= np.float32(np.sqrt(array[0].size))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def as_model(graph: ir.Model, stage: Stage = Stage.EXPORTED) -> Model:
    """A stage that holds a graph."""
    return Model(graph, stage, "test", SourceInfo("onnx"))


def run(model: ir.Model, feeds: Mapping[str, Array]) -> list[Array]:
    """Every output of a model, by ONNX Runtime without its own graph rewrites."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(r) for r in session.run(None, dict(feeds))]


def random_feeds(model: ir.Model, seed: int = 1, scale: float = 2.0) -> dict[str, Array]:
    """Normal numbers for every input of a model."""
    rng = np.random.default_rng(seed)
    return {
        value.name or "": (rng.standard_normal(value.shape.numpy()) * scale).astype(np.float32)
        for value in model.graph.inputs
        if value.shape is not None
    }


def assert_same_numbers(
    before: ir.Model, after: ir.Model, *, seed: int = 1, tolerance: float = 2e-6
) -> None:
    """Both models give the same outputs, under the same names, relative to each one's range."""
    assert [v.name for v in before.graph.outputs] == [v.name for v in after.graph.outputs]
    feeds = random_feeds(before, seed)
    for a, b in zip(run(before, feeds), run(after, feeds), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if a.size:
            reach = max(float(np.max(np.abs(a))), 1e-6)
            assert float(np.max(np.abs(a - b))) <= tolerance * reach


def assert_described(model: ir.Model) -> None:
    """Every value has the shape and dtype that ONNX infers, and the model passes the checker."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    known = {v.name: v for v in inferred.graph.value_info}
    for node in model.graph:
        for output in node.outputs:
            assert output.shape is not None, output
            assert output.dtype is not None, output
            if output.name in known and node.domain == "":
                dims = [d.dim_value for d in known[output.name].type.tensor_type.shape.dim]
                assert list(output.shape.numpy()) == dims, output


def prepare(model: ir.Model) -> ir.Model:
    """A clone in canonical form, as the fusing passes get it."""
    clone = model.clone()
    passes: list[Pass] = [InlineFunctions(), FoldConstants(), InferShapes(), Canonicalize()]
    run_passes(clone, [*passes, EliminateIdentities(), RemoveUnused()])
    return clone


def apply(one: Pass, model: ir.Model) -> tuple[PassNote, ...]:
    """Run one pass on a prepared model, in place, then remove what is dead; the pass's notes."""
    notes = one.apply(model).notes
    RemoveUnused().apply(model)
    return notes


def ops(model: ir.Model) -> list[str]:
    """The op types of a model, in order."""
    return [node.op_type for node in model.graph]


def reasons(notes: Sequence[PassNote], *, matched: bool = False) -> list[str]:
    """What the notes say of nodes that were left (or rewritten)."""
    return [note.reason for note in notes if note.matched is matched]


def check(one: Pass, text: str, expected: Sequence[str], *, seed: int = 0) -> list[str]:
    """Prepare a text, run a pass: the ops are as expected, the numbers are the same.

    Returns:
        The reasons of what was left.
    """
    before = prepare(parse(text, seed=seed))
    after = before.clone()
    notes = apply(one, after)
    assert ops(after) == list(expected)
    assert_described(after)
    assert_same_numbers(before, after)
    return reasons(notes)


def check_canonical(text: str, expected: Sequence[str], *, tolerance: float = 2e-6) -> ir.Model:
    """The canonical form of a text: its ops are as expected, its numbers the same."""
    before = parse(text)
    after = prepare(before)
    assert ops(after) == list(expected)
    assert_described(after)
    assert_same_numbers(before, after, tolerance=tolerance)
    return after


def canonical_reasons(text: str) -> list[str]:
    """Why canonicalize left something."""
    model = parse(text)
    passes = [InlineFunctions(), FoldConstants(), InferShapes(), Canonicalize()]
    notes = run_passes(model, passes)
    return [n.reason for n in notes if n.pass_name == "canonicalize" and not n.matched]


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """Attributes of a node as plain values."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def constants_of(node: ir.Node) -> list[Any]:
    """The constant inputs of a node as plain lists."""
    return [a.tolist() for a in (constant_array(v) for v in node.inputs) if a is not None]
