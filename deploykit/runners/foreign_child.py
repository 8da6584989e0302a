"""Starts `deploykit.runners.child` in an interpreter that deploykit is not installed in.

    python -I foreign_child.py '{"deploykit": "/where/it/is/deploykit"}'

Run as a file, by a separate environment (`deploykit.runners.environments`). The packages named
are found where the parent has them, and nothing else of the parent's is: its site-packages may hold
another numpy. This file uses the standard library only, and imports nothing of deploykit before
the finder stands.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType


class PackageFinder(importlib.abc.MetaPathFinder):
    """Finds the named top-level packages in their folders."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = dict(folders)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        folder = self._folders.get(fullname)
        if folder is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, Path(folder) / "__init__.py", submodule_search_locations=[folder]
        )


if __name__ == "__main__":
    sys.meta_path.insert(0, PackageFinder(json.loads(sys.argv[1])))
    sys.argv[1:] = []
    runpy.run_module("deploykit.runners.child", run_name="__main__", alter_sys=True)
