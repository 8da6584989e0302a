"""Whole small networks, one of each family: parity and one XNNPACK partition in every precision."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.model import Model, Precision
from deploykit_testing.tflite import (
    Arrays,
    Written,
    assert_float_parity,
    quantized,
    random_inputs,
    run_onnxruntime,
    stage_of,
    write,
)


class Body:
    """ONNX text and weights of a network, layer by layer."""

    def __init__(self, seed: int = 0) -> None:
        self.text: list[str] = []
        self.constants: dict[str, np.ndarray] = {
            "zero": np.float32(0),
            "six": np.float32(6),
            "hw": np.array([2, 3], np.int64),
        }
        self._generator = np.random.default_rng(seed)
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def op(self, text: str) -> str:
        """Append ``op(...)``; its result's name."""
        result = self.name()
        self.text.append(f"{result} = {text}")
        return result

    def conv(
        self, x: str, cin: int, cout: int, kernel: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        fan_in = cin // group * kernel * kernel
        name, pad = self.name(), kernel // 2
        weights = self._generator.standard_normal((cout, cin // group, kernel, kernel))
        self.constants[f"W{name}"] = (weights * np.sqrt(2 / fan_in)).astype(np.float32)
        self.constants[f"B{name}"] = (self._generator.standard_normal(cout) * 0.1).astype(
            np.float32
        )
        return self.op(
            f"Conv<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], "
            f"pads=[{pad},{pad},{pad},{pad}], dilations=[1,1], group={group}>"
            f"({x}, W{name}, B{name})"
        )

    def gemm(self, x: str, cin: int, cout: int) -> str:
        name = self.name()
        self.constants[f"W{name}"] = (
            self._generator.standard_normal((cout, cin)) / np.sqrt(cin)
        ).astype(np.float32)
        self.constants[f"B{name}"] = np.zeros(cout, np.float32)
        return self.op(f"Gemm<transB=1>({x}, W{name}, B{name})")

    def relu6(self, x: str) -> str:
        return self.op(f"Clip({x}, zero, six)")

    def head(self, x: str, channels: int) -> Model:
        pooled = self.op(f"ReduceMean<keepdims=0>({x}, hw)")
        result = self.gemm(pooled, channels, 10)
        text = " ".join(self.text).replace(f"{result} = ", "logits = ")
        used = {k: v for k, v in self.constants.items() if f"{k})" in text or f"{k}," in text}
        return stage_of(text, "float[1,3,32,32] image", "logits", used)


def mobilenet_v2() -> Model:
    body = Body()
    x = body.relu6(body.conv("image", 3, 16, 3, 2))
    for cin, cout, stride in ((16, 24, 2), (24, 24, 1), (24, 37, 2)):  # 37: an odd width
        y = body.relu6(body.conv(x, cin, cin * 3))
        y = body.relu6(body.conv(y, cin * 3, cin * 3, 3, stride, group=cin * 3))
        y = body.conv(y, cin * 3, cout)
        x = body.op(f"Add({x}, {y})") if cin == cout else y
    return body.head(body.relu6(body.conv(x, 37, 64)), 64)


def squeeze(body: Body, x: str, channels: int) -> str:
    pooled = body.op(f"ReduceMean<keepdims=1>({x}, hw)")
    narrow = body.op(f"Relu({body.conv(pooled, channels, 8)})")
    gate = body.op(f"HardSigmoid<alpha=0.16666667, beta=0.5>({body.conv(narrow, 8, channels)})")
    return body.op(f"Mul({x}, {gate})")


def mobilenet_v3() -> Model:
    body = Body()
    x = body.op(f"HardSwish({body.conv('image', 3, 16, 3, 2)})")
    for stride in (2, 1):
        y = body.op(f"HardSwish({body.conv(x, 16, 48)})")
        y = body.op(f"HardSwish({body.conv(y, 48, 48, 5, stride, group=48)})")
        y = body.conv(squeeze(body, y, 48), 48, 16)
        x = body.op(f"Add({x}, {y})") if stride == 1 else y
    return body.head(body.op(f"HardSwish({body.conv(x, 16, 64)})"), 64)


def ghost_module(body: Body, x: str, cin: int, cout: int, *, relu: bool) -> str:
    primary = body.conv(x, cin, cout // 2)
    primary = body.op(f"Relu({primary})") if relu else primary
    cheap = body.conv(primary, cout // 2, cout // 2, 3, group=cout // 2)
    cheap = body.op(f"Relu({cheap})") if relu else cheap
    return body.op(f"Concat<axis=1>({primary}, {cheap})")


def ghostnet() -> Model:
    body = Body()
    x = body.op(f"Relu({body.conv('image', 3, 16, 3, 2)})")
    for stride, cout in ((1, 16), (2, 24)):
        y = ghost_module(body, x, 16, 48, relu=True)
        if stride == 2:
            y = squeeze(body, body.conv(y, 48, 48, 3, 2, group=48), 48)
            x = body.conv(body.conv(x, 16, 16, 3, 2, group=16), 16, cout)
        y = ghost_module(body, y, 48, cout, relu=False)
        x = body.op(f"Add({x}, {y})")
    return body.head(body.op(f"Relu({body.conv(x, 24, 64)})"), 64)


def shufflenet_v2() -> Model:
    body = Body()
    x = body.op(f"Relu({body.conv('image', 3, 24, 3, 2)})")
    x = body.op(f"MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>({x})")
    left = body.op(f"Relu({body.conv(body.conv(x, 24, 24, 3, 2, group=24), 24, 29)})")
    right = body.op(f"Relu({body.conv(x, 24, 29)})")
    right = body.op(f"Relu({body.conv(body.conv(right, 29, 29, 3, 2, group=29), 29, 29)})")
    for _ in range(2):
        a, b = body.name(), body.name()
        body.text.append(f"{a}, {b} = deploykit.ConcatShuffleSplit<groups=2>({left}, {right})")
        left = a
        right = body.op(f"Relu({body.conv(b, 29, 29)})")
        right = body.op(f"Relu({body.conv(body.conv(right, 29, 29, 3, 1, group=29), 29, 29)})")
    x = body.op(f"Concat<axis=1>({left}, {right})")
    x = body.op(f"deploykit.ChannelShuffle<groups=2>({x})")
    return body.head(body.op(f"Relu({body.conv(x, 58, 64)})"), 64)


def shufflenet_v1() -> Model:
    body = Body()
    x = body.op(f"Relu({body.conv('image', 3, 24, 3, 2)})")
    pool = body.op(
        f"AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>({x})"
    )
    y = body.op(f"Relu({body.conv(x, 24, 24, group=3)})")
    y = body.op(f"deploykit.ChannelShuffle<groups=3>({y})")
    y = body.conv(body.conv(y, 24, 24, 3, 2, group=24), 24, 36, group=3)
    x = body.op(f"Relu({body.op(f'Concat<axis=1>({pool}, {y})')})")
    return body.head(body.op(f"Relu({body.conv(x, 60, 64)})"), 64)


def efficientnet() -> Model:
    body = Body()
    x = body.op(f"deploykit.Silu({body.conv('image', 3, 16, 3, 2)})")
    y = body.op(f"deploykit.Silu({body.conv(x, 16, 48, 1)})")
    pooled = body.op(f"ReduceMean<keepdims=1>({y}, hw)")
    gate = body.op(f"deploykit.Silu({body.conv(pooled, 48, 4)})")
    gate = body.op(f"Sigmoid({body.conv(gate, 4, 48)})")
    y = body.conv(body.op(f"Mul({y}, {gate})"), 48, 16)
    x = body.op(f"Add({x}, {y})")
    return body.head(body.op(f"deploykit.Silu({body.conv(x, 16, 96)})"), 96)


FAMILIES = [mobilenet_v2, mobilenet_v3, ghostnet, shufflenet_v2, shufflenet_v1, efficientnet]


def snr_db(expected: np.ndarray, found: np.ndarray) -> float:
    noise = float(((expected - found) ** 2).sum())
    return float(10 * np.log10(float((expected**2).sum()) / noise))


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32(family) -> None:
    written = assert_float_parity(family(), tolerance=5e-6)
    assert written.is_one_partition
    assert "TRANSPOSE" not in written.ops


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("precision", "snr"), [(Precision.FP16, 55.0), (Precision.W8, 25.0)])
def test_smaller_weights(family, precision: Precision, snr: float) -> None:
    model = family()
    inputs = random_inputs(model)
    expected = run_onnxruntime(model, inputs)["logits"]
    written = write(model, precision)
    assert written.is_one_partition
    assert len(written.artifact.data) < len(write(model).artifact.data)
    for kernels in ("reference", "xnnpack"):
        assert snr_db(expected, written.run(inputs, kernels)["logits"]) > snr


@pytest.mark.parametrize("family", FAMILIES)
def test_int8(family) -> None:
    model = family()
    inputs = random_inputs(model)
    stage = quantized(model, inputs)
    written = write(stage, Precision.INT8)
    assert written.is_one_partition
    assert "TRANSPOSE" not in written.ops
    assert {s.dtype for s in written.artifact.value_specs.values()} == {"int8"}
    wanted = run_onnxruntime(stage, inputs)["logits"]
    params = written.artifact.outputs[0].quantization
    assert params is not None
    for kernels in ("reference", "xnnpack"):
        found = written.run(inputs, kernels)["logits"]
        assert np.abs(found - wanted).max() / params.scale[0] <= 2.001
        assert snr_db(run_onnxruntime(model, inputs)["logits"], found) > 18


def all_values(written: Written, inputs: Arrays) -> Arrays:
    """Every value of the stage that the file holds, from the reference kernels."""
    interpreter = written.interpreter("reference", preserve=True)
    artifact = written.artifact
    for spec, detail in zip(artifact.inputs, interpreter.get_input_details(), strict=True):
        interpreter.set_tensor(detail["index"], spec.encode(inputs[spec.name]))
    interpreter.invoke()
    index = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    return {
        value: artifact.value_specs[tensor].decode(interpreter.get_tensor(index[tensor]))
        for value, tensor in artifact.value_names.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_named_value_is_the_value_of_that_name(family) -> None:
    model = family()
    inputs = random_inputs(model)
    values = all_values(write(model), inputs)
    expected = run_onnxruntime(model, inputs, everything=True) | inputs
    # In ShuffleNetV1's unit the groups are apart: what they are parts of is in no tensor.
    assert len(values) >= (7 if family is shufflenet_v1 else 10)
    for name, found in values.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found / scale, expected[name] / scale, atol=5e-6, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_named_value_in_int8(family) -> None:
    """Every layer starts from the errors of all before it: a step or two, no outlier."""
    model = family()
    inputs = random_inputs(model)
    stage = quantized(model, inputs)
    written = write(stage, Precision.INT8)
    expected = run_onnxruntime(stage, inputs, everything=True) | inputs
    values = all_values(written, inputs)
    assert len(values) > 10
    for name, found in values.items():
        params = written.artifact.value_specs[written.artifact.value_names[name]].quantization
        assert params is not None
        steps = (found - expected[name]) / params.scale[0]
        assert float(np.sqrt((steps**2).mean())) < 2, name
        assert np.abs(steps).max() < 16, name
