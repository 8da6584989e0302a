"""A part of a network by name: what a rule for single layers speaks of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from deploykit.errors import UserError
from deploykit.graph.provenance import module_path

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Scope:
    """Nodes by a regular expression.

    It fits a node if it fits, as a whole, the name of a value that the node makes, the path of the
    module that the node was exported from, or the path of a module that contains that one:
    ``blocks.5`` is everything below ``blocks.5``.

    Attributes:
        pattern: The expression, as Python's `re` has it.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(
                f"{self.pattern!r} as the name of layers: {error}",
                expected="a regular expression over module paths and value names, e.g. "
                r"'blocks\.5' or 'classifier|stem'",
            ) from None

    def matches(self, node: ir.Node) -> bool:
        """Whether the node is one of them."""
        names = [value.name for value in node.outputs if value.name]
        return _fits(self.pattern, (*names, *_modules(module_path(node))))


@lru_cache(maxsize=65536)
def _fits(pattern: str, names: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)


def _modules(path: str) -> list[str]:
    """A module's path, and those of what contains it."""
    parts = path.split(".") if path else []
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def check_scopes(graph: ir.Graph, scopes: tuple[Scope, ...]) -> None:
    """Refuse scopes that say nothing, or everything.

    Args:
        graph: The fused stage's.
        scopes: Of layers that are to stay float.

    Raises:
        UserError: one fits no node, or together they fit all nodes with weights.
    """
    from deploykit_quantize.weighted_layer import weighted_layer

    layers = [node for node in graph if weighted_layer(node) is not None]
    for scope in scopes:
        if not any(scope.matches(node) for node in graph):
            some = [module_path(node) or str(node.outputs[0].name) for node in layers[:6]]
            raise UserError(
                f"--keep-float {scope.pattern!r} fits no layer of the model",
                expected="a regular expression that fits a module's path or a value's name, "
                f"e.g. one of {', '.join(dict.fromkeys(some))}",
                advice="deploykit inspect MODEL lists them",
            )
    if layers and all(any(scope.matches(node) for scope in scopes) for node in layers):
        raise UserError(
            "--keep-float fits every layer of the model, so nothing would be quantized",
            expected="a part of the layers",
            advice="leave out --int8 for a file in floats",
        )
