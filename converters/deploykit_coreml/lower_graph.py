"""From a stage's graph to a MIL program: checks first, all failures at once, then lowering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.errors import (
    ContractError,
    UnsupportedModelError,
    UnsupportedOp,
    UnsupportedOpsError,
)
from deploykit.graph.node_fields import FormError, needed_array, shape_of
from deploykit.graph.provenance import module_path
from deploykit.lowering import LoweringTable
from deploykit.preprocess import Preprocess
from deploykit.tensors import Array, QuantParams

# Registers every lowering function.
from deploykit_coreml import (  # noqa: F401
    lower_activation,
    lower_convolution,
    lower_elementwise,
    lower_linear,
    lower_pooling,
    lower_resize,
    lower_shape,
    lower_shuffle,
)
from deploykit_coreml.load_coremltools import load_builder, load_coremltools
from deploykit_coreml.lowering_context import TABLE, Lower, LoweringContext, QuantizedVar
from deploykit_coreml.options import WriteOptions
from deploykit_coreml.package_format import SHARES

if TYPE_CHECKING:
    import onnx_ir as ir

#: Core ML's tensors have up to five axes.
_MOST_AXES = 5


@dataclass(frozen=True)
class StageGraph:
    """What is lowered.

    Attributes:
        model: Float-shaped canonical graph.
        params: Value name → quantization; empty for a float stage.
        integers: Constant name → its integers.
        preprocess: The contract of the image input, if known.
        labels: Class names, if known.
        compress: Whether the writer compresses the weights (w8 from a float stage).
    """

    model: ir.Model
    params: Mapping[str, QuantParams] = field(default_factory=dict)
    integers: Mapping[str, Array] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    compress: bool = False


@dataclass(frozen=True)
class LoweredProgram:
    """What came of it.

    Attributes:
        program: coremltools' MIL program.
        inputs: Value name → name of the program's input.
        outputs: Value name → name of the program's output.
        variables: Value name → name of the variable that holds its reals.
        quantized: Value name → its integers.
        shapes: Value name → shape.
        scale_error: Largest relative error of a scale that was rounded to float16.
    """

    program: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    variables: Mapping[str, str]
    quantized: Mapping[str, QuantizedVar]
    shapes: Mapping[str, tuple[int, ...]]
    scale_error: float


def lower_graph(stage: StageGraph, options: WriteOptions) -> LoweredProgram:
    """Lower a whole graph.

    Raises:
        UnsupportedOpsError: with every node that has no lowering, or none for its form.
        UnsupportedModelError: an input that is not float32.
        ContractError: an image input or labels that the model does not have.
        MissingDependencyError: coremltools is not installed.
    """
    nodes = list(stage.model.graph)
    TABLE.check(nodes)
    _check_ranks(stage.model)
    if options.image_input:
        _check_image(stage)
    if options.classifier:
        _check_labels(stage)
    coremltools, builder = load_coremltools(), load_builder()
    from coremltools.converters.mil import mil
    from coremltools.converters.mil.mil import types

    context = LoweringContext(
        builder, options, stage.params, stage.integers, compress=stage.compress
    )
    inputs = {v.name or "": context.unique(v.name or "input") for v in stage.model.graph.inputs}
    outputs = {v.name or "": context.unique(v.name or "output") for v in stage.model.graph.outputs}
    if len(outputs) != len(stage.model.graph.outputs):
        raise UnsupportedModelError("the model has one output twice", expected="each output once")
    ends = types.fp16 if options.io == "float16" else types.fp32
    specs = [
        builder.TensorSpec(shape_of(v), types.fp32 if options.image_input and i == 0 else ends)
        for i, v in enumerate(stage.model.graph.inputs)
    ]

    placeholders = dict(zip(inputs.values(), specs, strict=True))
    with mil.Function(placeholders, getattr(coremltools.target, f"iOS{options.ios}")) as function:
        _bind_inputs(stage, context, [function.inputs[name] for name in placeholders])
        _lower_nodes(nodes, context)
        function.set_outputs(_finish(stage, context, outputs))
    program = mil.Program()
    program.add_function("main", function)
    return LoweredProgram(
        program=program,
        inputs=inputs,
        outputs=outputs,
        variables={v: var.name for v, var in context.variables.items() if hasattr(var, "name")},
        quantized=context.quantized,
        shapes={v.name or "": shape_of(v) for v in _values(stage.model)},
        scale_error=context.scale_error,
    )


def lowering_table() -> LoweringTable[Lower]:
    """The table, with every lowering function registered."""
    return TABLE


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]


def _check_ranks(model: ir.Model) -> None:
    failures = []
    for node in model.graph:
        for value in node.outputs:
            rank = len(value.shape) if value.shape is not None else 0
            if rank > _MOST_AXES:
                failures.append(
                    UnsupportedOp(
                        f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
                        node.name or "",
                        module_path(node),
                        f"its result has {rank} axes, and Core ML's tensors up to {_MOST_AXES}",
                        "merge axes",
                    )
                )
    if failures:
        raise UnsupportedOpsError(TABLE.target, failures)
    for value in model.graph.inputs:
        if not shape_of(value):
            raise UnsupportedModelError(
                f"the input '{value.name}' is a single number, without axes",
                expected="one axis or more, which Core ML's inputs have",
                advice="make it a constant, or give it one axis",
            )
        if value.dtype is not None and value.dtype.name != "FLOAT":
            raise UnsupportedModelError(
                f"the input '{value.name}' has dtype {value.dtype.name.lower()}",
                expected="float32 inputs",
            )


def _check_image(stage: StageGraph) -> None:
    shapes = [shape_of(v) for v in stage.model.graph.inputs]
    contract = stage.preprocess
    if contract is None:
        raise ContractError(
            "input image of a model without a preprocessing contract",
            expected="mean, std and colour order, which go into the graph",
            advice="convert from a checkpoint or architecture that has them",
        )
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][:2] != (1, contract.channels):
        raise ContractError(
            f"input image of a model with inputs of shape {shapes}",
            expected=f"one input of shape (1, {contract.channels}, height, width)",
        )


def _check_labels(stage: StageGraph) -> None:
    if not stage.labels:
        raise ContractError(
            "classifier of a model without labels",
            expected="class names",
            advice="convert from a checkpoint that has them",
        )
    shapes = [shape_of(v) for v in stage.model.graph.outputs]
    if shapes != [(1, len(stage.labels))]:
        raise ContractError(
            f"classifier of a model with outputs of shape {shapes}",
            expected=f"one output of shape (1, {len(stage.labels)}): a score for each label",
        )


def _bind_inputs(stage: StageGraph, context: LoweringContext, variables: Sequence[Any]) -> None:
    for value, variable in zip(stage.model.graph.inputs, variables, strict=True):
        name = value.name or "input"
        compute = {"float16": "fp16", "float32": "fp32"}[context.dtype.name]
        pixels = context.options.image_input
        if pixels or context.options.io != context.dtype.name:
            if context.dtype == np.float16:
                variable = context.emit(
                    "cast", f"{name}_{context.dtype.name}", x=variable, dtype=compute
                )
            if pixels and stage.preprocess is not None:
                variable = _normalized(context, name, variable, stage.preprocess)
        if name in stage.params:
            variable = context.pair(name, variable, final=False)
        context.variables[name] = variable


def _normalized(context: LoweringContext, name: str, pixels: Any, contract: Preprocess) -> Any:
    """(pixel - 255 mean) / (255 std), each channel with its own: exact up to the program's type."""
    mean = np.asarray(contract.mean, np.float64).reshape(1, -1, 1, 1) * 255
    std = np.asarray(contract.std, np.float64).reshape(1, -1, 1, 1) * 255
    centred = context.emit("sub", f"{name}_centred", x=pixels, y=context.constant(mean, "mean"))
    return context.emit("mul", f"{name}_normalized", x=centred, y=context.constant(1 / std, "std"))


def _lower_nodes(nodes: list[ir.Node], context: LoweringContext) -> None:
    failures: list[UnsupportedOp] = []
    for node in nodes:
        if lower_shuffle.is_absorbed(node, context):
            continue
        try:
            TABLE.function_for(node)(node, context)
        except FormError as error:
            op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            failures.append(
                UnsupportedOp(op, node.name or "", module_path(node), error.reason, error.advice)
            )
            for value in node.outputs:  # so that later failures are found too
                stand_in = np.zeros(shape_of(value), context.dtype)
                context.variables[value.name or ""] = context.emit(
                    "identity", f"{value.name}_stand_in", x=stand_in
                )
    if failures:
        raise UnsupportedOpsError(TABLE.target, failures)


def _finish(stage: StageGraph, context: LoweringContext, outputs: Mapping[str, str]) -> list[Any]:
    """The program's outputs, in their own names and type."""
    results: list[Any] = []
    mb, dtype = context.mb, {"float16": "fp16", "float32": "fp32"}[context.options.io]
    for value in stage.model.graph.outputs:
        if value.name not in context.variables:  # an output that is a constant
            array = np.asarray(needed_array(value), context.dtype)
            constant = mb.identity(x=array, name=context.unique(f"{value.name}_constant"))
            context.variables[value.name or ""] = constant
        variable, name = context.variables[value.name or ""], outputs[value.name or ""]
        if context.options.io != context.dtype.name:
            variable = mb.cast(x=variable, dtype=dtype, name=name)
        elif variable.op is None or any(variable is r for r in results):
            variable = mb.identity(x=variable, name=name)
        else:
            variable.name = name
        results.append(variable)
        context.variables[value.name or ""] = results[-1]
    if context.options.classifier:
        _add_shares(context, results[0])
    return results


def _add_shares(context: LoweringContext, scores: Any) -> None:
    """The probability of each label, float32: what ``classify`` is made from."""
    if context.options.io != "float32":
        scores = context.emit("cast", f"{SHARES}_scores", x=scores, dtype="fp32")
    context.emit("softmax", SHARES, x=scores, axis=-1)
