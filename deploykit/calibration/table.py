"""The calibration table: what each value of the fused graph was seen to hold.

One table serves every target. It is keyed by the names of the *fused* stage's values, which
survive from the source to every artefact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploykit import json_file
from deploykit.errors import DataError
from deploykit.json_file import parse_json
from deploykit.limits import current_limits

FORMAT = "deploykit.calibration/1"


@dataclass(frozen=True)
class ValueStatistics:
    """What one value was seen to hold over the calibration set.

    Attributes:
        minimum: Smallest element.
        maximum: Largest element.
        mean: Mean of all elements.
        std: Standard deviation of all elements.
        histogram: Counts over equal bins from ``minimum`` to ``maximum``.
        count: Number of elements seen.
        channel_minimum: Smallest element of each channel (axis 1); empty where a value has none.
        channel_maximum: Largest element of each channel, likewise.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    histogram: tuple[int, ...]
    count: int
    channel_minimum: tuple[float, ...] = ()
    channel_maximum: tuple[float, ...] = ()


@dataclass(frozen=True)
class CalibrationTable:
    """Statistics of every value of one fused model over one set of data.

    Attributes:
        values: Value name (of the fused stage) → statistics.
        samples: Number of samples that were run.
        data_fingerprint: SHA-256 over the tensors that were run.
        model_fingerprint: SHA-256 over the fused stage.
        warnings: What looked wrong about the data, in words.
    """

    values: Mapping[str, ValueStatistics]
    samples: int
    data_fingerprint: str
    model_fingerprint: str
    warnings: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        """One line: how many values of how many samples."""
        return f"<CalibrationTable of {len(self.values)} values, {self.samples} samples>"

    def __getitem__(self, name: str) -> ValueStatistics:
        """The statistics of a value.

        Raises:
            DataError: the table has no such value: it was made from another model.
        """
        try:
            return self.values[name]
        except KeyError:
            raise DataError(
                f"the calibration table has no value {name!r}",
                expected="a table made from this very model",
                advice="calibrate again: leave out --calibration-table",
            ) from None

    def to_json(self) -> str:
        """The table as JSON text, the same text for the same table; `from_json` reads it back."""
        head: dict[str, Any] = {
            "format": FORMAT,
            "samples": self.samples,
            "data_fingerprint": self.data_fingerprint,
            "model_fingerprint": self.model_fingerprint,
            "warnings": list(self.warnings),
        }
        # One line a value: thousands of histogram counts on lines of their own help no reader.
        rows = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(vars(s), separators=(',', ':'))}"
            for name, s in sorted(self.values.items())
        )
        opening = json.dumps(head, indent=1)[:-2]
        return f'{opening},\n "values": {{\n{rows}\n }}\n}}\n'

    @classmethod
    def from_json(cls, text: str, *, origin: str = "the calibration table") -> CalibrationTable:
        """Read what `to_json` wrote.

        Raises:
            DataError: no JSON, or not a table of this format.
        """
        try:
            document = json_file.table(parse_json(text), "the document")
            if document["format"] != FORMAT:
                raise DataError(
                    f"{origin} has format {document['format']!r}",
                    expected=FORMAT,
                    advice="calibrate again with this version of deploykit",
                )
            values = {
                str(name): ValueStatistics(
                    minimum=json_file.number(s["minimum"], "a minimum"),
                    maximum=json_file.number(s["maximum"], "a maximum"),
                    mean=json_file.number(s["mean"], "a mean"),
                    std=json_file.number(s["std"], "a standard deviation"),
                    histogram=tuple(json_file.whole(n, "a count") for n in s["histogram"]),
                    count=json_file.whole(s["count"], "a count"),
                    channel_minimum=_numbers(s.get("channel_minimum", ()), "a channel's minimum"),
                    channel_maximum=_numbers(s.get("channel_maximum", ()), "a channel's maximum"),
                )
                for name, s in document["values"].items()
            }
            return cls(
                values=values,
                samples=json_file.whole(document["samples"], "samples"),
                data_fingerprint=str(document["data_fingerprint"]),
                model_fingerprint=str(document["model_fingerprint"]),
                warnings=tuple(str(w) for w in document["warnings"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{origin} is not a calibration table: {error}",
                expected=f"JSON of format {FORMAT}",
                advice="calibrate again: leave out --calibration-table",
            ) from error

    @classmethod
    def load(cls, path: Path) -> CalibrationTable:
        """Read a table from a file.

        Raises:
            DataError: the file is missing or no table.
        """
        try:
            size = path.stat().st_size
            limit = current_limits().json_bytes
            if size > limit:
                raise ValueError(f"it has {size:,} bytes, more than {limit:,}")
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the calibration table {path}: {error}") from error
        return cls.from_json(text, origin=str(path))

    def save(self, path: Path) -> None:
        """Write the table as JSON, atomically."""
        from deploykit.files import write_atomically

        write_atomically(path, self.to_json().encode())


def _numbers(values: Any, what: str) -> tuple[float, ...]:
    return tuple(json_file.number(v, what) for v in json_file.array(values, what))
