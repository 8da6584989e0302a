"""One model a layer, of a float stage or of a quantized one, for measuring each by itself.

A layer of a quantized stage is its node with the DequantizeLinear before each operand, the
QuantizeLinear before that where the operand is computed, and the pair behind each result: by itself
it is a quantized stage again, whose inputs and outputs are integers of the very scales that they
have in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploykit.cost.count import pair_nodes
from deploykit.cost.find_absorbed import find_absorbed
from deploykit.graph.read_qdq import is_dequantize, is_quantize
from deploykit.graph.reading import is_constant

if TYPE_CHECKING:
    import onnx_ir as ir


def split_layers(model: ir.Model) -> list[ir.Model | None]:
    """One model a layer, in the order of `deploykit.cost.layer.StageCost.layers`.

    Args:
        model: A fused or a quantized stage; it is left as it is.

    Returns:
        For each node, with the clamp that it absorbs, a model; None for a conversion between
        integers and floats, which is no layer of a quantized stage but of its file.
    """
    from deploykit.graph.qdq import fold_qdq, has_qdq

    if not has_qdq(model):
        pairs = pair_nodes(model.graph, find_absorbed(model.graph))
        return [_extract_pair(model, [n for n in pair if n is not None]) for pair in pairs]
    folded = fold_qdq(model).model
    named = {node.name: node for node in model.graph}
    found: list[ir.Model | None] = []
    for pair in pair_nodes(folded.graph, find_absorbed(folded.graph)):
        nodes = [named.get(node.name) for node in pair if node is not None]
        whole = [n for n in nodes if n is not None and not (is_quantize(n) or is_dequantize(n))]
        found.append(_extract_quantized(model, whole) if len(whole) == len(nodes) else None)
    return found


def _extract_pair(model: ir.Model, nodes: Sequence[ir.Node]) -> ir.Model:
    return _extract(model, nodes, [value for value in nodes[-1].outputs if value.name])


def _extract_quantized(model: ir.Model, nodes: Sequence[ir.Node]) -> ir.Model:
    before: dict[ir.Node, None] = {}
    for value in (v for node in nodes for v in node.inputs):
        dequantize = value.producer() if value is not None else None
        if dequantize is None or not is_dequantize(dequantize) or dequantize in before:
            continue
        integers = dequantize.inputs[0]
        quantize = integers.producer() if integers is not None else None
        if quantize is not None and is_quantize(quantize):
            before[quantize] = None
        before[dequantize] = None
    behind: list[ir.Node] = []
    results: list[ir.Value] = []
    for value in nodes[-1].outputs:
        if not value.name:
            continue
        quantize = next((use.node for use in value.uses() if is_quantize(use.node)), None)
        pair = [] if quantize is None else [quantize, _dequantize_of(quantize)]
        behind += [node for node in pair if node is not None]
        results.append(behind[-1].outputs[0] if pair else value)
    return _extract(model, [*before, *nodes, *behind], results)


def _dequantize_of(quantize: ir.Node) -> ir.Node | None:
    uses = quantize.outputs[0].uses()
    return next((use.node for use in uses if is_dequantize(use.node)), None)


def _extract(model: ir.Model, nodes: Sequence[ir.Node], results: Sequence[ir.Value]) -> ir.Model:
    """A model of some nodes: what they read from elsewhere becomes inputs, or stays constant."""
    import onnx_ir as ir

    copies: dict[ir.Value, ir.Value] = {}
    inputs: list[ir.Value] = []
    constants: list[ir.Value] = []
    made = {value for node in nodes for value in node.outputs}
    for node in nodes:
        for value in node.inputs:
            if value is None or value in copies or value in made:
                continue
            copy = _copied(value)
            copies[value] = copy
            (constants if is_constant(value) else inputs).append(copy)
    clones = []
    for node in nodes:
        outputs = [_copied(value) for value in node.outputs]
        copies.update(zip(node.outputs, outputs, strict=True))
        clones.append(
            ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else copies[value] for value in node.inputs],
                list(node.attributes.values()),
                outputs=outputs,
                name=node.name,
                metadata_props=dict(node.metadata_props),
            )
        )
    graph = ir.Graph(
        inputs,
        [copies[value] for value in results],
        nodes=clones,
        initializers=constants,
        opset_imports=dict(model.graph.opset_imports),
        name="layer",
    )
    functions = [f for key, f in model.functions.items() if key[:2] in _ops(nodes)]
    return ir.Model(graph, ir_version=model.ir_version, functions=functions)


def _ops(nodes: Sequence[ir.Node]) -> set[tuple[str, str]]:
    return {(node.domain, node.op_type) for node in nodes}


def _copied(value: ir.Value) -> ir.Value:
    import onnx_ir as ir

    return ir.Value(
        name=value.name, shape=value.shape, type=value.type, const_value=value.const_value
    )
