"""Long curves with only the points that change the picture. Pure.

A chart has some hundred dot columns, a curve may have a million epochs. Of the points in one dot column four can be
seen: the first, the lowest, the highest and the last. There are three ways to leave out the others: none where the
points in view are few, `_sliced` in C speed without any import, `_by_numpy` for large ones. The picture is
always the same (tests/test_thin.py).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import inf, isfinite
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeGuard

from cbmon.series import Column, Direction, numpy_is_loaded
from cbmon.strokes import Bar, Scale

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Integers: TypeAlias = NDArray[np.int64]
    Flags: TypeAlias = NDArray[np.bool_]

CurveValues: TypeAlias = Sequence[float | None] | Column
"""The values of a curve. A `Column` and an `array("d")` are looked at where they lie, however long they are."""

LARGE = 20_000
"""Points from which NumPy is used where it is loaded: here it saves 1 ms, with gaps 7."""
LARGE_ALONE = 500_000
"""Points from which it is loaded for that: its import costs 50 ms and 13 MiB once, such a curve 18 ms without."""
_DENSE = 4
"""Points a dot column from which it pays to leave some out."""


class Thinned(NamedTuple):
    """What can be seen of a curve."""

    columns: Sequence[int]
    """The dot column of each point that matters, in order; outside too, for lines that come in or go out."""
    values: Sequence[float | None]
    crowd: Sequence[Bar] = ()
    """Dots of lone points and stretches that are not among the points because they are too many."""


# --- rows by x ----------------------------------------------------------------------------------------------


def is_rising(x: Sequence[float]) -> bool:
    """Whether x can be searched: a range upwards, or an `array("q")`, which holds the epochs of an attempt."""
    return (isinstance(x, range) and x.step > 0) or (isinstance(x, array) and x.typecode == "q")


def rows_within(x: Sequence[float], low: float, high: float, rows: int) -> slice:
    """The rows of a rising x from `low` to `high`, both included; of the first `rows`."""
    start = bisect_left(x, low, 0, rows)
    return slice(start, bisect_right(x, high, start, rows))


def buffer(y: CurveValues) -> Sequence[float | None]:
    """The values themselves; absent ones of a `Column` are NaN, which draws the same."""
    return y.values if isinstance(y, Column) else y


def extremes(y: CurveValues, rows: slice = slice(None), least: float = -inf) -> tuple[float, float] | None:
    """Lowest and highest finite value above `least`; None if there is none."""
    values = buffer(y)
    if isinstance(y, Column) and rows.indices(len(y)) == (0, len(y), 1):
        # Remembered: most drawings ask for all rows.
        lowest, highest = y.best(Direction.MIN), y.best(Direction.MAX)
        if lowest is None or highest is None:
            return None
        if y.values[lowest] > least:
            return y.values[lowest], y.values[highest]
    if _is_doubles(values) and _uses_numpy(len(range(*rows.indices(len(values))))):
        return _extremes_by_numpy(values, rows, least)
    part = values[rows]
    if part and _is_doubles(part) and isfinite(sum(part)):
        low, high = min(part), max(part)
        if low > least:
            return low, high
    kept = [value for value in part if value is not None and least < value < inf]
    return (min(kept), max(kept)) if kept else None


def _uses_numpy(points: int) -> bool:
    return points >= LARGE and (points >= LARGE_ALONE or numpy_is_loaded())


def _is_doubles(values: Sequence[float | None]) -> TypeGuard[array[float]]:
    return isinstance(values, array) and values.typecode == "d"


# --- fewer points -------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """The rows of one dot column."""

    column: int
    start: int
    stop: int


def thinned(
    x: Sequence[float], offset: int, y: CurveValues, rows: int, across: Scale, down: Scale, *, dotted: bool
) -> Thinned:
    """The points of a curve that make its picture.

    Args:
        x: Searched where `is_rising`, else read through; what is not finite is left out.
        offset: Added to each x.
        y: The values.
        rows: How many of the points count; both x and y have them.
        across: Scale of x.
        down: Scale of y, dot 0 on top.
        dotted: For `Thinned.crowd`, as `Stretch`es of a dotted curve are drawn.
    """
    values = buffer(y)
    if not is_rising(x):
        points = [
            (across.dot(a + offset), b) for a, b in zip(x[:rows], values[:rows], strict=True) if isfinite(a)
        ]
        return Thinned([column for column, _ in points], [value for _, value in points])

    def dot(epoch: float) -> int:
        return across.dot(epoch + offset)

    start = bisect_left(x, 0, 0, rows, key=dot)
    stop = bisect_left(x, across.dots, start, rows, key=dot)
    before, behind = max(start - 1, 0), min(stop + 1, rows)
    if stop - start <= _DENSE * across.dots or not _is_doubles(values):
        inner = [round((epoch + offset - across.start) * across.per_unit) for epoch in x[start:stop]]
        columns = [*map(dot, x[before:start]), *inner, *map(dot, x[stop:behind])]
        return Thinned(columns, values[before:behind])
    edges = [before, start]
    for column in range(1, across.dots):
        edge = bisect_left(x, across.start + (column - 0.5) / across.per_unit - offset, edges[-1], stop)
        while edge > edges[-1] and dot(x[edge - 1]) >= column:  # rounding: a row at most
            edge -= 1
        while edge < stop and dot(x[edge]) < column:
            edge += 1
        edges.append(edge)
    edges += [stop, behind]
    columns = [dot(x[before]), *range(across.dots), dot(x[behind - 1])]
    found = zip(columns, pairwise(edges), strict=True)
    parts = [_Part(column, *edge) for column, edge in found if edge[0] < edge[1]]
    if not _uses_numpy(stop - start):
        return _sliced(parts, values, down)
    return _by_numpy(parts, values, across, down, dotted)


def _sliced(parts: Sequence[_Part], values: array[float], down: Scale) -> Thinned:
    """Four points of each part; all of them where one is a gap."""
    columns: list[int] = []
    points: list[float | None] = []
    for column, start, stop in parts:
        kept: Sequence[float] = values[start:stop]
        low, high = min(kept), max(kept)  # nonsense where there is a NaN
        if low > down.least and isfinite(sum(kept)):
            kept = kept[0], low, high, kept[-1]
        columns += [column] * len(kept)
        points += kept
    return Thinned(columns, points)


# --- with NumPy ---------------------------------------------------------------------------------------------
# An array that NumPy looks at cannot grow: no look may outlive the call.


def _extremes_by_numpy(values: array[float], rows: slice, least: float) -> tuple[float, float] | None:
    import numpy as np

    points = np.frombuffer(values)[rows]
    low, high = np.fmin.reduce(points), np.fmax.reduce(points)  # these pass over NaN
    if not (low > least and high < inf):
        points = points[(points > least) & (points < inf)]
        if not len(points):
            return None
        low, high = points.min(), points.max()
    return float(low), float(high)


def _by_numpy(
    parts: Sequence[_Part], values: array[float], across: Scale, down: Scale, dotted: bool
) -> Thinned:
    """Four points of each part, or what gaps leave of them."""
    import numpy as np

    begin = parts[0].start
    points = np.frombuffer(values)[begin : parts[-1].stop]
    columns = np.array([part.column for part in parts])
    starts = np.array([part.start for part in parts]) - begin
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    if not ((low > down.least) & (high < inf)).all():  # NaN is passed on and fails
        return _between_gaps(points, columns, starts, across, down, dotted)
    four = np.column_stack((points[starts], low, high, points[np.append(starts[1:], len(points)) - 1]))
    return Thinned(np.repeat(columns, 4).tolist(), four.ravel().tolist())


def _between_gaps(
    points: Floats, columns: Integers, starts: Integers, across: Scale, down: Scale, dotted: bool
) -> Thinned:
    """Parts that gaps cut into pieces: those that are joined to another as points, the others as a crowd."""
    import numpy as np

    stops = np.append(starts[1:], len(points))
    is_value = (points > down.least) & (points < inf)
    begins, ends = is_value.copy(), is_value.copy()
    begins[1:] &= ~is_value[:-1]
    begins[starts] = is_value[starts]
    ends[:-1] &= ~is_value[1:]
    ends[stops - 1] = is_value[stops - 1]
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)  # rows of each piece
    column = np.repeat(columns, np.diff(np.append(np.searchsorted(first, starts), len(first))))
    joined = np.zeros(len(first), bool)
    joined[1:] = first[1:] == last[:-1] + 1
    linked = joined.copy()
    linked[:-1] |= joined[1:]
    linked[np.flatnonzero(column < across.dots)[-1:]] = True  # the visible end: a letter may stand there

    low, high = _low_and_high(points, first[linked], last[linked])
    before = np.where(joined[linked], points[first[linked]], np.nan)
    five = np.column_stack((before, points[first[linked]], low, high, points[last[linked]]))
    seen, seen_columns = five.ravel().tolist(), np.repeat(column[linked], 5).tolist()
    for limit, extreme in ((inf, np.fmax), (-inf, np.fmin)):
        infinite = columns[extreme.reduceat(points, starts) == limit].tolist()
        seen += [limit] * len(infinite)
        seen_columns += infinite

    lone = ~linked & (column >= 0) & (column < across.dots)
    crowd = _crowd(points, first[lone], last[lone], column[lone], across.dots, down, dotted)
    return Thinned(seen_columns, seen, crowd)


def _low_and_high(points: Floats, first: Integers, last: Integers) -> tuple[Floats, Floats]:
    """The lowest and highest point of each piece, from its first to its last row."""
    import numpy as np

    low, high = np.minimum(points[first], points[last]), np.maximum(points[first], points[last])
    longer = last - first > 1
    if longer.any():
        edges = np.column_stack((first[longer], last[longer])).ravel()  # the last point is known
        low[longer] = np.minimum(low[longer], np.minimum.reduceat(points, edges)[::2])
        high[longer] = np.maximum(high[longer], np.maximum.reduceat(points, edges)[::2])
    return low, high


def _crowd(
    points: Floats, first: Integers, last: Integers, column: Integers, wide: int, down: Scale, dotted: bool
) -> list[Bar]:
    """The bars of dots that lone pieces make together."""
    import numpy as np

    lines = down.dots + 1  # one more than there are: there a bar ends that reaches the bottom
    dots = np.zeros(wide * lines, bool)

    def spot(column: Integers, row: Integers) -> None:
        is_seen = (row >= 0) & (row < down.dots)
        dots[(column * lines + row)[is_seen]] = True

    single = first == last
    spot(column[single], down.dots_of(points[first[single]]))
    first, last, column = first[~single], last[~single], column[~single]
    if len(first):
        low, high = _low_and_high(points, first, last)
        top, end = down.dots_of(high), down.dots_of(low)
        is_seen = (end >= 0) & (top < down.dots)
        begins = (column * lines + np.maximum(top, 0))[is_seen]
        ends = (column * lines + np.minimum(end, down.dots - 1) + 1)[is_seen]
        size = len(dots)
        bars = np.cumsum(np.bincount(begins, minlength=size) - np.bincount(ends, minlength=size)) > 0
        if dotted:  # as `dotted_bars`: even rows, tips and first points
            bars.reshape(wide, lines)[:, 1::2] = False
            for row in (top, end, down.dots_of(points[first])):
                spot(column, row)
        dots |= bars
    edges = np.diff(dots.astype(np.int8), prepend=0)
    begins, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0) - 1
    return list(
        zip((begins // lines).tolist(), (begins % lines).tolist(), (ends % lines).tolist(), strict=True)
    )
