from __future__ import annotations

import argparse
import itertools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploykit.errors import SourceError
from deploykit.preprocess import Preprocess
from deploykit.sources.checkpoint import FORMAT, KEY_ORDER, load_checkpoint
from deploykit.sources.detect_test import Bomb


def _saved(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    return path


def _weights(value: float = 1.0) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict({"layer.weight": torch.full((2, 3), value)})


def test_a_bare_state_dict(tmp_path: Path) -> None:
    content = load_checkpoint(_saved(tmp_path, _weights()))
    assert list(content.state_dict) == ["layer.weight"]
    assert (content.key, content.arch) == ("", "")


@pytest.mark.parametrize(("earlier", "later"), list(itertools.pairwise(KEY_ORDER)))
def test_the_stated_order_decides(tmp_path: Path, earlier: str, later: str) -> None:
    path = _saved(tmp_path, {later: _weights(2.0), earlier: _weights(1.0), "epoch": 3})
    content = load_checkpoint(path)
    assert content.key == earlier
    assert content.state_dict["layer.weight"][0, 0] == 1.0


def test_key_overrides_the_order(tmp_path: Path) -> None:
    path = _saved(
        tmp_path,
        {"state_dict": _weights(1.0), "teacher": {"net": _weights(2.0)}, "a.b": _weights(3)},
    )
    assert load_checkpoint(path, "teacher.net").state_dict["layer.weight"][0, 0] == 2.0
    assert load_checkpoint(path, "a.b").state_dict["layer.weight"][0, 0] == 3.0
    with pytest.raises(SourceError, match=r"no entry 'student'(.|\n)*teacher"):
        load_checkpoint(path, "student")
    with pytest.raises(SourceError, match="not a state_dict"):
        load_checkpoint(path, "teacher")


def test_the_only_entry_with_weights_is_taken_and_several_are_not(tmp_path: Path) -> None:
    assert load_checkpoint(_saved(tmp_path, {"mine": _weights(), "epoch": 1})).key == "mine"
    with pytest.raises(SourceError, match="--key mine"):
        load_checkpoint(_saved(tmp_path, {"mine": _weights(), "yours": _weights()}))


@pytest.mark.parametrize("content", [{"epoch": 1}, {}, [1, 2], torch.zeros(2), {"a": {"b": 1}}])
def test_no_weights_is_an_error(tmp_path: Path, content: object) -> None:
    with pytest.raises(SourceError, match=r"no weights|expected: a state_dict"):
        load_checkpoint(_saved(tmp_path, content))


def test_a_checkpoint_of_timms_training_script(tmp_path: Path) -> None:
    args = argparse.Namespace(
        num_classes=10,
        in_chans=3,
        img_size=None,
        input_size=None,
        mean=[0.5, 0.5, 0.5],
        std=None,
        interpolation="",
        crop_pct=0.9,
        model_kwargs={"drop_rate": 0.1},
        lr=0.1,
    )
    content = load_checkpoint(
        _saved(
            tmp_path,
            {
                "epoch": 3,
                "arch": "ghostnet_050",
                "state_dict": _weights(2.0),
                "state_dict_ema": _weights(1.0),
                "optimizer": {"state": {}, "param_groups": []},
                "version": 2,
                "args": args,
                "metric": np.float64(71.5),
            },
        )
    )
    assert (content.arch, content.key) == ("ghostnet_050", "state_dict_ema")
    assert content.arch_kwargs == {"num_classes": 10, "in_chans": 3, "drop_rate": 0.1}
    assert content.preprocess_config == {"mean": [0.5, 0.5, 0.5], "crop_pct": 0.9}


def test_namespaces_stay_unsafe_for_everyone_else(tmp_path: Path) -> None:
    path = _saved(tmp_path, {"state_dict": _weights(), "args": argparse.Namespace(a=1)})
    load_checkpoint(path)
    with pytest.raises(Exception, match="Namespace"):
        torch.load(path, weights_only=True)


def _own(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "format": FORMAT,
        "arch": "timm/ghostnet_050",
        "arch_kwargs": {"num_classes": 2},
        "state_dict": {"w": torch.zeros(2, 2, dtype=torch.float16)},
        "preprocess": Preprocess(size=(16, 16)).to_dict(),
        "labels": ["cat", "dog"],
        "calibration": torch.zeros(4, 20, 20, 3, dtype=torch.uint8),
        "metrics": {"top1": 0.9},
        "training": {"command": "x"},
    }
    return {**content, **changes}


def test_deploykits_own_format(tmp_path: Path) -> None:
    content = load_checkpoint(_saved(tmp_path, _own()))
    assert content.preprocess == Preprocess(size=(16, 16))
    assert content.labels == ("cat", "dog")
    assert content.input_size == (3, 16, 16)
    assert content.calibration_sample is not None
    assert content.calibration_sample.shape == (4, 20, 20, 3)
    assert content.calibration_sample.dtype == np.uint8
    assert content.arch_kwargs == {"num_classes": 2}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arch": 3}, "arch"),
        ({"state_dict": {}}, "state_dict"),
        ({"labels": [1]}, "labels"),
        ({"calibration": torch.zeros(4, 20, 20, 3)}, "calibration"),
        ({"calibration": torch.zeros(4, 20, dtype=torch.uint8)}, "calibration"),
        ({"preprocess": {"size": [16]}}, "preprocess"),
        ({"preprocess": {"sice": [16, 16]}}, "preprocess"),
    ],
)
def test_deploykits_own_format_gone_wrong(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(SourceError, match=named):
        load_checkpoint(_saved(tmp_path, _own(**change)))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "created"
    path = _saved(tmp_path, {"state_dict": _weights(), "extra": Bomb(target)})
    with pytest.raises(SourceError, match="was not executed") as caught:
        load_checkpoint(path)
    assert not target.exists()
    assert "weights_only" not in str(caught.value)


def test_a_file_cut_among_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(
        {"w": torch.zeros(1000), "v": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False
    )
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(SourceError, match="cannot read"):
        load_checkpoint(path)
