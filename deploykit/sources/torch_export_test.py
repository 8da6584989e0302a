from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.graph.ops import OPSET
from deploykit.graph.provenance import module_path, source_line
from deploykit.model import Model, SourceInfo, Stage
from deploykit.sources.functional_program import make_functional
from deploykit.sources.torch_export import capture_program, example_inputs, export_program
from deploykit.sources.torch_source import flatten_outputs
from deploykit.sources.torch_translations import needs_no_decomposition
from deploykit_testing.tiny_networks import INPUT_SHAPE, TinyNet, image, run_onnx, trained


class Calls(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


def _exported(network: nn.Module, *shapes: tuple[int, ...]) -> Model:
    program = capture_program(network, example_inputs(shapes or (INPUT_SHAPE,)))
    return Model(export_program(program), Stage.EXPORTED, "tiny", SourceInfo("module"))


def _takes_the_direct_way(network: nn.Module, shape: tuple[int, ...] = INPUT_SHAPE) -> bool:
    program = capture_program(network, example_inputs([shape]))
    return make_functional(program) and needs_no_decomposition(program)


def _assert_exported_well(network: nn.Module, shape: tuple[int, ...] = INPUT_SHAPE) -> Model:
    model = _exported(network, shape)
    x = image(shape)
    with torch.no_grad():
        expected = network(torch.from_numpy(x.copy()))
    results = run_onnx(model, x)
    for want, (name, got) in zip(flatten_outputs(expected), results.items(), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    return model


def test_a_compact_network_is_exported_clean() -> None:
    network = trained(TinyNet())
    model = _assert_exported_well(network)
    ops = Counter(node.op_type for node in model.graph.graph)
    assert ops["Conv"] == 3
    assert ops["BatchNormalization"] == 2
    assert not {"CastLike", "Expand", "Shape", "Cast"} & set(ops)
    assert model.graph.opset_imports[""] == OPSET
    assert [s.name for s in model.inputs] == ["input"]
    assert [s.name for s in model.outputs] == ["output"]
    assert model.inputs[0].shape == INPUT_SHAPE
    assert "stem.weight" in model.graph.graph.initializers


def test_nodes_know_their_module_and_line() -> None:
    model = _exported(trained(TinyNet()))
    where = {n.outputs[0].name: (module_path(n), source_line(n)) for n in model.graph.graph}
    assert where["conv2d"][0] == "stem"
    assert where["conv2d_2"][0] == "blocks.1.depthwise"
    assert where["batch_norm"][0] == "blocks.0.norm"
    assert all(line.startswith("tiny_networks.py:") for _, line in where.values())
    assert not any("/" in line for _, line in where.values())


def test_two_exports_are_byte_identical() -> None:
    assert _exported(trained(TinyNet())).serialized() == _exported(trained(TinyNet())).serialized()


CHANNELS = 4
FEATURES = (1, CHANNELS, 6, 6)
_CASES: dict[str, Callable[[torch.Tensor], object]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 2.0),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "elu": lambda x: F.elu(x, 0.7),
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "softmax": lambda x: x.softmax(1),
    "add": lambda x: x + x.mean((2, 3), keepdim=True),
    "add number": lambda x: x + 3,
    "add alpha": lambda x: torch.add(x, x, alpha=2),
    "sub": lambda x: x - x.mean(),
    "sub alpha": lambda x: torch.sub(x, x.abs(), alpha=3),
    "mul number": lambda x: x * 0.5,
    "div": lambda x: x / (x * x + 1),
    "div number": lambda x: x / 6,
    "mean": lambda x: x.mean((2, 3)),
    "mean negative axes": lambda x: x.mean((-1, -2), keepdim=True),
    "cat": lambda x: torch.cat([x, -x], 1),
    "view": lambda x: x.view(1, 2, -1),
    "reshape": lambda x: x.reshape(2, -1),
    "flatten": lambda x: x.flatten(1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, -1).contiguous(),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "slice": lambda x: x[:, 1:3, ::2, -2:],
    "chunk": lambda x: tuple(x.chunk(2, 1)),
    "chunk uneven": lambda x: tuple(x.chunk(4, 2)),
    "split": lambda x: tuple(x.split(4, 3)),
    "split sizes": lambda x: tuple(x.split([1, 3], 1)),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pool ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max pool dilated": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "average pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average pool without pads": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average pool ceil": lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "global pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp low": lambda x: x.clamp(min=0.1),
    "matmul": lambda x: x @ x,
    "exp": torch.exp,
    "sqrt": lambda x: x.abs().sqrt(),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "shuffle": lambda x: x.view(1, 2, 2, 6, 6).transpose(1, 2).contiguous().view(1, 4, 6, 6),
}
# These take the exporter's full way.
_FULL_CASES: dict[str, Callable[[torch.Tensor], object]] = {
    "adaptive pool to 3": lambda x: F.adaptive_avg_pool2d(x, 3),
    "resize": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "bilinear": lambda x: F.interpolate(x, size=(9, 9), mode="bilinear"),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "mish": F.mish,
    "group norm": lambda x: F.group_norm(x, 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
    "max": lambda x: x.amax((2, 3)),
    "power": lambda x: x**3,
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
}


@pytest.mark.parametrize("cases", [_CASES, _FULL_CASES], ids=["direct", "full"])
def test_ops_have_torchs_numbers(cases: dict[str, Callable[[torch.Tensor], object]]) -> None:
    # One network with the outputs of all: an export takes a second, however small.
    network = Calls(lambda x: {name: function(x) for name, function in cases.items()})
    assert _takes_the_direct_way(network, FEATURES) is (cases is _CASES)
    _assert_exported_well(network, FEATURES)


_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 6, 3),
    "conv strided": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)),
    "conv dilated": lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=2, bias=False),
    "conv grouped": lambda: nn.Conv2d(4, 8, 1, groups=2),
    "norm": lambda: nn.BatchNorm2d(4, eps=1e-3),
    "linear": lambda: nn.Linear(6, 5),
    "linear without bias": lambda: nn.Linear(6, 5, bias=False),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.ReLU()),
    "identity": nn.Identity,
}
_FULL_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv same": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "conv reflect": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, stride=2),
    "norm without weights": lambda: nn.BatchNorm2d(4, affine=False),
    "prelu": lambda: nn.PReLU(4),
}


class AllLayers(nn.Module):
    """Every layer of a table on the same input."""

    def __init__(self, layers: dict[str, Callable[[], nn.Module]]) -> None:
        super().__init__()
        makers = enumerate(layers.values())
        self.layers = nn.ModuleList(trained(make(), seed=i) for i, make in makers)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [layer(x) for layer in self.layers]


@pytest.mark.parametrize("layers", [_LAYERS, _FULL_LAYERS], ids=["direct", "full"])
def test_layers_have_torchs_numbers(layers: dict[str, Callable[[], nn.Module]]) -> None:
    network = AllLayers(layers).eval()
    assert _takes_the_direct_way(network, FEATURES) is (layers is _LAYERS)
    _assert_exported_well(network, FEATURES)


def test_common_networks_take_the_direct_way_and_others_do_not() -> None:
    assert _takes_the_direct_way(TinyNet().eval())
    assert not _takes_the_direct_way(Calls(lambda x: F.adaptive_avg_pool2d(x, 3)))
    assert not _takes_the_direct_way(nn.BatchNorm2d(3, track_running_stats=False).eval())


def _read_after(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y + 1
    y.relu_()
    return z + y


def _view_before(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    part = y[:, :1]
    y.relu_()
    return y + part  # the view sees the change


def _view_written(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, :1].neg_()
    return y


def _input_written(x: torch.Tensor) -> torch.Tensor:
    x.relu_()
    return x * 2


def _twice(x: torch.Tensor) -> torch.Tensor:
    y = (x * 2).add_(1).relu_()
    return y.mul_(3)


@pytest.mark.parametrize(
    ("function", "harmless"),
    [
        (_read_after, True),  # what reads it after reads the result of the op
        (_view_before, False),
        (_view_written, False),
        (_input_written, False),
        (_twice, True),
    ],
)
def test_in_place_ops_keep_their_meaning(
    function: Callable[[torch.Tensor], torch.Tensor], harmless: bool
) -> None:
    program = capture_program(Calls(function), example_inputs([FEATURES]))
    assert make_functional(program) is harmless
    _assert_exported_well(Calls(function), FEATURES)


def test_several_inputs_and_outputs_are_named_in_order() -> None:
    network = Calls(lambda a, b: {"sum": a + b, "rest": [a - b, None, b]})
    model = _exported(network, (1, 2), (1, 2))
    assert [s.name for s in model.inputs] == ["input_0", "input_1"]
    assert [s.name for s in model.outputs] == ["output_0", "output_1", "output_2"]
    a, b = image((1, 2)), image((1, 2), seed=2)
    got = run_onnx(model, a, b)
    for name, want in zip(got, (a + b, a - b, b), strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-6)


def test_an_output_that_stands_twice_has_two_names() -> None:
    def twice(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.relu()
        return y, y

    model = _exported(Calls(twice), (1, 2))
    x = image((1, 2))
    got = run_onnx(model, x)
    assert list(got) == ["output_0", "output_1"]
    np.testing.assert_array_equal(got["output_0"], got["output_1"])


def test_weights_called_like_inputs_and_outputs_do_not_clash() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = nn.Parameter(torch.full((2,), 2.0))
            self.output = nn.Parameter(torch.full((2,), 3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.input + self.output

    model = _exported(Named(), (1, 2))
    x = image((1, 2))
    np.testing.assert_allclose(run_onnx(model, x)["output"], x * 2 + 3, rtol=1e-6)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Calls(lambda x: x if x.sum() > 0 else -x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_control_flow_on_data_is_unsupported_and_says_where() -> None:
    with pytest.raises(UnsupportedModelError, match=r"module 'inner'") as caught:
        _exported(Branching())
    assert caught.value.exit_code == 3


def test_an_input_that_does_not_fit_is_the_users_error_and_says_where() -> None:
    with pytest.raises(SourceError, match=r"input of 1x5x16x16 in module 'stem'"):
        _exported(trained(TinyNet()), (1, 5, 16, 16))


def test_a_failing_op_is_unsupported() -> None:
    with pytest.raises(UnsupportedModelError, match="ONNX"):
        _exported(Calls(torch.special.bessel_j0), (1, 2))


def test_the_exporter_is_silent_and_leaves_nothing_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    threads, level = torch.get_num_threads(), logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _exported(trained(TinyNet()))
    assert capsys.readouterr() == ("", "")
    assert (torch.get_num_threads(), logging.root.manager.disable) == (threads, level)
