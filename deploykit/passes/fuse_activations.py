"""Activations written out in primitive ops.

Each is recognised at its last node; every value inside of it must have no other reader. The
constants must be the stated ones within a relative tolerance of `TOLERANCE`.

1. ``max(x, 0)`` → Relu.
2. ``min(max(x, a), b)``, ``max(min(x, b), a)``, and the same with Relu or Clip inside → Clip(a, b)
   for a < b; ``min(relu(x), 6)`` is ReLU6 = Clip(0, 6).
3. ``relu6(x + 3) / 6`` and ``clip(x / 6 + 1/2, 0, 1)`` → HardSigmoid(1/6, 1/2).
4. ``x hardsigmoid(x)`` and ``x relu6(x + 3) / 6``, the three factors in any order → HardSwish
   (Howard et al. 2019, MobileNetV3).
5. ``x sigmoid(x)`` → deploykit::Silu (Elfwing et al. 2017).
6. ``x / 2 (1 + erf(x / sqrt 2))``, the factors in any order → Gelu.

A product is looked at as a whole: the chain of Mul nodes behind one another is taken apart into
its factors, and their constants are multiplied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from deploykit.graph.editing import AttributeValue, GraphEditor
from deploykit.graph.functions import add_function
from deploykit.graph.op_facts import clamp_of
from deploykit.graph.ops import CLAMPS, DOMAIN
from deploykit.graph.reading import (
    constant_scalar,
    input_at,
    is_op,
    known_shape,
    only_reader,
    producer_of,
    read_float,
    why_not_private,
)
from deploykit.passes.base import Findings, Pass, PassResult

if TYPE_CHECKING:
    import onnx_ir as ir

#: Relative distance within which a constant is taken for the one of the formula: it covers
#: constants that were rounded to float16's neighbours in decimal (0.16667), and no other design.
TOLERANCE = 1e-4

#: A product of more computed factors than this is no activation.
_MOST_FACTORS = 4


@dataclass(frozen=True)
class FuseActivations(Pass):
    """See the module's docstring."""

    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "static_shapes"})
    ensures: ClassVar[frozenset[str]] = frozenset({"activations_fused"})
    breaks: ClassVar[frozenset[str]] = frozenset({"no_dead_code"})

    def apply(self, model: ir.Model) -> PassResult:
        """Fuse in the graph's order, so that inner patterns are fused when outer ones are met."""
        findings = Findings(self.name)
        editor = GraphEditor(model.graph)
        for node in model.graph:
            if is_op(node, "Max", "Min"):
                _fuse_bound(node, editor, findings)
            elif is_op(node, "Clip"):
                _fuse_clip(node, editor, findings)
            elif is_op(node, "Mul"):
                _fuse_product(node, model, editor, findings)
        return findings.result()


def _close(number: float | None, wanted: float) -> bool:
    return number is not None and math.isclose(number, wanted, rel_tol=TOLERANCE, abs_tol=0.0)


def _replace(
    node: ir.Node,
    op_type: str,
    inputs: list[ir.Value | None],
    editor: GraphEditor,
    *,
    domain: str = "",
    attributes: dict[str, AttributeValue] | None = None,
) -> ir.Value:
    output = node.outputs[0]
    fused = editor.node(
        op_type, inputs, known_shape(output), like=node, domain=domain, attributes=attributes
    )
    editor.take_over(output, fused)
    _remove_chain(node, editor)
    return fused


def _remove_chain(node: ir.Node, editor: GraphEditor) -> None:
    # A fused node and what led to it, as far as nobody else reads it.
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.graph is None or any(o.uses() or o.is_graph_output() for o in one.outputs):
            continue
        waiting += [p for p in (producer_of(value) for value in one.inputs) if p is not None]
        editor.graph.remove(one, safe=True)


# --- bounds


def _fuse_bound(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    value, limit = node.inputs[0], constant_scalar(input_at(node, 1))
    if value is None or limit is None:
        return
    inner = producer_of(value, "Max", "Min", "Relu", "Clip")
    bounds = _bounds_of(inner) if inner is not None else None
    if inner is None or bounds is None:
        if node.op_type == "Max" and limit == 0.0:
            findings.matched(node, "max(x, 0) > Relu")
            _replace(node, "Relu", [value], editor)
        return
    low, high = bounds
    if node.op_type == "Max":
        low = max(low, limit)
    else:
        high = min(high, limit)
    reason = why_not_private(value)
    if not reason and not (math.isfinite(low) and math.isfinite(high)):
        reason = "two bounds on the same side"
    # max(min(x, b), a) with a → b is the constant a, min(max(x, a), b) is b: no Clip.
    if not reason and low >= high:
        reason = f"the lower bound {low:g} is not below the upper bound {high:g}"
    if reason:
        findings.skipped(node, reason)
        return
    findings.matched(node, f"{inner.op_type} and {node.op_type} > Clip({low:g}, {high:g})")
    clip = _write_clip(node, inner.inputs[0], low, high, editor).producer()
    if clip is not None:
        _fuse_clip(clip, editor, findings)


def _bounds_of(node: ir.Node) -> tuple[float, float] | None:
    """Between which constants a Relu, Clip, Max or Min keeps its first input."""
    limit = constant_scalar(input_at(node, 1))
    if node.op_type in CLAMPS or limit is None:
        return clamp_of(node)
    return (limit, math.inf) if node.op_type == "Max" else (-math.inf, limit)


def _write_clip(
    node: ir.Node, value: ir.Value | None, low: float, high: float, editor: GraphEditor
) -> ir.Value:
    name = node.outputs[0].name
    limits = [
        editor.constant(f"{name}.{role}", np.array(number, dtype=np.float32))
        for role, number in (("min", low), ("max", high))
    ]
    return _replace(node, "Clip", [value, *limits], editor)


# --- hard-sigmoid from Clip(x / 6 + 1/2, 0, 1)


def _fuse_clip(node: ir.Node, editor: GraphEditor, findings: Findings) -> None:
    bounds = _bounds_of(node)
    if bounds != (0.0, 1.0):
        return
    shift = producer_of(node.inputs[0], "Add")
    scale = producer_of(shift.inputs[0], "Mul") if shift is not None else None
    if shift is None or scale is None:
        return
    alpha, beta = constant_scalar(input_at(scale, 1)), constant_scalar(input_at(shift, 1))
    if alpha is None or beta is None:
        return
    reason = _first_shared(node.inputs[0], shift.inputs[0])
    if not reason and not (_close(alpha, 1 / 6) and _close(beta, 0.5)):
        reason = f"clip({alpha:g} x + {beta:g}, 0, 1) is not the hard-sigmoid of 1/6 and 1/2"
    if reason:
        findings.skipped(node, reason)
        return
    findings.matched(node, "clip(x / 6 + 1/2, 0, 1) > HardSigmoid")
    _write_hard_sigmoid(node, scale.inputs[0], editor)


def _first_shared(*values: ir.Value | None) -> str:
    for value in values:
        reason = why_not_private(value) if value is not None else ""
        if reason:
            return reason
    return ""


def _write_hard_sigmoid(node: ir.Node, value: ir.Value | None, editor: GraphEditor) -> None:
    _replace(node, "HardSigmoid", [value], editor, attributes={"alpha": 1 / 6, "beta": 0.5})


# --- products


@dataclass
class _Product:
    """The factors of a chain of Mul nodes.

    Attributes:
        scale: The product of its constants.
        values: The factors that are computed.
        inner: The values inside of the chain, between its nodes.
    """

    scale: float = 1.0
    values: list[ir.Value] = field(default_factory=list)
    inner: list[ir.Value] = field(default_factory=list)


def _factors(node: ir.Node, leaf: ir.Value | None, product: _Product) -> _Product:
    # ``leaf`` is not taken apart, though it may be a product itself.
    for value in node.inputs:
        constant = constant_scalar(value)
        if constant is not None:
            product.scale *= constant
            continue
        if value is None:
            continue
        before = producer_of(value, "Mul")
        if before is not None and value is not leaf and len(product.values) < _MOST_FACTORS:
            product.inner.append(value)
            _factors(before, leaf, product)
        else:
            product.values.append(value)
    return product


def _fuse_product(node: ir.Node, model: ir.Model, editor: GraphEditor, findings: Findings) -> None:
    whole = _factors(node, None, _Product())
    if len(whole.values) == 1:
        _fuse_scaled_relu6(node, whole, editor, findings)
        return
    for factor in whole.values:
        gate = _gate_of(factor)
        if gate is None:
            continue
        product = _factors(node, gate.value, _Product())
        if len(product.values) != 2 or not any(v is gate.value for v in product.values):
            continue
        _fuse_gated(node, gate, product, model, editor, findings)
        return


def _fuse_gated(
    node: ir.Node,
    gate: _Gate,
    product: _Product,
    model: ir.Model,
    editor: GraphEditor,
    findings: Findings,
) -> None:
    reason = _first_shared(*gate.inside, *product.inner)
    if not reason and not _close(product.scale, gate.scale):
        if is_op(only_reader(node.outputs[0]), "Mul"):
            return  # the rest of the product is verified with the Mul behind this one
        reason = f"the factor is {product.scale:.6g}, not {gate.scale:.6g}"
    if reason:
        findings.skipped(node, f"no {gate.kind}: {reason}")
        return
    findings.matched(node, f"a product of {len(product.inner) + 1} Mul > {gate.kind}")
    if gate.kind == "Silu":
        add_function(model, "Silu")
        _replace(node, "Silu", [gate.value], editor, domain=DOMAIN)
    elif gate.kind == "Gelu":
        _replace(node, "Gelu", [gate.value], editor, attributes={"approximate": "none"})
    else:
        _replace(node, "HardSwish", [gate.value], editor)


@dataclass(frozen=True)
class _Gate:
    """A factor that makes an activation of the value that it is computed from.

    Attributes:
        kind: The activation.
        value: The value x of ``x gate(x)``.
        scale: The constant factor that belongs to it.
        inside: The gate, and what is computed on the way to it.
    """

    kind: str
    value: ir.Value
    scale: float
    inside: tuple[ir.Value, ...]


def _gate_of(gate: ir.Value) -> _Gate | None:
    producer = producer_of(gate)
    value = producer.inputs[0] if producer is not None and producer.inputs else None
    if producer is None or value is None or producer.domain != "":
        return None
    if producer.op_type == "Sigmoid":
        return _Gate("Silu", value, 1.0, (gate,))
    if producer.op_type == "HardSigmoid":
        alpha, beta = read_float(producer, "alpha", 0.2), read_float(producer, "beta", 0.5)
        standard = _close(alpha, 1 / 6) and _close(beta, 0.5)
        return _Gate("HardSwish", value, 1.0, (gate,)) if standard else None
    if producer.op_type == "Clip" and _bounds_of(producer) == (0.0, 6.0):
        unshifted = _shifted_by(value, 3.0)
        return None if unshifted is None else _Gate("HardSwish", unshifted, 1 / 6, (gate, value))
    return _erf_gate(gate, producer) if producer.op_type == "Add" else None


def _erf_gate(gate: ir.Value, add: ir.Node) -> _Gate | None:
    erf = producer_of(add.inputs[0], "Erf")
    scaled = producer_of(erf.inputs[0], "Mul") if erf is not None else None
    if erf is None or scaled is None or scaled.inputs[0] is None:
        return None
    one, root = constant_scalar(input_at(add, 1)), constant_scalar(input_at(scaled, 1))
    if not _close(one, 1.0) or not _close(root, math.sqrt(0.5)):
        return None
    inside = (gate, *erf.outputs, *scaled.outputs)
    return _Gate("Gelu", scaled.inputs[0], 0.5, inside)


def _shifted_by(value: ir.Value | None, offset: float) -> ir.Value | None:
    add = producer_of(value, "Add")
    if add is None or not _close(constant_scalar(input_at(add, 1)), offset):
        return None
    return add.inputs[0]


def _fuse_scaled_relu6(
    node: ir.Node, product: _Product, editor: GraphEditor, findings: Findings
) -> None:
    gate = product.values[0]
    clip = producer_of(gate, "Clip")
    if clip is None or _bounds_of(clip) != (0.0, 6.0):
        return
    value = _shifted_by(clip.inputs[0], 3.0)
    if value is None:
        return
    reason = _first_shared(gate, clip.inputs[0], *product.inner)
    if not reason and not _close(product.scale, 1 / 6):
        reason = f"the factor of relu6(x + 3) is {product.scale:g}, not 1/6"
    if reason:
        findings.skipped(node, f"no HardSigmoid: {reason}")
        return
    findings.matched(node, "relu6(x + 3) / 6 > HardSigmoid")
    _write_hard_sigmoid(node, value, editor)
