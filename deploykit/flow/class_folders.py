"""Class folders beside a conversion: they name the classes, and say whether the network knows them.

No comparison of files shows a wrong architecture, a wrong mean or a wrong order of labels: the file
does what the network does, which is nonsense. The float reference's own top-1 on the user's folders
shows all three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploykit.errors import DataError
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.runners import opened_reference
from deploykit.model import Model
from deploykit.verdict import is_near_chance

#: So many images are measured on, at equal distances over the folders.
MEASURED = 200
_FEWEST_CLASSES = 2
_LISTED = 5


@dataclass(frozen=True)
class ReferenceAccuracy:
    """Top-1 of the float reference on class folders.

    Attributes:
        correct: Number of images named like their folder.
        total: Number of images.
        classes: Number of the model's classes.
    """

    correct: int
    total: int
    classes: int

    @property
    def share(self) -> float:
        """``correct / total``, 0..1."""
        return self.correct / self.total

    @property
    def warning(self) -> str:
        """What to doubt where it is near chance; else empty."""
        if not is_near_chance(self.share, self.total, self.classes):
            return ""
        return (
            f"the float reference names {self.correct} of {self.total} images like their class "
            f"folders, hardly more than guessing among {self.classes} classes would: the weights "
            "are not trained, or the architecture (--arch), the preprocessing (--mean, --std, "
            "--color, --resize) or the order of the labels (--labels) is another than in training"
        )


def folder_classes(model: Model, request: ConvertRequest) -> tuple[str, ...]:
    """Names of the class folders that fit a classifier; empty where none do.

    Args:
        model: The fused stage, whose shapes are known. Its labels, if it has any, must have the
            name of every folder; if it has none, there must be a folder for each of its classes.
        request: Whose calibration data may be class folders.
    """
    from deploykit.accuracy.labelled_files import class_folders

    folder = request.calibration
    outputs = model.outputs
    is_classifier = len(outputs) == 1 and len(outputs[0].shape) == 2
    if not isinstance(folder, Path) or not folder.is_dir() or len(model.inputs) != 1:
        return ()
    if not is_classifier or outputs[0].shape[1] < _FEWEST_CLASSES or model.preprocess is None:
        return ()
    try:
        names = class_folders(folder)
    except DataError:  # arrays, not images
        return ()
    fits = set(names) <= set(model.labels) if model.labels else len(names) == outputs[0].shape[1]
    return names if fits else ()


def with_folder_labels(
    model: Model, request: ConvertRequest, progress: Callable[[str], None]
) -> Model:
    """The model with labels of class folders, if it has none and their count fits."""
    names = folder_classes(model, request)
    if model.labels or not names:
        return model
    shown = ", ".join(f"{index} {name}" for index, name in enumerate(names[:_LISTED]))
    more = f", ... ({len(names)})" if len(names) > _LISTED else ""
    progress(f"labels: the class folders in the order of their names: {shown}{more}")
    return replace(model, labels=names)


def measure_reference(
    model: Model, fused: Model, request: ConvertRequest, progress: Callable[[str], None]
) -> ReferenceAccuracy | None:
    """Measure the float reference's top-1 on the class folders that calibrate; None without any.

    Args:
        model: The exported stage, with labels (`with_folder_labels`).
        fused: Its fused stage, whose shapes are known.
        request: Whose calibration data may be class folders.
        progress: Called with one line. Images that cannot be read, which calibration has told of,
            do not count.

    Raises:
        DataError: the network gives NaN.
        RunnerError: the reference cannot be run.
    """
    from deploykit.accuracy.labelled_files import read_class_folders
    from deploykit.accuracy.top1 import top1
    from deploykit.parity.samples import run_samples
    from deploykit.tensors import FloatArray

    folder = request.calibration
    if not folder_classes(fused, request) or not isinstance(folder, Path):
        return None
    if model.preprocess is None:
        raise AssertionError("a model without a contract was let through")
    images = read_class_folders(folder, model.labels).limited(MEASURED)
    good = [index for index, file in enumerate(images.files) if _is_readable(file)]
    if not good:
        return None
    files = tuple(images.files[index] for index in good)
    images = replace(images, files=files, labels=images.labels[np.array(good)])
    spec, result = fused.inputs[0], fused.outputs[0]
    with opened_reference(
        model, batch=spec.shape[0], threads=request.threads, timeout_s=request.timeout_s
    ) as runner:

        def predict(tensors: FloatArray) -> FloatArray:
            return run_samples(runner, {spec.name: tensors}, (spec,), (result,))[result.name]

        found = top1(predict, images, model.preprocess, batch=max(16, spec.shape[0]))
    accuracy = ReferenceAccuracy(found.correct, found.total, result.shape[1])
    progress(
        f"float reference: top-1 {accuracy.share:.1%} on {accuracy.total} images of the class "
        "folders" + ("; warning: near chance" if accuracy.warning else "")
    )
    return accuracy


def _is_readable(file: Path) -> bool:
    from deploykit.calibration.image_folder import open_image

    try:
        open_image(file)
    except DataError:
        return False
    return True
