"""A .tflite file in words.

The file is read by the schema, not trusted: whatever is wrong with it becomes a `SourceError`.
The runtime opens it in a separate process, so that a crash there is a line of the report.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.errors import RunnerError, SourceError
from deploykit.printable import printable_name
from deploykit_tflite.tflite_graph import ACTIVATION_NAMES
from deploykit_tflite.write_flatbuffer import FILE_IDENTIFIER, RUNTIME_METADATA, load_schema

_RUNNER_TIMEOUT_S = 60.0
_MAX_OP_ROWS = 2000


def inspect_file(path: Path) -> str:
    """Inputs, outputs, operators, types, scales, partitions and the runtime that is needed.

    Raises:
        SourceError: the file cannot be read, is damaged, or is no TFLite file.
        MissingDependencyError: the extra ``tflite`` is not installed.
    """
    model = read_model(path)
    lines = [
        f"{path.name}: TFLite, {path.stat().st_size:,} bytes",
        f"  description: {_text(model.description) or '(none)'}",
        f"  minimum runtime: {_minimum_runtime(model) or '(not stated)'}",
        f"  XNNPACK: {_partitions(path)}",
    ]
    for index, subgraph in enumerate(model.subgraphs):
        lines += ["", *_describe_subgraph(model, index, subgraph)]
    return "\n".join(lines) + "\n"


def read_model(path: Path) -> Any:
    """The object API's tree of a file, checked as far as this module walks it.

    Raises:
        SourceError: the file cannot be read, is damaged, or is no TFLite file.
    """
    schema = load_schema()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    if data[4:8] != FILE_IDENTIFIER:
        raise SourceError(
            f"{path} is no TFLite file", expected="the identifier TFL3 at its fifth byte"
        )
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        _check(schema, model)
    except (
        *(struct.error, IndexError, ValueError, TypeError, AttributeError),
        *(OverflowError, MemoryError, KeyError, UnicodeDecodeError, RecursionError),
    ) as error:
        raise SourceError(
            f"{path} is damaged: {type(error).__name__} while reading it",
            expected="a whole TFLite file",
            advice="write or download it again",
        ) from error
    return model


def _check(schema: Any, model: Any) -> None:
    """Walk everything that the report prints; a broken reference raises here."""
    if not model.subgraphs or not model.operatorCodes or not model.buffers:
        raise ValueError("no subgraph, operator code or buffer")
    _text(model.description)
    for code in model.operatorCodes:
        _op_name(schema, code)
    for entry in model.metadata or ():
        _text(entry.name)
        _check_index(entry.buffer, model.buffers)
    for subgraph in model.subgraphs:
        _text(subgraph.name)
        for tensor in subgraph.tensors:
            _check_tensor(schema, model, tensor)
        for index in (*subgraph.inputs, *subgraph.outputs):
            _check_index(index, subgraph.tensors)
        for op in subgraph.operators or ():
            _check_operator(model, subgraph, op)


def _check_tensor(schema: Any, model: Any, tensor: Any) -> None:
    _check_index(tensor.buffer, model.buffers)
    _type_name(schema, tensor.type)
    _text(tensor.name)
    params = tensor.quantization
    scales = params.scale if params is not None else None
    zeros = params.zeroPoint if scales is not None else None
    if scales is not None and zeros is not None and len(zeros) != len(scales):
        raise ValueError("a zero point is missing")


def _check_operator(model: Any, subgraph: Any, op: Any) -> None:
    _check_index(op.opcodeIndex, model.operatorCodes)
    if not len(op.outputs):
        raise ValueError("an operator without outputs")
    for index in op.outputs:
        _check_index(index, subgraph.tensors)
    for index in op.inputs if op.inputs is not None else ():
        if index != -1:  # an optional input that is not there
            _check_index(index, subgraph.tensors)


def _check_index(index: int, among: Sequence[Any]) -> None:
    if not 0 <= index < len(among):
        raise IndexError(index)


@dataclass(frozen=True)
class _Row:
    """One operator of the table."""

    cells: tuple[str, ...]


def _describe_subgraph(model: Any, index: int, subgraph: Any) -> Iterator[str]:
    schema = load_schema()
    tensors = subgraph.tensors
    yield f"subgraph {index} '{_text(subgraph.name)}'"
    for what, indices in (("input", subgraph.inputs), ("output", subgraph.outputs)):
        for i in indices:
            yield f"  {what:6} {_text(tensors[i].name)}: {_tensor(schema, tensors[i])}"
    ops = subgraph.operators or []
    counts = Counter(_op_name(schema, model.operatorCodes[op.opcodeIndex]) for op in ops)
    types = Counter(_type_name(schema, tensors[i].type) for op in ops for i in op.outputs)
    yield f"  {len(ops)} operators: " + ", ".join(f"{n} {c}" for n, c in sorted(counts.items()))
    yield "  computed types: " + ", ".join(f"{n} {t}" for t, n in sorted(types.items()))
    versions = sorted(
        {
            (_op_name(schema, c), c.version)
            for c in (model.operatorCodes[op.opcodeIndex] for op in ops)
        }
    )
    yield "  versions: " + ", ".join(f"{name} {version}" for name, version in versions)
    yield ""
    rows = [_op_row(schema, model, tensors, i, op) for i, op in enumerate(ops[:_MAX_OP_ROWS])]
    yield from _table(("#", "operator", "fused", "weights", "output", "name"), rows)
    if len(ops) > _MAX_OP_ROWS:
        yield f"  ... and {len(ops) - _MAX_OP_ROWS} more"


def _op_row(schema: Any, model: Any, tensors: Any, index: int, op: Any) -> _Row:
    code = model.operatorCodes[op.opcodeIndex]
    fused = getattr(op.builtinOptions, "fusedActivationFunction", 0)
    constants = [
        tensors[i]
        for i in (op.inputs if op.inputs is not None else ())
        if i >= 0 and model.buffers[tensors[i].buffer].data is not None
    ]
    kernel = max(constants, key=_elements, default=None)
    output = tensors[op.outputs[0]]
    return _Row(
        (
            str(index),
            _op_name(schema, code),
            ACTIVATION_NAMES.get(fused, str(fused)),
            _weights(schema, kernel),
            _tensor(schema, output),
            _text(output.name),
        )
    )


def _weights(schema: Any, tensor: Any) -> str:
    # Shapes, axes and paddings are int32 without a scale: they are no weights.
    if tensor is None or _elements(tensor) == 1:
        return ""
    shape_operand = tensor.type == schema.TensorType.INT32 and tensor.quantization is None
    return "" if shape_operand else _tensor(schema, tensor)


def _table(header: Sequence[str], rows: Sequence[_Row]) -> Iterator[str]:
    cells = [tuple(header), *(row.cells for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        yield "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


def _elements(tensor: Any) -> int:
    count = 1
    for length in tensor.shape if tensor.shape is not None else ():
        count *= int(length)
    return count


def _tensor(schema: Any, tensor: Any) -> str:
    shape = "x".join(str(int(d)) for d in (tensor.shape if tensor.shape is not None else ()))
    text = f"{_type_name(schema, tensor.type)} {shape or 'scalar'}"
    params = tensor.quantization
    if params is None or params.scale is None or not len(params.scale):
        return text
    if len(params.scale) == 1:
        zero = int(params.zeroPoint[0]) if params.zeroPoint is not None else 0
        return f"{text} scale {params.scale[0]:.6g} zero {zero}"
    low, high = min(params.scale), max(params.scale)
    return (
        f"{text} {len(params.scale)} scales {low:.3g}..{high:.3g} "
        f"on axis {params.quantizedDimension}"
    )


def _type_name(schema: Any, number: int) -> str:
    return _constant_name(schema.TensorType, number).lower()


def _op_name(schema: Any, code: Any) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return f"custom {_text(code.customCode)}"
    return _constant_name(schema.BuiltinOperator, number)


def _constant_name(enumeration: Any, number: int) -> str:
    for name, value in vars(enumeration).items():
        if not name.startswith("_") and value == number:
            return str(name)
    raise KeyError(number)


def _text(raw: bytes | str | None) -> str:
    return printable_name(raw.decode("utf-8") if isinstance(raw, bytes) else str(raw or ""))


def _minimum_runtime(model: Any) -> str:
    for entry in model.metadata or ():
        if _text(entry.name) == RUNTIME_METADATA:
            data = model.buffers[entry.buffer].data
            return bytes(data).rstrip(b"\0").decode("ascii", "replace") if data is not None else ""
    return ""


def _partitions(path: Path) -> str:
    """What the runtime makes of the file, told by a separate process."""
    from deploykit.runners.base import RunnerSpec
    from deploykit.runners.process import open_runner

    try:
        with open_runner(RunnerSpec("litert", str(path), timeout_s=_RUNNER_TIMEOUT_S)) as runner:
            info = runner.info
    except RunnerError as error:
        return f"the runtime refuses the file: {error.found}"
    details = info.details
    plural = "" if details["partitions"] == 1 else "s"
    return (
        f"{details['partitions']} partition{plural}, {details['delegated_ops']} of "
        f"{details['ops']} operators ({info.runtime} {info.version})"
    )
