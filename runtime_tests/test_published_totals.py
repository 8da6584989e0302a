"""The table of published totals in docs/cost.md says what is counted, and lies near the papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.cost.published import PUBLISHED, Published, count_published, is_within, published_row
from deploykit.errors import SourceError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cost.md"
#: Counted here; `benchmarks/published_totals.py` counts them all.
COUNTED = ("MobileNetV3 small 1.0", "ShuffleNetV2 1x", "GhostNet 1.0x")
WRITE = "run python benchmarks/published_totals.py --write"

pytest.importorskip("timm")
pytest.importorskip("torchvision")


def _rows() -> dict[str, str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}


@pytest.mark.parametrize("entry", [p for p in PUBLISHED if p.name in COUNTED], ids=lambda p: p.name)
def test_the_row_is_what_is_counted(entry: Published) -> None:
    cost = count_published(entry)
    assert not cost.uncounted
    assert is_within(entry, cost)
    assert _rows()[entry.name] == published_row(entry, cost), WRITE


def test_every_network_of_other_libraries_has_a_row() -> None:
    missing = [p.name for p in PUBLISHED if not p.arch.startswith("deploykit/")]
    assert set(missing) <= set(_rows()), WRITE


def test_shufflenet_v1_is_within_the_papers() -> None:
    (entry,) = [p for p in PUBLISHED if p.arch == "deploykit/shufflenet_v1"]
    try:
        cost = count_published(entry)
    except SourceError as error:
        pytest.skip(f"not there: {error.found}")
    assert is_within(entry, cost)
    row = _rows().get(entry.name)
    assert row is None or row == published_row(entry, cost), WRITE
