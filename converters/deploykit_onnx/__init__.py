"""ONNX Runtime for deploykit: policy, writer, .ort files and inspection.

    definition          the target as data, behind the entry point
    target                from a stage to a file in memory
    policy                how ONNX Runtime's integer kernels want a model quantized
    options               the options of the target, as data
    rewrite_hard_gates    HardSigmoid and HardSwish in ops that have integer kernels
    rewrite_global_means  means over height and width as GlobalAveragePool
    omit_pool_dilations   AveragePool as QLinearAveragePool takes it
    half_precision        a graph in float16 with float32 inputs and outputs
    write_ort_file        the .ort flatbuffer, and the operators that a reduced build needs
    rewrite_ort_file      ... its bytes in an order of ours, or with its values as outputs
    ort_file_backend      the runner of .ort files

Importing this package imports none of onnx, onnx_ir and onnxruntime.
"""

from __future__ import annotations

from deploykit_onnx.definition import TARGET

__all__ = ["TARGET"]
