"""The one place that starts processes.

Every child is a Python interpreter that imports from where this process does and from nowhere else:
never from the current folder, in which a file such as ``numpy.py`` may lie beside the user's model.
Its environment holds the variables of `_KEPT` and no others, so that none of them makes a runtime
load code or changes a result. It is in a separate session: Ctrl-C reaches the parent alone, which
then ends it with all that it started.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

#: A Python that becomes another program, in another folder.
_BECOME = "import os, sys; os.chdir(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"

Stream = int | IO[bytes] | None

#: Where things are, the user's language, how a GPU's driver and thread pools are set up, and how
#: the network is reached (pip). Whoever needs another one in a child sets it in ``variables``.
_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TMP|TEMP|XDG_\w+|DEPLOYKIT_\w+"
    r"|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|USERPROFILE|APPDATA|LOCALAPPDATA|PROGRAMDATA"
    r"|PROGRAMFILES|NUMBER_OF_PROCESSORS|PROCESSOR_\w+"
    r"|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|DISPLAY|WAYLAND_DISPLAY"
    r"|(OMP|KMP|MKL|OPENBLAS|GOTO|VECLIB|LP|VK|MESA|LIBGL|GALLIUM|CUDA|NVIDIA|ROCR|HIP)_\w+"
    r"|(HTTP|HTTPS|FTP|ALL|NO)_PROXY|(http|https|ftp|all|no)_proxy|PIP_\w+|SSL_CERT_\w+"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NETRC"
)


def start_child(
    arguments: Sequence[str],
    *,
    isolated: bool = False,
    interpreter: str = "",
    variables: Mapping[str, str] | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a Python interpreter.

    Args:
        arguments: What follows its name and our options, e.g. ``["-m", "package.module"]``.
        isolated: It imports from its own installation alone (Python's ``-I``), and not from where
            this process does.
        interpreter: Another interpreter, which is always isolated; empty for our own.
        variables: Environment variables that it has besides the usual ones.
        stdin: As for `subprocess.Popen`; unbuffered where it is a pipe.
        stdout: Likewise.
        stderr: Likewise.

    Raises:
        OSError: it cannot be started.
    """
    environment = {k: v for k, v in os.environ.items() if _KEPT.fullmatch(k)}
    # Whatever the locale says: what we write and read is UTF-8.
    environment |= {"PYTHONUTF8": "1"}
    if isolated or interpreter:
        command = [interpreter or sys.executable, "-I"]
    else:
        command = [sys.executable, "-P"]
        environment["PYTHONPATH"] = os.pathsep.join(importable_folders())
    return subprocess.Popen(
        [*command, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        bufsize=0,
        env={**environment, **(variables or {})},
        start_new_session=True,
    )


def run_child(
    arguments: Sequence[str],
    *,
    timeout_s: float | None,
    input_bytes: bytes = b"",
    isolated: bool = False,
    interpreter: str = "",
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Start a Python interpreter, feed it, and wait for its end.

    Args:
        arguments: As for `start_child`, and so are the others.
        timeout_s: Seconds that it may take; None for as long as it likes.
        input_bytes: What it reads from its standard input.

    Returns:
        Its exit code, and its output as text (what is not UTF-8 is replaced).

    Raises:
        subprocess.TimeoutExpired: it took longer, and was ended with all that it started.
        OSError: it cannot be started.
    """
    process = start_child(
        arguments,
        isolated=isolated,
        interpreter=interpreter,
        variables=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            output, errors = process.communicate(input_bytes, timeout_s)
        except BaseException:
            kill_child(process)
            raise
    return subprocess.CompletedProcess(
        process.args, process.returncode, _text(output), _text(errors)
    )


def run_program(
    command: Sequence[str], *, folder: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a program of the system in a folder, with the variables of a child, to its end.

    Args:
        command: Its name, found on the path, and its arguments.
        folder: Its current folder.
        timeout_s: Seconds that it may take.

    Returns:
        As `run_child`; its standard input is empty.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was ended with all that it started.
    """
    return run_child(["-c", _BECOME, str(folder), *command], isolated=True, timeout_s=timeout_s)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def kill_child(process: subprocess.Popen[bytes]) -> None:
    """End a child at once, with all that it started."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def importable_folders() -> list[str]:
    """The folders that this process imports from, without the current one.

    The current folder stays only where deploykit itself is imported from it (a checkout that is
    not installed).
    """
    own = str(Path(__file__).resolve().parent.parent)
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # it was removed
        here = ""
    folders = [str(Path(entry).absolute()) for entry in sys.path if entry]
    if own == here:
        return folders
    return [folder for folder in folders if folder != here and str(Path(folder).resolve()) != here]
