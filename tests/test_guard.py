"""The command line's last guard: signals, streams, the system's refusals, and bugs of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploykit.cli import guard, main, streams

_INSPECT = [sys.executable, "-m", "deploykit", "inspect"]


def test_a_bug_is_one_line_and_exit_code_70(
    capsys: pytest.CaptureFixture[str], bugs_are_told: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import deploykit.cli.targets as command

    def fail(_: object) -> int:
        error = KeyError("odd\n\x1b[2J")
        error.add_note("in the pass fuse_activations")
        raise error

    monkeypatch.setattr(command, "run", fail)
    assert main(["targets"]) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("internal error in the pass fuse_activations: KeyError: ")
    assert "\x1b" not in err
    assert "--traceback" in err
    assert main(["targets", "--traceback"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "100000"],
        ["--threads", "0"],
        ["--threads", "-3"],
        ["--threads", "9" * 5000],
        ["--threads", "1.5"],
        ["--samples", "1000000000"],
        ["--samples", "-1"],
        ["--timeout", "inf"],
        ["--timeout", "nan"],
        ["--timeout", "-1"],
        ["--timeout", "0"],
        ["--timeout", "1e300"],
        ["--timeout", "soon"],
        ["--calibration-samples", "-5"],
    ],
)
def test_numbers_out_of_range(
    capsys: pytest.CaptureFixture[str], tiny_onnx: Path, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(tiny_onnx), *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.15, 0.4, 0.8])
def test_a_signal_ends_a_conversion_within_two_seconds(
    tiny_onnx: Path, tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    out = tmp_path / "bundle"
    process = subprocess.Popen(
        [sys.executable, "-m", "deploykit", "convert", str(tiny_onnx), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for_handlers(process.pid)
    time.sleep(delay - 0.15)
    process.send_signal(number)
    start = time.monotonic()
    err = process.communicate(timeout=30)[1]
    assert time.monotonic() - start < 2.5
    if process.returncode == 0:  # it was done before the signal came
        return
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not out.exists()
    assert not list(tmp_path.glob(".bundle*"))


@pytest.mark.parametrize(
    ("number", "delay"), [(signal.SIGTERM, 1.5), (signal.SIGINT, 3.0), (signal.SIGTERM, 6.0)]
)
def test_a_signal_ends_the_import_and_the_export_of_torch(
    tmp_path: Path, number: signal.Signals, delay: float
) -> None:
    checkpoint = Path(__file__).parent.parent / "examples" / "ghostnet.pt"
    process = subprocess.Popen(
        [sys.executable, "-m", "deploykit", "inspect", str(checkpoint)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for_handlers(process.pid)
    time.sleep(delay)
    process.send_signal(number)
    start = time.monotonic()
    err = process.communicate(timeout=30)[1]
    assert time.monotonic() - start < 3
    assert process.returncode in (0, 130), err  # 0: it was done before
    assert "Traceback" not in err


def _wait_for_handlers(pid: int) -> None:
    for _ in range(1000):
        caught = next(
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("SigCgt")
        )  # fmt: skip
        if int(caught.split()[1], 16) & (1 << (signal.SIGTERM - 1)):
            return
        time.sleep(0.01)
    raise AssertionError("no handler was set")


def test_code_that_swallows_the_interrupt_is_ended() -> None:
    code = (
        "import time\nfrom deploykit.cli.guard import guarded\n"
        "def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(60)\n"
        "        except BaseException:\n"
        "            pass\n"
        "guarded(stubborn)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=10)[1]
    assert process.returncode == 130
    assert err.startswith("interrupted")


def test_an_error_that_an_interrupt_became_is_an_interruption() -> None:
    def command() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise SystemError("initialization raised unreported exception") from None
        return 0

    assert guard.guarded(command) == 130


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert guard.guarded(lambda: 7) == 7
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_reader_that_goes_away_changes_nothing(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "deploykit", "convert", str(tiny_onnx), "--no-verify", "--quiet",
         "--out", str(out)], stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "deploykit.json").exists()


def test_a_full_output_is_told_and_the_bundle_is_there(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deploykit", "convert", str(tiny_onnx), "--no-verify",
             "--quiet", "--out", str(out)], stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"
    assert (out / "deploykit.json").exists()


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tiny_onnx: Path, redirection: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *_INSPECT, str(tiny_onnx)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}],
)
def test_names_that_the_encoding_lacks(
    tiny_onnx: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    path = tmp_path / "é画像.onnx"
    tiny_onnx.rename(path)
    for model, code in ((path, 0), (tmp_path / "ü.onnx", 2)):
        done = subprocess.run(
            [*_INSPECT, str(model)], capture_output=True, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr


def test_a_limited_file_size_is_an_error(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 1; "$@"', "sh", sys.executable, "-m", "deploykit", "convert",
         str(tiny_onnx), "--no-verify", "--quiet", "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert not out.exists()


def test_too_long_paths(capsys: pytest.CaptureFixture[str], tiny_onnx: Path) -> None:
    long = "x" * 5000
    assert main(["convert", long]) == 2
    assert main(["convert", str(tiny_onnx), "--quiet", "--no-verify", "--out", long]) == 2
    assert main(["convert", str(tiny_onnx), "--preprocess", long]) == 2
    assert main(["verify", long]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_stream_escapes_and_keeps_json(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    stream = streams._Stream(streams.io.BufferedWriter(streams._Descriptor(descriptor)), "ascii")  # type: ignore[arg-type]
    stream.write('"\x1b[31m \u202e é 😀"\n')
    stream.flush()
    os.close(descriptor)
    text = (tmp_path / "out").read_text()
    assert text == '"\\u001b[31m \\u202e \\u00e9 \\ud83d\\ude00"\n'


def test_devices_and_pipes_are_no_models(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", "/dev/full", str(tmp_path / "pipe")):
        assert main(["inspect", path]) == 2
        assert "is a device, a pipe or a socket" in capsys.readouterr().err


def test_limits_of_the_command_line(capsys: pytest.CaptureFixture[str], tiny_onnx: Path) -> None:
    assert main(["inspect", str(tiny_onnx), "--max", "nodes=2"]) == 2
    assert "more than 2 nodes" in capsys.readouterr().err
    assert main(["inspect", str(tiny_onnx), "--max", "file_bytes=1K"]) == 2
    assert "more than 1,024" in capsys.readouterr().err
    for odd in ("nodes=0", "nodes=-1", "nodes=1e3", "nodes", "odd=3", "nodes=" + "9" * 30):
        assert main(["inspect", str(tiny_onnx), "--max", odd]) == 2
        assert "--max" in capsys.readouterr().err
