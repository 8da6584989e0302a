"""What building an architecture gives, the registry of our own, and the errors of all libraries."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploykit.errors import SourceError

if TYPE_CHECKING:
    import torch

    from deploykit.preprocess import Preprocess


@dataclass(frozen=True, eq=False)
class Architecture:
    """An untrained network, built.

    Attributes:
        name: How it was named, e.g. ``timm/ghostnet_100``.
        module: The network, with weights of no meaning.
        input_shape: NCHW with batch 1, by its library's default; empty if that is not known.
        preprocess: How its library feeds it images; None if that is not known.
    """

    name: str
    module: torch.nn.Module
    input_shape: tuple[int, ...] = ()
    preprocess: Preprocess | None = None


REGISTERED: dict[str, Callable[..., Architecture]] = {}


def register_architecture(name: str, build: Callable[..., Architecture]) -> None:
    """Make ``deploykit/NAME`` known: ``build(**arch_kwargs)`` gives the `Architecture`.

    Raises:
        ValueError: the name is taken.
    """
    if name in REGISTERED:
        raise ValueError(f"architecture deploykit/{name} is registered twice")
    REGISTERED[name] = build


def unknown_name(library: str, name: str, known: Iterable[str]) -> SourceError:
    """The error for a name that a library does not have, with the nearest that it has."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return SourceError(
        f"{library} has no architecture called '{name}'",
        expected=f"e.g. {', '.join(f'{library}/{n}' for n in near or names[:5])}"
        if names
        else f"one that is registered under {library}/; none is",
    )


@contextlib.contextmanager
def building(name: str, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Turn what a constructor raises into a `SourceError` that tells what it was given."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        given = ", ".join(f"{k}={v!r}" for k, v in kwargs.items()) or "no arguments"
        raise SourceError(
            f"{name} cannot be built with {given}: {type(error).__name__}: {error}",
            advice="check --arch-kwargs",
        ) from error
