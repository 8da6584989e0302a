"""The options of this target, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deploykit.errors import ContractError
from deploykit.model import Precision
from deploykit.target_options import SOFTMAX, TargetOption, check_options
from deploykit.tensors import QuantParams
from deploykit_tflite.ethos_u import ACCELERATORS

OPTIONS = (
    TargetOption(
        "io",
        ("auto", "float32", "uint8", "int8"),
        "auto",
        "element type of inputs and outputs; auto: int8 in an int8 file",
        flag="--io",
    ),
    TargetOption(
        "input_layout",
        ("NHWC", "NCHW"),
        "NHWC",
        "layout of image inputs; NCHW costs a TRANSPOSE at each",
        flag="--input-layout",
    ),
    TargetOption(
        "ethos_u",
        ("no", *ACCELERATORS),
        "no",
        "also write the file compiled for this Ethos-U NPU (doctor --setup ethos-u)",
        precisions=("int8",),
    ),
    SOFTMAX,
)


@dataclass(frozen=True)
class WriteOptions:
    """How a file meets the app.

    Attributes:
        io: Element type of inputs and outputs: ``auto`` (as the graph computes: int8 in an int8
            file), ``float32``, ``uint8`` or ``int8``.
        input_layout: ``NHWC``, or ``NCHW`` with one TRANSPOSE at each image input.
        ethos_u: NPU that the file is also compiled for; ``no`` for none.
    """

    io: str = "auto"
    input_layout: str = "NHWC"
    ethos_u: str = "no"

    @classmethod
    def parse(cls, options: Mapping[str, str], precision: Precision) -> WriteOptions:
        """Check options given by name.

        Raises:
            ContractError: an unknown name or value, or integers at the ends of a float file.
        """
        given = check_options("tflite", OPTIONS, options)
        chosen = cls(**{name: given[name] for name in ("io", "input_layout", "ethos_u")})
        if precision is not Precision.INT8 and chosen.io in ("int8", "uint8"):
            raise ContractError(
                f"--io {chosen.io} with precision {precision.value}",
                expected="io float32: the file computes in floats",
                advice="add --int8, or leave --io out",
            )
        return chosen

    def outer_params(self, inner: QuantParams | None, what: str) -> QuantParams | None:
        """The quantization of an input or output as the app sees it.

        Args:
            inner: As the graph computes.
            what: The input or output, for the error.

        Raises:
            ContractError: integers are asked for and the graph computes in floats there.
        """
        if self.io == "auto":
            return inner
        if self.io == "float32":
            return None
        if inner is None:
            raise ContractError(
                f"{what} is float32 in this model",
                expected=f"a quantized one for io {self.io}",
                advice="use io auto or float32",
            )
        if self.io == inner.dtype:
            return inner
        shift = 128 if self.io == "uint8" else -128
        return replace(inner, dtype=self.io, zero_point=tuple(z + shift for z in inner.zero_point))
