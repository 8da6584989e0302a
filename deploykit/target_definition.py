"""What a target is, as data: its capabilities are named by ``module:attribute``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.file_layers import CutLayer
from deploykit.lowering import LoweringTable
from deploykit.model import Model, Precision
from deploykit.references import resolve, why_broken
from deploykit.runners.base import RunnerDefinition
from deploykit.target_options import TargetOption

if TYPE_CHECKING:
    from deploykit.artifact import Artifact, ArtifactRequest
    from deploykit.cost.layer import MeasuredFiles, ProfiledRun
    from deploykit.lint.finding import DelegateSplit
    from deploykit_quantize.policy import Policy

#: Of the plug-in interface: what `TargetDefinition` holds, and how its functions are called.
INTERFACE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TargetDefinition:
    """The object behind an entry point of the group ``deploykit.targets``.

    A field that does not exist is refused by Python, a reference to nothing when the target is
    loaded. A capability whose reference is left empty is one that the target does not have.

    Attributes:
        name: What ``--to`` calls it; the entry point's name.
        precisions: What it can write.
        writer: ``function(model, request) -> Artifact``: lowers a fused or quantized stage to a
            file in memory; raises UnsupportedOpsError with every op that has no lowering.
        lowering_table: ``function() -> LoweringTable``: the ops that it lowers, and those that it
            refuses with a reason.
        recognizer: ``function(path) -> bool``: whether a file holds this target's format, by its
            content. Empty: no file is known as the target's.
        inspector: ``function(path) -> str``: a file of the target in words. Empty: none.
        quantization: ``function(precision, options) -> Policy | None``: how a precision is
            quantized; None where the float stage is written as it is. Empty: it always is.
        request_check: ``function(request)``: raises ContractError for options that contradict each
            other or the precision, before anything is done. Empty: none do.
        file_measurer: ``function(files, *, rounds, threads, timeout_s) -> MeasuredFiles``: times
            files, by turns, in a separate process.
        op_profiler: ``function(file, *, runs, timeout_s) -> ProfiledRun``: the runtime's profiler.
        split_finder: ``function(fused, precision) -> tuple[DelegateSplit, ...]``: the ops that the
            runtime's kernel library would leave, in the order of the artefact.
        layer_cutter: ``function(path) -> tuple[CutLayer, ...]``: the layers of a file, each as a
            file of its own, for ``bisect``.
        runners: The runtimes that run its artefacts; the first is the one users' phones have.
        options: What ``--option TARGET.NAME=VALUE`` may say.
        preferred: What is written where the user names no precision; None for fp32, or the first
            that there is.
        interface: Version of the plug-in interface that it is written for.
    """

    name: str
    precisions: tuple[Precision, ...]
    writer: str
    lowering_table: str
    recognizer: str = ""
    inspector: str = ""
    quantization: str = ""
    request_check: str = ""
    file_measurer: str = ""
    op_profiler: str = ""
    split_finder: str = ""
    layer_cutter: str = ""
    runners: tuple[RunnerDefinition, ...] = ()
    options: tuple[TargetOption, ...] = ()
    preferred: Precision | None = None
    interface: int = INTERFACE_VERSION

    def problems(self, name: str) -> Iterator[str]:
        """What is wrong with it as the target behind the entry point ``name``, in words."""
        if self.interface != INTERFACE_VERSION:
            yield f"it is written for interface {self.interface}, this is {INTERFACE_VERSION}"
            return
        if self.name != name:
            yield f"it calls itself {self.name!r}"
        if not self.precisions:
            yield "it has no precision"
        if self.preferred is not None and self.preferred not in self.precisions:
            yield f"it prefers {self.preferred.value}, which it cannot write"
        required = {"writer": self.writer, "lowering_table": self.lowering_table}
        yield from (f"{field} is empty" for field, reference in required.items() if not reference)
        yield from (reason for r in self._references() if r and (reason := why_broken(r)))

    def _references(self) -> Iterator[str]:
        yield from (self.writer, self.lowering_table, self.recognizer, self.inspector)
        yield from (self.quantization, self.request_check)
        yield from (self.file_measurer, self.op_profiler, self.split_finder)
        yield self.layer_cutter
        for runner in self.runners:
            yield from (runner.backend, runner.probe)

    @property
    def default_precision(self) -> Precision:
        """What is written where the user names no precision."""
        if self.preferred is not None:
            return self.preferred
        return Precision.FP32 if Precision.FP32 in self.precisions else self.precisions[0]

    def policy(
        self, precision: Precision, options: Mapping[str, str] | None = None
    ) -> Policy | None:
        """How a precision is quantized; None where the float stage is written as it is.

        Raises:
            ContractError: an option that the target does not know.
        """
        policy: Policy | None = None
        if self.quantization:
            policy = resolve(self.quantization)(precision, options or {})
        return policy

    def check_request(self, request: ArtifactRequest) -> None:
        """Refuse options that contradict each other or the precision.

        Raises:
            ContractError: with what they contradict.
        """
        if self.request_check:
            resolve(self.request_check)(request)

    def write(self, model: Model, request: ArtifactRequest) -> Artifact:
        """Lower a fused or quantized stage to a file in memory.

        Raises:
            UnsupportedOpsError: with every op that has no lowering.
            ContractError: an option that the target does not know.
        """
        artifact: Artifact = resolve(self.writer)(model, request)
        return artifact

    def lowerings(self) -> LoweringTable[Any]:
        """The ops that it lowers, and those that it refuses with a reason."""
        table: LoweringTable[Any] = resolve(self.lowering_table)()
        return table

    def recognizes(self, path: Path) -> bool:
        """Whether a file holds this target's format, by its content."""
        return bool(self.recognizer and resolve(self.recognizer)(path))

    def inspect(self, path: Path) -> str:
        """A file of this target in words: ops, types, scales, partitions, runtime version."""
        return str(resolve(self.inspector)(path)) if self.inspector else f"{path}: {self.name}"

    def measure_files(
        self, files: Sequence[bytes], *, rounds: int, threads: int, timeout_s: float
    ) -> MeasuredFiles:
        """Run files in turn, ``rounds`` times; of a target with a ``file_measurer``.

        Raises:
            RunnerError: the runtime refuses a file, crashes, or takes too long.
        """
        found: MeasuredFiles = resolve(self.file_measurer)(
            files, rounds=rounds, threads=threads, timeout_s=timeout_s
        )
        return found

    def profile_ops(self, file: bytes, *, runs: int, timeout_s: float) -> ProfiledRun:
        """Run a file under the runtime's profiler; of a target with an ``op_profiler``.

        Raises:
            RunnerError: there is no profiler in the runtime that is installed, or it fails.
        """
        found: ProfiledRun = resolve(self.op_profiler)(file, runs=runs, timeout_s=timeout_s)
        return found

    def delegate_splits(self, fused: Model, precision: Precision) -> tuple[DelegateSplit, ...]:
        """The ops that the runtime's kernel library leaves; none without a ``split_finder``.

        Raises:
            UnsupportedOpsError: the stage cannot be lowered at all.
        """
        found: tuple[DelegateSplit, ...] = ()
        if self.split_finder:
            found = resolve(self.split_finder)(fused, precision)
        return found

    def cut_layers(self, path: Path) -> tuple[CutLayer, ...]:
        """The layers of a file; of a target with a ``layer_cutter``."""
        found: tuple[CutLayer, ...] = resolve(self.layer_cutter)(path)
        return found
