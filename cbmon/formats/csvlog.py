"""Row logs: Keras `CSVLogger` files as they are in the wild, tables that look like them, Monitor's CSV record.

Pure and incremental. Good rows are kept; each row left out becomes a `Malformed` that names its line. Titles
above a header and repeated headers are no rows and need no word. Facts about the files: KERAS.md §4 and 100
published logs. Monitor's CSV record is such a file with cbmon's own columns, `cbmon_…`, after the metrics.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import msgspec

from cbmon.events import EPOCH_MAX, EpochsEnded, Event, Malformed, Values
from cbmon.formats.bulk import BULK_BYTES, LOADED_BYTES, PLAIN_BYTES, Table, read_plain, read_regular
from cbmon.formats.lines import LINE_MAX, LineSplitter
from cbmon.series import is_learning_rate, is_loss
from cbmon.units import plural, printable

SEPARATORS = ",;\t|"
EPOCH_NAMES = frozenset({"epoch", "epoch#", "epoch #"})
ABSENT = frozenset({"", "NA", "N/A", "None", "null"})
"""Cells that say "no value": CSVLogger writes NA, pandas writes nothing. `nan` is a value."""
OWN_PREFIX = "cbmon_"
"""Begins cbmon's own columns; one that is not known here is a newer cbmon's, and no metric."""
TIME_COLUMN = "cbmon_time"
"""When the epoch ended, Unix seconds."""
RATES_PREFIX = "cbmon_learning_rate_"
"""Begins the learning rate of one optimizer of several; its name follows."""
SECONDS_COLUMNS = {
    "cbmon_epoch_s": "epoch",
    "cbmon_validation_s": "validation",
    "cbmon_step_s": "step",
    "cbmon_first_step_s": "first_step",
}
"""Durations: the column, and its name in `EpochsEnded.seconds`."""
RECORD_LINES_MAX = 64
"""Lines one quoted cell may span (a 3-D array prints over several); beyond that a quote is torn."""
TITLES_MAX = 64
"""Lines held back because a header may follow; beyond that they are no titles."""
EPOCH_ALONE = "the epoch alone, without metrics"
BATCH_ROWS = 4096
"""Rows in one event: bounds what a view has to wait for."""

_OBJECT = re.compile(r"^(?:<.*?\b(?:value|numpy)=|tf\.Tensor\(|(?:np|numpy)\.float\d+\()\s*([^,>)\s]+)")
"""Variables and tensors that a callback leaked into the logs; a number stands in them."""


class Header(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a header line says: which cell of a row is what."""

    separator: str
    names: tuple[str, ...]
    """Of all columns, one a cell."""
    epoch_at: int | None
    """None: no usable epoch column, rows are numbered from 0."""
    rate_at: int | None
    time_at: int | None
    metrics: tuple[tuple[int, str], ...]
    """Cell index and name of each metric."""
    rates: tuple[tuple[int, str], ...]
    """Cell index and optimizer of each learning rate, where there are several."""
    seconds: tuple[tuple[int, str], ...]
    """Cell index and name of each duration."""
    epoch_is_metric: bool = False
    """A metric called epoch overwrote the epoch numbers (CSVLogger writes it into both columns)."""
    has_steps: bool = False
    """A `step` column: several rows an epoch, so no CSVLogger file (Lightning's metrics.csv)."""

    @property
    def width(self) -> int:
        """Cells in a row."""
        return len(self.names)

    @cached_property
    def values_at(self) -> list[int]:
        """Indices of the cells that are read beside the epoch; without any a row says nothing."""
        single = [index for index in (self.rate_at, self.time_at) if index is not None]
        return [*(index for index, _ in (*self.metrics, *self.rates, *self.seconds)), *single]


def parse_header(line: str) -> Header | None:
    """Read a line as the header of a training log, None if it is none.

    It names an `epoch` column; or (a pandas table of a History) no cell is a number and one is a loss.
    """
    best: list[str] = []
    separator = ","
    for candidate in SEPARATORS:
        names = [cell.strip() for cell in _split(line, candidate)]
        if len(names) > len(best):
            best, separator = names, candidate
    folded = [name.casefold() for name in best]
    epochs = [index for index, name in enumerate(folded) if name in EPOCH_NAMES]
    is_index = folded[:1] == [""]
    names = best[is_index or folded[0] in EPOCH_NAMES :]
    if folded[0] in EPOCH_NAMES:
        # CSVLogger's own header: a user may call a metric anything, but not all of them numbers.
        if names and not any(map(_is_name, names)):
            return None
    elif not all(map(_is_name, names)):
        return None
    if not epochs and not any(is_loss(name) for name in best):
        return None
    named: dict[str, int] = {}  # of columns with one name the first
    for index, name in enumerate(best):
        if name and folded[index] not in EPOCH_NAMES:
            named.setdefault(name, index)
    metrics = [
        (index, name)
        for name, index in named.items()
        if not is_learning_rate(name) and not name.startswith(OWN_PREFIX)
    ]
    return Header(
        separator=separator,
        names=tuple(best),
        epoch_at=epochs[0] if len(epochs) == 1 else (0 if is_index and not epochs else None),
        rate_at=next((index for name, index in named.items() if is_learning_rate(name)), None),
        time_at=named.get(TIME_COLUMN),
        metrics=tuple(metrics),
        rates=tuple(
            (index, name.removeprefix(RATES_PREFIX))
            for name, index in named.items()
            if name.startswith(RATES_PREFIX)
        ),
        seconds=tuple((named[column], name) for column, name in SECONDS_COLUMNS.items() if column in named),
        epoch_is_metric=len(epochs) > 1,
        has_steps="step" in folded,
    )


def parse_number(cell: str) -> float | None:
    """The value of a cell, None if absent. Raises ValueError where it is text or a list."""
    cell = cell.strip()
    if cell in ABSENT:
        return None
    if cell[0] in "<tn" and (leaked := _OBJECT.match(cell)):
        cell = leaked[1]
    if "_" in cell or not cell.isascii():  # Python reads 1_000 and Arabic digits, nobody writes them
        raise ValueError(cell)
    value = float(cell)
    return math.nan if value != value else value


class CsvDecoder:
    """Decodes a row log incrementally; any cutting of the bytes gives the same run."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._header: Header | None = None
        self._row = 0
        """Rows since the header: the epoch number where there is no epoch column."""
        self._quoted: list[tuple[int, str]] = []
        """Lines of a record whose quote is still open."""
        self._titles: list[tuple[int, str]] = []
        """Lines that are titles if a header follows, else left out; with the reason."""
        self._batch: _Batch | None = None
        self._events: list[Event] = []

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the file, give the events that they complete."""
        is_large = len(data) >= (min(LOADED_BYTES, BULK_BYTES) if "polars" in sys.modules else BULK_BYTES)
        start = 0
        while start < len(data):
            if self._header is None:
                end = data.find(b"\n", start) + 1 or len(data)
            else:
                end = len(data) if is_large else start + PLAIN_BYTES
            self._feed_piece(data[start:end], read_regular if is_large else read_plain)
            start = end
        return self._take_events()

    def _feed_piece(self, data: bytes, read: Callable[[bytes, str, int], Table | None]) -> None:
        """Take a piece as columns if it is regular, else line by line."""
        if self._can_be_regular():
            rest = self._lines.take_rest()
            if self._feed_regular(rest + data, read):
                return
            self._lines.rest = rest
        for number, line in self._lines.feed(data):
            if line is None:
                self._leave_out(number, f"longer than {LINE_MAX} bytes")
            elif line.strip():
                self._take_line(number, _text(line.removeprefix(b"\xef\xbb\xbf")))

    def finish(self) -> list[Event]:
        """The file ends here: name what was waiting for more."""
        self._give_up_quote()
        self._give_up_titles()
        if self._lines.has_rest:
            self._leave_out(self._lines.number + 1, "no newline at its end: it may be cut")
        if self._header is None and self._lines.number:
            self._events.append(Malformed(reason="no header line with an 'epoch' column"))
        return self._take_events()

    def _can_be_regular(self) -> bool:
        """Whether nothing that came before has a say in how the next lines are read."""
        header = self._header
        if header is None or header.epoch_at != 0 or not header.values_at:
            return False
        return not (self._quoted or self._titles or self._lines.is_too_long)

    def _feed_regular(self, data: bytes, read: Callable[[bytes, str, int], Table | None]) -> bool:
        """Take the whole lines of a piece as columns, if `read` can prove them regular; the rest waits."""
        assert self._header is not None
        end = data.rfind(b"\n") + 1
        table = read(data[:end], self._header.separator, self._header.width)
        if table is None:
            return False
        self._close_batch()
        epochs, columns = table
        self._events.append(_event(self._header, epochs, columns, self._lines.number + 1))
        self._lines.number += len(epochs)
        self._lines.rest = data[end:]
        self._row += len(epochs)
        return True

    def _take_line(self, number: int, text: str) -> None:
        """One line that is not blank: part of a quoted record, or a record of its own."""
        if self._quoted:
            self._quoted.append((number, text))
            record = "\n".join(line for _, line in self._quoted)
            if self._begins_row(text) or len(self._quoted) > RECORD_LINES_MAX or len(record) > LINE_MAX:
                del self._quoted[-1]
                self._give_up_quote()
            elif _is_quote_open(record):
                return
            else:
                first = self._quoted[0][0]
                self._quoted.clear()
                self._take_record(first, record, number)
                return
        if _is_quote_open(text):
            self._quoted.append((number, text))
        else:
            self._take_record(number, text, number)

    def _take_record(self, number: int, text: str, last: int) -> None:
        """A whole record: a header, a title, or a row."""
        if self._header is None or text[:1] not in "0123456789+-.":
            header = parse_header(text)
            if header is not None:
                self._begin(number, header)
                return
            if self._header is None:
                if is_row(text):
                    self._leave_out(number, "a row above the header")
                return
        header = self._header
        cells = _split(text, header.separator)
        if len(cells) != header.width:
            self._refuse_row(number, text, _wrong_width(cells, header))
        elif not header.values_at:
            self._refuse_row(number, text, EPOCH_ALONE)
        elif header.epoch_at is None:
            self._take_row(number, self._row, header, cells, last)
        else:
            try:
                epoch = parse_epoch(cells[header.epoch_at])
            except ValueError:
                shown = printable(cells[header.epoch_at], 40)
                self._refuse_row(number, text, f"its epoch is {shown!r}, no whole number")
            else:
                self._take_row(number, epoch, header, cells, last)

    def _take_row(self, number: int, epoch: int, header: Header, cells: list[str], last: int) -> None:
        """A good row: into the open batch, whose rows stand on consecutive lines."""
        self._give_up_titles()
        self._row += 1
        if self._batch is None or not self._batch.goes_on(number, epoch):
            self._close_batch()
            self._batch = _Batch(header, number)
        self._batch.append(epoch, cells)
        if last > number:
            self._close_batch()

    def _refuse_row(self, number: int, text: str, reason: str) -> None:
        """A line that is no row: a title if a header follows, else left out."""
        if text[:1].isalpha():
            if len(self._titles) == TITLES_MAX:
                self._give_up_titles()
            self._titles.append((number, reason))
            return
        self._give_up_titles()
        self._row += 1
        self._leave_out(number, reason)

    def _begins_row(self, text: str) -> bool:
        """Whether a line begins with a row's epoch, so that an open quote before it must be torn."""
        header = self._header
        if header is None or header.epoch_at not in (0, None):
            return False
        first, cut, _ = text.partition(header.separator)
        return bool(cut) and re.fullmatch(r" *[0-9]+ *", first) is not None

    def _begin(self, number: int, header: Header) -> None:
        """A header: the lines held back were titles, the new columns hold."""
        self._close_batch()
        self._titles.clear()
        if header.epoch_is_metric:
            reason = "a metric is called epoch and overwrote the epoch numbers: rows are numbered instead"
            self._events.append(Malformed(line=number, reason=reason))
        self._header = header
        self._row = 0

    def _leave_out(self, number: int, reason: str) -> None:
        self._close_batch()
        self._events.append(Malformed(line=number, reason=f"left out, {reason}"))

    def _give_up_titles(self) -> None:
        """No header followed: the lines held back are broken rows."""
        titles, self._titles = self._titles, []
        for number, reason in titles:
            self._leave_out(number, reason)

    def _give_up_quote(self) -> None:
        """The open quote is torn: leave its line out, take the lines after it for themselves."""
        quoted, self._quoted = self._quoted, []
        if not quoted:
            return
        if self._header is not None:
            self._leave_out(quoted[0][0], "a quote is not closed")
        for number, text in quoted[1:]:
            self._take_line(number, text)

    def _close_batch(self) -> None:
        if self._batch is not None:
            self._events.append(self._batch.event())
            self._batch = None

    def _take_events(self) -> list[Event]:
        self._close_batch()
        events, self._events = self._events, []
        return events


class _Batch:
    """Rows of one attempt on consecutive lines, gathered into columns."""

    def __init__(self, header: Header, first_line: int) -> None:
        self.header = header
        self.first_line = first_line
        self.epochs: list[int] = []
        self.columns: dict[int, list[float | None]] = {index: [] for index in header.values_at}
        """By cell index."""
        self.not_numbers: set[int] = set()
        """Indices of columns with a cell that is text."""

    def goes_on(self, line: int, epoch: int) -> bool:
        """Whether a row belongs to this batch. Where epochs fall another attempt begins, with its own oddities."""
        if line != self.first_line + len(self.epochs) or len(self.epochs) >= BATCH_ROWS:
            return False
        return not self.epochs or epoch >= self.epochs[-1]

    def append(self, epoch: int, cells: Sequence[str]) -> None:
        self.epochs.append(epoch)
        for index, values in self.columns.items():
            try:
                values.append(parse_number(cells[index]))
            except ValueError:
                values.append(None)
                self.not_numbers.add(index)

    def event(self) -> EpochsEnded:
        names = self.header.names
        texts = sorted(names[index] for index in self.not_numbers if index != self.header.rate_at)
        return _event(self.header, self.epochs, self.columns, self.first_line, texts)


def _event(
    header: Header,
    epochs: Sequence[int],
    columns: Mapping[int, Values] | Sequence[Values],
    first_line: int,
    not_numbers: Sequence[str] = (),
) -> EpochsEnded:
    """The event of some rows.

    Args:
        header: what stands where.
        epochs: their epochs, shape (rows,).
        columns: by cell index, each of shape (rows,).
        first_line: where the first row stands.
        not_numbers: columns with text among these rows.
    """
    times = None if header.time_at is None else [*map(_time, columns[header.time_at])]
    return EpochsEnded(
        time=next((time for time in reversed(times or []) if time is not None), None),
        epochs=epochs,
        metrics={name: columns[index] for index, name in header.metrics},
        learning_rate=None if header.rate_at is None else columns[header.rate_at],
        learning_rates={name: columns[index] for index, name in header.rates},
        seconds={name: columns[index] for index, name in header.seconds},
        times=times,
        first_line=first_line,
        not_numbers=list(not_numbers),
    )


def _time(value: float | None) -> float | None:
    """A time as it is, absent if it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def parse_epoch(cell: str) -> int:
    """A 0-based epoch number: whole, not negative. Raises ValueError otherwise."""
    cell = cell.strip()
    value = int(cell) if re.fullmatch(r"[0-9]{1,16}", cell) else parse_number(cell)
    if value is None or not 0 <= value <= EPOCH_MAX or value != int(value):
        raise ValueError(cell)
    return int(value)


def is_row(text: str, separators: str = SEPARATORS) -> bool:
    """Whether a line is two or more numbers (or NA) and nothing else."""
    for separator in separators:
        cells = text.split(separator)
        try:
            values = [parse_number(cell) for cell in cells]
        except ValueError:
            continue
        if len(cells) > 1 and any(value is not None for value in values):
            return True
    return False


def _wrong_width(cells: Sequence[str], header: Header) -> str:
    if len(cells) == 1 and re.fullmatch(r"[0-9]+", cells[0].strip()):
        return EPOCH_ALONE
    return f"{plural(len(cells), 'cell')} under a header of {header.width}"


def _split(line: str, separator: str) -> list[str]:
    """The cells of a record; the csv module only where there are quotes (it is slower and stricter)."""
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader((part + "\n" for part in line.split("\n")), delimiter=separator))
    except (csv.Error, StopIteration):
        return line.split(separator)


def _is_quote_open(text: str) -> bool:
    return text.count('"') % 2 == 1


def _is_name(cell: str) -> bool:
    """Whether a cell can be a column's name: short words, no number, no sentence."""
    if not 0 < len(cell) <= 200 or any(sign in cell for sign in "=\0") or ": " in cell or cell.endswith(":"):
        return False
    try:
        float(cell)
    except ValueError:
        return cell not in ABSENT and cell[0] not in "{[<"
    return False


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")
