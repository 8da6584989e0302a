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


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What may stand in a graph: operators that compute, keep variables and call functions of the graph,
# and those of TensorFlow's checkpoint format, which every SavedModel restores by.
_FILE_OPS = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"})
_KNOWN_OPS = _FILE_OPS | _words(
    """
    Abs Acos Acosh Add AddN AddV2 AdjustContrastv2 AdjustHue AdjustSaturation All Angle Any
    ApproximateEqual ArgMax ArgMin Asin Asinh Assert Assign AssignAddVariableOp AssignSubVariableOp
    AssignVariableOp Atan Atan2 Atanh AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3
    BatchMatrixBandPart BatchToSpace BatchToSpaceND BesselI0 BesselI0e BesselI1 BesselI1e Betainc
    BiasAdd BiasAddV1 Bitcast BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastTo Bucketize
    Case Cast Ceil CheckNumerics Cholesky ClipByValue CombinedNonMaxSuppression Complex ComplexAbs
    Concat ConcatOffset ConcatV2 Conj ConjugateTranspose Const ControlTrigger Conv2D
    Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 Cos Cosh CropAndResize Cross Cumprod Cumsum
    CumulativeLogsumexp Dawsn DepthToSpace DepthwiseConv2dNative DestroyResourceOp Diag DiagPart
    Digamma Dilation2D DisableCopyOnRead Div DivNoNan DynamicPartition DynamicStitch Einsum Elu
    Empty EmptyTensorList EnsureShape Enter Equal Erf Erfc Erfcinv Erfinv Exit Exp ExpandDims Expint
    Expm1 ExtractImagePatches FFT FFT2D FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod FractionalAvgPool
    FractionalMaxPool FresnelCos FresnelSin FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather
    GatherNd GatherV2 Greater GreaterEqual GuaranteeConst HSVToRGB HardSwish IFFT IFFT2D IRFFT
    IRFFT2D Identity IdentityN If Igamma Igammac Imag InTopKV2 Inv Invert InvertPermutation IsFinite
    IsInf IsNan IsVariableInitialized L2Loss LRN LeakyRelu LeftShift Less LessEqual Lgamma LinSpace
    Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LoopCond LowerBound MatMul MatrixBandPart
    MatrixDeterminant MatrixDiag MatrixDiagV2 MatrixDiagV3 MatrixInverse MatrixSetDiagV3 Max MaxPool
    MaxPool3D MaxPoolV2 MaxPoolWithArgmax Maximum Mean Merge Min Minimum MirrorPad Mod Mul MulNoNan
    Ndtri Neg NextAfter NextIteration NoOp NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3
    NonMaxSuppressionV4 NonMaxSuppressionV5 NotEqual OneHot OnesLike Pack Pad PadV2 ParallelConcat
    ParallelDynamicStitch PartitionedCall Placeholder PlaceholderV2 PlaceholderWithDefault Polygamma
    PopulationCount Pow PreventGradient Prod Qr QuantizeAndDequantizeV2 QuantizeAndDequantizeV3
    QuantizeAndDequantizeV4 RFFT RFFT2D RGBToHSV RandomStandardNormal RandomUniform RandomUniformInt
    Range Rank ReadVariableOp Real RealDiv Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic
    ResizeBilinear ResizeNearestNeighbor ResourceGather Reverse ReverseSequence ReverseV2 RightShift
    Rint RngReadAndSkip Roll Round Rsqrt ScaleAndTranslate ScatterNd ScatterNdNonAliasingAdd
    SegmentSum Select SelectV2 SelfAdjointEigV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh Size Slice
    Softmax Softplus Softsign SpaceToBatch SpaceToBatchND SpaceToDepth Spence Split SplitV Sqrt
    Square SquaredDifference Squeeze StatefulPartitionedCall StatelessIf StatelessRandomGetAlg
    StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormalV2
    StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessWhile StaticRegexFullMatch
    StopGradient StridedSlice StringJoin Sub Sum Svd Switch Tan Tanh TensorListConcatV2
    TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem TensorListLength
    TensorListPopBack TensorListPushBack TensorListReserve TensorListScatterV2 TensorListSetItem
    TensorListSplit TensorListStack TensorScatterAdd TensorScatterSub TensorScatterUpdate Tile TopK
    TopKV2 Transpose TruncateDiv TruncatedNormal Unique UniqueV2 Unpack UnravelIndex
    UnsortedSegmentSum UpperBound VarHandleOp VarIsInitializedOp Variable VariableShape VariableV2
    Where While Xdivy XlaSharding Xlogy ZerosLike Zeta
    """
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
    found = sorted({op for op in _ops_of(content) if op not in _KNOWN_OPS})
    if found:
        raise SourceError(
            f"the graph of {path} does more than a network for images needs "
            f"({', '.join(found)}); it was not loaded",
            expected="operators that compute, only",
            advice="export it without those ops; or --trust-code, if you made it yourself",
        )


def _ops_of(content: Any) -> Iterator[str]:
    for meta in content.meta_graphs:
        for node in meta.graph_def.node:
            yield node.op
        for function in meta.graph_def.library.function:
            for node in function.node_def:
                yield node.op
