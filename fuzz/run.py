"""Fuzz all formats and print a table.

    python -m fuzz.run [--seconds 120] [--inputs N] [--jobs 1] [--only onnx,pt] [--seeds FOLDER]

Each input is made of a seed file by a mutator whose generator is seeded by (seed, format, number),
so any input can be made again. It is ``refused`` (an error with words), ``accepted``, or a fault:
a ``traceback``, a ``crash`` of the process, a ``hang``, or too much ``memory``. The exit code is 1
if there was a fault; the inputs of faults are described below the table.
"""

from __future__ import annotations

import argparse
import json
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.formats import FORMATS, Format

ROOT = Path(__file__).resolve().parent.parent
FAULTS = ("traceback", "crash", "hang", "memory")
#: What the first use of a library costs is not an input's: peaks up to here are no fault.
ALLOWED_MB = 300


@dataclass
class Tally:
    """What came of the inputs of one format."""

    counts: Counter[str] = field(default_factory=Counter)
    classes: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, number: int, outcome: str, detail: str, seconds: float) -> None:
        """Count one input."""
        self.counts[outcome] += 1
        self.seconds += seconds
        if outcome in FAULTS:
            self.classes.setdefault(f"{outcome}: {detail}", []).append(number)


class Worker:
    """The child of `fuzz.worker`; started again when it is gone."""

    def __init__(self, seeds: Path, seed: int) -> None:
        self._command = [sys.executable, "-m", "fuzz.worker", str(seeds), str(seed)]
        self._process: subprocess.Popen[str] | None = None
        self._asked = 0

    def ask(self, format_: Format, number: int) -> tuple[str, str, float]:
        """Outcome, detail and seconds of one input."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            )  # fmt: skip
            self._asked = 0
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        start = time.monotonic()
        first, self._asked = self._asked == 0, self._asked + 1
        try:
            process.stdin.write(json.dumps([format_.name, number]) + "\n")
            process.stdin.flush()
        except OSError:
            return "crash", "before it was asked", 0.0
        allowance = format_.slow_s + (60 if first else 0)
        ready, _, _ = select.select([process.stdout], [], [], allowance)
        if not ready:
            process.kill()
            process.wait()
            return "hang", f"more than {allowance:g} s", allowance
        line = process.stdout.readline()
        if not line:
            return "crash", f"exit {process.wait()}", time.monotonic() - start
        return verified(json.loads(line), warm=self._asked > 20)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def verified(answer: dict[str, Any], *, warm: bool) -> tuple[str, str, float]:
    """An answer, with memory beyond what is allowed as a fault."""
    outcome, detail, seconds = answer["outcome"], answer["detail"], answer["seconds"]
    if warm and outcome == "refused" and answer["mb"] > max(ALLOWED_MB, 2 * answer["size_mb"]):
        return "memory", f"{answer['mb']:.0f} MB", seconds
    return outcome, detail, seconds


def fuzz(
    formats: list[Format],
    *,
    seconds: float,
    inputs: int,
    seed: int,
    folder: Path,
    start: int = 0,
    jobs: int = 1,
) -> dict[str, Tally]:
    """Run until the time or the inputs are used up; format → tally.

    Args:
        formats: Those without seeds are left out.
        seconds: For all formats together; what one leaves over is the others'.
        inputs: Of all formats together, shared out by weight.
        seed: Of the mutators.
        folder: The seeds; each format works in a copy.
        start: Number of the first input.
        jobs: Formats at a time.
    """
    formats = [f for f in formats if (folder / f.name).is_dir()]
    total = sum(f.weight for f in formats)
    budget = _Budget(seconds * jobs, formats)

    def run(format_: Format) -> Tally:
        tally = Tally()
        end = time.monotonic() + budget.take(format_)
        with tempfile.TemporaryDirectory(prefix="deploykit-fuzz-") as scratch:
            seeds = Path(shutil.copytree(folder, Path(scratch) / "seeds"))
            # A worker a format: what one imports is not in another's peak.
            worker = Worker(seeds, seed)
            for number in range(start, start + max(1, round(inputs * format_.weight / total))):
                if time.monotonic() > end:
                    break
                answer = worker.ask(format_, number)
                if answer[0] == "memory":  # the first use of a library is not the input's
                    answer = worker.ask(format_, number)
                tally.add(number, *answer)
            worker.close()
        budget.give_back(end - time.monotonic())
        print(format_table({format_.name: tally}), file=sys.stderr, flush=True)
        return tally

    with ThreadPoolExecutor(jobs) as pool:
        longest = sorted(formats, key=lambda f: -f.weight * f.cost_ms)
        tallies = dict(zip([f.name for f in longest], pool.map(run, longest), strict=True))
    return {f.name: tallies[f.name] for f in formats}


class _Budget:
    """The seconds that are left, shared out by what the inputs of a format cost."""

    def __init__(self, seconds: float, formats: list[Format]) -> None:
        self._left = seconds
        self._shares = sum(f.weight * f.cost_ms for f in formats)
        self._lock = threading.Lock()

    def take(self, format_: Format) -> float:
        """The seconds of one format."""
        with self._lock:
            share = format_.weight * format_.cost_ms
            seconds = self._left * share / self._shares
            self._left -= seconds
            self._shares -= share
        return seconds

    def give_back(self, seconds: float) -> None:
        """What a format did not use."""
        with self._lock:
            self._left += max(seconds, 0)


def _seeds(kept: Path | None, folder: Path, formats: set[str]) -> Path:
    """A folder of seeds: new ones, or those that were kept."""
    from fuzz.seeds import make_seeds

    if kept is None:
        make_seeds(folder, formats)
        return folder
    if not kept.exists():
        make_seeds(kept, {f.name for f in FORMATS})
    return kept


def format_table(tallies: dict[str, Tally]) -> str:
    """The table, and every class of faults with the number of its first input."""
    columns = ("tried", "refused", "accepted", *FAULTS, "ms each")
    lines = [f"{'format':<12}" + "".join(f"{c:>11}" for c in columns)]
    rows = [*tallies.items(), ("all", _sum(tallies))]
    for name, tally in rows:
        tried = tally.counts.total()
        figures = [tried, *(tally.counts[c] for c in columns[1:-1])]
        each = f"{1000 * tally.seconds / max(tried, 1):.1f}"
        lines.append(f"{name:<12}" + "".join(f"{n:>11,}" for n in figures) + f"{each:>11}")
    for name, tally in tallies.items():
        for words, numbers in sorted(tally.classes.items(), key=lambda c: -len(c[1])):
            lines.append(f"{name} #{numbers[0]} ({len(numbers)}): {words}")
    return "\n".join(lines)


def _sum(tallies: dict[str, Tally]) -> Tally:
    total = Tally()
    for tally in tallies.values():
        total.counts += tally.counts
        total.seconds += tally.seconds
    return total


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--inputs", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--jobs", type=int, default=1, help="formats at a time")
    parser.add_argument("--only", default="", help="formats, comma-separated")
    parser.add_argument("--seeds", type=Path, help="keep the seeds here, and take those of before")
    args = parser.parse_args()
    chosen = [f for f in FORMATS if not args.only or f.name in args.only.split(",")]
    with tempfile.TemporaryDirectory(prefix="deploykit-fuzz-") as folder:
        tallies = fuzz(
            chosen, seconds=args.seconds, inputs=args.inputs, seed=args.seed, start=args.start,
            jobs=args.jobs, folder=_seeds(args.seeds, Path(folder), {f.name for f in chosen}),
        )  # fmt: skip
    print(format_table(tallies))
    return int(any(t.counts[f] for t in tallies.values() for f in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
