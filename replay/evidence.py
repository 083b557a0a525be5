"""What a recorded run tells about itself: which learning rate its rows mean, whether it was cut short, its gaps.

Pure functions of a recording. A row's learning rate is the one used in the epoch, or the one after the epoch's
hooks: that depends on the order of the callbacks that wrote the log (`[ReduceLROnPlateau,
LearningRateScheduler, CSVLogger]` writes the latter), and no log names its callbacks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

from cbmon.errors import CannotReplay
from cbmon.policies import ReduceLROnPlateau, float32
from cbmon.profiles import NEWEST
from cbmon.replay.results import Recording, Series
from cbmon.series import Direction, direction, headline
from cbmon.units import display_epoch, plural


class Meaning(Enum):
    """What the learning rate in a row is."""

    USED = "used in the epoch"
    AFTER = "after the epoch's hooks"
    UNKNOWN = "either"
    """The rows allow both; then USED is assumed, and that is said."""


ROWS_MAX = 20_000
"""Rows looked at: a second's work at most, for some ten guesses."""
COOLDOWNS = range(11)
"""Cooldowns tried; scripts have 0 to 5."""


def rate_meaning(rates: Sequence[float | None], metrics: Mapping[str, Sequence[float | None]]) -> Meaning:
    """Tell from the rows what their learning rates are.

    Only a rate that ReduceLROnPlateau cut can be the one after the epoch: without a cut both are the same, and a
    schedule sets its rates before the epoch. So each meaning is tried: is there a plateau (metric, patience,
    cooldown) that makes exactly these cuts? Cuts at regular distances may as well be a schedule's, so they
    alone do not prove AFTER.

    Args:
        rates: One a row, as recorded.
        metrics: Columns that a plateau could have monitored.
    """
    if len(rates) > ROWS_MAX or None in rates:
        return Meaning.USED
    known = [float32(rate) for rate in rates if rate is not None]
    drops = [row for row, (one, other) in enumerate(pairwise(known), 1) if other < one]
    if not drops or any(other > one or other != other for one, other in pairwise(known)):
        return Meaning.USED
    factors = [known[row] / known[row - 1] for row in drops]
    if any(abs(factor - factors[0]) > 1e-5 * factors[0] for factor in factors[:-1]):
        return Meaning.USED  # the last one may be smaller: the floor
    levels = [known[0], *(known[row] for row in drops)]
    candidates = {name: values for name, values in metrics.items() if direction(name) is not None}
    is_used = _is_plateau([row - 1 for row in drops], levels, candidates)
    is_after = _is_plateau(drops, levels, candidates)
    if not is_after:
        return Meaning.USED
    return Meaning.UNKNOWN if is_used or _is_regular(drops) else Meaning.AFTER


def _is_regular(drops: Sequence[int]) -> bool:
    """Whether a schedule of equal stages makes them, its epochs counted from 0 or from 1."""
    stages = {other - one for one, other in pairwise(drops)}
    return not stages or (len(stages) == 1 and abs(drops[0] - max(stages)) <= 1)


def _is_plateau(
    cuts: Sequence[int], levels: Sequence[float], metrics: Mapping[str, Sequence[float | None]]
) -> bool:
    """Whether some ReduceLROnPlateau cuts after exactly these rows, from level to level.

    At the last level it need not go on: that may be its floor, or the log ends.
    """
    for name, values in metrics.items():
        with suppress(CannotReplay):  # a value that Keras would not have compared: it was not this metric
            if _is_plateau_of(values, cuts, levels, "max" if direction(name) is Direction.MAX else "min"):
                return True
    return False


def _is_plateau_of(
    values: Sequence[float | None], cuts: Sequence[int], levels: Sequence[float], mode: str
) -> bool:
    for min_delta in (1e-4, 0.0):
        patience = _wait(cuts[0], values, mode, min_delta)
        for cooldown in COOLDOWNS if patience else ():
            policy = ReduceLROnPlateau(
                mode=mode, patience=patience, min_delta=min_delta, cooldown=cooldown, min_lr=levels[-1]
            )
            if _cuts_after(policy, cuts, levels, values):
                return True
    return False


def _wait(row: int, values: Sequence[float | None], mode: str, min_delta: float) -> int:
    """Epochs without improvement up to and with this row: the patience of a plateau that cuts first there."""
    policy = ReduceLROnPlateau(patience=math.inf, mode=mode, min_delta=min_delta)
    state = policy.begin(NEWEST)
    for epoch in range(row + 1):
        state, _ = policy.step(state, epoch, values[epoch], 1.0, NEWEST)
    return state.wait if values[row] is not None else 0


def _cuts_after(
    policy: ReduceLROnPlateau, cuts: Sequence[int], levels: Sequence[float], values: Sequence[float | None]
) -> bool:
    state, done = policy.begin(NEWEST), 0
    for row, value in enumerate(values):
        state, cut = policy.step(state, row, value, levels[done], NEWEST)
        if (cut is not None) != (done < len(cuts) and row == cuts[done]):
            return False
        done += cut is not None
    return True


class _Earlier:
    """Learning rates that stand one row late: the one after the epoch before is the one used."""

    def __init__(self, rates: Series) -> None:
        self._rates = rates

    def __len__(self) -> int:
        return len(self._rates)

    def __getitem__(self, row: int) -> float | None:
        return self._rates[max(0, row - 1)]

    def __iter__(self) -> Iterator[float | None]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, slots=True)
class InEffect:
    """A recording whose learning rates are those in effect during each epoch."""

    recorded: Recording

    @property
    def epochs(self) -> Sequence[int]:
        """As recorded."""
        return self.recorded.epochs

    @property
    def columns(self) -> Collection[str]:
        """As recorded."""
        return self.recorded.columns

    @property
    def metrics(self) -> Mapping[str, Series]:
        """As recorded."""
        return self.recorded.metrics

    @property
    def not_numbers(self) -> Collection[str]:
        """As recorded."""
        return self.recorded.not_numbers

    @property
    def learning_rate(self) -> Series | None:
        """Moved by one row."""
        rates = self.recorded.learning_rate
        return None if rates is None else _Earlier(rates)

    def rate_after(self, row: int) -> float | None:
        """In effect after the callbacks of a row: what the row itself tells."""
        rates = self.recorded.learning_rate
        return None if rates is None else rates[row]


DOUBT = (
    "whether the learning rate in a row of this log is the one used in the epoch or the one after it cannot be "
    "told from its rows; taken as the one used"
)
Told = tuple[Recording, str | None]


def in_effect(recording: Recording) -> Told:
    """The recording with the learning rates in effect during each epoch.

    Returns:
        It, and what is to be said about that; `DOUBT` where the rows do not tell.
    """
    if isinstance(recording, InEffect):
        return recording, None  # it is that already
    memo = getattr(recording, "memo", {})  # of an Attempt: the same wrapper for every list of callbacks
    kept = memo.get("in_effect")
    if kept is None or kept[0] != len(recording.epochs):
        memo["in_effect"] = kept = (len(recording.epochs), _in_effect(recording))
    found: Told = kept[1]
    return found


def _in_effect(recording: Recording) -> Told:
    rates = recording.learning_rate
    if rates is None or _is_ours(recording) or len(recording.epochs) > ROWS_MAX:
        return recording, None
    rows = range(len(recording.epochs))
    values = [rates[row] for row in rows]
    if len(set(values)) < 2:
        return recording, None
    columns = {name: [column[row] for row in rows] for name, column in recording.metrics.items()}
    meaning = rate_meaning(values, columns)
    if meaning is Meaning.AFTER:
        note = (
            "the learning rate in a row of this log is the one after the epoch (as ReduceLROnPlateau before "
            "LearningRateScheduler writes it): each is taken for the next epoch's"
        )
        return InEffect(recording), note
    if meaning is Meaning.UNKNOWN:
        return recording, DOUBT
    return recording, None


def _is_ours(recording: Recording) -> bool:
    """Whether Monitor wrote it: its rate is the one at the first step of the epoch."""
    of_ours: Any = recording
    return getattr(of_ours, "started", None) is not None or bool(getattr(of_ours, "seconds", None))


def steps_of(recording: Recording) -> int | None:
    """Batches an epoch, where the record tells."""
    return getattr(getattr(recording, "started", None), "steps", None) or None


# --- cut short -------------------------------------------------------------------------------------------

_PLANNED = frozenset((8, 12, 16, 24, 32, 64, 128, 256, 512, 1024))
"""Numbers of epochs that people plan, beside multiples of five."""
_SHORT = 8
"""Below this, a few epochs since the best say nothing."""
_PAST_BEST = 2
"""Epochs since the best from which on a patience may have run out."""


def cut_short(recording: Recording, planned: int | None = None) -> str | None:
    """Whether the log ends where the recorded run itself was stopped, in words; None if nothing says so.

    Args:
        recording: The attempt.
        planned: Its planned epochs, if known; the record's own stand before it.
    """
    epochs = recording.epochs
    of_ours = recording.recorded if isinstance(recording, InEffect) else recording
    if not epochs or getattr(of_ours, "is_growing", False):
        return None
    last = display_epoch(epochs[-1])
    ended, started = getattr(of_ours, "ended", None), getattr(of_ours, "started", None)
    if ended is not None and ended.how == "stopped":
        by = f" by {', '.join(ended.by)}" if ended.by else ""
        return f"the recorded run itself was stopped after epoch {last}{by}"
    if ended is not None and ended.how in ("interrupted", "failed"):
        was = "was interrupted" if ended.how == "interrupted" else "failed"
        return f"the recorded run itself {was} after epoch {last}"
    planned = getattr(started, "epochs", None) or planned
    if planned is not None:
        if last >= planned:
            return None
        return f"the log itself may have been stopped early: {last} of {planned} planned epochs"
    name = headline(recording.metrics)
    if ended is not None or name is None or last < _SHORT or last % 5 == 0 or last in _PLANNED:
        return None
    since = _since_best(recording.metrics[name], len(epochs), name)
    if since is None or since < _PAST_BEST:
        return None
    return (
        f"the log itself may have been stopped early: it ends after epoch {last}, "
        f"{plural(since, 'epoch')} past the best {name}"
    )


def _since_best(column: Series, rows: int, name: str) -> int | None:
    better = direction(name)
    sign = -1.0 if better is Direction.MAX else 1.0
    values = [
        (sign * value, row)
        for row in range(rows)
        if (value := column[row]) is not None and math.isfinite(value)
    ]
    return rows - 1 - min(values)[1] if values and better is not None else None


def gaps(epochs: Sequence[int]) -> str | None:
    """Law 7: Keras saw epochs that the log does not have; what they would have decided is unknown."""
    found = [(one, other) for one, other in pairwise(epochs) if other > one + 1]
    if not found:
        return None
    one, other = found[0]
    first, last = display_epoch(one + 1), display_epoch(other - 1)
    which = f"epoch {first} is" if first == last else f"epochs {first}-{last} are"
    more = f" (and {plural(len(found) - 1, 'more gap')})" if len(found) > 1 else ""
    return f"{which} not in this log{more}: what Keras saw there is unknown"
