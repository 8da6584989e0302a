"""Whether a TorchScript file only computes, read from its archive before torch opens it.

A TorchScript file is a program: ``code/`` holds it as text in a subset of Python's grammar, and
``torch.jit.load`` already runs the ``__setstate__`` in it. Its operators can read and write files,
start threads and call other machines. Here the text is split into words, and each name of an
operator has to be one of `deploykit.sources.allowed_operators`, wherever it stands: called,
assigned to another name, taken as a method of a value, or named in a ``getattr``. What this reader
does not know (a comment, a letter beyond ASCII, another form of string) is refused, since torch
might read it otherwise.

How long a program runs and how much memory it takes is limited by the process that it runs in.
"""

from __future__ import annotations

import functools
import keyword
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploykit.errors import SourceError
from deploykit.sources.allowed_operators import BUILTINS, is_allowed
from deploykit.sources.pickle_scan import is_data_global, scan_pickle

_TOKEN = re.compile(
    r"(?P<space>[ \n]+)"
    r"|(?P<number>(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?j?)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r'|(?P<string>"([^"\\\n]|\\[^\n])*"|\'([^\'\\\n]|\\[^\n])*\')'
    r"|(?P<sign>->|[-+*/%@&|^~<>=!]=?|[()\[\]{}.,:;])",
    re.ASCII,
)
_WORDS_BEFORE_STRING = frozenset({"and", "else", "if", "in", "is", "not", "or", "return", "raise"})
# Words of the grammar that may stand before a bracket.
_GRAMMAR = frozenset(keyword.kwlist)
_CLASS = re.compile(r"__torch__(\.\w+)+")
_NATIVE_CLASSES = "__torch__.torch.classes."
_QUANTIZED = "__torch__.torch.classes.quantized."
_QUANTIZATION_SCHEMES = frozenset({"torch.per_channel_affine", "torch.per_tensor_affine"})
_RESTORES = "torch.jit._pickle."
_FLATBUFFER = b"PTMF"
_LARGEST_CODE = 64 << 20


def check_torchscript(path: Path) -> None:
    """Refuse a TorchScript file that does more than compute. Imports torch, and loads nothing.

    Raises:
        SourceError: an operator that is not on the list, native objects, a form that is not read
            here, or a damaged archive.
    """
    try:
        with path.open("rb") as stream:
            # torch reads this form of a file by these bytes, whatever else it is.
            if stream.read(8)[4:] == _FLATBUFFER:
                raise _refusal(path, "a program in torch's flatbuffer form")
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise SourceError(
            f"the TorchScript file {path} is damaged: {error}", advice="get the file again"
        ) from error


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    # torch finds members without regard to case: what is checked must be what is loaded.
    if len({name.lower() for name in names}) != len(names):
        raise _refusal(path, "two members of one name")
    if len({name.partition("/")[0] for name in names}) != 1:
        raise _refusal(path, "members of several archives")
    for info in archive.infolist():
        inner = info.filename.partition("/")[2]
        if inner == "model.json":
            raise _refusal(path, "a program in the form of torch 1.0")
        if inner.lower().endswith(".pkl"):
            _check_pickle(archive, info, path)
        elif inner.lower().startswith("code/") and not inner.endswith(".debug_pkl"):
            if info.file_size > _LARGEST_CODE:
                raise _refusal(path, f"{info.file_size:,} bytes of code in {info.filename}")
            found = next(_faults(archive.read(info)), "")
            if found:
                raise _refusal(path, found)


def _check_pickle(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    with archive.open(info) as stream:
        content = scan_pickle(stream)
    for name in content.globals:
        restores = name.startswith(_RESTORES) and name.removeprefix(_RESTORES).isidentifier()
        data = is_data_global(name) or name in _QUANTIZATION_SCHEMES
        if not (data or restores or _is_known_class(name)):
            raise _refusal(path, f"a pickled object '{name}'")


def _is_known_class(name: str) -> bool:
    native = name.startswith(_NATIVE_CLASSES) and not name.startswith(_QUANTIZED)
    return bool(_CLASS.fullmatch(name)) and not native


def _faults(code: bytes) -> Iterator[str]:
    """In words, what the text of a program has that a network does not need."""
    try:
        tokens = list(_tokens(code.decode("ascii")))
    except (UnicodeDecodeError, ValueError) as error:
        yield f"code that cannot be read ({error})"
        return
    refused = _refused_operators()
    known = BUILTINS | _GRAMMAR | _defined(tokens)
    index = 0
    while index < len(tokens):
        kind, _ = tokens[index]
        if kind == "name":
            chain = _chain(tokens, index)
            index += 2 * len(chain) - 1
            called = index < len(tokens) and tokens[index][1] == "("
            after_dot = index > 2 * len(chain) - 1 and tokens[index - 2 * len(chain)][1] == "."
            lone = len(chain) == 1 and not after_dot
            if lone and (chain[0] in _FORMS or (called and chain[0] not in known)):
                yield f"a call of '{chain[0]}'"
            elif lone and chain[0] in ("getattr", "hasattr"):
                yield from _named_in_strings(tokens, index, refused)
            elif fault := _chain_fault(chain, refused, after_dot=after_dot):
                yield fault
        else:
            index += 1


def _tokens(code: str) -> Iterator[tuple[str, str]]:
    position, before = 0, ("", "")
    while position < len(code):
        match = _TOKEN.match(code, position)
        if match is None:
            raise ValueError(f"{code[position : position + 20]!r}")
        position = match.end()
        kind, text = str(match.lastgroup), match.group()
        if kind == "space":
            before = ("", "")
            continue
        adjacent = before[0] in ("name", "number") and kind in ("name", "number", "string")
        if adjacent and not (kind == "string" and before[1] in _WORDS_BEFORE_STRING):
            raise ValueError(f"{before[1]}{text[:20]}")  # r"...", 0x1f, 1_000 and their kind
        before = (kind, text)
        yield before


def _chain(tokens: Sequence[tuple[str, str]], index: int) -> list[str]:
    """The names ``a.b.c`` that begin here."""
    chain = [tokens[index][1]]
    while (
        index + 2 < len(tokens) and tokens[index + 1][1] == "." and tokens[index + 2][0] == "name"
    ):
        chain.append(tokens[index + 2][1])
        index += 2
    return chain


def _named_in_strings(
    tokens: Sequence[tuple[str, str]], index: int, refused: frozenset[str]
) -> Iterator[str]:
    """``getattr(x, "save")`` is the operator too: its names are strings, up to its bracket."""
    if index == len(tokens) or tokens[index][1] != "(":
        yield "another name for 'getattr'"
    depth = 0
    for kind, text in tokens[index:]:
        depth += (text == "(") - (text == ")")
        if kind == "string" and ("\\" in text or text[1:-1].strip("_") in refused):
            yield f"the operator '{text[1:-1]}'"
        if depth <= 0:
            return


def _defined(tokens: Sequence[tuple[str, str]]) -> set[str]:
    """The functions, classes and variables of the text; none of them leads out of it."""
    found = set()
    for (_, before), (kind, text), (_, behind) in zip(
        [("", ""), *tokens], tokens, [*tokens[1:], ("", "")], strict=False
    ):
        if kind == "name" and (before in ("def", "class") or behind == "="):
            found.add(text)
    return found


def _chain_fault(chain: Sequence[str], refused: frozenset[str], *, after_dot: bool) -> str:
    name, root = ".".join(chain), "" if after_dot else chain[0]
    if root == "__torch__":
        # The class or function is in the archive; what follows its name may be a method.
        return "" if _is_known_class(name) else f"a native object '{name}'"
    if root in ("torch", "ops"):
        path = ["aten", *chain[1:]] if root == "torch" else chain[1:]
        good = len(path) == 2 and is_allowed(*path)
        return "" if good else f"the operator '{name}'"
    members = chain if after_dot else chain[1:]
    found = [part for part in members if part.strip("_") in refused]
    return f"the operator '{found[0]}'" if found else ""


@functools.cache
def _refused_operators() -> frozenset[str]:
    """Names of torch's operators that are not on the list, as a value's methods may be called."""
    import torch

    found = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace in ("aten", "prim") and not (
            is_allowed("aten", name) or is_allowed("prim", name)
        ):
            found.add(name.strip("_"))
    return frozenset(found | _FORMS)


#: Forms of the language that start other threads or processes, and are no operators.
_FORMS = frozenset({"awaitable", "fork", "print", "rpc_async", "rpc_remote", "rpc_sync", "wait"})


def _refusal(path: Path, what: str) -> SourceError:
    return SourceError(
        f"the TorchScript file {path} holds {what}, which no network for images needs; it was not "
        "loaded",
        expected="operators that compute, only",
        advice="export the original module instead: torch.export.save, or a checkpoint with "
        "--arch; or --trust-code, if you made the file yourself",
    )
