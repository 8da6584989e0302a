"""`convert`: one source to a bundle; the steps of the way, in order, and nothing else.

source ─> exported ─> simplified ─> fused ─┬─ policy + table ─> quantized ─> target ─> artefact
                                           └─ calibration data ─> CalibrationTable      │
golden inputs ─> reference, stages ────────────── compare ────────────────── runners ───┘
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.bundle import Bundle, BundleArtifact, BundleFile, check_replaceable, write_bundle
from deploykit.errors import (
    DataError,
    UserError,
)
from deploykit.flow.make import BuiltArtifact, make_artifacts, needs_table, quantize_stage
from deploykit.flow.plan import (
    ConvertRequest,
    choose_runners,
    plan_artifacts,
)
from deploykit.model import Model, Precision, Stage
from deploykit.parity.limits import check_limits
from deploykit.target import Target
from deploykit.verdict import Report, SkippedTarget
from deploykit.version import __version__

if TYPE_CHECKING:
    from deploykit.calibration.data import CalibrationData
    from deploykit.calibration.table import CalibrationTable
    from deploykit.flow.prove import Proof

#: Versions that shape an artefact or a verdict, and so stand in the manifest.
_LIBRARIES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxsim", "pillow")


@dataclass(frozen=True)
class ConversionResult:
    """What `convert` made.

    Attributes:
        folder: The bundle.
        bundle: Its manifest.
        report: All verdicts; without any if nothing was verified.
    """

    folder: Path
    bundle: Bundle
    report: Report


def convert(
    model: Model,
    request: ConvertRequest | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> ConversionResult:
    """Take a loaded model to a bundle of artefacts, verified on their runtimes.

    Args:
        model: The exported stage, as `deploykit.load` gives it.
        request: What to make; None for the defaults.
        progress: Called with one line a step.

    Raises:
        UserError: an option or data that cannot be used; nothing was written.
        UnsupportedModelError: the target refuses the model, or all of several do, with every op
            that is lacking; nothing was written. One of several that refuses is left out.
    """
    from deploykit.passes.pipeline import advance

    request = request or ConvertRequest()
    plan, skipped = plan_artifacts(request)
    check_limits(request.limits, {precision for _, precision in plan})
    runners = choose_runners(request, plan)
    folder = request.out if request.out is not None else Path(model.name)
    check_replaceable(folder)
    fused = advance(model, Stage.FUSED)
    progress(f"fused: {len(fused.graph.graph)} nodes")
    _check_quantized_source(fused, plan)
    data = _calibration_data(fused, request, plan)
    tables: list[CalibrationTable | None] = []

    def calibrate() -> CalibrationTable | None:
        tables.append(_calibration_table(fused, request, plan, data, progress))
        return tables[0]

    made, refused = make_artifacts(fused, plan, request, calibrate, progress)
    table = tables[0] if tables else None
    skipped += refused
    proof = _prove(model, fused, made, runners, request, data, progress)
    artifacts = tuple(_describe(item, proof) for item in made)
    bundle = _assemble(model, fused, proof, artifacts, skipped, table, request)
    files = {path: data for item in made for path, data in item.files.items()}
    write_bundle(
        folder, bundle, files, proof.golden if proof else None, table.to_json() if table else None
    )
    report = Report(
        model=model.name,
        reference=bundle.reference,
        verdicts=tuple(v for a in artifacts for v in a.verdicts),
        warnings=(*_not_verified(made, runners, request), *_warnings(table, made)),
        stages=proof.stages if proof else (),
        skipped=tuple(skipped),
    )
    return ConversionResult(folder, bundle, report)


def _assemble(
    model: Model,
    fused: Model,
    proof: Proof | None,
    artifacts: tuple[BundleArtifact, ...],
    skipped: Sequence[SkippedTarget],
    table: CalibrationTable | None,
    request: ConvertRequest,
) -> Bundle:
    return Bundle(
        name=model.name,
        source={
            "kind": model.source.kind,
            "file": Path(model.source.path).name,
            "sha256": model.source.sha256,
            "arch": model.source.arch,
        },
        libraries=_library_versions(),
        inputs=fused.inputs,
        outputs=fused.outputs,
        preprocess=model.preprocess,
        labels=model.labels,
        reference=proof.reference if proof else "",
        artifacts=artifacts,
        calibration=_calibration_summary(table, request),
        has_golden=proof is not None,
        skipped=tuple(skipped),
    )


def _check_quantized_source(fused: Model, plan: Sequence[tuple[Target, Precision]]) -> None:
    """A model that came quantized has one precision: its own.

    Raises:
        UserError: another one is asked for.
    """
    from deploykit.graph.qdq import has_qdq

    others = list(dict.fromkeys(p.value for _, p in plan if p is not Precision.INT8))
    if others and has_qdq(fused.graph):
        raise UserError(
            f"model '{fused.name}' is quantized already (it has QuantizeLinear nodes), and "
            f"{', '.join(others)} is asked for",
            expected="--int8: its own scales are kept, and no calibration data are needed",
            advice="for other precisions give the float model that it was made from",
        )


def _calibration_data(
    fused: Model, request: ConvertRequest, plan: Sequence[tuple[Target, Precision]]
) -> CalibrationData | None:
    """The data that calibrate, and whose samples are the golden inputs; None if there are none."""
    from deploykit.calibration.data import load_calibration_data, sample_as_data

    if len(fused.inputs) != 1:
        if needs_table(fused, plan, request):
            raise UserError(
                f"the model has {len(fused.inputs)} inputs",
                expected="one picture input for int8 calibration",
            )
        return None
    data = None
    if request.calibration is not None:
        data = load_calibration_data(
            request.calibration,
            fused.inputs[0],
            fused.preprocess,
            request.calibration_limit,
            skip_unreadable=request.skip_unreadable,
        )
    elif fused.calibration_sample is not None and (
        request.verify or needs_table(fused, plan, request)
    ):
        data = sample_as_data(fused, request.calibration_limit)
    if data is None and request.calibration_table is None and needs_table(fused, plan, request):
        raise DataError(
            "int8 needs data to calibrate with, and none were given",
            expected="16 or more samples like those that the model will see",
            advice="--calibrate FOLDER of pictures, or --calibrate FILE.npz/.npy of ready tensors "
            "(n,C,H,W float32) or pictures (n,H,W,C uint8); a checkpoint may also carry a "
            "'calibration' sample of its own; --w8 needs no data",
        )
    return data


def _calibration_table(
    fused: Model,
    request: ConvertRequest,
    plan: Sequence[tuple[Target, Precision]],
    data: CalibrationData | None,
    progress: Callable[[str], None],
) -> CalibrationTable | None:
    from deploykit.calibration.table import CalibrationTable

    if not needs_table(fused, plan, request):
        return None
    if request.calibration_table is not None:
        return _table_of(fused, CalibrationTable.load(request.calibration_table), request)
    from deploykit.calibration.collect import collect_statistics

    if data is None:
        raise AssertionError("int8 without data was let through")
    table = collect_statistics(fused, data, allow_suspicious=request.allow_suspicious)
    progress(f"calibrated on {table.samples} samples: {data.description}")
    return table


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


def _not_verified(
    made: Sequence[BuiltArtifact], runners: Mapping[str, tuple[str, ...]], request: ConvertRequest
) -> list[str]:
    names = dict.fromkeys(m.artifact.target for m in made) if request.verify else ()
    return [
        f"{name} is written but not verified: no runner that was asked for, or is here, runs it"
        for name in names
        if not runners[name]
    ]


def _warnings(table: CalibrationTable | None, made: Sequence[BuiltArtifact]) -> tuple[str, ...]:
    """Of the calibration and of every artefact, each once."""
    found = [*(table.warnings if table else ()), *(w for m in made for w in m.artifact.warnings)]
    return tuple(dict.fromkeys(found))


def _calibration_summary(
    table: CalibrationTable | None, request: ConvertRequest
) -> dict[str, Any] | None:
    if table is None:
        return None
    return {
        "samples": table.samples,
        "data_sha256": table.data_fingerprint,
        "observer": request.observer.method if request.observer else "minmax",
        "warnings": list(table.warnings),
    }


def quantize_for_target(
    fused: Model,
    target: Target,
    request: ConvertRequest,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Model:
    """The quantized stage that `convert` would give a target for int8.

    Args:
        fused: The fused stage; a QDQ model that the user brought keeps its scales.
        target: Whose policy quantizes.
        request: How to calibrate; what else it asks for is not looked at.
        progress: Called with one line a step.

    Raises:
        UserError: the target has no int8, or the data cannot be used or are missing.
    """
    if Precision.INT8 not in target.precisions:
        raise UserError(f"the target {target.name} writes no int8 files")
    plan = [(target, Precision.INT8)]
    data = _calibration_data(fused, request, plan)
    table = _calibration_table(fused, request, plan, data, progress)
    policy = target.policy(Precision.INT8)
    return fused if policy is None else quantize_stage(fused, policy, request, table)


def _prove(
    model: Model,
    fused: Model,
    made: Sequence[BuiltArtifact],
    runners: Mapping[str, tuple[str, ...]],
    request: ConvertRequest,
    data: CalibrationData | None,
    progress: Callable[[str], None],
) -> Proof | None:
    if not request.verify:
        return None
    from deploykit.flow.prove import ProofRequest, prove

    settings = ProofRequest(
        runners=runners,
        limits=request.limits,
        samples=request.samples,
        layers=request.layers,
        threads=request.threads,
        timeout_s=request.timeout_s,
    )
    return prove(model, fused, made, settings, data, progress=progress)


def _describe(item: BuiltArtifact, proof: Proof | None) -> BundleArtifact:
    artifact = item.artifact
    size = sum(len(data) for data in item.files.values())
    return BundleArtifact(
        target=artifact.target,
        precision=artifact.precision.value,
        path=item.path,
        files=tuple(
            BundleFile(path, hashlib.sha256(data).hexdigest(), len(data))
            for path, data in item.files.items()
        ),
        stage=item.stage_key,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        output_steps=artifact.output_steps,
        summary=artifact.summary,
        verdicts=tuple(replace(v, bytes=size) for v in proof.verdicts[item.path]) if proof else (),
    )


def _library_versions() -> dict[str, str]:
    found = {"deploykit": __version__, "python": platform.python_version()}
    for package in (*_LIBRARIES, "torch", "ai-edge-litert"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # optional: a manifest names what was there
            continue
    return found
