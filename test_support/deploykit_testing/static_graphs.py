"""What the tests of counting share: graphs from text, with folded constants and static shapes."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.infer_shapes import InferShapes
from deploykit_testing.graphs import HEADER, parse


def parse_static(text: str, *, header: str = HEADER) -> ir.Model:
    """A graph that can be counted: every shape known, `Constant` nodes made initializers."""
    model = parse(text, header=header)
    FoldConstants().apply(model)
    InferShapes().apply(model)
    return model
