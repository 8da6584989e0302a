"""Hashes of every artefact that a checkout writes: two commits can be compared byte by byte.

    python runtime_tests/oracle/hash_artifacts.py --out hashes.json [--networks FOLDER] [NAME ...]

Conversions are byte-identical from run to run, so a refactoring may change no hash. Only the
command line is used, since its flags outlive moves and renames inside of the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

#: Targets → precisions: those that have the same ones are written by one command.
TARGETS: Mapping[str, tuple[str, ...]] = {
    "tflite,coreml,onnx": ("fp32", "fp16", "w8", "int8"),
    "ncnn": ("fp32", "fp16", "int8"),
}
#: Not artefacts: the manifest names versions and verdicts, golden vectors are a runtime's outputs.
_NOT_HASHED = ("deploykit.json", "golden.npz")


def family_sources() -> dict[str, Path]:
    """Name → checkpoint of every trained family."""
    return {f"family/{path.stem}": path for path in sorted(ROOT.glob("examples/checkpoints/*.pt"))}


def hash_source(source: Path, *, python: Path = Path(sys.executable)) -> dict[str, str]:
    """Path in the bundle → SHA-256, of all that a source becomes on every target.

    Args:
        source: What ``deploykit convert`` takes; it carries its calibration sample.
        python: The interpreter of the environment that deploykit is installed in.

    Raises:
        RuntimeError: a conversion failed; with its last words.
    """
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
        for targets, precisions in TARGETS.items():
            out = Path(folder) / targets / "model"
            out.parent.mkdir()
            flags = [f"--{precision}" for precision in precisions]
            command = [
                str(python),
                "-P",
                "-m",
                "deploykit",
                "convert",
                str(source),
                "--to",
                targets,
            ]
            command += [*flags, "--no-verify", "--quiet", "--name", "model", "--out", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(
                    f"{' '.join(command)} ended with {done.returncode}: {done.stderr}"
                )
            found |= {path: digest for path, digest in _hashes(out) if path not in _NOT_HASHED}
    return found


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the hashes of all sources, or of the named ones, as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of sources' names; default: all")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--networks", type=Path, help="a folder of further checkpoints")
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    given = parser.parse_args(arguments)
    sources = family_sources()
    if given.networks:
        sources |= {f"full_size/{p.stem}": p for p in sorted(given.networks.glob("*.pt"))}
    chosen = {
        name: path
        for name, path in sources.items()
        if not given.names or any(part in name for part in given.names)
    }
    hashes = {}
    for name, path in chosen.items():
        hashes[name] = hash_source(path, python=given.python)
        print(f"  {name}: {len(hashes[name])} files", flush=True)
    given.out.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
