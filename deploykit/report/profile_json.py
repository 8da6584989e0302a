"""A profile as JSON: every figure, nothing rounded."""

from __future__ import annotations

import json
from typing import Any

from deploykit.cost.layer import LayerCost, ModelProfile, StageCost
from deploykit.cost.match_profile import match_profile

SCHEMA = 1


def profile_to_json(profile: ModelProfile) -> str:
    """The profile as indented JSON with sorted keys, without a newline at its end."""
    measured = profile.measurement
    data = {
        "schema": SCHEMA,
        "model": profile.model,
        "precision": profile.precision,
        "stages": [_stage(stage, profile) for stage in (profile.before, profile.after)],
        "measurement": None
        if measured is None
        else {
            "runtime": measured.runtime,
            "method": measured.method,
            "rounds": measured.rounds,
            "whole_us": measured.whole_us,
            "sum_of_layers_us": sum(measured.layer_us.values()),
            "unmeasured": dict(measured.unmeasured),
            "runtime_profiler": None
            if measured.profiled is None
            else {
                "runtime": measured.profiled.runtime,
                "runs": measured.profiled.runs,
                "ops": [{"name": op.name, "us": op.us} for op in measured.profiled.ops],
            },
        },
    }
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False)


def _stage(stage: StageCost, profile: ModelProfile) -> dict[str, Any]:
    times = (
        profile.measurement.layer_us
        if profile.measurement is not None and stage is profile.after
        else {}
    )
    profiled = profiled_times(profile) if stage is profile.after else {}
    return {
        "stage": stage.stage,
        "total": {
            "parameters": stage.parameters,
            "weight_bytes": stage.weight_bytes,
            "mult_adds": stage.mult_adds,
            "flops": stage.flops,
            "mac_bytes": stage.mac_bytes,
            "activation_bytes": stage.activation_bytes,
            "peak_activation_bytes": stage.peak_activation_bytes,
            "intensity_flops_per_byte": stage.intensity,
            "uncounted": dict(stage.uncounted),
        },
        "layers": [
            _layer(layer, times.get(layer.name), profiled.get(layer.name)) for layer in stage.layers
        ],
    }


def profiled_times(profile: ModelProfile) -> dict[str, float]:
    """Name of a layer → microseconds by the runtime's own profiler, where they match."""
    if profile.measurement is None or profile.measurement.profiled is None:
        return {}
    return match_profile(profile.after.layers, profile.measurement.profiled)


def _layer(
    layer: LayerCost, measured_us: float | None, profiler_us: float | None
) -> dict[str, Any]:
    # An op without a known cost has none: null, never 0.
    counted = layer.counted
    return {
        "name": layer.name,
        "node": layer.node,
        "op_type": layer.op_type,
        "kind": layer.kind,
        "module": layer.module,
        "input_shapes": [list(shape) for shape in layer.input_shapes],
        "output_shapes": [list(shape) for shape in layer.output_shapes],
        "counted": counted,
        "is_view": layer.is_view,
        "parameters": layer.parameters,
        "mult_adds": layer.mult_adds if counted else None,
        "flops": layer.flops if counted else None,
        "input_bytes": layer.input_bytes if counted else None,
        "weight_bytes": layer.weight_bytes if counted else None,
        "output_bytes": layer.output_bytes if counted else None,
        "mac_bytes": layer.mac_bytes if counted else None,
        "activation_bytes": layer.activation_bytes,
        "intensity_flops_per_byte": layer.intensity if counted else None,
        "measured_us": measured_us,
        "profiler_us": profiler_us,
    }
