"""What a file says of its architecture is looked up, and never chosen from, imported or run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploykit.cli import main
from deploykit.errors import SourceError
from deploykit.preprocess import Preprocess
from deploykit.sources.architecture import build_architecture
from deploykit.sources.checkpoint import FORMAT, checkpoint_of
from deploykit.sources.checkpoint_source import network_of
from deploykit.sources.options import LoadOptions
from deploykit.sources.stored_architecture import plain_kwargs, stored_architecture
from deploykit_testing.tiny_networks import ARCH, TinyNet, trained
from deploykit_zoo.checkpoint import Checkpoint
from deploykit_zoo.networks import network_of_checkpoint


def _saved(tmp_path: Path, **content: Any) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": {"w": torch.zeros(1)}, **content}, path)
    return path


@pytest.mark.parametrize("command", ["inspect", "convert", "lint", "profile"])
def test_a_command_in_a_checkpoint_is_not_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    path = _saved(
        tmp_path, format=FORMAT, arch="os:system", arch_kwargs={"command": f"touch {mark}"}
    )
    assert main([command, str(path)]) == 2
    assert "a file cannot choose code" in capsys.readouterr().err
    assert not mark.exists()


def test_nor_in_a_checkpoint_of_a_training_script(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    args = Namespace(model_kwargs={"command": f"touch {mark}"})
    path = _saved(tmp_path, arch="os:system", args=args)
    assert main(["inspect", str(path)]) == 2
    assert not mark.exists()


def test_nor_by_the_zoo() -> None:
    checkpoint = Checkpoint(
        arch="deploykit/mobilenet_v1",
        arch_kwargs={"num_classes": 3, "act": "os.system"},
        state_dict={},
        preprocess=Preprocess(size=(8, 8)),
        labels=(),
        calibration=torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        metrics={},
        training={},
    )
    with pytest.raises(SourceError, match="'act', which is 'os.system'"):
        network_of_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "deploykit.cli:main",
        f"{ARCH}?width=4",
        "timm/hf-hub:someone/model",
        "timm/local-dir:/etc",
        "timm/../../x",
        "timm/a/b",
        "other/net",
        "",
        "ghostnet_050\n",
    ],
)
def test_names_that_are_in_no_registry(name: str) -> None:
    with pytest.raises(SourceError, match="a file cannot choose code"):
        stored_architecture(name, {}, "a.pt")


@pytest.mark.parametrize(
    "name", ["ghostnet_050", "timm/ghostnet_050.in1k", "deploykit/efficientnet"]
)
def test_names_of_registries(name: str) -> None:
    assert stored_architecture(f"{name}?num_classes=10", {}, "a.pt") == (name, {"num_classes": 10})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("checkpoint_path", "x"),
        ("pretrained", True),
        ("pretrained_cfg", {"file": "x", "custom_load": True}),
        ("pretrained_cfg_overlay", {"url": "x"}),
        ("weights", "DEFAULT"),
        ("weights_backbone", "DEFAULT"),
        ("cache_dir", "x"),
        ("act_layer", "os.system"),
        ("act_layer", "__import__"),
        ("norm_layer", "../x"),
        ("norm_layer", "https://example.org"),
        ("norm_layer", torch.nn.BatchNorm2d),
        ("norm_layer", torch.zeros(1)),
        ("dtype", torch.float16),
        ("num_classes", 10**12),
        ("drop_rate", float("inf")),
        ("drop_rate", Namespace(x=1)),
        ("layers", [[[[[[1]]]]]]),
        ("layers", [1] * 1000),
        ("block", {"class_name": "a.b"}),
        ("a b", 1),
        (3, 1),
    ],
)
def test_arguments_that_are_not_plain(key: Any, value: object) -> None:
    with pytest.raises(SourceError, match="gives its architecture the argument"):
        plain_kwargs({key: value}, "a.pt")


def test_plain_arguments_stay_what_they_are() -> None:
    given = {
        "num_classes": 10,
        "width": np.float64(0.5),
        "act_layer": "hard_swish",
        "pretrained": False,
        "sizes": (3, 4),
        "layers": [1, 2, None],
        "cfg": {"depth": 2},
    }
    plain = plain_kwargs(given, "a.pt")
    assert plain == given
    assert type(plain["width"]) is float


def test_code_that_the_user_names_takes_the_plain_arguments_of_the_file(tmp_path: Path) -> None:
    weights = trained(TinyNet(num_classes=7)).state_dict()
    content = {"format": FORMAT, "arch": ARCH, "arch_kwargs": {"num_classes": 7}}
    read = checkpoint_of({**content, "state_dict": weights}, "", origin="a.pt")
    options = LoadOptions(arch=ARCH, input_shape=(1, 3, 16, 16))
    opened = network_of(read, options, origin="a.pt")
    assert isinstance(opened.program, TinyNet)
    with pytest.raises(SourceError, match="a file cannot choose code"):
        network_of(read, LoadOptions(input_shape=(1, 3, 16, 16)), origin="a.pt")


def test_nothing_is_downloaded_for_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    build_architecture("torchvision/lraspp_mobilenet_v3_large", {})
