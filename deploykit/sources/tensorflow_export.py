"""TensorFlow → ONNX, in a separate process: ``python -m deploykit.sources.tensorflow_export``.

It answers as `deploykit.sources.program_child` asks. TensorFlow's imports,
memory, threads and messages stay in this process.

tf2onnx's mapping of ops is used, not its optimizers: those give up on scalar operands, and what
they do is what our own passes do. (Keras' ``model.export(format="onnx")`` calls the same mapping,
always with those optimizers, and cannot read a SavedModel.)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import UnsupportedModelError
from deploykit.sources.options import LoadOptions
from deploykit.sources.program_child import answer

if TYPE_CHECKING:
    import onnx

    from deploykit.sources.tensorflow_program import TensorflowProgram

#: The newest opset that tf2onnx writes; `deploykit.sources.onnx_opset` brings it to ours.
_OPSET = 18


def export_tensorflow(path: Path, options: LoadOptions) -> bytes:
    """A .keras file or a SavedModel as a serialized ``ModelProto``.

    Its shapes are static; inputs and outputs of rank 4 are NCHW.

    Raises:
        SourceError: see `deploykit.sources.tensorflow_program.open_tensorflow`.
        UnsupportedModelError: with every TensorFlow op that has no ONNX form.
    """
    from deploykit.sources.tensorflow_program import open_tensorflow

    program = open_tensorflow(path, options)
    frozen, inputs, outputs = _freeze(program)
    exported = _to_onnx(frozen, inputs, outputs, str(path))
    data: bytes = exported.SerializeToString(deterministic=True)
    return data


def _freeze(program: TensorflowProgram) -> tuple[Any, dict[str, str], dict[str, str]]:
    """The graph with variables as constants; tensor name → our name of inputs and of outputs."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    named = zip(program.input_names, program.input_shapes, strict=True)
    specs = [tf.TensorSpec(shape, tf.float32, name=f"source_{name}") for name, shape in named]
    concrete = tf.function(program.function).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(
        concrete, lower_control_flow=False, aggressive_inlining=True
    )
    inputs = [t.name for t in frozen.inputs if t.dtype != tf.resource]
    outputs = [t.name for t in frozen.outputs]
    return (
        frozen.graph.as_graph_def(add_shapes=True),
        dict(zip(inputs, program.input_names, strict=True)),
        dict(zip(outputs, program.output_names, strict=True)),
    )


def _to_onnx(
    graph_def: Any, inputs: dict[str, str], outputs: dict[str, str], origin: str
) -> onnx.ModelProto:
    import tensorflow as tf
    from tf2onnx.tfonnx import process_tf_graph

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        mapped = process_tf_graph(
            graph,
            opset=_OPSET,
            continue_on_error=True,  # all ops without a form, not the first one alone
            input_names=list(inputs),
            output_names=list(outputs),
            tensors_to_rename={**inputs, **outputs},
        )
        exported: onnx.ModelProto = mapped.make_model("deploykit")
    _check_ops(exported, origin)
    return exported


def _check_ops(exported: onnx.ModelProto, origin: str) -> None:
    """Refuse what tf2onnx could not map: it leaves TensorFlow's op in the graph."""
    import onnx.defs

    versions = {entry.domain: entry.version for entry in exported.opset_import}
    unmapped: dict[str, str] = {}
    for node in exported.graph.node:
        try:
            onnx.defs.get_schema(node.op_type, versions.get(node.domain, _OPSET), node.domain)
        except onnx.defs.SchemaError:
            unmapped.setdefault(node.op_type, node.name)
    if unmapped:
        listed = ", ".join(f"{op} (node '{name}')" for op, name in unmapped.items())
        raise UnsupportedModelError(
            f"{origin} uses TensorFlow ops that have no ONNX form: {listed}",
            advice="replace them by layers of convolutions, pooling and arithmetic",
        )


if __name__ == "__main__":
    sys.exit(answer(sys.argv[1:], export_tensorflow))
