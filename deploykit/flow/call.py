"""The functions as Python calls them: plain arguments instead of requests, errors in its own words.

`deploykit.convert`, `load`, `evaluate`, `run` and `inspect_file` are these. What they take from the
user they turn into what the command line gives, so that both do the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import DeploykitError, UserError
from deploykit.flow.convert import convert as convert_request
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.result import ConversionResult
from deploykit.model import Model
from deploykit.sources.load import load as load_source
from deploykit.sources.options import LoadOptions

if TYPE_CHECKING:
    import torch

    from deploykit.flow.run import ImageRun
    from deploykit.preprocess import Preprocess
    from deploykit.preprocess_flags import PreprocessChanges
    from deploykit.verdict import AccuracyTable, Report

_PRECISIONS = ("fp32", "fp16", "w8", "int8")
#: Flags whose Python name is another one than the flag's own, with the value where it has none.
_ARGUMENTS = {
    "--calibrate": "calibration=",
    "--calibration-samples": "calibration_limit=",
    "--skip-unreadable": "skip_unreadable=True",
    "--allow-suspicious-calibration": "allow_suspicious=True",
    "--trust-code": "LoadOptions(trust_code=True)",
    "--trust-pickle": "LoadOptions(trust_code=True)",
    "--arch": "LoadOptions(arch=...)",
    "--arch-kwargs": "LoadOptions(arch_kwargs=...)",
    "--key": "LoadOptions(key=...)",
    "--input": "LoadOptions(input_shape=...)",
    "--mean": "preprocess={'mean': ...}",
    "--std": "preprocess={'std': ...}",
    "--resize": "preprocess={'resize': ...}",
    "--crop": "preprocess={'size': ...}",
    "--color": "preprocess={'color': ...}",
    "--interpolation": "preprocess={'interpolation': ...}",
    "--no-verify": "verify=False",
    "--keep-stages": "keep_stages=True",
    "--layers": "layers=True",
    "--option": "options=",
    "--limit": "limits=",
    "--runner": "runners=",
    "--cpu": "cpus=",
    "--timeout": "timeout_s=",
    **{f"--{name}": f"{name}=True" for name in _PRECISIONS},
}
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def convert(
    model: Model | str | Path | torch.nn.Module,
    request: ConvertRequest | None = None,
    *,
    to: str | Sequence[str] | None = None,
    fp32: bool = False,
    fp16: bool = False,
    w8: bool = False,
    int8: bool = False,
    calibration: object = None,
    out: str | Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **fields: Any,
) -> ConversionResult:
    """Take a model to a bundle of artefacts, verified on their runtimes.

    Args:
        model: What `load` gives, or anything that it takes without further arguments.
        request: Everything in one object; the arguments below change its fields.
        to: Names of targets: ``"tflite"``, ``"tflite,onnx"``, a sequence, or ``"all"``.
        fp32: Whether to write float32 files; none of the four for each target's default.
        fp16: Whether to write float16 files.
        w8: Whether to write files with int8 weights.
        int8: Whether to write int8 files.
        calibration: Samples for int8: a path (folder of images, .npy, .npz); an array float32
            (n, C, H, W) of what the network reads, or uint8 (n, H, W, C) of images; a DataLoader,
            whose batches are taken apart, and of whose tuples the first entry counts; a dataset or
            another iterable of samples, each an array or a mapping from input name to array.
        out: The bundle's folder; None for one named like the model, here.
        progress: Called with one line a step.
        fields: Other fields of `ConvertRequest`.

    Raises:
        UserError: an argument or data that cannot be used; nothing was written.
        UnsupportedModelError: no target takes the model; nothing was written.
    """
    with python_names():
        base = request or ConvertRequest()
        changes: dict[str, Any] = dict(fields)
        if to is not None:
            changes["targets"] = _names_of(to)
        flags = zip(_PRECISIONS, (fp32, fp16, w8, int8), strict=True)
        if chosen := tuple(name for name, wanted in flags if wanted):
            changes["precisions"] = chosen
        if out is not None:
            changes["out"] = Path(out)
        if calibration is not None:
            changes["calibration"] = calibration
        unknown = sorted(set(changes) - set(ConvertRequest.__dataclass_fields__))
        if unknown:
            raise UserError(
                f"convert has no argument {', '.join(unknown)}",
                expected=f"of {', '.join(ConvertRequest.__dataclass_fields__)}",
            )
        for name in ("calibration", "calibration_table"):
            if isinstance(changes.get(name), str):
                changes[name] = Path(changes[name])
        found = replace(base, **changes)
        loaded = model if isinstance(model, Model) else load_source(model)
        return convert_request(loaded, found, progress=progress)


def load(
    source: str | Path | torch.nn.Module,
    *,
    options: LoadOptions = LoadOptions(),  # noqa: B008 - it is frozen
    example_input: object = None,
    name: str = "",
    preprocess: Preprocess | Mapping[str, Any] | str | Path | None = None,
    labels: Sequence[str] | str | Path | None = None,
) -> Model:
    """Load a model and bring it to ONNX.

    Args:
        source: A file, the folder of a SavedModel, or a ``torch.nn.Module``
            (`deploykit.sources.load`).
        options: What the user says of the source.
        example_input: For a module in memory: a tensor or array, or a tuple of them.
        name: The model's name; by default from the file's name or the module's class.
        preprocess: The contract; a mapping changes its fields (``{"mean": 0.5, "std": 0.5}``), a
            path is a JSON file of it.
        labels: Class names in the order of the output, or a text file with one a line.

    Raises:
        SourceError: the source cannot be read, or does not fit what was said of it.
        UnsupportedModelError: it can be read, but not be brought to ONNX.
        UserError: a contract or labels that cannot be used.
    """
    from deploykit.preprocess import ContractOrigin

    with python_names():
        changes = _changes_of(preprocess, labels)
        model = load_source(source, options=options, example_input=example_input, name=name)
        if changes:
            shape = model.inputs[0].shape if len(model.inputs) == 1 else ()
            contract = changes.apply(model.preprocess, shape)
            model = replace(model, preprocess=contract, preprocess_origin=ContractOrigin.USER)
        return model if changes.labels is None else replace(model, labels=changes.labels)


def evaluate(bundle: str | Path, data: str | Path, **arguments: Any) -> AccuracyTable:
    """Measure the accuracy of a bundle; the arguments are `deploykit.flow.evaluate.evaluate`'s."""
    from deploykit.flow.evaluate import evaluate as evaluate_bundle

    with python_names():
        return evaluate_bundle(bundle, data, **arguments)


def verify(bundle: str | Path, **arguments: Any) -> Report:
    """Verify a bundle again; the arguments are `deploykit.flow.verify.verify`'s."""
    from deploykit.flow.verify import verify as verify_bundle

    with python_names():
        return verify_bundle(bundle, **arguments)


def run(
    bundle: str | Path, images: str | Path | Sequence[str | Path], **arguments: Any
) -> tuple[ImageRun, ...]:
    """Name what is on images; the arguments are `deploykit.flow.run.run_images`'."""
    from deploykit.flow.run import run_images

    paths = [images] if isinstance(images, (str, Path)) else images
    with python_names():
        return run_images(Path(bundle), [Path(path) for path in paths], **arguments)


def inspect_file(path: str | Path) -> str:
    """What is in an artefact, or the fused graph of a model, as ``deploykit inspect`` prints it.

    Raises:
        UserError: there is no such file, or it is neither.
    """
    from deploykit.graph.text import format_graph
    from deploykit.model import Stage
    from deploykit.passes.pipeline import advance
    from deploykit.target import available_targets, find_target

    path = Path(path)
    with python_names():
        for name in available_targets():
            target = find_target(name)
            if path.exists() and target.recognizes(path):
                return target.inspect(path)
        return format_graph(advance(load_source(path), Stage.FUSED))


@contextmanager
def python_names() -> Iterator[None]:
    """Errors raised within name arguments as Python has them, not flags."""
    try:
        yield
    except DeploykitError as error:
        for name in ("found", "expected", "advice"):
            setattr(error, name, as_python(getattr(error, name)))
        error.args = tuple(as_python(a) if isinstance(a, str) else a for a in error.args)
        raise


def as_python(text: str) -> str:
    """A message with ``--calibrate`` as ``calibration=``, and so on."""

    def argument(match: re.Match[str]) -> str:
        flag = match.group()
        return _ARGUMENTS.get(flag, flag.removeprefix("--").replace("-", "_") + "=")

    return _FLAG.sub(argument, text)


def _names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(name.strip() for name in given.split(",") if name.strip())
    return tuple(given)


def _changes_of(
    preprocess: Preprocess | Mapping[str, Any] | str | Path | None,
    labels: Sequence[str] | str | Path | None,
) -> PreprocessChanges:
    from deploykit.preprocess_flags import PreprocessChanges, read_contract, read_labels

    whole: Preprocess | None = None
    fields: dict[str, Any] = {}
    if isinstance(preprocess, (str, Path)):
        whole = read_contract(Path(preprocess))
    elif isinstance(preprocess, Mapping):
        fields = dict(preprocess)
    else:
        whole = preprocess
    if isinstance(labels, (str, Path)):
        return PreprocessChanges(whole, fields, read_labels(str(labels)))
    names = None if labels is None else tuple(map(str, labels))
    if names is not None and (not names or not all(names)):
        raise UserError(f"labels= has {len(names)} names, some of them empty or none at all")
    return PreprocessChanges(whole, fields, names)
