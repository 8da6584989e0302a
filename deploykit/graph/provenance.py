"""Where in the source a node comes from: module path and source line, carried as node metadata.

torch's exporter writes its own keys on every node; `adopt_torch_metadata` turns them into these
two, small and stable, and the passes carry them along. An ONNX file from elsewhere has neither,
and its node names serve instead.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

MODULE_KEY = "deploykit.module"
SOURCE_KEY = "deploykit.source"

_TORCH_SCOPES = "pkg.torch.onnx.name_scopes"
_TORCH_STACK = "pkg.torch.onnx.stack_trace"


def module_path(node: ir.Node) -> str:
    """Dotted path of the module that the node was exported from, e.g. ``blocks.3.0.se``."""
    return node.metadata_props.get(MODULE_KEY, "")


def source_line(node: ir.Node) -> str:
    """The source line of the node, as ``file.py:123``; empty where the source has none."""
    return node.metadata_props.get(SOURCE_KEY, "")


def copy_provenance(origins: Iterable[ir.Node], target: ir.Node) -> None:
    """Give ``target`` the module and source of the first of ``origins`` that has any."""
    for origin in origins:
        for key in (MODULE_KEY, SOURCE_KEY):
            if key in origin.metadata_props:
                target.metadata_props.setdefault(key, origin.metadata_props[key])


def adopt_torch_metadata(model: ir.Model) -> None:
    """Replace the exporter's metadata on every node with our two keys, in place.

    Source lines keep only the file's name and the line: a whole path would tie the artefact to
    the machine it was made on.
    """
    for node in model.graph.all_nodes():
        props = node.metadata_props
        module = _module_of(props.get(_TORCH_SCOPES, ""))
        source = _source_of(props.get(_TORCH_STACK, ""))
        props.clear()
        if module:
            props[MODULE_KEY] = module
        if source:
            props[SOURCE_KEY] = source


def _module_of(scopes: str) -> str:
    # A list of scopes from the root ('') to the op itself; the last but one is the module.
    try:
        names = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError):
        return ""
    return str(names[-2]) if len(names) >= 2 else ""


def _source_of(stack: str) -> str:
    # The last frame outside of torch is the user's own line.
    chosen = ""
    for line in stack.splitlines():
        line = line.strip()
        if not line.startswith('File "'):
            continue
        path, _, rest = line[len('File "') :].partition('", line ')
        if "/torch/" in path.replace("\\", "/") and chosen:
            continue
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        chosen = f"{name}:{rest.split(',', 1)[0]}"
    return chosen
