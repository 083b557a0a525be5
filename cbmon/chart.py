"""Charts as rows of text: values and a size in, spans with a role out.

Pure (no clock, file, Textual or Rich), so the live screen and `watch --once` draw alike and a chart is tested as
literal text. A chart is exactly `height` rows of exactly `width` columns, whatever the values (None, NaN, ±inf,
1e308) and the size (also 0). Gaps stay gaps, the extremes of every dot column stay visible. x are display values
(1-based epochs). Text handed in (`empty`, `letter`) is printable and one column a character: the caller's promise.

How a curve becomes text: `thin` leaves out what cannot be seen, `strokes` makes bars of dots of the rest, `_Canvas`
sets these dots and makes a character of every eight.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, StrEnum
from functools import cache, lru_cache
from itertools import chain
from math import ceil, floor, inf, isfinite, isnan, log10
from typing import TypeAlias

import msgspec

from cbmon.axes import LABEL_COLUMNS, Limits, fitted, sane, ticks
from cbmon.strokes import Bar, Scale, dotted_bars, solid_bars, stretches
from cbmon.thin import CurveValues, buffer, extremes, is_rising, rows_within, thinned
from cbmon.units import exponent


class Role(StrEnum):
    """What a span is, for the theme to colour; glyphs and dashes say the same without colour."""

    AXIS = "axis"
    LABEL = "label"
    CURVE0 = "curve0"
    CURVE1 = "curve1"
    CURVE2 = "curve2"
    CURVE3 = "curve3"
    CURVE4 = "curve4"
    CURVE5 = "curve5"
    CURVE6 = "curve6"
    CURVE7 = "curve7"
    BAD = "mark.bad"
    STOP = "mark.stop"
    RESTART = "mark.restart"
    LR = "mark.lr"
    BEST = "mark.best"
    QUIET = "mark.quiet"
    SHADOW = "mark.shadow"
    CHECKPOINT = "mark.checkpoint"
    TEXT = "text"
    TITLE = "title"
    DIM = "dim"
    CURSOR = "cursor"
    BAR = "bar"
    GOOD = "state.good"
    LOOK = "state.look"
    NEEDS = "state.needs"


CURVE_ROLES = tuple(role for role in Role if role.startswith("curve"))
"""The n-th curve of a chart has the role n modulo 8, and in ASCII that glyph."""
CURVE_GLYPHS = "*ox#@%&="

Span: TypeAlias = tuple[str, Role]
Row: TypeAlias = tuple[Span, ...]


class MarkKind(Enum):
    """What happened at an epoch; where marks share a column, the first in this order is shown."""

    BAD = ("✗", "!", Role.BAD)
    STOP = ("■", "#", Role.STOP)
    RESTART = ("↻", "r", Role.RESTART)
    SHADOW = ("◇", "o", Role.SHADOW)
    LR = ("▼", "v", Role.LR)
    BEST = ("★", "*", Role.BEST)
    QUIET = ("◌", ".", Role.QUIET)
    CHECKPOINT = ("◆", "d", Role.CHECKPOINT)

    def __init__(self, glyph: str, ascii_glyph: str, role: Role) -> None:
        self.glyph = glyph
        self.ascii_glyph = ascii_glyph
        self.role = role


class Mark(msgspec.Struct, frozen=True):
    """One event on the rail below the chart."""

    x: float
    kind: MarkKind


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a chart; read in order, so an x that goes back starts a new stroke.

    It copies nothing; rows that are appended later do not belong to it.
    """

    label: str
    x: Sequence[float]
    """A long curve has a range or the `array("q")` of an attempt's epochs: these rise, and are searched."""
    y: CurveValues
    """One for each x; a long curve has a `Column` or an `array("d")`.

    None and NaN are gaps; ±inf is a gap with a ✗ at the upper or lower edge.
    """
    x_offset: int = 0
    """Added to each x: 1 for 0-based epochs."""
    dashed: bool = False
    """Dotted in braille (a single point still shows); in ASCII every curve has its own glyph anyway."""
    steps: bool = False
    """Each value holds until the next x and changes there at once, as a learning rate does."""
    letter: str = ""
    """One character at the end of what is visible, to tell overlaid runs without colour; "" for none."""
    number: int | None = None
    """Which of the 8 colours and ASCII glyphs, modulo 8; None: by its place in the chart."""
    rows: int = 0
    """How many points it has, whatever is given; tells it from an earlier curve on the same buffers."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "rows", min(len(self.x), len(self.y)))

    @property
    def count(self) -> int:
        """How many of its points are still there: a buffer may have lost its last one."""
        return min(self.rows, len(self.x), len(self.y))

    def at(self, x: float) -> float | None:
        """The value at exactly this x; None if there is none."""
        wanted, count = x - self.x_offset, self.count
        if is_rising(self.x):
            row = bisect_left(self.x, wanted, 0, count)
        else:
            row = next((row for row in range(count) if self.x[row] == wanted), count)
        return self.y[row] if row < count and self.x[row] == wanted else None


# --- limits and columns -------------------------------------------------------------------------------------

_GUTTER = LABEL_COLUMNS + 1
_NARROW = 16
"""Below this width a chart has no labels at the left: the curve is worth more."""


def fit_y(
    curves: Iterable[Curve],
    x_limits: Limits | None = None,
    *,
    log: bool = False,
    previous: Limits | None = None,
) -> Limits | None:
    """`axes.y_limits` for curves: of all their points, or of those within the x limits.

    Args:
        curves: What the axis is for.
        x_limits: Only these x count; None: all.
        log: For a log axis.
        previous: What this function gave for the same chart, window and kind of axis before; None: fit anew.
    """
    spans = [_span(curve, x_limits, 0.0 if log else -inf) for curve in curves]
    return fitted([span for span in spans if span], log=log, previous=previous)


def level(curve: Curve, x_limits: Limits | None = None) -> float | None:
    """The one value above 0 that a curve has within the x limits; None if it has none or several."""
    span = _span(curve, x_limits, 0.0)
    return span[0] if span and span[0] == span[1] else None


def _span(curve: Curve, x_limits: Limits | None, least: float) -> Limits | None:
    if x_limits is None:
        return extremes(curve.y, slice(curve.count), least)
    low, high = (limit - curve.x_offset for limit in x_limits)
    if is_rising(curve.x):
        return extremes(curve.y, rows_within(curve.x, low, high, curve.count), least)
    points = zip(curve.x[: curve.count], buffer(curve.y)[: curve.count], strict=True)
    return extremes([y for x, y in points if low <= x <= high], least=least)


def column_of(x: float, width: int, x_limits: Limits, *, ascii: bool = False) -> int | None:
    """The column of a chart in which an x stands, counted from the chart's left edge; None outside."""
    column = _cell(_across(width, x_limits, ascii), x, ascii) if width > 0 else None
    return None if column is None else _gutter(width) + column


def epoch_at(column: int, width: int, x_limits: Limits, *, ascii: bool = False) -> int | None:
    """The epoch nearest to the middle of a column of a chart, for the mouse; None beside the plot."""
    if not _gutter(width) <= column < width:
        return None
    across, cell = _across(width, x_limits, ascii), column - _gutter(width)
    x = across.start + (cell if ascii else 2 * cell + 0.5) / across.per_unit
    low, high = sane(x_limits)
    return round(min(max(x, ceil(low)), max(ceil(low), floor(high))))


def _gutter(width: int) -> int:
    return _GUTTER if width >= _NARROW else 0


def _across(width: int, x_limits: Limits, ascii: bool) -> Scale:
    """The x axis of a chart: a cell has two dot columns, in ASCII one."""
    return Scale.over(*sane(x_limits), (width - _gutter(width)) * (1 if ascii else 2))


def _cell(across: Scale, x: float, ascii: bool) -> int | None:
    """The cell column of an x within the plot."""
    dot = across.dot(x) if isfinite(x) else -1
    return dot // (1 if ascii else 2) if 0 <= dot < across.dots else None


# --- dots and characters ------------------------------------------------------------------------------------

_BRAILLE = " " + "".join(map(chr, range(0x2801, 0x2900)))
"""By the dots that are set. A cell is 2 dots wide and 4 high:"""
_LEFT, _RIGHT = (0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)
_PAINTS = (*CURVE_ROLES, *(role for role in Role if role not in CURVE_ROLES))
"""A cell's role as a byte: its place here + 1; 0 is a blank."""
_BLANK = 0


def _paint(role: Role) -> int:
    return _PAINTS.index(role) + 1


@lru_cache(64)
def _prefixes(bits: tuple[int, ...], rows: int, every: int) -> tuple[int, ...]:
    """The first 0, 1, 2, … dots of a dot column (each `every`-th of them) as one integer, 8 bits a cell.

    `prefixes[7] ^ prefixes[2]` are the dots 2 to 6.
    """
    found = [0]
    for row in range(rows * len(bits)):
        cell, dot = divmod(row, len(bits))
        found.append(found[-1] | (bits[dot] << 8 * cell if row % every == 0 else 0))
    return tuple(found)


@cache
def _everywhere(value: int) -> bytes:
    """To translate cells: 0 stays 0, everything else becomes `value`."""
    return bytes([0] + [value] * 255)


class _Canvas:
    """The plot area: dots by cell, who drew there last, single characters over them. Owns the scales.

    Cells are kept column by column, a byte each, in one integer: then a curve is laid over the others at once.
    A cell of an ASCII chart is one dot; its bits say which curves are there, and these take turns in a row.
    """

    def __init__(self, width: int, rows: int, x: Limits, y: Limits, log: bool, ascii: bool) -> None:
        self.columns, self.rows, self.ascii = width - _gutter(width), rows, ascii
        self.sides = ((1,),) if ascii else (_LEFT, _RIGHT)
        self.across = _across(width, x, ascii)
        self.down = Scale.over(y[1], y[0], rows * len(self.sides[0]), log=log)
        self.dots = 0
        self.owners = 0
        self.over: dict[tuple[int, int], tuple[str, Role]] = {}
        """(row, column) → what lies over the dots."""

    def column(self, x: float) -> int | None:
        """The cell column of an x; None outside."""
        return _cell(self.across, x, self.ascii)

    def row(self, y: float) -> int:
        """The cell row of a y, at the edge if outside."""
        return min(max(self.down.dot(y), 0), self.down.dots - 1) // len(self.sides[0])

    def draw(self, curve: Curve, paint: int) -> tuple[int, int] | None:
        """Draw one more curve; the row and column in which it ends, None if it is not to be seen."""
        wide, dotted = self.across.dots, curve.dashed and not self.ascii
        thin = thinned(curve.x, curve.x_offset, curve.y, curve.count, self.across, self.down, dotted=dotted)
        self._mark_infinite(thin.columns, thin.values)
        found = list(stretches(thin.columns, thin.values, self.down))
        columns = [0] * self.columns
        self._set(columns, thin.crowd)
        if dotted:
            bars = list(dotted_bars(found, wide, curve.steps))
            self._set(columns, (bar for bar, is_even in bars if not is_even))
            self._set(columns, (bar for bar, is_even in bars if is_even), every=2)
        else:
            self._set(columns, solid_bars(found, wide, curve.steps))
        cells = b"".join([column.to_bytes(self.rows, "little") for column in columns])
        if not any(cells):
            return None
        self._lay(cells, paint)
        last = max(at for at, column in enumerate(columns) if column)
        end = next((stretch for stretch in reversed(found) if 0 <= stretch.column < wide), None)
        if end and end.column // len(self.sides) == last:
            return min(max(end.last, 0), self.down.dots - 1) // len(self.sides[0]), last
        return next(row for row in range(self.rows) if cells[last * self.rows + row]), last  # it goes out

    def _set(self, columns: list[int], bars: Iterable[Bar], every: int = 1) -> None:
        """Set the dots of bars as far as they are inside, in cell columns of one integer each."""
        wide, high, sides = self.across.dots, self.down.dots, len(self.sides)
        prefixes = [_prefixes(side, self.rows, every) for side in self.sides]
        for column, top, end in bars:
            if 0 <= column < wide and top < high and end >= 0:
                prefix = prefixes[column % sides]
                columns[column // sides] |= prefix[end + 1 if end < high else high] ^ prefix[max(top, 0)]

    def _lay(self, cells: bytes, paint: int) -> None:
        """Lay the cells of a curve over what is there."""
        there = int.from_bytes(cells.translate(_everywhere(0xFF)), "little")
        self.owners = self.owners & ~there | int.from_bytes(cells.translate(_everywhere(paint)), "little")
        if self.ascii:
            cells = cells.translate(_everywhere(1 << (paint - 1)))
        self.dots |= int.from_bytes(cells, "little")

    def _mark_infinite(self, columns: Iterable[int], values: Iterable[float | None]) -> None:
        bad = MarkKind.BAD.ascii_glyph if self.ascii else MarkKind.BAD.glyph
        for column, value in zip(columns, values, strict=True):
            if value is not None and abs(value) == inf and 0 <= column < self.across.dots:
                self.over[0 if value > 0 else self.rows - 1, column // len(self.sides)] = bad, Role.BAD

    def letters(self, ends: Sequence[tuple[int, int, str, Role]]) -> None:
        """Write letters behind the ends of their curves, or next to there where they hide no curve and no letter.

        In a plot that is full they hide a curve, but no end of one as long as there is another place.
        """
        cells, taken = self._bytes(self.dots), {(row, column) for row, column, _, _ in ends}
        for row, column, letter, role in ends:
            columns = range(max(column - 2, 0), min(column + 4, self.columns))
            near = [(3 * abs(y - row) + abs(x - column - 1), y, x) for x in columns for y in range(self.rows)]
            free = [(y, x) for _, y, x in sorted(near) if (y, x) not in self.over]
            empty = (at for at in free if not cells[at[1] * self.rows + at[0]])
            at = next(chain(empty, (at for at in free if at not in taken), free), (row, column))
            self.over[at] = letter, role

    def write(self, text: str) -> None:
        """Write a message in the middle."""
        text = text[: self.columns]
        for offset, glyph in enumerate(text):
            self.over[self.rows // 2, (self.columns - len(text)) // 2 + offset] = glyph, Role.LABEL

    def lines(self, cursor: int | None = None) -> Iterator[tuple[str, bytes]]:
        """The rows, as text and paints; with a dim line in the empty cells of the cursor's column."""
        dots, owners = self._bytes(self.dots), self._bytes(self.owners)
        bar = "|" if self.ascii else "│"
        for row in range(self.rows):
            cells, paints = dots[row :: self.rows], bytearray(owners[row :: self.rows])
            if self.ascii:
                there = map(_paints, cells)
                paints = bytearray(turns[column % len(turns)] for column, turns in enumerate(there))
                text = "".join(map((" " + CURVE_GLYPHS).__getitem__, paints))
            else:
                text = "".join(map(_BRAILLE.__getitem__, cells))
            over = {column: what for (at, column), what in self.over.items() if at == row}
            if cursor is not None and not cells[cursor]:
                over.setdefault(cursor, (bar, Role.DIM))
            for column, (glyph, role) in over.items():
                text = text[:column] + glyph + text[column + 1 :]
                paints[column] = _BLANK if glyph == " " else _paint(role)
            yield text, bytes(paints)

    def _bytes(self, cells: int) -> bytes:
        return cells.to_bytes(self.columns * self.rows, "little")


@cache
def _paints(curves: int) -> tuple[int, ...]:
    """The paints of the curves in an ASCII cell (bits)."""
    return tuple(paint for paint in range(1, 9) if curves >> (paint - 1) & 1) or (_BLANK,)


# --- the chart ----------------------------------------------------------------------------------------------


def chart(
    curves: Iterable[Curve],
    *,
    width: int,
    height: int,
    x_limits: Limits | None = None,
    y_limits: Limits | None = None,
    log: bool = False,
    ascii: bool = False,
    marks: Iterable[Mark] | None = None,
    axis: bool = True,
    cursor: float | None = None,
    empty: str = "no values yet",
    y_ticks: Sequence[tuple[float, str]] | None = None,
) -> tuple[Row, ...]:
    """Draw curves with axes and, below them, the event rail.

    Where curves meet in a cell their dots are merged and the later one gives the colour. Below 16 columns the
    labels at the left go, below 5 rows the epoch labels, below 4 the rail, below 3 the axis.

    Args:
        curves: In drawing order; beyond 8 roles and ASCII glyphs repeat.
        width: Columns of every row.
        height: Number of rows, axis and rail included.
        x_limits: From `x_limits()` or `window_limits()`; None: those of the data.
        y_limits: From `fit_y()`; None: those of the data in view. What lies outside is cut off at the edge.
        log: Powers of ten at equal distances; values up to 0 are gaps.
        ascii: For terminals without UTF-8: one glyph a curve instead of braille.
        marks: Events for the rail; None: no rail row at all.
        axis: Whether there are an x axis and its labels; False for a small chart that stands below another.
        cursor: An x that gets a dim line behind the curves and a mark on the axis; None or outside: nothing.
        empty: Said in the middle where no value is to be seen.
        y_ticks: Values and labels (of at most 6 columns) for the y axis; None: round ones.

    Returns:
        `height` rows whose spans add up to `width` columns each; neighbours of the same role are one span.
    """
    curves, width, height = tuple(curves), max(width, 0), max(height, 0)
    if not width or not height:
        return ((),) * height
    with_axis, with_rail = axis and height >= 3, marks is not None and height >= 4
    with_labels = axis and height >= 4 + with_rail
    rows = height - with_axis - with_rail - with_labels
    x, y = _frame(curves, x_limits, y_limits, log)
    canvas = _Canvas(width, rows, x, y, log, ascii)
    is_drawn = _draw(canvas, curves, empty)
    x_ticks = _place(canvas, x, width) if is_drawn or x_limits else []
    at = None if cursor is None else canvas.column(cursor)
    labels: dict[int, str] = {}
    if y_ticks is None:
        y_ticks = ticks(*y, min(rows // 2, max(6, rows // 3)), log) if is_drawn else ()
    for value, label in y_ticks:
        labels.setdefault(canvas.row(value), label)
    found = [
        _spans(*_with_label(text, paints, labels.get(row), _gutter(width), ascii))
        for row, (text, paints) in enumerate(canvas.lines(at))
    ]
    if with_axis:
        found.append(_axis(canvas, [column for column, _, _ in x_ticks], at, width))
    if with_labels:
        text = " " * width
        for _, start, label in x_ticks:
            text = text[:start] + label + text[start + len(label) :]
        found.append(((text, Role.LABEL),))
    if with_rail:
        found.append(_rail(canvas, marks or (), _gutter(width)))
    return tuple(found)


def _frame(curves: Sequence[Curve], x: Limits | None, y: Limits | None, log: bool) -> tuple[Limits, Limits]:
    """The limits asked for, or those of the data, fit to divide by."""
    if y is None or (log and y[0] <= 0):
        y = fit_y(curves, x, log=log)
    if x is None:
        values = [end for curve in curves for end in _ends(curve)]
        x = (min(values), max(values)) if values else (0.0, 1.0)
    return sane(x), sane(y or (0.1, 1.0), log)


def _ends(curve: Curve) -> list[float]:
    """The lowest and the highest finite x, if there is one."""
    x = curve.x[: curve.count]
    if is_rising(x):
        x = x[:: max(curve.count - 1, 1)]
    kept = [value for value in x if isfinite(value)]
    return [min(kept) + curve.x_offset, max(kept) + curve.x_offset] if kept else []


def _draw(canvas: _Canvas, curves: Iterable[Curve], empty: str) -> bool:
    """Draw curves and their letters, or say that nothing is to be seen."""
    ends = []
    for place, curve in enumerate(curves):
        number = (place if curve.number is None else curve.number) % len(CURVE_ROLES)
        end = canvas.draw(curve, number + 1)
        if end and curve.letter:
            ends.append((*end, curve.letter[0], CURVE_ROLES[number]))
    if ends:
        canvas.letters(ends)
    elif not canvas.dots:
        canvas.write(empty)
    return canvas.dots > 0


def _place(canvas: _Canvas, x: Limits, width: int) -> list[tuple[int, int, str]]:
    """Ticks of the x axis whose labels neither touch nor leave the row: (column, label's start, label)."""
    whole = x[0] == floor(x[0]) and x[1] == floor(x[1])
    wanted = canvas.columns // (len(f"{x[1]:.0f}") + 4) if whole and x[1] < 1e6 else canvas.columns // 10
    found = [tick for tick in ticks(*x, wanted, whole=whole) if not whole or tick[0] > x[0]]
    if whole:
        found.insert(0, (x[0], f"{x[0]:.0f}" if abs(x[0]) < 1e5 else exponent(x[0], 1)))
    placed: list[tuple[int, int, str]] = []
    gutter, free = width - canvas.columns, 0
    for value, label in found:
        column = canvas.column(value)
        if column is None:
            continue
        start = max(0, min(gutter + column - len(label) // 2, width - len(label)))
        if start >= free and len(label) <= width:
            placed.append((gutter + column, start, label))
            free = start + len(label) + 1
    return placed


def _with_label(text: str, paints: bytes, label: str | None, gutter: int, ascii: bool) -> tuple[str, bytes]:
    """A row of the plot with what stands left of it."""
    if not gutter:
        return text, paints
    bar, tick = "|+" if ascii else "│┤"
    margin, axis = f"{label or '':>{LABEL_COLUMNS - 1}}".ljust(LABEL_COLUMNS), bar if label is None else tick
    return margin + axis + text, _painted(margin, Role.LABEL) + _painted(axis, Role.AXIS) + paints


def _axis(canvas: _Canvas, ticks: Iterable[int], cursor: int | None, width: int) -> Row:
    """The line below the plot."""
    line, tick, corner, here = "-++|" if canvas.ascii else "─┬└┴"
    gutter = width - canvas.columns
    axis = [" "] * (gutter - 1) + [corner] * bool(gutter) + [line] * canvas.columns
    for column in ticks:
        axis[column] = tick
    text = "".join(axis)
    paints = bytearray(_painted(text, Role.AXIS))
    if cursor is not None:
        at = gutter + cursor
        text = text[:at] + ("┼" if text[at] == "┬" else here) + text[at + 1 :]
        paints[at] = _paint(Role.CURSOR)
    return _spans(text, paints)


def _rail(canvas: _Canvas, marks: Iterable[Mark], gutter: int) -> Row:
    glyphs, paints = [" "] * (gutter + canvas.columns), bytearray(gutter + canvas.columns)
    severity = list(MarkKind)
    for mark in sorted(marks, key=lambda mark: -severity.index(mark.kind)):
        column = canvas.column(mark.x)
        if column is not None:
            glyphs[gutter + column] = mark.kind.ascii_glyph if canvas.ascii else mark.kind.glyph
            paints[gutter + column] = _paint(mark.kind.role)
    return _spans("".join(glyphs), paints, Role.LABEL)


_SPAN = re.compile(rb"\0*([^\0])(?:\1|\0)*", re.DOTALL)
"""Paints of one kind; blanks go with what stands before them, at the start of a row with what comes."""


def _spans(text: str, paints: bytes | bytearray, blank: Role = Role.AXIS) -> Row:
    """Join neighbours of one role; a row of blanks only is one span of the role `blank`."""
    spans = [(text[slice(*match.span())], _PAINTS[match[1][0] - 1]) for match in _SPAN.finditer(paints)]
    return tuple(spans) or ((text, blank),)


def _painted(text: str, role: Role) -> bytes:
    """The paints of a text in one role."""
    paint = _paint(role)
    return bytes([_BLANK if glyph == " " else paint for glyph in text])


# --- one row ------------------------------------------------------------------------------------------------


def sparkbar(fraction: float | None, width: int, ascii: bool = False) -> str:
    """Progress in half columns, exactly `width` wide: `━━━╸───`. None or NaN is no progress known.

    Something done shows at least half a column, and only all done fills the bar.
    """
    full, half, rest = "=>-" if ascii else "━╸─"
    width = max(width, 0)
    if fraction is None or isnan(fraction) or fraction <= 0:
        return rest * width
    halves = 2 * width if fraction >= 1 else max(1, min(int(fraction * 2 * width), 2 * width - 1))
    return (full * (halves // 2) + half * (halves % 2)).ljust(width, rest)[:width]


def lr_strip(values: Sequence[float | None], width: int, ascii: bool = False) -> str:
    """The learning rate over time in one row, exactly `width` wide: `▔▔▔▔╲────╲▁▁▁▁`.

    Three log-scaled levels between the lowest and the highest value. A constant is at the top, where most
    schedules begin; 0 is at the bottom; None and non-finite values are blank.
    """
    levels, falls, rises = ("_-^", "\\", "/") if ascii else ("▁─▔", "╲", "╱")
    width = max(width, 0)
    known = [log10(value) for value in values if value is not None and 0 < value < inf]
    top, span = (max(known), max(known) - min(known)) if known else (0.0, 0.0)
    text, before = "", None
    for column in range(width if values else 0):
        value = values[ceil((column + 1) * len(values) / width) - 1]
        if value is None or not 0 <= value < inf:
            text, before = text + " ", None
            continue
        level = 2 - round(2 * (top - log10(value)) / span) if value and span else 2 if value else 0
        moved = 0 if before is None else level - before
        text += rises if moved > 0 else falls if moved < 0 else levels[level]
        before = level
    return text.ljust(width)
