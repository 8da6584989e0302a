"""Networks of a few kilobytes for the tests here, and how their numbers are compared."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from deploykit.model import Model
from deploykit.sources.reference import open_torch_reference

INPUT_SHAPE = (1, 3, 16, 16)


class Block(nn.Module):
    """Depthwise, batch norm, in-place activation, and a residual added in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.norm(self.depthwise(x)))
        y += x
        return y


class TinyNet(nn.Module):
    """A network with every part that a compact classifier has; 4 classes unless told."""

    def __init__(self, num_classes: int = 4, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(torch.relu_(self.stem(x)))
        return self.classifier(self.dropout(self.pool(x).flatten(1)))


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights and statistics that are no defaults, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return module.eval()


def image(shape: tuple[int, ...] = INPUT_SHAPE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run_onnx(model: Model, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every output of a stage in ONNX Runtime, by name."""
    session = onnxruntime.InferenceSession(model.serialized(), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in model.inputs]
    results = session.run(None, dict(zip(names, inputs, strict=True)))
    return dict(zip([o.name for o in session.get_outputs()], results, strict=True))


def assert_same_numbers(model: Model, network: nn.Module, *inputs: np.ndarray) -> None:
    """The stage, the reference that a runner would open, and torch itself agree."""
    with torch.no_grad():
        expected = network(*[torch.from_numpy(i) for i in inputs])
    flat = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    exported = run_onnx(model, *inputs)
    reference = open_torch_reference(model.source.path, model.source.load_options)(*inputs)
    assert list(exported) == list(reference) == [spec.name for spec in model.outputs]
    for want, name in zip(flat, exported, strict=True):
        np.testing.assert_allclose(reference[name], want.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(exported[name], want.numpy(), rtol=1e-4, atol=1e-4)


def build_tiny(num_classes: int = 4, width: int = 8) -> TinyNet:
    """What ``--arch deploykit_testing.tiny_networks:build_tiny`` names."""
    return TinyNet(num_classes, width)


def build_nothing() -> str:
    return "no module"


ARCH = "deploykit_testing.tiny_networks:build_tiny"
