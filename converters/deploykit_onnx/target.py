"""What the definition names: how a stage becomes a file of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import ContractError, NoIntegerLayersError
from deploykit.lowering import LoweringTable
from deploykit.model import Model, Precision
from deploykit.runners.onnxruntime_backend import EXACT_INTEGERS
from deploykit.target import Artifact, ArtifactRequest
from deploykit.tensors import QuantParams, TensorSpec
from deploykit_onnx.definition import NAME
from deploykit_onnx.options import WriteOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from deploykit_quantize.policy import Policy

_ORT = ".ort"
_SATURATION = (
    "onnx int8: on x86 CPUs without VNNI, ONNX Runtime adds products of 8-bit integers in pairs in "
    "16 bits, which can saturate at weights beyond 64 steps; there an app sets the session option "
    f"{EXACT_INTEGERS}=1 (as the runners here do), or convert with --option onnx.reduce_range=yes; "
    "ARM CPUs need neither"
)
#: Two products of it with 255 fit into 16 bits.
_SAFE_WEIGHT = 64
_EIGHT_BITS = ("int8", "uint8")


def write_artifact(model: Model, request: ArtifactRequest) -> Artifact:
    """A fused or quantized stage as an .onnx file in memory.

    Args:
        model: A fused stage (fp32, fp16) or one with QDQ (w8, int8); static shapes.
        request: Options: see `deploykit_onnx.options.OPTIONS`.

    Raises:
        UnsupportedOpsError: an op that is not in the canonical set.
        ContractError: an unknown option, or a stage that does not fit the precision.
        DataError: fp16 of a constant that float16 cannot hold.
    """
    from deploykit.passes.base import run_passes
    from deploykit_onnx.half_precision import convert_to_half
    from deploykit_onnx.lowerings import TABLE
    from deploykit_onnx.policy import WRITING
    from deploykit_onnx.write_ort_file import write_ort_file

    options = WriteOptions.parse(request.options)
    _check_stage(model, request.precision)
    TABLE.check(model.graph.graph)
    graph = model.graph.clone()
    run_passes(graph, WRITING)
    if request.precision is Precision.FP16:
        convert_to_half(graph)
    written = model.advanced(graph, model.stage, ())
    data = written.serialized()
    companions = {}
    if options.ort:
        ort = write_ort_file(data)
        companions = {_ORT: ort.data, ".required_operators.config": ort.operators.encode()}
    names, specs = _integer_values(graph)
    if not names:
        names, specs = _float_values(model.graph, graph)
    steps = {v.name: specs[names[v.name]].quantization for v in written.outputs if v.name in names}
    return Artifact(
        target=NAME,
        precision=request.precision,
        suffix=".onnx",
        data=data,
        companions=companions,
        inputs=written.inputs,
        outputs=written.outputs,
        output_steps={name: params for name, params in steps.items() if params is not None},
        value_names=names,
        value_specs=specs,
        summary={"ops": len(graph.graph), "op_counts": _op_counts(graph)},
        warnings=(_SATURATION,) if _may_saturate(graph, specs) else (),
    )


def choose_policy(precision: Precision, options: Mapping[str, str]) -> Policy | None:
    """How a precision is quantized, given options; None where the float stage is written.

    Raises:
        ContractError: an unknown option or value.
    """
    from deploykit_onnx.options import WriteOptions
    from deploykit_onnx.policy import policy_of

    return policy_of(precision, WriteOptions.parse(options))


def check_request(request: ArtifactRequest) -> None:
    """Refuse what an option may not be.

    Raises:
        ContractError: an unknown option or value.
    """
    WriteOptions.parse(request.options)


def recognizes(path: Path) -> bool:
    """Whether a file is an .ort file; an .onnx file is a source."""
    from deploykit_onnx.rewrite_ort_file import IDENTIFIER

    try:
        with path.open("rb") as stream:
            return stream.read(8)[4:] == IDENTIFIER
    except OSError:
        return False


def inspect(path: Path) -> str:
    """The operators of an .ort file in words.

    Raises:
        SourceError: the file is damaged.
    """
    from deploykit_onnx.write_ort_file import read_operators

    lines = [f"{path.name}: ONNX Runtime flatbuffer, {path.stat().st_size:,} bytes"]
    for domain, opsets in sorted(read_operators(path).items()):
        for opset, ops in sorted(opsets.items()):
            lines.append(f"  {domain} {opset}: {', '.join(sorted(ops))}")
    return "\n".join(lines)


def lowering_table() -> LoweringTable[Any]:
    """The canonical set."""
    from deploykit_onnx.lowerings import TABLE

    return TABLE


def _check_stage(model: Model, precision: Precision) -> None:
    from deploykit.graph.qdq import has_qdq

    quantized = has_qdq(model.graph)
    if precision is Precision.INT8 and not quantized:
        raise NoIntegerLayersError
    # A model without a weight that is worth it has none quantized in w8.
    if quantized and precision not in (Precision.INT8, Precision.W8):
        raise ContractError(
            f"precision {precision.value} from a model that is quantized",
            expected="a float model",
        )


def _may_saturate(graph: ir.Model, specs: Mapping[str, TensorSpec]) -> bool:
    """Whether 8-bit activations (int8 ones are shifted to uint8 there) meet large int8 weights."""
    import numpy as np

    from deploykit.graph.read_qdq import is_dequantize
    from deploykit.graph.reading import constant_array

    if not any(s.quantization and s.quantization.dtype in _EIGHT_BITS for s in specs.values()):
        return False
    weights = [constant_array(node.inputs[0]) for node in graph.graph if is_dequantize(node)]
    return any(
        w is not None
        and w.dtype == np.int8
        and w.size
        and int(np.abs(w.astype(np.int16)).max()) > _SAFE_WEIGHT
        for w in weights
    )


def _op_counts(graph: ir.Model) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def _integer_values(graph: ir.Model) -> tuple[dict[str, str], dict[str, TensorSpec]]:
    """What each DequantizeLinear of a computed value makes, and the integers that it reads."""
    from deploykit.graph.read_qdq import is_dequantize, is_quantize, read_params
    from deploykit.graph.reading import known_shape

    names: dict[str, str] = {}
    specs: dict[str, TensorSpec] = {}
    for node in graph.graph:
        integers = node.inputs[0]
        producer = integers.producer() if integers is not None else None
        if not is_dequantize(node) or producer is None or not is_quantize(producer):
            continue
        params: QuantParams = read_params(node)
        shape = known_shape(node.outputs[0])
        name, real = integers.name or "", node.outputs[0].name or ""  # type: ignore[union-attr]
        names[real] = name
        spec = TensorSpec(name, shape, params.dtype, quantization=params)
        specs[name] = replace(spec, layout="NCHW" if len(shape) == 4 else "plain")
    return names, specs


def _float_values(stage: ir.Model, graph: ir.Model) -> tuple[dict[str, str], dict[str, TensorSpec]]:
    """The values that a stage and what is written of it both have."""
    from deploykit.graph.reading import static_shape

    shapes = [
        {v.name: static_shape(v) for node in m.graph for v in node.outputs} for m in (stage, graph)
    ]
    dtypes = {v.name: v.dtype for node in graph.graph for v in node.outputs}
    names = {n: n for n, s in shapes[0].items() if n and s is not None and shapes[1].get(n) == s}
    specs = {}
    for name in names:
        shape, dtype = shapes[1][name], dtypes[name]
        assert shape is not None
        layout = "NCHW" if len(shape) == 4 else "plain"
        kind = dtype.numpy().name if dtype is not None else "float32"
        specs[name] = TensorSpec(name, shape, kind, layout)  # type: ignore[arg-type]
    return names, specs
