"""litert-torch and its quantizer: fp32 and full int8. Runs in their environment, by ``run.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from litert_quantizer import quantizer, recipe
from nets import load_net


def make_files(name: str, weights: Path, tensors: Path, out: Path) -> None:
    """Write NAME.litert-torch.fp32.tflite and .int8.tflite.

    Images come in NHWC, as the peer's documentation advises for speed; calibration is on the
    given tensors, all of them, in order.
    """
    module = litert_torch.to_channel_last_io(load_net(name, weights), args=[0]).eval()
    path = out / f"{name}.litert-torch.fp32.tflite"
    litert_torch.convert(module, (torch.zeros(1, 224, 224, 3),)).export(str(path))
    signatures = Interpreter(str(path)).get_signature_list()
    key = next(iter(signatures))
    (input_name,) = signatures[key]["inputs"]
    images = np.load(tensors).transpose(0, 2, 3, 1)
    data = {key: [{input_name: np.ascontiguousarray(p[None])} for p in images]}
    tool = quantizer.Quantizer(str(path))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    result = tool.quantize(tool.calibrate(data))
    result.export_model(str(out / f"{name}.litert-torch.int8.tflite"), overwrite=True)


if __name__ == "__main__":
    weights, tensors, out, *names = sys.argv[1:]
    for one in names:
        make_files(one, Path(weights), Path(tensors), Path(out))
