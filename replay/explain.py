"""Why a callback did what it did at an epoch, and what would have made it do otherwise. Pure; words are 1-based.

A log that ends tells nothing about what would have come: "to its end", not "for ever".
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from cbmon.policies import (
    CheckpointState,
    EarlyStopping,
    EarlyStoppingState,
    LearningRateScheduler,
    ModelCheckpoint,
    Monitor,
    PlateauState,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from cbmon.replay.cases import Case
from cbmon.replay.changes import Change, cut, later, member_of, not_cut, reach, sooner
from cbmon.replay.decays import Decay
from cbmon.replay.results import Decisions, Member
from cbmon.units import display_epoch, plural, printable, short, short_lr


def row_of(case: Case, epoch: int) -> int | None:
    """The row of a 0-based epoch, None if this log has it not."""
    epochs = case.recording.epochs
    row = bisect_left(epochs, epoch)
    return row if row < len(epochs) and epochs[row] == epoch else None


def explain(case: Case, row: int, *, only_stoppers: bool = False) -> list[tuple[str, list[str]]]:
    """Each callback of the list at one recorded epoch.

    Args:
        case: The replay.
        row: Which epoch.
        only_stoppers: Leave out the callbacks that do not stop training there.

    Returns:
        By CALL what it did there and why, a sentence each. An epoch that the callbacks would not have let happen
        has the entries of those that stopped before.
    """
    whole = case.answer()
    made = whole.decisions
    if made is None:
        return [("", [f"No answer: {whole.error}"])]
    if made.stopped and row >= made.epochs_replayed and case.recording.epochs[row] > made.stopped.epoch:
        return list(_not_trained(case, made, row))
    before = case.through(row).answer().decisions
    after = case.through(row + 1).answer().decisions
    assert before is not None
    assert after is not None, "a start of what was replayed is replayed"
    return [
        (printable(member.text, limit=1000), list(_At(case, made, before, after, row, index).sentences()))
        for index, member in enumerate(made.members)
        if not only_stoppers or member.stopped_epoch == case.recording.epochs[row]
    ]


def _not_trained(case: Case, made: Decisions, row: int) -> Iterator[tuple[str, list[str]]]:
    assert made.stopped is not None
    here, stop = display_epoch(case.recording.epochs[row]), display_epoch(made.stopped.epoch)
    for index, member in enumerate(made.members):
        if member.stopped_epoch is None:
            continue
        words = [f"epoch {here} is not trained: it stops after epoch {stop}"]
        change = reach(case, index, row) if isinstance(member.policy, EarlyStopping) else None
        if change:
            words.append(f"{change.words} would have come here")
        words.append(f"why it stops: --explain {stop}")
        yield printable(member.text, limit=1000), words


# --- one callback at one epoch ---------------------------------------------------------------------------


class _At:
    """One callback at one epoch: its state before and after, in words."""

    def __init__(
        self, case: Case, made: Decisions, before: Decisions, after: Decisions, row: int, index: int
    ) -> None:
        self.case, self.made, self.after, self.row, self.index = case, made, after, row, index
        self.epochs = case.recording.epochs
        self.epoch = self.epochs[row]
        self.member = after.members[index]
        self.policy = self.member.policy
        self.state_before: Any = before.members[index].state
        self.state: Any = self.member.state

    def sentences(self) -> Iterator[str]:
        """What it did, why, and what would have changed it."""
        if self.row >= self.after.epochs_replayed and not isinstance(self.policy, TerminateOnNaN):
            yield "does not see the end of this epoch: TerminateOnNaN raises within it"
            return
        match self.policy:
            case EarlyStopping() as policy:
                yield from self._stopping(policy)
            case ReduceLROnPlateau() as policy:
                yield from self._plateau(policy)
            case ModelCheckpoint() as policy:
                yield from self._checkpoint(policy)
            case policy if isinstance(policy, LearningRateScheduler | Decay):
                rates = self.after.learning_rate
                rate = rates[self.row] if rates and self.row < len(rates) else None
                yield f"gives this epoch the learning rate {short_lr(rate)}"
            case TerminateOnNaN():
                loss = self._value("loss")
                stops = self.member.stopped_epoch == self.epoch
                if stops:
                    yield f"stops in this epoch: its loss is {short(loss)}"
                else:
                    yield f"goes on: loss {short(loss)} is {'not recorded' if loss is None else 'finite'}"
            case _:
                yield self.member.words or "decides nothing"

    def _value(self, name: str) -> float | None:
        column = self.case.recording.metrics.get(name)
        if column is not None:
            return column[self.row]
        rates = self.after.learning_rate
        if name == self.case.profile.learning_rate_key and rates and self.row < len(rates):
            return rates[self.row]
        return None

    def _comparison(self, policy: Monitor, best: float | None, at: int | None, min_delta: float) -> str:
        """`val_loss .4131 is not below .4120 (epoch 38) by more than .001`."""
        name, value = printable(policy.monitor), self._value(policy.monitor)
        if value is None:
            return f"{name} is absent here: nothing is counted"
        if best is None or (at is None and math.isinf(best)):
            return f"{name} {short(value)} is the first one watched"
        told, reference = _apart(value, best)
        is_better = self.state.best_epoch == self.epoch
        where = f" (epoch {display_epoch(at)})" if at is not None else ""
        if math.isnan(best):
            return f"nothing is better than the nan{where} that {name} began with"
        side = "above" if policy.mode == "max" else "below"
        more = f" by more than {short_lr(min_delta)}" if min_delta else ""
        return f"{name} {told} is {'' if is_better else 'not '}{side} {reference}{where}{more}"

    # -- EarlyStopping

    def _stopping(self, policy: EarlyStopping) -> Iterator[str]:
        before: EarlyStoppingState = self.state_before or policy.begin(self.case.profile)
        state: EarlyStoppingState = self.state
        if self.epoch < policy.start_from_epoch:
            yield f"does not watch yet: start_from_epoch={policy.start_from_epoch:g}"
            return
        value, stops = self._value(policy.monitor), self.member.stopped_epoch == self.epoch
        is_better = value is not None and state.best_epoch == self.epoch and state.best == value
        best_at = before.best_epoch if policy.best(before, self.case.profile) else None
        what = "stops here" if stops else "goes on: a new best" if is_better else "goes on"
        yield f"{what} · wait {state.wait:g} of {_patience(policy.patience)} · " + self._comparison(
            policy, before.best, best_at, abs(policy.min_delta)
        )
        if is_better and policy.baseline is not None and state.wait:
            yield f"the wait is not reset: baseline={policy.baseline:g} is not reached"
        yield from self._threshold(policy, state.best, abs(policy.min_delta), is_over=stops)
        if value is None:
            return
        if not stops:
            yield self._what_would_stop()
            return
        stoppers = [each for each in self.made.members if each.stopped_epoch == self.epoch]
        others = [each for each in stoppers if each is not self.made.members[self.index]]
        changes = later(self.case, self.index, self.row)
        for change in changes:
            yield f"{change.words} would have gone on{'' if others else self._how_far(change)}"
        if others and changes:
            names = " and ".join(printable(type(other.policy).__name__) for other in others)
            yield f"but {names} stops here too"

    def _threshold(
        self, policy: Monitor, best: float | None, min_delta: float, *, is_over: bool = False
    ) -> Iterator[str]:
        if best is None or not math.isfinite(best):
            return
        side, limit = ("above", best + min_delta) if policy.mode == "max" else ("below", best - min_delta)
        yield f"better {'would have been' if is_over else 'is from now on'} {side} {short(limit)}"

    def _what_would_stop(self) -> str:
        changes = sooner(self.case, self.index, self.row)
        if not changes:
            return "no patience would have stopped by here"
        parts = []
        for change in changes:
            at = change.stopped_epoch
            where = "here" if at == self.epoch or at is None else f"by here (after epoch {display_epoch(at)})"
            parts.append(f"{change.words} would have stopped {where}")
        return "; ".join(parts)

    def _how_far(self, change: Change) -> str:
        """Where the whole list ends with that change, and what the best then is."""
        replayed = self.case.changed(self.index, **{change.argument: change.value}).answer()
        made, member = replayed.decisions, member_of(replayed, self.index)
        if made is None or member is None:
            return ""
        end = display_epoch(made.stopped.epoch if made.stopped else self.epochs[-1])
        limit = f" with {change.value:g}" if change.sign != "=" and float(change.value).is_integer() else ""
        where = f"epoch {end}" if made.stopped else f"the log's end, epoch {end}"
        best = ""
        if member.best and member.best.epoch > self.epoch:
            best = f", best {short(member.best.value)} ★{display_epoch(member.best.epoch)}"
        return f" ({'to' if not limit else limit.strip() + ' to'} {where}{best})"

    # -- ReduceLROnPlateau

    def _plateau(self, policy: ReduceLROnPlateau) -> Iterator[str]:
        before: PlateauState = self.state_before or policy.begin(self.case.profile)
        state: PlateauState = self.state
        value = self._value(policy.monitor)
        comparison = self._comparison(policy, before.best, before.best_epoch, abs(policy.min_delta))
        if value is None:
            yield f"does nothing · {comparison}, not even of a cooldown"
            return
        factor = next((factor for epoch, factor in self.member.cuts if epoch == self.epoch), None)
        wait = (0 if before.cooldown > 0 else before.wait) + 1
        if factor is not None:
            waited = f"wait {wait} of {_patience(policy.patience)}"
            yield f"cuts ×{short_lr(factor)} here{self._rates()} · {waited} · {comparison}"
        elif state.best_epoch == self.epoch:
            yield f"a new best, the wait begins anew · {comparison}"
        elif state.cooldown > 0:
            yield f"cooling down, {plural(int(state.cooldown), 'more epoch')} · {comparison}"
        else:
            floor = " · the learning rate is at its floor, min_lr" if wait >= policy.patience else ""
            yield f"waits · wait {state.wait} of {_patience(policy.patience)} · {comparison}{floor}"
        if factor is not None and state.cooldown > 0:
            yield f"then cools down for {plural(int(state.cooldown), 'epoch')}"
        yield from self._threshold(policy, state.best, abs(policy.min_delta))
        if factor is not None:
            if change := not_cut(self.case, self.index, self.row):
                yield f"{change.words} would not have cut here"
        elif state.best_epoch != self.epoch and (change := cut(self.case, self.index, self.row)):
            yield f"{change.words} would have cut here"

    def _rates(self) -> str:
        now, then = self.after.learning_rate, self.after.learning_rate_next
        return f" ({short_lr(now[self.row])} → {short_lr(then)})" if now and then is not None else ""

    # -- ModelCheckpoint

    def _checkpoint(self, policy: ModelCheckpoint) -> Iterator[str]:
        paths = [path for epoch, path in self.after.checkpoints if epoch == self.epoch]
        saves = self.member.saved_epochs.count(self.epoch)
        what = "saves here" if saves else "does not save here"
        if saves and len(self._savers()) == 1:
            what += f": {', '.join(printable(path) for path in paths[:3])}"
        if not policy.save_best_only:
            yield what
            return
        before: CheckpointState = self.state_before or policy.begin(self.case.profile)
        yield f"{what} · {self._comparison(policy, before.best, before.best_epoch, 0.0)}"
        yield from self._threshold(policy, self.state.best, 0.0)

    def _savers(self) -> Sequence[Member]:
        return [member for member in self.made.members if self.epoch in member.saved_epochs]


def _patience(patience: float) -> str:
    return f"{patience:g}"


def _apart(value: float, other: float) -> tuple[str, str]:
    """Two numbers in as few digits as tell them apart."""
    one, two = short(value), short(other)
    for digits in range(5, 18):
        if one != two or value == other:
            break
        one, two = f"{value:.{digits}g}", f"{other:.{digits}g}"
    return one, two
