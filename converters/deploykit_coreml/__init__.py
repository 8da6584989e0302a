"""Core ML for deploykit: policy, lowering table, package writer, inspection and runners.

    definition          the target as data, behind the entry point
    target              from a stage to a file in memory
    options             what can be asked for, and which iOS has it
    policy              how int8 activations are placed
    lower_graph         driver of lower_convolution, lower_elementwise, ... (one table) to MIL
    store_weights       weights as floats, int8 or a palette
    write_package       a MIL program to the files of an .mlpackage, the same bytes each time
    read_package        ... and back, without coremltools' converter
    execute_program     the reference executor, of operate_* (one table)
    backends            the runners' side in the child process
    inspect_package     a package in words

Importing this package imports none of coremltools, numpy and onnx_ir.
"""

from __future__ import annotations

from deploykit_coreml.definition import TARGET

__all__ = ["TARGET"]
