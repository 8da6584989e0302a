"""Running many samples through a file that takes one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deploykit.errors import ContractError, ParityError
from deploykit.runners.base import Runner
from deploykit.tensors import Array, FloatArray, TensorSpec


def count_samples(inputs: Mapping[str, FloatArray]) -> int:
    """Number of samples (axis 0), the same for every input.

    Raises:
        ContractError: no input, no sample, or other numbers of samples.
    """
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in inputs.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ContractError(
            f"golden inputs with samples {counts}", expected="as many of each, at least one"
        )
    return next(iter(counts.values()))


def first_samples(arrays: Mapping[str, FloatArray], count: int | None) -> Mapping[str, FloatArray]:
    """The first ``count`` samples of each array, all for None."""
    return {name: array[:count] for name, array in arrays.items()}


def encoded_batches(
    inputs: Mapping[str, FloatArray], specs: Sequence[TensorSpec]
) -> Iterator[tuple[int, dict[str, Array]]]:
    """The samples in batches of the file's own size, as the runtime reads them.

    Args:
        inputs: Input name → float32 (n, ...), in NCHW or plain.
        specs: The file's inputs; the first one's ``batch`` is the batch size.

    Yields:
        How many samples of the batch count, and the arrays by the runtime's names. If n is no
        multiple of the batch size, the last sample is repeated to fill the last batch.

    Raises:
        ContractError: other names or shapes than the file's.
    """
    names = {spec.name for spec in specs}
    if names != set(inputs):
        raise ContractError(
            f"golden inputs {', '.join(sorted(inputs))}",
            expected=f"those of the artefact: {', '.join(sorted(names))}",
        )
    total = count_samples(inputs)
    batch = specs[0].batch
    for start in range(0, total, batch):
        picked = np.minimum(np.arange(start, start + batch), total - 1)
        arrays = {spec.runtime_name: spec.encode(inputs[spec.name][picked]) for spec in specs}
        yield min(batch, total - start), arrays


def run_samples(
    runner: Runner,
    inputs: Mapping[str, FloatArray],
    input_specs: Sequence[TensorSpec],
    output_specs: Sequence[TensorSpec],
) -> dict[str, FloatArray]:
    """Every sample's outputs, float32 in NCHW or plain, by output name.

    Raises:
        RunnerError: the runtime refused, crashed, or took too long.
        ParityError: an output that the artefact should have is missing.
    """
    collected: dict[str, list[FloatArray]] = {spec.name: [] for spec in output_specs}
    for count, arrays in encoded_batches(inputs, input_specs):
        outputs = runner.run(arrays)
        for spec in output_specs:
            name = spec.runtime_name
            if name not in outputs:
                raise ParityError(
                    f"the runtime gave no output {name!r} but {', '.join(outputs) or 'none'}",
                    expected=f"outputs {', '.join(s.runtime_name for s in output_specs)}",
                )
            collected[spec.name].append(spec.decode(outputs[name])[:count])
    return {name: np.concatenate(parts) for name, parts in collected.items()}
