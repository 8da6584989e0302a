"""`convert`: one source to a bundle; the steps of the way, in order, and nothing else.

source ─> exported ─> simplified ─> fused ─┬─ policy + table ─> quantized ─> target ─> artefact
                                           └─ calibration data ─> CalibrationTable      │
golden inputs ─> reference, stages ────────────── compare ────────────────── runners ───┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.bundle import (
    LABELS,
    Bundle,
    BundleArtifact,
    check_replaceable,
    labels_text,
    lost_artifacts,
    refuse_source_inside,
    write_bundle,
)
from deploykit.errors import UnsupportedModelError, UserError
from deploykit.flow.calibrate import Calibrator
from deploykit.flow.class_folders import measure_reference, with_folder_labels
from deploykit.flow.loading import split_loadable
from deploykit.flow.make import BuiltArtifact, make_artifacts, needs_table, quantize_stage
from deploykit.flow.plan import (
    ConvertRequest,
    choose_runners,
    plan_artifacts,
)
from deploykit.flow.recall import describe_making
from deploykit.flow.result import ConversionResult
from deploykit.graph.score_kinds import score_kinds
from deploykit.installation import library_versions
from deploykit.interface import TensorUse, tensor_uses
from deploykit.manifest import describe_file
from deploykit.model import Model, Precision, Stage
from deploykit.parity.limits import check_limits
from deploykit.target import Target
from deploykit.verdict import Report, SkippedTarget

if TYPE_CHECKING:
    from deploykit.calibration.data import CalibrationData
    from deploykit.flow.prove import Proof


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
            that is lacking; nothing was written. One of several that refuses is omitted.
    """
    from deploykit.passes.pipeline import advance

    request = request or ConvertRequest()
    plan, skipped = plan_artifacts(request)
    check_limits(request.limits, {precision for _, precision in plan})
    runners = choose_runners(request, plan)
    folder = request.out if request.out is not None else Path(model.name)
    refuse_source_inside(folder, model.source.path)
    check_replaceable(folder)
    fused = advance(model, Stage.FUSED)
    progress(f"fused: {len(fused.graph.graph)} nodes")
    fused = with_folder_labels(fused, request, progress)
    model = replace(model, labels=fused.labels)
    _check_quantized_source(fused, plan)
    _check_kept(fused, plan, request)
    plan, uncalibrated = _without_calibration(fused, plan, request)
    skipped += uncalibrated
    calibrator = Calibrator.load(fused, request, plan, progress)
    made, refused = make_artifacts(fused, plan, request, calibrator.calibrate, progress)
    table = calibrator.result.table if calibrator.result else None
    skipped += refused
    accuracy = measure_reference(model, fused, request, progress) if request.verify else None
    proof = _prove(model, fused, made, runners, request, calibrator.verified, progress)
    made, unproven = _split_proven(made, proof)
    skipped += unproven
    made, unreadable = split_loadable(
        made, proof.verdicts if proof else None, timeout_s=request.timeout_s
    )
    skipped += unreadable
    artifacts = tuple(_describe(item, proof) for item in made)
    bundle = _assemble(model, fused, proof, artifacts, skipped, calibrator)
    bundle = replace(bundle, made=describe_making(model, request, plan))
    files = {path: data for item in made for path, data in item.files.items()}
    if request.keep_stages:
        stages = {f"stages/{item.stage_key}.onnx": item.stage.serialized() for item in made}
        files |= stages
        keys = {item.stage_key: f"stages/{item.stage_key}.onnx" for item in made}
        kept = {key: describe_file(path, stages[path]) for key, path in keys.items()}
        bundle = replace(bundle, stages=kept)
    if model.labels is not None:
        files[LABELS] = labels_text(model.labels).encode()
        bundle = replace(bundle, companions=(describe_file(LABELS, files[LABELS]),))
    if lost := lost_artifacts(folder, [artifact.path for artifact in artifacts]):
        progress(f"replaces the bundle in {folder}, without its {', '.join(lost)}")
    write_bundle(
        folder, bundle, files, proof.golden if proof else None, table.to_json() if table else None
    )
    report = Report(
        model=model.name,
        reference=bundle.reference,
        verdicts=tuple(v for a in artifacts for v in a.verdicts),
        warnings=(
            *((accuracy.warning,) if accuracy and accuracy.warning else ()),
            *_contract_warning(model),
            *_upgrade_note(model),
            *_not_verified(made, runners, request),
            *_warnings(calibrator, made),
        ),
        stages=proof.stages if proof else (),
        skipped=tuple(skipped),
        tensors=tuple(u for a in artifacts for u in uses_of(bundle, a)),
    )
    return ConversionResult(folder, bundle, report, accuracy)


def _split_proven(
    made: list[BuiltArtifact], proof: Proof | None
) -> tuple[list[BuiltArtifact], list[SkippedTarget]]:
    """The artefacts that could be verified, and those whose own stage does not run.

    Raises:
        UnsupportedModelError: no artefact is left.
    """
    reasons = proof.unproven if proof else {}
    refused = [
        SkippedTarget(
            item.artifact.target,
            item.artifact.precision.value,
            f"ONNX Runtime does not run the stage that {item.path} was made from: "
            f"{reasons[item.path]}",
            refused=True,
        )
        for item in made
        if item.path in reasons
    ]
    left = [item for item in made if item.path not in reasons]
    if not left:
        raise UnsupportedModelError("\n  ".join(one.reason for one in refused))
    return left, refused


def _assemble(
    model: Model,
    fused: Model,
    proof: Proof | None,
    artifacts: tuple[BundleArtifact, ...],
    skipped: Sequence[SkippedTarget],
    calibrator: Calibrator,
) -> Bundle:
    return Bundle(
        name=model.name,
        source={
            "kind": model.source.kind,
            "file": Path(model.source.path).name,
            "sha256": model.source.sha256,
            "arch": model.source.arch,
        },
        libraries=library_versions(dict.fromkeys(a.target for a in artifacts)),
        inputs=fused.inputs,
        outputs=fused.outputs,
        preprocess=model.preprocess,
        assumed=model.preprocess is not None and model.preprocess_origin.assumed,
        labels=model.labels,
        reference=proof.reference if proof else "",
        artifacts=artifacts,
        calibration=calibrator.summary(),
        has_golden=proof is not None,
        skipped=tuple(skipped),
    )


def _without_calibration(
    fused: Model, plan: list[tuple[Target, Precision]], request: ConvertRequest
) -> tuple[list[tuple[Target, Precision]], list[SkippedTarget]]:
    """The plan without int8 of several inputs that nothing calibrates, if anything is left."""
    from deploykit.graph.qdq import has_qdq

    left = [item for item in plan if item[1] is not Precision.INT8]
    given = request.calibration is not None or request.calibration_table is not None
    if given or len(fused.inputs) == 1 or not left or has_qdq(fused.graph):
        return plan, []
    names = ", ".join(f"'{spec.name}'" for spec in fused.inputs)
    reason = (
        f"the model has {len(fused.inputs)} inputs, and int8 needs samples of each: --calibrate "
        f"an .npz file with the arrays {names}, or a folder with an entry for each"
    )
    refused = [
        SkippedTarget(target.name, precision.value, reason, refused=True)
        for target, precision in plan
        if precision is Precision.INT8
    ]
    return left, refused


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


def _check_kept(
    fused: Model, plan: Sequence[tuple[Target, Precision]], request: ConvertRequest
) -> None:
    """Layers that are to stay float are there, and in a file that would quantize them.

    Raises:
        UserError: they are not, or the source brings its own quantization.
    """
    from deploykit.graph.qdq import has_qdq
    from deploykit_quantize.scope import Scope, check_scopes

    if not request.keep_float:
        return
    if has_qdq(fused.graph):
        raise UserError(
            f"--keep-float, and model '{fused.name}' is quantized already",
            expected="the float model that it was made from",
        )
    if Precision.INT8 not in {precision for _, precision in plan}:
        raise UserError("--keep-float, and no int8 file is asked for", expected="--int8 too")
    check_scopes(fused.graph.graph, tuple(map(Scope, request.keep_float)))


def _contract_warning(model: Model) -> list[str]:
    """No comparison of files can show a wrong contract: say where it was guessed."""
    if model.preprocess is None or not model.preprocess_origin.assumed:
        return []
    return [
        (
            "the preprocessing contract is assumed: that of the library's own weights for "
            f"{model.source.arch}, not what this checkpoint was trained with; "
            "--mean, --std, --resize, --crop or --preprocess say another"
        )
    ]


def _upgrade_note(model: Model) -> list[str]:
    """Of a file of an old operator set: what is verified is the upgraded one."""
    return [
        f"{note.node} was upgraded ({note.reason}); results are compared with the upgraded graph"
        for note in model.notes
        if note.pass_name == "upgrade_opset"
    ]


def _not_verified(
    made: Sequence[BuiltArtifact], runners: Mapping[str, tuple[str, ...]], request: ConvertRequest
) -> list[str]:
    names = dict.fromkeys(m.artifact.target for m in made) if request.verify else ()
    return [
        f"{name} is written but not verified: no runner that was asked for, or is here, runs it"
        for name in names
        if not runners[name]
    ]


def _warnings(calibrator: Calibrator, made: Sequence[BuiltArtifact]) -> tuple[str, ...]:
    """Of the calibration and of every artefact, each once."""
    found = [*calibrator.warnings, *(w for m in made for w in m.artifact.warnings)]
    return tuple(dict.fromkeys(found))


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
    calibrator = Calibrator.load(fused, request, plan, progress)
    policy = target.policy(Precision.INT8)
    if policy is None:
        return fused
    calibration = calibrator.calibrate() if needs_table(fused, plan, request) else None
    return quantize_stage(fused, policy, request, calibration, progress)


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
        files=tuple(describe_file(path, data) for path, data in item.files.items()),
        stage=item.stage_key,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        output_steps=artifact.output_steps,
        summary=artifact.summary,
        verdicts=tuple(replace(v, bytes=size) for v in proof.verdicts[item.path]) if proof else (),
        value_names=artifact.value_names,
        value_specs=artifact.value_specs,
        output_kinds=score_kinds(item.stage.graph.graph),
    )


def uses_of(bundle: Bundle, artifact: BundleArtifact) -> Iterator[TensorUse]:
    """The inputs and outputs of an artefact of a bundle, as an app meets them."""
    image = artifact.summary.get("image")
    return tensor_uses(
        artifact.path,
        artifact.inputs,
        artifact.outputs,
        preprocess=bundle.preprocess,
        output_kinds=artifact.output_kinds,
        pixel_input=str(image["name"]) if isinstance(image, Mapping) else "",
    )
