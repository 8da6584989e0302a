"""C++ code in a child process: what it answers, and how its end is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploykit.errors import MissingDependencyError, UnsupportedModelError, UserError
from deploykit.graph import native, native_child
from deploykit.limits import Limits, limits_set

_HEADER = '<ir_version: 7, opset_import: ["": 11]> g (float[2] x) => (float[2] y) '


def _model(body: str) -> bytes:
    return onnx.parser.parse_model(_HEADER + body).SerializeToString()


_SOUND = _model("{ y = Neg (x) }")


def _crashing() -> bytes:
    """The version converter reads the one integer ``axes`` as if it were a list of integers."""
    model = onnx.parser.parse_model(_HEADER + "{ y = Squeeze (x) }")
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("axes", 3))
    return bytes(model.SerializeToString())


def test_answers_are_those_of_the_library() -> None:
    proto = onnx.ModelProto.FromString(_SOUND)
    converted = onnx.ModelProto.FromString(native.convert_version(_SOUND, 20))
    assert converted == onnx.version_converter.convert_version(proto, 20)
    inferred = onnx.ModelProto.FromString(native.infer_shapes(_SOUND))
    assert inferred == onnx.shape_inference.infer_shapes(proto, data_prop=True)


def test_a_crash_is_an_error_and_the_next_call_is_answered() -> None:
    with pytest.raises(UnsupportedModelError, match=r"version converter crashed with SIG\w+"):
        native.convert_version(_crashing(), 20)
    assert native.convert_version(_SOUND, 20)


def test_what_the_library_raises_is_handed_on() -> None:
    with pytest.raises(native.RefusedError) as caught:
        native.infer_shapes(b"\xff\xff\xff")
    assert caught.value.kind
    model = _model("{ y = Add (x, x) }")
    broken = onnx.ModelProto.FromString(model)
    del broken.graph.node[0].input[:]
    with pytest.raises(native.RefusedError, match="Add"):
        native.infer_shapes(broken.SerializeToString(), strict=True)


def test_a_hang_is_ended() -> None:
    os.kill(_child_pid(), signal.SIGSTOP)
    with (
        limits_set(Limits(native_seconds=1)),
        pytest.raises(UnsupportedModelError, match="took longer than 1 s"),
    ):
        native.infer_shapes(_SOUND)
    assert native.infer_shapes(_SOUND)


def test_memory_is_limited() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[2] x) => (float[n] y)'
        " <int64[1] s = {536870912}> { c = ConstantOfShape (s) y = Add (x, c) }"
    )
    with pytest.raises(UnsupportedModelError, match="onnxsim ran out of memory"):
        native.simplify(model.SerializeToString(), _ARGUMENTS)
    assert native.infer_shapes(_SOUND)


def test_threads_take_turns_and_share_one_child() -> None:
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(native.infer_shapes(_SOUND)))
        for _ in range(8)
    ]
    before = _child_pid()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(answers) == 8
    assert _child_pid() == before


def test_a_fork_starts_its_own() -> None:
    before = _child_pid()
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if _child_pid() != before else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert _child_pid() == before
    assert native.infer_shapes(_SOUND)


def test_the_child_leaves_with_its_parent_and_loads_no_package() -> None:
    code = (
        "import sys, onnx\nfrom deploykit.graph import native\n"
        f"native.simplify({_SOUND!r}, {_ARGUMENTS!r})\n"
        "assert 'onnxsim' not in sys.modules and 'torch' not in sys.modules\n"
        "print(native._CHILD._process.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    assert not Path(f"/proc/{done.stdout.strip()}").exists()


_ARGUMENTS = {
    "skip_optimizers": None,
    "constant_folding": True,
    "shape_inference": True,
    "tensor_size_threshold": 1 << 20,
    "target_opset_version": 20,
    "rewriter": None,
    "initializers_as_constants": True,
    "include_inline_functions": False,
    "mutable_initializer": False,
    "overwrite_input_shapes": None,
    "unused_output": None,
    "extra_optimizers": None,
}


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(MissingDependencyError, match="no_such_package_of_ours"):
        native.extension_file("no_such_package_of_ours", "extension")


def test_a_package_without_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow_package").mkdir()
    (tmp_path / "hollow_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="no compiled extension"):
        native.extension_file("hollow_package", "extension")


def test_an_onnxsim_that_is_not_known_is_called_by_its_public_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _model("{ a = Identity (x)  b = Neg (a)  y = Identity (b) }")
    known = onnx.ModelProto.FromString(native.simplify(model, _ARGUMENTS))
    monkeypatch.setattr(native, "_SIMPLIFY_PARAMETERS", ("executor", "of", "tomorrow"))

    with pytest.warns(UserWarning, match="none that deploykit knows"):
        unknown = onnx.ModelProto.FromString(native.simplify(model, _ARGUMENTS))

    assert [n.op_type for n in unknown.graph.node] == ["Neg"]
    assert unknown.opset_import == known.opset_import


def test_interface_of() -> None:
    extension = types.ModuleType("fake")
    assert native_child.interface_of(extension) == ()

    def simplify() -> None:
        """simplify(model_bytes: bytes, other: list[int, str]) -> bytes"""

    extension.simplify = simplify  # type: ignore[attr-defined]
    extension.ModelExecutor = object  # type: ignore[attr-defined]
    assert native_child.interface_of(extension) == ("model_bytes", "other")


def test_run_constant_graph() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[2] a, float[2] b) => (float[2] c) '
        "{ c = Sub (a, b) }"
    )
    inputs = [onnx.numpy_helper.from_array(np.array(v, np.float32)) for v in ([3, 4], [1, 1])]
    (result,) = native_child.run_constant_graph(
        model.SerializeToString(), [t.SerializeToString() for t in inputs]
    )
    array = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(result))
    np.testing.assert_array_equal(array, [2, 3])


def _child_pid() -> int:
    native.infer_shapes(_SOUND)
    process = native._CHILD._process
    assert process is not None
    return process.pid


def test_a_model_is_tried_in_the_child_and_a_refusal_is_an_error() -> None:
    native.try_model(_SOUND)
    out_of_range = _model("{ i = Constant <value_ints = [7]> () y = Gather (x, i) }")
    with pytest.raises(UnsupportedModelError, match="ONNX Runtime cannot run the model"):
        native.try_model(out_of_range)
