"""What a .keras file would run when it is loaded, from its ``config.json`` alone.

The file is a zip archive: ``metadata.json``, ``config.json`` (the layers, each by module, class and
arguments) and ``model.weights.h5``. Keras builds the layers by importing what the config names; the
config may name anything, or bring Python bytecode of its own (a lambda). Only the text is read
here, and nothing is imported.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError
from deploykit.json_file import parse_json

# RuntimeError: a member is encrypted.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a config may name. Layers whose arguments are code or files are not here: Lambda, wrappers of
# other frameworks and of SavedModels, and those that read a vocabulary.
_LAYERS = _words(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop
    Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D
    Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU
    EinsumDense Embedding Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer
    InputSpec LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute
    Pipeline RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip
    RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization
    RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom ReLU
    RepeatVector Rescaling Reshape Resizing ReversibleEmbedding SeparableConv1D SeparableConv2D
    SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """
)
_OPERATIONS = _words(
    """
    Abs Absolute AdaptiveAveragePool AdaptiveMaxPool Add All Amax Amin Any Arange Arccos Arcsin
    Arctan Arctan2 Argmax Argmin Average AveragePool BatchNorm BroadcastTo Cast Ceil Celu Clip
    Concatenate Conv ConvTranspose ConvertToTensor Copy Cos Cosh CropImages Cumprod Cumsum
    DepthToSpace DepthwiseConv Divide DivideNoNan Dot DotProductAttention Einsum Elu Equal Erf Exp
    Exp2 ExpandDims Expm1 ExtractPatches Flip Fliplr Flipud Floor FloorDivide Full FullLike Gelu
    GetItem Glu Greater GreaterEqual HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu
    Less LessEqual Log Log10 Log1p Log2 LogSigmoid LogSoftmax LogicalAnd LogicalNot LogicalOr
    Logsumexp Matmul Max MaxPool Maximum Mean Meshgrid Min Minimum Mod Moments Moveaxis Multiply
    Negative Norm Normalize NotEqual OneHot OnesLike Pad PadImages Power Prod RGBToGrayscale RMSNorm
    Ravel Reciprocal Relu Relu6 Repeat Reshape Resize Roll Rot90 Round Rsqrt Selu SeparableConv
    Sigmoid Sign Silu Sin Sinh Size Slice SoftShrink Softmax Softplus Softsign SpaceToDepth
    Sparsemax Split Sqrt Square Squareplus Squeeze Stack Std StopGradient Subtract Sum Swapaxes Take
    TakeAlongAxis Tan Tanh TanhShrink Tensordot Threshold Tile TopK Transpose Tril Triu TrueDivide
    Trunc Unstack Var Where ZerosLike
    """
)
_OTHERS = _words(
    """
    AbsMaxQuantizer Constant DTypePolicy DTypePolicyMap FloatDTypePolicy Functional GlorotNormal
    GlorotUniform HeNormal HeUniform IdentityInitializer L1 L1L2 L2 LecunNormal LecunUniform MaxNorm
    MinMaxNorm Model NonNeg Ones Orthogonal OrthogonalInitializer OrthogonalRegularizer
    QuantizedDTypePolicy QuantizedFloat8DTypePolicy RandomNormal RandomUniform Sequential
    TruncatedNormal UnitNorm VarianceScaling Zeros
    """
)
_KNOWN = _LAYERS | _OPERATIONS | _OTHERS
# Keras' packages that define them; `keras.utils` and `keras.saving` have functions that read files
# and fetch addresses.
_KNOWN_PACKAGES = _words(
    "constraints dtype_policies initializers layers models ops quantizers regularizers"
)
_PLAIN_DATA = frozenset(
    {
        *("__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"),
    }
)


def check_keras_archive(path: Path) -> None:
    """Refuse a .keras file that brings code, or refers to code that is not Keras' own.

    Raises:
        SourceError: it does, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = parse_json(archive.read(CONFIG))
    except (*_DAMAGED, KeyError, ValueError, OSError) as error:
        raise SourceError(
            f"{path} is a damaged Keras model: {error}", advice="get the file again"
        ) from error
    found = list(dict.fromkeys(_foreign_objects(config)))
    if not found:
        return
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    raise SourceError(
        f"{path} is a Keras model that refers to code ({', '.join(found[:4])}{more}); loading it "
        "would run that code, so it was not loaded",
        expected="Keras' own layers only",
        advice="one of these, where the model was made:\n"
        "      model.export(FOLDER), a SavedModel: a graph, without Python code\n"
        "    or --trust-code, if you made the file yourself (run from the folder that holds the "
        "code)",
    )


def _foreign_objects(config: Any) -> Iterator[str]:
    """In words, everything in a config that is not one of Keras' own objects."""
    if isinstance(config, list):
        for item in config:
            yield from _foreign_objects(item)
    if not isinstance(config, dict):
        return
    if "class_name" in config:
        reason = _why_foreign(config)
        if reason:
            yield reason
    for key, value in config.items():
        if key != "compile_config":  # the optimizer and the losses are never loaded
            yield from _foreign_objects(value)


def _why_foreign(config: dict[str, Any]) -> str:
    name, module = str(config["class_name"]), config.get("module")
    if name in _PLAIN_DATA:
        return ""
    if name == "__lambda__":
        return "a lambda"
    if module == "builtins" and name == "function":
        return f"a function '{config.get('config')}'"
    if module is None:
        # Without a module, Keras looks the name up among what the user has registered. Old files
        # have no field "module" at all, and mean Keras' own.
        own, where = "module" not in config, ""
    else:
        where = f"{module}."
        parts = str(module).removeprefix("keras.src.").removeprefix("keras.").split(".")
        own = module == "keras" or (
            str(module).startswith("keras.") and parts[0] in _KNOWN_PACKAGES
        )
    if own and name in _KNOWN:
        return ""
    if own and name in _words("FlaxLayer JaxLayer Lambda TFSMLayer TorchModuleWrapper"):
        return f"a layer {name}"
    return f"'{config.get('registered_name') or name}'" if module is None else f"'{where}{name}'"
