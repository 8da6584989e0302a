"""Conversion of EfficientNet B0 to B7: CPU seconds and peak memory against the size of the weights.

    python benchmarks/scaling.py [--only b0 b1 ...] [--runs 3] [--folder build/scaling]
                                 [--svg docs/scaling.svg]

Random weights, every network at 224 x 224 (what grows is the weights, and the number of layers).
Each figure is the median of runs of the command line in a separate process, from an .onnx file,
without verification; int8 calibrates on two images. A line is fitted by least squares; R^2 is the
share of the variance that it explains.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploykit.files import write_atomically
from deploykit.report.html import Markup, element

NETS = tuple(f"b{i}" for i in range(8))
#: Precision → its colour in the plot.
PRECISIONS = {"fp32": "#174a85", "int8": "#c2571a"}
#: What is plotted: attribute of `Figure`, its name and unit.
PANELS = (("cpu_s", "CPU seconds"), ("peak_mb", "peak memory, MB"))


@dataclass(frozen=True)
class Figure:
    """One conversion.

    Attributes:
        net: ``b0`` to ``b7``.
        precision: ``fp32`` or ``int8``.
        weight_mb: Size of the .onnx file, which is its weights, in MB (10^6 bytes).
        cpu_s: User and system seconds of the process.
        peak_mb: Its largest resident size, MB.
    """

    net: str
    precision: str
    weight_mb: float
    cpu_s: float
    peak_mb: float


def write_inputs(names: list[str], folder: Path) -> None:
    """NAME.onnx for every network, and two smooth tensors (2, 3, 224, 224)."""
    folder.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(0).standard_normal((2, 3, 14, 14)).astype(np.float32)
    np.save(folder / "tensors.npy", coarse.repeat(16, axis=2).repeat(16, axis=3))
    script = """
import sys, torch, torchvision
torch.manual_seed(0)
net = torchvision.models.get_model(f"efficientnet_{sys.argv[1]}").eval()
torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), sys.argv[2], dynamo=True,
                  external_data=False, verbose=False)
"""
    for name in names:
        path = folder / f"{name}.onnx"
        if not path.exists():
            command = [sys.executable, "-c", script, name, str(path)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure(name: str, precision: str, folder: Path, runs: int) -> Figure:
    """Run one conversion and say what it took."""
    model = folder / f"{name}.onnx"
    command = [sys.executable, "-m", "deploykit", "convert", str(model), f"--{precision}"]
    command += ["--no-verify", "--quiet", "--out", str(folder / f"{name}.{precision}")]
    if precision == "int8":
        command += ["--calibrate", str(folder / "tensors.npy"), "--allow-suspicious-calibration"]
    seconds, megabytes = [], []
    for _ in range(runs):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        seconds.append(usage.ru_utime + usage.ru_stime)
        megabytes.append(usage.ru_maxrss / 1000)
    return Figure(
        name,
        precision,
        model.stat().st_size / 1e6,
        statistics.median(seconds),
        statistics.median(megabytes),
    )


@dataclass(frozen=True)
class Line:
    """A line through figures by least squares.

    Attributes:
        start: Value at no weights.
        slope: Growth a MB of weights.
        r_squared: Share of the variance that the line explains.
    """

    start: float
    slope: float
    r_squared: float


def fit_line(figures: list[Figure], value: str) -> Line:
    """The line of one value over the size of the weights."""
    sizes = np.array([f.weight_mb for f in figures])
    values = np.array([getattr(f, value) for f in figures])
    slope, start = np.polyfit(sizes, values, 1)
    rest = values - (start + slope * sizes)
    share = 1 - float((rest**2).sum() / ((values - values.mean()) ** 2).sum())
    return Line(float(start), float(slope), share)


def draw(figures: list[Figure]) -> str:
    """Both values over the size of the weights, with their lines, as one SVG file."""
    width, height, left, top = 440, 300, 60, 30
    shapes: list[Markup] = []
    for number, (value, title) in enumerate(PANELS):
        x0 = number * (width + left) + left
        reach = 1.08 * max(getattr(f, value) for f in figures)
        span = 1.08 * max(f.weight_mb for f in figures)

        def place(
            size: float, amount: float, x0: float = x0, reach: float = reach, span: float = span
        ) -> tuple[float, float]:
            return x0 + size / span * (width - 20), top + (1 - amount / reach) * height

        shapes += [label(x0, top - 10, title), *axes(place, span, reach)]
        for row, (precision, colour) in enumerate(PRECISIONS.items()):
            chosen = [f for f in figures if f.precision == precision]
            line = fit_line(chosen, value)
            (x1, y1), (x2, y2) = place(0, line.start), place(span, line.start + line.slope * span)
            ends = {"x1": round(x1, 1), "y1": round(y1, 1), "x2": round(x2, 1), "y2": round(y2, 1)}
            shapes.append(element("line", attributes={**ends, "stroke": colour}))
            for figure in chosen:
                x, y = place(figure.weight_mb, getattr(figure, value))
                spot = {"cx": round(x, 1), "cy": round(y, 1), "r": 4, "fill": colour}
                shapes.append(element("circle", attributes=spot))
                if row == 0 and figure.net in ("b0", "b4", "b5", "b6", "b7"):
                    shapes.append(label(x, y + 18, figure.net, anchor="middle"))
            words = (
                f"{precision}: {line.start:.3g} + {line.slope:.3g} a MB, R^2 = {line.r_squared:.4f}"
            )
            shapes.append(label(x0 + 12, top + 16 + 18 * row, words, colour=colour))
        shapes.append(label(x0 + width - 20, top + height + 34, "weights, MB", anchor="end"))
    size = {"viewBox": f"0 0 {2 * (width + left)} {top + height + 44}"}
    about = {"xmlns": "http://www.w3.org/2000/svg", **size}
    font = {"font-family": "sans-serif", "font-size": "13"}
    ground = {"width": "100%", "height": "100%", "fill": "#ffffff"}
    return element("svg", element("rect", attributes=ground), *shapes, attributes=about | font)


def axes(
    place: Callable[[float, float], tuple[float, float]], span: float, reach: float
) -> list[Markup]:
    """Both axes with five steps each."""
    shapes = []
    for length, ends in ((span, (span, 0.0)), (reach, (0.0, reach))):
        (x1, y1), (x2, y2) = place(0, 0), place(*ends)
        line = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke": "#8c959f"}
        shapes.append(element("line", attributes=line))
        step = _round_step(length / 5)
        for count in range(1, int(length / step) + 1):
            along_x = ends[1] == 0.0
            x, y = place(count * step, 0) if along_x else place(0, count * step)
            words = f"{count * step:g}"
            if along_x:
                shapes.append(label(x, y + 18, words, anchor="middle", colour="#57606a"))
            else:
                shapes.append(label(x - 6, y + 4, words, anchor="end", colour="#57606a"))
    return shapes


def _round_step(length: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10 ** np.floor(np.log10(length))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= length))


def label(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#24292f"
) -> Markup:
    """A line of text."""
    look = {"x": round(x, 1), "y": round(y, 1), "fill": colour, "text-anchor": anchor}
    return element("text", words, attributes=look)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(NETS), choices=NETS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/scaling"))
    parser.add_argument("--svg", type=Path, default=Path("docs/scaling.svg"))
    args = parser.parse_args()
    started = time.monotonic()
    write_inputs(args.only, args.folder)
    print(f"{'net':<4} {'to':<5} {'weights MB':>10} {'CPU s':>7} {'ms/MB':>6} {'peak MB':>8}")
    figures = []
    for precision in PRECISIONS:
        for name in args.only:
            one = measure(name, precision, args.folder, args.runs)
            figures.append(one)
            print(
                f"{one.net:<4} {one.precision:<5} {one.weight_mb:>10.1f} {one.cpu_s:>7.2f} "
                f"{1000 * one.cpu_s / one.weight_mb:>6.1f} {one.peak_mb:>8.0f}",
                flush=True,
            )
    for precision in PRECISIONS:
        chosen = [f for f in figures if f.precision == precision]
        seconds, memory = fit_line(chosen, "cpu_s"), fit_line(chosen, "peak_mb")
        print(
            f"{precision}: {seconds.start:.2f} s + {1000 * seconds.slope:.1f} ms a MB of weights "
            f"(R^2 {seconds.r_squared:.4f}); {memory.start:.0f} MB + {memory.slope:.2f} MB a MB "
            f"(R^2 {memory.r_squared:.4f})"
        )
    write_atomically(args.svg, (draw(figures) + "\n").encode())
    print(f"wrote {args.svg}")
    print(f"in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
