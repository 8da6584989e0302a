"""Timing .tflite files on LiteRT with XNNPACK, in a separate process.

The child (`python -m deploykit_tflite.measure_files`) reads a request as JSON from its standard
input and answers with JSON. At one thread the CPU time of the process is counted, which a busy
machine disturbs least; at several threads the wall clock.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from deploykit.child_process import run_child
from deploykit.cost.layer import MeasuredFiles
from deploykit.errors import RunnerError
from deploykit.own_process import claim_process
from deploykit.temporary import scratch_folder

_MODULE = "deploykit_tflite.measure_files"
_WARM_UP_ROUNDS = 3


def measure_files(
    files: Sequence[bytes], *, rounds: int, threads: int, timeout_s: float
) -> MeasuredFiles:
    """See ``file_measurer`` of `deploykit.target_definition.TargetDefinition`."""
    with scratch_folder() as folder:
        paths = []
        for index, data in enumerate(files):
            path = folder / f"{index}.tflite"
            path.write_bytes(data)
            paths.append(str(path))
        answer = _ask({"paths": paths, "rounds": rounds, "threads": threads}, timeout_s)
    plural = "" if threads == 1 else "s"
    return MeasuredFiles(
        runtime=f"LiteRT {answer['version']}, XNNPACK, {threads} thread{plural}",
        clock=answer["clock"],
        us=tuple(answer["us"]),
    )


def _ask(request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    try:
        text = json.dumps(request)
        done = run_child(["-m", _MODULE], input_bytes=text.encode(), timeout_s=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise RunnerError(
            f"measuring took longer than {timeout_s:g} s", advice="fewer --rounds"
        ) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["(it said nothing)"])[-1]
        raise RunnerError(f"LiteRT failed while it was measured (exit {done.returncode}): {last}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _open(path: str, threads: int) -> Any:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    generator = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        if np.issubdtype(detail["dtype"], np.floating):
            value = generator.standard_normal(detail["shape"]).astype(detail["dtype"])
        else:
            bounds = np.iinfo(detail["dtype"])
            value = generator.integers(
                bounds.min, bounds.max, detail["shape"], dtype=detail["dtype"], endpoint=True
            )
        interpreter.set_tensor(detail["index"], value)
    return interpreter


def _measure(request: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    threads = int(request["threads"])
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
    invokes = [_open(path, threads).invoke for path in request["paths"]]
    times: list[list[int]] = [[] for _ in invokes]
    for count in range(_WARM_UP_ROUNDS + int(request["rounds"])):
        for index, invoke in enumerate(invokes):
            invoke()  # what it reads was just written by the layer before it, in a whole network
            start = clock()
            invoke()
            elapsed = clock() - start
            if count >= _WARM_UP_ROUNDS:
                times[index].append(elapsed)
    return {
        "version": version("ai-edge-litert"),
        "clock": "CPU" if threads == 1 else "wall clock",
        "us": [statistics.median(t) / 1000 for t in times],
    }


def main() -> None:
    """Answer one request."""
    claim_process()
    answer = _measure(json.loads(sys.stdin.read()))
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
