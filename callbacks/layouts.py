"""What the two kinds of record look like in their files: events as JSON lines, epochs as rows of a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Protocol

from cbmon.events import EpochsEnded, RecordedEvent, RunStarted, encode_line

SECONDS = ("epoch", "validation", "step", "first_step")
"""The durations that get a column, whether the first epoch has them or not."""

_TAKEN = ("epoch", "epoch#", "epoch #", "learning_rate", "lr")
"""What readers take for epochs or learning rates, in capitals too: no second column may be called so."""

_RECORD_START = b'{"event":'
"""How every record begins; a `.jsonl` that begins otherwise is somebody's data."""


class Layout(Protocol):
    """How events become the bytes of a file."""

    opens_at_once: bool
    """Whether the file is made before the first epoch ends."""

    def encode(self, event: RecordedEvent) -> bytes:
        """Whole lines; none if the layout has no place for the event."""
        ...

    def lead(self, start: bytes, *, has_begun: bool) -> bytes | None:
        """What has to be written first into a file; None if it is not one to append to.

        Args:
            start: the file's first bytes, empty for a new file.
            has_begun: whether this fit has written into a file before.
        """
        ...


class JsonLines:
    """The full record: one event a line."""

    opens_at_once = True

    def __init__(self, started: RunStarted) -> None:
        """Keep the start of the fit: each file that it is recorded in has to have it."""
        self._first = encode_line(started)

    def encode(self, event: RecordedEvent) -> bytes:
        """One line."""
        return encode_line(event)

    def lead(self, start: bytes, *, has_begun: bool) -> bytes | None:
        """The start of the fit."""
        if start and not start.startswith(_RECORD_START):
            return None
        return b"" if start and has_begun else self._first


class NoFile:
    """Nothing is written: who wants the run has to watch it."""

    opens_at_once = False

    def encode(self, event: RecordedEvent) -> bytes:
        """No line."""
        return b""

    def lead(self, start: bytes, *, has_begun: bool) -> bytes | None:
        """No first line either."""
        return b""


class CsvRows:
    """What any reader of CSVLogger files reads: epochs, with cbmon's own columns after the metrics.

    As in CSVLogger the first epoch decides about the columns, and where it has no validation each metric gets
    an empty `val_` column: validation may come later. What a row cannot say (plan, end, progress) is not there.
    """

    opens_at_once = False

    def __init__(self) -> None:
        self._columns: list[str] = []

    def encode(self, event: RecordedEvent) -> bytes:
        """One row, of an epoch."""
        if not isinstance(event, EpochsEnded):
            return b""
        cells = _cells(event)
        if not self._columns:
            self._columns = list(cells)
        return _line(cells.get(name, "NA") for name in self._columns)

    def lead(self, start: bytes, *, has_begun: bool) -> bytes | None:
        """The header, for an empty file; only a file with the same one is appended to."""
        header = _line(self._columns)
        if not start:
            return header
        is_same = start.replace(b"\r\n", b"\n").startswith(header.replace(b"\r\n", b"\n"))
        return b"" if is_same else None


def _cells(event: EpochsEnded) -> dict[str, str]:
    """An epoch's row by column. A metric that is called like one of ours has no place in it."""
    metrics = {
        name: _cell(column[0])
        for name, column in event.metrics.items()
        if name.strip().casefold() not in _TAKEN and not name.startswith("cbmon_")
    }
    cells = {"epoch": str(event.epochs[0]), **metrics}
    if not any(name.startswith("val_") for name in metrics):
        cells |= {f"val_{name}": "NA" for name in metrics}
    if not event.learning_rates:
        cells["learning_rate"] = _cell(event.learning_rate[0] if event.learning_rate else None)
    cells["cbmon_time"] = _cell(event.time)
    for name in SECONDS:
        cells[f"cbmon_{name}_s"] = _cell(event.seconds.get(name, [None])[0])
    for name, column in event.learning_rates.items():
        cells[f"cbmon_learning_rate_{name}"] = _cell(column[0])
    return cells


def _cell(value: float | None) -> str:
    return "NA" if value is None else repr(value)


def _line(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # Python 3.11 quotes no other line ends
    return text.getvalue().removesuffix("\r\n").encode("utf-8", "backslashreplace") + b"\n"
