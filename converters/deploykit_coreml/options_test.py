"""Options: what each iOS can, and what contradicts."""

from __future__ import annotations

import pytest

from deploykit.errors import ContractError
from deploykit.model import Precision
from deploykit.target_options import check_option_precisions, options_of_precision
from deploykit_coreml.options import OPTIONS, WriteOptions


@pytest.mark.parametrize(
    ("precision", "options", "ios"),
    [
        (Precision.FP32, {}, 15),
        (Precision.FP16, {}, 15),
        (Precision.W8, {}, 16),
        (Precision.INT8, {}, 17),
        (Precision.FP16, {"io": "float16"}, 16),
        (Precision.W8, {"palettize": "4", "palette_channels": "8"}, 18),
        (Precision.FP32, {"ios": "18"}, 18),
    ],
)
def test_the_oldest_ios_that_has_it_all(
    precision: Precision, options: dict[str, str], ios: int
) -> None:
    assert WriteOptions.parse(options, precision).ios == ios


@pytest.mark.parametrize(
    ("precision", "options", "words"),
    [
        (Precision.INT8, {"ios": "16"}, "precision int8 with ios 16"),
        (Precision.INT8, {"ios": "15"}, "ios 17 or later"),
        (Precision.W8, {"ios": "15"}, "precision w8 with ios 15"),
        (Precision.FP16, {"ios": "15", "io": "float16"}, "io float16 with ios 15"),
        (Precision.W8, {"ios": "17", "palettize": "4", "palette_channels": "8"}, "ios 18"),
        (Precision.FP16, {"ios": "14"}, "ios is '14'"),
        (Precision.FP16, {"colour": "red"}, "no option 'colour'"),
        (Precision.FP16, {"palettize": "4"}, "palettize 4 with precision fp16"),
        (Precision.W8, {"palettize": "5"}, "palettize is '5'"),
        (Precision.W8, {"palette_channels": "8"}, "without palettize"),
        (Precision.W8, {"palettize": "4", "palette_channels": "x"}, "a number"),
        (Precision.FP32, {"author": " "}, "author is ' '"),
        (Precision.FP32, {"metadata.": "x"}, "no option 'metadata.'"),
        (Precision.FP32, {"metadata.deploykit.version": "9"}, "deploykit's own"),
        (Precision.FP32, {"io": "float16"}, "io float16 with fp32"),
        (Precision.FP16, {"compute": "float32"}, "compute float32 with precision fp16"),
        (Precision.W8, {"compute": "float32", "io": "float16"}, "io float16 with w8"),
    ],
)
def test_what_contradicts_is_refused(
    precision: Precision, options: dict[str, str], words: str
) -> None:
    with pytest.raises(ContractError, match=words):
        WriteOptions.parse(options, precision)


def test_flags() -> None:
    assert {o.flag: o.name for o in OPTIONS if o.flag} == {
        "--ios": "ios",
        "--palettize": "palettize",
    }


def test_an_option_is_dropped_where_its_precision_is_not() -> None:
    given = {"palettize": "6", "ios": "17"}
    assert options_of_precision("coreml", OPTIONS, given, "w8") == given
    assert options_of_precision("coreml", OPTIONS, given, "fp16") == {"ios": "17"}
    check_option_precisions("coreml", OPTIONS, given, ["fp16", "w8"])
    with pytest.raises(ContractError, match=r"coreml\.palettize=6 with fp16"):
        check_option_precisions("coreml", OPTIONS, given, ["fp16"])


def test_metadata_of_the_user() -> None:
    texts = {"author": "Ada", "license": "MIT", "version": "1.2", "description": "names clothes"}
    keys = {"metadata.team": "vision", "metadata.com.example.id": "7"}
    options = WriteOptions.parse(texts | keys, Precision.FP32)
    assert (options.author, options.license, options.version) == ("Ada", "MIT", "1.2")
    assert options.description == "names clothes"
    assert options.user_metadata == {"team": "vision", "com.example.id": "7"}
