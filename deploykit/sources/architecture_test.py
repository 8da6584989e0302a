from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deploykit.errors import SourceError
from deploykit.sources.architecture import build_architecture, split_architecture_name
from deploykit.sources.built_architecture import Architecture, register_architecture
from deploykit.sources.load import load
from deploykit.sources.options import LoadOptions
from deploykit_testing.tiny_networks import ARCH, TinyNet, trained


def test_timm_gives_network_input_and_contract() -> None:
    built = build_architecture("timm/ghostnet_050", {"num_classes": 7})
    assert built.input_shape == (1, 3, 224, 224)
    assert built.module.classifier.out_features == 7
    assert built.preprocess is not None
    # timm: crop_pct 0.875 of the shorter side, ImageNet's mean.
    assert (built.preprocess.size, built.preprocess.resize) == ((224, 224), 256)
    assert built.preprocess.mean == (0.485, 0.456, 0.406)


def test_a_bare_name_is_timms() -> None:
    assert build_architecture("ghostnet_050", {}).name == "timm/ghostnet_050"


def test_torchvision_gives_network_input_and_contract() -> None:
    built = build_architecture("torchvision/shufflenet_v2_x0_5", {"num_classes": 3})
    assert built.input_shape == (1, 3, 224, 224)
    assert built.preprocess is not None
    assert (built.preprocess.size, built.preprocess.resize) == ((224, 224), 256)


def test_a_callable_by_its_path() -> None:
    built = build_architecture(ARCH, {"num_classes": 9})
    assert isinstance(built.module, TinyNet)
    assert built.input_shape == ()


def test_a_callable_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\ndef make(width=2):\n    return nn.Conv2d(3, width, 1)\n"
    (tmp_path / "local_networks_of_a_test.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    built = build_architecture("local_networks_of_a_test:make", {"width": 5})
    assert built.module.out_channels == 5


def test_registered_architectures_are_known_once() -> None:
    def build(width: int = 4) -> Architecture:
        return Architecture("deploykit/of_a_test", TinyNet(width=width), (1, 3, 16, 16))

    register_architecture("of_a_test", build)
    built = build_architecture("deploykit/of_a_test", {"width": 6})
    assert built.module.stem.out_channels == 6
    with pytest.raises(ValueError, match="twice"):
        register_architecture("of_a_test", build)


def test_our_own_are_registered_when_they_are_asked_for() -> None:
    program = (
        "import sys\n"
        "from deploykit.sources.architecture import build_architecture\n"
        "assert 'torch' not in sys.modules\n"
        "print(build_architecture('deploykit/mobilenet_v1', {'width': 0.1}).input_shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(1, 3, 224, 224)"


def test_arguments_in_a_name() -> None:
    built = build_architecture("deploykit/mobilenet_v1?width=0.25&num_classes=7", {})
    assert built.name == "deploykit/mobilenet_v1"
    assert built.module.classifier.out_features == 7
    assert built.module.classifier.in_features == 256


def test_arguments_beside_a_name_win_over_those_in_it() -> None:
    built = build_architecture(f"{ARCH}?num_classes=9", {"num_classes": 4})
    assert built.module(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("timm/ghostnet_050", {}),
        ("a/b?x=3", {"x": 3}),
        ("a/b?x=0.5&y=True&z=None&size=(3, 4)", {"x": 0.5, "y": True, "z": None, "size": (3, 4)}),
        ("a/b?act=relu6&text=", {"act": "relu6", "text": ""}),
        ("p.q:r?x='3'", {"x": "3"}),
    ],
)
def test_a_name_is_split(name: str, kwargs: dict[str, object]) -> None:
    assert split_architecture_name(name) == (name.partition("?")[0], kwargs)


@pytest.mark.parametrize("query", ["", "x", "x=1&", "x=1&x=2", "1x=2", "=3"])
def test_what_is_no_argument_is_told(query: str) -> None:
    with pytest.raises(SourceError, match="key=value"):
        build_architecture(f"timm/ghostnet_050?{query}", {})


def test_weights_from_elsewhere_are_refused_in_a_name_too() -> None:
    with pytest.raises(SourceError, match="loads other weights"):
        build_architecture("timm/ghostnet_050?pretrained=True", {})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/ghostnet_10", "timm/ghostnet_100"),
        ("torchvision/mobilenet_v4", "torchvision/mobilenet_v"),
        ("deploykit/nothing_like_it", "no architecture called 'nothing_like_it'"),
        ("no.such.package_of_ours:build", "cannot import"),
        ("deploykit_testing.tiny_networks:bild_tiny", "build_tiny"),
        ("deploykit_testing.tiny_networks:build_nothing", "returned a str"),
        ("keras/mobilenet", "timm/NAME"),
        ("timm/hf-hub:someone/something", "fetched from elsewhere"),
    ],
)
def test_names_that_lead_nowhere_say_what_would(name: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        build_architecture(name, {})


def test_arguments_that_a_constructor_refuses_are_told() -> None:
    with pytest.raises(SourceError, match="depth=3.*--arch-kwargs"):
        try:
            build_architecture(ARCH, {"depth": 3})
        except SourceError as error:
            raise SourceError(str(error).replace("\n", " ")) from error


@pytest.mark.parametrize("argument", ["pretrained", "weights"])
def test_weights_from_elsewhere_are_refused(argument: str) -> None:
    with pytest.raises(SourceError, match="loads other weights"):
        build_architecture("timm/ghostnet_050", {argument: True})


def test_a_timm_checkpoint_finds_its_architecture_and_its_classes(tmp_path: Path) -> None:
    import timm

    network = trained(timm.create_model("mobilenetv3_small_050", num_classes=3))
    path = tmp_path / "model_best.pth.tar"
    torch.save({"arch": "mobilenetv3_small_050", "state_dict": network.state_dict()}, path)
    with pytest.raises(SourceError, match="num_classes=3"):
        load(path)
    options = LoadOptions(arch_kwargs={"num_classes": 3}, input_shape=(1, 3, 64, 64))
    model = load(path, options=options)
    assert model.outputs[0].shape == (1, 3)
    assert model.preprocess is not None
    assert model.preprocess.size == (64, 64)
