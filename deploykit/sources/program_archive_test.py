"""Exported programs that would run code: each is refused, and the code did not run."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deploykit.errors import SourceError, UnsupportedModelError
from deploykit.sources.detect_test import Bomb
from deploykit.sources.exported_program import open_exported_program
from deploykit.sources.options import LoadOptions
from deploykit.sources.program_archive import check_program_archive, weights_only_enforced
from deploykit_testing.tiny_networks import INPUT_SHAPE, TinyNet, trained

Change = Callable[[str, bytes], bytes]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "tiny.pt2"
    torch.export.save(torch.export.export(trained(TinyNet()), (torch.zeros(INPUT_SHAPE),)), path)
    return path


def _changed(program: Path, target: Path, change: Change) -> Path:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def _changed_json(program: Path, target: Path, member: str, change: Callable[[Any], None]) -> Path:
    def rewrite(name: str, data: bytes) -> bytes:
        if not name.endswith(member):
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return _changed(program, target, rewrite)


def _pickled(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_a_plain_program_passes(program: Path) -> None:
    check_program_archive(program)
    assert open_exported_program(program, LoadOptions()).input_shapes == (INPUT_SHAPE,)


def test_code_among_the_example_inputs_is_not_run(program: Path, tmp_path: Path) -> None:
    created = tmp_path / "created"
    payload = _pickled(((Bomb(created),), {}))
    path = _changed(
        program, tmp_path / "evil.pt2", lambda n, d: payload if "sample_inputs" in n else d
    )
    with pytest.raises(SourceError, match="pickled objects besides tensors"):
        open_exported_program(path, LoadOptions())
    assert not created.exists()
    # The same file runs its code where nothing holds torch back: the test has teeth.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.load(path)
    assert created.exists()


def test_a_pickled_weight_is_refused(program: Path, tmp_path: Path) -> None:
    def pickle_first(document: Any) -> None:
        next(iter(document["config"].values()))["use_pickle"] = True

    path = _changed_json(program, tmp_path / "evil.pt2", "weights_config.json", pickle_first)
    with pytest.raises(SourceError, match="a pickled object"):
        open_exported_program(path, LoadOptions())


@pytest.mark.parametrize("prefix", ["custom_obj_0", "opaque_obj_0"])
def test_pickled_constants_are_refused(program: Path, tmp_path: Path, prefix: str) -> None:
    def add(document: Any) -> None:
        document["config"]["c"] = {"path_name": prefix, "use_pickle": False}

    path = _changed_json(program, tmp_path / "evil.pt2", "constants_config.json", add)
    with pytest.raises(SourceError, match=prefix):
        open_exported_program(path, LoadOptions())


def _nodes(document: Any) -> Any:
    return document["graph_module"]["graph"]["nodes"]


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system",
        "torch.ops.aten.__class__.mro",
        "torch.hub.load",
        "_operator.methodcaller",
        "math.os",
        "#extension",
        "builtins.eval",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save",
        "torch.ops.image.write_file.default",
        "torch.ops.debugprims.load_tensor.default",
    ],
)
def test_calls_that_are_no_ops_are_refused(program: Path, tmp_path: Path, target: str) -> None:
    path = _changed_json(
        program,
        tmp_path / "evil.pt2",
        "model.json",
        lambda document: _nodes(document)[0].update(target=target),
    )
    with pytest.raises(SourceError, match="which no network for images needs") as caught:
        open_exported_program(path, LoadOptions())
    assert target in str(caught.value)


def test_names_that_are_code_are_refused(program: Path, tmp_path: Path) -> None:
    def rename(document: Any) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"] = ["x=print(1)"]

    path = _changed_json(program, tmp_path / "evil.pt2", "model.json", rename)
    with pytest.raises(SourceError, match="a value called 'x=print"):
        open_exported_program(path, LoadOptions())


def test_expressions_that_are_code_are_not_evaluated(program: Path, tmp_path: Path) -> None:
    path = _changed_json(
        program,
        tmp_path / "evil.pt2",
        "model.json",
        lambda document: document.update(extra={"expr_str": "__import__('os').getcwd()"}),
    )
    with pytest.raises(UnsupportedModelError, match="static shapes"):
        open_exported_program(path, LoadOptions())


def test_guards_are_not_run(program: Path, tmp_path: Path) -> None:
    created = tmp_path / "created"
    guard = f"__import__('pathlib').Path({str(created)!r}).touch() is None"
    path = _changed_json(
        program,
        tmp_path / "evil.pt2",
        "model.json",
        lambda document: document.update(guards_code=[guard]),
    )
    source = open_exported_program(path, LoadOptions())
    source.program.module()(torch.zeros(INPUT_SHAPE))  # type: ignore[operator]
    assert not created.exists()


def test_native_code_and_members_of_one_name_are_refused(program: Path, tmp_path: Path) -> None:
    native = tmp_path / "native.pt2"
    native.write_bytes(program.read_bytes())
    with zipfile.ZipFile(native, "a") as archive:
        archive.writestr("tiny/data/aotinductor/model/a.so", b"")
    with pytest.raises(SourceError, match="compiled code"):
        open_exported_program(native, LoadOptions())
    twice = tmp_path / "twice.pt2"
    twice.write_bytes(program.read_bytes())
    with zipfile.ZipFile(twice, "a") as archive:
        archive.writestr(archive.namelist()[0].upper(), b"")
    with pytest.raises(SourceError, match="two members of one name"):
        open_exported_program(twice, LoadOptions())


def test_a_document_that_is_no_json_is_damage(program: Path, tmp_path: Path) -> None:
    path = _changed(
        program, tmp_path / "bad.pt2", lambda n, d: d[:-9] if n.endswith("model.json") else d
    )
    with pytest.raises(SourceError, match="is damaged"):
        open_exported_program(path, LoadOptions())


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before = dict(os.environ)
    with weights_only_enforced():
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    assert dict(os.environ) == before
