from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from deploykit.accuracy.labelled_images import LabelledImages
from deploykit.accuracy.top1 import check_classes, top1
from deploykit.errors import DataError
from deploykit.preprocess import Preprocess

CONTRACT = Preprocess(size=(4, 4), color="GRAY", mean=(0.0,), std=(1.0,))
PIXELS = np.array([0, 128, 255, 255, 0], np.uint8)
DATA = LabelledImages(
    images=np.broadcast_to(PIXELS[:, None, None, None], (5, 4, 4, 1)).copy(),
    labels=np.array([0, 1, 2, 2, 1]),
    classes=("dark", "middling", "bright"),
)


def by_brightness(tensors: np.ndarray) -> np.ndarray:
    level = tensors.mean(axis=(1, 2, 3))[:, None]
    return -np.abs(level - np.array([[0.0, 0.5, 1.0]]))


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_counts_the_same_at_every_batch_size(batch: int) -> None:
    measured = top1(by_brightness, DATA, CONTRACT, batch)

    assert measured.predictions.tolist() == [0, 1, 2, 2, 0]
    assert measured.predictions.dtype == np.int64
    assert (measured.correct, measured.total) == (4, 5)
    assert measured.accuracy == 0.8


def test_the_model_sees_what_the_contract_makes_in_batches() -> None:
    seen = []

    def predict(tensors: np.ndarray) -> np.ndarray:
        seen.append(tensors)
        return by_brightness(tensors)

    top1(predict, DATA, CONTRACT, batch=2)

    assert [len(tensors) for tensors in seen] == [2, 2, 1]
    expected = np.stack([CONTRACT.apply(image) for image in DATA.images])
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    assert seen[0].dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 2), (1, 3), (2,), (2, 3, 1)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="output of shape"):
        top1(lambda _: np.zeros(shape), DATA, CONTRACT, batch=2)


def test_nan_is_no_prediction() -> None:
    with pytest.raises(DataError, match="NaN for an image among 2 to 3"):
        top1(
            lambda x: np.where(x.mean(axis=(1, 2, 3))[:, None] == 1, np.nan, np.zeros((len(x), 3))),
            DATA,
            CONTRACT,
            batch=2,
        )


@pytest.mark.parametrize("labels", [DATA.classes, list(DATA.classes), (), None])
def test_data_of_the_models_classes_are_let_through(labels: Sequence[str] | None) -> None:
    check_classes(labels, DATA)


@pytest.mark.parametrize(
    "labels", [("dark", "bright", "middling"), ("dark", "middling"), tuple("abcdef")]
)
def test_data_of_other_classes_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="dark, middling, bright") as caught:
        check_classes(labels, DATA)
    assert ", ".join(labels[:3]) in caught.value.expected
