from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploykit.errors import BundleError, ContractError, DataError
from deploykit.preprocess import Preprocess
from deploykit.zoo.checkpoint import read_checkpoint
from deploykit.zoo.datasets import LabelledImages
from deploykit.zoo.evaluate import top1
from deploykit.zoo.networks import network_of_checkpoint, torch_predictor
from deploykit.zoo.recipes import RECIPES
from deploykit.zoo.train import train

TINY = replace(
    RECIPES["ghostnet"],
    preprocess=Preprocess(size=(32, 32), mean=(0.3,) * 3, std=(0.3,) * 3),
    batch=16,
    epochs=2,
    shift_px=1,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: threads would only wait for each other, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_data(seed: int) -> LabelledImages:
    """64 noisy pictures of four classes: a bright square in one of the quarters."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 40, (64, 16, 16, 1), dtype=np.uint8)
    labels = np.arange(64) % 4
    for image, label in zip(images, labels, strict=True):
        top, left = 8 * (label // 2), 8 * (label % 2)
        image[top : top + 8, left : left + 8] += 200
    return LabelledImages(images, labels, ("top left", "top right", "bottom left", "bottom right"))


class InterruptAfter:
    """A listener that does what Ctrl-C does when a line comes."""

    def __init__(self, start: str) -> None:
        self.start = start
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith(self.start):
            raise KeyboardInterrupt


def test_a_training_learns_and_writes_what_it_measured(tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = replace(TINY, epochs=6, flip=False, half_size_share=0.0)

    train(
        recipe, make_data(0), make_data(1), tmp_path / "a.pt", command="make it", say=lines.append
    )

    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines[:6]]
    assert losses[-1] < 0.8 * losses[0]
    checkpoint = read_checkpoint(tmp_path / "a.pt")
    assert checkpoint.arch_kwargs == {"num_classes": 4}
    assert checkpoint.preprocess == recipe.preprocess
    assert checkpoint.labels[3] == "bottom right"
    assert checkpoint.training["command"] == "make it"
    assert checkpoint.training["epochs"] == 6
    measured = top1(
        torch_predictor(network_of_checkpoint(checkpoint)), make_data(1), recipe.preprocess
    )
    assert checkpoint.metrics == {"top1": measured.accuracy, "test_images": 64}
    trained_on = {image.tobytes() for image in make_data(0).images}
    assert {image.numpy().tobytes() for image in checkpoint.calibration} == trained_on
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole.pt", tmp_path / "stopped.pt"
    train(TINY, make_data(0), make_data(1), whole, say=lambda _: None)

    interrupt = InterruptAfter("epoch 1/2")
    with pytest.raises(KeyboardInterrupt):
        train(TINY, make_data(0), make_data(1), stopped, say=interrupt)

    assert "goes on from" in interrupt.lines[-1]
    assert not stopped.exists()
    assert (tmp_path / "stopped.pt.partial").exists()
    lines: list[str] = []
    train(TINY, make_data(0), make_data(1), stopped, say=lines.append)
    assert lines[0].startswith("going on from")
    assert [line[:9] for line in lines[1:2]] == ["epoch 2/2"]
    assert stopped.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "stopped.pt.partial").exists()


def test_the_state_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole.pt", tmp_path / "stopped.pt"
    train(TINY, make_data(0), make_data(1), whole, seed=5, say=lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, make_data(0), make_data(1), stopped, say=InterruptAfter("epoch 1/2"))

    lines: list[str] = []
    train(TINY, make_data(0), make_data(1), stopped, seed=5, say=lines.append)

    assert "of another training" in lines[0]
    assert stopped.read_bytes() == whole.read_bytes()


def test_a_damaged_state_is_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / "a.pt.partial").write_bytes(b"half of a state")
    lines: list[str] = []

    train(TINY, make_data(0), make_data(1), tmp_path / "a.pt", epochs=1, say=lines.append)

    assert "damaged" in lines[0]
    assert read_checkpoint(tmp_path / "a.pt").training["epochs"] == 1


def test_a_rare_class_makes_the_calibration_set_smaller(tmp_path: Path) -> None:
    data = make_data(0)
    kept = np.flatnonzero((data.labels != 3) | (np.arange(64) < 8))
    rare = replace(data, images=data.images[kept], labels=data.labels[kept])

    train(TINY, rare, make_data(1), tmp_path / "a.pt", epochs=1, say=lambda _: None)

    assert len(read_checkpoint(tmp_path / "a.pt").calibration) == 4 * 2


def test_the_random_numbers_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)

    torch.manual_seed(3)
    train(TINY, make_data(0), make_data(1), tmp_path / "a.pt", epochs=1, say=lambda _: None)

    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("options", "found"), [({"epochs": 0}, "0 epochs"), ({"seed": -1}, "the seed -1")]
)
def test_options_out_of_range(tmp_path: Path, options: dict[str, int], found: str) -> None:
    with pytest.raises(ContractError, match=found):
        train(TINY, make_data(0), make_data(1), tmp_path / "a.pt", **options)


def test_splits_of_different_classes(tmp_path: Path) -> None:
    other = replace(make_data(1), classes=("a", "b", "c", "d"))

    with pytest.raises(DataError, match="training images of the classes"):
        train(TINY, make_data(0), other, tmp_path / "a.pt")


def test_an_output_that_cannot_be_written_fails_before_the_second_epoch(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lines: list[str] = []

    with pytest.raises(BundleError):
        train(TINY, make_data(0), make_data(1), tmp_path / "file" / "a.pt", say=lines.append)

    assert lines == []
