from __future__ import annotations

import pytest

from deploykit.sources.identify_architecture import (
    ArchitectureIndex,
    fingerprint,
    identify_architecture,
    read_index,
)

HEAD = ("fc.weight", "fc.bias")
BODY = {"conv.weight": (8, 3, 3, 3), "bn.weight": (8,), "bn.num_batches_tracked": ()}


def shapes(classes: int) -> dict[str, tuple[int, ...]]:
    return {**BODY, "fc.weight": (classes, 8), "fc.bias": (classes,)}


INDEX = ArchitectureIndex(
    heads=(HEAD, ()),
    architectures={
        fingerprint(shapes(1000), HEAD): ("timm/small", "timm/tf_small"),
        fingerprint({**BODY, "extra": (2,)}, ()): ("timm/headless",),
    },
    versions={},
)


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_any_number_of_classes_and_any_shared_prefix(prefix: str) -> None:
    found = identify_architecture({prefix + k: v for k, v in shapes(5).items()}, INDEX)
    assert [(f.name, f.num_classes, f.prefix) for f in found] == [
        ("timm/small", 5, prefix),
        ("timm/tf_small", 5, prefix),
    ]


def test_batch_norms_counters_do_not_matter() -> None:
    without = {k: v for k, v in shapes(5).items() if "tracked" not in k}
    assert len(identify_architecture(without, INDEX)) == 2


def test_a_network_without_a_classifier() -> None:
    assert identify_architecture({**BODY, "extra": (2,)}, INDEX)[0].num_classes is None


@pytest.mark.parametrize(
    "change", [{"conv.weight": (8, 3, 5, 5)}, {"more.weight": (1,)}, {"fc.weight": (5, 9)}]
)
def test_other_shapes_or_names_fit_nothing(change: dict[str, tuple[int, ...]]) -> None:
    assert identify_architecture({**shapes(5), **change}, INDEX) == ()


def test_no_weights_fit_nothing() -> None:
    assert identify_architecture({}, INDEX) == ()


def test_the_committed_index_knows_the_mobile_networks() -> None:
    names = {name for found in read_index().architectures.values() for name in found}
    assert {
        "torchvision/mobilenet_v3_small",
        "torchvision/shufflenet_v2_x1_0",
        "timm/ghostnet_100",
        "timm/mobilenetv4_conv_small",
        "timm/efficientnet_lite0",
    } <= names
    assert len(names) > 1000


def test_variants_that_cannot_be_told_apart_share_a_fingerprint() -> None:
    sharing = [names for names in read_index().architectures.values() if len(names) > 1]
    assert ("timm/mobilenetv3_small_100", "timm/tf_mobilenetv3_small_100") in sharing
