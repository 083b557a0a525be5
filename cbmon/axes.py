"""The axes of a chart: limits that only widen, and round ticks with short labels. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, copysign, floor, inf, isfinite, log10
from typing import NamedTuple, TypeAlias

import msgspec

from cbmon.thin import CurveValues, extremes
from cbmon.units import bare, exponent, short_lr

Limits: TypeAlias = tuple[float, float]
"""Lowest and highest value shown, in data units also on a log axis."""


_HUGE = 1e300
"""Limits stay within ±this, so that differences of limits stay finite; what lies beyond is clipped."""
_FLOAT32 = 1e-6
"""Keras holds a learning rate of 1e-4 as 9.9999997e-05: that needs no further step of a log axis."""
_ROOM = 0.05
"""Part of the span left free beyond a value that moves a limit: the next epoch need not move it again."""


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
    low, high = sane((min(first, last), max(first, last)))
    if planned is not None and max(low, last) <= planned < inf:
        return low, sane((low, planned))[1]
    edge = sane((low, low + 9))[1]
    if previous is not None:
        low, edge = min(low, sane(previous)[0]), sane(previous)[1]
    while edge < high:
        edge = low + ceil((edge - low) * 1.5)
    return low, edge


EPOCHS_MIN = 4
"""Epochs that are shown at least: with fewer a curve is two dots and a line."""
_STRIDE = 4
"""A window that follows moves by a quarter of its width: rarely, for then the whole chart is drawn anew."""


class Window(msgspec.Struct, frozen=True):
    """The part of the epoch axis that is shown; in its place None is all of it, now and as it grows.

    `bounds` is always what `x_limits()` gives, and `newest` the last epoch known: a window lies within the
    bounds, and where it holds the newest epoch it moves on with it.
    """

    first: float
    last: float
    follows: bool
    """Whether the newest epoch was in it."""

    @staticmethod
    def zoomed(
        window: Window | None, factor: float, around: float, bounds: Limits, newest: float
    ) -> Window | None:
        """Show `factor` times fewer epochs (below 1: more); `around` stays where it is, if it is shown.

        Zooming in leaves out epochs that are still to come; zooming out as often shows all of them again.
        """
        low, high = window_limits(window, bounds, newest)
        least, measured = float(EPOCHS_MIN - 1), newest - bounds[0]
        if factor > 1:
            width = max(least, floor((high - low) / factor))
            if width >= high - low:
                return window
            if low <= newest < high:
                width, high = max(least, min(width, newest - low)), max(newest, low + 1)
        else:
            width = ceil((high - low) / factor) + 1  # 1: what halving an odd width left out
            if width >= bounds[1] - bounds[0] or width > measured:
                return None
        around = min(max(around, low), high)
        return _window(around - (around - low) / (high - low) * width, width, bounds, newest)

    def panned(self, share: float, bounds: Limits, newest: float) -> Window:
        """Move right by a share of the width, left if it is below 0; ±inf is as far as possible."""
        low, high = window_limits(self, bounds, newest)
        by = clamp(share * (high - low))
        return _window(low + (by if abs(by) > 1 else copysign(1, by)), high - low, bounds, newest)

    def showing(self, epoch: float, bounds: Limits, newest: float) -> Window:
        """Move as little as shows an epoch."""
        low, high = window_limits(self, bounds, newest)
        return _window(min(max(low, epoch - (high - low)), epoch), high - low, bounds, newest)


def _window(first: float, width: float, bounds: Limits, newest: float) -> Window:
    """A window of whole epochs within the bounds."""
    first = max(bounds[0], min(round(first), bounds[1] - width))
    return Window(first, first + width, follows=first <= newest <= first + width)


def window_limits(window: Window | None, bounds: Limits, newest: float) -> Limits:
    """The limits of the epoch axis: the window's, moved on if it follows, and never outside the bounds."""
    if window is None or window.last - window.first >= bounds[1] - bounds[0]:
        return bounds
    width = window.last - window.first
    first = window.first
    if window.follows and newest > window.last:
        stride = max(1.0, floor(width / _STRIDE))
        first += ceil((newest - window.last) / stride) * stride
    first = max(bounds[0], min(first, bounds[1] - width))
    return first, first + width


def y_limits(
    columns: Iterable[CurveValues], *, log: bool = False, previous: Limits | None = None
) -> Limits | None:
    """Limits that hold every finite value (to ±1e300, on a log axis above 0) and only widen, to round values.

    Values of one sign keep the axis on their side of 0, and a constant is shown from 0.

    Args:
        columns: The values that the axis is for.
        log: For a log axis.
        previous: What this function gave for the same chart before.

    Returns:
        The limits; None as long as there is no value to show.
    """
    spans = (extremes(column, least=0.0 if log else -inf) for column in columns)
    return fitted([span for span in spans if span], log=log, previous=previous)


def fitted(spans: Sequence[Limits], *, log: bool = False, previous: Limits | None = None) -> Limits | None:
    """`y_limits` from the lowest and the highest value of each column."""
    if previous is not None and not (0.0 if log else -inf) < previous[0] < previous[1] < inf:
        previous = None
    if not spans:
        return previous
    low, high = clamp(min(low for low, _ in spans)), clamp(max(high for _, high in spans))
    fit = _fit_log if log else _fit_linear
    if previous is None:
        return fit(low, high)
    lower, upper = fit(min(low, previous[0]), max(high, previous[1]))
    return previous[0] if low >= previous[0] else lower, previous[1] if high <= previous[1] else upper


def clamp(value: float) -> float:
    """Keep a limit where differences of limits stay finite."""
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
    inner_low, inner_high = low * (1 + _FLOAT32), high * (1 - _FLOAT32)
    if high / low > 1000:  # three decades: the axis shows decades only
        lower, upper = float(f"1e{floor(log10(inner_low))}"), float(f"1e{ceil(log10(inner_high))}")
    else:  # 1-2-5 read upside down is 1-5-2
        lower, upper = 1 / _step(1 / inner_low).times(1), _step(inner_high).times(1)
    return min(low, lower), max(upper, high, lower * 2)


def sane(limits: Limits, log: bool = False) -> Limits:
    """Limits that can be divided by, whatever came in."""
    low, high = (clamp(limit) if isfinite(limit) else 0.0 for limit in limits)
    if log:
        low = low if low > 1 / _HUGE else 1 / _HUGE
        return low, high if high > low * (1 + 1e-12) else low * 10
    room = max(abs(low) * 1e-12, 1 / _HUGE)
    return low, high if high - low > room else low + max(1.0, abs(low) * 1e-6)


# --- ticks --------------------------------------------------------------------------------------------------

LABEL_COLUMNS = 6
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
    low, high = sane((low, high), log)
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
    for columns in (LABEL_COLUMNS - 1, LABEL_COLUMNS):
        for labels in (fixed, powers, [bare(label) for label in fixed]):
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
            label = exact if len(exact) <= LABEL_COLUMNS else "~" + _shortened(value)
        if len(label) <= LABEL_COLUMNS:
            found.append((value, label))
    return found


def only_tick(value: float) -> tuple[float, str]:
    """The tick of an axis that shows one value: that value, in at most 6 columns."""
    ways = (short_lr(value), *(exponent(value, digits) for digits in (2, 1)))
    return value, next((way for way in ways if len(way) <= LABEL_COLUMNS), "~")


def _shortened(value: float) -> str:
    """As many digits as fit beside a `~`."""
    fixed = 0.001 <= abs(value) < 1e4
    ways = (bare(f"{value:.{digits}g}") if fixed else exponent(value, digits) for digits in (4, 3, 2, 1))
    return next((way for way in ways if len(way) < LABEL_COLUMNS), "")


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
    return [(step.times(1), _log_label(step)) for step in found[:: ceil(len(found) / count) or 1]]


def _log_label(step: _Step) -> str:
    """`1e-3`, as learning rates are written, but `0.01`."""
    return _power(step.mantissa, step.power) if step.power < -2 else _labels(step, [1])[0]


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
