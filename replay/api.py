"""Replay and sweep from Python: `from cbmon.replay import replay, sweep`.

The same engine as the commands. Logs are paths, a `History.history` dict or a polars frame; callbacks are texts or
Keras' own instances; answers are the frozen dataclasses that the commands print, and polars frames of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cbmon.errors import BadCall, NoRunsFound
from cbmon.formats.history import decode_history
from cbmon.profiles import Profile, find_profile
from cbmon.replay import engine
from cbmon.replay.calls import REPLAYED, Call, parse_calls
from cbmon.replay.observers import LambdaCallback
from cbmon.replay.results import Replay
from cbmon.run import Attempt, Run, fold
from cbmon.sources import load

if TYPE_CHECKING:
    import polars

    from cbmon.replay.ranking import Ranking

Logs: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | polars.DataFrame"
"""A file, folder or glob; `History.history`; a frame with a column `epoch` (0-based) and one a metric."""


def replay(
    logs: Logs | Sequence[Logs],
    callbacks: object,
    *,
    keras: str | None = None,
    learning_rate: float | None = None,
    steps_per_epoch: int | None = None,
    attempt: int | None = None,
) -> list[Replay]:
    """What Keras callbacks would have decided on recorded logs, epoch by epoch.

    Args:
        logs: One or several.
        callbacks: CALL as text, `"EarlyStopping(patience=5)"`, an instance of `keras.callbacks`, or a list of
            either, in list order. An instance gives its arguments; it is not run and not changed.
        keras: Which version decides, "3.15" ... "3.0", "2", "2.15", "2.12"; None = the installed one.
        learning_rate: The first one, for logs that have none.
        steps_per_epoch: Batches of an epoch, for what counts batches.
        attempt: 1-based; None = every attempt of each log.

    Returns:
        One result for each log and attempt, in that order. What Keras refuses is its `error`, not an exception.

    Raises:
        BadCall: A text or an instance that is no callback of these.
        NoRunsFound: No log with an epoch.
    """
    profile, _ = find_profile(keras)
    calls = calls_of(callbacks, profile)
    return [
        engine.replay(
            each, calls, profile, log=name, attempt=number,
            learning_rate=learning_rate, steps_per_epoch=steps_per_epoch,
        )
        for name, number, each in _attempts(logs, attempt)
    ]  # fmt: skip


def sweep(
    logs: Logs | Sequence[Logs],
    callbacks: str,
    *,
    keras: str | None = None,
    tolerance: float = 0.01,
    allowed: int = 0,
    learning_rate: float | None = None,
    attempt: int | None = None,
    executor: Executor | None = None,
    workers: int = 1,
    parts: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ranking:
    """Judge every policy of a grid on every log.

    Args:
        logs: One or several.
        callbacks: CALL with grids: `"EarlyStopping(patience=range(1, 31), min_delta=grid(0, 1e-4))"`.
        keras: As for `replay`.
        tolerance: How much worse than its best a run may end, as a share of |best|.
        allowed: Runs that the recommended policy may harm.
        learning_rate: The first one, for logs that have none.
        attempt: As for `replay`.
        executor: Anything with the `submit` of `concurrent.futures`, such as Dask's `client.get_executor()`;
            it gets arrays and gives arrays. None = this process, or `workers` processes of its own.
        workers: Processes, where no executor is given.
        parts: A folder for one Parquet file a block of runs: every cell.
        progress: Called with (attempts done, attempts asked).

    Returns:
        The judged sweep: `ranking.sweep` has the arrays, [run, policy]; `policies_frame` a table.

    Raises:
        BadCall: The text is no grid.
        KerasRefuses: Keras' constructor would.
        NoRunsFound: No log with an epoch.
    """
    from cbmon.replay.advice import Tolerance
    from cbmon.replay.ranking import rank
    from cbmon.replay.sweeping import sources_of
    from cbmon.replay.sweeping import sweep as judge

    profile, _ = find_profile(keras)
    sources = [
        source
        for name, run in _runs(logs)
        for source in sources_of(name, os.path.dirname(name), run.attempts)
        if attempt in (None, source.attempt)
    ]
    if not sources:
        raise NoRunsFound(_no_epochs(attempt))
    found = judge(
        sources, callbacks, profile, tolerance=tolerance, learning_rate=learning_rate, executor=executor,
        workers=workers, parts=None if parts is None else Path(parts), progress=progress,
    )  # fmt: skip
    return rank(found, sources, tolerance=Tolerance(amount=tolerance), allowed=allowed)


# --- frames ----------------------------------------------------------------------------------------------


def epochs_frame(replays: Iterable[Replay]) -> polars.DataFrame:
    """One row for each replayed epoch of each result.

    Columns: log, attempt, variant, epoch (0-based), learning_rate (in effect in it, null if unknown), cut (factor
    after it, null without), saves (number), stops (bool), exact (bool: measured at this learning rate, null if
    unknown). Results with an error have no rows.
    """
    import polars as pl

    rows: list[dict[str, Any]] = []
    for each in replays:
        made = each.decisions
        if made is None:
            continue
        cuts: dict[int, float] = {}
        for epoch, factor in made.cuts:  # of several in one epoch the product
            cuts[epoch] = cuts.get(epoch, 1.0) * factor
        saves = [epoch for epoch, _ in made.checkpoints]
        for row, epoch in enumerate(each.recording.epochs[: made.epochs_replayed]):
            is_before = made.changed_at is None or epoch < made.changed_at
            rows.append(
                {
                    "log": each.log, "attempt": each.attempt, "variant": each.variant, "epoch": epoch,
                    "learning_rate": made.learning_rate[row] if made.learning_rate else None,
                    "cut": cuts.get(epoch), "saves": saves.count(epoch),
                    "stops": made.stopped is not None and made.stopped.epoch == epoch,
                    "exact": True if is_before else (None if made.diverges_at is None else False),
                }
            )  # fmt: skip
    types = {
        "log": pl.String, "attempt": pl.Int64, "variant": pl.String, "epoch": pl.Int64,
        "learning_rate": pl.Float64, "cut": pl.Float64, "saves": pl.Int64, "stops": pl.Boolean, "exact": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=types)


def policies_frame(ranking: Ranking) -> polars.DataFrame:
    """One row a policy.

    Columns: call, each axis of the grid, equivalent (number of calls merged), fired (runs), epochs_saved,
    seconds_saved (null where a log does not tell), regret_median and regret_worst (metric's unit, null for
    ReduceLROnPlateau), harmful (runs), recommended.
    """
    import polars as pl

    found = ranking.sweep
    advice = ranking.recommended
    regrets = [ranking.regret(index) for index in range(len(found.policies))]
    columns: dict[str, list[Any]] = {"call": [policy.call for policy in found.policies]}
    columns |= {name: [policy.arguments[name] for policy in found.policies] for name in found.axes}
    indices = range(len(found.policies))
    columns |= {
        "equivalent": [len(policy.equivalent) for policy in found.policies],
        "fired": [ranking.fired(index) for index in indices],
        "epochs_saved": [ranking.saved(index) for index in indices],
        "seconds_saved": [ranking.saved_seconds(index) for index in indices],
        "regret_median": [each and each[0] for each in regrets],
        "regret_worst": [each and each[1] for each in regrets],
        "harmful": [len(ranking.harmful(index)) for index in indices],
        "recommended": [advice is not None and advice.policy == index for index in indices],
    }
    return pl.DataFrame(columns, strict=False)


# --- what is taken ---------------------------------------------------------------------------------------


def calls_of(callbacks: object, profile: Profile) -> list[Call]:
    """Texts and instances as calls.

    Raises:
        BadCall: Something else.
    """
    several = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    calls: list[Call] = []
    for each in several:
        calls += parse_calls(each, profile) if isinstance(each, str) else [_call_of(each)]
    if not calls:
        raise BadCall("no callbacks: give a text such as 'EarlyStopping(patience=5)' or an instance")
    return calls


def _call_of(instance: object) -> Call:
    """The arguments that an instance of Keras' was made with, read off its attributes."""
    name = type(instance).__name__
    policy = REPLAYED.get(name)
    if policy is None or "keras" not in type(instance).__module__.split(".")[0]:
        raise BadCall(f"{name}: replayed are {', '.join(REPLAYED)} of keras.callbacks, or a text")
    if policy is LambdaCallback:
        raise BadCall(
            "LambdaCallback: its hooks are code; `cbmon replay --engine keras` runs such code by name"
        )
    arguments: dict[str, Any] = {}
    for each in fields(policy):
        value = getattr(instance, _KEPT_AS.get(each.name, each.name), None)
        if each.name == "mode":
            value = _mode(instance)
        elif each.name == "min_delta":
            value = abs(value) if value is not None else None  # Keras keeps it with the sign of the direction
        elif each.name == "initial_value_threshold":
            best = getattr(instance, "best", None)
            value = None if best is None or abs(best) == float("inf") else float(best)
        if value is not None or each.default is None:
            arguments[each.name] = value
    shown = ", ".join(
        f"{each.name}={arguments[each.name]!r}"
        for each in fields(policy)
        if each.name in arguments and arguments[each.name] != each.default
    )
    return Call(f"{name}({shown})", policy, arguments)


_KEPT_AS = {"separator": "sep"}
"""Arguments that Keras keeps under another name."""


def _mode(instance: object) -> str:
    """The direction: told, or, in Keras before 3.11, hidden in the comparison."""
    operator = getattr(getattr(instance, "monitor_op", None), "__name__", "")
    found = {"less": "min", "greater": "max"}.get(operator)
    return str(getattr(instance, "mode", None) or found or "auto")


def _runs(logs: Logs | Sequence[Logs]) -> list[tuple[str, Run]]:
    """Every log by name, folded.

    Raises:
        NoRunsFound: A path without a log.
        BadCall: Something that is no log.
    """
    several: Sequence[Any] = logs if isinstance(logs, list | tuple) else [logs]
    found: list[tuple[str, Run]] = []
    for number, each in enumerate(several, 1):
        if isinstance(each, str | os.PathLike):
            runs, skipped = load([os.fspath(each)])
            if not runs:
                reason = f": {skipped[0].reason}" if skipped else ""
                raise NoRunsFound(f"{os.fspath(each)}: no training log there{reason}")
            found += [(str(log.path), run) for log, run in runs]
        else:
            columns = dict(each) if isinstance(each, Mapping) else _lists(each)
            run = Run()
            for event in decode_history({name: list(column) for name, column in columns.items()}):
                fold(run, event)
            found.append((f"log {number}", run))
    return found


def _attempts(logs: Logs | Sequence[Logs], attempt: int | None) -> list[tuple[str, int, Attempt]]:
    """Every log's attempts that have epochs: its name, 1-based number, and the attempt."""
    chosen = [
        (name, number, each)
        for name, run in _runs(logs)
        for number, each in enumerate(run.attempts, 1)
        if each.epochs and attempt in (None, number)
    ]
    if not chosen:
        raise NoRunsFound(_no_epochs(attempt))
    return chosen


def _no_epochs(attempt: int | None) -> str:
    return "no epochs in these logs" + (f", attempt {attempt}" if attempt else "")


def _lists(frame: Any) -> dict[str, Any]:
    """A frame's columns, of polars or pandas."""
    to_dict = getattr(frame, "to_dict", None)
    if to_dict is None:
        raise BadCall(f"{type(frame).__name__} is no log: give a path, a History's dict or a polars frame")
    found = to_dict(as_series=False) if hasattr(frame, "lazy") else to_dict("list")
    return dict(found)
