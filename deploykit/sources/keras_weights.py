"""What the weights of a .keras file refer to outside of it, read before Keras loads them.

``model.weights.h5`` is an HDF5 file. HDF5 follows links to other files while it reads, keeps the
bytes of a dataset in other files (external storage) and puts a dataset together from other files
(virtual datasets): such weights would bring what any file of this machine says into the network.
Links are looked at here, never followed. HDF5 is read by C code, so this runs in the child process
that loads the model.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploykit.errors import SourceError
from deploykit.sources.keras_archive import WEIGHTS


def check_keras_weights(path: Path) -> None:
    """Refuse a .keras file whose weights refer to other files. Needs h5py, which Keras brings.

    Raises:
        SourceError: they do, or they are damaged.
    """
    import h5py

    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(WEIGHTS)
        with h5py.File(io.BytesIO(content), "r") as file:
            found = list(dict.fromkeys(_references(file)))
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise SourceError(
            f"the weights of {path} ({WEIGHTS}) are damaged: {error}", advice="get the file again"
        ) from error
    if found:
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise SourceError(
            f"the weights of {path} refer to other files ({', '.join(found[:4])}{more}); they were "
            "not loaded",
            expected="weights that lie in the file itself",
            advice="save it again with model.save(); or --trust-code, if you made it yourself",
        )


def _references(file: Any) -> Iterator[str]:
    """In words, everything in the file that HDF5 would read from elsewhere."""
    import h5py

    groups, seen = [file["/"]], set()
    while groups:
        group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # hard links may lead in a circle
            continue
        seen.add(address)
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield f"the link '{name}' to {link.filename}"
            elif isinstance(link, h5py.HardLink):
                item = group[name]
                if isinstance(item, h5py.Group):
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    yield from _storage_of(item, name)


def _storage_of(dataset: Any, name: str) -> Iterator[str]:
    for file_name, _, _ in dataset.external or ():
        yield f"the data of '{name}' in {file_name}"
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != ".":
                yield f"the data of '{name}' in {source.file_name}"
