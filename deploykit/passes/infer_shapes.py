"""A static shape and a dtype for every value.

1. Most values have both already: the exporter wrote them, or onnxsim did.
2. Where one lacks, ONNX's shape inference runs once, over the graph without its weights.
3. A value that is dynamic even so cannot be converted: a phone's runtime plans its memory ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.errors import UnsupportedModelError
from deploykit.graph import native
from deploykit.graph.reading import static_shape
from deploykit.graph.skeleton import serialize_skeleton
from deploykit.limits import current_limits, elements_of
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.channel_parameters import check_channel_parameters
from deploykit.printable import printable_name

if TYPE_CHECKING:
    import onnx_ir as ir

_LISTED = 5


@dataclass(frozen=True)
class InferShapes(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"no_functions"})
    ensures: ClassVar[frozenset[str]] = frozenset({"static_shapes"})

    def apply(self, model: ir.Model) -> PassResult:
        """Infer what is missing.

        Raises:
            UnsupportedModelError: a value whose shape is not static, with its name and the cause;
                or values that take more memory than the limits allow.
        """
        findings = Findings(self.name)
        for value in model.graph.initializers.values():
            _describe_constant(value)
        if not _open_values(model.graph):
            _check_sizes(model.graph)
            return findings.result()
        inferred = _infer(model)
        for node in model.graph:
            for output in node.outputs:
                known = inferred.get(output.name or "")
                if known is not None and static_shape(output) is None:
                    output.shape, output.type = known.shape, known.type
                    findings.matched(node, "shape inferred")
        left = _open_values(model.graph)
        if left:
            if all(static_shape(value) is not None for value in model.graph.inputs):
                _refuse_contradictions(model)
            raise _dynamic_error(model.graph, left)
        _check_sizes(model.graph)
        return findings.result()


def _check_sizes(graph: ir.Graph) -> None:
    _refuse_empty(graph)
    _refuse_large(graph)
    check_channel_parameters(graph)


def _refuse_large(graph: ir.Graph) -> None:
    """One Expand or Resize may ask for terabytes: told before anything runs it."""
    bytes_of = {
        value: elements_of(static_shape(value) or ()) * (value.dtype.itemsize if value.dtype else 4)
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs))
    }
    total, limit = sum(bytes_of.values()), current_limits().activation_bytes
    if total > limit:
        largest = max(bytes_of, key=bytes_of.__getitem__)
        raise UnsupportedModelError(
            f"the values that the model computes take {total:,.0f} bytes, the largest of them "
            f"{bytes_of[largest]:,.0f}: '{printable_name(largest.name or '')}' of shape "
            f"{static_shape(largest)}",
            expected=f"at most {limit:,} bytes in all",
            advice="check the shapes in the file, or --max activation_bytes=SIZE allows more",
        )


def _refuse_empty(graph: ir.Graph) -> None:
    """A tensor without elements is one thing in ONNX and an error in every phone's runtime."""
    for value in (*graph.outputs, *(v for node in graph for v in node.outputs)):
        if 0 in (static_shape(value) or ()) and (value.uses() or value.is_graph_output()):
            raise UnsupportedModelError(
                f"'{value.name}' has shape {static_shape(value)}: no elements",
                expected="one element or more in every value",
                advice="take that part out of the exported model",
            )


def _describe_constant(value: ir.Value) -> None:
    import onnx_ir as ir

    tensor = value.const_value
    if tensor is not None and (value.shape is None or value.dtype is None):
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)


def _open_values(graph: ir.Graph) -> list[ir.Value]:
    import onnx_ir as ir

    values = [*graph.inputs, *(o for node in graph for o in node.outputs)]
    return [
        v
        for v in values
        if (static_shape(v) is None or v.dtype is None)
        # A sequence has no shape; canonicalize replaces the ops that make one. An output
        # that is omitted has no name.
        and not isinstance(v.type, ir.SequenceType)
        and v.name
        and (v.uses() or v.is_graph_output() or v.is_graph_input())
        and not _only_indexed(v)
    ]


def _only_indexed(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "SplitToSequence"


def _infer(model: ir.Model) -> dict[str, ir.Value]:
    import onnx
    import onnx_ir as ir

    skeleton, _ = serialize_skeleton(model)
    try:
        inferred = native.infer_shapes(skeleton)
    except native.RefusedError as error:
        raise _contradiction(error) from error
    graph = ir.from_proto(onnx.load_from_string(inferred)).graph
    return {o.name or "": o for node in graph for o in node.outputs}


def _refuse_contradictions(model: ir.Model) -> None:
    # Only strict inference says what it stumbled over.
    skeleton, _ = serialize_skeleton(model)
    try:
        native.infer_shapes(skeleton, strict=True)
    except native.RefusedError as error:
        raise _contradiction(error) from error


def _contradiction(error: native.RefusedError) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the shapes of the model contradict: {str(error).splitlines()[-1].strip()}",
        advice="check the file with onnx.checker, or export it again",
    )


def _dynamic_error(graph: ir.Graph, values: list[ir.Value]) -> UnsupportedModelError:
    names = [f"'{v.name}' of shape {v.shape}" for v in values[:_LISTED]]
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    inputs = [v for v in graph.inputs if static_shape(v) is None]
    if inputs:
        advice = "give the input's shape, e.g. --input 1x3x224x224"
    else:
        producer = values[0].producer()
        advice = (
            f"the first is made by {producer.op_type if producer else 'an input'}: its size "
            "depends on the data; take that part out of the exported model"
        )
    return UnsupportedModelError(
        f"values whose shape is not static: {', '.join(names)}{more}",
        expected="a number for every dimension",
        advice=advice,
    )
