"""The fold: events become a `Run`, the honest mutable account of one training log.

One function, `fold`, serves the live tail, the cold load, playback and tests. It never raises on any sequence
of events, never reads a clock, and does not care how the bytes were cut: the same rows give the same Run.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import le
from typing import Any, TypeAlias, assert_never

import msgspec

from cbmon.events import (
    CallbackStates,
    CheckpointSaved,
    ControlApplied,
    EpochsEnded,
    Event,
    Heartbeat,
    LearningRateChanged,
    Malformed,
    NonFinite,
    Progress,
    RecordReplaced,
    RunEnded,
    RunStarted,
    StopRequested,
    Tick,
)
from cbmon.series import Column, has_numpy
from cbmon.units import display_epoch

Note: TypeAlias = CheckpointSaved | ControlApplied | LearningRateChanged | NonFinite | StopRequested
"""What happened at a point of a run, beside its epochs."""

WARNINGS_KEPT = 1000
"""Warnings kept one by one; a broken file of a million lines must not fill the memory. The rest is counted."""


ARRIVALS_KEPT = 11
"""Moments kept at which a log was seen to have grown: ten steps are enough for a pace."""


class Warning(msgspec.Struct, kw_only=True):
    """Lines of a log that were left out, or something about the whole file."""

    first_line: int | None
    last_line: int | None
    reason: str

    def __str__(self) -> str:
        if self.first_line is None:
            return self.reason
        if self.first_line == self.last_line:
            return f"line {self.first_line}: {self.reason}"
        return f"lines {self.first_line}-{self.last_line}: {self.reason}"


@dataclass(slots=True)
class Attempt:
    """One `fit` (or one stretch of rising epoch numbers) of a run."""

    epochs: array[int] = field(default_factory=lambda: array("q"))
    """Shape (rows,); 0-based, strictly rising, gaps allowed."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Every column of the log but epoch and learning rate, also those without a single value."""
    rate: Column = field(default_factory=Column)
    """Learning rate in effect during each epoch, if recorded."""
    rates: dict[str, Column] = field(default_factory=dict)
    """The same by optimizer, where there are several."""
    seconds: dict[str, Column] = field(default_factory=dict)
    """How long each epoch and its parts took, if recorded: "epoch", "validation", "step", "first_step"."""
    times: Column = field(default_factory=Column)
    """When each epoch ended, Unix seconds, if recorded."""
    not_numbers: set[str] = field(default_factory=set)
    """Columns in which some cell is text or a list."""
    notes: list[Note] = field(default_factory=list)
    callbacks: CallbackStates | None = None
    """What the callbacks with patience had counted when they were last seen."""
    started: RunStarted | None = None
    ended: RunEnded | None = None
    last_line: int | None = None
    """Row logs: the line of the last row."""
    arrivals: list[tuple[int, float]] = field(default_factory=list, compare=False)
    """When its source saw it grow: rows, and when the file had last changed. The pace of a log without times."""
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What pure functions of its rows keep, so that one new row costs them one row; no part of its value."""

    @property
    def metrics(self) -> dict[str, Column]:
        """The columns that have a value: all-NA ones (validation that never ran) are no metrics."""
        return {name: column for name, column in self.columns.items() if column.count}

    @property
    def learning_rate(self) -> Column | None:
        """The recorded learning rates, None if there are none."""
        return self.rate if self.rate.count else None

    def extend(self, batch: EpochsEnded, rows: slice) -> None:
        """Append rows of a batch whose epochs rise and lie above the last one."""
        before = len(self.epochs)
        self.epochs.extend(batch.epochs[rows])
        after = len(self.epochs)
        for table, columns in (
            (self.columns, batch.metrics),
            (self.rates, batch.learning_rates),
            (self.seconds, batch.seconds),
        ):
            for name, values in columns.items():
                column = table.get(name)
                if column is None:
                    column = table[name] = Column()
                    column.pad(before)
                column.extend(values[rows])
        if batch.learning_rate is not None:
            self.rate.pad(before)
            self.rate.extend(batch.learning_rate[rows])
        if batch.times is not None or batch.time is not None:
            self.times.pad(before)
            self.times.extend([batch.time] * (after - before) if batch.times is None else batch.times[rows])
        for column in self._columns():
            if len(column.values) < after:
                column.pad(after)
        self.not_numbers.update(batch.not_numbers)
        if batch.first_line is not None:
            self.last_line = batch.first_line + rows.stop - 1

    def drop_last(self) -> None:
        """Take the last row out: a later one repeats its epoch."""
        self.memo.clear()
        self.epochs.pop()
        for column in self._columns():
            column.drop_last()

    def arrived(self, written: float | None) -> None:
        """The source has looked: the file last changed at `written`, and these rows are in it.

        Rows that came in several readings of one state of the file came at once.
        """
        if written is None or not math.isfinite(written) or not self.epochs:
            return
        rows, before = self.arrivals[-1] if self.arrivals else (0, -math.inf)
        if written < before:
            self.arrivals.clear()  # the clock was put back
        elif written == before:
            self.arrivals.pop()
        elif rows == len(self.epochs):
            return
        self.arrivals.append((len(self.epochs), written))
        del self.arrivals[:-ARRIVALS_KEPT]

    def _columns(self) -> list[Column]:
        """Every column, each as long as `epochs`."""
        tables = (self.columns, self.rates, self.seconds)
        return [*(column for table in tables for column in table.values()), self.rate, self.times]


@dataclass(slots=True)
class Run:
    """What one training log has told so far."""

    attempts: list[Attempt] = field(default_factory=lambda: [Attempt()])
    """Never empty; the last one is the current one."""
    warnings: list[Warning] = field(default_factory=list)
    warnings_dropped: int = 0
    """Warnings beyond `WARNINGS_KEPT`."""
    progress: Progress | None = None
    """The running epoch, None between epochs."""
    heard: float | None = None
    """Time of the latest event that carries one."""
    seen: Tick | None = None
    """The source's latest look at the record from outside."""

    @property
    def current(self) -> Attempt:
        """The latest attempt."""
        return self.attempts[-1]

    @property
    def is_empty(self) -> bool:
        """Whether no epoch has ended in any attempt."""
        return not any(attempt.epochs for attempt in self.attempts)

    def warn(self, reason: str, line: int | None = None) -> None:
        """Keep a warning; consecutive lines left out for one reason are one warning."""
        last = self.warnings[-1] if self.warnings else None
        if last and line is not None and last.reason == reason and last.last_line == line - 1:
            last.last_line = line
        elif len(self.warnings) < WARNINGS_KEPT:
            self.warnings.append(Warning(first_line=line, last_line=line, reason=reason))
        else:
            self.warnings_dropped += 1


def fold(run: Run, event: Event) -> None:
    """Take one event into the run, in place. Never raises, reads no clock."""
    match event:
        case Tick():
            run.seen = event
            run.current.arrived(event.written)
            return
        case RecordReplaced():
            run.__init__()  # type: ignore[misc]  # the same object starts anew, whoever holds it sees it
            return
        case Malformed():
            run.warn(event.reason, event.line)
        case RunStarted():
            if run.current != Attempt():
                run.attempts.append(Attempt())
            run.current.started = event
            run.progress = None
        case EpochsEnded():
            _fold_epochs(run, event)
            run.progress = None
        case Progress():
            run.progress = event
        case RunEnded():
            run.current.ended = event
            run.progress = None
        case LearningRateChanged() | CheckpointSaved() | NonFinite() | StopRequested() | ControlApplied():
            run.current.notes.append(event)
        case CallbackStates():
            run.current.callbacks = event
        case Heartbeat():
            pass
        case _:
            assert_never(event)
    if event.time is not None:
        is_old = (
            isinstance(event, Progress) and run.heard is not None and run.heard > event.time
        )  # of the last step
        run.heard = run.heard if is_old else event.time


def _fold_epochs(run: Run, batch: EpochsEnded) -> None:
    """Append a batch: where epochs fall a new attempt begins, where one repeats the later row stands."""
    for rows in _rising_stretches(batch.epochs):
        first, done = batch.epochs[rows.start], run.current.epochs
        if run.current.ended or (done and first < done[-1]):
            run.attempts.append(Attempt())
        elif done and first == done[-1]:
            run.current.drop_last()
            run.warn(
                f"left out, epoch {display_epoch(first)} comes again in the next row", run.current.last_line
            )
        run.current.extend(batch, rows)


def _rising_stretches(epochs: Sequence[int]) -> list[slice]:
    """Cut a batch into slices of strictly rising epochs; most often that is one."""
    if _is_rising(epochs):
        return [slice(0, len(epochs))] if epochs else []
    cuts = [row for row in range(1, len(epochs)) if epochs[row] <= epochs[row - 1]]
    return [slice(start, stop) for start, stop in zip([0, *cuts], [*cuts, len(epochs)], strict=True)]


def _is_rising(epochs: Sequence[int]) -> bool:
    """Whether each epoch is above the one before it."""
    if isinstance(epochs, array) and has_numpy(len(epochs)):
        import numpy as np

        rows = np.frombuffer(epochs, np.int64)
        return bool((rows[1:] > rows[:-1]).all())
    return not any(map(le, islice(epochs, 1, None), epochs))
