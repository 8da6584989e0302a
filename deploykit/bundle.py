"""The bundle: the output folder of one conversion, all that an app or a later check needs.

    ghostnet/
        deploykit.json       the manifest: what is here, its contract, its verdicts
        ghostnet.int8.tflite the artefacts
        labels.txt           class names in the order of the output, one a line, if known
        golden.npz           golden inputs and outputs (float32, NCHW), for checks elsewhere
        calibration.json     the calibration table, if one was made

Written as a whole or not at all, and byte-identical from run to run: no dates, no paths.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from deploykit.errors import BundleError
from deploykit.files import (
    as_user_error,
    folder_written_atomically,
    sha256_of,
    write_file,
)
from deploykit.golden import Golden
from deploykit.json_file import read_json, table
from deploykit.manifest import (
    GOLDEN,
    READABLE,
    SCHEMA,
    Bundle,
    BundleArtifact,
    BundleFile,
    bundle_from_dict,
)
from deploykit.swap import finish_swap

__all__ = [
    "CALIBRATION",
    "GOLDEN",
    "LABELS",
    "MANIFEST",
    "SCHEMA",
    "Bundle",
    "BundleArtifact",
    "BundleFile",
    "check_replaceable",
    "labels_text",
    "lost_artifacts",
    "read_bundle",
    "write_bundle",
]

MANIFEST = "deploykit.json"
CALIBRATION = "calibration.json"
LABELS = "labels.txt"
# What file managers leave in every folder that is looked at.
_OF_FILE_MANAGERS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def write_bundle(
    folder: Path,
    bundle: Bundle,
    files: Mapping[str, bytes],
    golden: Golden | None,
    calibration_json: str | None,
) -> None:
    """Write a bundle as a whole; on any failure what was at ``folder`` stays.

    Args:
        folder: Where. An existing folder is replaced only if it is empty, or a bundle whose
            manifest lists all that is in it.
        bundle: The manifest.
        files: Path relative to the folder → bytes, of all that the manifest lists.
        golden: Golden vectors, or None.
        calibration_json: The calibration table's text, or None.

    Raises:
        BundleError: the folder holds something else, cannot be written, or the disk is full.
    """
    check_replaceable(folder)
    with folder_written_atomically(folder, check_replaceable) as temporary:
        for name, data in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            write_file(temporary / name, data)
        if golden is not None:
            write_file(temporary / GOLDEN, golden.to_npz())
        if calibration_json is not None:
            write_file(temporary / CALIBRATION, calibration_json.encode())
        write_file(temporary / MANIFEST, bundle.to_json().encode())


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything that is not a bundle, or holds more than one.

    Raises:
        BundleError: ``folder`` is a file, or a folder with something in it that no manifest of it
            lists.
    """
    with as_user_error(folder):
        finish_swap(folder.resolve())
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
    foreign = _foreign_files(folder) if entries else []
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise BundleError(
            f"{folder} is a bundle with other files in it ({', '.join(foreign[:3])}{more}), which "
            "would be lost; nothing was written",
            expected=f"a folder with nothing but what its {MANIFEST} lists",
            advice="move them elsewhere, or give another folder with --out",
        )


def lost_artifacts(folder: Path, kept: Sequence[str]) -> tuple[str, ...]:
    """Artefacts of the bundle at ``folder`` that one with the paths ``kept`` would not have.

    Args:
        folder: Where a bundle is about to be written; it need not exist.
        kept: Paths of its artefacts.
    """
    if not (folder / MANIFEST).is_file():
        return ()
    try:
        old = read_bundle(folder)
    except BundleError:  # a damaged one may be replaced; what it held, nobody can say
        return ()
    return tuple(a.path for a in old.artifacts if a.path not in kept)


def _foreign_files(folder: Path) -> list[str]:
    """What is in a bundle's folder and not in its manifest, relative to it."""
    listed = {MANIFEST, GOLDEN, CALIBRATION}
    try:
        document = table(read_json(folder / MANIFEST), "the manifest")
        listed |= {str(f["path"]) for a in document["artifacts"] for f in a["files"]}
        listed |= {str(f["path"]) for f in document.get("files", ())}
        listed |= {str(f["path"]) for f in document.get("stages", {}).values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # damaged: then only what every bundle has is known
    folders = {str(parent) for path in listed for parent in PurePosixPath(path).parents}
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        known = (stat.S_ISREG(mode) and (name in listed or path.name in _OF_FILE_MANAGERS)) or (
            stat.S_ISDIR(mode) and name in folders
        )
        if not known:
            found.append(name)
    return found


def refuse_source_inside(folder: Path, source: str) -> None:
    """Refuse an output folder that the source is in, since the source would be lost.

    Args:
        folder: The output folder.
        source: The source's path; empty for a module in memory.

    Raises:
        BundleError: it is.
    """
    if source and Path(source).resolve().is_relative_to(folder.resolve()) and folder.exists():
        raise BundleError(
            f"the model {source} is in the output folder {folder}, which would replace it",
            advice="give another folder with --out",
        )


def read_bundle(folder: Path, *, check_hashes: bool = True) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: no bundle, another schema, a damaged manifest, or an artefact whose hash is
            not the manifest's.
    """
    with as_user_error(folder):
        finish_swap(folder.resolve())
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST}",
            expected="the output folder of deploykit convert",
        )
    try:
        document = table(read_json(path), "the manifest")
        _check_schema(path, document["schema"])
        bundle = bundle_from_dict(document)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            advice="convert the model again",
        ) from error
    for artifact in bundle.artifacts if check_hashes else ():
        _check_place(artifact.path)
        for file in artifact.files:
            _check_file(folder, file)
    for file in (*bundle.stages.values(), *bundle.companions) if check_hashes else ():
        _check_file(folder, file)
    return bundle


def _check_schema(path: Path, schema: object) -> None:
    if schema in READABLE:
        return
    name, _, version = SCHEMA.partition("/")
    found, _, number = str(schema).partition("/")
    newer = found == name and number.isdecimal() and int(number) > int(version)
    raise BundleError(
        f"{path} has schema {schema!r}",
        expected=" or ".join(READABLE),
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


def labels_text(labels: Sequence[str]) -> str:
    """The file of class names: one a line, in the order of the output.

    A line break or another control character inside of a name becomes a space, so that the number
    of a line is the number of its class.
    """
    return "".join(f"{' '.join(_CONTROL.sub(' ', label).split())}\n" for label in labels)
