"""What the graph of a SavedModel would do besides computing, read before TensorFlow loads it.

A SavedModel holds no Python code, but its graph is a program, and loading runs the parts that
restore variables. Ops that write or read files, call back into Python or print have no place in a
network; only the parts that save and restore variables need files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError

GRAPH = "saved_model.pb"

_REFUSED_OPS = frozenset(
    {
        *("EagerPyFunc", "PyFunc", "PyFuncStateless"),  # Python of this process
        *("MatchingFiles", "ReadFile", "WriteFile", "WriteAudioSummary", "WriteImageSummary"),
        *("WriteSummary", "CreateSummaryFileWriter", "CreateSummaryDbWriter", "WholeFileReader"),
        *("WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "TextLineDataset"),
        *("FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "TFRecordDataset"),
        *("TFRecordDatasetV2", "SaveDataset", "SaveDatasetV2", "LoadDataset", "PrintV2", "Print"),
        *("DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "RemoteCall", "RpcCall"),
        *("XlaLaunch", "ImmutableConst", "SaveSlices", "Save"),
    }
)


def check_saved_model(path: Path) -> None:
    """Refuse a SavedModel whose graph does more than compute. Needs TensorFlow; loads nothing.

    Raises:
        SourceError: it does, or ``saved_model.pb`` is damaged.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString((path / GRAPH).read_bytes())
    except (DecodeError, OSError) as error:
        raise SourceError(
            f"{path / GRAPH} is damaged: {error}", advice="get the folder again"
        ) from error
    if not content.meta_graphs:
        raise SourceError(f"{path} is a SavedModel without a graph", advice="get the folder again")
    found = sorted({op for op in _ops_of(content) if op in _REFUSED_OPS})
    if found:
        raise SourceError(
            f"the graph of {path} reads or writes files, prints or calls Python "
            f"({', '.join(found)}); it was not loaded",
            expected="a network that computes",
            advice="export it without those ops; or --trust-code, if you made it yourself",
        )


def _ops_of(content: Any) -> Iterator[str]:
    for meta in content.meta_graphs:
        for node in meta.graph_def.node:
            yield node.op
        for function in meta.graph_def.library.function:
            for node in function.node_def:
                yield node.op
