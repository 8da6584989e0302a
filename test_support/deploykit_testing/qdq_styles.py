"""A small network with Q and DQ nodes as different quantizers place them.

Nothing of deploykit's own quantization takes part: ranges are those of one run in ONNX Runtime,
and nodes are put where each style has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Style:
    """Where a quantizer puts its nodes.

    Attributes:
        activations: ``int8`` or ``uint8``.
        symmetric: Whether activations have their zero point in the middle.
        per_channel: Whether weights have one scale an output channel.
        weights: ``constant`` (integers behind DQ), ``fake`` (floats behind Q and DQ), or
            ``uint8`` (integers around 128, one scale).
        bias: ``float``, or ``int32`` behind DQ.
        batchnorm: ``folded``; ``behind`` a convolution with nothing between; or ``between`` two
            pairs, as a separate layer.
        results: Whether every result is rounded, or only what a layer with weights, or an
            addition, reads.
        channels: Whether what a depthwise layer reads has one scale a channel.
    """

    activations: str = "int8"
    symmetric: bool = False
    per_channel: bool = True
    weights: str = "constant"
    bias: str = "float"
    batchnorm: str = "folded"
    results: bool = True
    channels: bool = False


#: Quantizer → how it writes. PT2E folds batch normalization and keeps float biases. NNCF rounds
#: what a layer reads, a depthwise one's channel by channel, and weights in the graph. AIMET writes
#: fake-quantized weights, and leaves batch normalization where it is not asked to fold it. ONNX
#: Runtime writes int32 biases.
STYLES = {
    "pt2e": Style(),
    "pt2e-uint8-symmetric": Style("uint8", symmetric=True),
    "nncf": Style("uint8", weights="fake", results=False, channels=True),
    "nncf-batchnorm": Style("int8", weights="fake", results=False, batchnorm="behind"),
    "aimet": Style("uint8", weights="fake", batchnorm="between"),
    "aimet-symmetric": Style("int8", symmetric=True, weights="fake", batchnorm="behind"),
    "onnxruntime": Style("uint8", bias="int32"),
    "onnxruntime-per-tensor": Style("int8", per_channel=False, bias="int32", batchnorm="behind"),
    "uint8-weights": Style("uint8", per_channel=False, weights="uint8", bias="int32"),
}


@dataclass
class _Writer:
    """Nodes and constants of a graph that is being written."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: Array) -> str:
        self.constants[name] = np.asarray(array)
        return name

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 5])],
            [numpy_helper.from_array(a, n) for n, a in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        return model


def samples(count: int = 16) -> Array:
    """Smooth inputs (n, 3, 16, 16), float32."""
    data = np.random.default_rng(5).standard_normal((count, 3, 16, 16))
    for axis in (2, 3):
        data = data + np.roll(data, 1, axis) + np.roll(data, 2, axis)
    return (data / 3).astype(np.float32)


def float_model() -> onnx.ModelProto:
    """The network in floats."""
    return _Network(Style(batchnorm="behind"), {}).write()


def quantized_model(style: Style) -> onnx.ModelProto:
    """The network in one style."""
    network = _Network(Style(batchnorm="behind"), {}).write()
    return _Network(style, run_all(network, samples())).write()


def run_all(model: onnx.ModelProto, inputs: Array) -> dict[str, Array]:
    """Every value that a node makes, and the input, for each sample."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made = [n.output[0] for n in copy.graph.node]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    session = onnxruntime.InferenceSession(copy.SerializeToString())
    runs = [session.run(made, {"x": one[None]}) for one in inputs]
    return {"x": inputs} | {n: np.stack([r[i] for r in runs]) for i, n in enumerate(made)}


class _Network:
    """A stem, a depthwise layer, a residual branch, a mean and a classifier.

    Args:
        style: Where Q and DQ nodes go.
        values: Value → what it held, (n, 1, C, ...); none to write floats.
    """

    def __init__(self, style: Style, values: Mapping[str, Array]) -> None:
        self._style = style
        self._ranges = {n: (float(a.min()), float(a.max())) for n, a in values.items()}
        self._channel_reach = {
            n: a.max(axis=(0, 1, 3, 4)) for n, a in values.items() if a.ndim == 5
        }
        self._rng = np.random.default_rng(1)
        self._to = _Writer()
        self._scales: dict[str, float] = {}

    def write(self) -> onnx.ModelProto:
        to = self._to
        stem = self._layer(self._read("x"), "stem", (8, 3, 3, 3), strides=[2, 2], pads=[1] * 4)
        stem = self._result(to.node("Relu", [stem], "stem_relu"))
        deep = self._layer(
            self._read(stem, channels=self._style.channels),
            "deep",
            (8, 1, 3, 3),
            pads=[1] * 4,
            group=8,
        )
        low, high = (to.constant(n, np.float32(v)) for n, v in (("zero", 0), ("six", 6)))
        deep = self._result(to.node("Clip", [deep, low, high], "deep_relu6"))
        wide = self._result(self._layer(self._read(deep), "wide", (8, 8, 1, 1)))
        added = self._result(to.node("Add", [self._read(wide), self._read(stem)], "added"))
        mean = self._result(to.node("GlobalAveragePool", [self._read(added)], "mean"))
        flat = to.node("Flatten", [mean], "flat")
        if not self._style.results:
            flat = self._read(flat)
        weights, bias = self._constants("head", (5, 8), flat)
        scores = to.node("Gemm", [flat, weights, bias], "scores", transB=1)
        return to.model(self._result(scores))

    def _layer(self, x: str, name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        """A convolution and its batch normalization."""
        gamma = self._rng.uniform(0.5, 1.5, shape[0]) * self._rng.choice([1, 1, 1, -1], shape[0])
        beta, mean = self._rng.normal(size=(2, shape[0])) * 0.3
        variance = self._rng.uniform(0.5, 2.0, shape[0])
        scale = gamma / np.sqrt(variance + 1e-5)
        folded = self._style.batchnorm == "folded"
        weights, bias = self._constants(
            name, shape, x, scale if folded else None, beta - mean * scale if folded else None
        )
        out = self._to.node("Conv", [x, weights, bias], f"{name}_conv", **attributes)
        if folded:
            return out
        if self._style.batchnorm == "between":
            out = self._result(out)
        parts = (("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance))
        names = [self._to.constant(f"{name}_{n}", a.astype(np.float32)) for n, a in parts]
        return self._to.node("BatchNormalization", [out, *names], f"{name}_bn", epsilon=1e-5)

    def _read(self, value: str, *, channels: bool = False) -> str:
        """A value as a layer reads it."""
        if channels and self._ranges:
            return self._round_channels(value)
        return value if value.endswith("_dq") else self._round(value)

    def _result(self, value: str) -> str:
        return self._round(value) if self._style.results else value

    def _round(self, value: str) -> str:
        if not self._ranges:
            return value
        if f"{value}_dq" in {n.output[0] for n in self._to.nodes}:
            return f"{value}_dq"
        name = value.removesuffix("_conv") + "_bn" if value.endswith("_conv") else value
        if self._style.batchnorm == "between" or name not in self._ranges:
            name = value
        low, high = (min(self._ranges[name][0], 0.0), max(self._ranges[name][1], 0.0))
        dtype = np.dtype(self._style.activations)
        lowest = int(np.iinfo(dtype).min)
        if self._style.symmetric:
            scale, zero = max(-low, high) / 127, lowest + 128
        else:
            scale = (high - low) / 255
            zero = int(np.clip(np.rint(lowest - low / scale), lowest, lowest + 255))
        names = [
            self._to.constant(f"{value}_scale", np.float32(scale)),
            self._to.constant(f"{value}_zero", dtype.type(zero)),
        ]
        self._to.node("QuantizeLinear", [value, *names], f"{value}_q")
        self._scales[f"{value}_dq"] = float(np.float32(scale))
        return self._to.node("DequantizeLinear", [f"{value}_q", *names], f"{value}_dq")

    def _round_channels(self, value: str) -> str:
        """One scale a channel, of a value that is not negative."""
        reach = np.maximum(self._channel_reach[value], 1e-3)
        names = [
            self._to.constant(f"{value}_scales", (reach / 255).astype(np.float32)),
            self._to.constant(f"{value}_zeros", np.zeros(len(reach), np.uint8)),
        ]
        integers = self._to.node("QuantizeLinear", [value, *names], f"{value}_cq", axis=1)
        return self._to.node("DequantizeLinear", [integers, *names], f"{value}_cdq", axis=1)

    def _constants(
        self,
        name: str,
        shape: tuple[int, ...],
        x: str,
        scale: Array | None = None,
        shift: Array | None = None,
    ) -> tuple[str, str]:
        """Weights and a bias as the style writes them."""
        weights = self._rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        bias = self._rng.standard_normal(shape[0]) * 0.1
        if scale is not None and shift is not None:
            weights = weights * scale.reshape(-1, *[1] * (len(shape) - 1))
            bias = bias * scale + shift
        weights, bias = weights.astype(np.float32), bias.astype(np.float32)
        if not self._ranges:
            return self._to.constant(f"{name}_w", weights), self._to.constant(f"{name}_b", bias)
        scales = self._weight_scales(weights)
        written = self._write_weights(f"{name}_w", weights, scales)
        if self._style.bias == "float":
            return written, self._to.constant(f"{name}_b", bias)
        steps = scales * np.float32(self._scales[x.replace("flat", "mean_dq")])
        integers = self._to.constant(f"{name}_b", np.rint(bias / steps).astype(np.int32))
        made = self._to.constant(f"{name}_b_scale", steps.astype(np.float32))
        axis = {"axis": 0} if steps.ndim else {}
        return written, self._to.node("DequantizeLinear", [integers, made], f"{name}_b_dq", **axis)

    def _weight_scales(self, weights: Array) -> Array:
        reach = np.abs(weights).max(axis=tuple(range(1, weights.ndim)))
        return np.float32((reach if self._style.per_channel else reach.max()) / 127)

    def _write_weights(self, name: str, weights: Array, scales: Array) -> str:
        middle = 128 if self._style.weights == "uint8" else 0
        dtype = np.uint8 if middle else np.int8
        zeros = np.full(scales.shape, middle, dtype)
        along = scales.reshape(-1, *[1] * (weights.ndim - 1)) if scales.ndim else scales
        axis = {"axis": 0} if scales.ndim else {}
        names = [
            self._to.constant(f"{name}_scale", scales),
            self._to.constant(f"{name}_zero", zeros),
        ]
        if self._style.weights == "fake":
            self._to.constant(name, weights)
            source = self._to.node("QuantizeLinear", [name, *names], f"{name}_q", **axis)
        else:
            integers = np.clip(np.rint(weights / along) + middle, middle - 127, middle + 127)
            source = self._to.constant(name, integers.astype(dtype))
        return self._to.node("DequantizeLinear", [source, *names], f"{name}_dq", **axis)
