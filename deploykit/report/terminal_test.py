from __future__ import annotations

import math
from dataclasses import replace

from deploykit.report.model import Check, LayerRow, Question, Report, Verdict
from deploykit.report.terminal import render_layers, render_report
from deploykit.runners.base import RunnerInfo

CONVERSION, QUANTIZATION = Question.CONVERSION, Question.QUANTIZATION
XNNPACK = RunnerInfo(
    "litert", "LiteRT", "2.3.0", "XNNPACK", "x86_64 avx2 fma", 1, {"partitions": 1}
)
REFERENCE = replace(XNNPACK, name="litert-reference", kernels="reference", threads=2, details={})


def verdict(
    lsb: float = 1.0, snr: float = 18.345, runner: RunnerInfo | None = XNNPACK, error: str = ""
) -> Verdict:
    checks = (
        Check(CONVERSION, "logits", "max_error_lsb", lsb, 2.0, True),
        Check(CONVERSION, "logits", "max_error_over_range", lsb / 255, None, True),
        Check(QUANTIZATION, "logits", "max_error_over_range", 0.0512, None, True),
        Check(QUANTIZATION, "logits", "snr_db", snr, 5.0, False),
        Check(QUANTIZATION, "logits", "cosine", 0.99126, 0.8, False),
        Check(QUANTIZATION, "logits", "top1_agreement", 0.9375, None, False),
    )
    return Verdict(
        target="tflite",
        precision="int8",
        path="ghostnet.int8.tflite",
        runner_name=runner.name if runner else "litert",
        runner=runner,
        checks=() if error else checks,
        samples=16,
        error=error,
        bytes=1613120,
    )


FP32 = Verdict(
    "tflite",
    "fp32",
    "ghostnet.fp32.tflite",
    "litert",
    XNNPACK,
    (
        Check(CONVERSION, "logits", "max_error_over_range", 3.14e-7, 2e-5, True),
        Check(QUANTIZATION, "logits", "max_error_over_range", 1e-6, 1e-4, True),
        Check(QUANTIZATION, "logits", "snr_db", math.inf, None, False),
        Check(QUANTIZATION, "logits", "cosine", 1.0, None, False),
    ),
    16,
)


def lines(report: Report, **options: bool) -> list[str]:
    return render_report(report, **options).splitlines()


def test_a_report_that_passes_is_one_row_a_verdict() -> None:
    report = Report("ghostnet", "torch 2.15.0", (FP32, verdict(), verdict(runner=REFERENCE)))
    assert lines(report) == [
        "model: ghostnet   reference: torch 2.15.0   samples: 16",
        "",
        (
            "target  precision  runner                  kernels    size       conversion error    "
            "SNR dB  cosine   top-1   verdict"
        ),
        (
            "tflite  fp32       litert 2.3.0            XNNPACK    -          3.1e-07 (<= 2e-05)  "
            "inf     1.00000  -       PASS"
        ),
        (
            "tflite  int8       litert 2.3.0            XNNPACK    1,613,120  1 LSB (<= 2)        "
            "18.3    0.99126  93.8 %  PASS"
        ),
        (
            "tflite  int8       litert-reference 2.3.0  reference  1,613,120  1 LSB (<= 2)        "
            "18.3    0.99126  93.8 %  PASS"
        ),
        "",
        "runner litert: LiteRT 2.3.0, XNNPACK, 1 thread",
        "  tflite fp32: partitions 1",
        "  tflite int8: partitions 1",
        "runner litert-reference: LiteRT 2.3.0, reference, 2 threads",
        "cpu x86_64 avx2 fma",
    ]


def test_failures_are_spelled_out_with_what_to_do() -> None:
    report = Report("ghostnet", "torch", (FP32, verdict(lsb=5.5, snr=-0.04)), ("3 samples only",))
    text = lines(report)
    assert text[4].endswith("5.5 LSB (<= 2)      0.0     0.99126  93.8 %  FAIL")
    assert text[10:] == [
        "",
        "FAIL tflite int8 on litert (ghostnet.int8.tflite)",
        (
            "  FAIL conversion error, output 'logits': largest error in output steps 5.5; limit at "
            "most 2 (--limit int8.max_error_lsb=...)"
        ),
        (
            "  FAIL quantization noise, output 'logits': signal to noise 0.0 dB; limit at least 5 "
            "(--limit int8.snr_db=...)"
        ),
        (
            "  what to do about conversion error: run again with --layers: the first value that "
            "departs names the layer; if another runner passes, it is this runtime's kernels"
        ),
        (
            "  what to do about quantization noise: run again with --layers to see where the noise "
            "enters; calibrate with more data that is like what the model will see; or keep a "
            "higher precision"
        ),
        "",
        "warning: 3 samples only",
    ]


def test_a_runner_that_failed_is_told_in_its_words() -> None:
    error = "runner 'litert' crashed with SIGILL\n    | illegal instruction"
    text = lines(Report("net", "torch", (verdict(runner=None, error=error),)))
    assert text[3].split() == ["tflite", "int8", "litert", "-", "1,613,120", *["-"] * 4, "FAIL"]
    assert text[4:] == [
        "",
        "FAIL tflite int8 on litert (ghostnet.int8.tflite)",
        "  runner 'litert' crashed with SIGILL",
        "      | illegal instruction",
    ]


def test_a_verdict_without_checks_fails_and_says_so() -> None:
    text = render_report(Report("net", "torch", (replace(FP32, checks=()),)))
    assert "FAIL tflite fp32 on litert" in text
    assert "nothing was compared" in text


def test_the_limit_of_the_reference_error_has_the_name_that_overrides_it() -> None:
    far = Check(QUANTIZATION, "logits", "max_error_over_range", 0.5, 1e-4, True)
    text = render_report(Report("net", "torch", (replace(FP32, checks=(far,)),)))
    assert "(--limit fp32.reference_error_over_range=...)" in text


def test_the_worst_output_stands_in_the_row_and_nan_is_worse_than_all() -> None:
    checks = (
        Check(CONVERSION, "a", "max_error_over_range", 1e-6, 2e-5, True),
        Check(CONVERSION, "b", "max_error_over_range", math.inf, 2e-5, True),
        Check(QUANTIZATION, "a", "snr_db", 30.0, None, False),
        Check(QUANTIZATION, "b", "snr_db", -math.inf, None, False),
        Check(QUANTIZATION, "a", "cosine", 0.5, None, False),
        Check(QUANTIZATION, "b", "cosine", math.nan, None, False),
    )
    row = lines(Report("net", "torch", (replace(FP32, checks=checks),)))[3]
    assert row.split()[5:] == ["-", "inf", "(<=", "2e-05)", "-inf", "nan", "-", "FAIL"]


def test_verbose_tells_every_check_of_every_verdict() -> None:
    text = lines(Report("net", "torch", (verdict(),)), verbose=True)
    assert sum(line.startswith("  ok   ") for line in text) == 6
    assert any(line.endswith("largest error over the value's range 5.1e-02 (told only)")
               for line in text)  # fmt: skip


def test_color_paints_the_verdict_and_nothing_else() -> None:
    report = Report("net", "torch", (FP32, verdict(lsb=9)))
    painted = render_report(report, color=True)
    assert painted.count("\x1b[32mPASS\x1b[0m") == 1
    assert painted.count("\x1b[31mFAIL\x1b[0m") == 1
    plain = painted
    for code in ("\x1b[32m", "\x1b[31m", "\x1b[0m"):
        plain = plain.replace(code, "")
    assert plain == render_report(report)


def test_a_report_without_verdicts_is_a_header() -> None:
    assert lines(Report("net", "torch", ()))[0] == "model: net   reference: torch"


def test_layers_are_in_graph_order_with_the_worst_marked() -> None:
    rows = (
        LayerRow("stem", "conv_stem", "Conv", 1e-3, 41.26, 0.0),
        LayerRow("gate", "blocks.0.se", "HardSigmoid", 0.2, 3.0, 17.25),
        LayerRow("sum", "", "Add", 5e-2, 11.0, None),
        LayerRow("odd", "head", "Reshape", math.nan, math.nan, None),
        LayerRow("exact", "head", "Relu", 0.0, math.inf, 0.0),
    )
    assert render_layers(rows).splitlines() == [
        "value  op           module       error/range  SNR dB  LSB",
        "stem   Conv         conv_stem    1.0e-03      41.3    0",
        "gate   HardSigmoid  blocks.0.se  2.0e-01      3.0     17.25  <- worst 2",
        "sum    Add          -            5.0e-02      11.0    -      <- worst 3",
        "odd    Reshape      head         nan          nan     -      <- worst 1",
        "exact  Relu         head         0            inf     0",
    ]
