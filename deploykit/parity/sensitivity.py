"""How far float32 rounding alone moves a model's outputs: what no conversion can be blamed for.

Every runtime adds in another order. A deep network, or a steep function at its end (a sigmoid of
large logits), carries those roundings to the output. The measure is the model's own: each weight is
moved by one unit in its last place, up or down at random (fixed seeds), the fused stage runs again,
and what its outputs move by, over their range, is its sensitivity. On compact classifiers that is
2e-7 to 1e-6; on eight convolutions of 64 channels before a sigmoid of slope 40 it is 1e-4, and so
are the differences between ONNX Runtime with and without its own optimizations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploykit.model import Model
from deploykit.parity.metrics import max_error_over_range
from deploykit.parity.stages import run_stage
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.tensors import FloatArray

#: One unit in the last place of float32, over the number itself (at most).
_ULP = 2.0**-23
_SEEDS = (0, 1)
#: A few samples find what is sensitive.
_SAMPLES = 8


def measure_sensitivity(
    stage: Model,
    inputs: Mapping[str, FloatArray],
    outputs: Mapping[str, FloatArray],
    *,
    threads: int = 1,
    timeout_s: float = 120.0,
    open_with: Callable[[RunnerSpec], Runner] = open_runner,
) -> dict[str, float]:
    """Output name → largest movement over the output's range, of two perturbations.

    Args:
        stage: A float stage.
        inputs: Golden inputs by name, float32 (n, ...); the first samples serve.
        outputs: What the stage gave for them, by name.
        threads: Threads of ONNX Runtime.
        timeout_s: Seconds that opening, and each run, may take.
        open_with: What opens the runner.

    Raises:
        RunnerError: ONNX Runtime refuses the stage.
    """
    batch = max(spec.batch for spec in stage.inputs)
    count = -(-_SAMPLES // batch) * batch
    given = {name: array[:count] for name, array in inputs.items()}
    moved: dict[str, float] = {}
    for seed in _SEEDS:
        found = run_stage(
            perturbed(stage, seed),
            given,
            like=stage,
            threads=threads,
            timeout_s=timeout_s,
            open_with=open_with,
        )
        for name, array in found.items():
            # Over the range of all samples, as an artefact's error is.
            whole = outputs[name]
            error = max_error_over_range(np.concatenate([array, whole[len(array) :]]), whole)
            moved[name] = max(moved.get(name, 0.0), error)
    return moved


def perturbed(stage: Model, seed: int) -> Model:
    """The stage with every weight moved by one unit in its last place, up or down."""
    import onnx_ir as ir

    graph = stage.graph.clone()
    random = np.random.default_rng(seed)
    for value in graph.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < 2:
            continue
        array = tensor.numpy()
        step = random.choice(np.array([-_ULP, _ULP], np.float32), array.shape)
        value.const_value = ir.Tensor((array * (1 + step)).astype(np.float32), name=value.name)
    return stage.advanced(graph, stage.stage, ())
