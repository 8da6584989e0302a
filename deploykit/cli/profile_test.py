"""``deploykit profile`` and ``deploykit lint`` as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

from deploykit.cli import main

_TEXT = """<ir_version: 9, opset_import: ["" : 17]>
g (float[{batch}, 3, {side}, {side}] x) => (float[{batch}, 8, a, b] y)
<float[8, 3, 3, 3] W> {{
    c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, W)
    {op}
}}"""


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a small model: a convolution, then an op from c to y."""

    def save_model(op: str = "y = Relu (c)", side: int | str = 8, batch: int | str = 1) -> Path:
        import numpy as np

        proto = onnx.parser.parse_model(_TEXT.format(op=op, side=side, batch=batch))
        weight = np.random.default_rng(0).normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
        del proto.graph.initializer[:]
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "W"))
        path = tmp_path / "net.onnx"
        onnx.save(proto, path)
        return path

    return save_model


def test_profile_prints_totals_and_layers(
    save: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(save())]) == 0
    text = capsys.readouterr().out
    assert "model: net   bytes as fp32" in text
    assert "conv 3x3 /2 + Relu" in text
    assert "measured" not in text


def test_profile_json_and_html(
    save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["profile", str(save()), "--json", "--precision", "int8", "--html", str(page)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["precision"] == "int8"
    total = data["stages"][1]["total"]
    assert total["mult_adds"] == 8 * 16 * 27
    assert total["mac_bytes"] == 3 * 64 + 8 * 27 + 8 * 16
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_profile_measures(save: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    assert main(["profile", str(save()), "--measure", "--rounds", "2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["measurement"]["whole_us"] > 0
    assert data["stages"][1]["layers"][0]["measured_us"] > 0


def test_profile_measures_the_int8_form(
    save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert")
    import numpy as np

    data = np.random.default_rng(0).normal(0, 1, (16, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "data.npy", data)
    flags = ["--measure", "--int8", "--rounds", "2", "--json", "--allow-suspicious-calibration"]
    model = str(save("y = HardSwish (c)"))
    assert main(["profile", model, *flags, "--calibrate", str(tmp_path / "data.npy")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["precision"] == "int8"
    layers = found["stages"][1]["layers"]
    assert [layer["op_type"] for layer in layers] == ["Conv", "Mul", "Add + Clip", "Mul"]
    assert all(layer["measured_us"] > 0 for layer in layers)


def test_int8_without_data_says_what_to_give(
    save: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(save()), "--int8"]) == 2
    assert "--calibrate" in capsys.readouterr().err


def test_profile_says_what_it_could_not_count(
    save: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(save("y = Sin (c)")), "--layers", "none"]) == 0
    assert "after fusion: 1 op uncounted: 1 Sin" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["profile", "lint"])
def test_bad_input(
    command: str,
    save: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([command, str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx" in capsys.readouterr().err
    assert main([command, str(save(side="h"))]) == 2
    assert "--input" in capsys.readouterr().err
    assert main([command, str(save(side="h")), "--input", "1x3x8x8"]) == 0


def test_profile_on_an_unknown_target(
    save: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(save()), "--measure", "--on", "nothing"]) == 2
    assert "no target is called 'nothing'" in capsys.readouterr().err


def test_lint_exit_codes(save: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    path = str(save("y = HardSwish (c)"))
    assert main(["lint", path]) == 0  # warnings alone
    assert main(["lint", path, "--fail-on", "warning"]) == 1
    text = capsys.readouterr().out
    assert "quantizes-badly" in text
    assert "what to do: ReLU6" in text
    assert main(["lint", path, "--fail-on", "never"]) == 0
    assert main(["lint", path, "--fail-on", "warning", "--precision", "fp32",
                 "--ignore", "elementwise-share"]) == 0  # fmt: skip


def test_lint_json(save: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(save("y = HardSwish (c)")), "--json", "--to", ""]) == 0
    data = json.loads(capsys.readouterr().out)
    found = [f for f in data["findings"] if f["rule"] == "quantizes-badly"]
    assert [f["severity"] for f in found] == ["warning"]
    assert data["counts"]["warning"] >= 1
    assert data["target"] == ""


def test_lint_with_an_unknown_rule(
    save: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", str(save()), "--ignore", "nonsense"]) == 2
    assert "no rule is called nonsense" in capsys.readouterr().err


def test_a_target_that_is_not_known_is_refused_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["profile", "no_such_model.pt", "--on", "nosuch"]) == 2
    assert "nosuch" in capsys.readouterr().err
