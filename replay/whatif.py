"""What if: one EarlyStopping or ReduceLROnPlateau whose parameters are turned like knobs, and what it would do.

Pure values: a `WhatIf` knows its parameters and gives others; `outcome` asks the replay engine. What Keras would
refuse is part of the answer, never raised.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from cbmon.errors import BadCall, CbmonError
from cbmon.policies import EarlyStopping, ReduceLROnPlateau
from cbmon.profiles import PROFILES, Profile
from cbmon.replay.calls import Call, parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.evidence import ROWS_MAX
from cbmon.replay.results import Decisions, Member
from cbmon.run import Attempt
from cbmon.series import Column, Direction, headline
from cbmon.units import display_epoch, plural, printable, short, short_lr

Value: TypeAlias = str | int | float | bool | None

STOPPING, CUTTING = "EarlyStopping", "ReduceLROnPlateau"
KERAS = "keras"
"""The row that is no argument: which Keras decides."""
_POLICIES: dict[str, type[EarlyStopping | ReduceLROnPlateau]] = {
    STOPPING: EarlyStopping,
    CUTTING: ReduceLROnPlateau,
}
_ROWS = {
    STOPPING: (
        *("monitor", "patience", "min_delta", "mode", "baseline", "start_from_epoch"),
        *("restore_best_weights", KERAS),
    ),
    CUTTING: ("monitor", "factor", "patience", "min_delta", "cooldown", "min_lr", "mode", KERAS),
}
_FIRST: Mapping[str, Value] = MappingProxyType({"patience": 10, "restore_best_weights": True})
"""What people begin with where Keras' default would be of no use: patience 0 stops at the first worse epoch."""
_WHOLE = frozenset(("patience", "start_from_epoch", "cooldown"))
_LADDERS: dict[str, tuple[float, ...]] = {
    "min_delta": (0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1),
    "factor": (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9),
    "min_lr": (0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
}
_CHOICES: dict[str, tuple[Value, ...]] = {
    "mode": ("auto", "min", "max"),
    "restore_best_weights": (False, True),
    KERAS: tuple(PROFILES),
}
_TYPED = _WHOLE | _LADDERS.keys() | {"baseline"}
_LEVELS = 12
"""Values of the metric, from its lowest to its highest, that a baseline steps through."""
_NAMED = 4
"""Cuts named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A callback with its arguments, those of the other one for when that is asked, and a Keras."""

    callback: str
    keras: str
    arguments: Mapping[str, Mapping[str, Value]]
    """By callback."""

    @staticmethod
    def begin(attempt: Attempt, profile: Profile, kept: Call | None = None) -> WhatIf:
        """The first question about a run: `kept`, else EarlyStopping on the metric that it is judged by."""
        monitor = next(iter(_monitors(attempt)), "val_loss")
        arguments: dict[str, dict[str, Value]] = {}
        for name, policy in _POLICIES.items():
            own: dict[str, Any] = {
                each.name: each.default for each in fields(policy) if each.name in _ROWS[name]
            }
            arguments[name] = own | {key: value for key, value in _FIRST.items() if key in own}
            arguments[name]["monitor"] = monitor
        if kept is None:
            return WhatIf(callback=STOPPING, keras=profile.name, arguments=arguments)
        name = kept.policy.__name__
        given = {each.name: each.default for each in fields(_POLICIES[name])} | dict(kept.arguments)
        for key in arguments[name]:
            value: Any = given[key]
            is_whole = key in _WHOLE and isinstance(value, float) and value.is_integer()
            arguments[name][key] = int(value) if is_whole else value
        return WhatIf(callback=name, keras=profile.name, arguments=arguments)

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of what can be turned."""
        return _ROWS[self.callback]

    @property
    def profile(self) -> Profile:
        """The Keras that decides."""
        return PROFILES[self.keras]

    @property
    def text(self) -> str:
        """CALL, as it is pasted into a script: without what is Keras' default, but for monitor and patience."""
        own = self.arguments[self.callback]
        told = [
            f"{each.name}={_literal(own[each.name])}"
            for each in fields(_POLICIES[self.callback])
            if each.name in own and (each.name in ("monitor", "patience") or own[each.name] != each.default)
        ]
        return f"{self.callback}({', '.join(told)})"

    def call(self) -> Call:
        """The same, read as if it had been typed."""
        return parse_calls(self.text, self.profile)[0]

    def value(self, name: str) -> Value:
        """What a row has."""
        return self.keras if name == KERAS else self.arguments[self.callback][name]

    def shown(self, name: str) -> str:
        """The same as people read it."""
        value = self.value(name)
        return short_lr(value) if isinstance(value, float) else printable(str(value))

    def other(self) -> WhatIf:
        """The other callback, on the same metric."""
        name = CUTTING if self.callback == STOPPING else STOPPING
        return replace(self, callback=name)._with("monitor", self.value("monitor"))

    def stepped(self, name: str, by: int, attempt: Attempt) -> WhatIf:
        """Turn a row: along its ladder, or its choices, which end."""
        value = self.value(name)
        if name in _WHOLE:
            assert isinstance(value, int | float)
            return self._with(name, max(0, value + by))
        if name in _LADDERS or name == "baseline":
            ladder = _ladder(name, self, attempt)
            below = None if name == "baseline" else ladder[0]
            return self._with(name, _climbed(ladder, value, by, below))
        choices = _CHOICES.get(name) or tuple(_monitors(attempt))
        at = choices.index(value) + by if value in choices else 0
        return self._with(name, choices[max(0, min(at, len(choices) - 1))] if choices else value)

    def typed(self, name: str, text: str) -> WhatIf:
        """Give a row what was typed.

        Raises:
            BadCall: It takes no number, or that is none.
        """
        if name not in _TYPED:
            raise BadCall(f"{name} is chosen with the arrows")
        try:
            return self._with(name, int(text) if name in _WHOLE else float(text))
        except ValueError:
            kind = "a whole number" if name in _WHOLE else "a number"
            raise BadCall(f"{name}={printable(text)}: not {kind}") from None

    @staticmethod
    def takes_digits(name: str) -> bool:
        """Whether a row can be typed."""
        return name in _TYPED

    def _with(self, name: str, value: Value) -> WhatIf:
        if name == KERAS:
            return replace(self, keras=str(value))
        own = {**self.arguments[self.callback], name: value}
        return replace(self, arguments={**self.arguments, self.callback: own})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the callback would have done."""

    answer: str
    """A sentence; what must not be torn apart at a line's end has hard spaces."""
    fired: tuple[int, ...] = ()
    """0-based epochs after which it would have stopped or cut."""
    notes: tuple[str, ...] = ()
    """What Keras, or the replay, would say about it."""
    is_refused: bool = False
    """Whether the answer is what Keras would raise, or why there is none."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows that a policy looks at, as they are now: a thread may work on them while the run grows."""

    epochs: Sequence[int]
    columns: Collection[str]
    metrics: Mapping[str, _Frozen]
    learning_rate: _Frozen | None
    not_numbers: Collection[str]
    started: object = None
    """How the record began: what `in_effect` knows Monitor's by, ..."""
    seconds: object = None
    """... or by this."""
    ended: object = None
    is_growing: bool = False
    """Whether more rows are to come: then its last one says nothing about its end."""

    @staticmethod
    def of(attempt: Attempt, monitor: str, *, is_growing: bool = False) -> Snapshot:
        """Copy what is needed of an attempt: 100,000 rows take less than a millisecond.

        Of a short one that is every metric: they tell what its learning rates mean, as in a replay.
        """
        is_short = len(attempt.epochs) <= ROWS_MAX
        found = {
            name: _Frozen.of(column)
            for name, column in attempt.metrics.items()
            if is_short or name == monitor
        }
        rate = attempt.learning_rate
        return Snapshot(
            epochs=attempt.epochs[:],
            columns=frozenset(attempt.columns),
            metrics=found,
            learning_rate=_Frozen.of(rate) if rate else None,
            not_numbers=frozenset(attempt.not_numbers),
            started=attempt.started,
            seconds=bool(attempt.seconds),
            ended=attempt.ended,
            is_growing=is_growing,
        )


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A column that grows no more."""

    values: array[float]
    present: bytes

    @staticmethod
    def of(column: Column) -> _Frozen:
        return _Frozen(column.values[:], bytes(column.present))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int, /) -> float | None:
        return self.values[row] if self.present[row] else None


def outcome(question: WhatIf, rows: Snapshot) -> Outcome:
    """Ask the replay engine; about 2 µs a row until the first stop."""
    try:
        result = replay(rows, [question.call()], question.profile)
    except CbmonError as error:
        return Outcome(answer=printable(str(error)), is_refused=True)
    made = result.decisions
    if made is None:
        return Outcome(answer=result.error or "no answer", is_refused=True)
    (member,) = made.members
    if question.callback == CUTTING:
        fired = tuple(epoch for epoch, _ in made.cuts)
        return Outcome(answer=_cut_words(rows, made), fired=fired, notes=result.warnings)
    fired = (made.stopped.epoch,) if made.stopped else ()
    return Outcome(answer=_stop_words(rows, made, member), fired=fired, notes=result.warnings)


def _stop_words(rows: Snapshot, made: Decisions, member: Member) -> str:
    """`stops after epoch 44, keeps .4120 ★37, saves 56 of 100 epochs, regret .0030 (0.7 %)`."""
    policy, total = member.policy, len(rows.epochs)
    assert isinstance(policy, EarlyStopping)
    best = f"{short(member.best.value)}\xa0★{display_epoch(member.best.epoch)}" if member.best else ""
    if made.stopped is None:
        wait = getattr(member.state, "wait", 0)
        state = f"; best {best}, wait {wait:,} of {policy.patience:,}" if best else ""
        return f"not within {plural(total, 'epoch')}{state}"
    epoch = made.stopped.epoch
    kept_epoch = epoch if member.restored_epoch is None else member.restored_epoch
    column = rows.metrics[policy.monitor]
    kept = column[bisect_left(rows.epochs, kept_epoch)]
    parts = [f"stops after epoch {display_epoch(epoch)}"]
    if kept is not None:
        is_restored = member.restored_epoch is not None
        which = f"★{display_epoch(kept_epoch)}" if is_restored else "(nothing restored)"
        parts.append(f"keeps {short(kept)}\xa0{which}")
    parts.append(f"saves {total - made.epochs_replayed:,} of {plural(total, 'epoch')}")
    if (regret := _regret(column, kept, policy.mode)) is not None:
        parts.append(regret)
    return ", ".join(parts)


def _regret(column: _Frozen, kept: float | None, mode: str) -> str | None:
    """What is given up against the best of the whole recording; None where that cannot be told."""
    pick = max if mode == Direction.MAX.value else min
    best = pick((value for value in column.values if math.isfinite(value)), default=None)
    if best is None or kept is None or not math.isfinite(kept):
        return None
    if kept == best:
        return "no regret"
    share = f" ({100 * abs(kept - best) / abs(best):.2g}\xa0%)" if best else ""
    return f"regret {short(abs(kept - best))}{share}"


def _cut_words(rows: Snapshot, made: Decisions) -> str:
    """`cuts ×0.1 after epochs 12 and 30; exact to epoch 12: the recorded learning rate is another`."""
    if not made.cuts:
        return f"not within {plural(len(rows.epochs), 'epoch')}"
    epochs = [str(display_epoch(epoch)) for epoch, _ in made.cuts]
    factors = list(dict.fromkeys(f"×{short_lr(factor)}" for _, factor in made.cuts))
    if len(epochs) > _NAMED:
        which = f"{', '.join(epochs[:_NAMED])} and {len(epochs) - _NAMED} more, last {epochs[-1]}"
    else:
        which = " and ".join(filter(None, [", ".join(epochs[:-1]), epochs[-1]]))
    words = f"cuts {' and '.join(factors)} after epoch{'s' if len(epochs) > 1 else ''} {which}"
    if made.changed_at is None:
        return f"{words}; exact to the end"
    before = bisect_left(rows.epochs, made.changed_at)
    exact = f"exact to epoch {display_epoch(rows.epochs[before - 1])}" if before else "not exact"
    why = (
        "the recorded learning rate is another"
        if made.diverges_at is not None
        else "this log has no learning rate"
    )
    return f"{words}; {exact}: {why}"


def _monitors(attempt: Attempt) -> list[str]:
    """What can be monitored, the metric that the run is judged by first."""
    names = list(attempt.metrics)
    first = headline(names)
    return sorted(names, key=lambda name: name != first)


def _ladder(name: str, question: WhatIf, attempt: Attempt) -> Sequence[float]:
    """The values that a row steps through; a baseline those that the metric had."""
    if name in _LADDERS:
        return _LADDERS[name]
    column = attempt.metrics.get(str(question.value("monitor")))
    values = [value for value in column.values if math.isfinite(value)] if column else []
    if not values:
        return ()
    low, high = min(values), max(values)
    return sorted({float(f"{low + (high - low) * step / _LEVELS:.3g}") for step in range(_LEVELS + 1)})


def _climbed(ladder: Sequence[float], value: Value, by: int, below: Value) -> Value:
    """The next rungs from a value that may lie between two of them; `below` the first there is that."""
    if not ladder:
        return value
    at = -1 if value is None else 0
    if isinstance(value, int | float):
        at = bisect_right(ladder, value) - 1 if by > 0 else bisect_left(ladder, value)
    return ladder[min(at + by, len(ladder) - 1)] if at + by >= 0 else below


def _literal(value: Value) -> str:
    """As people write it in Python: `"val_loss"`, `1e-5`."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return re.sub(r"e-0", "e-", repr(value))
