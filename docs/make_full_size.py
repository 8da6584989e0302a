"""Writes docs/full_size.md: every family at 224 x 224, in every precision, on both kernel sets.

python docs/make_full_size.py               all networks
python docs/make_full_size.py NAME ...      these; the rows of the others stay
python docs/make_full_size.py --missing     those without rows on the page
python docs/make_full_size.py --check       writes nothing; exit code 1 if a row's structure differs
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploykit import load
from deploykit.bundle import Bundle
from deploykit.files import write_atomically
from deploykit.flow.convert import convert
from deploykit.flow.plan import ConvertRequest
from deploykit.report.figures import as_decibels
from deploykit.report.verdict_table import format_conversion_error, format_least
from deploykit.verdict import Verdict
from deploykit_zoo.checkpoint import write_checkpoint
from deploykit_zoo.full_size import NETWORKS, full_size_checkpoint

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "full_size.md"
PRECISIONS = ("fp32", "fp16", "w8", "int8")
RUNNERS = ("litert", "litert-reference")
SAMPLES = 2

_HEAD = """\
# The families at full size

Ten networks at 224 x 224 and 1000 classes, converted in every precision and run on both kernel
sets of LiteRT. Their weights are random and nobody trained them; their BatchNorm statistics were
gathered over 16 images, which also calibrate int8 (`zoo/deploykit_zoo/full_size.py`). Trained
ones are in [families.md](families.md). Written by `python docs/make_full_size.py`; a test converts
them all and compares every row but for its two figures (`runtime_tests/test_full_size.py`).

- **ops**: operators in the file. An fp16 file has one more for each weight, which XNNPACK unpacks
  once, when it loads the file.
- **partitions**: of XNNPACK. The reference kernels have no delegate.
- **conversion error**: the check of `convert` that is nearest to its limit, which stands behind
  it. For int8 that of the layer that is furthest off by itself, in steps of its scale; else that
  of the output, over its range.
- **SNR**: of the output against torch, on 2 images. It tells precisions and quantizers apart, and
  nothing of accuracy: what is rounded grows in a network that was not trained.
- **verdict**: on every check that `convert` makes, with the default limits.

"""
COLUMNS = (
    "| network | precision | runner | ops | partitions | bytes | conversion error | SNR | verdict |"
)

Key = tuple[str, str, str]


def convert_network(name: str, folder: Path) -> Bundle:
    """A network of `NETWORKS`, from its checkpoint through the whole pipeline.

    Returns:
        The bundle, which is then in ``folder/bundle``; the checkpoint is ``folder/NAME.pt``.
    """
    path = folder / f"{name}.pt"
    write_checkpoint(path, full_size_checkpoint(name))
    request = ConvertRequest(precisions=PRECISIONS, samples=SAMPLES, out=folder / "bundle")
    return convert(load(path), request).bundle


def rows_of(name: str, bundle: Bundle) -> list[str]:
    """One row for each precision and runner."""
    return [
        f"| {name} | {artifact.precision} | {verdict.runner_name} | {artifact.summary['ops']} | "
        f"{_partitions(verdict)} | {artifact.bytes:,} | "
        f"{format_conversion_error(verdict, output=False)} | "
        f"{format_least(verdict, 'snr_db', as_decibels)} dB | {verdict.outcome} |"
        for artifact in bundle.artifacts
        for verdict in artifact.verdicts
    ]


def _partitions(verdict: Verdict) -> str:
    found = verdict.runner.details if verdict.runner else {}
    if not found.get("partitions"):
        return "-"
    outside = found["ops"] - found["delegated_ops"]
    return f"{found['partitions']}" + (f", {outside} ops outside" if outside else "")


def structure_of(row: str) -> tuple[str, ...]:
    """What does not depend on the machine: all cells but the two figures."""
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    return (*cells[:6], cells[8])


def committed_rows() -> dict[str, list[str]]:
    """Network → its rows on the page as it is; none if there is no page."""
    found: dict[str, list[str]] = {}
    if FILE.exists():
        for line in FILE.read_text(encoding="utf-8").splitlines():
            name = line.strip("|").split("|")[0].strip()
            if line.startswith("|") and name in NETWORKS:
                found.setdefault(name, []).append(line)
    return found


def _write(rows: dict[str, list[str]]) -> None:
    lines = [line for name in NETWORKS for line in rows.get(name, [])]
    rule = f"|{'---|' * (COLUMNS.count('|') - 1)}"
    write_atomically(FILE, (_HEAD + "\n".join([COLUMNS, rule, *lines]) + "\n").encode())


def measure(name: str) -> list[str]:
    """Convert a network in a separate folder, and give its rows."""
    with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
        return rows_of(name, convert_network(name, Path(folder)))


def _check(names: Sequence[str]) -> int:
    committed, stale = committed_rows(), []
    for name in names:
        here = [structure_of(row) for row in measure(name)]
        if here != [structure_of(row) for row in committed.get(name, [])]:
            stale.append(name)
        print(f"{name}: {'differs' if name in stale else 'as the page says'}", flush=True)
    if stale:
        print(f"run python docs/make_full_size.py {' '.join(stale)}")
    return 1 if stale else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page network by network, or check it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the networks; default: all")
    parser.add_argument("--missing", action="store_true", help="only those without rows")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a row differs")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.names if name not in NETWORKS]:
        parser.error(f"no network is called {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    names = args.names or list(NETWORKS)
    if args.check:
        return _check(names)
    rows = committed_rows()
    for name in names:
        if not (args.missing and name in rows):
            rows[name] = measure(name)
            print("\n".join(rows[name]), flush=True)
            _write(rows)
    _write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
