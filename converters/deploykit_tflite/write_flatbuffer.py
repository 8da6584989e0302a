"""From a `TfliteGraph` to the bytes of a .tflite file, by the public schema.

The bytes are a function of the graph alone: no date, no random name. Buffer 0 is empty (the format
reserves it for tensors without contents), the contents of every other buffer are aligned to 16
bytes, as kernels that map the file into memory want them. A constant is copied once, from
whatever memory order it has into the file's own memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploykit.errors import MissingDependencyError
from deploykit.tensors import Array, QuantParams
from deploykit_tflite.op_versions import newest_runtime, op_version, runtime_of
from deploykit_tflite.tflite_graph import LazyArray, TfliteGraph, TfliteOp, TfliteTensor

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
SIGNATURE = "serving_default"
RUNTIME_METADATA = "min_runtime_version"
_RUNTIME_BYTES = 16
_ALIGNMENT = 16
#: Operator codes above this do not fit the byte that old readers read; they see this one instead.
_LAST_OLD_CODE = 127

_TYPES = {
    "float32": 0,
    "float16": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "int8": 9,
}


@dataclass(frozen=True)
class WrittenFile:
    """The bytes of a .tflite file and what its header says.

    Attributes:
        data: The file.
        min_runtime_version: The oldest runtime that has every operator version of the file.
        op_counts: Operator name → how often it occurs, sorted by name.
    """

    data: bytes
    min_runtime_version: str
    op_counts: dict[str, int]


def load_schema() -> Any:
    """The schema's generated object API (imports no runtime).

    Raises:
        MissingDependencyError: the packages of the extra ``tflite`` are not installed.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "flatbuffers", needed_for="writing or reading a TFLite file", extra="tflite"
        ) from None
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingDependencyError(
            "ai-edge-litert", needed_for="writing or reading a TFLite file", extra="tflite"
        ) from None
    return schema_py_generated


def write_flatbuffer(graph: TfliteGraph, description: str) -> WrittenFile:
    """Serialize a graph.

    Args:
        graph: The graph; constants that no operator reads are omitted.
        description: The file's own words on what it is.

    Returns:
        The file's bytes; for n bytes of constants about 2 n bytes of memory are used at the peak.

    Raises:
        MissingDependencyError: the packages of the extra ``tflite`` are not installed.
    """
    schema = load_schema()
    import flatbuffers

    graph = _without_unused_tensors(graph)
    versions = [op_version(op, graph.tensors) for op in graph.ops]
    keys = list(dict.fromkeys(zip((op.code for op in graph.ops), versions, strict=True)))
    runtime = _minimum_runtime(keys)
    buffers = [_EmptyBuffer(schema)]
    buffers += [_ArrayBuffer(schema, t.data) for t in graph.tensors if t.data is not None]
    buffers.append(_ArrayBuffer(schema, _padded_text(runtime)))

    model = schema.ModelT(
        version=SCHEMA_VERSION,
        operatorCodes=[_operator_code(schema, code, version) for code, version in keys],
        subgraphs=[_subgraph(schema, graph, keys, versions)],
        description=description,
        buffers=buffers,
        metadata=[schema.MetadataT(name=RUNTIME_METADATA, buffer=len(buffers) - 1)],
        signatureDefs=[_signature(schema, graph)],
    )
    builder = flatbuffers.Builder(_estimated_size(graph))
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    counts: dict[str, int] = {}
    for op in graph.ops:
        counts[op.code] = counts.get(op.code, 0) + 1
    data = bytes(memoryview(builder.Bytes)[builder.Head() :])
    return WrittenFile(data, runtime, dict(sorted(counts.items())))


def _without_unused_tensors(graph: TfliteGraph) -> TfliteGraph:
    """The graph without constants that no operator reads (a lowering may have made them)."""
    used = sorted(
        {i for op in graph.ops for i in (*op.inputs, *op.outputs) if i >= 0}
        | set(graph.inputs)
        | set(graph.outputs)
    )
    index = {old: new for new, old in enumerate(used)}
    index[-1] = -1
    kept = TfliteGraph()
    kept.tensors = [graph.tensors[i] for i in used]
    kept.ops = [
        TfliteOp(
            op.code,
            tuple(index[i] for i in op.inputs),
            tuple(index[i] for i in op.outputs),
            op.options,
            op.fields,
        )
        for op in graph.ops
    ]
    kept.inputs = [index[i] for i in graph.inputs]
    kept.outputs = [index[i] for i in graph.outputs]
    return kept


def _minimum_runtime(keys: list[tuple[str, int]]) -> str:
    known = [runtime_of(code, version) for code, version in keys]
    if None in known:
        missing = keys[known.index(None)]
        raise KeyError(f"op_versions states no runtime for {missing}")
    return newest_runtime([text for text in known if text is not None] or ["1.5.0"])


def _padded_text(text: str) -> Array:
    return np.frombuffer(text.encode().ljust(_RUNTIME_BYTES, b"\0"), dtype=np.uint8)


def _estimated_size(graph: TfliteGraph) -> int:
    # Growing the builder doubles it and copies: start with enough.
    contents = sum(t.data.nbytes + 2 * _ALIGNMENT for t in graph.tensors if t.data is not None)
    scales = sum(len(t.quantization.scale) for t in graph.tensors if t.quantization is not None)
    names = sum(len(t.name) for t in graph.tensors)
    return contents + 16 * scales + names + 256 * (len(graph.tensors) + len(graph.ops)) + 4096


def _operator_code(schema: Any, code: str, version: int) -> Any:
    number = getattr(schema.BuiltinOperator, code)
    return schema.OperatorCodeT(
        builtinCode=number, deprecatedBuiltinCode=min(number, _LAST_OLD_CODE), version=version
    )


def _subgraph(
    schema: Any, graph: TfliteGraph, keys: list[tuple[str, int]], versions: list[int]
) -> Any:
    code_index = {key: i for i, key in enumerate(keys)}
    tensors, next_buffer = [], 1
    for tensor in graph.tensors:
        buffer = 0
        if tensor.data is not None:
            buffer, next_buffer = next_buffer, next_buffer + 1
        tensors.append(_tensor(schema, tensor, buffer))
    return schema.SubGraphT(
        tensors=tensors,
        inputs=np.asarray(graph.inputs, dtype=np.int32),
        outputs=np.asarray(graph.outputs, dtype=np.int32),
        operators=[
            _operator(schema, op, code_index[(op.code, version)])
            for op, version in zip(graph.ops, versions, strict=True)
        ],
        name="main",
    )


def _tensor(schema: Any, tensor: TfliteTensor, buffer: int) -> Any:
    return schema.TensorT(
        shape=np.asarray(tensor.shape, dtype=np.int32),
        type=_TYPES[tensor.dtype],
        buffer=buffer,
        name=tensor.name,
        quantization=_quantization(schema, tensor.quantization),
        hasRank=True,
    )


def _quantization(schema: Any, params: QuantParams | None) -> Any:
    if params is None:
        return None
    return schema.QuantizationParametersT(
        scale=np.asarray(params.scale, dtype=np.float32),
        zeroPoint=np.asarray(params.zero_point, dtype=np.int64),
        quantizedDimension=params.axis or 0,
    )


def _operator(schema: Any, op: TfliteOp, code_index: int) -> Any:
    options = getattr(schema, f"{op.options}T")(**op.fields) if op.options else None
    return schema.OperatorT(
        opcodeIndex=code_index,
        inputs=np.asarray(op.inputs, dtype=np.int32),
        outputs=np.asarray(op.outputs, dtype=np.int32),
        builtinOptionsType=getattr(schema.BuiltinOptions, op.options) if op.options else 0,
        builtinOptions=options,
    )


def _signature(schema: Any, graph: TfliteGraph) -> Any:
    def maps(indices: list[int]) -> list[Any]:
        return [schema.TensorMapT(name=graph.tensors[i].name, tensorIndex=i) for i in indices]

    return schema.SignatureDefT(
        inputs=maps(graph.inputs),
        outputs=maps(graph.outputs),
        signatureKey=SIGNATURE,
        subgraphIndex=0,
    )


class _EmptyBuffer:
    """Buffer 0."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the object API's own name
        self.schema.BufferStart(builder)
        return int(self.schema.BufferEnd(builder))


class _ArrayBuffer(_EmptyBuffer):
    """A buffer with an array's elements in C order, copied straight into the builder.

    The object API's own buffer copies byte by byte, or through a second copy, and does not align.
    """

    def __init__(self, schema: Any, data: Array | LazyArray) -> None:
        super().__init__(schema)
        self.data = data

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the object API's own name
        array = self.data.load() if isinstance(self.data, LazyArray) else self.data
        size = array.nbytes
        builder.StartVector(1, size, _ALIGNMENT)
        builder.head -= size
        flat = np.frombuffer(builder.Bytes, dtype=np.uint8, count=size, offset=builder.head)
        flat.view(array.dtype).reshape(array.shape)[...] = array
        vector = builder.EndVector()
        self.schema.BufferStart(builder)
        self.schema.BufferAddData(builder, vector)
        return int(self.schema.BufferEnd(builder))
