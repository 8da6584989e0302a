"""`analyze`: what int8 costs a network, where the noise comes from, and what brings it down."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from deploykit.errors import UserError
from deploykit.flow.calibrate import Calibrator
from deploykit.flow.plan import ConvertRequest, plan_artifacts, request_of
from deploykit.model import Model, Precision, Stage
from deploykit.noise import VALUE, WEIGHTS, CurvePoint, MethodRow, NoiseReport, NoiseSource
from deploykit.target import Target, policy_of

if TYPE_CHECKING:
    from deploykit.calibration.data import CalibrationData
    from deploykit.tensors import Array
    from deploykit_quantize.method import Calibration, Method, Quantization
    from deploykit_quantize.policy import Policy
    from deploykit_quantize.weighted_layer import WeightedLayer

#: Samples that the figures are of, unless more are asked for.
DEFAULT_SAMPLES = 16


def analyze(
    model: Model,
    request: ConvertRequest,
    *,
    budget_db: float | None = None,
    compare: bool = False,
    samples: int = DEFAULT_SAMPLES,
    progress: Callable[[str], None] = lambda _: None,
) -> NoiseReport:
    """Attribute the noise of a target's int8 stage to what is rounded; nothing is written.

    The stage is run in ONNX Runtime: what a runtime's kernels add is `convert`'s business.

    Args:
        model: The exported stage, as `deploykit.load` gives it.
        request: One target, and how to calibrate; what else it asks for is not looked at.
        budget_db: Also find the layers that, kept in floats, bring the signal-to-noise ratio of
            the outputs to so many dB.
        compare: Also quantize by every method.
        samples: At most so many samples are run.
        progress: Called with one line a step.

    Raises:
        UserError: not one target, a target without int8, a model that is quantized already, or
            data that cannot be used or are missing.
    """
    from deploykit.passes.pipeline import advance
    from deploykit_quantize.attribute_noise import attribute_noise, switch_roundings

    target, policy, request = _planned(request)
    fused = advance(model, Stage.FUSED)
    quantizer = _Quantizer.calibrated(fused, target, policy, request, progress)
    chosen = quantizer.measured_on(samples)
    method, stage, quantization = quantizer.quantize(request.method_name, policy)
    progress(f"quantized by {request.method_name}; noise on {chosen.count} samples")
    found = attribute_noise(
        switch_roundings(quantization.prepare(method), stage),
        list(chosen.batches(_batch(fused))),
        progress,
    )
    report = NoiseReport(
        model=model.name,
        target=target.name,
        method=request.method_name,
        samples=chosen.count,
        held_out=not quantizer.seen,
        snr_db=found.snr_db,
        worst_db=float(found.sample_db.min()),
        worst_share=found.worst_share,
        sources=found.sources,
        budget_db=budget_db,
    )
    if budget_db is not None:
        report = _within_budget(report, quantizer, policy, method, chosen, budget_db, progress)
    if compare:
        report = replace(report, methods=_compare(quantizer, policy, chosen, progress))
    return report


def _planned(request: ConvertRequest) -> tuple[Target, Policy, ConvertRequest]:
    """The one target, its policy, and the request for int8.

    Raises:
        UserError: there is not one target, or it has no int8.
    """
    from deploykit_quantize.scope import Scope

    request = replace(request, precisions=(Precision.INT8.value,))
    plan, _ = plan_artifacts(request)
    if len(plan) != 1:
        raise UserError(f"{len(plan)} targets to analyze for", expected="one, e.g. --to tflite")
    ((target, precision),) = plan
    policy = policy_of(target, precision, request_of(target, precision, request).options)
    if policy is None:
        raise UserError(f"the target {target.name} quantizes nothing for int8")
    return target, replace(policy, keep_float=tuple(map(Scope, request.keep_float))), request


@dataclass(frozen=True)
class _Quantizer:
    """One fused stage with its calibration, and the float model's outputs."""

    fused: Model
    calibration: Calibration
    seen: bool
    _verified: CalibrationData

    @classmethod
    def calibrated(
        cls,
        fused: Model,
        target: Target,
        policy: Policy,
        request: ConvertRequest,
        progress: Callable[[str], None],
    ) -> _Quantizer:
        from deploykit.graph.qdq import has_qdq
        from deploykit_quantize.scope import check_scopes

        if has_qdq(fused.graph):
            raise UserError(
                f"model '{fused.name}' is quantized already (it has QuantizeLinear nodes)",
                expected="the float model that it was made from",
            )
        check_scopes(fused.graph.graph, policy.keep_float)
        calibrator = Calibrator.load(fused, request, [(target, Precision.INT8)], progress)
        calibration = calibrator.calibrate()
        verified = calibrator.verified or calibrator.fitted
        if verified is None:
            raise UserError(
                "an analysis needs samples, and a table alone is given",
                expected="--calibrate besides --calibration-table, or in its place",
            )
        return cls(fused, calibration, calibrator.seen or verified is calibrator.fitted, verified)

    def measured_on(self, most: int) -> CalibrationData:
        """At most so many samples, at equal distances."""
        data = self._verified
        return data if data.count <= most else data.divided(most)[1]

    def quantize(self, name: str, policy: Policy) -> tuple[Method, Model, Quantization]:
        """The method, the quantized stage, and what made it."""
        from deploykit_quantize.choose_method import choose_method
        from deploykit_quantize.method import Quantization
        from deploykit_quantize.methods import method_called

        quantization = Quantization(self.fused, policy, self.calibration)
        if name == "auto":
            method, stage = choose_method(quantization)
            return method, stage, quantization
        method = method_called(name)
        return method, quantization.quantize(method), quantization

    def outputs(self, model: Model, data: CalibrationData) -> list[Array]:
        """(samples, elements) of each output."""
        from deploykit_quantize.choose_method import run_values

        return run_values(model, [output.name for output in self.fused.outputs], data)


def _batch(fused: Model) -> int:
    from deploykit_quantize.layer_inputs import batch_of

    return batch_of(fused.graph)


@dataclass(frozen=True)
class _Quality:
    snr_db: float
    median_db: float
    agreement: float | None


def _quality(wanted: Sequence[Array], given: Sequence[Array], *, scores: bool) -> _Quality:
    """Of outputs against the float model's; each output counts by its own signal."""
    powers = [float(np.square(a.astype(np.float64)).sum()) or 1.0 for a in wanted]
    noise = sum(
        np.square(a.astype(np.float64) - b).sum(axis=1) / power
        for a, b, power in zip(wanted, given, powers, strict=True)
    )
    signal = sum(
        np.square(a.astype(np.float64)).sum(axis=1) / power
        for a, power in zip(wanted, powers, strict=True)
    )
    tiny = np.finfo(np.float64).tiny
    own = np.minimum(10 * np.log10((signal + tiny) / (noise + tiny)), 200.0)
    pooled = min(10 * np.log10(np.sum(signal) / max(float(np.sum(noise)), 1e-20)), 200.0)
    agreement = None
    if scores:
        agreement = float((wanted[0].argmax(axis=1) == given[0].argmax(axis=1)).mean())
    return _Quality(float(pooled), float(np.median(own)), agreement)


def _has_scores(fused: Model) -> bool:
    shapes = [output.shape for output in fused.outputs]
    return len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == 1 and shapes[0][1] > 1


def _within_budget(
    report: NoiseReport,
    quantizer: _Quantizer,
    policy: Policy,
    method: Method,
    data: CalibrationData,
    budget_db: float,
    progress: Callable[[str], None],
) -> NoiseReport:
    """The fewest layers in floats, by their share of the noise, that meet the budget."""
    from deploykit_quantize.method import Quantization
    from deploykit_quantize.scope import Scope

    ranked = rank_layers(quantizer.fused, report.sources)
    total = sum(cost for _, cost in ranked) or 1
    wanted = quantizer.outputs(quantizer.fused, data)
    points: dict[int, CurvePoint] = {}

    def measure(count: int) -> CurvePoint:
        if count not in points:
            kept = tuple(Scope(re.escape(name)) for name, _ in ranked[:count])
            own = replace(policy, keep_float=(*policy.keep_float, *kept))
            stage = Quantization(quantizer.fused, own, quantizer.calibration).quantize(method)
            found = _quality(
                wanted, quantizer.outputs(stage, data), scores=_has_scores(quantizer.fused)
            )
            share = sum(cost for _, cost in ranked[:count]) / total
            points[count] = CurvePoint(count, found.snr_db, found.median_db, found.agreement, share)
            progress(f"{count} layers in floats: {found.snr_db:.1f} dB")
        return points[count]

    low, high = 0, 0
    while measure(high).snr_db < budget_db and high < len(ranked) - 1:
        low, high = high, min(max(2 * high, 1), len(ranked) - 1)
    if points[high].snr_db >= budget_db:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if measure(middle).snr_db >= budget_db else (middle, high)
    curve = tuple(points[count] for count in sorted(points) if count <= high)
    return replace(report, curve=curve, keep_float=tuple(name for name, _ in ranked[:high]))


def rank_layers(fused: Model, sources: Sequence[NoiseSource]) -> list[tuple[str, int]]:
    """Layers with weights and their multiply-adds, those that make most of the noise first.

    The noise of a layer is that of its weights and that of the value which it hands on.
    """
    from deploykit.graph.read_qdq import carries_activation
    from deploykit_quantize.weighted_layer import weighted_layer

    shares = {(s.kind, s.name): s.share for s in sources}
    found = []
    for node in fused.graph.graph:
        layer = weighted_layer(node)
        if layer is None:
            continue
        value = node.outputs[0]
        while carries_activation(value):
            value = next(iter(value.uses())).node.outputs[0]
        share = shares.get((WEIGHTS, layer.name), 0.0) + shares.get((VALUE, value.name or ""), 0.0)
        found.append((share, layer.name, _mult_adds(layer)))
    ranked = sorted(found, key=lambda item: (-item[0], item[1]))
    return [(name, cost) for _, name, cost in ranked]


def _mult_adds(layer: WeightedLayer) -> int:
    """Every weight takes part once a position of the map."""
    transposed = layer.node.op_type == "ConvTranspose"
    value = layer.node.inputs[0] if transposed else layer.node.outputs[0]
    shape = value.shape.numpy() if value is not None and value.shape is not None else ()
    positions = int(np.prod(shape[2:])) if len(shape) > 2 else 1
    return int(layer.weights.size) * positions


def _compare(
    quantizer: _Quantizer,
    policy: Policy,
    data: CalibrationData,
    progress: Callable[[str], None],
) -> tuple[MethodRow, ...]:
    """Every method, the best first; one that needs what is not there is left out, and said."""
    from deploykit_quantize.methods import METHODS

    wanted = quantizer.outputs(quantizer.fused, data)
    rows = []
    for name in (*METHODS, "auto"):
        start = time.process_time()
        _, stage, _ = quantizer.quantize(name, policy)
        seconds = time.process_time() - start
        found = _quality(
            wanted, quantizer.outputs(stage, data), scores=_has_scores(quantizer.fused)
        )
        rows.append(MethodRow(name, found.snr_db, found.median_db, found.agreement, seconds))
        progress(f"{name}: {found.snr_db:.1f} dB")
    return tuple(sorted(rows, key=lambda row: (-row.median_db, row.method)))
