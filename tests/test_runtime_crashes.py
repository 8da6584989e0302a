"""A runtime that dies or hangs is a verdict, and the others are still asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from deploykit.bundle import read_bundle
from deploykit.cli import main
from deploykit.runners import process
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.registry import available_runners, find_runner
from deploykit.target import available_targets, find_target
from deploykit.verdict import RunnerExit, Verdict
from deploykit_testing.fake_runners import mortal

#: Every runner of this machine that verifies by itself: (target, runner).
JUDGES = [
    (name, runner.name)
    for name in available_targets()
    for runner in available_runners(find_target(name).runners)
    if not runner.suffix
]
#: A runner that is asked beside the one that dies.
BESIDE = {name: "onnxruntime-plain" if name != "onnx" else "litert" for name in available_targets()}
LAST_WORDS = "kernel 7: the cache is gone"


@pytest.fixture
def let_die(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a runner die: (its name, when, how)."""

    def let(name: str, when: str, how: str) -> None:
        def find(wanted: str) -> RunnerDefinition:
            found = find_runner(wanted)
            return mortal(found, when, how) if wanted == name else found

        monkeypatch.setattr(process, "find_runner", find)

    return let


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, build_network: Callable[..., onnx.ModelProto]
) -> Path:
    """The tiny network as every target's fp32, verified."""
    folder = tmp_path_factory.mktemp("crashes")
    onnx.save(build_network(), folder / "tiny.onnx")
    words = ["convert", folder / "tiny.onnx", "--to", "all", "--fp32", "--out", folder / "b"]
    assert main([*map(str, words), "--quiet", "--samples", "2"]) == 0
    return folder / "b"


def check_crash(verdict: Verdict, runner: str, words: str) -> None:
    assert verdict.runner_name == runner
    assert verdict.runner_exit is RunnerExit.CRASHED
    assert not verdict.passed
    assert words in verdict.error
    assert LAST_WORDS in verdict.error


def test_each_target_has_a_verify_here() -> None:
    assert {target for target, _ in JUDGES} == set(available_targets())


@pytest.mark.parametrize(("target", "runner"), JUDGES, ids=lambda name: name)
@pytest.mark.parametrize(
    ("when", "how", "words"),
    [("open", "segfault", "SIGSEGV"), ("run", "SIGKILL", "SIGKILL (out of memory?)")],
)
def test_verify_tells_a_crash_and_asks_the_others(
    bundle: Path,
    let_die: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    target: str,
    runner: str,
    when: str,
    how: str,
    words: str,
) -> None:
    let_die(runner, when, how)
    arguments = ["verify", str(bundle), "--runner", runner, "--runner", BESIDE[target]]
    assert main(arguments) == 1
    text = capsys.readouterr().out
    (row,) = (line for line in text.splitlines() if line.endswith("  CRASHED"))
    assert row.split()[:3] == [target, "fp32", runner]
    assert f"runner '{runner}' crashed with {words}" in text
    assert f"| {LAST_WORDS}" in text
    assert any(line.split()[2:3] == [BESIDE[target]] and line.endswith("  PASS")
               for line in text.splitlines())  # fmt: skip
    assert "stages against" not in text


@pytest.mark.parametrize("target", sorted(available_targets()))
@pytest.mark.parametrize("when", ["run", "run_all"])
def test_convert_tells_a_crash_asks_the_others_and_writes(
    tiny_onnx: Path,
    images: Path,
    tmp_path: Path,
    let_die: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    target: str,
    when: str,
) -> None:
    runner = next(name for owner, name in JUDGES if owner == target)
    other = next(name for name in available_targets() if name != target)
    beside = next(name for owner, name in JUDGES if owner == other)
    let_die(runner, when, "SIGABRT")
    out = tmp_path / "b"
    words = ["convert", tiny_onnx, "--to", f"{target},{other}", "--int8", "--calibrate", images]
    words += ["--runner", runner, "--runner", beside, "--samples", "2", "--out", out, "--json"]
    assert main([*map(str, words), "--quiet"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert {v["runner_name"]: v["outcome"] for v in report["verdicts"]} == {
        runner: "crashed",
        beside: "pass",
    }
    verdicts: dict[str, Any] = {}
    for artifact in read_bundle(out).artifacts:
        (verdicts[artifact.target],) = artifact.verdicts
    check_crash(verdicts[target], runner, "crashed with SIGABRT")
    assert verdicts[other].passed


def test_a_crash_while_values_are_compared_is_a_verdict_too(
    tiny_onnx: Path, tmp_path: Path, let_die: Callable[..., None]
) -> None:
    let_die("litert-reference", "run_all", "exit")
    words = ["convert", tiny_onnx, "--fp32", "--layers", "--out", tmp_path / "b", "--quiet"]
    assert main([*map(str, words)]) == 1
    (artifact,) = read_bundle(tmp_path / "b").artifacts
    verdicts = {v.runner_name: v for v in artifact.verdicts}
    assert verdicts["litert"].passed
    check_crash(verdicts["litert-reference"], "litert-reference", "ended with exit code 7")


def test_a_hang_is_a_verdict_of_its_own(
    bundle: Path, let_die: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    let_die("litert-reference", "run", "hang")
    arguments = ["verify", str(bundle), "--runner", "litert", "--runner", "litert-reference"]
    assert main([*arguments, "--timeout", "8"]) == 1
    text = capsys.readouterr().out
    (row,) = (line for line in text.splitlines() if line.endswith("  TIMED OUT"))
    assert row.split()[2] == "litert-reference"
    assert "took longer than 8 s while running" in text
    assert LAST_WORDS in text
    assert "--timeout" in text


def test_a_bundle_of_a_crash_can_be_verified_where_the_runtime_lives(
    bundle: Path, tmp_path: Path, tiny_onnx: Path, let_die: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    let_die("litert", "run", "segfault")
    out = tmp_path / "b"
    words = ["convert", tiny_onnx, "--fp32", "--out", out, "--quiet", "--samples", "2"]
    assert main([*map(str, words)]) == 1
    monkeypatch.undo()
    moved = tmp_path / "moved"
    shutil.move(out, moved)
    assert main(["verify", str(moved)]) == 0
