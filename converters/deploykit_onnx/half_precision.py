"""A float32 graph computed in float16, with float32 inputs and outputs.

Every float32 constant and value becomes float16; a Cast stands behind each input and before each
output. Providers with float16 kernels (phones' GPUs and NPUs, ARM CPUs) run it as it is; ONNX
Runtime's x86 CPU provider computes each op in float32 and rounds its result to float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import DataError

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = float(np.finfo(np.float16).max)


def convert_to_half(model: ir.Model) -> None:
    """Rewrite ``model`` in place; inputs and outputs keep their names and float32.

    Raises:
        DataError: a constant beyond the range of float16 (65504).
    """
    import onnx_ir as ir

    graph = model.graph
    halves = {ir.DataType.FLOAT: ir.DataType.FLOAT16}
    for name, value in list(graph.initializers.items()):
        if value.dtype is not ir.DataType.FLOAT or value.const_value is None:
            continue
        value.const_value = ir.Tensor(_as_half(value.const_value.numpy(), name), name=name)
        value.type = ir.TensorType(ir.DataType.FLOAT16)
    nodes = list(graph)
    for node in nodes:
        for value in node.outputs:
            if value.dtype in halves:
                value.type = ir.TensorType(halves[value.dtype])
    for value in list(graph.inputs):
        if value.dtype is ir.DataType.FLOAT:
            cast = _cast(value, f"{value.name}_float16", ir.DataType.FLOAT16)
            value.replace_all_uses_with(cast.outputs[0])
            cast.replace_input_with(0, value)
            graph.insert_before(graph[0], cast)
    for index, value in enumerate(list(graph.outputs)):
        if value.dtype is ir.DataType.FLOAT16:
            name = value.name or f"output{index}"
            cast = _cast(value, name, ir.DataType.FLOAT)
            value.name = f"{name}_float16"
            graph.append(cast)
            graph.outputs[index] = cast.outputs[0]


def _cast(value: ir.Value, name: str, dtype: ir.DataType) -> ir.Node:
    import onnx_ir as ir

    output = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    to = ir.AttrInt64("to", int(dtype))
    return ir.Node("", "Cast", [value], [to], outputs=[output], name=f"{name}.cast")


def _as_half(array: np.typing.NDArray[np.float32], name: str) -> np.typing.NDArray[np.float16]:
    # An infinite bound of a Clip stays one.
    finite = array[np.isfinite(array)]
    if finite.size and float(np.abs(finite).max()) > _LARGEST:
        raise DataError(
            f"the constant '{name}' holds {float(np.abs(finite).max()):.6g}",
            expected=f"at most {_LARGEST:g}, the largest float16",
            advice="write this model as fp32 or int8",
        )
    half: np.typing.NDArray[np.float16] = array.astype(np.float16)
    return half
