"""The order of the passes, and the stages that they lead to.

`deploykit.passes.base.run_passes` refuses an order in which a pass misses a fact that it requires.
"""

from __future__ import annotations

from collections.abc import Callable

from deploykit.errors import DeploykitError, UnsupportedModelError
from deploykit.graph import native
from deploykit.model import Model, Stage
from deploykit.passes.base import Pass, run_passes
from deploykit.passes.canonicalize import Canonicalize
from deploykit.passes.eliminate_identities import EliminateIdentities
from deploykit.passes.expand_integer_ops import ExpandIntegerOps
from deploykit.passes.fold_affine import FoldAffine
from deploykit.passes.fold_batchnorm import FoldBatchnorm
from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.fold_pad import FoldPad
from deploykit.passes.fold_quantized_batchnorm import FoldQuantizedBatchnorm
from deploykit.passes.fuse_activations import FuseActivations
from deploykit.passes.fuse_channel_shuffle import FuseChannelShuffle
from deploykit.passes.fuse_concat_shuffle_split import FuseConcatShuffleSplit
from deploykit.passes.infer_shapes import InferShapes
from deploykit.passes.inline_functions import InlineFunctions
from deploykit.passes.keep_batch_axis import KeepBatchAxis
from deploykit.passes.lift_one_dimension import LiftOneDimension
from deploykit.passes.remove_unused import RemoveUnused
from deploykit.passes.simplify_onnx import SimplifyOnnx
from deploykit.passes.sink_transposes import SinkTransposes
from deploykit.passes.slice_channels import SliceChannels
from deploykit.printable import last_line, printable_name


def simplify_passes() -> tuple[Pass, ...]:
    """The passes from the exported to the simplified stage, in order."""
    return (
        InlineFunctions(),
        ExpandIntegerOps(),
        FoldConstants(),
        RemoveUnused(),  # the less there is, the less goes through onnxsim
        SimplifyOnnx(),
        FoldConstants(),  # what onnxsim left as Constant nodes, or made constant
        InferShapes(),
        RemoveUnused(),
    )


def fuse_passes() -> tuple[Pass, ...]:
    """The passes from the simplified to the fused stage, in order."""
    return (
        InlineFunctions(),
        InferShapes(),
        FoldConstants(),
        LiftOneDimension(),
        Canonicalize(),
        SinkTransposes(),
        KeepBatchAxis(),
        EliminateIdentities(),
        RemoveUnused(),  # readers that are dead would stand in the way of folding
        FoldPad(),
        FoldQuantizedBatchnorm(),
        FoldBatchnorm(),
        FoldAffine(),
        FuseActivations(),
        FuseChannelShuffle(),
        SliceChannels(),
        FuseConcatShuffleSplit(),
        RemoveUnused(),
    )


def simplify_model(model: Model) -> Model:
    """From the exported to the simplified stage.

    Args:
        model: An exported stage; left as it is.

    Raises:
        UnsupportedModelError: a shape that is not static, or a model that onnxsim refuses.
        MissingDependencyError: onnxsim is not installed.
    """
    return _advance(model, Stage.EXPORTED, Stage.SIMPLIFIED, simplify_passes())


def fuse_model(model: Model) -> Model:
    """From the simplified to the fused stage.

    Args:
        model: A simplified stage; left as it is.

    Raises:
        UnsupportedModelError: a shape that is not static.
    """
    return _advance(model, Stage.SIMPLIFIED, Stage.FUSED, fuse_passes())


def advance(model: Model, stage: Stage) -> Model:
    """Run what is needed to bring a model to a float stage.

    Raises:
        ValueError: the stage lies before the model's, or is not a float stage.
        UnsupportedModelError, MissingDependencyError: see `simplify_model`.
    """
    steps: dict[Stage, Callable[[Model], Model]] = {
        Stage.EXPORTED: simplify_model,
        Stage.SIMPLIFIED: fuse_model,
    }
    while model.stage is not stage:
        step = steps.get(model.stage)
        if step is None:
            raise ValueError(f"no pass leads from stage {model.stage.value} to {stage.value}")
        model = step(model)
    return model


def _advance(model: Model, before: Stage, after: Stage, passes: tuple[Pass, ...]) -> Model:
    if model.stage is not before:
        raise ValueError(f"a model of the {model.stage.value} stage, expected {before.value}")
    try:
        graph = model.graph.clone()
        notes = run_passes(graph, passes)
    except DeploykitError:
        raise
    except Exception as error:
        if reason := _why_invalid(model):
            raise UnsupportedModelError(
                f"the model contradicts itself: {printable_name(reason)}",
                advice="check the file with onnx.checker, or export it again",
            ) from error
        raise
    return model.advanced(graph, after, notes)


def _why_invalid(model: Model) -> str:
    try:
        data = model.serialized()
    except Exception as error:  # not even onnx_ir can write it
        return last_line(error)
    return native.why_invalid(data)
