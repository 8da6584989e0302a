"""What was measured of one network in one precision, and the table of docs/latency.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OURS = "deploykit"
#: Our own file once more: what its ratio diverges from 1 is what cannot be told from nothing.
CONTROL = "same file"
PEERS = ("litert-torch", "onnx2tf")

_BEGIN, _END = "<!-- peers: begin -->", "<!-- peers: end -->"


@dataclass(frozen=True)
class MakerTimes:
    """One maker's file.

    Attributes:
        ms: Median CPU milliseconds of one inference.
        ratio: Our time over its time.
        ratio_error: Standard error of the ratio.
        ops: Operators.
        partitions: Of them that XNNPACK runs.
    """

    ms: float
    ratio: float
    ratio_error: float
    ops: int
    partitions: int

    @classmethod
    def of_ratio_to_ours(
        cls, ms: float, theirs_over_ours: float, error: float, ops: int, partitions: int
    ) -> MakerTimes:
        """From a ratio that has our time below."""
        return cls(ms, 1 / theirs_over_ours, error / theirs_over_ours**2, ops, partitions)


@dataclass(frozen=True)
class Row:
    """One network in one precision.

    Attributes:
        net: Its name.
        precision: ``fp32`` or ``int8``.
        makers: Maker → what was measured of its file; `OURS` and `CONTROL` are always there.
    """

    net: str
    precision: str
    makers: Mapping[str, MakerTimes]

    @property
    def best_peer(self) -> MakerTimes | None:
        """The fastest peer's; None without one."""
        peers = [self.makers[p] for p in PEERS if p in self.makers]
        return max(peers, key=lambda one: one.ratio, default=None)


def print_row(row: Row) -> None:
    """One line for the terminal."""
    parts = [f"{row.net:<19}{row.precision:<5}"]
    for maker, one in row.makers.items():
        ratio = "" if maker == OURS else f", ratio {one.ratio:.3f} +- {one.ratio_error:.3f}"
        parts.append(f"{maker} {one.ms:.3f} ms {one.ops} ops {one.partitions} part.{ratio}")
    print(" | ".join(parts), flush=True)


def write_table(rows: Sequence[Row], page: Path) -> None:
    """Put the table between its marks in a page; rows of what was not measured now stay.

    Raises:
        SystemExit: the page has no such marks.
    """
    text = page.read_text()
    if _BEGIN not in text or _END not in text:
        raise SystemExit(f"{page} has no marks for the table")
    head, _, rest = text.partition(_BEGIN)
    held, _, tail = rest.partition(_END)
    header, rule, *measured = render_table(rows).splitlines()
    lines = {_key(line): line for line in held.strip().splitlines()[2:]}
    lines |= {_key(line): line for line in measured}
    table = "".join(f"{line}\n" for line in (header, rule, *lines.values()))
    page.write_text(f"{head}{_BEGIN}\n{table}{_END}{tail}")
    print(f"wrote {page}")


def _key(line: str) -> tuple[str, str]:
    """Network and precision of a row."""
    _, net, precision, *_ = (cell.strip() for cell in line.split("|"))
    return net, precision


def render_table(rows: Sequence[Row]) -> str:
    """The table, in Markdown."""
    columns = ["network", "precision", "ours, ms", "ops, part."]
    for peer in PEERS:
        columns += [f"{peer}, ms", "ops, part.", "ratio"]
    columns += ["of the best peer", CONTROL]
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for row in rows:
        ours = row.makers[OURS]
        cells = [row.net, row.precision, f"{ours.ms:.2f}", f"{ours.ops}, {ours.partitions}"]
        for peer in PEERS:
            one = row.makers.get(peer)
            cells += ["-"] * 3 if one is None else _cells(one)
        best = row.best_peer
        cells.append("-" if best is None else _ratio(best))
        cells.append(_ratio(row.makers[CONTROL]))
        lines.append(_line(cells))
    return "".join(f"{line}\n" for line in lines)


def _cells(one: MakerTimes) -> list[str]:
    return [f"{one.ms:.2f}", f"{one.ops}, {one.partitions}", f"{one.ratio:.3f}"]


def _ratio(one: MakerTimes) -> str:
    return f"{one.ratio:.3f} ± {one.ratio_error:.3f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
