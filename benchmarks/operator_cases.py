"""Every operator case that the onnx package ships, through every target, against its own answer.

    python benchmarks/operator_cases.py [--only NAME] [--write]

ONNX's backend tests hold a model of one operator, inputs, and the outputs that the standard gives.
Each is converted as fp32 by every target, run on every runner of it that is here, and compared with
those outputs. A case with several inputs is tried twice: as it is, and with all but its first input
made constant, which is how weights, bounds and indices stand in a trained network. What comes out:

    right       the outputs are those of the standard (1e-3 of their range, as the standard allows)
    as ORT      they are not, but those of ONNX Runtime on the very case
    refused     exit code 3 or 2, with a reason
    wrong       other outputs, other shapes, or NaN where there is none
    unreadable  the target's own runtime does not load or run the file
    traceback   an error that is not one of deploykit's own

The last three are defects. `--write` writes docs/measured/operator_cases.md. Cases run in a child
process, so that a runtime that crashes or hangs is one of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = Path(__file__).parent.parent / "docs" / "measured" / "operator_cases.md"
TARGETS = ("tflite", "coreml", "ncnn", "onnx")
AS_ORT = "as ORT"
DEFECTS = ("wrong", "unreadable", "traceback", "crashed")
_TOLERANCE = 1e-3
_LIMIT_S = 120.0

Array = npt.NDArray[Any]
Row = dict[str, str]


def cases(only: str) -> Iterator[tuple[str, Any, list[Array], list[Array]]]:
    """Name, model, inputs and outputs of every case and of its form with constants."""
    import onnx
    from onnx.backend.test.case.node import collect_testcases

    with np.errstate(all="ignore"):
        found = collect_testcases("")
    for case in found:
        if only not in case.name or not case.data_sets:
            continue
        inputs, outputs = case.data_sets[0]
        plain = all(isinstance(a, np.ndarray | np.generic) for a in (*inputs, *outputs))
        if not plain or any(np.asarray(a).dtype == object for a in (*inputs, *outputs)):
            continue
        given = [np.asarray(a) for a in inputs]
        wanted = [np.asarray(a) for a in outputs]
        yield case.name, case.model, given, wanted
        if len(given) > 1:
            model = onnx.ModelProto()
            model.CopyFrom(case.model)
            names = [v.name for v in model.graph.input]
            for name, array in zip(names[1:], given[1:], strict=True):
                model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            del model.graph.input[1:]
            yield f"{case.name} (constants)", model, given[:1], wanted


def run_case(name: str, model: Any, inputs: Sequence[Array], wanted: Sequence[Array]) -> list[Row]:
    """What every target makes of one case."""
    import onnx

    from deploykit import load
    from deploykit.errors import DeploykitError
    from deploykit.model import Precision, Stage
    from deploykit.passes.pipeline import advance
    from deploykit.target import ArtifactRequest, find_target

    def row(target: str, outcome: str, why: str = "") -> Row:
        return {"case": name, "target": target, "outcome": outcome, "why": why}

    with tempfile.TemporaryDirectory(prefix="operator-case-") as text:
        folder = Path(text)
        onnx.save(model, folder / "case.onnx")
        try:
            fused = advance(load(folder / "case.onnx"), Stage.FUSED)
            names = [v.name for v in fused.inputs]
            given = dict(zip(names, inputs, strict=True))
            expected = dict(zip([v.name for v in fused.outputs], wanted, strict=True))
        except DeploykitError as error:
            return [row("all", "refused", _reason(error))]
        except Exception as error:
            return [row("all", "traceback", f"{type(error).__name__}: {error}")]
        rows = []
        for target_name in TARGETS:
            target = find_target(target_name)
            try:
                artifact = target.write(fused, ArtifactRequest(Precision.FP32))
            except DeploykitError as error:
                rows.append(row(target_name, "refused", _reason(error)))
                continue
            except Exception as error:
                rows.append(row(target_name, "traceback", f"{type(error).__name__}: {error}"))
                continue
            for path, data in artifact.files("case").items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
            outcome, why = _outcome(target, artifact, folder, given, expected)
            if outcome == "wrong" and (other := _onnxruntime(folder / "case.onnx", inputs)):
                theirs = dict(zip(expected, other, strict=True))
                if _outcome(target, artifact, folder, given, theirs)[0] == "right":
                    outcome = AS_ORT
            rows.append(row(target_name, outcome, why))
        return rows


def _outcome(
    target: Any,
    artifact: Any,
    folder: Path,
    given: Mapping[str, Array],
    expected: Mapping[str, Array],
) -> tuple[str, str]:
    from deploykit.runners.registry import available_runners

    for runner in available_runners(target.runners):
        path = runner.file_to_run("case" + artifact.suffix, list(artifact.files("case")))
        if not path or runner.on_request or runner.environment:
            continue
        module, _, name = runner.backend.partition(":")
        try:
            backend = getattr(import_module(module), name)(
                str(folder / path), {**runner.options, "threads": 1}
            )
            arrays = {s.runtime_name: s.encode(given[s.name]) for s in artifact.inputs}
            results = backend.run(arrays)
        except Exception as error:
            return "unreadable", f"{runner.name}: {type(error).__name__}: {error}"
        for spec in artifact.outputs:
            if spec.runtime_name not in results:
                return "wrong", f"{runner.name}: no output {spec.name}"
            why = _difference(spec.decode(results[spec.runtime_name]), expected[spec.name])
            if why:
                return "wrong", f"{runner.name}: {spec.name}: {why}"
    return "right", ""


def _onnxruntime(path: Path, inputs: Sequence[Array]) -> list[Array]:
    """What ONNX Runtime gives for the case as it came; empty if it does not run it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        names = [v.name for v in session.get_inputs()]
        return list(session.run(None, dict(zip(names, inputs, strict=True))))
    except Exception:
        return []


def _difference(actual: Array, expected: Array) -> str:
    if actual.shape != expected.shape:
        return f"shape {actual.shape} for {expected.shape}"
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)
    if not np.array_equal(a[~finite], e[~finite], equal_nan=True):
        return "other elements are NaN or infinite"
    if not finite.any():
        return ""
    width = float(np.ptp(e[finite])) or float(np.abs(e[finite]).max()) or 1.0
    error = float(np.abs(a[finite] - e[finite]).max()) / width
    return "" if error <= _TOLERANCE else f"off by {error:.1e} of its range"


def _reason(error: Any) -> str:
    ops = getattr(error, "ops", ())
    if ops:
        return "; ".join(dict.fromkeys(f"{op.op_type}: {op.reason}" for op in ops))
    return str(error.found).splitlines()[0]


def work(only: str, start: int) -> None:
    """The child: one line of JSON for each case begun, and one for each result."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    np.seterr(all="ignore")
    for index, (name, model, inputs, wanted) in enumerate(cases(only)):
        if index < start:
            continue
        out.write(json.dumps({"begin": index, "case": name}) + "\n")
        for row in run_case(name, model, inputs, wanted):
            out.write(json.dumps(row) + "\n")
    out.write(json.dumps({"done": True}) + "\n")


def run_all(only: str) -> list[Row]:
    """Every case, in child processes that are started anew where one dies or hangs."""
    rows: list[Row] = []
    start, done = 0, False
    while not done:
        command = [sys.executable, __file__, "--only", only, "--work", str(start)]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        current = ""
        assert child.stdout is not None
        timer = Timer(_LIMIT_S, child.kill)
        timer.start()
        for line in child.stdout:
            entry = json.loads(line)
            if "begin" in entry:
                timer.cancel()
                timer = Timer(_LIMIT_S, child.kill)
                timer.start()
                start, current = entry["begin"] + 1, entry["case"]
                if start % 50 == 1:
                    print(f"{start}: {current}", file=sys.stderr, flush=True)
            elif "done" in entry:
                done = True
            else:
                rows.append(entry)
                if entry["outcome"] in DEFECTS:
                    print(entry, file=sys.stderr, flush=True)
        timer.cancel()
        code = child.wait()
        if not done and not current:
            raise SystemExit(f"the child ended with {code} before its first case")
        if not done:
            rows.append(
                {"case": current, "target": "all", "outcome": "crashed", "why": f"exit {code}"}
            )
    return rows


_ABOUT = (
    "Written by `python benchmarks/operator_cases.py --write`: {cases} cases and forms with "
    "constants of onnx {version} as fp32, each output held against the standard's own (1e-3 of its "
    "range). Cases on sequences, strings and optional values are not among them."
)
_VARIES = re.compile(r"'[^']*'|\(?-?\d[\d., x-]*\)?|\[[^\]]*\]")


def page(rows: Sequence[Row]) -> str:
    """The page: counts by target, defects one by one, refusals grouped by reason."""
    import onnx

    names = {row["case"] for row in rows}
    lines = [
        "# Operator cases of the onnx package",
        "",
        _ABOUT.format(cases=len(names), version=onnx.__version__),
        "",
        "| target | right | as ORT | refused | " + " | ".join(DEFECTS) + " |",
        "|---|---|---|---|" + "---|" * len(DEFECTS),
    ]
    shared = Counter(row["outcome"] for row in rows if row["target"] == "all")
    for target in TARGETS:
        counts = Counter(r["outcome"] for r in rows if r["target"] == target) + shared
        figures = [counts[o] for o in ("right", AS_ORT, "refused", *DEFECTS)]
        lines.append(f"| {target} | " + " | ".join(map(str, figures)) + " |")
    defects = [row for row in rows if row["outcome"] in DEFECTS]
    lines += ["", "## Defects", ""]
    lines += [f"- {r['target']} {r['outcome']}: {r['case']}: {r['why'][:300]}" for r in defects]
    lines += [] if defects else ["None."]
    grouped: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row["outcome"] == "refused":
            reason = _VARIES.sub("…", row["why"]).replace("|", "\\|").replace("\n", " ")
            grouped[reason][row["target"]].add(row["case"])
    lines += [
        "",
        "## Refusals, by reason",
        "",
        "| cases | targets | reason | e.g. |",
        "|---|---|---|---|",
    ]
    order = sorted(grouped.items(), key=lambda i: (-max(map(len, i[1].values())), i[0]))
    for reason, by_target in order:
        count = max(map(len, by_target.values()))
        example = min(min(v) for v in by_target.values())
        lines.append(f"| {count} | {', '.join(by_target)} | {reason[:160]} | {example} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, print the counts and defects; exit code 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--work", type=int, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        work(args.only, args.work)
        return 0
    rows = run_all(args.only)
    text = page(rows)
    if args.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    print(text.partition("## Refusals")[0])
    return 1 if any(row["outcome"] in DEFECTS for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
