"""Whenever the process that writes is killed, the old or the new bundle is there, whole.

Here are kills at every step of the writing, and some at random times; `make kills` does 300 of
those.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from deploykit import swap, temporary
from deploykit.bundle import check_replaceable, read_bundle, write_bundle
from deploykit.files import sha256_of
from deploykit.manifest import Bundle, BundleArtifact, BundleFile

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def bundle_of(name: str, scratch: Path) -> tuple[Bundle, dict[str, bytes]]:
    """A bundle of two files, whose content and manifest both say which bundle it is."""
    data = name.encode() * 4000
    files = {"net.bin": data, "net.package/weights": data[::-1]}
    listed = []
    for path, content in files.items():
        scratch.write_bytes(content)
        listed.append(BundleFile(path, sha256_of(scratch), len(content)))
    scratch.unlink()
    artifact = BundleArtifact("tflite", "fp32", "net.bin", tuple(listed), "fused", (), ())
    source = {"kind": "onnx", "file": "net.onnx", "sha256": "00", "arch": ""}
    return Bundle(name, source, {}, (), (), None, None, "reference", (artifact,)), files


def writer(folder: Path, *, fatal: int, writes: int, way: str) -> int:
    """Start a process that writes bundles, and kills itself at the step ``fatal`` (from 1)."""
    made = [bundle_of(f"bundle-{n}", folder.parent.parent / "scratch") for n in "01"]
    pid = os.fork()
    if pid:
        return pid
    count = 0

    def kill_at_step(_: str) -> None:
        nonlocal count
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    with contextlib.suppress(BaseException):
        temporary.step_hook = kill_at_step
        if way == "rename":
            swap.exchange = lambda *_: False  # type: ignore[assignment]
        for turn in range(writes):
            write_bundle(folder, *made[turn % 2], None, None)
        code = 0
    os._exit(code)


def check(folder: Path, *, was_there: bool) -> None:
    """What the next command finds."""
    check_replaceable(folder)  # as convert begins
    if not was_there and not folder.exists():
        return
    bundle = read_bundle(folder)
    data = (folder / "net.bin").read_bytes()
    assert data == bundle.name.encode() * 4000
    assert (folder / "net.package" / "weights").read_bytes() == data[::-1]


@pytest.mark.parametrize("way", ["exchange", "rename"])
def test_a_kill_at_every_step_leaves_the_old_or_the_new(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "out" / "bundle"
    folder.parent.mkdir()
    fatal, ending = 0, -1
    while ending:
        fatal += 1
        there = folder.exists()
        _, ending = os.waitpid(writer(folder, fatal=fatal, writes=3, way=way), 0)
        check(folder, was_there=there)
        assert ending in (0, signal.SIGKILL)
    assert fatal > 25  # three bundles: the folder, each half of three files, the swap
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"], "something was left behind"


def test_random_kills_leave_the_old_or_the_new(tmp_path: Path) -> None:
    random_kills(tmp_path, 30, seed=0)


def random_kills(place: Path, kills: int, seed: int) -> None:
    generator = random.Random(seed)
    folder = place / "out" / "bundle"
    folder.parent.mkdir()
    for count in range(kills):
        there = folder.exists()
        pid = writer(folder, fatal=0, writes=10**6, way=("exchange", "rename")[count % 2])
        time.sleep(generator.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        check(folder, was_there=there)
    os.waitpid(writer(folder, fatal=0, writes=1, way="exchange"), 0)
    check(folder, was_there=True)
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"], "something was left behind"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        random_kills(Path(name), int(sys.argv[1]), seed=int(sys.argv[2]))
    print(f"{sys.argv[1]} random kills: the old or the new bundle, each time")
