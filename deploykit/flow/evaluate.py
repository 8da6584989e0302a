"""`evaluate`: top-1 of every artefact of a bundle on labelled data, beside the float reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deploykit.bundle import Bundle, read_bundle
from deploykit.errors import BundleError, SourceError, UserError
from deploykit.files import files_in, sha256_of
from deploykit.flow.runners import opened_reference, select_runners
from deploykit.parity.samples import run_samples
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.target import find_target
from deploykit.verdict import AccuracyRow, AccuracyTable

if TYPE_CHECKING:
    from deploykit.accuracy.labelled_images import LabelledImages
    from deploykit.accuracy.top1 import Top1
    from deploykit.preprocess import Preprocess
    from deploykit.tensors import FloatArray, TensorSpec


def evaluate(
    folder: Path,
    data: Path,
    *,
    source: str = "",
    samples: int | None = None,
    runners: Sequence[str] = (),
    threads: int = 1,
    timeout_s: float = 600.0,
) -> AccuracyTable:
    """Measure top-1 of every artefact of a bundle, images prepared by its own contract.

    Args:
        folder: The bundle.
        data: An .npz with ``images`` (n, H, W, C uint8) and ``labels``, or a folder of IDX files.
        source: The source model, for the float reference; empty for none.
        samples: Use the first so many images; None for all.
        runners: Names of runners; empty for the first of each target that runs
            on this machine.
        threads: Threads of each runtime.
        timeout_s: Time limit of each batch of 250 images, seconds.

    Raises:
        UserError: the bundle, data or source cannot be used.
        RunnerError: a runtime failed.
    """
    from deploykit.accuracy.top1 import check_classes

    bundle = read_bundle(folder)
    if bundle.preprocess is None:
        raise BundleError(
            f"{folder} has no preprocessing contract, so its images cannot be prepared",
            advice="convert from a checkpoint that has one, or from an architecture that has "
            "a default",
        )
    images = _load_images(data, samples)
    check_classes(bundle.labels, images)
    rows: list[AccuracyRow] = []
    reference = None
    if source:
        reference, runtime, size = _evaluate_reference(
            bundle, bundle.preprocess, source, images, threads, timeout_s
        )
        rows.append(_row("reference", "fp32", runtime, size, reference, reference))
    for artifact in bundle.artifacts:
        chosen = select_runners(find_target(artifact.target).runners, runners, ())
        for one in chosen if runners else chosen[:1]:
            file = one.file_to_run(artifact.path, [f.path for f in artifact.files])
            if not file:
                continue
            spec = RunnerSpec(one.name, str(folder / file), {"threads": threads}, timeout_s)
            with open_runner(spec) as runner:
                top1 = _measure(
                    runner, artifact.inputs[0], artifact.outputs[0], bundle.preprocess, images
                )
            rows.append(
                _row(artifact.path, artifact.precision, one.name, artifact.bytes, top1, reference)
            )
    if not rows:
        raise UserError(f"none of the runners {', '.join(runners)} runs an artefact of {folder}")
    return AccuracyTable(tuple(rows))


def _row(
    what: str, precision: str, runner: str, size: int, top1: Top1, reference: Top1 | None
) -> AccuracyRow:
    agreement = None
    if reference is not None:
        agreement = float(np.mean(top1.predictions == reference.predictions))
    return AccuracyRow(what, precision, runner, size, top1.correct, top1.total, agreement)


def _load_images(path: Path, samples: int | None) -> LabelledImages:
    from deploykit.accuracy.labelled_images import read_labelled_images

    images = read_labelled_images(path)
    if samples is None or samples >= len(images):
        return images
    return replace(images, images=images.images[:samples], labels=images.labels[:samples])


def _evaluate_reference(
    bundle: Bundle,
    preprocess: Preprocess,
    source: str,
    images: LabelledImages,
    threads: int,
    timeout_s: float,
) -> tuple[Top1, str, int]:
    from deploykit.sources.load import load

    path = Path(source)
    if not path.exists():
        raise SourceError(f"there is no file {source}", expected="the bundle's source model")
    if sha256_of(path) != bundle.source["sha256"]:
        raise SourceError(
            f"{source} is not what the bundle was made from",
            expected=f"a file with SHA-256 {bundle.source['sha256'][:16]}...",
        )
    model = load(path)
    size = sum(file.stat().st_size for file in files_in(path))
    with opened_reference(
        model, batch=bundle.inputs[0].shape[0], threads=threads, timeout_s=timeout_s
    ) as runner:
        measured = _measure(runner, bundle.inputs[0], bundle.outputs[0], preprocess, images)
        return measured, runner.info.name, size


def _measure(
    runner: Runner,
    source: TensorSpec,
    result: TensorSpec,
    preprocess: Preprocess,
    images: LabelledImages,
) -> Top1:
    from deploykit.accuracy.top1 import top1

    def predict(tensors: FloatArray) -> FloatArray:
        return run_samples(runner, {source.name: tensors}, (source,), (result,))[result.name]

    return top1(predict, images, preprocess)
