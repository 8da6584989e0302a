"""TensorFlow itself: the float reference of a .keras file or a SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.runners.base import Backend
from deploykit.tensors import Array


class TensorflowBackend(Backend):
    """Runs a source as TensorFlow does; no ONNX is involved.

    Options:
        load_options: `deploykit.sources.options.LoadOptions.to_dict` of the source.
        threads: Threads within an op; 1 by default.
        batch: Samples that the source takes at a time; 1 by default.
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
            SourceError: the source cannot be loaded, or would run code.
        """
        import os

        from deploykit.sources.options import LoadOptions
        from deploykit.sources.tensorflow_source import CHILD_ENVIRONMENT, check_tensorflow_source

        known = {"batch", "load_options", "threads"}
        if unknown := sorted(set(options) - known):
            raise ValueError(f"unknown options {unknown}; there are {sorted(known)}")
        load_options = LoadOptions.from_dict(options["load_options"])
        check_tensorflow_source(Path(path), load_options)
        os.environ.update(CHILD_ENVIRONMENT)  # this process is ours alone
        import tensorflow as tf

        from deploykit.sources.tensorflow_program import open_tensorflow

        self._threads = int(options.get("threads", 1))
        tf.config.threading.set_intra_op_parallelism_threads(self._threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._batch = int(options.get("batch", 1))
        self._program = open_tensorflow(Path(path), load_options)
        named = zip(self._program.input_names, self._program.input_shapes, strict=True)
        specs = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in named]
        self._function = tf.function(self._program.function).get_concrete_function(*specs)

    def info(self) -> Mapping[str, Any]:
        """See `Backend.info`."""
        import tensorflow as tf

        return {
            "runtime": "TensorFlow",
            "version": tf.__version__,
            "kernels": "CPU",
            "threads": self._threads,
            "details": {"keras": tf.keras.__version__},
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network, one batch at a time.

        Args:
            inputs: float32 (n, ...), images as NCHW, by name.

        Raises:
            ValueError: other names, not the same n everywhere, or n is no multiple of the batch
                size.
        """
        import tensorflow as tf

        names = self._program.input_names
        if set(inputs) != set(names):
            raise ValueError(f"inputs {sorted(inputs)}; the source has {sorted(names)}")
        counts = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
        count = counts.pop() if len(counts) == 1 else 0
        if not count or count % self._batch:
            shapes = ", ".join(str(array.shape) for array in inputs.values())
            raise ValueError(
                f"inputs of shapes {shapes or '(none)'}: the source takes {self._batch} at a time"
            )
        split = [np.split(inputs[name], count // self._batch) for name in names]
        parts = [
            self._function(*(tf.constant(array) for array in arrays))
            for arrays in zip(*split, strict=True)
        ]
        return {
            name: np.concatenate([part[i].numpy() for part in parts])
            for i, name in enumerate(self._program.output_names)
        }
