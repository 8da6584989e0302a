"""One artefact on several kinds of CPU, in words."""

from __future__ import annotations

from dataclasses import replace

from deploykit.report.machines import machine_lines
from deploykit.runners.base import RunnerInfo
from deploykit.verdict import Check, Question, Verdict


def verdict(path: str, runner: str, cpu: str, error: float) -> Verdict:
    check = Check(Question.CONVERSION, "conv", "layer_error_over_range", error, 2e-2, at_most=True)
    info = RunnerInfo(runner, "ncnn", "1", "CPU", cpu, 1)
    return Verdict("ncnn", "fp32", path, runner, info, (check,), 4)


def test_one_kind_of_cpu_has_no_lines() -> None:
    assert machine_lines([verdict("a", "ncnn", "x86_64", 1.0)]) == []
    assert machine_lines([]) == []


def test_what_parts_comes_first_and_the_worst_of_it() -> None:
    found = machine_lines(
        [
            verdict("a.param", "ncnn", "x86_64 avx2", 1e-6),
            verdict("a.param", "ncnn-arm64@a53", "aarch64 asimd", 1e-6),
            verdict("b.param", "ncnn", "x86_64 avx2", 1e-6),
            verdict("b.param", "ncnn-arm64@a53", "aarch64 asimd", 0.05),
            verdict("b.param", "ncnn-arm64@a76", "aarch64 asimd fphp", 0.4),
            replace(verdict("c.param", "ncnn-arm64@a76", "aarch64", 0), error="crashed\n| words"),
        ]
    )
    assert found == [
        "c.param parts on ncnn-arm64@a76: crashed",
        "b.param parts on ncnn-arm64@a76: 'conv' layer_error_over_range 4.0e-01 (limit 0.02)",
        "b.param parts on ncnn-arm64@a53: 'conv' layer_error_over_range 5.0e-02 (limit 0.02)",
        "a.param agrees on all: 2 runners, 2 kinds of CPU",
    ]
