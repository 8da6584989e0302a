"""Where the noise of a quantized model comes from: the data of `deploykit analyze`."""

from __future__ import annotations

from dataclasses import dataclass

WEIGHTS, VALUE = "weights", "value"


@dataclass(frozen=True)
class NoiseSource:
    """One thing that is rounded.

    Attributes:
        kind: ``weights`` (of a layer, with its bias) or ``value`` (what a layer hands on).
        name: Name of the value, or of the value that the layer makes.
        op_type: Of the node that makes it; empty for an input.
        module: Path of the module that it came from; empty where the source has none.
        source: Source line, as ``file.py:123``; empty where the source has none.
        share: Part of the noise at the outputs that it makes alone, of the sum over all sources.
        snr_db: Signal to noise of the outputs, dB, if nothing else is rounded.
    """

    kind: str
    name: str
    op_type: str
    module: str
    source: str
    share: float
    snr_db: float


@dataclass(frozen=True)
class CurvePoint:
    """What a number of layers in floats gives.

    Attributes:
        layers: How many layers with weights stay float.
        snr_db: Signal to noise of the outputs, dB, over all samples.
        median_db: Median of the samples' own.
        agreement: Part of the samples with the float model's top-1 class; None where the outputs
            are no scores.
        float_share: Part of the model's multiply-adds that these layers have.
    """

    layers: int
    snr_db: float
    median_db: float
    agreement: float | None
    float_share: float


@dataclass(frozen=True)
class MethodRow:
    """What one method gives.

    Attributes:
        method: Its name.
        snr_db: Signal to noise of the outputs, dB, over all samples.
        median_db: Median of the samples' own.
        agreement: Part of the samples with the float model's top-1 class; None where the outputs
            are no scores.
        seconds: CPU time of the quantization.
    """

    method: str
    snr_db: float
    median_db: float
    agreement: float | None
    seconds: float


@dataclass(frozen=True)
class NoiseReport:
    """What `deploykit analyze` found.

    Attributes:
        model: Name of the model.
        target: Whose policy quantized it.
        method: By which method.
        samples: Number of samples that the figures are of.
        held_out: Whether nothing was fitted to these samples.
        snr_db: Signal to noise of the outputs of the int8 stage against the float model, dB.
        worst_db: Of the worst sample.
        worst_share: Its part of the noise over all samples.
        sources: Largest share first.
        curve: SNR by the number of layers in floats, if a budget was asked for.
        keep_float: The layers that meet the budget, as ``--keep-float`` takes them.
        budget_db: What was asked for; None for nothing.
        methods: Best first, if a comparison was asked for.
    """

    model: str
    target: str
    method: str
    samples: int
    held_out: bool
    snr_db: float
    worst_db: float
    worst_share: float
    sources: tuple[NoiseSource, ...]
    curve: tuple[CurvePoint, ...] = ()
    keep_float: tuple[str, ...] = ()
    budget_db: float | None = None
    methods: tuple[MethodRow, ...] = ()

    @property
    def meets_budget(self) -> bool:
        """Whether the last point of the curve is what was asked for."""
        return self.budget_db is None or bool(
            self.curve and self.curve[-1].snr_db >= self.budget_db
        )
