from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from deploykit.accuracy.labelled_images import (
    FASHION_MNIST_CLASSES,
    LabelledImages,
    draw_balanced,
    read_idx_folder,
    read_labelled_images,
    read_labelled_npz,
)
from deploykit.errors import DataError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([9, 0, 4], np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, images: bytes, labels: bytes, prefix: str = "train") -> Path:
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_reads_a_split_with_one_channel_and_int64_labels(tmp_path: Path) -> None:
    data = read_idx_folder(write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS)), "train")

    np.testing.assert_array_equal(data.images, IMAGES[..., None])
    assert data.images.dtype == np.uint8
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [9, 0, 4]
    assert data.classes == FASHION_MNIST_CLASSES
    assert data.calibration is None


def test_reads_files_that_are_not_gzipped(tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS))

    np.testing.assert_array_equal(read_labelled_images(tmp_path).images, IMAGES[..., None])


def test_the_splits_are_different_files(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS), "train")
    write_idx(tmp_path, idx_bytes(IMAGES[::-1]), idx_bytes(LABELS[::-1]), "t10k")

    assert read_idx_folder(tmp_path, "train").labels.tolist() == [9, 0, 4]
    assert read_idx_folder(tmp_path, "test").labels.tolist() == [4, 0, 9]


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_idx_folder(tmp_path, "test")

    assert "t10k-images-idx3-ubyte" in caught.value.found
    assert "--data" in caught.value.advice


@pytest.mark.parametrize(
    ("images", "found"),
    [
        pytest.param(idx_bytes(IMAGES)[:-1], "59 bytes after its header", id="too short"),
        pytest.param(idx_bytes(IMAGES) + b"\0", "61 bytes after its header", id="too long"),
        pytest.param(idx_bytes(IMAGES)[:9], "within its header", id="half a header"),
        pytest.param(b"", "(none)", id="empty"),
        pytest.param(b"\x89PNG....", "89 50 4e 47", id="an image"),
        pytest.param(idx_bytes(LABELS), "00 00 08 01", id="labels in place of images"),
        pytest.param(b"\0\0\x08\x03" + b"\xff" * 12, "0 bytes after its header", id="huge"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, images: bytes, found: str) -> None:
    write_idx(tmp_path, images, idx_bytes(LABELS))

    with pytest.raises(DataError) as caught:
        read_idx_folder(tmp_path, "train")

    assert "train-images-idx3-ubyte.gz" in caught.value.found
    assert found in caught.value.found
    assert caught.value.expected
    assert caught.value.advice


@pytest.mark.parametrize("damage", ["truncated", "no gzip", "corrupt"])
def test_damaged_compression_is_a_data_error(tmp_path: Path, damage: str) -> None:
    write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS))
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    content = {
        "truncated": whole[:-12],
        "no gzip": idx_bytes(IMAGES),
        "corrupt": whole[:12] + bytes(255 - byte for byte in whole[12:20]) + whole[20:],
    }
    file.write_bytes(content[damage])

    with pytest.raises(DataError, match="cannot be unpacked"):
        read_idx_folder(tmp_path, "train")


def test_images_and_labels_must_be_equally_many(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS[:2]))

    with pytest.raises(DataError, match=r"3 images and .* has 2 labels"):
        read_idx_folder(tmp_path, "train")


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS))

    with pytest.raises(DataError, match="labels from 0 to 9"):
        read_idx_folder(tmp_path, "train", classes=("a", "b"))


def test_a_sample_is_read_with_its_classes_and_calibration(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "sample.npz",
        images=np.ones((2, 4, 4, 3), np.uint8),
        labels=np.array([1, 0]),
        classes=np.array(["cat", "dog"]),
        calibration=np.zeros((5, 4, 4, 3), np.uint8),
    )

    data = read_labelled_images(path)

    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [1, 0]
    assert data.calibration is not None
    assert data.calibration.shape == (5, 4, 4, 3)


def test_a_sample_without_names_has_numbers(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "a.npz", images=np.ones((2, 4, 4, 1), np.uint8), labels=np.array([2, 0])
    )

    data = read_labelled_npz(path)

    assert data.classes == ("0", "1", "2")
    assert data.calibration is None


NPZ_IMAGES = np.ones((2, 4, 4, 1), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        pytest.param({"images": NPZ_IMAGES}, "without labels", id="no labels"),
        pytest.param({"labels": np.zeros(2, np.int64)}, "without images", id="no images"),
        pytest.param(
            {"images": NPZ_IMAGES.astype(np.float32), "labels": np.zeros(2, np.int64)},
            "images of dtype float32",
            id="float images",
        ),
        pytest.param(
            {"images": NPZ_IMAGES[..., 0], "labels": np.zeros(2, np.int64)},
            r"shape \(2, 4, 4\)",
            id="no channels",
        ),
        pytest.param(
            {"images": NPZ_IMAGES, "labels": np.zeros(2, np.float32)},
            "labels of dtype float32",
            id="float labels",
        ),
        pytest.param(
            {"images": NPZ_IMAGES, "labels": np.zeros(3, np.int64)}, r"shape \(3,\)", id="counts"
        ),
        pytest.param(
            {"images": NPZ_IMAGES, "labels": np.array([0, -1])}, "from -1 to 0", id="negative"
        ),
        pytest.param(
            {"images": NPZ_IMAGES, "labels": np.array([0, 2**40])}, "to 1099511627776", id="absurd"
        ),
        pytest.param(
            {"images": NPZ_IMAGES[:0], "labels": np.zeros(0, np.int64)}, "a single image", id="none"
        ),
        pytest.param(
            {
                "images": NPZ_IMAGES,
                "labels": np.zeros(2, np.int64),
                "calibration": NPZ_IMAGES.astype(np.float32),
            },
            "calibration of dtype float32",
            id="float calibration",
        ),
    ],
)
def test_a_sample_that_is_no_sample(
    tmp_path: Path, arrays: dict[str, np.ndarray], found: str
) -> None:
    with pytest.raises(DataError, match=found):
        read_labelled_npz(write_npz(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 half a zip file"])
def test_a_file_that_is_no_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        read_labelled_npz(path)


def test_a_truncated_npz(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", images=NPZ_IMAGES, labels=np.zeros(2, np.int64))
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        read_labelled_npz(path)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "a.npz", images=np.array([{}], dtype=object), labels=np.zeros(1, np.int64)
    )

    with pytest.raises(DataError, match="holds object"):
        read_labelled_npz(path)


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", NPZ_IMAGES)

    with pytest.raises(DataError, match="single array"):
        read_labelled_npz(tmp_path / "a.npy")


def test_a_path_with_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        read_labelled_images(tmp_path / "nothing.npz")


def test_a_balanced_draw_gives_each_class_its_share() -> None:
    labels = np.repeat(np.arange(3), [50, 20, 30])

    chosen = draw_balanced(labels, 20, seed=1)

    assert np.bincount(labels[chosen]).tolist() == [7, 7, 6]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, draw_balanced(labels, 20, seed=1))
    assert chosen.tolist() != draw_balanced(labels, 20, seed=2).tolist()


def test_a_balanced_draw_of_too_many() -> None:
    with pytest.raises(DataError, match="class 1 has 2 images"):
        draw_balanced(np.array([0, 0, 0, 1, 1]), 6, seed=0)


def test_labelled_images_have_a_length() -> None:
    assert len(LabelledImages(NPZ_IMAGES, np.zeros(2, np.int64), ("a",))) == 2


@pytest.mark.parametrize("shape", [(3, 0, 5), (3, 4, 0)])
def test_images_without_a_pixel_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_idx(tmp_path, idx_bytes(np.zeros(shape, np.uint8)), idx_bytes(LABELS))

    with pytest.raises(DataError, match=f"images of {shape[1]} x {shape[2]} pixels"):
        read_idx_folder(tmp_path, "train")
