"""Drives a list of policies over one recorded attempt, in Keras' order, and says where it stops being exact.

For each recorded epoch: LearningRateScheduler at its beginning, TerminateOnNaN and batch-wise checkpoints at
its batches, then every `on_epoch_end` in list order over one shared logs dict, then the look at
`stop_training`. Reads only the attempt and writes nothing: ModelCheckpoint merely names its files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from string import Formatter
from typing import Any

from cbmon.errors import CannotReplay, KerasRefuses, NeedsLearningRate
from cbmon.policies import (
    Cut,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    Monitor,
    Policy,
    ReduceLROnPlateau,
    TerminateOnNaN,
    float32,
    resolve,
)
from cbmon.profiles import Profile
from cbmon.replay.calls import Call
from cbmon.replay.results import Best, Decisions, Member, Recording, Replay, Stop
from cbmon.units import display_epoch, plural, printable


def replay(
    recording: Recording,
    calls: Sequence[Call],
    profile: Profile,
    *,
    log: str = "",
    attempt: int = 1,
    variant: str = "1",
    learning_rate: float | None = None,
    steps_per_epoch: int | None = None,
) -> Replay:
    """Drive a list of callbacks over one attempt.

    Args:
        recording: The attempt.
        calls: The callbacks in list order.
        profile: Which Keras decides.
        log: What the result calls the log.
        attempt: 1-based number of the attempt in its log.
        variant: What the result calls this list of callbacks.
        learning_rate: The first one, for a log that has none; such a log's own stands otherwise.
        steps_per_epoch: Batches of an epoch, for an integer `save_freq`.

    Returns:
        The decisions, or what made Keras (or us) refuse: never raises for what a log or a list holds.
    """
    warnings = [note for call in calls for note in call.notes]
    decisions, error = None, None
    try:
        driven = [_Driven(call, profile) for call in calls]
        decisions = _Driver(recording, driven, profile, learning_rate, steps_per_epoch, warnings).run()
    except CannotReplay as refusal:
        error = printable(str(refusal), limit=1000)
    return Replay(
        log=printable(log, limit=4096),
        attempt=attempt,
        variant=variant,
        callbacks=tuple(call.text for call in calls),
        recording=recording,
        decisions=decisions,
        error=error,
        warnings=tuple(printable(warning, limit=1000) for warning in warnings),
    )


_Logs = dict[str, float | None]
"""Values of an epoch; None = the learning rate, which is there but unknown. An absent metric is no key."""


class _Driven:
    """A callback on its way through the epochs."""

    def __init__(self, call: Call, profile: Profile) -> None:
        self.call = call
        self.policy = call.build(profile)
        self.state: Any = None
        self.is_resolved = False
        self.absent = 0
        """Times the monitored metric was asked for and absent."""
        self.stopped_epoch: int | None = None
        self.cuts: list[tuple[int, float]] = []
        self.saved_epochs: list[int] = []
        self.knows_best = True
        """False once a checkpoint's best is a value within an epoch, which no log has."""

    def begin(self, profile: Profile, columns: Collection[str]) -> None:
        """Settle direction and state, once; Keras 3 does it at the end of the first epoch, and may refuse."""
        if not self.is_resolved and isinstance(self.policy, Monitor):
            self.is_resolved = True
            self.policy = resolve(self.policy, profile, columns)
            self.state = self.state or self.policy.begin(profile)


class _Driver:
    """One replay under way."""

    def __init__(
        self,
        recording: Recording,
        driven: list[_Driven],
        profile: Profile,
        learning_rate: float | None,
        steps: int | None,
        warnings: list[str],
    ) -> None:
        self.recording, self.driven, self.profile = recording, driven, profile
        self.steps, self.warnings = steps, warnings
        self.metrics = recording.metrics
        self.recorded = recording.learning_rate
        self.sets_rate = any(isinstance(d.policy, ReduceLROnPlateau | LearningRateScheduler) for d in driven)
        if self.recorded is not None:
            if learning_rate is not None:
                warnings.append("--learning-rate is not used: this log has its own")
            rates = (self.recorded[row] for row in range(len(self.recorded)))
            learning_rate = next((rate for rate in rates if rate is not None), None)
        self.first_rate = None if learning_rate is None else float32(learning_rate)
        self.rate = self.first_rate
        """The optimizer's, None = unknown."""
        self.relative = 1.0
        """Product of all cuts."""
        self.is_changed = False
        """Whether a callback of the list has changed the rate."""
        self.first_changed: int | None = None
        """First epoch trained at another rate than the recorded (without one: than the first) rate."""
        self.cuts: list[tuple[int, float]] = []
        self.checkpoints: list[tuple[int, str]] = []

    def run(self) -> Decisions:
        """All epochs until one is the last."""
        self._refuse_text()
        rates: list[float | None] = []
        stopped, has_ended = None, True
        for row, epoch in enumerate(self.recording.epochs):
            logs: _Logs = {n: v for n, column in self.metrics.items() if (v := column[row]) is not None}
            rate_before = self.rate
            self._begin_epoch(row, epoch)
            rate = self.rate if self.sets_rate or self.recorded is None else self.recorded[row]
            stoppers, is_raised = self._batches(epoch, logs)
            if is_raised:
                self.rate, has_ended = rate_before, False
            else:
                stoppers |= {
                    i for i, driven in enumerate(self.driven) if self._end_epoch(driven, epoch, logs)
                }
                rates.append(rate)
            if stoppers:
                for index in stoppers:
                    self.driven[index].stopped_epoch = epoch
                stopped = Stop(
                    epoch=epoch,
                    by=tuple(type(self.driven[i].policy).__name__ for i in sorted(stoppers)),
                    exact=self.first_changed is None,
                )
                break
        self._warn_of_absence(len(rates))
        self._warn_of_gaps(len(rates))
        return self._decisions(rates, stopped, has_ended)

    def _warn_of_gaps(self, epochs: int) -> None:
        """Law 7: Keras saw epochs that the log does not have; what they would have decided is unknown."""
        numbers = self.recording.epochs[:epochs]
        gaps = [(one, other) for one, other in pairwise(numbers) if other > one + 1]
        if gaps:
            one, other = gaps[0]
            first, last = display_epoch(one + 1), display_epoch(other - 1)
            which = f"epoch {first} is" if first == last else f"epochs {first}-{last} are"
            more = f" (and {plural(len(gaps) - 1, 'more gap')})" if len(gaps) > 1 else ""
            self.warnings.append(f"{which} not in this log{more}: what Keras saw there is unknown")

    def _refuse_text(self) -> None:
        """A column of lists or text has no order; Keras would fail or, worse, save by another rule."""
        for driven in self.driven:
            policy, name = driven.policy, None
            if isinstance(policy, TerminateOnNaN):
                name = "loss"
            elif isinstance(policy, Monitor) and getattr(policy, "save_best_only", True):
                name = policy.monitor
            if name in self.recording.not_numbers:
                raise CannotReplay(
                    f"{driven.call.text}: some cells of {name!r} are lists or text, not numbers"
                )

    # -- learning rate

    def _begin_epoch(self, row: int, epoch: int) -> None:
        """`on_epoch_begin`, and the note of whether this epoch is trained as it was recorded."""
        for driven in self.driven:
            if isinstance(driven.policy, LearningRateScheduler):
                self._set_rate(float32(driven.policy.step(epoch, self.rate, self.profile)))
        if self.first_changed is None and self.sets_rate:
            expected = self.first_rate
            if self.recorded is not None:
                recorded = self.recorded[row]
                expected = self.rate if recorded is None else float32(recorded)
            if self.is_changed if expected is None else not _same(expected, self.rate):
                self.first_changed = epoch

    def _set_rate(self, rate: float | None) -> None:
        self.is_changed = self.is_changed or rate is None or not _same(rate, self.rate)
        self.rate = rate

    def _log_rate(self, logs: _Logs) -> None:
        """What ReduceLROnPlateau and LearningRateScheduler write for the callbacks after them."""
        logs[self.profile.learning_rate_key] = self.rate

    def _reduce(self, driven: _Driven, epoch: int, cut: Cut) -> None:
        driven.cuts.append((epoch, cut.factor))
        self.cuts.append((epoch, cut.factor))
        before, self.relative = self.relative, self.relative * cut.factor
        self._set_rate(None if cut.learning_rate is None else float32(cut.learning_rate))
        if self.rate is None and self.relative < _UNDERFLOW <= before:
            self.warnings.append(
                f"after the cut at epoch {display_epoch(epoch)} the learning rate, unknown here, may be 0 in "
                "float32, and Keras would cut no more. --learning-rate tells"
            )

    # -- within an epoch

    def _batches(self, epoch: int, logs: _Logs) -> tuple[set[int], bool]:
        """The batches of an epoch: who stops training in it, and whether by an exception."""
        stoppers: set[int] = set()
        for index, driven in enumerate(self.driven):
            if isinstance(driven.policy, TerminateOnNaN) and driven.policy.step(logs.get("loss")):
                stoppers.add(index)
                if driven.policy.raise_error:
                    self.warnings.append(
                        f"TerminateOnNaN(raise_error=True) raises within epoch {display_epoch(epoch)}: Keras "
                        "logs no row for that epoch, and no callback sees its end or the end of training"
                    )
                    break
        savers = [
            (index, driven)
            for index, driven in enumerate(self.driven)
            if isinstance(driven.policy, ModelCheckpoint) and driven.policy.save_freq != "epoch"
        ]
        if stoppers:
            self.warnings.extend(
                f"{driven.call.text}: its saves within epoch {display_epoch(epoch)} are unknown, for the log "
                "does not tell at which batch TerminateOnNaN ended it"
                for _, driven in savers
            )
        else:
            due = [(batch, index) for index, driven in savers for batch in self._due_batches(driven)]
            train: _Logs = {name: value for name, value in logs.items() if not name.startswith("val_")}
            for batch, index in sorted(due):
                self._save_at_batch(self.driven[index], epoch, batch, train)
        return stoppers, bool(stoppers) and self._raises(max(stoppers))

    def _raises(self, index: int) -> bool:
        policy = self.driven[index].policy
        return isinstance(policy, TerminateOnNaN) and bool(policy.raise_error)

    def _due_batches(self, driven: _Driven) -> list[int]:
        policy = driven.policy
        assert isinstance(policy, ModelCheckpoint)
        if self.steps is None:
            raise CannotReplay(
                f"save_freq={policy.save_freq} counts batches, and this log does not tell how many an epoch "
                "has. Give them: --steps-per-epoch 100"
            )
        if not self.profile.shared_monitor:
            driven.begin(self.profile, self.recording.columns)
        driven.state, batches = policy.due_batches(driven.state or policy.begin(self.profile), self.steps)
        return batches

    def _save_at_batch(self, driven: _Driven, epoch: int, batch: int, train: _Logs) -> None:
        """One try of an integer `save_freq`. Its logs are known at the last batch only: the epoch's."""
        policy, is_last = driven.policy, batch + 1 == self.steps
        assert isinstance(policy, ModelCheckpoint)
        if not is_last and not train.keys().isdisjoint(_fields(policy.filepath)):
            raise CannotReplay(
                f"{driven.call.text}: its path needs a metric within an epoch, which no log has"
            )
        path = self._path(policy, epoch, train if is_last else {}, batch)
        if self._saves_at_batch(driven, policy, epoch, train, is_last):
            self._save(driven, epoch, path)

    def _saves_at_batch(
        self, driven: _Driven, policy: ModelCheckpoint, epoch: int, train: _Logs, is_last: bool
    ) -> bool:
        state = driven.state
        value = self._monitored(driven, policy.monitor, train) if policy.save_best_only else None
        if value is None:
            return policy.step(state, epoch, None, self.profile)[1]
        is_first = state.best is None and driven.knows_best
        if not is_first and not driven.is_resolved:
            # Keras 3.11 on finds the direction at the end of the first epoch only.
            raise KerasRefuses(
                "TypeError", "'NoneType' object is not callable (save_best_only with save_freq=int)"
            )
        if not is_last and is_first:
            driven.knows_best = False
            return True
        if not is_last or not driven.knows_best:
            raise CannotReplay(
                f"{driven.call.text}: it compares {policy.monitor!r} within an epoch, which no log has"
            )
        driven.state, saves = policy.step(state, epoch, value, self.profile)
        return saves

    # -- at its end

    def _end_epoch(self, driven: _Driven, epoch: int, logs: _Logs) -> bool:
        """One callback's `on_epoch_end`; whether it stops training."""
        driven.begin(self.profile, self.recording.columns)
        match driven.policy:
            case EarlyStopping() as policy:
                value = self._monitored(driven, policy.monitor, logs)
                driven.state, stops = policy.step(driven.state, epoch, value, self.profile)
                return stops
            case ReduceLROnPlateau() as policy:
                seen = logs or {}  # `logs = logs or {}`: into empty logs it writes for itself alone
                self._log_rate(seen)
                value = self._monitored(driven, policy.monitor, seen)
                driven.state, cut = policy.step(driven.state, epoch, value, self.rate, self.profile)
                if cut:
                    self._reduce(driven, epoch, cut)
            case LearningRateScheduler():
                self._log_rate(logs or {})
            case ModelCheckpoint() as policy:
                driven.state, is_due = policy.due_epoch(driven.state)
                if is_due:
                    path = self._path(policy, epoch, logs)
                    value = self._monitored(driven, policy.monitor, logs) if policy.save_best_only else None
                    driven.state, saves = policy.step(driven.state, epoch, value, self.profile)
                    if saves:
                        self._save(driven, epoch, path)
            case TerminateOnNaN():
                pass
        return False

    def _save(self, driven: _Driven, epoch: int, path: str) -> None:
        driven.saved_epochs.append(epoch)
        self.checkpoints.append((epoch, path))

    def _monitored(self, driven: _Driven, name: str, logs: _Logs) -> float | None:
        if name not in logs:
            driven.absent += 1
            return None
        value = logs[name]
        if value is None:
            raise NeedsLearningRate(f"monitor={name!r}")
        return value

    def _path(self, policy: ModelCheckpoint, epoch: int, logs: _Logs, batch: int | None = None) -> str:
        """Keras' `_get_file_path`: formatted before it is known whether anything is saved."""
        template = policy.filepath
        try:
            for name in _fields(template):
                if name in logs and logs[name] is None:
                    raise NeedsLearningRate(f"the path {template!r}")
                if name not in logs and name in self.recording.not_numbers:
                    raise CannotReplay(f"the path {template!r}: some cells of {name!r} are lists or text")
            if batch is None or "batch" in logs:
                return template.format(epoch=display_epoch(epoch), **logs)
            return template.format(epoch=display_epoch(epoch), batch=batch + 1, **logs)
        except KeyError as error:
            raise KerasRefuses(
                "KeyError", f'Failed to format this callback filepath: "{template}". Reason: {error}'
            ) from None
        except (IndexError, ValueError, AttributeError, TypeError, OverflowError, MemoryError) as error:
            raise KerasRefuses(type(error).__name__, f"{error} in the path {template!r}") from None

    # -- the account

    def _warn_of_absence(self, epochs: int) -> None:
        """One warning a callback for what Keras warns of in every epoch."""
        for driven in self.driven:
            policy = driven.policy
            if not isinstance(policy, Monitor) or not driven.absent:
                continue
            saves = isinstance(policy, ModelCheckpoint) and self.profile.saves_when_absent
            if policy.monitor in self.metrics or policy.monitor == self.profile.learning_rate_key:
                what = f"is absent {plural(driven.absent, 'time')} in {plural(epochs, 'epoch')}; Keras only "
                what += "warns and saves there" if saves else "warns and passes over it"
            else:
                what = "is not in this log; Keras only warns, so it "
                what += "saves every time" if saves else _NEVER[type(policy)]
            self.warnings.append(f"{type(policy).__name__}: {policy.monitor!r} {what}")

    def _decisions(self, rates: list[float | None], stopped: Stop | None, has_ended: bool) -> Decisions:
        next_rate = self.rate
        if self.recorded is not None and not self.sets_rate:
            next_rate = next((rate for rate in reversed(rates) if rate is not None), self.first_rate)
        is_known = next_rate is not None and (self.recorded is not None or None not in rates)
        members = tuple(self._member(driven, has_ended) for driven in self.driven)
        exact: bool | None = self.first_changed is None
        if self.recorded is None:
            exact = None if self.is_changed else True
        return Decisions(
            epochs_replayed=len(rates),
            stopped=stopped,
            learning_rate=tuple(rates) if is_known else None,
            learning_rate_next=next_rate if is_known else None,
            cuts=tuple(self.cuts),
            checkpoints=tuple(self.checkpoints),
            best=tuple(member.best for member in members if member.best),
            exact=exact,
            diverges_at=None if self.recorded is None else self.first_changed,
            changed_at=self.first_changed,
            members=members,
        )

    def _member(self, driven: _Driven, has_ended: bool) -> Member:
        policy, state = driven.policy, driven.state
        best, restored = None, None
        if isinstance(policy, Monitor) and state is not None:
            if seen := policy.best(state, self.profile):
                name = type(policy).__name__
                best = Best(callback=name, monitor=policy.monitor, epoch=seen[0], value=seen[1])
            if has_ended and isinstance(policy, EarlyStopping):
                restored = policy.restored_epoch(state, self.profile)
        return Member(
            text=driven.call.text,
            policy=policy,
            state=state,
            restored_epoch=restored,
            best=best,
            stopped_epoch=driven.stopped_epoch,
            cuts=tuple(driven.cuts),
            saved_epochs=tuple(driven.saved_epochs),
        )


_UNDERFLOW = 1e-30
"""A product of cuts below which no usual learning rate is far from float32's smallest number, 1.4e-45."""
_NEVER: dict[type[Policy], str] = {
    EarlyStopping: "never stops",
    ReduceLROnPlateau: "never cuts",
    ModelCheckpoint: "never saves",
}


def _same(one: float, other: float | None) -> bool:
    return one == other or (one != one and other is not None and other != other)


def _fields(template: str) -> set[str]:
    """The names that a path template asks for."""
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in Formatter().parse(template) if name}
