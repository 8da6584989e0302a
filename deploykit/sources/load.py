"""The door: a path or a module in memory to the exported stage of a `Model`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import SourceError
from deploykit.model import Model, PassNote, SourceInfo, Stage
from deploykit.passes.base import Findings
from deploykit.preprocess import ContractOrigin
from deploykit.sources.detect import Detection, SourceKind, detect
from deploykit.sources.options import LoadOptions

if TYPE_CHECKING:
    import torch

    from deploykit.sources.torch_source import TorchSource


def load(
    source: str | Path | torch.nn.Module,
    *,
    options: LoadOptions = LoadOptions(),  # noqa: B008 - it is frozen
    example_input: object = None,
    name: str = "",
) -> Model:
    """Load a model and bring it to ONNX.

    Args:
        source: A file (checkpoint, safetensors, exported program, TorchScript, ONNX, pickled
            module, Keras model: distinguished by content), the folder of a SavedModel, or a
            ``torch.nn.Module`` in memory. A module is put into evaluation mode, float32 and on the
            CPU on a copy, not in place.
        options: What the user says of the source.
        example_input: For a module in memory: a tensor or array, or a tuple of them, float, with
            the batch; only shapes are used. ``options.input_shape`` serves instead.
        name: The model's name; by default from the file's name or the module's class.

    Returns:
        The exported stage: static shapes, float32 inputs, opset `deploykit.graph.ops.OPSET`.

    Raises:
        SourceError: the source cannot be read, or does not fit what was said of it.
        UnsupportedModelError: it can be read, but not be brought to ONNX.
        MissingDependencyError: a package that this kind of source needs is not installed.
    """
    if not isinstance(source, (str, Path)):
        return _load_object(source, options, example_input, name)
    path = Path(source)
    detection = detect(path)
    if detection.kind is SourceKind.ONNX:
        return _load_onnx(path, options, name)
    if detection.kind in (SourceKind.KERAS, SourceKind.SAVED_MODEL):
        return _load_tensorflow(path, options, name, detection.kind)
    if detection.kind in (SourceKind.EXPORTED_PROGRAM, SourceKind.TORCHSCRIPT):
        return _load_torch_program(path, options, name, detection.kind)
    opened = open_torch_source(path, options, detection)
    return _model_of(
        opened,
        name=name or path.stem,
        info=_info(detection.kind, path, options, opened.arch, reference="torch"),
    )


def open_torch_source(
    path: Path, options: LoadOptions, detection: Detection | None = None
) -> TorchSource:
    """Load what torch can run, without bringing it to ONNX.

    Raises:
        SourceError: the file cannot be read or does not fit the options; also for one that torch
            cannot run (ONNX, Keras, SavedModel).
        MissingDependencyError: a package is not installed.
    """
    detection = detection or detect(path)
    kind = detection.kind
    foreign = {
        SourceKind.ONNX: "an ONNX file",
        SourceKind.KERAS: "a Keras model",
        SourceKind.SAVED_MODEL: "a TensorFlow SavedModel",
    }
    if kind in foreign:
        raise SourceError(f"{path} is {foreign[kind]}", expected="a source that torch can run")
    if kind is SourceKind.CHECKPOINT:
        from deploykit.sources.checkpoint_source import open_checkpoint

        return open_checkpoint(path, options)
    if kind is SourceKind.SAFETENSORS:
        from deploykit.sources.safetensors_file import open_safetensors

        return open_safetensors(path, options)
    if kind is SourceKind.EXPORTED_PROGRAM:
        from deploykit.sources.exported_program import open_exported_program

        return open_exported_program(path, options)
    if kind is SourceKind.TORCHSCRIPT:
        from deploykit.sources.torchscript import open_torchscript

        return open_torchscript(path, options)
    from deploykit.sources.pickled_module import open_pickled_module

    return open_pickled_module(path, options, detection.foreign_globals)


def sanitize_name(text: str) -> str:
    """A name for files: lower case, ``[a-z0-9_.-]``, never empty, hidden or dots alone."""
    return re.sub(r"[^a-z0-9_.-]+", "_", text.lower()).strip("._-") or "model"


def _load_onnx(path: Path, options: LoadOptions, name: str) -> Model:
    from deploykit.sources.onnx_file import read_onnx
    from deploykit.sources.onnx_opset import UPGRADED

    if options.arch:
        raise SourceError(
            f"{path} is an ONNX file; it has its architecture in it",
            advice="leave out --arch",
        )
    findings = Findings("read_onnx")
    graph = read_onnx(path, options.input_shape, findings)
    upgrade = graph.metadata_props.pop(UPGRADED, "")
    upgraded = (PassNote("upgrade_opset", path.name, True, upgrade),) if upgrade else ()
    return Model(
        graph=graph,
        stage=Stage.EXPORTED,
        name=sanitize_name(name or path.stem),
        source=_info(SourceKind.ONNX, path, options, "", reference="onnxruntime"),
        notes=(*upgraded, *findings.result().notes),
    )


def _load_tensorflow(path: Path, options: LoadOptions, name: str, kind: SourceKind) -> Model:
    from deploykit.sources.tensorflow_source import read_tensorflow

    return Model(
        graph=read_tensorflow(path, options),
        stage=Stage.EXPORTED,
        name=sanitize_name(name or path.stem or path.resolve().name),
        source=_info(kind, path, options, "", reference="tensorflow"),
    )


def _load_torch_program(path: Path, options: LoadOptions, name: str, kind: SourceKind) -> Model:
    from deploykit.sources.program_child import export_in_child

    return Model(
        graph=export_in_child("deploykit.sources.program_export", path, options),
        stage=Stage.EXPORTED,
        name=sanitize_name(name or path.stem),
        source=_info(kind, path, options, "", reference="torch"),
    )


def _load_object(source: object, options: LoadOptions, example_input: object, name: str) -> Model:
    from deploykit.sources.module_object import open_module, store_program

    opened = open_module(source, options, example_input)
    return _model_of(
        opened,
        name=name or type(source).__name__,
        info=SourceInfo(kind="module", arch=opened.arch, reference="torch"),
        keep_program=store_program,
    )


def _model_of(
    opened: TorchSource, *, name: str, info: SourceInfo, keep_program: Any = None
) -> Model:
    from dataclasses import replace

    from deploykit.sources.torch_export import capture_source, export_captured

    captured = capture_source(opened)
    if keep_program is not None:  # before the export, which rewrites the program
        info = replace(info, load_options=keep_program(captured))
    return Model(
        graph=export_captured(captured, opened.input_shapes),
        stage=Stage.EXPORTED,
        name=sanitize_name(name),
        source=info,
        preprocess=opened.preprocess,
        labels=opened.labels,
        calibration_sample=opened.calibration_sample,
        preprocess_origin=opened.preprocess_origin if opened.preprocess else ContractOrigin.UNKNOWN,
        identified=opened.identified,
    )


def _info(
    kind: SourceKind, path: Path, options: LoadOptions, arch: str, *, reference: str
) -> SourceInfo:
    from deploykit.files import sha256_of

    load_options: Mapping[str, Any] = options.to_dict()
    return SourceInfo(
        kind=kind.value,
        path=str(path),
        sha256=sha256_of(path),
        arch=arch,
        load_options=load_options,
        reference=reference,
    )
