"""The executor refuses what it did not read, and computes what the format's formulas say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.errors import RunnerError, SourceError
from deploykit_coreml.load_coremltools import load_protobuf
from deploykit_coreml.operation_table import OPERATIONS, Parameters, operation
from deploykit_coreml.package_format import MANIFEST, MODEL_FILE, WEIGHTS_FILE
from deploykit_coreml.read_package import ProgramOp, is_package, read_package
from deploykit_coreml.read_values import ValueType
from deploykit_coreml.reference_backend import RUNTIME, ReferenceBackend
from deploykit_testing.coreml import Written, normal, stage_of, write


@pytest.fixture
def written(tmp_path: Path) -> Written:
    model = stage_of(
        "c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, W) r = Relu(c)"
        " y, z = deploykit.ConcatShuffleSplit<groups=2>(r, c)",
        "float[1,4,6,6] x",
        "y, z",
        {"W": normal(4, 4, 3, 3)},
    )
    return write(tmp_path, model)


def changed(written: Written, change: Callable[[Any], None]) -> Path:
    """A copy of the package whose block of operations was changed."""
    folder = written.folder.with_name("changed.mlpackage")
    shutil.copytree(written.folder, folder)
    spec = load_protobuf("Model_pb2").Model()
    spec.ParseFromString((folder / MODEL_FILE).read_bytes())
    function = spec.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    (folder / MODEL_FILE).write_bytes(spec.SerializeToString())
    return folder


def named(block: Any, type_: str) -> Any:
    return next(op for op in block.operations if op.type == type_)


def constant_behind(block: Any, op: Any, parameter: str) -> Any:
    name = op.inputs[parameter].arguments[0].name
    return next(o for o in block.operations if o.outputs[0].name == name)


def test_an_unknown_operation_is_refused_when_it_is_opened(written: Written) -> None:
    folder = changed(written, lambda b: setattr(named(b, "relu"), "type", "softplus"))
    with pytest.raises(RunnerError, match="the operation softplus"):
        ReferenceBackend(str(folder), {})


def test_an_unknown_parameter_is_refused_when_it_is_opened(written: Written) -> None:
    def change(block: Any) -> None:
        concat = named(block, "concat")
        concat.inputs["backwards"].CopyFrom(concat.inputs["interleave"])

    with pytest.raises(RunnerError, match="the parameter 'backwards' of concat"):
        ReferenceBackend(str(changed(written, change)), {})


def test_a_parameter_that_a_function_forgets_is_refused(written: Written) -> None:
    """Whoever writes an operation cannot leave out what a program gives: interleave, say."""
    forgetful = OPERATIONS["concat"]
    del OPERATIONS["concat"]
    try:

        @operation("concat", reads="values axis interleave")
        def compute_concat(parameters: Parameters) -> np.ndarray:
            return np.concatenate(parameters.raw("values"), axis=parameters.integer("axis"))

        backend = ReferenceBackend(str(written.folder), {})
        with pytest.raises(RunnerError, match="nothing read its parameters interleave"):
            backend.run({"x": normal(1, 4, 6, 6)})
    finally:
        OPERATIONS["concat"] = forgetful


def test_interleave_decides_the_result(written: Written) -> None:
    def change(block: Any) -> None:
        flag = constant_behind(block, named(block, "concat"), "interleave")
        flag.attributes["val"].immediateValue.tensor.bools.values[0] = False

    inputs = {"x": normal(1, 4, 6, 6)}
    right = ReferenceBackend(str(written.folder), {}).run(inputs)
    wrong = ReferenceBackend(str(changed(written, change)), {}).run(inputs)
    assert np.abs(right["y"] - wrong["y"]).max() > 0.1


def test_a_mode_that_is_not_implemented_is_refused(written: Written) -> None:
    def change(block: Any) -> None:
        mode = constant_behind(block, named(block, "conv"), "pad_type")
        mode.attributes["val"].immediateValue.tensor.strings.values[0] = "same_lower"

    backend = ReferenceBackend(str(changed(written, change)), {})
    with pytest.raises(RunnerError, match="pad_type 'same_lower'"):
        backend.run({"x": normal(1, 4, 6, 6)})


def test_a_shape_that_is_not_as_declared_is_refused(written: Written) -> None:
    def change(block: Any) -> None:
        strides = constant_behind(block, named(block, "conv"), "strides")
        strides.attributes["val"].immediateValue.tensor.ints.values[0] = 2

    backend = ReferenceBackend(str(changed(written, change)), {})
    with pytest.raises(RunnerError, match="as the program declares"):
        backend.run({"x": normal(1, 4, 6, 6)})


def test_an_element_type_that_is_not_known_is_refused(written: Written) -> None:
    def change(block: Any) -> None:
        named(block, "relu").outputs[0].type.tensorType.dataType = 13  # bfloat16

    with pytest.raises(SourceError, match="element type 13"):
        read_package(changed(written, change))


def test_wrong_inputs_are_refused(written: Written) -> None:
    backend = ReferenceBackend(str(written.folder), {})
    for inputs in (
        {"wrong": normal(1, 4, 6, 6)},
        {"x": normal(1, 4, 6, 5)},
        {"x": normal(1, 4, 6, 6).astype(np.float64)},
    ):
        with pytest.raises(RunnerError):
            backend.run(inputs)


def test_samples_are_run_one_by_one(written: Written) -> None:
    backend = ReferenceBackend(str(written.folder), {})
    x = normal(3, 4, 6, 6)
    together = backend.run({"x": x})["y"]
    assert together.shape == (3, 4, 6, 6)
    np.testing.assert_array_equal(together[1:2], backend.run({"x": x[1:2]})["y"])


def test_it_says_that_it_is_not_apples_runtime(written: Written) -> None:
    info = ReferenceBackend(str(written.folder), {}).info()
    assert info["runtime"] == RUNTIME == "reference executor, not Apple's runtime"
    assert info["details"]["opset"] == "CoreML5"


def test_float16_is_rounded_after_each_operation(tmp_path: Path) -> None:
    from deploykit.model import Precision

    model = stage_of("s = Add(x, c) y = Sub(s, c)", "float[1,2] x", "y", {"c": np.float32(1000)})
    found = write(tmp_path, model, Precision.FP16).run({"x": np.asarray([[0.2, 0.3]], np.float32)})
    # Steps of float16 at 1000 are 1/2.
    np.testing.assert_array_equal(found["y"], [[0.0, 0.5]])


def op_of(type_: str, **given: Any) -> Parameters:
    op = ProgramOp(type_, type_, {}, {}, {}, (("y", ValueType("float32", ())),))
    return Parameters(op, given)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (300.0, 127), (-300.0, -128)]
)
def test_quantize_rounds_ties_to_even_and_saturates(value: float, expected: int) -> None:
    found = OPERATIONS["quantize"].compute(
        op_of(
            "quantize",
            input=np.asarray([value], np.float32),
            scale=np.asarray(1.0, np.float32),
            zero_point=np.asarray(0, np.int8),
            output_dtype="int8",
        )
    )
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [expected]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / MANIFEST).unlink(), "cannot be read as a package"),
        (lambda f: (f / MANIFEST).write_text("{"), "is damaged"),
        (lambda f: (f / MANIFEST).write_text("[]"), "is damaged"),
        (lambda f: (f / MODEL_FILE).unlink(), "cannot be read"),
        (lambda f: (f / MODEL_FILE).write_bytes(b"\xff" * 100), "is damaged"),
        (lambda f: (f / WEIGHTS_FILE).unlink(), "damaged"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes(bytes(64)), "ends before a record"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes(bytes(4096)), "no record at"),
    ],
)
def test_damaged_packages(damage: Callable[[Path], object], words: str, written: Written) -> None:
    damage(written.folder)
    with pytest.raises(SourceError, match=words):
        read_package(written.folder)


def test_a_manifest_cannot_lead_outside(written: Written) -> None:
    text = (written.folder / MANIFEST).read_text()
    (written.folder / MANIFEST).write_text(text.replace("com.apple.CoreML/model", "../../../model"))
    with pytest.raises(SourceError, match="inside of the package"):
        read_package(written.folder)


def test_packages_are_told_by_content(written: Written, tmp_path: Path) -> None:
    assert is_package(written.folder)
    assert is_package(written.folder / MANIFEST)
    assert not is_package(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / MANIFEST).write_text('{"version": 3}')
    assert not is_package(other)


def test_reading_imports_nothing_heavy(written: Written) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; "
        "from deploykit_coreml.read_package import read_package; "
        f"read_package(Path({str(written.folder)!r})); "
        "print(sorted({'coremltools', 'torch', 'onnx', 'onnx_ir'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
