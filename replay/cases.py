"""One replay that can be asked again: with other arguments, under another Keras, for its first epochs only.

What explains a decision and what compares versions asks the same machines anew instead of guessing. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cbmon.errors import BadCall
from cbmon.profiles import Profile
from cbmon.replay.calls import Call, parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.evidence import in_effect
from cbmon.replay.results import Recording, Replay, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one result came from."""

    recording: Recording
    calls: tuple[Call, ...]
    profile: Profile
    learning_rate: float | None = None
    steps_per_epoch: int | None = None
    planned: int | None = None
    """Epochs of the whole plan, where somebody told."""

    def answer(self) -> Replay:
        """The replay, once more."""
        return replay(
            self.recording,
            self.calls,
            self.profile,
            learning_rate=self.learning_rate,
            steps_per_epoch=self.steps_per_epoch,
            planned=self.planned,
        )

    def through(self, rows: int) -> Case:
        """The same, had the log ended after so many rows."""
        rates = in_effect(self.recording)[0].learning_rate or ()
        known = next(
            (rate for row in range(len(rates)) if (rate := rates[row]) is not None), self.learning_rate
        )
        return replace(self, recording=Beginning(self.recording, rows), learning_rate=known)

    def changed(self, index: int, **arguments: Any) -> Case:
        """The same with other arguments of one callback."""
        call = self.calls[index]
        call = replace(call, arguments={**call.arguments, **arguments})
        return replace(self, calls=(*self.calls[:index], call, *self.calls[index + 1 :]))

    def under(self, profile: Profile) -> Case:
        """The same calls in a script for another Keras.

        Raises:
            BadCall: It has no such callback or argument.
        """
        calls = []
        for call in self.calls:
            read = parse_calls(call.text, profile)
            if len(read) != 1:
                raise BadCall(f"{call.text!r} is not one call")
            calls += read
        return replace(self, calls=tuple(calls), profile=profile)


class Beginning:
    """The first rows of a recording, with the learning rates in effect as the whole tells them.

    It keeps the columns, for Keras knows its metrics from the start, and the record's own beginning. What a row's
    learning rate means is not asked again: of fewer rows the answer may be another one.
    """

    def __init__(self, recording: Recording, rows: int) -> None:
        recording, _ = in_effect(recording)
        self.epochs: Sequence[int] = recording.epochs[:rows]
        self.columns: Collection[str] = recording.columns
        self.not_numbers: Collection[str] = recording.not_numbers
        self.metrics: Mapping[str, Series] = {
            name: _StartOfColumn(column, rows) for name, column in recording.metrics.items()
        }
        rate = recording.learning_rate
        self.learning_rate: Series | None = None if rate is None else _StartOfColumn(rate, rows)
        self.started: Any = getattr(recording, "started", None)
        self.memo = {"in_effect": (len(self.epochs), (self, None))}


class _StartOfColumn:
    def __init__(self, series: Series, rows: int) -> None:
        self._series, self._rows = series, min(rows, len(series))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int, /) -> float | None:
        if not 0 <= row < self._rows:
            raise IndexError(row)
        return self._series[row]
