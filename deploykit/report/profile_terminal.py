"""A profile as text for a terminal: totals before and after fusion, kinds, then the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploykit.cost.layer import LayerCost, ModelProfile, StageCost
from deploykit.cost.match_profile import match_profile
from deploykit.graph.ops import DOMAIN
from deploykit.printable import printable_row
from deploykit.units import format_bytes, format_count, format_us

_TOTALS = (
    *("", "layers", "parameters", "mult-adds", "FLOPs", "memory access", "activations"),
    *("peak", "FLOP/byte"),
)
_LAYERS = (
    *("#", "layer", "kind", "output", "parameters", "mult-adds", "FLOPs", "memory access"),
    *("activation", "FLOP/byte"),
)


def render_profile(profile: ModelProfile, *, layers: Sequence[StageCost] = ()) -> str:
    """The profile as tables, without a newline at the end.

    Args:
        profile: What to show.
        layers: The stages whose layers are listed.
    """
    sections = [
        f"model: {profile.model}   bytes as {profile.precision}",
        *_totals(profile),
        "",
        *_by_kind(profile),
        *_by_profiler(profile),
    ]
    for stage in layers:
        sections += ["", f"layers {stage.stage}:", *_layers(stage, profile)]
    return "\n".join(sections)


def _totals(profile: ModelProfile) -> list[str]:
    stages = (profile.before, profile.after)
    rows = [
        (
            stage.stage,
            str(len(stage.layers)),
            format_count(stage.parameters),
            format_count(stage.mult_adds),
            format_count(stage.flops),
            format_bytes(stage.mac_bytes),
            format_bytes(stage.activation_bytes),
            format_bytes(stage.peak_activation_bytes),
            f"{stage.intensity:.2f}",
        )
        for stage in stages
    ]
    lines = ["", *align([_TOTALS, *rows], left=1)]
    warned = [f"{s.stage}: {s.format_uncounted()}" for s in stages if s.uncounted]
    if warned:
        lines += ["", *warned, "  (the totals do not hold them)"]
    measured = profile.measurement
    if measured is not None:
        total = sum(measured.layer_us.values())
        lines += [
            "",
            (
                f"measured on {measured.runtime}: whole {format_us(measured.whole_us)}, "
                f"sum of {len(measured.layer_us)} layers {format_us(total)}"
            ),
            f"  ({measured.method}; of {measured.rounds} rounds)",
        ]
        reasons: dict[str, int] = {}
        for reason in measured.unmeasured.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        lines += [f"  not measured: {n} x {reason}" for reason, n in sorted(reasons.items())]
    return lines


def _by_profiler(profile: ModelProfile) -> list[str]:
    """The runtime's own profiler: its operators, summed up by name."""
    run = profile.measurement.profiled if profile.measurement is not None else None
    if run is None:
        return []
    groups: dict[str, list[float]] = {}
    for op in run.ops:
        groups.setdefault(op.name, []).append(op.us)
    total = sum(op.us for op in run.ops)
    rows = [
        (name, str(len(times)), format_us(sum(times)), _share(sum(times), total))
        for name, times in sorted(groups.items(), key=lambda g: (-sum(g[1]), g[0]))
    ]
    matched = bool(match_profile(profile.after.layers, run))
    note = "one a layer, in order" if matched else "they do not match the layers one by one"
    return [
        "",
        (
            f"{run.runtime}: {len(run.ops)} operators, {format_us(total)} (mean of {run.runs} "
            f"runs, wall clock; {note})"
        ),
        *align([("operator", "count", "time", "share"), *rows], left=1),
    ]


def group_of(layer: LayerCost) -> str:
    """What a layer is summed up under: the kind without its window."""
    head = layer.kind.split(" ")[0]
    if head in _CONVOLUTIONS:
        return f"{_CONVOLUTIONS[head]} convolution"
    return layer.op_type.split(" + ")[0].removeprefix(f"{DOMAIN}::")


_CONVOLUTIONS = {
    "pointwise": "pointwise",
    "depthwise": "depthwise",
    "conv": "standard",
    "grouped": "grouped",
    "transposed": "transposed",
}


def _by_kind(profile: ModelProfile) -> list[str]:
    stage = profile.after
    times = profile.measurement.layer_us if profile.measurement else {}
    groups: dict[str, list[LayerCost]] = {}
    for layer in stage.layers:
        groups.setdefault(group_of(layer), []).append(layer)
    header = ["after fusion", "layers", "mult-adds", "share", "FLOPs", "memory access", "share"]
    if times:
        header += ["time", "share"]
    rows = []
    ordered = sorted(groups.items(), key=lambda g: (-sum(x.mac_bytes for x in g[1]), g[0]))
    for name, members in ordered:
        counted = all(layer.counted for layer in members)
        mult_adds = sum(layer.mult_adds for layer in members)
        mac_bytes = sum(layer.mac_bytes for layer in members)
        row = [
            name,
            str(len(members)),
            format_count(mult_adds) if counted else "?",
            _share(mult_adds, stage.mult_adds),
            format_count(sum(layer.flops for layer in members)) if counted else "?",
            format_bytes(mac_bytes) if counted else "?",
            _share(mac_bytes, stage.mac_bytes),
        ]
        if times:
            row += time_cells(members, times)
        rows.append(tuple(row))
    return align([tuple(header), *rows], left=1)


def time_cells(members: Sequence[LayerCost], times: Mapping[str, float]) -> list[str]:
    """Time of some layers and its share of all; dashes where none of them was measured."""
    found = [times[layer.name] for layer in members if layer.name in times]
    if not found:
        return ["-", "-"]
    return [format_us(sum(found)), _share(sum(found), sum(times.values()))]


def _layers(stage: StageCost, profile: ModelProfile) -> list[str]:
    times: Mapping[str, float] = {}
    if profile.measurement is not None and stage is profile.after:
        times = profile.measurement.layer_us
    profiled: Mapping[str, float] = {}
    if times and profile.measurement is not None and profile.measurement.profiled is not None:
        profiled = match_profile(stage.layers, profile.measurement.profiled)
    header: tuple[str, ...] = (*_LAYERS, "time") if times else _LAYERS
    header = (*header, "profiler") if profiled else header
    rows = []
    for index, layer in enumerate(stage.layers):
        row: tuple[str, ...] = (str(index), *_layer(layer))
        row = (*row, format_us(times.get(layer.name))) if times else row
        rows.append((*row, format_us(profiled.get(layer.name))) if profiled else row)
    return align([header, *rows], left=4)


def _layer(layer: LayerCost) -> tuple[str, ...]:
    shape = "x".join(str(d) for d in layer.output_shapes[0]) if layer.output_shapes else "-"
    figures: tuple[str, ...] = ("?", "?", "?")
    if layer.counted:
        figures = (
            format_count(layer.mult_adds),
            format_count(layer.flops),
            format_bytes(layer.mac_bytes),
        )
    return (
        layer.module or layer.name,
        kind_of(layer),
        shape,
        format_count(layer.parameters),
        *figures,
        format_bytes(layer.activation_bytes),
        f"{layer.intensity:.2f}" if layer.counted else "?",
    )


def kind_of(layer: LayerCost) -> str:
    """The kind of a layer, with the clamp that it absorbed: ``pointwise + Relu``."""
    _, plus, clamp = layer.op_type.partition(" + ")
    return f"{layer.kind}{plus}{clamp}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def align(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Rows as lines: the first ``left`` columns to the left, all others to the right."""
    rows = [printable_row(row) for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
