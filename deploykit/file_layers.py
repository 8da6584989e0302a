"""Layers of an artefact's file, each also as a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CutLayer:
    """One layer of a file.

    Attributes:
        name: In the file.
        type: The format's own, e.g. ``ConvolutionDepthWise``.
        inputs: Names of the tensors that it reads.
        outputs: Names of the tensors that it makes.
        files: A file that holds this layer alone, its inputs and outputs named as in the whole:
            suffix → content, the one that is opened first. Empty for a layer that makes inputs.
        workaround: What may keep the layer from a kernel that is wrong, in words; empty if the
            format has nothing.
        mended: As ``files``, with the work-around.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    workaround: str = ""
    mended: Mapping[str, bytes] = field(default_factory=dict)
