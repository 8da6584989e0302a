"""Whole-process cost of conversions: CPU seconds and peak memory, median of several runs.

    python benchmarks/convert.py [--runs 5] [--only SUBSTRING]

Each case is one run of the command line in a separate process; CPU seconds are user + system of
that process and its children, peak memory is that of the largest single process. The models are
MobileNetV2 (torchvision) and GhostNet 1.0x (timm) at 224 x 224 with random weights and BatchNorm
statistics that are not trivial; 32 calibration images are smooth random ones. The peers' figures
were measured on the same kind of machine with the same networks and are quoted for comparison.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """One command, its goal, and the best peer's figure.

    Attributes:
        name: What is measured.
        arguments: Of ``deploykit``; ``{...}`` names a file made by `make_inputs`.
        goal_s: CPU seconds to reach.
        goal_mb: Peak megabytes to reach; 0 for none.
        peer: The best peer, in words.
        program: What the interpreter is started with.
    """

    name: str
    arguments: tuple[str, ...]
    goal_s: float
    goal_mb: float
    peer: str
    program: tuple[str, ...] = ("-m", "deploykit")


_ONNX_PEER = "3.2 s / 332 MB (direct flatbuffer)"
_NCNN_PEER = "1.8 s / 219 MB (pnnx)"
_PT_PEER = "13.6 s / 778 MB"
_INT8_PEER = "17.0 s / 870 MB"
_QUIET = ("--quiet", "--no-verify")

CASES = (
    Case("--help", ("--help",), 0.15, 0, "-"),
    # What torch alone takes: the floor of everything that starts from a .pt.
    Case("(floor: import torch)", (), 0, 0, "-", ("-c", "import torch")),
    *(
        case
        for net in ("mobilenet_v2", "ghostnet_100")
        for case in (
            Case(
                f"{net} .onnx > fp32",
                ("convert", f"{{{net}.onnx}}", "--fp32", *_QUIET),
                1.0,
                200,
                _ONNX_PEER,
            ),
            Case(
                f"{net} .onnx > ncnn fp32",
                ("convert", f"{{{net}.onnx}}", "--to", "ncnn", "--fp32", *_QUIET),
                1.0,
                150,
                _NCNN_PEER,
            ),
            Case(
                f"{net} .pt > fp32",
                ("convert", f"{{{net}.pt}}", "--fp32", *_QUIET),
                8.0,
                600,
                _PT_PEER,
            ),
            Case(
                f"{net} .pt > int8, 32 images",
                ("convert", f"{{{net}.pt}}", "--int8", "--calibrate", "{images.npz}", *_QUIET),
                10.0,
                650,
                _INT8_PEER,
            ),
            Case(
                f"{net} .pt > int8, verified",
                ("convert", f"{{{net}.pt}}", "--int8", "--calibrate", "{images.npz}", "--quiet"),
                0.0,
                0,
                "(no peer verifies)",
            ),
        )
    ),
)


def make_inputs(folder: Path) -> None:
    """Write the checkpoints, .onnx files and images that the cases read, in a process apart."""
    script = """
import sys, numpy as np, torch
from pathlib import Path
folder = Path(sys.argv[1])
import timm, torchvision
torch.manual_seed(0)
nets = {"mobilenet_v2": ("torchvision/mobilenet_v2", torchvision.models.mobilenet_v2()),
        "ghostnet_100": ("timm/ghostnet_100", timm.create_model("ghostnet_100"))}
for name, (arch, net) in nets.items():
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    net.eval()
    torch.save({"arch": arch, "state_dict": net.state_dict()}, folder / f"{name}.pt")
    torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), folder / f"{name}.onnx", dynamo=True,
                      external_data=False, verbose=False)
"""
    subprocess.run(
        [sys.executable, "-c", script, str(folder)], check=True, stdout=subprocess.DEVNULL
    )
    from PIL import Image

    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (32, 9, 9, 3), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(c).resize((224, 224), Image.Resampling.BICUBIC)) for c in coarse
    ]
    np.savez_compressed(folder / "images.npz", images=np.stack(smooth))


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and peak megabytes of one run.

    Raises:
        RuntimeError: the command failed.
    """
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()}"
        )
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder)
        columns = f"{'CPU s (min-max)':>22} {'goal':>6} {'peak MB':>8} {'goal':>5}  best peer"
        print(f"{'case':<34} {columns}")
        for case in (c for c in CASES if args.only in c.name):
            arguments = [str(folder / a[1:-1]) if a.startswith("{") else a for a in case.arguments]
            command = [sys.executable, *case.program, *arguments]
            measure(command, folder)  # warms the file cache
            runs = [measure(command, folder) for _ in range(args.runs)]
            seconds, peaks = [r[0] for r in runs], [r[1] for r in runs]
            spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
            goal_s = f"{case.goal_s:.2f}" if case.goal_s else "-"
            goal_mb = f"{case.goal_mb:.0f}" if case.goal_mb else "-"
            print(
                f"{case.name:<34} {spread:>22} {goal_s:>6} {statistics.median(peaks):>8.0f} "
                f"{goal_mb:>5}  {case.peer}",
                flush=True,
            )


if __name__ == "__main__":
    main()
