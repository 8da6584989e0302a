"""Mult-adds and parameters of every family: ours beside what the papers print.

    python benchmarks/published_totals.py            prints the table
    python benchmarks/published_totals.py --write    puts it into docs/cost.md

An architecture that is not there is left out of the table, and named. Exporting takes about four
CPU seconds a network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploykit.cost.published import (
    PUBLISHED,
    count_published,
    is_within,
    published_row,
    published_table,
)
from deploykit.errors import SourceError
from deploykit.files import write_atomically

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cost.md"
BEGIN, END = "<!-- published totals: begin -->", "<!-- published totals: end -->"


def main() -> int:
    """Count all; returns 1 if a figure is further from the printed one than its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    args = parser.parse_args()
    rows, outside = [], []
    for entry in PUBLISHED:
        try:
            cost = count_published(entry)
        except SourceError as error:
            print(f"left out: {entry.name}: {error.found}", file=sys.stderr)
            continue
        rows.append(published_row(entry, cost))
        if not is_within(entry, cost):
            outside.append(entry.name)
    table = published_table(rows)
    print(table)
    if args.write:
        before, found, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, ended, after = rest.partition(END)
        if not found or not ended:
            print(f"{PAGE} has no place for the table", file=sys.stderr)
            return 1
        write_atomically(PAGE, f"{before}{BEGIN}\n{table}\n{END}{after}".encode())
    for name in outside:
        print(f"outside of its tolerance: {name}", file=sys.stderr)
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
