"""The charts of a profile as inline SVG: bars a layer, and the roofline.

Every shape bears its words as a title, so that a pointer or a screen reader gets them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deploykit.cost.layer import LayerCost
from deploykit.report.html import SERIES, Markup, element
from deploykit.units import format_bytes, format_count, format_us

_WIDTH = 1130
_LEFT = 64
_BAR_HEIGHT = 118
_BAR_GAP = 40
_SCATTER_HEIGHT = 420
_FOOT = 44


@dataclass(frozen=True)
class Bars:
    """One row of bars: a figure for each layer.

    Attributes:
        name: What is shown.
        values: One a layer; None where a layer has none.
        shown: How a figure is written.
    """

    name: str
    values: tuple[float | None, ...]
    shown: Callable[[float], str]


def series_of(groups: Sequence[str]) -> dict[str, int]:
    """Group → number of its colour; groups beyond the palette share the last."""
    return {group: min(index, SERIES - 1) for index, group in enumerate(groups)}


def draw_bars(
    layers: Sequence[LayerCost], rows: Sequence[Bars], colours: Sequence[int], title: str
) -> Markup:
    """Rows of bars over the same layers, in the order of the graph."""
    height = len(rows) * (_BAR_HEIGHT + _BAR_GAP)
    step = (_WIDTH - _LEFT) / max(len(layers), 1)
    shapes = []
    for index, row in enumerate(rows):
        top = index * (_BAR_HEIGHT + _BAR_GAP) + 24
        shapes += _bar_row(layers, row, colours, top, step)
    shapes.append(
        element(
            "text",
            f"layers in the order of execution, 0 to {len(layers) - 1}",
            attributes={"x": _WIDTH, "y": height + 6, "text-anchor": "end"},
        )
    )
    return _chart(_WIDTH, height + 12, title, shapes)


def _bar_row(
    layers: Sequence[LayerCost], row: Bars, colours: Sequence[int], top: float, step: float
) -> list[Markup]:
    largest = max((v for v in row.values if v is not None), default=0.0) or 1.0
    base = top + _BAR_HEIGHT - 16
    reach = _BAR_HEIGHT - 24
    shapes = [_text(0, top - 10, row.name, name=True)]
    for share in (0.5, 1.0):
        y = base - share * reach
        shapes += [
            _line(_LEFT, y, _WIDTH, y, "grid"),
            _text(_LEFT - 6, y + 4, row.shown(share * largest), anchor="end"),
        ]
    shapes.append(_line(_LEFT, base, _WIDTH, base, "axis"))
    for index, (layer, value) in enumerate(zip(layers, row.values, strict=True)):
        if not value:
            continue
        tall = max(value / largest * reach, 0.75)
        label = f"{index} {layer.module or layer.name} ({layer.kind}): {row.shown(value)}"
        shapes.append(
            element(
                "rect",
                element("title", label),
                attributes={
                    "class": f"s{colours[index]}",
                    "x": _LEFT + index * step + 0.08 * step,
                    "y": base - tall,
                    "width": 0.84 * step,
                    "height": tall,
                },
            )
        )
    return shapes


def draw_roofline(
    layers: Sequence[LayerCost], times_us: Mapping[str, float], colours: Sequence[int], title: str
) -> Markup:
    """Speed over arithmetic intensity, both logarithmic, under the best that was seen here.

    The roof (Williams et al. 2009) is min(best FLOP/s, intensity * best byte/s) of these layers
    themselves: what this machine was seen to reach, not what it could.
    """
    points = [
        (layer, colour, layer.intensity, layer.flops / times_us[layer.name] / 1000)
        for layer, colour in zip(layers, colours, strict=True)
        if layer.flops and layer.mac_bytes and times_us.get(layer.name)
    ]
    top_gflops = max((p[3] for p in points), default=1.0)
    top_gbytes = max(
        (x.mac_bytes / times_us[x.name] / 1000 for x in layers if times_us.get(x.name)),
        default=1.0,
    )
    frame = _Frame.around([p[2] for p in points], [*(p[3] for p in points), top_gflops])
    shapes = frame.axes("FLOPs a byte of memory access", "GFLOP/s", _plain)
    knee = top_gflops / top_gbytes
    left_y = max(frame.low_y, frame.low_x * top_gbytes)
    corners = [
        (left_y / top_gbytes, left_y),
        (min(max(knee, frame.low_x), frame.high_x), min(top_gflops, frame.high_x * top_gbytes)),
        (frame.high_x, min(top_gflops, frame.high_x * top_gbytes)),
    ]
    way = " L ".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in corners)
    shapes.append(element("path", attributes={"class": "roof", "d": f"M {way}"}))
    shapes += [
        _text(
            frame.x(frame.high_x) - 4,
            frame.y(top_gflops) - 6,
            f"best seen: {top_gflops:.1f} GFLOP/s",
            anchor="end",
        ),
        _text(
            frame.x(corners[0][0]) + 44,
            frame.y(corners[0][1]) - 2,
            f"best seen: {top_gbytes:.1f} GB/s",
        ),
    ]
    for layer, colour, intensity, speed in points:
        words = (
            f"{layer.module or layer.name} ({layer.kind}): {intensity:.2f} FLOP/byte, "
            f"{speed:.1f} GFLOP/s, {format_us(times_us[layer.name])}"
        )
        shapes.append(_dot(frame.x(intensity), frame.y(speed), colour, words))
    return _chart(_WIDTH, _SCATTER_HEIGHT + _FOOT, title, shapes)


def draw_intensity(layers: Sequence[LayerCost], colours: Sequence[int], title: str) -> Markup:
    """FLOPs over memory access, both logarithmic, with lines of equal intensity."""
    points = [
        (layer, colour)
        for layer, colour in zip(layers, colours, strict=True)
        if layer.flops and layer.mac_bytes
    ]
    frame = _Frame.around([p[0].mac_bytes for p in points], [p[0].flops for p in points])
    shapes = frame.axes("memory access", "FLOPs", format_count, format_bytes)
    for intensity in (0.1, 1.0, 10.0, 100.0):
        first = max(frame.low_x, frame.low_y / intensity)
        last = min(frame.high_x, frame.high_y / intensity)
        if first >= last:
            continue
        x, y = frame.x(last), frame.y(last * intensity)
        shapes += [
            _line(frame.x(first), frame.y(first * intensity), x, y, "dash"),
            _text(x - 10, y - 5, f"{intensity:g} FLOP/byte", anchor="end"),
        ]
    for layer, colour in points:
        words = (
            f"{layer.module or layer.name} ({layer.kind}): {format_count(layer.flops)} FLOPs, "
            f"{format_bytes(layer.mac_bytes)}"
        )
        shapes.append(_dot(frame.x(layer.mac_bytes), frame.y(layer.flops), colour, words))
    return _chart(_WIDTH, _SCATTER_HEIGHT + _FOOT, title, shapes)


@dataclass(frozen=True)
class _Frame:
    """Logarithmic axes around some points, from power of ten to power of ten."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    @classmethod
    def around(cls, xs: Sequence[float], ys: Sequence[float]) -> _Frame:
        return cls(*_decades(xs), *_decades(ys))

    def x(self, value: float) -> float:
        span = math.log10(self.high_x / self.low_x)
        return _LEFT + (_WIDTH - _LEFT) * math.log10(value / self.low_x) / span

    def y(self, value: float) -> float:
        span = math.log10(self.high_y / self.low_y)
        return _SCATTER_HEIGHT - (_SCATTER_HEIGHT - 24) * math.log10(value / self.low_y) / span

    def axes(
        self,
        name_x: str,
        name_y: str,
        shown_y: Callable[[float], str],
        shown_x: Callable[[float], str] | None = None,
    ) -> list[Markup]:
        shapes = [_text(0, 12, name_y, name=True)]
        for value in _powers(self.low_y, self.high_y):
            y = self.y(value)
            shapes += [
                _line(_LEFT, y, _WIDTH, y, "grid"),
                _text(_LEFT - 6, y + 4, shown_y(value), anchor="end"),
            ]
        for value in _powers(self.low_x, self.high_x):
            x = self.x(value)
            at_edge = value == self.high_x
            shapes += [
                _line(x, 24, x, _SCATTER_HEIGHT, "grid"),
                _text(
                    x,
                    _SCATTER_HEIGHT + 16,
                    (shown_x or _plain)(value),
                    anchor="end" if at_edge else "middle",
                ),
            ]
        shapes.append(_text(_WIDTH, _SCATTER_HEIGHT + 36, name_x, anchor="end", name=True))
        return shapes


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=1.0), max(values, default=10.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return 10.0**first, 10.0 ** (last if last > first else first + 1)


def _powers(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    return [10.0**power for power in range(first, last + 1)]


def _plain(value: float) -> str:
    return f"{value:g}"


def _dot(x: float, y: float, colour: int, words: str) -> Markup:
    return element(
        "circle",
        element("title", words),
        attributes={"class": f"s{colour}", "cx": x, "cy": y, "r": 5},
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", attributes={"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def _text(x: float, y: float, words: str, *, anchor: str = "start", name: bool = False) -> Markup:
    attributes: dict[str, str | float] = {"x": x, "y": y, "text-anchor": anchor}
    return element("text", words, attributes=attributes | ({"class": "name"} if name else {}))


def _chart(width: float, height: float, title: str, shapes: Sequence[Markup]) -> Markup:
    return element(
        "svg",
        *shapes,
        attributes={
            "class": "chart",
            "viewBox": f"0 0 {width} {height:g}",
            "role": "img",
            "aria-label": title,
        },
    )
