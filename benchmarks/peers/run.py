"""The peers' files beside ours: ten networks, fp32 and full int8, paired.

    python benchmarks/peers/run.py [--folder build/peers] [--only NAME ...] [--measure-only]
                                   [--loads 9] [--rounds 8] [--write]

Peers, each in a separate environment under the folder (7 GB in all, made once):

    litert-torch 0.10.0 with litert-quantizer 0.11.0   fp32, full int8; Python 3.11
    onnx2tf 2.6.9, direct flatbuffer                   fp32; Python 3.12 (its int8 fails on all)

All start from the same weights and calibrate on the same 16 tensors. What is there already is kept:
sources, environments, the peers' files, and the figures of a pair of files that are still the same;
our own files are always made anew. So a run that was interrupted goes on where it stopped, and one
after a change of ours measures what changed. How times are taken is in ``benchmarks/latency.py``;
a copy of our own file runs beside the others as a control. ``--write`` puts the table into
docs/latency.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from environments import make_environment  # noqa: E402 - scripts beside this one
from latency import pair_files  # noqa: E402
from nets import NETS, build_net  # noqa: E402
from table import CONTROL, OURS, MakerTimes, Row, print_row, write_table  # noqa: E402

PRECISIONS = ("fp32", "int8")


def write_sources(names: list[str], folder: Path) -> None:
    """Weights, .onnx files, and 16 smooth calibration tensors (16, 3, 224, 224) float32."""
    import torch

    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    if not (sources / "tensors.npy").exists():
        coarse = np.random.default_rng(0).standard_normal((16, 3, 9, 9)).astype(np.float32)
        smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), 224, mode="bicubic")
        np.save(sources / "tensors.npy", smooth.numpy())
    for name in names:
        path = sources / f"{name}.onnx"
        if path.exists():
            continue
        net = build_net(name)
        torch.save(net.state_dict(), sources / f"{name}.pt")
        partial = path.with_suffix(".partial")
        torch.onnx.export(
            net,
            (torch.zeros(1, 3, 224, 224),),
            partial,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        partial.rename(path)


def make_ours(name: str, folder: Path) -> None:
    """Our two files, from the .onnx file."""
    import deploykit

    request = deploykit.ConvertRequest(
        precisions=PRECISIONS,
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


def make_peers(name: str, folder: Path) -> None:
    """The peers' files of a network; what one of them cannot make is reported and left out."""
    sources, files = folder / "sources", folder / "files"
    wanted = [files / f"{name}.litert-torch.{p}.tflite" for p in PRECISIONS]
    if not all(path.exists() for path in wanted):
        python = make_environment("litert-torch", folder)
        if python is not None:
            script = [str(HERE / "make_litert_torch.py"), str(sources)]
            data = [str(sources / "tensors.npy"), str(files), name]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            _try([str(python), *script, *data], environment, f"litert-torch {name}")
    target = files / f"{name}.onnx2tf.fp32.tflite"
    if not target.exists():
        python = make_environment("onnx2tf", folder)
        if python is not None:
            out = folder / "onnx2tf" / name
            tool = [str(python), str(python.parent / "onnx2tf")]
            flags = ["-i", str(sources / f"{name}.onnx"), "-o", str(out)]
            _try([*tool, *flags, "-tb", "flatbuffer_direct", "-n"], None, f"onnx2tf {name}")
            for found in sorted(out.glob("*float32.tflite")):
                shutil.copyfile(found, target)


def _try(command: list[str], environment: dict[str, str] | None, what: str) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(f"{what}: {'made' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print("    " + "\n    ".join(done.stderr.strip().splitlines()[-3:]), flush=True)


def measure(net: str, precision: str, folder: Path, loads: int, rounds: int) -> Row | None:
    """Pair all files of one network and precision; None if ours is missing.

    The figures of files with the same contents, from as many loads or more, are taken from where
    they were kept.
    """
    found = sorted((folder / "files").glob(f"{net}.*.{precision}.tflite"))
    paths = {p.name.split(".")[1]: p for p in found}
    if OURS not in paths:
        return None
    makers = [OURS, CONTROL, *(maker for maker in paths if maker != OURS)]
    paths[CONTROL] = paths[OURS]
    digest = hashlib.sha256(str(makers).encode())
    for maker in makers:
        digest.update(paths[maker].read_bytes())
    kept = folder / "figures" / f"{net}.{precision}.json"
    if kept.exists():
        figures = json.loads(kept.read_text())
        if figures["files"] == digest.hexdigest() and figures["loads"] >= loads:
            times = {maker: MakerTimes(**one) for maker, one in figures["makers"].items()}
            return Row(net, precision, times)
    times = {
        maker: MakerTimes.of_ratio_to_ours(
            one.ms, one.ratio, one.ratio_error, one.ops, one.partitions
        )
        for maker, one in zip(
            makers,
            pair_files([paths[m] for m in makers], loads=loads, rounds=rounds),
            strict=True,
        )
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    makers_json = {maker: asdict(one) for maker, one in times.items()}
    record = {"files": digest.hexdigest(), "loads": loads, "makers": makers_json}
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1))
    partial.rename(kept)
    return Row(net, precision, times)


def main() -> None:
    """Make what is not there, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--only", nargs="*", default=list(NETS), choices=list(NETS))
    parser.add_argument("--measure-only", action="store_true", help="with the files that are there")
    parser.add_argument("--loads", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="put the table into docs/latency.md")
    args = parser.parse_args()
    folder = args.folder.resolve()
    (folder / "files").mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.only:
        if not args.measure_only:
            write_sources([name], folder)
            make_ours(name, folder)
            make_peers(name, folder)
        for precision in PRECISIONS:
            row = measure(name, precision, folder, args.loads, args.rounds)
            if row is not None:
                rows.append(row)
                print_row(row)
    if args.write:
        write_table(rows, ROOT / "docs" / "latency.md")


if __name__ == "__main__":
    main()
