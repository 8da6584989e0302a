"""The vocabulary of quantization: recipes and policies are data, not code.

A *recipe* is what is quantized to what, and has a name with a grammar:

    static_wi8_ai8      weights int8, activations int8, ranges known beforehand (full integer)
    dynamic_wi8_afp32   weights int8, activations quantized by the runtime as it runs
    weight_only_wi8     weights int8, dequantized before use

A *policy* is a recipe plus what one target's specification demands: which ops, which tensors
share a scale, fixed output scales, which rewrites come first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploykit.errors import ContractError
from deploykit.graph.reading import is_op, read_int, static_shape
from deploykit.passes.base import Pass
from deploykit_quantize.scope import Scope

if TYPE_CHECKING:
    import onnx_ir as ir

#: Largest distance from the zero point of a symmetric rule, in steps.
EIGHT_BITS, SEVEN_BITS = 127, 63

_GRAMMAR = re.compile(
    r"(?:static_w(?P<sw>i8)_a(?P<sa>i8|u8))"
    r"|(?:dynamic_w(?P<dw>i8)_afp32)"
    r"|(?:weight_only_w(?P<ww>i8))"
)


@dataclass(frozen=True)
class TensorRule:
    """How one kind of tensor is quantized.

    Attributes:
        dtype: ``int8`` or ``uint8``.
        symmetric: Zero point 0 and a range of -m..m; int8 then uses -127..127.
        per_channel: One scale for each output channel.
        largest: Of a symmetric rule: the largest distance from the zero point, in steps; the
            range -63..63 keeps sums of two products with uint8 within 16 bits.
    """

    dtype: str
    symmetric: bool
    per_channel: bool
    largest: int = EIGHT_BITS

    def __post_init__(self) -> None:
        if self.largest not in (SEVEN_BITS, EIGHT_BITS):
            raise ContractError(
                f"a range of -{self.largest}..{self.largest} steps",
                expected=f"{EIGHT_BITS} or {SEVEN_BITS} as the largest",
            )
        if self.dtype not in ("int8", "uint8"):
            raise ContractError(f"quantized dtype {self.dtype!r}", expected="int8 or uint8")
        if self.per_channel and not self.symmetric:
            raise ContractError(
                "a per-channel affine rule", expected="per-channel rules are symmetric"
            )


@dataclass(frozen=True)
class Recipe:
    """What is quantized to what; see the module's docstring for the grammar of names.

    Attributes:
        name: Its name.
        weights: How weights are quantized.
        activations: How activations are; None where they stay float in the graph.
    """

    name: str
    weights: TensorRule
    activations: TensorRule | None

    @classmethod
    def parse(cls, name: str) -> Recipe:
        """The recipe of a name.

        Raises:
            ContractError: the name does not follow the grammar.
        """
        match = _GRAMMAR.fullmatch(name)
        if match is None:
            raise ContractError(
                f"no quantization recipe is called {name!r}",
                expected="static_wi8_ai8, dynamic_wi8_afp32 or weight_only_wi8",
            )
        weights = TensorRule("int8", symmetric=True, per_channel=True)
        if match["sw"] is None:
            return cls(name, weights, None)
        dtype = "int8" if match["sa"] == "i8" else "uint8"
        return cls(name, weights, TensorRule(dtype, symmetric=False, per_channel=False))


@dataclass(frozen=True)
class Observer:
    """How a range is chosen from a value's statistics.

    Attributes:
        method: ``minmax``, ``percentile`` or ``mse``.
        percentile: For ``percentile``: the share of elements kept, in percent, e.g. 99.99.
    """

    method: str = "minmax"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.method not in ("minmax", "percentile", "mse"):
            raise ContractError(f"observer {self.method!r}", expected="minmax, percentile or mse")
        if not 50.0 < self.percentile <= 100.0:
            raise ContractError(
                f"observer percentile {self.percentile}", expected="above 50 and at most 100"
            )


@dataclass(frozen=True)
class FixedParams:
    """A scale and a zero point that a specification fixes, e.g. 1/256 and -128 of a softmax."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Policy:
    """How one target wants one recipe.

    Attributes:
        recipe: What is quantized to what.
        quantized_ops: Op types (canonical set and ``deploykit`` functions) whose activations are
            quantized; any other op keeps float inputs and outputs.
        same_scale_ops: Ops whose output has the scale and zero point of its (first) input:
            Reshape, MaxPool, Transpose, ...
        joined_scale_ops: Ops all of whose inputs and outputs share one scale: Concat.
        fixed_outputs: Op type → fixed output scale.
        rewrites: Passes applied to the fused graph first (on a clone).
        inputs_only: Only what a quantized op reads is integers, its data and its weights; what it
            makes is float, and so is its bias. Between two such ops in a row nothing else happens
            than that the second rounds.
        group_scales: The output channels of one group of a grouped Conv share a weight scale.
        float_depthwise: Depthwise Convs are left in floats; with ``inputs_only``.
        float_nodes: Nodes of one graph that are left in floats, whatever their op
            (`deploykit_quantize.float_islands`).
        keep_float: Nodes that the user wants in floats; `deploykit_quantize.keep_float` finds them.
    """

    recipe: Recipe
    quantized_ops: frozenset[str] = frozenset()
    same_scale_ops: frozenset[str] = frozenset()
    joined_scale_ops: frozenset[str] = frozenset()
    fixed_outputs: Mapping[str, FixedParams] = field(default_factory=dict)
    rewrites: tuple[Pass, ...] = ()
    inputs_only: bool = False
    group_scales: bool = False
    float_depthwise: bool = False
    float_nodes: frozenset[ir.Node] = frozenset()
    keep_float: tuple[Scope, ...] = ()

    def quantizes(self, node: ir.Node) -> bool:
        """Whether a node computes in integers."""
        if node.op_type not in self.quantized_ops or node in self.float_nodes:
            return False
        return not (self.float_depthwise and _is_depthwise(node))


def _is_depthwise(node: ir.Node) -> bool:
    """Whether a node is a Conv each of whose groups reads one channel."""
    if not is_op(node, "Conv") or read_int(node, "group", 1) == 1:
        return False
    shape = static_shape(node.inputs[1])
    return shape is not None and shape[1] == 1
