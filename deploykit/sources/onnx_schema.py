"""What ONNX declares of its ops: attributes, inputs and outputs."""

from __future__ import annotations

import functools
from typing import Any


class Schema:
    """What ONNX declares of an op, read once."""

    def __init__(self, schema: Any, newest: Any) -> None:
        self.types = {name: int(a.type.value) for name, a in schema.attributes.items()}
        # Exporters write attributes of a newer version before its opset is declared.
        self.types_of_any_version = frozenset(newest.attributes)
        self.required = frozenset(n for n, a in schema.attributes.items() if a.required)
        self.inputs = (int(schema.min_input), int(schema.max_input))
        self.outputs = (int(schema.min_output), int(schema.max_output))
        single = [str(p.option).rpartition(".")[2] == "Single" for p in schema.inputs]
        self.needed_inputs = tuple(i for i, needed in enumerate(single) if needed)


@functools.lru_cache(maxsize=1024)
def schema_of(op_type: str, opset: int) -> Schema | None:
    """The declaration of an op of ONNX's domain at an opset; None if there is none."""
    import onnx.defs

    newest = onnx.defs.onnx_opset_version()
    try:
        schema = onnx.defs.get_schema(op_type, min(opset, newest), "")
        return Schema(schema, onnx.defs.get_schema(op_type, newest, ""))
    except onnx.defs.SchemaError:
        return None
