"""A MIL program to the files of an .mlpackage, the same bytes each time.

coremltools writes random identifiers into the manifest, today's date into the metadata and
protobuf maps in the order of a hash. Here the identifiers are fixed, the metadata are ours, and
the message is serialized in its deterministic form.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit import __version__
from deploykit.preprocess import Preprocess
from deploykit_coreml import package_format as names
from deploykit_coreml.load_coremltools import load_coremltools

if TYPE_CHECKING:
    from deploykit_coreml.lower_graph import LoweredProgram
    from deploykit_coreml.options import WriteOptions

_COLORS = {"GRAY": "GRAYSCALE", "RGB": "RGB", "BGR": "BGR"}


@dataclass(frozen=True)
class PackageDescription:
    """What a package says of itself.

    Attributes:
        model_name: The model's name.
        precision: E.g. ``fp16``.
        preprocess: The contract of the image input, if known.
        image_input: The program's input that is an image; empty for none.
        image_size: Its height and width.
        labels: Class names, of a classifier.
    """

    model_name: str
    precision: str
    preprocess: Preprocess | None
    image_input: str = ""
    image_size: tuple[int, int] = (0, 0)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class WrittenPackage:
    """The files.

    Attributes:
        files: Path inside of the package → bytes, sorted by path.
        op_counts: Op type → number, constants left out.
    """

    files: Mapping[str, bytes]
    op_counts: Mapping[str, int]


def write_package(
    lowered: LoweredProgram, options: WriteOptions, description: PackageDescription
) -> WrittenPackage:
    """Serialize a program."""
    coremltools = load_coremltools()
    with _silence():
        model = coremltools.convert(
            lowered.program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=getattr(coremltools.target, f"iOS{options.ios}"),
            # The program is written in the types that it is to have, and fused before.
            compute_precision=coremltools.precision.FLOAT32,
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,
            classifier_config=_classifier(coremltools, options, description),
        )
    folder = Path(model.package_path)
    try:
        spec = model.get_spec()
        weights = folder / names.WEIGHTS_FILE
        blob = weights.read_bytes() if weights.is_file() else None
    finally:
        shutil.rmtree(folder)
    _describe(spec, options, description)
    files = {
        names.MANIFEST: _manifest(has_weights=blob is not None),
        names.MODEL_FILE: spec.SerializeToString(deterministic=True),
    }
    if blob is not None:
        files[names.WEIGHTS_FILE] = blob
    return WrittenPackage(dict(sorted(files.items())), _count_ops(spec, options.ios))


def _classifier(coremltools: Any, options: WriteOptions, description: PackageDescription) -> Any:
    if not options.classifier:
        return None
    return coremltools.ClassifierConfig(
        list(description.labels),
        predicted_feature_name=names.LABEL_OUTPUT,
        predicted_probabilities_output=names.SHARES,
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No progress bars; what fails raises."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _describe(spec: Any, options: WriteOptions, description: PackageDescription) -> None:
    metadata = spec.description.metadata
    metadata.Clear()
    named = f"{description.model_name}, {description.precision}"
    metadata.shortDescription = options.description or named
    metadata.versionString = options.version
    metadata.author = options.author
    metadata.license = options.license
    metadata.userDefined.update(options.user_metadata)
    metadata.userDefined[names.VERSION_KEY] = __version__
    metadata.userDefined[names.PRECISION_KEY] = description.precision
    if description.preprocess is not None:
        metadata.userDefined[names.PREPROCESS_KEY] = json.dumps(
            description.preprocess.to_dict(), sort_keys=True
        )
    if description.image_input and description.preprocess is not None:
        for feature in spec.description.input:
            if feature.name == description.image_input:
                image = feature.type.imageType
                image.height, image.width = description.image_size
                color = _COLORS[description.preprocess.color]
                image.colorSpace = type(image).ColorSpace.Value(color)


def _manifest(*, has_weights: bool) -> bytes:
    """Manifest.json with identifiers that depend on nothing but the item's path."""
    items = {names.MODEL_ITEM: ("model.mlmodel", "CoreML Model Specification")}
    if has_weights:
        items[names.WEIGHTS_ITEM] = ("weights", "CoreML Model Weights")
    entries = {
        _identifier(path): {
            "author": names.AUTHOR,
            "description": text,
            "name": name,
            "path": path,
        }
        for path, (name, text) in items.items()
    }
    document = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": _identifier(names.MODEL_ITEM),
    }
    return (json.dumps(document, indent=4, sort_keys=True) + "\n").encode()


def _identifier(path: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"deploykit:{path}")).upper()


def _count_ops(spec: Any, ios: int) -> dict[str, int]:
    block = spec.mlProgram.functions["main"].block_specializations[names.OPSETS[ios]]
    counts: dict[str, int] = {}
    for operation in block.operations:
        if operation.type != "const":
            counts[operation.type] = counts.get(operation.type, 0) + 1
    return dict(sorted(counts.items()))
