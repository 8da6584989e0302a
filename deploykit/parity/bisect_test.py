"""Bisecting a chain of layers that each add one, on runtimes with faults of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from deploykit.file_layers import CutLayer
from deploykit.parity.bisect import Bisection, bisect_file
from deploykit.runners.base import Runner, RunnerInfo
from deploykit.tensors import Array

CHAIN = tuple(
    CutLayer(
        f"l{i}",
        "Add",
        (f"v{i}",),
        (f"v{i + 1}",),
        files={".txt": b"%d" % i},
        workaround="mask",
        mended={".txt": b"mended %d" % i},
    )
    for i in range(6)
)


class ChainRunner(Runner):
    """The chain, or one of its layers; ``error`` is added to what a layer makes."""

    def __init__(self, path: Path, error: Callable[[int], float]) -> None:
        text = path.read_text()
        self._mended = text.startswith("mended")
        self._layers = range(6) if text == "all" else (int(text.split()[-1]),)
        self._error = error

    @property
    def info(self) -> RunnerInfo:
        return RunnerInfo("chain", "chain", "1", "-", "-", 1)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        values = dict(inputs)
        for i in self._layers:
            error = 0.0 if self._mended else self._error(i)
            values[f"v{i + 1}"] = np.float32(values[f"v{i}"] + 0.1 + error)
        return {name: values[name] for name in values if name not in inputs}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.run_all(inputs)

    def close(self) -> None:
        pass


def found_with(tmp_path: Path, error: Callable[[int], float]) -> Bisection:
    path = tmp_path / "model.txt"
    path.write_text("all")
    inputs = {"v0": np.ones((2, 3), np.float32)}
    return bisect_file(
        path,
        CHAIN,
        inputs,
        suspected=lambda p: ChainRunner(p, error),
        trusted=lambda p: ChainRunner(p, lambda _: 0.0),
    )


def test_small_errors_agree(tmp_path: Path) -> None:
    found = found_with(tmp_path, lambda _: 1e-4)
    assert (found.cause, found.layer, found.tried) == ("agrees", None, ())
    assert found.worst_value == "v6"


def test_rounding_that_adds_up_is_no_fault(tmp_path: Path) -> None:
    found = found_with(tmp_path, lambda _: 0.015)
    assert found.cause == "rounding"
    assert found.worst > 0.02
    assert found.layer is None


@pytest.mark.parametrize("wrong", [0, 3, 5])
def test_the_first_wrong_layer_is_found_amid_rounding(tmp_path: Path, wrong: int) -> None:
    found = found_with(tmp_path, lambda i: 0.5 if i == wrong else 0.001)
    assert (found.cause, found.layer) == ("kernel fault", f"l{wrong}")
    assert found.alone is not None
    assert found.alone > 0.2


def test_a_work_around_is_named_only_where_it_helps(tmp_path: Path) -> None:
    assert found_with(tmp_path, lambda i: 0.5 * (i == 0)).workaround == "mask"
    assert found_with(tmp_path, lambda i: float("nan") if i == 2 else 0.0).alone == float("inf")
