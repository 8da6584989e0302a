"""Each test runs in a separate process: what is imported already would decide the outcome."""

from __future__ import annotations

import subprocess
import sys

_OWN = "from deploykit.own_process import claim_process\nclaim_process()\n"


def run_python(code: str, own: str = _OWN) -> None:
    done = subprocess.run(
        [sys.executable, "-c", own + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_onnx_ir_comes_without_sympy_and_sympy_comes_when_used() -> None:
    run_python(
        "import sys\n"
        "from deploykit.graph.lazy_sympy import import_onnx_ir\n"
        "import_onnx_ir()\n"
        "assert 'onnx_ir' in sys.modules and 'sympy' not in sys.modules\n"
        "import onnx_ir as ir\n"
        "ir.Shape([1, 'n', 3])\n"
        "assert 'sympy' not in sys.modules\n"
        "total = ir.SymbolicDim('n') * 2 + 1\n"
        "import sympy\n"
        "assert total.value == '2*n + 1', total.value\n"
        "assert isinstance(sympy.Max(sympy.Symbol('a'), 2), sympy.Max)\n"
        "assert ir.SymbolicDim(sympy.Symbol('m') + 1).value == 'm + 1'\n"
        "assert ir.SymbolicDim('max(a, 2)').evaluate({'a': 5}) == 5\n"
        "assert ir.SymbolicDim('floor(a / 2)').evaluate({'a': 5}) == 2\n"
    )


def test_nothing_changes_where_sympy_is_there() -> None:
    run_python(
        "import sympy, sys\n"
        "from deploykit.graph.lazy_sympy import import_onnx_ir\n"
        "import_onnx_ir()\n"
        "import onnx_ir._core\n"
        "assert onnx_ir._core.sympy is sympy is sys.modules['sympy']\n"
    )


def test_torch_finds_the_real_sympy_afterwards() -> None:
    run_python(
        "from deploykit.graph.lazy_sympy import import_onnx_ir\n"
        "import_onnx_ir()\n"
        "import torch, onnx_ir as ir\n"
        "program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 2),),\n"
        "    dynamic_shapes=({0: torch.export.Dim('n')},))\n"
        "model = torch.onnx.export(program, (), dynamo=True, verbose=False).model\n"
        "assert isinstance(model.graph.inputs[0].shape[0], ir.SymbolicDim)\n"
    )


def test_the_process_of_someone_who_imports_deploykit_has_the_real_sympy() -> None:
    run_python(
        "import sys\n"
        "from deploykit.graph.lazy_sympy import import_onnx_ir\n"
        "import_onnx_ir()\n"
        "import onnx_ir._core, types\n"
        "assert type(sys.modules['sympy']) is types.ModuleType\n",
        own="",
    )
