"""Which networks of timm and torchvision each target carries: one of every model file, by code.

    python benchmarks/coverage.py [--only PATTERN ...] [--int8] [--again] [--write]
                                  [--most 12] [--seconds 240] [--rows build/coverage.jsonl]

The smallest variant of each model file below `--most` million parameters is built with random
weights, its BatchNorm statistics are gathered on random images, and it is converted to every target
in float32 (and int8), each network in a process of its own with a time limit. Rows are kept in
`--rows`, so that an interrupted run goes on; `--again` measures again. `--write` puts the table
into docs/measured/coverage.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.files import write_atomically

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "measured" / "coverage.md"
TARGETS = ("tflite", "coreml", "ncnn", "onnx")
#: Made for timm's own tests, or to give no image classes.
_NO_CANDIDATES = ("test_*", "*sam_*", "*mae*")
_HEAD = """\
# Coverage

Written by `python benchmarks/coverage.py --write`: of every model file of timm {timm} and
torchvision {torchvision} the smallest variant below {most} M parameters, random weights, BatchNorm
statistics of random images. `pass` and `warn` are verdicts of every runner of the target that is
here; `refused` wrote no file and said why. A row is of when its network was measured, beside other
work (`more than N s` says no more than that); `--again` measures anew.

"""


def candidates(most: float) -> list[str]:
    """``timm/NAME`` and ``torchvision/NAME``, the smallest variant of every model file."""
    import timm
    import torchvision

    found = []
    for module in timm.list_modules():
        found += _smallest("timm", timm.list_models(module=module), most)
    names = torchvision.models.list_models(torchvision.models)
    files: dict[str, list[str]] = {}
    for name in names:
        file = torchvision.models.get_model_builder(name).__module__
        files.setdefault(file, []).append(name)
    for members in files.values():
        found += _smallest("torchvision", members, most)
    return found


def _smallest(library: str, names: list[str], most: float) -> list[str]:
    sizes = {}
    for name in names:
        if any(fnmatch.fnmatch(name, pattern) for pattern in _NO_CANDIDATES):
            continue
        try:
            sizes[name] = _parameters(library, name)
        except Exception as error:  # what cannot be built without data is no candidate
            print(f"{library}/{name}: {type(error).__name__}: {error}", file=sys.stderr)
    small = [name for name in sizes if sizes[name] <= most * 1e6]
    return [f"{library}/{min(small, key=lambda name: (sizes[name], name))}"] if small else []


def _parameters(library: str, name: str) -> int:
    import torch

    with torch.device("meta"):
        return sum(p.numel() for p in build(f"{library}/{name}").parameters())


def build(name: str) -> torch.nn.Module:
    """The network, random weights."""
    import timm
    import torchvision

    library, _, variant = name.partition("/")
    if library == "timm":
        return timm.create_model(variant, pretrained=False)
    keywords: dict[str, Any] = {"weights": None}
    if variant in ("googlenet", "inception_v3"):
        keywords |= {"aux_logits": False, "init_weights": False}
    module: torch.nn.Module = torchvision.models.get_model(variant, **keywords)
    return module


def input_shape(network: torch.nn.Module) -> tuple[int, int, int]:
    """Channels, height, width that it was made for."""
    configuration = getattr(network, "default_cfg", None) or {}
    return tuple(configuration.get("input_size") or (3, 224, 224))  # type: ignore[return-value]


def gather_statistics(network: torch.nn.Module, shape: tuple[int, int, int]) -> None:
    """BatchNorm's means and variances, over 32 smooth random images."""
    import torch

    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
        elif not list(module.children()):
            module.eval()
    with torch.no_grad():
        for _ in range(4):
            network(smooth_images(8, shape))
    network.eval()


def smooth_images(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Random images in which neighbours are alike, of mean 0 and deviation 1."""
    import torch

    coarse = torch.randn(count, shape[0], 14, 14)
    images = torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic")
    return images / images.std()


def measure(name: str, precisions: tuple[str, ...]) -> dict[str, Any]:
    """The row of one network: TARGET.PRECISION → outcome and why."""
    import torch

    from deploykit import ConvertRequest, DeploykitError, convert, load

    torch.manual_seed(0)
    network = build(name)
    shape = input_shape(network)
    gather_statistics(network, shape)
    start = time.process_time()
    row: dict[str, Any] = {"name": name, "shape": shape, "results": {}}
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = load(network, example_input=torch.zeros(1, *shape), name="network")
            images = [{model.inputs[0].name: image} for image in smooth_images(16, shape).numpy()]
            request = ConvertRequest(
                targets=TARGETS,
                precisions=precisions,
                calibration=images if "int8" in precisions else None,
                out=Path(folder) / "bundle",
                timeout_s=240,
            )
            report = convert(model, request).report
        except DeploykitError as error:
            return row | {"error": f"{type(error).__name__}: {error}"}
    for verdict in report.verdicts:
        key = f"{verdict.target}.{verdict.precision}"
        found = row["results"].setdefault(key, {"outcome": "pass", "why": ""})
        if not verdict.passed or (verdict.outcome != "pass" and found["outcome"] == "pass"):
            failed = [
                f"{c.value}: {c.metric} {c.measured:.3g}" for c in verdict.checks if not c.passed
            ]
            why = str(verdict.error or "; ".join(failed))
            found |= {"outcome": verdict.outcome, "why": f"{verdict.runner_name}: {why}"}
    for skipped in report.skipped:
        key = f"{skipped.target}.{skipped.precision}"
        row["results"][key] = {"outcome": "refused", "why": skipped.reason}
    return row | {"cpu_s": round(time.process_time() - start, 1)}


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """Rows that were measured already; the newest of a network counts."""
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def run_apart(name: str, precisions: tuple[str, ...], seconds: int) -> dict[str, Any]:
    """`measure` in a process of its own."""
    words = [sys.executable, __file__, "--one", name, *(["--int8"] * ("int8" in precisions))]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"more than {seconds} s", "results": {}}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"name": name, "error": f"exit {done.returncode}: {last}", "results": {}}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(rows: list[dict[str, Any]], precisions: tuple[str, ...]) -> str:
    """The page's table, and counts by target."""
    keys = [f"{target}.{precision}" for precision in precisions for target in TARGETS]
    lines = [f"| network | {' | '.join(keys)} | why not |", f"|{'---|' * (len(keys) + 2)}"]
    counts: Counter[str] = Counter()
    for row in rows:
        cells, reasons = [], []
        for key in keys:
            found = row["results"].get(key, {"outcome": "none", "why": row.get("error", "")})
            counts[key] += found["outcome"] in ("pass", "warn")
            cells.append(found["outcome"])
            if found["outcome"] not in ("pass", "warn"):
                reasons.append(" ".join(str(found["why"]).split())[:160])
        why = "; ".join(dict.fromkeys(reasons)).replace("|", "/")
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {why} |")
    total = f"of {len(rows)}: " + ", ".join(f"{key} {counts[key]}" for key in keys)
    return "\n".join([total, "", *lines])


def main() -> None:
    """Measure what is missing, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--most", type=float, default=12.0, help="million parameters")
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--rows", type=Path, default=ROOT / "build" / "coverage.jsonl")
    asked = parser.parse_args()
    precisions = ("fp32", "int8") if asked.int8 else ("fp32",)
    if asked.one:
        print(json.dumps(measure(asked.one, precisions)))
        return
    known = {row["name"]: row for row in rows_of(asked.rows)}
    asked.rows.parent.mkdir(parents=True, exist_ok=True)
    names = candidates(asked.most)
    for name in names:
        chosen = any(fnmatch.fnmatch(name, pattern) for pattern in asked.only)
        if not chosen or (name in known and not asked.again):
            continue
        known[name] = run_apart(name, precisions, asked.seconds)
        with asked.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(known[name]) + "\n")
        outcomes = {key: value["outcome"] for key, value in known[name]["results"].items()}
        print(name, outcomes or known[name].get("error"), flush=True)
    text = table([known[name] for name in names if name in known], precisions)
    print(text.splitlines()[0])
    if asked.write:
        import timm
        import torchvision

        head = _HEAD.format(
            timm=timm.__version__, torchvision=torchvision.__version__, most=f"{asked.most:g}"
        )
        write_atomically(PAGE, (head + text + "\n").encode())


if __name__ == "__main__":
    main()
