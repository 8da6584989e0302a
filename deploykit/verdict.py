"""What was measured, as frozen data: verdicts, reports, accuracy. `report/` has their views."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any

from deploykit.confidence import wilson_interval
from deploykit.errors import (
    EXIT_OK,
    EXIT_PARITY,
    EXIT_UNSUPPORTED,
    RunnerCrashError,
    RunnerTimeoutError,
    UnsupportedOp,
)
from deploykit.interface import TensorUse
from deploykit.printable import printable_name
from deploykit.runners.base import RunnerInfo


class Question(Enum):
    """The two questions that parity keeps apart.

    CONVERSION: does the artefact do what the stage does that it was made from?
    QUANTIZATION: how far is that from the float reference?
    """

    CONVERSION = "conversion error"
    QUANTIZATION = "quantization noise"


@dataclass(frozen=True)
class Check:
    """One measured figure against its limit.

    Attributes:
        question: Which of the two questions it answers.
        value: Name of the output that was compared.
        metric: ``max_error_over_range`` (no unit); ``max_error_lsb``, ``output_error_lsb``,
            ``layer_error_lsb``, ``repeat_error_lsb`` (steps; `deploykit.parity.limits` tells them
            apart), and the last three with ``_over_range`` where there are no steps; ``snr_db``,
            ``cosine``, ``top1_agreement`` or ``clear_top1_agreement`` (0..1).
        measured: The figure; worst over the samples, but a mean for the agreements and snr_db
            over all samples taken together.
        limit: Its limit, beyond which it fails; None if it is only reported.
        at_most: True if the figure must not exceed the limits, False if it must reach them.
        warn_limit: Beyond this it is a warning; None for no warning.
        samples: Of a share of samples, their number; None for other figures.
    """

    question: Question
    value: str
    metric: str
    measured: float
    limit: float | None
    at_most: bool
    warn_limit: float | None = None
    samples: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the figure is within its limit; a figure that is not a number is not."""
        return self._is_within(self.limit)

    @property
    def warned(self) -> bool:
        """Whether the figure passes and is a warning all the same."""
        return self.passed and not self._is_within(self.warn_limit)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of a share of samples; None for other figures."""
        if not self.samples or not 0 <= self.measured <= 1:
            return None
        return wilson_interval(self.measured, self.samples)

    def _is_within(self, limit: float | None) -> bool:
        if limit is None:
            return True
        return self.measured <= limit if self.at_most else self.measured >= limit


@dataclass(frozen=True)
class LayerRow:
    """One value of the artefact compared with the same value of the stage.

    Attributes:
        value: Name of the value in the stage.
        module: Module path of the node that makes it.
        op_type: Op type of that node.
        max_error_over_range: Largest difference over the value's own range.
        snr_db: Signal to noise.
        max_error_lsb: Largest difference in steps of the tensor's scale; None for floats.
    """

    value: str
    module: str
    op_type: str
    max_error_over_range: float
    snr_db: float
    max_error_lsb: float | None = None


@dataclass(frozen=True)
class StageRow:
    """One output of one stage compared with the float reference.

    Attributes:
        stage: Name of the stage: ``exported``, ``fused``, ``tflite.int8``, ...
        value: Name of the output.
        max_error_over_range: Largest difference over the reference's range.
        snr_db: Signal to noise.
        diverges: Whether it is beyond its limit: the error of fp32 for a float stage, the SNR of
            int8 for a quantized one, which diverges by its nature.
    """

    stage: str
    value: str
    max_error_over_range: float
    snr_db: float
    diverges: bool


class RunnerExit(Enum):
    """How a runner's process ended that did not live to answer."""

    CRASHED = "crashed"
    TIMED_OUT = "timed out"

    @classmethod
    def of(cls, error: Exception) -> RunnerExit | None:
        """What an error says of the process; None if it lives."""
        if isinstance(error, RunnerTimeoutError):
            return cls.TIMED_OUT
        return cls.CRASHED if isinstance(error, RunnerCrashError) else None


@dataclass(frozen=True)
class Verdict:
    """What one runner said of one artefact.

    Attributes:
        target: E.g. ``tflite``.
        precision: E.g. ``int8``.
        path: The artefact's path inside of the bundle.
        runner: What ran it; None if no runner could be opened.
        checks: The figures; empty if the runner failed.
        samples: Number of samples compared.
        error: The runner's failure in words, with the last that its runtime said; empty if it ran.
        layers: Value by value, if that was asked for.
        bytes: Size of the artefact with all its files; 0 where it is not known.
        runner_exit: How its process ended; None if it answered.
    """

    target: str
    precision: str
    path: str
    runner_name: str
    runner: RunnerInfo | None
    checks: tuple[Check, ...]
    samples: int
    error: str = ""
    layers: tuple[LayerRow, ...] = ()
    bytes: int = 0
    runner_exit: RunnerExit | None = None

    @property
    def passed(self) -> bool:
        """Whether it ran and every check is within its limit; a warning passes."""
        return not self.error and bool(self.checks) and all(c.passed for c in self.checks)

    @property
    def warned(self) -> bool:
        """Whether it passed with a figure that a user should look at."""
        return self.passed and any(c.warned for c in self.checks)

    @property
    def outcome(self) -> str:
        """The verdict in a word: ``pass``, ``warn``, ``fail``, ``crashed`` or ``timed out``."""
        if self.runner_exit is not None:
            return self.runner_exit.value
        if not self.passed:
            return "fail"
        return "warn" if self.warned else "pass"


@dataclass(frozen=True)
class SkippedTarget:
    """What was asked for and is not in the bundle, beside targets that are.

    Attributes:
        target: E.g. ``ncnn``.
        precision: E.g. ``int8``; empty for every one.
        reason: Why, in words.
        ops: Every node that the target has no lowering for, if that is why.
        refused: Whether the target refuses this model. If not, the target is not installed here, or
            does not write the precision, and was not asked for by its name.
    """

    target: str
    precision: str
    reason: str
    ops: tuple[UnsupportedOp, ...] = ()
    refused: bool = False


@dataclass(frozen=True)
class Report:
    """All verdicts on one model.

    Attributes:
        model: The model's name.
        reference: What gave the float reference, e.g. ``torch 2.15.0``.
        verdicts: One for each artefact and runner.
        warnings: What the user should know, in words.
        stages: Each stage against the float reference, in the order of the way: the first that
            diverges is where it broke. Empty if that was not asked for and all is well.
        skipped: What was asked for and not written.
        failed_before: Of a bundle that is verified again, the verdicts that failed when it was
            made, in words: whatever is found now, such a bundle does not pass.
        tensors: The inputs and outputs of each artefact, as an app meets them.
    """

    model: str
    reference: str
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...] = ()
    stages: tuple[StageRow, ...] = ()
    skipped: tuple[SkippedTarget, ...] = ()
    failed_before: tuple[str, ...] = ()
    tensors: tuple[TensorUse, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every verdict passed, those of the conversion that is verified again too."""
        return all(v.passed for v in self.verdicts) and not self.failed_before

    @property
    def warned(self) -> bool:
        """Whether a verdict is a warning."""
        return any(v.warned for v in self.verdicts)

    @property
    def exit_code(self) -> int:
        """1 if a verdict failed; else 3 if a target refuses the model; else 0."""
        return self.exit_code_with(fail_on_warning=False)

    def __repr__(self) -> str:
        """One line: what was found, not everything that was measured."""
        counts = Counter(v.outcome for v in self.verdicts)
        found = ", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing verified"
        return f"<Report of {printable_name(self.model)!r}: {found}, {len(self.warnings)} warnings>"

    def _repr_html_(self) -> str:
        """The verdicts as a table, for notebooks."""
        from deploykit.report.notebook import report_html

        return report_html(self)

    def to_frame(self) -> Any:
        """A pandas DataFrame, a row a verdict; MissingDependencyError without pandas."""
        from deploykit.report.notebook import report_frame

        return report_frame(self)

    def exit_code_with(self, *, fail_on_warning: bool) -> int:
        """`exit_code`; a warning counts as a failure if that is asked for."""
        if not self.passed or (fail_on_warning and self.warned):
            return EXIT_PARITY
        return EXIT_UNSUPPORTED if any(o.refused for o in self.skipped) else EXIT_OK


#: Shares of images that must be named as by the reference, or it is a failure, or a warning; those
#: of ``clear_top1_agreement`` (`deploykit.parity.limits`).
FAIL_AGREEMENT, WARN_AGREEMENT = 0.80, 0.95


@dataclass(frozen=True)
class ClassChange:
    """Images that the reference names one way, and an artefact another.

    Attributes:
        before: The reference's class.
        after: The artefact's.
        images: How many.
        mended: How many of them the artefact names rightly.
    """

    before: str
    after: str
    images: int
    mended: int


@dataclass(frozen=True)
class AccuracyRow:
    """Top-1 of one artefact on one runner.

    Attributes:
        what: ``reference``, or the artefact's file.
        precision: E.g. ``int8``.
        runner: What ran it.
        bytes: Size of the file.
        correct: Number of images named rightly.
        total: Number of images.
        agreement: Share of images that it names like the reference, 0..1; None without one.
        correct5: Number of images whose class is among its five highest; None below six classes.
        images_per_s: Images a second that the runtime took, one after the other; 0 if unknown.
        changes: Which classes became which, the most frequent first.
        decides: Whether the agreement is verified: not where the reference itself is near chance.
    """

    what: str
    precision: str
    runner: str
    bytes: int
    correct: int
    total: int
    agreement: float | None
    correct5: int | None = None
    images_per_s: float = 0.0
    changes: tuple[ClassChange, ...] = ()
    decides: bool = True

    @property
    def top1(self) -> float:
        """Share of images named rightly, 0..1."""
        return self.correct / self.total

    @property
    def top5(self) -> float | None:
        """Share of images whose class is among the five highest, 0..1."""
        return None if self.correct5 is None else self.correct5 / self.total

    @property
    def outcome(self) -> str:
        """``pass``, ``warn`` or ``fail`` by the agreement; empty where it is not verified."""
        if self.agreement is None or not self.decides or self.what == "reference":
            return ""
        if self.agreement < FAIL_AGREEMENT:
            return "fail"
        return "warn" if self.agreement < WARN_AGREEMENT else "pass"


@dataclass(frozen=True)
class AccuracyTable:
    """Top-1 of every artefact of a bundle; the reference, if any, comes first.

    Attributes:
        rows: One each.
        classes: Number of classes; 0 if unknown.
    """

    rows: tuple[AccuracyRow, ...]
    classes: int = 0

    @property
    def reference(self) -> AccuracyRow | None:
        """The float reference's row."""
        return next((r for r in self.rows if r.what == "reference"), None)

    @property
    def near_chance(self) -> bool:
        """Whether the reference names hardly more images rightly than guessing would."""
        row = self.reference
        return row is not None and is_near_chance(row.top1, row.total, self.classes)

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        from deploykit.report.notebook import accuracy_html

        return accuracy_html(self)

    def to_frame(self) -> Any:
        """A pandas DataFrame; raises MissingDependencyError where pandas is not installed."""
        from deploykit.report.notebook import accuracy_frame

        return accuracy_frame(self)

    def __repr__(self) -> str:
        """One line: top-1 of each row."""
        rows = ", ".join(f"{printable_name(r.what)[-60:]} {r.top1:.2%}" for r in self.rows[:8])
        return f"<AccuracyTable, {len(self.rows)} rows, {self.classes} classes: {rows}>"

    def exit_code_with(self, *, fail_on_warning: bool) -> int:
        """1 if an agreement fails, or is a warning and that is asked for; else 0."""
        bad = {"fail", "warn"} if fail_on_warning else {"fail"}
        return EXIT_PARITY if any(row.outcome in bad for row in self.rows) else EXIT_OK


def is_near_chance(share: float, count: int, classes: int) -> bool:
    """Whether a top-1 may be guessing: its 95 % interval reaches down to one in ``classes``."""
    return classes > 1 and wilson_interval(share, count)[0] <= 1 / classes
