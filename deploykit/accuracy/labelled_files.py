"""Labelled image files: folders of classes, or a CSV of file and label.

Class folders: each folder directly below holds the images of one class, at any depth; the name of
the folder is the name of the class. Where the model has labels, folders are found among them by
name, and classes without a folder are simply not measured; where it has none, the folders in the
order of their names (`sorted`, as torchvision's ImageFolder has them) are classes 0, 1, 2, ...

CSV: ``file,label`` a line, a first line of these very words is a heading; files are relative to the
CSV, labels are names or numbers from 0 on.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deploykit.calibration.image_folder import list_images, open_image, spread
from deploykit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_LINES = 10_000_000
_LISTED = 5


@dataclass(frozen=True, eq=False)
class LabelledFiles:
    """Image files of any size, and what is on them.

    Attributes:
        files: One each.
        labels: int64 of shape (n,), each an index into ``classes``.
        classes: Name of each class.
    """

    files: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Image:
        """One image, decoded.

        Raises:
            DataError: it is none that can be read.
        """
        return open_image(self.files[index])

    def limited(self, limit: int | None) -> LabelledFiles:
        """At most so many, at equal distances: files are sorted by class."""
        chosen = spread(len(self), limit)
        files = tuple(self.files[index] for index in chosen)
        return LabelledFiles(files, self.labels[chosen], self.classes)


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders directly below that hold images, in order; empty if there are none."""
    files = list_images(folder)
    return tuple(sorted({p[0] for f in files if len(p := f.relative_to(folder).parts) > 1}))


def read_class_folders(
    folder: Path, labels: Sequence[str] | None, outputs: int | None = None
) -> LabelledFiles:
    """The images of class folders.

    Args:
        folder: Holds a folder for each class.
        labels: The model's class names; None or empty if it has none.
        outputs: The model's number of classes, where it has no labels; None not to look.

    Raises:
        DataError: no folders, a folder that is no class of the model, or another number of them.
    """
    names = class_folders(folder)
    if not names:
        raise DataError(
            f"{folder} has no class folders with images in them",
            expected="a folder for each class, named like the class, or the four files of IDX",
        )
    known = tuple(labels) if labels else names
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"the folders {_some(unknown)} of {folder} are no classes of the model",
            expected=f"folders named like its labels: {_some(known)}",
            advice="rename them, give a .csv of file,label with numbers, or convert the model "
            "with the right --labels",
        )
    if not labels and outputs is not None and outputs != len(names):
        raise DataError(
            f"{folder} has {len(names)} class folders",
            expected=f"{outputs}, as the model has classes and no names for them",
            advice="convert the model with --labels, or give a .csv of file,label with numbers",
        )
    files = [f for f in list_images(folder) if len(f.relative_to(folder).parts) > 1]
    found = [known.index(f.relative_to(folder).parts[0]) for f in files]
    return LabelledFiles(tuple(files), np.array(found, np.int64), known)


def read_csv(path: Path, labels: Sequence[str] | None, outputs: int) -> LabelledFiles:
    """The images that a CSV names.

    Args:
        path: The CSV.
        labels: The model's class names; None or empty if it has none.
        outputs: The model's number of classes.

    Raises:
        DataError: it cannot be read, names a file that is not there, or a class that is none.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", expected="CSV: file,label") from error
    if rows and [cell.strip().lower() for cell in rows[0]] == ["file", "label"]:
        rows = rows[1:]
    if not rows or len(rows) > _MOST_LINES or any(len(row) != 2 for row in rows):
        bad = next((i for i, row in enumerate(rows, 1) if len(row) != 2), 0)
        found = f"row {bad} of {path} has {len(rows[bad - 1])} columns" if bad else f"{path}: empty"
        raise DataError(found, expected="two columns a line: file,label")
    known = tuple(labels) if labels else tuple(str(index) for index in range(outputs))
    index_of = {str(i): i for i in range(outputs)} | {name: i for i, name in enumerate(known)}
    unknown = list(dict.fromkeys(row[1].strip() for row in rows if row[1].strip() not in index_of))
    if unknown:
        raise DataError(
            f"the labels {_some(unknown)} of {path} are no classes of the model",
            expected=f"one of {_some(known)}, or a number from 0 to {outputs - 1}",
        )
    files = tuple(path.parent / row[0].strip() for row in rows)
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} files that {path} names are not there: {_some(missing)}",
            expected="paths relative to the CSV, or absolute ones",
        )
    found_labels = np.array([index_of[row[1].strip()] for row in rows], np.int64)
    return LabelledFiles(files, found_labels, known)


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"
