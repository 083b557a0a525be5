"""Chunks of a row log as columns: the same rows as the line-by-line decoder, several to a hundred times faster.

Just another chunking: each way takes only a chunk that it can prove regular and gives None for any other. The
proof: no byte but those of plain numbers, NA and nan (for polars also inf); every line has exactly the header's
number of cells; the epochs are whole numbers; no line is too long. Property tests hold both against the
line-by-line decoder.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import msgspec

from cbmon.events import EPOCH_MAX, Values
from cbmon.formats.lines import LINE_MAX

BULK_BYTES = 8 << 20
"""Such chunks are polars' business, which costs 0.13 s and 27 MiB to import: only large logs are read so ..."""
LOADED_BYTES = 1 << 17
"""... and from 128 KiB on, once it is imported: a call costs 0.7 ms, as much as `read_plain` takes for these."""
PLAIN_BYTES = 1 << 16
"""`read_plain` takes 64 KiB at a time: 0.3 ms, so that other threads get their turns."""

Table: TypeAlias = tuple[Sequence[int], list[Values]]
"""The epochs, shape (rows,), and the columns by cell index, each as long (the first, of the epochs, is empty)."""

_PLAIN = b"0123456789+-.eENAna"
_REGULAR = _PLAIN + b"if"
_NUMBERS: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[int | float | None])
"""Numbers as JSON spells them, each read to the bit as Python does. `.5`, `+5`, `007` and `1e999` it refuses."""


def read_plain(data: bytes, separator: str, width: int) -> Table | None:
    """Read whole lines of plain numbers, epoch in the first cell, as columns: as one JSON array.

    Args:
        data: lines with their ends, the last one too.
        separator: one character.
        width: cells a line.

    Returns:
        The table; None if anything in the chunk is not provably regular.
    """
    end, _ = _lines(data, separator, width, _PLAIN)
    if not end:
        return None
    text = data[: -len(end)].replace(end.encode(), b",")
    if separator != ",":
        text = text.replace(separator.encode(), b",")
    if b"-" in text and (b"-0," in text or text.endswith(b"-0")):
        return None  # in JSON an integer, which has no sign there
    has_nan = b"n" in text
    if b"N" in text:
        if has_nan:
            return None  # JSON has one word for both
        text = text.replace(b"NA", b"null")
    elif has_nan:
        text = text.replace(b"nan", b"null")
    try:
        cells = _NUMBERS.decode(b"[%b]" % text)
        epochs = cells[::width]
        if {*map(type, epochs)} != {int} or not 0 <= min(epochs) <= max(epochs) <= EPOCH_MAX:
            return None
        return array("q", epochs), [[], *(_values(cells[index::width], has_nan) for index in range(1, width))]
    except (msgspec.DecodeError, OverflowError):
        return None


def _values(cells: list[Any], has_nan: bool) -> Values:
    """A column; an array if every cell has a value."""
    try:
        return array("d", cells)
    except TypeError:
        if has_nan:
            return array("d", [math.nan if cell is None else cell for cell in cells])
        return [None if cell is None else float(cell) for cell in cells]


def read_regular(data: bytes, separator: str, width: int) -> Table | None:
    """The same for large chunks, through polars; cells may also be NA, nan and inf."""
    end, rows = _lines(data, separator, width, _REGULAR)
    if not end:
        return None
    import polars as pl

    from cbmon.formats.arrow import to_array

    try:
        table = pl.read_csv(
            data,
            has_header=False,
            separator=separator,
            schema={"0": pl.Int64} | {str(index): pl.Float64 for index in range(1, width)},
            null_values=["NA"],
            quote_char=None,
        )
    except pl.exceptions.PolarsError:
        return None
    epochs = table["0"]
    if table.height != rows or epochs.null_count():
        return None
    if not 0 <= cast("int", epochs.min()) <= cast("int", epochs.max()) <= EPOCH_MAX:
        return None
    columns: list[Values] = [[]]
    for index in range(1, width):
        column = table[str(index)].fill_nan(math.nan)  # one NaN: polars keeps the sign of "-nan"
        columns.append(column.to_list() if column.null_count() else to_array("d", column))
    return to_array("q", epochs), columns


def _lines(data: bytes, separator: str, width: int, allowed: bytes) -> tuple[str, int]:
    """How every line of a regular chunk ends, and how many there are; empty if it is not regular.

    What is left without the bytes of numbers must be one line's separators and its end, again and again.
    """
    frame = data.translate(None, allowed)
    end = "\r\n" if frame.endswith(b"\r\n") else "\n"
    line = (separator * (width - 1) + end).encode()
    rows, rest = divmod(len(frame), len(line))
    if width < 2 or not rows or rest or frame != line * rows or not data.endswith(end.encode()):
        return "", 0
    half = LINE_MAX // 2
    if len(data) > half and any(data.find(b"\n", at, at + half) < 0 for at in range(0, len(data), half)):
        return "", 0
    return end, rows
