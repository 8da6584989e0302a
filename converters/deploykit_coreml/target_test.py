"""The target object: how it is found, what it costs, what it says of a package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.errors import ContractError, MissingDependencyError, SourceError
from deploykit.model import Precision
from deploykit.target import (
    ArtifactRequest,
    Target,
    find_target,
)
from deploykit_coreml import TARGET, load_coremltools
from deploykit_testing.coreml import normal, stage_of, write

BODY = (
    "c = Conv<kernel_shape=[1,1]>(x, W) r = Relu(c)"
    " y, z = deploykit.ConcatShuffleSplit<groups=2>(x, r)"
)


def test_it_is_found_by_its_entry_point() -> None:
    target = find_target("coreml")
    assert target is TARGET
    assert isinstance(target, Target)
    assert [p.value for p in target.precisions] == ["fp32", "fp16", "w8", "int8"]
    assert [r.name for r in target.runners] == ["coreml", "coreml-reference"]


def test_its_options_are_declared() -> None:
    names = ["ios", "io", "input", "classifier", "compute", "palettize", "palette_channels"]
    names += ["author", "license", "version", "description", "metadata.KEY"]
    assert [o.name for o in TARGET.options] == names


def test_a_request_is_checked_before_anything_is_done() -> None:
    TARGET.check_request(ArtifactRequest(Precision.INT8, {"ios": "17"}))
    with pytest.raises(ContractError, match="precision int8 with ios 16") as caught:
        TARGET.check_request(ArtifactRequest(Precision.INT8, {"ios": "16"}))
    assert "ios 17 or later" in caught.value.expected


def test_half_precision_is_the_default() -> None:
    assert TARGET.default_precision is Precision.FP16


def run_python(code: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, deploykit_coreml; from deploykit.runners.registry import available_runners; "
        "available_runners(deploykit_coreml.TARGET.runners); "
        "print(sorted({'coremltools', 'onnx_ir', 'onnx', 'onnxruntime', 'torch'}"
        " & set(sys.modules)))"
    )
    assert run_python(code)[0] == "[]"


def test_coremltools_is_imported_without_torch_and_without_a_word() -> None:
    code = (
        "import sys; from deploykit.own_process import claim_process; claim_process(); "
        "from deploykit_coreml.load_coremltools import load_builder; load_builder(); "
        "print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    assert run_python(code) == ("False False", "")


def test_torch_is_there_again_afterwards() -> None:
    code = (
        "import torch; from deploykit.own_process import claim_process; claim_process(); "
        "from deploykit_coreml.load_coremltools import load_builder; load_builder(); "
        "import sys; print(sys.modules['torch'] is torch)"
    )
    assert run_python(code)[0] == "True"


def test_writing_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model = stage_of(BODY, "float[1,4,6,6] x", "y, z", {"W": normal(4, 4, 1, 1)})
    TARGET.write(model, ArtifactRequest(Precision.FP16))
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_coremltools, "PACKAGE", "coremltools_that_is_not_there")
    with pytest.raises(MissingDependencyError, match=r"pip install 'deploykit\[coreml\]'"):
        load_coremltools.load_coremltools()


def test_summary() -> None:
    model = stage_of(BODY, "float[1,4,6,6] x", "y, z", {"W": normal(4, 4, 1, 1)})
    artifact = TARGET.write(model, ArtifactRequest(Precision.FP16, {"ios": "16"}))
    assert artifact.suffix == ".mlpackage"
    assert artifact.summary["opset"] == "CoreML6"
    assert artifact.summary["op_counts"] == {
        "cast": 3,
        "concat": 1,
        "conv": 1,
        "relu": 1,
        "split": 1,
    }


def test_inspect(tmp_path: Path) -> None:
    model = stage_of(BODY, "float[1,4,6,6] x", "y, z", {"W": normal(4, 4, 1, 1)})
    folder = write(tmp_path, model, Precision.FP16).folder
    assert TARGET.recognizes(folder)
    assert not TARGET.recognizes(tmp_path)
    assert not TARGET.recognizes(Path(__file__))
    text = TARGET.inspect(folder)
    for words in (
        "tiny.fp16.mlpackage: Core ML program, CoreML5 (iOS 15 and later)",
        "input  x: float32 1 x 4 x 6 x 6",
        "output y: float32 1 x 4 x 6 x 6",
        "channel shuffles as interleaved concat: 1",
        "deploykit.precision: fp16",
    ):
        assert words in text
    with pytest.raises(SourceError):
        TARGET.inspect(tmp_path)


def test_metadata_of_the_user_is_written_and_shown(tmp_path: Path) -> None:
    model = stage_of(BODY, "float[1,4,6,6] x", "y, z", {"W": normal(4, 4, 1, 1)})
    options = {"author": "Ada", "license": "MIT", "version": "1.2", "description": "tiny one"}
    written = write(tmp_path, model, Precision.FP16, **options, **{"metadata.team": "vision"})
    about = written.package.metadata
    assert (about["author"], about["license"], about["versionString"]) == ("Ada", "MIT", "1.2")
    assert (about["shortDescription"], about["team"]) == ("tiny one", "vision")
    assert about["deploykit.precision"] == "fp16"
    text = TARGET.inspect(written.folder)
    for words in ("author: Ada", "license: MIT", "versionString: 1.2", "team: vision"):
        assert words in text
