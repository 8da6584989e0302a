"""TFLite for deploykit: policy, lowering table, writer, inspection and LiteRT runners.

    definition          the target as data, behind the entry point
    target              from a stage to a file in memory
    policy, rewrite_*   how the format's int8 specification is met
    lower_graph         driver of lower_convolution, lower_elementwise, ... (one table)
    layout              the one module with permutations
    tflite_graph        tensors and operators as plain data
    write_flatbuffer    ... to bytes
    op_versions         smallest operator versions, and the runtimes that have them
    inspect_file        a .tflite file in words
    backends            LiteRT in the runner's child process

Importing this package imports none of flatbuffers, the runtime and onnx_ir.
"""

from __future__ import annotations

from deploykit_tflite.definition import TARGET

__all__ = ["TARGET"]
