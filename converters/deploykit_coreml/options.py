"""The options of this target, checked against the iOS that they ask for.

What each deployment target can (the opset that its Core ML reads):

    iOS 15  CoreML5  fp32, fp16; inputs and outputs float32
    iOS 16  CoreML6  int8 weights, palettes, float16 inputs and outputs
    iOS 17  CoreML7  int8 activations (quantize, dequantize)
    iOS 18  CoreML8  a palette for each group of output channels (palette_channels)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deploykit.errors import ContractError
from deploykit.model import Precision
from deploykit.target_options import TargetOption, check_options
from deploykit_coreml.package_format import RESERVED_KEYS

_METADATA = "metadata"
_COMPUTED_FREELY = ("w8", "int8")

OPTIONS = (
    TargetOption(
        "ios",
        ("15", "16", "17", "18"),
        "the oldest that has all that is asked for",
        "oldest iOS that reads the package",
        flag="--ios",
    ),
    TargetOption(
        "io", ("float32", "float16"), "float32", "element type of tensor inputs and of outputs"
    ),
    TargetOption(
        "input",
        ("tensor", "image"),
        "tensor",
        "image: 8-bit pixels, normalized in the graph by the model's contract",
    ),
    TargetOption(
        "classifier", ("no", "yes"), "no", "yes: the label and its probability are outputs too"
    ),
    TargetOption(
        "compute",
        ("float16", "float32"),
        "float16",
        "floats that the rest is computed in",
        precisions=_COMPUTED_FREELY,
    ),
    TargetOption(
        "palettize",
        ("no", "8", "6", "4"),
        "no",
        "bits of an index into a palette of weights",
        flag="--palettize",
        precisions=("w8",),
    ),
    TargetOption(
        "palette_channels",
        (),
        "all",
        "output channels that share a palette (iOS 18)",
        precisions=("w8",),
    ),
    TargetOption("author", (), "none", "metadata: who made the model", text=True),
    TargetOption("license", (), "none", "metadata: its license", text=True),
    TargetOption("version", (), "none", "metadata: its version", text=True),
    TargetOption(
        "description", (), "the model's name and precision", "metadata: what it is", text=True
    ),
    TargetOption(f"{_METADATA}.KEY", (), "none", "metadata of your own, under any key", text=True),
)
_LEAST_IOS = {Precision.FP32: 15, Precision.FP16: 15, Precision.W8: 16, Precision.INT8: 17}


@dataclass(frozen=True)
class WriteOptions:
    """What a package is to be.

    Attributes:
        ios: Oldest iOS that reads it: 15 to 18.
        io: Element type of tensor inputs and of outputs, ``float32`` or ``float16``.
        image_input: Whether the image input is an image of 8-bit pixels, normalized inside.
        classifier: Whether the label and its probability are outputs too.
        compute: numpy's name of the floats that it computes in.
        palette_bits: Bits of an index into a palette of weights; 0 for none.
        palette_channels: Output channels that share a palette; 0 for one palette a tensor.
        author: Who made the model, for the package's metadata; empty for none, as are the next.
        license: Its license.
        version: Its version.
        description: What it is; empty for its name and precision.
        user_metadata: Key → value of the user's own.
    """

    ios: int
    io: str = "float32"
    image_input: bool = False
    classifier: bool = False
    compute: str = "float16"
    palette_bits: int = 0
    palette_channels: int = 0
    author: str = ""
    license: str = ""
    version: str = ""
    description: str = ""
    user_metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, options: Mapping[str, str], precision: Precision) -> WriteOptions:
        """Check options given by name.

        Args:
            options: ``ios``, ``io``, ``input``, ``classifier``, ``compute``, ``palettize``,
                ``palette_channels``, ``author``, ``license``, ``version``, ``description``,
                ``metadata.KEY``.
            precision: What the package is to compute in.

        Raises:
            ContractError: an unknown name or value, options that contradict the precision, or one
                that the chosen iOS lacks.
        """
        check_options("coreml", OPTIONS, options)
        chosen = cls(
            ios=int(options.get("ios", 0)),
            io=options.get("io", "float32"),
            image_input=options.get("input", "tensor") == "image",
            classifier=options.get("classifier", "no") == "yes",
            compute=_compute(options, precision),
            palette_bits=_number(options.get("palettize", "no")),
            palette_channels=int(options.get("palette_channels", 0)),
            author=options.get("author", ""),
            license=options.get("license", ""),
            version=options.get("version", ""),
            description=options.get("description", ""),
            user_metadata=_user_metadata(options),
        )
        _check_palette(chosen, precision)
        if chosen.io == "float16" and chosen.compute != "float16":
            raise ContractError(
                f"io float16 with {precision.value} computed in {chosen.compute}",
                expected="io float32, or a package that computes in float16",
            )
        return _with_ios(chosen, precision)


def _user_metadata(options: Mapping[str, str]) -> dict[str, str]:
    stem = f"{_METADATA}."
    found = {n.removeprefix(stem): text for n, text in options.items() if n.startswith(stem)}
    for key in found:
        if key.startswith(RESERVED_KEYS):
            raise ContractError(
                f"metadata under the key {key!r}",
                expected=f"another key: those that begin with {RESERVED_KEYS} are deploykit's own",
            )
    return found


def _compute(options: Mapping[str, str], precision: Precision) -> str:
    fixed = {Precision.FP32: "float32", Precision.FP16: "float16"}.get(precision)
    asked = options.get("compute", fixed or "float16")
    if fixed is not None and asked != fixed:
        raise ContractError(
            f"compute {asked} with precision {precision.value}",
            expected="compute is for --w8 and --int8, whose name leaves it open",
        )
    return asked


def _number(text: str) -> int:
    return 0 if text == "no" else int(text)


def _check_palette(chosen: WriteOptions, precision: Precision) -> None:
    if chosen.palette_bits and precision is not Precision.W8:
        raise ContractError(
            f"palettize {chosen.palette_bits} with precision {precision.value}",
            expected="precision w8: a palette takes the place of its linear int8 weights",
            advice="add --w8",
        )
    if chosen.palette_channels and not chosen.palette_bits:
        raise ContractError("palette_channels without palettize", expected="palettize 8, 6 or 4")


def _with_ios(chosen: WriteOptions, precision: Precision) -> WriteOptions:
    """Refuse what the chosen iOS lacks; where none was chosen, take the oldest that has it all."""
    needs = [(_LEAST_IOS[precision], f"precision {precision.value}")]
    if chosen.io == "float16":
        needs.append((16, "io float16"))
    if chosen.palette_channels:
        needs.append((18, "palette_channels"))
    least, what = max(needs)
    if chosen.ios == 0:
        return replace(chosen, ios=least)
    if chosen.ios < least:
        raise ContractError(
            f"{what} with ios {chosen.ios}",
            expected=f"ios {least} or later: Core ML before that cannot read it",
            advice=f"--ios {least}, or leave it out",
        )
    return chosen
