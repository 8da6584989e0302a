from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploykit.calibration.collect import collect_statistics
from deploykit.calibration.named_data import load_named_data, samples_as_data
from deploykit.errors import ContractError, DataError
from deploykit.model import Stage
from deploykit.preprocess import Preprocess
from deploykit.tensors import TensorSpec
from deploykit_testing.graphs import as_model, parse

IMAGE = TensorSpec("x", (1, 3, 6, 8), layout="NCHW")
SIZE = TensorSpec("size", (1, 2))
CONTRACT = Preprocess(size=(6, 8))
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (5, 6, 8, 3), dtype=np.uint8)
SIZES = np.arange(10).reshape(5, 2)


def write_folder(folder: Path, names: tuple[str, ...] = ("a", "b", "c")) -> None:
    for index, name in enumerate(names):
        for where in (folder / "x", folder / "size"):
            where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[index]).save(folder / "x" / f"{name}.png")
        np.save(folder / "size" / f"{name}.npy", SIZES[index])


def test_an_archive_with_an_array_for_each_input(tmp_path: Path) -> None:
    tensors = RNG.standard_normal((5, 3, 6, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=tensors, size=SIZES, labels=np.zeros(5))
    data = load_named_data(tmp_path / "a.npz", (IMAGE, SIZE), None, limit=3)
    assert data.count == 3
    assert data.description == "3 of 5 samples of 2 inputs in a.npz"
    sample = data.read(1)
    np.testing.assert_array_equal(sample["x"], tensors[1])
    np.testing.assert_array_equal(sample["size"], np.float32([2, 3]))
    assert {array.dtype.name for array in sample.values()} == {"float32"}


def test_images_of_an_archive_go_through_the_contract(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=PIXELS, size=SIZES.astype(np.uint8))
    data = load_named_data(tmp_path / "a.npz", (IMAGE, SIZE), CONTRACT)
    np.testing.assert_array_equal(data.read(4)["x"], CONTRACT.apply(PIXELS[4]))
    np.testing.assert_array_equal(data.read(4)["size"], SIZES[4])
    with pytest.raises(ContractError, match="--preprocess"):
        load_named_data(tmp_path / "a.npz", (IMAGE, SIZE), None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((5, 3, 6, 8), np.float32)}, "holds the arrays x.*expected: also 'size'"),
        (
            {"x": np.zeros((5, 3, 6, 8), np.float32), "size": SIZES[:4]},
            "5 of 'x', 4 of 'size'.*as many samples",
        ),
        ({"x": np.zeros((5, 3, 8, 6), np.float32), "size": SIZES}, r"shape \(5, 3, 8, 6\)"),
        ({"x": np.zeros((0, 3, 6, 8), np.float32), "size": SIZES[:0]}, "empty"),
        ({"x": np.zeros((5, 3, 6, 8), np.complex64), "size": SIZES}, "dtype complex64"),
    ],
)
def test_archives_that_do_not_fit(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=f"(?s){message}"):
        load_named_data(tmp_path / "a.npz", (IMAGE, SIZE), None).read(0)


def test_a_single_array_is_not_enough(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SIZES)
    with pytest.raises(DataError, match=r"(?s)cannot read.*an \.npz file with 'x', 'size'"):
        load_named_data(tmp_path / "a.npy", (IMAGE, SIZE), None)


def test_a_folder_with_an_entry_for_each_input(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "x" / ".DS_Store").write_text("x")
    data = load_named_data(tmp_path, (IMAGE, SIZE), CONTRACT)
    assert data.count == 3
    np.testing.assert_array_equal(data.read(2)["x"], CONTRACT.apply(PIXELS[2]))
    np.testing.assert_array_equal(data.read(2)["size"], SIZES[2])
    for file in (tmp_path / "size").iterdir():
        file.unlink()
    (tmp_path / "size").rmdir()
    np.save(tmp_path / "size.npy", SIZES[:3])
    again = load_named_data(tmp_path, (IMAGE, SIZE), CONTRACT)
    np.testing.assert_array_equal(again.read(2)["size"], SIZES[2])


def test_samples_of_folders_belong_together_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "size" / "b.npy").rename(tmp_path / "size" / "z.npy")
    with pytest.raises(DataError, match="'size' .* have other names: b, z"):
        load_named_data(tmp_path, (IMAGE, SIZE), CONTRACT)
    with pytest.raises(DataError, match="no calibration data for input 'mask'"):
        load_named_data(tmp_path, (IMAGE, TensorSpec("mask", (1, 2))), CONTRACT)


def test_a_sample_with_an_unreadable_image_can_be_omitted(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "x" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png is no image"):
        load_named_data(tmp_path, (IMAGE, SIZE), CONTRACT).read(1)
    data = load_named_data(tmp_path, (IMAGE, SIZE), CONTRACT, skip_unreadable=True)
    assert data.count == 2
    np.testing.assert_array_equal(data.read(1)["size"], SIZES[2])


def test_a_name_of_a_model_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", SIZES)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="no calibration data for input"):
        load_named_data(tmp_path / "data", (TensorSpec("../secret", (1, 2)), SIZE), None)


def test_samples_from_python() -> None:
    def generate(count: int):  # type: ignore[no-untyped-def]
        for index in range(count):
            yield {"x": np.full((1, 3, 6, 8), index, np.float64), "size": SIZES[index]}

    data = samples_as_data(generate(5), (IMAGE, SIZE), limit=3)
    assert data.count == 3
    assert data.read(2)["x"].shape == (3, 6, 8)
    assert data.read(2)["x"].max() == 2
    listed = samples_as_data(list(generate(5)), (IMAGE, SIZE), limit=2)
    assert listed.read(1)["x"].max() == 2  # spread over the sequence
    alone = samples_as_data([SIZES[0], SIZES[1]], (SIZE,))
    np.testing.assert_array_equal(alone.read(1)["size"], SIZES[1])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"x": np.zeros((3, 6, 8))}, "sample 0 has x.*also 'size'"),
        ({"x": np.zeros((3, 6, 8)), "size": np.zeros(3)}, r"shape \(3,\) for input 'size'"),
        ({"x": np.zeros((3, 6, 8)), "size": np.array([0, 2**40])}, "holds the integer"),
        ({"x": np.zeros((3, 6, 8)), "size": np.array(["a", "b"])}, "dtype <U1"),
        (np.zeros((3, 6, 8)), "sample 0 is ndarray.*a mapping with 'x', 'size'"),
    ],
)
def test_samples_from_python_that_do_not_fit(sample: object, message: str) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        samples_as_data([sample], (IMAGE, SIZE)).read(0)
    with pytest.raises(DataError, match="empty"):
        samples_as_data([], (IMAGE, SIZE))


def test_statistics_of_two_inputs_in_batches_of_two() -> None:
    text = """agraph (float[2, 3, 8, 8] a, float[2, 3, 1, 1] b) => (float[2, 3, 8, 8] y) {
        y = Mul (a, b)
    }"""
    model = as_model(parse(text), Stage.FUSED)
    smooth = np.linspace(0, 1, 64).reshape(8, 8)
    samples = [
        {"a": np.stack([smooth * (i + c) for c in range(3)]), "b": np.full((3, 1, 1), 2.0)}
        for i in range(5)
    ]
    table = collect_statistics(model, samples_as_data(samples, model.inputs))
    assert table.samples == 5
    assert (table["a"].maximum, table["b"].minimum, table["y"].maximum) == (6.0, 2.0, 12.0)
    assert any("'b' holds the same in every" in w for w in table.warnings)
    with pytest.raises(DataError, match="'a'"):
        collect_statistics(
            model, samples_as_data([{**s, "a": s["a"] * 0} for s in samples], model.inputs)
        )
