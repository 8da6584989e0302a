"""What a pickle refers to, read from its opcodes; nothing in it is ever executed.

A pickle is a program for a small stack machine. Its only way to reach code is to name a global
(``module.attribute``), which the opcodes spell out; a pickle whose globals all rebuild tensors and
plain data is data.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import IO

#: The first pickle of a torch file from before 1.6 holds this number.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

#: Plain data that training scripts put beside their weights. ``weights_only`` loading has to be
#: told of it (`deploykit.sources.checkpoint`).
EXTRA_DATA_GLOBALS = frozenset(
    {
        "argparse.Namespace",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
    }
)

_DATA_GLOBALS = EXTRA_DATA_GLOBALS | {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "builtins.set",
    "builtins.frozenset",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
    "__builtin__.set",
    "_codecs.encode",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
}

_TORCH_DTYPES = frozenset(
    [
        "float",
        "float16",
        "float32",
        "float64",
        "half",
        "double",
        "bfloat16",
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint16",
        "uint32",
        "uint64",
        "complex32",
        "complex64",
        "complex128",
        "quint8",
        "qint8",
        "qint32",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    ]
)


@dataclass(frozen=True)
class PickleContent:
    """What one pickle refers to.

    Attributes:
        globals: Every ``module.attribute`` that it names, in order of first appearance.
        first_number: The number on top of the stack at its end, if the pickle is just that.
    """

    globals: tuple[str, ...]
    first_number: int | None = None

    @property
    def foreign_globals(self) -> tuple[str, ...]:
        """The globals that are not tensors or plain data."""
        return tuple(name for name in self.globals if not is_data_global(name))


def is_data_global(name: str) -> bool:
    """Whether a global rebuilds a tensor or plain data, and no more."""
    if name in _DATA_GLOBALS:
        return True
    module, _, attribute = name.rpartition(".")
    if module == "numpy.dtypes":
        return True
    if module == "torch._utils":
        return attribute.startswith("_rebuild_")
    if module in ("torch", "torch.cuda"):
        return attribute.endswith("Storage") or attribute in _TORCH_DTYPES
    return False


def scan_pickle(stream: IO[bytes] | bytes) -> PickleContent:
    """Read one pickle's opcodes; a stream is left just behind it.

    Raises:
        ValueError: it is not a pickle, or ends in the middle.
    """
    found: dict[str, None] = {}
    strings: list[str | None] = []  # what was pushed last; None for all that is no string
    memo: dict[int, str | None] = {}
    number: int | None = None
    operations = 0
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in ("PROTO", "FRAME", "STOP"):
            continue
        operations += 1
        if name in ("GLOBAL", "INST"):
            module, _, attribute = str(argument).partition(" ")
            found.setdefault(f"{module}.{attribute}")
            strings.append(None)
        elif name == "STACK_GLOBAL":
            parts = [s if s is not None else "?" for s in strings[-2:]]
            found.setdefault(".".join(parts) if len(parts) == 2 else "?.?")
            strings.append(None)
        elif name in ("EXT1", "EXT2", "EXT4"):
            found.setdefault(f"copyreg extension {argument}.?")
            strings.append(None)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = strings[-1] if strings else None
        elif name == "MEMOIZE":
            memo[len(memo)] = strings[-1] if strings else None
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            strings.append(memo.get(int(argument or 0)))
        elif "UNICODE" in name or "STRING" in name:
            strings.append(str(argument))
        else:
            strings.append(None)
            if isinstance(argument, int) and operations == 1:
                number = argument
        del strings[:-2]
    return PickleContent(tuple(found), number if operations == 1 else None)


def scan_legacy_torch_file(stream: IO[bytes]) -> PickleContent | None:
    """The object of a torch file from before 1.6: the fourth of its pickles.

    Returns:
        None if the stream holds a pickle, but not torch's.

    Raises:
        ValueError: not a pickle, or cut off.
    """
    if scan_pickle(stream).first_number != LEGACY_MAGIC:
        return None
    scan_pickle(stream)  # protocol version
    scan_pickle(stream)  # sizes and byte order of the machine that wrote it
    return scan_pickle(stream)
