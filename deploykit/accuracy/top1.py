"""How many images a model names rightly, with the images prepared by its own contract."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deploykit.accuracy.labelled_images import LabelledImages
from deploykit.errors import DataError
from deploykit.preprocess import Preprocess

#: Top-5.
_TOP = 5

FloatArray = npt.NDArray[np.float32]


class LabelledSet(Protocol):
    """Images and what is on them, each read when it is asked for."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(n,): the class of each image."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class."""

    def __len__(self) -> int:
        """Number of images."""

    def read(self, index: int) -> Any:
        """One image: a PIL image, or uint8 (height, width, channels)."""


Predict = Callable[[FloatArray], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Top1:
    """What `top1` measured.

    Attributes:
        correct: Number of images whose highest logit is that of their label.
        total: Number of images.
        predictions: int64 of shape (total,): the class of the highest logit of each image; of
            equal ones the first.
        labels: int64 of shape (total,): what is on them.
        correct5: Number of images whose label is among the five highest; None below six classes.
        seconds: What ``predict`` took, without the preparation of images.
    """

    correct: int
    total: int
    predictions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    correct5: int | None = None
    seconds: float = 0.0

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


def top1(predict: Predict, data: LabelledSet, preprocess: Preprocess, batch: int = 250) -> Top1:
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
    among_five, seconds = 0, 0.0
    for start in range(0, len(data), batch):
        stop = min(start + batch, len(data))
        tensors = np.stack([preprocess.apply(data.read(index)) for index in range(start, stop)])
        started = time.perf_counter()
        logits = np.asarray(predict(tensors))
        seconds += time.perf_counter() - started
        if logits.ndim != 2 or len(logits) != len(tensors) or logits.shape[1] < len(data.classes):
            raise DataError(
                f"the model gave an output of shape {logits.shape} for {len(tensors)} images",
                expected=f"({len(tensors)}, {len(data.classes)}): a logit for each class of the "
                "data",
                advice="measure the model on the classes that it was trained for",
            )
        if np.isnan(logits).any():
            raise DataError(f"the model gave NaN for an image among {start} to {start + batch - 1}")
        predictions[start:stop] = logits.argmax(axis=1)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :_TOP]
        among_five += int((best == data.labels[start:stop, None]).any(axis=1).sum())
        classes = logits.shape[1]
    correct = int(np.count_nonzero(predictions == data.labels))
    fifth = among_five if classes > _TOP else None
    return Top1(correct, len(data), predictions, data.labels, fifth, seconds)
