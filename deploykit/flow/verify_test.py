from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.bundle import GOLDEN, MANIFEST, write_bundle
from deploykit.bundle_test import DATA
from deploykit.bundle_test import GOLDEN as VECTORS
from deploykit.bundle_test import bundle as fake_bundle
from deploykit.errors import BundleError, DeploykitError, UserError
from deploykit.flow import verify as verification
from deploykit.flow.verify import verify
from deploykit.golden import Golden
from deploykit.parity.compare import ArtifactRun
from deploykit.verdict import SkippedTarget


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with one artefact of tflite, on which nothing is run."""
    made = fake_bundle()
    (artifact,) = made.artifacts
    made = replace(
        made,
        artifacts=(replace(artifact, target="tflite"),),
        skipped=(SkippedTarget("ncnn", "int8", "why not", (), refused=True),),
    )
    write_bundle(tmp_path / "b", made, {"net.int8.fake": DATA}, VECTORS, None)

    def run(path: Path, *, runner: str, **_: object) -> ArtifactRun:
        return ArtifactRun(runner, None, {}, 2, f"{runner} was not run")

    monkeypatch.setattr(verification, "run_artifact", run)
    return tmp_path / "b"


def _places(document: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place of a JSON document; of a list the first element."""
    if place:
        yield place
    if isinstance(document, dict):
        for name, value in document.items():
            yield from _places(value, (*place, name))
    elif isinstance(document, list) and document:
        yield from _places(document[0], (*place, 0))


def test_a_manifest_with_anything_missing_or_of_another_type_is_an_error_or_is_read(
    folder: Path,
) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    refused = 0
    for place in list(_places(document)):
        for value in (None, "x", -7, [], {}, ["x"], ...):
            damaged = copy.deepcopy(document)
            inner = damaged
            for step in place[:-1]:
                inner = inner[step]
            if value is ...:
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            (folder / MANIFEST).write_text(json.dumps(damaged))
            try:
                verify(folder)
            except DeploykitError:  # any other exception is a traceback
                refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("deploykit.bundle/3", "update deploykit"),
        ("deploykit.bundle/99", "update deploykit"),
        ("deploykit.bundle/0", "convert the model again"),
        ("another.bundle/2", "convert the model again"),
        (7, "convert the model again"),
    ],
)
def test_another_schema_is_refused_with_what_to_do(
    folder: Path, schema: object, words: str
) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**document, "schema": schema}))
    with pytest.raises(BundleError, match="has schema") as caught:
        verify(folder)
    assert words in caught.value.advice


@pytest.mark.parametrize("end", [0, 1, 40, 900, -2])
def test_a_manifest_that_is_cut_short_is_damaged(folder: Path, end: int) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[:end])
    with pytest.raises(BundleError, match=r"deploykit\.json is damaged"):
        verify(folder)


def test_files_that_the_manifest_does_not_name_do_not_matter(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / "net.int8.fake.bak").write_bytes(b"")
    assert [v.path for v in verify(folder, runners=("litert",)).verdicts] == ["net.int8.fake"]


def test_a_missing_or_changed_file_is_named(folder: Path) -> None:
    file = folder / "net.int8.fake"
    file.write_bytes(b"artefacT")
    with pytest.raises(BundleError, match=r"net\.int8\.fake has SHA-256"):
        verify(folder)
    file.unlink()
    with pytest.raises(BundleError, match=r"net\.int8\.fake is missing"):
        verify(folder)
    (folder / GOLDEN).unlink()
    file.write_bytes(DATA)
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read"):
        verify(folder)


@pytest.mark.parametrize(
    ("vectors", "lacking"),
    [
        (replace(VECTORS, inputs={}), "input/input"),
        (replace(VECTORS, reference={}), "reference/output"),
        (replace(VECTORS, stages={}), "stage/fused/output"),
        (replace(VECTORS, stages={"fused": {"other": np.zeros((2, 5), np.float32)}}), "stage/fus"),
    ],
)
def test_golden_vectors_that_do_not_serve_are_refused(
    folder: Path, vectors: Golden, lacking: str
) -> None:
    (folder / GOLDEN).write_bytes(vectors.to_npz())
    with pytest.raises(BundleError, match=f"lacks {lacking}"):
        verify(folder)


def test_a_limit_that_would_verify_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="the files are int8"):
        verify(folder, limits=("fp32.snr_db=3",))
    with pytest.raises(UserError, match="a fp32 file has no max_error_lsb"):
        verify(folder, limits=("fp32.max_error_lsb=0",))


def test_what_was_left_out_is_told_and_is_no_failure_of_what_is_there(folder: Path) -> None:
    report = verify(folder, runners=("litert",))
    assert report.skipped == (SkippedTarget("ncnn", "int8", "why not", (), refused=True),)
    assert [v.error for v in report.verdicts] == ["litert was not run"]
