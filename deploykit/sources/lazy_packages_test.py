"""Each test runs in a separate process: what is imported already would decide the outcome."""

from __future__ import annotations

import subprocess
import sys

import pytest

_OWN = "from deploykit.own_process import claim_process\nclaim_process()\n"


def run_python(code: str, own: str = _OWN) -> None:
    done = subprocess.run(
        [sys.executable, "-c", own + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_one_network_comes_alone_and_the_whole_package_when_asked_for() -> None:
    run_python(
        "import sys, torch\n"
        "from deploykit.sources.architecture import build_architecture\n"
        "torch.manual_seed(0)\n"
        "lazy = build_architecture('timm/ghostnet_050', {}).module.state_dict()\n"
        "build_architecture('torchvision/mobilenet_v2', {})\n"
        "assert 'timm.models.ghostnet' in sys.modules\n"
        "others = {'timm.models.vision_transformer', 'torchvision.datasets', 'timm.data.loader'}\n"
        "assert not others & set(sys.modules), others & set(sys.modules)\n"
        "import timm, timm.data, torchvision\n"
        "from timm.models import *\n"
        "assert timm.__version__ and torchvision.__version__\n"
        "assert len(timm.list_models()) > 500\n"
        "assert timm.models.ghostnet.GhostNet is GhostNet\n"
        "assert callable(timm.data.create_transform)\n"
        "assert callable(torchvision.models.resnet18) and callable(torchvision.ops.nms)\n"
        "assert torchvision.transforms.Compose and torchvision.datasets.FakeData\n"
        "torch.manual_seed(0)\n"
        "plain = timm.create_model('ghostnet_050').state_dict()\n"
        "assert list(lazy) == list(plain)\n"
        "assert all(torch.equal(lazy[k], plain[k]) for k in lazy)\n"
    )


def test_packages_that_are_imported_already_stay_as_they_are() -> None:
    run_python(
        "import timm, torchvision, types\n"
        "from deploykit.sources.architecture import build_architecture\n"
        "build_architecture('timm/ghostnet_050', {})\n"
        "build_architecture('torchvision/mobilenet_v2', {})\n"
        "assert type(timm) is types.ModuleType and type(torchvision) is types.ModuleType\n"
    )


def test_an_attempt_that_fails_is_undone_and_the_plain_import_serves() -> None:
    # As if a version of timm asked its package for something while it is imported.
    run_python(
        "import sys\n"
        "from deploykit.sources import lazy_packages\n"
        "provided = dict(lazy_packages._PROVIDED)\n"
        "lazy_packages._PROVIDED = {**provided, 'timm': (), 'torchvision': ()}\n"
        "assert lazy_packages.lazy_import('timm', 'timm.models.ghostnet') is False\n"
        "left = [n for n in sys.modules if n.split('.')[0] in ('timm', 'torchvision')]\n"
        "assert not left, left\n"
        "from deploykit.sources.architecture import build_architecture\n"
        "build_architecture('timm/ghostnet_050', {})\n"
    )


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_missing_is_named_with_its_extra(library: str) -> None:
    run_python(
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        f"absent = lambda n, *a: None if n.startswith({library!r}) else real(n, *a)\n"
        "importlib.util.find_spec = absent\n"
        "from deploykit.errors import MissingDependencyError\n"
        "from deploykit.sources.architecture import build_architecture\n"
        "try:\n"
        f"    build_architecture('{library}/mobilenet_v2', {{}})\n"
        "except MissingDependencyError as error:\n"
        "    assert 'deploykit[zoo]' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('it was built')\n"
    )


def test_the_process_of_someone_who_imports_deploykit_has_the_packages_as_they_are() -> None:
    run_python(
        "import sys, types\n"
        "from deploykit.sources.architecture import build_architecture\n"
        "build_architecture('torchvision/mobilenet_v2', {})\n"
        "assert type(sys.modules['torchvision']) is types.ModuleType\n"
        "assert 'torchvision.datasets' in sys.modules\n",
        own="",
    )
