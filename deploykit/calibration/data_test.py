from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploykit.calibration.data import load_calibration_data, sample_as_data
from deploykit.errors import ContractError, DataError
from deploykit.limits import Limits, limits_set
from deploykit.preprocess import Preprocess
from deploykit.tensors import TensorSpec
from deploykit_testing.graphs import as_model, parse

INPUT = TensorSpec("x", (1, 3, 6, 8), layout="NCHW")
CONTRACT = Preprocess(size=(6, 8))


def write_images(folder: Path, count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    (folder / "b").mkdir(parents=True)
    found = []
    for index in range(count):
        pixels = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        where = folder / ("b" if index % 2 else ".") / f"{index}.PNG"
        Image.fromarray(pixels).save(where, format="png")
        found.append(pixels)
    return found


def test_a_folder_is_read_recursively_in_order_and_through_the_contract(tmp_path: Path) -> None:
    pixels = write_images(tmp_path)
    (tmp_path / ".DS_Store").write_text("x")
    data = load_calibration_data(tmp_path, INPUT, CONTRACT)
    assert data.count == 5
    batches = [batch["x"] for batch in data.batches(2)]
    assert [b.shape for b in batches] == [(2, 3, 6, 8)] * 3
    # The last sample fills the last batch.
    expected = np.stack([CONTRACT.apply(pixels[i]) for i in (0, 2, 4, 1, 3, 3)])
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    assert batches[0].dtype == np.float32


def test_images_are_held_one_batch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, 7)
    opened: list[str] = []
    real = Image.open

    def spy(path: Path, *args: object) -> Image.Image:
        opened.append(Path(path).name)
        return real(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", spy)
    data = load_calibration_data(tmp_path, INPUT, CONTRACT)
    opened.clear()  # each was decoded once, to see that all are readable
    stream = data.batches(3)
    assert opened == []
    next(stream)
    assert len(opened) == 3
    next(stream)
    assert len(opened) == 6


def test_a_limit_takes_samples_from_all_over_the_set(tmp_path: Path) -> None:
    array = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones(
        (10, 3, 6, 8), np.float32
    )
    np.save(tmp_path / "a.npy", array)
    data = load_calibration_data(tmp_path / "a.npy", INPUT, None, limit=4)
    assert [float(s[0, 0, 0]) for b in data.batches(4) for s in b["x"]] == [0, 2, 5, 7]
    assert data.description == "4 of 10 tensors of a.npy"
    assert load_calibration_data(tmp_path / "a.npy", INPUT, None, limit=40).count == 10
    with pytest.raises(DataError, match="limit of 0"):
        load_calibration_data(tmp_path / "a.npy", INPUT, None, limit=0)


def test_paths_with_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no calibration data at"):
        load_calibration_data(tmp_path / "missing", INPUT, CONTRACT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        load_calibration_data(tmp_path / "empty", INPUT, CONTRACT)
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(DataError, match="cannot read calibration data"):
        load_calibration_data(tmp_path / "text.npy", INPUT, CONTRACT)
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot read calibration data"):
        load_calibration_data(tmp_path / "pickle.npy", INPUT, CONTRACT)
    np.savez(tmp_path / "cut.npz", a=np.ones((4, 3, 6, 8), np.float32))
    raw = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="cannot read calibration data"):
        load_calibration_data(tmp_path / "cut.npz", INPUT, CONTRACT)


def test_images_need_a_contract_that_fits(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(ContractError, match="--preprocess"):
        load_calibration_data(tmp_path, INPUT, None)
    with pytest.raises(ContractError, match=r"\(3, 5, 8\)"):
        load_calibration_data(tmp_path, INPUT, Preprocess(size=(5, 8)))


def test_tensors_in_both_layouts(tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((4, 3, 6, 8)).astype(np.float32)
    np.save(tmp_path / "first.npy", array)
    np.save(tmp_path / "last.npy", array.transpose(0, 2, 3, 1))
    for name in ("first", "last"):
        data = load_calibration_data(tmp_path / f"{name}.npy", INPUT, None)
        np.testing.assert_array_equal(next(data.batches(4))["x"], array)


def test_an_array_that_could_be_both_is_read_channels_first(tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((2, 3, 3, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    data = load_calibration_data(tmp_path / "a.npy", TensorSpec("x", (1, 3, 3, 3)), None)
    np.testing.assert_array_equal(next(data.batches(2))["x"], array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 3, 8, 6), np.float32), r"shape \(4, 3, 8, 6\)"),
        (np.zeros((4, 3, 6, 8), np.float64), "dtype float64"),
        (np.zeros((4, 3, 6, 8), np.int32), "dtype int32"),
        (np.zeros((0, 3, 6, 8), np.float32), "empty"),
        (np.zeros((4, 6, 8, 2), np.uint8), r"shape \(4, 6, 8, 2\)"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        load_calibration_data(tmp_path / "a.npy", INPUT, CONTRACT)


@pytest.mark.parametrize("shape", [(4, 10, 9), (4, 10, 9, 1), (4, 10, 9, 3), (4, 3, 10, 9)])
def test_bytes_are_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    (batch,) = load_calibration_data(tmp_path / "a.npy", INPUT, CONTRACT).batches(4)
    image = array[2].transpose(1, 2, 0) if shape[1] == 3 else array[2]
    np.testing.assert_array_equal(batch["x"][2], CONTRACT.apply(np.ascontiguousarray(image)))


def test_archives(tmp_path: Path) -> None:
    ones = np.ones((1, 3, 6, 8), np.float32)
    np.savez(tmp_path / "both.npz", images=ones, calibration=2 * ones, labels=np.zeros(1))
    np.savez(tmp_path / "images.npz", images=3 * ones, labels=np.zeros(1))
    np.savez(tmp_path / "only.npz", anything=4 * ones)
    np.savez(tmp_path / "unclear.npz", a=ones, b=ones)
    np.savez(tmp_path / "named.npz", x=5 * ones, b=ones)
    for name, value in (("both", 2), ("images", 3), ("only", 4), ("named", 5)):
        (batch,) = load_calibration_data(tmp_path / f"{name}.npz", INPUT, None).batches(4)
        assert batch["x"].max() == value
    with pytest.raises(DataError, match="holds the arrays a, b"):
        load_calibration_data(tmp_path / "unclear.npz", INPUT, None)


def test_the_checkpoints_own_sample() -> None:
    text = "agraph (float[1, 3, 6, 8] x) => (float[1, 3, 6, 8] y) { y = Relu (x) }"
    model = as_model(parse(text))
    assert sample_as_data(model) is None
    pixels = np.random.default_rng(1).integers(0, 255, (5, 6, 8, 3), dtype=np.uint8)
    with pytest.raises(ContractError, match="own sample"):
        sample_as_data(replace(model, calibration_sample=pixels))
    data = sample_as_data(replace(model, calibration_sample=pixels, preprocess=CONTRACT), 2)
    assert data is not None
    assert data.count == 2
    np.testing.assert_array_equal(next(data.batches(2))["x"][1], CONTRACT.apply(pixels[2]))


def test_fingerprints_tell_sets_apart(tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((4, 3, 6, 8)).astype(np.float32)
    prints = []
    for one in (array, array.transpose(0, 2, 3, 1), array[::-1], array[:3]):
        np.save(tmp_path / "a.npy", one)
        prints.append(load_calibration_data(tmp_path / "a.npy", INPUT, None).fingerprint())
    assert prints[0] == prints[1]  # the same tensors, whatever the layout in the file
    assert len(set(prints)) == 3


def test_more_samples_than_the_limit_are_refused_and_fewer_of_them_taken(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 5)
    np.save(tmp_path / "tensors.npy", np.zeros((5, 3, 6, 8), np.float32))
    with limits_set(Limits(samples=4)):
        for path in (tmp_path / "photos", tmp_path / "tensors.npy"):
            with pytest.raises(DataError, match="5 samples") as raised:
                load_calibration_data(path, INPUT, CONTRACT)
            assert "--max samples=N" in str(raised.value)
            assert load_calibration_data(path, INPUT, CONTRACT, limit=4).count == 4
