from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploykit.calibration.image_folder import draw_images, list_images
from deploykit.errors import DataError


def write_image(path: Path, mode: str = "RGB", **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)  # type: ignore[arg-type]


def write_folder(folder: Path, count: int = 6) -> None:
    for index in range(count):
        write_image(folder / f"class_{index % 2}" / f"{index}.jpg")


def test_stray_and_hidden_files_are_no_images_and_no_errors(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    (tmp_path / "class_0" / "Thumbs.db").write_bytes(b"\x00")
    write_image(tmp_path / ".cache" / "hidden.jpg")
    write_image(tmp_path / "._3.jpg")
    assert [path.name for path in list_images(tmp_path)] == [
        "0.jpg", "2.jpg", "4.jpg", "1.jpg", "3.jpg", "5.jpg",
    ]  # fmt: skip


def test_all_unreadable_images_are_named_at_once(tmp_path: Path) -> None:
    write_folder(tmp_path)
    whole = (tmp_path / "class_0" / "0.jpg").read_bytes()
    (tmp_path / "class_0" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.webp").write_bytes(b"")
    with pytest.raises(DataError, match="3 images") as caught:
        draw_images(tmp_path)
    for name in ("cut.jpg", "text.png", "empty.webp", "--skip-unreadable"):
        assert name in str(caught.value)


def test_unreadable_images_are_skipped_on_request_and_counted(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    drawn = draw_images(tmp_path, skip_unreadable=True)
    assert len(drawn.files) == 6
    assert drawn.description == f"6 of 7 images in {tmp_path.name}; 1 unreadable skipped"


def test_a_folder_of_nothing_readable_is_refused_even_so(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match="give another folder"):
        draw_images(tmp_path, skip_unreadable=True)


def test_only_the_images_drawn_are_decoded(tmp_path: Path) -> None:
    write_folder(tmp_path)
    # With a limit of 3 every second image is drawn: those in between are never opened.
    (tmp_path / "class_0" / "2.jpg").write_bytes(b"broken")
    drawn = draw_images(tmp_path, 3)
    assert [path.name for path in drawn.files] == ["0.jpg", "4.jpg", "3.jpg"]


def test_images_of_every_kind_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, 1)
    write_image(tmp_path / "grey.png", "L")
    write_image(tmp_path / "print.jpg", "CMYK")
    write_image(tmp_path / "see_through.png", "RGBA")
    write_image(tmp_path / "palette.png", "P")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(tmp_path / "phone.jpg", exif=exif)
    assert dict(draw_images(tmp_path).kinds) == {
        "16-bit": 1,
        "CMYK": 1,
        "alpha": 1,
        "grey": 1,
        "palette": 1,
        "rotated by EXIF": 1,
    }
