"""How long a run's epochs take, and what follows from it: when it is done, when it would stop, when silence is odd.

Pure functions of the folded `Run` and of the time its last `Tick` brought. The end of each epoch tells most: the
difference of two is an epoch with all that its callbacks add. Where a clock jumped, the recorded duration stands;
where a log tells no time at all, the moments at which it was seen to grow do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

import msgspec

from cbmon.events import CallbackState, Progress
from cbmon.run import Attempt, Run
from cbmon.series import Column

PACE_EPOCHS = 10
"""Epochs whose median duration is the pace: long enough to ride out one slow epoch, short enough to follow. Even,
so that validation in every other epoch gives its mean and does not flip with each epoch."""
SLOWER_EPOCHS = 6
"""Fewest epochs of which an early and a late pace are compared: of six, two odd ones do not move the median."""
CLOCK_SLACK = 0.9
"""An epoch's end cannot be nearer to the one before than this part of what it took: the clock was put back."""
ABSURD_FACTOR = 20.0
"""Nor so many times its duration away: a laptop that slept, a clock put forward. Callbacks that evaluate at length
after each epoch stay well below."""

QUIET_RECORD_S = 180.0
"""Monitor writes a heartbeat at least every 60 s: after three missed ones something is wrong."""
QUIET_LOG_S = 600.0
"""Where a log's own pace is not known; few epochs take longer than ten minutes."""
QUIET_LEAST_S = 120.0
"""Silence shorter than this is never told: a checkpoint on a slow disk, a suspended laptop, a busy file server."""
QUIET_FACTOR = 4.0
"""Silence of four times the slowest of the latest epochs is not one more slow epoch: validation every few epochs
makes them two to three times as long."""

STALL_FACTOR = 4.0
"""A mean step of four times the present one, an epoch of four times the other: it stood still in between, which is
no part of the pace."""

IDLE_LEAST_S = 3.0
"""A look into an epoch that is older says so, and forecasts nothing: the live wire tells of steps a few times a
second, and a pause of the collector or of a busy disk is over by then."""
IDLE_STEPS = 20.0
"""Unless steps are slow: a batch of long sequences, or of a shape that has to be compiled, takes ten times one."""
IDLE_FILE_S = 60.0
"""A file tells of a step every 10 s, and a network file system may hold a change back for as long as this."""
IDLE_EDGE_S = 60.0
"""The first two steps of an epoch or a validation fill buffers and start workers, and its pace is not known yet;
after the last one callbacks save and evaluate."""

STUCK_LEAST_S = 30.0
"""Nobody is called for less."""
STUCK_EPOCHS = 10.0
"""Ten of its slowest latest epochs without a step, in the middle of one. Those hold all that it does each epoch."""
STUCK_MOST_S = 600.0
"""Ten minutes without a step are no pause however long the epochs: the largest models are saved in less ..."""
STUCK_STEPS = 100.0
"""... unless steps take minutes themselves."""


class Stop(msgspec.Struct, frozen=True):
    """Where a callback with patience would stop training if nothing improves."""

    name: str
    """Its class, as recorded."""
    epoch: int
    """0-based: the last one trained."""
    at: float | None
    """When that epoch ends, Unix seconds, None where the pace is unknown."""


def epoch_seconds(attempt: Attempt) -> float | None:
    """What an epoch takes at present, None where that is unknown."""
    rows = len(attempt.epochs)
    return _median(_durations(attempt, rows - PACE_EPOCHS, rows)) or _median(_steps(attempt))


def slowest_seconds(attempt: Attempt) -> float | None:
    """The longest of the latest epochs, without absurd ones; None where durations are unknown."""
    rows = len(attempt.epochs)
    took = _durations(attempt, rows - PACE_EPOCHS, rows) or _steps(attempt)
    typical = _median(took)
    return None if typical is None else max(each for each in took if each <= ABSURD_FACTOR * typical)


def early_and_late(attempt: Attempt) -> tuple[float, float] | None:
    """What an epoch took at first (without the very first, which compiles) and takes now; None if too few tell."""
    rows = len(attempt.epochs)
    count = min(PACE_EPOCHS, (rows - 1) // 4 * 2)
    if count < SLOWER_EPOCHS:
        return None
    known = attempt.memo.get("early")
    if known is None or known[0] != count:
        known = attempt.memo["early"] = count, _durations(attempt, 1, 1 + count)
    early: list[float] = known[1]
    late = _durations(attempt, rows - count, rows) if len(early) >= SLOWER_EPOCHS else []
    return (median(early), median(late)) if len(late) >= SLOWER_EPOCHS else None


def idle_since(run: Run) -> float | None:
    """When the running epoch's last step was, if that is too long ago for one; None while it goes on as it did.

    None too where nothing is known of the running epoch, and before the first step of a fit, which compiles.
    """
    progress, now = run.progress, run.seen.time if run.seen else None
    if progress is None or progress.time is None or now is None or now - progress.time <= IDLE_LEAST_S:
        return None
    if not progress.step and _is_new(run.current, progress):
        return None
    least = IDLE_FILE_S if progress.begun is None else IDLE_LEAST_S
    if progress.step < 2 or is_last_step(progress):
        least = max(least, IDLE_EDGE_S)
    limit = max(least, IDLE_STEPS * (_step_seconds(run.current, progress) or 0.0))
    return progress.time if now - progress.time > limit else None


def is_last_step(progress: Progress) -> bool:
    """Whether all steps of this part of the epoch are done: what comes now is no step."""
    return progress.steps is not None and progress.step >= progress.steps


def _is_new(attempt: Attempt, progress: Progress) -> bool:
    """Whether this fit does so for the first time: XLA may take any time over its first step, and its last."""
    if progress.phase == "validation":
        return "validation" not in attempt.seconds
    return not attempt.epochs


def _step_seconds(attempt: Attempt, progress: Progress) -> float | None:
    """What a step takes, by what is known of the running epoch, else of those before."""
    column = attempt.seconds.get("step")
    known = progress.step_seconds or (column.last() if column else None)
    return known if known is not None and 0.0 < known < math.inf else None


def quiet_after(attempt: Attempt) -> float:
    """Seconds of silence after which a run is quiet: by its heartbeat, else by its own pace, else by the clock."""
    if attempt.started:
        return QUIET_RECORD_S
    slowest = slowest_seconds(attempt)
    return QUIET_LOG_S if slowest is None else max(QUIET_LEAST_S, QUIET_FACTOR * slowest)


def stuck_after(run: Run) -> float | None:
    """Seconds without a step or an epoch after which a run that still has a heartbeat is stuck; None if unknown.

    In the middle of an epoch only the loop of steps has the word, and a run is as soon stuck as it is fast. Between
    epochs, and after the last step of one, callbacks may save or evaluate for minutes.
    """
    attempt, progress = run.current, run.progress
    if not attempt.started:
        return None
    slowest = slowest_seconds(attempt)
    pause = None if slowest is None else max(QUIET_RECORD_S, QUIET_FACTOR * slowest)
    if progress is None or progress.begun is None:
        return pause
    most = max(STUCK_MOST_S, STUCK_STEPS * (_step_seconds(attempt, progress) or 0.0))
    if _is_new(attempt, progress):
        return None if pause is None and not progress.step else max(most, pause or 0.0)
    if progress.steps is None or not progress.step or is_last_step(progress) or slowest is None:
        return pause
    return max(STUCK_LEAST_S, min(most, STUCK_EPOCHS * slowest))


def last_work(run: Run) -> float | None:
    """When training last told of a step or an epoch, Unix seconds: a heartbeat says only that the process lives."""
    signs = [run.current.times.last(), run.progress.time if run.progress else None]
    return max((sign for sign in signs if sign is not None and math.isfinite(sign)), default=None)


def done_at(run: Run, planned: int | None) -> float | None:
    """When so many epochs will be done, Unix seconds; None where that is unknown or past."""
    return None if planned is None else _ends_at(run, planned - 1)


def early_stop(run: Run) -> Stop | None:
    """Which EarlyStopping would be the first to stop the fit if nothing improves, where and when.

    None where none is known to count, or where the plan ends before.
    """
    seen = run.current.callbacks
    stops = [stop for state in seen.states if (stop := stop_of(run, state, seen.epoch))] if seen else []
    return min(stops, key=lambda stop: stop.epoch, default=None)


def stop_of(run: Run, state: CallbackState, seen: int) -> Stop | None:
    """The same of one callback.

    Args:
        run: what it watches.
        state: what it has counted: an EarlyStopping, or a class of the user's named like one.
        seen: the 0-based epoch after which it had counted that.
    """
    attempt = run.current
    if attempt.ended or "EarlyStopping" not in state.name:
        return None
    if (
        state.wait is None or state.patience is None or state.best is None
    ):  # no best: it has not begun to count
        return None
    if not math.isfinite(state.patience):
        return None
    epoch = seen + max(1, math.ceil(state.patience) - state.wait)
    plan = attempt.started.epochs if attempt.started else None
    if (plan and epoch >= plan) or (attempt.epochs and epoch <= attempt.epochs[-1]):
        return None
    return Stop(state.name, epoch, _ends_at(run, epoch))


def _ends_at(run: Run, epoch: int) -> float | None:
    """When a 0-based epoch will have ended; the last one's end if that is later."""
    attempt = run.current
    last = attempt.epochs[-1] if attempt.epochs else -1
    if epoch > last and idle_since(run) is not None:
        return None
    ended = _end(attempt)
    pace = epoch_seconds(attempt)
    running = run.progress if run.progress and run.progress.epoch > last else None
    first = running.epoch if running else last + 1
    ends = _running_ends(attempt, running) if running else None
    if pace is None and running and running.phase == "train" and running.steps and running.step_seconds:
        pace = running.steps * running.step_seconds
    if ends is None and ended is not None and pace is not None:
        ends = ended + pace
    if epoch <= last:
        found = ended if pace is not None else None
    elif ends is None or pace is None:
        return None
    else:
        found = ends + pace * (epoch - first)
    now = run.seen.time if run.seen else None
    if found is None or not math.isfinite(found) or (now is not None and now > found):
        return None
    late = now - ends if epoch > last and ends is not None and now is not None else 0.0
    if late > 0.0 and late > (slowest_seconds(attempt) or pace or 0.0):
        return None  # the running epoch is later than any of the latest: nobody knows, and nothing slides
    return found


def _running_ends(attempt: Attempt, progress: Progress) -> float | None:
    """When the running epoch will end, by what it told last; None if it did not tell enough."""
    if progress.time is None or not progress.steps or not progress.step_seconds:
        return None
    each, speed = progress.step_seconds, progress.steps_per_second or 0.0
    column = attempt.seconds.get("step")
    before = (column.last() if column else None) or 0.0
    if 0.0 < speed < math.inf and each * speed > STALL_FACTOR:
        each = 1.0 / speed
    elif not speed and before and each > STALL_FACTOR * before:
        return None
    left = max(0, progress.steps - progress.step) * each
    if progress.phase == "train" and (validation := attempt.seconds.get("validation")):
        rows = len(attempt.epochs)
        left += _median(list(_positive(validation, max(0, rows - PACE_EPOCHS), rows))) or 0.0
    return progress.time + left


def _end(attempt: Attempt) -> float | None:
    """When the last epoch ended."""
    end = attempt.times.last()
    if end is None and attempt.arrivals:
        end = attempt.arrivals[-1][1]
    return end


def _durations(attempt: Attempt, start: int, stop: int) -> list[float]:
    """What the epochs of some rows took, each with what came before it began; unknown ones are left out."""
    found = []
    epochs, times, seconds = attempt.epochs, attempt.times, attempt.seconds.get("epoch")
    for row in range(max(0, start), stop):
        took = seconds[row] if seconds is not None else None
        if took is not None and not row:
            took -= _compile_seconds(attempt)
        if took is not None and not 0.0 < took < math.inf:
            took = None
        end, before = (times[row], times[row - 1]) if row and len(times) else (None, None)
        if end is not None and before is not None:
            apart = (end - before) / (epochs[row] - epochs[row - 1])
            if took is None:
                took = apart if 0.0 < apart < math.inf else None
            elif CLOCK_SLACK * took <= apart <= ABSURD_FACTOR * took:
                took = apart
        if took is not None:
            found.append(took)
    return found


def _compile_seconds(attempt: Attempt) -> float:
    """By how much the very first step was longer than the others."""
    first, step = (attempt.seconds.get(name) for name in ("first_step", "step"))
    took = first[0] if first else None
    return max(0.0, took - (step[0] or 0.0 if step else 0.0)) if took is not None else 0.0


def _steps(attempt: Attempt) -> list[float]:
    """What an epoch took between the moments at which the log was seen to grow."""
    moments = attempt.arrivals
    return [(now - then) / (rows - fewer) for (fewer, then), (rows, now) in pairwise(moments) if rows > fewer]


def _positive(column: Column, start: int, stop: int) -> Iterator[float]:
    for row in range(start, stop):
        value = column[row]
        if value is not None and 0.0 < value < math.inf:
            yield value


def _median(values: list[float]) -> float | None:
    """The median; of two values that are far apart the lower one: an epoch that stood still is no pace."""
    if not values:
        return None
    values = sorted(values)
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return low if len(values) == 2 and high > STALL_FACTOR * low > 0.0 else (low + high) / 2
