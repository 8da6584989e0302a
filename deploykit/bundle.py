"""The bundle: the output folder of one conversion, all that an app or a later check needs.

    ghostnet/
        deploykit.json       the manifest: what is here, its contract, its verdicts
        ghostnet.int8.tflite the artefacts
        golden.npz           golden inputs and outputs (float32, NCHW), for checks elsewhere
        calibration.json     the calibration table, if one was made

Written as a whole or not at all, and byte-identical from run to run: no dates, no paths.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deploykit.errors import BundleError
from deploykit.files import folder_written_atomically, sha256_of
from deploykit.preprocess import Preprocess
from deploykit.report.json import verdict_from_dict, verdict_to_dict
from deploykit.report.model import Verdict
from deploykit.tensors import FloatArray, QuantParams, TensorSpec

SCHEMA = "deploykit.bundle/1"
MANIFEST = "deploykit.json"
GOLDEN = "golden.npz"
CALIBRATION = "calibration.json"


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
        output_steps: Output name > the integer quantization behind it, also where the output
            itself is float.
        summary: What the target says of it.
        verdicts: What the runners said of it.
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
class Golden:
    """Golden vectors, all float32 and in the source's layout (NCHW), by value name.

    Attributes:
        inputs: Input name > (n, ...).
        reference: Output name > (n, ...), of the float reference.
        stages: Stage key (``fused``, ``tflite.int8``, ...) > output name > (n, ...).
        runs: Artefact's file > runner > output name > (n, ...): what that runner gave.
    """

    inputs: Mapping[str, FloatArray]
    reference: Mapping[str, FloatArray]
    stages: Mapping[str, Mapping[str, FloatArray]]
    runs: Mapping[str, Mapping[str, Mapping[str, FloatArray]]] = field(default_factory=dict)

    def to_npz(self) -> bytes:
        """The vectors as an .npz; the same bytes for the same vectors.

        Entries: ``input/NAME``, ``reference/NAME``, ``stage/KEY/NAME``, ``run/FILE/RUNNER/NAME``.
        """
        entries: dict[str, FloatArray] = {}
        entries |= {f"input/{k}": v for k, v in self.inputs.items()}
        entries |= {f"reference/{k}": v for k, v in self.reference.items()}
        for stage, outputs in self.stages.items():
            entries |= {f"stage/{stage}/{k}": v for k, v in outputs.items()}
        for file, by_runner in self.runs.items():
            for runner, outputs in by_runner.items():
                entries |= {f"run/{file}/{runner}/{k}": v for k, v in outputs.items()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(entries):
                # ZipInfo's default date is fixed (1980), so that no clock gets into the file.
                info = zipfile.ZipInfo(f"{name}.npy")
                info.compress_type = zipfile.ZIP_DEFLATED
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(entries[name]), (1, 0))
                archive.writestr(info, member.getvalue())
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, path: Path) -> Golden:
        """Read what `to_npz` wrote.

        Raises:
            BundleError: the file is damaged.
        """
        inputs: dict[str, FloatArray] = {}
        reference: dict[str, FloatArray] = {}
        stages: dict[str, dict[str, FloatArray]] = {}
        runs: dict[str, dict[str, dict[str, FloatArray]]] = {}
        try:
            with np.load(path, allow_pickle=False) as archive:
                for entry in archive.files:
                    kind, _, rest = entry.partition("/")
                    if kind == "stage":
                        stage, _, name = rest.partition("/")
                        stages.setdefault(stage, {})[name] = archive[entry]
                    elif kind == "run":
                        file, runner, name = rest.split("/", 2)
                        runs.setdefault(file, {}).setdefault(runner, {})[name] = archive[entry]
                    else:
                        {"input": inputs, "reference": reference}[kind][rest] = archive[entry]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"the golden vectors {path} cannot be read: {error}",
                advice="convert the model again",
            ) from error
        return cls(inputs, reference, stages, runs)


@dataclass(frozen=True)
class Bundle:
    """What the manifest says; see the module's docstring for the folder.

    Attributes:
        name: The model's name.
        source: ``kind``, ``file`` (name only), ``sha256``, ``arch``.
        libraries: Package > version, of all that shaped the artefacts.
        inputs: The source network's own inputs (float32, NCHW).
        outputs: Its outputs.
        preprocess: The contract of its picture input, or None.
        labels: Class names in the order of the output, or None.
        reference: What gave the float reference, in words.
        artifacts: The files.
        calibration: ``samples``, ``data``, ``observer`` and ``warnings``, or None.
        has_golden: Whether golden vectors are there.
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

    def to_json(self) -> str:
        """The manifest as text; `read_bundle` reads it back."""
        first = self.inputs[0].to_dict() if self.inputs else {}
        first["preprocess"] = self.preprocess.to_dict() if self.preprocess else None
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "source": dict(self.source),
            "libraries": dict(sorted(self.libraries.items())),
            "input": first,
            "inputs": [s.to_dict() for s in self.inputs],
            "outputs": [s.to_dict() for s in self.outputs],
            "labels": list(self.labels) if self.labels is not None else None,
            "reference": self.reference,
            "calibration": dict(self.calibration) if self.calibration is not None else None,
            "golden": GOLDEN if self.has_golden else None,
            "artifacts": [_artifact_to_dict(a) for a in self.artifacts],
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
    }


def write_bundle(
    folder: Path,
    bundle: Bundle,
    files: Mapping[str, bytes],
    golden: Golden | None,
    calibration_json: str | None,
) -> None:
    """Write a bundle as a whole; on any failure what was at ``folder`` stays.

    Args:
        folder: Where. An existing folder is replaced only if it is a bundle, or empty.
        bundle: The manifest.
        files: Path relative to the folder > bytes, of all artefacts.
        golden: Golden vectors, or None.
        calibration_json: The calibration table's text, or None.

    Raises:
        BundleError: the folder holds something else, cannot be written, or the disk is full.
    """
    check_replaceable(folder)
    with folder_written_atomically(folder) as temporary:
        for name, data in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(data)
        if golden is not None:
            (temporary / GOLDEN).write_bytes(golden.to_npz())
        if calibration_json is not None:
            (temporary / CALIBRATION).write_text(calibration_json, encoding="utf-8")
        (temporary / MANIFEST).write_text(bundle.to_json(), encoding="utf-8")


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything that is not a bundle.

    Raises:
        BundleError: ``folder`` is a file, or a folder that holds something else.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise BundleError(
            f"{folder} exists and is not a folder", advice="give another folder with --out"
        )
    try:
        entries = sorted(p.name for p in folder.iterdir())
    except OSError as error:
        raise BundleError(f"cannot read {folder}: {error.strerror}") from error
    if entries and MANIFEST not in entries:
        raise BundleError(
            f"{folder} holds other files ({', '.join(entries[:3])}, ...), not a bundle",
            expected=f"an empty folder, or one with {MANIFEST}",
            advice="give another folder with --out",
        )


def read_bundle(folder: Path, *, check_hashes: bool = True) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: no bundle, another schema, a damaged manifest, or an artefact whose hash is
            not the manifest's.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST}",
            expected="the output folder of deploykit convert",
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        schema = document["schema"]
        if schema != SCHEMA:
            raise BundleError(
                f"{path} has schema {schema!r}",
                expected=SCHEMA,
                advice="convert the model again with this version of deploykit",
            )
        bundle = _bundle_from_dict(document)
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            advice="convert the model again",
        ) from error
    for artifact in bundle.artifacts if check_hashes else ():
        _check_place(artifact.path)
        for file in artifact.files:
            _check_file(folder, file)
    return bundle


def _check_place(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path:
        raise BundleError(
            f"the manifest names the artefact {path!r}", expected="a path inside of the bundle"
        )


def _check_file(folder: Path, entry: BundleFile) -> None:
    _check_place(entry.path)
    file = folder / entry.path
    if not file.is_file():
        raise BundleError(f"the artefact {file} is missing", advice="convert the model again")
    digest = sha256_of(file)
    if digest != entry.sha256:
        raise BundleError(
            f"{file} has SHA-256 {digest[:16]}...",
            expected=f"{entry.sha256[:16]}..., as the manifest says",
            advice="it was changed after the conversion: convert the model again",
        )


def _bundle_from_dict(document: Mapping[str, Any]) -> Bundle:
    preprocess = document["input"]["preprocess"]
    labels = document["labels"]
    return Bundle(
        name=str(document["name"]),
        source=document["source"],
        libraries=document["libraries"],
        inputs=tuple(TensorSpec.from_dict(s) for s in document["inputs"]),
        outputs=tuple(TensorSpec.from_dict(s) for s in document["outputs"]),
        preprocess=Preprocess.from_dict(preprocess) if preprocess else None,
        labels=tuple(labels) if labels is not None else None,
        reference=str(document["reference"]),
        calibration=document["calibration"],
        has_golden=document["golden"] is not None,
        artifacts=tuple(_artifact_from_dict(a) for a in document["artifacts"]),
    )


def _artifact_from_dict(data: Mapping[str, Any]) -> BundleArtifact:
    return BundleArtifact(
        target=data["target"],
        precision=data["precision"],
        path=data["path"],
        files=tuple(BundleFile(f["path"], f["sha256"], int(f["bytes"])) for f in data["files"]),
        stage=data["stage"],
        inputs=tuple(TensorSpec.from_dict(s) for s in data["inputs"]),
        outputs=tuple(TensorSpec.from_dict(s) for s in data["outputs"]),
        output_steps={k: QuantParams.from_dict(v) for k, v in data["output_steps"].items()},
        summary=data["summary"],
        verdicts=tuple(verdict_from_dict(v) for v in data["verdicts"]),
    )
