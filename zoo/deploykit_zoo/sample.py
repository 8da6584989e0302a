"""A small labelled sample of Fashion-MNIST, to calibrate and to measure with."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from deploykit.accuracy.labelled_images import LabelledImages, draw_balanced
from deploykit.files import write_atomically


def write_sample(
    out: Path,
    train_data: LabelledImages,
    test_data: LabelledImages,
    *,
    test_images: int = 1000,
    calibration_images: int = 256,
    seed: int = 0,
) -> LabelledImages:
    """Write an ``.npz`` that `deploykit.accuracy.labelled_images.read_labelled_npz` reads.

    Its arrays are ``calibration`` (uint8 NHWC, training images), ``images`` (uint8 NHWC, test
    images), ``labels`` (int64) and ``classes`` (names). Every class has its even share of both.
    The same data and seed give the same bytes.

    Args:
        out: The file to write.
        train_data: The calibration images are drawn from it.
        test_data: The labelled images are drawn from it.
        test_images: How many of these.
        calibration_images: How many of those.
        seed: Of both draws.

    Returns:
        What was written.

    Raises:
        DataError: there are not that many images.
        BundleError: ``out`` cannot be written.
    """
    chosen = draw_balanced(test_data.labels, test_images, seed)
    calibration = draw_balanced(train_data.labels, calibration_images, seed)
    sample = LabelledImages(
        images=test_data.images[chosen],
        labels=test_data.labels[chosen],
        classes=test_data.classes,
        calibration=train_data.images[calibration],
    )
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        calibration=train_data.images[calibration],
        images=sample.images,
        labels=sample.labels,
        classes=np.array(sample.classes),
    )
    write_atomically(out, stream.getvalue())
    return sample
