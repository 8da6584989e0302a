from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import SourceError
from deploykit.sources.weights import compare_weights
from deploykit_zoo.full_size import (
    NETWORKS,
    full_size_checkpoint,
    gather_statistics,
    smooth_images,
)
from deploykit_zoo.networks import build_network, network_of_checkpoint


def small_network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)),
    )


def test_statistics_are_those_of_what_reaches_each_layer() -> None:
    torch.manual_seed(0)
    network = small_network()
    tensors = torch.randn(4, 3, 9, 9) * 3 + 1

    gather_statistics(network, tensors)

    assert not any(module.training for module in network.modules())
    for index in (1, 5):
        layer = network[index]
        with torch.no_grad():
            reached = network[:index](tensors)
        # Training divides a variance by n where the running one has n - 1.
        tolerance = {"rtol": 1e-2, "atol": 5e-3}
        torch.testing.assert_close(layer.running_mean, reached.mean((0, 2, 3)), **tolerance)
        torch.testing.assert_close(layer.running_var, reached.var((0, 2, 3)), **tolerance)
        assert float(layer.weight.detach().std()) > 0.05
        assert float(layer.bias.detach().std()) > 0.05


def test_a_checkpoint_is_whole_and_the_same_each_time() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()

    first = full_size_checkpoint("shufflenet_v2")
    second = full_size_checkpoint("shufflenet_v2")

    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(first.state_dict) == list(second.state_dict)
    for name, tensor in first.state_dict.items():
        assert torch.equal(tensor, second.state_dict[name]), name
    assert first.preprocess.size == (224, 224)
    network = network_of_checkpoint(first)
    tensors = np.stack([first.preprocess.apply(p.numpy()) for p in first.calibration[:4]])
    with torch.inference_mode():
        logits = network(torch.from_numpy(tensors))
    assert logits.shape == (4, 1000)
    assert bool(logits.isfinite().all())
    assert float((logits - logits.mean(0)).std()) > 0.05 * float(logits.std())  # it looks at them


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_built(name: str) -> None:
    with torch.device("meta"):
        network = build_network(NETWORKS[name], {})
        again = build_network(NETWORKS[name], {})
    assert not compare_weights(network.state_dict(), again)
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_images_are_coloured_and_have_no_plane_of_one_colour() -> None:
    images = smooth_images(6)

    assert images.shape == (6, 28, 28, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, smooth_images(8)[:6])
    assert not np.array_equal(images, smooth_images(6, seed=1))
    for image in images:
        _, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        assert counts.max() < 0.02 * len(image) ** 2
    assert (images[..., 0] != images[..., 1]).mean() > 0.9


def test_a_network_that_there_is_not() -> None:
    with pytest.raises(SourceError, match="'resnet'") as caught:
        full_size_checkpoint("resnet")
    assert "ghostnet" in caught.value.expected
