"""The manifest of a bundle, ``deploykit.json``: frozen data, its JSON, and the way back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deploykit.graph.score_kinds import KINDS
from deploykit.json_file import table, text, whole
from deploykit.model import Precision
from deploykit.preprocess import Preprocess
from deploykit.printable import printable_name
from deploykit.report.json import (
    skipped_from_dict,
    skipped_to_dict,
    verdict_from_dict,
    verdict_to_dict,
)
from deploykit.tensors import QuantParams, TensorSpec
from deploykit.verdict import SkippedTarget, Verdict

SCHEMA = "deploykit.bundle/2"
#: Older ones that are read.
READABLE = (SCHEMA, "deploykit.bundle/1")
GOLDEN = "golden.npz"


@dataclass(frozen=True)
class BundleFile:
    """One file of an artefact.

    Attributes:
        path: Relative to the bundle's folder.
        sha256: Of the file.
        bytes: Its size.
    """

    path: str
    sha256: str
    bytes: int


def describe_file(path: str, data: bytes) -> BundleFile:
    """A file by its content."""
    return BundleFile(path, hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class BundleArtifact:
    """One artefact of a bundle.

    Attributes:
        target: E.g. ``tflite``.
        precision: E.g. ``int8``.
        path: What its runtime is given, relative to the bundle's folder: a file, or a folder.
        files: Every file of it; most have one.
        stage: Key of the golden outputs of the stage that it was made from.
        inputs: In the artefact's own layouts and dtypes.
        outputs: Likewise.
        output_steps: Output name → the integer quantization behind it, also where the output
            itself is float.
        summary: What the target says of it.
        verdicts: What the runners said of it.
        value_names: Value of the stage → tensor of the artefact that holds it.
        value_specs: Tensor → how it holds it.
        output_kinds: Output → ``probabilities``, ``logits``, ... (`deploykit.graph.score_kinds`),
            where that is known.
    """

    target: str
    precision: str
    path: str
    files: tuple[BundleFile, ...]
    stage: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    output_steps: Mapping[str, QuantParams] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    value_names: Mapping[str, str] = field(default_factory=dict)
    value_specs: Mapping[str, TensorSpec] = field(default_factory=dict)
    output_kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(f.bytes for f in self.files)

    @property
    def sha256(self) -> str:
        """Of its file; of the list of hashes and paths where there are several."""
        if len(self.files) == 1:
            return self.files[0].sha256
        listing = "".join(f"{f.sha256}  {f.path}\n" for f in self.files)
        return hashlib.sha256(listing.encode()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """What the manifest says; see the module's docstring for the folder.

    Attributes:
        name: The model's name.
        source: ``kind``, ``file`` (name only), ``sha256``, ``arch``.
        libraries: Package → version, of all that shaped the artefacts.
        inputs: The source network's own inputs (float32, NCHW).
        outputs: Its outputs.
        preprocess: The contract of its image input, or None.
        labels: Class names in the order of the output, or None.
        reference: What gave the float reference, in words.
        artifacts: The files.
        calibration: ``samples``, ``data``, ``observer`` and ``warnings``, or None.
        has_golden: Whether golden vectors are there.
        skipped: What was asked for beside the artefacts and not written, and why.
        stages: Key of a stage → its .onnx file, where the bundle keeps them: what layers are
            compared with elsewhere.
        companions: The files beside the artefacts that an app or its author wants: ``labels.txt``.
        assumed: Whether the preprocessing contract was guessed, and not the checkpoint's or user's.
        made: How it was made, enough to make it again (`deploykit.flow.recall`): ``load`` and
            ``convert``; empty in bundles of before.
    """

    name: str
    source: Mapping[str, str]
    libraries: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None
    reference: str
    artifacts: tuple[BundleArtifact, ...]
    calibration: Mapping[str, Any] | None = None
    has_golden: bool = False
    skipped: tuple[SkippedTarget, ...] = ()
    stages: Mapping[str, BundleFile] = field(default_factory=dict)
    companions: tuple[BundleFile, ...] = ()
    assumed: bool = False
    made: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: the model and its files."""
        paths = ", ".join(printable_name(a.path)[-80:] for a in self.artifacts[:6])
        more = f", ... ({len(self.artifacts)} files)" if len(self.artifacts) > 6 else ""
        return f"<Bundle of {printable_name(self.name)!r}: {paths}{more}>"

    def to_json(self) -> str:
        """The manifest as text; `read_bundle` reads it back."""
        first = self.inputs[0].to_dict() if self.inputs else {}
        first["preprocess"] = self.preprocess.to_dict() if self.preprocess else None
        first["assumed"] = self.assumed
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "source": dict(self.source),
            "made": dict(self.made),
            "libraries": dict(sorted(self.libraries.items())),
            "input": first,
            "inputs": [s.to_dict() for s in self.inputs],
            "outputs": [s.to_dict() for s in self.outputs],
            "labels": list(self.labels) if self.labels is not None else None,
            "reference": self.reference,
            "calibration": dict(self.calibration) if self.calibration is not None else None,
            "golden": GOLDEN if self.has_golden else None,
            "artifacts": [_artifact_to_dict(a) for a in self.artifacts],
            "left_out": [skipped_to_dict(o) for o in self.skipped],
            "stages": {key: asdict(file) for key, file in sorted(self.stages.items())},
            "files": [asdict(file) for file in self.companions],
        }
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _artifact_to_dict(artifact: BundleArtifact) -> dict[str, Any]:
    return {
        "target": artifact.target,
        "precision": artifact.precision,
        "path": artifact.path,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
        "files": [asdict(f) for f in artifact.files],
        "stage": artifact.stage,
        "inputs": [s.to_dict() for s in artifact.inputs],
        "outputs": [s.to_dict() for s in artifact.outputs],
        "output_steps": {k: v.to_dict() for k, v in sorted(artifact.output_steps.items())},
        "summary": dict(artifact.summary),
        "verdicts": [verdict_to_dict(v) for v in artifact.verdicts],
        "value_names": dict(artifact.value_names),
        "value_specs": {k: v.to_dict() for k, v in artifact.value_specs.items()},
        "output_kinds": dict(sorted(artifact.output_kinds.items())),
    }


def bundle_from_dict(document: Mapping[str, Any]) -> Bundle:
    """Read what `Bundle.to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: something is missing, or of another type.
        UserError: a contract that contradicts itself.
    """
    preprocess = document["input"]["preprocess"]
    labels = document["labels"]
    return Bundle(
        name=str(document["name"]),
        source=_texts(document["source"]),
        libraries=_texts(document["libraries"]),
        inputs=tuple(_spec(s) for s in document["inputs"]),
        outputs=tuple(_spec(s) for s in document["outputs"]),
        preprocess=Preprocess.from_dict(preprocess) if preprocess else None,
        labels=tuple(map(_text, labels)) if labels is not None else None,
        reference=str(document["reference"]),
        calibration=_calibration(document["calibration"]),
        has_golden=document["golden"] is not None,
        artifacts=tuple(_artifact_from_dict(a) for a in document["artifacts"]),
        skipped=tuple(skipped_from_dict(o) for o in document.get("left_out", ())),
        stages={_text(k): _file(f) for k, f in document.get("stages", {}).items()},
        companions=tuple(_file(f) for f in document.get("files", ())),
        assumed=document["input"].get("assumed", False) is True,
        made=dict(table(document.get("made", {}), "how the bundle was made")),
    )


def _artifact_from_dict(data: Mapping[str, Any]) -> BundleArtifact:
    return BundleArtifact(
        target=_text(data["target"]),
        precision=Precision(data["precision"]).value,
        path=_text(data["path"]),
        files=tuple(_file(f) for f in data["files"]),
        stage=_text(data["stage"]),
        inputs=tuple(_spec(s) for s in data["inputs"]),
        outputs=tuple(_spec(s) for s in data["outputs"]),
        output_steps={k: QuantParams.from_dict(v) for k, v in data["output_steps"].items()},
        summary=dict(table(data["summary"], "a summary")),
        verdicts=tuple(verdict_from_dict(v) for v in data["verdicts"]),
        # Neither is in a manifest of version 1.
        value_names={k: _text(v) for k, v in data.get("value_names", {}).items()},
        value_specs={k: _spec(v) for k, v in data.get("value_specs", {}).items()},
        output_kinds={k: _kind(v) for k, v in data.get("output_kinds", {}).items()},
    )


def _file(data: Mapping[str, Any]) -> BundleFile:
    return BundleFile(_text(data["path"]), _text(data["sha256"]), whole(data["bytes"], "a size"))


def _kind(value: Any) -> str:
    if value not in KINDS:
        raise ValueError(f"an output is {value!r:.40}, not one of {', '.join(KINDS)}")
    return _text(value)


def _spec(data: Mapping[str, Any]) -> TensorSpec:
    for name in ("name", "dtype", "layout"):
        _text(data[name])
    return TensorSpec.from_dict(data)


def _calibration(data: Any) -> Mapping[str, Any] | None:
    if data is None:
        return None
    return {**table(data, "the calibration"), "warnings": [_text(w) for w in data["warnings"]]}


def _texts(data: Mapping[str, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in data.items()}


def _text(value: Any) -> str:
    return text(value, "an entry")
