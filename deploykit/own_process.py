"""Whether this process is deploykit's own: its command line, or a child that it started.

There, and only there, modules may be put into ``sys.modules`` in the place of packages that cost
seconds to import (timm, torchvision, sympy, what coremltools looks for). Whoever imports deploykit
finds those packages as they are.
"""

from __future__ import annotations

_OWN = [False]


def claim_process() -> None:
    """Say that the process is deploykit's own."""
    _OWN[0] = True


def is_own_process() -> bool:
    """Whether `claim_process` was called."""
    return _OWN[0]
