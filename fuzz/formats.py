"""What is fuzzed: each format, which of a seed's files is mutated, and the entry point it goes to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutate import Mutator, mutator_of
from fuzz.onnx_odd import mutate_onnx

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
        slow_s: Beyond this, an input counts as a hang.
    """

    name: str
    entry: Entry
    mutated: tuple[str, ...] = ("*",)
    weight: float = 1.0
    slow_s: float = 30.0

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
        if number % 100 == 0:  # a crash of the runtime is a verdict
            import numpy as np

            from deploykit.runners.base import RunnerSpec
            from deploykit.runners.process import open_runner

            name = runners[number // 100 % len(runners)]
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

    from deploykit.cli.arguments import read_contract

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
    from deploykit.sources.load import open_torch_source
    from deploykit.sources.options import LoadOptions

    path = _only(folder)
    arch = "deploykit/mobilenet_v1" if path.suffix == ".safetensors" else ""
    open_torch_source(path, LoadOptions(arch=arch, input_shape=(1, 3, 16, 16)))
    return 0


def _program(folder: Path, scratch: Path, number: int) -> int:
    """Distinguished and scanned; what passes goes into a child process, which takes seconds."""
    from deploykit.sources.detect import SourceKind, detect
    from deploykit.sources.program_archive import check_program_archive

    path = _only(folder)
    kind = detect(path).kind
    if number % 1000 == 0:
        return _checkpoint(folder, scratch, number)
    if kind is SourceKind.EXPORTED_PROGRAM:
        check_program_archive(path)
    return 0


def _tensorflow(folder: Path, scratch: Path, number: int) -> int:
    path = _only(folder)
    return _cli("inspect", path if path.suffix == ".keras" else folder)


FORMATS = (
    Format("onnx", _onnx, weight=6.0),
    Format("preprocess", _preprocess, weight=2.0),
    Format("manifest", _bundle, ("deploykit.json",)),
    Format("golden", _bundle, ("golden.npz",)),
    Format("calibration", _calibration, ("calibration.json",)),
    Format("images", _data, weight=2.0),
    Format("arrays", _data, weight=2.0),
    Format("tflite", _artefact(("litert", "litert-reference"))),
    Format("ncnn", _artefact(("ncnn",))),
    Format("coreml", _artefact(("coreml-reference",)), ("**/*.mlmodel", "**/*.json", "**/*.bin")),
    Format("ort", _artefact(("onnxruntime-ort",))),
    Format("pt", _checkpoint),
    Format("safetensors", _checkpoint),
    Format("pt2", _program),
    Format("torchscript", _program),
    Format("keras", _tensorflow),
    Format("saved_model", _tensorflow),
)


def choose_file(format_: Format, folder: Path, rng: random.Random) -> Path:
    """One of the files of a seed that are mutated."""
    files = sorted({f for p in format_.mutated for f in folder.glob(p) if f.is_file()})
    return rng.choice(files)
