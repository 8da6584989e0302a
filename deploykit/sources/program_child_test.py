from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import UnsupportedModelError
from deploykit.limits import Limits, limits_set
from deploykit.runners.base import RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.sources.load import load
from deploykit.sources.options import LoadOptions


class Endless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool((x == x).all()):
            x = x + 1
        return x


def test_a_program_that_never_ends_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "endless.pt"
    torch.jit.script(Endless()).save(path)
    with (
        limits_set(Limits(program_seconds=20)),
        pytest.raises(UnsupportedModelError, match="took longer than 20 s"),
    ):
        load(path, options=LoadOptions(input_shape=(1, 3, 8, 8)))


def test_the_reference_of_a_program_is_confined_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "net.pt"
    torch.jit.trace(nn.ReLU(), torch.zeros(1, 3, 8, 8)).save(path)
    options = LoadOptions(input_shape=(1, 3, 8, 8))
    spec = RunnerSpec("torch", str(path), {"load_options": options.to_dict()})
    with open_runner(spec) as runner:
        assert len(list((tmp_path / "scratch").iterdir())) == 1
        given = np.full((1, 3, 8, 8), -1, np.float32)
        assert not runner.run({"input": given})["output"].any()
    assert list((tmp_path / "scratch").iterdir()) == []
