from __future__ import annotations

import argparse
import io
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import parser
from safetensors.torch import save_file

from deploykit.errors import SourceError
from deploykit.sources.detect import SourceKind, detect, detect_kind
from deploykit.sources.pickle_scan import scan_pickle
from deploykit_testing.tiny_networks import INPUT_SHAPE, TinyNet, trained

ONNX_TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,3] x) => (float[1,3] y) { y = Relu(x) }"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind, all with a suffix that says nothing."""
    folder = tmp_path_factory.mktemp("kinds")
    network = trained(TinyNet())
    example = (torch.zeros(INPUT_SHAPE),)
    paths = {kind.value: folder / f"{kind.value}.bin" for kind in SourceKind}
    torch.save(network.state_dict(), paths["checkpoint"])
    save_file(network.state_dict(), paths["safetensors"])
    torch.export.save(torch.export.export(network, example, strict=False), str(folder / "a.pt2"))
    (folder / "a.pt2").rename(paths["exported_program"])
    torch.jit.trace(network, example).save(str(paths["torchscript"]))
    paths["onnx"].write_bytes(parser.parse_model(ONNX_TEXT).SerializeToString())
    torch.save(network, paths["pickled_module"])
    paths["legacy"] = folder / "legacy.bin"
    torch.save(network.state_dict(), paths["legacy"], _use_new_zipfile_serialization=False)
    paths["legacy_module"] = folder / "legacy_module.bin"
    torch.save(network, paths["legacy_module"], _use_new_zipfile_serialization=False)
    paths["keras"].write_bytes(_zip_of(**{"config.json": b"{}", "model.weights.h5": b"1"}))
    paths["saved_model"].mkdir()
    (paths["saved_model"] / "saved_model.pb").write_bytes(b"\x08\x01")
    return paths


@pytest.mark.parametrize("kind", list(SourceKind))
def test_each_kind_is_told_by_content(files: dict[str, Path], kind: SourceKind) -> None:
    assert detect_kind(files[kind.value]) is kind


def test_old_torch_files_are_told(files: dict[str, Path]) -> None:
    assert detect_kind(files["legacy"]) is SourceKind.CHECKPOINT
    found = detect(files["legacy_module"])
    assert found.kind is SourceKind.PICKLED_MODULE
    assert any(name.endswith("TinyNet") for name in found.foreign_globals)


def test_a_wrong_suffix_changes_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "model.onnx"
    wrong.write_bytes(files["checkpoint"].read_bytes())
    assert detect_kind(wrong) is SourceKind.CHECKPOINT


def test_detection_does_not_import_torch(files: dict[str, Path]) -> None:
    code = (
        "import sys\nfrom deploykit.sources.detect import detect_kind\n"
        f"for path in {[str(p) for p in files.values()]!r}: detect_kind(path)\n"
        "assert not {'torch', 'onnx', 'onnx_ir', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plain_data_beside_weights_is_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "train.pth"
    content = {
        "state_dict": OrderedDict(w=torch.zeros(2)),
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.5),
        "half": torch.zeros(1, dtype=torch.bfloat16),
    }
    torch.save(content, path)
    assert detect(path).foreign_globals == ()
    assert detect_kind(path) is SourceKind.CHECKPOINT


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def test_scanning_a_pickle_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "created"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps({"w": Bomb(target)}, protocol=protocol)
        names = scan_pickle(data).foreign_globals
        assert any("Path" in name for name in names), names
        assert not target.exists()
        pickle.loads(data)  # the bomb is live
        assert target.exists()
        target.unlink()


def test_globals_behind_memo_references_are_named() -> None:
    # The second mention of a module name is a reference to the first.
    names = scan_pickle(pickle.dumps([OrderedDict, argparse.Namespace, argparse.ArgumentParser], 4))
    assert names.globals == (
        "collections.OrderedDict",
        "argparse.Namespace",
        "argparse.ArgumentParser",
    )
    assert names.foreign_globals == ("argparse.ArgumentParser",)


def _zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


BAD_FILES = {
    "empty": (b"", "is empty"),
    "text": (b"hello, this is a text file\n" * 20, "text file"),
    "utf8": ("Größe\n".encode() * 700, "text file"),
    "python": (b"import torch\n", "Python source"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "html": (b"<!DOCTYPE html><html></html>", "HTML page"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG"),
    "gzip": (b"\x1f\x8b\x08" + bytes(64), "gzip"),
    "numpy": (b"\x93NUMPY" + bytes(64), "numpy array"),
    "npz": (_zip_of(**{"a.npy": b"1"}), "numpy arrays"),
    "other zip": (_zip_of(**{"a.txt": b"1"}), "torch did not write"),
    "zip head alone": (b"PK\x03\x04" + bytes(100), "damaged"),
    "bad pickle": (b"\x80\x02}q\x00(X", "damaged"),
    "plain pickle": (pickle.dumps({"a": 1}), "torch did not write"),
    "zeros": (bytes(1000), "no format"),
    "noise": (np.random.default_rng(0).bytes(4000), "no format"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_source_is_refused(tmp_path: Path, name: str) -> None:
    data, words = BAD_FILES[name]
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=words) as caught:
        detect(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    assert caught.value.expected or caught.value.advice


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        detect(tmp_path / "none.pt")
    with pytest.raises(SourceError, match="is a folder"):
        detect(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(SourceError, match=r"saved_model.pb is empty"):
        detect(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        "checkpoint",
        "torchscript",
        "exported_program",
        "onnx",
        "safetensors",
        "legacy",
        "pickled_module",
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_off_files_are_refused_or_loading_refuses_them(
    files: dict[str, Path], tmp_path: Path, kind: str, share: float
) -> None:
    data = files[kind].read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * share)])
    # In an old torch file the tensors come last: only torch can see that some are missing.
    if kind == "legacy" and share > 0.4:
        pytest.skip("nothing before the tensors is missing")
    with pytest.raises(SourceError):
        detect(path)


def test_onnx_of_other_makers_is_told(tmp_path: Path) -> None:
    model = parser.parse_model(ONNX_TEXT)
    model.producer_name, model.producer_version, model.doc_string = "maker", "1", "text " * 2000
    model.metadata_props.append(onnx.StringStringEntryProto(key="k", value="v"))
    path = tmp_path / "m"
    path.write_bytes(model.SerializeToString())
    assert detect_kind(path) is SourceKind.ONNX
