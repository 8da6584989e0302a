"""A graph that is run piece by piece, all samples through one piece before the next begins.

What lies between two pieces is held for every sample, and nothing else: a chain of layers needs
one feature map a sample. The values that a piece made may be changed before the next one reads
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deploykit.tensors import Array, FloatArray
from deploykit_quantize.layer_inputs import open_session

if TYPE_CHECKING:
    import onnx_ir as ir


class SegmentedRun:
    """Runs a graph up to one node after another.

    Args:
        graph: The model; its node order must be topological.
        samples: What the inputs are given, by name, each of the input's shape.
    """

    def __init__(self, graph: ir.Model, samples: Sequence[Mapping[str, FloatArray]]) -> None:
        import onnx_ir as ir

        self._proto = ir.to_proto(graph)
        self._constants = {t.name: t for t in self._proto.graph.initializer}
        self._types = {
            v.name or "": v.dtype for node in graph.graph for v in node.outputs if v.dtype
        }
        self.values: list[dict[str, Array]] = [dict(sample) for sample in samples]
        self._next = 0

    def advance(self, node: int, wanted: str) -> list[Array]:
        """Run the nodes up to number ``node``, inclusive; gives value ``wanted`` of each sample."""
        nodes = self._proto.graph.node[self._next : node + 1]
        self._next = node + 1
        later = {name for n in self._proto.graph.node[self._next :] for name in n.input}
        made = [name for n in nodes for name in n.output if name in later or name == wanted]
        if nodes:
            self._run(nodes, made)
        found = [held[wanted] for held in self.values]
        self.values = [
            {name: a for name, a in held.items() if name in later} for held in self.values
        ]
        return found

    def add(self, name: str, offset: Array) -> None:
        """Add to a value of every sample, as the next piece will read it."""
        for held in self.values:
            if name in held:
                held[name] = held[name] + offset

    def _run(self, nodes: Any, made: list[str]) -> None:
        from onnx import TensorProto, helper

        inside = {name for n in nodes for name in n.output}
        names = [name for n in nodes for name in n.input if name and name not in inside]
        reads = [name for name in dict.fromkeys(names) if name not in self._constants]
        held = self.values[0]
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(held[name].dtype), held[name].shape
            )
            for name in reads
        ]
        outputs = [
            helper.make_tensor_value_info(
                name, self._types[name].value if name in self._types else TensorProto.FLOAT, None
            )
            for name in made
        ]
        constants = [self._constants[n] for n in dict.fromkeys(names) if n in self._constants]
        graph = helper.make_graph(list(nodes), "segment", inputs, outputs, constants)
        model = helper.make_model(
            graph,
            ir_version=self._proto.ir_version,
            opset_imports=self._proto.opset_import,
            functions=self._proto.functions,
        )
        session = open_session(model.SerializeToString())
        for sample in self.values:
            results = session.run(made, {name: sample[name] for name in reads})
            sample.update(zip(made, map(np.asarray, results), strict=True))
