"""Every kind of source, from its file to the exported stage and to the float reference."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.graph.provenance import module_path
from deploykit.model import Stage
from deploykit.preprocess import Preprocess
from deploykit.sources import built_architecture
from deploykit.sources.built_architecture import Architecture
from deploykit.sources.load import load, sanitize_name
from deploykit.sources.options import LoadOptions
from deploykit_testing.tiny_networks import (
    ARCH,
    INPUT_SHAPE,
    TinyNet,
    assert_same_numbers,
    image,
    trained,
)

TINY = LoadOptions(arch=ARCH, input_shape=INPUT_SHAPE)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return trained(TinyNet())


def test_a_checkpoint_with_an_architecture(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "Tiny Net.pth"
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    model = load(path, options=TINY)
    assert (model.stage, model.name) == (Stage.EXPORTED, "tiny_net")
    assert (model.source.kind, model.source.reference) == ("checkpoint", "torch")
    assert len(model.source.sha256) == 64
    assert_same_numbers(model, network, image())
    assert {module_path(n) for n in model.graph.graph} >= {"stem", "blocks.0.depthwise"}


def test_a_checkpoint_of_deploykit_needs_no_options(
    tmp_path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(num_classes: int) -> Architecture:
        return Architecture("deploykit/tiny_of_a_test", TinyNet(num_classes))

    monkeypatch.setitem(built_architecture.REGISTERED, "tiny_of_a_test", build)
    contract = Preprocess(size=(16, 16))
    sample = torch.zeros(4, 10, 10, 1, dtype=torch.uint8)
    torch.save(
        {
            "format": "deploykit.checkpoint/1",
            "arch": "deploykit/tiny_of_a_test",
            "arch_kwargs": {"num_classes": 4},
            "state_dict": network.state_dict(),
            "preprocess": contract.to_dict(),
            "labels": ["a", "b", "c", "d"],
            "calibration": sample,
        },
        tmp_path / "own.pt",
    )
    model = load(tmp_path / "own.pt", options=LoadOptions(input_shape=INPUT_SHAPE))
    assert model.preprocess == contract
    assert model.labels == ("a", "b", "c", "d")
    assert model.calibration_sample is not None
    assert model.calibration_sample.shape == (4, 10, 10, 1)
    assert_same_numbers(model, network, image())


def test_safetensors(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "tiny.bin"
    save_file(dict(network.state_dict()), path)
    model = load(path, options=TINY)
    assert model.source.kind == "safetensors"
    assert_same_numbers(model, network, image())
    with pytest.raises(SourceError, match="--arch"):
        load(path)


def test_an_exported_program(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "tiny.pt2"
    torch.export.save(torch.export.export(network, (torch.zeros(INPUT_SHAPE),)), path)
    model = load(path)
    assert model.source.kind == "exported_program"
    assert_same_numbers(model, network, image())
    with pytest.raises(SourceError, match="was exported for the input 1x3x16x16"):
        load(path, options=LoadOptions(input_shape=(1, 3, 32, 32)))


def test_an_exported_program_with_dynamic_shapes(tmp_path: Path, network: nn.Module) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(
        network, (torch.zeros(2, *INPUT_SHAPE[1:]),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, tmp_path / "dynamic.pt2")
    with pytest.raises(UnsupportedModelError, match="dynamic size in dimension 0"):
        load(tmp_path / "dynamic.pt2")


@pytest.mark.parametrize("way", ["traced", "scripted"])
def test_torchscript(tmp_path: Path, network: nn.Module, way: str) -> None:
    path = tmp_path / "tiny.pt"
    script = (
        torch.jit.trace(network, torch.zeros(INPUT_SHAPE))
        if way == "traced"
        else torch.jit.script(network)
    )
    torch.jit.save(script, str(path))
    model = load(path, options=LoadOptions(input_shape=INPUT_SHAPE))
    assert model.source.kind == "torchscript"
    assert_same_numbers(model, network, image())
    with pytest.raises(SourceError, match="--input"):
        load(path)


def test_an_onnx_file_is_its_own_reference(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "tiny.onnx"
    example = (torch.zeros(INPUT_SHAPE),)
    torch.onnx.export(network, example, path, dynamo=True, external_data=False, verbose=False)
    model = load(path)
    assert (model.source.kind, model.source.reference) == ("onnx", "onnxruntime")
    with pytest.raises(SourceError, match="--arch"):
        load(path, options=TINY)


def test_a_pickled_module_only_on_trust(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "whole.pt"
    torch.save(network, path)
    with pytest.raises(SourceError, match="would run that code") as refusal:
        load(path, options=LoadOptions(input_shape=INPUT_SHAPE))
    for alternative in ("state_dict", "torch.export.save", "torch.onnx.export", "--trust-code"):
        assert alternative in str(refusal.value)
    model = load(path, options=LoadOptions(input_shape=INPUT_SHAPE, trust_code=True))
    assert model.source.kind == "pickled_module"
    assert_same_numbers(model, network, image())


def test_a_module_in_memory_is_not_changed(network: nn.Module) -> None:
    network.train()
    try:
        model = load(network, example_input=torch.zeros(INPUT_SHAPE))
        assert network.training
        assert all(p.requires_grad for p in network.parameters())
    finally:
        network.eval()
    assert (model.source.kind, model.name) == ("module", "tinynet")
    assert_same_numbers(model, network, image())


def test_a_module_needs_an_example(network: nn.Module) -> None:
    with pytest.raises(SourceError, match="example_input"):
        load(network)
    with pytest.raises(SourceError, match="float"):
        load(network, example_input=np.zeros(INPUT_SHAPE, np.uint8))
    with pytest.raises(SourceError, match="a int as a source"):
        load(3, example_input=torch.zeros(1))  # type: ignore[arg-type]


def test_a_batch_of_two(network: nn.Module) -> None:
    shape = (2, *INPUT_SHAPE[1:])
    model = load(network, example_input=torch.zeros(shape))
    assert model.inputs[0].shape == shape
    assert_same_numbers(model, network, image(shape))


@pytest.mark.parametrize(
    ("text", "name"),
    [("My Net (v2)", "my_net_v2"), ("...", "model"), ("Größe", "gr_e"), ("a-b_c.d", "a-b_c.d")],
)
def test_names_suit_files(text: str, name: str) -> None:
    assert sanitize_name(text) == name
    assert re.fullmatch(r"[a-z0-9_.-]+", name)
