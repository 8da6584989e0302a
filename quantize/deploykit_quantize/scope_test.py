from __future__ import annotations

import pytest

from deploykit.errors import UserError
from deploykit.graph.provenance import MODULE_KEY
from deploykit_quantize.scope import Scope, check_scopes
from deploykit_testing.quantized import NETWORK, fused


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("blocks.5", True),
        ("blocks.5.conv", True),
        ("blocks", True),
        (r"blocks\.\d", True),
        ("c1", True),
        ("blocks.5.co", False),
        ("block", False),
        ("conv", False),
    ],
)
def test_a_scope_is_a_value_a_module_or_what_contains_it(pattern: str, fits: bool) -> None:
    graph = fused(NETWORK).graph.graph
    (node,) = [n for n in graph if n.outputs[0].name == "c1"]
    node.metadata_props[MODULE_KEY] = "blocks.5.conv"
    assert Scope(pattern).matches(node) is fits


def test_what_is_no_expression_fits_nothing_or_everything_is_refused() -> None:
    graph = fused(NETWORK).graph.graph
    with pytest.raises(UserError, match="unterminated"):
        Scope("[a")
    check_scopes(graph, (Scope("c0"), Scope("c[12]")))
    with pytest.raises(UserError, match="'nothing' fits no layer"):
        check_scopes(graph, (Scope("c0"), Scope("nothing")))
    with pytest.raises(UserError, match="fits every layer"):
        check_scopes(graph, (Scope(".*"),))
