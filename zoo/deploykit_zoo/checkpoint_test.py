from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploykit.errors import BundleError, ContractError, SourceError
from deploykit.preprocess import Preprocess
from deploykit_zoo.checkpoint import (
    Checkpoint,
    half_precision_state,
    read_checkpoint,
    write_checkpoint,
)

KEYS = [
    "format",
    "arch",
    "arch_kwargs",
    "state_dict",
    "preprocess",
    "labels",
    "calibration",
    "metrics",
    "training",
]


def make_checkpoint() -> Checkpoint:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    return Checkpoint(
        arch="timm/ghostnet_050",
        arch_kwargs={"num_classes": 2},
        state_dict=half_precision_state(network.state_dict()),
        preprocess=Preprocess(size=(64, 64)),
        labels=("cat", "dog"),
        calibration=torch.arange(32, dtype=torch.uint8).reshape(2, 4, 4, 1),
        metrics={"top1": 0.5, "test_images": 10},
        training={"command": "deploykit zoo train x", "epochs": 1},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = make_checkpoint()

    write_checkpoint(tmp_path / "a.pt", written)
    read = read_checkpoint(tmp_path / "a.pt")

    for field in ("arch", "arch_kwargs", "preprocess", "labels", "metrics", "training"):
        assert getattr(read, field) == getattr(written, field)
    assert torch.equal(read.calibration, written.calibration)
    assert list(read.state_dict) == list(written.state_dict)
    for name, tensor in written.state_dict.items():
        assert read.state_dict[name].dtype == tensor.dtype
        assert torch.equal(read.state_dict[name], tensor)


def test_the_file_has_the_documented_keys_and_needs_no_code(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.pt", make_checkpoint())

    content = torch.load(tmp_path / "a.pt", weights_only=True)

    assert list(content) == KEYS
    assert content["format"] == "deploykit.checkpoint/1"
    assert content["labels"] == ["cat", "dog"]
    assert content["calibration"].dtype == torch.uint8
    assert Preprocess.from_dict(content["preprocess"]) == Preprocess(size=(64, 64))


def test_the_same_content_gives_the_same_bytes_under_another_name(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()

    write_checkpoint(tmp_path / "a.pt", checkpoint)
    write_checkpoint(tmp_path / "other.pt", checkpoint)

    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()


def test_weights_are_halved_and_vectors_are_not() -> None:
    state = {
        "weight": torch.full((2, 2), 1 / 3),
        "running_var": torch.full((2,), 1e-7),
        "huge": torch.full((2, 2), 1e6),
        "count": torch.tensor(3),
    }

    stored = half_precision_state(state)

    assert stored["weight"].dtype == torch.float16
    assert stored["weight"][0, 0].item() == float(np.float16(1 / 3))
    for name in ("running_var", "huge", "count"):
        assert stored[name].dtype == state[name].dtype
        assert torch.equal(stored[name], state[name])


def test_stored_tensors_share_nothing_with_the_network() -> None:
    vector = torch.zeros(3)

    stored = half_precision_state({"bias": vector})
    vector += 1

    assert stored["bias"].tolist() == [0, 0, 0]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, make_checkpoint())
    before = path.read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, replace(make_checkpoint(), labels=("x", "y")))

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(BundleError, match="cannot write"):
        write_checkpoint(tmp_path / "file" / "a.pt", make_checkpoint())


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"no torch file", b"PK\x03\x04 half a zip file"])
def test_a_file_that_is_not_torch(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)

    with pytest.raises(SourceError, match="cannot be read by torch"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_truncated_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.pt", make_checkpoint())
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(SourceError, match="cannot be read by torch"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")

    with pytest.raises(SourceError, match="cannot be read by torch"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [{"weight": torch.zeros(1)}, [1], {"format": "other/1"}])
def test_another_format(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")

    with pytest.raises(SourceError, match="where a checkpoint has its format"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("key", [key for key in KEYS if key != "format"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, make_checkpoint())
    content = torch.load(path, weights_only=True)
    del content[key]
    torch.save(content, path)

    with pytest.raises(SourceError, match=f"lacks {key}"):
        read_checkpoint(path)


def test_a_contract_that_contradicts(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_checkpoint(path, make_checkpoint())
    content = torch.load(path, weights_only=True)
    content["preprocess"]["color"] = "CMYK"
    torch.save(content, path)

    with pytest.raises(ContractError, match="CMYK"):
        read_checkpoint(path)
