"""deploykit takes a trained compact vision model to the phone, and proves that nothing was lost.

    import deploykit

    source = deploykit.load("ghostnet.pt")
    result = deploykit.convert(source, deploykit.ConvertRequest(precisions=("int8",)))
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
    "ConversionResult": "deploykit.flow.convert",
    "ConvertRequest": "deploykit.flow.plan",
    "DeploykitError": "deploykit.errors",
    "LoadOptions": "deploykit.sources.options",
    "Model": "deploykit.model",
    "Precision": "deploykit.model",
    "Preprocess": "deploykit.preprocess",
    "Report": "deploykit.verdict",
    "Stage": "deploykit.model",
    "convert": "deploykit.flow.convert",
    "load": "deploykit.sources.load",
    "verify": "deploykit.flow.verify",
}

if TYPE_CHECKING:
    from deploykit.bundle import Bundle
    from deploykit.calibration.table import CalibrationTable
    from deploykit.errors import DeploykitError
    from deploykit.flow.convert import ConversionResult, convert
    from deploykit.flow.plan import ConvertRequest
    from deploykit.flow.verify import verify
    from deploykit.model import Model, Precision, Stage
    from deploykit.preprocess import Preprocess
    from deploykit.sources.load import load
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
    "Stage",
    "__version__",
    "convert",
    "load",
    "verify",
]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'deploykit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
