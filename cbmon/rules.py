"""Alerts and status: what a run's state means for the person who waits for it.

Pure functions of the folded `Run` (and of the time its last `Tick` brought). Every threshold is a constant with
its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain, compress, count
from operator import ne

from cbmon.events import NonFinite
from cbmon.run import Attempt, Run
from cbmon.series import Column, is_loss
from cbmon.units import display_epoch, printable, short_lr

QUIET_RECORD_S = 180.0
"""Monitor writes a heartbeat at least every 60 s: after three missed ones something is wrong."""
QUIET_LOG_S = 600.0
"""Most CSV logs have no times, so their own pace is not known; few epochs take longer than ten minutes."""
RATE_STEPS_SHOWN = 1e-6
"""Relative change of a learning rate below which it is float32 rounding, not a change."""
SCHEDULE_CHANGES = 3
"""Up to three changes are told one by one even in a run of a few epochs."""
DIVERGED_FACTOR = 1e4
"""A loss this many times its first value has diverged. Among 65 published logs the largest ratio was 958 (an
adversarial loss on its way to NaN) and 68 in runs that lived."""


class Status(Enum):
    """What is known of a run; the value is its name in JSON."""

    RUNNING = "running"
    GROWING = "growing"
    QUIET = "quiet"
    FINISHED = "finished"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CRASHED = "crashed"
    EMPTY = "empty"


class Severity(Enum):
    """How much an alert matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something to tell, at an epoch of an attempt."""

    attempt: int
    """1-based."""
    epoch: int | None
    """0-based; None where it concerns no epoch."""
    severity: Severity
    kind: str
    message: str


def status(run: Run) -> Status:
    """What the run is doing, as far as its record and the last look at it can tell."""
    attempt = run.current
    if attempt.ended:
        ways = {"stopped": Status.STOPPED, "interrupted": Status.INTERRUPTED, "failed": Status.FAILED}
        return ways.get(attempt.ended.how, Status.FINISHED)
    seen = run.seen
    if attempt.started:
        if seen and seen.process_gone:
            return Status.CRASHED
        return Status.QUIET if _is_silent(last_sign(run), run, QUIET_RECORD_S) else Status.RUNNING
    if run.is_empty:
        return Status.EMPTY
    return Status.QUIET if _is_silent(last_sign(run), run, QUIET_LOG_S) else Status.GROWING


def last_sign(run: Run) -> float | None:
    """When the run last gave a sign of life, Unix seconds: its latest event, else the file's last change.

    A row log has no heartbeat and may have rows without a time: of the two the later one counts.
    """
    written = run.seen.written if run.seen else None
    if run.heard is None:
        return written
    return run.heard if written is None or run.current.started else max(run.heard, written)


def alerts(run: Run) -> list[Alert]:
    """All alerts, oldest first."""
    found = [
        alert for number, attempt in enumerate(run.attempts, 1) for alert in _attempt_alerts(number, attempt)
    ]
    last = len(run.attempts)
    attempt = run.current
    epoch = attempt.epochs[-1] if attempt.epochs else None
    at = "" if epoch is None else f" after epoch {display_epoch(epoch)}"

    def end(severity: Severity, kind: str, message: str) -> None:
        found.append(Alert(attempt=last, epoch=epoch, severity=severity, kind=kind, message=message))

    match status(run):
        case Status.CRASHED:
            end(Severity.ERROR, "crashed", f"crashed{at}: the training process is gone and wrote no end")
        case Status.FAILED:
            error = attempt.ended.error if attempt.ended else ""
            end(Severity.ERROR, "failed", f"failed{at}: {printable(error) or 'no reason recorded'}")
        case Status.QUIET if attempt.started:
            end(Severity.WARNING, "quiet", f"no word from the training process{at}")
        case Status.STOPPED:
            by = " and ".join(map(printable, attempt.ended.by)) if attempt.ended else ""
            end(Severity.INFO, "stopped", f"stopped by {by or 'its own code'}{at}")
        case _:
            pass
    return found


def _is_silent(sign: float | None, run: Run, limit_s: float) -> bool:
    """Whether the last sign of life is older than the limit, at the time of the source's last look."""
    return bool(
        sign is not None and run.seen and run.seen.time is not None and run.seen.time - sign > limit_s
    )


def _attempt_alerts(number: int, attempt: Attempt) -> Iterator[Alert]:
    """Alerts that the attempt's own numbers give, by epoch."""
    found: list[Alert] = []

    def add(row: int, severity: Severity, kind: str, message: str) -> None:
        epoch = attempt.epochs[row]
        text = f"{message} at epoch {display_epoch(epoch)}"
        found.append(Alert(attempt=number, epoch=epoch, severity=severity, kind=kind, message=text))

    for name, column in attempt.metrics.items():
        shown = printable(name)
        if (row := column.first_non_finite) is not None:
            word = "NaN" if math.isnan(column.values[row]) else "infinite"
            add(row, Severity.ERROR if is_loss(name) else Severity.WARNING, "nan", f"{word} {shown}")
        elif is_loss(name) and (row := _diverged(column)) is not None:
            add(row, Severity.ERROR, "diverged", f"{shown} diverged to {column.values[row]:.3g}")
    for note in attempt.notes:
        if isinstance(note, NonFinite):
            word = f"NaN or infinite {printable(note.metric)} within epoch {display_epoch(note.epoch)}"
            severity = Severity.ERROR if is_loss(note.metric) else Severity.WARNING
            found.append(Alert(attempt=number, epoch=note.epoch, severity=severity, kind="nan", message=word))
    changes = rate_changes(attempt)
    if is_schedule(attempt, changes):
        row, old, new = changes[0]
        rates = f"{short_lr(old)} → {short_lr(new)}"
        add(row, Severity.INFO, "learning-rate", f"learning rate on a schedule, first {rates}")
    else:
        for row, old, new in changes:
            add(row, Severity.INFO, "learning-rate", f"learning rate {short_lr(old)} → {short_lr(new)}")
    return iter(sorted(found, key=lambda alert: -1 if alert.epoch is None else alert.epoch))


def rate_changes(attempt: Attempt) -> list[tuple[int, float, float]]:
    """Where the recorded learning rate became another one: (row, old, new)."""
    column = attempt.learning_rate
    if column is None:
        return []
    changes: list[tuple[int, float, float]] = []
    old: float | None = None
    differing = compress(count(1), map(ne, column.values[1:], column.values))  # most of a million rows do not
    for row in chain([0], differing):
        new = column[row]
        if new is None:
            continue
        is_nan_still = old is not None and math.isnan(old) and math.isnan(new)
        if old is not None and not is_nan_still and not math.isclose(old, new, rel_tol=RATE_STEPS_SHOWN):
            changes.append((row, old, new))
        old = new
    return changes


def is_schedule(attempt: Attempt, changes: Sequence[object]) -> bool:
    """Whether the learning rate changes so often that single changes are no news."""
    return len(changes) > SCHEDULE_CHANGES and len(changes) > len(attempt.epochs) / 2


def _diverged(column: Column) -> int | None:
    """The first row of a loss beyond all its scale, if the loss has not come back since."""
    first, last = (
        next((abs(value) for value in values if value and not math.isnan(value)), 0.0)
        for values in (column.values, reversed(column.values))
    )
    limit = DIVERGED_FACTOR * first
    if last <= limit:
        return None
    return next(row for row, value in enumerate(column.values) if abs(value) > limit)
