"""Which values of a graph are quantized, and which of them share a scale.

1.  A value is quantized if an op of the policy's ``quantized_ops`` makes or reads it, except
    between an op and the Relu or Clip that it computes along: there nothing is rounded. Under an
    ``inputs_only`` policy it is quantized if such an op reads it.
2.  The output of a ``same_scale_ops`` op joins the group of its input, whichever came first.
3.  The output of a ``fixed_outputs`` op fixes the parameters of its group.
4.  All inputs and outputs of a ``joined_scale_ops`` op are one group. An input whose group is
    fixed cannot join: it is *requantized* on its way in (unless all inputs are fixed alike, and
    the output can be so too).
5.  A group's range is the union of its members' ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploykit.errors import ContractError
from deploykit.graph.read_qdq import carries_activation, data_inputs, is_float, is_structural
from deploykit.graph.reading import constant_array, is_constant
from deploykit.tensors import QuantParams
from deploykit_quantize.arithmetic import params_from_range
from deploykit_quantize.policy import Policy

if TYPE_CHECKING:
    import onnx_ir as ir

Range = tuple[float, float]
Edge = tuple["ir.Node", int]


@dataclass(frozen=True)
class ScalePlan:
    """Parameters of everything that is not weights or bias.

    Attributes:
        values: Value → parameters, in the graph's order.
        requantized: (node, input index) → parameters that the node must read its input in, where
            those are not the input's own.
        joined_constants: (node, input index) → parameters of a constant that a joined op reads.
    """

    values: Mapping[ir.Value, QuantParams]
    requantized: Mapping[Edge, QuantParams]
    joined_constants: Mapping[Edge, QuantParams]


def plan_scales(
    graph: ir.Graph, policy: Policy, range_of: Callable[[ir.Value], Range]
) -> ScalePlan:
    """Decide the parameters of every quantized value.

    Args:
        graph: The graph, rewrites applied.
        policy: Its recipe must quantize activations.
        range_of: The range of a value.

    Raises:
        ContractError: the recipe leaves activations in float.
        DataError: a range is not known or not finite.
    """
    rule = policy.recipe.activations
    if rule is None:
        raise ContractError(
            f"recipe {policy.recipe.name} for a static quantization",
            expected="a recipe that quantizes activations, e.g. static_wi8_ai8",
        )
    groups = _Groups({v: v for v in _quantized_values(graph, policy)})
    nodes = [node for node in graph if policy.quantizes(node)]
    for node in nodes:
        fixed = policy.fixed_outputs.get(node.op_type)
        if fixed is not None:
            params = QuantParams((fixed.scale,), (fixed.zero_point,), rule.dtype)
            groups.fixed.update({v: params for v in node.outputs if v in groups.parents})
    for node in nodes:
        if node.op_type in policy.same_scale_ops:
            groups.join((*data_inputs(node)[:1], *node.outputs))
    for node in nodes:
        if node.op_type in policy.joined_scale_ops:
            groups.join_node(node)
    params_of: dict[ir.Value, QuantParams] = dict(groups.fixed)
    for root, members in groups.members().items():
        if root not in params_of:
            ranges = [range_of(v) for v in members] + groups.constant_ranges(root)
            low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
            params_of[root] = params_from_range(low, high, rule)
    return ScalePlan(
        values={v: params_of[groups.root(v)] for v in groups.parents},
        requantized={e: params_of[groups.root(v)] for e, v in groups.requantized.items()},
        joined_constants={e: params_of[groups.root(v)] for e, v in groups.constants.items()},
    )


def _quantized_values(graph: ir.Graph, policy: Policy) -> list[ir.Value]:
    """Rule 1, in the graph's order."""
    chosen = set()
    for node in graph:
        if policy.quantizes(node):
            chosen.update(data_inputs(node))
            if not policy.inputs_only:
                chosen.update(v for v in node.outputs if is_float(v))
    ordered = [*graph.inputs, *(v for node in graph for v in node.outputs)]
    return [v for v in ordered if v in chosen and not _is_carried(v, policy)]


def _is_carried(value: ir.Value, policy: Policy) -> bool:
    if not carries_activation(value):
        return False
    producer, (use,) = value.producer(), value.uses()
    assert producer is not None
    return (
        policy.quantizes(producer)
        and producer.op_type not in policy.same_scale_ops | policy.joined_scale_ops
        and producer.op_type not in policy.fixed_outputs
        and policy.quantizes(use.node)
        and use.node.op_type not in policy.same_scale_ops
    )


@dataclass
class _Groups:
    """A union-find over values; the root of a group is its member that comes first.

    ``fixed`` is keyed by roots; ``requantized`` and ``constants`` name a member of the group whose
    parameters the edge wants.
    """

    parents: dict[ir.Value, ir.Value]
    fixed: dict[ir.Value, QuantParams] = field(default_factory=dict)
    requantized: dict[Edge, ir.Value] = field(default_factory=dict)
    constants: dict[Edge, ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._order = {value: index for index, value in enumerate(self.parents)}

    def root(self, value: ir.Value) -> ir.Value:
        while self.parents[value] is not value:
            self.parents[value] = self.parents[self.parents[value]]
            value = self.parents[value]
        return value

    def join(self, values: Iterable[ir.Value]) -> None:
        """Make one group of those values that are quantized.

        Raises:
            ContractError: their groups are fixed to different parameters.
        """
        roots = sorted({self.root(v) for v in values if v in self.parents}, key=self._order.get)  # type: ignore[arg-type]
        fixed = [self.fixed[r] for r in roots if r in self.fixed]
        if any(params != fixed[0] for params in fixed):
            raise ContractError(
                f"'{roots[0].name}' and values of one scale with it have different fixed scales",
                expected="a policy that does not contradict itself",
            )
        for root in roots[1:]:
            self.parents[root] = roots[0]
            self.fixed.pop(root, None)
        if fixed:
            self.fixed[roots[0]] = fixed[0]

    def join_node(self, node: ir.Node) -> None:
        """Rule 4."""
        output = node.outputs[0]
        inputs = [v for v in data_inputs(node) if v in self.parents]
        found = [self.fixed.get(self.root(v)) for v in inputs]
        alike = bool(found) and found[0] is not None and all(f == found[0] for f in found)
        constants = [
            index
            for index, value in enumerate(node.inputs)
            if value is not None and is_constant(value) and not is_structural(node, index)
        ]
        if alike and not constants:
            self.join((*inputs, *node.outputs))
            return
        self.join((*(v for v in inputs if self.root(v) not in self.fixed), *node.outputs))
        for index, value in enumerate(node.inputs):
            if index in constants:
                self.constants[node, index] = output
            elif value in self.parents and value is not None and self.root(value) in self.fixed:
                self.requantized[node, index] = output

    def members(self) -> dict[ir.Value, list[ir.Value]]:
        """Root → members, both in the graph's order."""
        found: dict[ir.Value, list[ir.Value]] = {}
        for value in self.parents:
            found.setdefault(self.root(value), []).append(value)
        return found

    def constant_ranges(self, root: ir.Value) -> list[Range]:
        """Ranges of the constants that joined ops of this group read."""
        ranges = []
        for (node, index), value in self.constants.items():
            data = constant_array(node.inputs[index])
            if data is not None and data.size and self.root(value) is root:
                ranges.append((float(data.min()), float(data.max())))
        return ranges
