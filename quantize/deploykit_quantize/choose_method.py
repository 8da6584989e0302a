"""``auto``: which algorithms are kept is decided on samples that nothing was fitted to.

Steps 1 to 4 are tried together, since they help each other and their common gain stands out of the
noise of a few samples; if that does not help, one after another on top of those that were kept:

1.  Ranges of values that only an activation reads are chosen by what comes out of it.
2.  Activation-based equalization of channels.
3.  Rounding by second moments; if that does not help, rounding that keeps the sums of kernels.
4.  Bias correction.
5.  Ranges of least squared error, from 100 samples on.

A step is kept if the signal-to-noise ratio, in dB against the float model, of the outputs and of
the features that the last layers read, rises by more than the noise: on average over the held-out
samples by more than the standard error of that average, and by more than 0.1 dB. Without enough
samples only rounding that keeps sums of kernels is done, which needs no data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploykit.calibration.data import CalibrationData
from deploykit.model import Model, PassNote
from deploykit.tensors import Array
from deploykit_quantize.layer_inputs import stream_values
from deploykit_quantize.method import Calibration, Method, Quantization
from deploykit_quantize.policy import Observer, Policy
from deploykit_quantize.prepare.correct_bias import CorrectBias
from deploykit_quantize.prepare.equalize_activations import EqualizeActivations
from deploykit_quantize.round.keep_sums import KeepSums
from deploykit_quantize.round.second_order import SecondOrder
from deploykit_quantize.weighted_layer import weighted_layer

#: Samples from which on `auto` fits and chooses.
ENOUGH_SAMPLES = 32
#: At most so many choose.
_MOST_TO_CHOOSE_BY = 16
_SAMPLES_FOR_MSE = 100
_LEAST_GAIN_DB = 0.1
#: Beyond this much, one sample counts no more for or against a step.
_MOST_DB = 6.0

SAFE = Method(rounding=KeepSums())


def split_data(data: CalibrationData) -> tuple[CalibrationData, CalibrationData | None]:
    """The samples to calibrate on, and those to choose by: a quarter, 8 to 16, evenly spread.

    Below `ENOUGH_SAMPLES` all are for calibration.
    """
    if data.count < ENOUGH_SAMPLES:
        return data, None
    return data.divided(min(data.count // 4, _MOST_TO_CHOOSE_BY))


def choosing_samples(held: CalibrationData) -> CalibrationData:
    """Those of samples that are kept apart by which the method is chosen, evenly spread."""
    if held.count <= _MOST_TO_CHOOSE_BY:
        return held
    return held.divided(_MOST_TO_CHOOSE_BY)[1]


def quantize_automatically(
    fused: Model,
    policy: Policy,
    calibration: Calibration,
    progress: Callable[[str], None] = lambda _: None,
) -> Model:
    """The quantized stage by the method that does best on the held-out samples.

    Args:
        fused: The fused stage.
        policy: The target's.
        calibration: Of the fused stage.
        progress: Called with one line a step: whether it was kept, and why.

    Raises:
        ContractError: the model is quantized already, or the recipe is not static.
        DataError: the table lacks a value, or weights or ranges are not finite.
    """
    return choose_method(Quantization(fused, policy, calibration), progress)[1]


def choose_method(
    quantization: Quantization, progress: Callable[[str], None] = lambda _: None
) -> tuple[Method, Model]:
    """The method that does best on the held-out samples, and its quantized stage.

    See `quantize_automatically`.
    """
    fused, calibration = quantization.fused, quantization.calibration
    held = calibration.held_out
    if calibration.data is None or held is None:
        stage = quantization.quantize(SAFE)
        why = f"fewer than {ENOUGH_SAMPLES} samples, or a table alone: sums of kernels are kept"
        progress(f"auto: {why}")
        return SAFE, _noted(stage, [PassNote("auto", fused.name, True, why)])
    choice = _Choice(quantization, held)
    together = choice.consider(_TOGETHER, _all_together)
    for name, alternatives in _steps(calibration.data.count, together=together):
        for change in alternatives:
            if choice.consider(name, change):
                break
    for note in choice.notes:
        progress(f"auto: {note.node} {'kept' if note.matched else 'dropped'}: {note.reason}")
    return choice.method, _noted(choice.stage, choice.notes)


def _noted(stage: Model, notes: list[PassNote]) -> Model:
    return replace(stage, notes=(*stage.notes, *notes))


_Change = Callable[[Method], Method]


_TOGETHER = "equalization, second-order rounding and bias correction together"


def _all_together(method: Method) -> Method:
    return replace(
        method,
        reads_activations=True,
        equalization=EqualizeActivations(),
        rounding=SecondOrder(),
        bias=CorrectBias(),
    )


def _steps(samples: int, *, together: bool) -> list[tuple[str, list[_Change]]]:
    """What is tried next; single steps only where they did not help together."""
    steps: list[tuple[str, list[_Change]]] = [
        ("ranges by activations", [lambda m: replace(m, reads_activations=True)]),
        ("channel equalization", [lambda m: replace(m, equalization=EqualizeActivations())]),
        (
            "rounding",
            [
                lambda m: replace(m, rounding=SecondOrder()),
                lambda m: replace(m, rounding=KeepSums()),
            ],
        ),
        ("bias correction", [lambda m: replace(m, bias=CorrectBias())]),
    ]
    if together:
        steps = []
    if samples >= _SAMPLES_FOR_MSE:
        steps.append(("ranges of least error", [lambda m: replace(m, observer=Observer("mse"))]))
    return steps


@dataclass
class _Choice:
    """The best method so far."""

    quantization: Quantization
    held: CalibrationData

    def __post_init__(self) -> None:
        self.notes: list[PassNote] = []
        self.method = Method()
        self.stage = self.quantization.quantize(self.method)
        self.outputs = [output.name for output in self.quantization.fused.outputs]
        self.features = find_features(self.quantization.fused, self.stage)
        self.reference = self._run(self.quantization.fused)
        self.quality = self._measure(self.stage)

    def consider(self, name: str, change: _Change) -> bool:
        """Keep the step if it helps."""
        method = change(self.method)
        stage = self.quantization.quantize(method)
        quality = self._measure(stage)
        if np.array_equal(quality, self.quality):
            self.notes.append(PassNote("auto", name, False, "it changes nothing here"))
            return False
        gains = np.clip(quality - self.quality, -_MOST_DB, _MOST_DB)
        gain, error = float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
        kept = gain > max(_LEAST_GAIN_DB, error)
        reason = (
            f"{gain:+.1f} dB (noise {max(_LEAST_GAIN_DB, error):.1f}) on {len(gains)} held-out "
            f"samples, median {np.median(quality):.1f} dB"
        )
        self.notes.append(PassNote("auto", name, kept, reason))
        if kept:
            self.method, self.stage, self.quality = method, stage, quality
        return kept

    def _measure(self, stage: Model) -> Array:
        """Signal to noise of each sample, dB: mean over the outputs and the features."""
        found = [sample_snr_db(a, b) for a, b in zip(self.reference, self._run(stage), strict=True)]
        mean: Array = np.mean(found, axis=0)
        return mean

    def _run(self, model: Model) -> list[Array]:
        return run_values(model, [*self.outputs, *self.features], self.held)


#: So many of the last layers' inputs are looked at besides the outputs.
_MOST_FEATURES = 4


def find_features(fused: Model, stage: Model) -> list[str]:
    """Maps that the last layers read, which both stages have: they vary less than the outputs."""
    made = {v.name for node in stage.graph.graph for v in node.outputs if v.producer()}
    sources = [one.source for node in fused.graph.graph if (one := weighted_layer(node))]
    found = [name for name in dict.fromkeys(reversed(sources)) if name in made]
    return found[:_MOST_FEATURES]


def run_values(model: Model, names: Sequence[str], data: CalibrationData) -> list[Array]:
    """What a stage computes for each sample (each batch, if the model has one), in true values.

    Returns:
        For each name: float32 (n, elements); what is held by channels with factors is divided.
    """
    rows: list[list[Array]] = [[] for _ in names]
    for values in stream_values(model.graph, names, data):
        for row, name in zip(rows, names, strict=True):
            value = values[name]
            if name in model.channel_factors:
                factors = np.asarray(model.channel_factors[name], np.float32)
                value = value / factors.reshape(1, -1, *(1,) * (value.ndim - 2))
            row.append(value.reshape(-1))
    return [np.stack(row) for row in rows]


def sample_snr_db(reference: Array, measured: Array) -> Array:
    """Signal to noise of each row, in dB, at most 200."""
    signal = np.square(reference.astype(np.float64)).sum(axis=1)
    noise = np.square(reference.astype(np.float64) - measured).sum(axis=1)
    tiny = np.finfo(np.float64).tiny
    found: Array = np.minimum(10 * np.log10((signal + tiny) / (noise + tiny)), 200.0)
    return found
