"""Which runners there are: the core's own, and those of every installed target."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from deploykit.errors import UserError
from deploykit.runners.arm64 import on_cpu
from deploykit.runners.base import RunnerDefinition
from deploykit.runners.environments import Environment, why_not_made

_CORE = (
    RunnerDefinition(
        name="torch",
        backend="deploykit.runners.torch_backend:TorchBackend",
        requires="torch",
        extra="torch",
        runs="source",
        description="PyTorch in eager mode: the float reference of a torch source",
    ),
    RunnerDefinition(
        name="tensorflow",
        backend="deploykit.runners.tensorflow_backend:TensorflowBackend",
        requires="tensorflow",
        extra="tensorflow",
        runs="source",
        description="TensorFlow: the float reference of a Keras model or a SavedModel",
    ),
    RunnerDefinition(
        name="onnxruntime",
        backend="deploykit.runners.onnxruntime_backend:OrtBackend",
        requires="onnxruntime",
        extra="all",
        runs="onnx",
        description="ONNX Runtime on the CPU: every stage, exactly as its graph is written",
    ),
)


def runner_definitions() -> dict[str, RunnerDefinition]:
    """Every runner by name: the core's first, then each target's in the order of their names.

    Imports every installed target.

    Raises:
        ValueError: two runners have the same name (a bug of a plug-in).
    """
    from deploykit.target import available_targets, find_target

    found = {definition.name: definition for definition in _CORE}
    for target in available_targets():
        for definition in find_target(target).runners:
            if definition.name in found:
                raise ValueError(f"target {target}: a runner {definition.name!r} exists already")
            found[definition.name] = definition
    return found


def find_runner(name: str) -> RunnerDefinition:
    """The runner of that name; a target is imported only if the core has no such runner.

    ``NAME@CPU`` is an emulated runner on one of the CPUs of `deploykit.runners.arm64`.

    Raises:
        UserError: there is none, with the names that there are.
    """
    base, at, cpu = name.partition("@")
    if at:
        return on_cpu(find_runner(base), cpu)
    for definition in _CORE:
        if definition.name == name:
            return definition
    known = runner_definitions()
    if name not in known:
        raise UserError(f"no runner is called {name!r}", expected=f"one of {', '.join(known)}")
    return known[name]


def why_unavailable(definition: RunnerDefinition) -> str:
    """Why a runner cannot run on this machine; empty if it can.

    By its probe, or because its environment is not made.
    """
    if definition.environment is not None:
        return why_not_made(definition.environment)
    if not definition.probe:
        return ""
    module, _, function = definition.probe.partition(":")
    reason = getattr(import_module(module), function)()
    if not isinstance(reason, str):
        raise TypeError(f"{definition.probe} gave no text")
    return reason


def environments() -> dict[str, Environment]:
    """Every environment that a runner has for itself, by name.

    Raises:
        ValueError: two environments have the same name (a bug of a plug-in).
    """
    found: dict[str, Environment] = {}
    for definition in runner_definitions().values():
        own = definition.environment
        if own is None:
            continue
        if found.setdefault(own.name, own) != own:
            raise ValueError(f"runner {definition.name!r}: environment {own.name!r} is another's")
    return found


def named_runners(
    definitions: Iterable[RunnerDefinition], names: Iterable[str]
) -> tuple[RunnerDefinition, ...]:
    """Those among these that are named, ``NAME`` or ``NAME@CPU``, in the order of definitions."""
    wanted = tuple(dict.fromkeys(names))
    return tuple(
        d if name == d.name else find_runner(name)
        for d in definitions
        for name in wanted
        if name.partition("@")[0] == d.name
    )


def available_runners(definitions: Iterable[RunnerDefinition]) -> tuple[RunnerDefinition, ...]:
    """Those that can run on this machine: what is taken where the user names none.

    A runner that wants to be asked for is not among them.
    """
    return tuple(d for d in definitions if not d.on_request and not why_unavailable(d))
