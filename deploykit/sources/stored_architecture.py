"""An architecture as a file names it: a name in a registry, and plain arguments, never code.

A checkpoint may come from anywhere, so what it says of its architecture must not choose code.
``package.module:callable`` is taken from the command line and from Python only. A name in a file is
looked up in timm, torchvision and deploykit's own architectures. Its arguments are numbers, words,
and containers of them: no word can be a path, an address or a dotted name, and no argument that
makes those libraries load a file is passed on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from deploykit.errors import SourceError
from deploykit.sources.architecture import split_architecture_name

REGISTRIES = "timm/NAME, torchvision/NAME or deploykit/NAME"

_NAME = re.compile(r"((timm|torchvision|deploykit)/)?[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_WORD = re.compile(r"(?!__)[A-Za-z0-9_+\-]{0,64}")
# What a library would load, or where from: timm's pretrained_cfg and checkpoint_path, torchvision's
# weights and weights_backbone, and whatever a later version calls the like.
_LOADS = re.compile(r"pretrain|weights|checkpoint|cache|path|file|folder|dir$|url|hub|repo")
_LARGEST = 1 << 20
_MOST_ITEMS = 256
_DEEPEST = 4


def stored_architecture(
    name: str, kwargs: Mapping[str, Any], origin: str
) -> tuple[str, dict[str, Any]]:
    """The architecture that a file names, checked: what `build_architecture` may be given.

    Args:
        name: In one of the forms of `REGISTRIES`, or a bare name of timm's; it may end with
            ``?key=value&...``.
        kwargs: Arguments of its constructor, as the file has them.
        origin: The file, for messages.

    Returns:
        The name without arguments, and all arguments as plain data.

    Raises:
        SourceError: the name is one of code, or an argument is not plain.
    """
    bare, in_name = split_architecture_name(name)
    if not _NAME.fullmatch(bare):
        raise SourceError(
            f"{origin} names the architecture {bare[:120]!r}; a file cannot choose code, so "
            "nothing was imported or run",
            expected=f"{REGISTRIES} in a file",
            advice="if you know that code and trust it, name it yourself: "
            "--arch package.module:callable",
        )
    return bare, plain_kwargs({**in_name, **kwargs}, origin)


def plain_kwargs(kwargs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The arguments that a file gives to its architecture, as Python's own plain types.

    Raises:
        SourceError: one is not plain data, or would have a library load something.
    """
    for key in kwargs:
        if not isinstance(key, str) or not key.isidentifier():
            raise _refusal(origin, str(key), "is no name of an argument")
        if _LOADS.search(key.lower()) and kwargs[key]:
            raise _refusal(origin, key, "loads other weights or files")
    return {key: _plain(value, origin, key) for key, value in kwargs.items()}


def _plain(value: Any, origin: str, key: str, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise _refusal(origin, key, "is nested too deeply")
    if (
        type(value).__module__ == "numpy"
        and hasattr(value, "item")
        and not getattr(value, "ndim", 1)
    ):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str) and _WORD.fullmatch(value):
        return str(value)
    if isinstance(value, (list, tuple)) and len(value) <= _MOST_ITEMS:
        items = [_plain(item, origin, key, depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        return {
            _plain(name, origin, key, depth + 1): _plain(item, origin, key, depth + 1)
            for name, item in value.items()
        }
    raise _refusal(origin, key, f"is {value!r:.80}")


def _refusal(origin: str, key: str, why: str) -> SourceError:
    return SourceError(
        f"{origin} gives its architecture the argument '{key[:80]}', which {why}",
        expected=f"plain data in a file: numbers up to {_LARGEST:,}, words, and containers of them",
        advice="name the architecture and its arguments yourself: --arch and --arch-kwargs",
    )
