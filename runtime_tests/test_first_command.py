"""The first command that a reader of README types, on weights and photos as users have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploykit.bundle import read_bundle
from deploykit.cli import main
from deploykit.runners.base import RunnerSpec
from deploykit.runners.process import open_runner

_CLASSES = ("bee", "cat", "dog", "fox", "owl")
_PHOTOS = 50
_GREY, _CMYK, _ALPHA, _ROTATED, _CORRUPT = 3, 4, 5, 6, 7


def _photo(index: int, rng: np.random.Generator) -> Image.Image:
    """Smooth and noisy in places, of an odd size, as photos are."""
    width, height = (int(n) for n in rng.integers(150, 400, 2))
    coarse = rng.integers(0, 256, (7 + index % 5, 9, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _save_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(_PHOTOS):
        where = folder / _CLASSES[index % 5] / ("deep" if index % 7 == 0 else "")
        where.mkdir(parents=True, exist_ok=True)
        photo, path = _photo(index, rng), where / f"{index}.jpg"
        exif = Image.Exif()
        if index == _ROTATED:
            exif[0x0112] = 6
        if index == _ALPHA:
            photo.putalpha(128)
            path = path.with_suffix(".png")
        photo = {_GREY: photo.convert("L"), _CMYK: photo.convert("CMYK")}.get(index, photo)
        photo.save(path, exif=exif)
        if index == _CORRUPT:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    (folder / "Thumbs.db").write_bytes(b"no image")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [torch])")
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra [tflite])")
    folder = tmp_path_factory.mktemp("user")
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(num_classes=len(_CLASSES))
    torch.save(network.state_dict(), folder / "weights.pt")
    _save_photos(folder / "photos")
    return folder


def _command(work: Path, *arguments: str) -> list[str]:
    photos = ("--calibrate", str(work / "photos"))
    return ["convert", str(work / "weights.pt"), "--int8", *photos, *arguments]


def test_one_command_and_the_file_agrees_with_torchs_own_preprocessing(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    assert main(_command(work)) == 2
    said = capsys.readouterr().err
    assert f"{_CORRUPT}.jpg" in said
    assert "--skip-unreadable" in said
    assert not (work / "weights").exists()

    # The network is not trained: whatever noise int8 adds may fail its verdict (exit code 1), but
    # a file is written, and each of its layers is right.
    assert main(_command(work, "--skip-unreadable")) in (0, 1)
    said = capsys.readouterr().err
    assert "identified as torchvision/mobilenet_v3_small" in said
    assert "0 bee, 1 cat, 2 dog, 3 fox, 4 owl" in said
    assert "top-1" in said
    assert "near chance" in said
    assert "1 CMYK, 1 alpha, 1 grey, 1 rotated by EXIF" in said
    bundle = read_bundle(work / "weights")
    assert bundle.labels == _CLASSES
    assert bundle.assumed
    (artifact,) = bundle.artifacts
    checks = [c for v in artifact.verdicts for c in v.checks if c.metric == "layer_error_lsb"]
    assert checks
    assert all(check.passed for check in checks)

    photo = next((work / "photos").rglob(f"{_ROTATED}.jpg"))
    scores = _scores_by_torchvision(work / "weights" / artifact.path, artifact, photo)
    assert main(["run", str(work / "weights"), str(photo), "--runner", "litert", "--json"]) == 0
    (found,) = _runs(json.loads(capsys.readouterr().out))
    step = artifact.outputs[0].quantization.scale[0]  # type: ignore[union-attr]
    for guess in found["guesses"]:
        assert guess["score"] == pytest.approx(scores[guess["index"]], abs=step * 1e-3)


def _runs(document: Any) -> list[Any]:
    runs = document["runs"] if isinstance(document, dict) else document
    return list(runs)


def _scores_by_torchvision(path: Path, artifact: Any, photo: Path) -> Any:
    """What the file gives for a photo that torchvision, not deploykit, prepared."""
    from PIL import ImageOps
    from torchvision import transforms

    prepare: Callable[[Image.Image], Any] = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with Image.open(photo) as image:
        tensor = prepare(ImageOps.exif_transpose(image).convert("RGB")).numpy()[np.newaxis]
    source, output = artifact.inputs[0], artifact.outputs[0]
    with open_runner(RunnerSpec("litert", str(path), {}, 120.0)) as runner:
        raw = runner.run({source.runtime_name: source.encode(tensor)})
    return output.decode(raw[output.runtime_name])[0]
