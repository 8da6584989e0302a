"""Float weights behind integers stay what they are under ONNX Runtime's optimizations."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from deploykit_onnx.shield_float_weights import ShieldFloatWeights

NETWORK = """<ir_version: 9, opset_import: ["" : 17]>
g (float[1, 8, 4, 4] x) => (float[1, 8, 1, 1] y)
<float s = {0.01}, int8 z = {0}> {
    xq = QuantizeLinear (x, s, z)
    xd = DequantizeLinear (xq, s, z)
    c = Conv (xd, W, B)
    r = Relu (c)
    q = QuantizeLinear (r, s, z)
    d = DequantizeLinear (q, s, z)
    y = Conv (d, V) }"""


def network() -> onnx.ModelProto:
    model = onnx.parser.parse_model(NETWORK)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((8, 8, 1, 1)).astype(np.float32)
    weights[0] *= 100  # the one scale of all channels
    last = rng.standard_normal((8, 8, 4, 4)).astype(np.float32) / 50
    constants = {"W": weights / 100, "B": np.full(8, 0.1, np.float32), "V": last}
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def run(model: onnx.ModelProto, level: str) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 8, 4, 4)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), options)
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def test_optimized_and_plain_agree_and_nothing_is_left_to_do() -> None:
    wanted = run(network(), "ORT_DISABLE_ALL")
    lost = np.abs(run(network(), "ORT_ENABLE_ALL") - wanted).max()
    model = ir.from_proto(network())

    result = ShieldFloatWeights().apply(model)

    assert len(result.notes) == 2
    found = ir.to_proto(model)
    np.testing.assert_allclose(run(found, "ORT_DISABLE_ALL"), wanted, atol=1e-6)
    shielded = np.abs(run(found, "ORT_ENABLE_ALL") - wanted).max()
    assert shielded <= 1e-6 < lost
    assert not ShieldFloatWeights().apply(model).changed
