from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import deploykit
from deploykit.child_process import importable_folders, kill_child, run_child, start_child

_TELL = (
    "import json, os, sys\n"
    "print(json.dumps([sys.path, dict(os.environ), sys.flags.safe_path, sys.flags.isolated]))"
)


def told(**how: object) -> tuple[list[str], dict[str, str], bool, int]:
    done = run_child(["-c", _TELL], timeout_s=60, **how)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    path, variables, safe, isolated = json.loads(done.stdout)
    return path, variables, safe, isolated


def test_a_child_imports_from_where_we_do_without_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    before = [p for p in sys.path if p]
    monkeypatch.chdir(tmp_path)
    added = ["", str(tmp_path), ".", str(tmp_path / "link"), "elsewhere"]
    monkeypatch.setattr(sys, "path", [*added, *before])
    path, _, safe, _ = told()
    assert safe
    assert str(tmp_path / "elsewhere") in path
    assert not {"", ".", str(tmp_path), str(tmp_path / "link")} & set(path)
    assert [p for p in path if p in before] == list(dict.fromkeys(before))


def test_the_current_folder_stays_where_deploykit_is_imported_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Path(deploykit.__file__).resolve().parent.parent
    monkeypatch.chdir(own)
    monkeypatch.setattr(sys, "path", [str(own)])
    assert importable_folders() == [str(own)]


def test_variables_that_choose_code_do_not_reach_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {
        "PYTHONHOME": "/nowhere",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "LD_PRELOAD": "",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "ORT_LOAD_CONFIG_FROM_MODEL": "1",
        "KERAS_BACKEND": "torch",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _, variables, _, _ = told(variables={"MINE": "yes"})
    assert not set(hostile) & set(variables)
    assert (variables["MINE"], variables["OMP_NUM_THREADS"]) == ("yes", "1")
    assert variables["PATH"] == os.environ["PATH"]


def test_an_isolated_child_imports_from_its_installation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for how in ({"isolated": True}, {"interpreter": sys.executable}):
        path, variables, _, isolated = told(**how)
        assert isolated
        assert str(tmp_path) not in path
        assert "PYTHONPATH" not in variables


def test_what_is_said_and_heard_is_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    code = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"
    done = run_child(["-c", code], timeout_s=60, input_bytes="äß→".encode())
    assert done.stdout == "→ßä"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_child_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(inner.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        run_child(["-c", code], timeout_s=2)
    pid = (tmp_path / "pid").read_text()
    deadline = time.monotonic() + 10
    while (status := Path("/proc", pid, "stat")).exists():
        if status.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killing_a_child_that_has_ended_does_nothing() -> None:
    process = start_child(["-c", ""])
    process.wait()
    kill_child(process)
