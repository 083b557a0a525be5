"""What the course of a metric says: it diverges, it is flat, it has turned while training goes on.

Pure functions of columns. Each looks at its last rows and at what `Column` keeps, never at all rows, so that it can
be asked after every row of a million. They speak of the present: what has passed is no trend any more.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from cbmon.series import MATERIAL, Column, Direction, base_name, headline, is_loss, is_validation, room

DIVERGED_FACTOR = 1e4
"""Any loss this many times its first value has diverged. Among 65 published logs the largest ratio was 958 (an
adversarial loss on its way to NaN) and 68 in runs that lived."""
DIVERGING_FACTOR = 10.0
"""The loss itself, so many times its first value, is on its way there; in published logs it never rose to twice."""
LOST_SHARE = 0.75
"""Nor did it come back above its first value after it had lost so much of it, but to two thirds at most: then all
that was learned is gone."""
DIVERGING_EPOCHS = 3
"""Both for so many epochs: one bad batch or a cut of the data spoils one epoch, at most two."""

FLAT_EPOCHS = 12
"""With ten, noise made four fits of the corpus look flat in their first 20 epochs that were not; with 12 one, once.
Longer would be most of a run of 20 epochs of an hour."""
FLAT_SHARE = 0.3
"""Long is relative to a run's length: published runs that learn steadily take up to a fifth of their epochs for 1 %
near their end, those that do not take a third and more."""
FLAT_ROWS = 64
"""Rows compared at both ends of a flat stretch: their medians tell whether the metric still gets better within the
noise, below a lucky best. More would see no more."""
FLAT_GAIN = MATERIAL / 2
"""Medians of several values have a fraction of their noise: half an improvement counts there."""
MEASURED_LEAST = 3
"""Fewer values make no median: validation every 30 epochs is not flat because it was not measured."""

OVERFIT_EPOCHS = 10
"""The patience that people give EarlyStopping most often; validation dips and comes back within fewer epochs."""
OVERFIT_SHARE = 0.2
"""In a long run validation turns for long and still comes back: with a tenth of the run, a noisy run of 150 epochs
that went on to improve was told to overfit twice, with a fifth never."""
OVERFIT_RISE = 0.05
"""Validation is clearly above the level around its best, not on it; between 3 and 10 % the same logs are found."""
OVERFIT_FALL = 0.05
"""Training loss is clearly below: a run whose two losses rise does not learn its data by heart, it unlearns."""
OVERFIT_MEDIAN = 5
"""Fewest values of which medians are taken, at the best and now: no single lucky or unlucky one decides."""
OVERFIT_MOST = 20
"""Most values of a median: half of those since the best, up to so many, for the longer it lasts the surer it is."""
OVERFIT_NOISE = 2.0
"""A rise is so many typical steps from one value to the next. Of simulated runs with 10 to 20 % of noise, whose
validation was flat or still fell, one step told half to overfit at times, two one in ten and real ones as early."""


def target(names: Sequence[str]) -> str | None:
    """The metric that a run tries to better: its headline, unless that is one part of a loss among others.

    `d_loss` and `g_loss` pull against each other: neither falling nor flat means anything.
    """
    name = headline(names)
    if name and is_loss(name) and not is_validation(name) and not is_whole_loss(name):
        return None
    return name


def is_whole_loss(name: str) -> bool:
    """Whether the column is the loss itself, of either split, not a part such as `decoder_loss`."""
    return base_name(name).casefold() == "loss"


def training_twin(name: str, names: Sequence[str]) -> str | None:
    """The training column of a validation metric: `loss` for `val_loss`; None if there is none."""
    if not is_validation(name):
        return None
    base = base_name(name).casefold()
    return next(
        (each for each in names if not is_validation(each) and base_name(each).casefold() == base), None
    )


class Divergence:
    """Whether a loss is beyond all its scale, and since when; keeps what it has found while the column grows."""

    __slots__ = ("_limit", "_rows", "_since", "_start", "is_training_loss")

    def __init__(self, name: str) -> None:
        self.is_training_loss = is_whole_loss(name) and not is_validation(name)
        """Judged earlier than a part of it, and than validation, which overfitting raises too."""
        self._start = 0
        """The first row with a finite value, as far as it was looked for."""
        self._limit = math.nan
        self._since = 0
        self._rows = 0
        """Rows at the time of the last answer, which was `_since` above `_limit`."""

    def since(self, column: Column) -> int | None:
        """The row from which it has been so up to now, None if it is not so; for a column without NaN and inf."""
        while self._start < len(column) and not math.isfinite(column.values[self._start]):
            self._start += 1
        last = column.last()
        if last is None or not (first := column.values[self._start]):
            return None
        hard = DIVERGED_FACTOR * abs(first)
        if self.is_training_loss and last > first:
            best = column.best(Direction.MIN)
            has_learned = best is not None and first - column.values[best] >= LOST_SHARE * abs(first)
            limit = first if has_learned else first + DIVERGING_FACTOR * abs(first)
            latest = _latest(column, 1 if last > hard else DIVERGING_EPOCHS)
            is_so = min(latest) > limit and (last > hard or len(latest) == DIVERGING_EPOCHS)
        else:
            limit, is_so = hard, abs(last) > hard
        return self._walk(column.values, limit, float if limit < hard else abs) if is_so else None

    def _walk(self, values: array[float], limit: float, size: Callable[[float], float]) -> int:
        """Where the stretch above the limit began that ends with the last row; absent values are part of it."""
        known = self._rows if limit == self._limit else 0
        row = len(values)
        while row > known and not size(values[row - 1]) <= limit:
            row -= 1
        if not known or row > known:
            while not size(values[row]) > limit:
                row += 1
            self._since = row
        self._limit, self._rows = limit, len(values)
        return self._since


def flat_since(column: Column, towards: Direction) -> int | None:
    """The row of the last material improvement, if that is long ago for the run and it has not got better since."""
    row = column.improved(towards)
    if row is None or len(column) - 1 - row < max(FLAT_EPOCHS, FLAT_SHARE * len(column)):
        return None
    sign = 1.0 if towards is Direction.MIN else -1.0
    if not room(sign * column.values[row]):
        return None  # a loss of 0, an accuracy of 1
    half = min(FLAT_ROWS, (len(column) - 1 - row) // 2)
    after = _measured(column, row + 1, row + 1 + half)
    now = _measured(column, len(column) - half, len(column))
    if min(len(after), len(now)) < MEASURED_LEAST:
        return None
    level = sign * median(after)
    return None if sign * median(now) < level - FLAT_GAIN * abs(level) else row


def overfitting_since(train: Column, validation: Column, towards: Direction) -> int | None:
    """The row of the best validation, if that is long ago, validation is now clearly worse and training better."""
    best = validation.best(towards)
    rows = len(validation)
    if best is None or rows - 1 - best < max(OVERFIT_EPOCHS, OVERFIT_SHARE * rows):
        return None
    since = _measured(validation, max(best + 1, rows - FLAT_ROWS), rows)
    if len(since) < OVERFIT_MEDIAN:
        return None
    count = max(OVERFIT_MEDIAN, min(OVERFIT_MOST, len(since) // 2))
    beside = OVERFIT_MEDIAN // 2
    around = [
        *_measured(validation, best - FLAT_ROWS, best)[-beside:],
        *_measured(validation, best, best + FLAT_ROWS)[: beside + 1],
    ]
    then = _measured(train, best - beside, best + beside + 1)
    now = _measured(train, rows - count, rows)
    if not then or not now:
        return None
    sign = 1.0 if towards is Direction.MIN else -1.0
    rise = sign * (median(since[-count:]) - median(around))
    recent = since[-OVERFIT_MOST:]
    noise = median(abs(later - earlier) for earlier, later in pairwise(recent))
    if rise <= max(OVERFIT_NOISE * noise, OVERFIT_RISE * abs(validation.values[best])):
        return None
    level = sign * median(then)
    return best if sign * median(now) < level - OVERFIT_FALL * abs(level) else None


def _latest(column: Column, count: int) -> list[float]:
    """The last values present, at most so many."""
    return _measured(column, len(column) - FLAT_ROWS, len(column))[-count:]


def _measured(column: Column, start: int, stop: int) -> list[float]:
    """The finite values of some rows."""
    return list(filter(math.isfinite, column.values[max(0, start) : stop]))
