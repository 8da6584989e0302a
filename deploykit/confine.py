"""What a process may no longer do, once it has closed these doors behind itself.

A child that runs a program from a file calls `confine_process` first. On Linux it then writes no
file outside its folder (Landlock), opens no connection, starts no other program and looks into no
other process (a seccomp filter), and takes no more memory than it is given. The packages that bind
the two are early versions, so the few system calls are made here. Where the system lacks one of
them (another system, an old kernel) the process goes on without, and `confine_process` says which.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 38, 4
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION = 1
_PATH_BENEATH = 1
# Rights of Landlock's interface 1: write, remove and make; 2 added moving, 3 truncating, 5 ioctl.
_WRITE_FILE, _REFER, _TRUNCATE, _IOCTL = 1 << 1, 1 << 13, 1 << 14, 1 << 15
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_TCP = 0b11  # bind and connect, from interface 4
_OF_FILES = _WRITE_FILE | _TRUNCATE | _IOCTL
_SECCOMP_MODE_FILTER, _SECCOMP_TSYNC = 1, 1
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
# Architecture → its number, `seccomp`, and what is refused: socket, connect, execve, execveat,
# ptrace, process_vm_writev, io_uring_setup (which would do all of them), unshare, mount.
_SYSTEMS = {
    "x86_64": (0xC000003E, 317, (41, 42, 59, 322, 101, 311, 425, 272, 165)),
    "aarch64": (0xC00000B7, 277, (198, 203, 221, 281, 117, 271, 425, 97, 40)),
}
_X32 = 0x40000000


def confine_process(folder: Path | None, memory_bytes: int) -> tuple[str, ...]:
    """Confine this process for the rest of its life.

    To be called before threads start: Landlock holds for the calling thread and those that it
    starts.

    Args:
        folder: Where it may still write; None for nowhere. ``/dev/null`` always may be.
        memory_bytes: What it may allocate, beyond what it has.

    Returns:
        In words, what this system cannot keep it from.
    """
    lacking = list(_limit_memory(memory_bytes))
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is None or platform.machine() not in _SYSTEMS:
        return (*lacking, "writing files", "the network and other programs")
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        _restrict_files(libc, [Path(os.devnull), *([folder] if folder else [])])
    except OSError:
        lacking.append("writing files (this kernel has no Landlock)")
    try:
        _filter_calls(libc)
    except OSError:
        lacking.append("the network and other programs (this kernel has no seccomp)")
    return tuple(lacking)


def _limit_memory(memory_bytes: int) -> Sequence[str]:
    try:
        import resource
    except ImportError:
        return ("taking memory",)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return ("taking memory",)
    held = 0
    with contextlib.suppress(OSError, ValueError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[5]
        held = int(pages) * os.sysconf("SC_PAGE_SIZE")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = held + memory_bytes if hard < 0 else min(held + memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return ()


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _restrict_files(libc: ctypes.CDLL, writable: Sequence[Path]) -> None:
    flag = ctypes.c_uint32(_LANDLOCK_VERSION)
    version = _call(libc, _LANDLOCK_CREATE, None, ctypes.c_size_t(0), flag)
    rights = _WRITE_FILE | _REMOVE_AND_MAKE
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL)):
        rights |= right if version >= since else 0
    # File rights, then TCP rights, then (from 6) the sockets and signals of other processes.
    attributes = struct.pack("=QQQ", rights, _TCP, 0b11)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _call(
        libc, _LANDLOCK_CREATE, attributes[:size], ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    try:
        for path in writable:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                allowed = rights if path.is_dir() else rights & _OF_FILES
                rule = struct.pack("=Qi", allowed, descriptor)
                _call(libc, _LANDLOCK_ADD, rules, _PATH_BENEATH, rule, ctypes.c_uint32(0))
            finally:
                os.close(descriptor)
        _call(libc, _LANDLOCK_RESTRICT, rules, ctypes.c_uint32(0))
    finally:
        os.close(rules)


def _filter_calls(libc: ctypes.CDLL) -> None:
    """Refuse the calls of `_SYSTEMS` with EPERM, in every thread."""
    architecture, seccomp, refused = _SYSTEMS[platform.machine()]
    count = len(refused)
    # Jumps count from the next instruction. The last two are "allow", then "refuse".
    program = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 0, count + 3, architecture),
        (_LOAD, 0, 0, 0),
        (_JUMP_GREATER_EQUAL, count + 1, 0, _X32),
        *((_JUMP_EQUAL, count - index, 0, number) for index, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    _call(
        libc,
        seccomp,
        ctypes.c_uint(_SECCOMP_MODE_FILTER),
        ctypes.c_uint(_SECCOMP_TSYNC),
        header,
    )
