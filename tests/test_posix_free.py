"""What Windows lacks is needed neither for `import deploykit` nor for `--help` of any command."""

from __future__ import annotations

import subprocess
import sys

import pytest

# fcntl is not among them: `deploykit.temporary` imports it by the name of the platform.
POSIX_ONLY = ("grp", "posix_ipc", "pty", "pwd", "resource", "syslog", "termios", "tty")
BLOCKED = f"""
import sys
for name in {POSIX_ONLY!r}:
    sys.modules[name] = None  # an import of it raises ImportError
"""


@pytest.mark.parametrize("command", ["", "convert", "verify", "evaluate", "doctor"])
def test_help_needs_no_posix_module(command: str) -> None:
    arguments = [*([command] if command else []), "--help"]
    code = f"{BLOCKED}\nimport deploykit\nfrom deploykit.__main__ import main\n"
    code += f"sys.argv[1:] = {arguments!r}\nsys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: deploykit" in done.stdout
