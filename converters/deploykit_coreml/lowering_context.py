"""What a lowering function works with: the Builder, variables of values, constants, names.

A function reads its operands by `LoweringContext.read`, emits ops by `LoweringContext.emit`, which
names them, and hands the result to `LoweringContext.bind`. Where the value is quantized, `bind`
puts ``quantize`` and ``dequantize`` behind it: Core ML's runtime joins an op that reads
``dequantize`` and feeds ``quantize`` into one that computes in integers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.graph.node_fields import FormError, needed_value, shape_of
from deploykit.graph.ops import DOMAIN
from deploykit.graph.reading import constant_array
from deploykit.lowering import LoweringTable
from deploykit.tensors import Array, QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit_coreml.options import WriteOptions

Lower = Callable[["ir.Node", "LoweringContext"], None]
TABLE: LoweringTable[Lower] = LoweringTable("coreml")

#: Ops that move values and compute nothing: what they give is on the grid of what they read.
MOVES = frozenset(
    {
        ("", "Concat"),
        ("", "Split"),
        ("", "Slice"),
        ("", "Reshape"),
        ("", "Transpose"),
        ("", "Gather"),
        ("", "Expand"),
        (DOMAIN, "ChannelShuffle"),
        (DOMAIN, "ConcatShuffleSplit"),
    }
)
_FREE = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: Words of MIL's own text form; a value may not be called so.
_RESERVED = frozenset(
    {"any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false"}
    | {"string", "bf16", "fp16", "fp32", "fp64", "state", "main"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


@dataclass(frozen=True)
class QuantizedVar:
    """A quantized value in the program.

    Attributes:
        name: The output of ``quantize``: its integers.
        params: As the program holds them, the scale rounded to the type that it computes in.
    """

    name: str
    params: QuantParams


@dataclass
class LoweringContext:
    """One program while it is built.

    Attributes:
        mb: coremltools' Builder, inside of the function's block.
        options: What the package is to be.
        params: Value name → quantization; empty for a float stage.
        integers: Constant name → its integers.
        small_weights: Weights with fewer elements stay float in a w8 package.
        compress: Whether weights become integers or palettes here.
        variables: Value name → variable.
        quantized: Value name → its integers in the program.
        scale_error: Largest relative error of a scale that was rounded to float16.
    """

    mb: Any
    options: WriteOptions
    params: Mapping[str, QuantParams] = field(default_factory=dict)
    integers: Mapping[str, Array] = field(default_factory=dict)
    small_weights: int = 1024
    compress: bool = False
    variables: dict[str, Any] = field(default_factory=dict)
    quantized: dict[str, QuantizedVar] = field(default_factory=dict)
    scale_error: float = 0.0
    names: set[str] = field(default_factory=set)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the program computes in."""
        return np.dtype(self.options.compute)

    def scalar(self, number: float) -> Any:
        """A number in the program's type.

        Raises:
            FormError: it is finite and too large for it.
        """
        with np.errstate(over="ignore"):
            converted = self.dtype.type(number)
        if np.isfinite(number) and not np.isfinite(converted):
            raise FormError(f"the number {number:g} does not fit into {self.dtype.name}")
        return converted

    def constant(self, array: Array, what: str) -> Array:
        """A constant in the program's type.

        Raises:
            FormError: an element is finite and too large for it.
        """
        with np.errstate(over="ignore"):
            converted = np.asarray(array, dtype=self.dtype, order="C")
        if not np.array_equal(np.isfinite(converted), np.isfinite(array)):
            raise FormError(
                f"'{what}' holds {float(np.abs(array).max()):g}, too large for {self.dtype.name}",
                "write the package with --fp32",
            )
        return converted

    def unique(self, name: str) -> str:
        """The name as Core ML allows it, [A-Za-z_][A-Za-z0-9_]*, and not given before."""
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name) or "value"
        if plain[0].isdigit() or plain in _RESERVED:
            plain = f"v_{plain}"
        candidate, count = plain, 1
        while candidate in self.names:
            count += 1
            candidate = f"{plain}_{count}"
        self.names.add(candidate)
        return candidate

    def emit(self, op: str, name: str, **arguments: Any) -> Any:
        """Append an op; a name that is taken gets a number. Returns its variable, or variables."""
        return getattr(self.mb, op)(name=self.unique(name), **arguments)

    def read(self, node: ir.Node, index: int) -> Any:
        """The operand at an input: a variable, or a constant in the program's type.

        Raises:
            FormError: the input is missing.
        """
        value = needed_value(node, index)
        array = constant_array(value)
        if array is not None:
            return self.constant(array, value.name or "")
        return self.variables[value.name or ""]

    def shape(self, node: ir.Node, index: int = 0) -> tuple[int, ...]:
        """The shape of an input."""
        return shape_of(needed_value(node, index))

    def output_shape(self, node: ir.Node, index: int = 0) -> tuple[int, ...]:
        """The shape of an output."""
        return shape_of(node.outputs[index])

    def output_name(self, node: ir.Node, index: int = 0) -> str:
        """What the op that computes an output is to be called.

        The value's own name goes to the variable that holds it in the end: behind ``quantize``
        and ``dequantize``, or behind the cast of an output of the program.
        """
        value = node.outputs[index]
        name = value.name or "value"
        if self.needs_pair(node, value):
            return f"{name}_float"
        return f"{name}_{self.dtype.name}" if value.is_graph_output() else name

    def bind(self, node: ir.Node, variable: Any, index: int = 0) -> None:
        """Say which variable an output of a node is."""
        value = node.outputs[index]
        if self.needs_pair(node, value):
            variable = self.pair(value.name or "", variable, final=not value.is_graph_output())
        self.variables[value.name or ""] = variable

    def result(self, node: ir.Node, op: str, **arguments: Any) -> None:
        """Emit the one op that a node becomes, and bind its output."""
        self.bind(node, self.emit(op, self.output_name(node), **arguments))

    def needs_pair(self, node: ir.Node, value: ir.Value) -> bool:
        """Whether a value is quantized where it is made.

        Between ops that only move values a second rounding to the same grid would change nothing,
        and cost two ops; in front of one that computes, Core ML wants to see ``dequantize``.
        """
        params = self.params.get(value.name or "")
        if params is None:
            return False
        if (node.domain, node.op_type) not in MOVES or value.is_graph_output():
            return True
        sources = [v for v in node.inputs if v is not None and (v.name or "") in self.params]
        if any(self.params[v.name or ""] != params for v in sources):
            return True
        readers = [use.node for use in value.uses()]
        return any((r.domain, r.op_type) not in MOVES and r.op_type not in _FREE for r in readers)

    def pair(self, name: str, variable: Any, *, final: bool = True) -> Any:
        """``quantize`` and ``dequantize`` behind a variable.

        Args:
            name: The value that it holds.
            variable: Before rounding.
            final: Whether the result bears the value's own name.
        """
        params = self.rounded(self.params[name])
        if params.dtype not in ("int8", "uint8") or params.per_channel:
            raise FormError(
                f"'{name}' is quantized to {params.dtype}"
                f"{' with a scale for each channel' if params.per_channel else ''}",
                "activations are int8 or uint8 with one scale",
            )
        given = {
            "scale": self.scalar(params.scale[0]),
            "zero_point": np.dtype(params.dtype).type(params.zero_point[0]),
        }
        integers = self.emit(
            "quantize", f"{name}_quantized", input=variable, output_dtype=params.dtype, **given
        )
        self.quantized[name] = QuantizedVar(integers.name, params)
        real = name if final else f"{name}_{self.dtype.name}"
        return self.emit("dequantize", real, input=integers, **given)

    def rounded(self, params: QuantParams) -> QuantParams:
        """Parameters with each scale as the program can hold it.

        Raises:
            FormError: a scale that is too small or large for float16.
        """
        from dataclasses import replace

        scales = np.asarray(params.scale, np.float64)
        held = scales.astype(self.dtype).astype(np.float64)
        if not np.all(np.isfinite(held) & (held > 0)):
            raise FormError(
                f"a quantization step of {float(scales.min()):g} does not fit into float16",
                "--option coreml.compute=float32",
            )
        self.scale_error = max(self.scale_error, float(np.max(np.abs(held - scales) / scales)))
        return replace(params, scale=tuple(float(s) for s in held))
