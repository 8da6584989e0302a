"""Lowering tables: op type → function, one table a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from deploykit.errors import UnsupportedOp, UnsupportedOpsError

if TYPE_CHECKING:
    import onnx_ir as ir

Lower = TypeVar("Lower", bound=Callable[..., object])
Each = TypeVar("Each", bound=Callable[..., object])
OpKey = tuple[str, str]


_ADVICE = (
    "replace it in the model with ops that are supported (docs/ops.md lists them), "
    "or register a lowering (CONTRIBUTING.md)"
)


class LoweringTable(Generic[Lower]):
    """The ops that one target can lower.

    A target makes one table and registers a function for each op:

        TABLE: LoweringTable[LowerFunction] = LoweringTable("tflite")

        @TABLE.register("Relu")
        def lower_relu(node, context): ...
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._functions: dict[OpKey, Lower] = {}
        self._unsupported: dict[OpKey, tuple[str, str]] = {}

    def register(self, *op_types: str, domain: str = "") -> Callable[[Lower], Lower]:
        """Decorator: this function lowers these ops.

        Raises:
            ValueError: an op has a function already.
        """

        def decorate(function: Lower) -> Lower:
            for op_type in op_types:
                key = (domain, op_type)
                if key in self._functions or key in self._unsupported:
                    raise ValueError(f"{self.target}: {op_type} is registered twice")
                self._functions[key] = function
            return function

        return decorate

    def register_each(self, **codes: object) -> Callable[[Each], Each]:
        """Decorator: this function lowers these ops, each with what the target calls it.

            @TABLE.register_each(Add="add", Sub="sub")
            def lower_arithmetic(node, context, code): ...

        Raises:
            ValueError: an op has a function already.
        """

        def decorate(function: Each) -> Each:
            for op_type, code in codes.items():
                self.register(op_type)(cast("Lower", partial(function, code=code)))
            return function

        return decorate

    def refuse(self, op_type: str, reason: str, advice: str = "", *, domain: str = "") -> None:
        """Say why an op of the canonical set has no lowering, and what the user can do."""
        key = (domain, op_type)
        if key in self._functions or key in self._unsupported:
            raise ValueError(f"{self.target}: {op_type} is registered twice")
        self._unsupported[key] = (reason, advice)

    @property
    def ops(self) -> frozenset[OpKey]:
        """All (domain, op type) that can be lowered."""
        return frozenset(self._functions)

    @property
    def refused(self) -> dict[OpKey, str]:
        """The ops that are refused with a reason."""
        return {key: reason for key, (reason, _) in self._unsupported.items()}

    def function_for(self, node: ir.Node) -> Lower:
        """The function for a node that `check` has let through."""
        return self._functions[(node.domain, node.op_type)]

    def missing(self, nodes: Iterable[ir.Node]) -> list[UnsupportedOp]:
        """Every node that cannot be lowered, in the graph's order."""
        from deploykit.graph.provenance import module_path

        found = []
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in self._functions:
                continue
            reason, advice = self._unsupported.get(
                key,
                (f"{self.target} has no lowering for it", _ADVICE),
            )
            op_type = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            found.append(UnsupportedOp(op_type, node.name or "", module_path(node), reason, advice))
        return found

    def check(self, nodes: Iterable[ir.Node]) -> None:
        """Refuse a graph with ops that cannot be lowered, naming all of them.

        Raises:
            UnsupportedOpsError: with every such node.
        """
        missing = self.missing(nodes)
        if missing:
            raise UnsupportedOpsError(self.target, missing)
