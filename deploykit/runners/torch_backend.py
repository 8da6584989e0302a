"""PyTorch in eager mode: the float reference of a source that torch can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deploykit.runners.base import Backend
from deploykit.tensors import Array


class TorchBackend(Backend):
    """Runs a source (checkpoint, exported program, ...) as torch itself does.

    Options:
        load_options: `deploykit.sources.options.LoadOptions.to_dict` of the source.
        threads: Threads within an op; 1 by default.
        batch: Samples that the source takes at a time; by default that of the input shape in
            ``load_options``, else 1.

    Samples go one batch at a time: an exported program takes no other number, and what a sample
    gives then does not depend on how many were asked for.
    """

    @classmethod
    def prepare_process(cls, path: str, options: Mapping[str, Any]) -> Callable[[], None]:
        """A program from a file runs behind closed doors; see `deploykit.confine`."""
        from deploykit.sources.program_child import confine_for_program

        return confine_for_program(path, dict(options.get("load_options", {})))

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        """Load the source.

        Raises:
            ValueError: an unknown option.
            SourceError: the source cannot be loaded.
        """
        import torch

        from deploykit.sources.reference import open_torch_reference

        known = {"batch", "load_options", "threads"}
        if unknown := sorted(set(options) - known):
            raise ValueError(f"unknown options {unknown}; there are {sorted(known)}")
        self._threads = int(options.get("threads", 1))
        torch.set_num_threads(self._threads)
        load_options = dict(options.get("load_options", {}))
        self._reference = open_torch_reference(path, load_options)
        shape = load_options.get("input_shape") or [1]
        self._batch = int(options.get("batch", shape[0]))
        if self._batch < 1:
            raise ValueError(f"batch {self._batch}: it must be at least 1")

    def info(self) -> Mapping[str, Any]:
        """See `Backend.info`."""
        import torch

        return {
            "runtime": "torch",
            "version": torch.__version__,
            "kernels": f"eager, {torch.backends.cpu.get_cpu_capability()}",
            "threads": self._threads,
            "details": {},
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network on its inputs: their order counts, not their names.

        Args:
            inputs: float32 (n, ...), images as NCHW.

        Raises:
            ValueError: not the same n everywhere, or n is no multiple of the batch size.
        """
        counts = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
        count = counts.pop() if len(counts) == 1 else 0
        if not count or count % self._batch:
            shapes = ", ".join(str(array.shape) for array in inputs.values())
            raise ValueError(
                f"inputs of shapes {shapes or '(none)'}: the source takes {self._batch} at a time"
            )
        split = [np.split(array, count // self._batch) for array in inputs.values()]
        parts = [self._reference(*arrays) for arrays in zip(*split, strict=True)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
