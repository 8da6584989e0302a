"""Writes docs/families.md and docs/families_targets.md: every trained checkpoint, as measured here.

python docs/make_families.py             all of examples/checkpoints
python docs/make_families.py --missing   only those whose file is not on a page as it is now
python docs/make_families.py ghostnet    these again, all others as they are on the pages
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from deploykit import load
from deploykit.bundle import Bundle, BundleArtifact
from deploykit.files import sha256_of, write_atomically
from deploykit.flow.convert import convert
from deploykit.flow.evaluate import evaluate
from deploykit.flow.plan import ALL_TARGETS, ConvertRequest
from deploykit.report.figures import as_decibels
from deploykit.report.verdict_table import format_conversion_error, format_least
from deploykit.verdict import AccuracyTable
from deploykit_zoo.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "checkpoints"
SAMPLE = ROOT / "examples" / "fashion_mnist_sample.npz"

_TFLITE = """\
# The families, trained and converted

Every checkpoint of `examples/checkpoints/`, trained on Fashion-MNIST by `deploykit zoo train --all
--out examples/checkpoints` and converted by `deploykit convert FILE --fp32 --fp16 --w8 --int8`.
Written by `python docs/make_families.py`. A family of `deploykit zoo list` that is not in the
table has no committed checkpoint yet. On every target:
[families_targets.md](families_targets.md).

- **top-1, test**: of the stored weights in torch, on the 10,000 test images.
- **top-1, sample**: of the artefact on `litert`, on the 1,000 images of
  `examples/fashion_mnist_sample.npz`; the row `reference` is the checkpoint in torch on the same.
- **SNR**: of the artefact against the float reference on golden inputs, the worse of `litert` and
  `litert-reference`.
- **verdict**: of both, on every check that `convert` makes.

"""
_EVERY_TARGET = """\
# The families on every target

Every checkpoint of `examples/checkpoints/`, converted by `deploykit convert FILE --to all --fp32
--int8 --method minmax`: one source, one calibration, every target, every runner that is here.
Written by `python docs/make_families.py`; in more precisions for TFLite:
[families.md](families.md). int8 is by plain ranges here, so that targets and runners are compared
and not methods.

- **conversion error**: the check of `convert` that is nearest to its limit, which stands behind it.
  `layers`: the layer that is furthest off by itself, given what the file computed before it; in
  steps of its scale (LSB), or over its range where the runtime computes in floats
  ([targets.md](targets.md) names the runners).
- **SNR**: against the float reference on golden inputs.
- **top-1**: of the file on that runner, on the 1,000 images of
  `examples/fashion_mnist_sample.npz`; the row `reference` is the checkpoint in torch on the same.
- **verdict**: on every check that `convert` makes, with the default limits.

Rows of ncnn without `ncnn-default` beside them were measured before it verified unasked, and those
in int8 with `--option ncnn.depthwise=int8`, which was the default then.

"""

Key = tuple[str, str]
Rows = Callable[[Path, Bundle, AccuracyTable], list[str]]


@dataclass(frozen=True)
class Page:
    """One page: what is asked of `convert`, and what is written of it.

    Attributes:
        file: Where.
        head: What stands above the table.
        columns: The table's header.
        request: What is made of each checkpoint.
        every_runner: Whether accuracy is measured on every runner, or on the first of a target.
        rows: Checkpoint, bundle and accuracy → the lines of one family.
    """

    file: Path
    head: str
    columns: str
    request: ConvertRequest
    every_runner: bool
    rows: Rows

    def measure(self, path: Path) -> list[str]:
        """The rows of one checkpoint: convert it, measure its accuracy."""
        with tempfile.TemporaryDirectory() as folder:
            bundle = convert(load(path), replace(self.request, out=Path(folder) / "b")).bundle
            verdicts = [v for a in bundle.artifacts for v in a.verdicts]
            runners = sorted({v.runner_name for v in verdicts}) if self.every_runner else []
            table = evaluate(Path(folder) / "b", SAMPLE, source=str(path), runners=runners)
        return self.rows(path, bundle, table)

    def committed_rows(self) -> dict[Key, list[str]]:
        """(family, short hash) → its rows on the page as it is; none if there is no page."""
        found: dict[Key, list[str]] = {}
        if self.file.exists():
            for line in self.file.read_text(encoding="utf-8").splitlines():
                cells = [cell.strip() for cell in line.split("|")]
                if len(cells) == self.columns.count("|") + 1 and cells[2].startswith("`"):
                    found.setdefault((cells[1], cells[2]), []).append(line)
        return found

    def write(self, rows: dict[Key, list[str]]) -> None:
        """The page with these rows, those of files that are gone left out."""
        lines = [line for key in current_keys() for line in rows.get(key, [])]
        rule = f"|{'---|' * (self.columns.count('|') - 1)}"
        table = "\n".join([self.columns, rule, *lines])
        write_atomically(self.file, (self.head + table + "\n").encode())


def _tflite_rows(path: Path, bundle: Bundle, table: AccuracyTable) -> list[str]:
    stored = read_checkpoint(path).metrics["top1"]
    start = f"| {path.stem} | {_short_hash(path)} |"
    reference, *rows = table.rows
    size = path.stat().st_size
    lines = [f"{start} reference | {size:,} | {stored:.2%} | {reference.top1:.1%} | | |"]
    top1 = {row.precision: row.top1 for row in rows}
    for artifact in bundle.artifacts:
        passed = all(v.passed for v in artifact.verdicts) and bool(artifact.verdicts)
        lines.append(
            f"{start} {artifact.precision} | {artifact.bytes:,} | | "
            f"{top1[artifact.precision]:.1%} | {_snr(artifact)} | {'pass' if passed else 'FAIL'} |"
        )
    return lines


def _target_rows(path: Path, bundle: Bundle, table: AccuracyTable) -> list[str]:
    start = f"| {path.stem} | {_short_hash(path)} |"
    reference, *rows = table.rows
    size = path.stat().st_size
    lines = [f"{start} reference | | torch | {size:,} | | | {reference.top1:.1%} | |"]
    top1 = {(row.what, row.runner): row.top1 for row in rows}
    for artifact in bundle.artifacts:
        for verdict in artifact.verdicts:
            snr = format_least(verdict, "snr_db", as_decibels)
            outcome = verdict.outcome if verdict.passed else verdict.outcome.upper()
            lines.append(
                f"{start} {artifact.target} | {artifact.precision} | {verdict.runner_name} | "
                f"{artifact.bytes:,} | {format_conversion_error(verdict, output=False)} | "
                f"{snr} dB | "
                f"{top1[artifact.path, verdict.runner_name]:.1%} | {outcome} |"
            )
    return lines


PAGES = (
    Page(
        ROOT / "docs" / "families.md",
        _TFLITE,
        "| family | file | precision | bytes | top-1, test | top-1, sample | SNR | verdict |",
        ConvertRequest(precisions=("fp32", "fp16", "w8", "int8")),
        every_runner=False,
        rows=_tflite_rows,
    ),
    Page(
        ROOT / "docs" / "families_targets.md",
        _EVERY_TARGET,
        "| family | file | target | precision | runner | bytes | conversion error | SNR | top-1 "
        "| verdict |",
        ConvertRequest(targets=(ALL_TARGETS,), precisions=("fp32", "int8"), method="minmax"),
        every_runner=True,
        rows=_target_rows,
    ),
)


def current_keys() -> list[Key]:
    """(family, short hash) of each checkpoint, in order of the family."""
    return [(path.stem, _short_hash(path)) for path in sorted(FOLDER.glob("*.pt"))]


def _short_hash(path: Path) -> str:
    return f"`{sha256_of(path)[:12]}`"


def _snr(artifact: BundleArtifact) -> str:
    figures = [
        check.measured
        for verdict in artifact.verdicts
        for check in verdict.checks
        if check.metric == "snr_db"
    ]
    return f"{min(figures):.1f} dB" if figures else "-"


def main() -> None:
    """Write both pages, family by family: what was measured stays if the run is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true", help="keep rows of unchanged files")
    parser.add_argument("families", nargs="*", help="measure these again, and no other")
    args = parser.parse_args()
    keys = current_keys()
    if unknown := set(args.families) - {family for family, _ in keys}:
        parser.error(f"no checkpoint is called {', '.join(sorted(unknown))}")
    for page in PAGES:
        before = page.committed_rows()
        kept = before if args.missing or args.families else {}
        rows = {key: lines for key, lines in kept.items() if key[0] not in args.families}
        for key in keys:
            if key not in rows and key[0] in (args.families or [key[0]]):
                rows[key] = page.measure(FOLDER / f"{key[0]}.pt")
                print("\n".join(rows[key]), flush=True)
                page.write({**before, **rows})
        page.write(rows)


if __name__ == "__main__":
    main()
