"""A profile as one self-contained page: totals, bars a layer, roofline, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploykit.cost.layer import LayerCost, ModelProfile, StageCost
from deploykit.report.html import Markup, element, joined, page, table
from deploykit.report.profile_charts import (
    Bars,
    draw_bars,
    draw_intensity,
    draw_roofline,
    series_of,
)
from deploykit.report.profile_terminal import group_of, kind_of, time_cells
from deploykit.units import format_bytes, format_count, format_us

_LAYER_HEADER = (
    *("layer", "op", "output", "parameters", "mult-adds", "FLOPs", "memory access"),
    *("activation", "FLOP/byte"),
)


def profile_to_html(profile: ModelProfile) -> str:
    """The page; the same profile gives the same bytes."""
    layers = profile.after.layers
    times = profile.measurement.layer_us if profile.measurement else {}
    groups = _groups(layers)
    series = series_of(list(groups))
    colours = [series[group_of(layer)] for layer in layers]
    return page(
        f"{profile.model}: profile",
        element("h1", profile.model),
        element("p", _subtitle(profile), attributes={"class": "quiet"}),
        _tiles(profile),
        _warnings(profile),
        element("h2", "Before and after fusion"),
        _totals(profile),
        element("h2", "Layer by layer"),
        _legend(series),
        element("figure", draw_bars(layers, _rows(layers, times), colours, _bars_title(times))),
        element("h2", "Roofline" if times else "Arithmetic intensity"),
        _scatter(layers, times, colours),
        element("h2", "By kind of op, after fusion"),
        _by_kind(profile, groups, times),
        _profiled(profile),
        element("h2", "Layers after fusion"),
        _layer_table(profile.after, times),
        element(
            "details",
            element("summary", f"Layers before fusion ({len(profile.before.layers)})"),
            _layer_table(profile.before, {}),
        ),
        element("p", _legal(profile), attributes={"class": "quiet"}),
    )


def _subtitle(profile: ModelProfile) -> str:
    text = f"Cost by layer; bytes counted as {profile.precision}."
    if profile.measurement is not None:
        text += f" Times in fp32 on {profile.measurement.runtime}."
    return text


def _legal(profile: ModelProfile) -> str:
    text = (
        "Mult-adds are those of convolutions and matrix products. FLOPs are all arithmetic. "
        "Memory access is every input, weight and output once. A ReLU that is computed in the "
        "registers of the layer before it belongs to that layer."
    )
    measured = profile.measurement
    if measured is not None:
        total = format_us(sum(measured.layer_us.values()))
        text += (
            f" Measured: {measured.method}, of {measured.rounds} rounds. The sum of the layers is "
            f"{total}, the whole {format_us(measured.whole_us)}."
        )
    return text


def _tiles(profile: ModelProfile) -> Markup:
    after = profile.after
    tiles = [
        (format_count(profile.before.parameters), "parameters"),
        (format_count(after.mult_adds), "mult-adds"),
        (format_count(after.flops), "FLOPs"),
        (format_bytes(after.mac_bytes), "memory access"),
        (format_bytes(after.peak_activation_bytes), "peak of activations"),
    ]
    if profile.measurement is not None:
        tiles.append((format_us(profile.measurement.whole_us), "one inference"))
    items = [element("li", element("b", figure), element("span", name)) for figure, name in tiles]
    return element("ul", *items, attributes={"class": "tiles"})


def _warnings(profile: ModelProfile) -> Markup:
    lines = [
        f"{stage.stage}: {stage.format_uncounted()}; the totals do not hold them."
        for stage in (profile.before, profile.after)
        if stage.uncounted
    ]
    return joined([element("p", line, attributes={"class": "warn"}) for line in lines])


def _totals(profile: ModelProfile) -> Markup:
    header = (
        *("stage", "layers", "parameters", "weights", "mult-adds", "FLOPs", "memory access"),
        *("activations", "peak", "FLOP/byte"),
    )
    rows = [
        (
            stage.stage,
            str(len(stage.layers)),
            format_count(stage.parameters),
            format_bytes(stage.weight_bytes),
            format_count(stage.mult_adds),
            format_count(stage.flops),
            format_bytes(stage.mac_bytes),
            format_bytes(stage.activation_bytes),
            format_bytes(stage.peak_activation_bytes),
            f"{stage.intensity:.2f}",
        )
        for stage in (profile.before, profile.after)
    ]
    return table(header, rows, caption="Totals before and after fusion")


def _groups(layers: Sequence[LayerCost]) -> dict[str, list[LayerCost]]:
    """Group → its layers, the largest memory access first."""
    groups: dict[str, list[LayerCost]] = {}
    for layer in layers:
        groups.setdefault(group_of(layer), []).append(layer)
    ordered = sorted(groups.items(), key=lambda g: (-sum(x.mac_bytes for x in g[1]), g[0]))
    return dict(ordered)


def _legend(series: Mapping[str, int]) -> Markup:
    names: dict[int, list[str]] = {}
    for group, number in series.items():
        names.setdefault(number, []).append(group)
    items = []
    for number, members in names.items():
        square = element("rect", attributes={"class": f"s{number}", "width": 12, "height": 12})
        swatch = element("svg", square, attributes={"viewBox": "0 0 12 12", "aria-hidden": "true"})
        items.append(element("li", swatch, ", ".join(members)))
    return element("ul", *items, attributes={"class": "legend"})


def _rows(layers: Sequence[LayerCost], times: Mapping[str, float]) -> list[Bars]:
    rows = []
    if times:
        rows.append(Bars("measured time", tuple(times.get(x.name) for x in layers), format_us))
    counted = [layer if layer.counted else None for layer in layers]
    return [
        *rows,
        Bars("FLOPs", tuple(x.flops if x else None for x in counted), format_count),
        Bars("memory access", tuple(x.mac_bytes if x else None for x in counted), format_bytes),
    ]


def _bars_title(times: Mapping[str, float]) -> str:
    figures = "measured time, FLOPs and memory access" if times else "FLOPs and memory access"
    return f"Bars of {figures} of each layer; the table of layers below has the same figures"


def _scatter(
    layers: Sequence[LayerCost], times: Mapping[str, float], colours: Sequence[int]
) -> Markup:
    idle = [layer for layer in layers if layer.counted and not layer.flops and not layer.is_view]
    note = ""
    if idle:
        note = (
            f" {len(idle)} layers compute nothing and only move "
            f"{format_bytes(sum(x.mac_bytes for x in idle))}"
        )
        if times:
            note += f" in {format_us(sum(times.get(x.name, 0.0) for x in idle))}"
        note += "; they have no place on a logarithmic axis."
    if times:
        chart = draw_roofline(layers, times, colours, "Speed of each layer over its intensity")
        words = (
            "Each dot is a layer. The line is the best speed and the best bandwidth that any layer "
            "reached here: what lies far below it has something to gain."
        )
    else:
        chart = draw_intensity(layers, colours, "FLOPs of each layer over its memory access")
        words = (
            "Each dot is a layer. What lies low to the right moves much and computes little: "
            "memory, not arithmetic, sets its time."
        )
    return element("figure", chart, element("figcaption", words + note))


def _by_kind(
    profile: ModelProfile, groups: Mapping[str, list[LayerCost]], times: Mapping[str, float]
) -> Markup:
    header = ["op", "layers", "parameters", "mult-adds", "FLOPs", "memory access", "share"]
    if times:
        header += ["time", "share"]
    rows = []
    for group, members in groups.items():
        counted = all(layer.counted for layer in members)
        mac_bytes = sum(layer.mac_bytes for layer in members)
        row = [
            group,
            str(len(members)),
            format_count(sum(layer.parameters for layer in members)),
            format_count(sum(layer.mult_adds for layer in members)) if counted else "?",
            format_count(sum(layer.flops for layer in members)) if counted else "?",
            format_bytes(mac_bytes) if counted else "?",
            f"{100 * mac_bytes / max(profile.after.mac_bytes, 1):.1f} %" if counted else "?",
        ]
        if times:
            row += time_cells(members, times)
        rows.append(row)
    return table(header, rows, caption="Cost by kind of op after fusion")


def _profiled(profile: ModelProfile) -> Markup:
    run = profile.measurement.profiled if profile.measurement is not None else None
    if run is None:
        return Markup("")
    total = sum(op.us for op in run.ops)
    rows = [
        (str(index), op.name, format_us(op.us), f"{100 * op.us / max(total, 1e-9):.1f} %")
        for index, op in enumerate(run.ops)
    ]
    words = f"{run.runtime}: mean of {run.runs} runs, wall clock; {format_us(total)} in all."
    header = ("#", "operator", "time", "share")
    caption = "Operators by the runtime's own profiler"
    return joined(
        [
            element("h2", caption),
            element("p", words, attributes={"class": "quiet"}),
            table(header, rows, caption=caption, left=2, tall=True),
        ]
    )


def _layer_table(stage: StageCost, times: Mapping[str, float]) -> Markup:
    rows = []
    for layer in stage.layers:
        shape = "×".join(str(d) for d in layer.output_shapes[0]) if layer.output_shapes else "-"
        counts = ("?", "?", "?", format_bytes(layer.activation_bytes), "?")
        if layer.counted:
            counts = (
                format_count(layer.mult_adds),
                format_count(layer.flops),
                format_bytes(layer.mac_bytes),
                format_bytes(layer.activation_bytes),
                f"{layer.intensity:.2f}",
            )
        row = [
            layer.module or layer.name,
            kind_of(layer),
            shape,
            format_count(layer.parameters),
            *counts,
        ]
        rows.append([*row, format_us(times.get(layer.name))] if times else row)
    header = [*_LAYER_HEADER, "time"] if times else list(_LAYER_HEADER)
    return table(header, rows, caption=f"Layers {stage.stage}", left=3, tall=True)
