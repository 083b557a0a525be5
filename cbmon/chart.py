"""Charts as rows of text: values and a size in, spans with a role out.

Pure (no clock, file, Textual, Rich or NumPy), so the live screen and `watch --once` draw alike and
a chart is tested as literal text. A chart is exactly `height` rows of exactly `width` columns, whatever the
values (None, NaN, ±inf, 1e308) and the size (also 0). Gaps stay gaps, the extremes of every dot column stay
visible. x are display values (1-based epochs).
Text handed in (`empty`, `letter`) is printable and one column a character: the caller's promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import ceil, floor, inf, isfinite, isnan, log10
from typing import NamedTuple, TypeAlias

from cbmon.axes import LABEL_COLUMNS, Limits, sane, ticks, y_limits
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
    LR = ("▼", "v", Role.LR)
    BEST = ("★", "*", Role.BEST)
    QUIET = ("◌", ".", Role.QUIET)
    SHADOW = ("◇", "o", Role.SHADOW)
    CHECKPOINT = ("◆", "d", Role.CHECKPOINT)

    def __init__(self, glyph: str, ascii_glyph: str, role: Role) -> None:
        self.glyph = glyph
        self.ascii_glyph = ascii_glyph
        self.role = role


@dataclass(frozen=True, slots=True)
class Mark:
    """One event on the rail below the chart."""

    x: float
    kind: MarkKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a chart; read in order, so an x that goes back starts a new stroke."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    """As long as `x`. None and NaN are gaps; ±inf is a gap with a ✗ at the upper or lower edge."""
    dashed: bool = False
    """Dotted in braille (a single point still shows); in ASCII every curve has its own glyph anyway."""
    letter: str = ""
    """One character drawn behind the last point, to tell overlaid runs without colour; "" for none."""


# --- the drawing --------------------------------------------------------------------------------------------

_FAR = 1e9
"""Dots further out are taken to be this far: keeps int() and slopes finite."""
_ALL_DOTS, _EVERY_OTHER_ROW = 0xFF, 0x2D
_DOTS = (0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)
"""Braille dots by column and row (a character is U+2800 + its dots)."""
_RUNS = tuple(
    tuple(tuple(sum(dots[top : end + 1]) for end in range(4)) for top in range(4)) for dots in _DOTS
)
"""Dots from `top` to `end` of a column: `_RUNS[column][top][end]`."""
_GUTTER = LABEL_COLUMNS + 1
_NARROW = 16
"""Below this width a chart has no labels at the left: the curve is worth more."""


class _Stretch(NamedTuple):
    """Consecutive points in one dot column."""

    column: int
    first: float
    low: float
    high: float
    last: float
    joined: bool
    """No gap before it."""


class _Canvas:
    """The plot area: dots by cell, who drew there last, single characters over them. Owns the scales.

    A cell of an ASCII chart is one dot; its bits say which curves are there, and these take turns in a row.
    """

    def __init__(self, columns: int, rows: int, x: Limits, y: Limits, log: bool, ascii: bool) -> None:
        self.columns, self.rows, self.log, self.ascii = columns, rows, log, ascii
        self.cell_wide, self.cell_high = (1, 1) if ascii else (2, 4)
        self.wide, self.high = columns * self.cell_wide, rows * self.cell_high
        self.x, self.x_scale = x[0], max(self.wide - 1, 1e-6) / (x[1] - x[0])
        self.top, bottom = (log10(y[1]), log10(y[0])) if log else (y[1], y[0])
        self.y_scale = (self.high - 1) / (self.top - bottom)
        self.dots = bytearray(columns * rows)
        self.owner = bytearray(columns * rows)
        self.over: dict[tuple[int, int], tuple[str, Role]] = {}
        """(row, column) → what lies over the dots."""

    def dot_column(self, x: float) -> int:
        """The dot column of a finite x, also outside."""
        return round(min(_FAR, max(-_FAR, (x - self.x) * self.x_scale)))

    def dot_row(self, y: float) -> int:
        """The dot row of a finite y, also outside; 0 is the upper limit."""
        distance = self.top - (log10(y) if self.log else y)
        return round(min(_FAR, max(-_FAR, distance * self.y_scale)))  # max(-_FAR, NaN) is -_FAR

    def column(self, x: float) -> int | None:
        """The cell column of an x; None outside."""
        dot = self.dot_column(x) if isfinite(x) else -1
        return dot // self.cell_wide if 0 <= dot < self.wide else None

    def row(self, y: float) -> int:
        """The cell row of a y, at the edge if outside."""
        return min(max(self.dot_row(y), 0), self.high - 1) // self.cell_high

    def draw(self, curve: Curve, number: int) -> bool:
        """Draw one more curve; False if it has nothing to draw."""
        owner, dotted = number % len(CURVE_ROLES) + 1, curve.dashed and not self.ascii
        before: _Stretch | None = None
        for stretch in self._stretches(curve):
            column, first = stretch.column, self.dot_row(stretch.first)
            joined = before if stretch.joined else None
            if joined:
                self._line(joined.column, self.dot_row(joined.last), column, first, owner, dotted)
            else:
                self._dot(column, first, owner)  # a lone point shows in dotted lines too
            self._line(column, self.dot_row(stretch.high), column, self.dot_row(stretch.low), owner, dotted)
            before = stretch
        if before and curve.letter:
            self._letter(before, curve.letter[0], CURVE_ROLES[owner - 1])
        return before is not None

    def _stretches(self, curve: Curve) -> Iterator[_Stretch]:
        """One pass over the points: what of them can be seen. It only compares, so a million take 0.1 s."""
        least = 0.0 if self.log else -inf
        left, right, at = inf, -inf, 0
        first = low = high = last = 0.0
        joined = open_ = False
        for x, y in zip(curve.x, curve.y, strict=False):
            if y is None or not least < y < inf:  # NaN fails too
                if open_:
                    yield _Stretch(at, first, low, high, last, joined)
                left, right, joined, open_ = inf, -inf, False, False
                if y is not None and abs(y) == inf and (column := self.column(x)) is not None:
                    glyph = MarkKind.BAD.ascii_glyph if self.ascii else MarkKind.BAD.glyph
                    self.over[0 if y > 0 else self.rows - 1, column] = glyph, Role.BAD
            elif left <= x < right:
                if y < low:
                    low = y
                elif y > high:
                    high = y
                last = y
            elif isfinite(x):
                if open_:
                    yield _Stretch(at, first, low, high, last, joined)
                joined = open_ and x >= left
                at = self.dot_column(x)
                left, right = self.x + (at - 0.5) / self.x_scale, self.x + (at + 0.5) / self.x_scale
                first = low = high = last = y
                open_ = True
        if open_:
            yield _Stretch(at, first, low, high, last, joined)

    def _line(self, x0: int, y0: int, x1: int, y1: int, owner: int, dotted: bool) -> None:
        """Join two dots, the first not right of the second; what is outside is cut at the edge."""
        run, rise = x1 - x0, y1 - y0
        columns = range(max(x0, 0), min(x1, self.wide - 1) + 1)
        slope = rise / run if run else 0.0
        down, keep = 1 if rise > 0 else -1, _EVERY_OTHER_ROW if dotted else _ALL_DOTS
        if abs(rise) <= run or not rise:
            for column in columns[columns.start % 2 :: 2] if dotted else columns:
                self._dot(column, round(y0 + slope * (column - x0)), owner)
        else:
            for column in columns:  # each from half a column before to half a column behind
                start = y0 if column == x0 else round(y0 + slope * (column - 0.5 - x0)) + down
                end = y1 if column == x1 else round(y0 + slope * (column + 0.5 - x0))
                if (end - start) * down >= 0:
                    self._fill(column, min(start, end), max(start, end), owner, keep)
        if dotted and (abs(rise) > 2 or (rise and not run)):  # a spike keeps its tip, a column its extremes
            self._dot(x0, y0, owner)
            self._dot(x1, y1, owner)

    def _dot(self, column: int, row: int, owner: int) -> None:
        self._fill(column, row, row, owner)

    def _fill(self, column: int, top: int, end: int, owner: int, keep: int = _ALL_DOTS) -> None:
        """Set the dots of one column from `top` to `end`, as far as they are inside."""
        top, end = max(top, 0), min(end, self.high - 1)
        if top > end or not 0 <= column < self.wide:
            return
        high, runs = self.cell_high, _RUNS[column % self.cell_wide]
        for row in range(top // high, end // high + 1):
            cell = row * self.columns + column // self.cell_wide
            dots = runs[max(top - row * high, 0)][min(end - row * high, high - 1)] & keep
            if dots:
                self.dots[cell] |= 1 << (owner - 1) if self.ascii else dots
                self.owner[cell] = owner

    def _letter(self, end: _Stretch, letter: str, role: Role) -> None:
        """Write the letter of a curve behind its end, in the nearest row that has none yet."""
        if 0 <= end.column < self.wide:
            column, at = min(end.column // self.cell_wide + 1, self.columns - 1), self.row(end.last)
            rows = sorted(range(self.rows), key=lambda row: abs(row - at))
            row = next((row for row in rows if (row, column) not in self.over), at)
            self.over[row, column] = letter, role

    def write(self, text: str) -> None:
        """Write a message in the middle."""
        text = text[: self.columns]
        for offset, glyph in enumerate(text):
            self.over[self.rows // 2, (self.columns - len(text)) // 2 + offset] = glyph, Role.LABEL

    def cells(self, row: int) -> tuple[list[str], list[Role]]:
        """Glyphs and roles of a row."""
        line = slice(row * self.columns, (row + 1) * self.columns)
        dots, owners = self.dots[line], self.owner[line]
        if self.ascii:
            owners = bytearray(_turn(curves, column) for column, curves in enumerate(dots))
            glyphs = [(" " + CURVE_GLYPHS)[owner] for owner in owners]
        else:
            glyphs = [chr(0x2800 + bits) if bits else " " for bits in dots]
        roles = [(Role.AXIS, *CURVE_ROLES)[owner] for owner in owners]
        for (at, column), (glyph, role) in self.over.items():
            if at == row:
                glyphs[column], roles[column] = glyph, role
        return glyphs, roles


def _turn(curves: int, column: int) -> int:
    """Which of the curves of an ASCII cell (bits) is shown in this column; 0 for none."""
    there = [owner for owner in range(1, 9) if curves >> (owner - 1) & 1]
    return there[column % len(there)] if there else 0


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
    empty: str = "no values yet",
) -> tuple[Row, ...]:
    """Draw curves with axes and, below them, the event rail.

    Where curves meet in a cell their dots are merged and the later one gives the colour. Below 16 columns the
    labels at the left go, below 5 rows the epoch labels, below 4 the rail, below 3 the axis.

    Args:
        curves: In drawing order; beyond 8 roles and ASCII glyphs repeat.
        width: Columns of every row.
        height: Number of rows, axis and rail included.
        x_limits: From `x_limits()`; None: those of the data.
        y_limits: From `y_limits()`; None: those of the data. What lies outside is cut off at the edge.
        log: Powers of ten at equal distances; values up to 0 are gaps.
        ascii: For terminals without UTF-8: one glyph a curve instead of braille.
        marks: Events for the rail; None: no rail row at all.
        empty: Said in the middle where there is no finite value.

    Returns:
        `height` rows whose spans add up to `width` columns each; neighbours of the same role are one span.
    """
    curves, width, height = tuple(curves), max(width, 0), max(height, 0)
    if not width or not height:
        return ((),) * height
    with_axis, with_rail = height >= 3, marks is not None and height >= 4
    with_labels = height >= 4 + with_rail
    rows = height - with_axis - with_rail - with_labels
    gutter = _GUTTER if width >= _NARROW else 0
    x, y = _frame(curves, x_limits, y_limits, log)
    canvas = _Canvas(width - gutter, rows, x, y, log, ascii)
    drawn = [canvas.draw(curve, number) for number, curve in enumerate(curves)]
    labels: dict[int, str] = {}
    if any(drawn):
        for value, label in ticks(*y, min(rows // 2, max(6, rows // 3)), log):
            labels.setdefault(canvas.row(value), label)
    else:
        canvas.write(empty)
    x_ticks = _place(canvas, x, gutter, width) if any(drawn) or x_limits else []
    found = [_plot_row(canvas, row, labels.get(row), gutter) for row in range(rows)]
    if with_axis:
        line, tick, corner = "-++" if ascii else "─┬└"
        axis = [" "] * (gutter - 1) + [corner] * bool(gutter) + [line] * canvas.columns
        for column, _, _ in x_ticks:
            axis[column] = tick
        found.append(_spans(axis, [Role.AXIS] * width))
    if with_labels:
        text = [" "] * width
        for _, start, label in x_ticks:
            text[start : start + len(label)] = label
        found.append(_spans(text, [Role.LABEL] * width))
    if with_rail:
        found.append(_rail(canvas, marks or (), gutter))
    return tuple(found)


def _frame(curves: Sequence[Curve], x: Limits | None, y: Limits | None, log: bool) -> tuple[Limits, Limits]:
    """The limits asked for, or those of the data, fit to divide by."""
    if x is None:
        values = [value for curve in curves for value in curve.x if isfinite(value)]
        x = (min(values), max(values)) if values else (0.0, 1.0)
    if y is None or (log and y[0] <= 0):
        y = y_limits((curve.y for curve in curves), log=log)
    return sane(x), sane(y or (0.1, 1.0), log)


def _place(canvas: _Canvas, x: Limits, gutter: int, width: int) -> list[tuple[int, int, str]]:
    """Ticks of the x axis whose labels neither touch nor leave the row: (column, label's start, label)."""
    whole = x[0] == floor(x[0]) and x[1] == floor(x[1])
    wanted = canvas.columns // (len(f"{x[1]:.0f}") + 4) if whole and x[1] < 1e6 else canvas.columns // 10
    found = [tick for tick in ticks(*x, wanted, whole=whole) if not whole or tick[0] > x[0]]
    if whole:
        found.insert(0, (x[0], f"{x[0]:.0f}" if abs(x[0]) < 1e5 else exponent(x[0], 1)))
    placed: list[tuple[int, int, str]] = []
    free = 0
    for value, label in found:
        column = canvas.column(value)
        if column is None:
            continue
        start = max(0, min(gutter + column - len(label) // 2, width - len(label)))
        if start >= free and len(label) <= width:
            placed.append((gutter + column, start, label))
            free = start + len(label) + 1
    return placed


def _plot_row(canvas: _Canvas, row: int, label: str | None, gutter: int) -> Row:
    glyphs, roles = canvas.cells(row)
    if gutter:
        bar, tick = "|+" if canvas.ascii else "│┤"
        text = f"{label or '':>{LABEL_COLUMNS - 1}}".ljust(LABEL_COLUMNS) + (bar if label is None else tick)
        glyphs, roles = [*text, *glyphs], [Role.LABEL] * LABEL_COLUMNS + [Role.AXIS] + roles
    return _spans(glyphs, roles)


def _rail(canvas: _Canvas, marks: Iterable[Mark], gutter: int) -> Row:
    glyphs, roles = [" "] * (gutter + canvas.columns), [Role.LABEL] * (gutter + canvas.columns)
    severity = list(MarkKind)
    for mark in sorted(marks, key=lambda mark: -severity.index(mark.kind)):
        column = canvas.column(mark.x)
        if column is not None:
            glyphs[gutter + column] = mark.kind.ascii_glyph if canvas.ascii else mark.kind.glyph
            roles[gutter + column] = mark.kind.role
    return _spans(glyphs, roles)


def _spans(glyphs: Sequence[str], roles: Sequence[Role]) -> Row:
    """Join neighbours of one role; a blank takes the role it stands next to."""
    spans: list[Span] = []
    text, current = "", roles[0]
    for glyph, role in zip(glyphs, roles, strict=True):
        if role is not current and glyph != " ":
            if text and not text.isspace():
                spans.append((text, current))
                text = ""
            current = role
        text += glyph
    return *spans, (text, current)


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
