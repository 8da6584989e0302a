"""Architectures by name: ``timm/NAME``, ``torchvision/NAME``, ``deploykit/NAME``, or a callable.

A name is resolved to an `Architecture`: the untrained module, and what its library says of the
image it reads. Nothing is ever downloaded.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import SourceError
from deploykit.sources.built_architecture import REGISTERED, Architecture, building, unknown_name

if TYPE_CHECKING:
    pass

FORMS = "timm/NAME, torchvision/NAME, deploykit/NAME or package.module:callable"


def build_architecture(name: str, kwargs: Mapping[str, Any]) -> Architecture:
    """The untrained network of a name.

    Args:
        name: In one of the four forms. A name without any is timm's, or
            torchvision's where timm has none of that name. It may end with
            keyword arguments of the constructor: ``deploykit/efficientnet?phi=3&num_classes=10``.
        kwargs: Keyword arguments of its constructor; they win over those in the name.

    Raises:
        SourceError: the name is unknown (near ones are named), or the constructor refuses.
        MissingDependencyError: the library is not installed.
    """
    name, in_name = split_architecture_name(name)
    kwargs = {**in_name, **kwargs}
    for forbidden in ("pretrained", "weights", "weights_backbone", "checkpoint_path"):
        if kwargs.get(forbidden):
            raise SourceError(
                f"the architecture argument {forbidden}={kwargs[forbidden]!r} loads other weights",
                advice="leave it out: the weights come from the file",
            )
    library, slash, rest = name.partition("/")
    if slash and library == "timm":
        from deploykit.sources.timm_architecture import build_timm

        return build_timm(rest, kwargs)
    if slash and library == "torchvision":
        from deploykit.sources.torchvision_architecture import build_torchvision

        return build_torchvision(rest, kwargs)
    if slash and library == "deploykit":
        import deploykit.architectures  # noqa: F401 - registers them; needs torch

        if rest not in REGISTERED:
            raise unknown_name("deploykit", rest, REGISTERED)
        with building(name, kwargs):
            return REGISTERED[rest](**kwargs)
    if ":" in name and not slash:
        return _build_callable(name, kwargs)
    if not slash and name.partition(".")[0].isidentifier():
        return build_architecture(f"{_library_of(name)}/{name}", kwargs)
    raise SourceError(f"the architecture '{name}'", expected=FORMS)


def _library_of(name: str) -> str:
    """The library that a bare name is of: timm's, unless torchvision alone has it."""
    from deploykit.sources.identify_architecture import read_index

    known = {name for names in read_index().architectures.values() for name in names}
    only_torchvision = f"torchvision/{name}" in known and f"timm/{name}" not in known
    return "torchvision" if only_torchvision else "timm"


def split_architecture_name(name: str) -> tuple[str, dict[str, Any]]:
    """The name before ``?``, and the keyword arguments behind it.

    ``timm/ghostnet_050?num_classes=10&drop_rate=0.5`` has two. A value is read as a Python literal
    (``10``, ``0.5``, ``True``, ``None``, ``(3, 3)``) and is text where it is none.

    Raises:
        SourceError: what stands behind ``?`` is no ``key=value``, or says a key twice.
    """
    bare, question, query = name.partition("?")
    if not question:
        return name, {}
    found: dict[str, Any] = {}
    for part in query.split("&"):
        key, equals, text = part.partition("=")
        if not equals or not key.isidentifier() or key in found:
            raise SourceError(
                f"the architecture '{name}' has {part!r} behind its '?'",
                expected="key=value, joined by '&', each key once",
                advice=f"e.g. {bare}?num_classes=10",
            )
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[key] = text
    return bare, found


def _build_callable(name: str, kwargs: Mapping[str, Any]) -> Architecture:
    import torch

    module_name, _, attribute = name.partition(":")
    with _working_folder_importable():
        try:
            target: Any = importlib.import_module(module_name)
        except ImportError as error:
            raise SourceError(
                f"cannot import '{module_name}', named by the architecture '{name}': {error}",
                advice="run deploykit from the folder that holds it, or install it",
            ) from error
        for part in attribute.split("."):
            if not hasattr(target, part):
                near = difflib.get_close_matches(part, dir(target), n=3)
                raise SourceError(
                    f"'{module_name}' has no '{attribute}'",
                    expected=f"a callable that returns the network"
                    f"{', e.g. ' + ', '.join(near) if near else ''}",
                )
            target = getattr(target, part)
        if isinstance(target, torch.nn.Module):
            raise SourceError(
                f"'{name}' is a module, not a callable that builds one",
                advice="name its class, or a function that returns it",
            )
        with building(name, kwargs):
            module = target(**kwargs)
    if not isinstance(module, torch.nn.Module):
        raise SourceError(
            f"'{name}' returned a {type(module).__name__}", expected="a torch.nn.Module"
        )
    return Architecture(name, module)


@contextlib.contextmanager
def _working_folder_importable() -> Iterator[None]:
    # As `python -m` does; an installed command has not got it.
    folder = str(Path.cwd())
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
