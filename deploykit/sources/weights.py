"""Weights into a module: prefixes, dtypes, and a full account of what does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploykit.errors import SourceError

if TYPE_CHECKING:
    import torch

# What wrappers put before every name (DataParallel, DistributedDataParallel, averaged models) ...
_LEADING = frozenset({"module"})
# ... and what they put anywhere (torch.compile, sharding, activation checkpointing); no layer is
# called so.
_ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_COUNTER = "num_batches_tracked"  # of batch norm; evaluation does not read it
_LISTED = 6


@dataclass(frozen=True)
class Mismatch:
    """How the names and shapes of weights differ from a module's.

    Attributes:
        missing: Names that the module has and the weights lack.
        unexpected: Names that the weights have and the module lacks.
        misshapen: (name, shape in the weights, shape in the module).
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    @property
    def guessed_num_classes(self) -> int | None:
        """The number of classes that would make the classifier fit.

        The layers of a classifier differ from the module's in the number of outputs alone, all by
        the same two numbers; None if the misshapen weights do not look like that.
        """
        changes = set()
        for _, found, expected in self.misshapen:
            if len(found) != len(expected) or not found or found[1:] != expected[1:]:
                return None
            changes.add((found[0], expected[0]))
        return changes.pop()[0] if len(changes) == 1 else None


def strip_prefixes(
    state_dict: Mapping[str, torch.Tensor], expected: Iterable[str] = ()
) -> dict[str, torch.Tensor]:
    """Names without what DataParallel, torch.compile and their kind put in, however nested.

    ``module.`` goes where every name begins with it, and so does any other first part that all
    names share and those of the module do not (Lightning's ``model.``, a wrapper's ``net.``).
    Names that are the module's own (``expected``) are left alone.

    Raises:
        SourceError: two names become one.
    """
    own = set(expected)
    if state_dict.keys() == own:
        return dict(state_dict)
    names = {name: [p for p in name.split(".") if p not in _ANYWHERE] for name in state_dict}
    own_first = {name.partition(".")[0] for name in own}
    while names and all(len(parts) > 1 for parts in names.values()):
        first = {parts[0] for parts in names.values()}
        if len(first) != 1 or not (first <= _LEADING or (own_first and first != own_first)):
            break
        names = {name: parts[1:] for name, parts in names.items()}
    result: dict[str, torch.Tensor] = {}
    for name, parts in names.items():
        short = ".".join(parts)
        if short in result:
            raise SourceError(
                f"the weights hold '{short}' twice, with and without a wrapper's prefix",
                advice="save the state_dict of the unwrapped model",
            )
        result[short] = state_dict[name]
    return result


def compare_weights(state_dict: Mapping[str, torch.Tensor], module: torch.nn.Module) -> Mismatch:
    """What does not fit. Batch norm's counters of batches are not missed, and not in the way."""
    expected = module.state_dict()
    missing = [k for k in expected if k not in state_dict and not k.endswith(_COUNTER)]
    unexpected = [k for k in state_dict if k not in expected and not k.endswith(_COUNTER)]
    misshapen = [
        (k, tuple(state_dict[k].shape), tuple(v.shape))
        for k, v in expected.items()
        if k in state_dict and state_dict[k].shape != v.shape
    ]
    return Mismatch(tuple(missing), tuple(unexpected), tuple(misshapen))


def load_weights(
    module: torch.nn.Module, state_dict: Mapping[str, torch.Tensor], *, origin: str, arch: str
) -> None:
    """Give ``module`` its weights, in float32, in place.

    Args:
        module: The untrained network.
        state_dict: Its weights; floating-point ones of any width.
        origin: The file, for messages.
        arch: The architecture, for messages.

    Raises:
        SourceError: names or shapes do not fit (all are listed), or a weight is NaN or infinite.
    """
    weights = strip_prefixes(state_dict, module.state_dict().keys())
    mismatch = compare_weights(weights, module)
    if mismatch:
        raise _refusal(mismatch, origin, arch)
    # What fits is in today's form, whatever version the file was of: in place of its tensors the
    # module's own keep the versions that some modules ask for (torchvision's MNASNet does).
    fitting = module.state_dict()
    for name in fitting:
        if name in weights:  # else a counter of batches
            tensor = weights[name]
            fitting[name] = tensor.float() if tensor.is_floating_point() else tensor
    refuse_bad_numbers(fitting, origin)
    module.load_state_dict(fitting, strict=True, assign=True)


def refuse_bad_numbers(tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        SourceError: naming every tensor with a NaN or an infinity.
    """
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise SourceError(
            f"{origin} has NaN or infinity in {_listed(bad)}",
            expected="finite weights",
            advice="the training diverged or the file is damaged: take an earlier checkpoint",
        )


def _refusal(mismatch: Mismatch, origin: str, arch: str) -> SourceError:
    lines = [f"the weights of {origin} do not fit {arch}:"]
    if mismatch.missing:
        lines.append(f"  missing: {_listed(mismatch.missing)}")
    if mismatch.unexpected:
        lines.append(f"  unexpected: {_listed(mismatch.unexpected)}")
    if mismatch.misshapen:
        shapes = [f"{name} is {a}, not {b}" for name, a, b in mismatch.misshapen]
        lines.append(f"  wrong shape: {_listed(shapes)}")
    return SourceError("\n".join(lines), advice=_advice(mismatch))


def _advice(mismatch: Mismatch) -> str:
    guess = mismatch.guessed_num_classes
    if guess is not None:
        return f"try --arch-kwargs num_classes={guess}"
    if mismatch.missing and mismatch.unexpected:
        near = difflib.get_close_matches(mismatch.missing[0], mismatch.unexpected, n=1)
        if near:
            return (
                f"another version of the architecture? ('{mismatch.missing[0]}' is missing, "
                f"'{near[0]}' is there); check --arch and --arch-kwargs"
            )
    return "check --arch and --arch-kwargs; --key chooses another entry of the file"


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"{', '.join(items[:_LISTED])}{more} ({len(items)})"
