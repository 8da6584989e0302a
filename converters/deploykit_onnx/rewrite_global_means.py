"""Means over height and width as GlobalAveragePool, which has an integer kernel.

ReduceMean<axes = (2, 3), keepdims = 1>(x)  >  GlobalAveragePool(x)
ReduceMean<axes = (2, 3), keepdims = 0>(x)  >  Reshape(GlobalAveragePool(x), (N, C))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import GraphEditor
from deploykit.graph.reading import constant_array, static_shape
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RewriteGlobalMeans(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"global_means_are_pools"})

    def apply(self, model: ir.Model) -> PassResult:
        """Rewrite in place; the output keeps its name."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in list(model.graph):
            if node.domain or node.op_type != "ReduceMean":
                continue
            x, y = node.inputs[0], node.outputs[0]
            assert x is not None
            shape = static_shape(x)
            axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
            if shape is None or len(shape) != 4 or axes is None or sorted(axes) != [2, 3]:
                findings.skipped(node, "not a mean over height and width of NCHW")
                continue
            name = y.name or "mean"
            pooled = editor.node(
                "GlobalAveragePool", [x], (*shape[:2], 1, 1), like=node, name=f"{name}.pooled"
            )
            if not node.attributes.get_int("keepdims", 1):
                to = editor.constant(f"{name}.shape", np.asarray(shape[:2], dtype=np.int64))
                pooled = editor.node(
                    "Reshape", [pooled, to], shape[:2], like=node, name=f"{name}.flat"
                )
            editor.take_over(y, pooled)
            editor.remove_if_unread(node)
            findings.matched(node, "ReduceMean > GlobalAveragePool")
        return findings.result()
