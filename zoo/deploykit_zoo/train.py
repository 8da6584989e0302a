"""Training a family of the zoo on the CPU, so that it can be stopped and taken up again.

After each epoch the whole state is in ``<out>.partial``. A run that finds one of the very same
training goes on from there and ends with the same weights as a run that was never stopped; the
checkpoint itself appears when all is done, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deploykit.accuracy.labelled_images import LabelledImages, draw_balanced
from deploykit.accuracy.top1 import Top1, top1
from deploykit.errors import BundleError, ContractError, DataError, UserError
from deploykit_zoo.augment import normalize_pixels, resize_pixels, shift_and_flip
from deploykit_zoo.checkpoint import (
    Checkpoint,
    half_precision_state,
    import_torch,
    read_checkpoint,
    write_checkpoint,
)
from deploykit_zoo.networks import build_network, torch_predictor
from deploykit_zoo.recipes import TrainingRecipe
from deploykit_zoo.training_state import load_state, refuse_state, write_state

if TYPE_CHECKING:
    import torch

CALIBRATION_IMAGES = 128

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Plan:
    """What one training does; two trainings of equal `fingerprint` give equal weights.

    Attributes:
        recipe: The hyperparameters.
        seed: Of the initial weights, the order, the augmentation and the dropout.
        epochs: Passes over the images.
        steps: Steps in an epoch.
        data_sha256: Of the training images and labels.
    """

    recipe: TrainingRecipe
    seed: int
    epochs: int
    steps: int
    data_sha256: str

    @property
    def fingerprint(self) -> str:
        recipe = self.recipe
        parts = [
            *(recipe.family, recipe.arch, dict(recipe.arch_kwargs), recipe.preprocess.to_dict()),
            *(recipe.hyperparameters, self.seed, self.epochs, self.data_sha256),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def learning_rate(self, step: int) -> float:
        """Linear from a tenth of the highest, then a half cosine to zero; step counts from 0."""
        total = self.epochs * self.steps
        warmup = round(self.recipe.warmup_share * total)
        if step < warmup:
            return self.recipe.learning_rate * (0.1 + 0.9 * step / warmup)
        done = (step - warmup) / max(1, total - warmup)
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def is_half_size(self, epoch: int) -> bool:
        return epoch < math.floor(self.epochs * self.recipe.half_size_share)


def train(
    recipe: TrainingRecipe,
    train_data: LabelledImages,
    test_data: LabelledImages,
    out: Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    command: str = "",
    say: Say = print,
) -> Checkpoint:
    """Train a network, measure it as it is stored, and write its checkpoint.

    The accuracy is measured on the weights after their rounding to float16, with every test image
    going through `Preprocess.apply`.

    Args:
        recipe: The network and its hyperparameters.
        train_data: Learned from; some of it becomes the calibration set of the checkpoint.
        test_data: Measured on, once, at the end.
        out: The checkpoint to write. ``<out>.partial`` stands beside it until that is done.
        seed: Two trainings with one seed, on one machine, give the same bytes.
        epochs: In place of the recipe's.
        command: Kept in the checkpoint: what a user types to get it again.
        say: Given a line of progress now and then.

    Returns:
        What was written.

    Raises:
        DataError: the two datasets do not belong together, or there are too few images.
        ContractError: fewer than one epoch, or a seed out of range.
        SourceError: the network cannot be built.
        BundleError: ``out`` cannot be written, which is tried before the first epoch.
        MissingDependencyError: torch, or the library that has the network, is not installed.
    """
    torch = import_torch()
    plan = _plan(recipe, train_data, test_data, seed, recipe.epochs if epochs is None else epochs)
    if out.is_dir():
        raise BundleError(f"{out} is a folder", expected="the name of a file, e.g. ghostnet.pt")
    partial = out.with_name(f"{out.name}.partial")
    with torch.random.fork_rng(devices=[]):
        network = _trained_network(plan, train_data, partial, say)
    state = half_precision_state(network.state_dict())
    for name, tensor in network.state_dict().items():
        tensor.copy_(state[name])
    measured = top1(torch_predictor(network), test_data, recipe.preprocess)
    say(f"top-1 as stored: {measured.accuracy:.2%} of {measured.total} test images")
    checkpoint = _checkpoint(plan, train_data, state, measured, command)
    write_checkpoint(out, checkpoint)
    partial.unlink(missing_ok=True)
    return checkpoint


def find_trained(
    recipe: TrainingRecipe,
    train_data: LabelledImages,
    test_data: LabelledImages,
    out: Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
) -> Checkpoint | None:
    """The checkpoint at ``out``, if it is what `train` with these arguments writes.

    What it holds is compared: the recipe's settings, seed and epochs, the contract, the classes,
    the number of test images, and the calibration images, which come from the training data.

    Returns:
        None if there is nothing, nothing that can be read, or something of another training.

    Raises:
        ContractError, DataError: as `train`.
        MissingDependencyError: torch is not installed.
    """
    torch = import_torch()
    plan = _plan(recipe, train_data, test_data, seed, recipe.epochs if epochs is None else epochs)
    if not out.is_file():
        return None
    try:
        found = read_checkpoint(out)
    except UserError:
        return None
    settings = {name: value for name, value in found.training.items() if name != "command"}
    same = (
        (found.arch, dict(found.arch_kwargs)) == (recipe.arch, _arch_kwargs(recipe, train_data))
        and (found.preprocess, found.labels) == (recipe.preprocess, train_data.classes)
        and settings == _settings(plan)
        and found.metrics.get("test_images") == len(test_data)
        and torch.equal(found.calibration, _calibration_images(plan, train_data))
    )
    return found if same else None


def _settings(plan: _Plan) -> dict[str, Any]:
    return {**plan.recipe.hyperparameters, "epochs": plan.epochs, "seed": plan.seed}


def _calibration_images(plan: _Plan, data: LabelledImages) -> torch.Tensor:
    import torch

    _, in_class = np.unique(data.labels, return_counts=True)
    count = min(CALIBRATION_IMAGES, len(in_class) * int(in_class.min()))
    return torch.from_numpy(data.images[draw_balanced(data.labels, count, plan.seed)])


def _checkpoint(
    plan: _Plan,
    data: LabelledImages,
    state: dict[str, torch.Tensor],
    measured: Top1,
    command: str,
) -> Checkpoint:
    recipe = plan.recipe
    return Checkpoint(
        arch=recipe.arch,
        arch_kwargs=_arch_kwargs(recipe, data),
        state_dict=state,
        preprocess=recipe.preprocess,
        labels=data.classes,
        calibration=_calibration_images(plan, data),
        metrics={"top1": measured.accuracy, "test_images": measured.total},
        training={"command": command, **_settings(plan)},
    )


def _plan(
    recipe: TrainingRecipe,
    train_data: LabelledImages,
    test_data: LabelledImages,
    seed: int,
    epochs: int,
) -> _Plan:
    if epochs < 1:
        raise ContractError(f"a training of {epochs} epochs", expected="one at least")
    if not 0 <= seed < 2**32:
        raise ContractError(f"the seed {seed}", expected="from 0 to 2^32 - 1")
    if train_data.classes != test_data.classes:
        raise DataError(
            f"training images of the classes {train_data.classes} and test images of "
            f"{test_data.classes}",
            expected="the same classes in the same order",
        )
    if len(train_data) < 2:
        raise DataError("a single training image", expected="two at least: batch norm needs them")
    digest = hashlib.sha256(repr(train_data.images.shape).encode())
    digest.update(train_data.images.tobytes())
    digest.update(train_data.labels.tobytes())
    steps = max(1, len(train_data) // recipe.batch)
    return _Plan(recipe, seed, epochs, steps, digest.hexdigest())


def _arch_kwargs(recipe: TrainingRecipe, data: LabelledImages) -> dict[str, Any]:
    return {"num_classes": len(data.classes), **recipe.arch_kwargs}


def _trained_network(plan: _Plan, data: LabelledImages, partial: Path, say: Say) -> torch.nn.Module:
    """The network after its last epoch; the state after each is in ``partial``."""
    import torch

    torch.manual_seed(plan.seed)
    network = build_network(plan.recipe.arch, _arch_kwargs(plan.recipe, data))
    network = network.to(memory_format=torch.channels_last)
    optimizer = _optimizer(network, plan.recipe)
    done = _take_up(partial, plan, network, optimizer, say)
    if done == plan.epochs:
        return network
    # Before the first epoch too, so that an output that cannot be written costs no training.
    write_state(partial, plan.fingerprint, done, network, optimizer)
    pixels = resize_pixels(data.images, plan.recipe.preprocess)
    try:
        for epoch in range(done, plan.epochs):
            start = time.perf_counter()
            loss, accuracy = _train_epoch(plan, epoch, network, optimizer, pixels, data.labels)
            seconds = time.perf_counter() - start
            write_state(partial, plan.fingerprint, epoch + 1, network, optimizer)
            say(
                f"epoch {epoch + 1}/{plan.epochs}: loss {loss:.4f}, "
                f"accuracy on the augmented training images {accuracy:.2%}, {seconds:.0f} s"
            )
    except KeyboardInterrupt:
        say(f"interrupted: the same command goes on from {partial}")
        raise
    return network


def _take_up(
    partial: Path,
    plan: _Plan,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    say: Say,
) -> int:
    """Load ``partial`` if it is of this very training.

    Returns:
        Number of epochs that are done.
    """
    if not partial.exists():
        return 0
    if (reason := refuse_state(partial, plan.fingerprint, network)) is not None:
        say(f"{partial} {reason}: starting from the beginning")
        return 0
    done = load_state(partial, network, optimizer)
    say(f"going on from {partial}, after epoch {done}/{plan.epochs}")
    return done


def _optimizer(network: torch.nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    import torch

    weights = [p for p in network.parameters() if p.ndim >= 2]
    vectors = [p for p in network.parameters() if p.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _train_epoch(
    plan: _Plan,
    epoch: int,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
) -> tuple[float, float]:
    """One pass; its random numbers come from the seed and ``epoch`` alone.

    Returns:
        Mean loss, and share of the augmented images that were named rightly.
    """
    import torch

    torch.manual_seed(plan.seed * 100_003 + epoch + 1)  # dropout
    network.train()
    total_loss, correct, seen = 0.0, 0, 0
    for step, (tensors, targets) in enumerate(_batches(plan, epoch, pixels, labels)):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate(epoch * plan.steps + step)
        logits = network(tensors)
        loss = torch.nn.functional.cross_entropy(
            logits, targets, label_smoothing=plan.recipe.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total_loss += loss.item() * len(targets)
        correct += int((logits.argmax(1) == targets).sum())
        seen += len(targets)
    return total_loss / seen, correct / seen


def _batches(
    plan: _Plan, epoch: int, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented batches of full size, in random order; what is left over sits this epoch out."""
    import torch

    recipe = plan.recipe
    generator = np.random.default_rng((plan.seed, epoch))
    order = generator.permutation(len(pixels))
    for step in range(plan.steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        changed = shift_and_flip(pixels[chosen], generator, recipe.shift_px, recipe.flip)
        tensors = torch.from_numpy(normalize_pixels(changed, recipe.preprocess))
        if plan.is_half_size(epoch):
            tensors = torch.nn.functional.avg_pool2d(tensors, 2)
        yield (
            tensors.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(labels[chosen]),
        )
