"""Which roundings make the noise at the outputs: each alone, against the float model.

The quantized stage gets one switch for each thing that is rounded: a value passes its pair of
QuantizeLinear and DequantizeLinear, or by it; a layer reads its integer weights and bias, or the
floats that they were made of. All are in one graph with one more input, a vector of booleans, so
that one ONNX Runtime session serves for every combination.

With all switches off the graph is the float model. The noise of one source alone is the squared
difference that its switch makes at the outputs; to first order the noise of all is their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.errors import ContractError
from deploykit.graph.provenance import module_path, source_line
from deploykit.graph.read_qdq import DEQUANTIZE, QUANTIZE, read_params
from deploykit.graph.reading import constant_array, is_op
from deploykit.model import Model
from deploykit.noise import VALUE, WEIGHTS, NoiseSource
from deploykit.tensors import Array, FloatArray
from deploykit_quantize.layer_inputs import open_session

if TYPE_CHECKING:
    import onnx_ir as ir

_SWITCHES = "deploykit.switches"


@dataclass(frozen=True)
class SwitchedModel:
    """A quantized stage whose roundings can be turned off.

    Attributes:
        sources: One a switch, in order; share and snr_db are 0.
        outputs: Names of the outputs.
    """

    sources: tuple[NoiseSource, ...]
    outputs: tuple[str, ...]
    _session: Any

    def run(self, sample: Mapping[str, FloatArray], switches: Array) -> list[FloatArray]:
        """The outputs for one sample.

        Args:
            sample: What the inputs are given.
            switches: bool (sources,): which roundings take place.
        """
        found: list[FloatArray] = self._session.run(
            list(self.outputs), {**sample, _SWITCHES: np.asarray(switches, bool)}
        )
        return found


def switch_roundings(prepared: Model, quantized: Model) -> SwitchedModel:
    """A quantized stage with a switch for each rounding.

    Args:
        prepared: The prepared stage, whose constants are the floats.
        quantized: The stage that was made of it.

    Raises:
        ContractError: the quantized stage was made of another model.
    """
    import onnx_ir as ir

    graph = quantized.graph.clone()
    builder = _Builder(graph.graph, _constants_of(prepared))
    for node in list(graph.graph):
        if is_op(node, DEQUANTIZE):
            builder.add(node)
    builder.finish()
    proto = ir.to_proto(graph)
    session = open_session(proto.SerializeToString())
    names = tuple(output.name or "" for output in graph.graph.outputs)
    return SwitchedModel(tuple(builder.sources), names, session)


def _constants_of(prepared: Model) -> dict[tuple[str, int], Array]:
    """(name of a node's first output, input index) → the constant that it reads there."""
    found = {}
    for node in prepared.graph.graph:
        for index, value in enumerate(node.inputs):
            data = constant_array(value)
            if data is not None and data.dtype == np.float32:
                found[node.outputs[0].name or "", index] = data
    return found


class _Builder:
    """Puts a choice in the place of each DequantizeLinear."""

    def __init__(self, graph: ir.Graph, constants: Mapping[tuple[str, int], Array]) -> None:
        import onnx_ir as ir

        self._graph = graph
        self._constants = constants
        self.sources: list[NoiseSource] = []
        self._switch_of: dict[tuple[str, str], ir.Value] = {}
        self._switches = ir.Value(name=_SWITCHES, type=ir.TensorType(ir.DataType.BOOL))

    def add(self, dequantize: ir.Node) -> None:
        """Switch what one DequantizeLinear gives."""
        producer = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
        if producer is not None and is_op(producer, QUANTIZE):
            self._choose_value(dequantize, producer)
            return
        uses = list(dequantize.outputs[0].uses())
        if not uses:
            return
        reader, index = uses[0].node, uses[0].idx
        name = _float_name(reader)
        data = self._constants.get((name, index))
        if data is None:
            raise ContractError(
                f"constant {index} of '{name}' is not in the prepared stage",
                expected="the stage that the quantized one was made of",
            )
        self._choose_constant(dequantize, reader, name, data)

    def finish(self) -> None:
        """Declare the switches."""
        import onnx_ir as ir

        self._switches.shape = ir.Shape([len(self.sources)])
        self._graph.inputs.append(self._switches)

    def _choose_value(self, dequantize: ir.Node, quantize: ir.Node) -> None:
        """If(switch): the value through both nodes; else the value."""
        import onnx_ir as ir

        plain, real = quantize.inputs[0], dequantize.outputs[0]
        assert plain is not None
        name = (real if real.is_graph_output() else plain).name or ""
        switch = self._switch(VALUE, name, plain.producer())
        rounded = ir.Node("", QUANTIZE, quantize.inputs, quantize.attributes.values())
        again = ir.Node(
            "",
            DEQUANTIZE,
            [rounded.outputs[0], *dequantize.inputs[1:]],
            dequantize.attributes.values(),
        )
        same = ir.Node("", "Identity", [plain])
        branches = []
        for key, nodes in (("then_branch", [rounded, again]), ("else_branch", [same])):
            for node in nodes:
                node.outputs[0].name = f"{real.name}.{key}.{node.op_type}"
            result = nodes[-1].outputs[0]
            result.type, result.shape = real.type, real.shape
            graph = ir.Graph([], [result], nodes=nodes, name=f"{real.name}.{key}")
            branches.append(ir.AttrGraph(key, graph))
        self._replace(dequantize, ir.Node("", "If", [switch], branches))

    def _choose_constant(
        self, dequantize: ir.Node, reader: ir.Node, name: str, data: Array
    ) -> None:
        """The integers' values or the floats, by the switch of the layer."""
        import onnx_ir as ir

        integers = constant_array(dequantize.inputs[0])
        assert integers is not None
        rounded = read_params(dequantize).dequantize(integers)
        both = self._constant(np.stack([data.reshape(rounded.shape), rounded]))
        index = ir.Node("", "Cast", [self._switch(WEIGHTS, name, reader)])
        index.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.INT64))
        index.outputs[0].name = f"{dequantize.outputs[0].name}.index"
        self._graph.insert_before(dequantize, index)
        self._replace(dequantize, ir.Node("", "Gather", [both, index.outputs[0]]))

    def _replace(self, dequantize: ir.Node, chooser: ir.Node) -> None:
        """Let a node give what a DequantizeLinear gave."""
        old, chosen = dequantize.outputs[0], chooser.outputs[0]
        chosen.type, chosen.shape = old.type, old.shape
        self._graph.insert_after(dequantize, chooser)
        for use in list(old.uses()):
            use.node.replace_input_with(use.idx, chosen)
        for index, output in enumerate(self._graph.outputs):
            if output is old:
                self._graph.outputs[index] = chosen
        old.name, chosen.name = f"{old.name}.rounded", old.name
        self._graph.remove(dequantize, safe=True)

    def _switch(self, kind: str, name: str, maker: ir.Node | None) -> ir.Value:
        """The scalar switch of one source; weights and bias of a layer share one."""
        import onnx_ir as ir

        key = kind, name
        if key not in self._switch_of:
            index = self._constant(np.array(len(self.sources), np.int64))
            gather = ir.Node("", "Gather", [self._switches, index])
            gather.outputs[0].name = f"{_SWITCHES}.{len(self.sources)}"
            gather.outputs[0].type = ir.TensorType(ir.DataType.BOOL)
            self._graph.insert_before(self._graph[0], gather)
            self._switch_of[key] = gather.outputs[0]
            self.sources.append(
                NoiseSource(
                    kind,
                    name,
                    maker.op_type if maker is not None else "",
                    module_path(maker) if maker is not None else "",
                    source_line(maker) if maker is not None else "",
                    0.0,
                    0.0,
                )
            )
        return self._switch_of[key]

    def _constant(self, data: Array) -> ir.Value:
        import onnx_ir as ir

        name = f"deploykit.constant.{len(self._graph.initializers)}"
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
            shape=ir.Shape(data.shape),
            const_value=ir.Tensor(data, name=name),
        )
        self._graph.register_initializer(value)
        return value


def _float_name(node: ir.Node) -> str:
    """The name that a node's first output has in the prepared stage."""
    name = node.outputs[0].name or ""
    if node.outputs[0].is_graph_output():
        return name
    for use in node.outputs[0].uses():
        if is_op(use.node, QUANTIZE):
            for again in use.node.outputs[0].uses():
                real = again.node.outputs[0]
                if real.is_graph_output() and name == f"{real.name}_float":
                    return real.name or ""
    return name


@dataclass(frozen=True)
class Attribution:
    """Noise by source.

    Attributes:
        sources: With their shares, largest first.
        sample_db: Signal to noise of each sample with everything rounded, dB.
        snr_db: Over all samples.
        worst_share: Part of the noise that the worst sample has.
    """

    sources: tuple[NoiseSource, ...]
    sample_db: Array
    snr_db: float
    worst_share: float


def attribute_noise(
    model: SwitchedModel,
    samples: Sequence[Mapping[str, FloatArray]],
    progress: Callable[[str], None] = lambda _: None,
) -> Attribution:
    """The noise at the outputs that each source makes alone.

    Noise is the squared error over all outputs, each divided by its own signal, so that a small
    output counts as much as a large one.

    Args:
        model: The switched model.
        samples: Each a mapping from input name to its tensor, as the model takes it.
        progress: Called with a line now and then.
    """
    count = len(model.sources)
    off, on = np.zeros(count, bool), np.ones(count, bool)
    wanted = [model.run(sample, off) for sample in samples]
    signal = [
        sum(float(np.square(row[index].astype(np.float64)).sum()) for row in wanted) or 1.0
        for index in range(len(model.outputs))
    ]

    def noise_of(switches: Array) -> Array:
        rows = []
        for sample, want in zip(samples, wanted, strict=True):
            got = model.run(sample, switches)
            parts = [
                float(np.square(a.astype(np.float64) - b).sum()) / power
                for a, b, power in zip(want, got, signal, strict=True)
            ]
            rows.append(sum(parts))
        return np.array(rows)

    together = noise_of(on)
    alone = np.empty(count)
    for index in range(count):
        alone[index] = noise_of(on & (np.arange(count) == index)).sum()
        if index and index % 50 == 0:
            progress(f"{index} of {count} roundings")
    total = alone.sum() or 1.0
    sources = [
        NoiseSource(
            s.kind,
            s.name,
            s.op_type,
            s.module,
            s.source,
            float(n / total),
            _decibels(n, len(signal)),
        )
        for s, n in zip(model.sources, alone, strict=True)
    ]
    own = np.array([
        sum(
            float(np.square(a.astype(np.float64)).sum()) / power
            for a, power in zip(want, signal, strict=True)
        )
        for want in wanted
    ])  # fmt: skip
    tiny = np.finfo(np.float64).tiny
    sample_db = np.minimum(10 * np.log10((own + tiny) / (together + tiny)), 200.0)
    return Attribution(
        tuple(sorted(sources, key=lambda s: (-s.share, s.kind, s.name))),
        sample_db,
        _decibels(float(together.sum()), len(signal)),
        float(together.max() / (together.sum() or 1.0)),
    )


def _decibels(noise: float, outputs: int) -> float:
    return float(min(10 * np.log10(outputs / max(noise, 1e-20)), 200.0))
