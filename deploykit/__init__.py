"""deploykit takes a trained compact vision model to the phone, and proves that nothing was lost.

    import deploykit

    model = deploykit.load("ghostnet.pt")
    result = deploykit.convert(model, to="tflite", int8=True, calibration="photos", out="ghostnet")
    print(result.report.passed)

The names below are the public API; each is imported when it is first used, so that importing
deploykit itself is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from deploykit.version import __version__

_PUBLIC = {
    "Bundle": "deploykit.bundle",
    "CalibrationTable": "deploykit.calibration.table",
    "ConversionResult": "deploykit.flow.result",
    "ConvertRequest": "deploykit.flow.plan",
    "DeploykitError": "deploykit.errors",
    "LoadOptions": "deploykit.sources.options",
    "Model": "deploykit.model",
    "Precision": "deploykit.model",
    "Preprocess": "deploykit.preprocess",
    "Report": "deploykit.verdict",
    "Stage": "deploykit.model",
    "RunnerSpec": "deploykit.runners.base",
    "convert": "deploykit.flow.call",
    "evaluate": "deploykit.flow.call",
    "inspect_file": "deploykit.flow.call",
    "lint_model": "deploykit.lint.lint_model",
    "load": "deploykit.flow.call",
    "open_runner": "deploykit.runners.process",
    "profile_model": "deploykit.cost.profile",
    "run": "deploykit.flow.call",
    "verify": "deploykit.flow.call",
}

if TYPE_CHECKING:
    from deploykit.bundle import Bundle
    from deploykit.calibration.table import CalibrationTable
    from deploykit.cost.profile import profile_model
    from deploykit.errors import DeploykitError
    from deploykit.flow.call import convert, evaluate, inspect_file, load, run, verify
    from deploykit.flow.plan import ConvertRequest
    from deploykit.flow.result import ConversionResult
    from deploykit.lint.lint_model import lint_model
    from deploykit.model import Model, Precision, Stage
    from deploykit.preprocess import Preprocess
    from deploykit.runners.base import RunnerSpec
    from deploykit.runners.process import open_runner
    from deploykit.sources.options import LoadOptions
    from deploykit.verdict import Report

__all__ = [
    "Bundle",
    "CalibrationTable",
    "ConversionResult",
    "ConvertRequest",
    "DeploykitError",
    "LoadOptions",
    "Model",
    "Precision",
    "Preprocess",
    "Report",
    "RunnerSpec",
    "Stage",
    "__version__",
    "convert",
    "evaluate",
    "inspect_file",
    "lint_model",
    "load",
    "open_runner",
    "profile_model",
    "run",
    "verify",
]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'deploykit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
