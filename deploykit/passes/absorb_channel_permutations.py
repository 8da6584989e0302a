"""Channel shuffles, splits and concats become slices and concats of neighbouring channels.

A shuffle computes nothing: it renames channels. If the layers around it can take the channels in
another order, by moving rows and columns of their weights, nothing need be moved at run time:

    shuffle(conv(x, W, b))[c] = conv(x, W, b)[p(c)] = conv(x, W[p], b[p])[c]
    conv(shuffle(x), W, b)    = conv(x, W', b) with W'[:, p(c)] = W[:, c]

1.  `deploykit.passes.plan_channel_orders` decides the order in which every value is held, such
    that what each layer reads consists of few runs of neighbouring channels.
2.  Every value that movements make becomes one Concat of Slices (or nothing, if it is a value that
    is there already), in place of all the Concat, ChannelShuffle, ConcatShuffleSplit, Split and
    Slice between two layers.
3.  Weights, biases and constants with one number a channel follow (Ma et al. 2018, "ShuffleNet V2",
    section 4, joins concat, shuffle and split of two units into one op; here it is no op).

Inputs and outputs of the graph keep their order. Values that are held in another keep their names
and are marked (`deploykit.graph.channel_order`). The result equals the given graph up to the order
in which floats are added. Reasons: a value would take too many slices, and so its shuffles stay.
A shuffle between convolutions of g groups each takes g * g of them, since weights absorb no order
across their groups; for g > 3 the transpose that a shuffle is costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.channel_order import set_channel_order
from deploykit.graph.editing import GraphEditor, set_input
from deploykit.graph.op_facts import Channels, op_types
from deploykit.graph.ops import BINARY_OPS, DOMAIN
from deploykit.graph.reading import (
    constant_array,
    input_at,
    is_op,
    known_shape,
    read_int,
)
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.passes.plan_channel_orders import ChannelPlan, Order, Run, plan_channel_orders
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir

_SHUFFLES = op_types(lambda op: op.domain == DOMAIN and op.channels is Channels.MOVES)


@dataclass(frozen=True)
class AbsorbChannelPermutations(Pass):
    """See the module's docstring.

    Attributes:
        max_cuts: A value for which its sources are cut into more slices each, and into more than
            four in all (nine, if it has twice as many channels), keeps its shuffles.
    """

    max_cuts: int = 2
    ensures: ClassVar[frozenset[str]] = frozenset({"shuffles_absorbed"})
    breaks: ClassVar[frozenset[str]] = frozenset({"shuffles_fused", "concat_shuffles_fused"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite the whole graph, if it shuffles anything."""
        findings = Findings(self.name)
        shuffles = [n for n in model.graph if is_op(n, *_SHUFFLES, domain=DOMAIN)]
        if not shuffles:
            return findings.result()
        plan = plan_channel_orders(model.graph, self.max_cuts)
        for demand, count in plan.refused.items():
            why = f"it would take {count} slices, more than {self.max_cuts} of each source"
            findings.skipped(demand.name or "", why)
        if all(not plan.roles[node].moved for node in shuffles):
            return findings.result()
        rewriter = _Rewriter(model, plan, findings)
        rewriter.permute_constants()
        rewriter.gather_demands()
        return findings.result()


class _Rewriter:
    def __init__(self, model: ir.Model, plan: ChannelPlan, findings: Findings) -> None:
        self.model = model
        self.plan = plan
        self.findings = findings
        self.editor = GraphEditor(model.graph)
        self._slices: dict[Run, ir.Value] = {}
        self._stands_for: dict[ir.Value, ir.Value] = {}

    def order(self, value: ir.Value | None) -> Order | None:
        """The order of a value; None for that of the source."""
        found = self.plan.orders.get(value) if value is not None else None
        return None if found is None or found == tuple(range(len(found))) else found

    # -- constants

    def permute_constants(self) -> None:
        """Rows and columns of weights, and whatever has one number a channel."""
        for value in self.plan.orders:
            set_channel_order(value, self.plan.orders[value])
        for node in list(self.model.graph):
            read, made = self.order(input_at(node, 0)), self.order(node.outputs[0])
            if is_op(node, "Conv") and (read or made):
                self._permute_convolution(node, read, made)
            elif is_op(node, "Gemm") and (read or made):
                self._replace(node, 1, _permuted_matrix(_weights(node), read, made))
                self._permute_bias(node, made)
            elif is_op(node, *BINARY_OPS) and made:
                self._permute_operands(node, made)

    def _permute_convolution(self, node: ir.Node, read: Order | None, made: Order | None) -> None:
        weights = _weights(node)
        group = read_int(node, "group", 1)
        if made is not None:
            weights = weights[list(made)]
        if read is not None and not (group == len(read) == len(weights)):
            weights = _permuted_columns(weights, read, group)
        self._replace(node, 1, weights)
        self._permute_bias(node, made)

    def _permute_bias(self, node: ir.Node, made: Order | None) -> None:
        bias = constant_array(input_at(node, 2))
        if bias is not None and made is not None:
            self._replace(node, 2, bias[list(made)])

    def _permute_operands(self, node: ir.Node, order: Order) -> None:
        rank = len(known_shape(node.outputs[0]))
        for index, value in enumerate(node.inputs):
            array = constant_array(value)
            axis = 1 - rank + (array.ndim if array is not None else 0)
            if array is not None and axis >= 0 and array.shape[axis] == len(order):
                self._replace(node, index, np.take(array, list(order), axis))

    def _replace(self, node: ir.Node, index: int, array: Array) -> None:
        old = node.inputs[index]
        assert old is not None
        set_input(node, index, self.editor.constant(f"{old.name}.reordered", array))

    # -- values

    def gather_demands(self) -> None:
        """Put every demand together from slices; drop the movements that nothing needs now."""
        moved = [n for n in self.model.graph if self.plan.roles[n].moved]
        for demand, runs in self.plan.slices.items():
            self._gather(demand, runs)
        self.editor.remove_if_unread(*reversed(moved))

    def _gather(self, demand: ir.Value, runs: Sequence[Run]) -> None:
        maker = demand.producer()
        assert maker is not None
        fresh = len(runs) == 1 and runs[0] not in self._slices
        parts = [self._part(run, maker) for run in runs]
        if is_op(maker, "Concat") and list(maker.inputs) == parts:
            return
        shape = known_shape(demand)
        made = parts[0]
        if len(parts) > 1:
            made = self.editor.node("Concat", parts, shape, like=maker, attributes={"axis": 1})
            fresh = True
        whole = self._stands_for.get(runs[0].source, runs[0].source)
        if fresh and made is not whole:
            set_channel_order(made, self.plan.orders[demand])
            self.editor.take_over(demand, made)
        else:
            demand.replace_all_uses_with(made)
        self._stands_for[demand] = made
        self.findings.matched(made.name or "", f"gathered from {len(parts)} runs of channels")

    def _part(self, run: Run, before: ir.Node) -> ir.Value:
        source = self._stands_for.get(run.source, run.source)
        shape = known_shape(source)
        if (run.start, run.stop) == (0, shape[1]):
            return source
        if run not in self._slices:
            name = f"{run.source.name}.channels_{run.start}_{run.stop}"
            bounds = {"starts": run.start, "ends": run.stop, "axes": 1, "steps": 1}
            inputs = [self.editor.ints(f"{name}.{k}", [n]) for k, n in bounds.items()]
            self._slices[run] = self.editor.node(
                "Slice",
                [source, *inputs],
                (shape[0], run.stop - run.start, *shape[2:]),
                like=before,
                name=name,
            )
        return self._slices[run]


def _weights(node: ir.Node) -> Array:
    array = constant_array(input_at(node, 1))
    assert array is not None  # its role says so
    return array


def _permuted_matrix(weights: Array, read: Order | None, made: Order | None) -> Array:
    """A Gemm's (outputs, inputs)."""
    rows = weights if made is None else weights[list(made)]
    return rows if read is None else rows[:, list(read)]


def _permuted_columns(weights: Array, order: Order, group: int) -> Array:
    """A Conv's (O, I / group, kH, kW), whose input stays within its groups."""
    size, rows = len(order) // group, len(weights) // group
    parts = [
        weights[g * rows : (g + 1) * rows][:, [c - g * size for c in order[g * size :][:size]]]
        for g in range(group)
    ]
    return np.concatenate(parts)
