"""Methods by name."""

from __future__ import annotations

from deploykit.errors import UserError
from deploykit_quantize.method import Method
from deploykit_quantize.prepare.correct_bias import CorrectBias
from deploykit_quantize.prepare.equalize_activations import EqualizeActivations
from deploykit_quantize.prepare.equalize_layers import EqualizeLayers
from deploykit_quantize.round.keep_sums import KeepSums
from deploykit_quantize.round.second_order import SecondOrder

#: Besides ``auto``, which chooses (`deploykit_quantize.choose_method`).
METHODS = {
    "minmax": Method(),
    "sums": Method(rounding=KeepSums()),
    "second-order": Method(rounding=SecondOrder()),
    "equalize": Method(
        EqualizeActivations(),
        reads_activations=True,
        rounding=SecondOrder(),
        bias=CorrectBias(),
    ),
    "cross-layer": Method(EqualizeLayers(), bias=CorrectBias()),
}


def method_called(name: str) -> Method:
    """The method of a name.

    Raises:
        UserError: there is none.
    """
    if name not in METHODS:
        raise UserError(
            f"no method is called {name!r}", expected=f"one of auto, {', '.join(METHODS)}"
        )
    return METHODS[name]
