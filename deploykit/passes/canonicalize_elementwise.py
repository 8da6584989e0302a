"""Arithmetic, bounds and activations.

1. ``x - c = x + (-c)``, ``x / c = x (1 / c)`` for a constant float c; the constant of Add, Mul,
   Min and Max is the second operand.
2. Sum, and Min and Max of more than two: a chain of two-operand nodes; of one operand: nothing.
3. ``x^1 = x``, ``x^2 = x x``, ``x^(1/2) = sqrt(x)``, ``1/x`` as a Div.
4. Clip: both bounds constant scalars; without an upper bound it is Max (Relu for a lower bound of
   0), without a lower bound it is Min. A bound of +-inf or of the largest float is none. Where the
   lower bound is not below the upper one, every element becomes the upper one: Min(Max(x, u), u).
5. Activations with every attribute explicit; Softmax's axis not negative; PRelu's slope (C, 1, 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.editing import GraphEditor, drop_attributes, set_attributes, set_inputs
from deploykit.graph.reading import (
    constant_array,
    constant_scalar,
    input_at,
    is_constant,
    known_shape,
    read_float,
    read_int,
    read_string,
    static_shape,
    uniform_constant,
)
from deploykit.passes.base import Findings
from deploykit.passes.canonical_rule import rule_for

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = float(np.finfo(np.float32).max)


@rule_for("Add", "Mul")
def canonicalize_commutative(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 1: the constant second."""
    first, second = node.inputs
    if is_constant(first) and not is_constant(second):
        set_inputs(node, [second, first])


@rule_for("Sub")
def canonicalize_sub(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 1."""
    array = constant_array(node.inputs[1])
    if array is None or array.dtype.kind != "f":
        return
    node.op_type = "Add"
    set_inputs(node, [node.inputs[0], editor.constant(f"{node.outputs[0].name}.offset", -array)])
    findings.matched(node, "Sub of a constant > Add")


@rule_for("Div")
def canonicalize_div(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 1."""
    array = constant_array(node.inputs[1])
    if array is None or array.dtype.kind != "f":
        return
    with np.errstate(all="ignore"):
        reciprocal = (1.0 / array.astype(np.float64)).astype(array.dtype)
    if not np.all(np.isfinite(reciprocal)) or not np.all(reciprocal != 0):
        findings.skipped(node, "the divisor has no finite reciprocal")
        return
    node.op_type = "Mul"
    set_inputs(
        node, [node.inputs[0], editor.constant(f"{node.outputs[0].name}.factor", reciprocal)]
    )
    findings.matched(node, "Div by a constant > Mul")


@rule_for("Sum", "Min", "Max")
def canonicalize_variadic(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 2."""
    op_type = "Add" if node.op_type == "Sum" else node.op_type
    if len(node.inputs) == 1:
        node.op_type = "Identity"
        return
    ordered = [v for v in node.inputs if not is_constant(v)]
    ordered += [v for v in node.inputs if is_constant(v)]
    while len(ordered) > 2:
        a, b = ordered[:2]
        shape = np.broadcast_shapes(known_shape(a), known_shape(b))
        ordered[:2] = [editor.node(op_type, [a, b], shape, like=node)]
        findings.matched(node, f"{node.op_type} of several > a chain of {op_type}")
    node.op_type = op_type
    if list(node.inputs) != ordered:
        set_inputs(node, ordered)


@rule_for("Pow")
def canonicalize_pow(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 3."""
    value, exponent = node.inputs[0], uniform_constant(node.inputs[1])
    array = constant_array(node.inputs[1])
    if array is not None and array.dtype != np.float32:  # runtimes have one dtype of the two
        wish = f"{node.outputs[0].name}.exponent"
        set_inputs(node, [value, editor.constant(wish, array.astype(np.float32))])
    if exponent is None:
        return
    if value is None or known_shape(value) != known_shape(node.outputs[0]):
        findings.skipped(node, "the exponent broadcasts the base")
        return
    spelled = {1.0: ("Identity", [value]), 2.0: ("Mul", [value, value]), 0.5: ("Sqrt", [value])}
    if exponent in spelled:
        op_type, inputs = spelled[exponent]
        findings.matched(node, f"Pow {exponent:g} > {op_type}")
        node.op_type = op_type
        set_inputs(node, inputs)


@rule_for("Reciprocal")
def canonicalize_reciprocal(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 3."""
    one = editor.constant(f"{node.outputs[0].name}.one", np.array(1.0, dtype=np.float32))
    node.op_type = "Div"
    set_inputs(node, [one, node.inputs[0]])
    findings.matched(node, "Reciprocal > Div")


@rule_for("Clip")
def canonicalize_clip(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 4."""
    value, bounds = node.inputs[0], (input_at(node, 1), input_at(node, 2))
    numbers = [None if b is None else constant_scalar(b) for b in bounds]
    if any(b is not None and n is None for b, n in zip(bounds, numbers, strict=True)):
        findings.skipped(node, "the bounds of Clip are computed")
        return
    low, high = numbers
    low = None if low is not None and low <= -_LARGEST else low
    high = None if high is not None and high >= _LARGEST else high
    if low is not None and high is not None:
        upper = _scalar(bounds[1], editor)
        if low < high:
            set_inputs(node, [value, _scalar(bounds[0], editor), upper])
            return
        raised = editor.node("Max", [value, upper], known_shape(value), like=node)
        node.op_type = "Min"
        set_inputs(node, [raised, upper])
        findings.matched(node, "Clip whose bounds leave one number > Max and Min")
        return
    if low is None and high is None:
        op_type, inputs = "Identity", [value]
    elif low == 0.0:
        op_type, inputs = "Relu", [value]
    elif high is None:
        op_type, inputs = "Max", [value, _scalar(bounds[0], editor)]
    else:
        op_type, inputs = "Min", [value, _scalar(bounds[1], editor)]
    findings.matched(node, f"Clip with {2 - numbers.count(None)} bounds > {op_type}")
    node.op_type = op_type
    set_inputs(node, inputs)


def _scalar(value: ir.Value | None, editor: GraphEditor) -> ir.Value | None:
    array = constant_array(value)
    if value is None or array is None or array.shape == ():
        return value
    return editor.constant(f"{value.name}.scalar", array.reshape(()))


@rule_for("HardSigmoid")
def canonicalize_hard_sigmoid(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 5."""
    alpha, beta = read_float(node, "alpha", 0.2), read_float(node, "beta", 0.5)
    set_attributes(node, alpha=alpha, beta=beta)


@rule_for("LeakyRelu")
def canonicalize_leaky_relu(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 5."""
    set_attributes(node, alpha=read_float(node, "alpha", 0.01))


@rule_for("Elu")
def canonicalize_elu(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 5."""
    set_attributes(node, alpha=read_float(node, "alpha", 1.0))


@rule_for("Gelu")
def canonicalize_gelu(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 5."""
    set_attributes(node, approximate=read_string(node, "approximate", "none"))


@rule_for("Softmax")
def canonicalize_softmax(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 5."""
    rank = len(known_shape(node.inputs[0]))
    set_attributes(node, axis=read_int(node, "axis", -1) % rank)


@rule_for("PRelu")
def canonicalize_prelu(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    """Case 5."""
    shape, slope = known_shape(node.inputs[0]), constant_array(node.inputs[1])
    if slope is None:
        findings.skipped(node, "the slope of PRelu is computed")
        return
    wanted = (shape[1], *([1] * (len(shape) - 2))) if len(shape) > 1 else (1,)
    if static_shape(node.inputs[1]) == wanted:
        return
    aligned = slope.reshape([1] * (len(shape) - slope.ndim) + list(slope.shape))
    if any(d != 1 for i, d in enumerate(aligned.shape) if i != 1):
        findings.skipped(node, f"a slope of shape {list(slope.shape)} is not one a channel")
        return
    per_channel = np.broadcast_to(aligned.reshape(-1), (wanted[0],)).reshape(wanted).copy()
    constant = editor.constant(f"{node.outputs[0].name}.slope", per_channel)
    set_inputs(node, [node.inputs[0], constant])
    drop_attributes(node, "axis")
    findings.matched(node, "slope > one a channel")
