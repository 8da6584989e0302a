from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploykit.architectures.layers import round_channels
from deploykit.architectures.mobilenet_v1 import MobileNetV1
from deploykit.errors import SourceError
from deploykit.sources.architecture import build_architecture


def test_timms_weights_give_timms_logits() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("mobilenetv1_100", num_classes=5).eval()
    ours = MobileNetV1(num_classes=5).eval()
    state = theirs.state_dict()
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    x = torch.randn(1, 3, 64, 64)

    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_it_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = build_architecture("deploykit/mobilenet_v1", {}).module

    # 4.2 M in the paper's table 4.
    assert sum(p.numel() for p in network.parameters()) == 4_231_976


@pytest.mark.parametrize(("width", "millions"), [(0.75, 2.6), (0.5, 1.3), (0.25, 0.5)])
def test_narrow_ones_have_the_published_parameters(width: float, millions: float) -> None:
    with torch.device("meta"):
        network = MobileNetV1(width=width)

    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions  # table 6


def test_the_width_and_the_image_can_be_anything() -> None:
    network = MobileNetV1(num_classes=3, width=0.1, in_chans=1).eval()

    assert network(torch.zeros(2, 1, 33, 41)).shape == (2, 3)


@given(st.floats(0.1, 5000))
def test_rounded_channels(channels: float) -> None:
    rounded = round_channels(channels)

    assert rounded % 8 == 0
    assert rounded >= max(8, 0.9 * channels)
    assert rounded <= max(8, channels + 8)


@pytest.mark.parametrize("kwargs", [{"width": 0}, {"in_chans": 0}, {"width": "wide"}])
def test_arguments_out_of_range(kwargs: dict[str, object]) -> None:
    with pytest.raises(SourceError, match="MobileNetV1 with"):
        build_architecture("deploykit/mobilenet_v1", kwargs)
