"""How many images a model names rightly, with the images prepared by its own contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deploykit.accuracy.labelled_images import LabelledImages
from deploykit.errors import DataError
from deploykit.preprocess import Preprocess

FloatArray = npt.NDArray[np.float32]
Predict = Callable[[FloatArray], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Top1:
    """What `top1` measured.

    Attributes:
        correct: Number of images whose highest logit is that of their label.
        total: Number of images.
        predictions: int64 of shape (total,): the class of the highest logit of each image; of
            equal ones the first.
    """

    correct: int
    total: int
    predictions: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """``correct / total``, from 0 to 1."""
        return self.correct / self.total


def check_classes(labels: Sequence[str] | None, data: LabelledImages) -> None:
    """Refuse data of other classes than a model's.

    Args:
        labels: The model's, in the order of its outputs; None or empty if it does not say.
        data: The labelled images.

    Raises:
        DataError: other classes, or another order.
    """
    if labels and tuple(labels) != data.classes:
        raise DataError(
            f"the data have the classes {_some(data.classes)}",
            expected=f"those of the model: {_some(labels)}",
            advice="measure the model on the classes that it was trained for",
        )


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"


def top1(predict: Predict, data: LabelledImages, preprocess: Preprocess, batch: int = 250) -> Top1:
    """Measure the top-1 accuracy of a model.

    Args:
        predict: From float32 of shape (n, channels, height, width) to logits (or probabilities) of
            shape (n, classes). The last batch may be a smaller one; a model with a fixed batch of
            one wants ``batch=1``.
        data: The labelled images.
        preprocess: Makes the tensor of each image.
        batch: Number of images given to ``predict`` at once.

    Raises:
        DataError: what ``predict`` gave has another shape, or NaN in it.
    """
    predictions = np.empty(len(data), np.int64)
    for start in range(0, len(data), batch):
        images = data.images[start : start + batch]
        tensors = np.stack([preprocess.apply(image) for image in images])
        logits = np.asarray(predict(tensors))
        if logits.ndim != 2 or len(logits) != len(tensors) or logits.shape[1] < len(data.classes):
            raise DataError(
                f"the model gave an output of shape {logits.shape} for {len(tensors)} images",
                expected=f"({len(tensors)}, {len(data.classes)}): a logit for each class of the "
                "data",
                advice="measure the model on the classes that it was trained for",
            )
        if np.isnan(logits).any():
            raise DataError(f"the model gave NaN for an image among {start} to {start + batch - 1}")
        predictions[start : start + batch] = logits.argmax(axis=1)
    correct = int(np.count_nonzero(predictions == data.labels))
    return Top1(correct=correct, total=len(data), predictions=predictions)
