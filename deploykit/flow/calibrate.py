"""Calibration of a conversion: which samples, what is fitted to them, and what is kept apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.errors import DataError
from deploykit.flow.make import needs_table
from deploykit.flow.plan import ConvertRequest
from deploykit.flow.preflight import missing_calibration
from deploykit.model import Model, Precision
from deploykit.target import Target

if TYPE_CHECKING:
    from deploykit.calibration.data import CalibrationData
    from deploykit.calibration.table import CalibrationTable
    from deploykit_quantize.method import Calibration


#: From so many samples on, a fifth is kept apart to verify on.
ENOUGH_TO_HOLD_OUT = 80


@dataclass
class Calibrator:
    """The samples of a conversion: which calibrate, and which are kept apart.

    From `ENOUGH_TO_HOLD_OUT` samples on a fifth does not calibrate: conversions are verified on it,
    and the method ``auto`` chooses by a few of them. Of fewer samples, all verify, most of them
    having calibrated, and a warning says so. A checkpoint's own sample was put there to calibrate:
    of it only what ``auto`` chooses by is kept apart, and is what is verified on.

    Attributes:
        fused: The fused stage.
        request: How to calibrate.
        progress: Called with one line a step.
        fitted: The samples that calibrate; None if there are none.
        held: Samples kept apart, by which a method is chosen; None if there are none.
        verified: Samples that are verified on; None for synthetic ones.
        seen: Whether some of those calibrate too.
        result: What quantization was given; None as long as nothing needed it.
    """

    fused: Model
    request: ConvertRequest
    progress: Callable[[str], None]
    fitted: CalibrationData | None = None
    held: CalibrationData | None = None
    verified: CalibrationData | None = None
    seen: bool = False
    result: Calibration | None = None

    @classmethod
    def load(
        cls,
        fused: Model,
        request: ConvertRequest,
        plan: Sequence[tuple[Target, Precision]],
        progress: Callable[[str], None],
    ) -> Calibrator:
        """Find the samples, and divide them.

        Raises:
            DataError: no data where they are needed, or data that cannot be read.
        """
        from deploykit_quantize.choose_method import choosing_samples, split_data

        data = _load_data(fused, request, plan)
        found = cls(fused, request, progress, data, None, data)
        if data is None or request.calibration_table is not None:
            return found
        if not needs_table(fused, plan, request):
            return found
        own = request.calibration is None
        if not own and data.count >= ENOUGH_TO_HOLD_OUT:
            found.fitted, found.verified = data.divided(data.count // 5)
            if request.chooses_method:
                found.held = choosing_samples(found.verified)
        else:
            if request.chooses_method:
                found.fitted, found.held = split_data(data)
            found.verified = (found.held if own else None) or data
            found.seen = found.verified is data
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the calibration set, and of samples that are verified on and calibrated."""
        if self.result is None:
            return ()
        found = self.result.table.warnings
        if self.seen and self.result.data is not None and self.request.verify:
            words = (
                "verified on samples that also calibrated: from "
                f"{ENOUGH_TO_HOLD_OUT} images (--calibrate) on, a fifth is kept apart for that"
            )
            found += (words,)
        return found

    def calibrate(self) -> Calibration:
        """Fill the table.

        Raises:
            DataError: data that cannot be right, or a table of another model.
        """
        from deploykit.calibration.collect import collect_statistics
        from deploykit.calibration.table import CalibrationTable
        from deploykit_quantize.method import Calibration

        if self.request.calibration_table is not None:
            table = CalibrationTable.load(self.request.calibration_table)
            self.result = Calibration(_table_of(self.fused, table, self.request))
            return self.result
        if self.fitted is None:
            raise AssertionError("int8 without data was let through")
        suspicious = self.request.allow_suspicious
        table = collect_statistics(self.fused, self.fitted, allow_suspicious=suspicious)
        self.progress(f"calibrated on {table.samples} samples: {self.fitted.description}")
        if self.verified is not None and not self.seen:
            self.progress(f"kept apart to verify on: {self.verified.count} samples")
        if self.held is not None:
            self.progress(f"kept apart to choose the method by: {self.held.count} samples")
        self.result = Calibration(table, self.fitted, self.held)
        return self.result

    def summary(self) -> dict[str, Any] | None:
        """What the manifest says of it; None where no activation is quantized."""
        if self.result is None:
            return None
        table, request = self.result.table, self.request
        return {
            "samples": table.samples,
            "held_out": 0 if self.seen or self.verified is None else self.verified.count,
            "data_sha256": table.data_fingerprint,
            "method": request.method_name,
            "observer": request.observer.method if request.observer else "minmax",
            "warnings": list(self.warnings),
        }


def _load_data(
    fused: Model, request: ConvertRequest, plan: Sequence[tuple[Target, Precision]]
) -> CalibrationData | None:
    """The data that calibrate, and whose samples are the golden inputs; None if there are none."""
    from deploykit.calibration.data import sample_as_data

    data = None
    if request.calibration is not None:
        data = _given_data(fused, request)
    elif (
        fused.calibration_sample is not None
        and len(fused.inputs) == 1
        and (request.verify or needs_table(fused, plan, request))
    ):
        data = sample_as_data(fused, request.calibration_limit)
    if data is None and request.calibration_table is None and needs_table(fused, plan, request):
        raise missing_calibration()
    return data


def _given_data(fused: Model, request: ConvertRequest) -> CalibrationData:
    """The data that were given, for one input or several."""
    from deploykit.calibration.data import load_calibration_data
    from deploykit.calibration.named_data import load_named_data, samples_as_data

    given, limit = request.calibration, request.calibration_limit
    _check_batch_axes(fused)
    if given is None:
        raise AssertionError("no calibration data were given")
    if not isinstance(given, Path):
        return samples_as_data(given, fused.inputs, limit, fused.preprocess)
    skip = request.skip_unreadable
    if len(fused.inputs) == 1:
        return load_calibration_data(
            given, fused.inputs[0], fused.preprocess, limit, skip_unreadable=skip
        )
    return load_named_data(given, fused.inputs, fused.preprocess, limit, skip_unreadable=skip)


def _check_batch_axes(fused: Model) -> None:
    """Refuse inputs of which one has no batch axis: samples cannot be told apart in it."""
    batches = {spec.name: spec.shape[0] if spec.shape else None for spec in fused.inputs}
    if len(set(batches.values())) == 1 and None not in batches.values():
        return
    shapes = ", ".join(f"'{spec.name}' {spec.shape}" for spec in fused.inputs)
    raise DataError(
        f"the inputs {shapes} of model '{fused.name}' have no common batch axis",
        expected="inputs whose first axes are the same batch, to calibrate them sample by sample",
        advice="export the network with a batch axis on every input",
    )


def _table_of(fused: Model, table: CalibrationTable, request: ConvertRequest) -> CalibrationTable:
    """The table, if it was made from this very model."""
    from deploykit.calibration.collect import fingerprint_model

    if table.model_fingerprint != fingerprint_model(fused):
        raise DataError(
            f"the calibration table {request.calibration_table} was made from another model",
            expected="a table of this architecture with these very weights",
            advice="calibrate again: leave out --calibration-table",
        )
    return table
