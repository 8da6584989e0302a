"""Every family at 224 x 224 through the whole pipeline: verdicts, and what the files are made of.

Structure is what makes a file fast; it is read from the files themselves, by the format's schema.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import deploykit
from deploykit.bundle import Bundle
from deploykit.model import Stage
from deploykit.passes.pipeline import advance
from deploykit.verdict import Verdict
from deploykit_tflite.store_weights import DYNAMIC_RANGE_MIN_ELEMENTS
from deploykit_zoo.full_size import NETWORKS

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "fp16", "w8", "int8")
RUNNERS = ("litert", "litert-reference")
RUN = "run python docs/make_full_size.py"

#: Operators that compute nothing and are only there for the layout.
LAYOUT_OPS = {"TRANSPOSE", "RESHAPE", "GATHER", "GATHER_ND", "SQUEEZE", "EXPAND_DIMS"}
#: Operators that a BatchNorm could have become.
ELEMENTWISE_OPS = {"ADD", "SUB", "MUL", "DIV"}


@dataclass(frozen=True)
class Architecture:
    """What the papers' tables say of a network, counted by hand.

    Attributes:
        additions: Inputs that are added to the output of their block.
        gates: Squeeze-and-excite blocks.
        hard_swishes: H-swish activations.
        swishes: SiLU activations, those inside of gates too.
        groups: Of its grouped 1x1 convolutions.
    """

    additions: int
    gates: int = 0
    hard_swishes: int = 0
    swishes: int = 0
    groups: int = 1

    def parts(self, precision: str) -> int:
        """Parts that each map is held in: a float file carries the groups apart from each other."""
        return 1 if precision == "int8" else self.groups


ARCHITECTURES = {
    "mobilenet_v1": Architecture(additions=0),
    "mobilenet_v2": Architecture(additions=10),
    "mobilenet_v3_small": Architecture(additions=6, gates=9, hard_swishes=19),
    "mobilenet_v3_large": Architecture(additions=10, gates=8, hard_swishes=21),
    "shufflenet_v1": Architecture(additions=13, groups=3),
    "shufflenet_v2": Architecture(additions=0),
    "efficientnet_b0": Architecture(additions=9, gates=16, swishes=49),
    "efficientnet_lite0": Architecture(additions=9),
    "ghostnet": Architecture(additions=16, gates=7),
    "mnasnet": Architecture(additions=10),
}


@dataclass(frozen=True)
class Op:
    """An operator of a file: its name, its tensors by index, its options as the schema has them."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class File:
    """A .tflite file: operators in order, each tensor's type, and constants' numbers of elements.

    Attributes:
        ops: In order.
        dtypes: Tensor → element type.
        constants: Tensor → number of elements, of those whose data are in the file.
    """

    ops: tuple[Op, ...]
    dtypes: Mapping[int, str]
    constants: Mapping[int, int]

    def named(self, *names: str) -> list[Op]:
        """Operators of these names."""
        return [op for op in self.ops if op.name in names]

    def of_two_maps(self, name: str) -> list[Op]:
        """Operators of that name that read no constant."""
        return [op for op in self.named(name) if not self.constants.keys() & set(op.inputs)]

    def readers(self, op: Op) -> list[Op]:
        """Operators that read what one writes."""
        return [reader for reader in self.ops if set(reader.inputs) & set(op.outputs)]


@dataclass(frozen=True)
class Converted:
    """A network's bundle, its files, and the op types of its fused stage."""

    name: str
    bundle: Bundle
    files: Mapping[str, File]
    fused_ops: tuple[str, ...]


def _script() -> ModuleType:
    path = ROOT / "docs" / "make_full_size.py"
    spec = importlib.util.spec_from_file_location("make_full_size", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = _script()


def _read(path: Path) -> File:
    from ai_edge_litert import schema_py_generated as schema

    from deploykit_tflite.inspect_file import read_model

    model = read_model(path)
    (graph,) = model.subgraphs
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    types = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
    ops = []
    for op in graph.operators:
        name = names[model.operatorCodes[op.opcodeIndex].builtinCode]
        inputs = tuple(int(i) for i in op.inputs if i >= 0)
        ops.append(Op(name, inputs, tuple(map(int, op.outputs)), op.builtinOptions))
    held = {
        index: int(np.prod(tensor.shape)) if tensor.shape is not None else 1
        for index, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None
    }
    dtypes = {index: types[tensor.type] for index, tensor in enumerate(graph.tensors)}
    return File(tuple(ops), dtypes, held)


@pytest.fixture(scope="module", params=NETWORKS)
def converted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    bundle = PAGE.convert_network(name, folder)
    files = {a.precision: _read(folder / "bundle" / a.path) for a in bundle.artifacts}
    fused = advance(deploykit.load(folder / f"{name}.pt"), Stage.FUSED)
    return Converted(name, bundle, files, tuple(n.op_type for n in fused.graph.graph))


def _verdict(converted: Converted, precision: str, runner: str) -> Verdict:
    (artifact,) = [a for a in converted.bundle.artifacts if a.precision == precision]
    (verdict,) = [v for v in artifact.verdicts if v.runner_name == runner]
    return verdict


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_verdict_is_pass(converted: Converted, precision: str, runner: str) -> None:
    verdict = _verdict(converted, precision, runner)
    assert verdict.samples == PAGE.SAMPLES
    assert verdict.passed, (verdict.error, [c for c in verdict.checks if not c.passed])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_xnnpack_takes_all_in_one_partition(converted: Converted, precision: str) -> None:
    verdict = _verdict(converted, precision, "litert")
    assert verdict.runner is not None
    found = verdict.runner.details
    assert found["partitions"] == 1
    assert found["delegated_ops"] == found["ops"] == len(converted.files[precision].ops)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_is_there_for_the_layout(converted: Converted, precision: str) -> None:
    assert not {op.name for op in converted.files[precision].ops} & LAYOUT_OPS


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batch_normalization_is_folded(converted: Converted, precision: str) -> None:
    """What could be left of one multiplies or adds a constant for each channel."""
    kept = {"BatchNormalization", "Identity", "Dropout", "Constant", "Flatten"}
    assert not kept & set(converted.fused_ops)
    file = converted.files[precision]
    left = [
        op
        for op in file.named(*ELEMENTWISE_OPS)
        if any(file.constants.get(i, 1) > 1 for i in op.inputs)
    ]
    assert not left


@pytest.mark.parametrize("precision", PRECISIONS)
def test_additions_and_products_are_those_of_the_architecture(
    converted: Converted, precision: str
) -> None:
    has, file = ARCHITECTURES[converted.name], converted.files[precision]
    products = has.gates + has.swishes
    if precision == "int8":  # h-swish is x * relu6(x + 3) / 6
        products += has.hard_swishes
    assert len(file.of_two_maps("ADD")) == has.additions * has.parts(precision)
    assert len(file.of_two_maps("MUL")) == products
    assert not file.named("SUB", "DIV")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_activations_are_fused(converted: Converted, precision: str) -> None:
    has, file = ARCHITECTURES[converted.name], converted.files[precision]
    assert not [op.name for op in file.ops if op.name.startswith("RELU")]
    hard_swishes = 0 if precision == "int8" else has.hard_swishes
    assert len(file.named("HARD_SWISH")) == hard_swishes
    # A SiLU is x * sigmoid(x), and each gate of a network with SiLU ends in a sigmoid.
    sigmoids = has.swishes + has.gates if has.swishes else 0
    assert len(file.named("LOGISTIC")) == sigmoids


@pytest.mark.parametrize("precision", PRECISIONS)
def test_squeeze_and_excite_is_a_mean_two_convolutions_and_a_product(
    converted: Converted, precision: str
) -> None:
    has, file = ARCHITECTURES[converted.name], converted.files[precision]
    assert len(file.named("FULLY_CONNECTED")) == converted.fused_ops.count("Gemm")
    means = _means(file)
    assert len(means) == has.gates + has.parts(precision)  # the last is the one of the classifier
    for first, last in means[: has.gates]:
        assert first.options.keepDims
        assert last.options.keepDims
        inside = _between(file, last, first.inputs[0])
        assert {op.name for op in inside} <= {"CONV_2D", "LOGISTIC", "MUL"}
        assert len([op for op in inside if op.name == "CONV_2D"]) == 2


def _means(file: File) -> list[tuple[Op, Op]]:
    """First and last operator of each mean: of a large map, floats take the rows first."""
    found = []
    for op in file.named("MEAN"):
        if not [before for before in file.named("MEAN") if op.inputs[0] in before.outputs]:
            after = [reader for reader in file.readers(op) if reader.name == "MEAN"]
            found.append((op, after[0] if after else op))
    return found


def _between(file: File, mean: Op, source: int) -> list[Op]:
    """Operators from a mean to the product with what it was the mean of, which is omitted."""
    found: list[Op] = []
    waiting = file.readers(mean)
    ended = False
    while waiting:
        op = waiting.pop()
        if op.name == "MUL" and source in op.inputs:
            ended = True
        elif op not in found:
            found.append(op)
            waiting += file.readers(op)
    assert ended, f"no product with tensor {source}"
    return found


def test_int8_has_no_float_tensor_and_quantizes_nothing_again(converted: Converted) -> None:
    file = converted.files["int8"]
    assert set(file.dtypes.values()) <= {"INT8", "INT32"}
    assert not file.named("QUANTIZE", "DEQUANTIZE")


def test_w8_stores_weights_of_dense_kernels_as_integers(converted: Converted) -> None:
    """Depthwise kernels stay floats, since XNNPACK has none that mixes them; so do small ones."""
    file = converted.files["w8"]
    assert not file.named("QUANTIZE", "DEQUANTIZE")
    for op in file.named("CONV_2D", "FULLY_CONNECTED"):
        small = file.constants[op.inputs[1]] < DYNAMIC_RANGE_MIN_ELEMENTS
        assert file.dtypes[op.inputs[0]] == "FLOAT32"
        assert file.dtypes[op.inputs[1]] == ("FLOAT32" if small else "INT8")
    for op in file.named("DEPTHWISE_CONV_2D"):
        assert file.dtypes[op.inputs[1]] == "FLOAT32"


def test_fp16_differs_from_fp32_by_unpacked_weights_only(converted: Converted) -> None:
    half = converted.files["fp16"]
    unpacked = half.named("DEQUANTIZE")
    assert all(half.dtypes[op.inputs[0]] == "FLOAT16" for op in unpacked)
    assert all(op.inputs[0] in half.constants for op in unpacked)
    rest = [op.name for op in half.ops if op.name != "DEQUANTIZE"]
    assert rest == [op.name for op in converted.files["fp32"].ops]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_padded_max_pool_copies_nothing(converted: Converted, precision: str) -> None:
    file = converted.files[precision]
    assert not file.named("PADV2")
    pools = file.named("MAX_POOL_2D")
    assert len(pools) == (1 if converted.name.startswith("shufflenet") else 0)
    for pool in pools:
        (before,) = [op for op in file.ops if pool.inputs[0] in op.outputs]
        assert before.name == "CONV_2D"


def test_the_page_says_what_is_found(converted: Converted) -> None:
    here = PAGE.rows_of(converted.name, converted.bundle)
    page = PAGE.committed_rows().get(converted.name, [])
    expected = [PAGE.structure_of(row) for row in page]
    assert [PAGE.structure_of(row) for row in here] == expected, f"{RUN} {converted.name}"


def test_the_page_has_every_network_in_every_precision_on_every_runner() -> None:
    assert set(ARCHITECTURES) == set(NETWORKS)
    rows = PAGE.committed_rows()
    assert list(rows) == list(NETWORKS), f"{RUN} --missing"
    for name, lines in rows.items():
        found = [PAGE.structure_of(line) for line in lines]
        assert [cells[:3] for cells in found] == [
            (name, precision, runner) for precision in PRECISIONS for runner in RUNNERS
        ]
        assert {cells[-1] for cells in found} == {"pass"}
        assert {cells[4] for cells in found} == {"1", "-"}


def test_check_and_missing_find_what_is_stale_and_what_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command's own logic; a conversion gives what the page says, which is tested above."""
    rows, whole = PAGE.committed_rows(), PAGE.FILE.read_bytes()
    measured: list[str] = []

    def measure(name: str) -> list[str]:
        measured.append(name)
        return rows[name]

    page = tmp_path / "full_size.md"
    monkeypatch.setattr(PAGE, "FILE", page)
    monkeypatch.setattr(PAGE, "measure", measure)
    page.write_bytes(whole)
    assert PAGE.main(["--check"]) == 0

    stale = whole.replace(rows["mnasnet"][0].encode(), rows["mnasnet"][1].encode())
    page.write_bytes(stale)
    assert PAGE.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{RUN} mnasnet"
    assert page.read_bytes() == stale

    measured.clear()
    lines = whole.decode().splitlines(keepends=True)
    page.write_text("".join(line for line in lines if not line.startswith("| ghostnet ")))
    assert PAGE.main(["--missing"]) == 0
    assert measured == ["ghostnet"]
    assert page.read_bytes() == whole, f"{RUN} --missing"

    with pytest.raises(SystemExit) as caught:
        PAGE.main(["resnet"])
    assert caught.value.code == 2
