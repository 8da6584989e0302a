"""The peers' files beside ours: ten networks, fp32 and full int8, paired in one process.

    python benchmarks/peers/run.py [--folder build/peers] [--only NAME ...] [--measure-only]
                                   [--loads 5] [--rounds 12] [--json FILE]

Peers, each in an environment of its own under the folder (7 GB in all, made once):

    litert-torch 0.10.0 with litert-quantizer 0.11.0   fp32, full int8; Python 3.11
    onnx2tf 2.6.9, direct flatbuffer                   fp32; Python 3.12 (its int8 fails on all)

All start from the same weights and calibrate on the same 16 tensors. Every file is loaded afresh
``--loads`` times, in changing order, since where the runtime's memory happens to lie moves a time
by 2 %; the ratio is the median over all rounds of our time to the peer's, CPU time of the process,
LiteRT with XNNPACK, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from latency import LoadedFile  # noqa: E402 - a script of the same folder's parent
from nets import NETS, build_net  # noqa: E402

OURS = "deploykit"
#: Environment > (Python, packages).
ENVIRONMENTS = {
    "litert-torch": (
        "python3.11",
        ("litert-torch==0.10.0", "litert-quantizer==0.11.0", "torchvision", "timm"),
    ),
    "onnx2tf": ("python3.12", ("onnx2tf==2.6.9",)),
}


@dataclass(frozen=True)
class Row:
    """One network in one precision.

    Attributes:
        net: Its name.
        precision: ``fp32`` or ``int8``.
        ms: File's maker > median CPU milliseconds.
        ratios: Peer > median of our time over its time.
        ops: File's maker > operators.
        partitions: File's maker > delegated partitions.
    """

    net: str
    precision: str
    ms: dict[str, float]
    ratios: dict[str, float]
    ops: dict[str, int]
    partitions: dict[str, int]


def make_environment(name: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, which is made if it is not there."""
    python = folder / "environments" / name / "bin" / "python"
    if python.exists():
        return python
    wanted, packages = ENVIRONMENTS[name]
    base = shutil.which(wanted)
    if base is None:
        raise SystemExit(f"{name} needs {wanted}, which is not on PATH")
    subprocess.run([base, "-m", "venv", str(python.parent.parent)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def write_sources(names: list[str], folder: Path) -> None:
    """Weights, .onnx files, and 16 smooth calibration tensors (16, 3, 224, 224) float32."""
    import torch

    (folder / "sources").mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(0).standard_normal((16, 3, 9, 9)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), 224, mode="bicubic")
    np.save(folder / "sources" / "tensors.npy", smooth.numpy())
    for name in names:
        net = build_net(name)
        torch.save(net.state_dict(), folder / "sources" / f"{name}.pt")
        torch.onnx.export(
            net,
            (torch.zeros(1, 3, 224, 224),),
            folder / "sources" / f"{name}.onnx",
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def make_ours(name: str, folder: Path) -> None:
    """Our two files, from the .onnx file."""
    import deploykit

    request = deploykit.ConvertRequest(
        precisions=("fp32", "int8"),
        calibration=folder / "sources" / "tensors.npy",
        allow_suspicious=True,
        verify=False,
        out=folder / "bundles" / name,
    )
    result = deploykit.convert(
        deploykit.load(folder / "sources" / f"{name}.onnx", name=name), request
    )
    for artifact in result.bundle.artifacts:
        target = folder / "files" / f"{name}.{OURS}.{artifact.precision}.tflite"
        shutil.copyfile(result.folder / artifact.path, target)


def make_peers(names: list[str], folder: Path) -> None:
    """The peers' files; what one of them cannot make is told and left out."""
    sources, files = folder / "sources", folder / "files"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    python = make_environment("litert-torch", folder)
    for name in names:
        script = [str(HERE / "make_litert_torch.py"), str(sources), str(sources / "tensors.npy")]
        _try([str(python), *script, str(files), name], environment, f"litert-torch {name}")
    python = make_environment("onnx2tf", folder)
    for name in names:
        out = folder / "onnx2tf" / name
        tool = [str(python), str(python.parent / "onnx2tf"), "-i", str(sources / f"{name}.onnx")]
        _try([*tool, "-o", str(out), "-tb", "flatbuffer_direct", "-n"], None, f"onnx2tf {name}")
        for found in sorted(out.glob("*float32.tflite")):
            shutil.copyfile(found, files / f"{name}.onnx2tf.fp32.tflite")


def _try(command: list[str], environment: dict[str, str] | None, what: str) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(f"{what}: {'made' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print("    " + "\n    ".join(done.stderr.strip().splitlines()[-3:]))


def measure(net: str, precision: str, folder: Path, loads: int, rounds: int) -> Row | None:
    """Pair all files of one network and precision; None if ours is missing."""
    paths = {
        p.name.split(".")[1]: p for p in sorted((folder / "files").glob(f"{net}.*.{precision}.*"))
    }
    if OURS not in paths:
        return None
    times: dict[str, list[float]] = {maker: [] for maker in paths}
    loaded: dict[str, LoadedFile] = {}
    makers = list(paths)
    for turn in range(loads):
        order = makers[turn % len(makers) :] + makers[: turn % len(makers)]
        loaded = {maker: LoadedFile(paths[maker], 1) for maker in order}
        for one in loaded.values():
            one.run_ms(3)
        for _ in range(rounds):
            for maker, one in loaded.items():
                times[maker].append(one.run_ms(4))
    ratios = {
        maker: statistics.median(a / b for a, b in zip(times[OURS], times[maker], strict=True))
        for maker in makers
        if maker != OURS
    }
    return Row(
        net,
        precision,
        {maker: statistics.median(found) for maker, found in times.items()},
        ratios,
        {maker: one.ops for maker, one in loaded.items()},
        {maker: one.partitions for maker, one in loaded.items()},
    )


def print_row(row: Row) -> None:
    """One line of the table."""
    ours = f"{row.ms[OURS]:7.3f} ms {row.ops[OURS]:4d} ops {row.partitions[OURS]:2d} part."
    peers = "".join(
        f" | {maker} {row.ms[maker]:7.3f} ms {row.ops[maker]:4d} ops "
        f"{row.partitions[maker]:2d} part. ratio {ratio:.3f}"
        for maker, ratio in row.ratios.items()
    )
    print(f"{row.net:<19}{row.precision:<5}{ours}{peers}", flush=True)


def main() -> None:
    """Make what is not there, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--only", nargs="*", default=list(NETS), choices=list(NETS))
    parser.add_argument("--measure-only", action="store_true", help="with the files that are there")
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    folder = args.folder.resolve()
    if not args.measure_only:
        (folder / "files").mkdir(parents=True, exist_ok=True)
        write_sources(args.only, folder)
        for name in args.only:
            make_ours(name, folder)
        make_peers(args.only, folder)
    rows = []
    for name in args.only:
        for precision in ("fp32", "int8"):
            row = measure(name, precision, folder, args.loads, args.rounds)
            if row is not None:
                rows.append(row)
                print_row(row)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
