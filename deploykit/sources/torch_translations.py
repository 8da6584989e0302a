"""Which ATen ops become ONNX without being decomposed first, and how.

torch's exporter decomposes a program before it translates it: a retracing that costs as much CPU
as the capture did. It is not needed where every op of the program has an ONNX form of its own.
`translations` gives that form for the few common ops for which the exporter's own library has
none (or a longer one); `needs_no_decomposition` tells whether a program is made of known ops only.
Any other program takes the exporter's full way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

# Ops that the exporter's library translates as they are. Each is tested against torch in
# torch_export_test.py.
_KNOWN = frozenset(
    """conv2d.default linear.default relu.default relu6.default hardsigmoid.default
    hardswish.default silu.default sigmoid.default tanh.default gelu.default elu.default
    leaky_relu.default softmax.int add.Tensor sub.Tensor mul.Tensor div.Tensor
    mean.dim cat.default view.default reshape.default flatten.using_ints permute.default
    transpose.int contiguous.default unsqueeze.default slice.Tensor max_pool2d.default
    avg_pool2d.default clamp.default matmul.default exp.default sqrt.default abs.default
    neg.default mean.default
    pixel_shuffle.default chunk.default split.Tensor split_with_sizes.default""".split()  # noqa: SIM905 - a table reads better
)


def needs_no_decomposition(program: ExportedProgram) -> bool:
    """Whether every node of a program without in-place ops is one that has an ONNX form."""
    import operator

    for node in program.graph.nodes:
        if node.op == "get_attr":
            return False
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        name = _name_of(node)
        condition = _CONDITIONS.get(name)
        if condition is None and name not in _KNOWN:
            return False
        if condition is not None and not condition(node):
            return False
    return True


def translations() -> dict[Any, Callable[..., Any]]:
    """ATen overload → function that emits its ONNX form, for ``custom_translation_table``."""
    import torch
    from onnxscript import opset20 as op

    aten = torch.ops.aten

    def batch_norm(  # type: ignore[no-untyped-def]
        input,  # noqa: A002 - the names are those of the ATen schema
        weight,
        bias,
        running_mean,
        running_var,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool,
    ):
        return op.BatchNormalization(input, weight, bias, running_mean, running_var, epsilon=eps)

    def conv2d(  # type: ignore[no-untyped-def]
        input,  # noqa: A002
        weight,
        bias=None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ):
        return op.Conv(
            input,
            weight,
            bias,
            strides=_pair(stride),
            pads=[*_pair(padding), *_pair(padding)],
            dilations=_pair(dilation),
            group=groups,
        )

    def hardtanh(self, min_val: float = -1.0, max_val: float = 1.0):  # type: ignore[no-untyped-def]
        return op.Clip(
            self, op.Constant(value_float=float(min_val)), op.Constant(value_float=float(max_val))
        )

    def adaptive_avg_pool2d(self, output_size: Sequence[int]):  # type: ignore[no-untyped-def]
        return op.GlobalAveragePool(self)

    def dropout(input, p: float, train: bool):  # type: ignore[no-untyped-def] # noqa: A002
        return op.Identity(input)

    def alias(self):  # type: ignore[no-untyped-def]
        return op.Identity(self)

    return {
        aten.batch_norm.default: batch_norm,
        aten.conv2d.default: conv2d,
        aten.hardtanh.default: hardtanh,
        aten.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
        aten.dropout.default: dropout,
        aten.feature_dropout.default: dropout,
        aten.alias.default: alias,
    }


def _pair(values: Sequence[int]) -> list[int]:
    """The schema lets one number stand for both axes."""
    numbers = [int(v) for v in values]
    return numbers * 2 if len(numbers) == 1 else numbers


def _argument(node: Node, name: str) -> Any:
    """An argument by its name in the schema, given or default."""
    schema: Any = getattr(node.target, "_schema")  # noqa: B009 - not in torch's type stubs
    for index, argument in enumerate(schema.arguments):
        if argument.name == name:
            if index < len(node.args):
                return node.args[index]
            return node.kwargs.get(name, argument.default_value)
    raise KeyError(name)


def _is_plain_batch_norm(node: Node) -> bool:
    given = ("weight", "bias", "running_mean", "running_var")
    return not _argument(node, "training") and all(_argument(node, n) is not None for n in given)


def _pools_to_one(node: Node) -> bool:
    return list(_argument(node, "output_size")) == [1, 1]


def _is_evaluation(node: Node) -> bool:
    return not _argument(node, "train")


_CONDITIONS: Mapping[str, Callable[[Any], bool]] = {
    "batch_norm.default": _is_plain_batch_norm,
    "hardtanh.default": lambda node: True,
    "adaptive_avg_pool2d.default": _pools_to_one,
    "dropout.default": _is_evaluation,
    "feature_dropout.default": _is_evaluation,
    "alias.default": lambda node: True,
}


def _name_of(node: Node) -> str:
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.name.startswith("aten::"):
        return str(node.target)
    return f"{schema.name[len('aten::') :]}.{schema.overload_name or 'default'}"
