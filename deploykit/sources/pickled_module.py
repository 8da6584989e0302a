"""Pickled modules (``torch.save(model)``): only where the user trusts the file.

Unpickling runs whatever code the file names. Without ``--trust-code`` nothing of it is executed:
the refusal is written from the pickle's opcodes (`deploykit.sources.pickle_scan`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deploykit.errors import SourceError
from deploykit.sources.checkpoint import KEY_ORDER, checkpoint_of, is_state_dict
from deploykit.sources.checkpoint_source import network_of
from deploykit.sources.options import LoadOptions
from deploykit.sources.torch_source import TorchSource, import_torch, static_input_shape
from deploykit.sources.weights import refuse_bad_numbers


def open_pickled_module(
    path: Path, options: LoadOptions, foreign_globals: Sequence[str]
) -> TorchSource:
    """The network of a pickle that the user trusts.

    Args:
        path: A file of ``torch.save``.
        options: ``trust_code`` must be set.
        foreign_globals: What the pickle refers to besides tensors, for the refusal.

    Raises:
        SourceError: not trusted, not readable, or no network in it.
        MissingDependencyError: torch is not installed.
    """
    if not options.trust_code:
        raise _refusal(path, foreign_globals)
    torch = import_torch("a pickled module")
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # the pickle's own code may raise anything
        raise SourceError(
            f"{path} cannot be unpickled: {type(error).__name__}: {error}",
            advice="its classes must be importable, in the version that saved it; a state_dict "
            "with --arch does not need that",
        ) from error
    module = _module_in(content, options.key)
    if module is None:
        return network_of(
            checkpoint_of(content, options.key, origin=str(path)), options, origin=str(path)
        )
    if options.arch:
        raise SourceError(
            f"{path} holds a whole network; it has its architecture in it",
            advice="leave out --arch",
        )
    refuse_bad_numbers(module.state_dict(), str(path))
    shape = static_input_shape(options.input_shape, (), what=f"the pickled module {path}")
    return TorchSource(module.float().eval(), (shape,))


def _module_in(content: object, key: str):  # type: ignore[no-untyped-def]
    import torch

    if isinstance(content, torch.nn.Module):
        return content
    if not isinstance(content, Mapping):
        return None
    for name in (key,) if key else KEY_ORDER:
        value = content.get(name)
        if isinstance(value, torch.nn.Module):
            return value
        if is_state_dict(value):
            return None
    return None


def _refusal(path: Path, foreign_globals: Sequence[str]) -> SourceError:
    shown = ", ".join(foreign_globals[:4])
    more = f" and {len(foreign_globals) - 4} more" if len(foreign_globals) > 4 else ""
    return SourceError(
        f"{path} is a pickle that refers to code ({shown}{more}); loading it would run that code, "
        "so it was not loaded",
        expected="weights only, or a format without code",
        advice="one of these, where the model was made:\n"
        "      torch.save(model.state_dict(), FILE), then --arch names the code\n"
        "      torch.export.save(torch.export.export(model, (example,)), FILE)\n"
        "      torch.onnx.export(model, (example,), FILE, dynamo=True)\n"
        "    or --trust-code, if you made the file yourself",
    )
