"""A bounded, seeded run of `fuzz`, and what it found before: no traceback, crash or hang."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fuzz.formats import FORMATS
from fuzz.run import FAULTS, format_table, fuzz
from fuzz.seeds import make_seeds
from fuzz.worker import read_one

# The formats whose readers take milliseconds, and whose seeds need no other conversion.
FAST = ("onnx", "preprocess", "images", "arrays", "keras", "saved_model")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    make_seeds(folder, set(FAST))
    return folder


@pytest.mark.parametrize("name", FAST)
def test_no_fault(seeds: Path, name: str) -> None:
    chosen = [f for f in FORMATS if f.name == name]
    # From 1 on: number 0 goes into runners, which is more than a test of readers needs.
    tallies = fuzz(chosen, seconds=15, inputs=150, seed=0, folder=seeds, start=1)
    tally = tallies[name]
    assert tally.counts.total() > 0
    assert not any(tally.counts[fault] for fault in FAULTS), format_table(tallies)


CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"


@pytest.mark.parametrize(
    "case", sorted(CORPUS.glob("*/*")), ids=lambda case: f"{case.parent.name}-{case.name}"
)
def test_what_once_ended_in_a_traceback_is_refused(case: Path, tmp_path: Path) -> None:
    format_ = next(f for f in FORMATS if f.name == case.parent.name)
    folder = Path(shutil.copytree(case, tmp_path / "case"))
    # Number 1: the reader, without a runtime.
    outcome, detail = read_one(format_, folder, tmp_path / "scratch", 1)
    assert outcome == "refused", detail
