"""The target object: stages it takes and refuses, options, and what it tells of an artefact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.errors import ContractError, NoIntegerLayersError, UnsupportedModelError
from deploykit.graph.node_fields import FormError
from deploykit.model import Model, Precision, Stage
from deploykit.target import ArtifactRequest, Target, find_target
from deploykit_ncnn import TARGET
from deploykit_ncnn.blob_axes import blob_axis, blob_shape, permute_order, ranked
from deploykit_testing.ncnn import (
    normal,
    quantized,
    random_inputs,
    stage_of,
    write,
)

MODEL = stage_of(
    "y = Conv<kernel_shape=[1,1]>(x, W)", "float[1,3,4,4] x", "y", {"W": normal(8, 3, 1, 1)}
)


def test_it_is_found_by_its_entry_point() -> None:
    assert find_target("ncnn") is TARGET
    assert isinstance(TARGET, Target)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_quantized_stage_is_not_written_as_floats(precision: Precision) -> None:
    stage = quantized(MODEL, random_inputs(MODEL))
    with pytest.raises(ContractError, match=r"is quantized"):
        TARGET.write(stage, ArtifactRequest(precision))


def test_a_float_stage_is_not_written_as_int8() -> None:
    with pytest.raises(NoIntegerLayersError, match="not quantized"):
        TARGET.write(MODEL, ArtifactRequest(Precision.INT8))


@pytest.mark.parametrize(
    "options", [{"colour": "red"}, {"requantize": "maybe"}, {"depthwise": "int4"}]
)
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ContractError):
        TARGET.write(MODEL, ArtifactRequest(Precision.FP32, options))


def test_a_stage_quantized_for_another_target_is_refused() -> None:
    body = (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) a = Relu(d) "
        "p = QuantizeLinear(a, s, z) y = DequantizeLinear(p, s, z)"
    )
    constants = {"s": np.float32(0.1), "z": np.int8(3)}
    model = stage_of(body, "float[1,3,4,4] x", "y", constants)
    stage = Model(model.graph, Stage.QUANTIZED, "tiny", model.source)
    with pytest.raises(ContractError, match="this target's own policy"):
        TARGET.write(stage, ArtifactRequest(Precision.INT8))


def test_asymmetric_activations_are_refused() -> None:
    body = (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
        "w = DequantizeLinear(W, s, o) y = Conv<kernel_shape=[1,1]>(d, w)"
    )
    constants = {
        "s": np.float32(0.1),
        "z": np.int8(3),
        "o": np.int8(0),
        "W": np.ones((4, 3, 1, 1), np.int8),
    }
    model = stage_of(body, "float[1,3,4,4] x", "y", constants)
    with pytest.raises(ContractError, match="symmetrically"):
        TARGET.write(model, ArtifactRequest(Precision.INT8))


def test_integer_inputs_are_refused() -> None:
    model = stage_of("y = Relu(x)", "float[1,3,4,4] x", "y")
    model.graph.graph.inputs[0].type = ir.TensorType(ir.DataType.INT64)
    with pytest.raises(UnsupportedModelError, match="float32 inputs"):
        TARGET.write(model, ArtifactRequest(Precision.FP32))


def test_the_summary_counts_layers_and_integers(tmp_path: Path) -> None:
    assert write(tmp_path, MODEL).artifact.summary == {
        "ops": 2,
        "op_counts": {"Convolution": 1, "Input": 1},
    }
    stage = quantized(MODEL, random_inputs(MODEL))
    summary = write(tmp_path, stage, Precision.INT8).artifact.summary
    assert (summary["int8_layers"], summary["requantized"]) == (1, 0)


def test_layers_are_called_after_modules(tmp_path: Path) -> None:
    from deploykit.graph.provenance import MODULE_KEY

    model = stage_of(
        "c = Conv<kernel_shape=[1,1]>(x, W) y = Relu(c)",
        "float[1,3,4,4] x",
        "y",
        {"W": normal(8, 3, 1, 1)},
    )
    for node in model.graph.graph:
        node.metadata_props[MODULE_KEY] = "features.0"
    written = write(tmp_path, model)
    assert written.layer("Convolution").name == "features.0"


# -- axes


def test_the_batch_axis_has_no_blob_axis() -> None:
    assert blob_axis(1, 4) == 0
    assert blob_axis(-1, 4) == 2
    for axis in (0, -4):
        with pytest.raises(FormError, match="batch axis"):
            blob_axis(axis, 4)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3,), (), (1,), (1, 1, 1, 1, 1, 1), (1, 0, 3)])
def test_shapes_that_no_blob_has(shape: tuple[int, ...]) -> None:
    with pytest.raises(FormError):
        blob_shape(shape)


def test_missing_axes_are_put_first() -> None:
    assert ranked((3, 1), 4) == (1, 1, 3, 1)


def test_every_permutation_has_an_order_of_its_own() -> None:
    from itertools import permutations

    for rank, count in ((1, 1), (2, 2), (3, 6), (4, 24)):
        orders = sorted(permute_order(p) for p in permutations(range(rank)))
        assert orders == list(range(count))
        assert permute_order(range(rank)) == 0
