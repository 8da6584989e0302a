"""What the files of full-size networks are made of: that is what makes them fast.

224 x 224, random weights, BatchNorm statistics as training leaves them (none trivial). One network
of each kind of block: plain depthwise, squeeze-and-excite with h-swish and with SiLU, ghost
modules, and both shuffles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import deploykit
from deploykit.calibration.collect import collect_statistics
from deploykit.calibration.data import load_calibration_data
from deploykit.model import Model, Precision, Stage
from deploykit.passes.pipeline import advance
from deploykit.sources.architecture import build_architecture
from deploykit.target import ArtifactRequest, find_target
from deploykit_quantize.quantizer import quantize_model

NETWORKS = {
    "mobilenet_v2": "torchvision/mobilenet_v2",
    "mobilenet_v3_small": "torchvision/mobilenet_v3_small",
    "efficientnet_b0": "torchvision/efficientnet_b0",
    "ghostnet": "timm/ghostnet_100",
    "shufflenet_v1": "deploykit/shufflenet_v1",
    "shufflenet_v2": "torchvision/shufflenet_v2_x1_0",
}
SHUFFLENETS = {"shufflenet_v1", "shufflenet_v2"}
#: Operators that compute nothing and are only there for the layout.
LAYOUT_OPS = {"TRANSPOSE", "RESHAPE", "GATHER", "GATHER_ND"}


@dataclass(frozen=True)
class File:
    """A file, as the runtime sees it.

    Attributes:
        ops: Operator names, in order.
        dtypes: Element types of all tensors.
        partitions: Number of delegated partitions.
        outside: Operators that no delegate took.
    """

    ops: tuple[str, ...]
    dtypes: frozenset[str]
    partitions: int
    outside: int


@dataclass(frozen=True)
class Network:
    """A network's fused stage and its files."""

    fused: Model
    files: Mapping[Precision, File]


def _network(arch: str) -> Model:
    import torch

    torch.manual_seed(0)
    module = build_architecture(arch, {}).module
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0.0, 0.1)
    exported = deploykit.load(module, example_input=torch.zeros(1, 3, 224, 224), name="net")
    return advance(exported, Stage.FUSED)


def _quantized(fused: Model, folder: Any) -> Model:
    coarse = np.random.default_rng(0).standard_normal((2, 3, 14, 14)).astype(np.float32)
    path = folder / "tensors.npy"
    np.save(path, coarse.repeat(16, axis=2).repeat(16, axis=3))
    data = load_calibration_data(path, fused.inputs[0], fused.preprocess)
    table = collect_statistics(fused, data, allow_suspicious=True)
    policy = find_target("tflite").policy(Precision.INT8)
    assert policy is not None
    return quantize_model(fused, policy, table)


def _inspect(data: bytes) -> File:
    from ai_edge_litert.interpreter import Interpreter

    from deploykit_tflite.backends import count_delegated

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    found = count_delegated(interpreter)
    details = interpreter._get_ops_details()
    return File(
        ops=tuple(d["op_name"] for d in details if d["op_name"] != "DELEGATE"),
        dtypes=frozenset(np.dtype(d["dtype"]).name for d in interpreter.get_tensor_details()),
        partitions=found["partitions"],
        outside=found["ops"] - found["delegated_ops"],
    )


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = find_target("tflite")
    fused = _network(NETWORKS[request.param])
    stages = {
        Precision.FP32: fused,
        Precision.INT8: _quantized(fused, tmp_path_factory.mktemp(request.param)),
    }
    files = {
        precision: _inspect(target.write(stage, ArtifactRequest(precision)).data)
        for precision, stage in stages.items()
    }
    return request.param, Network(fused, files)


def test_batch_normalization_and_identities_are_folded(network: tuple[str, Network]) -> None:
    ops = {node.op_type for node in network[1].fused.graph.graph}
    assert not ops & {"BatchNormalization", "Identity", "Dropout", "Constant", "Flatten"}


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_the_delegate_takes_all_in_one_partition(
    network: tuple[str, Network], precision: Precision
) -> None:
    file = network[1].files[precision]
    assert (file.partitions, file.outside) == (1, 0)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_nothing_is_there_for_the_layout(
    network: tuple[str, Network], precision: Precision
) -> None:
    name, found = network
    ops = found.files[precision].ops
    if name == "shufflenet_v1":
        # The shuffle between two convolutions in three groups: 15 of them, one transpose each.
        assert ops.count("TRANSPOSE") == 15
        assert ops.count("RESHAPE") == 30
    else:
        assert not LAYOUT_OPS & set(ops)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_activations_are_fused(network: tuple[str, Network], precision: Precision) -> None:
    ops = network[1].files[precision].ops
    assert not [op for op in ops if op.startswith("RELU")]
    assert "HARD_SWISH" not in network[1].files[Precision.INT8].ops


def test_int8_has_no_float_tensor_and_quantizes_nothing_again(
    network: tuple[str, Network],
) -> None:
    file = network[1].files[Precision.INT8]
    assert file.dtypes <= {"int8", "int32"}
    assert "DEQUANTIZE" not in file.ops
    assert "QUANTIZE" not in file.ops


def test_squeeze_and_excite_is_a_mean_two_convolutions_and_a_product(
    network: tuple[str, Network],
) -> None:
    name, found = network
    gates = {"mobilenet_v3_small": 9, "efficientnet_b0": 16, "ghostnet": 7}.get(name, 0)
    file = found.files[Precision.INT8]
    assert file.ops.count("MEAN") == gates + 1  # and the one before the classifier
    linear = [node.op_type for node in found.fused.graph.graph].count("Gemm")
    # The last layer of ghostnet's head is a convolution too, on one pixel.
    assert file.ops.count("FULLY_CONNECTED") == linear


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_a_padded_max_pool_copies_nothing(
    network: tuple[str, Network], precision: Precision
) -> None:
    name, found = network
    ops = found.files[precision].ops
    if name in SHUFFLENETS:
        before = ops[ops.index("MAX_POOL_2D") - 1]
        assert before == "CONV_2D"
    assert "PADV2" not in ops
