"""What a file holds, by its content: the suffix is never looked at, torch is never imported."""

from __future__ import annotations

import codecs
import json
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from deploykit.archive import check_archive
from deploykit.errors import SourceError
from deploykit.limits import current_limits
from deploykit.sources.keras_archive import CONFIG as KERAS_CONFIG
from deploykit.sources.keras_archive import WEIGHTS as KERAS_WEIGHTS
from deploykit.sources.pickle_scan import PickleContent, scan_legacy_torch_file, scan_pickle
from deploykit.sources.protobuf_scan import scan_onnx
from deploykit.sources.saved_model_scan import GRAPH as SAVED_MODEL_GRAPH

ACCEPTED = (
    "a checkpoint (torch.save of a state_dict), safetensors, an exported program (.pt2), "
    "TorchScript, ONNX, a Keras model (.keras), or the folder of a TensorFlow SavedModel"
)


class SourceKind(Enum):
    """What `load` accepts; the value is `SourceInfo.kind`."""

    CHECKPOINT = "checkpoint"
    SAFETENSORS = "safetensors"
    EXPORTED_PROGRAM = "exported_program"
    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"
    PICKLED_MODULE = "pickled_module"
    KERAS = "keras"
    SAVED_MODEL = "saved_model"


@dataclass(frozen=True)
class Detection:
    """What `detect` found.

    Attributes:
        kind: What the file holds.
        foreign_globals: For torch pickles: the ``module.attribute`` that the pickle names and that
            are neither tensors nor plain data.
    """

    kind: SourceKind
    foreign_globals: tuple[str, ...] = ()


# First bytes → what it is, and what to do with it.
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (4, b"TFL3", "a TensorFlow Lite model", "deploykit writes these; give the model it came from"),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file (weights, or a whole model, of an older Keras)",
        "load it with Keras and save it again: model.save('model.keras')",
    ),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"BZh", "a bzip2 archive", "unpack it first"),
    (0, b"\xfd7zXZ\x00", "an xz archive", "unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", "unpack it first"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", "give a model file"),
    (0, b"\xff\xd8\xff", "a JPEG image", "give a model file"),
    (0, b"\x93NUMPY", "a numpy array", "give a model file"),
    (0, b"\x7fELF", "an ELF binary", "give a model file"),
    (0, b"%PDF-", "a PDF document", "give a model file"),
    (0, b"GGUF", "a GGUF model", "deploykit takes vision models from torch or ONNX"),
    (
        257,
        b"ustar",
        "a tar archive",
        "unpack it first (torch files of 0.1 are tar: load and save them again with a newer torch)",
    ),
)


def detect_kind(path: str | Path) -> SourceKind:
    """What a file holds.

    Raises:
        SourceError: missing, empty, cut off, or nothing that deploykit accepts.
    """
    return detect(path).kind


def detect(path: str | Path) -> Detection:
    """As `detect_kind`, with what a torch pickle refers to.

    Raises:
        SourceError: as `detect_kind`.
    """
    path = Path(path)
    try:
        return _detect(path)
    except FileNotFoundError:
        raise SourceError(f"there is no file {path}", advice="check the path") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error


def _detect(path: Path) -> Detection:
    if path.is_dir():
        return _detect_folder(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{path} is a device, a pipe or a socket", expected=ACCEPTED)
    size, limit = status.st_size, current_limits().file_bytes
    if size > limit:
        raise SourceError(
            f"{path} has {size:,} bytes, more than {limit:,}",
            expected="a compact vision model",
            advice="--max file_bytes=SIZE allows more",
        )
    if size == 0:
        raise SourceError(f"{path} is empty", expected=ACCEPTED, advice="get the file again")
    with path.open("rb") as stream:
        head = stream.read(4096)
    for offset, magic, what, advice in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise SourceError(f"{path} is {what}", expected=ACCEPTED, advice=advice)
    if head.startswith(b"PK"):
        return _detect_zip(path)
    if head.startswith(b"\x80"):
        return _detect_pickle(path)
    if _is_safetensors(path, head, size):
        return Detection(SourceKind.SAFETENSORS)
    if _is_text(head):
        raise _refused_text(path, head)
    onnx = scan_onnx(path)
    if onnx == "truncated":
        raise SourceError(
            f"{path} looks like an ONNX file, but it ends too early",
            advice="it was not copied or downloaded completely: get it again",
        )
    if onnx == "onnx":
        return Detection(SourceKind.ONNX)
    raise SourceError(f"{path} is of no format that deploykit knows", expected=ACCEPTED)


def _detect_zip(path: Path) -> Detection:
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            names = archive.namelist()
            # A file that is cut off may end in an archive that was one of its members.
            if names and min(i.header_offset for i in archive.infolist()) != 0:
                raise zipfile.BadZipFile("its table of contents is missing")
            inner = [n.partition("/")[2] if "/" in n else n for n in names]
            if KERAS_CONFIG in names and KERAS_WEIGHTS in names:
                return Detection(SourceKind.KERAS)
            if _is_exported_program(names, inner):
                return Detection(SourceKind.EXPORTED_PROGRAM)
            if "data.pkl" not in inner:
                raise _refused_zip(path, names)
            if "constants.pkl" in inner or any(n.startswith("code/") for n in inner):
                return Detection(SourceKind.TORCHSCRIPT)
            return _of_pickle(scan_pickle(archive.read(names[inner.index("data.pkl")])))
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        # RuntimeError: a member is encrypted, or packed in a way that Python does not know.
        raise SourceError(
            f"{path} starts like a zip archive (torch.save writes those), but is damaged: {error}",
            advice="it was not copied or downloaded completely: get it again",
        ) from error


def _is_exported_program(names: Sequence[str], inner: Sequence[str]) -> bool:
    both = {*names, *inner}
    return (
        "archive_format" in both
        or "serialized_exported_program.json" in both
        or any(n.startswith("models/") and n.endswith(".json") for n in both)
    )


def _of_pickle(content: PickleContent) -> Detection:
    foreign = content.foreign_globals
    return Detection(SourceKind.PICKLED_MODULE if foreign else SourceKind.CHECKPOINT, foreign)


def _detect_pickle(path: Path) -> Detection:
    try:
        with path.open("rb") as stream:
            content = scan_legacy_torch_file(stream)
            if content is not None:
                return _of_pickle(content)
            stream.seek(0)
            plain = scan_pickle(stream)
    except ValueError as error:
        raise SourceError(
            f"{path} starts like a Python pickle, but is damaged: {error}",
            advice="it was not copied or downloaded completely: get it again",
        ) from error
    named = f", and it refers to {', '.join(plain.globals[:5])}" if plain.globals else ""
    raise SourceError(
        f"{path} is a Python pickle that torch did not write{named}; it was not executed",
        expected=ACCEPTED,
        advice="save the weights with torch.save(model.state_dict(), FILE)",
    )


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    if len(head) < 10 or head[8:9] != b"{" or length > 100_000_000:
        return False
    if length > size - 8:
        raise _truncated_safetensors(path)
    with path.open("rb") as stream:
        stream.seek(8)
        try:
            header = json.loads(stream.read(length))
            ends = [t["data_offsets"][1] for k, t in header.items() if k != "__metadata__"]
            largest = max((e for e in ends if type(e) is int), default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return False
    if largest > size - 8 - length:
        raise _truncated_safetensors(path)
    return True


def _truncated_safetensors(path: Path) -> SourceError:
    return SourceError(
        f"{path} looks like safetensors, but it ends too early",
        advice="it was not copied or downloaded completely: get it again",
    )


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        # Not final: a character may be cut at the end of what was read.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)


def _refused_text(path: Path, head: bytes) -> SourceError:
    text = head.decode("utf-8", errors="replace").lstrip()
    what, advice = "a text file", "give the model file itself"
    if text.startswith("version https://git-lfs"):
        what, advice = "a Git LFS pointer, not the file it points to", "run: git lfs pull"
    elif text[:15].lower().startswith(("<!doctype html", "<html")):
        what, advice = "an HTML page", "the download failed or asked for a login: get it again"
    elif text.startswith(("import ", "from ", "def ", "class ", "#!")) or path.suffix == ".py":
        what = "Python source, not weights"
        advice = "give the weights, and name the code with --arch package.module:callable"
    elif text.startswith("7767517"):
        what, advice = "an ncnn .param file", "give the model it was converted from"
    return SourceError(f"{path} is {what}", expected=ACCEPTED, advice=advice)


def _detect_folder(path: Path) -> Detection:
    graph = path / SAVED_MODEL_GRAPH
    if not graph.exists():
        raise _refused_folder(path)
    if graph.stat().st_size == 0:
        raise SourceError(
            f"{graph} is empty", expected=ACCEPTED, advice="get the whole folder again"
        )
    return Detection(SourceKind.SAVED_MODEL)


def _refused_folder(path: Path) -> SourceError:
    what, advice = "a folder", "give a file in it"
    if (path / "Manifest.json").exists():
        what, advice = "a Core ML package", "give the model it was converted from"
    elif (path / "deploykit.json").exists():
        what, advice = "a deploykit bundle", "give the model it was made from"
    return SourceError(f"{path} is {what}", expected=ACCEPTED, advice=advice)


def _refused_zip(path: Path, names: Sequence[str]) -> SourceError:
    if names and all(n.endswith(".npy") for n in names):
        return SourceError(f"{path} is an archive of numpy arrays (.npz)", expected=ACCEPTED)
    listed = ", ".join(names[:5]) or "nothing"
    return SourceError(
        f"{path} is a zip archive that torch did not write; it holds {listed}",
        expected=ACCEPTED,
        advice="unpack it first, if the model is in it",
    )
