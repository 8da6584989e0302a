"""The bundle: the output folder of one conversion, all that an app or a later check needs.

    ghostnet/
        deploykit.json       the manifest: what is here, its contract, its verdicts
        ghostnet.int8.tflite the artefacts
        golden.npz           golden inputs and outputs (float32, NCHW), for checks elsewhere
        calibration.json     the calibration table, if one was made

Written as a whole or not at all, and byte-identical from run to run: no dates, no paths.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from deploykit.errors import BundleError
from deploykit.files import folder_written_atomically, sha256_of
from deploykit.manifest import (
    GOLDEN,
    SCHEMA,
    Bundle,
    BundleArtifact,
    BundleFile,
    bundle_from_dict,
)
from deploykit.tensors import FloatArray

__all__ = [
    "CALIBRATION",
    "GOLDEN",
    "MANIFEST",
    "SCHEMA",
    "Bundle",
    "BundleArtifact",
    "BundleFile",
    "Golden",
    "check_replaceable",
    "read_bundle",
    "write_bundle",
]

MANIFEST = "deploykit.json"
CALIBRATION = "calibration.json"


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
        _check_schema(path, document["schema"])
        bundle = bundle_from_dict(document)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            advice="convert the model again",
        ) from error
    for artifact in bundle.artifacts if check_hashes else ():
        _check_place(artifact.path)
        for file in artifact.files:
            _check_file(folder, file)
    return bundle


def _check_schema(path: Path, schema: object) -> None:
    if schema == SCHEMA:
        return
    name, _, version = SCHEMA.partition("/")
    found, _, number = str(schema).partition("/")
    newer = found == name and number.isdecimal() and int(number) > int(version)
    raise BundleError(
        f"{path} has schema {schema!r}",
        expected=SCHEMA,
        advice="a newer deploykit wrote it: update deploykit"
        if newer
        else "convert the model again with this version of deploykit",
    )


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
