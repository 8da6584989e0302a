from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploykit.bundle import (
    LABELS,
    Bundle,
    BundleArtifact,
    BundleFile,
    check_replaceable,
    labels_text,
    read_bundle,
    write_bundle,
)
from deploykit.errors import BundleError
from deploykit.golden import Golden
from deploykit.manifest import describe_file
from deploykit.model import Precision
from deploykit.preprocess import Preprocess
from deploykit.runners.base import RunnerInfo
from deploykit.target import Artifact
from deploykit.tensors import QuantParams, TensorSpec
from deploykit.verdict import Check, Question, Verdict

DATA = b"artefact"
PARAMS = QuantParams((0.5,), (-3,))
GOLDEN = Golden(
    {"input": np.ones((2, 3, 4, 4), np.float32)},
    {"output": np.zeros((2, 5), np.float32)},
    {"fused": {"output": np.full((2, 5), 0.5, np.float32)}},
    {"net.int8.fake": {"runner": {"output": np.full((2, 5), 1.5, np.float32)}}},
)


def bundle() -> Bundle:
    info = RunnerInfo("runner", "Fake", "1.0", "none", "x86_64", 1, {"partitions": 1})
    check = Check(Question.CONVERSION, "output", "max_error_lsb", 1.0, 2.0, True)
    verdict = Verdict("fake", "int8", "net.int8.fake", "runner", info, (check,), 2)
    artifact = BundleArtifact(
        target="fake",
        precision="int8",
        path="net.int8.fake",
        files=(BundleFile("net.int8.fake", hashlib.sha256(DATA).hexdigest(), len(DATA)),),
        stage="fused",
        inputs=(TensorSpec("input", (1, 4, 4, 3), "int8", "NHWC", PARAMS),),
        outputs=(TensorSpec("output", (1, 5), "int8", "plain", PARAMS),),
        output_steps={"output": PARAMS},
        summary={"ops": 3},
        verdicts=(verdict,),
    )
    return Bundle(
        name="net",
        source={"kind": "onnx", "file": "net.onnx", "sha256": "00", "arch": ""},
        libraries={"numpy": "2.0"},
        inputs=(TensorSpec("input", (1, 3, 4, 4), layout="NCHW"),),
        outputs=(TensorSpec("output", (1, 5)),),
        preprocess=Preprocess(size=(4, 4)),
        labels=("a", "b", "c", "d", "é"),
        reference="torch 2.0",
        artifacts=(artifact,),
        calibration={"samples": 2, "warnings": []},
        has_golden=True,
    )


def write(folder: Path, made: Bundle | None = None) -> None:
    write_bundle(folder, made or bundle(), {"net.int8.fake": DATA}, GOLDEN, "{}\n")


def test_bundle_survives_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "b")
    assert read_bundle(tmp_path / "b") == bundle()


def test_golden_vectors_survive(tmp_path: Path) -> None:
    write(tmp_path / "b")
    back = Golden.from_npz(tmp_path / "b" / "golden.npz")
    assert back.runs["net.int8.fake"]["runner"]["output"][0, 0] == 1.5
    for kind in ("inputs", "reference"):
        for name, array in getattr(GOLDEN, kind).items():
            assert np.array_equal(getattr(back, kind)[name], array)
    assert np.array_equal(back.stages["fused"]["output"], GOLDEN.stages["fused"]["output"])


def test_two_writings_are_byte_identical(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_bundle_is_replaced_only_where_its_manifest_lists_all(tmp_path: Path) -> None:
    write(tmp_path / "b")
    write(tmp_path / "b")
    (tmp_path / "b" / "left over").write_text("x")
    with pytest.raises(BundleError, match="other files in it \\(left over\\)"):
        write(tmp_path / "b")
    assert (tmp_path / "b" / "left over").read_text() == "x"
    assert read_bundle(tmp_path / "b") == bundle()


@pytest.mark.parametrize("kind", ["file", "other folder"])
def test_what_is_no_bundle_is_not_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "b"
    if kind == "file":
        place.write_text("x")
    else:
        place.mkdir()
        (place / "thesis.tex").write_text("x")
    with pytest.raises(BundleError):
        check_replaceable(place)
    with pytest.raises(BundleError):
        write(place)


def test_an_artefact_outside_of_the_bundle_is_refused(tmp_path: Path) -> None:
    made = bundle()
    (artifact,) = made.artifacts
    (file,) = artifact.files
    for number, outside in enumerate(("../net.int8.fake", "/etc/hostname", "a/../../b")):
        for what, changed in (
            ("path", replace(artifact, path=outside)),
            ("file", replace(artifact, files=(replace(file, path=outside),))),
        ):
            folder = tmp_path / f"{what}{number}"
            write(folder, replace(made, artifacts=(changed,)))
            with pytest.raises(BundleError, match="inside of the bundle"):
                read_bundle(folder)


def test_an_artefact_of_several_files(tmp_path: Path) -> None:
    made = bundle()
    (artifact,) = made.artifacts
    artefact = Artifact(
        "fake", Precision.INT8, ".package", b"", (), (),
        companions={".package/Data/w.bin": b"weights", ".package/m.json": b"{}"},
    )  # fmt: skip
    files = artefact.files("net.int8")
    assert list(files) == ["net.int8.package/Data/w.bin", "net.int8.package/m.json"]
    listed = tuple(BundleFile(p, hashlib.sha256(d).hexdigest(), len(d)) for p, d in files.items())
    package = replace(artifact, path="net.int8.package", files=listed)
    assert package.bytes == 9
    folder = tmp_path / "b"
    write_bundle(folder, replace(made, artifacts=(package,)), files, GOLDEN, None)
    assert read_bundle(folder).artifacts == (package,)
    (folder / "net.int8.package" / "Data" / "w.bin").write_bytes(b"weightS")
    with pytest.raises(BundleError, match="SHA-256"):
        read_bundle(folder)


def test_missing_and_changed_artefacts_are_told(tmp_path: Path) -> None:
    write(tmp_path / "b")
    file = tmp_path / "b" / "net.int8.fake"
    file.write_bytes(b"artefacT")
    with pytest.raises(BundleError, match="SHA-256"):
        read_bundle(tmp_path / "b")
    file.unlink()
    with pytest.raises(BundleError, match="missing"):
        read_bundle(tmp_path / "b")


def test_damaged_golden_vectors_are_told(tmp_path: Path) -> None:
    write(tmp_path / "b")
    path = tmp_path / "b" / "golden.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match="golden vectors"):
        Golden.from_npz(path)


def test_labels_and_stages_belong_to_the_bundle(tmp_path: Path) -> None:
    labels = labels_text(["cat", "a\nb\u2028c", "é"]).encode()
    assert labels.decode().split("\n") == ["cat", "a b c", "é", ""]
    made = replace(
        bundle(),
        companions=(describe_file(LABELS, labels),),
        stages={"fused": describe_file("stages/fused.onnx", b"stage")},
    )
    files = {"net.int8.fake": DATA, LABELS: labels, "stages/fused.onnx": b"stage"}
    for _ in range(2):  # the second replaces the first: all in it is listed
        write_bundle(tmp_path / "b", made, files, GOLDEN, None)
    assert read_bundle(tmp_path / "b") == made
    (tmp_path / "b" / LABELS).write_text("dog\n")
    with pytest.raises(BundleError, match="SHA-256"):
        read_bundle(tmp_path / "b")


def test_a_manifest_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    write(tmp_path / "b")
    path = tmp_path / "b" / "deploykit.json"
    document = json.loads(path.read_text())
    del document["files"], document["artifacts"][0]["output_kinds"]
    path.write_text(json.dumps(document))
    assert read_bundle(tmp_path / "b") == bundle()
    document["artifacts"][0]["output_kinds"] = {"output": "guesses"}
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="damaged"):
        read_bundle(tmp_path / "b")
