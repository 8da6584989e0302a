"""What is fuzzed: each format, which of a seed's files is mutated, and the entry point it goes to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutate import Mutator, mutator_of
from fuzz.onnx_odd import mutate_onnx
from fuzz.seeds import ARCH, ARCH_INPUT, ARCH_OPTIONS

#: Path of the mutated seed's folder, a scratch folder, number of the input → exit code.
Entry = Callable[[Path, Path, int], int]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: Also the folder of its seeds.
        entry: What reads it; raises, or returns an exit code.
        mutated: Glob patterns of the files that are mutated.
        weight: Its share of all inputs.
        cost_ms: About what one input takes; with the weight, its share of the time.
        slow_s: Beyond this, an input counts as a hang.
    """

    name: str
    entry: Entry
    mutated: tuple[str, ...] = ("*",)
    weight: float = 1.0
    cost_ms: float = 50.0
    slow_s: float = 60.0

    def mutator(self, file: Path, content: bytes) -> Mutator:
        """How one of its files is mutated."""
        return mutate_onnx if self.name == "onnx" else mutator_of(file.name, content)


def _cli(*arguments: str | Path) -> int:
    from deploykit.cli import main

    try:
        return main([str(a) for a in arguments])
    except SystemExit as error:  # argparse
        return int(error.code or 0)


def _only(folder: Path) -> Path:
    return next(p for p in sorted(folder.iterdir()) if p.suffix != ".bin")


def _onnx(folder: Path, scratch: Path, number: int) -> int:
    path, out = folder / "model.onnx", scratch / "out"
    if number % 300 == 0:  # real runners in the loop
        return _cli("convert", path, "--to", "tflite,ncnn", "--samples", "1", "--quiet",
                    "--timeout", "20", "--out", out)  # fmt: skip
    if number % 10 == 0:
        return _cli("convert", path, "--to", "all", "--no-verify", "--quiet", "--out", out)
    return _cli("inspect", path)


def _artefact(runners: tuple[str, ...]) -> Entry:
    def entry(folder: Path, scratch: Path, number: int) -> int:
        path = _only(folder)
        if number % 50 == 0:  # a crash of the runtime is a verdict
            import numpy as np

            from deploykit.runners.base import RunnerSpec
            from deploykit.runners.process import open_runner

            name = runners[number // 50 % len(runners)]
            with open_runner(RunnerSpec(name, str(path), {}, 20.0)) as runner:
                runner.run({"input": np.zeros((1, 3, 8, 8), np.float32)})
        return _cli("inspect", path)

    return entry


def _bundle(folder: Path, scratch: Path, number: int) -> int:
    from deploykit.bundle import CALIBRATION, GOLDEN, read_bundle
    from deploykit.calibration.table import CalibrationTable
    from deploykit.golden import Golden

    if number % 200 == 0:
        return _cli("verify", folder, "--timeout", "20")
    read_bundle(folder).to_json()
    Golden.from_npz(folder / GOLDEN)
    CalibrationTable.load(folder / CALIBRATION).to_json()
    return 0


def _calibration(folder: Path, scratch: Path, number: int) -> int:
    if number % 10 == 0:
        model = scratch.parent / "onnx" / "net" / "model.onnx"
        return _cli("convert", model, "--int8", "--no-verify", "--quiet", "--out", scratch / "out",
                    "--calibration-table", folder / "calibration.json")  # fmt: skip
    return _bundle(folder, scratch, number)


def _preprocess(folder: Path, scratch: Path, number: int) -> int:
    import numpy as np

    from deploykit.preprocess_flags import read_contract

    contract = read_contract(_only(folder))
    if max(contract.size) <= 512:
        contract.apply(np.zeros((9, 11, 3), np.uint8))
    contract.to_dict()
    return 0


def _data(folder: Path, scratch: Path, number: int) -> int:
    from deploykit.calibration.data import load_calibration_data
    from deploykit.preprocess import Preprocess
    from deploykit.tensors import TensorSpec

    path = _only(folder)
    path = folder if path.suffix not in (".npy", ".npz") else path
    spec = TensorSpec("input", (1, 3, 8, 8), layout="NCHW")
    data = load_calibration_data(path, spec, Preprocess(size=(8, 8)), limit=4)
    for index in range(data.count):
        data.read(index)
    return 0


def _checkpoint(folder: Path, scratch: Path, number: int) -> int:
    from deploykit.sources.load import load, open_torch_source
    from deploykit.sources.options import LoadOptions

    path = _only(folder)
    named = {"arch": ARCH, "arch_kwargs": ARCH_OPTIONS} if path.suffix == ".safetensors" else {}
    if number % 250 == 0:  # once more with the export
        load(path, options=LoadOptions(input_shape=ARCH_INPUT, **named))
    open_torch_source(path, LoadOptions(input_shape=ARCH_INPUT, **named))
    return 0


def _program(folder: Path, scratch: Path, number: int) -> int:
    """Distinguished and scanned; what passes goes into a child process, which takes seconds."""
    from deploykit.sources.detect import SourceKind, detect
    from deploykit.sources.program_archive import check_program_archive

    path = _only(folder)
    kind = detect(path).kind
    if number % 3000 == 1500:
        return _checkpoint(folder, scratch, number)
    if kind is SourceKind.EXPORTED_PROGRAM:
        check_program_archive(path)
    return 0


def _tensorflow(folder: Path, scratch: Path, number: int) -> int:
    path = _only(folder)
    return _cli("inspect", path if path.suffix == ".keras" else folder)


FORMATS = (
    Format("onnx", _onnx, weight=1.5, cost_ms=250, slow_s=120),
    Format("preprocess", _preprocess, weight=14.0, cost_ms=9),
    Format("manifest", _bundle, ("deploykit.json",), weight=8.0, cost_ms=15),
    Format("golden", _bundle, ("golden.npz",), weight=2.0, cost_ms=70),
    Format("calibration", _calibration, ("calibration.json",), weight=3.0),
    Format("images", _data, weight=20.0, cost_ms=3),
    Format("arrays", _data, weight=16.0, cost_ms=5),
    Format("tflite", _artefact(("litert", "litert-reference")), weight=1.0, cost_ms=120),
    Format("ncnn", _artefact(("ncnn",)), weight=1.5),
    Format("coreml", _artefact(("coreml-reference",)), ("**/*.mlmodel", "**/*.json", "**/*.bin"),
           weight=1.5),
    Format("ort", _artefact(("onnxruntime-ort",)), weight=0.6, cost_ms=100),
    Format("pt", _checkpoint, weight=2.0, cost_ms=80),
    Format("safetensors", _checkpoint, weight=6.0, cost_ms=20),
    Format("pt2", _program, weight=11.0, cost_ms=8),
    Format("torchscript", _program, weight=11.0, cost_ms=3),
    Format("keras", _tensorflow, weight=2.5, cost_ms=20),
    Format("saved_model", _tensorflow, weight=2.5, cost_ms=20),
)  # fmt: skip


def choose_file(format_: Format, folder: Path, rng: random.Random) -> Path:
    """One of the files of a seed that are mutated."""
    files = sorted({f for p in format_.mutated for f in folder.glob(p) if f.is_file()})
    return rng.choice(files)
