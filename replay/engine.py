"""Drives a list of policies over one recorded attempt, in Keras' order, and says where it stops being exact.

For each recorded epoch: LearningRateScheduler at its beginning, TerminateOnNaN and batch-wise checkpoints at
its batches, then every `on_epoch_end` in list order over one shared logs dict, then the look at
`stop_training`. Reads only the attempt and writes nothing: ModelCheckpoint merely names its files, and what
the observers would write is kept as words and rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from cbmon.errors import CannotReplay, KerasRefuses, NeedsLearningRate
from cbmon.policies import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    Monitor,
    ReduceLROnPlateau,
    TerminateOnNaN,
    resolve,
)
from cbmon.profiles import Profile
from cbmon.replay import evidence
from cbmon.replay.calls import Call, Listed
from cbmon.replay.checkpoints import fields_of, format_path
from cbmon.replay.decays import Decay
from cbmon.replay.observers import (
    BaseLogger,
    CSVLogger,
    Observer,
    RemoteMonitor,
    TensorBoard,
)
from cbmon.replay.rates import SETS_RATE, Rates
from cbmon.replay.results import Best, Decisions, Member, Recording, Replay, Stop
from cbmon.replay.schedules import did_you_mean
from cbmon.replay.written import Course, Row, words
from cbmon.units import display_epoch, plural, printable, short_lr


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
    planned: int | None = None,
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
        steps_per_epoch: Batches of an epoch, for an integer `save_freq` and a schedule of the optimizer's; None =
            the record's own, where it tells.
        planned: Epochs that the recorded run was to have, if known: whether its log was cut short.

    Returns:
        The decisions, or what made Keras (or us) refuse: never raises for what a log or a list holds.
    """
    warnings = [note for call in calls for note in call.notes]
    decisions, error = None, None
    recording, note = evidence.in_effect(recording)
    steps = steps_per_epoch or evidence.steps_of(recording)
    try:
        for call in calls:
            if call.is_foreign:
                raise CannotReplay(f"{call.text}: only --engine keras can run it, for it is code of your own")
        driven = [_Driven(call, profile) for call in calls]
        decisions = _Driver(recording, driven, profile, learning_rate, steps, warnings).run()
    except CannotReplay as refusal:
        error = printable(str(refusal), limit=1000)
    except OverflowError as overflow:  # an int beyond all floats, in the arithmetic that Keras does with it
        error = printable(str(KerasRefuses("OverflowError", str(overflow))), limit=1000)
    is_sure = note != evidence.DOUBT
    if decisions is not None and note and (is_sure or any(call.policy in SETS_RATE for call in calls)):
        warnings.insert(0, note)  # a doubt is told only where something hangs on it
    if decisions is not None and (censored := _censored(decisions, recording, planned)):
        warnings.append(censored)
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


def _censored(made: Decisions, recording: Recording, planned: int | None) -> str | None:
    """A policy that did not fire says little where the recorded run itself was cut short."""
    waiting = [
        type(member.policy).__name__
        for member in made.members
        if isinstance(member.policy, EarlyStopping | ReduceLROnPlateau)
        and member.best is not None
        and not member.cuts
    ]
    if made.stopped is not None or not waiting:
        return None
    reason = evidence.cut_short(recording, planned)
    recorded = plural(len(recording.epochs), "epoch")
    return reason and f"{', '.join(dict.fromkeys(waiting))}: not within {recorded}; {reason}"


HAS = "; this log has "
"""Between a warning of a missing metric and what the log has instead."""


def _hint(monitor: str, names: Sequence[str], profile: Profile) -> str:
    """`; this log has loss, val_loss. Did you mean val_loss?`; empty where the metric is there."""
    if monitor in names or monitor == profile.learning_rate_key or not names:
        return ""
    more = ", …" if len(names) > _METRICS_NAMED else ""
    return f"{HAS}{', '.join(names[:_METRICS_NAMED])}{more}.{did_you_mean(monitor, names)}"


_METRICS_NAMED = 8
SAVES_MAX = 1_000_000
"""Checkpoints of one replay; nobody has the disk for more, and a mistyped number must not fill the memory."""

_Logs = dict[str, float | None]
"""Values of an epoch; None = the learning rate, which is there but unknown. An absent metric is no key."""


class _Driven:
    """A callback on its way through the epochs."""

    def __init__(self, call: Call, profile: Profile) -> None:
        self.call = call
        self.hint = ""
        """What the log has in place of the monitored metric; empty if it has it."""
        self.policy = call.build(profile)
        self.state: Any = None
        self.is_resolved = False
        self.absent = 0
        """Times the monitored metric was asked for and absent."""
        self.rows: list[Row] = []
        """Logs as an observer saw them, one an epoch."""
        self.stopped_epoch: int | None = None
        self.cuts: list[tuple[int, float]] = []
        self.saved_epochs: list[int] = []
        self.knows_best = True
        """False once a checkpoint's best is a value within an epoch, which no log has."""

    def begin(self, profile: Profile, columns: Collection[str]) -> None:
        """Settle direction and state, once; Keras 3 does it at the end of the first epoch, and may refuse."""
        if not self.is_resolved and isinstance(self.policy, Monitor):
            self.is_resolved = True
            try:
                self.policy = resolve(self.policy, profile, columns)
            except KerasRefuses as refusal:
                raise CannotReplay(f"{refusal}{self.hint}") from None
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
        self.names = sorted(self.metrics) if profile.is_keras_3 else list(self.metrics)
        """In the order of the logs that the callbacks get; Keras 2's own order is not in a log."""
        policies = [each.policy for each in driven]
        self.rates = Rates(recording, policies, profile, learning_rate, steps, warnings)
        self.checkpoints: list[tuple[int, str]] = []
        for each in driven:
            if isinstance(each.policy, Monitor):
                each.hint = _hint(each.policy.monitor, self.names, profile)

    def run(self) -> Decisions:
        """All epochs until one is the last."""
        self._refuse_text()
        rates: list[float | None] = []
        stopped, has_ended = None, True
        for row, epoch in enumerate(self.recording.epochs):
            logs: _Logs = {n: v for n in self.names if (v := self.metrics[n][row]) is not None}
            rate_before = self.rates.now
            self._begin_epoch(row, epoch)
            rate = self.rates.used(row)
            stoppers, is_raised = self._batches(epoch, logs)
            if is_raised:
                self.rates.now, has_ended = rate_before, False
            else:
                self.rates.end_batches(epoch)
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
                    exact=self.rates.first_changed is None,
                )
                break
        self._warn_of_absence(len(rates))
        if gaps := evidence.gaps(self.recording.epochs[: len(rates)]):
            self.warnings.append(gaps)
        return self._decisions(rates, stopped, has_ended)

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

    def _begin_epoch(self, row: int, epoch: int) -> None:
        for driven in self.driven:
            if isinstance(driven.policy, LearningRateScheduler):
                self.rates.schedule(driven.policy, epoch, driven.call.text)
        self.rates.begin_epoch(row, epoch)

    def _log_rate(self, logs: _Logs) -> None:
        """What ReduceLROnPlateau and LearningRateScheduler write for the callbacks after them."""
        logs[self.profile.learning_rate_key] = self.rates.now

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
            if self.rates.has_decay:
                self.warnings.append(
                    f"the step at which epoch {display_epoch(epoch)} ended is unknown: the schedule's rate after "
                    "it is that of a whole epoch"
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
        due = self.steps // max(1, int(policy.save_freq))  # type: ignore[call-overload]  # no "epoch" here
        if len(self.checkpoints) + due > SAVES_MAX:
            raise CannotReplay(
                f"save_freq={policy.save_freq} in {self.steps:,} steps an epoch: more than {SAVES_MAX:,} saves"
            )
        if not self.profile.shared_monitor:
            driven.begin(self.profile, self.recording.columns)
        driven.state, batches = policy.due_batches(driven.state or policy.begin(self.profile), self.steps)
        return batches

    def _save_at_batch(self, driven: _Driven, epoch: int, batch: int, train: _Logs) -> None:
        """One try of an integer `save_freq`. Its logs are known at the last batch only: the epoch's."""
        policy, is_last = driven.policy, batch + 1 == self.steps
        assert isinstance(policy, ModelCheckpoint)
        if not is_last and not train.keys().isdisjoint(fields_of(policy.filepath)):
            raise CannotReplay(
                f"{driven.call.text}: its path needs a metric within an epoch, which no log has"
            )
        logs = train if is_last else {}
        path = format_path(policy.filepath, epoch, logs, self.recording.not_numbers, batch)
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
                driven.state, cut = policy.step(driven.state, epoch, value, self.rates.now, self.profile)
                if cut and self.rates.reduce(epoch, cut, driven.call.text):
                    driven.cuts.append((epoch, cut.factor))
            case LearningRateScheduler():
                self._log_rate(logs or {})
            case ModelCheckpoint() as policy:
                driven.state, is_due = policy.due_epoch(driven.state)
                if is_due:
                    path = format_path(policy.filepath, epoch, logs, self.recording.not_numbers)
                    value = self._monitored(driven, policy.monitor, logs) if policy.save_best_only else None
                    driven.state, saves = policy.step(driven.state, epoch, value, self.profile)
                    if saves:
                        self._save(driven, epoch, path)
            case BaseLogger() if not driven.rows:
                self.warnings.append("BaseLogger: in a fit of TensorFlow 2 it raises KeyError: 'metrics'")
            case _:
                pass
        if isinstance(driven.policy, CSVLogger | RemoteMonitor | TensorBoard):
            driven.rows.append((epoch, dict(logs)))
        elif isinstance(driven.policy, Observer):
            driven.rows.append((epoch, {}))
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
                what += driven.hint
            self.warnings.append(f"{type(policy).__name__}: {policy.monitor!r} {what}")

    def _decisions(self, rates: list[float | None], stopped: Stop | None, has_ended: bool) -> Decisions:
        changes = self.rates
        next_rate, is_recorded = changes.after(rates), changes.recorded is not None
        is_known = next_rate is not None and (is_recorded or None not in rates)
        members = tuple(self._member(driven, has_ended, rates) for driven in self.driven)
        exact: bool | None = changes.first_changed is None
        if not is_recorded:
            exact = None if changes.is_changed else True
        return Decisions(
            epochs_replayed=len(rates),
            stopped=stopped,
            learning_rate=tuple(rates) if is_known else None,
            learning_rate_next=next_rate if is_known else None,
            cuts=tuple(changes.cuts),
            checkpoints=tuple(self.checkpoints),
            best=tuple(member.best for member in members if member.best),
            exact=exact,
            diverges_at=changes.first_changed if is_recorded else None,
            changed_at=changes.first_changed,
            members=members,
        )

    def _member(self, driven: _Driven, has_ended: bool, rates: Sequence[float | None]) -> Member:
        policy, state = driven.policy, driven.state
        best, restored, course = None, None, None
        if isinstance(policy, Observer):
            course = Course(
                profile=self.profile,
                rows=tuple(driven.rows),
                not_numbers=frozenset(self.recording.not_numbers),
                steps=self.steps,
                has_ended=has_ended,
                is_stopped_by_nan=any(
                    isinstance(each.policy, TerminateOnNaN) and each.stopped_epoch is not None
                    for each in self.driven
                ),
            )
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
            course=course,
            words=self._words(policy, course, rates),
        )

    @staticmethod
    def _words(policy: Listed, course: Course | None, rates: Sequence[float | None]) -> str:
        if isinstance(policy, Observer) and course is not None:
            return words(policy, course)
        if isinstance(policy, Decay) and rates:
            return f"gives {short_lr(rates[0])} at first, {short_lr(rates[-1])} at last"
        return ""


_NEVER: dict[type[Listed], str] = {
    EarlyStopping: "never stops",
    ReduceLROnPlateau: "never cuts",
    ModelCheckpoint: "never saves",
}
