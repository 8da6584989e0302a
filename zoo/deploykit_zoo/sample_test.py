from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.accuracy.labelled_images import LabelledImages, read_labelled_npz
from deploykit.errors import DataError
from deploykit_zoo.sample import write_sample


def make_data(seed: int) -> LabelledImages:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (60, 28, 28, 1), dtype=np.uint8)
    return LabelledImages(images, np.arange(60) % 3, ("a", "b", "c"))


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_the_sample_is_balanced_and_each_part_from_its_own_split(tmp_path: Path) -> None:
    train, test = make_data(0), make_data(1)

    write_sample(tmp_path / "s.npz", train, test, test_images=30, calibration_images=12)
    sample = read_labelled_npz(tmp_path / "s.npz")

    assert np.bincount(sample.labels).tolist() == [10, 10, 10]
    assert sample.classes == ("a", "b", "c")
    assert sample.calibration is not None
    assert rows(sample.images) < rows(test.images)
    assert rows(sample.calibration) < rows(train.images)
    assert len(rows(sample.calibration)) == 12
    of_image = {
        image.tobytes(): label for image, label in zip(test.images, test.labels, strict=True)
    }
    assert [of_image[image.tobytes()] for image in sample.images] == sample.labels.tolist()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_sample(
            tmp_path / name,
            make_data(0),
            make_data(1),
            test_images=30,
            calibration_images=12,
            seed=seed,
        )

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_too_few_images_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 100"):
        write_sample(tmp_path / "s.npz", make_data(0), make_data(1), test_images=300)

    assert not list(tmp_path.iterdir())
