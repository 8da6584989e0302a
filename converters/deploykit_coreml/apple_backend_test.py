"""Apple's runtime: the code path, with a stand-in for ``MLModel``; no Mac has run it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.errors import RunnerError
from deploykit.model import Model
from deploykit.preprocess import Preprocess
from deploykit.runners.registry import available_runners, why_unavailable
from deploykit_coreml import TARGET
from deploykit_coreml.apple_backend import CoremlBackend, as_image
from deploykit_coreml.load_coremltools import load_coremltools
from deploykit_coreml.reference_backend import ReferenceBackend
from deploykit_testing.coreml import Written, normal, stage_of, write

CONTRACT = Preprocess(size=(6, 6), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


class StandIn:
    """Has MLModel's interface, and computes with the reference executor."""

    def __init__(self, path: str, compute_units: object = None) -> None:
        self._backend = ReferenceBackend(path, {})
        self.units = compute_units
        self.seen: list[Mapping[str, Any]] = []

    def predict(self, data: Mapping[str, Any]) -> dict[str, Any]:
        self.seen.append(data)
        arrays = {}
        for name, value in data.items():
            if isinstance(value, np.ndarray):
                arrays[name] = value
            else:  # as Core ML does: 8-bit pixels in the package's order of channels
                pixels = np.asarray(value, np.float32).transpose(2, 0, 1)[None]
                mean = np.asarray(CONTRACT.mean, np.float32).reshape(1, -1, 1, 1)
                std = np.asarray(CONTRACT.std, np.float32).reshape(1, -1, 1, 1)
                arrays[name] = (pixels / 255 - mean) / std
        return {**self._backend.run(arrays), "classLabel": "trousers"}


class Refusing(StandIn):
    def predict(self, data: Mapping[str, Any]) -> dict[str, Any]:
        raise RuntimeError("Error computing NN outputs.")


def convolution() -> Model:
    model = stage_of(
        "y = Conv<kernel_shape=[3,3]>(x, W)", "float[1,3,6,6] x", "y", {"W": normal(2, 3, 3, 3)}
    )
    return replace(model, preprocess=CONTRACT)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path, convolution())


@pytest.fixture
def pictured(tmp_path: Path) -> Written:
    return write(tmp_path / "pictured", convolution(), input="image")


@pytest.fixture
def on_a_mac(monkeypatch: pytest.MonkeyPatch, written: Written, pictured: Written) -> None:
    """Once the packages are written: coremltools itself makes an MLModel on the way."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(load_coremltools().models, "MLModel", StandIn)


def test_it_is_offered_on_a_mac_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> list[str]:
        return [r.name for r in available_runners(TARGET.runners)]

    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert names() == ["coreml-reference"]
    assert "this is Linux" in why_unavailable(TARGET.runners[0])
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert names() == ["coreml", "coreml-reference"]


def test_elsewhere_it_says_what_to_do(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    with pytest.raises(RunnerError, match="deploykit verify BUNDLE --runner coreml"):
        CoremlBackend(str(written.folder), {})


@pytest.mark.usefixtures("on_a_mac")
def test_samples_go_in_one_by_one_and_arrays_come_out(written: Written) -> None:
    backend = CoremlBackend(str(written.folder), {"compute_units": "CPU_ONLY"})
    x = normal(3, 3, 6, 6)
    found = backend.run({"x": x})
    assert set(found) == {"y"}
    wanted = ReferenceBackend(str(written.folder), {}).run({"x": x})["y"]
    np.testing.assert_array_equal(found["y"], wanted)
    info = backend.info()
    assert (info["runtime"], info["version"], info["kernels"]) == ("Core ML", "15.1", "CPU_ONLY")
    with pytest.raises(LookupError):
        backend.run_all({"x": x})


@pytest.mark.usefixtures("on_a_mac")
def test_a_image_input_gets_a_image(pictured: Written, written: Written) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    tensor = CONTRACT.apply(pixels)[None]
    np.testing.assert_array_equal(np.asarray(as_image(tensor, CONTRACT)), pixels)
    found = CoremlBackend(str(pictured.folder), {}).run({"x": tensor})["y"]
    plain = ReferenceBackend(str(written.folder), {}).run({"x": tensor})["y"]
    np.testing.assert_allclose(found, plain, atol=1e-4)
    with pytest.raises(RunnerError, match="0 to 255"):
        as_image(tensor + 9, CONTRACT)


def test_channels_of_a_image_are_in_the_order_of_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    contract = replace(CONTRACT, color="BGR")
    image = as_image(contract.apply(pixels)[None], contract)
    np.testing.assert_array_equal(np.asarray(image), pixels)
    grey = Preprocess(size=(6, 6), color="GRAY", mean=(0.5,), std=(0.5,))
    assert as_image(grey.apply(pixels[..., 0])[None], grey).mode == "L"


@pytest.mark.usefixtures("on_a_mac")
def test_refusals(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunnerError, match="compute_units"):
        CoremlBackend(str(written.folder), {"compute_units": "MAGIC"})
    with pytest.raises(RunnerError, match="the inputs of the package"):
        CoremlBackend(str(written.folder), {}).run({"z": normal(1, 3, 6, 6)})
    monkeypatch.setattr(load_coremltools().models, "MLModel", Refusing)
    with pytest.raises(RunnerError, match="Error computing NN outputs"):
        CoremlBackend(str(written.folder), {}).run({"x": normal(1, 3, 6, 6)})
