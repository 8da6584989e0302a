"""Training images as one array of bytes, and cheap random changes of a batch of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from deploykit.preprocess import Preprocess

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


def resize_pixels(images: ByteArray, preprocess: Preprocess) -> ByteArray:
    """The resize and crop of a contract, done once for all epochs and kept as bytes.

    `normalize_pixels` does the rest of the contract; the two together give what
    `Preprocess.apply` gives, since Pillow resizes bytes to bytes.

    Args:
        images: uint8 of shape (n, h, w, channels).
        preprocess: The contract.

    Returns:
        uint8 of shape (n, c, height, width). c is 1 for grey images, even where the network
        wants three channels.
    """
    color = "GRAY" if images.shape[3] == 1 else preprocess.color
    count = 1 if color == "GRAY" else 3
    unit = replace(preprocess, color=color, mean=(0.0,) * count, std=(1.0,) * count)
    pixels = np.empty((len(images), count, *preprocess.size), np.uint8)
    for index, image in enumerate(images):
        pixels[index] = np.rint(unit.apply(image) * 255)
    return pixels


def normalize_pixels(pixels: ByteArray, preprocess: Preprocess) -> FloatArray:
    """The last step of a contract; a grey image is repeated over the network's channels.

    Args:
        pixels: uint8 of shape (n, c, height, width), c being 1 or the network's channels.
        preprocess: The contract.

    Returns:
        float32 of shape (n, channels, height, width).
    """
    mean = np.array(preprocess.mean, np.float32).reshape(1, -1, 1, 1)
    std = np.array(preprocess.std, np.float32).reshape(1, -1, 1, 1)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def shift_and_flip(
    pixels: ByteArray, generator: np.random.Generator, shift_px: int, flip: bool
) -> ByteArray:
    """Shift each image at random, filling with zeros, and mirror half of them.

    Args:
        pixels: uint8 of shape (n, c, height, width).
        generator: Source of the random numbers.
        shift_px: Largest shift either way, in pixels.
        flip: Whether to mirror at all.

    Returns:
        uint8 of the same shape.
    """
    if shift_px == 0 and not flip:
        return pixels
    count, _, height, width = pixels.shape
    margin = ((0, 0), (0, 0), (shift_px, shift_px), (shift_px, shift_px))
    padded = np.pad(pixels, margin).transpose(0, 2, 3, 1)
    down, right = generator.integers(0, 2 * shift_px + 1, size=(2, count, 1))
    mirrored = generator.random((count, 1)) < (0.5 if flip else 0.0)
    rows = down + np.arange(height)
    columns = right + np.where(mirrored, np.arange(width)[::-1], np.arange(width))
    batch = np.arange(count)[:, None, None]
    changed: ByteArray = padded[batch, rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(changed.transpose(0, 3, 1, 2))
