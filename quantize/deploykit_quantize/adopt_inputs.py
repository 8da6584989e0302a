"""A model that came quantized, for a target that rounds only what some ops read.

Under an ``inputs_only`` policy a result is never rounded on its way out, only where a quantized op
reads it. So of the model's own Q and DQ nodes those stay that stand before such an op, in the
policy's form:

1.  The data input of a quantized op, if the model quantized it, and its weights too: a pair before
    the op, with the model's own scale where that is symmetric int8, which uint8 with zero point
    128 is too. Anything else is given the symmetric int8 parameters that cover the same range of
    reals: an affine uint8 behind a Relu, 0..255 steps, becomes 0..127 steps of twice the size.
2.  Its weights: the model's own integers where they are symmetric int8 with the scales that the
    policy wants; quantized again by the policy's rule from the reals that they stand for
    otherwise.
3.  All other pairs go, and biases are floats. A pair whose integers begin at zero may stand for an
    activation: quantizers take a Relu or Clip out where the saturation does the same. Behind an op
    that may have had one, a Clip to the pair's range takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.ops import ACTIVATION_CARRIERS
from deploykit.graph.provenance import copy_provenance
from deploykit.graph.qdq import QuantizedGraph, fold_qdq
from deploykit.graph.read_qdq import is_dequantize, is_quantize
from deploykit.graph.reading import constant_array
from deploykit.model import Model, Stage
from deploykit.passes.base import Findings
from deploykit.tensors import Array, QuantParams
from deploykit_quantize.arithmetic import params_from_range, quantize_weights_to
from deploykit_quantize.policy import Policy, TensorRule
from deploykit_quantize.quantizer import choose_weight_params
from deploykit_quantize.write_qdq import QdqWriter

if TYPE_CHECKING:
    import onnx_ir as ir

#: How the notes end that tell what could not be kept as the model had it.
SYMMETRIC_INPUT = "symmetric, the same range of reals"
WEIGHTS_AGAIN = "quantized again, symmetrically, in the scales of the target"

Found = tuple["ir.Value", QuantParams]


def adopt_inputs(model: Model, policy: Policy) -> Model:
    """The quantized stage of a fused model with Q and DQ nodes, for an ``inputs_only`` policy.

    Args:
        model: The fused stage; it is not changed.
        policy: What the target demands; its recipe quantizes activations symmetrically.

    Raises:
        UnsupportedModelError: computed scales, blocks, or dtypes that no target has.
    """
    rule = policy.recipe.activations
    assert rule is not None
    folded = fold_qdq(model.graph)
    graph = folded.model
    findings = Findings("adopt_inputs")
    read = {node: found for node in graph.graph if (found := _read_data(node, folded, policy))}
    clamps = _saturations(graph.graph, folded)
    dropped = _remove_pairs(graph.graph)
    for value, bounds in clamps.items():
        dropped[value] = _clamp(graph.graph, dropped.get(value, value), bounds, findings)
    writer = QdqWriter(graph.graph)
    reals: dict[Found, ir.Value] = {}
    for node, (value, own) in read.items():
        value = dropped.get(value, value)
        params = _symmetric(own, rule)
        if params.scale != own.scale:
            findings.matched(node, f"input '{value.name}' > {SYMMETRIC_INPUT}")
        key = (value, params)
        if key not in reals:
            reals[key] = writer.insert_pair(value, params, value.name or "")
        node.replace_input_with(0, reals[key])
        _quantize_weights(writer, node, folded, policy, findings)
    _store_floats(graph.graph)
    writer.remove_unused()
    return model.advanced(graph, Stage.QUANTIZED, findings.result().notes)


def _read_data(node: ir.Node, folded: QuantizedGraph, policy: Policy) -> Found | None:
    """The quantized value that a quantized op reads, and how; None where the op is float."""
    if not policy.quantizes(node) or node.domain:
        return None
    value, weights = node.inputs[:2]
    if value is None or weights is None or (weights.name or "") not in folded.integers:
        return None
    producer = value.producer()
    while producer is not None and is_dequantize(producer):
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    params = folded.params.get(value.name or "") if value is not None else None
    return (value, params) if value is not None and params is not None else None


def _saturations(graph: ir.Graph, folded: QuantizedGraph) -> dict[ir.Value, tuple[float, float]]:
    """Value → range, of those whose integers begin at zero behind an op that may end so."""
    found = {}
    for value in (v for node in graph for v in node.outputs):
        params = folded.params.get(value.name or "")
        if params is None or params.per_channel:
            continue
        low, high = _range_of(params)
        maker = value.producer()
        while maker is not None and (is_quantize(maker) or is_dequantize(maker)):
            source = maker.inputs[0]
            maker = source.producer() if source is not None else None
        if low == 0.0 and maker is not None and maker.op_type in ACTIVATION_CARRIERS:
            found[value] = (low, high)
    return found


def _range_of(params: QuantParams) -> tuple[float, float]:
    """The least and the greatest real of a value's integers."""
    low, high = (params.scale[0] * (edge - params.zero_point[0]) for edge in params.bounds)
    return low, high


def _clamp(
    graph: ir.Graph, value: ir.Value, bounds: tuple[float, float], findings: Findings
) -> ir.Value:
    """A Clip behind a value, which all its readers read instead; the same one if it has one."""
    import onnx_ir as ir

    maker = value.producer()
    assert maker is not None
    if maker.op_type not in ACTIVATION_CARRIERS:
        return value
    clamped = ir.Value(name=f"{value.name}_clamped", type=value.type, shape=value.shape)
    value.replace_all_uses_with(clamped, replace_graph_outputs=True)
    if clamped.is_graph_output():
        clamped.name, value.name = value.name, f"{value.name}_unclamped"
    limits = []
    for what, number in zip(("low", "high"), bounds, strict=True):
        name = f"{value.name}_{what}"
        tensor = ir.Tensor(np.float32(number), name=name)
        limit = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        limit.const_value = tensor
        graph.register_initializer(limit)
        limits.append(limit)
    node = ir.Node("", "Clip", [value, *limits], outputs=[clamped], name=clamped.name)
    copy_provenance([maker], node)
    graph.insert_after(maker, node)
    findings.matched(maker, f"integers from 0 to {bounds[1]:g} > Clip")
    return clamped


def _remove_pairs(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Take out every Q and DQ node that is left; value → the float before it."""
    before: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if not (is_quantize(node) or is_dequantize(node)):
            continue
        source, output = node.inputs[0], node.outputs[0]
        assert source is not None
        name = output.name if output.is_graph_output() else source.name
        before[output] = before.get(source, source)
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        source.name = name
    return before


def _symmetric(params: QuantParams, rule: TensorRule) -> QuantParams:
    """The policy's form of a value's parameters."""
    if rule.dtype == "int8" and _is_symmetric_int8(params):
        return QuantParams(params.scale, (0,), "int8")
    return params_from_range(*_range_of(params), rule)


def _is_symmetric_int8(params: QuantParams) -> bool:
    """Whether the reals are those of int8 with zero point 0, also as uint8 with zero point 128."""
    low, high = params.bounds
    return not params.per_channel and (low, high) == (
        params.zero_point[0] - 128,
        params.zero_point[0] + 127,
    )


def _quantize_weights(
    writer: QdqWriter, node: ir.Node, folded: QuantizedGraph, policy: Policy, findings: Findings
) -> None:
    weights = node.inputs[1]
    assert weights is not None
    own, integers = folded.params[weights.name or ""], folded.integers[weights.name or ""]
    reals = own.dequantize(integers)
    wanted = choose_weight_params(
        node, reals, policy.recipe.weights, group_scales=policy.group_scales
    )
    spread = _spread(own, len(reals))
    if own.dtype == "int8" and not any(own.zero_point) and spread is not None:
        groups = node.attributes.get_int("group", 1) if policy.group_scales else 1
        if _same_in_groups(spread, groups):
            params = QuantParams(tuple(map(float, spread)), (0,) * len(spread), "int8", 0)
            writer.quantize_constant(node, 1, params, integers)
            return
    findings.matched(node, f"weights > {WEIGHTS_AGAIN}")
    writer.quantize_constant(node, 1, wanted, quantize_weights_to(wanted, reals))


def _spread(params: QuantParams, channels: int) -> Array | None:
    """One scale for each output channel; None where the scales are of another axis."""
    if params.axis not in (None, 0):
        return None
    return np.broadcast_to(np.asarray(params.scale), (channels,))


def _same_in_groups(scales: Array, groups: int) -> bool:
    if not 1 < groups < len(scales):
        return True
    rows = scales.reshape(groups, -1)
    return bool((rows == rows[:, :1]).all())


def _store_floats(graph: ir.Graph) -> None:
    """Constants that are computed from integers when they are read, as arrays."""
    import onnx_ir as ir

    for name, value in graph.initializers.items():
        data = constant_array(value)
        if isinstance(value.const_value, ir.LazyTensor) and data is not None and value.uses():
            value.const_value = ir.Tensor(np.asarray(data, np.float32), name=name)
