"""What is enough: the limits of each precision, and how the user overrides them.

Why each default is what it is:

fp32    The artefact computes what its stage computes, in another order of additions: about 1e-6
        of the range on compact networks, hence 2e-5. Export, folding of batch normalization and
        fusing stand between the artefact and the float reference, each good for another rounding
        of every weight: 1e-4.
fp16    A weight of 11 bits is off by up to 2^-11 = 5e-4 of itself, and a delegate may add in
        float16 too: 1e-2 of the range, to the stage and to the reference.
w8      The runtime quantizes activations as it runs, and how differs from kernel to kernel; the
        stage has int8 weights and float activations. So the "conversion error" holds real noise:
        1e-1. A wrong layout, padding or weight is off by far more.
int8    The stage simulates integer arithmetic; kernels round products in another order: each layer
        by itself, given what the artefact computed before it, 2 steps (`local_errors` says why
        layers are verified and not what dozens of them add up to; the output's own error is then
        told). A runtime that gives outputs only is verified by how far they are from the float
        reference: at most 1 dB and 1 point of top-1 agreement (or one sample, where that is more)
        worse than the stage itself. When a bundle is verified again by the same runtime, version
        and kind of CPU, it must repeat what it gave then within 2 steps; on another one, layers are
        compared if the bundle has its stages, or else outputs as above.
        A target may compute some layers' results, and its outputs, in floats that have no steps
        (ncnn rounds what a convolution reads, and nothing else). There the layer by itself is held
        to 2e-2 of its range: one input value that falls on the other side of the middle between
        two integers moves a result by the weight times the step, up to 6e-3 of the range measured
        on GhostNet; a wrong weight, pad or activation is off by a tenth and more. Its outputs are
        held to 5e-2 of an earlier run on the same runner: the few values on the edge may be other
        ones, and 160 layers carry them on (2.3e-2 from stage to runtime with every layer right,
        GhostNet).
cpu_op_share
        Of a compiler for an NPU: the share of operators that it leaves to the CPU, each a way there
        and back. Any is a warning, more than a tenth a failure. A file of floats fails: no NPU
        takes it.

Noise against the float reference depends on the model, so it has two limits: below the first a
verdict is WARN, below the second FAIL.

snr_db  Fails below 5 dB: noise of a third of the signal's power, no more than a result that has
        nothing to do with the reference. Warns below 10 dB: noise of a tenth of the power, with
        which scores that are normal random numbers keep their largest of 10 classes in 75 % of
        the samples, of 1,000 in 53 %. A trained network that is sure of its class bears that, one
        that is not changes classes.
cosine  Of the worst sample: ``1 / sqrt(1 + 10^(-SNR / 10))`` for noise that is independent of the
        signal. Fails below 0.8 (3 dB, where one constant is too), warns below 0.9 (7 dB: the worst
        sample is allowed 3 dB more noise than all of them together). A large constant part of the
        outputs (all positive, say) flatters both figures.
clear_top1_agreement
        Fails below 80 %, warns below 95 %: one image in five, or in twenty, is named otherwise than
        by the float model. Of an output (n, classes) only, and only of samples whose margin in the
        reference (largest score less the second) exceeds the noise of a margin: an untrained
        network, whose scores hardly differ, tosses coins, and that is no fault of the file. The
        noise of a margin is ``sqrt(2)`` times the measured error of a score, and no more than it
        is at the SNR that warns: more noise than that excuses no change of class. Fewer than 8 such
        samples are reported and not verified. ``top1_agreement`` counts all samples; it is
        reported, and verified where the user sets a limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from deploykit.errors import UserError
from deploykit.model import Precision
from deploykit.verdict import FAIL_AGREEMENT, WARN_AGREEMENT


@dataclass(frozen=True)
class PrecisionLimits:
    """The limits of one precision; None: the figure is reported, not verified.

    Attributes:
        max_error_over_range: Conversion: at most; for int8, of outputs without steps.
        max_error_lsb: Conversion: at most, in steps of an output that is computed in integers,
            end to end; where the runtime gives outputs only.
        snr_loss_db: Conversion: where the runtime gives outputs only, by how much their SNR to the
            float reference may be below the stage's, or below that of a runner on which the same
            file was right layer by layer.
        top1_loss: Likewise, of top-1 agreement, 0..1; one sample is always allowed.
        output_error_lsb: The same, where layers are verified too.
        layer_error_lsb: Conversion: at most, in steps of any layer's result, given the artefact's
            own values before it.
        repeat_error_lsb: A bundle verified again: at most, in steps of an output, to what the same
            runner gave when the bundle was made.
        layer_error_over_range: As ``layer_error_lsb``, of a layer whose result has no steps.
        output_error_over_range: As ``output_error_lsb``, of an output without steps.
        repeat_error_over_range: As ``repeat_error_lsb``, of an output without steps.
        reference_error_over_range: Against the float reference: at most.
        snr_db: Against the float reference: at least.
        cosine: Against the float reference, worst sample: at least.
        top1_agreement: With the float reference, 0..1: at least.
        clear_top1_agreement: Of samples whose margin exceeds the noise: at least.
        cpu_op_share: Of operators, left to the CPU by a compiler for an NPU, 0..1: at most.
        warn_cpu_op_share: Above this it is a warning.
        warn_snr_db: Below this ``snr_db`` is a warning; and so on.
        warn_cosine: Of ``cosine``.
        warn_clear_top1_agreement: Of ``clear_top1_agreement``.
    """

    max_error_over_range: float | None = None
    max_error_lsb: float | None = None
    snr_loss_db: float | None = None
    top1_loss: float | None = None
    output_error_lsb: float | None = None
    layer_error_lsb: float | None = None
    repeat_error_lsb: float | None = None
    layer_error_over_range: float | None = None
    output_error_over_range: float | None = None
    repeat_error_over_range: float | None = None
    reference_error_over_range: float | None = None
    snr_db: float | None = None
    cosine: float | None = None
    top1_agreement: float | None = None
    clear_top1_agreement: float | None = FAIL_AGREEMENT
    warn_snr_db: float | None = None
    warn_cosine: float | None = None
    warn_clear_top1_agreement: float | None = WARN_AGREEMENT
    cpu_op_share: float | None = None
    warn_cpu_op_share: float | None = None


@dataclass(frozen=True)
class Limits:
    """The limits of every precision; see the module's docstring for the defaults."""

    fp32: PrecisionLimits = PrecisionLimits(
        max_error_over_range=2e-5, reference_error_over_range=1e-4
    )
    fp16: PrecisionLimits = PrecisionLimits(
        max_error_over_range=1e-2, reference_error_over_range=1e-2
    )
    w8: PrecisionLimits = PrecisionLimits(
        max_error_over_range=1e-1, snr_db=5.0, cosine=0.8, warn_snr_db=10.0, warn_cosine=0.9
    )
    int8: PrecisionLimits = PrecisionLimits(
        snr_loss_db=1.0,
        top1_loss=0.01,
        layer_error_lsb=2.0,
        repeat_error_lsb=2.0,
        layer_error_over_range=2e-2,
        repeat_error_over_range=5e-2,
        snr_db=5.0,
        cosine=0.8,
        warn_snr_db=10.0,
        warn_cosine=0.9,
        cpu_op_share=0.1,
        warn_cpu_op_share=0.0,
    )

    def of(self, precision: Precision | str) -> PrecisionLimits:
        """The limits of one precision."""
        limits: PrecisionLimits = getattr(self, Precision(precision).value)
        return limits

    def to_dict(self) -> dict[str, float | None]:
        """Every limit under the name that overrides it, e.g. ``int8.max_error_lsb``."""
        return {
            f"{precision.value}.{name}": getattr(self.of(precision), name)
            for precision in Precision
            for name in metrics_of(precision)
        }


#: Roundings of a runtime, in movements by one unit in the last place of the weights: a kernel that
#: adds hundreds of products one after the other (ncnn's, the reference kernels') was seen at 4.4.
_ROUNDINGS = 8.0
#: What no model's rounding excuses.
LARGEST_ROUNDING = 5e-4


def limit_with_rounding(limit: float | None, name: str, sensitivity: float) -> float | None:
    """A default limit of fp32 for a model that multiplies rounding.

    Args:
        limit: What is set; the user's own limit stays as it is.
        name: Its field of `PrecisionLimits`.
        sensitivity: Of the output (`deploykit.parity.sensitivity`); 0 if it was not measured.
    """
    if limit is None or limit != getattr(Limits().fp32, name):
        return limit
    return max(limit, min(float(f"{_ROUNDINGS * sensitivity:.1e}"), LARGEST_ROUNDING))


#: What is measured of a file that computes in floats; int8 files are verified by every metric.
_OF_FLOATS = (
    "max_error_over_range",
    "reference_error_over_range",
    "snr_db",
    "cosine",
    "top1_agreement",
    "clear_top1_agreement",
    "warn_snr_db",
    "warn_cosine",
    "warn_clear_top1_agreement",
)
_WARN = "warn_"
_WARNED = tuple(
    f.name.removeprefix(_WARN) for f in fields(PrecisionLimits) if f.name.startswith(_WARN)
)
#: Metric → the figures that it can have; all others are from 0 on.
_BOUNDS = {
    "snr_db": (-math.inf, math.inf),
    "cosine": (-1.0, 1.0),
    "top1_agreement": (0.0, 1.0),
    "clear_top1_agreement": (0.0, 1.0),
    "top1_loss": (0.0, 1.0),
    "cpu_op_share": (0.0, 1.0),
}


def metrics_of(precision: Precision) -> tuple[str, ...]:
    """The fields of `PrecisionLimits` that verify a file of that precision."""
    if precision is Precision.INT8:
        return tuple(field.name for field in fields(PrecisionLimits))
    return _OF_FLOATS


@dataclass(frozen=True)
class LimitOverride:
    """One limit as the user wants it.

    Attributes:
        precision: Of which precision.
        name: Name of a field of `PrecisionLimits`.
        value: The limit; None to tell the figure without verifying it.
    """

    precision: Precision
    name: str
    value: float | None


def parse_limit(text: str) -> LimitOverride:
    """Read ``PRECISION.NAME=VALUE``, e.g. ``int8.max_error_lsb=3`` or ``int8.cosine=none``.

    Raises:
        UserError: another form, an unknown name, one that does not verify this precision, or no
            number that the figure can have.
    """
    name, equals, number = (part.strip() for part in text.partition("="))
    if not equals:
        raise UserError(
            f"the limit {text!r}", expected="PRECISION.NAME=VALUE, e.g. int8.max_error_lsb=3"
        )
    precision, field = _verified_by(name)
    if number.lower() == "none":
        return LimitOverride(precision, field, None)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"the limit {text!r}", expected="a number after the '=', or none to only tell it"
        )
    low, high = _BOUNDS.get(field.removeprefix(_WARN), (0.0, math.inf))
    if not low <= value <= high:
        bounds = f"a number from {low:g} to {high:g}" if high < math.inf else "no number below 0"
        raise UserError(f"the limit {text!r}", expected=f"{bounds}: that is what it can be")
    return LimitOverride(precision, field, value)


def _verified_by(name: str) -> tuple[Precision, str]:
    """Precision and metric of ``PRECISION.METRIC``, if the one is verified by the other."""
    known = Limits().to_dict()
    text, _, metric = name.partition(".")
    if name in known:
        return Precision(text), metric
    precision = next((p for p in Precision if p.value == text), None)
    if precision is not None and metric in metrics_of(Precision.INT8):
        raise UserError(
            f"the limit {name} would verify nothing: a {text} file has no {metric}",
            expected=f"one of {', '.join(f'{text}.{m}' for m in metrics_of(precision))}",
        )
    raise UserError(f"no limit is called {name!r}", expected=f"one of {', '.join(known)}")


def check_limits(overrides: Iterable[str], precisions: Iterable[Precision | str]) -> None:
    """Refuse a limit of a precision that no file has.

    Args:
        overrides: As for `limits_with`.
        precisions: Those of the files that are verified.

    Raises:
        UserError: with the first such limit.
    """
    given = {Precision(p) for p in precisions}
    names = ", ".join(p.value for p in Precision if p in given)
    for override in map(parse_limit, overrides):
        if override.precision not in given:
            found = f"{override.precision.value}.{override.name}"
            raise UserError(
                f"the limit {found} would verify nothing: the files are {names}",
                expected=f"a limit of {names}",
            )


def limits_with(overrides: Iterable[str]) -> Limits:
    """The defaults with overrides such as ``int8.max_error_lsb=3``; a later one wins.

    Raises:
        UserError: as `parse_limit`.
    """
    limits = Limits()
    for override in map(parse_limit, overrides):
        changes = {override.name: override.value}
        if override.value is None and override.name in _WARNED:
            changes[_WARN + override.name] = None  # told only: no warning either
        changed = replace(limits.of(override.precision), **changes)
        limits = replace(limits, **{override.precision.value: changed})
    return limits
