"""Whether an output is logits or probabilities, so that no app applies Softmax twice."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.graph.read_qdq import is_dequantize, is_quantize
from deploykit.graph.reading import is_op, known_shape

#: They sum to one over the classes.
PROBABILITIES = "probabilities"
#: Each is a probability by itself (Sigmoid).
INDEPENDENT = "independent probabilities"
LOG_PROBABILITIES = "log-probabilities"
#: Scores of any size: Softmax makes probabilities of them.
LOGITS = "logits"
KINDS = (PROBABILITIES, INDEPENDENT, LOG_PROBABILITIES, LOGITS)

_BY_OP = {
    "Softmax": PROBABILITIES,
    "Sigmoid": INDEPENDENT,
    "LogSoftmax": LOG_PROBABILITIES,
    "Gemm": LOGITS,
    "MatMul": LOGITS,
    "Conv": LOGITS,
}
#: They change neither the values nor what they mean.
_CARRIERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose", "Cast")
_RANK_OF_SCORES = 2


def score_kinds(graph: ir.Graph) -> dict[str, str]:
    """Output name → one of `KINDS`, of the outputs of shape (n, classes) whose kind is known.

    The op that makes an output decides. A linear layer (or one with a bias added behind it) gives
    logits; what another op makes is not known, and is not here.
    """
    found = {}
    for output in graph.outputs:
        shape = known_shape(output)
        kind = _kind_of(output) if len(shape) == _RANK_OF_SCORES and shape[1] > 1 else ""
        if output.name and kind:
            found[output.name] = kind
    return found


def _kind_of(value: ir.Value) -> str:
    node = value.producer()
    while node is not None and (
        is_op(node, *_CARRIERS) or is_quantize(node) or is_dequantize(node)
    ):
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    if node is None:
        return ""
    if is_op(node, "Add"):  # the bias of a MatMul
        sides = [v.producer() for v in node.inputs if v is not None]
        linear = any(is_op(side, "MatMul", "Gemm") for side in sides)
        return LOGITS if linear and any(side is None for side in sides) else ""
    return _BY_OP.get(node.op_type, "") if node.domain == "" else ""
