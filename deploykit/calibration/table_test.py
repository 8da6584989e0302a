from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.calibration.table import CalibrationTable, ValueStatistics
from deploykit.errors import DataError

finite = st.floats(allow_nan=False, allow_infinity=False)
statistics = st.builds(
    ValueStatistics,
    minimum=finite,
    maximum=finite,
    mean=finite,
    std=finite,
    histogram=st.lists(st.integers(0, 10**9), max_size=5).map(tuple),
    count=st.integers(0, 2**40),
)
tables = st.builds(
    CalibrationTable,
    values=st.dictionaries(st.text(max_size=8), statistics, max_size=4),
    samples=st.integers(0, 10**6),
    data_fingerprint=st.text(max_size=4),
    model_fingerprint=st.text(max_size=4),
    warnings=st.lists(st.text(max_size=9), max_size=2).map(tuple),
)


@given(tables)
def test_json_round_trip_is_exact_and_stable(table: CalibrationTable) -> None:
    text = table.to_json()
    again = CalibrationTable.from_json(text)
    assert again == table
    assert again.to_json() == text


def test_files(tmp_path: Path) -> None:
    table = CalibrationTable({}, 3, "d", "m", ("few",))
    table.save(tmp_path / "sub" / "table.json")
    assert CalibrationTable.load(tmp_path / "sub" / "table.json") == table
    with pytest.raises(DataError, match="cannot read the calibration table"):
        CalibrationTable.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"format": "deploykit.calibration/1"}', '{"format": "x/9"}']
)
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="the calibration table"):
        CalibrationTable.from_json(text)


def test_an_unknown_value_says_that_the_table_is_of_another_model() -> None:
    with pytest.raises(DataError, match="has no value 'v'"):
        CalibrationTable({}, 0, "", "")["v"]
