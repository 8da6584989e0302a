"""One kernel of ncnn for ARM that is wrong, and the layers that are kept from it.

ncnn (seen in 1.0.20261020) computes in float16 by default on ARM cores that can. Its
kernel for 3 x 3 depthwise convolutions with stride 2, 8 channels packed
(``convdw3x3s2_pack8_fp16sa_neon``), takes the outputs of a row in fours, then in a tail of two: the
tail reads two of its nine taps from the wrong row. So results are wrong where the output's width is
2 or 3 more than a multiple of 4: 14 and 7 of a network at 224 x 224. Eight of ten families came out
at 14-33 dB instead of 48-60.

A layer's parameter 31 masks features of the CPU, for this layer alone; bit 0 is arithmetic in
float16. With it these layers compute in float32, on ARM cores with float16 arithmetic; nowhere else
does it change a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from deploykit.graph.node_fields import needed_value, shape_of
from deploykit.graph.reading import read_int, read_ints

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit_ncnn.layer_graph import Layer

#: Number of the parameter, and its bit for "no arithmetic in float16".
FEATURE_MASK, NO_FP16_ARITHMETIC = 31, 1
REASON = (
    "ncnn's float16 kernel for ARM (convdw3x3s2_pack8_fp16sa) is wrong for 3x3 depthwise "
    "convolutions of stride 2 at these widths: parameter 31=1 has these layers compute in float32"
)
_PACK = 8
_WRONG_REMAINDERS = (2, 3)


def meets_wrong_kernel(node: ir.Node) -> bool:
    """Whether a Conv in floats would run in the wrong kernel on an ARM core with float16."""
    channels = shape_of(needed_value(node, 0))[1]
    _, made, _, width = shape_of(node.outputs[0])
    return (
        read_int(node, "group", 1) == channels == made
        and channels % _PACK == 0
        and tuple(shape_of(needed_value(node, 1))[2:]) == (3, 3)
        and tuple(read_ints(node, "strides", (1, 1))) == (2, 2)
        and tuple(read_ints(node, "dilations", (1, 1))) == (1, 1)
        and width % 4 in _WRONG_REMAINDERS
    )


def summarize_workaround(layers: Iterable[Layer]) -> dict[str, Any]:
    """How many layers are kept from float16 arithmetic, and why; empty if none is."""
    masks = Counter(layer.params.get(FEATURE_MASK) for layer in layers)
    count = masks[NO_FP16_ARITHMETIC]
    return {"no_fp16_arithmetic": {"layers": count, "reason": REASON}} if count else {}
