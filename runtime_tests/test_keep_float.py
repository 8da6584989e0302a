"""One part of a network in floats inside of int8 files, on the runtimes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deploykit.cli import main

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "ghostnet.pt"


def test_layers_that_are_kept_are_floats_and_the_file_is_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    words = ["convert", str(EXAMPLE), "--to", "tflite,ncnn", "--int8", "--method", "minmax"]
    out = tmp_path / "bundle"
    kept = ["--keep-float", r"classifier|blocks\.8", "--samples", "4"]
    assert main([*words, *kept, "--out", str(out), "--quiet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {v["target"] for v in report["verdicts"]} == {"tflite", "ncnn"}

    interpreter = Interpreter(model_path=str(out / "ghostnet.int8.tflite"))
    details = interpreter.get_tensor_details()
    weights = [d for d in details if d["shape"].size in (2, 4) and np.prod(d["shape"]) >= 10_000]
    floats = [d for d in weights if d["dtype"] == np.float32]
    assert 1 <= len(floats) < len(weights)
    assert any(tuple(d["shape"]) == (10, 1280) for d in floats), [d["shape"] for d in floats]
    made = json.loads((out / "deploykit.json").read_text())["made"]["convert"]
    assert made["keep_float"] == [r"classifier|blocks\.8"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--int8", "--keep-float", "["], "as the name of layers"),
        (["--int8", "--keep-float", "no_such"], "fits no layer"),
        (["--int8", "--keep-float", ".*"], "fits every layer"),
        (["--fp32", "--keep-float", "classifier"], "no int8 file is asked for"),
    ],
)
def test_what_keeps_nothing_or_everything_is_refused(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(EXAMPLE), *flags, "--out", str(tmp_path / "b"), "--quiet"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
