"""What a TorchScript file may hold: real networks pass, and what does more is refused unread."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from deploykit.cli import main
from deploykit.errors import SourceError
from deploykit.sources.load import load
from deploykit.sources.options import LoadOptions
from deploykit.sources.torchscript_scan import _faults, check_torchscript

CLASS = "class M(Module):\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n"


class Writes(nn.Module):
    """Writes a file when it is run."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save([x], self.path)
        return x


class WritesOnLoad(Writes):
    """Writes a file when it is loaded."""

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.training = state[1]
        self.path = "x"
        torch.save([state[0]], "mark_of_load")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file("/etc/hostname", False, 1)


class Forks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(torch.relu, x))


class Prints(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print(x)
        return x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Writes("mark"), "torch.save"),
        (lambda: WritesOnLoad("mark"), "torch.save"),
        (Reads, "torch.from_file"),
        (Forks, "fork"),
        (Prints, "print"),
    ],
)
def test_programs_that_do_more_than_compute(
    make: Callable[[], nn.Module],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(make().eval()).save("program.pt")
    for mark in Path().glob("mark*"):  # tracing does not run it, but saving may
        mark.unlink()
    assert main(["inspect", "program.pt", "--input", "1x3x8x8"]) == 2
    assert words in capsys.readouterr().err
    assert [p.name for p in Path().iterdir()] == ["program.pt"]


@pytest.mark.parametrize(
    "line",
    [
        'f = torch.save\n    f([x], "a")',
        't = torch\n    t.save([x], "a")',
        'o = ops\n    o.aten.save([x], "a")',
        'ops.aten.save([x], "a")',
        'ops.image.write_file("a", x)',
        'torch . save ([x], "a")',
        'torch.\n    save([x], "a")',
        'annotate(List[Tensor], [x]).save("a")',
        '(x).save("a")',
        'getattr([x], "save")("a")',
        'g = getattr\n    g([x], "save")("a")',
        'getattr([x], "\\x73ave")("a")',
        "print(x)",
        "p = print",
        "fork(x)",
        "unknown(x)",
        "x.set_(y)",
        "x.resize_storage",
        "torch.save # hidden",
        "tоrch.relu(x)",
        'r"\\" + torch.save',
        "x = __torch__.torch.classes.aoti.Model()",
        "torch.jit.fork(x)",
        "ops.prim.PythonOp(x)",
        "ops.prim.rpc_sync(x)",
        'torch.relu(x)\x00torch.save([x], "a")',
        'torch.relu(x)\\\n  torch.save([x], "a")',
    ],
)
def test_ways_around_the_list(line: str) -> None:
    code = f"{CLASS}    {line}\n    return x\n"
    # These are known, and nothing of them reads or writes a file.
    if line == "x.resize_storage":
        assert not list(_faults(code.encode()))
        return
    assert list(_faults(code.encode())), line


def test_what_networks_hold_is_let_through() -> None:
    body = (
        "    _0 = __torch__.torch.nn.functional.relu\n"
        "    conv = self.conv\n"
        "    if torch.eq(torch.len(torch.size(x)), 4):\n      pass\n"
        '    else:\n      ops.prim.RaiseException("don\\\'t: \\n", "builtins.ValueError")\n'
        "    for _1 in range(2):\n      x0 = torch.add_(x, 1, alpha=1)\n"
        '    m = getattr(self.layers, "0")\n'
        "    y = (conv).forward(_0(x, True, ), )\n"
        "    return torch._convolution(y, annotate(List[int], [1, 1]), -1.5e-05, CONSTANTS.c0)\n"
    )
    assert list(_faults((CLASS + body).encode())) == []


@pytest.mark.parametrize("how", ["script", "trace"])
def test_networks_of_torchvision(how: str, tmp_path: Path) -> None:
    import torchvision

    network = torchvision.models.shufflenet_v2_x0_5().eval()
    example = torch.zeros(1, 3, 32, 32)
    program = torch.jit.script(network) if how == "script" else torch.jit.trace(network, example)
    program.save(tmp_path / "net.pt")
    check_torchscript(tmp_path / "net.pt")
    model = load(tmp_path / "net.pt", options=LoadOptions(input_shape=(1, 3, 32, 32)))
    assert model.outputs[0].shape == (1, 1000)


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "relu.pt"
    torch.jit.trace(nn.ReLU(), torch.zeros(1, 3, 8, 8)).save(path)
    return path


def test_archives_that_torch_reads_otherwise(relu: Path, tmp_path: Path) -> None:
    def added(name: str) -> Path:
        path = tmp_path / "changed.pt"
        path.write_bytes(relu.read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"")
        return path

    for name, words in (
        ("RELU/DATA.PKL", "two members of one name"),
        ("other/code/x.py", "several archives"),
        ("relu/model.json", "torch 1.0"),
    ):
        with pytest.raises(SourceError, match=words):
            check_torchscript(added(name))
    data = bytearray(relu.read_bytes())
    data[4:8] = b"PTMF"
    relu.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="flatbuffer"):
        check_torchscript(relu)


def test_trust_lifts_the_list_and_says_so(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prints.pt"
    torch.jit.script(Prints().eval()).save(path)
    with pytest.raises(SourceError, match="--trust-code"):
        load(path, options=LoadOptions(input_shape=(1, 3, 8, 8)))
    for flag in ("--trust-code", "--trust-pickle"):
        main(["inspect", str(relu), "--input", "1x3x8x8", flag])
        assert "is not checked for code" in capsys.readouterr().err
    assert LoadOptions(trust_pickle=True) == LoadOptions(trust_code=True)
    assert LoadOptions.from_dict(LoadOptions(trust_code=True).to_dict()).trust_code
