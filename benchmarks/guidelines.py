"""The four guidelines of efficient network design, measured here beside what the model predicts.

    python benchmarks/guidelines.py [--rounds 60] [--threads 1] [--svg FILE]

The experiments are those of Ma et al. 2018 (ShuffleNet V2, section 2) at equal mult-adds, on small
networks that are built here, lowered by our own TFLite target, and run by LiteRT. Channels are
multiples of 32, so that no vector lane idles and the mult-adds are equal to the last one; one
variant of G1 and G2 each, marked with a star, has the paper's own channels, which are not:

    G1  the ratio of input to output channels of 1x1 convolutions
    G2  the number of groups of 1x1 convolutions
    G3  one convolution, or two or four in series or side by side
    G4  a bottleneck with and without ReLU, shortcut, h-swish

Predictions come from `deploykit.cost.roofline`: arithmetic and memory overlapping (the roofline),
and one behind the other. The three constants come from probes that are not part of any experiment:
1x1 convolutions, additions, tiny additions. All files run in turn, round after round, in one
process.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_ir as ir

from deploykit.cost.layer import StageCost
from deploykit.cost.profile import fused_stage, profile_model
from deploykit.cost.roofline import Machine, predict_us
from deploykit.files import write_atomically
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.report.html import Markup, element
from deploykit.report.profile_terminal import align
from deploykit.units import format_bytes, format_count, format_us

SIDE = 56
BLOCKS = 4
#: What is drawn, and its colour.
SERIES = (
    ("predicted, overlapping", "#b9d2ee"),
    ("predicted, in turn", "#7aa7da"),
    ("measured", "#174a85"),
)


class Builder:
    """An ONNX graph, a node at a time, with seeded weights."""

    def __init__(self, channels: int, side: int) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)
        self._input = onnx.helper.make_tensor_value_info(
            "x", onnx.TensorProto.FLOAT, [1, channels, side, side]
        )
        self.last = "x"
        self._channels, self._side = channels, side

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """A node; its output is the new last value."""
        self.last = f"v{len(self._nodes)}"
        self._nodes.append(onnx.helper.make_node(op, list(inputs), [self.last], **attributes))
        return self.last

    def conv(self, source: str, c1: int, c2: int, *, kernel: int = 1, groups: int = 1) -> str:
        """A convolution that keeps the size."""
        shape = (c2, c1 // groups, kernel, kernel)
        scale = 1 / np.sqrt(shape[1] * kernel * kernel)
        weight = (self._random.standard_normal(shape) * scale).astype(np.float32)
        name = f"w{len(self._weights)}"
        self._weights.append(onnx.numpy_helper.from_array(weight, name))
        pad = kernel // 2
        return self.add("Conv", source, name, group=groups, pads=[pad] * 4)

    def build(self, name: str) -> Model:
        """The exported stage."""
        output = onnx.helper.make_tensor_value_info(
            self.last, onnx.TensorProto.FLOAT, [1, self._channels, self._side, self._side]
        )
        graph = onnx.helper.make_graph(self._nodes, name, [self._input], [output], self._weights)
        proto = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
        )
        return Model(ir.from_proto(proto), Stage.EXPORTED, name, SourceInfo("onnx"))


@dataclass(frozen=True)
class Variant:
    """One row of an experiment."""

    name: str
    model: Model


@dataclass(frozen=True)
class Experiment:
    """Variants of which the first is what the others are compared with."""

    title: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Row:
    """What a variant cost, was predicted to take, and took."""

    name: str
    cost: StageCost
    predicted_us: float
    predicted_sum_us: float
    measured_us: float


def channel_ratios() -> Experiment:
    """G1: pairs of convolutions c1 > c2 > c1 with c1 c2 constant."""
    variants = []
    for c1, c2 in ((128, 128), (64, 256), (32, 512), (52, 312)):
        net = Builder(c1, SIDE)
        for _ in range(BLOCKS):
            net.conv(net.conv(net.last, c1, c2), c2, c1)
        star = " *" if c1 % 32 else ""
        variants.append(Variant(f"{c1} > {c2} > {c1}{star}", net.build("ratio")))
    return Experiment("G1: input and output channels of 1x1 convolutions", tuple(variants))


def group_counts() -> Experiment:
    """G2: c^2 / g constant."""
    variants = []
    for groups, channels in ((1, 128), (4, 256), (16, 512), (2, 180)):
        net = Builder(channels, SIDE)
        for _ in range(2 * BLOCKS):
            net.conv(net.last, channels, channels, groups=groups)
        star = " *" if channels % 32 else ""
        variants.append(Variant(f"g = {groups}, c = {channels}{star}", net.build("groups")))
    return Experiment("G2: groups of 1x1 convolutions", tuple(variants))


def fragments() -> Experiment:
    """G3: n c^2 constant, for n convolutions a block."""
    variants = []
    for count, channels, parallel in (
        *((1, 128, False), (4, 64, False), (16, 32, False)),
        *((4, 64, True), (16, 32, True)),
    ):
        net = Builder(channels, SIDE)
        for _ in range(2 * BLOCKS):
            if parallel:
                start = net.last
                branches = [net.conv(start, channels, channels) for _ in range(count)]
                total = branches[0]
                for branch in branches[1:]:
                    total = net.add("Add", total, branch)
            else:
                for _ in range(count):
                    net.conv(net.last, channels, channels)
        way = "side by side" if parallel else "in series"
        name = "1 fragment" if count == 1 else f"{count} fragments {way}"
        variants.append(Variant(name, net.build("fragments")))
    return Experiment("G3: fragments a block", tuple(variants))


def elementwise() -> Experiment:
    """G4: a bottleneck of 1x1, 3x3, 1x1, with and without what computes nothing much."""
    variants = []
    for name, activation, shortcut in (
        *(("neither", "", False), ("ReLU", "Relu", False)),
        *(("shortcut", "", True), ("ReLU and shortcut", "Relu", True)),
        ("h-swish and shortcut", "HardSwish", True),
    ):
        net = Builder(128, SIDE)
        for _ in range(BLOCKS):
            start = net.last
            for c1, c2, kernel in ((128, 32, 1), (32, 32, 3), (32, 128, 1)):
                net.conv(net.last, c1, c2, kernel=kernel)
                if activation and c2 == 32:
                    net.add(activation, net.last)
            if shortcut:
                net.add("Add", net.last, start)
            if activation:
                net.add(activation, net.last)
        variants.append(Variant(name, net.build("elementwise")))
    return Experiment("G4: element-wise ops in a bottleneck", tuple(variants))


def probes() -> dict[str, Model]:
    """Networks whose times give the constants of the machine."""
    arithmetic = Builder(256, 28)
    for _ in range(4):
        arithmetic.conv(arithmetic.last, 256, 256)
    memory = Builder(128, SIDE)
    for _ in range(8):
        memory.add("Add", memory.add("Neg", memory.last), "x")
    tiny = Builder(8, 1)
    for _ in range(64):
        tiny.add("Add", tiny.add("Neg", tiny.last), "x")
    built = {"arithmetic": arithmetic, "memory": memory, "tiny": tiny}
    return {name: builder.build(name) for name, builder in built.items()}


def measure(models: Sequence[Model], rounds: int, threads: int) -> list[float]:
    """Median microseconds of each."""
    from deploykit.target import ArtifactRequest, find_target
    from deploykit_tflite.measure_files import measure_files

    target = find_target("tflite")
    request = ArtifactRequest(Precision.FP32)
    files = [target.write(fused_stage(model), request).data for model in models]
    found = measure_files(files, rounds=rounds, threads=threads, timeout_s=1200)
    print(f"{found.runtime}; {found.clock} time, median of {rounds} rounds\n")
    return list(found.us)


def constants_from(costs: dict[str, StageCost], times: dict[str, float]) -> Machine:
    """The machine behind the probes: start, then bandwidth, then speed."""
    start = times["tiny"] / len(costs["tiny"].layers)
    memory = times["memory"] - start * len(costs["memory"].layers)
    arithmetic = times["arithmetic"] - start * len(costs["arithmetic"].layers)
    return Machine(
        flops_per_us=costs["arithmetic"].flops / arithmetic,
        bytes_per_us=costs["memory"].mac_bytes / memory,
        layer_us=start,
    )


def print_experiment(experiment: Experiment, rows: Sequence[Row]) -> None:
    """One table; ratios are to its first row."""
    header = (
        *("variant", "layers", "mult-adds", "memory access", "roofline", "in turn", "measured"),
        *("roofline x", "in turn x", "measured x"),
    )
    first = rows[0]
    cells = [
        (
            row.name,
            str(len(row.cost.layers)),
            format_count(row.cost.mult_adds),
            format_bytes(row.cost.mac_bytes),
            format_us(row.predicted_us),
            format_us(row.predicted_sum_us),
            format_us(row.measured_us),
            f"{row.predicted_us / first.predicted_us:.2f}",
            f"{row.predicted_sum_us / first.predicted_sum_us:.2f}",
            f"{row.measured_us / first.measured_us:.2f}",
        )
        for row in rows
    ]
    print(experiment.title)
    print("\n".join(align([header, *cells], left=1)))
    print()


def draw(results: Sequence[tuple[Experiment, Sequence[Row]]]) -> str:
    """Bars of predicted and measured time relative to the first variant, as one SVG file."""
    bar, gap, left, width = 12, 10, 200, 900
    shapes: list[Markup] = []
    top = 34.0
    reach = (width - left - 60) / max(
        x for _, rows in results for row in rows for x in ratios(row, rows[0])
    )
    for number, (name, colour) in enumerate(SERIES):
        x = 10.0 + 220 * number
        shapes += [box(x, 6, 12, 12, colour), label(x + 18, 17, name)]
    for experiment, rows in results:
        shapes.append(label(10, top + 14, experiment.title, weight="bold"))
        top += 24
        for row in rows:
            shapes.append(label(left - 8, top + 1.5 * bar + 4, row.name, anchor="end"))
            for value, (_, colour) in zip(ratios(row, rows[0]), SERIES, strict=True):
                shapes.append(box(left, top, value * reach, bar - 1, colour))
                shapes.append(label(left + value * reach + 6, top + bar - 2, f"{value:.2f}"))
                top += bar
            top += gap
        top += 12
    ground = box(0, 0, width, top, "#ffffff")
    about = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {top:g}"}
    font = {"font-family": "sans-serif", "font-size": "12"}
    return element("svg", ground, *shapes, attributes=about | font) + "\n"


def ratios(row: Row, first: Row) -> tuple[float, float, float]:
    """Of `SERIES`: a row's times over those of the first."""
    return (
        row.predicted_us / first.predicted_us,
        row.predicted_sum_us / first.predicted_sum_us,
        row.measured_us / first.measured_us,
    )


def box(x: float, y: float, width: float, height: float, colour: str) -> Markup:
    """A filled rectangle."""
    place = {"x": x, "y": y, "width": width, "height": height}
    return element("rect", attributes={**place, "fill": colour})


def label(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "") -> Markup:
    """A line of text."""
    look = {"fill": "#24292f", "text-anchor": anchor, "font-weight": weight or "normal"}
    return element("text", words, attributes={"x": x, "y": y, **look})


def main() -> None:
    """Build, measure, predict, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--svg", type=Path, default=None, help="also draw it")
    args = parser.parse_args()
    experiments = (channel_ratios(), group_counts(), fragments(), elementwise())
    known = probes()
    models = [*known.values(), *(v.model for e in experiments for v in e.variants)]
    costs = [profile_model(model).after for model in models]
    times = measure(models, args.rounds, args.threads)
    machine = constants_from(
        dict(zip(known, costs, strict=False)), dict(zip(known, times, strict=False))
    )
    print(
        f"probes: {machine.flops_per_us / 1000:.1f} GFLOP/s, "
        f"{machine.bytes_per_us / 1000:.1f} GB/s, {machine.layer_us:.2f} us a layer\n"
    )
    rest = iter(list(zip(costs, times, strict=True))[len(known) :])
    results = []
    for experiment in experiments:
        rows = []
        for variant in experiment.variants:
            cost, time_us = next(rest)
            overlapping = predict_us(cost, machine)
            in_turn = predict_us(cost, machine, overlap=False)
            rows.append(Row(variant.name, cost, overlapping, in_turn, time_us))
        print_experiment(experiment, rows)
        results.append((experiment, rows))
    if args.svg is not None:
        write_atomically(args.svg, draw(results).encode())
        print(f"wrote {args.svg}")


if __name__ == "__main__":
    main()
