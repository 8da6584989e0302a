"""How a bundle was made, as its manifest remembers it, and back to what makes it again.

Only names in a registry and plain arguments are remembered, and only those are taken from a
manifest: a file never chooses code. An architecture that is ``package.module:callable``, a pickled
module and a module in memory must be given again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploykit.bundle import Bundle
from deploykit.errors import BundleError, SourceError, UserError
from deploykit.flow.plan import ConvertRequest
from deploykit.json_file import table, text, whole
from deploykit.model import Model, Precision
from deploykit.preprocess import ContractOrigin
from deploykit.sources.options import LoadOptions
from deploykit.target import Target

_CODE = ":"
_MOST = 1 << 20


def describe_making(
    model: Model, request: ConvertRequest, plan: Sequence[tuple[Target, Precision]]
) -> dict[str, Any]:
    """What a manifest says of a conversion: plain data for JSON.

    Args:
        model: What was loaded.
        request: What was asked for.
        plan: What that came to.
    """
    data: dict[str, Any] = {"load": _describe_loading(model), "convert": _describe(request, plan)}
    if request.calibration is not None:
        name = request.calibration.name if isinstance(request.calibration, Path) else "samples"
        data["calibrated_with"] = name
    return data


def _describe_loading(model: Model) -> dict[str, Any]:
    from deploykit.sources.stored_architecture import plain_kwargs

    given = model.source.load_options
    if model.source.kind == "module" or "input_shape" not in given:
        return {"in_memory": True}
    found: dict[str, Any] = {"key": given["key"], "input_shape": list(given["input_shape"])}
    arch = str(given["arch"])
    if _CODE in arch:
        return {**found, "callable": True}
    try:
        kwargs = plain_kwargs(given["arch_kwargs"], "the command line")
    except SourceError:  # objects from Python: not remembered, since no file could say them
        return {**found, "arch": arch, "other_arguments": True}
    return {**found, "arch": arch, "arch_kwargs": kwargs}


def _describe(request: ConvertRequest, plan: Sequence[tuple[Target, Precision]]) -> dict[str, Any]:
    observer = request.observer
    return {
        "targets": list(dict.fromkeys(target.name for target, _ in plan)),
        "precisions": list(dict.fromkeys(precision.value for _, precision in plan)),
        "options": {name: dict(values) for name, values in sorted(request.options.items())},
        "method": request.method or "",
        "observer": f"{observer.method}:{observer.percentile}" if observer else "",
        "keep_float": list(request.keep_float),
        "calibration_limit": request.calibration_limit,
        "skip_unreadable": request.skip_unreadable,
        "allow_suspicious": request.allow_suspicious,
        "keep_stages": request.keep_stages,
        "samples": request.samples,
    }


def remembered_loading(
    bundle: Bundle, *, arch: str = "", arch_kwargs: Mapping[str, Any] | None = None
) -> LoadOptions:
    """How the source of a bundle is loaded again.

    Args:
        bundle: A manifest.
        arch: The architecture, given anew; needed where it is code.
        arch_kwargs: Its arguments, given anew.

    Raises:
        BundleError: what the manifest says is not plain, or must be given again.
    """
    from deploykit.sources.stored_architecture import stored_architecture

    made = bundle.made.get("load")
    if made is None:  # a bundle of before
        return LoadOptions(arch=arch, arch_kwargs=arch_kwargs or {})
    try:
        made = table(made, "how the source was loaded")
        if made.get("in_memory"):
            raise BundleError(
                "the bundle was made from a module in memory",
                expected="a bundle of a file, to load it again",
            )
        again = made.get("callable") or made.get("other_arguments")
        if again and not arch:
            raise BundleError(
                "the bundle's architecture is code, which a file never chooses",
                expected="the architecture given again: --arch package.module:callable",
            )
        shape = tuple(whole(size, "a dimension") for size in made.get("input_shape", ()))
        options = LoadOptions(key=text(made.get("key", ""), "a key"), input_shape=shape)
        if arch:
            return replace(options, arch=arch, arch_kwargs=arch_kwargs or {})
        stored = text(made.get("arch", ""), "an architecture")
        kwargs = dict(table(made.get("arch_kwargs", {}), "its arguments"))
        if stored:
            stored, kwargs = stored_architecture(stored, kwargs, "the bundle")
        return replace(options, arch=stored, arch_kwargs={**kwargs, **(arch_kwargs or {})})
    except (TypeError, ValueError) as error:
        raise BundleError(f"how the bundle was made cannot be read: {error}") from error


def remembered_request(bundle: Bundle) -> ConvertRequest:
    """The request that makes a bundle again; its calibration data must be given anew.

    Raises:
        BundleError: a bundle of before, or one whose manifest says no such request.
    """
    from deploykit_quantize.policy import Observer

    made = bundle.made.get("convert")
    if made is None:
        raise BundleError(
            "the bundle does not say how it was made", advice="convert the model again"
        )
    try:
        made = table(made, "how the bundle was made")
        method, _, percentile = text(made["observer"], "an observer").partition(":")
        options = table(made["options"], "options")
        return ConvertRequest(
            targets=_texts(made["targets"]),
            precisions=_texts(made["precisions"]),
            options={
                text(name, "a target"): {
                    text(k, "an option"): text(v, "a value")
                    for k, v in table(values, "options").items()
                }
                for name, values in options.items()
            },
            method=text(made["method"], "a method") or None,
            observer=Observer(method, float(percentile)) if method else None,
            keep_float=_texts(made.get("keep_float", [])),
            calibration_limit=_number(made["calibration_limit"]),
            skip_unreadable=made["skip_unreadable"] is True,
            allow_suspicious=made["allow_suspicious"] is True,
            keep_stages=made["keep_stages"] is True,
            samples=_number(made["samples"]),
            verify=bundle.has_golden,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"how the bundle was made cannot be read: {type(error).__name__}: {error}"
        ) from error


def open_source_again(
    bundle: Bundle,
    source: Path,
    *,
    arch: str = "",
    arch_kwargs: Mapping[str, Any] | None = None,
    trust_code: bool = False,
) -> Model:
    """Load the source of a bundle as it was loaded then.

    Args:
        bundle: A manifest.
        source: The file that it was made from.
        arch: As for `remembered_loading`.
        arch_kwargs: Likewise.
        trust_code: Whether a file that runs code may be loaded; never remembered.

    Raises:
        SourceError: there is no such file, or it is another one.
        BundleError: as `remembered_loading`.
    """
    from deploykit.files import sha256_of
    from deploykit.sources.load import load

    if not source.exists():
        raise SourceError(f"there is no file {source}", expected="the bundle's source model")
    if sha256_of(source) != bundle.source["sha256"]:
        raise SourceError(
            f"{source} is not what the bundle was made from",
            expected=f"a file with SHA-256 {bundle.source['sha256'][:16]}...",
        )
    options = remembered_loading(bundle, arch=arch, arch_kwargs=arch_kwargs)
    model = load(source, options=replace(options, trust_code=trust_code), name=bundle.name)
    changed = model.preprocess != bundle.preprocess
    origin = ContractOrigin.USER if changed else model.preprocess_origin
    return replace(
        model, preprocess=bundle.preprocess, labels=bundle.labels, preprocess_origin=origin
    )


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError("no list of names")
    return tuple(text(value, "a name") for value in values)


def _number(value: Any) -> int | None:
    if value is None:
        return None
    number = whole(value, "a number of samples")
    if not 1 <= number <= _MOST:
        raise UserError(f"{number} samples in the bundle", expected=f"1 to {_MOST:,}")
    return number
