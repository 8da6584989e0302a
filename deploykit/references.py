"""References to code as text, ``package.module:attribute``: what definitions hold of plug-ins.

A reference is checked when a definition is loaded, by the module's source, so that a misspelt name
is an error then, and nothing heavy is imported. It is resolved when it is used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def resolve(reference: str) -> Any:
    """The attribute that a reference names.

    Raises:
        ImportError, AttributeError: it names nothing; `why_broken` says so in words.
    """
    module, _, attribute = reference.partition(":")
    return getattr(import_module(module), attribute)


@cache
def why_broken(reference: str) -> str:
    """Why a reference names nothing, in words; empty if it names something.

    The module itself is not imported (its parent packages are), but parsed.
    """
    module, colon, attribute = reference.partition(":")
    if not (colon and module and attribute.isidentifier()):
        return f"{reference!r} is not of the form module:attribute"
    try:
        spec = find_spec(module)
    except (ImportError, ValueError) as error:
        return f"{reference}: {error}"
    if spec is None:
        return f"{reference}: there is no module {module}"
    if spec.origin is None or not spec.origin.endswith(".py"):
        return "" if hasattr(import_module(module), attribute) else _lacks(module, attribute)
    names = set(_names(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))))
    return "" if attribute in names else _lacks(module, attribute)


def _lacks(module: str, attribute: str) -> str:
    return f"{module}:{attribute}: the module has no {attribute}"


def _names(tree: ast.Module) -> Iterator[str]:
    """What a module binds at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (t.id for t in targets if isinstance(t, ast.Name))
