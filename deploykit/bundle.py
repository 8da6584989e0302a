"""The bundle: the output folder of one conversion, all that an app or a later check needs.

    ghostnet/
        deploykit.json       the manifest: what is here, its contract, its verdicts
        ghostnet.int8.tflite the artefacts
        golden.npz           golden inputs and outputs (float32, NCHW), for checks elsewhere
        calibration.json     the calibration table, if one was made

Written as a whole or not at all, and byte-identical from run to run: no dates, no paths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from deploykit.errors import BundleError
from deploykit.files import folder_written_atomically, sha256_of
from deploykit.golden import Golden
from deploykit.manifest import (
    GOLDEN,
    SCHEMA,
    Bundle,
    BundleArtifact,
    BundleFile,
    bundle_from_dict,
)

__all__ = [
    "CALIBRATION",
    "GOLDEN",
    "MANIFEST",
    "SCHEMA",
    "Bundle",
    "BundleArtifact",
    "BundleFile",
    "check_replaceable",
    "read_bundle",
    "write_bundle",
]

MANIFEST = "deploykit.json"
CALIBRATION = "calibration.json"


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
