"""coremltools, without what it imports and says on the way.

Its ``__init__`` imports torch, TensorFlow, scikit-learn and more where they are installed (3.3 CPU
seconds and 360 MB with torch), to convert their models, and warns about versions of them that it
was not tested with, and about libraries that exist on a Mac only. We hand it a program that is
made already: in deploykit's own processes those packages are hidden from its import, which then
takes 0.6 CPU seconds and 90 MB.

The protobuf messages alone need none of that: `load_protobuf` imports them without the package's
``__init__``.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

from deploykit.errors import MissingDependencyError
from deploykit.own_process import is_own_process

PACKAGE = "coremltools"
_HIDDEN = ("torch", "tensorflow", "sklearn", "xgboost", "executorch", "transformers")
_ALIAS = "_deploykit_coreml_messages"


def load_coremltools() -> Any:
    """The package ``coremltools``, imported without noise.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if sys.modules.get(PACKAGE) is not None:
        return sys.modules[PACKAGE]
    if importlib.util.find_spec(PACKAGE) is None:
        raise _missing()
    hidden = _hidden_modules() if is_own_process() else nullcontext()
    with hidden, _quiet_logging():
        return importlib.import_module(PACKAGE)


def load_builder() -> Any:
    """coremltools' MIL Builder, usually called ``mb``.

    Raises:
        MissingDependencyError: coremltools is not installed.
    """
    load_coremltools()
    with _quiet_logging():
        return importlib.import_module("coremltools.converters.mil").Builder


def load_protobuf(name: str) -> Any:
    """One module of protobuf messages, ``Model_pb2`` or ``MIL_pb2``, and nothing else.

    The modules are the ones that coremltools itself uses; where it is imported too, the classes of
    the messages are the same.

    Raises:
        MissingDependencyError: coremltools is not installed.
    """
    if sys.modules.get(PACKAGE) is not None:
        return importlib.import_module(f"{PACKAGE}.proto.{name}")
    if _ALIAS not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise _missing()
        package = ModuleType(_ALIAS)
        package.__path__ = [f"{folder}/proto" for folder in spec.submodule_search_locations]
        sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.{name}")


def _missing() -> MissingDependencyError:
    return MissingDependencyError(PACKAGE, needed_for="the target 'coreml'", extra="coreml")


@contextmanager
def _hidden_modules() -> Iterator[None]:
    """Packages that look as if they were not installed, while the block runs."""
    kept = {name: sys.modules[name] for name in _HIDDEN if name in sys.modules}
    sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type]  # None: "not there"
    try:
        yield
    finally:
        for name in _HIDDEN:
            del sys.modules[name]
        sys.modules.update(kept)


@contextmanager
def _quiet_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
