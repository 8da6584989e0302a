from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from deploykit.errors import UnsupportedModelError
from deploykit.limits import Limits, limits_set
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
