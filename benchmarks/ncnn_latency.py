"""Latency of .param files against files of another converter, in ncnn: paired, one thread.

    python benchmarks/peers/make_pnnx.py
    python benchmarks/ncnn_latency.py [build/pnnx]
    python benchmarks/ncnn_latency.py OURS.param THEIRS.param [OURS2.param THEIRS2.param ...]
        [--rounds 30] [--repeats 3] [--processes 4] [--threads 1] [--arithmetic default]

Of a folder, each NAME.fp32 is paired with NAME.pnnx, then each NAME.int8 and each NAME.mixed with
NAME.fp32.

Each pair runs in processes of its own, ``--processes`` of them one after the other: how memory
happens to lie decides a few per cent and stays for the life of a process. The file that is loaded
first is the slower one by about 1 % (measured with a file against itself), so that every other
process loads them in the other order. In each the two files run in turn, round after round, the
first place going to one and the other by turns; the ratio is the median over rounds of our time to
theirs, and the table gives the geometric mean of the processes' ratios and their range. CPU time is
what is counted. Inputs are the same random numbers, blobs ``in0`` and
``out0``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
_HALF = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")


class LoadedNet:
    """A .param file, and the .bin file beside it, in an ncnn.Net of its own."""

    def __init__(self, path: Path, threads: int, arithmetic: str, shape: list[int]) -> None:
        import ncnn

        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        if arithmetic == "float32":
            for name in _HALF:
                setattr(self.net.opt, f"use_{name}", False)
        for file, load in ((path, "load_param"), (path.with_suffix(".bin"), "load_model")):
            if getattr(self.net, load)(str(file)) != 0:
                raise SystemExit(f"ncnn refuses {file}")
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        self.input: Any = ncnn.Mat(values).clone()

    def run_ms(self, repeats: int) -> float:
        """CPU milliseconds of one inference, over ``repeats`` of them."""
        start = time.process_time()
        for _ in range(repeats):
            extractor = self.net.create_extractor()
            extractor.input("in0", self.input)
            extractor.extract("out0")
        return 1000 * (time.process_time() - start) / repeats


def measure(pair: list[Path], args: argparse.Namespace) -> dict[str, float]:
    """One process: both files, in turn."""
    order = pair[::-1] if args.theirs_first else pair
    nets = [LoadedNet(p, args.threads, args.arithmetic, args.shape) for p in order]
    ours, theirs = nets[::-1] if args.theirs_first else nets
    for net in (ours, theirs):
        net.run_ms(args.repeats)
    times: list[tuple[float, float]] = []
    for index in range(args.rounds):
        if index % 2:
            second = theirs.run_ms(args.repeats)
            times.append((ours.run_ms(args.repeats), second))
        else:
            first = ours.run_ms(args.repeats)
            times.append((first, theirs.run_ms(args.repeats)))
    return {
        "ours": statistics.median(a for a, _ in times),
        "theirs": statistics.median(b for _, b in times),
        "ratio": statistics.median(a / b for a, b in times),
    }


def pairs_of(folder: Path) -> list[Path]:
    """The pairs of a folder, one after the other."""
    found = []
    for ours, theirs in (("fp32", "pnnx"), ("int8", "fp32"), ("mixed", "fp32")):
        for path in sorted(folder.glob(f"*.{ours}.param")):
            other = path.with_name(path.name.replace(f".{ours}.", f".{theirs}."))
            found += [path, other] if other.exists() else []
    return found


def layers_of(path: Path) -> int:
    """Number of layers that a file has."""
    return int(path.read_text().splitlines()[1].split()[0])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="a folder, or pairs of files")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3, help="inferences a round")
    parser.add_argument("--processes", type=int, default=4, help="even, so that order cancels out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arithmetic", choices=("default", "float32"), default="default")
    parser.add_argument("--shape", type=int, nargs=3, default=[3, 224, 224], help="C H W")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--theirs-first", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.files, args)))
        return
    files = args.files or [ROOT / "build" / "pnnx"]
    if len(files) == 1 and files[0].is_dir():
        files = pairs_of(files[0])
    if not files or len(files) % 2:
        parser.error("give a folder of pairs, or pairs of files")
    print(f"{'file':<36} {'ours ms':>8} {'theirs':>8} {'ratio':>6} {'range':>13} {'layers':>11}")
    for pair in zip(files[::2], files[1::2], strict=True):
        found = []
        for turn in range(args.processes):
            command = [sys.executable, __file__, "--child", *map(str, pair)]
            for name in ("rounds", "repeats", "threads", "arithmetic"):
                command += [f"--{name}", str(getattr(args, name))]
            command += ["--shape", *map(str, args.shape)]
            command += ["--theirs-first"] if turn % 2 else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout))
        ratios = sorted(f["ratio"] for f in found)
        ours, theirs = (statistics.median(f[k] for f in found) for k in ("ours", "theirs"))
        ratio = statistics.geometric_mean(ratios)
        print(
            f"{pair[0].name:<36} {ours:>8.3f} {theirs:>8.3f} {ratio:>6.3f} "
            f"{ratios[0]:>6.3f}-{ratios[-1]:.3f} {layers_of(pair[0]):>5} {layers_of(pair[1]):>5}"
        )


if __name__ == "__main__":
    main()
