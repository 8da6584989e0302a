"""Every trained family through the whole pipeline: four precisions, both kernel sets, accuracy."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

from deploykit.bundle import GOLDEN, Bundle, read_bundle
from deploykit.cli import main
from deploykit.flow.evaluate import evaluate
from deploykit.golden import Golden
from deploykit.parity.compare import ArtifactRun, Expected, verify_run
from deploykit.verdict import Verdict
from deploykit_testing.planted_faults import FAULTS
from deploykit_zoo.checkpoint import read_checkpoint
from deploykit_zoo.networks import network_of_checkpoint
from deploykit_zoo.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "checkpoints"
SAMPLE = ROOT / "examples" / "fashion_mnist_sample.npz"
PRECISIONS = ["fp32", "fp16", "w8", "int8"]

CHECKPOINTS = sorted(FOLDER.glob("*.pt"))


@dataclass(frozen=True)
class Converted:
    checkpoint: Path
    folder: Path
    bundle: Bundle


@pytest.fixture(scope="module", params=CHECKPOINTS, ids=lambda path: path.stem)
def converted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    checkpoint: Path = request.param
    folder = tmp_path_factory.mktemp("families") / checkpoint.stem
    flags = [f"--{precision}" for precision in PRECISIONS]
    options = ["--out", str(folder), "--keep-stages", "--quiet"]
    assert main(["convert", str(checkpoint), *flags, *options]) == 0
    return Converted(checkpoint, folder, read_bundle(folder))


def test_every_family_has_a_checkpoint() -> None:
    assert {path.stem for path in CHECKPOINTS} == set(RECIPES)


def test_the_files_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in CHECKPOINTS}
    assert {name: size for name, size in sizes.items() if size >= 3_000_000} == {}
    assert sum(sizes.values()) < 20_000_000


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_is_what_its_recipe_trains(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    recipe = RECIPES[path.stem]

    assert checkpoint.arch == recipe.arch
    assert checkpoint.arch_kwargs == {"num_classes": 10, **recipe.arch_kwargs}
    assert checkpoint.preprocess == recipe.preprocess
    assert len(checkpoint.labels) == 10
    assert tuple(checkpoint.calibration.shape) == (128, 28, 28, 1)
    assert checkpoint.metrics["test_images"] == 10_000
    assert checkpoint.metrics["top1"] >= 0.89
    assert checkpoint.training["command"].startswith(f"deploykit zoo train {path.stem} --out ")
    for name, value in recipe.hyperparameters.items():
        assert checkpoint.training[name] == value, name
    network_of_checkpoint(checkpoint)


def test_every_verdict_passed_on_both_kernel_sets(converted: Converted) -> None:
    assert [a.precision for a in converted.bundle.artifacts] == PRECISIONS
    for artifact in converted.bundle.artifacts:
        assert {v.runner_name for v in artifact.verdicts} == {"litert", "litert-reference"}
        assert all(v.passed for v in artifact.verdicts), artifact.precision


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_xnnpack_takes_the_whole_graph_in_one_partition(
    converted: Converted, precision: str
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    (artifact,) = [a for a in converted.bundle.artifacts if a.precision == precision]
    interpreter = Interpreter(model_path=str(converted.folder / artifact.path), num_threads=1)
    written = [d["op_name"] for d in interpreter._get_ops_details()]
    assert "TRANSPOSE" not in written
    interpreter.allocate_tensors()
    delegates = [d for d in interpreter._get_ops_details() if d["op_name"] == "DELEGATE"]
    assert len(delegates) == 1
    assert {o["index"] for o in interpreter.get_output_details()} <= set(delegates[0]["outputs"])
    if precision == "int8":
        dtypes = {d["dtype"] for d in interpreter.get_tensor_details()}
        assert dtypes <= {np.int8, np.int32}


def test_a_planted_fault_of_a_thousandth_fails_fp32(converted: Converted) -> None:
    golden = Golden.from_npz(converted.folder / GOLDEN)
    (output,) = converted.bundle.outputs
    expected = Expected(golden.stages["fused"], golden.reference, sensitivity=golden.sensitivity)

    def verdict(stage: onnx.ModelProto) -> Verdict:
        session = onnxruntime.InferenceSession(stage.SerializeToString())
        ((name, images),) = golden.inputs.items()
        found = [session.run([output.name], {name: image[None]})[0] for image in images]
        run = ArtifactRun("onnxruntime", None, {output.name: np.concatenate(found)}, len(images))
        return verify_run(
            run, expected, file="f", target="onnx", precision="fp32", output_specs=(output,)
        )

    path = converted.folder / converted.bundle.stages["fused"].path
    assert verdict(onnx.load(path)).passed
    for plant in FAULTS:
        stage = onnx.load(path)
        plant(stage)
        found = verdict(stage)
        failed = [c.measured for c in found.checks if not c.passed]
        assert failed, (plant.__name__, found.checks)
        assert max(failed) > 1e-4


def test_int8_names_images_as_well_as_float(converted: Converted) -> None:
    reference, *rows = evaluate(converted.folder, SAMPLE, source=str(converted.checkpoint)).rows
    assert reference.what == "reference"
    assert reference.total == 1000
    top1 = {row.precision: row.top1 for row in rows}
    assert abs(top1["fp32"] - reference.top1) <= 0.001
    assert top1["int8"] >= reference.top1 - 0.010, f"{top1['int8']:.3f} < {reference.top1:.3f}"


def test_the_page_has_each_file_as_it_is_now() -> None:
    script = _make_families()
    rows = script.PAGES[0].committed_rows()
    assert list(rows) == script.current_keys(), "run python docs/make_families.py"
    for key, lines in rows.items():
        found = [line.split("|")[3].strip() for line in lines]
        assert found == ["reference", *PRECISIONS], key


def _make_families() -> ModuleType:
    path = ROOT / "docs" / "make_families.py"
    spec = importlib.util.spec_from_file_location("make_families", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
