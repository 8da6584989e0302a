"""Import one module of timm or torchvision without all the others.

``import timm`` runs every model file of the package and all of torchvision: 1.6 CPU seconds and
190 MB, where one network needs 0.15 seconds and 20 MB. Both packages do that work in the
``__init__`` of a few folders only. Here those folders are put into ``sys.modules`` as packages
whose ``__init__`` has not run *yet*: submodules import as ever, and the first attribute that such
a package does not have makes its real ``__init__`` run, in the same module object. So code that
says ``import timm`` afterwards finds the whole package.

If a version of these libraries is built otherwise, the attempt is undone and the caller imports
the package in the plain way (`lazy_import` returns False).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

from deploykit.own_process import is_own_process

# Folders whose __init__ is put off, parents first.
_DEFERRED: Mapping[str, Sequence[str]] = {
    "torchvision": (
        "torchvision",
        "torchvision.models",
        "torchvision.ops",
        "torchvision.transforms",
    ),
    "timm": ("timm", "timm.models", "timm.data"),
}

# Names that the libraries' own modules take from a deferred folder: folder, the submodule that
# defines them, and which they are. No names: the submodule itself is what is taken.
_PROVIDED: Mapping[str, Sequence[tuple[str, str, tuple[str, ...]]]] = {
    "torchvision": (
        ("torchvision", "version", ("__version__",)),
        ("torchvision.transforms", "_functional_pil", ()),
        ("torchvision.transforms", "_functional_tensor", ()),
        ("torchvision.transforms", "functional", ("InterpolationMode",)),
    ),
    "timm": (
        ("timm", "version", ("__version__",)),
        (
            "timm.data",
            "constants",
            (
                "DEFAULT_CROP_PCT",
                "IMAGENET_DEFAULT_MEAN",
                "IMAGENET_DEFAULT_STD",
                "IMAGENET_INCEPTION_MEAN",
                "IMAGENET_INCEPTION_STD",
                "OPENAI_CLIP_MEAN",
                "OPENAI_CLIP_STD",
            ),
        ),
    ),
}


class DeferredPackage(ModuleType):
    """A package whose ``__init__`` runs when something is asked for that is not there yet."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        run_deferred(self)
        return getattr(self, name)


def run_deferred(module: ModuleType) -> None:
    """Run the ``__init__`` that was put off; nothing happens to any other module."""
    if isinstance(module, DeferredPackage):
        # First: the code may ask the module for what it defines.
        module.__class__ = ModuleType  # type: ignore[assignment]
        loader = module.__spec__.loader if module.__spec__ else None
        assert loader is not None
        loader.exec_module(module)


def lazy_import(library: str, module: str) -> bool:
    """Import ``module`` of ``library`` (``timm`` or ``torchvision``) and what it needs only.

    Returns:
        Whether ``module`` is now imported. False: nothing has changed, import the library plainly;
        so it is wherever the process is not deploykit's own.

    Raises:
        ModuleNotFoundError: the library is not installed.
    """
    if not is_own_process():
        return False
    if isinstance(sys.modules.get(library), ModuleType) and not isinstance(
        sys.modules[library], DeferredPackage
    ):
        return False  # it was imported whole already: there is nothing to gain
    before = set(sys.modules)
    try:
        if library == "timm" and importlib.util.find_spec("torchvision") is not None:
            _defer("torchvision")
        _defer(library)
        importlib.import_module(module)
    except Exception as error:
        _undo(before)
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise
        return False
    return True


def _defer(library: str) -> None:
    for name in _DEFERRED[library]:
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        package = DeferredPackage(name)
        package.__spec__ = spec
        package.__loader__ = spec.loader
        package.__package__ = name
        package.__path__ = spec.submodule_search_locations
        package.__file__ = spec.origin
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)
    for package_name, submodule, names in _PROVIDED[library]:
        provider = importlib.import_module(f"{package_name}.{submodule}")
        for name in names:
            # Versions differ in what they have; what is missing is asked for in the end, or not.
            if hasattr(provider, name):
                setattr(sys.modules[package_name], name, getattr(provider, name))


def _undo(before: set[str]) -> None:
    libraries = tuple(_DEFERRED)
    for name in [n for n in sys.modules if n not in before]:
        if name.partition(".")[0] in libraries:
            del sys.modules[name]
