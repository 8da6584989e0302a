"""What a Core ML conversion costs, beside coremltools' own from torch.

    python benchmarks/coreml_conversion.py [--runs 3]

Each row is one process: CPU seconds (user + system, its children's too) and peak megabytes, median
of several runs. Both sides write an .mlpackage in float16 for iOS 15, from one network of
`benchmarks/convert.py`: coremltools from a module that it traces, which is its documented way, and
deploykit from the checkpoint and from the .onnx file of the same weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from convert import make_inputs, measure

_COREMLTOOLS = """
import sys
from pathlib import Path
import numpy as np
import torch
folder, name, out = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if name == "mobilenet_v2":
    import torchvision
    net = torchvision.models.mobilenet_v2()
else:
    import timm
    net = timm.create_model(name)
net.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True)["state_dict"])
example = torch.zeros(1, 3, 224, 224)
traced = torch.jit.trace(net.eval(), example)
import coremltools as ct
model = ct.convert(
    traced,
    inputs=[ct.TensorType(name="x", shape=example.shape, dtype=np.float32)],
    minimum_deployment_target=ct.target.iOS15,
    compute_precision=ct.precision.FLOAT16,
    skip_model_load=True,
)
model.save(out)
"""


def commands(folder: Path, net: str) -> dict[str, list[str]]:
    """What is measured → its command; each writes into ``folder``."""
    deploykit = [sys.executable, "-m", "deploykit", "convert"]
    flags = ["--to", "coreml", "--fp16", "--ios", "15", "--no-verify", "--quiet"]
    own = {
        f"deploykit, from .{kind}": [
            *deploykit,
            str(folder / f"{net}.{kind}"),
            *flags,
            "--out",
            str(folder / f"{net}_{kind}"),
        ]
        for kind in ("onnx", "pt")
    }
    out = str(folder / f"{net}.mlpackage")
    peer = [sys.executable, "-W", "ignore", "-c", _COREMLTOOLS, str(folder), net, out]
    return own | {"coremltools, from a traced module": peer}


def main() -> None:
    """Measure every command and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder)
        print(f"{'network':<14} {'converter':<36} {'CPU s (min-max)':>22} {'peak MB':>8}")
        for net in ("mobilenet_v2", "ghostnet_100"):
            for what, command in commands(folder, net).items():
                measure(command, folder)  # warms the file cache
                runs = [measure(command, folder) for _ in range(args.runs)]
                seconds, peaks = [r[0] for r in runs], [r[1] for r in runs]
                spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
                peak = statistics.median(peaks)
                print(f"{net:<14} {what:<36} {spread:>22} {peak:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
