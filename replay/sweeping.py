"""Which policy would have served best: every policy of a grid over many recorded runs, in blocks.

The plan (`plan`) says what is proven independent; its groups go through `kernels`, the rest through the scalar
engine. A work unit is a block of runs of similar length, as arrays, so that any `concurrent.futures` executor
can take it; results do not depend on the number of workers or on the order in which they come. Decisions are
those of `replay.engine`; tests/test_sweeping.py says so, against the real callbacks too.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cbmon.profiles import Profile
from cbmon.replay.blocks import NO_OBSERVATION, NOT_WITHIN, REFUSED, Cells, Judged, Totals, no_totals, summed
from cbmon.replay.grid import parse_grid
from cbmon.replay.parts import Sink
from cbmon.replay.plan import Keep, Plan, make_plan
from cbmon.replay.swept import FLAGS, Sweep, SweepSource, SweptPolicy, SweptRun, sources_of
from cbmon.replay.work import Task

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
    task = Task(plan, sources, learning_rate, tolerance)
    gathered = _Gathered(plan, len(sources), keep_cells)
    with ExitStack() as stack:
        sink = None if parts is None else Sink(parts, plan)
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
            sink.write_runs(sources, gathered.refused)
    return gathered.sweep(task, text)


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

    def sweep(self, task: Task, text: str) -> Sweep:
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
            warnings=(*plan.grid.notes, *task.absences(self.refused)),
        )
