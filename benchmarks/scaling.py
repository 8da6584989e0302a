"""Conversion of EfficientNet B0 to B7: CPU seconds and peak memory against the size of the weights.

    python benchmarks/scaling.py [--only b0 b1 b2 b4 b7] [--folder build/scaling]

Random weights, every network at 224 x 224 (what grows is the weights, and the number of layers).
Each figure is one run of the command line in a process of its own, from an .onnx file, without
verification; int8 calibrates on two pictures. Where matplotlib is installed, a plot is written
beside the table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NETS = ("b0", "b1", "b2", "b4", "b7")
PRECISIONS = ("fp32", "int8")


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


def measure(name: str, precision: str, folder: Path) -> Figure:
    """Run one conversion and say what it took."""
    model = folder / f"{name}.onnx"
    command = [sys.executable, "-m", "deploykit", "convert", str(model), f"--{precision}"]
    command += ["--no-verify", "--quiet", "--out", str(folder / f"{name}.{precision}")]
    if precision == "int8":
        command += ["--calibrate", str(folder / "tensors.npy"), "--allow-suspicious-calibration"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return Figure(
        name,
        precision,
        model.stat().st_size / 1e6,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1000,
    )


def growth(figures: list[Figure], value: str) -> tuple[float, float]:
    """A line through the figures by least squares: value at no weights, and growth a MB."""
    sizes = np.array([f.weight_mb for f in figures])
    slope, start = np.polyfit(sizes, [getattr(f, value) for f in figures], 1)
    return float(start), float(slope)


def write_plot(figures: list[Figure], path: Path) -> bool:
    """Both figures over the size of the weights; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        return False
    canvas = Canvas(figsize=(9, 4), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for axes, value, label in ((left, "cpu_s", "CPU seconds"), (right, "peak_mb", "peak MB")):
        for precision in PRECISIONS:
            chosen = [f for f in figures if f.precision == precision]
            sizes = [f.weight_mb for f in chosen]
            axes.plot(sizes, [getattr(f, value) for f in chosen], "o-", label=precision)
        axes.set(xlabel="weights, MB", ylabel=label, xlim=(0, None), ylim=(0, None))
        axes.legend()
    canvas.savefig(path)
    return True


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="*", default=list(NETS), choices=[f"b{i}" for i in range(8)]
    )
    parser.add_argument("--folder", type=Path, default=Path("build/scaling"))
    args = parser.parse_args()
    started = time.monotonic()
    write_inputs(args.only, args.folder)
    print(f"{'net':<4} {'to':<5} {'weights MB':>10} {'CPU s':>7} {'ms/MB':>6} {'peak MB':>8}")
    figures = []
    for precision in PRECISIONS:
        for name in args.only:
            one = measure(name, precision, args.folder)
            figures.append(one)
            print(
                f"{one.net:<4} {one.precision:<5} {one.weight_mb:>10.1f} {one.cpu_s:>7.2f} "
                f"{1000 * one.cpu_s / one.weight_mb:>6.1f} {one.peak_mb:>8.0f}",
                flush=True,
            )
    for precision in PRECISIONS:
        chosen = [f for f in figures if f.precision == precision]
        seconds, memory = growth(chosen, "cpu_s"), growth(chosen, "peak_mb")
        print(
            f"{precision}: {seconds[0]:.2f} s + {1000 * seconds[1]:.1f} ms a MB of weights; "
            f"{memory[0]:.0f} MB + {memory[1]:.2f} MB a MB"
        )
    plot = args.folder / "scaling.png"
    written = write_plot(figures, plot)
    print(f"wrote {plot}" if written else "no plot: matplotlib is not installed")
    print(f"in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
