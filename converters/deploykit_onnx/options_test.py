"""Options: defaults, what each says, and what is refused."""

from __future__ import annotations

import pytest

from deploykit.errors import ContractError
from deploykit_onnx.options import WriteOptions


def test_defaults() -> None:
    assert WriteOptions.parse({}) == WriteOptions(
        activations="int8", per_channel=True, reduce_range=False, ort=False
    )


def test_given() -> None:
    options = {"activations": "uint8", "per_channel": "no", "reduce_range": "yes", "ort": "yes"}
    assert WriteOptions.parse(options) == WriteOptions(
        activations="uint8", per_channel=False, reduce_range=True, ort=True
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activations": "int4"}, "activations is 'int4'"),
        ({"ort": "perhaps"}, "ort is 'perhaps'"),
        ({"ios": "17"}, "no option 'ios'"),
    ],
)
def test_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        WriteOptions.parse(options)
