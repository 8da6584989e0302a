"""Programs from files (TorchScript, .pt2, Keras, SavedModel) become ONNX in a child process.

The child closes its doors first (`deploykit.confine`) and has a time limit. It leaves an ONNX file
or the words of an error in a scratch folder; the file is read like any other ONNX file.
Where the user trusts the file's code, the child is not confined.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.child_process import run_child
from deploykit.confine import confine_process
from deploykit.errors import (
    DeploykitError,
    MissingDependencyError,
    SourceError,
    UnsupportedModelError,
)
from deploykit.limits import current_limits
from deploykit.own_process import claim_process
from deploykit.sources.options import LoadOptions
from deploykit.temporary import scratch_folder

if TYPE_CHECKING:
    import onnx_ir as ir

REQUEST, MODEL, ERROR, LACKING = "request.json", "model.onnx", "error.json", "lacking.json"
_QUOTED_LINES = 12
_ERRORS: dict[str, type[DeploykitError]] = {
    error.__name__: error
    for error in (DeploykitError, MissingDependencyError, SourceError, UnsupportedModelError)
}


def export_in_child(
    exporter: str, path: Path, options: LoadOptions, variables: Mapping[str, str] | None = None
) -> ir.Model:
    """Bring a program to ONNX.

    Args:
        exporter: The module that answers (`answer`), run as ``python -m``.
        path: The source.
        options: What the user says of it.
        variables: Environment variables of the child.

    Returns:
        As `deploykit.sources.onnx_file.read_onnx`.

    Raises:
        SourceError, UnsupportedModelError, MissingDependencyError: as the exporter raises; also
            where the child dies or takes too long.
    """
    from deploykit.sources.onnx_file import read_onnx

    limits = current_limits()
    with scratch_folder() as folder:
        request = {
            "path": str(path),
            "options": options.to_dict(),
            "memory": limits.program_bytes,
        }
        (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
        _run(exporter, folder, path, limits.program_seconds, variables)
        if (folder / LACKING).exists():
            lacking = ", ".join(json.loads((folder / LACKING).read_text(encoding="utf-8")))
            warnings.warn(f"this system does not keep {path} from {lacking}", stacklevel=2)
        if (folder / ERROR).exists():
            told = json.loads((folder / ERROR).read_text(encoding="utf-8"))
            error = _ERRORS[told["type"]].__new__(_ERRORS[told["type"]])
            DeploykitError.__init__(
                error, told["found"], expected=told["expected"], advice=told["advice"]
            )
            raise error
        return read_onnx(folder / MODEL)


def _run(
    exporter: str, folder: Path, path: Path, seconds: int, variables: Mapping[str, str] | None
) -> None:
    try:
        done = run_child(
            ["-m", exporter, str(folder)], timeout_s=float(seconds), variables=variables
        )
    except subprocess.TimeoutExpired as error:
        raise UnsupportedModelError(
            f"bringing {path} to ONNX took longer than {seconds} s, and was ended",
            advice="a loop in it may never end; --max program_seconds=N gives it more time",
        ) from error
    if done.returncode == 0:
        return
    lines = done.stderr.splitlines()
    quoted = "".join(f"\n    | {line}" for line in lines[-_QUOTED_LINES:])
    ending = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
    raise SourceError(
        f"the process that brought {path} to ONNX ended with {ending}{quoted}",
        advice="export the model to ONNX where it was made, and give that file; if it ran out of "
        "memory, --max program_bytes=SIZE gives it more",
    )


def answer(arguments: Sequence[str], export: Callable[[Path, LoadOptions], bytes]) -> int:
    """The child's side: answer the request in the folder.

    Args:
        arguments: The folder.
        export: From the source to a serialized ``ModelProto``; imports what it needs.

    Returns:
        The exit code: 0 also where the answer is an error of the source.
    """
    claim_process()
    folder = Path(arguments[0])
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    options = LoadOptions.from_dict(request["options"])
    tempfile.tempdir = str(folder)
    if not options.trust_code:
        lacking = confine_process(folder, request["memory"])
        if lacking:
            (folder / LACKING).write_text(json.dumps(lacking), encoding="utf-8")
    try:
        (folder / MODEL).write_bytes(export(Path(request["path"]), options))
    except DeploykitError as error:
        kind = type(error).__name__
        told = {
            "type": kind if kind in _ERRORS else "DeploykitError",
            "found": error.found,
            "expected": error.expected,
            "advice": error.advice,
        }
        (folder / ERROR).write_text(json.dumps(told), encoding="utf-8")
    return 0


def confine_for_program(path: str, load_options: Mapping[str, Any]) -> Callable[[], None]:
    """Confine this process, if it is to load a program whose code the user does not trust.

    Args:
        path: The source; empty for a module in memory.
        load_options: `LoadOptions.to_dict`.

    Returns:
        What removes its scratch folder, when the process leaves.
    """
    from deploykit.sources.detect import SourceKind, detect_kind

    programs = (
        *(SourceKind.EXPORTED_PROGRAM, SourceKind.TORCHSCRIPT),
        *(SourceKind.KERAS, SourceKind.SAVED_MODEL),
    )
    stack = contextlib.ExitStack()
    if path and not load_options.get("trust_code") and detect_kind(path) in programs:
        folder = stack.enter_context(scratch_folder())
        tempfile.tempdir = str(folder)  # TensorFlow does not start without one
        confine_process(folder, current_limits().program_bytes)
    return stack.close
