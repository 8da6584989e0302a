"""The report as JSON: stable, versioned, and valid (NaN and infinity are strings)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deploykit.errors import DataError, UnsupportedOp
from deploykit.interface import TensorUse
from deploykit.json_file import number, whole
from deploykit.runners.base import RunnerInfo
from deploykit.verdict import (
    Check,
    LayerRow,
    Question,
    Report,
    RunnerExit,
    SkippedTarget,
    StageRow,
    Verdict,
)

SCHEMA = "deploykit.report/1"

_STRINGS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def report_to_json(report: Report) -> str:
    """The report as text, the same text for the same report."""
    document = report_to_dict(report)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def report_to_dict(report: Report) -> dict[str, Any]:
    """The report as plain data, `report_from_dict` reads it back.

    ``passed``, ``warned`` and ``interval`` are reported for readers: what follows from the
    figures is not read back.
    """
    return {
        "schema": SCHEMA,
        "model": report.model,
        "reference": report.reference,
        "passed": report.passed,
        "warned": report.warned,
        "warnings": list(report.warnings),
        "failed_before": list(report.failed_before),
        "verdicts": [verdict_to_dict(v) for v in report.verdicts],
        "stages": [_stage_to_dict(s) for s in report.stages],
        "left_out": [skipped_to_dict(o) for o in report.skipped],
        "tensors": [t.to_dict() for t in report.tensors],
    }


def report_from_dict(data: Mapping[str, Any]) -> Report:
    """Read what `report_to_dict` wrote.

    Raises:
        DataError: another schema, or not a report.
    """
    try:
        if data["schema"] != SCHEMA:
            raise DataError(f"a report of schema {data['schema']!r}", expected=SCHEMA)
        return Report(
            model=str(data["model"]),
            reference=str(data["reference"]),
            verdicts=tuple(verdict_from_dict(v) for v in data["verdicts"]),
            warnings=tuple(str(w) for w in data["warnings"]),
            stages=tuple(_stage_from_dict(s) for s in data["stages"]),
            skipped=tuple(skipped_from_dict(o) for o in data.get("left_out", ())),
            failed_before=tuple(str(w) for w in data.get("failed_before", ())),
            tensors=tuple(TensorUse.from_dict(t) for t in data.get("tensors", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"this is not a report: {type(error).__name__}: {error}", expected=f"schema {SCHEMA}"
        ) from error


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """One verdict as plain data; `verdict_from_dict` reads it back."""
    return {
        "target": verdict.target,
        "precision": verdict.precision,
        "path": verdict.path,
        "runner_name": verdict.runner_name,
        "passed": verdict.passed,
        "outcome": verdict.outcome,
        "samples": verdict.samples,
        "bytes": verdict.bytes,
        "error": verdict.error,
        "runner": _runner_to_dict(verdict.runner) if verdict.runner is not None else None,
        "checks": [_check_to_dict(c) for c in verdict.checks],
        "layers": [_layer_to_dict(row) for row in verdict.layers],
    }


def verdict_from_dict(data: Mapping[str, Any]) -> Verdict:
    """Read what `verdict_to_dict` wrote.

    Raises:
        KeyError, TypeError, ValueError: not a verdict.
    """
    runner = data["runner"]
    return Verdict(
        target=str(data["target"]),
        precision=str(data["precision"]),
        path=str(data["path"]),
        runner_name=str(data["runner_name"]),
        runner=_runner_from_dict(runner) if runner is not None else None,
        checks=tuple(_check_from_dict(c) for c in data["checks"]),
        samples=int(data["samples"]),
        bytes=int(data.get("bytes", 0)),
        error=str(data["error"]),
        layers=tuple(_layer_from_dict(row) for row in data["layers"]),
        runner_exit={e.value: e for e in RunnerExit}.get(str(data.get("outcome", ""))),
    )


def skipped_to_dict(entry: SkippedTarget) -> dict[str, Any]:
    """What was not written as plain data; `skipped_from_dict` reads it back."""
    return {
        "target": entry.target,
        "precision": entry.precision,
        "refused": entry.refused,
        "reason": entry.reason,
        "ops": [asdict(op) for op in entry.ops],
    }


def skipped_from_dict(data: Mapping[str, Any]) -> SkippedTarget:
    """Read what `skipped_to_dict` wrote.

    Raises:
        KeyError, TypeError, ValueError: not such an entry.
    """
    return SkippedTarget(
        target=str(data["target"]),
        precision=str(data["precision"]),
        reason=str(data["reason"]),
        ops=tuple(UnsupportedOp(**{k: str(v) for k, v in op.items()}) for op in data["ops"]),
        refused=bool(data["refused"]),
    )


def _runner_to_dict(info: RunnerInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "runtime": info.runtime,
        "version": info.version,
        "kernels": info.kernels,
        "cpu": info.cpu,
        "threads": info.threads,
        "details": _plain(dict(info.details)),
    }


def _runner_from_dict(data: Mapping[str, Any]) -> RunnerInfo:
    return RunnerInfo(
        name=str(data["name"]),
        runtime=str(data["runtime"]),
        version=str(data["version"]),
        kernels=str(data["kernels"]),
        cpu=str(data["cpu"]),
        threads=int(data["threads"]),
        details=dict(data["details"]),
    )


def _check_to_dict(check: Check) -> dict[str, Any]:
    data: dict[str, Any] = {
        "question": check.question.name.lower(),
        "value": check.value,
        "metric": check.metric,
        "measured": _number(check.measured),
        "limit": _number(check.limit),
        "warn_limit": _number(check.warn_limit),
        "at_most": check.at_most,
        "passed": check.passed,
        "warned": check.warned,
    }
    if check.samples is not None:
        data["samples"] = check.samples
        data["interval"] = check.interval and list(check.interval)
    return data


def _check_from_dict(data: Mapping[str, Any]) -> Check:
    warn, samples = data.get("warn_limit"), data.get("samples")  # older reports have neither
    return Check(
        question=Question[str(data["question"]).upper()],
        value=str(data["value"]),
        metric=str(data["metric"]),
        measured=_float(data["measured"]),
        limit=None if data["limit"] is None else _float(data["limit"]),
        at_most=bool(data["at_most"]),
        warn_limit=None if warn is None else _float(warn),
        samples=None if samples is None else whole(samples, "a number of samples"),
    )


def _layer_to_dict(row: LayerRow) -> dict[str, Any]:
    return {
        "value": row.value,
        "module": row.module,
        "op_type": row.op_type,
        "max_error_over_range": _number(row.max_error_over_range),
        "snr_db": _number(row.snr_db),
        "max_error_lsb": _number(row.max_error_lsb),
    }


def _layer_from_dict(data: Mapping[str, Any]) -> LayerRow:
    steps = data["max_error_lsb"]
    return LayerRow(
        value=str(data["value"]),
        module=str(data["module"]),
        op_type=str(data["op_type"]),
        max_error_over_range=_float(data["max_error_over_range"]),
        snr_db=_float(data["snr_db"]),
        max_error_lsb=None if steps is None else _float(steps),
    )


def _stage_to_dict(row: StageRow) -> dict[str, Any]:
    return {
        "stage": row.stage,
        "value": row.value,
        "max_error_over_range": _number(row.max_error_over_range),
        "snr_db": _number(row.snr_db),
        "departs": row.diverges,
    }


def _stage_from_dict(data: Mapping[str, Any]) -> StageRow:
    return StageRow(
        stage=str(data["stage"]),
        value=str(data["value"]),
        max_error_over_range=_float(data["max_error_over_range"]),
        snr_db=_float(data["snr_db"]),
        diverges=bool(data["departs"]),
    )


def _number(value: float | None) -> float | str | None:
    """A figure as JSON knows it: NaN and infinity have no number there."""
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _float(value: Any) -> float:
    return _STRINGS[value] if isinstance(value, str) else number(value, "a figure")


def _plain(value: Any) -> Any:
    """A runner's details with every figure as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return _number(value) if isinstance(value, float) else value
