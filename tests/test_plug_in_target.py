"""A target of a separate distribution is installed, listed and used; a misspelt one is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import onnx
import onnx.parser
import pytest

_MODULE = """
from deploykit.lowering import LoweringTable
from deploykit.model import Precision
from deploykit.target import Artifact
from deploykit.target_definition import TargetDefinition

TARGET = TargetDefinition(
    name="listing",
    precisions=(Precision.FP32,),
    writer="deploykit_listing:WRITER",
    lowering_table="deploykit_listing:lowering_table",
)
table = LoweringTable("listing")
table.register("Relu", "Erf")(lambda node: node.op_type)


def lowering_table():
    return table


def write_listing(model, request):
    table.check(model.graph.graph)
    data = "\\n".join(table.function_for(n)(n) for n in model.graph.graph).encode()
    return Artifact("listing", request.precision, ".txt", data, model.inputs, model.outputs)
"""


def install(folder: Path, writer: str) -> dict[str, str]:
    """A wheel of the target, installed by pip; the environment in which it is found."""
    info = "deploykit_listing-1.0.dist-info"
    files = {
        "deploykit_listing.py": _MODULE.replace("WRITER", writer),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: deploykit-listing\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": "[deploykit.targets]\nlisting = deploykit_listing:TARGET\n",
    }
    wheel = folder / "deploykit_listing-1.0-py3-none-any.whl"
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with ZipFile(wheel, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, text)
    site = folder / "site"
    options = ["--no-index", "--no-deps", "--target", str(site), str(wheel)]
    command = [sys.executable, "-m", "pip", "install", "-q", *options]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path[1:]])}


def deploykit(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploykit", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = """<ir_version: 9, opset_import: ["" : 20]>
    g (float[1, 4] x) => (float[1, 4] y) { a = Relu (x) y = Erf (a) }"""
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_a_target_of_a_separate_distribution_is_used(tmp_path: Path, model: Path) -> None:
    environment = install(tmp_path, "write_listing")
    listed = deploykit(environment, "targets", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "listing" in json.dumps(json.loads(listed.stdout))
    out = tmp_path / "out"
    done = deploykit(
        environment, "convert", str(model), "--to", "listing", "--no-verify", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    assert (out / "model.fp32.txt").read_text() == "Relu\nErf"


def test_a_misspelt_capability_is_an_error_that_names_it(tmp_path: Path, model: Path) -> None:
    environment = install(tmp_path, "write_listin")
    done = deploykit(environment, "convert", str(model), "--to", "listing", "--no-verify")
    assert done.returncode == 2
    assert "deploykit_listing:write_listin: the module has no write_listin" in done.stderr
    assert "Traceback" not in done.stderr
