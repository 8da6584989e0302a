from __future__ import annotations

import math

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from deploykit.architectures.efficientnet import (
    ALPHA,
    BETA,
    GAMMA,
    PUBLISHED,
    EfficientNet,
    InvertedResidual,
    scale_efficientnet,
)
from deploykit.errors import SourceError
from deploykit.sources.architecture import build_architecture
from deploykit_testing.mult_adds import count_mult_adds


def shapes(network: nn.Module) -> list[tuple[int, ...]]:
    """Of all parameters in order of size: two networks may order their modules differently."""
    return sorted(tuple(p.shape) for p in network.parameters())


@pytest.mark.parametrize("phi", range(8))
def test_b0_to_b7_have_timms_parameters_shape_by_shape(phi: int) -> None:
    with torch.device("meta"):
        ours = build_architecture(f"deploykit/efficientnet?phi={phi}", {})
        theirs = timm.create_model(f"efficientnet_b{phi}")

    assert shapes(ours.module) == shapes(theirs)
    assert ours.input_shape[2] == PUBLISHED[phi].resolution


@pytest.mark.parametrize("variant", range(5))
def test_lite0_to_lite4_have_timms_parameters_shape_by_shape(variant: int) -> None:
    with torch.device("meta"):
        ours = build_architecture("deploykit/efficientnet_lite", {"variant": variant})
        theirs = timm.create_model(f"efficientnet_lite{variant}")

    assert shapes(ours.module) == shapes(theirs)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b1", "efficientnet_lite0"])
def test_timms_weights_give_timms_logits(name: str) -> None:
    """The modules are called otherwise, but stand in the same order."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=5).eval()
    arch = {
        "efficientnet_b0": "deploykit/efficientnet?phi=0",
        "efficientnet_b1": "deploykit/efficientnet?phi=1",
        "efficientnet_lite0": "deploykit/efficientnet_lite",
    }[name]
    ours = build_architecture(arch, {"num_classes": 5}).module.eval()
    state = theirs.state_dict()
    assert [v.shape for v in state.values()] == [v.shape for v in ours.state_dict().values()]
    # timm's BatchNorm has another epsilon than the authors' code.
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)

    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


# Table 2 of the paper: billions of mult-adds, millions of parameters.
@pytest.mark.parametrize(
    ("phi", "mult_adds", "parameters"),
    [
        *((0, 0.39, 5.3), (1, 0.70, 7.8), (2, 1.0, 9.2), (3, 1.8, 12)),
        *((4, 4.2, 19), (5, 9.9, 30), (6, 19, 43), (7, 37, 66)),
    ],
)
def test_b0_to_b7_cost_what_the_paper_says(phi: int, mult_adds: float, parameters: float) -> None:
    with torch.device("meta"):
        built = build_architecture(f"deploykit/efficientnet?phi={phi}", {})

    counted = count_mult_adds(built.module, built.input_shape[2])
    assert counted / 1e9 == pytest.approx(mult_adds, rel=0.05)
    held = sum(p.numel() for p in built.module.parameters())
    assert held / 1e6 == pytest.approx(parameters, rel=0.02)


@given(st.floats(0, 7), st.floats(0.5, 2))
def test_a_step_on_the_curve_doubles_depth_times_width_and_resolution_squared(
    phi: float, step: float
) -> None:
    """Section 3.3: mult-adds grow as ``(a * b^2 * c^2) ^ phi``, about ``2 ^ phi``."""
    below, above = (scale_efficientnet(p, "equation") for p in (phi, phi + step))

    depth, width = above.depth / below.depth, above.width / below.width
    resolution = above.resolution / below.resolution
    # The resolution is rounded to a multiple of 4 pixels, of 224 and more.
    assert depth * width**2 * resolution**2 == pytest.approx(1.92**step, rel=0.05)


def test_compound_scaling_is_the_equation() -> None:
    assert (ALPHA, BETA, GAMMA) == (1.2, 1.1, 1.15)
    assert pytest.approx(2, rel=0.05) == ALPHA * BETA**2 * GAMMA**2
    scaling = scale_efficientnet(1.5, "equation")
    assert scaling.depth == pytest.approx(1.2**1.5)
    assert scaling.width == pytest.approx(1.1**1.5)
    assert scaling.resolution == round(224 * 1.15**1.5 / 4) * 4


@pytest.mark.parametrize("phi", range(1, 8))
def test_published_ones_lie_up_to_a_step_below_the_curve(phi: int) -> None:
    published = scale_efficientnet(phi)

    assert phi - 1.2 < math.log(published.depth, ALPHA) <= phi
    assert phi - 1.2 < math.log(published.width, BETA) < phi + 0.3
    assert phi - 1.2 < math.log(published.resolution / 224, GAMMA) < phi + 0.3


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_a_larger_phi_never_gives_a_smaller_network(a: float, b: float) -> None:
    below, above = (scale_efficientnet(phi, "equation") for phi in sorted((a, b)))

    assert below.width <= above.width
    assert below.depth <= above.depth
    assert below.resolution <= above.resolution
    assert 0.2 <= below.dropout <= above.dropout <= 0.5


def test_the_equation_builds_networks_between_the_published() -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in build_architecture(name, {}).module.parameters())
            for name in (
                "deploykit/efficientnet?phi=0&rule=equation",
                "deploykit/efficientnet?phi=0",
                "deploykit/efficientnet?phi=1.5&rule=equation",
                "deploykit/efficientnet?phi=3",
            )
        ]

    assert counts[0] == counts[1]
    assert counts[1] < counts[2] < counts[3]


def test_width_and_depth_scale_what_phi_gives() -> None:
    with torch.device("meta"):
        network = build_architecture(
            "deploykit/efficientnet", {"phi": 1, "width": 0.5, "depth": 0.5, "num_classes": 10}
        ).module
    assert isinstance(network, EfficientNet)

    assert [len(stage) for stage in network.stages] == [1, 2, 2, 2, 2, 3, 1]
    assert network.stem.conv.out_channels == 16
    assert network.classifier.out_features == 10


def test_lite_keeps_stem_head_and_the_ends() -> None:
    with torch.device("meta"):
        network = build_architecture(
            "deploykit/efficientnet_lite", {"width": 0.35, "depth": 3.0}
        ).module
    assert isinstance(network, EfficientNet)

    assert network.stem.conv.out_channels == 32
    assert network.head.conv.out_channels == 1280
    assert [len(stage) for stage in network.stages] == [1, 6, 6, 9, 9, 12, 1]
    assert not [m for m in network.modules() if isinstance(m, nn.SiLU | nn.Sigmoid)]


def test_the_input_is_added_where_shapes_agree() -> None:
    same = InvertedResidual(8, 8, 6, 3, 1, 2, nn.SiLU).eval()
    nn.init.zeros_(same.layers[-1].bn.weight)
    x = torch.randn(1, 8, 5, 5)

    with torch.inference_mode():
        torch.testing.assert_close(same(x), x)
    assert not InvertedResidual(8, 8, 6, 3, 2, 2, nn.SiLU).adds_input
    assert not InvertedResidual(8, 16, 6, 3, 1, 2, nn.SiLU).adds_input


@pytest.mark.parametrize(
    ("arch", "kwargs"),
    [
        ("efficientnet", {"phi": 8}),
        ("efficientnet", {"phi": 1.5}),
        ("efficientnet", {"phi": 11, "rule": "equation"}),
        ("efficientnet", {"phi": 1, "rule": "guess"}),
        ("efficientnet", {"phi": "3"}),
        ("efficientnet", {"phi": float("nan"), "rule": "equation"}),
        ("efficientnet", {"width": 0}),
        ("efficientnet_lite", {"variant": 5}),
        ("efficientnet_lite", {"depth": -1}),
    ],
)
def test_arguments_out_of_range(arch: str, kwargs: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="with"):
        build_architecture(f"deploykit/{arch}", kwargs)
