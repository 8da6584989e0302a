"""Keras models (.keras) and SavedModel folders: to ONNX by TensorFlow, in a separate process.

What the file would run is looked at before (`deploykit.sources.keras_archive`,
`deploykit.sources.saved_model_scan`); the graph comes back as an .onnx file and goes through the
same door as any other (`deploykit.sources.onnx_file`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.errors import MissingDependencyError, SourceError
from deploykit.graph.provenance import MODULE_KEY
from deploykit.sources.keras_archive import check_keras_archive
from deploykit.sources.options import LoadOptions
from deploykit.sources.program_child import export_in_child

if TYPE_CHECKING:
    import onnx_ir as ir

EXTRA = "tensorflow"
_EXPORTER = "deploykit.sources.tensorflow_export"
_CALLS = ("StatefulPartitionedCall", "PartitionedCall")  # what a signature's nodes stand in

#: For a process that imports TensorFlow: on the CPU, with Keras on TensorFlow, without its
#: progress messages, and names that do not depend on the order of sets.
CHILD_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def read_tensorflow(path: Path, options: LoadOptions) -> ir.Model:
    """Bring a .keras file or a SavedModel to ONNX.

    Args:
        path: The file or folder.
        options: ``key``: a signature of a SavedModel; ``input_shape``: NCHW; ``trust_code``.

    Returns:
        As `deploykit.sources.onnx_file.read_onnx`: static shapes, inputs and outputs of rank 4 as
        NCHW.

    Raises:
        SourceError: see `deploykit.sources.tensorflow_program.open_tensorflow`.
        UnsupportedModelError: TensorFlow ops that have no ONNX form.
        MissingDependencyError: the extra ``tensorflow`` is not installed.
    """
    check_tensorflow_source(path, options)
    for package in ("tensorflow", "tf2onnx"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, needed_for=str(path), extra=EXTRA)
    model = export_in_child(_EXPORTER, path, options, CHILD_ENVIRONMENT)
    for node in model.graph:
        _name_module(node)
    return model


def check_tensorflow_source(path: Path, options: LoadOptions) -> None:
    """Refuse options that do not fit, and a .keras file that would run code.

    Raises:
        SourceError: see there.
    """
    if options.arch:
        raise SourceError(
            f"{path} is a TensorFlow model; it has its architecture in it",
            advice="leave out --arch",
        )
    if path.is_dir():
        return
    if options.key:
        raise SourceError(
            f"{path} is a Keras model: it holds one network",
            advice="leave out --key, which names a signature of a SavedModel",
        )
    if not options.trust_code:
        check_keras_archive(path)


def _name_module(node: ir.Node) -> None:
    """TensorFlow names nodes by path: ``net/block_1/conv/Conv2D`` comes from net.block_1.conv."""
    parts = (node.name or "").split("/")
    while parts and parts[0].startswith(_CALLS):
        parts = parts[1:]
    if len(parts) > 1:
        node.metadata_props.setdefault(MODULE_KEY, ".".join(parts[:-1]))
