from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.errors import ContractError, ParityError, UserError
from deploykit.parity.compare import ArtifactRun, Expected, run_artifact, verify_run
from deploykit.parity.limits import limits_with
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.process import open_runner
from deploykit.tensors import QuantParams, TensorSpec
from deploykit.verdict import Check, LayerRow, Question, Verdict
from deploykit_testing.fake_runners import definition, model_of

INPUTS = (TensorSpec("x", (1, 3, 2, 2), layout="NCHW"),)
FLOAT = (TensorSpec("y", (1, 4)),)
EIGHTHS = QuantParams((0.125,), (0,))
INT8 = (TensorSpec("y", (1, 4), "int8", "plain", EIGHTHS),)
#: Values on the grid of eighths, so that a sound int8 result is exact.
X = np.round(np.random.default_rng(5).standard_normal((3, 3, 2, 2)) * 8).astype(np.float32) / 8


def opener(backend: str = "ModelBackend", **behaviour: Any) -> Callable[[RunnerSpec], Runner]:
    return lambda spec: open_runner(spec, definition(backend, **behaviour))


def verified(precision: str = "fp32", outputs: Any = FLOAT, **settings: Any) -> Verdict:
    behaviour = {k: settings.pop(k) for k in ("error", "result", "steps") if k in settings}
    expected = {"y": model_of(X)}
    against = Expected(
        settings.pop("stage_outputs", expected),
        settings.pop("reference_outputs", expected),
        settings.pop("recorded", None),
        settings.pop("layers", ()),
        proven=settings.pop("proven", ()),
    )
    ways = {k: settings.pop(k) for k in ("limits", "output_steps") if k in settings}
    run = run_artifact(
        Path("somewhere/net.fake"),
        input_specs=INPUTS,
        output_specs=outputs,
        **{"runner": "fake", "inputs": {"x": X}, "open_with": opener(**behaviour), **settings},
    )
    return verify_run(
        run,
        against,
        file="net.fake",
        target="fake",
        precision=precision,
        output_specs=outputs,
        **ways,
    )


def check_of(verdict: Verdict, question: Question, metric: str) -> Check:
    (found,) = [c for c in verdict.checks if (c.question, c.metric) == (question, metric)]
    return found


def test_an_equal_artefact_passes_both_questions() -> None:
    verdict = verified()
    assert verdict.passed
    assert verdict.error == ""
    assert (verdict.target, verdict.precision, verdict.path) == ("fake", "fp32", "net.fake")
    assert (verdict.runner_name, verdict.samples) == ("fake", 3)
    assert verdict.runner is not None
    assert verdict.runner.runtime == "Fake"
    assert [(c.question.name, c.metric) for c in verdict.checks] == [
        ("CONVERSION", "max_error_over_range"),
        ("QUANTIZATION", "max_error_over_range"),
        ("QUANTIZATION", "snr_db"),
        ("QUANTIZATION", "cosine"),
        ("QUANTIZATION", "top1_agreement"),
        ("QUANTIZATION", "clear_top1_agreement"),
    ]
    assert check_of(verdict, Question.QUANTIZATION, "snr_db").measured == math.inf


def test_the_two_questions_are_answered_apart() -> None:
    wrong = {"y": model_of(X) * 1.5}
    conversion = verified(stage_outputs=wrong)
    failed = [c.question for c in conversion.checks if not c.passed]
    assert failed == [Question.CONVERSION]
    noise = verified(reference_outputs=wrong)
    failed = [c.question for c in noise.checks if not c.passed]
    assert set(failed) == {Question.QUANTIZATION}
    assert not conversion.passed
    assert not noise.passed


def test_the_measured_error_is_the_artefacts() -> None:
    verdict = verified(error=0.5)
    expected = model_of(X)
    width = float(expected.max() - expected.min())
    check = check_of(verdict, Question.CONVERSION, "max_error_over_range")
    assert check.measured == pytest.approx(0.5 / width, rel=1e-6)
    assert not verdict.passed
    assert verified(
        error=0.5,
        limits=limits_with(["fp32.max_error_over_range=1", "fp32.reference_error_over_range=1"]),
    ).passed


@pytest.mark.parametrize(("steps", "passed"), [(0, True), (2, True), (-2, True), (3, False)])
def test_int8_is_verified_in_output_steps(steps: int, passed: bool) -> None:
    limits = limits_with(["int8.max_error_lsb=2"])
    verdict = verified("int8", INT8, steps=steps, limits=limits)
    check = check_of(verdict, Question.CONVERSION, "max_error_lsb")
    assert check.measured == abs(steps)
    assert check.passed is passed
    assert check_of(verdict, Question.CONVERSION, "max_error_over_range").limit is None


def test_a_float_output_with_integers_behind_it_is_verified_in_their_steps() -> None:
    verdict = verified("int8", FLOAT, error=0.375, output_steps={"y": EIGHTHS})
    check = check_of(verdict, Question.CONVERSION, "max_error_lsb")
    assert (check.measured, check.limit) == (3, None)
    for one in (verdict, verified("int8", FLOAT, error=0.375)):
        assert check_of(one, Question.CONVERSION, "snr_loss_db").limit == 1.0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8", "int8"])
def test_an_output_that_is_one_constant_fails_by_default(precision: str) -> None:
    verdict = verified(precision, result="constant")
    questions = {c.question for c in verdict.checks if not c.passed}
    assert questions == {Question.CONVERSION, Question.QUANTIZATION}


@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_nan_in_one_element_fails_even_without_any_limit(precision: str) -> None:
    verdict = verified(precision, result="nan")
    assert not verdict.passed
    assert "'y' holds 1 of 12 elements that are NaN or infinity" in verdict.error
    names = ("max_error_over_range", "reference_error_over_range", "snr_db", "cosine")
    none = limits_with([f"{precision}.{name}=none" for name in names])
    lenient = verified(precision, result="nan", limits=none)
    assert all(c.passed for c in lenient.checks)
    assert not lenient.passed


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"on_run": "segfault"}, "SIGSEGV"),
        ({"on_run": "raise"}, "unsupported padding"),
        ({"on_open": "raise"}, "unsupported padding"),
    ],
)
def test_a_runtime_that_fails_is_a_verdict(behaviour: dict[str, str], words: str) -> None:
    verdict = verified(open_with=opener("FakeBackend", **behaviour))
    assert not verdict.passed
    assert words in verdict.error
    assert verdict.checks == ()
    assert (verdict.runner is None) == ("on_open" in behaviour)


def test_a_runtime_that_hangs_is_a_verdict() -> None:
    verdict = verified(open_with=opener("FakeBackend", on_run="hang"), timeout_s=2.0)
    assert "longer than 2 s" in verdict.error


@pytest.mark.parametrize(
    ("result", "words"), [("missing", "no output 'y' but z"), ("wrong shape", r"shape (3, 3)")]
)
def test_other_outputs_than_the_contract_has_are_a_verdict(result: str, words: str) -> None:
    verdict = verified(result=result)
    assert words in verdict.error
    assert not verdict.passed


def test_one_question_alone_may_be_asked() -> None:
    assert {c.question for c in verified(reference_outputs=None).checks} == {Question.CONVERSION}
    assert {c.question for c in verified(stage_outputs=None).checks} == {Question.QUANTIZATION}
    with pytest.raises(ValueError, match="neither"):
        verified(stage_outputs=None, reference_outputs=None)


def test_what_nothing_can_be_compared_with_is_an_error() -> None:
    sick = model_of(X)
    sick[1, 2] = np.inf
    with pytest.raises(ParityError, match="output 'y' of the reference: the reference holds NaN"):
        verified(reference_outputs={"y": sick})
    with pytest.raises(ParityError, match="the reference gave outputs z"):
        verified(reference_outputs={"z": sick})


def test_a_stage_of_ours_that_is_not_finite_fails_that_artifact_alone() -> None:
    sick = model_of(X)
    sick[1, 2] = np.nan
    verdict = verified(stage_outputs={"y": sick})
    assert not verdict.passed
    assert verdict.checks == ()
    assert "output 'y' of the stage" in verdict.error
    assert "a defect of this conversion, not of the source model" in verdict.error


def test_inputs_that_do_not_fit_and_unknown_runners_are_errors(monkeypatch: Any) -> None:
    with pytest.raises(ContractError, match="golden inputs image"):
        verified(inputs={"image": X})
    with pytest.raises(ContractError, match=r"shape \(1, 3, 2, 1\)"):
        verified(inputs={"x": X[..., :1]})
    with pytest.raises(ContractError, match="as many of each"):
        verified(inputs={"x": X[:0]})
    monkeypatch.setattr("deploykit.target.available_targets", dict)
    with pytest.raises(UserError, match="no runner is called 'fake'"):
        verified(open_with=open_runner)


def test_where_layers_are_verified_the_output_is_told() -> None:
    layers = (
        LayerRow("a", "net.a", "Conv", 0.01, 40.0, 1.0),
        LayerRow("b", "net.b", "Conv", 0.02, 30.0, 2.0),
    )
    verdict = verified("int8", INT8, steps=9, layers=layers)
    assert check_of(verdict, Question.CONVERSION, "layer_error_lsb").measured == 2.0
    assert check_of(verdict, Question.CONVERSION, "layer_error_lsb").value == "b"
    assert check_of(verdict, Question.CONVERSION, "output_error_lsb").limit is None
    worse = (*layers, LayerRow("c", "net.c", "Add", 0.1, 20.0, 3.0))
    assert not verified("int8", INT8, layers=worse).passed


def test_a_layer_whose_shapes_differ_fails() -> None:
    layers = (LayerRow("a", "", "Conv", math.nan, math.nan, None),)
    assert not verified("int8", INT8, layers=layers).passed


def test_the_output_is_verified_end_to_end_where_nothing_else_is() -> None:
    assert not verified("int8", INT8, steps=3).passed
    assert verified("int8", INT8, steps=0).passed


def test_a_run_is_held_against_its_record() -> None:
    there = {"y": model_of(X)}
    elsewhere = {"y": model_of(X) + np.float32(0.125 * 3)}
    assert verified("int8", INT8, steps=0, recorded=there).passed
    verdict = verified("int8", INT8, steps=0, recorded=elsewhere)
    assert not verdict.passed
    assert check_of(verdict, Question.CONVERSION, "repeat_error_lsb").measured == 3.0


def test_outputs_alone_are_held_against_what_right_layers_gave_elsewhere() -> None:
    """A runtime whose arithmetic costs accuracy, as another's did that had every layer right."""
    another = {"y": model_of(X) - np.float32(0.125 * 3)}
    assert not verified("int8", INT8, steps=3).passed
    assert verified("int8", INT8, steps=3, proven=(another,)).passed
    assert not verified("int8", INT8, steps=6, proven=(another,)).passed


def test_layers_without_steps_are_verified_over_their_range() -> None:
    layers = (
        LayerRow("a", "net.a", "Conv", 1e-3, 60.0, 1.0),
        LayerRow("b", "net.b", "Conv", 1e-2, 60.0, None),
    )
    verdict = verified("int8", error=0.5, layers=layers)
    check = check_of(verdict, Question.CONVERSION, "layer_error_over_range")
    assert (check.value, check.measured, check.limit) == ("b", 1e-2, 2e-2)
    assert check_of(verdict, Question.CONVERSION, "layer_error_lsb").value == "a"
    assert check_of(verdict, Question.CONVERSION, "output_error_over_range").limit is None
    worse = (*layers, LayerRow("c", "net.c", "Add", 3e-2, 20.0, None))
    assert not verified("int8", layers=worse).passed
    only_floats = verified("int8", layers=layers[1:])
    assert "layer_error_lsb" not in {c.metric for c in only_floats.checks}


def test_an_output_without_steps_is_held_against_its_record() -> None:
    there = {"y": model_of(X)}
    verdict = verified("int8", recorded=there)
    assert verdict.passed
    check = check_of(verdict, Question.CONVERSION, "repeat_error_over_range")
    assert check.measured == 0
    assert check_of(verdict, Question.CONVERSION, "output_error_over_range").limit is None
    span = float(np.ptp(model_of(X)))
    elsewhere = {"y": model_of(X) + np.float32(0.1 * span)}
    assert not verified("int8", recorded=elsewhere).passed


SCORES = (TensorSpec("y", (1, 5)),)


def agreement_verdict(reference: np.ndarray, actual: np.ndarray, **ways: Any) -> Verdict:
    """What int8 scores of ``actual`` come to against those of a reference."""
    run = ArtifactRun("fake", None, {"y": actual.astype(np.float32)}, len(actual))
    expected = Expected(None, {"y": reference.astype(np.float32)})
    specs = {"file": "net.fake", "target": "fake", "output_specs": SCORES}
    return verify_run(run, expected, precision="int8", **specs, **ways)


def trained_scores(count: int = 64) -> np.ndarray:
    """One class of five is clear, by 4 of scores that are else about 1."""
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((count, 5)) / 4
    scores[np.arange(count), rng.integers(0, 5, count)] += 4
    return scores


@pytest.mark.parametrize(
    ("wrong", "outcome"), [(0, "pass"), (3, "pass"), (4, "warn"), (12, "warn"), (20, "fail")]
)
def test_agreement_below_95_percent_warns_and_below_80_fails(wrong: int, outcome: str) -> None:
    reference = trained_scores()
    actual = reference.copy()
    actual[:wrong] = np.roll(actual[:wrong], 1, axis=1)
    ways = {"limits": limits_with(["int8.snr_db=none", "int8.cosine=none"])}
    verdict = agreement_verdict(reference, actual, **ways)
    assert verdict.outcome == outcome
    check = check_of(verdict, Question.QUANTIZATION, "clear_top1_agreement")
    assert check.samples == 64
    assert check.measured == pytest.approx(1 - wrong / 64)
    assert check.interval is not None
    assert check.interval[0] < check.measured


def test_an_untrained_network_is_not_failed_for_coin_tosses() -> None:
    rng = np.random.default_rng(4)
    reference = rng.standard_normal(5) + rng.standard_normal((64, 5)) * 1e-3  # one class for all
    reference[:, :2] = 3.0 + rng.standard_normal((64, 2)) * 1e-3  # by a hair
    actual = reference + rng.standard_normal((64, 5)) * 0.02
    verdict = agreement_verdict(reference, actual)
    assert check_of(verdict, Question.QUANTIZATION, "top1_agreement").measured < 0.8
    assert verdict.outcome == "pass"


def test_noise_beyond_what_warns_excuses_no_change_of_class() -> None:
    """Measured noise alone would leave only those samples that agree."""
    reference = trained_scores()
    actual = reference + np.random.default_rng(5).standard_normal((64, 5)) * 3.0
    verdict = agreement_verdict(reference, actual, limits=limits_with(["int8.snr_db=none"]))
    check = check_of(verdict, Question.QUANTIZATION, "clear_top1_agreement")
    assert check.samples == 64
    assert not check.passed


def test_a_few_clear_samples_are_told_only() -> None:
    reference = trained_scores(7)
    verdict = agreement_verdict(reference, np.roll(reference, 1, axis=1))
    check = check_of(verdict, Question.QUANTIZATION, "clear_top1_agreement")
    assert (check.samples, check.limit, check.warn_limit) == (7, None, None)


def test_snr_and_cosine_warn_before_they_fail() -> None:
    reference = trained_scores()
    noise = np.random.default_rng(6).standard_normal(reference.shape)
    share = np.sqrt(np.square(reference).mean() / np.square(noise).mean())
    for decibels, outcome in ((20, "pass"), (8, "warn"), (3, "fail")):
        actual = reference + noise * share * 10 ** (-decibels / 20)
        check = check_of(agreement_verdict(reference, actual), Question.QUANTIZATION, "snr_db")
        found = "fail" if not check.passed else "warn" if check.warned else "pass"
        assert found == outcome
    quiet = limits_with(["int8.snr_db=none"])
    assert quiet.int8.warn_snr_db is None
