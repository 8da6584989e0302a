from __future__ import annotations

import numpy as np
import pytest

from deploykit.calibration.collect import collect_statistics
from deploykit.errors import DataError, UserError
from deploykit_quantize.choose_method import (
    quantize_automatically,
    run_values,
    sample_snr_db,
    split_data,
)
from deploykit_quantize.method import Calibration, Method, Quantization
from deploykit_quantize.methods import METHODS, method_called
from deploykit_quantize.prepare.prepare_test import uneven
from deploykit_quantize.quantizer import quantize_model
from deploykit_quantize.round.second_order import SecondOrder
from deploykit_testing.quantized import (
    NETWORK,
    POLICY,
    as_data,
    calibrate,
    fused,
    samples_of,
)


@pytest.mark.parametrize(("count", "held"), [(31, 0), (32, 8), (64, 16), (500, 16)])
def test_samples_kept_apart_are_a_quarter_and_no_sample_serves_twice(count: int, held: int) -> None:
    samples = np.arange(count, dtype=np.float32)[:, None]
    fitted, apart = split_data(as_data(samples))
    assert fitted.count == count - held
    assert (apart.count if apart else 0) == held
    seen = [fitted.read(i)["x"][0] for i in range(fitted.count)]
    seen += [apart.read(i)["x"][0] for i in range(apart.count)] if apart else []
    assert sorted(seen) == list(range(count))


def test_auto_keeps_what_helps_and_is_no_worse_on_other_samples() -> None:
    model = uneven()
    samples = samples_of(model, 80)
    fitted, held = split_data(as_data(samples[:48]))
    calibration = Calibration(collect_statistics(model, fitted), fitted, held)
    lines: list[str] = []
    ours = quantize_automatically(model, POLICY, calibration, lines.append)
    plain = quantize_model(model, POLICY, calibration.table)
    other = as_data(samples[48:])
    (expected,), (a,), (b,) = (run_values(m, ["y"], other) for m in (model, ours, plain))
    assert sample_snr_db(expected, a).mean() > sample_snr_db(expected, b).mean() + 3
    assert any("equalization" in line and " kept: " in line for line in lines)
    assert all(
        (line.startswith("auto: ") and "kept" in line) or "dropped" in line for line in lines
    )
    notes = [n for n in ours.notes if n.pass_name == "auto"]
    assert len(notes) == len(lines)
    again = quantize_automatically(model, POLICY, calibration)
    assert again.serialized() == ours.serialized()


def test_few_samples_or_a_table_alone_get_what_needs_no_data() -> None:
    model = fused(NETWORK)
    table = calibrate(model)
    stage = quantize_automatically(model, POLICY, Calibration(table))
    sums = Quantization(model, POLICY, Calibration(table)).quantize(METHODS["sums"])
    assert stage.serialized() == sums.serialized()


def test_minmax_is_the_plain_quantizer() -> None:
    model = fused(NETWORK)
    table = calibrate(model)
    by_method = Quantization(model, POLICY, Calibration(table)).quantize(method_called("minmax"))
    assert by_method.serialized() == quantize_model(model, POLICY, table).serialized()


def test_an_algorithm_without_what_it_needs_is_an_error() -> None:
    model = fused(NETWORK)
    quantization = Quantization(model, POLICY, Calibration(calibrate(model)))
    with pytest.raises(DataError, match="only a table is given"):
        quantization.quantize(Method(rounding=SecondOrder()))
    with pytest.raises(UserError, match="one of auto, minmax"):
        method_called("best")
