"""Views in files: what a CI system reads, and that no name of a file forges anything in them."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deploykit.cli import build_parser
from deploykit.cli.view_files import FLAGS, check_view_files
from deploykit.errors import UserError
from deploykit.report.verdict_html import MadeBy
from deploykit.report.view_files import FILE_VIEWS, ViewRequest
from deploykit.runners.base import RunnerInfo
from deploykit.verdict import (
    AccuracyRow,
    AccuracyTable,
    Check,
    LayerRow,
    Question,
    Report,
    RunnerExit,
    SkippedTarget,
    Verdict,
)

RUNNER = RunnerInfo("litert", "LiteRT", "2.3.0", "XNNPACK", "x86_64", 1, {})
GOOD = Verdict(
    *("tflite", "int8", "m.int8.tflite", "litert", RUNNER),
    checks=(Check(Question.QUANTIZATION, "y", "snr_db", 20.0, 5.0, False, warn_limit=10.0),),
    samples=16,
    layers=(
        LayerRow("a", "features.0", "Conv", 1e-3, 40.0),
        LayerRow("b", "features.1", "Conv", math.nan, math.nan),
        LayerRow("c", "features.2", "Add", 0.0, math.inf),
    ),
    bytes=1000,
)
WARNED = replace(GOOD, checks=(replace(GOOD.checks[0], measured=7.0),))
FAILED = replace(GOOD, checks=(replace(GOOD.checks[0], measured=1.0),))
CRASHED = replace(
    GOOD, runner=None, checks=(), error="killed by signal 11", runner_exit=RunnerExit.CRASHED
)
REPORT = Report(
    model="m",
    reference="torch 2",
    verdicts=(GOOD, WARNED, FAILED, CRASHED),
    skipped=(
        SkippedTarget("ncnn", "int8", "no lowering", refused=True),
        SkippedTarget("coreml", "", "not installed"),
    ),
    failed_before=("tflite int8 on litert",),
)
ACCURACY = AccuracyTable(
    (
        AccuracyRow("reference", "fp32", "torch", 10, 90, 100, None),
        AccuracyRow("a.tflite", "int8", "litert", 5, 50, 100, 0.5),
        AccuracyRow("b.tflite", "int8", "litert", 5, 89, 100, 0.9),
    ),
    classes=10,
)
EVIL = "<script>alert(1)</script>|`@x`\x1b[31m\u202e\n| forged\ufffe\x00]]>&"


def junit(result: Report | AccuracyTable, **options: bool) -> ElementTree.Element:
    text = FILE_VIEWS["junit"].render(result, ViewRequest(**options))
    suite = ElementTree.fromstring(text).find("testsuite")
    assert suite is not None
    return suite


def test_every_flag_has_a_view() -> None:
    assert set(FLAGS) == set(FILE_VIEWS)
    for command in ("convert", "verify", "evaluate"):
        parser = build_parser(command)
        arguments = [command, "x", *(["--data", "d"] if command == "evaluate" else [])]
        args = parser.parse_args([*arguments, *(p for f in FLAGS for p in (f"--{f}", f"o.{f}"))])
        assert [getattr(args, name) for name in FLAGS] == [Path(f"o.{f}") for f in FLAGS]


def test_junit_counts_what_failed() -> None:
    suite = junit(REPORT)
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7",
        "failures": "2",  # FAILED, and the conversion that failed before
        "errors": "2",  # CRASHED, and ncnn that refuses
        "skipped": "1",
    }
    failure = suite[2].find("failure")
    assert failure is not None
    assert "limit at least 5" in (failure.get("message") or "")
    assert junit(REPORT, fail_on_warning=True).get("failures") == "3"


def test_junit_of_an_evaluation() -> None:
    assert junit(ACCURACY).get("tests") == "2"
    assert junit(ACCURACY).get("failures") == "1"
    assert junit(ACCURACY, fail_on_warning=True).get("failures") == "2"


def test_markdown_is_a_table() -> None:
    lines = FILE_VIEWS["markdown"].render(REPORT, ViewRequest()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 4 + 1
    assert [row.rsplit("|", 2)[1].strip() for row in rows[2:]] == [
        *("PASS", "WARN", "FAIL", "CRASHED", "REFUSED"),
    ]
    assert lines[0].endswith("failed")
    text = FILE_VIEWS["markdown"].render(ACCURACY, ViewRequest())
    assert "| a.tflite | int8 | litert |" in text


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_holds_everything_and_reaches_for_nothing() -> None:
    made_by = MadeBy("deploykit verify m", (("m.int8.tflite", 1000, "ab" * 32),))
    text = FILE_VIEWS["html"].render(REPORT, ViewRequest(made_by=made_by))
    page = Page(text)
    for words in ("m: failed", "LiteRT 2.3.0", "ab" * 32, "deploykit verify m", "killed by signal"):
        assert words in page.text
    assert page.tags.count("svg") == 4  # a plot for each verdict with layers
    assert page.tags.count("circle") == 12
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "nan" not in text.partition("<svg")[2].partition("<title")[0]
    assert "89.00 %" in Page(FILE_VIEWS["html"].render(ACCURACY, ViewRequest())).text


@pytest.mark.parametrize("name", FLAGS)
def test_names_from_files_forge_nothing(name: str) -> None:
    layer = LayerRow(EVIL, EVIL, EVIL, 0.1, 1.0)
    check = replace(FAILED.checks[0], value=EVIL)
    bad = replace(FAILED, path=EVIL, checks=(check,), layers=(layer,))
    crashed = replace(CRASHED, path=EVIL, error=EVIL)
    report = Report(EVIL, EVIL, (bad, crashed), (EVIL,), skipped=(SkippedTarget("t", "", EVIL),))
    row = replace(ACCURACY.rows[1], what=EVIL)
    request = ViewRequest(made_by=MadeBy(EVIL, ((EVIL, 1, "0"),)))
    for result in (report, AccuracyTable((row,), 10)):
        text = FILE_VIEWS[name].render(result, request)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\x00" not in text
        if name == "junit":
            ElementTree.fromstring(text)
        elif name == "html":
            assert "script" not in Page(text).tags
        else:
            tables = [line for line in text.splitlines() if not line.startswith("    ")]
            assert not any("<script" in line.replace("\\<", "") for line in tables)
            assert not any(line.startswith("| forged") for line in text.splitlines())


def test_files_that_cannot_be_written_are_refused_first(tmp_path: Path) -> None:
    def check(*arguments: str) -> None:
        check_view_files(build_parser("verify").parse_args(["verify", "b", *arguments]))

    check("--html", str(tmp_path / "new" / "v.html"))
    with pytest.raises(UserError, match="is a folder"):
        check("--html", str(tmp_path))
    with pytest.raises(UserError, match="same file"):
        check("--html", str(tmp_path / "v"), "--junit", str(tmp_path / "v"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        check("--markdown", str(tmp_path / "file" / "v.md"))
