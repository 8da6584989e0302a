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


@dataclass
class Calibrator:
    """The samples of a conversion: some calibrate, others are kept apart.

    The method ``auto`` chooses on samples that nothing was fitted to; those are the golden inputs
    too. Other methods calibrate on all samples, and a warning says that golden inputs are among
    them.

    Attributes:
        fused: The fused stage.
        request: How to calibrate.
        progress: Called with one line a step.
        fitted: The samples that calibrate; None if there are none.
        held: Samples kept apart; None if there are none.
        result: What quantization was given; None as long as nothing needed it.
    """

    fused: Model
    request: ConvertRequest
    progress: Callable[[str], None]
    fitted: CalibrationData | None
    held: CalibrationData | None
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
        from deploykit_quantize.choose_method import split_data

        data, held = _load_data(fused, request, plan), None
        chooses = request.chooses_method and request.calibration_table is None
        if data is not None and chooses and needs_table(fused, plan, request):
            data, held = split_data(data)
        return cls(fused, request, progress, data, held)

    @property
    def golden(self) -> CalibrationData | None:
        """Where golden inputs are taken from; None for synthetic ones."""
        return self.held or self.fitted

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the calibration set, and of golden inputs that calibrated."""
        if self.result is None:
            return ()
        found = self.result.table.warnings
        if self.held is None and self.result.data is not None and self.request.verify:
            found += ("the golden inputs are among the calibration samples",)
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
        if self.held is not None:
            self.progress(f"kept apart to choose by, and as golden inputs: {self.held.count}")
        self.result = Calibration(table, self.fitted, self.held)
        return self.result

    def summary(self) -> dict[str, Any] | None:
        """What the manifest says of it; None where no activation is quantized."""
        if self.result is None:
            return None
        table, request = self.result.table, self.request
        return {
            "samples": table.samples,
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
    if not isinstance(given, Path):
        return samples_as_data(given or (), fused.inputs, limit)
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
