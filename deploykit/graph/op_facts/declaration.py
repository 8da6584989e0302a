"""What one declaration of an op holds: every fact that more than one part of the code asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

#: Of ONNX functions of our own.
DOMAIN = "deploykit"

#: Least and greatest value; infinite where nothing is known.
Interval = tuple[float, float]

#: Index of an input → its interval. Of an input that is omitted or not known: `ANYTHING`.
Operands = Callable[[int], Interval]

#: The interval of every output of a node; None where it does not follow from its inputs'.
IntervalRule = Callable[["ir.Node", Operands], "Interval | None"]


class Kind(Enum):
    """What an op is."""

    LAYER = "a sum of products with weights, or of two activations"
    UNARY = "a function of each element by itself"
    BINARY = "arithmetic on two operands, with numpy's broadcasting"
    NORMALIZATION = "each element by those along an axis"
    POOL = "one number for each window of a map"
    REDUCTION = "one number for whole axes"
    RESIZE = "a map at other points"
    MOVEMENT = "elements at other places, or under another shape"
    QUANTIZATION = "reals to integers or back"


class Channels(Enum):
    """What an op does to the order of the channels (axis 1)."""

    PINS = "it needs them in the source's order"
    TIES = "it works on each by itself: what it makes is in the order of what it reads"
    BROADCASTS = "as TIES, for every operand; a constant may have one number a channel"
    REDUCES = "as TIES, where it reduces over pixels alone"
    ABSORBS = "its weights' rows and columns follow any order"
    MOVES = "whole channels change places, where its axis is theirs"
    KEEPS_OUTER = "as TIES, where the batch and channel axes are left as they are"


@dataclass(frozen=True)
class Op:
    """One op, declared once; what is asked of many ops is derived from these.

    Attributes:
        op_type: Its ONNX op type.
        spelling: The one form in which it appears in the canonical set.
        cost: The formula of `deploykit.cost.formulas` that counts it, by name, and where it takes
            one the number of arithmetic operations an output element. One operation is one
            addition, multiplication, division, comparison, or one call of exp, tanh, sqrt, pow or
            erf in the op's definition: e.g. HardSwish, x * max(0, min(1, x / 6 + 1 / 2)), is 5.
        kind: What it is.
        channels: What it does to the order of channels.
        interval: Where its results lie, given where its inputs do.
        domain: Empty for ONNX's own, ``deploykit`` for a function of ours.
        canonical: Whether targets see it. Others stand in a graph before fusion only, or are
            written by the rewrites of one target.
        weights: Index of the operand that may be weights; None if it has none.
        bias: Index of the bias; None if it has none.
        output_axis: Axis of its weights that counts output channels, as torch's exporter and the
            canonical form write them; None if the weights have none.
        structural: Indices of float inputs that are parameters, not data: never quantized.
        clamps: Whether it limits its input to an interval of constants (`clamp_of` reads which).
        accumulates: It computes wider than it stores: integer kernels clamp before they round, so
            the value between it and a clamp has no scale.
        stores_clamped: Kernels clamp its results in registers, before they are stored.
        selects: Every element of its results is one of its first input.
        joins: Every element of its results is one of any of its inputs.
        undamped: An error of an input passes through as large as it is, though the op does not
            select, join or clamp.
        sensitive: Index of the operand in which an integer's step may ruin the result (it divides,
            or is the base or exponent of a power); None if there is none.
        least: Least value that it can give, of an activation with a negative tail; otherwise None.
    """

    op_type: str
    spelling: str
    cost: str
    kind: Kind
    channels: Channels = Channels.PINS
    interval: IntervalRule | None = None
    domain: str = ""
    canonical: bool = True
    weights: int | None = None
    bias: int | None = None
    output_axis: int | None = None
    structural: tuple[int, ...] = ()
    clamps: bool = False
    accumulates: bool = False
    stores_clamped: bool = False
    selects: bool = False
    joins: bool = False
    undamped: bool = False
    sensitive: int | None = None
    least: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Domain and op type."""
        return self.domain, self.op_type
