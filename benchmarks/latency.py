"""Paired latency of any set of .tflite files in one process: LiteRT, XNNPACK, one thread.

    python benchmarks/latency.py A.tflite B.tflite ... [--rounds 40] [--threads 1]

The files run in turn, round after round, so that a drift of the machine's speed hits all alike;
the ratio is the median over rounds of each file's time to that of the first file. CPU time of the
process is what is counted. Op and partition counts stand beside, since they are what makes a file
fast: one partition means that XNNPACK runs the whole graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np


class LoadedFile:
    """A file in an interpreter of its own, with inputs of its own dtype."""

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        plain = Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self.ops = len(plain._get_ops_details())
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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5, help="inferences a round")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    loaded = [LoadedFile(path, args.threads) for path in args.files]
    for one in loaded:
        one.run_ms(args.repeats)
    rounds = [[one.run_ms(args.repeats) for one in loaded] for _ in range(args.rounds)]
    print(f"{'file':<44} {'ms':>8} {'min':>8} {'ratio':>6} {'ops':>5} {'partitions':>10}")
    for index, one in enumerate(loaded):
        times = [r[index] for r in rounds]
        ratio = statistics.median(r[index] / r[0] for r in rounds)
        print(
            f"{one.path.name:<44} {statistics.median(times):>8.3f} {min(times):>8.3f} "
            f"{ratio:>6.2f} {one.ops:>5} {one.partitions:>10}"
        )


if __name__ == "__main__":
    main()
