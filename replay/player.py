"""Playback: one recorded log handed out as if it were being written, epoch by epoch.

`Script` cuts the recorded events anywhere between two epochs. `Player` has the interface of `sources.Follower`, so
that whoever watches a live run can watch a recorded one: the same events, the same fold. Its clock is the only
thing here that reads time; what it hands out carries the recorded times, or none.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from math import isfinite, log
from operator import lt
from pathlib import Path
from threading import Condition
from typing import TypeVar

import msgspec

from cbmon.events import EpochsEnded, Event, Progress, RecordReplaced, RunEnded, RunStarted, Tick, Values
from cbmon.rules import alerts, headline_metric
from cbmon.run import Run, fold
from cbmon.series import direction
from cbmon.sources import Log, Skipped

T = TypeVar("T")
SPEEDS: tuple[int, ...] = (*(digit * 10**power for power in range(6) for digit in (1, 2, 5)), 10**6)
"""Epochs a second."""
WHOLE_S = 30.0
"""What playing a whole log takes at first: long enough to see it, short enough to wait for."""
FRAME_S = 0.1
"""Rows are handed out so often at most; at higher speeds several at once."""


class Script:
    """The events of a whole log, and where they can be cut: a position is a number of rows played."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.epochs: array[int] = array("q")
        """0-based, as in the log: of all attempts, repeated ones too. One a row."""
        self.is_gone = False
        """Whether the process that wrote the record is known to be gone without an end."""
        self._events: list[Event] = []
        self._batches: list[int] = []
        """Which events have rows ..."""
        self._after: list[int] = []
        """... and how many rows there are with each of them."""
        fences = {0}
        for event in _merged(events):
            if isinstance(event, Tick):
                self.is_gone = event.process_gone
                continue
            if isinstance(event, EpochsEnded) and event.epochs:
                self.epochs.extend(event.epochs)
                self._batches.append(len(self._events))
                self._after.append(len(self.epochs))
            elif isinstance(event, RunStarted | RunEnded):
                fences.add(len(self.epochs))
            self._events.append(event)
        falls = map(lt, islice(self.epochs, 1, None), self.epochs)
        fences.update(row for row, falls_here in enumerate(falls, 1) if falls_here)
        self.starts = sorted(row for row in fences if row < len(self.epochs))
        """The first row of each attempt that has any."""

    @property
    def rows(self) -> int:
        """The last position."""
        return len(self.epochs)

    def between(self, start: int | None, stop: int) -> Iterator[Event]:
        """What happened after one position, up to another one; None: from before the beginning."""
        at, row = (0, 0) if start is None else self._cut(start)
        last, end = self._cut(stop)
        for index in range(at, min(last + 1, len(self._events))):
            event = self._events[index]
            first = row if index == at else 0
            if index == last:
                if first < end and isinstance(event, EpochsEnded):
                    yield _part(event, first, end)
            elif first and isinstance(event, EpochsEnded):
                yield _part(event, first, len(event.epochs))
            else:
                yield event

    def place(self, attempt: int, epoch: int) -> int:
        """The position after an epoch (0-based) of an attempt (0-based, of those that have rows)."""
        first = self.starts[attempt]
        beyond = self.starts[attempt + 1] if attempt + 1 < len(self.starts) else self.rows
        return bisect_right(self.epochs, epoch, first, beyond)

    def attempt(self, position: int) -> int:
        """Which of the attempts that have rows the last row played belongs to, 0-based."""
        return max(0, bisect_left(self.starts, position) - 1)

    def _cut(self, position: int) -> tuple[int, int]:
        """The event that a position is in, and the rows of it that lie before.

        What follows a row and belongs to no later epoch comes with it, as a live reader would see it.
        """
        if position >= self.rows:
            return len(self._events), 0
        index, epoch = 0, -1
        if position > 0:
            at = bisect_left(self._after, position)
            index = self._batches[at]
            rows = position - (self._after[at - 1] if at else 0)
            if position < self._after[at]:
                return index, rows
            epoch = self.epochs[position - 1]
            index += 1
        while not _is_later(self._events[index], epoch, is_head=position <= 0):
            index += 1
        return index, 0


def _merged(events: Iterable[Event]) -> Iterator[Event]:
    """The same with a record's epochs, one an event, as larger batches: a step back folds all of them anew."""
    row = 0

    def shape(event: Event) -> tuple[object, ...] | None:
        """What two batches have in common that can be one; None for what stands alone."""
        nonlocal row
        if not isinstance(event, EpochsEnded) or event.times is not None:
            return None
        before, row = row, row + len(event.epochs)
        line = None if event.first_line is None else event.first_line - before
        tables = (tuple(table) for table in (event.metrics, event.learning_rates, event.seconds))
        return *tables, event.learning_rate is None, event.time is None, line, tuple(event.not_numbers)

    for found, alike in groupby(events, key=shape):
        if found is None:
            yield from alike
        else:
            yield _joined([each for each in alike if isinstance(each, EpochsEnded)])


def _joined(batches: Sequence[EpochsEnded]) -> EpochsEnded:
    first, last = batches[0], batches[-1]
    if first is last:
        return first

    def rows(columns: Iterable[Sequence[T]]) -> list[T]:
        return list(chain.from_iterable(columns))

    def table(name: str) -> dict[str, Values]:
        tables: list[dict[str, Values]] = [getattr(each, name) for each in batches]
        return {key: rows(each[key] for each in tables) for key in tables[0]}

    return msgspec.structs.replace(
        last,
        first_line=first.first_line,
        epochs=rows(each.epochs for each in batches),
        metrics=table("metrics"),
        learning_rates=table("learning_rates"),
        seconds=table("seconds"),
        learning_rate=None
        if first.learning_rate is None
        else rows(each.learning_rate or () for each in batches),
        times=None if first.time is None else rows([each.time] * len(each.epochs) for each in batches),
    )


def _is_later(event: Event, epoch: int, *, is_head: bool) -> bool:
    """Whether an event after an epoch's row belongs to what comes then; the start of `fit` to the beginning."""
    if isinstance(event, EpochsEnded):
        return bool(event.epochs)
    if isinstance(event, RunStarted):
        return not is_head
    at: int | None = getattr(event, "epoch", None)
    return isinstance(event, Progress) or (at is not None and at > epoch)


def _part(batch: EpochsEnded, start: int, stop: int) -> EpochsEnded:
    """Some rows of a batch."""
    rows = slice(start, stop)

    def cut(table: dict[str, Values]) -> dict[str, Values]:
        return {name: column[rows] for name, column in table.items()}

    return msgspec.structs.replace(
        batch,
        epochs=batch.epochs[rows],
        metrics=cut(batch.metrics),
        learning_rate=None if batch.learning_rate is None else batch.learning_rate[rows],
        learning_rates=cut(batch.learning_rates),
        seconds=cut(batch.seconds),
        times=None if batch.times is None else batch.times[rows],
        time=batch.time if batch.time is None or batch.times is None else batch.times[stop - 1],
        first_line=None if batch.first_line is None else batch.first_line + start,
    )


def moments(script: Script, fired: Callable[[Run], Iterable[Sequence[int]]] = lambda run: ()) -> list[int]:
    """The positions at which something happens: alerts, best values, new attempts, policies, the end.

    Args:
        script: the log.
        fired: gives, for each attempt of the whole run that has rows, the epochs after which policies acted.
    """
    run = Run()
    for event in script.between(None, script.rows):
        fold(run, event)
    numbers = [number for number, attempt in enumerate(run.attempts, 1) if attempt.epochs]
    found = {first + 1 for first in script.starts[1:]} | {script.rows}
    for alert in alerts(run):
        if alert.epoch is not None and alert.attempt in numbers:
            found.add(script.place(numbers.index(alert.attempt), alert.epoch))
    for at, number in enumerate(numbers):
        attempt = run.attempts[number - 1]
        name = headline_metric(attempt)
        towards = direction(name) if name else None
        if name and towards and (row := attempt.metrics[name].best(towards)) is not None:
            found.add(script.place(at, attempt.epochs[row]))
    for at, epochs in enumerate(fired(run)):
        found.update(script.place(at, epoch) for epoch in epochs)
    return sorted(found)


def first_speed(rows: int) -> int:
    """The speed at which so many rows take about `WHOLE_S`."""
    whole = max(rows, 1) / WHOLE_S
    return min(SPEEDS, key=lambda speed: abs(log(speed / whole)))


@dataclass(frozen=True, slots=True)
class Position:
    """Where a playback is."""

    row: int
    """Rows played."""
    rows: int
    epoch: int | None
    """0-based, of the last row played; None before the first."""
    last: int | None
    """0-based: the largest of this attempt; None of an empty log."""
    attempt: int
    """1-based, of those that have rows."""
    attempts: int
    speed: int
    """Epochs a second."""
    is_playing: bool


class Player:
    """Plays one log for one consumer thread; any thread may seek, pause and change the speed."""

    def __init__(
        self,
        log: Log,
        events: Iterable[Event],
        *,
        now: Callable[[], float] = time.monotonic,
        trouble: str = "",
    ) -> None:
        """Take a log and all that it tells; it plays from the first `read` on.

        Args:
            log: as it was found.
            events: as read from its start to its end.
            now: the clock, in seconds.
            trouble: something to tell all the time.
        """
        self.paths = [str(log.path)]
        self.logs = {log.path: log}
        self.skipped: list[Skipped] = []
        self.trouble = trouble
        self.seen: Collection[Path] | None = None
        """What is on the screen; one log always is."""
        self.script = Script(events)
        self._log = log
        self._now = now
        self._changed = Condition()
        self._handed: int | None = None
        """The position that was handed out."""
        self._heard: float | None = None
        """The latest recorded time in it."""
        self._speed = first_speed(self.script.rows)
        self._is_playing = self.script.rows > 0
        self._from, self._since = 0, now()
        """Where it was, and when; from there on it plays."""
        self._frame_at = 0.0
        """When the last rows were handed out."""
        self._stopped = False

    # --- what a Follower has ------------------------------------------------------------------------------

    def read(self, changed: set[Path] | None = None) -> Iterator[tuple[Log, list[Event]]]:
        """What there is to the present position; backwards the log begins anew."""
        with self._changed:
            if self._handed is None:
                self._since = self._now()  # whatever came before, such as the first picture, was no playing
            before, position = self._handed, self._due()
            self._handed, self._frame_at = position, self._now()
            if position == self.script.rows:
                self._pause_at(position)
        events: list[Event] = []
        if before is not None and position < before:
            events, before, self._heard = [RecordReplaced()], None, None
        events += self.script.between(before, position)
        self._heard = next(filter(None, map(_time_of, reversed(events))), self._heard)
        is_gone = self.script.is_gone and position == self.script.rows
        yield self._log, [*events, Tick(time=self._heard, process_gone=is_gone)]

    def wait(self) -> set[Path] | None:
        """Wait until the position is another one; paused, that is until somebody moves it."""
        with self._changed:
            while not self._stopped:
                now, due, handed = self._now(), self._due(), self._handed or 0
                frame_at = self._frame_at + FRAME_S
                if due != handed:
                    is_jump = not self._is_playing or not self._from <= handed <= due
                    if is_jump or now >= frame_at:
                        return {self._log.path}
                next_at = self._since + (handed + 1 - self._from) / self._speed
                wait_s = max(next_at, frame_at) - now
                self._changed.wait(max(wait_s, 0.001) if self._is_playing else None)
        return None

    def start(self) -> None:
        """Nothing: no file is watched."""

    def stop(self) -> None:
        """End `wait` at once, from any thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    # --- what a player has --------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where it is, as far as it was handed out."""
        with self._changed:
            row, script = self._handed or 0, self.script
            at = script.attempt(row)
            beyond = script.starts[at + 1] if at + 1 < len(script.starts) else script.rows
            return Position(
                row=row,
                rows=script.rows,
                epoch=script.epochs[row - 1] if row else None,
                last=script.epochs[beyond - 1] if script.rows else None,
                attempt=at + 1,
                attempts=len(script.starts),
                speed=self._speed,
                is_playing=self._is_playing,
            )

    def toggle(self) -> None:
        """Pause, or play on; at the end from the start."""
        with self._changed:
            due = self._due()
            if self._is_playing:
                self._pause_at(due)
            else:
                self._from, self._since = 0 if due >= self.script.rows else due, self._now()
                self._is_playing = self.script.rows > 0
            self._changed.notify_all()

    def pace(self, by: int) -> None:
        """Play faster or slower, by steps."""
        with self._changed:
            self._from, self._since = self._due(), self._now()
            at = SPEEDS.index(self._speed) + by
            self._speed = SPEEDS[max(0, min(at, len(SPEEDS) - 1))]
            self._changed.notify_all()

    def step(self, by: int) -> None:
        """Pause, and go some epochs forward or back."""
        with self._changed:
            self.pause_at(self._due() + by)

    def pause_at(self, position: int) -> None:
        """Go to a position and pause there."""
        with self._changed:
            self._pause_at(position)
            self._changed.notify_all()

    def seek(self, position: int) -> None:
        """Go to a position; it plays on from there if it played."""
        with self._changed:
            self._from, self._since = self._within(position), self._now()
            self._changed.notify_all()

    def _due(self) -> int:
        """The position at this moment."""
        played = int((self._now() - self._since) * self._speed + 1e-9) if self._is_playing else 0
        return self._within(self._from + played)

    def _pause_at(self, position: int) -> None:
        self._is_playing, self._from = False, self._within(position)

    def _within(self, position: int) -> int:
        return max(0, min(position, self.script.rows))


def _time_of(event: Event) -> float | None:
    """When something happened, as far as the record tells."""
    if event.time is None and isinstance(event, EpochsEnded) and event.times:
        last = event.times[-1]
        return last if last is not None and isfinite(last) else None
    return event.time
