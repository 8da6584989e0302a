"""An error as JSON: what ``--json`` prints where there is no report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from deploykit.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, DeploykitError, UnsupportedOpsError

SCHEMA = "deploykit.error/1"


def error_to_json(error: BaseException) -> str:
    """The error as text.

    ``{"schema", "passed": false, "exit_code", "error": {"type", "message", "found", "expected",
    "advice", "ops"}}``: ``message`` is the whole text that standard error shows, ``ops`` lists
    every node that a target cannot lower, and is empty for any other error. An exception that is
    no `DeploykitError` (a defect of ours) has the exit code 70.
    """
    found, expected, advice, code = str(error), "", "", EXIT_INTERNAL
    if isinstance(error, DeploykitError):
        found, expected, advice = error.found, error.expected, error.advice
        code = error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    ops = error.ops if isinstance(error, UnsupportedOpsError) else ()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "passed": False,
        "exit_code": code,
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "found": found,
            "expected": expected,
            "advice": advice,
            "ops": [asdict(op) for op in ops],
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
