"""Three ways to write a grouped pointwise convolution for TFLite, timed: fp32 and int8.

    python benchmarks/grouped_convolutions.py [--rounds 30]

    grouped   one CONV_2D whose weights say the groups
    slices    one CONV_2D a group, on slices of the input, and a CONCATENATION
    dense     one CONV_2D with a block-diagonal matrix: groups times the multiplications

LiteRT with XNNPACK, one thread, CPU microseconds, median over rounds in which all six take turns.
`deploykit.passes.split_grouped_convolutions` has the rule that follows from it.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx
import onnx_ir as ir

from deploykit.calibration.table import CalibrationTable, ValueStatistics
from deploykit.model import Model, Precision, SourceInfo, Stage
from deploykit.passes.split_grouped_convolutions import SplitGroupedConvolutions
from deploykit.target import ArtifactRequest, find_target
from deploykit_quantize.quantizer import quantize_model
from deploykit_tflite import policy

#: Channels read, channels made, groups, height: the layers of ShuffleNetV1 and some beside them.
SHAPES = (
    (240, 60, 3, 28),
    (60, 240, 3, 28),
    (480, 120, 3, 14),
    (120, 480, 3, 14),
    (960, 240, 3, 7),
    (240, 960, 3, 7),
    (200, 50, 2, 28),
    (400, 100, 2, 14),
    (272, 68, 4, 28),
    (544, 136, 4, 14),
    (136, 544, 4, 14),
    (768, 192, 8, 14),
)
FORMS = ("grouped", "slices", "dense")


def make_stage(read: int, made: int, group: int, size: int, form: str) -> Model:
    """A fused stage of one convolution, in one of the three forms."""
    weights = np.random.default_rng(0).standard_normal((made, read // group, 1, 1))
    if form == "dense":
        full = np.zeros((made, read, 1, 1))
        rows, columns = made // group, read // group
        for i in range(group):
            full[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = weights[
                i * rows : (i + 1) * rows
            ]
        weights, group = full, 1
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[1,{read},{size},{size}] x) => (float[1,{made},{size},{size}] y) {{
            y = Conv <kernel_shape = [1,1], strides = [1,1], pads = [0,0,0,0], dilations = [1,1],
                      group = {group}> (x, W, B) }}"""
    proto = onnx.parser.parse_model(text)
    for name, array in (("W", weights), ("B", np.zeros(made))):
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        proto.graph.initializer.append(tensor)
    model = ir.from_proto(proto)
    if form == "slices":
        SplitGroupedConvolutions(min_ratio=0, max_pixels=1 << 20, max_groups=64).apply(model)
    return Model(model, Stage.FUSED, form, SourceInfo("onnx"))


def write_file(stage: Model, precision: Precision) -> bytes:
    """The .tflite file; int8 on made-up ranges."""
    target = find_target("tflite")
    if precision is Precision.INT8:
        values = {v.name or "": _range() for n in stage.graph.graph for v in n.outputs}
        table = CalibrationTable({**values, "x": _range()}, 1, "none", "none")
        chosen = target.policy(precision)
        assert chosen is not None
        stage = quantize_model(stage, chosen, table)
    return target.write(stage, ArtifactRequest(precision)).data


def _range() -> ValueStatistics:
    return ValueStatistics(minimum=-4, maximum=4, mean=0, std=1, histogram=(1,), count=1)


def time_files(files: list[bytes], rounds: int) -> list[float]:
    """Median CPU microseconds of each."""
    from ai_edge_litert.interpreter import Interpreter

    loaded = [Interpreter(model_content=data, num_threads=1) for data in files]
    times: list[list[float]] = [[] for _ in files]
    for one in loaded:
        one.allocate_tensors()
        one.invoke()
    for _ in range(rounds):
        for one, found in zip(loaded, times, strict=True):
            start = time.process_time()
            for _ in range(20):
                one.invoke()
            found.append((time.process_time() - start) / 20 * 1e6)
    return [statistics.median(found) for found in times]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    # What is timed must be what the column says, not what the target would make of it.
    policy.FLOAT_REWRITES = tuple(
        r for r in policy.FLOAT_REWRITES if not isinstance(r, SplitGroupedConvolutions)
    )
    print(f"{'layer':<26}" + "".join(f"{p + ' ' + f:>14}" for p in ("fp32", "int8") for f in FORMS))
    for read, made, group, size in SHAPES:
        stages = [make_stage(read, made, group, size, form) for form in FORMS]
        files = [write_file(s, p) for p in (Precision.FP32, Precision.INT8) for s in stages]
        figures = "".join(f"{us:>14.0f}" for us in time_files(files, args.rounds))
        print(f"{f'{read} > {made}, g {group}, {size} x {size}':<26}{figures}", flush=True)


if __name__ == "__main__":
    main()
