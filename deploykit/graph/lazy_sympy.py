"""Import `onnx_ir` without sympy, which it needs for symbolic shapes only.

sympy costs 0.25 CPU seconds and 33 MB, and deploykit's graphs have static shapes. While `onnx_ir`
is imported for the first time, a stand-in takes sympy's place; it goes at once after that. What
`onnx_ir` keeps of it imports the real sympy when it is used, so code that does have symbolic
shapes works as ever. Nothing happens if sympy (as always with torch's exporter) or `onnx_ir` is
there already.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from deploykit.own_process import is_own_process

# The functions that onnx_ir puts into a table as it is imported. Any other attribute that is asked
# for meanwhile is the real one.
_TABLED = frozenset({"Max", "Min", "floor", "sqrt", "Mod"})


class _DeferredFunction:
    """Stands for one function of sympy, and imports sympy when it is called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any) -> Any:
        return getattr(importlib.import_module("sympy"), self._name)(*args)


class _StandIn(ModuleType):
    """Gives deferred functions while `onnx_ir` is imported, and the real sympy's after that."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(f"module 'sympy' has no attribute {name!r}")
        if sys.modules.get("sympy") is self:
            if name in _TABLED:
                return _DeferredFunction(name)
            del sys.modules["sympy"]
        return getattr(importlib.import_module("sympy"), name)


def import_onnx_ir() -> None:
    """Make sure that `onnx_ir` is imported, without sympy if that can be.

    Call it before the first ``import onnx_ir`` of a process; it is safe at any time, and does no
    more than import where the process is not deploykit's own.
    """
    if not is_own_process() or "onnx_ir" in sys.modules or "sympy" in sys.modules:
        importlib.import_module("onnx_ir")
        return
    stand_in = _StandIn("sympy")
    sys.modules["sympy"] = stand_in
    try:
        importlib.import_module("onnx_ir")
    finally:
        if sys.modules.get("sympy") is stand_in:
            del sys.modules["sympy"]
