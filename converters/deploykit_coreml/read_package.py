"""A saved .mlpackage as plain data: our own reading, without coremltools' converter.

    Manifest.json  >  model.mlmodel (a protobuf message)  >  weights/weight.bin

All that is in the file is either in the result or refused; nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError
from deploykit.json_file import read_json
from deploykit.tensors import Array
from deploykit_coreml import package_format as names
from deploykit_coreml.load_coremltools import load_protobuf
from deploykit_coreml.read_values import BlobFile, ValueType, read_type, read_value

#: A constant: an array, or a text, or a list of texts.
Value = Array | str | tuple[str, ...]


@dataclass(frozen=True)
class ProgramOp:
    """One operation.

    Attributes:
        type: E.g. ``conv``.
        name: Its name.
        inputs: Parameter → what is given: names of values, or constants written in place.
        attributes: Parameter → constant; without the name.
        outputs: Name and type of each result.
    """

    type: str
    name: str
    inputs: Mapping[str, tuple[str | Value, ...]]
    references: Mapping[str, tuple[bool, ...]]
    attributes: Mapping[str, Value]
    outputs: tuple[tuple[str, ValueType], ...]


@dataclass(frozen=True)
class Feature:
    """An input or output as an app sees it.

    Attributes:
        name: Its name.
        kind: ``tensor``, ``image``, ``text`` or ``dictionary``.
        dtype: Of a tensor: ``float32`` or ``float16``; of an image: ``RGB``, ``BGR``, ``GRAY``.
        shape: Of a tensor; (height, width) of an image.
    """

    name: str
    kind: str
    dtype: str = ""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Package:
    """What an .mlpackage holds.

    Attributes:
        path: The folder.
        specification: Version of the specification, e.g. 8 for iOS 17.
        opset: E.g. ``CoreML7``.
        features: Inputs and outputs as an app sees them, by name.
        inputs: The program's inputs.
        operations: In the order of execution.
        outputs: Names of the program's outputs.
        metadata: User-defined metadata, and ``shortDescription``.
        weight_bytes: Size of the weight file.
    """

    path: Path
    specification: int
    opset: str
    features: Mapping[str, Feature]
    inputs: tuple[tuple[str, ValueType], ...]
    operations: tuple[ProgramOp, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    weight_bytes: int = 0


def package_folder(path: Path) -> Path:
    """The package's folder, from it or from the manifest in it."""
    return path.parent if path.name == names.MANIFEST else path


def is_package(path: Path) -> bool:
    """Whether a folder, or a manifest's folder, is a package, by the manifest's content."""
    try:
        document = read_json(package_folder(path) / names.MANIFEST)
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"itemInfoEntries", "rootModelIdentifier"} <= set(
        document
    )


def read_package(path: Path) -> Package:
    """Read a package.

    Args:
        path: The folder, or its Manifest.json.

    Raises:
        SourceError: it is missing, damaged, or holds something else than one ML program.
        MissingDependencyError: coremltools, which has the messages, is not installed.
    """
    folder = package_folder(path)
    spec = _read_message(folder, _model_file(folder))
    if spec.WhichOneof("Type") != "mlProgram":
        raise SourceError(
            f"{folder} holds a model of type {spec.WhichOneof('Type')}",
            expected="an ML program (mlProgram)",
        )
    functions = spec.mlProgram.functions
    if set(functions) != {"main"} or len(functions["main"].block_specializations) != 1:
        raise SourceError(
            f"{folder} has functions {', '.join(sorted(functions))}",
            expected="one function 'main' with one specialization",
        )
    function = functions["main"]
    block = function.block_specializations[function.opset]
    blobs = BlobFile(folder / names.DATA / names.AUTHOR)
    try:
        operations = tuple(_read_operation(o, blobs) for o in block.operations)
        inputs = tuple((i.name, read_type(i.type)) for i in function.inputs)
        described = [*spec.description.input, *spec.description.output]
        features = {f.name: _read_feature(f) for f in described}
        _check_operations(operations)
    except (LookupError, TypeError, ValueError, OverflowError, OSError) as error:
        raise SourceError(
            f"{folder} is damaged, or has what is not known here: {error}",
            advice="convert the model again",
        ) from error
    about = spec.description.metadata
    given = {key: str(getattr(about, key)) for key in names.METADATA}
    metadata = {key: text for key, text in given.items() if text} | dict(about.userDefined)
    return Package(
        path=folder,
        specification=int(spec.specificationVersion),
        opset=function.opset,
        features=features,
        inputs=inputs,
        operations=operations,
        outputs=tuple(block.outputs),
        metadata=dict(sorted(metadata.items())),
        weight_bytes=blobs.size,
    )


def _check_operations(operations: tuple[ProgramOp, ...]) -> None:
    for op in operations:
        if not op.outputs:
            raise ValueError(f"a {op.type} without results")
        if op.type == "const" and "val" not in op.attributes:
            raise ValueError(f"the constant {op.outputs[0][0]!r} has no value")


def _model_file(folder: Path) -> Path:
    manifest = folder / names.MANIFEST
    try:
        document = read_json(manifest)
        item = document["itemInfoEntries"][document["rootModelIdentifier"]]["path"]
    except OSError as error:
        raise SourceError(
            f"{folder} cannot be read as a package: {error.strerror}",
            expected=f"a folder with {names.MANIFEST}",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{manifest} is damaged: {type(error).__name__}: {error}",
            advice="convert the model again",
        ) from error
    file = (folder / names.DATA / str(item)).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise SourceError(f"{manifest} names {item!r}", expected="a file inside of the package")
    return file


def _read_message(folder: Path, file: Path) -> Any:
    spec = load_protobuf("Model_pb2").Model()
    try:
        spec.ParseFromString(file.read_bytes())
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}") from error
    except Exception as error:
        if type(error).__name__ != "DecodeError":
            raise
        raise SourceError(
            f"{file} is damaged: it is no message of a Core ML model",
            advice="convert the model again",
        ) from error
    return spec


def _read_operation(message: Any, blobs: BlobFile) -> ProgramOp:
    if message.blocks:
        raise LookupError(f"{message.type} has blocks of its own")
    attributes = {key: read_value(v, blobs) for key, v in sorted(message.attributes.items())}
    name = attributes.pop("name", "")
    inputs: dict[str, tuple[str | Value, ...]] = {}
    references: dict[str, tuple[bool, ...]] = {}
    for key, argument in sorted(message.inputs.items()):
        bindings = argument.arguments
        named = tuple(b.WhichOneof("binding") == "name" for b in bindings)
        inputs[key] = tuple(
            b.name if is_name else read_value(b.value, blobs)
            for b, is_name in zip(bindings, named, strict=True)
        )
        references[key] = named
    return ProgramOp(
        type=message.type,
        name=str(name),
        inputs=inputs,
        references=references,
        attributes=attributes,
        outputs=tuple((o.name, read_type(o.type)) for o in message.outputs),
    )


def _read_feature(message: Any) -> Feature:
    kind = message.type.WhichOneof("Type")
    if kind == "multiArrayType":
        array = message.type.multiArrayType
        dtype = type(array).ArrayDataType.Name(array.dataType).lower()
        return Feature(message.name, "tensor", dtype, tuple(array.shape))
    if kind == "imageType":
        image = message.type.imageType
        color = type(image).ColorSpace.Name(image.colorSpace).replace("GRAYSCALE", "GRAY")
        return Feature(message.name, "image", color, (image.height, image.width))
    return Feature(message.name, {"stringType": "text"}.get(kind, "dictionary"))
