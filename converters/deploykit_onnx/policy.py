"""How this target is quantized: what ONNX Runtime's CPU provider fuses into integer kernels.

A ``DequantizeLinear → op → QuantizeLinear`` group becomes one integer op where the provider has a
kernel for it (QLinearConv, QLinearAdd, QLinearMul, QLinearConcat, QGemm, ...), and vanishes around
ops that only move integers, if both sides have one scale. Weights are int8, symmetric, and a bias
is int32 with scale input x weights, as the ONNX specification of QLinearConv says.
"""

from __future__ import annotations

from dataclasses import replace

from deploykit.model import Precision
from deploykit.passes.base import Pass
from deploykit.passes.fold_constants import FoldConstants
from deploykit.passes.infer_shapes import InferShapes
from deploykit.passes.inline_functions import InlineFunctions
from deploykit.passes.remove_unused import RemoveUnused
from deploykit_onnx.omit_pool_dilations import OmitPoolDilations
from deploykit_onnx.options import WriteOptions
from deploykit_onnx.rewrite_global_means import RewriteGlobalMeans
from deploykit_onnx.rewrite_hard_gates import RewriteHardGates
from deploykit_onnx.separate_zero_points import SeparateZeroPoints
from deploykit_onnx.shield_float_weights import ShieldFloatWeights
from deploykit_onnx.store_integer_weights import StoreIntegerWeights
from deploykit_quantize.policy import EIGHT_BITS, SEVEN_BITS, Policy, Recipe, TensorRule

#: The op moves or compares integers: output and input have one scale.
SAME_SCALE_OPS = frozenset({"Gather", "MaxPool", "Reshape", "Resize", "Split", "Transpose"})

#: The op has an integer kernel that takes any scales.
ANY_SCALE_OPS = frozenset(
    {
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Conv",
        "Gemm",
        "GlobalAveragePool",
        "LeakyRelu",
        "MatMul",
        "Mul",
        "Relu",
        "Sigmoid",
    }
)

#: Functions of ours as standard ops, so that any consumer can load the file.
INLINING: tuple[Pass, ...] = (
    InlineFunctions(),
    InferShapes(),
    FoldConstants(),
    RemoveUnused(),
)

#: Before a file is written.
WRITING: tuple[Pass, ...] = (
    *INLINING,
    OmitPoolDilations(),
    StoreIntegerWeights(),
    SeparateZeroPoints(),
    ShieldFloatWeights(),
    RemoveUnused(),
)

#: Before the ranges of values are chosen.
INTEGER_REWRITES: tuple[Pass, ...] = (*INLINING, RewriteHardGates(), RewriteGlobalMeans())


def policy_of(precision: Precision, options: WriteOptions) -> Policy | None:
    """The policy of a precision; None where the float stage is written as it is."""
    if precision is Precision.W8:
        recipe = Recipe.parse("weight_only_wi8")
        return Policy(_with_weights(recipe, options))
    if precision is not Precision.INT8:
        return None
    recipe = Recipe.parse(f"static_wi8_a{'u8' if options.activations == 'uint8' else 'i8'}")
    return Policy(
        recipe=_with_weights(recipe, options),
        quantized_ops=SAME_SCALE_OPS | ANY_SCALE_OPS,
        same_scale_ops=SAME_SCALE_OPS,
        rewrites=INTEGER_REWRITES,
    )


def _with_weights(recipe: Recipe, options: WriteOptions) -> Recipe:
    rule = TensorRule(
        "int8",
        symmetric=True,
        per_channel=options.per_channel,
        largest=SEVEN_BITS if options.reduce_range else EIGHT_BITS,
    )
    return replace(recipe, weights=rule)
