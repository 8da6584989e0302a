"""Constant folding.

1. ``Constant`` nodes become initializers.
2. A node of `deploykit.graph.evaluate` whose inputs are all constant becomes an initializer. Shape,
   Size and CastLike need only the static shape or the dtype of their input, so the noise that
   exporters leave around default tensors folds away: ``Expand(CastLike(0, x), Shape(W)[:1])`` is
   the zero bias of a convolution.
3. An initializer that is also listed among the graph's inputs (files before IR version 4) is a
   constant: it leaves the inputs.

QuantizeLinear and DequantizeLinear are never folded: they say how a quantized model stores its
weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.graph.editing import GraphEditor
from deploykit.graph.evaluate import EVALUATORS, CannotEvaluate, evaluate
from deploykit.graph.reading import constant_array
from deploykit.passes.base import Findings, Pass, PassResult
from deploykit.tensors import Array

if TYPE_CHECKING:
    import onnx_ir as ir

#: Input indices of which only the shape or dtype is read.
_READS_NO_ELEMENTS = {"Shape": (0,), "Size": (0,), "CastLike": (1,)}


@dataclass(frozen=True)
class FoldConstants(Pass):
    """See the module's docstring."""

    ensures: ClassVar[frozenset[str]] = frozenset({"constants_folded"})

    def apply(self, model: ir.Model) -> PassResult:
        """Fold every node that can be, in the graph's order."""
        findings = Findings(self.name)
        graph = model.graph
        overridable = [v for v in graph.inputs if v.is_initializer()]
        for value in overridable:
            graph.inputs.remove(value)
            findings.matched(value.name or "", "an initializer that was listed as an input")
        editor = GraphEditor(graph)
        for node in graph:
            if node.domain == "" and node.op_type in EVALUATORS:
                _fold(node, editor, findings)
        return findings.result()


def _fold(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    unread = _READS_NO_ELEMENTS.get(node.op_type, ())
    arrays: list[Array | None] = []
    for index, value in enumerate(node.inputs):
        array = None if index in unread else constant_array(value)
        if array is None and value is not None and index not in unread:
            return
        arrays.append(array)
    if any(output.is_graph_output() for output in node.outputs):
        if node.op_type != "Constant":
            findings.skipped(node, "its inputs are constant, but it gives an output of the graph")
            return
        findings.skipped(node, "an output of the graph is constant")
        return
    try:
        results = evaluate(node, arrays)
    except CannotEvaluate as reason:
        findings.skipped(node, f"{node.op_type} is kept: {reason}")
        return
    _replace(node, results, editor)
    what = "Constant" if node.op_type == "Constant" else f"{node.op_type} of constants"
    findings.matched(node, f"{what} > initializer")


def _replace(node: ir.Node, results: list[Array], editor: GraphEditor) -> None:
    for output, array in zip(node.outputs, results, strict=True):
        if not output.uses():
            continue
        constant = editor.constant(f"{output.name}.folded", array)
        name = output.name
        output.replace_all_uses_with(constant)
        output.name = None
        constant.name = name
    editor.graph.remove(node, safe=True)
