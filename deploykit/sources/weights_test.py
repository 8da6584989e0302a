from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.errors import SourceError
from deploykit.sources.weights import compare_weights, load_weights, strip_prefixes
from deploykit_testing.tiny_networks import TinyNet, trained


@pytest.mark.parametrize(
    "wrap",
    [
        lambda k: f"module.{k}",
        lambda k: f"_orig_mod.{k}",
        lambda k: f"module._orig_mod.{k}",
        lambda k: f"_orig_mod.module.{k}",
        lambda k: f"module.module.{k}",
        lambda k: k.replace("blocks.", "blocks._orig_mod."),
        lambda k: f"_orig_mod.{k}".replace("blocks.0.", "blocks.0._orig_mod."),
        lambda k: f"_fsdp_wrapped_module.{k}",
    ],
)
def test_prefixes_of_wrappers_go(wrap) -> None:  # type: ignore[no-untyped-def]
    source = trained(TinyNet(), seed=3)
    target = TinyNet()
    load_weights(
        target, {wrap(k): v for k, v in source.state_dict().items()}, origin="file", arch="tiny"
    )
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], tensor)


def test_a_real_data_parallel_and_compiled_module() -> None:
    network = trained(TinyNet())
    wrapped = torch.compile(nn.DataParallel(network))
    names = wrapped.state_dict()
    assert all(n.startswith("_orig_mod.module.") for n in names)
    assert list(strip_prefixes(names)) == list(network.state_dict())


def test_a_network_whose_own_part_is_called_module_is_left_alone() -> None:
    network = nn.Module()
    network.module = nn.Linear(2, 2)
    target = nn.Module()
    target.module = nn.Linear(2, 2)
    load_weights(target, network.state_dict(), origin="file", arch="own")
    torch.testing.assert_close(target.module.weight, network.module.weight)
    # "module" goes from the front only where every name begins with it.
    mixed = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(strip_prefixes(mixed)) == ["module.a", "b"]


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(SourceError, match="'a' twice"):
        strip_prefixes({"a": torch.zeros(1), "_orig_mod.a": torch.zeros(1)})


def test_half_precision_becomes_float32() -> None:
    source = trained(TinyNet()).half()
    target = TinyNet()
    load_weights(target, source.state_dict(), origin="file", arch="tiny")
    assert {t.dtype for t in target.parameters()} == {torch.float32}
    torch.testing.assert_close(target.stem.weight, source.stem.weight.float())


def test_counters_of_batches_may_be_missing() -> None:
    state = {k: v for k, v in TinyNet().state_dict().items() if "num_batches" not in k}
    load_weights(TinyNet(), state, origin="file", arch="tiny")


def test_all_that_does_not_fit_is_listed_with_counts() -> None:
    state = dict(TinyNet(width=16).state_dict())
    for index in range(9):
        state[f"extra.{index}"] = torch.zeros(1)
    del state["blocks.0.norm.weight"]
    with pytest.raises(SourceError) as caught:
        load_weights(TinyNet(), state, origin="file.pt", arch="timm/tiny")
    text = str(caught.value)
    assert "file.pt do not fit timm/tiny" in text
    assert "missing: blocks.0.norm.weight (1)" in text
    assert "extra.5 and 3 more (9)" in text
    assert "stem.weight is (16, 3, 3, 3), not (8, 3, 3, 3)" in text
    assert "num_classes" not in text


def test_the_number_of_classes_is_guessed() -> None:
    state = TinyNet(num_classes=10).state_dict()
    assert compare_weights(state, TinyNet()).guessed_num_classes == 10
    with pytest.raises(SourceError, match="--arch-kwargs num_classes=10"):
        load_weights(TinyNet(), state, origin="file", arch="tiny")


@pytest.mark.parametrize("prefix", ["model.", "net.", "module.model.", "student.backbone."])
def test_a_prefix_that_all_names_share_is_taken_off(prefix: str) -> None:
    trained, fresh = TinyNet(), TinyNet()
    state = {f"{prefix}{k}": v for k, v in trained.state_dict().items()}
    load_weights(fresh, state, origin="file", arch="tiny")
    for name, tensor in trained.state_dict().items():
        assert fresh.state_dict()[name].equal(tensor), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(value: float) -> None:
    state = {k: v.clone() for k, v in trained(TinyNet()).state_dict().items()}
    state["classifier.bias"][1] = value
    state["blocks.1.norm.running_var"][0] = value
    with pytest.raises(SourceError, match=r"NaN or infinity in blocks.1.norm.running_var, clas"):
        load_weights(TinyNet(), state, origin="file", arch="tiny")


class Versioned(nn.Linear):
    """As torchvision's MNASNet: it refuses weights that do not say of which version they are."""

    _version = 2

    def _load_from_state_dict(self, *arguments) -> None:  # type: ignore[no-untyped-def]
        if arguments[2].get("version") != 2:
            raise ValueError("no version")
        super()._load_from_state_dict(*arguments)


def test_a_module_that_asks_for_a_version_takes_a_plain_dict() -> None:
    source, target = Versioned(2, 2), Versioned(2, 2)
    load_weights(target, dict(source.state_dict()), origin="file", arch="versioned")
    torch.testing.assert_close(target.weight, source.weight)
