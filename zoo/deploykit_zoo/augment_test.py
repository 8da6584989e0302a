from __future__ import annotations

import numpy as np
import pytest

from deploykit.preprocess import Preprocess
from deploykit_zoo.augment import normalize_pixels, resize_pixels, shift_and_flip

CONTRACTS = [
    Preprocess(size=(64, 64), mean=(0.286,) * 3, std=(0.353,) * 3),
    Preprocess(size=(24, 20), resize=26, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    Preprocess(size=(20, 24), color="BGR", interpolation="bicubic"),
    Preprocess(size=(32, 32), color="GRAY", mean=(0.286,), std=(0.353,)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.color}{c.size}")
def test_bytes_and_then_normalize_is_the_contract(contract: Preprocess, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 30, channels), dtype=np.uint8)

    pixels = resize_pixels(images, contract)

    expected = np.stack([contract.apply(image) for image in images])
    tensors = np.broadcast_to(normalize_pixels(pixels, contract), expected.shape)
    np.testing.assert_allclose(tensors, expected, rtol=0, atol=1e-6)


def test_grey_images_are_kept_once_but_seen_in_every_channel() -> None:
    pixels = resize_pixels(np.full((2, 28, 28, 1), 255, np.uint8), CONTRACTS[0])

    assert pixels.shape == (2, 1, 64, 64)
    assert normalize_pixels(pixels, CONTRACTS[0]).shape == (2, 3, 64, 64)


def test_each_image_is_shifted_with_zeros_and_may_be_mirrored() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (64, 2, 6, 8), dtype=np.uint8)

    changed = shift_and_flip(pixels, np.random.default_rng(1), shift_px=2, flip=True)

    padded = np.pad(pixels, ((0, 0), (0, 0), (2, 2), (2, 2)))
    found = []
    for before, after in zip(padded, changed, strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if np.array_equal(
                before[:, top : top + 6, left : left + 8][..., :: -1 if mirrored else 1], after
            )
        ]
        assert len(matches) == 1
        found += matches
    assert {top for top, _, _ in found} == {0, 1, 2, 3, 4}
    assert {left for _, left, _ in found} == {0, 1, 2, 3, 4}
    assert {mirrored for _, _, mirrored in found} == {False, True}


def test_no_shift_and_no_flip_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 5, 5), dtype=np.uint8)

    changed = shift_and_flip(pixels, np.random.default_rng(1), shift_px=0, flip=False)

    np.testing.assert_array_equal(changed, pixels)
