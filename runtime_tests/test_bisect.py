"""`bisect` finds ncnn's wrong kernel on an emulated ARM core, a planted one everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ncnn", reason="ncnn is not installed (extra [ncnn])")

from deploykit.cli import main
from deploykit.errors import UserError
from deploykit.flow.bisect import bisect
from deploykit.runners.arm64 import ARM64, is_native
from deploykit.runners.base import Runner, RunnerSpec
from deploykit.runners.environments import why_not_made
from deploykit.runners.process import open_runner
from deploykit_ncnn.cut_layers import cut_layers
from deploykit_ncnn.read_files import bin_beside, read_param
from deploykit_ncnn.write_files import write_param

ROOT = Path(__file__).resolve().parent.parent
FAULTY = "ConvolutionDepthWise"
STRIDE, ACTIVATION, MASK = 3, 9, 31
FIRST = "features.2.conv.1.0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 without what keeps its layers from the wrong kernel."""
    out = tmp_path_factory.mktemp("converted") / "b"
    source = str(ROOT / "examples" / "checkpoints" / "mobilenet_v2.pt")
    command = ["convert", source, "--to", "ncnn", "--fp32", "--samples", "2", "--runner", "ncnn"]
    command += ["--option", "ncnn.fp16_workaround=no", "--quiet", "--out", str(out)]
    assert main(command) == 0
    return out


def planted(spec: RunnerSpec, folder: Path) -> Runner:
    """Opens ncnn; as ``ncnn-default`` it forgets the activation of unmasked layers of stride 2."""
    if spec.runner != "ncnn-default":
        return open_runner(spec)
    path = Path(spec.path)
    layers = [
        replace(layer, params={n: v for n, v in layer.params.items() if n != ACTIVATION})
        if layer.type == FAULTY and layer.params.get(STRIDE) == 2 and MASK not in layer.params
        else layer
        for layer in read_param(path)
    ]
    copy = folder / path.name
    copy.write_bytes(write_param(layers))
    bin_beside(copy).write_bytes(bin_beside(path).read_bytes())
    return open_runner(replace(spec, runner="ncnn", path=str(copy)))


def test_a_planted_fault_is_found_with_its_work_around(bundle: Path, tmp_path: Path) -> None:
    (result,) = bisect(bundle, "ncnn-default", open_with=lambda spec: planted(spec, tmp_path))
    found = result.found
    assert (found.cause, found.layer) == ("kernel fault", FIRST)
    assert found.cut is not None
    assert found.cut.type == FAULTY
    assert "31=1" in found.workaround
    assert found.mended is not None
    assert found.mended < 1e-5
    assert set(found.cut.files) == {".param", ".bin"}


def test_every_layer_is_cut_and_no_weight_is_left_over(bundle: Path) -> None:
    path = bundle / "mobilenet_v2.fp32.param"
    cuts = cut_layers(path)
    weights = b"".join(cut.files.get(".bin", b"") for cut in cuts)
    assert weights == bin_beside(path).read_bytes()
    assert [c.name for c in cuts] == [layer.name for layer in read_param(path)]


def test_a_sound_runner_agrees(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = bisect(bundle, "ncnn-default", open_with=lambda s: open_runner(_plain(s)))
    assert result.found.cause == "agrees"
    for wrong in ("ncnn", "litert"):
        with pytest.raises(UserError):
            bisect(bundle, wrong)
    assert main(["bisect", str(bundle), "--runner", "nothing"]) == 2
    assert "no runner is called 'nothing'" in capsys.readouterr().err


def _plain(spec: RunnerSpec) -> RunnerSpec:
    return replace(spec, runner="ncnn")


def test_ncnn_is_wrong_on_a76_and_the_layer_is_written(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if is_native():
        pytest.skip("this is an ARM64 machine: nothing is emulated")
    if reason := why_not_made(ARM64):
        pytest.skip(f"ARM64: {reason}")
    command = ["bisect", str(bundle), "--runner", "ncnn-default-arm64@a76", "--json"]
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "layer")]) == 1
    (found,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert (found["cause"], found["layer"], found["layer_type"]) == ("kernel fault", FIRST, FAULTY)
    assert "31=1" in found["workaround"]
    assert [layer.type for layer in read_param(Path(found["file"]))] == ["Input", FAULTY]
