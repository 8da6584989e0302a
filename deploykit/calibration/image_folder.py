"""A folder of images as users have them: nested class folders, stray files, photos of every kind.

Image files are found by their suffix, recursively, in the order of their paths; hidden files and
files of other kinds (``Thumbs.db``, ``labels.txt``) are no images and no errors. Only the images
that are drawn are decoded, so a folder of 50,000 photos costs no more than the samples taken of it.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.errors import DataError
from deploykit.limits import check_samples, current_limits

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

_LISTED = 10
_ORIENTATION = 0x0112  # the EXIF tag; 1 means upright
_UPRIGHT = 1


@dataclass(frozen=True)
class DrawnImages:
    """The images of a folder that are used.

    Attributes:
        folder: Where they are.
        files: The images, in the order of their paths.
        found: Number of image files in the folder.
        unreadable: Drawn files that are omitted because they cannot be decoded.
        kinds: What was handled on the way to 8-bit RGB: kind (``grey``, ``CMYK``, ``alpha``,
            ``16-bit``, ``palette``, ``rotated by EXIF``) → number of images.
    """

    folder: Path
    files: tuple[Path, ...]
    found: int
    unreadable: tuple[Path, ...] = ()
    kinds: tuple[tuple[str, int], ...] = ()

    @property
    def description(self) -> str:
        """One line: how many of how many, what is special, what is omitted."""
        text = f"{len(self.files)} of {self.found} images in {self.folder.name}"
        if self.kinds:
            text += f" ({', '.join(f'{count} {kind}' for kind, count in self.kinds)})"
        if self.unreadable:
            text += f"; {len(self.unreadable)} unreadable skipped"
        return text


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, by suffix; nothing is opened.

    Raises:
        DataError: there are none.
    """
    files = sorted(
        Path(where, name)
        for where, folders, names in _walk(folder)
        for name in names
        if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
    )
    if not files:
        raise DataError(
            f"no images in {folder}", expected=f"files that end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return files


def refuse_one_image(path: Path) -> None:
    """Refuse an image where a set of them is meant.

    Raises:
        DataError: ``path`` is a file that is named like an image.
    """
    if path.is_file() and path.name.lower().endswith(IMAGE_SUFFIXES):
        raise DataError(
            f"{path} is one image",
            expected="a folder of 16 or more images like those that the model will see",
            advice=f"give the folder that it is in: {path.parent}",
        )


def _walk(folder: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield where, folders, names


def draw_images(
    folder: Path, limit: int | None = None, *, skip_unreadable: bool = False
) -> DrawnImages:
    """Choose images at equal distances over the folder and decode each to see that it is readable.

    Args:
        folder: Images, in subfolders or not.
        limit: At most so many; None for all.
        skip_unreadable: Whether images that cannot be decoded are omitted.

    Raises:
        DataError: no images, or more than the limits allow; or some of those drawn cannot be
            decoded: all are named at once.
    """
    files = list_images(folder)
    check_samples(min(len(files), limit or len(files)), str(folder))
    drawn = [files[index] for index in spread(len(files), limit)]
    kinds: Counter[str] = Counter()
    unreadable = []
    for path in drawn:
        try:
            kinds.update(_decode(path))
        except DataError:
            unreadable.append(path)
    good = [path for path in drawn if path not in set(unreadable)]
    if unreadable and not (skip_unreadable and good):
        raise _unreadable_error(folder, unreadable, everything=not good)
    ordered = tuple(sorted(kinds.items()))
    return DrawnImages(folder, tuple(good), len(files), tuple(unreadable), ordered)


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``count`` samples at equal distances, in order."""
    taken = count if limit is None else min(limit, count)
    return [index * count // taken for index in range(taken)]


def open_image(path: Path) -> Image:
    """An image, decoded.

    Raises:
        DataError: it is none that can be read.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the limit
            with Image.open(path) as image:
                _check_pixels(image)
                image.load()
                return image
    except Exception as error:  # a decoder raises whatever it stumbles over
        raise DataError(
            f"{path} is no image that can be read: {_first_line(error)}",
            expected=f"a complete image ({', '.join(IMAGE_SUFFIXES)})",
            advice="take it out of the folder, repair it, or go on without it: --skip-unreadable",
        ) from error


def _check_pixels(image: Image) -> None:
    limit = current_limits().image_pixels
    if image.width * image.height > limit:
        raise ValueError(
            f"{image.width} x {image.height} are more than {limit:,} pixels (--max image_pixels=N)"
        )


def _decode(path: Path) -> list[str]:
    """What is special about an image that can be decoded."""
    image = open_image(path)
    kinds = []
    if image.mode in ("1", "L", "LA"):
        kinds.append("grey")
    if image.mode == "CMYK":
        kinds.append("CMYK")
    if image.mode.startswith("I;16"):
        kinds.append("16-bit")
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        kinds.append("alpha")
    if image.mode in ("P", "PA"):
        kinds.append("palette")
    if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
        kinds.append("rotated by EXIF")
    return kinds


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unreadable_error(folder: Path, files: Sequence[Path], *, everything: bool) -> DataError:
    listed = "\n".join(f"  {path.relative_to(folder)}" for path in files[:_LISTED])
    more = f"\n  and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    return DataError(
        f"{len(files)} images in {folder} cannot be decoded:\n{listed}{more}",
        expected="complete images",
        advice="none of those drawn can be read: give another folder"
        if everything
        else "repair or remove them, or go on without them: --skip-unreadable",
    )
