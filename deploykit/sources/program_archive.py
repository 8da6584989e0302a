"""Whether an exported program (.pt2) is data alone, before torch opens it.

``torch.export.load`` is not made for files from strangers: it unpickles example inputs and some
constants with code allowed, loads native libraries that the archive brings along, evaluates the
expressions of dynamic shapes, and calls whatever function of torch's namespace a node names. A
program of a network for images needs none of this. Here the archive is read as zip and JSON and
refused if it asks for any of it; `weights_only_enforced` closes the rest while torch loads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.sources.allowed_operators import is_allowed

# What a node may call: operators of `allowed_operators`, and arithmetic on sizes.
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(\.(?!__)[A-Za-z_]\w*)?", re.ASCII)
_TARGET = re.compile(
    r"_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge)"
    r"|math\.(ceil|floor|trunc|sqrt)"
)
_NAME = re.compile(r"[A-Za-z_]\w*")
# A number or one symbol; torch evaluates these as Python.
_EXPRESSION = re.compile(
    r"-?\d+|(?!_)[A-Za-z]\w*|Symbol\('(?!_)[A-Za-z]\w*'(, \w+=(True|False))*\)"
)
# RuntimeError: a member is encrypted.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
_NAMED_KEYS = ("target", "as_operator")
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORCE_NOT = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def check_program_archive(path: Path) -> None:
    """Refuse an archive with anything in it that would run as code.

    Raises:
        SourceError: it holds Python objects, native code, or names functions that are no ops; or
            it is damaged.
        UnsupportedModelError: its shapes are expressions of dynamic dimensions.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # torch finds members without regard to case, and other readers take another one of
            # two that are called the same: what is checked must be what is loaded.
            if len({name.lower() for name in names}) != len(names):
                raise _refusal(path, "two members of one name")
            for name in names:
                if "aotinductor/" in name.lower():
                    raise _refusal(path, f"compiled code ({name})")
                if name.lower().endswith(".json") or "models/" in name.lower():
                    _check_document(json.loads(archive.read(name)), path)
    except (*_DAMAGED, ValueError, RecursionError) as error:
        raise SourceError(
            f"the exported program {path} is damaged: {error}", advice="get the file again"
        ) from error


@contextlib.contextmanager
def weights_only_enforced() -> Iterator[None]:
    """Within this, every ``torch.load`` takes tensors and plain data only, whatever it was told.

    It is torch's own switch, an environment variable that it reads at each call.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _check_document(value: Any, path: Path) -> None:
    if isinstance(value, list):
        for item in value:
            _check_document(item, path)
    elif isinstance(value, Mapping):
        _check_entry(value, path)
        for item in value.values():
            _check_document(item, path)


def _check_entry(entry: Mapping[str, Any], path: Path) -> None:
    for key in _NAMED_KEYS:
        target = entry.get(key)
        if isinstance(target, str) and not _is_known_target(target):
            raise _refusal(path, f"a call of '{target[:80]}', which no network for images needs")
    stored = str(entry.get("path_name", ""))
    if entry.get("use_pickle") or stored.startswith(("custom_obj", "opaque_obj")):
        raise _refusal(path, f"a pickled object ({stored or 'unnamed'})")
    expression = entry.get("expr_str")
    if expression is not None and not _EXPRESSION.fullmatch(str(expression)):
        raise UnsupportedModelError(
            f"{path} has a size that depends on others: {str(expression)[:80]}",
            expected="static shapes",
            advice="export it without dynamic_shapes",
        )
    # These become the names of variables in code that torch writes and runs.
    names = [entry.get("name"), *(entry.get("forward_arg_names") or ())]
    for name in names:
        if isinstance(name, str) and name and not _NAME.fullmatch(name):
            raise _refusal(path, f"a value called '{name[:80]}'")


def _is_known_target(target: str) -> bool:
    operator = _OPERATOR.fullmatch(target)
    if operator is not None:
        return is_allowed(operator[1], operator[2])
    return bool(_TARGET.fullmatch(target))


def _refusal(path: Path, what: str) -> SourceError:
    return SourceError(
        f"the exported program {path} holds {what}; it was not loaded",
        expected="tensors and ops only",
        advice="save it again from the module: torch.export.save(torch.export.export(model, "
        "(example,)), FILE); or --trust-code, if you made the file yourself",
    )
