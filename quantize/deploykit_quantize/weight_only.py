"""Quantizing weights alone: activations stay float in the graph.

For ``dynamic_wi8_afp32`` the runtime quantizes activations as it runs, for ``weight_only_wi8`` it
dequantizes the weights first. The graph is the same for both: each weight tensor is an int8
initializer behind a DequantizeLinear.
"""

from __future__ import annotations

from deploykit.errors import ContractError
from deploykit.graph.ops import LINEAR_OPS
from deploykit.graph.qdq import has_qdq
from deploykit.graph.reading import constant_array
from deploykit.model import Model, Stage
from deploykit_quantize.arithmetic import quantize_weights_to
from deploykit_quantize.policy import Recipe
from deploykit_quantize.quantizer import choose_weight_params
from deploykit_quantize.write_qdq import QdqWriter

#: Weights with fewer elements stay float: they would save next to nothing.
SMALLEST_WEIGHTS = 1024


def quantize_weights(
    model: Model, recipe: Recipe, *, smallest_weights: int = SMALLEST_WEIGHTS
) -> Model:
    """The quantized stage with int8 weights of Conv, ConvTranspose and Gemm; no data needed.

    Args:
        model: The fused stage; it is not changed.
        recipe: ``dynamic_wi8_afp32`` or ``weight_only_wi8``.
        smallest_weights: Weights with fewer elements stay float.

    Raises:
        ContractError: a static recipe, or a model that is quantized already.
        DataError: weights that are not finite.
    """
    if recipe.activations is not None:
        raise ContractError(
            f"recipe {recipe.name} for weights alone",
            expected="a recipe that leaves activations float, e.g. dynamic_wi8_afp32",
        )
    if has_qdq(model.graph):
        raise ContractError(f"model '{model.name}' is quantized already", expected="a float model")
    graph = model.graph.clone()
    writer = QdqWriter(graph.graph)
    for node in list(graph.graph):
        weights = constant_array(node.inputs[1]) if node.op_type in LINEAR_OPS else None
        if weights is None or weights.size < smallest_weights:
            continue
        params = choose_weight_params(node, weights, recipe.weights)
        writer.quantize_constant(node, 1, params, quantize_weights_to(params, weights))
    writer.remove_unused()
    return model.advanced(graph, Stage.QUANTIZED, ())
