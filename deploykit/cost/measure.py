"""Measured times beside the counts: each layer of the fused stage, and the whole.

A target that can time its own files names a ``file_measurer`` in its definition.
Runtimes hand a whole network to one kernel library, which tells nobody what a layer took; so each
layer is written as a separate file, with its real shapes and weights, by the target's own writer.
All files and the whole network run in turn, round after round, so that a drift of the machine's
speed hits all alike; each timed run follows one that is not timed, since in a network a layer's
input was just written by the layer before it.

What that means for the figures: a layer's time holds the runtime's overhead of one call and finds
its weights in the cache, and does not hold what a library fuses over several layers. The sum of the
layers therefore differs from the whole (0.76 to 1.01 of it where it was tried); both are reported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deploykit.cost.layer import Measurement, ModelProfile
from deploykit.cost.split_layers import split_layers
from deploykit.errors import UnsupportedModelError, UserError
from deploykit.model import Model, Precision

if TYPE_CHECKING:
    from deploykit.target import ArtifactRequest, Target

METHOD = "median {clock} time of one inference that follows another; each layer in a separate file"


def measure_profile(
    profile: ModelProfile,
    fused: Model,
    target_name: str,
    *,
    precision: Precision = Precision.FP32,
    rounds: int = 30,
    threads: int = 1,
    timeout_s: float = 300.0,
    runtime_profiler: bool = False,
) -> ModelProfile:
    """The profile with measured times of its fused stage, or of the quantized one.

    Args:
        profile: As `deploykit.cost.profile.profile_stages` gives it.
        fused: The fused stage that it was made from; for int8 the quantized stage, as the target
            is given it.
        target_name: Whose runtime measures, e.g. ``tflite``.
        precision: fp32 or int8.
        rounds: Of which each time is the median.
        threads: Threads of the runtime.
        timeout_s: Seconds that the whole measurement may take.
        runtime_profiler: Whether the whole also runs under the runtime's own profiler.

    Raises:
        UserError: the target cannot measure, or the model is quantized already.
        UnsupportedOpsError: the whole cannot be lowered.
        RunnerError: the runtime refuses a file, crashes, or takes too long.
    """
    from deploykit.graph.qdq import has_qdq
    from deploykit.target import ArtifactRequest, find_target

    target = find_target(target_name)
    if not target.file_measurer:
        raise UserError(
            f"the target {target_name} cannot measure", expected="a target with a file_measurer"
        )
    if has_qdq(fused.graph) and precision is not Precision.INT8:
        raise UserError(
            "measuring a model that is quantized already, as float",
            expected="a float model: its layers are measured one by one, in fp32",
            advice="add --int8, or measure the model that it was quantized from",
        )
    request = ArtifactRequest(precision)
    layers, unmeasured = _write_layers(profile, fused, target, request)
    files = [target.write(fused, request).data, *layers.values()]
    profiled = None
    if runtime_profiler:
        if not target.op_profiler:
            raise UserError(f"the runtime of {target_name} has no profiler that we can use")
        profiled = target.profile_ops(files[0], runs=rounds, timeout_s=timeout_s)
    found = target.measure_files(files, rounds=rounds, threads=threads, timeout_s=timeout_s)
    return replace(
        profile,
        measurement=Measurement(
            runtime=found.runtime,
            method=METHOD.format(clock=found.clock),
            whole_us=found.us[0],
            layer_us=dict(zip(layers, found.us[1:], strict=True)),
            unmeasured=unmeasured,
            rounds=rounds,
            profiled=profiled,
        ),
    )


def _write_layers(
    profile: ModelProfile, fused: Model, target: Target, request: ArtifactRequest
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Name of a layer → its file; and, for those that have none, why."""
    files: dict[str, bytes] = {}
    unmeasured: dict[str, str] = {}
    for layer, graph in zip(profile.after.layers, split_layers(fused.graph), strict=True):
        if layer.is_view or graph is None:
            why = "a view: it moves nothing" if layer.is_view else "between integers and floats"
            unmeasured[layer.name] = why
            continue
        try:
            files[layer.name] = target.write(replace(fused, graph=graph), request).data
        except UnsupportedModelError as error:
            unmeasured[layer.name] = error.found
    return files, unmeasured
