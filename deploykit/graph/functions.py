"""The ops of the ``deploykit`` domain: ONNX functions whose bodies are standard ops.

ONNX has no channel shuffle and no SiLU in operator set 20. Each is a model-local function here, so
that a stage can be saved, opened in any viewer, and run by ONNX Runtime, which inlines the body.

    Silu(x) = x * sigmoid(x)
    ChannelShuffle<groups>(x): channels as (groups, C / groups), transposed
        (Zhang et al. 2017, ShuffleNet): y[:, i groups + g] = x[:, g C / groups + i]
    ConcatShuffleSplit<groups>(a, b): the two halves of ChannelShuffle<groups>(concat(a, b)), which
        ends and begins every unit of ShuffleNetV2 (Ma et al. 2018)

All are NCHW, of any shape: bodies take it from their inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.graph.ops import DOMAIN, OPSET

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = 1

_SHUFFLE = """
    shape = Shape ({x})
    batch = Shape <start = 0, end = 1> ({x})
    spatial = Shape <start = 2> ({x})
    count = Constant <value_int: int = @groups> ()
    first = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    groups_dim = Unsqueeze (count, first)
    split_shape = Concat <axis = 0> (batch, groups_dim, rest, spatial)
    grouped = Reshape ({x}, split_shape)
    swapped = Transpose <perm = [0, 2, 1, 3, 4]> (grouped)
    {y} = Reshape (swapped, shape)
"""

_TEXTS = (
    """
Silu (x) => (y) {
    gate = Sigmoid (x)
    y = Mul (x, gate)
}""",
    f"""
ChannelShuffle <groups> (x) => (y) {{{_SHUFFLE.format(x="x", y="y")}}}""",
    f"""
ConcatShuffleSplit <groups> (a, b) => (y1, y2) {{
    x = Concat <axis = 1> (a, b)
{_SHUFFLE.format(x="x", y="y")}
    y1, y2 = Split <axis = 1, num_outputs = 2> (y)
}}""",
)

#: Name → text; each text begins with its name.
_BODIES = {text.split(maxsplit=1)[0]: text for text in _TEXTS}

#: The functions there are.
NAMES = tuple(_BODIES)


def make_function(name: str) -> ir.Function:
    """The function of that name, with its body.

    Raises:
        KeyError: there is no such function (a bug of the caller).
    """
    import onnx.parser
    from onnx_ir import serde

    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'
    return serde.deserialize_function(onnx.parser.parse_function(header + _BODIES[name]))


def add_function(model: ir.Model, name: str) -> None:
    """Make a function known to a model, once, so that nodes can call it.

    Raises:
        KeyError: there is no such function (a bug of the caller).
    """
    key = (DOMAIN, name, "")
    if key not in model.functions:
        model.functions[key] = make_function(name)
    model.opset_imports[DOMAIN] = VERSION
