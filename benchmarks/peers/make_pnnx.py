"""pnnx's file and ours of the ten networks, from the same module: pairs for ncnn_latency.py.

    python benchmarks/peers/make_pnnx.py OUT --pnnx .../bin/pnnx [--only NAME ...]
        [--tensors FILE.npy]

pnnx (`pip install pnnx`, in an environment of its own) is given TorchScript, as its documentation
advises; its .bin holds float16 weights, which is its default. Writes OUT/NAME.pnnx.param and .bin,
OUT/NAME.fp32.param and .bin, with ``--tensors`` (n, 3, 224, 224) also OUT/NAME.int8.param and .bin,
and prints the pairs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from nets import NETS, build_net

import deploykit
from deploykit.conversion import convert
from deploykit.conversion_plan import ConvertRequest


def make_peer(module: torch.nn.Module, name: str, pnnx: Path, out: Path) -> Path:
    """pnnx's .param of a module, with its .bin."""
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "net.pt"
        torch.jit.trace(module, torch.zeros(1, 3, 224, 224)).save(str(traced))
        command = [str(pnnx), str(traced), "inputshape=[1,3,224,224]"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        made = Path(folder) / "net.ncnn.param"
        if not made.exists():
            raise SystemExit(f"pnnx made no file of {name}:\n{done.stdout[-800:]}{done.stderr}")
        for suffix in ("param", "bin"):
            shutil.copy(Path(folder) / f"net.ncnn.{suffix}", out / f"{name}.pnnx.{suffix}")
    return out / f"{name}.pnnx.param"


def make_ours(
    module: torch.nn.Module, name: str, out: Path, tensors: Path | None
) -> dict[str, Path]:
    """Precision > our .param of a module, with its .bin."""
    model = deploykit.load(module, example_input=torch.zeros(1, 3, 224, 224), name=name)
    found = {}
    for precision in ("fp32", "int8") if tensors else ("fp32",):
        with tempfile.TemporaryDirectory() as folder:
            request = ConvertRequest(
                targets=("ncnn",),
                precisions=(precision,),
                out=Path(folder) / "bundle",
                calibration=tensors if precision == "int8" else None,
                verify=False,
            )
            convert(model, request)
            for suffix in ("param", "bin"):
                file = f"{name}.{precision}.{suffix}"
                shutil.copy(Path(folder) / "bundle" / file, out / file)
        found[precision] = out / f"{name}.{precision}.param"
    return found


def main() -> None:
    """Make the files and print the pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--pnnx", type=Path, required=True, help="pnnx's executable")
    parser.add_argument("--only", nargs="*", default=list(NETS))
    parser.add_argument("--tensors", type=Path, default=None)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        module = build_net(name)
        ours = make_ours(module, name, args.out, args.tensors)
        theirs = make_peer(module, name, args.pnnx.resolve(), args.out)
        for path in ours.values():
            print(path, theirs)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
