"""Weights that share a zero point get one each; the numbers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from deploykit.runners.onnxruntime_backend import EXACT_INTEGERS, OrtBackend
from deploykit_onnx.separate_zero_points import SeparateZeroPoints

NETWORK = """<ir_version: 9, opset_import: ["" : 17]>
g (float[1, 64, 4, 4] x) => (float[1, 64, 4, 4] y)
<float s = {1.0}, uint8 z = {0}, int8 wz = {0}, float t = {20000.0}> {
    xq = QuantizeLinear (x, s, z)
    xd = DequantizeLinear (xq, s, z)
    wd = DequantizeLinear (W, s, wz)
    c = Conv (xd, wd)
    q = QuantizeLinear (c, t, z)
    d = DequantizeLinear (q, t, z)
    vd = DequantizeLinear (V, s, wz)
    e = Conv (d, vd)
    r = QuantizeLinear (e, t, z)
    y = DequantizeLinear (r, t, z) }"""


def shared() -> ir.Model:
    model = onnx.parser.parse_model(NETWORK)
    rng = np.random.default_rng(0)
    for name in "WV":
        weights = rng.integers(0, 127, (64, 64, 1, 1), np.int8)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return ir.from_proto(model)


def test_each_weight_has_its_zero_point_and_both_precision_modes_agree(tmp_path: Path) -> None:
    model = shared()
    feeds = {"x": np.full((1, 64, 4, 4), 3, np.float32)}
    path = str(tmp_path / "m.onnx")
    ir.save(model, path)
    wanted = OrtBackend(path, {}).run(feeds)["y"]

    result = SeparateZeroPoints().apply(model)

    assert [len(result.notes), result.changed] == [1, True]
    zeros = [n.inputs[2].name for n in model.graph if n.inputs[0].name in ("W", "V")]
    assert len(set(zeros)) == 2
    ir.save(model, path)
    backend = OrtBackend(path, {"optimization": "all"})
    np.testing.assert_array_equal(backend.run(feeds)["y"], wanted)
    assert backend.info()["details"][EXACT_INTEGERS] == "1"
    assert not SeparateZeroPoints().apply(model).changed


def test_a_file_that_cannot_take_exact_kernels_runs_without_and_says_so(tmp_path: Path) -> None:
    path = str(tmp_path / "m.onnx")
    ir.save(shared(), path)
    info = OrtBackend(path, {"optimization": "all"}).info()
    # With VNNI nothing is changed in the model, so nothing can be refused.
    assert info["details"][EXACT_INTEGERS] in ("0", "1")
