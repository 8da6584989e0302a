"""`deploykit analyze` on a real network: what it says holds for the stage, and its advice helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit.cli import main

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "checkpoints" / "mobilenet_v1.pt"


def test_the_noise_is_attributed_and_layers_in_floats_reach_a_budget(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["analyze", str(EXAMPLE), "--method", "minmax", "--samples", "4", "--quiet"]
    assert main([*words, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["schema"] == "deploykit.noise/1"
    sources = plain["sources"]
    assert sum(s["share"] for s in sources) == pytest.approx(1.0)
    assert [s["share"] for s in sources] == sorted((s["share"] for s in sources), reverse=True)
    # Nothing alone is worse than all together, by more than signs that cancel.
    assert sources[0]["snr_db"] > plain["snr_db"] - 3
    assert {"weights", "value"} == {s["kind"] for s in sources}
    assert any(s["module"] for s in sources)

    budget = plain["snr_db"] + 3
    assert main([*words, "--budget", f"snr={budget}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = found["curve"][-1]
    assert last["snr_db"] >= budget > found["curve"][0]["snr_db"]
    assert last["layers"] == len(found["keep_float"]) > 0
    assert 0 < last["float_share"] < 1


def test_what_cannot_be_reached_is_said_with_the_curve(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", str(EXAMPLE), "--method", "minmax", "--samples", "1", "--quiet"]
    assert main([*words, "--budget", "snr=150"]) == 1
    found = capsys.readouterr().out
    assert "no number of layers in floats reaches 150 dB" in found
    assert all(len(line) <= 100 for line in found.splitlines())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--budget", "top1=3"], "expected: snr=DB"),
        (["--budget", "snr=x"], "expected: snr=DB"),
        (["--to", "all"], "4 targets to analyze for"),
        (["--observer", "mse"], "--observer for an analysis"),
        (["--method", "nosuch"], "no method is called"),
        (["--keep-float", "nosuch"], "fits no layer"),
    ],
)
def test_bad_input_is_refused(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(EXAMPLE), "--quiet", *flags]) == 2
    assert words in capsys.readouterr().err
