"""The sound files that are mutated, made anew in a folder at each start (a few seconds)."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: The network of fuzzed checkpoints, which is built in a few milliseconds.
ARCH_INPUT = (1, 3, 16, 16)
ARCH = "deploykit/mobilenet_v1"
ARCH_OPTIONS: dict[str, Any] = {"num_classes": 5, "width": 0.03}


def make_seeds(folder: Path, formats: set[str]) -> None:
    """Write the seeds of some formats below ``folder``, each in a folder of the format's name."""
    for name, opset in (("net", 17), ("old", 11), ("new", 20)):
        _save(folder / "onnx" / name / "model.onnx", _network(opset))
    _save(folder / "onnx" / "quantized" / "model.onnx", _quantized_network())
    _save(folder / "onnx" / "shapes" / "model.onnx", _shape_network())
    model = folder / "onnx" / "net" / "model.onnx"
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    _make_data(folder, images)
    if formats & {"tflite", "ncnn", "coreml", "ort", "manifest", "golden", "calibration"}:
        _make_bundle(folder, model)
    if formats & {"pt", "pt2", "torchscript", "safetensors"}:
        _make_torch(folder)
    _make_keras(folder)
    _make_saved_model(folder)


def _save(path: Path, model: onnx.ModelProto) -> None:
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def _weights(**shapes: tuple[int, ...]) -> list[TensorProto]:
    generator = np.random.default_rng(0)
    return [
        numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def _model(
    nodes: list[onnx.NodeProto], weights: list[TensorProto], opset: int, shape: list[int]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _network(opset: int) -> onnx.ModelProto:
    node = helper.make_node
    late = opset >= 13
    nodes = [
        node("Conv", ["input", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[1, 1]),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], "norm", epsilon=1e-5),
        node("Clip", ["n", "low", "high"], ["r"], "act"),
        node("Conv", ["r", "d"], ["dw"], "depthwise", group=8, pads=[1, 1, 1, 1]),
        node("Add", ["dw", "r"], ["a"], "residual"),
        node("MaxPool", ["a"], ["mp"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("HardSigmoid", ["mp"], ["h"], "gate", alpha=0.2),
        node("Mul", ["mp", "h"], ["g"], "scale"),
        node("GlobalAveragePool", ["g"], ["p"], "mean"),
        node("Flatten", ["p"], ["f"], "flatten", axis=1),
        node("Unsqueeze", ["f", "axes"], ["u"], "un") if late else node("Unsqueeze", ["f"], ["u"], axes=[2]),
        node("Squeeze", ["u", "axes"], ["q"], "sq") if late else node("Squeeze", ["u"], ["q"], axes=[2]),
        node("Gemm", ["q", "wl", "bl"], ["l"], "linear", transB=1),
        node("Softmax", ["l"], ["output"], "softmax", axis=1),
    ]  # fmt: skip
    weights = _weights(w=(8, 3, 3, 3), b=(8,), s=(8,), m=(8,), d=(8, 1, 3, 3), wl=(5, 8), bl=(5,))
    weights.append(numpy_helper.from_array(np.full(8, 0.7, np.float32), "v"))
    weights.append(numpy_helper.from_array(np.float32(0), "low"))
    weights.append(numpy_helper.from_array(np.float32(6), "high"))
    if late:
        weights.append(numpy_helper.from_array(np.array([2], np.int64), "axes"))
    return _model(nodes, weights, opset, [1, 5])


def _shape_network() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("Shape", ["input"], ["sh"], "shape"),
        node("Gather", ["sh", "zero"], ["n"], "gather", axis=0),
        node("Concat", ["n", "rest"], ["to"], "concat", axis=0),
        node("Reshape", ["input", "to"], ["x"], "reshape"),
        node("Transpose", ["x"], ["t"], "transpose", perm=[0, 2, 1]),
        node("MatMul", ["t", "w"], ["mm"], "matmul"),
        node("Slice", ["mm", "zero", "four", "one"], ["sl"], "slice"),
        node("Split", ["sl", "sizes"], ["s1", "s2"], "split", axis=2),
        node("Concat", ["s2", "s1"], ["cc"], "swap", axis=2),
        node("ReduceMean", ["cc"], ["rm"], "reduce", axes=[1], keepdims=1),
        node("Pad", ["rm", "pads"], ["pd"], "pad"),
        node("Reshape", ["pd", "four_d"], ["i"], "image"),
        node("Resize", ["i", "", "scales"], ["re"], "resize", mode="nearest"),
        node("Identity", ["re"], ["output"], "identity"),
    ]
    weights = _weights(w=(3, 6))
    for name, values in {"zero": [0], "one": [1], "four": [4], "rest": [3, -1], "sizes": [3, 3],
                         "pads": [0, 0, 1, 0, 0, 1], "four_d": [1, 2, 2, 2]}.items():  # fmt: skip
        weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
    weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    return _model(nodes, weights, 13, [1, 2, 4, 4])


def _quantized_network() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["input", "xs", "xz"], ["xq"], "q"),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["x"], "dq"),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], "dqw", axis=0),
        node("Conv", ["x", "w"], ["c"], "conv"),
        node("QuantizeLinear", ["c", "cs", "xz"], ["cq"], "q2"),
        node("DequantizeLinear", ["cq", "cs", "xz"], ["output"], "dq2"),
    ]
    weights = [
        numpy_helper.from_array(np.float32(0.02), "xs"),
        numpy_helper.from_array(np.float32(0.1), "cs"),
        numpy_helper.from_array(np.uint8(128), "xz"),
        numpy_helper.from_array(np.ones((4, 3, 3, 3), np.int8), "wq"),
        numpy_helper.from_array(np.full(4, 0.01, np.float32), "ws"),
        numpy_helper.from_array(np.zeros(4, np.int8), "wz"),
    ]
    return _model(nodes, weights, 17, [1, 4, 6, 6])


def _make_data(folder: Path, images: np.ndarray) -> None:
    from PIL import Image

    for suffix, mode in (("png", "RGB"), ("jpg", "RGB"), ("bmp", "RGB"), ("webp", "RGB"), ("png", "L"),
                         ("png", "P")):  # fmt: skip
        target = folder / "images" / f"{suffix}_{mode}" / f"image.{suffix}"
        target.parent.mkdir(parents=True)
        Image.fromarray(images[0]).convert(mode).save(target)
    for name, array in (("u8", images), ("f32", np.zeros((4, 3, 8, 8), np.float32))):
        for kind in ("npy", "npz"):
            target = folder / "arrays" / f"{name}_{kind}" / f"data.{kind}"
            target.parent.mkdir(parents=True)
            if kind == "npy":
                np.save(target, array)
            else:
                np.savez_compressed(target, images=array)
    contract = folder / "preprocess" / "json" / "contract.json"
    contract.parent.mkdir(parents=True)
    contract.write_text(
        '{"size": [8, 8], "color": "RGB", "resize": 9, "interpolation": "bilinear", '
        '"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}'
    )


def _make_bundle(folder: Path, model: Path) -> None:
    from deploykit.cli import main

    contract = folder / "preprocess" / "json" / "contract.json"
    bundle, verified = folder / "bundle", folder / "verified"
    int8 = ("--int8", "--calibrate", folder / "arrays/u8_npy/data.npy", "--preprocess", contract,
            "--allow-suspicious-calibration")  # fmt: skip
    for arguments in (
        ("--to", "all", "--fp32", "--ort", "--no-verify", *int8, "--out", bundle),
        (
            "--to",
            "onnx",
            *int8,
            "--samples",
            "2",
            "--runner",
            "onnxruntime-plain",
            "--out",
            verified,
        ),
    ):
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = main(["convert", str(model), "--quiet", *map(str, arguments)])
        if code not in (0, 1):
            raise RuntimeError(f"a seed bundle was not made: {text.getvalue()}")
    for path in bundle.iterdir():
        kind = {".tflite": "tflite", ".ort": "ort", ".mlpackage": "coreml", ".param": "ncnn"}.get(path.suffix)  # fmt: skip
        if kind is None:
            continue
        target = folder / kind / path.stem
        target.mkdir(parents=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, target / path.name)
        weights = path.with_suffix(".bin")
        if kind == "ncnn" and weights.exists():
            shutil.copy(weights, target)
    for kind in ("manifest", "golden", "calibration"):
        shutil.copytree(verified, folder / kind / "bundle")


def _make_torch(folder: Path) -> None:
    import torch
    from torch import nn

    from deploykit.architectures.mobilenet_v1 import MobileNetV1

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)
    ).eval()
    example = torch.zeros(ARCH_INPUT)
    for name in ("pt/zip", "pt/legacy", "pt/timm", "pt2/program", "torchscript/traced",
                 "safetensors/weights"):  # fmt: skip
        (folder / name).mkdir(parents=True)
    weights = MobileNetV1(**ARCH_OPTIONS).state_dict()
    checkpoint = {
        "format": "deploykit.checkpoint/1",
        "arch": ARCH,
        "arch_kwargs": ARCH_OPTIONS,
        "state_dict": weights,
        "preprocess": {"size": [16, 16]},
        "labels": ["a", "b", "c", "d", "e"],
    }
    timm = {
        "arch": ARCH,
        "args": argparse.Namespace(num_classes=5, model_kwargs={"width": 0.03}, input_size=(3, 16, 16)),
        "state_dict_ema": {f"module.{name}": tensor for name, tensor in weights.items()},
        "epoch": 3,
    }  # fmt: skip
    torch.save(checkpoint, folder / "pt/zip/model.pt")
    torch.save(checkpoint, folder / "pt/legacy/model.pt", _use_new_zipfile_serialization=False)
    torch.save(timm, folder / "pt/timm/model.pt")
    torch.export.save(torch.export.export(net, (example,)), folder / "pt2/program/model.pt2")
    torch.jit.trace(net, example).save(str(folder / "torchscript/traced/model.pt"))
    try:
        from safetensors.torch import save_file
    except ImportError:
        return
    save_file(weights, folder / "safetensors/weights/model.safetensors")


def _make_keras(folder: Path) -> None:
    target = folder / "keras" / "archive" / "model.keras"
    target.parent.mkdir(parents=True)
    config = (
        '{"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": ['
        '{"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": '
        '[null, 8, 8, 3]}}, {"module": "keras.layers", "class_name": "Dense", "config": '
        '{"units": 4, "activation": "relu"}}]}, "registered_name": null}'
    )
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.5.0"}')
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(200))


def _make_saved_model(folder: Path) -> None:
    """A SavedModel's graph, written field by field: TensorFlow is not needed for its scan."""
    from fuzz.mutate import _write_message

    nodes = [
        (1, 2, [(1, 2, b"x"), (2, 2, b"Placeholder")]),
        (1, 2, [(1, 2, b"y"), (2, 2, b"Relu"), (3, 2, b"x")]),
    ]
    graph = (2, 2, [*nodes, (2, 2, [(1, 2, [(1, 2, [(1, 2, b"f")]), (3, 2, nodes[1][2])])])])
    meta = (2, 2, [(1, 2, [(4, 2, b"serve")]), graph])
    target = folder / "saved_model" / "folder" / "saved_model.pb"
    target.parent.mkdir(parents=True)
    target.write_bytes(_write_message([(1, 0, 1), meta]))
