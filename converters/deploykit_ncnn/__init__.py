"""ncnn for deploykit: policy, lowering table, writer of .param and .bin, inspection and runners.

    definition          the target as data, behind the entry point
    target              from a stage to a file in memory
    options             what can be asked for
    policy              how int8 is placed: what convolutions and linear layers read
    blob_axes           shapes and axes without the batch: the only module that turns one into other
    layer_graph         the layers of a file: types, parameters, weights; where blobs are split
    quantized_inputs    what convolutions and linear layers read as integers
    plan_fusions        which activations a layer computes along, which layers hand on integers
    plan_vectors        which one-pixel maps are held as vectors
    lower_graph         driver of lower_convolution, lower_elementwise, ... (one table) to layers
    write_files         layers to the bytes of .param and .bin, the same each time
    read_files          ... and back; a damaged file is refused
    inspect_files       a model in words
    backends            the runners' side in the child process

Importing this package imports none of ncnn, numpy and onnx_ir.
"""

from __future__ import annotations

from deploykit_ncnn.definition import TARGET

__all__ = ["TARGET"]
