"""Latency of .tflite files, paired: the same processes, files taking turns, CPU time, one thread.

    python benchmarks/latency.py FILE [FILE ...] [--loads 5] [--rounds 12] [--repeats 4]

Each load is a separate process in which every file is loaded and run in turn, round after round;
the order changes from load to load. Where a file's memory happens to lie moves its time by up to
2 % for as long as it is loaded, and no number of rounds averages that away, only loads do. A ratio
is the median over loads of the median over rounds of a file's time to that of the first file, and
what stands behind it is the standard error of that median. Give a file twice to see what remains of
a difference where there is none.

Op and partition counts stand beside, since they are what makes a file fast: one partition means
that XNNPACK runs the whole graph.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Of a median of many: standard error over standard deviation / sqrt(n), for a normal distribution.
_MEDIAN_ERROR = 1.2533


class LoadedFile:
    """A file in a separate interpreter, with inputs of its own dtype."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        plain = Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self.ops = len(plain._get_ops_details())
        del plain
        self.path = path
        self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self.interpreter.allocate_tensors()
        details = self.interpreter._get_ops_details()
        self.partitions = sum(d["op_name"] == "DELEGATE" for d in details)
        # The plan keeps the delegated ops in the list; what no partition replaced runs outside.
        generator = np.random.default_rng(0)
        for detail in self.interpreter.get_input_details():
            if np.issubdtype(detail["dtype"], np.floating):
                value = generator.standard_normal(detail["shape"]).astype(detail["dtype"])
            else:
                bounds = np.iinfo(detail["dtype"])
                value = generator.integers(
                    bounds.min, bounds.max, detail["shape"], dtype=detail["dtype"], endpoint=True
                )
            self.interpreter.set_tensor(detail["index"], value)

    def run_ms(self, repeats: int) -> float:
        """CPU milliseconds of one inference, over ``repeats`` of them."""
        start = time.process_time()
        for _ in range(repeats):
            self.interpreter.invoke()
        return 1000 * (time.process_time() - start) / repeats


@dataclass(frozen=True)
class FileTimes:
    """What was measured of one file.

    Attributes:
        path: The file.
        ops: Its operators.
        partitions: Of them that XNNPACK runs.
        ms: CPU milliseconds of one inference, the median over all rounds.
        min_ms: The least of them.
        ratios: One a load: the median over its rounds of this file's time to the first file's.
    """

    path: Path
    ops: int
    partitions: int
    ms: float
    min_ms: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median over the loads."""
        return statistics.median(self.ratios)

    @property
    def ratio_error(self) -> float:
        """Standard error of `ratio`; 0 where there was one load."""
        if len(self.ratios) < 2:
            return 0.0
        return _MEDIAN_ERROR * statistics.stdev(self.ratios) / len(self.ratios) ** 0.5


def pair_files(
    paths: Sequence[Path], *, loads: int, rounds: int, repeats: int = 4, threads: int = 1
) -> list[FileTimes]:
    """Time files against the first of them.

    Args:
        paths: The files; one may occur twice.
        loads: Processes, one after the other.
        rounds: In each, how often every file has its turn.
        repeats: Inferences a turn.
        threads: Of the runtime.

    Raises:
        SystemExit: the runtime refuses a file.
    """
    count = len(paths)
    times: list[list[float]] = [[] for _ in paths]
    ratios: list[list[float]] = [[] for _ in paths]
    answer: dict[str, list[list[float]]] = {}
    for load in range(loads):
        order = [(load + i) % count for i in range(count)]
        request = {
            "paths": [str(paths[i]) for i in order],
            "numbers": [rounds, repeats, threads],
        }
        answer = _ask(request)
        found = {index: answer["ms"][place] for place, index in enumerate(order)}
        shapes = {index: answer["shapes"][place] for place, index in enumerate(order)}
        for index in range(count):
            times[index] += found[index]
            pairs = zip(found[index], found[0], strict=True)
            ratios[index].append(statistics.median(a / b for a, b in pairs))
    return [
        FileTimes(
            path,
            *map(int, shapes[index]),
            statistics.median(times[index]),
            min(times[index]),
            tuple(ratios[index]),
        )
        for index, path in enumerate(paths)
    ]


def _ask(request: dict[str, list[str] | list[int]]) -> dict[str, list[list[float]]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--one-load", json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"a file cannot be run:\n{done.stderr.strip()[-2000:]}")
    answer: dict[str, list[list[float]]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _run_one_load(request: dict[str, list[str] | list[int]]) -> None:
    rounds, repeats, threads = map(int, request["numbers"])
    loaded = [LoadedFile(Path(str(path)), threads) for path in request["paths"]]
    for one in loaded:
        one.run_ms(3)
    # The first place goes to each by turns: what ran before leaves the caches as it used them.
    ms: list[list[float]] = [[] for _ in loaded]
    for number in range(rounds):
        for i in range(len(loaded)):
            place = (number + i) % len(loaded)
            ms[place].append(loaded[place].run_ms(repeats))
    print(json.dumps({"ms": ms, "shapes": [[one.ops, one.partitions] for one in loaded]}))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--loads", type=int, default=5, help="processes")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each file in a process")
    parser.add_argument("--repeats", type=int, default=4, help="inferences a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one-load", metavar="JSON", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one_load:
        _run_one_load(json.loads(args.one_load))
        return
    if not args.files:
        parser.error("no files")
    print(f"{'file':<44} {'ms':>8} {'min':>8} {'ratio':>6} {'+-':>6} {'ops':>5} {'partitions':>10}")
    for one in pair_files(
        args.files,
        loads=args.loads,
        rounds=args.rounds,
        repeats=args.repeats,
        threads=args.threads,
    ):
        print(
            f"{one.path.name:<44} {one.ms:>8.3f} {one.min_ms:>8.3f} {one.ratio:>6.3f} "
            f"{one.ratio_error:>6.3f} {one.ops:>5} {one.partitions:>10}"
        )


if __name__ == "__main__":
    main()
