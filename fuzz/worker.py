"""The child that mutates and reads: one line of JSON in (format, number), one out (what came of it).

It runs the entry points in its own process, so that most inputs cost milliseconds. Whatever ends it
(a crash of native code) or stops it is the parent's to see.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz.formats import FORMATS, Format, choose_file

_BY_NAME = {f.name: f for f in FORMATS}
_MEMORY_BYTES = 6 << 30


def main() -> None:
    """Answer until the input ends."""
    seeds, seed = Path(sys.argv[1]), sys.argv[2]
    prepare(seeds)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES * 4, _MEMORY_BYTES * 4))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        name, number = json.loads(line)
        print(json.dumps(run_one(seeds, seed, _BY_NAME[name], number)), file=replies, flush=True)


def prepare(seeds: Path) -> None:
    """Make this process one that reads inputs below ``seeds``."""
    os.chdir(seeds)
    # Most of what a command on a small file costs: the list of installed packages, read five times.
    importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)
    _raise_bugs()


@dataclass(frozen=True)
class OddInput:
    """One input.

    Attributes:
        folder: The seed's folder.
        file: The file in it that is mutated.
        content: What stands in it instead.
    """

    folder: Path
    file: Path
    content: bytes

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The odd file stands for the sound one within the block."""
        sound = self.file.read_bytes()
        self.file.write_bytes(self.content)
        try:
            yield
        finally:
            self.file.write_bytes(sound)


def odd_input(seeds: Path, seed: str, format_: Format, number: int) -> OddInput:
    """The input of that number, the same for the same seeds and seed."""
    rng = random.Random(f"{seed}:{format_.name}:{number}")
    folder = rng.choice(sorted(p for p in (seeds / format_.name).iterdir() if p.is_dir()))
    file = choose_file(format_, folder, rng)
    sound = file.read_bytes()
    return OddInput(folder, file, format_.mutator(file, sound)(sound, rng))


def run_one(seeds: Path, seed: str, format_: Format, number: int) -> dict[str, object]:
    """Mutate, read, and describe the outcome."""
    odd = odd_input(seeds, seed, format_, number)
    scratch = seeds / "scratch"
    scratch.mkdir(exist_ok=True)
    _reset_peak()
    before, start = _peak_mb(), time.monotonic()
    try:
        with odd.in_place():
            outcome, detail = read_one(format_, odd.folder, scratch, number)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "outcome": outcome,
        "detail": detail,
        "seconds": time.monotonic() - start,
        "mb": _peak_mb() - before,
        "size_mb": len(odd.content) / 2**20,
    }


def read_one(format_: Format, folder: Path, scratch: Path, number: int) -> tuple[str, str]:
    """Run the entry point; what came of it, and for a bug where it came from."""
    from deploykit.errors import DeploykitError

    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = format_.entry(folder, scratch, number)
    except (DeploykitError, MemoryError):
        return "refused", ""
    except Exception as error:
        return "traceback", describe(error)
    if code == 70:
        return "traceback", text.getvalue()[-300:]
    return ("accepted" if code == 0 else "refused"), text.getvalue()[:200]


def describe(error: BaseException) -> str:
    """Type and words of an exception, and the last of our own lines that it came through."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__)
        if "/deploykit" in f.filename and "site-packages" not in f.filename
    ]  # fmt: skip
    ours = [f for f in frames if "/cli/" not in f.filename]
    where = "".join(f" < {Path(f.filename).name}:{f.lineno} {f.name}" for f in ours[-3:][::-1])
    return f"{type(error).__name__}: {str(error)[:120]}{where}"


def _raise_bugs() -> None:
    from deploykit.cli import guard

    def raise_it(error: Exception, show_traceback: bool) -> int:
        raise error

    guard.tell_bug = raise_it


def _peak_mb() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
