"""From values to dots: scales, and strokes of a pen as bars of dots below each other. Pure whole numbers.

Dots are counted from the left upper corner. What lies outside keeps its place there, so that lines come in and go
out at the right angle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from math import inf, log10
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Bar: TypeAlias = tuple[int, int, int]
"""Dots below each other: column, upper and lower row."""

_FAR = 1e9
"""Dots further out are taken to be this far: keeps int() and slopes finite."""
_NUDGE = 1e-6
"""Dots added on a log scale: a logarithm whose last bit differs (NumPy's, another libm's) gives the same dot."""


class Scale(NamedTuple):
    """Where on an axis of `dots` dots a value lies; dot 0 is at `start`."""

    start: float
    """On a log scale the logarithm."""
    per_unit: float
    dots: int
    log: bool

    @classmethod
    def over(cls, first: float, last: float, dots: int, *, log: bool = False) -> Scale:
        """Dot 0 at `first`, the last dot at `last`; the two differ, and are above 0 on a log scale."""
        start, end = (log10(first), log10(last)) if log else (first, last)
        return cls(start, max(dots - 1, 1e-6) / (end - start), dots, log)

    @property
    def least(self) -> float:
        """Only values above this have a place."""
        return 0.0 if self.log else -inf

    def dot(self, value: float) -> int:
        """The dot of a finite value above `least`, also outside."""
        if self.log:
            far = (log10(value) - self.start) * self.per_unit + _NUDGE
        else:
            far = (value - self.start) * self.per_unit
        return round(far) if -_FAR < far < _FAR else int(_FAR if far > 0 else -_FAR)

    def dots_of(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """The same for many."""
        import numpy as np

        with np.errstate(over="ignore"):  # far is far
            far = ((np.log10(values) if self.log else values) - self.start) * self.per_unit
        return np.rint(np.clip(far + (_NUDGE if self.log else 0.0), -_FAR, _FAR)).astype(np.int64)


class Stretch(NamedTuple):
    """Consecutive points in one dot column, as dot rows; row 0 is on top."""

    column: int
    first: int
    top: int
    end: int
    last: int
    joined: bool
    """The point before it stands left of it, without a gap between."""


def stretches(columns: Iterable[int], values: Iterable[float | None], down: Scale) -> Iterator[Stretch]:
    """Join points in order: None, NaN, ±inf and what has no place on the scale are gaps."""
    least, dot = down.least, down.dot
    first = low = high = last = 0.0
    at: int | None = None  # the column of the stretch that is not yielded yet
    joined = False
    for column, value in chain(zip(columns, values, strict=True), [(0, None)]):
        if value is not None and not least < value < inf:  # NaN fails too
            value = None
        if column == at and value is not None:
            if value < low:
                low = value
            elif value > high:
                high = value
            last = value
            continue
        if at is not None:
            top = dot(high)
            if low == high:
                yield Stretch(at, top, top, top, top, joined)
            else:
                yield Stretch(at, dot(first), top, dot(low), dot(last), joined)
        joined = at is not None and column > at
        if value is None:
            at = None
        else:
            at, first, low, high, last = column, value, value, value, value


def solid_bars(found: Iterable[Stretch], wide: int, steps: bool) -> Iterator[Bar]:
    """Every stretch, and what joins it to the one before; what lies outside may come too."""
    at, top, end, last = -1, 0, 0, 0  # the bar that is not yielded yet: the next stretch may make it longer
    for column, first, high, low, next_last, joined in found:
        if joined and steps:
            yield from _level(at, last, column, wide)
            high, low = min(high, last), max(low, last)
        elif joined and column - at > 1:
            yield from _line(at, last, column, first, wide)
        elif joined and first - last > 1:  # neighbours share the way
            half = round((last + first) / 2)
            end, high = max(end, half), min(high, half + 1)
        elif joined and last - first > 1:
            half = round((last + first) / 2)
            top, low = min(top, half), max(low, half - 1)
        yield at, top, end
        at, top, end, last = column, high, low, next_last
    yield at, top, end


def dotted_bars(found: Iterable[Stretch], wide: int, steps: bool) -> Iterator[tuple[Bar, bool]]:
    """As `solid_bars`, but only every other dot, lone points and tips. True: of the bar only the even rows."""
    at = last = 0
    for column, first, top, end, next_last, joined in found:
        tips = [] if joined else [(column, first)]
        if joined and steps:
            yield from ((bar, False) for bar in _level(at, last, column, wide) if bar[0] % 2 == 0)
            top, end = min(top, last), max(end, last)
        elif joined:
            rise = abs(first - last)
            is_steep = rise > column - at
            line = _line(at, last, column, first, wide)
            yield from ((bar, is_steep) for bar in line if is_steep or bar[0] % 2 == 0)
            tips += [(at, last), (column, first)] if rise > 2 else []  # a spike keeps its tip
        if top < end or column % 2 == 0:
            yield (column, top, end), True
            tips += (column, top), (column, end)
        yield from (((x, y, y), False) for x, y in tips)
        at, last = column, next_last


def _level(x0: int, y: int, x1: int, wide: int) -> Iterator[Bar]:
    """The columns between two."""
    return ((column, y, y) for column in range(max(x0 + 1, 0), min(x1, wide)))


def _line(x0: int, y0: int, x1: int, y1: int, wide: int) -> Iterator[Bar]:
    """Join two dots, the first left of the second: the dots of every column within the plot."""
    columns = range(max(x0, 0), min(x1, wide - 1) + 1)
    slope = (y1 - y0) / (x1 - x0)
    if abs(slope) <= 1:
        for column in columns:
            row = round(y0 + slope * (column - x0))
            yield column, row, row
        return
    down = 1 if slope > 0 else -1
    for column in columns:  # each from half a column before to half a column behind
        start = y0 if column == x0 else round(y0 + slope * (column - 0.5 - x0)) + down
        end = y1 if column == x1 else round(y0 + slope * (column + 0.5 - x0))
        if (end - start) * down >= 0:
            yield column, min(start, end), max(start, end)
