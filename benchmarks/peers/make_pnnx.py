"""pnnx's file and ours of the ten networks, from the same module: pairs for ncnn_latency.py.

    python benchmarks/peers/make_pnnx.py [--folder build/pnnx] [--only NAME ...]

pnnx comes by pip into a separate environment below the folder, made once (90 MB). It is given
TorchScript, as its documentation advises; its .bin holds float16 weights, which is its default.
Writes NAME.pnnx, NAME.fp32, NAME.int8 and NAME.mixed (int8 with depthwise convolutions in floats),
each as .param and .bin; int8 is calibrated on 8 smooth random tensors. pnnx's files are kept where
they are there already, ours are made anew.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from environments import make_environment
from nets import NETS, build_net

import deploykit
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest

ROOT = Path(__file__).resolve().parent.parent.parent
SUFFIXES = ("param", "bin")
#: Files that we make → (precision, what depthwise convolutions compute in where it is int8).
OURS = {"fp32": ("fp32", ""), "int8": ("int8", "int8"), "mixed": ("int8", "float32")}


def find_program(folder: Path) -> Path:
    """pnnx's executable, installed if it is not there.

    Raises:
        SystemExit: no Python for its environment, or a package without the program.
    """
    python = make_environment("pnnx", folder)
    if python is None:
        raise SystemExit("pnnx's environment could not be made")
    found = sorted((python.parent.parent / "lib").glob("python*/site-packages/pnnx/pnnx"))
    if not found:
        raise SystemExit("the package pnnx holds no program of that name")
    return found[0]


def make_peer(module: torch.nn.Module, name: str, program: Path, out: Path) -> None:
    """pnnx's .param and .bin of a module."""
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "net.pt"
        torch.jit.trace(module, torch.zeros(1, 3, 224, 224)).save(str(traced))
        command = [str(program), str(traced), "inputshape=[1,3,224,224]"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not (Path(folder) / "net.ncnn.param").exists():
            raise SystemExit(f"pnnx made no file of {name}:\n{done.stdout[-800:]}{done.stderr}")
        for suffix in SUFFIXES:
            shutil.copy(Path(folder) / f"net.ncnn.{suffix}", out / f"{name}.pnnx.{suffix}")


def make_ours(module: torch.nn.Module, name: str, tensors: Path, out: Path) -> None:
    """Our .param and .bin of a module, in float32 and both kinds of integers."""
    model = deploykit.load(module, example_input=torch.zeros(1, 3, 224, 224), name=name)
    for made, (precision, depthwise) in OURS.items():
        with tempfile.TemporaryDirectory() as folder:
            request = ConvertRequest(
                targets=("ncnn",),
                precisions=(precision,),
                out=Path(folder) / "bundle",
                calibration=tensors if precision == "int8" else None,
                options={"ncnn": {"depthwise": depthwise}} if precision == "int8" else {},
                verify=False,
            )
            convert(model, request)
            for suffix in SUFFIXES:
                shutil.copy(
                    Path(folder) / "bundle" / f"{name}.{precision}.{suffix}",
                    out / f"{name}.{made}.{suffix}",
                )


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "pnnx")
    parser.add_argument("--only", nargs="*", default=list(NETS), choices=list(NETS))
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    program = find_program(folder)
    coarse = np.random.default_rng(0).standard_normal((8, 3, 9, 9)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), 224, mode="bicubic")
    np.save(folder / "tensors.npy", smooth.numpy())
    for name in args.only:
        module = build_net(name)
        make_ours(module, name, folder / "tensors.npy", folder)
        if not all((folder / f"{name}.pnnx.{suffix}").exists() for suffix in SUFFIXES):
            make_peer(module, name, program, folder)
        print(name, flush=True)


if __name__ == "__main__":
    main()
