from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploykit.errors import SourceError
from deploykit.preprocess import Preprocess
from deploykit_zoo.checkpoint import Checkpoint, half_precision_state
from deploykit_zoo.networks import build_network, network_of_checkpoint, torch_predictor
from deploykit_zoo.recipes import RECIPES, find_recipe


@pytest.mark.parametrize("family", sorted(RECIPES))
def test_each_recipe_builds_a_network_for_its_input(family: str) -> None:
    recipe = find_recipe(family)
    network = build_network(recipe.arch, {"num_classes": 7, **recipe.arch_kwargs})
    shape = (2, recipe.preprocess.channels, *recipe.preprocess.size)

    logits = torch_predictor(network)(np.zeros(shape, np.float32))

    assert recipe.family == family
    assert logits.shape == (2, 7)
    assert logits.dtype == np.float32


def test_a_torchvision_network() -> None:
    network = build_network("torchvision/shufflenet_v2_x0_5", {"num_classes": 3})

    assert torch_predictor(network)(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arch", "kwargs"),
    [
        ("ghostnet_050", {}),
        ("keras/ghostnet", {}),
        ("timm/", {}),
        ("timm/no_such_network", {}),
        ("torchvision/no_such_network", {}),
        ("timm/ghostnet_050", {"no_such_argument": 1}),
        ("deploykit/no_such_network", {}),
        ("deploykit/shufflenet_v1", {"groups": 7}),
    ],
)
def test_what_cannot_be_built(arch: str, kwargs: dict[str, int]) -> None:
    with pytest.raises(SourceError):
        build_network(arch, kwargs)


def test_a_family_that_the_zoo_does_not_have() -> None:
    with pytest.raises(SourceError, match="no family 'resnet'"):
        find_recipe("resnet")


def make_checkpoint(network: torch.nn.Module) -> Checkpoint:
    return Checkpoint(
        arch="timm/ghostnet_050",
        arch_kwargs={"num_classes": 3},
        state_dict=half_precision_state(network.state_dict()),
        preprocess=Preprocess(size=(32, 32)),
        labels=("a", "b", "c"),
        calibration=torch.zeros(1, 4, 4, 1, dtype=torch.uint8),
        metrics={},
        training={},
    )


def test_a_checkpoint_gives_the_network_with_rounded_weights() -> None:
    trained = build_network("timm/ghostnet_050", {"num_classes": 3})
    checkpoint = make_checkpoint(trained)
    tensors = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)

    network = network_of_checkpoint(checkpoint)

    assert not network.training
    assert all(p.dtype == torch.float32 for p in network.parameters())
    trained.load_state_dict(dict(checkpoint.state_dict))
    np.testing.assert_array_equal(
        torch_predictor(network)(tensors), torch_predictor(trained)(tensors)
    )


def test_weights_of_another_network_do_not_fit() -> None:
    checkpoint = make_checkpoint(build_network("timm/ghostnet_050", {"num_classes": 3}))

    with pytest.raises(SourceError, match="do not fit timm/ghostnet_050"):
        network_of_checkpoint(replace(checkpoint, arch_kwargs={"num_classes": 4}))


def test_a_checkpoint_of_another_family_names_what_does_not_fit() -> None:
    other = make_checkpoint(build_network("deploykit/mobilenet_v1", {"num_classes": 3}))

    with pytest.raises(SourceError) as caught:
        network_of_checkpoint(other, "net.pt")

    assert caught.value.found.startswith("the weights of net.pt do not fit timm/ghostnet_050")
    assert "missing: conv_stem.weight" in caught.value.found
    assert "unexpected: " in caught.value.found
    assert len(str(caught.value)) < 2000


def test_a_network_that_asks_for_the_version_of_its_weights() -> None:
    kwargs = {"num_classes": 3}
    network = build_network("torchvision/mnasnet0_5", kwargs)
    checkpoint = replace(
        make_checkpoint(network), arch="torchvision/mnasnet0_5", arch_kwargs=kwargs
    )
    tensors = np.zeros((1, 3, 32, 32), np.float32)

    loaded = torch_predictor(network_of_checkpoint(checkpoint))(tensors)

    for tensor in network.state_dict().values():
        tensor.copy_(tensor.half() if tensor.ndim >= 2 else tensor)
    np.testing.assert_array_equal(loaded, torch_predictor(network)(tensors))
