"""Simplification by onnxsim, without its Python package and without the weights.

1. onnxsim's Python package imports torch where that is installed; its compiled extension alone
   loads in milliseconds, so that is what is loaded.
2. What travels through it is the graph without its weights: a weight becomes an input of the graph
   (`deploykit.graph.skeleton`), and an initializer again afterwards. Nothing that onnxsim does then
   depends on the elements of a weight; the rewrites that would (BatchNorm into Conv, a bias into
   Conv, a pad into Conv, MatMul + Add into Gemm) are passes of our own, which say why they do not
   apply.
3. Constant subgraphs that are left (`FoldConstants` has run) are computed by ONNX Runtime, which
   is imported only then.
4. The operator set becomes `deploykit.graph.ops.OPSET`.
5. onnxsim drops metadata: module paths and source lines are restored by the names of the values.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from deploykit.errors import MissingDependencyError, UnsupportedModelError, UserError
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

_EXTENSION = "onnxsim_cpp2py_export"
_PARAMETERS = (
    "executor",
    "model_bytes",
    "skip_optimizers",
    "constant_folding",
    "shape_inference",
    "tensor_size_threshold",
    "target_opset_version",
    "rewriter",
    "initializers_as_constants",
    "include_inline_functions",
    "mutable_initializer",
    "overwrite_input_shapes",
    "unused_output",
    "extra_optimizers",
)


def load_extension(package: str = "onnxsim") -> ModuleType:
    """onnxsim's compiled extension, loaded without importing its package.

    It is entered in ``sys.modules`` under its own name, as an import would do: a second copy in
    one process does not work, and whoever imports onnxsim itself later gets this one.

    Raises:
        MissingDependencyError: the package is not installed.
        UserError: it is a version whose extension has another interface.
    """
    name = f"{package}.{_EXTENSION}"
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise MissingDependencyError("onnxsim", needed_for="simplifying a model", extra="all")
    files = sorted(f for folder in folders for f in Path(folder).glob(f"{_EXTENSION}*"))
    for file in files:
        found = importlib.util.spec_from_file_location(_EXTENSION, file)
        if found is None or found.loader is None:
            continue
        extension = importlib.util.module_from_spec(found)
        found.loader.exec_module(extension)
        check_interface(extension)
        sys.modules[name] = extension
        return extension
    raise UserError(
        f"the installed onnxsim has no compiled extension in {Path(folders[0]).name}/",
        expected=f"a file {_EXTENSION}.*",
        advice="reinstall it: pip install --force-reinstall 'onnxsim>=0.8'",
    )


def check_interface(extension: ModuleType) -> None:
    """Refuse an extension that would be called wrongly.

    Raises:
        UserError: ``simplify`` or ``ModelExecutor`` is missing or has other parameters.
    """
    signature = str(getattr(getattr(extension, "simplify", None), "__doc__", None) or "")
    inside = signature.partition("(")[2].rpartition(") ->")[0]
    names = tuple(part.partition(":")[0].strip() for part in _split_parameters(inside))
    if names != _PARAMETERS or not hasattr(extension, "ModelExecutor"):
        raise UserError(
            f"the installed onnxsim has an interface that deploykit does not know: "
            f"simplify({', '.join(names)})",
            expected="the interface of onnxsim 0.8",
            advice="pip install 'onnxsim>=0.8,<0.9'",
        )


def _split_parameters(text: str) -> list[str]:
    # Type annotations hold commas in brackets.
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]] if text.strip() else []


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
            UserError: an onnxsim of another interface.
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

    extension = load_extension()
    arguments = {
        "executor": _make_executor(extension),
        "model_bytes": data,
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
        result = extension.simplify(**arguments)
    except (RuntimeError, ValueError) as error:
        raise UnsupportedModelError(
            f"onnxsim cannot simplify the model: {_cause(error)}",
            expected=f"a valid ONNX model whose ops exist in operator set {OPSET}",
            advice=f"export it again with opset_version={OPSET}, and check it with onnx.checker",
        ) from error
    return ir.from_proto(onnx.load_from_string(result))


def _cause(error: Exception) -> str:
    # An assertion in C++ begins with its own source file and condition.
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rpartition(" failed: ")[2]


def _make_executor(extension: ModuleType) -> Any:
    class Executor(extension.ModelExecutor):  # type: ignore[name-defined, misc]
        """Runs the constant subgraphs that onnxsim finds."""

        def Run(self, model_bytes: bytes, inputs: Sequence[bytes]) -> list[bytes]:  # noqa: N802 - onnxsim calls it by this name
            return run_constant_graph(model_bytes, inputs)

    return Executor()


def run_constant_graph(model_bytes: bytes, inputs: Sequence[bytes]) -> list[bytes]:
    """Run a small model once with ONNX Runtime, on one thread.

    Args:
        model_bytes: A serialized ``ModelProto``.
        inputs: A serialized ``TensorProto`` for each of its inputs, in order.

    Returns:
        A serialized ``TensorProto`` for each of its outputs.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    feed = {
        spec.name: onnx.numpy_helper.to_array(onnx.TensorProto.FromString(data))
        for spec, data in zip(session.get_inputs(), inputs, strict=True)
    }
    results = session.run(None, feed)
    return [onnx.numpy_helper.from_array(array).SerializeToString() for array in results]


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
