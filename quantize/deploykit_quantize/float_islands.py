"""Which nodes compute in floats inside of a quantized graph, since a step would ruin them.

A step rounds every value of a tensor by up to half of its size, small values too. Some ops blow
that up: a quotient whose divisor is smaller than a step becomes infinite, a square root has no
bound on its slope near zero, an exponential turns an error into a factor.

1.  Such an op's *sensitive* operand (`Op.sensitive`) is safe where its interval is so far from zero
    (for ``Exp``: so narrow) that rounding changes the result by at most 1/32 of itself. Then
    nothing is done.
2.  Otherwise the operand keeps its float32 bits: the op itself, and what computes the operand,
    back to the layers with weights, stay float. Such a layer stays float too if no more than
    moves, bounds and sums lie between; behind a product or a mean its own step no longer reaches
    the sensitive place undamped, and the way back ends at a value that others read in integers.
3.  A normalization, which divides by the root of a mean of squares, is float in any case; so are
    the constant scale and bias behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from deploykit.graph.op_facts import facts_of
from deploykit.graph.ops import SELECTING_OPS, UNDAMPED_OPS, WEIGHTED_OPS
from deploykit.graph.read_qdq import data_inputs
from deploykit.graph.reading import (
    constant_array,
    is_constant,
    is_op,
    only_reader,
    producer_of,
)
from deploykit.passes.base import Findings
from deploykit_quantize.arithmetic import params_from_range
from deploykit_quantize.policy import Policy, TensorRule

if TYPE_CHECKING:
    import onnx_ir as ir

Range = tuple[float, float]

#: Least distance from zero of a divisor, in steps: half a step is then at most 1/32 of it.
LEAST_STEPS = 16

#: Largest step of an exponent: half of it changes the result by at most about 1/32.
LARGEST_EXPONENT_STEP = 1 / 16


def find_float_islands(
    graph: ir.Graph,
    policy: Policy,
    range_of: Callable[[ir.Value], Range],
    findings: Findings | None = None,
) -> frozenset[ir.Node]:
    """The nodes that stay float though the policy's ops are quantized.

    Args:
        graph: The graph, rewrites applied.
        policy: Its recipe quantizes activations.
        range_of: The range of a value.
        findings: Where to note each op whose operand is not safe.
    """
    rule = policy.recipe.activations
    islands: set[ir.Node] = set()
    if rule is None or policy.inputs_only:  # there nothing is rounded but what layers read
        return frozenset()
    for node in graph:
        op = facts_of(node)
        index = op.sensitive if op is not None else None
        operand = node.inputs[index] if index is not None else None
        if operand is None or constant_array(operand) is not None:
            continue
        reason = _danger(node, range_of(operand), rule)
        if reason:
            islands.add(node)
            _add_makers(operand, islands, policy)
            if findings is not None:
                findings.matched(node, f"computed in float: {reason}")
    for node in list(islands):
        if _is_deviation(node):
            islands.update(_affine_behind(node))
    return frozenset(islands)


def _danger(node: ir.Node, interval: Range, rule: TensorRule) -> str:
    """Why rounding the operand would ruin the result; empty where it would not."""
    if _is_deviation(node):
        return "it normalizes"
    low, high = interval
    step = params_from_range(low, high, rule).scale[0]
    if node.op_type == "Exp":
        wide = step > LARGEST_EXPONENT_STEP
        return f"a step of {step:.3g} in the exponent" if wide else ""
    exponent = constant_array(node.inputs[1]) if node.op_type == "Pow" else None
    if exponent is not None and float(exponent.min()) >= 1.0:
        return ""
    if max(low, -high) >= LEAST_STEPS * step:
        return ""
    return f"its operand lies in {low:.3g}..{high:.3g}, where a step is {step:.3g}"


def _add_makers(operand: ir.Value, islands: set[ir.Node], policy: Policy) -> None:
    """Add the nodes that compute a sensitive operand, back to layers with weights."""
    pending = [(operand, True)]
    seen: set[tuple[ir.Value, bool]] = set()
    while pending:
        value, undamped = pending.pop()
        node = value.producer()
        if node is None or (value, undamped) in seen:
            continue
        readers = [use.node for use in value.uses()]
        if not undamped and any(r not in islands and policy.quantizes(r) for r in readers):
            continue  # if those come to be in the island too, one of them leads here again
        seen.add((value, undamped))
        if node.op_type in WEIGHTED_OPS:
            if undamped:
                islands.add(node)
            continue
        islands.add(node)
        undamped = undamped and node.op_type in UNDAMPED_OPS
        pending += [(source, undamped) for source in data_inputs(node)]


def _is_deviation(node: ir.Node) -> bool:
    """Whether a node is the root of a mean, or a sum, of squares."""
    if not is_op(node, "Sqrt"):
        return False
    value = node.inputs[0]
    raised = producer_of(value, "Add", "Max")
    if raised is not None:
        value = raised.inputs[0]
    mean = producer_of(value, "ReduceMean", "ReduceSum")
    square = producer_of(mean.inputs[0], "Mul") if mean is not None else None
    return square is not None and square.inputs[0] is square.inputs[1]


def _affine_behind(deviation: ir.Node) -> Iterator[ir.Node]:
    """The constant scale and bias of what a deviation divides, and the moves between them."""
    pending = [use.node for use in deviation.outputs[0].uses()]
    while pending:
        node = pending.pop()
        yield node
        reader = only_reader(node.outputs[0])
        if reader is None:
            continue
        affine = is_op(reader, "Mul", "Add") and any(map(is_constant, reader.inputs))
        if affine or (reader.op_type in SELECTING_OPS and len(data_inputs(reader)) == 1):
            pending.append(reader)
