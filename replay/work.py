"""The recordings of a sweep cut into work units: blocks of runs of similar length, and what goes one by one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cbmon.errors import CannotReplay
from cbmon.policies import EarlyStopping, ModelCheckpoint, Monitor, ReduceLROnPlateau, float32, resolve
from cbmon.replay.blocks import Block, Bools, Floats, Judged, Looked
from cbmon.replay.canonical import Monitored
from cbmon.replay.evidence import in_effect
from cbmon.replay.judge import judge
from cbmon.replay.plan import Plan
from cbmon.replay.rest import Rest, judge_rest, make_rest, refusal
from cbmon.replay.results import Recording
from cbmon.replay.swept import FLAGS, SweepSource, SweptRun
from cbmon.series import Column
from cbmon.units import plural

_BUDGET = 2**14
"""Cells of one epoch of a block: numpy's calls cost little beside them, and they stay in a core's cache."""
_ELEMENTS = 2**22
"""Cells of all epochs of a block."""
_SEED = 0
"""Of the order of blocks."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the parent knows of a run before any policy is judged."""

    rows: int
    best: tuple[int, float] | None
    sign: float | None
    """Of the judged metric; None: its direction could not be told."""
    has_value: bool


class Task:
    """The plan and the recordings: cuts the work into units."""

    def __init__(
        self, plan: Plan, sources: Sequence[SweepSource], learning_rate: float | None, tolerance: float
    ) -> None:
        self.plan, self.sources, self.learning_rate, self.tolerance = plan, sources, learning_rate, tolerance
        self.facts: list[Facts] = []
        self.rest: dict[int, str] = {}
        """Runs that leave the vector road, and why."""
        for number, source in enumerate(sources):
            self.facts.append(self._facts(source.recording))
            if reason := self._odd(source.recording):
                self.rest[number] = reason

    def _facts(self, recording: Recording) -> Facts:
        values, present = _column(recording, self.plan.judged.monitor)
        sign = self._sign(self.plan.judged, recording)
        best = None
        is_finite = present & np.isfinite(values)
        if sign is not None and is_finite.any():
            row = int(np.where(is_finite, values * sign, np.inf).argmin())
            best = int(recording.epochs[row]), float(values[row])
        return Facts(len(values), best, sign, bool(present.any()))

    def _sign(self, monitored: Monitored, recording: Recording) -> float | None:
        """-1 where more is better; None where Keras refuses to tell."""
        if monitored.mode in ("min", "max"):
            return 1.0 if monitored.mode == "min" else -1.0
        make: dict[str, Callable[..., Monitor]] = {
            "EarlyStopping": EarlyStopping,
            "ReduceLROnPlateau": ReduceLROnPlateau,
            "ModelCheckpoint": partial(ModelCheckpoint, "model.keras"),
        }
        try:
            policy = resolve(
                make[monitored.callback](monitor=monitored.monitor), self.plan.profile, recording.columns
            )
        except CannotReplay:
            return None
        return 1.0 if policy.mode == "min" else -1.0

    def _odd(self, recording: Recording) -> str | None:
        """Why a run's values cannot go through the kernels."""
        if self.plan.groups is None:
            return self.plan.scalar[0]
        for monitored, reach in self.plan.reach.items():
            values, present = _column(recording, monitored.monitor)
            finite = np.abs(values[present & np.isfinite(values)])
            if finite.size:
                with np.errstate(over="ignore"):
                    if np.isinf(np.float32(finite.max() + reach)):
                        return "values beyond float32, at which TensorFlow raises"
        return None

    # -- units

    def units(self, with_cells: bool) -> Iterator[Callable[[], Judged]]:
        """The work, in an order in which an interrupted sweep has seen long and short runs alike."""
        regular = [number for number in range(len(self.sources)) if number not in self.rest]
        work: list[list[int]] = [*self._cut(regular), *([number] for number in self.rest)]
        random.Random(_SEED).shuffle(work)
        for numbers in work:
            if self.plan.groups is None or numbers[0] in self.rest:
                yield partial(judge_rest, self._rest(numbers[0]), with_cells)
            else:
                yield partial(judge, self.plan.groups, self._block(numbers), with_cells)

    def _cut(self, numbers: Sequence[int]) -> list[list[int]]:
        """Blocks of runs of similar length, each as large as the budget allows."""
        cells, blocks = self._cells_per_row(), list[list[int]]()
        for number in sorted(numbers, key=lambda number: -self.facts[number].rows):
            longest = self.facts[blocks[-1][0]].rows if blocks else 0
            most = max(1, min(_BUDGET // cells, _ELEMENTS // (cells * max(1, longest)), 1024))
            if not blocks or len(blocks[-1]) >= most or self.facts[number].rows < 0.75 * longest - 16:
                blocks.append([])
            blocks[-1].append(number)
        return blocks

    def _cells_per_row(self) -> int:
        """Cells of one run at one epoch, in the largest array of any kernel."""
        groups, cells = self.plan.groups, [1]
        if groups is not None:
            for stopper in groups.stoppers:
                deltas = len(stopper.monitored) * len(stopper.deltas)
                cells.append(deltas * len(stopper.starts) * len(stopper.baselines))
            if cutter := groups.cutter:
                # Its jumps hold the cooldowns too, but ever fewer of them.
                cells.append(2 * len(cutter.monitored) * len(cutter.deltas) * len(cutter.patiences))
                if groups.kind == "stop":
                    cells.append(cells[-1] * len(cutter.cooldowns))
        return max(cells)

    def _block(self, numbers: Sequence[int]) -> Block:
        recordings = [self.sources[number].recording for number in numbers]
        facts = [self.facts[number] for number in numbers]
        shape = (max(1, max(fact.rows for fact in facts)), len(numbers))
        epochs = np.zeros(shape, np.int64)
        rates, is_recorded = np.full(shape, np.nan), np.zeros(shape, np.bool_)
        first_rate = np.full(len(numbers), np.nan)
        is_known = np.zeros(len(numbers), np.bool_)
        for run, recording in enumerate(recordings):
            epochs[: facts[run].rows, run] = recording.epochs
            if self.plan.groups is None or self.plan.groups.cutter is None:
                continue
            rate = self.learning_rate
            if (recorded := in_effect(recording)[0].learning_rate) is not None:
                values, present = _arrays(recorded)
                with np.errstate(over="ignore"):
                    rates[: len(values), run] = values.astype(np.float32)
                is_recorded[: len(values), run] = present
                rate = float(values[present.argmax()]) if present.any() else rate
            if rate is not None:
                first_rate[run], is_known[run] = float32(rate), True
        looked = {
            monitored: self._looked(monitored, recordings, facts, shape) for monitored in self.plan.monitored
        }
        judged = looked.get(self.plan.judged)
        assert judged is not None
        best = np.array([math.nan if f.best is None else f.best[1] * (f.sign or 1.0) for f in facts])
        return Block(
            numbers=tuple(numbers),
            lengths=np.array([fact.rows for fact in facts], np.int64),
            epochs=epochs,
            looked=looked,
            seen=_forward_filled(judged.values, judged.present),
            best=best,
            allowed=np.abs(best) * self.tolerance,
            first_rate=first_rate,
            is_rate_known=is_known,
            recorded=rates if is_recorded.any() else None,
            is_recorded=is_recorded if is_recorded.any() else None,
        )

    def _looked(
        self,
        monitored: Monitored,
        recordings: Sequence[Recording],
        facts: Sequence[Facts],
        shape: tuple[int, int],
    ) -> Looked:
        values, present = np.full(shape, np.nan), np.zeros(shape, np.bool_)
        signs, refused = np.ones(shape[1]), np.zeros(shape[1], np.bool_)
        for run, recording in enumerate(recordings):
            sign = self._sign(monitored, recording)
            refused[run] = (sign is None and facts[run].rows > 0) or (
                monitored in self.plan.text_refuses and monitored.monitor in recording.not_numbers
            )
            signs[run] = sign or 1.0
            column, there = _column(recording, monitored.monitor)
            values[: len(column), run] = column * signs[run]
            present[: len(there), run] = there
        return Looked(values=values, present=present, sign=signs, refused=refused)

    def _rest(self, number: int) -> Rest:
        fact = self.facts[number]
        return make_rest(
            self.plan,
            number,
            self.sources[number].recording,
            learning_rate=self.learning_rate,
            sign=fact.sign or 1.0,
            best=None if fact.best is None else fact.best[1],
            tolerance=self.tolerance,
        )

    def swept_run(self, number: int, refused: int) -> SweptRun:
        """A run as the result shows it."""
        source, fact, count = self.sources[number], self.facts[number], len(self.plan)
        flags = {
            "best is the first epoch": fact.best is not None and fact.best[0] == source.recording.epochs[0],
            "best is the last epoch": fact.best is not None and fact.best[0] == source.recording.epochs[-1],
            "monitored metric absent": not fact.has_value,
            "no finite value": fact.has_value and fact.best is None and fact.sign is not None,
            "may itself have been stopped early": source.is_cut_short,
            "some policies refused": 0 < refused < count,
        }
        error = None
        if refused == count:
            error = refusal(self.plan, source.recording, self.learning_rate)
        return SweptRun(
            log=source.log,
            attempt=source.attempt,
            epochs=fact.rows,
            group=source.group,
            best=fact.best,
            epoch_seconds=source.epoch_seconds,
            error=error,
            flags=tuple(flag for flag in FLAGS if flags[flag]),
        )

    def absences(self, refused: Mapping[int, int]) -> list[str]:
        """One line for each metric that some runs do not have at all, of what Keras warns in each of their epochs.

        Args:
            refused: Policies refused, by run: the runs done.
        """
        lines, runs = list[str](), [number for number, count in refused.items() if count < len(self.plan)]
        looks = dict.fromkeys(
            (one.callback, one.monitor) for one in self.plan.monitored if one in self.plan.text_refuses
        )
        for callback, monitor in looks:
            if callback not in _NEVER or monitor == self.plan.profile.learning_rate_key:
                continue
            count = sum(monitor not in self.sources[number].recording.metrics for number in runs)
            if not count:
                continue
            saves = callback == "ModelCheckpoint" and self.plan.profile.saves_when_absent
            what = "saves every time" if saves else _NEVER[callback]
            if count == len(runs):
                which = "this run does not have it" if count == 1 else f"none of these {count:,} runs has it"
            else:
                which, what = f"{count:,} of {plural(len(runs), 'run')} do not have it", f"{what} there"
            lines.append(f"{callback} monitors {monitor!r}: {which}; Keras only warns, so it {what}")
        return lines

    def reasons(self) -> tuple[str, ...]:
        """Why something left the vector road, in words."""
        found: dict[str, int] = {}
        for reason in self.rest.values():
            found[reason] = found.get(reason, 0) + 1
        if self.plan.groups is None:
            return self.plan.scalar
        return tuple(f"{plural(count, 'run')}: {reason}" for reason, count in found.items())


_NEVER = {"EarlyStopping": "never stops", "ReduceLROnPlateau": "never cuts", "ModelCheckpoint": "never saves"}


def _arrays(column: Any) -> tuple[Floats, Bools]:
    """Values, NaN where absent, and presence."""
    if isinstance(column, Column):
        # A copy: no view of a column may outlive the moment, or it could not grow.
        return np.array(column.values, np.float64), np.array(column.present, np.bool_)
    cells = [column[row] for row in range(len(column))]
    present = np.array([cell is not None for cell in cells], np.bool_)
    return np.array([math.nan if cell is None else cell for cell in cells], np.float64), present


def _column(recording: Recording, name: str) -> tuple[Floats, Bools]:
    column = recording.metrics.get(name)
    if column is None:
        rows = len(recording.epochs)
        return np.full(rows, np.nan), np.zeros(rows, np.bool_)
    return _arrays(column)


def _forward_filled(values: Floats, present: Bools) -> Floats:
    """The value last seen up to each row; shape (T, R)."""
    rows = np.where(present, np.arange(len(values))[:, None], -1)
    rows = np.maximum.accumulate(rows, axis=0)
    return np.where(rows >= 0, np.take_along_axis(values, rows.clip(min=0), axis=0), np.nan)
