"""The frozen figures of a profile: a layer, a stage, a model before and after fusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.model import Precision


@dataclass(frozen=True)
class ElementSizes:
    """Bytes an element, by what it is.

    Attributes:
        activation: Of a value that is computed.
        weight: Of a constant of two axes or more.
        bias: Of a constant of one axis, or of none.
    """

    activation: int = 4
    weight: int = 4
    bias: int = 4

    @classmethod
    def of(cls, precision: Precision) -> ElementSizes:
        """What `deploykit.model.Precision` stands for."""
        return {
            Precision.FP32: cls(4, 4, 4),
            Precision.FP16: cls(4, 2, 2),
            Precision.W8: cls(4, 1, 4),
            Precision.INT8: cls(1, 1, 4),
        }[precision]


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs: a node, with the clamps that are computed in its registers.

    Attributes:
        name: Name of the value that it makes, by which it is found in every stage.
        node: Name of the (first) node.
        op_type: ONNX op types, the absorbed ones behind a plus: ``Conv + Relu``; an op of another
            domain with its domain: ``deploykit::Silu``.
        kind: What a reader wants to know of it: ``pointwise``, ``depthwise 3x3``, ``conv 3x3 /2``,
            ``grouped 1x1 g=3``, ``linear``; else the op in lower case.
        module: Dotted path in the source; may be empty.
        input_shapes: Of its computed inputs.
        output_shapes: Of its outputs.
        counted: Whether its op has a known cost; where not, all figures but the parameters and
            the sizes of its values are 0 and stand for nothing.
        is_view: It moves no byte: the same bytes under another shape.
        parameters: Trained numbers that it reads, shared ones too.
        mult_adds: Multiplications paired with an addition (convolutions, matrix products).
        flops: All arithmetic operations.
        input_bytes: Read of computed inputs.
        weight_bytes: Read of constants.
        output_bytes: Written.
        activation_bytes: Size of what it makes; 0 for a view.
    """

    name: str
    node: str
    op_type: str
    kind: str
    module: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    counted: bool
    is_view: bool
    parameters: int
    mult_adds: int
    flops: int
    input_bytes: int
    weight_bytes: int
    output_bytes: int
    activation_bytes: int

    @property
    def mac_bytes(self) -> int:
        """Memory-access cost: bytes read and written (Ma et al. 2018)."""
        return self.input_bytes + self.weight_bytes + self.output_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in FLOPs a byte (Williams et al. 2009); 0 where none moves."""
        return self.flops / self.mac_bytes if self.mac_bytes else 0.0


@dataclass(frozen=True)
class StageCost:
    """What a graph costs.

    Attributes:
        stage: ``before fusion`` or ``after fusion``.
        layers: In the order of the graph.
        parameters: Trained numbers, each once.
        weight_bytes: All constants, each once: about the size of the file.
        peak_activation_bytes: The most that is alive at once, in the order of the graph.
        uncounted: Op type → how often, for the ops without a known cost.
    """

    stage: str
    layers: tuple[LayerCost, ...]
    parameters: int
    weight_bytes: int
    peak_activation_bytes: int
    uncounted: Mapping[str, int]

    @property
    def mult_adds(self) -> int:
        """Of all counted layers."""
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def flops(self) -> int:
        """Of all counted layers."""
        return sum(layer.flops for layer in self.layers)

    @property
    def mac_bytes(self) -> int:
        """Memory-access cost of all counted layers: bytes read and written."""
        return sum(layer.mac_bytes for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Size of all values that are computed."""
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def intensity(self) -> float:
        """FLOPs a byte of the whole."""
        return self.flops / self.mac_bytes if self.mac_bytes else 0.0

    def format_uncounted(self) -> str:
        """E.g. ``3 ops uncounted: 2 Mystery, 1 LSTM``; empty if all are counted."""
        if not self.uncounted:
            return ""
        total = sum(self.uncounted.values())
        ops = ", ".join(f"{count} {op}" for op, count in sorted(self.uncounted.items()))
        return f"{total} op{'s' if total != 1 else ''} uncounted: {ops}"


@dataclass(frozen=True)
class ProfiledOp:
    """One operator as a runtime's own profiler names it.

    Attributes:
        name: The runtime's or kernel library's name for it.
        us: Microseconds, the average over runs.
    """

    name: str
    us: float


@dataclass(frozen=True)
class ProfiledRun:
    """A whole file under its runtime's own profiler.

    Attributes:
        runtime: Runtime and version, in words.
        runs: Over how many runs times are averaged.
        ops: In the order of execution.
    """

    runtime: str
    runs: int
    ops: tuple[ProfiledOp, ...]


@dataclass(frozen=True)
class Measurement:
    """Measured times, beside the counts.

    Attributes:
        runtime: Runtime, version, kernel set and threads, in words.
        method: What was timed, in words.
        whole_us: Microseconds of one inference of the whole.
        layer_us: Name of a layer of the fused stage → microseconds.
        unmeasured: Name of a layer → why it has no time.
        rounds: Of how many rounds each time is the median.
        profiled: The whole under the runtime's own profiler, where that was asked for.
    """

    runtime: str
    method: str
    whole_us: float
    layer_us: Mapping[str, float]
    unmeasured: Mapping[str, str]
    rounds: int
    profiled: ProfiledRun | None = None


@dataclass(frozen=True)
class ModelProfile:
    """A model before and after fusion.

    Attributes:
        model: Its name.
        precision: Whose element sizes the bytes are counted in.
        before: The canonical graph, nothing fused.
        after: The fused stage, clamps with the layer that they are computed in.
        measurement: Of the fused stage, where it was asked for.
    """

    model: str
    precision: str
    before: StageCost
    after: StageCost
    measurement: Measurement | None = None


@dataclass(frozen=True)
class MeasuredFiles:
    """What a target measured.

    Attributes:
        runtime: Runtime, version, kernel set and threads, in words.
        clock: ``CPU`` or ``wall clock``.
        us: Microseconds of one inference of each file, in order: the median over rounds.
    """

    runtime: str
    clock: str
    us: tuple[float, ...]
