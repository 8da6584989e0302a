"""A note on a value: it holds a multiple of a value of the source.

A rewrite may leave a factor to the layers that read a value, whose weights take it up. What is
held is then another value than the source's, and bears a separate name; but its range is known
wherever that of the source's value is. The note says whose multiple it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_SOURCE_KEY = "deploykit.multiple_of"
_FACTOR_KEY = "deploykit.multiple_factor"


def set_multiple(value: ir.Value, source: str, factor: float) -> None:
    """Note that ``value`` holds ``factor`` (positive) times the source's value of this name."""
    value.metadata_props[_SOURCE_KEY] = source
    value.metadata_props[_FACTOR_KEY] = repr(factor)


def multiple_of(value: ir.Value) -> tuple[str, float]:
    """Name of the source's value, and the factor; its own name and 1 where nothing is noted."""
    name = value.metadata_props.get(_SOURCE_KEY)
    if name is None:
        return value.name or "", 1.0
    return name, float(value.metadata_props[_FACTOR_KEY])
