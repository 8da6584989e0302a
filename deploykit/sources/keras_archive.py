"""What a .keras file would run when it is loaded, from its ``config.json`` alone.

The file is a zip archive: ``metadata.json``, ``config.json`` (the layers, each by module, class and
arguments) and ``model.weights.h5``. Keras builds the layers by importing what the config names; the
config may name anything, or bring Python bytecode of its own (a lambda). Only the text is read
here, and nothing is imported.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError
from deploykit.json_file import parse_json

# RuntimeError: a member is encrypted.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
CONFIG, WEIGHTS = "config.json", "model.weights.h5"

# Keras' own packages of layers and of what their arguments name; `keras.utils` and `keras.saving`
# have functions that read files and fetch addresses, and no layer.
_KNOWN_PACKAGES = frozenset(
    {
        *("activations", "constraints", "dtype_policies", "initializers", "layers", "losses"),
        *("metrics", "models", "ops", "optimizers", "quantizers", "regularizers"),
    }
)
_PLAIN_DATA = frozenset(
    {
        *("__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"),
    }
)
# Layers whose arguments are code, or lead to a file with code in it.
_CODE_LAYERS = frozenset({"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"})
_TOP_LEVEL = frozenset(
    {"DTypePolicy", "FloatDTypePolicy", "Functional", "Model", "QuantizedDTypePolicy", "Sequential"}
)


def check_keras_archive(path: Path) -> None:
    """Refuse a .keras file that brings code, or refers to code that is not Keras' own.

    Raises:
        SourceError: it does, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = parse_json(archive.read(CONFIG))
    except (*_DAMAGED, KeyError, ValueError, OSError) as error:
        raise SourceError(
            f"{path} is a damaged Keras model: {error}", advice="get the file again"
        ) from error
    found = list(dict.fromkeys(_foreign_objects(config)))
    if not found:
        return
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    raise SourceError(
        f"{path} is a Keras model that refers to code ({', '.join(found[:4])}{more}); loading it "
        "would run that code, so it was not loaded",
        expected="Keras' own layers only",
        advice="one of these, where the model was made:\n"
        "      model.export(FOLDER), a SavedModel: a graph, without Python code\n"
        "    or --trust-code, if you made the file yourself (run from the folder that holds the "
        "code)",
    )


def _foreign_objects(config: Any) -> Iterator[str]:
    """In words, everything in a config that is not one of Keras' own objects."""
    if isinstance(config, list):
        for item in config:
            yield from _foreign_objects(item)
    if not isinstance(config, dict):
        return
    if "class_name" in config:
        reason = _why_foreign(config)
        if reason:
            yield reason
    for key, value in config.items():
        if key != "compile_config":  # the optimizer and the losses are never loaded
            yield from _foreign_objects(value)


def _why_foreign(config: dict[str, Any]) -> str:
    name, module = str(config["class_name"]), config.get("module")
    if name in _PLAIN_DATA:
        return ""
    if name in _CODE_LAYERS:
        return f"a layer {name}"
    if name == "__lambda__":
        return "a lambda"
    if module is None:
        # Without a module, Keras looks the name up among what the user has registered. Old files
        # have no field "module" at all, and mean Keras' own.
        return f"'{config.get('registered_name') or name}'" if "module" in config else ""
    if module == "keras" and name in _TOP_LEVEL:
        return ""
    parts = str(module).removeprefix("keras.src.").removeprefix("keras.").split(".")
    if str(module).startswith("keras.") and parts[0] in _KNOWN_PACKAGES:
        return ""
    if module == "builtins" and name == "function":
        return f"a function '{config.get('config')}'"
    return f"'{module}.{name}'"
