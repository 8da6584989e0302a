from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from deploykit.errors import RunnerError
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.parity.local_errors import measure_local_errors
from deploykit.runners.base import Runner, RunnerInfo, RunnerSpec
from deploykit.runners.process import OutputsOnlyError, open_runner
from deploykit.target import Artifact
from deploykit.tensors import Array, QuantParams, TensorSpec

#: Doubling, then adding one, each quantized in steps of 1/4: both layers are exact on this grid.
STAGE = """
<ir_version: 9, opset_import: ["" : 20]>
agraph (float[1,4] x) => (float[1,4] y)
<float two = {2.0}, float one = {1.0}, float s = {0.25}, int8 z = {0}>
{
    a = Mul(x, two)
    a_q = QuantizeLinear(a, s, z)
    a_dequantized = DequantizeLinear(a_q, s, z)
    b = Add(a_dequantized, one)
    b_q = QuantizeLinear(b, s, z)
    y = DequantizeLinear(b_q, s, z)
}
"""
QUARTERS = QuantParams((0.25,), (0,))
SPECS = {n: TensorSpec(n, (1, 4), "int8", "plain", QUARTERS) for n in ("first", "second")}
ARTIFACT = Artifact(
    "fake",
    Precision.INT8,
    ".fake",
    b"",
    (TensorSpec("x", (1, 4)),),
    (SPECS["second"],),
    value_names={"a_dequantized": "first", "y": "second"},
    value_specs=SPECS,
)
X = np.float32([[0.5, 1.0, -1.5, 2.0]])


class _Fake(Runner):
    """Computes the two layers, with a fault of so many steps in each."""

    def __init__(self, first: int, second: int, *, outputs_only: bool = False) -> None:
        self.faults, self.outputs_only = (first, second), outputs_only

    @property
    def info(self) -> RunnerInfo:
        return RunnerInfo("fake", "Fake", "1", "none", "none", 1)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise RunnerError("not asked for")

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self.outputs_only:
            raise OutputsOnlyError("outputs only")
        first = QUARTERS.quantize(inputs["x"] * 2) + np.int8(self.faults[0])
        second = first + np.int8(4) + np.int8(self.faults[1])
        return {"first": first, "second": second.astype(np.int8)}

    def close(self) -> None:
        return


def measured(fake: _Fake) -> dict[str, float | None]:
    graph = ir.serde.deserialize_model(parser.parse_model(STAGE))
    stage = Model(graph, Stage.QUANTIZED, "net", SourceInfo("onnx"))

    def open_with(spec: RunnerSpec) -> Any:
        return open_runner(spec) if spec.runner == "onnxruntime" else fake

    rows = measure_local_errors(
        Path("net.fake"), ARTIFACT, stage, runner="fake", inputs={"x": X}, open_with=open_with
    )
    return {row.value: row.max_error_lsb for row in rows}


def test_a_sound_artefact_has_no_error_in_any_layer() -> None:
    assert measured(_Fake(0, 0)) == {"a_dequantized": 0.0, "y": 0.0}


@pytest.mark.parametrize(("first", "second"), [(7, 0), (0, 7), (3, -5)])
def test_a_fault_shows_at_its_own_layer_and_at_no_other(first: int, second: int) -> None:
    assert measured(_Fake(first, second)) == {"a_dequantized": abs(first), "y": abs(second)}


def test_a_runtime_that_gives_outputs_only_has_no_rows() -> None:
    assert measured(_Fake(0, 0, outputs_only=True)) == {}
