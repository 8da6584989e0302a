"""Writes docs/families.md: every trained checkpoint in every precision, as measured here.

python docs/make_families.py             all of examples/checkpoints
python docs/make_families.py --missing   only those whose file is not on the page as it is now
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from deploykit import load
from deploykit.bundle import BundleArtifact
from deploykit.conversion import convert
from deploykit.conversion_plan import ConvertRequest
from deploykit.evaluation import evaluate
from deploykit.files import sha256_of, write_atomically
from deploykit.zoo.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "families.md"
FOLDER = ROOT / "examples" / "checkpoints"
SAMPLE = ROOT / "examples" / "fashion_mnist_sample.npz"
PRECISIONS = ("fp32", "fp16", "w8", "int8")

_HEAD = """\
# The families, trained and converted

Every checkpoint of `examples/checkpoints/`, trained on Fashion-MNIST by `deploykit zoo train --all
--out examples/checkpoints` and converted by `deploykit convert FILE --fp32 --fp16 --w8 --int8`.
Written by `python docs/make_families.py`. A family of `deploykit zoo list` that is not in the
table has no committed checkpoint yet.

- **top-1, test**: of the stored weights in torch, on the 10,000 test images.
- **top-1, sample**: of the artefact on `litert`, on the 1,000 images of
  `examples/fashion_mnist_sample.npz`; the row `reference` is the checkpoint in torch on the same.
- **SNR**: of the artefact against the float reference on golden inputs, the worse of `litert` and
  `litert-reference`.
- **verdict**: of both, on every check that `convert` makes.

"""
_COLUMNS = "| family | file | precision | bytes | top-1, test | top-1, sample | SNR | verdict |"


def family_rows(path: Path) -> list[str]:
    """The rows of one checkpoint: the reference, then one for each precision."""
    stored = read_checkpoint(path).metrics["top1"]
    model = load(path)
    with tempfile.TemporaryDirectory() as folder:
        request = ConvertRequest(precisions=PRECISIONS, out=Path(folder) / "bundle")
        bundle = convert(model, request).bundle
        table = evaluate(Path(folder) / "bundle", SAMPLE, source=str(path))
    start = f"| {path.stem} | {_short_hash(path)} |"
    reference, *rows = table.rows
    size = path.stat().st_size
    lines = [
        f"{start} reference | {size:,} | {stored:.2%} | {reference.top1:.1%} | | |",
    ]
    top1 = {row.precision: row.top1 for row in rows}
    for artifact in bundle.artifacts:
        passed = all(v.passed for v in artifact.verdicts) and bool(artifact.verdicts)
        lines.append(
            f"{start} {artifact.precision} | {artifact.bytes:,} | | "
            f"{top1[artifact.precision]:.1%} | {_snr(artifact)} | {'pass' if passed else 'FAIL'} |"
        )
    return lines


def committed_rows() -> dict[tuple[str, str], list[str]]:
    """(family, short hash) > its rows on the page as it is; none if there is no page."""
    found: dict[tuple[str, str], list[str]] = {}
    if FILE.exists():
        for line in FILE.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) == 10 and (FOLDER / f"{cells[1]}.pt").exists():
                found.setdefault((cells[1], cells[2]), []).append(line)
    return found


def current_keys() -> list[tuple[str, str]]:
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true", help="keep rows of unchanged files")
    kept = committed_rows() if parser.parse_args().missing else {}
    lines: list[str] = []
    for key in current_keys():
        rows = kept.get(key) or family_rows(FOLDER / f"{key[0]}.pt")
        print("\n".join(rows), flush=True)
        lines += rows
    page = [_COLUMNS, f"|{'---|' * 8}", *lines]
    write_atomically(FILE, (_HEAD + "\n".join(page) + "\n").encode())


if __name__ == "__main__":
    main()
