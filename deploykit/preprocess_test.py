from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from deploykit.errors import ContractError, DataError
from deploykit.preprocess import Preprocess

PLAIN = Preprocess(size=(2, 2), mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))


def test_formula_by_channel() -> None:
    image = np.full((2, 2, 3), 255, np.uint8)
    assert PLAIN.apply(image)[:, 0, 0].tolist() == [2.0, 1.0, 0.5]


def test_bgr_turns_the_channels_round() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 255
    flat = {"size": (2, 2), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    assert Preprocess(color="RGB", **flat).apply(image)[:, 0, 0].tolist() == [1, 0, 0]
    assert Preprocess(color="BGR", **flat).apply(image)[:, 0, 0].tolist() == [0, 0, 1]


def test_grey_is_repeated_over_three_channels() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    tensor = Preprocess(size=(2, 2), mean=(0.0,) * 3, std=(1.0,) * 3).apply(image)
    assert np.array_equal(tensor[0], tensor[2])
    assert np.array_equal(np.rint(tensor[0] * 255), [[0, 1], [2, 3]])


def test_gray_contract_has_one_channel() -> None:
    contract = Preprocess(size=(4, 4), color="GRAY", mean=(0.0,), std=(1.0,))
    assert contract.apply(np.zeros((8, 8, 3), np.uint8)).shape == (1, 4, 4)


def test_shorter_side_then_centre_crop() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 15:25] = 255
    contract = Preprocess(size=(8, 8), resize=10, mean=(0.0,) * 3, std=(1.0,) * 3)
    tensor = contract.apply(image)
    assert tensor.shape == (3, 8, 8)
    assert tensor[0, :, 3:5].min() == 1.0
    assert tensor[0, :, 0].max() == 0.0


def test_pillow_image_and_array_agree() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (30, 17, 3), dtype=np.uint8)
    contract = Preprocess(size=(9, 9), interpolation="bicubic")
    assert np.array_equal(contract.apply(image), contract.apply(Image.fromarray(image)))


def test_contract_survives_its_plain_data() -> None:
    contract = Preprocess(size=(7, 9), resize=(8, 10), color="BGR", interpolation="nearest")
    assert Preprocess.from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"color": "CMYK"}, "color"),
        ({"interpolation": "lanczos5"}, "interpolation"),
        ({"mean": (0.5,)}, "1 means"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"size": (0, 4)}, "size"),
    ],
)
def test_contracts_that_contradict_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        Preprocess(**{"size": (4, 4), **change})


def test_unknown_fields_are_named() -> None:
    with pytest.raises(ContractError, match="crop_pct"):
        Preprocess.from_dict({"size": [4, 4], "crop_pct": 0.9})


def test_float_array_is_no_image() -> None:
    with pytest.raises(DataError, match="float32"):
        PLAIN.apply(np.zeros((2, 2, 3), np.float32))  # type: ignore[arg-type]


def test_range_of_any_image() -> None:
    low, high = PLAIN.tensor_range
    assert (low, high) == (-2.0, 2.0)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    eight = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    contract = Preprocess(size=(4, 4))
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    assert sixteen.mode.startswith("I;16")
    assert np.array_equal(contract.apply(sixteen), contract.apply(eight))


def test_pixels_of_no_known_range_are_refused() -> None:
    with pytest.raises(DataError, match="mode F"):
        Preprocess(size=(4, 4)).apply(Image.fromarray(np.zeros((4, 4), np.float32)))


@pytest.mark.parametrize("shape", [(50, 71), (71, 50), (33, 34), (64, 48), (31, 100)])
def test_the_same_pixels_as_torchvisions_transform(shape: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    generator = np.random.default_rng(shape[0])
    image = Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8))
    for resize, size in ((37, 32), (24, 21), (40, 40)):
        theirs = transforms.Compose(
            [
                transforms.Resize(resize),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(Preprocess.mean, Preprocess.std),
            ]
        )(image)
        ours = Preprocess(size=(size, size), resize=resize).apply(image)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-6)


def test_the_orientation_of_a_camera_is_applied() -> None:
    upright = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(np.rot90(upright))  # turned to the left
    image.getexif()[0x0112] = 6  # turn it to the right to show it
    contract = Preprocess(size=(20, 30))
    assert np.array_equal(contract.apply(image), contract.apply(upright))
