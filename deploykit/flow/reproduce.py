"""`reproduce`: make a bundle again from its source, and compare the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploykit.bundle import read_bundle
from deploykit.errors import UserError
from deploykit.flow.convert import convert
from deploykit.flow.recall import open_source_again, remembered_request


@dataclass(frozen=True)
class Reproduction:
    """What came of making a bundle again.

    Attributes:
        folder: The new bundle.
        same: Files that are the same to the byte.
        different: Files that are other ones, or are not there.
        libraries: Packages whose version is another one: ``name old → new``.
    """

    folder: Path
    same: tuple[str, ...]
    different: tuple[str, ...]
    libraries: tuple[str, ...]


def reproduce(
    folder: Path,
    source: Path,
    out: Path,
    *,
    calibration: Path | None = None,
    arch: str = "",
    arch_kwargs: Mapping[str, Any] | None = None,
    trust_code: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Make a bundle again as its manifest says it was made.

    Args:
        folder: The bundle.
        source: The file that it was made from.
        out: The new bundle's folder.
        calibration: What it was calibrated with, where that was not the checkpoint's own sample.
        arch: The architecture, given again: needed where that is ``package.module:callable``.
        arch_kwargs: Arguments of it, beside those that the bundle remembers.
        trust_code: Whether a source that runs code may be loaded; never remembered.
        progress: Called with one line a step.

    Raises:
        UserError: the bundle or source cannot be used, or calibration data are missing.
    """
    bundle = read_bundle(folder)
    if out.resolve() == folder.resolve():
        raise UserError(f"--out {out} is the bundle itself", expected="another folder")
    request = remembered_request(bundle)
    given = bundle.made.get("calibrated_with")
    if given and calibration is None:
        raise UserError(
            f"the bundle was calibrated with {given!r:.80}, which a bundle does not hold",
            expected="the same data again: --calibrate PATH",
        )
    model = open_source_again(
        bundle, source, arch=arch, arch_kwargs=arch_kwargs, trust_code=trust_code
    )
    request = replace(request, out=out, calibration=calibration)
    made = convert(model, request, progress=progress).bundle
    files = {f.path: f.sha256 for a in made.artifacts for f in a.files}
    wanted = {f.path: f.sha256 for a in bundle.artifacts for f in a.files}
    names = {**bundle.libraries, **made.libraries}
    changed = tuple(
        f"{name} {bundle.libraries.get(name, '-')} → {made.libraries.get(name, '-')}"
        for name in sorted(names)
        if bundle.libraries.get(name) != made.libraries.get(name)
    )
    same = tuple(path for path, digest in wanted.items() if files.get(path) == digest)
    return Reproduction(out, same, tuple(p for p in wanted if p not in same), changed)
