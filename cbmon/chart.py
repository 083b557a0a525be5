"""Charts as rows of text: values and a size in, spans with a role out.

Pure (no clock, file, Textual, Rich or NumPy), so the live screen, `watch --once` and `replay` draw alike and
a chart is tested as literal text. A chart is exactly `height` rows of exactly `width` columns, whatever the
values (None, NaN, ±inf, 1e308) and the size (also 0). Gaps stay gaps, the extremes of every dot column stay
visible, and limits only widen, so a cell once drawn stays as it is. x are display values (1-based epochs).
Text handed in (`empty`, `letter`) is printable and one column a character: the caller's promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import ceil, floor, inf, isfinite, isnan, log10
from typing import NamedTuple, TypeAlias

from cbmon.units import UNKNOWN


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
Limits: TypeAlias = tuple[float, float]
"""Lowest and highest value shown, in data units also on a log axis."""


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


# --- numbers ------------------------------------------------------------------------------------------------

_HUGE = 1e300
"""Limits stay within ±this, so that differences of limits stay finite; what lies beyond is clipped."""
_ROOM = 0.05
"""Part of the span left free beyond a value that moves a limit: the next epoch need not move it again."""


def short(value: float | None) -> str:
    """A metric in 4 significant digits (3 with an exponent): .4120, 1.203, 1234, 1.2e27; None is "–"."""
    if value is None or not isfinite(value):
        return UNKNOWN if value is None else str(float(value))
    size = abs(value)
    if not size:
        return "0"
    if not 0.001 <= size < 999_999.5:
        return _exponent(value, 3)
    size = abs(float(f"{value:.4g}"))  # rounded first: .99996 is 1.000, not 1.0000
    return _bare(f"{value:.{max(0, 3 - floor(log10(size)))}f}")


def short_lr(value: float | None) -> str:
    """A learning rate in 3 significant digits without trailing zeros: 1e-3, 2.5e-4, 0.01, 1; None is "–"."""
    if value is None or not isfinite(value):
        return short(value)
    return f"{value:.3g}" if not value or 0.00999 < abs(value) < 999.5 else _exponent(value, 3)


def _exponent(value: float, digits: int) -> str:
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"


def _bare(text: str) -> str:
    """`0.41` without the zero."""
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


class _Step(NamedTuple):
    """A tick distance, 1, 2 or 5 times a power of ten; multiples of it are exact decimals."""

    mantissa: int
    power: int

    def times(self, count: int) -> float:
        return float(f"{count * self.mantissa}e{self.power}")

    def larger(self) -> _Step:
        return {1: _Step(2, self.power), 2: _Step(5, self.power)}.get(self.mantissa, _Step(1, self.power + 1))


def _step(least: float) -> _Step:
    """The smallest step not below `least` > 0."""
    step = _Step(1, floor(log10(least)))
    while step.times(1) < least * (1 - 1e-9):  # 1e-9: log10 and a division may be off by a few bits
        step = step.larger()
    return step


# --- limits -------------------------------------------------------------------------------------------------


def x_limits(
    first: float, last: float, planned: float | None = None, previous: Limits | None = None
) -> Limits:
    """Limits of the epoch axis: to the planned end, else widening so rarely that the axis mostly stays.

    Args:
        first: First epoch shown, usually 1.
        last: Last epoch known.
        planned: Last planned epoch; None or one already passed: room in steps of × 1.5, at least 10 epochs.
        previous: What this function gave for the same run before; without a plan limits only widen.
    """
    low, high = _sane((min(first, last), max(first, last)))
    if planned is not None and max(low, last) <= planned < inf:
        return low, _sane((low, planned))[1]
    edge = _sane((low, low + 9))[1]
    if previous is not None:
        low, edge = min(low, _sane(previous)[0]), _sane(previous)[1]
    while edge < high:
        edge = low + ceil((edge - low) * 1.5)
    return low, edge


def y_limits(curves: Iterable[Curve], *, log: bool = False, previous: Limits | None = None) -> Limits | None:
    """Limits that hold every finite value (to ±1e300, on a log axis above 0) and only widen, to round values.

    Values of one sign keep the axis on their side of 0, and a constant is shown from 0.

    Args:
        curves: What the axis is for.
        log: For a log axis.
        previous: What this function gave for the same chart before.

    Returns:
        The limits; None as long as there is no value to show.
    """
    least = 0.0 if log else -inf
    values: list[float] = []
    for curve in curves:
        kept = [value for value in curve.y if value is not None and least < value < inf]
        values += (min(kept), max(kept)) if kept else ()
    if previous is not None and not least < previous[0] < previous[1] < inf:
        previous = None
    if not values:
        return previous
    low, high = _clamp(min(values)), _clamp(max(values))
    fit = _fit_log if log else _fit_linear
    if previous is None:
        return fit(low, high)
    lower, upper = fit(min(low, previous[0]), max(high, previous[1]))
    return previous[0] if low >= previous[0] else lower, previous[1] if high <= previous[1] else upper


def _clamp(value: float) -> float:
    return min(max(value, -_HUGE), _HUGE)


def _fit_linear(low: float, high: float) -> Limits:
    if high - low <= 1e-12 * max(abs(low), abs(high)):  # one value, but for rounding
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1 / _HUGE:
        return min(low, 0.0), 1.0
    span = high - low
    step = _step(span / 8)
    size = step.times(1)
    lower = step.times(floor((low - _ROOM * span) / size))
    upper = step.times(ceil((high + _ROOM * span) / size))
    return 0.0 if lower < 0 <= low else min(low, lower), 0.0 if high <= 0 < upper else max(high, upper)


def _fit_log(low: float, high: float) -> Limits:
    low, high = max(low, 1 / _HUGE), max(high, 1 / _HUGE)
    if high / low > 1000:  # three decades: the axis shows decades only
        return min(low, float(f"1e{floor(log10(low))}")), max(high, float(f"1e{ceil(log10(high))}"))
    lower, upper = 1 / _step(1 / low).times(1), _step(high).times(1)  # 1-2-5 read upside down is 1-5-2
    return min(low, lower), max(upper, high, lower * 2)


def _sane(limits: Limits, log: bool = False) -> Limits:
    """Limits that can be divided by, whatever came in."""
    low, high = (_clamp(limit) if isfinite(limit) else 0.0 for limit in limits)
    if log:
        low = low if low > 1 / _HUGE else 1 / _HUGE
        return low, high if high > low * (1 + 1e-12) else low * 10
    room = max(abs(low) * 1e-12, 1 / _HUGE)
    return low, high if high - low > room else low + max(1.0, abs(low) * 1e-6)


# --- ticks --------------------------------------------------------------------------------------------------

_LABEL = 6
"""Columns a tick label has at most; with 5 a blank stays between it and the axis."""


def ticks(
    low: float, high: float, count: int, log: bool = False, whole: bool = False
) -> list[tuple[float, str]]:
    """About `count` round values within the limits and their labels, of at most 6 columns.

    Where 6 columns cannot tell the values apart, the roundest is written in full and the others as a distance
    to it: `0.3`, `+1e-8`, `+2e-8`.

    Args:
        low: Lower limit.
        high: Upper limit.
        count: Number of ticks wanted at most; two are given where they exist.
        log: Powers of ten, or 1-2-5 of them within few decades.
        whole: Only whole numbers (epochs).
    """
    low, high = _sane((low, high), log)
    if log and len(found := _log_ticks(low, high, max(2, count))) > 1:
        return found
    least = 1.0 if whole else 0.0
    step = _step(max((high - low) / max(1, count), least))
    if len(_multiples(step, low, high)) > max(2, count):
        step = step.larger()
    if len(_multiples(step, low, high)) < 2:
        step = _step(max((high - low) / 4, least))
    for wider in (step, step.larger(), step.larger().larger()):
        numbers = _multiples(wider, low, high)
        labels = _labels(wider, numbers)
        if labels and (wider is step or len(numbers) > 1):
            return [(wider.times(number), label) for number, label in zip(numbers, labels, strict=True)]
    return _offsets(step, _multiples(step, low, high))


def _multiples(step: _Step, low: float, high: float) -> range:
    size = step.times(1)
    return range(ceil(low / size - 1e-9), floor(high / size + 1e-9) + 1)


def _labels(step: _Step, numbers: Iterable[int]) -> list[str]:
    """All labels in the first way of writing that fits, or none."""
    decimals = max(0, -step.power)
    fixed = [f"{step.times(number):.{decimals}f}" for number in numbers]
    powers = [_power(number * step.mantissa, step.power) for number in numbers]
    for columns in (_LABEL - 1, _LABEL):
        for labels in (fixed, powers, [_bare(label) for label in fixed]):
            if max(map(len, labels), default=0) <= columns:
                return labels
    return []


def _power(digits: int, power: int) -> str:
    """`digits` × 10^`power` with all its digits: 25, 25 → 2.5e26."""
    text = str(abs(digits)).rstrip("0") or "0"
    power += len(str(abs(digits))) - 1
    point = "." if len(text) > 1 else ""
    return f"{'-' if digits < 0 else ''}{text[0]}{point}{text[1:]}{f'e{power}' if digits else ''}"


def _offsets(step: _Step, numbers: Sequence[int]) -> list[tuple[float, str]]:
    """One number in full (`~` where that takes too many columns), the others as a signed distance to it."""
    base = min(numbers, key=lambda number: len(str(number * step.mantissa).rstrip("0")), default=0)
    found = []
    for number in numbers:
        value, digits = step.times(number), (number - base) * step.mantissa
        if digits:
            label = f"{digits * 10**step.power:+g}" if abs(step.power) < 4 else f"{digits:+}e{step.power}"
        else:
            exact = min(f"{value:.15g}", _power(number * step.mantissa, step.power), key=len)
            label = exact if len(exact) <= _LABEL else "~" + _shortened(value)
        if len(label) <= _LABEL:
            found.append((value, label))
    return found


def _shortened(value: float) -> str:
    """As many digits as fit beside a `~`."""
    fixed = 0.001 <= abs(value) < 1e4
    ways = (_bare(f"{value:.{digits}g}") if fixed else _exponent(value, digits) for digits in (4, 3, 2, 1))
    return next((way for way in ways if len(way) < _LABEL), "")


def _log_ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """1-2-5 of every decade, every decade, every second, …: the first that is not too many, but still two."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    found: list[_Step] = []
    for mantissas, stride in ((1, 2, 5), 1), *(((1,), stride) for stride in (1, 2, 3, 5, 10, 20, 50, 100)):
        steps = (_Step(mantissa, power) for power in powers if power % stride == 0 for mantissa in mantissas)
        kept = [step for step in steps if low * (1 - 1e-9) <= step.times(1) <= high * (1 + 1e-9)]
        if len(found) < 2 or len(kept) > 1:
            found = kept
        if len(kept) <= count:
            break
    return [(step.times(1), _labels(step, [1])[0]) for step in found[:: ceil(len(found) / count) or 1]]


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
_GUTTER = _LABEL + 1
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
        y = y_limits(curves, log=log)
    return _sane(x), _sane(y or (0.1, 1.0), log)


def _place(canvas: _Canvas, x: Limits, gutter: int, width: int) -> list[tuple[int, int, str]]:
    """Ticks of the x axis whose labels neither touch nor leave the row: (column, label's start, label)."""
    whole = x[0] == floor(x[0]) and x[1] == floor(x[1])
    wanted = canvas.columns // (len(f"{x[1]:.0f}") + 4) if whole and x[1] < 1e6 else canvas.columns // 10
    found = [tick for tick in ticks(*x, wanted, whole=whole) if not whole or tick[0] > x[0]]
    if whole:
        found.insert(0, (x[0], f"{x[0]:.0f}" if abs(x[0]) < 1e5 else _exponent(x[0], 1)))
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
        text = f"{label or '':>{_LABEL - 1}}".ljust(_LABEL) + (bar if label is None else tick)
        glyphs, roles = [*text, *glyphs], [Role.LABEL] * _LABEL + [Role.AXIS] + roles
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
