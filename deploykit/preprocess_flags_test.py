from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import ContractError, UserError
from deploykit.preprocess import Preprocess
from deploykit.preprocess_flags import PreprocessChanges, read_flags, read_labels

IMAGENET = Preprocess(size=(224, 224), resize=256)
SHAPE = (1, 3, 96, 128)


def changed(**flags: str) -> Preprocess:
    contract = PreprocessChanges(fields=read_flags(flags)).apply(IMAGENET, SHAPE)
    assert contract is not None
    return contract


def test_single_numbers_are_for_all_channels() -> None:
    contract = changed(mean="0.5", std="0.25")
    assert (contract.mean, contract.std) == ((0.5,) * 3, (0.25,) * 3)
    assert contract.resize == 256


def test_each_flag_changes_its_own_field() -> None:
    contract = changed(
        mean="0,0,0", std="1,1,1", resize="none", crop="192x160", interpolation="bicubic",
        color="bgr",
    )  # fmt: skip
    assert contract == Preprocess(
        size=(192, 160), color="BGR", resize=None, interpolation="bicubic",
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip


def test_without_a_contract_the_size_is_the_inputs() -> None:
    contract = PreprocessChanges(fields={"mean": 0.5, "std": 0.5}).apply(None, SHAPE)
    assert contract == Preprocess(size=(96, 128), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_nothing_said_changes_nothing() -> None:
    assert PreprocessChanges().apply(IMAGENET, SHAPE) is IMAGENET
    assert not PreprocessChanges()


def test_values_for_pixels_of_0_to_255_are_refused_with_what_was_meant() -> None:
    with pytest.raises(ContractError, match=r"0\.485, 0\.456, 0\.406"):
        changed(mean="123.675,116.28,103.53")


@pytest.mark.parametrize(
    "flags",
    [
        {"mean": "a"},
        {"resize": "12y13"},
        {"crop": "none"},
        {"crop": "-3"},
        {"crop": "0"},
        {"mean": "0.1,0.2"},
        {"std": "0"},
        {"color": "cmyk"},
        {"interpolation": "lanczos"},
    ],
)
def test_bad_values_are_user_errors(flags: dict[str, str]) -> None:
    with pytest.raises(UserError):
        changed(**flags)


@pytest.mark.parametrize(
    "document",
    [
        {"size": "224"},
        {"size": 224.5},
        {"size": True},
        {"size": [1, 2, 3]},
        {"size": 224, "mean": "0.5"},
        {"size": 224, "mean": [0.5, None, 0.5]},
        {"size": 224, "color": ["RGB"]},
        {"size": 224, "interpolation": {}},
        {"size": 10**9},
        {"size": 224, "resize": []},
    ],
)
def test_json_of_wrong_types_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ContractError):
        Preprocess.from_dict(document)


def test_json_may_say_one_number_for_all() -> None:
    contract = Preprocess.from_dict({"size": 224, "mean": 0.5, "std": 0.5})
    assert contract == Preprocess(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)


def test_labels_of_a_file_and_of_a_list(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("tench\ngreat white shark\n", encoding="utf-8")
    assert read_labels(str(file)) == ("tench", "great white shark")
    assert read_labels("cat, dog") == ("cat", "dog")
    assert read_labels("") is None
    for bad in ("nosuchfile", "cat,,dog"):
        with pytest.raises(UserError):
            read_labels(bad)


def test_the_description_names_every_step() -> None:
    text = IMAGENET.describe()
    for part in ("EXIF", "RGB", "shorter side to 256", "centre crop 224x224", "bilinear", "0.485"):
        assert part in text
