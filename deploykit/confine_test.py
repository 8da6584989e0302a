from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from deploykit.child_process import run_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux closes these doors")

_TRY = """
import json, os, socket, subprocess, sys, threading
from pathlib import Path
from deploykit.confine import confine_process
scratch, outside = Path(sys.argv[1]), Path(sys.argv[2])
lacking = confine_process(scratch, 64 << 20)

def attempt(what):
    try:
        what()
    except BaseException as error:
        return type(error).__name__
    return "done"

def in_a_thread(what):
    found = []
    thread = threading.Thread(target=lambda: found.append(attempt(what)))
    thread.start(); thread.join()
    return found[0]

(scratch / "here").write_text("x")
tries = {
    "write": lambda: (outside / "new").write_text("x"),
    "truncate": lambda: os.truncate(outside / "old", 0),
    "append": lambda: open(outside / "old", "a").write("x"),
    "remove": lambda: (outside / "old").unlink(),
    "move out": lambda: (scratch / "here").rename(outside / "there"),
    "link out": lambda: os.link(scratch / "here", outside / "linked"),
    "folder": lambda: (outside / "folder").mkdir(),
    "tcp": lambda: socket.socket(),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "program": lambda: subprocess.run(["/bin/true"]),
    "system": lambda: os.execv("/bin/true", ["true"]),
    "memory": lambda: bytearray(1 << 30),
    "kill": lambda: os.kill(os.getppid(), 0),
}
found = {name: attempt(what) for name, what in tries.items()}
found["in a thread"] = in_a_thread(tries["write"])
open(os.devnull, "w").write("x")
print(json.dumps([lacking, found, (scratch / "here").read_text(), (outside / "old").read_text()]))
"""


def test_the_doors_are_closed(tmp_path: Path) -> None:
    scratch, outside = tmp_path / "scratch", tmp_path / "outside"
    scratch.mkdir()
    outside.mkdir()
    (outside / "old").write_text("dear")
    done = run_child(["-c", _TRY, str(scratch), str(outside)], timeout_s=60)
    assert done.returncode == 0, done.stderr
    lacking, found, here, old = json.loads(done.stdout)
    if lacking:
        pytest.skip(f"this kernel cannot keep a process from {', '.join(lacking)}")
    assert {name: result for name, result in found.items() if result == "done"} == {}
    assert found["memory"] == "MemoryError"
    assert (here, old) == ("x", "dear")
    assert [p.name for p in outside.iterdir()] == ["old"]
