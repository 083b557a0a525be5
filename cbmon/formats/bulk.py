"""Large chunks of a row log through polars: the same rows as the scalar decoder, a hundred times faster.

Just another chunking: it takes only a chunk that it can prove regular and gives None for any other. The proof:
no byte but those of plain numbers, NA, nan and inf; every line has exactly the header's number of cells; the
epochs are whole numbers; no line is too long. A property test holds it against the scalar decoder.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import cast

from cbmon.events import EPOCH_MAX, Values
from cbmon.formats.lines import LINE_MAX

BULK_BYTES = 4 << 20
"""From 4 MiB on, importing polars (0.1 s, 27 MiB) is cheaper than reading the rows one by one."""

_REGULAR = b"0123456789.+-eEnaifNA\r\n"


def read_regular(data: bytes, separator: str, width: int) -> tuple[Sequence[int], list[Values]] | None:
    """Read whole lines, epoch in the first cell, as columns.

    Args:
        data: lines with their ends, the last one too.
        separator: one character.
        width: cells a line.

    Returns:
        The epochs, shape (rows,), and the columns by cell index (the first is empty, it held the epochs), each of
        shape (rows,); None if anything in the chunk is not provably regular.
    """
    rows = data.count(b"\n")
    cut = separator.encode()
    if not rows or data.translate(None, _REGULAR + cut) or data.count(cut) != rows * (width - 1) or width < 2:
        return None
    returns = data.count(b"\r")
    if returns and (returns != rows or data.count(b"\r\n") != rows):
        return None
    half = LINE_MAX // 2
    if any(data.find(b"\n", start, start + half) < 0 for start in range(0, len(data), half)):
        return None
    import polars as pl

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
        columns.append(column.to_list() if column.null_count() else array("d", column.to_list()))
    return array("q", epochs.to_list()), columns
