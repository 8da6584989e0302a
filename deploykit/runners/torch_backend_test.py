from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deploykit.runners.torch_backend import TorchBackend


@pytest.fixture
def opened(monkeypatch: Any) -> list[Any]:
    """Replaces the source's loader by a network that takes two samples at a time; its calls."""
    calls: list[Any] = []

    def open_torch_reference(path: str, load_options: Mapping[str, Any]) -> Any:
        calls.append((path, load_options))

        def reference(samples: Any) -> dict[str, Any]:
            calls.append(samples.shape)
            return {"double": samples * 2, "mean": samples.mean(axis=(1, 2, 3))}

        return reference

    module = ModuleType("deploykit.sources.reference")
    module.open_torch_reference = open_torch_reference  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deploykit.sources.reference", module)
    return calls


def test_opens_the_source_and_runs_it_in_batches_of_its_own_size(opened: list[Any]) -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    try:
        backend = TorchBackend("net.pt", {"load_options": {"input_shape": [2, 1, 2, 2]}})
        samples = np.arange(24, dtype=np.float32).reshape(6, 1, 2, 2)
        outputs = backend.run({"whatever": samples})
        info = backend.info()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert opened == [("net.pt", {"input_shape": [2, 1, 2, 2]})] + [(2, 1, 2, 2)] * 3
    np.testing.assert_array_equal(outputs["double"], samples * 2)
    np.testing.assert_array_equal(outputs["mean"], samples.mean(axis=(1, 2, 3)))
    assert (info["runtime"], info["version"]) == ("torch", torch.__version__)
    assert info["threads"] == 1


def test_a_source_without_a_shape_takes_one_sample_at_a_time(opened: list[Any]) -> None:
    pytest.importorskip("torch")
    TorchBackend("net.pt", {"load_options": {"input_shape": []}}).run(
        {"x": np.zeros((3, 1, 2, 2), dtype=np.float32)}
    )
    assert opened[1:] == [(1, 1, 2, 2)] * 3


def test_the_batch_may_be_given(opened: list[Any]) -> None:
    pytest.importorskip("torch")
    TorchBackend("net.pt", {"batch": 3}).run({"x": np.zeros((6, 1, 2, 2), dtype=np.float32)})
    assert opened[1:] == [(3, 1, 2, 2)] * 2


def test_several_inputs_go_in_their_order(monkeypatch: Any) -> None:
    pytest.importorskip("torch")
    module = ModuleType("deploykit.sources.reference")
    module.open_torch_reference = lambda *_: lambda a, b: {"d": a - b}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deploykit.sources.reference", module)
    left, right = np.full((3, 2), 5, np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    outputs = TorchBackend("net.pt", {}).run({"z": left, "a": right})
    np.testing.assert_array_equal(outputs["d"], left - right)


def test_what_cannot_be_run_is_refused(opened: list[Any]) -> None:
    pytest.importorskip("torch")
    backend = TorchBackend("net.pt", {"load_options": {"input_shape": [2, 1, 2, 2]}})
    sample = np.zeros((2, 1, 2, 2), dtype=np.float32)
    for wrong in (sample[:1], sample[:0], np.array(1.0, dtype=np.float32)):
        with pytest.raises(ValueError, match="2 at a time"):
            backend.run({"a": wrong})
    with pytest.raises(ValueError, match="2 at a time"):
        backend.run({"a": sample, "b": np.zeros((4, 2), dtype=np.float32)})
    with pytest.raises(ValueError, match="2 at a time"):
        backend.run({})
    with pytest.raises(ValueError, match="'device'"):
        TorchBackend("net.pt", {"device": "cuda"})
    with pytest.raises(ValueError, match="at least 1"):
        TorchBackend("net.pt", {"batch": 0})
