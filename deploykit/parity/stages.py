"""A stage in ONNX Runtime: a temporary .onnx file and a runner on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from deploykit.model import Model
from deploykit.parity.samples import run_samples
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.temporary import scratch_folder
from deploykit.tensors import FloatArray

STAGE_RUNNER = "onnxruntime"


@contextmanager
def opened_stage(
    stage: Model,
    *,
    threads: int = 1,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> Iterator[Runner]:
    """A runner with the stage loaded, exactly as its graph is written.

    Raises:
        RunnerError: ONNX Runtime refuses the stage.
    """
    with scratch_folder() as folder:
        path = folder / f"{stage.stage.value}.onnx"
        stage.save(path)
        spec = RunnerSpec(STAGE_RUNNER, str(path), {"threads": threads}, timeout_s)
        with open_with(spec) as runner:
            yield runner


def run_stage(
    stage: Model,
    inputs: Mapping[str, FloatArray],
    *,
    like: Model | None = None,
    threads: int = 1,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> dict[str, FloatArray]:
    """A stage's outputs for every sample, float32 (n, ...), by output name.

    ``like`` is a stage whose inputs and outputs have their static shapes, where this one (an .onnx
    file as it came) may leave an output's open.

    Raises:
        RunnerError: ONNX Runtime refuses the stage or fails on it.
    """
    with opened_stage(stage, threads=threads, timeout_s=timeout_s, open_with=open_with) as runner:
        shapes = stage if like is None else like
        return run_samples(runner, inputs, shapes.inputs, shapes.outputs)
