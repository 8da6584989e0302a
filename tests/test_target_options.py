"""What a request comes to with the real targets: defaults, and options where they fit."""

from __future__ import annotations

import pytest

from deploykit.errors import ContractError, UserError
from deploykit.flow.plan import ConvertRequest, plan_artifacts, request_of
from deploykit.model import Precision
from deploykit.target import find_target


def planned(request: ConvertRequest) -> list[tuple[str, str]]:
    return [(target.name, precision.value) for target, precision in plan_artifacts(request)[0]]


@pytest.mark.parametrize(
    ("precisions", "options", "expected"),
    [
        ((), {}, ["fp16"]),
        ((), {"palettize": "6"}, ["w8"]),
        ((), {"ios": "17"}, ["fp16"]),
        (("fp32", "w8", "fp32"), {"palettize": "6"}, ["fp32", "w8"]),
    ],
)
def test_precisions(
    precisions: tuple[str, ...], options: dict[str, str], expected: list[str]
) -> None:
    request = ConvertRequest(("coreml",), precisions, {"coreml": options})
    assert planned(request) == [("coreml", p) for p in expected]


def test_each_target_has_its_own_default() -> None:
    assert planned(ConvertRequest(("tflite", "coreml"))) == [("tflite", "fp32"), ("coreml", "fp16")]


def test_an_option_goes_to_the_precisions_that_it_is_for() -> None:
    options = {"coreml": {"palettize": "6", "ios": "17"}}
    request = ConvertRequest(("coreml",), ("fp16", "w8"), options)
    target = find_target("coreml")
    assert request_of(target, Precision.FP16, request).options == {"ios": "17"}
    assert request_of(target, Precision.W8, request).options == options["coreml"]


@pytest.mark.parametrize(
    ("targets", "precisions", "options", "words"),
    [
        (("coreml",), ("fp16",), {"coreml": {"palettize": "6"}}, "palettize=6 with fp16"),
        (("coreml",), ("int8",), {"coreml": {"ios": "16"}}, "int8 with ios 16"),
        (("coreml",), ("fp16",), {"coreml": {"ios": "9"}}, "ios is '9'"),
        (("onnx",), ("int8",), {"onnx": {"colour": "red"}}, "no option 'colour'"),
        (("tflite",), ("fp32",), {"tflite": {"io": "uint8"}}, "uint8 with precision fp32"),
        (("ncnn",), ("int8",), {"ncnn": {"requantize": "9"}}, "requantize is '9'"),
        (("tflite",), ("fp8",), {}, "unknown precision 'fp8'"),
        (("ncnn",), ("w8",), {}, "ncnn cannot be written as w8"),
        ((), (), {}, "nothing to make"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(
    targets: tuple[str, ...],
    precisions: tuple[str, ...],
    options: dict[str, dict[str, str]],
    words: str,
) -> None:
    with pytest.raises((UserError, ContractError), match=words):
        plan_artifacts(ConvertRequest(targets, precisions, options))
