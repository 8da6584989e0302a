from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UserError
from deploykit.sources.parse import parse_arch_kwargs, parse_input_shape


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=5), st.sampled_from("x,×X"))
def test_shapes_are_read_back(sizes: list[int], separator: str) -> None:
    assert parse_input_shape(separator.join(map(str, sizes))) == tuple(sizes)


@pytest.mark.parametrize("text", ["", "x", "1x", "1x-3", "1x3x0x4", "axb", "1.5x2", "1 3"])
def test_bad_shapes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="1x3x224x224"):
        parse_input_shape(text)


def test_values_become_what_they_look_like() -> None:
    assert parse_arch_kwargs(
        ["n=10", "w=0.5", "e=1e-3", "a=True", "b=false", "c=none", "act=relu", "q='10'", "u=a=b"]
    ) == {
        "n": 10,
        "w": 0.5,
        "e": 1e-3,
        "a": True,
        "b": False,
        "c": None,
        "act": "relu",
        "q": "10",
        "u": "a=b",
    }


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_back(whole: int, real: float) -> None:
    parsed = parse_arch_kwargs([f"whole={whole}", f"real={real!r}"])
    assert parsed == {"whole": whole, "real": real}
    assert isinstance(parsed["whole"], int)
    assert isinstance(parsed["real"], float)


@pytest.mark.parametrize("pairs", [["x"], ["=1"], ["1x=1"], ["a b=1"], ["a=1", "a=2"]])
def test_bad_pairs_are_refused(pairs: list[str]) -> None:
    with pytest.raises(UserError):
        parse_arch_kwargs(pairs)
