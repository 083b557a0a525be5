"""Which policy would have served best: every policy of a grid over many recorded runs, in blocks.

The plan (`plan`) says what is proven independent; its groups go through `kernels`, the rest through the scalar
engine. A work unit is a block of runs of similar length, as arrays, so that any `concurrent.futures` executor
can take it; results do not depend on the number of workers or on the order in which they come. Decisions are
those of `replay.engine`; tests/test_sweep.py says so, against the real callbacks too.
"""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from cbmon.errors import BadCall, CannotReplay
from cbmon.policies import EarlyStopping, ModelCheckpoint, Monitor, ReduceLROnPlateau, float32, resolve
from cbmon.profiles import Profile
from cbmon.replay.evidence import cut_short, in_effect
from cbmon.replay.grid import parse_grid
from cbmon.replay.judge import (
    NO_OBSERVATION,
    NOT_WITHIN,
    REFUSED,
    Block,
    Bools,
    Cells,
    Floats,
    Ints,
    Judged,
    Looked,
    Totals,
    judge,
    no_totals,
    summed,
)
from cbmon.replay.plan import Keep, Kind, Monitored, Plan, make_plan
from cbmon.replay.rest import Rest, judge_rest, make_rest, refusal
from cbmon.replay.results import Recording
from cbmon.run import Attempt
from cbmon.series import Column
from cbmon.units import plural

__all__ = [
    "FLAGS",
    "NOT_WITHIN",
    "NO_OBSERVATION",
    "REFUSED",
    "Sweep",
    "SweepSource",
    "SweptPolicy",
    "SweptRun",
    "Totals",
    "sources_of",
    "sweep",
]

_BUDGET = 2**14
"""Cells of one epoch of a block: numpy's calls cost little beside them, and they stay in a core's cache."""
_ELEMENTS = 2**22
"""Cells of all epochs of a block."""
_SEED = 0
"""Of the order of blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSource:
    """One recorded attempt, as a sweep takes it."""

    log: str
    """The log's path, as the user is told."""
    attempt: int
    """1-based."""
    recording: Recording
    group: str
    """Folder of the log."""
    epoch_seconds: float | None = None
    """Median recorded seconds an epoch."""
    is_cut_short: bool = False
    """Whether the log says that its training was itself stopped before its planned end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRun:
    """One attempt of one log, judged."""

    log: str
    attempt: int
    """1-based."""
    epochs: int
    """Rows recorded."""
    group: str
    """Folder of the log, for leave-one-folder-out."""
    best: tuple[int, float] | None
    """0-based epoch and value of `Sweep.metric` at its best over the whole recorded run; None: no finite value."""
    epoch_seconds: float | None
    """Median recorded seconds an epoch, None if the log cannot tell."""
    error: str | None
    """Why no policy could be judged on it (as `cbmon replay` says it), else None: then its cells are REFUSED."""
    flags: tuple[str, ...]
    """What makes its figures say less than they seem to: members of FLAGS."""


FLAGS = (
    "best is the first epoch",
    "best is the last epoch",
    "monitored metric absent",
    "no finite value",
    "may itself have been stopped early",
    "some policies refused",
)
"""Every flag of a `SweptRun`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPolicy:
    """One canonical list of callbacks: what provably decides the same on any log is one of them."""

    call: str
    """As written, each grid replaced by its value: the most patient, else the last, of `equivalent`."""
    equivalent: tuple[str, ...]
    """All calls merged into it, in CALL order, itself included."""
    arguments: Mapping[str, object]
    """The values of `call` on each of the sweep's axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The judgement of every policy on every run that was done.

    Cells have the shape [run, policy], in the order of `runs` and `policies`; [0, policy] where they were not kept.
    """

    profile: Profile
    runs: tuple[SweptRun, ...]
    """Those done, in the order given."""
    policies: tuple[SweptPolicy, ...]
    axes: Mapping[str, tuple[object, ...]]
    """Name of each axis and its values, in CALL order: the argument, with its callback's name where two have it."""
    members: Ints
    """[member of the grid]: its policy; in CALL order, the last axis moving fastest."""
    kind: Kind
    """What is judged. "stop": EarlyStopping and TerminateOnNaN. "cut": ReduceLROnPlateau alone, only its first
    reduction is exact. "save": ModelCheckpoint alone."""
    keep: Keep
    """Whose weights the regret is about: those of restore_best_weights (or of the best file), or the last ones."""
    metric: str
    """The metric of `best` and `regret`: what the first monitoring callback of the list monitors."""
    direction: Literal["min", "max"] | None
    """Its better direction; None where the logs resolve "auto" differently, or none could."""
    stops: Ints
    """0-based number of the epoch after which training stops. Kind "cut": of the first reduction. Kind "save": of
    the last save. Else NOT_WITHIN, NO_OBSERVATION or REFUSED."""
    saved: Ints
    """Epochs not trained: rows recorded after the stop; 0 where it did not fire, and for kinds "cut" and "save"."""
    regret: Floats | None
    """Value kept, less the best of the whole run, in the metric's unit, ≥ 0; a lower bound, for the log ends where
    it ends. NaN: nothing finite was kept, or the stop is counterfactual. A policy that did not fire keeps what the
    end of the run keeps. None for kind "cut"."""
    reductions: Ints | None
    """Reductions of the learning rate up to the end or the stop; counterfactual after the first. None without
    ReduceLROnPlateau; 0 in cells that are REFUSED."""
    lr_final: Floats | None
    """Learning rate after them, counterfactual likewise; NaN where unknown. None without ReduceLROnPlateau."""
    saves: Ints | None
    """Kind "save": number of saves, else None."""
    exact: Bools | None
    """Whether the stop lies before any effect of a reduction; None: every stop is a prefix of what was measured."""
    totals: Totals
    tolerance: float
    """Share of |best| by which a regret may exceed 0 before it counts as harmful in `totals`."""
    done: int
    """Attempts judged; fewer than `total` if interrupted."""
    total: int
    scalar: tuple[str, ...]
    """Why something left the vector road, in words; the results are the same, only slower."""
    warnings: tuple[str, ...]

    @property
    def is_partial(self) -> bool:
        """Whether it was interrupted."""
        return self.done < self.total


def sweep(
    sources: Sequence[SweepSource],
    text: str,
    profile: Profile,
    *,
    keep: Keep | None = None,
    tolerance: float = 0.0,
    learning_rate: float | None = None,
    executor: Executor | None = None,
    workers: int = 1,
    parts: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    keep_cells: bool = True,
) -> Sweep:
    """Judge every policy of a grid on every run.

    Args:
        sources: The attempts.
        text: CALL with grids, `EarlyStopping(patience=range(1, 31))`.
        profile: Which Keras decides.
        keep: Whose weights the regret is about; None = as restore_best_weights says.
        tolerance: Share of |best| for `Totals.harmful`.
        learning_rate: The first one, for logs that have none.
        executor: Anything with `submit`; None = in this process, or `workers` processes.
        workers: Processes, where no executor is given.
        parts: Folder for one Parquet file a block.
        progress: Called with (attempts done, asked).
        keep_cells: False: only the totals, in memory that does not grow with the number of runs.

    Raises:
        BadCall: The text is no grid, or too large a one.
        KerasRefuses: Keras' constructor refuses a member of the grid.
    """
    grid = parse_grid(text, profile)
    plan = make_plan(grid, profile, keep)
    task = _Task(plan, sources, learning_rate, tolerance)
    gathered = _Gathered(plan, len(sources), keep_cells)
    with ExitStack() as stack:
        sink = None if parts is None else _Sink(parts, plan)
        if executor is None:
            executor = stack.enter_context(_processes(workers) if workers > 1 else _Here())
        results = _run(task.units(keep_cells or parts is not None), executor, 2 * max(1, workers))
        try:
            if progress:
                progress(0, len(sources))
            for judged in results:
                if sink:
                    sink.write(judged)
                gathered.take(judged)
                if progress:
                    progress(len(gathered.refused), len(sources))
        except KeyboardInterrupt:
            results.close()
        if sink:
            sink.write_runs(sources, gathered)
    return gathered.sweep(task, text)


def sources_of(
    log: str, group: str, attempts: Sequence[Attempt], planned: int | None = None
) -> list[SweepSource]:
    """The attempts of a log that have rows, as a sweep takes them.

    Args:
        log: Its path, as the user is told.
        group: Its folder.
        attempts: All of them.
        planned: Epochs that the training was to have, if known and not in the record.
    """
    return [
        SweepSource(
            log=log,
            attempt=number,
            recording=attempt,
            group=group,
            epoch_seconds=_epoch_seconds(attempt),
            is_cut_short=cut_short(attempt, planned) is not None,
        )
        for number, attempt in enumerate(attempts, 1)
        if attempt.epochs
    ]


def _epoch_seconds(attempt: Attempt) -> float | None:
    """The median of the recorded durations, else of the time between rows."""
    recorded = attempt.seconds.get("epoch", ())
    seconds = [second for second in recorded if second is not None and 0 < second < math.inf]
    if not seconds:
        times = list(attempt.times)
        steps = zip(times, times[1:], attempt.epochs, attempt.epochs[1:], strict=False)
        seconds = [
            (later - one) / (after - before)
            for one, later, before, after in steps
            if one is not None and later is not None and 0 < later - one < math.inf
        ]
    return median(seconds) if seconds else None


# --- runs into blocks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the parent knows of a run before any policy is judged."""

    rows: int
    best: tuple[int, float] | None
    sign: float | None
    """Of the judged metric; None: its direction could not be told."""
    has_value: bool


class _Task:
    """The plan and the recordings: cuts the work into units."""

    def __init__(
        self, plan: Plan, sources: Sequence[SweepSource], learning_rate: float | None, tolerance: float
    ) -> None:
        self.plan, self.sources, self.learning_rate, self.tolerance = plan, sources, learning_rate, tolerance
        self.facts: list[_Facts] = []
        self.rest: dict[int, str] = {}
        """Runs that leave the vector road, and why."""
        for number, source in enumerate(sources):
            self.facts.append(self._facts(source.recording))
            if reason := self._odd(source.recording):
                self.rest[number] = reason

    def _facts(self, recording: Recording) -> _Facts:
        values, present = _column(recording, self.plan.judged.monitor)
        sign = self._sign(self.plan.judged, recording)
        best = None
        is_finite = present & np.isfinite(values)
        if sign is not None and is_finite.any():
            row = int(np.where(is_finite, values * sign, np.inf).argmin())
            best = int(recording.epochs[row]), float(values[row])
        return _Facts(len(values), best, sign, bool(present.any()))

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
        facts: Sequence[_Facts],
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

    def reasons(self) -> tuple[str, ...]:
        """Why something left the vector road, in words."""
        found: dict[str, int] = {}
        for reason in self.rest.values():
            found[reason] = found.get(reason, 0) + 1
        if self.plan.groups is None:
            return self.plan.scalar
        return tuple(f"{plural(count, 'run')}: {reason}" for reason, count in found.items())


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


# --- executors -----------------------------------------------------------------------------------------------


class _Here(Executor):
    """Runs what is submitted at once, in this thread; an interrupt goes straight through."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # as every executor: whoever asks for the result gets it
            future.set_exception(error)
        return future


def _processes(workers: int) -> ProcessPoolExecutor:
    """Fresh processes (polars' threads do not survive a fork), which leave Ctrl-C to their parent."""
    from multiprocessing import get_context

    return ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(
    units: Iterable[Callable[[], Judged]], executor: Executor, window: int
) -> Generator[Judged, None, None]:
    """The units' results as they come; at most `window` under way, and none begun after it is closed."""
    pending: set[Future[Judged]] = set()
    todo, is_done = iter(units), False
    try:
        while pending or not is_done:
            while len(pending) < window and not is_done:
                if (unit := next(todo, None)) is None:
                    is_done = True
                else:
                    pending.add(executor.submit(unit))
            finished, pending = wait(pending, return_when=FIRST_COMPLETED) if pending else (set(), pending)
            for future in finished:
                yield future.result()
    finally:
        for future in pending:
            future.cancel()


# --- results -------------------------------------------------------------------------------------------------


class _Gathered:
    """What is judged so far."""

    def __init__(self, plan: Plan, runs: int, keep_cells: bool) -> None:
        self.plan, self.runs, self.keep_cells = plan, runs, keep_cells
        self._sums: tuple[Totals, dict[int, int]] = (no_totals(len(plan)), {})
        """One thing, so that an interrupt finds either both or neither."""
        self._cells: dict[str, np.ndarray[Any, Any]] = {}

    def take(self, judged: Judged) -> None:
        """Add a unit's results, of runs that are not there yet."""
        for field in fields(Cells):
            cells = getattr(judged.cells, field.name, None)
            if cells is not None and self.keep_cells:
                if field.name not in self._cells:
                    self._cells[field.name] = np.empty((self.runs, len(self.plan)), cells.dtype)
                self._cells[field.name][list(judged.numbers)] = cells.T
        totals, refused = self._sums
        refused = refused | dict(zip(judged.numbers, judged.refused.tolist(), strict=True))
        self._sums = summed(totals, judged.totals), refused

    @property
    def totals(self) -> Totals:
        """Of the runs done."""
        return self._sums[0]

    @property
    def refused(self) -> dict[int, int]:
        """Policies refused, by run: the runs done."""
        return self._sums[1]

    def _array(self, name: str, kind: Any, numbers: Sequence[int], is_there: bool) -> Any:
        if not is_there:
            return None
        cells = self._cells.get(name)
        if cells is None:
            return np.empty((0, len(self.plan)), kind)
        return cells if len(numbers) == self.runs else cells[list(numbers)]

    def sweep(self, task: _Task, text: str) -> Sweep:
        """The whole."""
        plan, numbers = self.plan, sorted(self.refused)
        kind, has_cuts = plan.kind, plan.cuts
        signs = {fact.sign for number in numbers if (fact := task.facts[number]).rows and fact.sign}
        texts = list(plan.grid.texts())
        policies: list[SweptPolicy] = []
        members = np.zeros(len(texts), dtype=np.int32)
        for choice, call, equals in zip(plan.choices.tolist(), plan.numbers, plan.equivalents, strict=True):
            members[list(equals)] = len(policies)
            equivalent = tuple(texts[number] for number in equals)
            arguments = plan.grid.values(choice)
            policies.append(SweptPolicy(call=texts[call], equivalent=equivalent, arguments=arguments))
        return Sweep(
            profile=plan.profile,
            runs=tuple(task.swept_run(number, self.refused[number]) for number in numbers),
            policies=tuple(policies),
            axes={axis.name: axis.values for axis in plan.grid.axes},
            members=members,
            kind=kind,
            keep=plan.keep,
            metric=plan.judged.monitor,
            direction=None if len(signs) != 1 else "min" if signs == {1.0} else "max",
            stops=self._array("stops", np.int32, numbers, True),
            saved=self._array("saved", np.int32, numbers, True),
            regret=self._array("regret", np.float64, numbers, kind != "cut"),
            reductions=self._array("reductions", np.int32, numbers, has_cuts),
            lr_final=self._array("lr_final", np.float64, numbers, has_cuts),
            saves=self._array("saves", np.int32, numbers, kind == "save"),
            exact=self._array("exact", np.bool_, numbers, has_cuts and kind == "stop"),
            totals=self.totals,
            tolerance=task.tolerance,
            done=len(numbers),
            total=self.runs,
            scalar=task.reasons(),
            warnings=plan.grid.notes,
        )


_OUTCOMES = ("fired", "not within", "no observation", "refused")


class _Sink:
    """One Parquet file a block, written aside and renamed: every file there is whole."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        import polars

        self.polars, self.folder, self.count = polars, folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("part-*.parquet")):
            raise BadCall(f"{folder}: it has the parts of another sweep. Name an empty folder")
        texts = list(plan.grid.texts())
        calls = [texts[number] for number in plan.numbers]
        self._write(
            "policies", polars.DataFrame({"policy": np.arange(len(calls), dtype=np.int32), "call": calls})
        )

    def write(self, judged: Judged) -> None:
        """One block: a row a (run, policy)."""
        assert judged.cells is not None
        pl, (policies, runs) = self.polars, judged.cells.stops.shape
        columns: dict[str, Any] = {
            "run": np.repeat(np.array(judged.numbers, np.int32), policies),
            "policy": np.tile(np.arange(policies, dtype=np.int32), runs),
        }
        for field in fields(Cells):
            if (cells := getattr(judged.cells, field.name)) is not None:
                columns[field.name] = cells.T.reshape(-1)
        stops = columns.pop("stops")
        names = dict(enumerate(_OUTCOMES))
        outcome = pl.Series(
            "outcome", np.minimum(stops, 0) * -1
        )  # as NOT_WITHIN, NO_OBSERVATION and REFUSED are
        outcome = outcome.replace_strict(names, return_dtype=pl.Enum(_OUTCOMES))
        stop = pl.Series("stop", stops).set(pl.Series(stops < 0), None)
        frame = pl.DataFrame(columns).insert_column(2, outcome).insert_column(3, stop)
        self._write(f"part-{self.count:05}", frame)
        self.count += 1

    def write_runs(self, sources: Sequence[SweepSource], gathered: _Gathered) -> None:
        """Which run is which, at the end: those done."""
        numbers = sorted(gathered.refused)
        self._write(
            "runs",
            self.polars.DataFrame(
                {
                    "run": np.array(numbers, np.int32),
                    "log": [sources[number].log for number in numbers],
                    "attempt": [sources[number].attempt for number in numbers],
                }
            ),
        )

    def _write(self, name: str, frame: Any) -> None:
        path = self.folder / f"{name}.parquet"
        aside = path.with_suffix(".tmp")
        frame.write_parquet(aside)
        aside.replace(path)
