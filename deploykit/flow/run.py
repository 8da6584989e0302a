"""`run`: images through every artefact of a bundle, prepared by its own contract."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploykit.bundle import Bundle, BundleArtifact, read_bundle
from deploykit.calibration.image_folder import open_image
from deploykit.errors import BundleError, DataError, UserError
from deploykit.flow.runners import select_runners
from deploykit.parity.samples import run_samples
from deploykit.runners.base import RunnerDefinition, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.target import find_target

if TYPE_CHECKING:
    from deploykit.preprocess import Preprocess
    from deploykit.tensors import FloatArray

#: Classes that are named of each image.
TOP = 5
_RANK_OF_SCORES = 2


@dataclass(frozen=True)
class Guess:
    """One class of one image: its number, its label (or the number), its score as the file has it.

    Attributes:
        index: Number of the class.
        label: Its name; the number where the bundle has no labels.
        score: The output's value for it, dequantized.
    """

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class ImageRun:
    """What one artefact on one runner said of one image.

    Attributes:
        image: The file, as it was given.
        path: The artefact's path in the bundle.
        runner: What ran it.
        kind: ``logits``, ``probabilities``, ...; empty where that is not known.
        guesses: The classes with the largest scores, largest first.
        milliseconds: Of one call after a first one that is not counted, with the way to the
            runner's process and back.
    """

    image: str
    path: str
    runner: str
    kind: str
    guesses: tuple[Guess, ...]
    milliseconds: float


def run_images(
    folder: Path,
    images: Sequence[Path],
    *,
    runners: Sequence[str] = (),
    threads: int = 1,
    timeout_s: float = 120.0,
) -> tuple[ImageRun, ...]:
    """Name what is on images, by every artefact on every runner that is here.

    Args:
        folder: The bundle of a classifier of images.
        images: Image files.
        runners: Names of runners; empty for all that run on this machine.
        threads: Threads of each runtime.
        timeout_s: Time limit of each runtime, seconds.

    Returns:
        One for each artefact, runner and image, in this order.

    Raises:
        UserError: the bundle is none of a classifier of images, or has no artefact for the
            runners; images that cannot be read, all of them in one message.
        RunnerError: a runtime failed.
    """
    bundle = read_bundle(folder)
    if bundle.preprocess is None or len(bundle.inputs) != 1:
        raise BundleError(
            f"{folder} has no preprocessing contract, so its images cannot be prepared",
            advice="convert again with --preprocess, or --mean and --std",
        )
    tensors = _prepare(images, bundle.preprocess)
    found: list[ImageRun] = []
    for artifact in bundle.artifacts:
        for one in select_runners(find_target(artifact.target).runners, runners, ()):
            if file := one.file_to_run(artifact.path, [f.path for f in artifact.files]):
                spec = RunnerSpec(one.name, str(folder / file), {"threads": threads}, timeout_s)
                found += _run(bundle, artifact, one, spec, list(zip(images, tensors, strict=True)))
    if not found:
        raise UserError(f"none of the runners {', '.join(runners)} runs an artefact of {folder}")
    return tuple(found)


def _prepare(images: Sequence[Path], preprocess: Preprocess) -> list[FloatArray]:
    """Each image as float32 (1, channels, height, width)."""
    tensors, unreadable = [], []
    for path in images:
        try:
            tensors.append(preprocess.apply(open_image(path))[np.newaxis])
        except DataError as error:
            words = str(error).splitlines()[0]
            unreadable.append(words if str(path) in words else f"{path}: {words}")
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(images)} images cannot be read:\n  "
            + "\n  ".join(unreadable),
            expected="image files, e.g. JPEG or PNG",
        )
    return tensors


def _run(
    bundle: Bundle,
    artifact: BundleArtifact,
    one: RunnerDefinition,
    spec: RunnerSpec,
    samples: Sequence[tuple[Path, FloatArray]],
) -> list[ImageRun]:
    found = []
    name, output = bundle.inputs[0].name, artifact.outputs[0]
    with open_runner(spec) as runner:

        def call(tensor: FloatArray) -> FloatArray:
            return run_samples(runner, {name: tensor}, artifact.inputs, (output,))[output.name]

        call(samples[0][1])  # the first call makes ready what the next ones use
        for path, tensor in samples:
            start = time.perf_counter()
            scores = call(tensor)
            elapsed = time.perf_counter() - start
            if scores.ndim != _RANK_OF_SCORES:
                raise BundleError(
                    f"the output '{output.name}' of {artifact.path} has shape {scores.shape}",
                    expected="scores of shape (1, classes): run names classes of images",
                )
            guesses = _largest(scores[0], bundle.labels)
            kind = artifact.output_kinds.get(output.name, "")
            found.append(
                ImageRun(str(path), artifact.path, one.name, kind, guesses, elapsed * 1000)
            )
    return found


def _largest(scores: FloatArray, labels: Sequence[str] | None) -> tuple[Guess, ...]:
    order = np.argsort(-scores, kind="stable")[:TOP]
    fits = labels is not None and len(labels) == len(scores)
    return tuple(
        Guess(int(i), labels[i] if fits and labels is not None else str(int(i)), float(scores[i]))
        for i in order
    )
