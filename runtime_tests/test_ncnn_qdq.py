"""A model that ONNX Runtime quantized, to ncnn in integers: what of its scales is in the file.

The network is the trained example's fused stage, calibrated on its own sample by ONNX Runtime's
``quantize_static``; nothing of deploykit's quantization takes part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("ncnn", reason="ncnn is not installed (extra [ncnn])")

import deploykit
from deploykit.bundle import read_bundle
from deploykit.calibration.data import sample_as_data
from deploykit.cli import main
from deploykit.model import Stage
from deploykit.passes.pipeline import advance
from deploykit_ncnn.read_files import bin_beside, read_param, read_storage

EXAMPLE = Path(__file__).parent.parent / "examples" / "ghostnet.pt"
LAYERS = 96


@dataclass(frozen=True)
class Scales:
    """Of one convolution or linear layer.

    Attributes:
        low: Least real of the input's integers.
        high: Greatest.
        step: Of the input.
        weight_steps: Of the weights: one an output channel, or a group.
    """

    low: float
    high: float
    step: float
    weight_steps: tuple[float, ...]


@dataclass(frozen=True)
class Floats:
    model: Path
    tensors: Path


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Floats:
    folder = tmp_path_factory.mktemp("fused")
    fused = advance(deploykit.load(EXAMPLE), Stage.FUSED)
    fused.save(folder / "ghostnet.onnx")
    data = sample_as_data(fused, 16)
    assert data is not None
    name = fused.inputs[0].name
    np.save(folder / "tensors.npy", np.stack([data.read(i)[name] for i in range(data.count)]))
    return Floats(folder / "ghostnet.onnx", folder / "tensors.npy")


def quantize_static(floats: Floats, out: Path, activations: str, *, symmetric: bool) -> Path:
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter([{"input": one[None]} for one in np.load(floats.tensors)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    q.quantize_static(
        floats.model,
        out,
        Reader(),
        quant_format=q.QuantFormat.QDQ,
        activation_type={"int8": q.QuantType.QInt8, "uint8": q.QuantType.QUInt8}[activations],
        weight_type=q.QuantType.QInt8,
        per_channel=True,
        extra_options={"ActivationSymmetric": symmetric},
    )
    return out


def scales_of_source(path: Path) -> dict[bytes, Scales]:
    """A layer's integer weights → its scales, read from the QDQ model's own nodes."""
    graph = onnx.load(path).graph
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    found = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        data, weights = (makers[name] for name in node.input[:2])
        step, zero = (constants[name] for name in data.input[1:3])
        bounds = np.iinfo(zero.dtype)
        low, high = (float(step) * (edge - int(zero)) for edge in (bounds.min, bounds.max))
        steps = tuple(map(float, constants[weights.input[1]].reshape(-1)))
        key = constants[weights.input[0]].tobytes()
        found[key] = Scales(low, high, float(step), steps)
    return found


def scales_of_file(path: Path) -> dict[bytes, Scales]:
    """The same, read from a .bin file."""
    layers, weights = read_param(path), bin_beside(path)
    data, offset, found = weights.read_bytes(), 0, {}
    stored = read_storage(weights, layers)
    for layer in layers:
        if layer.name not in stored:
            continue
        one = stored[layer.name]
        count = layer.params[2 if layer.type == "InnerProduct" else 6]
        assert isinstance(count, int)
        of_weights, (read,), *_ = one.scales
        key = data[offset + 4 : offset + 4 + count]
        steps = tuple(1 / scale for scale in of_weights)
        found[key] = Scales(-127 / read, 127 / read, 1 / read, steps)
        offset += one.bytes
    return found


def convert(source: Path, floats: Floats, out: Path) -> Path:
    arguments = ["convert", str(source), "--to", "ncnn", "--int8", "--out", str(out)]
    arguments += ["--calibrate", str(floats.tensors), "--samples", "4", "--runner", "ncnn"]
    arguments += ["--option", "ncnn.depthwise=int8"]  # all scales are in the file
    assert main([*arguments, "--quiet"]) == 0
    (artifact,) = read_bundle(out).artifacts
    (verdict,) = artifact.verdicts
    assert verdict.passed
    told = {check.metric: check.measured for check in verdict.checks}
    assert told["top1_agreement"] == 1.0
    assert told["snr_db"] >= 20.0
    return out / artifact.path


def test_symmetric_scales_are_in_the_file(
    floats: Floats, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = quantize_static(floats, tmp_path / "user.onnx", "int8", symmetric=True)
    given = scales_of_source(source)

    found = scales_of_file(convert(source, floats, tmp_path / "bundle"))

    assert len(given) == LAYERS
    assert set(found) == set(given)  # the very integers of the weights
    for key, scales in given.items():
        assert found[key].step == pytest.approx(scales.step, rel=1e-6)
        assert found[key].weight_steps == pytest.approx(scales.weight_steps, rel=1e-6)
    assert "warning: ncnn" not in capsys.readouterr().out


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_affine_scales_become_symmetric_over_the_same_range_and_that_is_told(
    floats: Floats, tmp_path: Path, activations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = quantize_static(floats, tmp_path / "user.onnx", activations, symmetric=False)
    given = scales_of_source(source)

    found = scales_of_file(convert(source, floats, tmp_path / "bundle"))

    assert set(found) == set(given)
    other = 0
    for key, scales in given.items():
        if scales.low == pytest.approx(-scales.high - scales.step):  # zero in the middle
            assert found[key].step == pytest.approx(scales.step, rel=1e-6)
        else:
            largest = max(-scales.low, scales.high)
            assert found[key].high == pytest.approx(largest, rel=1e-6)
            other += 1
        assert found[key].weight_steps == pytest.approx(scales.weight_steps, rel=1e-6)
    assert other > LAYERS // 2
    assert f"warning: ncnn int8: {other} layers read activations that" in capsys.readouterr().out
