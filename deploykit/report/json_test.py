from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import DataError, UnsupportedOp
from deploykit.interface import TensorUse
from deploykit.report.json import (
    report_from_dict,
    report_to_dict,
    report_to_json,
    verdict_from_dict,
    verdict_to_dict,
)
from deploykit.runners.base import RunnerInfo
from deploykit.verdict import (
    Check,
    LayerRow,
    Question,
    Report,
    RunnerExit,
    SkippedTarget,
    Verdict,
)

INFINITE_OR_NOT = st.floats(allow_nan=False)
PLAIN = st.one_of(st.integers(-5, 5), st.text(max_size=5), st.booleans(), st.none())
CHECKS = st.builds(
    Check,
    question=st.sampled_from(Question),
    value=st.text(max_size=5),
    metric=st.sampled_from(["max_error_lsb", "snr_db", "cosine"]),
    measured=INFINITE_OR_NOT,
    limit=st.none() | INFINITE_OR_NOT,
    at_most=st.booleans(),
    warn_limit=st.none() | INFINITE_OR_NOT,
    samples=st.none() | st.integers(1, 99),
)
RUNNERS = st.builds(
    RunnerInfo,
    name=st.text(max_size=5),
    runtime=st.text(max_size=5),
    version=st.text(max_size=5),
    kernels=st.text(max_size=5),
    cpu=st.text(max_size=5),
    threads=st.integers(1, 8),
    details=st.dictionaries(st.text(max_size=3), PLAIN, max_size=2),
)
LAYERS = st.builds(
    LayerRow,
    value=st.text(max_size=5),
    module=st.text(max_size=5),
    op_type=st.text(max_size=5),
    max_error_over_range=INFINITE_OR_NOT,
    snr_db=INFINITE_OR_NOT,
    max_error_lsb=st.none() | INFINITE_OR_NOT,
)
VERDICTS = st.builds(
    Verdict,
    target=st.text(max_size=5),
    precision=st.sampled_from(["fp32", "int8"]),
    path=st.text(max_size=5),
    runner_name=st.text(max_size=5),
    runner=st.none() | RUNNERS,
    checks=st.lists(CHECKS, max_size=3).map(tuple),
    samples=st.integers(0, 99),
    error=st.text(max_size=5),
    layers=st.lists(LAYERS, max_size=2).map(tuple),
    runner_exit=st.sampled_from([None, *RunnerExit]),
)
TEXT = st.text(max_size=5)
SKIPPED = st.builds(
    SkippedTarget,
    target=TEXT,
    precision=TEXT,
    reason=TEXT,
    ops=st.lists(st.builds(UnsupportedOp, TEXT, TEXT, TEXT, TEXT, TEXT), max_size=2).map(tuple),
    refused=st.booleans(),
)
TENSORS = st.builds(
    TensorUse,
    *[TEXT] * 4,
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    layout=TEXT,
    scale=st.lists(st.floats(1e-9, 1e9), max_size=2).map(tuple),
    zero_point=st.lists(st.integers(-128, 255), max_size=2).map(tuple),
    meaning=TEXT,
)
REPORTS = st.builds(
    Report,
    model=st.text(max_size=5),
    reference=st.text(max_size=5),
    verdicts=st.lists(VERDICTS, max_size=2).map(tuple),
    warnings=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    skipped=st.lists(SKIPPED, max_size=2).map(tuple),
    tensors=st.lists(TENSORS, max_size=2).map(tuple),
)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@given(REPORTS)
def test_a_report_comes_back_from_valid_json(report: Report) -> None:
    text = report_to_json(report)
    document = json.loads(text, parse_constant=refuse_constant)
    assert report_from_dict(document) == report
    assert document["passed"] == report.passed
    assert document["schema"] == "deploykit.report/1"
    assert report_to_json(report_from_dict(document)) == text


@given(VERDICTS)
def test_a_verdict_comes_back_alone(verdict: Verdict) -> None:
    document = json.loads(json.dumps(verdict_to_dict(verdict), allow_nan=False))
    assert verdict_from_dict(document) == verdict
    assert document["passed"] == verdict.passed
    assert document["outcome"] == verdict.outcome


def test_the_exit_code_is_of_the_worst() -> None:
    good = Check(Question.CONVERSION, "y", "cosine", 1.0, 0.5, at_most=False)
    refused = SkippedTarget("ncnn", "int8", "an op", refused=True)
    missing = SkippedTarget("coreml", "", "not installed")
    assert Report("net", "torch", (verdict(good),)).exit_code == 0
    assert Report("net", "torch", (verdict(good),), skipped=(missing,)).exit_code == 0
    assert Report("net", "torch", (verdict(good),), skipped=(missing, refused)).exit_code == 3
    assert Report("net", "torch", (verdict(),), skipped=(refused,)).exit_code == 1


def test_a_report_of_before_there_were_refusals_is_read() -> None:
    document = report_to_dict(Report("net", "torch 2", (verdict(),)))
    del document["left_out"]
    del document["verdicts"][0]["outcome"]
    del document["warned"]
    assert report_from_dict(document) == Report("net", "torch 2", (verdict(),))


def test_a_check_of_before_there_were_warnings_is_read() -> None:
    check = Check(Question.QUANTIZATION, "y", "cosine", 0.85, 0.8, at_most=False)
    document = verdict_to_dict(verdict(check))
    for name in ("warn_limit", "warned"):
        del document["checks"][0][name]
    assert verdict_from_dict(document) == verdict(check)


def verdict(*checks: Check, **details: Any) -> Verdict:
    info = RunnerInfo("litert", "LiteRT", "2.3", "XNNPACK", "x86_64", 1, details)
    return Verdict("tflite", "int8", "net.tflite", "litert", info, checks, 8)


def test_figures_that_json_lacks_are_strings_and_come_back() -> None:
    figures = (math.nan, math.inf, -math.inf)
    checks = [Check(Question.QUANTIZATION, "y", "snr_db", f, None, False) for f in figures]
    document = verdict_to_dict(verdict(*checks, share=math.nan, nested=[{"a": math.inf}]))
    assert [c["measured"] for c in document["checks"]] == ["nan", "inf", "-inf"]
    assert document["runner"]["details"] == {"share": "nan", "nested": [{"a": "inf"}]}
    back = [c.measured for c in verdict_from_dict(document).checks]
    assert math.isnan(back[0])
    assert back[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "deploykit.report/9"}, "report/9"),
        ({"schema": None}, "None"),
        ({"verdicts": [{}]}, "KeyError"),
        ({"verdicts": [1]}, "not a report"),
        ({"warnings": None}, "TypeError"),
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, Any], words: str) -> None:
    document = {**report_to_dict(Report("net", "torch 2", ())), **change}
    with pytest.raises(DataError, match=words):
        report_from_dict(document)
    with pytest.raises(DataError):
        report_from_dict({})


@pytest.mark.parametrize(
    ("field", "value"), [("measured", "loud"), ("question", "weather"), ("measured", None)]
)
def test_a_damaged_check_is_refused(field: str, value: object) -> None:
    good = Check(Question.CONVERSION, "y", "cosine", 1.0, 0.5, at_most=False)
    document = report_to_dict(Report("net", "torch 2", (verdict(good),)))
    document["verdicts"][0]["checks"][0][field] = value
    with pytest.raises(DataError):
        report_from_dict(document)
