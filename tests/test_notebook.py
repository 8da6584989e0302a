"""The notebook in examples/: its cells are run in order, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_the_notebook_runs_and_results_are_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "timm", "ai_edge_litert"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(EXAMPLES)
    document = json.loads((EXAMPLES / "deploykit.ipynb").read_text())
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert (names["folder"] / "ghostnet.int8.tflite").is_file()
    for shown in (names["result"], names["accuracy"]):
        assert "<table>" in shown._repr_html_()
        assert len(repr(shown)) < 1_000
    assert names["accuracy"].rows[0].top1 > 0.5
