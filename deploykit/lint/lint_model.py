"""Run the rules on a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from deploykit.cost.profile import fused_stage, profile_stages
from deploykit.errors import UserError
from deploykit.lint import (
    channel_multiple,
    delegate_split,
    elementwise_share,
    fragmentation,
    grouped_convolution,
    quantizes_badly,
    unequal_channels,
    wasted_padding,
)
from deploykit.lint.finding import Finding, LintReport
from deploykit.lint.rule import RULES, LintContext, Rule
from deploykit.model import Model, Precision
from deploykit.target_options import DEFAULT_TARGET

#: Importing them registers the rules, in the order in which findings are reported.
RULE_MODULES = (
    unequal_channels,
    grouped_convolution,
    fragmentation,
    elementwise_share,
    quantizes_badly,
    delegate_split,
    channel_multiple,
    wasted_padding,
)

#: What is shipped most.
DEFAULT_PRECISIONS = (Precision.FP32, Precision.INT8)


def lint_model(
    model: Model,
    *,
    precisions: Sequence[Precision] = (),
    target: str = DEFAULT_TARGET,
    ignore: Collection[str] = (),
) -> LintReport:
    """Verify a model by all rules.

    Args:
        model: Any float stage, or an exported stage with QDQ nodes; it is left as it is.
        precisions: Which precisions it is to be shipped in; empty for `DEFAULT_PRECISIONS`, or for
            int8 alone if the model is quantized already.
        target: For whose runtime; empty for none.
        ignore: Ids of rules that are not run.

    Raises:
        UserError: an unknown rule or target, or a float precision of a quantized model.
        UnsupportedModelError: a shape that is not static.
    """
    from deploykit.graph.qdq import fold_qdq, has_qdq
    from deploykit.target import find_target

    unknown = sorted(set(ignore) - set(RULES))
    if unknown:
        raise UserError(
            f"no rule is called {', '.join(unknown)}", expected=f"one of {', '.join(RULES)}"
        )
    fused = fused_stage(model)
    quantized = has_qdq(fused.graph)
    wanted = _wanted(precisions, quantized=quantized)
    context = LintContext(
        fused,
        fold_qdq(fused.graph).model if quantized else fused.graph,
        profile_stages(fused, fused, Precision.FP32).after,
        wanted,
        find_target(target) if target else None,
    )
    findings: list[Finding] = []
    for name, rule in ordered_rules():
        if name not in ignore:
            found = enumerate(rule.check(context))
            worst_first = sorted(found, key=lambda p: (-p[1].severity.weight, -p[1].share, p[0]))
            findings += [finding for _, finding in worst_first]
    return LintReport(
        model=model.name,
        precisions=tuple(p.value for p in wanted),
        target=target,
        findings=tuple(findings),
        uncounted=context.cost.format_uncounted(),
    )


def _wanted(precisions: Sequence[Precision], *, quantized: bool) -> tuple[Precision, ...]:
    if not quantized:
        return tuple(precisions) or DEFAULT_PRECISIONS
    others = [p.value for p in precisions if p is not Precision.INT8]
    if others:
        raise UserError(
            f"precision {', '.join(others)} of a model that is quantized already", expected="int8"
        )
    return (Precision.INT8,)


def ordered_rules() -> list[tuple[str, Rule]]:
    """(Id, rule) in the order in which findings are reported."""
    order = [module.__name__ for module in RULE_MODULES]
    return sorted(RULES.items(), key=lambda item: order.index(type(item[1]).__module__))
