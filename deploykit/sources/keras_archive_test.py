from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deploykit.errors import SourceError
from deploykit.sources.keras_archive import CONFIG, WEIGHTS, check_keras_archive


def archive(path: Path, *layers: dict[str, Any], **extra: Any) -> Path:
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"layers": list(layers)},
        "registered_name": "Functional",
        **extra,
    }
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(CONFIG, json.dumps(config))
        file.writestr(WEIGHTS, b"weights")
    return path


def layer(name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": name}


KERAS_OWN = (
    layer(
        "Conv2D",
        dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}},
        kernel_initializer=layer("GlorotUniform", "keras.initializers"),
        activation="relu6",
    ),
    layer("Add", "keras.src.ops.numpy"),
    {"class_name": "__keras_tensor__", "config": {"shape": [None, 8, 8, 3]}},
    layer("Sequential", "keras", layers=[layer("Dense")]),
)


def test_keras_own_layers_are_let_through(tmp_path: Path) -> None:
    check_keras_archive(archive(tmp_path / "m.keras", *KERAS_OWN))


def test_what_only_training_needs_is_not_looked_at(tmp_path: Path) -> None:
    compiled = {"optimizer": layer("MyOptimizer", "my.training")}
    check_keras_archive(archive(tmp_path / "m.keras", compile_config=compiled))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (layer("Lambda"), "a layer Lambda"),
        ({"class_name": "__lambda__", "config": {"code": "4wEA"}}, "a lambda"),
        (layer("TFSMLayer", filepath="elsewhere"), "a layer TFSMLayer"),
        (layer("Mine", None), "'Mine'"),
        (layer("Mine", "my_package.layers"), "'my_package.layers.Mine'"),
        (layer("system", "os"), "'os.system'"),
        (layer("get_file", "keras.utils"), "'keras.utils.get_file'"),
        (layer("get_file", "keras.src.utils.file_utils"), "get_file"),
        (layer("load_model", "keras"), "'keras.load_model'"),
        (
            layer(
                "Activation",
                activation={"module": "builtins", "class_name": "function", "config": "f"},
            ),
            "a function 'f'",
        ),
        (layer("eval", "builtins"), "'builtins.eval'"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_leads_to_code_is_refused(
    tmp_path: Path, bad: dict[str, Any], words: str, nested: bool
) -> None:
    inside = layer("Sequential", "keras", layers=[{"arguments": [bad]}]) if nested else bad
    path = archive(tmp_path / "m.keras", *KERAS_OWN, inside)
    with pytest.raises(SourceError) as caught:
        check_keras_archive(path)
    assert words in str(caught.value)
    assert "--trust-code" in str(caught.value)
    assert "model.export(FOLDER)" in str(caught.value)


def test_damaged_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(CONFIG, "{ not json")
    with pytest.raises(SourceError, match="damaged"):
        check_keras_archive(path)
    path.write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(SourceError, match="damaged"):
        check_keras_archive(path)
