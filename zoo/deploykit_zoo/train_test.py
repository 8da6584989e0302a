from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploykit.accuracy.labelled_images import LabelledImages
from deploykit.accuracy.top1 import top1
from deploykit.errors import BundleError, ContractError, DataError
from deploykit.preprocess import Preprocess
from deploykit_zoo.checkpoint import read_checkpoint
from deploykit_zoo.networks import network_of_checkpoint, torch_predictor
from deploykit_zoo.recipes import RECIPES
from deploykit_zoo.train import find_trained, train
from deploykit_zoo.training_state import STATE_FORMAT

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
    """64 noisy images of four classes: a bright square in one of the quarters."""
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


def interrupted_state(out: Path) -> dict[str, Any]:
    """What a training that was stopped after its first epoch left."""
    with pytest.raises(KeyboardInterrupt):
        train(TINY, make_data(0), make_data(1), out, say=InterruptAfter("epoch 1/2"))
    state: dict[str, Any] = torch.load(f"{out}.partial", weights_only=True)
    return state


def without_a_weight(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "network": dict(list(state["network"].items())[1:])}


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda _: b"half of a state", "is damaged"),
        (lambda _: [1], "is no state of a training"),
        (lambda s: {**s, "format": "other/1"}, "is no state of a training"),
        (lambda s: {k: v for k, v in s.items() if k != "optimizer"}, "it lacks optimizer"),
        (without_a_weight, "another version of the network"),
    ],
)
def test_a_damaged_state_is_not_taken_up(
    tmp_path: Path, damage: Callable[[Any], Any], found: str
) -> None:
    out = tmp_path / "a.pt"
    content = damage(interrupted_state(out))
    partial = tmp_path / "a.pt.partial"
    if isinstance(content, bytes):
        partial.write_bytes(content)
    else:
        torch.save(content, partial)
    lines: list[str] = []

    train(TINY, make_data(0), make_data(1), out, say=lines.append)

    assert found in lines[0]
    assert "starting from the beginning" in lines[0]
    assert [line[:9] for line in lines[1:3]] == ["epoch 1/2", "epoch 2/2"]
    assert read_checkpoint(out).training["epochs"] == 2


def test_a_training_that_was_stopped_in_its_first_epoch_goes_on(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.optim.AdamW, "step", stop)
        train(TINY, make_data(0), make_data(1), tmp_path / "a.pt", say=lines.append)
    assert "interrupted: the same command goes on" in lines[-1]
    state = torch.load(tmp_path / "a.pt.partial", weights_only=True)
    assert (state["format"], state["epochs_done"]) == (STATE_FORMAT, 0)

    train(TINY, make_data(0), make_data(1), tmp_path / "a.pt", say=lines.append)
    train(TINY, make_data(0), make_data(1), tmp_path / "b.pt", say=lambda _: None)

    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_what_is_trained_already_is_found(tmp_path: Path) -> None:
    out, data = tmp_path / "a.pt", (make_data(0), make_data(1))
    assert find_trained(TINY, *data, out, epochs=1) is None
    out.write_bytes(b"no checkpoint")
    assert find_trained(TINY, *data, out, epochs=1) is None

    written = train(TINY, *data, out, epochs=1, command="make it", say=lambda _: None)
    found = find_trained(TINY, *data, out, epochs=1)

    assert found is not None
    assert found.metrics == written.metrics
    for other in (
        find_trained(TINY, *data, out),
        find_trained(TINY, *data, out, epochs=1, seed=5),
        find_trained(replace(TINY, batch=8), *data, out, epochs=1),
        find_trained(replace(TINY, arch="timm/ghostnet_100"), *data, out, epochs=1),
        find_trained(TINY, make_data(2), data[1], out, epochs=1),
    ):
        assert other is None


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


def test_an_output_that_cannot_be_written_fails_before_the_first_epoch(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lines: list[str] = []

    with pytest.raises(BundleError):
        train(TINY, make_data(0), make_data(1), tmp_path / "file" / "a.pt", say=lines.append)

    assert lines == []


def test_an_output_that_is_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is a folder"):
        train(TINY, make_data(0), make_data(1), tmp_path, say=lambda _: None)
    assert not tmp_path.with_name(f"{tmp_path.name}.partial").exists()
