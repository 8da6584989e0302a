"""Activations with one scale a channel get one scale, as every runtime wants it.

Some quantizers (NNCF, before depthwise convolutions) give each channel of an activation its own
scale. The one that takes their place covers the reals of all channels:

    low = min_c s_c (lowest - z_c)    high = max_c s_c (highest - z_c)

so that nothing saturates which did not, at the cost of larger steps in channels of small range. If
another QuantizeLinear of the same value has nearly that scale already, its own is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deploykit.graph.read_qdq import is_dequantize, is_quantize, read_params
from deploykit.graph.reading import constant_array
from deploykit.model import PassNote
from deploykit.passes.base import Findings
from deploykit.tensors import QuantParams
from deploykit_quantize.arithmetic import params_from_range
from deploykit_quantize.policy import TensorRule
from deploykit_quantize.write_qdq import QdqWriter

if TYPE_CHECKING:
    import onnx_ir as ir


def join_channel_scales(graph: ir.Graph) -> tuple[PassNote, ...]:
    """Rewrite, in place, every QuantizeLinear of a computed value that has several scales.

    Returns:
        What was done, a note a value.

    Raises:
        UnsupportedModelError: computed scales, blocks, or dtypes that no target has.
    """
    findings = Findings("join_channel_scales")
    writer = QdqWriter(graph)
    for node in list(graph):
        if not is_quantize(node) or constant_array(node.inputs[0]) is not None:
            continue
        params = read_params(node)
        if params.axis is None:
            continue
        readers = [use.node for use in node.outputs[0].uses() if is_dequantize(use.node)]
        wanted = _like_a_sibling(node, cover_channels(params))
        writer.replace_params([node, *readers], wanted, node.outputs[0].name or "value")
        findings.matched(node, f"{len(params.scale)} scales > one of {wanted.scale[0]:.4g}")
    writer.remove_unused()
    return findings.result().notes


#: Two scales of one value that differ by less than this of themselves stand for one range.
_NEAR = 1e-2


def _like_a_sibling(node: ir.Node, wanted: QuantParams) -> QuantParams:
    """The parameters of another Q that reads the same value, if those are nearly ``wanted``."""
    source = node.inputs[0]
    for use in source.uses() if source is not None else ():
        if use.node is node or not is_quantize(use.node):
            continue
        found = read_params(use.node)
        if (found.dtype, found.zero_point) == (wanted.dtype, wanted.zero_point) and np.isclose(
            found.scale[0], wanted.scale[0], rtol=_NEAR, atol=0.0
        ):
            return found
    return wanted


def cover_channels(params: QuantParams) -> QuantParams:
    """One scale and zero point for the reals that all channels can stand for.

    Zero points that are all one stay: a symmetric activation stays symmetric.
    """
    info = np.iinfo(params.dtype)
    scales = np.asarray(params.scale, dtype=np.float64)
    zeros = np.asarray(params.zero_point, dtype=np.float64)
    if len(set(params.zero_point)) == 1:
        return QuantParams((float(np.float32(scales.max())),), params.zero_point[:1], params.dtype)
    low = float((scales * (int(info.min) - zeros)).min())
    high = float((scales * (int(info.max) - zeros)).max())
    return params_from_range(
        low, high, TensorRule(params.dtype, symmetric=False, per_channel=False)
    )
