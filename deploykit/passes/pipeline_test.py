"""The stages: order, clones, names, functions, determinism."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.graph.ops import DOMAIN, is_canonical
from deploykit.graph.provenance import MODULE_KEY
from deploykit.model import Stage
from deploykit.passes.base import run_passes
from deploykit.passes.pipeline import (
    advance,
    fuse_model,
    fuse_passes,
    simplify_model,
    simplify_passes,
)
from deploykit_testing.graphs import (
    as_model,
    assert_described,
    assert_same_numbers,
    ops,
    parse,
)

#: A ShuffleNetV2 unit, a squeeze-and-excite, h-swish and SiLU in primitive ops, and a classifier.
_NETWORK = """g (float[1,3,16,16] x, float[8,3,3,3] W0, float[8] G, float[8] Bt, float[8] Mean,
    float[8] Var, float[4,4,1,1] W1, float[4,1,3,3] W2, float[2,8,1,1] W3, float[8,2,1,1] W4,
    float[8,10] W5, float[10] B5) => (float[1,10] y)
    <float three = {3}, float zero = {0}, float six = {6}, int64[2] hw = {2, 3}> {
    p = Constant <value = int64[8] {0,0,1,1,0,0,1,1}> ()
    padded = Pad (x, p)
    c0 = Conv <strides = [2, 2]> (padded, W0) b0 = BatchNormalization (c0, G, Bt, Mean, Var)
    a0 = Add (b0, three) q0 = Clip (a0, zero, six) m0 = Mul (b0, q0) h0 = Div (m0, six)
    halves = Constant <value = int64[2] {4, 4}> ()
    left, right = Split <axis = 1> (h0, halves)
    c1 = Conv (right, W1) s1 = Sigmoid (c1) r1 = Mul (c1, s1)
    c2 = Conv <group = 4, pads = [1, 1, 1, 1]> (r1, W2)
    cat = Concat <axis = 1> (left, c2)
    shape = Shape (cat) n = Constant <value = int64[1] {0}> () batch = Gather (shape, n)
    middle = Constant <value = int64[4] {2, 4, 8, 8}> () five = Concat <axis = 0> (batch, middle)
    v0 = Reshape (cat, five) v1 = Transpose <perm = [0, 2, 1, 3, 4]> (v0) v2 = Reshape (v1, shape)
    l2, r2 = Split <axis = 1> (v2, halves)
    both = Concat <axis = 1> (r2, l2)
    pool = GlobalAveragePool (both) e1 = Conv (pool, W3) e2 = Relu (e1) e3 = Conv (e2, W4)
    gate = HardSigmoid <alpha = 0.16666667> (e3) out = Mul (both, gate)
    last = ReduceMean <keepdims = 0> (out, hw) i = Identity (last) mm = MatMul (i, W5)
    y = Add (mm, B5) }"""

_FUSED = [
    *("Conv", "HardSwish", "Split", "Conv", "Silu", "Conv", "ConcatShuffleSplit", "Concat"),
    *("ReduceMean", "Conv", "Relu", "Conv", "HardSigmoid", "Mul", "ReduceMean", "Gemm"),
]


def test_a_whole_network() -> None:
    exported = as_model(parse(_NETWORK))
    simplified = simplify_model(exported)
    fused = fuse_model(simplified)
    assert (simplified.stage, fused.stage) == (Stage.SIMPLIFIED, Stage.FUSED)
    assert ops(fused.graph) == _FUSED
    assert all(is_canonical(node.domain, node.op_type) for node in fused.graph.graph)
    for stage in (simplified, fused):
        assert_described(stage.graph)
        assert_same_numbers(exported.graph, stage.graph, tolerance=1e-5)


def test_every_name_is_unique_and_of_the_source() -> None:
    exported = parse(_NETWORK)
    fused = advance(as_model(exported), Stage.FUSED).graph
    source = {o.name for node in exported.graph for o in node.outputs}
    values = [o.name for node in fused.graph for o in node.outputs]
    assert set(values) <= source
    assert len(set(values)) == len(values)
    names = [node.name for node in fused.graph]
    assert len(set(names)) == len(names)
    assert values[:2] == ["b0", "h0"]


def test_provenance_is_carried_to_the_fused_stage() -> None:
    exported = parse(_NETWORK)
    for node in exported.graph:
        node.metadata_props[MODULE_KEY] = f"module of {node.outputs[0].name}"
    fused = advance(as_model(exported), Stage.FUSED).graph
    modules = [node.metadata_props.get(MODULE_KEY) for node in fused.graph]
    assert all(modules)
    assert modules[0] == "module of c0"


def test_stages_do_not_share_nodes_and_the_source_is_untouched() -> None:
    exported = as_model(parse(_NETWORK))
    before = exported.serialized()
    simplified = simplify_model(exported)
    between = simplified.serialized()
    fused = fuse_model(simplified)
    assert exported.serialized() == before
    assert simplified.serialized() == between
    shared = set(simplified.graph.graph) & set(fused.graph.graph)
    assert not shared
    unchanged = fused.graph.graph.initializers["W2"].const_value
    assert unchanged is exported.graph.graph.initializers["W2"].const_value


def test_two_runs_give_the_same_bytes_and_notes() -> None:
    first, second = (advance(as_model(parse(_NETWORK)), Stage.FUSED) for _ in range(2))
    assert first.serialized() == second.serialized()
    assert first.notes == second.notes


def test_notes_of_both_stages_are_kept() -> None:
    fused = advance(as_model(parse(_NETWORK)), Stage.FUSED)
    spoke = [name for name, _ in itertools.groupby(note.pass_name for note in fused.notes)]
    assert spoke.index("simplify_onnx") < spoke.index("fold_batchnorm")
    assert "fuse_concat_shuffle_split" in spoke


def test_advance_runs_what_is_needed() -> None:
    model = as_model(parse(_NETWORK))
    assert advance(model, Stage.EXPORTED) is model
    assert advance(model, Stage.SIMPLIFIED).stage is Stage.SIMPLIFIED
    fused = advance(model, Stage.FUSED)
    assert advance(fused, Stage.FUSED) is fused
    with pytest.raises(ValueError, match="no pass leads"):
        advance(fused, Stage.SIMPLIFIED)
    with pytest.raises(ValueError, match="expected exported"):
        simplify_model(fused)


def test_a_fused_stage_is_a_source_again() -> None:
    fused = advance(as_model(parse(_NETWORK)), Stage.FUSED).graph
    assert {key[1] for key in fused.functions} == {"Silu", "ConcatShuffleSplit"}
    assert set(fused.opset_imports) == {"", DOMAIN}
    again = advance(as_model(ir.from_proto(ir.to_proto(fused))), Stage.FUSED).graph
    assert ops(again) == _FUSED
    assert_same_numbers(fused, again, tolerance=1e-6)


def test_the_order_is_checked() -> None:
    for passes in (simplify_passes(), fuse_passes()):
        run_passes(parse(_NETWORK), passes)  # no requirement is missing
    model = parse("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    with pytest.raises(ValueError, match="requires"):
        run_passes(model, fuse_passes()[3:])


def test_fused_stage_ensures_its_facts() -> None:
    facts: set[str] = set()
    for one in fuse_passes():
        facts = (facts - one.breaks) | one.ensures
    assert {
        *("canonical", "static_shapes", "no_batchnorm", "no_dead_code", "no_identities"),
        *("activations_fused", "shuffles_fused", "constants_folded", "no_functions"),
    } <= facts


def test_nan_weights_pass_through_unhidden() -> None:
    model = parse(
        "g (float[1,2,4,4] x, float[3,2,1,1] W) => (float[1,3,4,4] y) { y = Conv (x, W) }"
    )
    tensor = model.graph.initializers["W"].const_value
    assert tensor is not None
    broken = tensor.numpy().copy()
    broken[0, 0, 0, 0] = np.nan
    model.graph.initializers["W"].const_value = ir.Tensor(broken, name="W")
    fused = advance(as_model(model), Stage.FUSED).graph
    kept = fused.graph.initializers["W"].const_value
    assert kept is not None
    assert np.isnan(kept.numpy()).sum() == 1


def test_importing_the_pipeline_is_light() -> None:
    code = """
import sys
import deploykit.passes.pipeline
import deploykit.graph.text
heavy = ("onnx", "onnx_ir", "onnxruntime", "onnxsim", "torch")
print([name for name in heavy if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
