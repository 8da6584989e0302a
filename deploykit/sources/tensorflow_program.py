"""A .keras file or a SavedModel, opened by TensorFlow, as a function of NCHW tensors.

TensorFlow holds images as NHWC, deploykit's graphs as NCHW. The change of layout is made here and
nowhere else: `TensorflowProgram.function` takes and gives NCHW, and begins and ends with the
transposes that this needs. The exporter traces that function, and the ``tensorflow`` reference runs
it, so both read the same contract; the passes remove the transposes from the graph
(`deploykit.passes.sink_transposes`).

This module needs TensorFlow, and is imported in child processes only.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError
from deploykit.sources.keras_weights import check_keras_weights
from deploykit.sources.options import LoadOptions
from deploykit.sources.saved_model_scan import check_saved_model

#: What TensorFlow calls the signature that is meant for inference.
DEFAULT_SIGNATURE = "serving_default"

_NHWC_FROM_NCHW = (0, 2, 3, 1)
_NCHW_FROM_NHWC = (0, 3, 1, 2)
_IMAGE_RANK = 4


@dataclass(frozen=True)
class TensorflowProgram:
    """A network with its weights.

    Attributes:
        function: From float32 tensors, NCHW where they have rank 4, in the order of
            ``input_names``, to the list of outputs in the order of ``output_names``.
        input_names: ``input``, or the source's own names if there are several.
        input_shapes: Their static shapes, NCHW where they have rank 4.
        output_names: ``output``, or the source's own names if there are several.
        variables: What the function reads; they live as long as somebody holds them.
    """

    function: Callable[..., list[Any]]
    input_names: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_names: tuple[str, ...]
    variables: object


@dataclass(frozen=True)
class _Signature:
    """A source's own function: what it takes, in its own layouts, and gives."""

    call: Callable[[Sequence[Any]], Sequence[Any]]
    inputs: Mapping[str, Any]  # name → object with shape and dtype
    outputs: tuple[str, ...]
    owner: object


def open_tensorflow(path: Path, options: LoadOptions) -> TensorflowProgram:
    """Open a .keras file or the folder of a SavedModel.

    Args:
        path: The source; `deploykit.sources.detect` has seen it.
        options: ``key`` names a signature of a SavedModel; ``input_shape`` (NCHW) pins the first
            input that has open dimensions; ``trust_code`` lets code of the file run.

    Raises:
        SourceError: damaged, no or several signatures, inputs that are not float32, open
            dimensions, code that would run.
    """
    signature = _open_saved_model(path, options) if path.is_dir() else _open_keras(path, options)
    _check_dtypes(signature, path)
    shapes = _pin_shapes(signature, options.input_shape, path)
    return TensorflowProgram(
        function=_with_nchw(signature.call),
        input_names=_names("input", tuple(signature.inputs)),
        input_shapes=tuple(shapes),
        output_names=_names("output", signature.outputs),
        variables=signature.owner,
    )


def _names(single: str, own: tuple[str, ...]) -> tuple[str, ...]:
    return (single,) if len(own) == 1 else own


def _open_keras(path: Path, options: LoadOptions) -> _Signature:
    import keras
    import tensorflow as tf

    if not options.trust_code:
        check_keras_weights(path)
    try:
        with _working_folder_importable(enabled=options.trust_code):
            model = keras.saving.load_model(path, compile=False, safe_mode=not options.trust_code)
    except Exception as error:  # Keras raises whatever its layers raise
        advice = "save it again with this version of Keras: model.save(FILE)"
        if options.trust_code:
            advice = (
                "its code must be importable from the current folder; or, where the model was "
                "made: model.export(FOLDER), a SavedModel, which needs no code"
            )
        raise SourceError(
            f"Keras {keras.__version__} cannot read {path}: {_first_line(error)}", advice=advice
        ) from error
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise SourceError(
            f"the Keras model {path} does not say what it takes",
            expected="a functional or sequential model, built",
            advice="call it once and export it, where it was made: model.export(FOLDER)",
        )
    _compute_in_float32(model)
    # A Sequential takes one tensor and gives one; others say how theirs are packed and called.
    sequential = isinstance(model, keras.Sequential)
    structure = inputs[0] if sequential else model.input
    outputs = ("output",) if sequential else tuple(map(_plain, model.output_names))

    def call(values: Sequence[Any]) -> Sequence[Any]:
        packed = keras.tree.pack_sequence_as(structure, list(values))
        return list(tf.nest.flatten(model(packed, training=False)))

    named = {_plain(tensor.name): tensor for tensor in inputs}
    return _Signature(call, named, outputs, model)


def _compute_in_float32(layer: Any) -> None:
    """Lift the mixed precision of training: the weights are float32 already."""
    for inner in getattr(layer, "layers", ()):
        _compute_in_float32(inner)
    if layer.dtype_policy.name.startswith("mixed_"):
        layer.dtype_policy = "float32"


def _open_saved_model(path: Path, options: LoadOptions) -> _Signature:
    import tensorflow as tf

    if not options.trust_code:
        check_saved_model(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises errors of its own, and OSError and ValueError
        raise SourceError(
            f"TensorFlow {tf.__version__} cannot read the SavedModel {path}: {_first_line(error)}",
            advice="copy the whole folder, with its variables",
        ) from error
    name = _choose_signature(list(loaded.signatures), options.key, path)
    function = loaded.signatures[name]
    inputs = dict(function.structured_input_signature[1])
    outputs = tuple(function.structured_outputs)

    def call(values: Sequence[Any]) -> Sequence[Any]:
        results = function(**dict(zip(inputs, values, strict=True)))
        return [results[output] for output in outputs]

    return _Signature(call, inputs, outputs, loaded)


def _choose_signature(names: Sequence[str], wanted: str, path: Path) -> str:
    listed = ", ".join(names)
    if not names:
        raise SourceError(
            f"the SavedModel {path} has no signatures",
            expected="a signature: what the network takes and gives",
            advice="save it again: model.export(FOLDER), or tf.saved_model.save(module, FOLDER, "
            "signatures=module.call.get_concrete_function(...))",
        )
    if wanted:
        if wanted not in names:
            raise SourceError(
                f"the SavedModel {path} has no signature '{wanted}'", expected=f"one of {listed}"
            )
        return wanted
    if DEFAULT_SIGNATURE in names:
        return DEFAULT_SIGNATURE
    if len(names) > 1:
        raise SourceError(
            f"the SavedModel {path} has {len(names)} signatures ({listed}), and none is called "
            f"'{DEFAULT_SIGNATURE}'",
            advice=f"name one, e.g. --key {names[0]}",
        )
    return names[0]


def _check_dtypes(signature: _Signature, path: Path) -> None:
    import tensorflow as tf

    if not signature.inputs:
        raise SourceError(f"{path} has no inputs")
    for name, spec in signature.inputs.items():
        dtype = tf.as_dtype(spec.dtype).name
        if dtype != "float32":
            raise SourceError(
                f"input '{name}' of {path} is {dtype}",
                expected="float32 inputs",
                advice="export the network without its casts, lookups and decoding of images; "
                "quantized inputs are an option of the target",
            )


def _pin_shapes(signature: _Signature, given: tuple[int, ...], path: Path) -> list[tuple[int, ...]]:
    """The static shape of each input, NCHW where it has rank 4."""
    open_shapes = {n: _open_shape(spec) for n, spec in signature.inputs.items()}
    # A shape on the command line is the image's: the first input with open dimensions.
    first = next(
        (n for n, s in open_shapes.items() if s is None or None in s), next(iter(open_shapes))
    )
    return [
        _pin_shape(name, shape, given if name == first else (), path)
        for name, shape in open_shapes.items()
    ]


def _open_shape(spec: Any) -> tuple[int | None, ...] | None:
    """NCHW, None where a dimension is open; None if not even the rank is known."""
    import tensorflow as tf

    shape = tf.TensorShape(spec.shape)
    if shape.rank is None:
        return None
    dims = tuple(shape.as_list())
    return _moved(dims, _NCHW_FROM_NHWC) if len(dims) == _IMAGE_RANK else dims


def _pin_shape(
    name: str, shape: tuple[int | None, ...] | None, given: tuple[int, ...], path: Path
) -> tuple[int, ...]:
    if shape is None:
        if not given:
            raise SourceError(
                f"input '{name}' of {path} has no shape",
                advice="give it as NCHW, e.g. --input 1x3x224x224",
            )
        return given
    wanted: tuple[int | None, ...] = given or tuple(
        1 if i == 0 and d is None else d for i, d in enumerate(shape)
    )
    written = _written(shape)
    if given and (
        len(given) != len(shape)
        or any(d is not None and d != g for d, g in zip(shape, given, strict=True))
    ):
        raise SourceError(
            f"input '{name}' of {path} is {written} as NCHW",
            expected=f"a shape that fits, not --input {_written(given)} (NCHW for every source; "
            "the file itself holds NHWC)",
        )
    sizes = [d for d in wanted if d is not None]
    if len(sizes) != len(wanted):
        usual = (1, 3, 224, 224) if len(shape) == _IMAGE_RANK else (1,) * len(shape)
        example = [d or u for d, u in zip(shape, usual, strict=True)]
        raise SourceError(
            f"input '{name}' of {path} is {written} as NCHW: dynamic beyond the batch",
            expected="a static shape (only a dynamic batch is pinned, to 1)",
            advice=f"give it as NCHW, e.g. --input {_written(example)}",
        )
    return tuple(sizes)


def _written(dims: Sequence[int | None]) -> str:
    return "x".join("?" if d is None else str(d) for d in dims)


def _moved(dims: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    return tuple(dims[i] for i in order)


def _with_nchw(call: Callable[[Sequence[Any]], Sequence[Any]]) -> Callable[..., list[Any]]:
    import tensorflow as tf

    def moved(value: Any, order: tuple[int, ...]) -> Any:
        return tf.transpose(value, order) if value.shape.rank == _IMAGE_RANK else value

    def run(*values: Any) -> list[Any]:
        results = call([moved(v, _NHWC_FROM_NCHW) for v in values])
        return [moved(tf.convert_to_tensor(r), _NCHW_FROM_NHWC) for r in results]

    return run


@contextlib.contextmanager
def _working_folder_importable(*, enabled: bool) -> Iterator[None]:
    # Only where the user trusts the file: it names modules that are to be imported.
    if not enabled:
        yield
        return
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop(0)


def _plain(name: str) -> str:
    return name.partition(":")[0]


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
