"""`evaluate`: top-1 of every artefact of a bundle on labelled data, beside the float reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.bundle import Bundle, read_bundle
from deploykit.errors import BundleError, UserError
from deploykit.files import files_in
from deploykit.flow.runners import opened_reference, select_runners
from deploykit.parity.samples import run_samples
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.target import find_target
from deploykit.verdict import AccuracyRow, AccuracyTable, ClassChange

if TYPE_CHECKING:
    from deploykit.accuracy.top1 import LabelledSet, Top1
    from deploykit.model import Model
    from deploykit.preprocess import Preprocess
    from deploykit.tensors import FloatArray, TensorSpec


#: Files of an IDX folder; where each is missing, it is none.
_IDX_FILES = 4
#: So many changes of class are told of each artefact.
_MOST_CHANGES = 5


def evaluate(
    folder: Path | str,
    data: Path | str,
    *,
    source: str = "",
    arch: str = "",
    arch_kwargs: Mapping[str, Any] | None = None,
    trust_code: bool = False,
    samples: int | None = None,
    runners: Sequence[str] = (),
    threads: int = 1,
    timeout_s: float = 600.0,
    progress: Callable[[str], None] = lambda _: None,
) -> AccuracyTable:
    """Measure top-1 of every artefact of a bundle, images prepared by its own contract.

    Args:
        folder: The bundle.
        data: Class folders of images of any size; a .csv of file,label; an .npz with ``images``
            (n, H, W, C uint8) and ``labels``; or a folder of IDX files.
        source: The source model, for the float reference; empty for none. It is loaded as the
            bundle remembers.
        arch: Its architecture, given again: needed where that is ``package.module:callable``.
        arch_kwargs: Arguments of it, beside those that the bundle remembers.
        trust_code: Whether a source that runs code may be loaded.
        samples: Use at most so many images; None for all.
        runners: Names of runners; empty for the first of each target that runs
            on this machine.
        threads: Threads of each runtime.
        timeout_s: Time limit of each batch of 250 images, seconds.
        progress: Called with one line an artefact.

    Raises:
        UserError: the bundle, data or source cannot be used.
        RunnerError: a runtime failed.
    """
    folder, bundle = Path(folder), read_bundle(Path(folder))
    if bundle.preprocess is None:
        raise BundleError(
            f"{folder} has no preprocessing contract, so its images cannot be prepared",
            advice="convert from a checkpoint that has one, or from an architecture that has "
            "a default",
        )
    images = _load_images(Path(data), bundle, samples)
    rows: list[AccuracyRow] = []
    reference = None
    if source:
        from deploykit.flow.recall import open_source_again

        model = open_source_again(
            bundle, Path(source), arch=arch, arch_kwargs=arch_kwargs, trust_code=trust_code
        )
        progress(f"reference: {len(images):,} images")
        reference, name = _evaluate_reference(bundle, model, images, threads, timeout_s)
        size = sum(file.stat().st_size for file in files_in(Path(source)))
        rows.append(_row("reference", "fp32", name, size, reference, reference, images.classes))
    for artifact in bundle.artifacts:
        chosen = select_runners(find_target(artifact.target).runners, runners, ())
        for one in chosen if runners else chosen[:1]:
            file = one.file_to_run(artifact.path, [f.path for f in artifact.files])
            if not file:
                continue
            progress(f"{artifact.path} on {one.name}: {len(images):,} images")
            spec = RunnerSpec(one.name, str(folder / file), {"threads": threads}, timeout_s)
            with open_runner(spec) as runner:
                top1 = _measure(
                    runner, artifact.inputs[0], artifact.outputs[0], bundle.preprocess, images
                )
            what = (artifact.path, artifact.precision, one.name, artifact.bytes)
            rows.append(_row(*what, top1, reference, images.classes))
    if not rows:
        raise UserError(f"none of the runners {', '.join(runners)} runs an artefact of {folder}")
    table = AccuracyTable(tuple(rows), len(images.classes))
    if table.near_chance:
        table = replace(table, rows=tuple(replace(row, decides=False) for row in rows))
    return table


def _row(
    what: str,
    precision: str,
    runner: str,
    size: int,
    top1: Top1,
    reference: Top1 | None,
    classes: Sequence[str],
) -> AccuracyRow:
    agreement = None
    if reference is not None:
        agreement = float(np.mean(top1.predictions == reference.predictions))
    return AccuracyRow(
        what,
        precision,
        runner,
        size,
        top1.correct,
        top1.total,
        agreement,
        correct5=top1.correct5,
        images_per_s=round(top1.total / top1.seconds, 1) if top1.seconds else 0.0,
        changes=_changes(top1, reference, classes),
    )


def _changes(top1: Top1, reference: Top1 | None, classes: Sequence[str]) -> tuple[ClassChange, ...]:
    """The most frequent changes from the reference's class to the artefact's."""
    if reference is None:
        return ()

    def name(index: int) -> str:
        return classes[index] if index < len(classes) else str(index)

    differ = np.flatnonzero(top1.predictions != reference.predictions)
    pairs = Counter((int(reference.predictions[i]), int(top1.predictions[i])) for i in differ)
    right = Counter(
        (int(reference.predictions[i]), int(top1.predictions[i]))
        for i in differ
        if top1.predictions[i] == top1.labels[i]
    )
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CHANGES]
    return tuple(
        ClassChange(name(pair[0]), name(pair[1]), count, right[pair]) for pair, count in ranked
    )


def _load_images(path: Path, bundle: Bundle, samples: int | None) -> LabelledSet:
    """The labelled images at a path, with the model's classes."""
    from deploykit.accuracy.labelled_files import read_class_folders, read_csv
    from deploykit.accuracy.labelled_images import missing_idx_files, read_labelled_images
    from deploykit.accuracy.top1 import check_classes

    shape = bundle.outputs[0].shape
    outputs = shape[1] if len(shape) == 2 else 0
    if outputs < 2:
        raise BundleError(
            f"the output '{bundle.outputs[0].name}' of the bundle's model has shape {shape}",
            expected="(1, classes), to measure top-1",
        )
    if path.suffix.lower() == ".csv" and path.is_file():
        return read_csv(path, bundle.labels, outputs).limited(samples)
    if path.is_dir() and len(missing_idx_files(path)) == _IDX_FILES:
        return read_class_folders(path, bundle.labels, outputs).limited(samples)
    images = read_labelled_images(path, bundle.labels or [str(index) for index in range(outputs)])
    check_classes(bundle.labels, images)
    if samples is None or samples >= len(images):
        return images
    return replace(images, images=images.images[:samples], labels=images.labels[:samples])


def _evaluate_reference(
    bundle: Bundle, model: Model, images: LabelledSet, threads: int, timeout_s: float
) -> tuple[Top1, str]:
    if bundle.preprocess is None:
        raise AssertionError("a bundle without a contract was let through")
    with opened_reference(
        model, batch=bundle.inputs[0].shape[0], threads=threads, timeout_s=timeout_s
    ) as runner:
        found = _measure(runner, bundle.inputs[0], bundle.outputs[0], bundle.preprocess, images)
        return found, runner.info.name


def _measure(
    runner: Runner,
    source: TensorSpec,
    result: TensorSpec,
    preprocess: Preprocess,
    images: LabelledSet,
) -> Top1:
    from deploykit.accuracy.top1 import top1

    def predict(tensors: FloatArray) -> FloatArray:
        return run_samples(runner, {source.name: tensors}, (source,), (result,))[result.name]

    return top1(predict, images, preprocess)
