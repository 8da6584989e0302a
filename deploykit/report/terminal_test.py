from __future__ import annotations

import math
from dataclasses import replace

from deploykit.errors import UnsupportedOp, UnsupportedOpsError
from deploykit.report.terminal import render_layers, render_report
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


def lines(report: Report, *, width: int | None = None, verbose: bool = False) -> list[str]:
    return render_report(report, width=width, verbose=verbose).splitlines()


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
        "limits of fp32: error to the reference <= 0.0001",
        "limits of int8: SNR >= 5 dB, cosine >= 0.8",
        "",
        "runner litert: LiteRT 2.3.0, XNNPACK, 1 thread",
        "  tflite fp32: partitions 1",
        "  tflite int8: partitions 1",
        "runner litert-reference: LiteRT 2.3.0, reference, 2 threads",
        "cpu x86_64 avx2 fma",
    ]


def test_a_warning_is_its_own_word_with_figure_limits_and_interval() -> None:
    share = Check(QUANTIZATION, "logits", "clear_top1_agreement", 0.9, 0.8, False, 0.95, 60)
    snr = Check(QUANTIZATION, "logits", "snr_db", 12.0, 5.0, False, 10.0)
    conversion = Check(CONVERSION, "logits", "max_error_lsb", 1.0, 2.0, True)
    warned = replace(verdict(), checks=(conversion, snr, share))
    assert (warned.outcome, warned.passed) == ("warn", True)
    report = Report("ghostnet", "torch", (FP32, warned))
    assert (report.passed, report.warned, report.exit_code) == (True, True, 0)
    assert report.exit_code_with(fail_on_warning=True) == 1
    text = lines(report)
    assert text[4].endswith("WARN")
    assert (
        "limits of int8: SNR >= 5 dB (warns unless >= 10 dB), top-1 of clear samples >= 80.0 % "
        "(warns unless >= 95.0 %)"
    ) in text
    (told,) = [line for line in text if line.startswith("  WARN")]
    assert "90.0 % of 60 samples (95 % interval 79.9 to 95.3 %)" in told
    assert "--limit int8.warn_clear_top1_agreement" in told
    assert "what to do about quantization noise" in "\n".join(text)
    colored = render_report(report, color=True)
    assert "\x1b[33mWARN" in colored


def test_failures_are_spelled_out_with_what_to_do() -> None:
    report = Report("ghostnet", "torch", (FP32, verdict(lsb=5.5, snr=-0.04)), ("3 samples only",))
    text = lines(report)
    assert text[4].endswith("5.5 LSB (<= 2)      0.0     0.99126  93.8 %  FAIL")
    assert text[12:] == [
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
            "diverges names the layer; if another runner passes, it is this runtime's kernels"
        ),
        (
            "  what to do about quantization noise: deploykit analyze MODEL, with the same "
            "--calibrate, says which layers lose how much, and what to keep in floats "
            "(--keep-float); calibrate with more data that is like what the model will see; or "
            "keep a higher precision"
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


OPS = (UnsupportedOp("Atanh", "node_3", "head.act", "ncnn has no layer of it"),)
REFUSED = SkippedTarget("ncnn", "int8", str(UnsupportedOpsError("ncnn", OPS)), OPS, refused=True)
NOT_WRITTEN = SkippedTarget("ncnn", "w8", "ncnn writes fp32, fp16, int8")


def test_a_crash_and_a_time_out_are_verdicts_of_their_own() -> None:
    error = "runner 'litert' crashed with SIGSEGV\n    | kernel 7"
    for ended, word in ((RunnerExit.CRASHED, "CRASHED"), (RunnerExit.TIMED_OUT, "TIMED OUT")):
        died = replace(verdict(runner=None, error=error), runner_exit=ended)
        text = lines(Report("net", "torch", (FP32, died)))
        assert text[4].endswith(f"-      {word}")
        assert f"{word} tflite int8 on litert (ghostnet.int8.tflite)" in text
        assert "      | kernel 7" in text


def test_what_a_target_refuses_has_a_row_and_all_that_is_left_out_its_reason() -> None:
    also = replace(REFUSED, precision="fp32")
    text = lines(Report("net", "torch", (FP32,), skipped=(REFUSED, also, NOT_WRITTEN)))
    rows = [line.split() for line in text if line.endswith("REFUSED")]
    assert rows == [["ncnn", p, *["-"] * 7, "REFUSED"] for p in ("int8", "fp32")]
    assert text[-3:] == [
        "left out: ncnn int8, fp32: 1 node cannot be lowered to ncnn:",
        "  Atanh (node 'node_3' in module 'head.act'): ncnn has no layer of it",
        "left out: ncnn w8: ncnn writes fp32, fp16, int8",
    ]


def test_a_report_of_refusals_alone_is_a_table_too() -> None:
    report = Report("net", "torch", (), skipped=(REFUSED,))
    for width in (None, 80, 40):
        text = lines(report, width=width)
        assert text[3].split()[:2] == ["ncnn", "int8"] or text[3] == "ncnn int8: REFUSED"
        assert text[3].endswith("REFUSED")


LAYERS = Check(CONVERSION, "stem", "layer_error_lsb", 1.0, 2.0, True)
OUTPUT = Check(CONVERSION, "logits", "output_error_lsb", 9.0, None, True)


def full_report() -> Report:
    """Four runners with long names, two precisions, and all that can stand below the table."""
    long = replace(XNNPACK, name="onnxruntime-optimized", kernels="CPUExecutionProvider")
    int8 = verdict()
    deep = replace(int8, checks=(LAYERS, OUTPUT, *int8.checks[2:]))
    verdicts = (
        replace(FP32, runner_name="onnxruntime-optimized", runner=long, bytes=5423441),
        replace(FP32, runner_name="litert-reference", runner=REFERENCE, bytes=5423441),
        replace(deep, runner_name="onnxruntime-optimized", runner=long),
        verdict(lsb=5.5),
        replace(verdict(runner=None, error="it died " * 20), runner_exit=RunnerExit.TIMED_OUT),
    )
    return Report("net", "torch", verdicts, ("a warning " * 20,), skipped=(REFUSED, NOT_WRITTEN))


def test_on_120_columns_versions_and_kernels_stand_below_the_table_only() -> None:
    text = lines(full_report(), width=120)
    assert max(map(len, text)) <= 120
    assert text[2].split() == [
        *("target", "precision", "runner", "size", "conversion", "error", "SNR", "dB"),
        *("cosine", "top-1", "verdict"),
    ]
    assert text[5].split()[:8] == [
        *("tflite", "int8", "onnxruntime-optimized", "1,613,120", "layers", "1", "LSB", "(<="),
    ]
    assert not any("output 9" in line for line in text)
    assert any(line.startswith("runner onnxruntime-optimized: LiteRT 2.3.0, CPU") for line in text)


def test_on_80_columns_each_artefact_is_a_heading_with_its_runners_below() -> None:
    text = lines(full_report(), width=80)
    assert max(map(len, text)) <= 80
    assert text[2:11] == [
        "  runner                 conversion error     SNR dB  top-1   verdict",
        "tflite fp32, 5,423,441 bytes",
        "  onnxruntime-optimized  3.1e-07 (<= 2e-05)   inf     -       PASS",
        "  litert-reference       3.1e-07 (<= 2e-05)   inf     -       PASS",
        "tflite int8, 1,613,120 bytes",
        "  onnxruntime-optimized  layers 1 LSB (<= 2)  18.3    93.8 %  PASS",
        "  litert                 5.5 LSB (<= 2)       18.3    93.8 %  FAIL",
        "  litert                 -                    -       -       TIMED OUT",
        "ncnn int8: REFUSED",
    ]


def test_a_wide_terminal_has_every_column_and_no_terminal_has_no_limit() -> None:
    report = full_report()
    assert lines(report, width=1000) == lines(report)
    assert any("layers 1 LSB (<= 2), output 9" in line for line in lines(report))


def test_color_does_not_change_the_form_nor_the_text() -> None:
    for width in (None, 120, 80):
        painted = render_report(full_report(), color=True, width=width)
        plain = painted
        for code in ("\x1b[32m", "\x1b[31m", "\x1b[0m"):
            plain = plain.replace(code, "")
        assert plain == render_report(full_report(), width=width)
        assert painted.count("\x1b[32mPASS\x1b[0m") == 3
        assert painted.count("\x1b[31m") == 3
