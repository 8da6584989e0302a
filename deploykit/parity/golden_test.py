from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from deploykit.calibration.data import CalibrationData
from deploykit.errors import ContractError
from deploykit.model import Model, SourceInfo, Stage
from deploykit.parity.golden import MOST_KEPT, make_golden_inputs
from deploykit.preprocess import Preprocess


def model(inputs: str = "float[1,3,32,24] x", preprocess: Preprocess | None = None) -> Model:
    first = inputs.split(",")[-1].split()[-1]
    text = f'<ir_version: 9, opset_import: ["" : 20]> g ({inputs}) => (y) {{ y = Relu ({first}) }}'
    graph = ir.from_proto(onnx.parser.parse_model(text))
    return Model(graph, Stage.EXPORTED, "net", SourceInfo("onnx"), preprocess)


CONTRACT = Preprocess(size=(32, 24), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1))


def test_synthetic_images_fill_the_contracts_range_and_are_smooth() -> None:
    x = make_golden_inputs(model(preprocess=CONTRACT), None, 4)["x"]
    assert (x.shape, x.dtype.name) == ((4, 3, 32, 24), "float32")
    image = x * np.reshape(CONTRACT.std, (3, 1, 1)) + np.reshape(CONTRACT.mean, (3, 1, 1))
    assert image.min() >= -1e-6
    assert image.max() <= 1 + 1e-6
    assert np.ptp(image, axis=(2, 3)).min() > 0.5
    neighbours = np.abs(np.diff(image, axis=3)).mean()
    shuffled = np.random.default_rng(0).permuted(image, axis=3)
    assert neighbours < 0.6 * np.abs(np.diff(shuffled, axis=3)).mean()
    assert len({sample.tobytes() for sample in x}) == 4


def test_synthetic_samples_are_the_same_bits_everywhere() -> None:
    x = make_golden_inputs(model(preprocess=CONTRACT), None, 2)["x"]
    digest = hashlib.sha256(x.tobytes()).hexdigest()
    assert digest == "5305c863eeb2efdd1da0e998a191ceeb57960ba79d3b2a0f9b26f34f87a306ad"
    more = make_golden_inputs(model(preprocess=CONTRACT), None, 5)["x"]
    np.testing.assert_array_equal(more[:2], x)


def test_without_a_contract_images_are_in_0_1_and_other_inputs_in_minus_1_1() -> None:
    golden = make_golden_inputs(model("float[1,8] v, float[1,1,1,5] x"), None, 16)
    assert set(golden) == {"v", "x"}
    assert golden["v"].shape == (16, 8)
    assert golden["v"].min() < -0.8
    assert 0.8 < golden["v"].max() < 1
    assert golden["x"].shape == (16, 1, 1, 5)
    assert golden["x"].min() >= 0
    assert golden["x"].max() <= 1


def counted(count: int) -> CalibrationData:
    return CalibrationData(
        "numbers", count, lambda i: {"x": np.full((3, 32, 24), i, dtype=np.float32)}
    )


@pytest.mark.parametrize(
    ("available", "count", "picked"),
    [(100, 4, [12, 37, 62, 87]), (5, 5, [0, 1, 2, 3, 4]), (3, 16, [0, 1, 2]), (7, 1, [3])],
)
def test_real_samples_are_taken_at_equal_distances(
    available: int, count: int, picked: list[int]
) -> None:
    x: Any = make_golden_inputs(model(), counted(available), count)["x"]
    assert x[:, 0, 0, 0].tolist() == picked
    assert x.dtype == np.float32


def test_the_first_samples_stand_for_all_and_none_comes_twice() -> None:
    """They are what a bundle keeps."""
    x: Any = make_golden_inputs(model(), counted(640))["x"]
    picked = x[:, 0, 0, 0].astype(int).tolist()
    assert len(set(picked)) == len(picked) == 64
    steps = np.diff(picked[:MOST_KEPT])
    assert steps.tolist() == [40] * 15
    assert len(make_golden_inputs(model(), counted(40))["x"]) == 40
    assert len(make_golden_inputs(model(), None)["x"]) == MOST_KEPT


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ContractError, match="0 golden inputs"):
        make_golden_inputs(model(), None, 0)
