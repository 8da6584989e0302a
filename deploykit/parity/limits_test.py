from __future__ import annotations

import pytest

from deploykit.errors import UserError
from deploykit.model import Precision
from deploykit.parity.limits import (
    LimitOverride,
    Limits,
    check_limits,
    limits_with,
    metrics_of,
    parse_limit,
)


def test_every_precision_verifies_its_conversion_by_default() -> None:
    for precision in Precision:
        limits = Limits().of(precision)
        if precision is Precision.INT8:
            assert (limits.layer_error_lsb, limits.snr_loss_db, limits.top1_loss) == (2, 1, 0.01)
            continue
        assert limits.max_error_over_range is not None, precision
        assert 0 < limits.max_error_over_range < 1


def test_every_precision_verifies_its_distance_from_the_reference_by_default() -> None:
    for precision in Precision:
        limits = Limits().of(precision)
        assert limits.reference_error_over_range is not None or limits.snr_db is not None


def test_a_limit_is_overridden_and_the_others_stay() -> None:
    limits = limits_with(["int8.max_error_lsb=3", "fp32.cosine = 0.99", "int8.max_error_lsb=4"])
    expected = {**Limits().to_dict(), "int8.max_error_lsb": 4.0, "fp32.cosine": 0.99}
    assert limits.to_dict() == expected
    assert limits_with([]) == Limits()


def test_none_tells_the_figure_without_judging_it() -> None:
    assert parse_limit("w8.snr_db=none") == LimitOverride(Precision.W8, "snr_db", None)
    assert limits_with(["w8.snr_db=None"]).w8.snr_db is None


@pytest.mark.parametrize("name", list(Limits().to_dict()))
def test_every_told_name_can_be_overridden(name: str) -> None:
    assert limits_with([f"{name}=0.5"]).to_dict()[name] == 0.5


@pytest.mark.parametrize(
    "text",
    ["", "int8", "int8.max_error_lsb", "int8.snr_db=", "int8.snr_db=loud", "fp32.cosine=nan"],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="limit"):
        parse_limit(text)


@pytest.mark.parametrize("text", ["int4.snr_db=3", "int8.snr=3", "snr_db=3", ".=3", "=3"])
def test_an_unknown_name_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(UserError, match="no limit is called") as caught:
        parse_limit(text)
    assert "int8.max_error_lsb" in caught.value.expected


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8"])
@pytest.mark.parametrize("value", ["0", "3", "none"])
def test_a_metric_that_a_precision_does_not_have_is_refused_with_those_that_it_has(
    precision: str, value: str
) -> None:
    lacking = set(metrics_of(Precision.INT8)) - set(metrics_of(Precision(precision)))
    assert "max_error_lsb" in lacking
    for metric in sorted(lacking):
        with pytest.raises(UserError, match=f"{precision}.{metric} would verify nothing") as caught:
            parse_limit(f"{precision}.{metric}={value}")
        names = caught.value.expected.removeprefix("one of ").split(", ")
        assert names == [f"{precision}.{name}" for name in metrics_of(Precision(precision))]


def test_no_precision_has_a_default_for_a_metric_that_it_does_not_have() -> None:
    for precision in Precision:
        limits = Limits().of(precision)
        set_ones = {name for name, value in vars(limits).items() if value is not None}
        assert set_ones <= set(metrics_of(precision)), precision


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int8.top1_agreement=90", "from 0 to 1"),
        ("int8.cosine=1.5", "from -1 to 1"),
        ("fp32.max_error_over_range=-1e-6", "no number below 0"),
        ("int8.layer_error_lsb=-1", "no number below 0"),
    ],
)
def test_a_limit_that_no_figure_can_have_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match="the limit") as caught:
        parse_limit(text)
    assert words in caught.value.expected


def test_a_signal_below_its_noise_is_a_limit() -> None:
    assert parse_limit("int8.snr_db=-3").value == -3.0


def test_a_limit_of_a_precision_that_no_file_has_is_refused() -> None:
    check_limits(["int8.snr_db=3", "fp32.cosine=0.9"], ["int8", Precision.FP32])
    with pytest.raises(
        UserError, match=r"w8\.snr_db would verify nothing: the files are fp32, int8"
    ):
        check_limits(["int8.snr_db=3", "w8.snr_db=3"], ["int8", "fp32", "int8"])
