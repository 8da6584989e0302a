"""Writing the QDQ graph: fused graph + policy + calibration table → quantized stage.

Names, for a value ``v``: its producer goes on making ``v``; a QuantizeLinear makes
``v_quantized`` of it, a DequantizeLinear makes ``v_dequantized`` of that, and the ops read this. If
``v`` is an output of the graph, the DequantizeLinear makes ``v`` and the producer ``v_float``.
Weights, biases and constants ``W`` become an initializer ``W_quantized`` and a DequantizeLinear
that makes ``W_dequantized``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from deploykit.calibration.table import CalibrationTable
from deploykit.errors import ContractError
from deploykit.graph.op_facts import facts_of
from deploykit.graph.qdq import has_qdq
from deploykit.graph.read_qdq import bias_index, carries_activation, is_structural
from deploykit.graph.reading import constant_array, input_at
from deploykit.graph.value_multiple import multiple_of
from deploykit.model import Model, Stage
from deploykit.passes.base import Findings, run_passes
from deploykit.tensors import Array, QuantParams
from deploykit_quantize.arithmetic import (
    bias_params,
    fit_weight_params,
    limit_weight_params,
    params_from_range,
    quantize_bias,
    weight_params,
)
from deploykit_quantize.float_islands import find_float_islands
from deploykit_quantize.keep_float import find_kept_nodes
from deploykit_quantize.observe.choose_range import choose_range
from deploykit_quantize.observe.derive_range import derive_range
from deploykit_quantize.observe.read_activations import ReadingActivation
from deploykit_quantize.policy import Observer, Policy, TensorRule
from deploykit_quantize.round.base import Rounding
from deploykit_quantize.round.nearest import Nearest
from deploykit_quantize.scale_groups import ScalePlan, plan_scales
from deploykit_quantize.weighted_layer import WeightedLayer, weighted_layer
from deploykit_quantize.write_qdq import QdqWriter

if TYPE_CHECKING:
    import onnx_ir as ir

_DEFAULT_OBSERVER = Observer()
_NEAREST = Nearest()


@dataclass(frozen=True)
class Placement:
    """How scales and integers are chosen.

    Attributes:
        observer: How ranges are chosen from statistics.
        rounding: How weights become integers.
        moments: What the rounding needs to know of what layers read: name of a layer's output >
            second moments (`deploykit_quantize.layer_inputs`).
        activations: Value name → the activation that alone reads it, where its range is to be
            chosen by what comes out of that.
    """

    observer: Observer = _DEFAULT_OBSERVER
    rounding: Rounding = _NEAREST
    moments: Mapping[str, Array] = field(default_factory=dict)
    activations: Mapping[str, ReadingActivation] = field(default_factory=dict)


def quantize_model(
    model: Model, policy: Policy, table: CalibrationTable, observer: Observer = _DEFAULT_OBSERVER
) -> Model:
    """The quantized stage of a fused model: QDQ, runs in ONNX Runtime.

    Args:
        model: The fused stage; it is not changed.
        policy: How the target wants it; its recipe must be static.
        table: Statistics of this very model's values.
        observer: How ranges are chosen from them.

    Raises:
        ContractError: the model is quantized already, or the recipe is not static.
        DataError: the table lacks a value, or weights or ranges are not finite.
    """
    return place_integers(prepare_model(model, policy), policy, table, Placement(observer))


def prepare_model(model: Model, policy: Policy) -> Model:
    """The prepared stage of a fused model: in floats, as a target's integers will compute.

    Raises:
        ContractError: the model is quantized already.
    """
    if has_qdq(model.graph):
        raise ContractError(
            f"model '{model.name}' is quantized already",
            expected="a float model",
            advice="leave out --int8: its own scales are used",
        )
    graph = model.graph.clone()
    notes = run_passes(graph, policy.rewrites)
    return model.advanced(graph, Stage.PREPARED, notes)


def place_integers(
    model: Model, policy: Policy, table: CalibrationTable, placement: Placement
) -> Model:
    """The quantized stage of a prepared one.

    Args:
        model: The prepared stage; it is not changed.
        policy: How the target wants it; its recipe must be static.
        table: Statistics of the values of the fused stage that it was prepared from.
        placement: How scales and integers are chosen.

    Raises:
        ContractError: the recipe is not static.
        DataError: the table lacks a value, or weights or ranges are not finite.
    """
    graph = model.graph.clone()
    range_of = _ranges(policy, table, placement)
    findings = Findings("find_float_islands")
    kept = find_kept_nodes(graph.graph, policy)
    policy = replace(policy, float_nodes=kept)
    islands = find_float_islands(graph.graph, policy, range_of, findings)
    policy = replace(policy, float_nodes=kept | islands)
    plan = plan_scales(graph.graph, policy, range_of)
    writer = QdqWriter(graph.graph)
    constants = _Constants(writer, policy, plan, placement)
    constants.quantize(graph.graph)
    _quantize_values(writer, graph.graph, policy, plan)
    writer.remove_unused()
    notes = constants.findings.result().notes if placement.rounding != _NEAREST else ()
    return model.advanced(graph, Stage.QUANTIZED, (*findings.result().notes, *notes))


def _ranges(
    policy: Policy, table: CalibrationTable, placement: Placement
) -> Callable[[ir.Value], tuple[float, float]]:
    """What gives the range of a value: the table, or the ranges that it follows from."""
    activations = policy.recipe.activations
    ranges: dict[ir.Value, tuple[float, float]] = {}

    def range_of(value: ir.Value) -> tuple[float, float]:
        if value not in ranges:
            name, factor = multiple_of(value)
            seen = table.values.get(name)
            if seen is not None and activations is not None:
                low, high = choose_range(seen, placement.observer, activations)
                if name in placement.activations:
                    reader = placement.activations[name]
                    low, high = reader.narrow((low, high), seen, activations)
                ranges[value] = factor * low, factor * high
            else:
                ranges[value] = derive_range(value, range_of)
        return ranges[value]

    return range_of


def _quantize_values(writer: QdqWriter, graph: ir.Graph, policy: Policy, plan: ScalePlan) -> None:
    # Read before graph outputs change hands and names.
    requantized = []
    for (node, index), params in plan.requantized.items():
        source = node.inputs[index]
        assert source is not None
        name = f"{source.name}_for_{node.outputs[0].name}"
        requantized.append((node, index, source, name, params))
    reals = {}
    for value, params in plan.values.items():
        producer = value.producer()
        stays_float = policy.inputs_only or (
            producer is not None and not policy.quantizes(producer)
        )
        readers = [use for use in value.uses() if not stays_float or policy.quantizes(use.node)]
        is_output = value.is_graph_output() and producer is not None and not stays_float
        reals[value] = writer.insert_pair(value, params, value.name or "", takes_output=is_output)
        for use in readers:
            use.node.replace_input_with(use.idx, reals[value])
    again: dict[str, ir.Value] = {}
    for node, index, source, name, params in requantized:
        if name not in again:
            again[name] = writer.insert_pair(reals[source], params, name)
        node.replace_input_with(index, again[name])


@dataclass
class _Constants:
    """Weights, biases and constant operands of the quantized ops."""

    writer: QdqWriter
    policy: Policy
    plan: ScalePlan
    placement: Placement
    findings: Findings = field(default_factory=lambda: Findings("round_weights"))

    def quantize(self, graph: ir.Graph) -> None:
        activations = self.policy.recipe.activations
        assert activations is not None
        for node in list(graph):
            if not self.policy.quantizes(node):
                continue
            layer = weighted_layer(node)
            if layer is not None:
                self._quantize_weights(layer)
                continue
            for index, value in enumerate(node.inputs):
                data = constant_array(value)
                if value is None or data is None or is_structural(node, index):
                    continue
                params = self.plan.joined_constants.get((node, index))
                if params is None:
                    low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 0.0)
                    params = params_from_range(low, high, activations)
                self.writer.quantize_constant(node, index, params, params.quantize(data))

    def _quantize_weights(self, layer: WeightedLayer) -> None:
        """Weights and bias of a Conv, ConvTranspose or Gemm; the second operand of a MatMul."""
        node, rule = layer.node, self.policy.recipe.weights
        source = node.inputs[0]
        assert source is not None
        params = choose_weight_params(
            node, layer.weights, rule, group_scales=self.policy.group_scales
        )
        data = self.plan.values[source]
        output = None if self.policy.inputs_only else self._params_behind(node)
        if output is not None:
            params = limit_weight_params(data, params, output)
        index = None if self.policy.inputs_only else bias_index(node)
        bias = None if index is None else constant_array(input_at(node, index))
        if index is not None and bias is not None:
            params = fit_weight_params(bias, data, params)
            scales = bias_params(data, params, bias.shape)
            self.writer.quantize_constant(node, index, scales, quantize_bias(bias, scales))
        moments = self.placement.moments.get(layer.name)
        rounded = self.placement.rounding.round(layer, params, rule.largest, moments)
        (self.findings.matched if rounded.changed else self.findings.skipped)(node, rounded.reason)
        self.writer.quantize_constant(node, 1, params, rounded.integers)

    def _params_behind(self, node: ir.Node) -> QuantParams | None:
        """Of what a layer gives, behind the activation that it carries; None for floats."""
        value = node.outputs[0]
        if carries_activation(value):
            (use,) = value.uses()
            value = use.node.outputs[0]
        return self.plan.values.get(value)


def choose_weight_params(
    node: ir.Node, weights: Array, rule: TensorRule, *, group_scales: bool = False
) -> QuantParams:
    """Parameters of the constant second input of an op of `WEIGHTED_OPS`.

    The channel axis is that of the outputs: 0 of a Conv's (O, I/group, kH, kW) and of a Gemm's
    (O, I), 1 of a ConvTranspose's (I, O/group, kH, kW), whose groups share the scales. A MatMul has
    one scale. With ``group_scales`` the O/group channels of each group of a Conv have one.
    """
    groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
    if group_scales and 1 < groups < len(weights):
        each = weight_params(weights.reshape(groups, -1), 0, rule)
        scales = np.repeat(np.asarray(each.scale), len(weights) // groups)
        zeros = (each.zero_point[0],) * len(weights)
        return QuantParams(tuple(map(float, scales)), zeros, each.dtype, 0)
    op = facts_of(node)
    axis = None if op is None else op.output_axis
    if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
        axis = 1  # not canonical: a QDQ source keeps the layout of its weights
    return weight_params(weights, axis, rule)
