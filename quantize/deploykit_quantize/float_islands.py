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
    the sensitive place undamped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from deploykit.graph.op_facts import facts_of
from deploykit.graph.ops import UNDAMPED_OPS, WEIGHTED_OPS
from deploykit.graph.read_qdq import data_inputs
from deploykit.graph.reading import constant_array
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
            islands.update((node, *_makers_of(operand)))
            if findings is not None:
                findings.matched(node, f"computed in float: {reason}")
    return frozenset(islands)


def _danger(node: ir.Node, interval: Range, rule: TensorRule) -> str:
    """Why rounding the operand would ruin the result; empty where it would not."""
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


def _makers_of(operand: ir.Value) -> Iterator[ir.Node]:
    """The nodes that compute a sensitive operand, back to layers with weights."""
    pending = [(operand, True)]
    seen: set[tuple[ir.Value, bool]] = set()
    while pending:
        value, undamped = pending.pop()
        node = value.producer()
        if node is None or (value, undamped) in seen:
            continue
        seen.add((value, undamped))
        if node.op_type in WEIGHTED_OPS:
            if undamped:
                yield node
            continue
        yield node
        undamped = undamped and node.op_type in UNDAMPED_OPS
        pending += [(source, undamped) for source in data_inputs(node)]
