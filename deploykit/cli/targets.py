"""``deploykit targets``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from deploykit.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every target: precisions, options, runners, ops, and what is installed."""
    described = describe_targets()
    if args.json:
        print(json.dumps({"schema": "deploykit.targets/1", "targets": described}, indent=1))
    else:
        print("\n\n".join(_format_target(target) for target in described))
    return EXIT_OK


def describe_targets() -> list[dict[str, Any]]:
    """Every target as plain data, by name."""
    from deploykit.graph.ops import CANONICAL_OPS
    from deploykit.installation import why_not_installed
    from deploykit.runners.registry import why_unavailable
    from deploykit.target import (
        available_targets,
        default_precision_of,
        find_target,
        options_of,
    )

    described = []
    for name in available_targets():
        target = find_target(name)
        missing = why_not_installed(name)
        entry: dict[str, Any] = {
            "name": name,
            "precisions": [p.value for p in target.precisions],
            "default_precision": default_precision_of(target).value,
            "missing": missing,
            "options": [
                {
                    "name": f"{name}.{o.name}",
                    "values": o.format_values(),
                    "default": o.default,
                    "summary": o.summary,
                    "flag": o.flag,
                    "precisions": list(o.precisions),
                }
                for o in options_of(target)
            ],
            "runners": [
                {"name": r.name, "summary": r.description, "unavailable": why_unavailable(r)}
                for r in target.runners
            ],
        }
        if not missing:  # a lowering table may need the target's package
            table = target.lowerings()
            known = [(op.domain, op.op_type) for op in CANONICAL_OPS]
            entry["ops"] = [_op_name(key) for key in known if key in table.ops]
            entry["refused"] = {_op_name(key): why for key, why in sorted(table.refused.items())}
        described.append(entry)
    return described


def _op_name(key: tuple[str, str]) -> str:
    return f"{key[0]}::{key[1]}" if key[0] else key[1]


def _format_target(target: dict[str, Any]) -> str:
    state = f"not installed: {target['missing']}" if target["missing"] else "installed"
    default = target["default_precision"]
    precisions = ", ".join(f"{p} (default)" if p == default else p for p in target["precisions"])
    lines = [f"{target['name']}  ({precisions})  {state}"]
    for option in target["options"]:
        values = f"{option['name']}={option['values']}"
        values += f", or {option['flag']}" if option["flag"] else ""
        only = f"{', '.join(option['precisions'])}: " if option["precisions"] else ""
        lines.append(f"  option  {values} ({option['default']}): {only}{option['summary']}")
    for runner in target["runners"]:
        off = f"; not here: {runner['unavailable']}" if runner["unavailable"] else ""
        lines.append(f"  runner  {runner['name']}: {runner['summary']}{off}")
    if "ops" in target:
        lines.append(f"  ops     {len(target['ops'])} of the canonical set (docs/ops.md)")
        lines += [f"  refuses {op}: {why}" for op, why in target["refused"].items()]
    return "\n".join(lines)
