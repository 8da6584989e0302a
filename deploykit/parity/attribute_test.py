from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.model import Model, SourceInfo, Stage
from deploykit.parity.attribute import compare_stages, first_divergence
from deploykit.parity.stages import run_stage
from deploykit.report.terminal import render_report
from deploykit.verdict import Report

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


def stage(which: Stage, factor: float) -> Model:
    text = f"""
    <ir_version: 9, opset_import: ["" : 20]>
    net (float[1,4] x) => (float[1,4] y) <float k = {{{factor}}}> {{ y = Mul(x, k) }}
    """
    return Model(ir.from_onnx_text(text), which, "net", SourceInfo("onnx"))


@pytest.mark.parametrize(
    ("factors", "broken"),
    [((2.0, 2.0, 2.0), None), ((2.0, 2.5, 2.5), "simplified"), ((2.0, 2.0, 3.0), "fused")],
)
def test_the_first_stage_that_diverges_is_where_it_broke(
    factors: tuple[float, ...], broken: str | None
) -> None:
    kinds = (Stage.EXPORTED, Stage.SIMPLIFIED, Stage.FUSED)
    way = {k.value: stage(k, f) for k, f in zip(kinds, factors, strict=True)}
    reference = run_stage(stage(Stage.EXPORTED, 2.0), {"x": X})
    rows = compare_stages(way, {"x": X}, reference, like=way["fused"])
    assert [row.stage for row in rows] == ["exported", "simplified", "fused"]
    first = first_divergence(rows)
    assert (first.stage if first else None) == broken
    text = render_report(Report("net", "torch", (), (), rows))
    marked = [line.split()[0] for line in text.splitlines() if "diverges here first" in line]
    assert marked == ([broken] if broken else [])
