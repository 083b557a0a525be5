"""Which format a file is in, from its first bytes: or why it is no training log, in one sentence."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import PurePath
from typing import Protocol, assert_never

import msgspec

from cbmon.events import Event, Malformed
from cbmon.formats.csvlog import SEPARATORS, CsvDecoder, Header, is_row, parse_header
from cbmon.formats.history import HistoryDecoder
from cbmon.formats.record import RecordDecoder
from cbmon.units import printable

SNIFF_BYTES = 4096
"""Enough to tell; a folder of a thousand large files is sniffed in a second, also on NFS."""
TITLE_LINES_MAX = 10
"""Title lines looked past above a header."""
LOG_SUFFIXES = frozenset({".csv", ".log", ".tsv", ".jsonl"})
"""What training logs are called: only such a file may be empty, or unreadable, and still be shown in a folder."""


class Format(Enum):
    """A format that cbmon reads; the value is its name in JSON."""

    KERAS_CSV = "keras-csv"
    CBMON_CSV = "cbmon-csv"
    """The same with cbmon's own columns; one decoder reads both, for either may go on as the other."""
    RECORD = "cbmon-jsonl"
    HISTORY = "keras-history-json"


class Refused(msgspec.Struct, frozen=True):
    """Why a file is not read."""

    reason: str
    looks_like_log: bool = False
    """Show it also where it only lies in a folder: somebody would miss it."""


class Decoder(Protocol):
    """Bytes to events, incrementally; any cutting of the bytes gives the same run."""

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes, give the events that they complete."""
        ...

    def finish(self) -> list[Event]:
        """The file ends here: name what was waiting for more."""
        ...


def decoder(format: Format) -> Decoder:
    """A fresh decoder for a file of this format."""
    match format:
        case Format.KERAS_CSV | Format.CBMON_CSV:
            return _AfterNuls(CsvDecoder())
        case Format.RECORD:
            return _AfterNuls(RecordDecoder())
        case Format.HISTORY:
            return _AfterNuls(HistoryDecoder())
        case _:
            assert_never(format)


class _AfterNuls:
    """Passes over the NUL bytes that a file begins with.

    A log that somebody empties under its writer (`> training.log`) goes on where the writer was, behind a hole
    that reads as NULs.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._nuls = 0
        self._has_begun = False

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the file, give the events that they complete."""
        if self._has_begun:
            return self._decoder.feed(data)
        rest = data.lstrip(b"\0")
        self._nuls += len(data) - len(rest)
        if not rest:
            return []
        self._has_begun = True
        events = self._decoder.feed(rest)
        return (
            [Malformed(reason=f"{_HOLE.format(self._nuls)}: passed over"), *events] if self._nuls else events
        )

    def finish(self) -> list[Event]:
        """The file ends here: name what was waiting for more."""
        return self._decoder.finish()


_HOLE = "begins with {:,} NUL bytes, as a file does that is emptied while it is written"


def has_log_name(path: PurePath) -> bool:
    """Whether the file is called as training logs are."""
    return path.suffix.casefold() in LOG_SUFFIXES


def sniff(head: bytes, path: PurePath) -> Format | Refused:
    """Decide from the first `SNIFF_BYTES` bytes of a file and its name.

    An empty file is a log that has not begun, if it is called like one. Of a file that begins with NUL bytes
    those behind them decide; `head` may begin with any number of them.
    """
    begun = head.lstrip(b"\0")
    if len(begun) < len(head):
        return _sniff_behind_nuls(begun, path)
    if not head.strip():
        if path.suffix.casefold() == ".jsonl":
            return Format.RECORD
        return Format.KERAS_CSV if has_log_name(path) else Refused("empty")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Refused("UTF-16 text: save it as UTF-8", looks_like_log=has_log_name(path))
    if "tfevents" in path.name:
        return Refused("a TensorBoard event file: cbmon does not read those")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"{", b"[")):
        return _sniff_json(start)
    return _sniff_rows(head, path)


def _sniff_behind_nuls(head: bytes, path: PurePath) -> Format | Refused:
    """A log that was emptied under its writer, or a binary file."""
    binary = Refused("a binary file", looks_like_log=has_log_name(path))
    if b"\0" in head or not head.strip():
        return binary
    found = sniff(head, path)
    if isinstance(found, Refused) and is_row(head.split(b"\n")[0].decode("utf-8", "replace").strip()):
        return Refused(
            "its header is gone: it was emptied while it was written (NUL bytes, then rows). To read the rows:"
            " (echo epoch,loss,val_loss; tr -d '\\0' < FILE) > NEW",
            looks_like_log=True,
        )
    return found if isinstance(found, Format) else binary


def _sniff_json(start: bytes) -> Format | Refused:
    """A record, a History, or somebody else's JSON."""
    if re.match(rb'\{\s*"event"\s*:', start):
        return Format.RECORD
    if b'"log_history"' in start or b'"best_metric"' in start:
        return Refused("a Hugging Face trainer_state.json: cbmon does not read those")
    if re.match(rb'\{\s*"[^"]*"\s*:\s*\[\s*(?:-?[0-9]|NaN|-?Infinity|null)', start):
        return Format.HISTORY
    return Refused("JSON, but neither a cbmon record nor a Keras History (an object with a list per metric)")


def _sniff_rows(head: bytes, path: PurePath) -> Format | Refused:
    """A row log, or prose. The last line may be cut: it can be the header, but says nothing about the rows."""
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    texts = [line.rstrip(b"\r").decode("utf-8", "replace") for line in lines]
    whole = [text for text in texts[:-1] if text.strip()]
    lines_seen = [*whole, texts[-1].rstrip(SEPARATORS + '"')]
    for index, text in enumerate(lines_seen[: TITLE_LINES_MAX + 1]):
        if (header := parse_header(text)) is not None:
            return _judge(header, whole[index + 1 :])
    if b"\0" in head:
        return Refused("a binary file", looks_like_log=has_log_name(path))
    first = next((text for text in texts if text.strip()), "").strip()
    if is_row(first):
        return Refused(
            "no header line: it begins with a row of numbers (CSVLogger(append=True) on a deleted file does that)."
            " Put the header in front, such as 'epoch,loss,val_loss'",
            looks_like_log=True,
        )
    return Refused(f"no header line with an 'epoch' column; it begins {printable(first, 40)!r}")


def _judge(header: Header, rows: list[str]) -> Format | Refused:
    """A header was found: do the lines under it make a log of one run?"""
    if header.has_steps:
        return Refused(
            "several rows an epoch (a 'step' column, as PyTorch Lightning writes): cbmon does not read those"
        )
    format = Format.KERAS_CSV if header.time_at is None else Format.CBMON_CSV
    if not rows:
        return format
    numeric = [
        text for text in rows if text.lstrip()[:1] in '0123456789+-.,;|"' or text[:3].casefold() == "nan"
    ]
    if not numeric:
        return Refused("a header line, but no row of numbers under it")
    if header.epoch_at is None and not header.epoch_is_metric and not is_row(rows[0], header.separator):
        return Refused("a table, but no training log: no 'epoch' column, and its rows hold text")
    return format
