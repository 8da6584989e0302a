"""Names from files in every view: escaped and cut for readers, and whole in JSON that is valid."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import pytest

from deploykit.cost.profile import profile_model
from deploykit.graph.text import format_graph, format_notes
from deploykit.lint.finding import Finding, LintReport, Severity
from deploykit.lint.rule import RULES
from deploykit.model import PassNote
from deploykit.report.html import element
from deploykit.report.json import report_from_dict, report_to_json
from deploykit.report.lint_views import lint_to_json, render_lint
from deploykit.report.profile_html import profile_to_html
from deploykit.report.profile_json import profile_to_json
from deploykit.report.profile_terminal import render_profile
from deploykit.report.terminal import render_layers, render_report
from deploykit.verdict import Check, LayerRow, Question, Report, StageRow, Verdict
from deploykit_testing.graphs import as_model, parse

ODD = {
    "newline": "conv\nPASS  everything\r\n",
    "control": "conv\x1b[2J\x1b]0;title\x07\x9b31m\x00",
    "bidi": "conv\u202eevil\u2066\u200f",
    "long": "n" * 10_000,
    "surrogate": "conv\ud800",
}
NETWORK = """g (float[1, 4, 8, 8] x, float[8, 4, 1, 1] W) => (float[1, 8, 8, 8] y) {
    a = Conv (x, W)
    y = Relu (a) }"""


@pytest.fixture(params=ODD, ids=str)
def odd(request: pytest.FixtureRequest) -> str:
    return ODD[request.param]


def _check_text(text: str, lines: int) -> None:
    """No character that moves or repaints, as many lines as without the name, none of them long."""
    found = text.split("\n")
    assert len(found) == lines
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for line in found for c in line)
    assert max(map(len, found)) < 2_000


def _lines(text: str) -> int:
    return len(text.split("\n"))


def test_a_stage_and_its_notes(odd: str) -> None:
    def shown(name: str) -> str:
        model = as_model(parse(NETWORK))
        node = model.graph.graph[0]
        node.outputs[0].name = name
        node.metadata_props["pkg.torch.onnx.name_scopes"] = f"['', '{name}']"
        notes = [PassNote("fold", name, True, f"merged into {name}")]
        return f"{format_graph(model)}\n{format_notes(notes)}"

    _check_text(shown(odd), _lines(shown("conv")))


def _report(name: str) -> Report:
    check = Check(Question.CONVERSION, name, "max_error_lsb", 3.0, 2.0, True)
    row = LayerRow(name, name, name, 0.5, 3.0, 2.0)
    verdict = Verdict("tflite", "int8", "m.tflite", "litert", None, (check,), 4, layers=(row,))
    stages = (StageRow("fused", name, 0.5, 3.0, True),)
    return Report("m", "torch", (verdict,), stages=stages)


def test_a_report(odd: str) -> None:
    plain, report = _report("conv"), _report(odd)
    rows = report.verdicts[0].layers
    _check_text(render_layers(rows), _lines(render_layers(plain.verdicts[0].layers)))
    _check_text(render_report(report), _lines(render_report(plain)))
    narrow = render_report(report, width=80)
    assert not any(line.startswith("PASS  everything") for line in narrow.split("\n"))
    document = report_to_json(report)
    assert report_from_dict(json.loads(document)) == report


def test_a_profile(odd: str) -> None:
    profile = profile_model(as_model(parse(NETWORK)))

    def named(name: str) -> tuple[str, str, str]:
        layers = tuple(replace(x, module=name) for x in profile.after.layers)
        after = replace(profile.after, layers=layers)
        odd_profile = replace(profile, after=after)
        text = render_profile(odd_profile, layers=[after])
        return text, profile_to_html(odd_profile), profile_to_json(odd_profile)

    text, page, document = named(odd)
    _check_text(text, _lines(named("conv")[0]))
    assert json.loads(document)["stages"][1]["layers"][0]["module"] == odd
    assert "<svg" in page
    assert not any(unicodedata.category(c) in ("Cf", "Cs") for c in page)
    assert not any(c in page for c in "\x00\x07\x1b\r\x9b")
    assert "n" * 2_000 not in page
    page.encode()


def test_findings(odd: str) -> None:
    def report(name: str) -> LintReport:
        finding = Finding(
            next(iter(RULES)), Severity.WARNING, name, name, "share", 2.0, 1.0,
            f"'{name}' is slow", f"merge '{name}'",
        )  # fmt: skip
        return LintReport("m", ("fp32",), "", (finding,), "")

    _check_text(render_lint(report(odd)), _lines(render_lint(report("conv"))))
    assert json.loads(lint_to_json(report(odd)))["findings"][0]["layer"] == odd


def test_an_element_of_a_page(odd: str) -> None:
    drawn = element("text", odd, attributes={"title": odd})
    assert len(drawn) < 3_000
    assert not any(unicodedata.category(c) in ("Cf", "Cs") for c in drawn)
    assert not any(c in drawn for c in "\x00\x07\x1b\r\x9b")
