"""ONNX Runtime for deploykit: policy, writer, .ort files and inspection.

    target             the object behind the entry point
    policy             how ONNX Runtime's integer kernels want a model quantized
    options            the options of the target, as data
    rewrite_hard_gates HardSigmoid and HardSwish in ops that have integer kernels
    half_precision     a graph in float16 with float32 inputs and outputs
    write_ort_file     the .ort flatbuffer, and the operators that a reduced build needs

Importing this package imports none of onnx, onnx_ir and onnxruntime.
"""

from __future__ import annotations

from deploykit_onnx.target import OnnxTarget

TARGET = OnnxTarget()

__all__ = ["TARGET"]
