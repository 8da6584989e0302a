"""Simplification by onnxsim, without its Python package and without the weights.

1. onnxsim's Python package imports torch where that is installed; its compiled extension alone
   loads in milliseconds, so that is what is loaded, in a child process (`deploykit.graph.native`).
2. What travels through it is the graph without its weights: a weight becomes an input of the graph
   (`deploykit.graph.skeleton`), and an initializer again afterwards. Nothing that onnxsim does then
   depends on the elements of a weight; the rewrites that would (BatchNorm into Conv, a bias into
   Conv, a pad into Conv, MatMul + Add into Gemm) are passes of our own, which say why they do not
   apply.
3. Constant subgraphs that are left (`FoldConstants` has run) are computed by ONNX Runtime, which
   that child imports only then.
4. The operator set becomes `deploykit.graph.ops.OPSET`.
5. onnxsim drops metadata: module paths and source lines are restored by the names of the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from deploykit.errors import UnsupportedModelError
from deploykit.graph import native
from deploykit.graph.ops import OPSET
from deploykit.graph.skeleton import serialize_skeleton
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

#: Rewrites of onnxsim that are passes of ours, or that concern no network of ours.
SKIPPED_OPTIMIZERS = (
    "fuse_add_bias_into_conv",
    "fuse_bn_into_conv",
    "fuse_matmul_add_bias_into_gemm",
    "fuse_pad_into_conv",
    "fuse_pad_into_pool",
    "fuse_qkv",
    "fuse_transpose_into_gemm",
)


@dataclass(frozen=True)
class SimplifyOnnx(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"constants_folded", "no_functions"})
    ensures: ClassVar[frozenset[str]] = frozenset({"simplified", "opset"})
    breaks: ClassVar[frozenset[str]] = frozenset({"constants_folded", "no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Simplify ``model`` in place.

        Raises:
            MissingDependencyError: onnxsim is not installed.
            UnsupportedModelError: onnxsim refuses the model.
        """
        findings = Findings(self.name)
        before = _provenance(model)
        count = len(model.graph)
        skeleton, weights = serialize_skeleton(model)
        _restore(model, _simplify(skeleton), weights, before)
        after = len(model.graph)
        what = f"{count} nodes > {after}, operator set {OPSET}"
        if after != count:
            findings.matched("graph", what)
        else:
            findings.skipped("graph", f"nothing left to simplify: {what}")
        return findings.result()


def _simplify(data: bytes) -> ir.Model:
    import onnx
    import onnx_ir as ir

    arguments = {
        "skip_optimizers": list(SKIPPED_OPTIMIZERS),
        "constant_folding": True,
        "shape_inference": True,
        "tensor_size_threshold": 1 << 20,
        "target_opset_version": OPSET,
        "rewriter": None,
        "initializers_as_constants": True,
        "include_inline_functions": False,
        "mutable_initializer": False,
        "overwrite_input_shapes": None,
        "unused_output": None,
        "extra_optimizers": None,
    }
    try:
        result = native.simplify(data, arguments)
    except native.RefusedError as error:
        raise UnsupportedModelError(
            f"onnxsim cannot simplify the model: {_cause(error)}",
            expected=f"a valid ONNX model whose ops exist in operator set {OPSET}",
            advice=f"export it again with opset_version={OPSET}, and check it with onnx.checker",
        ) from error
    return ir.from_proto(onnx.load_from_string(result))


def _cause(error: Exception) -> str:
    # An assertion in C++ begins with its own source file and condition.
    return str(error).splitlines()[0].rpartition(" failed: ")[2]


def _provenance(model: ir.Model) -> dict[str, tuple[str | None, dict[str, str]]]:
    return {
        output.name or "": (node.name, dict(node.metadata_props))
        for node in model.graph
        for output in node.outputs
    }


def _restore(
    model: ir.Model,
    simplified: ir.Model,
    weights: dict[str, ir.TensorProtocol],
    before: dict[str, tuple[str | None, dict[str, str]]],
) -> None:
    graph = simplified.graph
    for value in [v for v in graph.inputs if v.name in weights]:
        graph.inputs.remove(value)
        if value.uses():
            value.const_value = weights[value.name or ""]
            graph.register_initializer(value)
    names = {node.name or "" for node in graph}
    for node in graph:
        for output in node.outputs:
            name, props = before.get(output.name or "", (None, {}))
            if props:
                node.metadata_props.update(props)
            if name and output is node.outputs[0] and name not in names:
                node.name = name
                names.add(name)
    graph.metadata_props.clear()
    graph.name = model.graph.name
    model.graph = graph
    model.ir_version = max(model.ir_version or 0, simplified.ir_version or 0)
