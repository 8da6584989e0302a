"""int8 of the trained families by method: signal to noise on images that nothing saw.

    python benchmarks/accuracy.py [--only ghostnet ...] [--methods minmax auto] [--images 500]
                                  [--targets tflite ...] [--write]

Each checkpoint of `examples/checkpoints/` is converted to int8 by each method, calibrated on the
128 images that it brings (training images), and its artefact runs on the first runner of its
target that runs here. Measured are images of `examples/fashion_mnist_sample.npz` (test images:
neither trained, calibrated nor chosen by). `--write` puts the table into docs/measured/accuracy.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploykit import load
from deploykit.accuracy.labelled_images import read_labelled_images
from deploykit.bundle import BundleArtifact, read_bundle
from deploykit.files import write_atomically
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.runners import opened_reference
from deploykit.parity.samples import run_samples
from deploykit.runners.base import RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.runners.registry import available_runners
from deploykit.target import find_target
from deploykit.tensors import FloatArray

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "examples" / "checkpoints"
SAMPLE = ROOT / "examples" / "fashion_mnist_sample.npz"
PAGE = ROOT / "docs" / "measured" / "accuracy.md"

_HEAD = """\
# int8 by method

Written by `python benchmarks/accuracy.py --write`: the families of `examples/checkpoints/` in int8,
calibrated on the 128 training images that each brings, measured on {images} test images of
`examples/fashion_mnist_sample.npz`, which nothing was fitted to. The runner is the first of
the target that runs here.

- **pooled**: signal to noise against the float model, dB, over all images together.
- **median**: of the images' own.
- **agreement**: images with the float model's top-1 class.
- **CPU s**: of the conversion without verification, loading and import left out; one run.

"""
_COLUMNS = "| family | target | method | pooled dB | median dB | agreement | top-1 | CPU s |"


@dataclass(frozen=True)
class Figure:
    """One int8 artefact.

    Attributes:
        family: Name of the checkpoint.
        target: Name of the target.
        method: Name of the method.
        pooled_db: Signal to noise over all images, dB.
        median_db: Median of the images' own, dB.
        agreement: Share of images with the reference's class.
        top1: Share of images with the right class.
        cpu_s: Of the conversion of all targets together, over their number.
    """

    family: str
    target: str
    method: str
    pooled_db: float
    median_db: float
    agreement: float
    top1: float
    cpu_s: float

    def line(self) -> str:
        """As a row of the table."""
        return (
            f"| {self.family} | {self.target} | {self.method} | {self.pooled_db:.1f} | "
            f"{self.median_db:.1f} | {self.agreement:.1%} | {self.top1:.1%} | {self.cpu_s:.1f} |"
        )


def measure(
    checkpoint: Path, targets: tuple[str, ...], methods: tuple[str, ...], count: int
) -> list[Figure]:
    """All figures of one checkpoint."""
    model = load(checkpoint)
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        wanted = images = labels = None
        for method in methods:
            out = Path(name) / method
            request = ConvertRequest(
                targets=targets, precisions=("int8",), method=method, verify=False, out=out
            )
            start = time.process_time()
            convert(model, request)
            seconds = (time.process_time() - start) / len(targets)
            bundle = read_bundle(out)
            if wanted is None or images is None or labels is None:
                if bundle.preprocess is None:
                    raise SystemExit(f"{checkpoint} has no preprocessing contract")
                labelled = read_labelled_images(SAMPLE, bundle.labels)
                apply = bundle.preprocess.apply
                images = np.stack([apply(image) for image in labelled.images[:count]])
                labels = np.asarray(labelled.labels[:count])
                source, output = bundle.inputs[0], bundle.outputs[0]
                with opened_reference(model, batch=1, threads=1, timeout_s=600) as runner:
                    wanted = run_samples(runner, {source.name: images}, (source,), (output,))
                wanted = wanted[output.name]
            for artifact in bundle.artifacts:
                given = run(out, artifact, images)
                figure = compare(wanted, given, labels)
                found.append(replace(figure, family=checkpoint.stem, target=artifact.target,
                                     method=method, cpu_s=seconds))  # fmt: skip
                print(found[-1].line(), flush=True)
    return found


def run(folder: Path, artifact: BundleArtifact, images: FloatArray) -> FloatArray:
    """Outputs of an artefact on the first runner of its target."""
    definition = available_runners(find_target(artifact.target).runners)[0]
    file = definition.file_to_run(artifact.path, [f.path for f in artifact.files])
    spec = RunnerSpec(definition.name, str(folder / file), {"threads": 1}, 600.0)
    (source,), (output,) = artifact.inputs, artifact.outputs
    with open_runner(spec) as runner:
        return run_samples(runner, {source.name: images}, (source,), (output,))[output.name]


def compare(wanted: FloatArray, given: FloatArray, labels: np.ndarray) -> Figure:
    """The figures of outputs (n, classes) against the float model's."""
    wanted, given = (side.reshape(len(labels), -1).astype(np.float64) for side in (wanted, given))
    signal, noise = (np.square(side).sum(axis=1) for side in (wanted, wanted - given))
    return Figure(
        family="",
        target="",
        method="",
        pooled_db=float(10 * np.log10(signal.sum() / noise.sum())),
        median_db=float(np.median(10 * np.log10(signal / np.maximum(noise, 1e-30)))),
        agreement=float((wanted.argmax(1) == given.argmax(1)).mean()),
        top1=float((given.argmax(1) == labels).mean()),
        cpu_s=0.0,
    )


def means(figures: list[Figure]) -> list[str]:
    """A row a target and method: the mean over the families."""
    lines = []
    for target in dict.fromkeys(f.target for f in figures):
        for method in dict.fromkeys(f.method for f in figures):
            rows = [f for f in figures if (f.target, f.method) == (target, method)]
            mean = {
                name: float(np.mean([getattr(row, name) for row in rows]))
                for name in ("pooled_db", "median_db", "agreement", "top1", "cpu_s")
            }
            lines.append(Figure("**mean**", target, method, **mean).line())
    return lines


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [path.stem for path in sorted(CHECKPOINTS.glob("*.pt"))]
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--methods", nargs="+", default=["minmax", "auto"])
    parser.add_argument("--targets", nargs="+", default=["tflite", "ncnn", "onnx", "coreml"])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    figures: list[Figure] = []
    for name in asked.only:
        path = CHECKPOINTS / f"{name}.pt"
        figures += measure(path, tuple(asked.targets), tuple(asked.methods), asked.images)
    print("\n".join(means(figures)))
    if asked.write:
        rule = f"|{'---|' * (_COLUMNS.count('|') - 1)}"
        lines = [_COLUMNS, rule, *(f.line() for f in figures), *means(figures)]
        text = _HEAD.format(images=asked.images) + "\n".join(lines) + "\n"
        write_atomically(PAGE, text.encode())


if __name__ == "__main__":
    main()
