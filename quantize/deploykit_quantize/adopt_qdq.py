"""A model that came quantized: its own scales are kept, and fitted to what a target demands.

Its Q and DQ nodes stay as they are; the cases that a policy does not allow are mended by
*requantization*: one more pair in the scale that the op demands. Nothing is calibrated.

1.  A ``same_scale_ops`` op whose result is quantized otherwise than its input: its result is
    rounded in the input's scale first, then in its own.
2.  A ``same_scale_ops`` op whose result is not quantized: it gets the input's scale, exactly.
    The other way round, one that moves or picks values, whose input is not quantized and whose
    result is: what it reads is rounded in the result's scale, which is the same.
3.  A ``joined_scale_ops`` op whose inputs have other scales than its result: each such input is
    requantized to the result's. If the result is not quantized and all inputs have one scale, it
    gets that.
4.  A ``fixed_outputs`` op whose result has another scale: it is rounded in the fixed one first.
5.  Weights of a Conv, ConvTranspose, Gemm or MatMul that are not symmetric: quantized again from
    the reals that they stand for, by the policy's rule; the bias likewise.

6.  A quantized op's result that several Q nodes round: those of the same parameters become one;
    if others are left, all read what the one of the largest scale gives.

Activations with one scale a channel get one before that: `join_channel_scales`.

uint8 activations need no mending here: a target that computes in int8 moves zero points by 128,
which is exact. What is not quantized and cannot be by these rules stays float; it is reported. A
target that rounds only what some ops read has rules of its own: `adopt_inputs`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from deploykit.errors import ContractError, UnsupportedModelError
from deploykit.graph.ops import REDUCTIONS, SELECTING_OPS, WEIGHTED_OPS
from deploykit.graph.qdq import has_qdq
from deploykit.graph.read_qdq import (
    bias_index,
    carries_activation,
    integers_of,
    is_dequantize,
    is_float,
    is_quantize,
    is_structural,
    read_params,
    real_constant,
)
from deploykit.graph.reading import input_at, is_constant
from deploykit.model import Model, Stage
from deploykit.passes.base import Findings
from deploykit.tensors import QuantParams
from deploykit_quantize.adopt_inputs import adopt_inputs
from deploykit_quantize.arithmetic import (
    bias_params,
    fit_weight_params,
    quantize_bias,
    quantize_weights_to,
)
from deploykit_quantize.join_channel_scales import join_channel_scales
from deploykit_quantize.policy import Policy
from deploykit_quantize.quantizer import choose_weight_params
from deploykit_quantize.write_qdq import QdqWriter

if TYPE_CHECKING:
    import onnx_ir as ir

#: Rounding before them is rounding behind them.
_MOVING_OPS = SELECTING_OPS - REDUCTIONS - {"Split"}  # whose results may be read differently


def adopt_quantization(model: Model, policy: Policy) -> Model:
    """The quantized stage of a fused model that has Q and DQ nodes of its own.

    Args:
        model: The fused stage; it is not changed.
        policy: What the target demands; its recipe must be static.

    Raises:
        ContractError: the model is not quantized, or the policy leaves activations float.
        UnsupportedModelError: computed scales, blocks, or dtypes that no target has.
    """
    if policy.recipe.activations is None:
        raise ContractError(
            f"model '{model.name}' is quantized, and recipe {policy.recipe.name} is for floats",
            expected="int8 of a quantized model",
        )
    if not has_qdq(model.graph):
        raise ContractError(f"model '{model.name}' is not quantized", expected="a QDQ model")
    _check_activations(model)
    graph = model.graph.clone()
    notes = join_channel_scales(graph.graph)
    if policy.inputs_only:
        return adopt_inputs(replace(model, graph=graph, notes=(*model.notes, *notes)), policy)
    adoption = _Adoption(graph.graph, policy)
    adoption.run()
    return model.advanced(graph, Stage.QUANTIZED, (*notes, *adoption.findings.result().notes))


def _check_activations(model: Model) -> None:
    """Refuse activations of more than 8 bits.

    Raises:
        UnsupportedModelError: there are some.
    """
    wide: dict[str, list[str]] = {}
    for node in model.graph.graph:
        value = node.inputs[0] if is_quantize(node) else None
        if value is not None and not is_constant(value):
            dtype = read_params(node).dtype
            if dtype not in ("int8", "uint8"):
                wide.setdefault(dtype, []).append(value.name or "")
    for dtype, names in wide.items():
        raise UnsupportedModelError(
            f"{dtype} activations: {len(names)} of model '{model.name}', the first '{names[0]}'",
            expected="int8 or uint8 activations",
            advice="quantize to 8 bits, or give the float model and --int8",
        )


@dataclass
class _Adoption:
    graph: ir.Graph
    policy: Policy
    findings: Findings = field(default_factory=lambda: Findings("adopt_quantization"))

    def __post_init__(self) -> None:
        self.writer = QdqWriter(self.graph)

    def run(self) -> None:
        for node in list(self.graph):
            if node.op_type in self.policy.quantized_ops:
                for output in node.outputs:
                    self._round_once(node, output)
        for value in self.graph.inputs:
            self._round_once(None, value)
        for node in reversed(list(self.graph)):
            if node.op_type in _MOVING_OPS & self.policy.same_scale_ops:
                self._round_before(node)
        for node in list(self.graph):
            if node.op_type not in self.policy.quantized_ops:
                continue
            if node.op_type in WEIGHTED_OPS:
                self._fit_weights(node)
            if node.op_type in self.policy.same_scale_ops:
                self._fit_same_scale(node)
            elif node.op_type in self.policy.joined_scale_ops:
                self._fit_joined(node)
            elif node.op_type in self.policy.fixed_outputs:
                self._fit_fixed(node)
        for node in self.graph:
            self._tell_floats(node)
        self.writer.remove_unused()

    def _round_once(self, node: ir.Node | None, value: ir.Value) -> None:
        """Case 6; the node that makes the value, None for an input of the graph."""
        users = [use.node for use in value.uses() if is_quantize(use.node)]
        if len(users) < 2:
            return
        by_params: dict[QuantParams, list[ir.Node]] = {}
        for user in users:
            by_params.setdefault(read_params(user), []).append(user)
        for first, *others in by_params.values():
            for other in others:
                other.outputs[0].replace_all_uses_with(first.outputs[0])
                self.graph.remove(other, safe=True)
        name = node if node is not None else value.name or "input"
        self.findings.matched(name, f"{len(users)} QuantizeLinear > {len(by_params)}")
        if len(by_params) == 1 or node is None:
            return
        coarsest = max(by_params, key=lambda params: params.scale[0])
        kept = by_params.pop(coarsest)[0]
        reals = [use.node.outputs[0] for use in kept.outputs[0].uses() if is_dequantize(use.node)]
        if not reals:
            return
        for first, *_ in by_params.values():
            first.replace_input_with(0, reals[0])
        self.graph.sort()
        self.findings.matched(node, f"'{value.name}' > rounded with the largest scale first")

    def _round_before(self, node: ir.Node) -> None:
        """Case 2, the other way round."""
        source, output = node.inputs[0], node.outputs[0]
        params = _written_as(output) if len(node.outputs) == 1 else None
        if source is None or params is None or _read_as(source) is not None or is_constant(source):
            return
        name = f"{source.name}_for_{output.name}"
        node.replace_input_with(0, self.writer.insert_pair(source, params, name))
        self.findings.matched(node, f"what it reads, '{source.name}' > rounded as its result is")

    def _fit_same_scale(self, node: ir.Node) -> None:
        """Cases 1 and 2."""
        source = node.inputs[0]
        params = _read_as(source)
        if params is None:
            return
        for output in [v for v in node.outputs if is_float(v)]:
            self._round_in(node, output, params)

    def _fit_joined(self, node: ir.Node) -> None:
        """Case 3."""
        found = [_read_as(v) for v in _reals(node)]
        results = [_written_as(v) for v in node.outputs]
        if not found or any(p is None for p in found):
            return
        wanted = next((p for p in results if p is not None), None)
        if wanted is None and all(p == found[0] for p in found):
            wanted = found[0]
        if wanted is None:
            return
        for index, value in enumerate(node.inputs):
            if value is None or is_structural(node, index) or _read_as(value) in (None, wanted):
                continue
            name = f"{value.name}_for_{node.outputs[0].name}"
            node.replace_input_with(index, self.writer.insert_pair(value, wanted, name))
            self.findings.matched(node, f"input '{value.name}' > requantized to the result's scale")
        for output in node.outputs:
            self._round_in(node, output, wanted)

    def _fit_fixed(self, node: ir.Node) -> None:
        """Case 4."""
        rule = self.policy.recipe.activations
        fixed = self.policy.fixed_outputs[node.op_type]
        params = _read_as(node.inputs[0])
        if params is None or rule is None:
            return
        zero = fixed.zero_point
        if params.dtype != rule.dtype:  # the same reals in the integers of this model
            zero += 128 if params.dtype == "uint8" else -128
        self._round_in(node, node.outputs[0], QuantParams((fixed.scale,), (zero,), params.dtype))

    def _round_in(self, node: ir.Node, output: ir.Value, params: QuantParams) -> None:
        """Let a result be rounded in ``params``, before any rounding that it has."""
        own = _written_as(output)
        if own == params:
            return
        if not output.uses() and not output.is_graph_output():
            return
        readers = tuple(output.uses())
        name = output.name or "value"
        is_output = output.is_graph_output()
        real = self.writer.insert_pair(output, params, name, takes_output=is_output)
        for user, index in readers:
            user.replace_input_with(index, real)
        what = "requantized" if own is not None else "quantized"
        self.findings.matched(node, f"result '{name}' > {what} in the scale that the op demands")

    def _fit_weights(self, node: ir.Node) -> None:
        """Case 5."""
        data = _read_as(node.inputs[0])
        weights = node.inputs[1]
        held = integers_of(weights)
        if data is None or held is None:
            return
        integers, old = held
        middle = 128 if old.dtype == "uint8" else 0
        if all(z == middle for z in old.zero_point):
            return
        reals = old.dequantize(integers)
        params = choose_weight_params(node, reals, self.policy.recipe.weights)
        index = bias_index(node)
        bias = None if index is None else real_constant(input_at(node, index))
        if index is not None and bias is not None:
            params = fit_weight_params(bias, data, params)
            scales = bias_params(data, params, bias.shape)
            self.writer.quantize_constant(node, index, scales, quantize_bias(bias, scales))
        self.writer.quantize_constant(node, 1, params, quantize_weights_to(params, reals))
        self.findings.matched(node, "asymmetric weights > quantized again, symmetrically")

    def _tell_floats(self, node: ir.Node) -> None:
        if node.op_type not in self.policy.quantized_ops or is_quantize(node):
            return
        bare = [v.name for v in _reals(node) if _read_as(v) is None and not _is_carried(v)]
        bare += [
            v.name
            for v in node.outputs
            if (v.uses() or v.is_graph_output())
            and _written_as(v) is None
            and not carries_activation(v)
        ]
        if bare:
            names = ", ".join(f"'{name}'" for name in bare)
            self.findings.skipped(node, f"runs in float: {names} has no scale")


def _reals(node: ir.Node) -> list[ir.Value]:
    return [
        v
        for i, v in enumerate(node.inputs)
        if v is not None and not is_structural(node, i) and not is_constant(v) and is_float(v)
    ]


def _is_carried(value: ir.Value) -> bool:
    return carries_activation(value)


def _read_as(value: ir.Value | None) -> QuantParams | None:
    """The parameters of the DequantizeLinear that makes ``value``."""
    producer = value.producer() if value is not None else None
    if producer is None or not is_dequantize(producer):
        return None
    return read_params(producer)


def _written_as(value: ir.Value) -> QuantParams | None:
    """The parameters of the QuantizeLinear that is the only kind of reader of ``value``."""
    users = [use.node for use in value.uses()]
    if not users or value.is_graph_output() or not all(is_quantize(user) for user in users):
        return None
    found = [read_params(user) for user in users]
    return found[0] if all(p == found[0] for p in found) else None
