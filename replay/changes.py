"""What would have changed a decision: found by running the step machines again, never estimated. Pure.

A change is looked for where the outcome can change at all: at a wait that was reached, at a `min_delta` at which
one comparison of the run turns over, in the comparison's own precision. The whole list then runs again with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import NamedTuple

from cbmon.errors import CannotReplay
from cbmon.policies import EarlyStopping, EarlyStoppingState, ReduceLROnPlateau
from cbmon.replay.cases import Case
from cbmon.replay.results import Member, Replay
from cbmon.units import exponent

STEPS = 300_000
"""Steps of one machine spent on looking for a change: about a second. A longer log gets fewer answers."""


NAMED = 3
"""Values of which each for itself has another outcome: the nearest ones are named as examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Another value of one argument and another outcome; no value nearer to the given one has it."""

    argument: str
    sign: str
    """`≥` or `≤`: it holds for all values beyond too; `=`: for this one."""
    value: float
    beyond: float | None = None
    """With `=`: from this value on the outcome is again what it was."""
    also: tuple[float, ...] = ()
    """With `=`: a few more values with that outcome, none of them nearer."""
    stopped_epoch: int | None = None
    """Where it stops then; None: not within this log."""

    @property
    def words(self) -> str:
        """`patience ≥ 7`; of a long number as few digits as are true."""
        if self.sign != "=" or (not self.value and self.beyond is None and self.argument == "min_delta"):
            return f"{self.argument} {self.sign} {self.shown}"
        values = [self.shown, *(f"{each:g}" for each in self.also)]
        told = " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
        return f"for example {self.argument} = {told}"

    @property
    def shown(self) -> str:
        """The value in few digits, rounded to the side on which it stays true."""
        if float(self.value).is_integer():
            return f"{self.value:g}"
        is_up = self.sign == "≥" or (self.beyond is not None and self.beyond > self.value)
        end = self.beyond if self.beyond is not None else math.inf if is_up else 0.0
        for digits in (2, 3, 6, 9):
            rounding = Context(prec=digits, rounding=ROUND_CEILING if is_up else ROUND_FLOOR)
            rounded = float(rounding.create_decimal(Decimal(self.value)))
            if (self.value <= rounded < end) if is_up else (end < rounded <= self.value):
                return exponent(rounded, digits) if rounded < 0.001 else f"{rounded:.{digits}g}"
        return repr(self.value)


def later(case: Case, index: int, row: int) -> list[Change]:
    """What would have kept this EarlyStopping from stopping after the epoch of `row`, where it stops."""
    tried = _Tried(case, index, row)
    found = [tried.patience_above(), tried.min_delta(down=True, stops=False)]
    return [change for change in found if change]


def sooner(case: Case, index: int, row: int) -> list[Change]:
    """What would have made this EarlyStopping stop by the epoch of `row`, where it goes on."""
    tried = _Tried(case, index, row)
    found = [tried.patience_below(), tried.min_delta(down=False, stops=True)]
    return [change for change in found if change]


def reach(case: Case, index: int, row: int) -> Change | None:
    """The patience with which this EarlyStopping would have let the epoch of `row` be trained."""
    return _Tried(case, index, row - 1).patience_above()


class _Compared(NamedTuple):
    """One comparison of a run: did `value` improve on `best`?"""

    value: float
    best: float
    is_better: bool


class _Trace(NamedTuple):
    stopped_row: int | None
    longest_wait: int
    """Without an improvement, up to the stop or the last row asked for."""
    compared: list[_Compared]


class _Tried:
    """One EarlyStopping run again and again with other arguments, up to one row."""

    def __init__(self, case: Case, index: int, row: int) -> None:
        self.case, self.index, self.row = case, index, row
        member = member_of(case.answer(), index)
        assert member is not None
        assert isinstance(member.policy, EarlyStopping)
        # Held weights do not stop anything, and would hide which epoch was better.
        self.policy = replace(member.policy, restore_best_weights=False)
        column = case.recording.metrics.get(self.policy.monitor)
        self.values = None if column is None else [column[at] for at in range(row + 1)]
        self.left = STEPS

    def trace(self, policy: EarlyStopping) -> _Trace:
        """The machine with these arguments over the epochs up to the row."""
        profile, epochs = self.case.profile, self.case.recording.epochs
        state, longest, compared = policy.begin(profile), 0, []
        self.left -= len(self.values or ())
        for row, value in enumerate(self.values or ()):
            before, (state, stops) = state, policy.step(state, epochs[row], value, profile)
            if value is None or epochs[row] < policy.start_from_epoch:
                continue
            is_better = state.best_epoch == epochs[row]
            if before.best is not None:
                compared.append(_Compared(value, before.best, is_better))
            if is_better and policy.baseline is not None:
                compared.append(_Compared(value, policy.baseline, state.wait == 0))
            if not is_better and epochs[row] > 0:
                longest = max(longest, state.wait)
            if stops:
                return _Trace(row, longest, compared)
        return _Trace(None, longest, compared)

    def checked(self, argument: str, sign: str, value: float, *, stops: bool) -> Change | None:
        """The change, if the whole list run again says so too."""
        member = member_of(self.case.changed(self.index, **{argument: value}).answer(), self.index)
        if member is None:
            return None
        epoch, here = member.stopped_epoch, self.case.recording.epochs[self.row]
        if (epoch is not None and epoch <= here) is not stops:
            return None
        return Change(argument=argument, sign=sign, value=value, stopped_epoch=epoch)

    def patience_above(self) -> Change | None:
        """The smallest patience that does not stop by the row: one more than the longest wait until there."""
        longest = self._longest_wait()
        return None if longest is None else self.checked("patience", "≥", longest + 1, stops=False)

    def patience_below(self) -> Change | None:
        """The largest patience that stops by the row: the longest wait until there."""
        longest = self._longest_wait()
        return self.checked("patience", "≤", longest, stops=True) if longest else None

    def _longest_wait(self) -> int | None:
        """Without any stop until the row; None where that cannot be told."""
        if self.values is None:
            return None
        try:
            return self.trace(replace(self.policy, patience=math.inf)).longest_wait
        except CannotReplay:  # a value that Keras cannot compare
            return None

    def min_delta(self, *, down: bool, stops: bool) -> Change | None:
        """The `min_delta` nearest to the given one, below it or above, with which it stops by the row, or does not.

        The outcome is the same for all values between two at which a comparison turns over, so only these are
        tried, one after the other; the comparison that turns over next is one of those that the last run made.
        """
        if self.values is None:
            return None
        try:
            return self._min_delta(down, stops)
        except CannotReplay:  # a value that Keras cannot compare
            return None

    def _min_delta(self, down: bool, stops: bool) -> Change | None:
        found, beyond, policy = None, None, replace(self.policy, min_delta=abs(self.policy.min_delta))
        while self.left > 0:
            trace = self.trace(policy)
            has_stopped = trace.stopped_row is not None
            if found is None and has_stopped is stops:
                found = policy.min_delta
            elif found is not None and has_stopped is not stops:
                beyond = policy.min_delta
                break
            following = self._turn_below(trace, policy) if down else self._turn_above(trace, policy)
            if following is None:
                break
            policy = replace(policy, min_delta=following)
        else:
            return None  # no time to see how far it holds
        if found is None:
            return None
        sign = "=" if beyond is not None or (down and not found) else "≤" if down else "≥"
        change = self.checked("min_delta", sign, found, stops=stops)
        return change and replace(change, beyond=beyond)

    def _turn_below(self, trace: _Trace, policy: EarlyStopping) -> float | None:
        """The largest min_delta below at which a comparison that failed succeeds."""
        failed = [
            each
            for each in trace.compared
            if not each.is_better and self._room(each) + self._slack(each) >= 0
        ]
        lowest = max((self._room(each) - self._slack(each) for each in failed), default=0.0)
        near = [each for each in failed if self._room(each) + self._slack(each) >= lowest]
        turns = [turn for each in set(near) if (turn := self._turn(each, abs(policy.min_delta))) is not None]
        return max(turns, default=None)

    def _turn_above(self, trace: _Trace, policy: EarlyStopping) -> float | None:
        """The smallest min_delta above at which a comparison that succeeded fails."""
        succeeded = [each for each in trace.compared if each.is_better and math.isfinite(self._room(each))]
        highest = min((self._room(each) + self._slack(each) for each in succeeded), default=math.inf)
        near = [each for each in succeeded if self._room(each) - self._slack(each) <= highest]
        turns = [
            turn
            for each in set(near)
            if (turn := self._turn(each, self._room(each) + self._slack(each))) is not None
        ]
        return math.nextafter(min(turns), math.inf) if turns else None

    def _room(self, each: _Compared) -> float:
        """By how much the value is better, as doubles."""
        return each.value - each.best if self.policy.mode == "max" else each.best - each.value

    def _slack(self, each: _Compared) -> float:
        """More than rounding to float32 moves that."""
        size = max(abs(each.value), abs(each.best))
        return 4e-7 * size + 1e-37 if math.isfinite(size) else 0.0

    def _turn(self, each: _Compared, above: float) -> float | None:
        """The largest min_delta in [0, above) with which this comparison succeeds; exact."""
        if not self._is_better(each, 0.0):
            return None
        low, high = 0.0, above
        if self._is_better(each, high):
            return high
        while True:
            middle = _between(low, high)
            if middle in (low, high):
                return low
            low, high = (middle, high) if self._is_better(each, middle) else (low, middle)

    def _is_better(self, each: _Compared, min_delta: float) -> bool:
        self.left -= 1
        policy = replace(self.policy, min_delta=min_delta, baseline=None, start_from_epoch=0)
        state, _ = policy.step(EarlyStoppingState(each.best), 1, each.value, self.case.profile)
        return state.best_epoch == 1


def _between(low: float, high: float) -> float:
    """A double in the middle of two, counted in doubles: at most 64 halvings, also down to 0."""
    if low == 0.0:
        return high * 2.0**-32 if high > 1e-300 else high / 2
    return math.sqrt(low) * math.sqrt(high) if high / low > 2 else (low + high) / 2


def member_of(replayed: Replay, index: int) -> Member | None:
    """One callback as the replay left it, None where there is no answer."""
    return replayed.decisions.members[index] if replayed.decisions else None


def not_cut(case: Case, index: int, row: int) -> Change | None:
    """The smallest patience above the given one with which this ReduceLROnPlateau does not cut where it does."""
    member = member_of(case.answer(), index)
    assert member is not None
    assert isinstance(member.policy, ReduceLROnPlateau)
    epoch, patience, found = case.recording.epochs[row], member.policy.patience, list[float]()
    is_first = bool(member.cuts) and member.cuts[0][0] == epoch
    for tried in _tries(case, math.floor(max(patience, 0)) + 1, row + 3):
        cuts = _cuts(case.changed(index, patience=tried), index)
        if cuts is None:
            return None
        if epoch not in cuts:
            # Before the first cut nothing but the wait counts: with more patience it is only longer.
            found.append(tried)
            if is_first or len(found) == NAMED:
                break
    return _examples(found, "≥" if is_first else "=")


def _examples(found: list[float], sign: str) -> Change | None:
    """The nearest value, and the next ones."""
    return Change(argument="patience", sign=sign, value=found[0], also=tuple(found[1:])) if found else None


def cut(case: Case, index: int, row: int) -> Change | None:
    """The largest patience below the given one with which this ReduceLROnPlateau cuts where it does not."""
    member = member_of(case.answer(), index)
    assert member is not None
    assert isinstance(member.policy, ReduceLROnPlateau)
    highest, found = min(math.ceil(member.policy.patience) - 1, row + 1), list[float]()
    for tried in _tries(case, highest, 0):
        cuts = _cuts(case.changed(index, patience=tried).through(row + 1), index)
        if cuts is None:
            return None
        if case.recording.epochs[row] in cuts:
            found.append(tried)
            if len(found) == NAMED:
                break
    return _examples(found, "=")


def _tries(case: Case, start: int, end: int) -> range:
    """Whole numbers from `start` to before `end`, not more than there is time for."""
    most = max(1, STEPS // (3 * max(1, len(case.recording.epochs))))
    return range(start, min(end, start + most)) if end >= start else range(start, max(end, start - most), -1)


def _cuts(case: Case, index: int) -> list[int] | None:
    member = member_of(case.answer(), index)
    return None if member is None else [epoch for epoch, _ in member.cuts]
