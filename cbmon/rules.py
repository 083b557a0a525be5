"""Alerts and status: what a run's state means for the person who waits for it.

Pure functions of the folded `Run` (and of the time its last `Tick` brought). Every threshold is a constant with
its reason; those of curves are in `trends`, those of durations in `pace`.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import deque
from collections.abc import Sequence
from enum import Enum
from itertools import islice

import msgspec

from cbmon.events import CheckpointSaved, ControlApplied, LearningRateChanged, NonFinite
from cbmon.pace import (
    QUIET_LEAST_S,
    STUCK_LEAST_S,
    early_and_late,
    epoch_seconds,
    last_work,
    quiet_after,
    stuck_after,
)
from cbmon.run import Attempt, Run
from cbmon.series import BLOCK, MATERIAL, Column, direction, headline, is_loss
from cbmon.trends import Divergence, flat_since, overfitting_since, target, training_twin
from cbmon.units import clock, display_epoch, duration, printable, short_lr

RATE_STEPS_SHOWN = 1e-6
"""Relative change of a learning rate below which it is float32 rounding, not a change."""
SCHEDULE_CHANGES = 3
"""Up to three changes are told one by one even in a run of a few epochs."""
SCHEDULE_MOST = 100
"""So many changes are a schedule in a run of any length: nobody reads them, and a million would fill the memory."""

SAVED_SHOWN = 1000
"""Checkpoints that are marked and told one by one, the latest ones: more than any rail has columns."""

SLOWER_FACTOR = 1.5
"""An epoch half as long again as at first: other jobs on a shared machine, and its heat, cost 10 to 30 %."""
SLOWER_LEAST_S = 1.0
"""Of shorter epochs most is bookkeeping, and nobody waits for them."""

NAME_LIMIT = 40
"""Longest name of a metric in a sentence about a trend, so that two of them and the sentence fit a line."""

CUT_SLACK = 0.999
"""Durations are recorded in microseconds: rounding is no proof."""

_PERSON = re.compile(r"^([^@\s]+@[^@\s]+):\d+$")
"""As the wire says who asks: user, host and the number of the process, which is over when anybody reads it."""
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
"""Keras makes a part of its messages bold."""
_RATE_NAME = re.compile(r"(?:^|[_ /.-])(?:lr|learning_?rate)(?:$|[_ /.-])", re.IGNORECASE)
"""Columns of other loggers that hold a learning rate: "lr/pg0"."""


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
    GONE = "gone"
    """Only while it is followed: its file was deleted or moved away."""


class Severity(Enum):
    """How much an alert matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something to tell, at an epoch of an attempt."""

    attempt: int
    """1-based."""
    epoch: int | None
    """0-based, of a trend the one since when; None where it concerns no epoch."""
    severity: Severity
    kind: str
    message: str
    subject: str = ""
    """The metric it is about, as the log names it."""
    again: int = 0
    """How many of its kind and epoch came before it."""

    @property
    def key(self) -> tuple[int, str, str, int | None]:
        """What makes it this alert: a state keeps its key while it lasts, though its figures may change."""
        kind = f"{self.kind} {self.again}" if self.again else self.kind
        return self.attempt, kind, self.subject, self.epoch


def missing_since(run: Run) -> float | None:
    """When the log was first found deleted or moved away, Unix seconds; None while it is there."""
    return run.seen.missing_since if run.seen else None


def status(run: Run) -> Status:
    """What the run is doing, as far as its record and the last look at it can tell."""
    return _told_status(run) if missing_since(run) is None else Status.GONE


def _told_status(run: Run) -> Status:
    """The same, wherever its file is by now."""
    attempt = run.current
    if attempt.ended:
        ways = {"stopped": Status.STOPPED, "interrupted": Status.INTERRUPTED, "failed": Status.FAILED}
        return ways.get(attempt.ended.how, Status.FINISHED)
    if attempt.started:
        if run.seen and run.seen.process_gone:
            return Status.CRASHED
        return Status.QUIET if _is_quiet(run) else Status.RUNNING
    if run.is_empty:
        return Status.EMPTY
    return Status.QUIET if _is_quiet(run) else Status.GROWING


def last_sign(run: Run) -> float | None:
    """When the run last gave a sign of life, Unix seconds: its latest event, else the file's last change.

    A row log has no heartbeat and may have rows without a time: of the two the later one counts.
    """
    written = run.seen.written if run.seen else None
    if run.heard is None:
        return written
    return run.heard if written is None or run.current.started else max(run.heard, written)


def headline_metric(attempt: Attempt) -> str | None:
    """The metric a run is judged by: validation loss, else loss, else any loss, else what has a direction."""
    return headline(attempt.metrics)


def alerts(run: Run) -> list[Alert]:
    """All alerts: what happened, attempt by attempt; then what is so now; last how it ended.

    Costs what is new since the last call, not what there is.
    """
    found: list[Alert] = []
    last, state = len(run.attempts), _told_status(run)
    for number, attempt in enumerate(run.attempts[:-1], 1):
        if "past" not in attempt.memo:  # nothing is added to it any more
            metrics = attempt.metrics
            attempt.memo["past"] = _events(number, attempt, metrics) + _diverging(number, attempt, metrics)
        found += attempt.memo["past"]
    attempt = run.current
    metrics = attempt.metrics
    found += _unrecorded(last, attempt, metrics)
    found += _events(last, attempt, metrics)
    diverging = _diverging(last, attempt, metrics)
    found += diverging or _trends(last, attempt, metrics)
    if (since := missing_since(run)) is None:
        found += _tempo(last, run, state)
    found += _end(last, attempt, state)
    if since is not None:
        found.append(_missing(last, run, since, state))
    return found


# --- what happened --------------------------------------------------------------------------------------------


def _events(number: int, attempt: Attempt, metrics: dict[str, Column]) -> list[Alert]:
    """Numbers that broke and changes of the learning rate, by epoch: they stay told."""
    changes, within, asked = unasked_changes(attempt), _broken_within(attempt), controls(attempt)
    broken = [(name, column) for name, column in metrics.items() if column.first_non_finite is not None]
    last = asked[-1] if asked else None
    inputs = (number, len(changes), is_schedule(attempt, changes), len(within), len(broken), len(asked), last)
    known: tuple[object, list[Alert]] | None = attempt.memo.get("events")
    if known and known[0] == inputs:
        return known[1]
    found: list[Alert] = []
    told = set()
    for name, column in broken:
        row = column.first_non_finite or 0
        epoch = attempt.epochs[row]
        told.add((name, epoch))
        word = "NaN" if math.isnan(column.values[row]) else "infinite"
        text = f"{word} {printable(name)} at epoch {display_epoch(epoch)}"
        found.append(_alert(number, epoch, _gravity(name), "nan", text, name))
    for name, note in within.items():
        if (name, note.epoch) not in told:
            text = f"NaN or infinite {printable(name)} within epoch {display_epoch(note.epoch)}"
            found.append(_alert(number, note.epoch, _gravity(name), "nan", text, name))
    if is_schedule(attempt, changes):
        told_changes, words = changes[:1], "learning rate on a schedule, first"
    else:
        told_changes, words = changes, "learning rate"
    for row, old, new in told_changes:
        epoch = attempt.epochs[row]
        text = f"{words} {short_lr(old)} → {short_lr(new)} at epoch {display_epoch(epoch)}"
        found.append(_alert(number, epoch, Severity.INFO, "learning-rate", text))
    found += _asked(number, asked)
    found.sort(key=lambda alert: alert.epoch or 0)
    attempt.memo["events"] = inputs, found
    return found


def _asked(number: int, asked: Sequence[ControlApplied]) -> list[Alert]:
    """What watchers asked for and was done, for all others; a save shows in what was saved."""
    found: list[Alert] = []
    before: dict[int | None, int] = {}
    for control in asked:
        if control.command != "save":
            again = before[control.epoch] = before.get(control.epoch, -1) + 1
            text = control_words(control, with_epoch=True)
            alert = _alert(number, control.epoch, Severity.INFO, "control", text)
            found.append(msgspec.structs.replace(alert, again=again))
    return found


def _gravity(name: str) -> Severity:
    """A loss that is no number any more ends the training; another metric may divide by zero now and then."""
    return Severity.ERROR if is_loss(name) else Severity.WARNING


def _broken_within(attempt: Attempt) -> dict[str, NonFinite]:
    """For each metric the first note that it broke within an epoch."""
    looked, found = attempt.memo.get("notes", (0, {}))
    if looked < len(attempt.notes):
        for note in islice(attempt.notes, looked, None):
            if isinstance(note, NonFinite):
                found.setdefault(note.metric, note)
        attempt.memo["notes"] = len(attempt.notes), found
    broken: dict[str, NonFinite] = found
    return broken


class _Rates:
    """The changes of a learning rate, as far as it was looked through."""

    __slots__ = ("changes", "old", "rows")

    def __init__(self) -> None:
        self.changes: list[tuple[int, float, float]] = []
        self.rows = 0
        self.old: float | None = None

    def on(self, column: Column) -> None:
        """Look at the rows that are new, until there are too many changes; most blocks are one value."""
        if len(self.changes) > SCHEDULE_MOST:
            return
        first = self.rows if self.old is not None else max(self.rows, column.present.find(1, self.rows))
        for start in range(first, len(column), BLOCK):
            block = column.values[start : start + BLOCK]
            if self.old is None or block.tobytes() != array("d", [self.old]).tobytes() * len(block):
                self._through(column, start, start + len(block))
            if len(self.changes) > SCHEDULE_MOST:
                break
        self.rows = len(column)

    def _through(self, column: Column, start: int, stop: int) -> None:
        old = self.old
        for row in range(start, stop):
            new = column[row]
            if new is None or new == old:
                continue
            is_nan_still = old is not None and math.isnan(old) and math.isnan(new)
            if old is not None and not is_nan_still and not math.isclose(old, new, rel_tol=RATE_STEPS_SHOWN):
                self.changes.append((row, old, new))
                if len(self.changes) > SCHEDULE_MOST:
                    break
            old = new
        self.old = old


def rate_changes(attempt: Attempt) -> list[tuple[int, float, float]]:
    """Where the recorded learning rate became another one: (row, old, new).

    After more than `SCHEDULE_MOST` it looks no further. The list is the attempt's own: read it.
    """
    if not attempt.rate.count:
        return []
    rates = attempt.memo.get("rates")
    if rates is None:
        rates = attempt.memo["rates"] = _Rates()
    if rates.rows < len(attempt.rate):
        rates.on(attempt.rate)
    changes: list[tuple[int, float, float]] = rates.changes
    return changes


class Saved:
    """The checkpoints of an attempt, as far as its notes were looked through."""

    __slots__ = ("count", "latest", "looked")

    def __init__(self) -> None:
        self.latest: deque[CheckpointSaved] = deque(maxlen=SAVED_SHOWN)
        self.count = 0
        self.looked = 0

    @property
    def untold(self) -> int:
        """Earlier ones that are only counted."""
        return self.count - len(self.latest)


def saved(attempt: Attempt) -> Saved:
    """How many checkpoints an attempt wrote, and the latest ones."""
    known: Saved = attempt.memo.setdefault("saved", Saved())
    for note in islice(attempt.notes, known.looked, None):
        if isinstance(note, CheckpointSaved):
            known.latest.append(note)
            known.count += 1
    known.looked = len(attempt.notes)
    return known


def controls(attempt: Attempt) -> Sequence[ControlApplied]:
    """What watchers asked for in an attempt and was done, the latest of it; looks through its notes once."""
    looked, found = attempt.memo.get("controls", (0, deque(maxlen=SAVED_SHOWN)))
    found.extend(note for note in islice(attempt.notes, looked, None) if isinstance(note, ControlApplied))
    attempt.memo["controls"] = len(attempt.notes), found
    done: Sequence[ControlApplied] = found
    return done


def unasked_changes(attempt: Attempt) -> list[tuple[int, float, float]]:
    """The recorded changes of the learning rate but those that a watcher asked for: these are told by who asked.

    What was asked for in an epoch is recorded of it, by a Monitor of before of the next one.
    """
    changes, asked = rate_changes(attempt), controls(attempt)
    wanted = {(each.epoch, each.new) for each in asked if each.command == "lr" and each.new is not None}
    if not wanted:
        return changes
    return [
        change
        for change in changes
        if not any(
            math.isclose(change[2], new, rel_tol=RATE_STEPS_SHOWN)
            for at, new in wanted
            if at is not None and at <= attempt.epochs[change[0]] <= at + 1
        )
    ]


def present_rate(run: Run) -> float | None:
    """The learning rate now, as far as it was told; None if it was not, or if there are several.

    The latest that was told: of an ended epoch, of the start of the running one, or by who changed it in between.
    """
    attempt, progress = run.current, run.progress
    if attempt.rates:
        return None
    told: list[tuple[int, bool, float]] = []
    if attempt.epochs and (last := attempt.rate.last()) is not None:
        told.append((attempt.epochs[-1], False, last))
    if progress is not None and progress.learning_rate is not None:
        told.append((progress.epoch, False, progress.learning_rate))
    looked, latest = attempt.memo.get("told rate", (0, None))
    for note in islice(attempt.notes, looked, None):
        if isinstance(note, ControlApplied | LearningRateChanged) and note.new is not None:
            found = note.epoch or 0, isinstance(note, ControlApplied), note.new
            latest = found if latest is None or found[:2] >= latest[:2] else latest
    attempt.memo["told rate"] = len(attempt.notes), latest
    told += [latest] if latest else []
    newest = max(((epoch, is_asked) for epoch, is_asked, _ in told), default=None)
    return next((rate for *when, rate in reversed(told) if tuple(when) == newest), None)


def control_words(control: ControlApplied, *, with_epoch: bool = False) -> str:
    """What a watcher asked for and was done: `learning rate .001 → 5e-4, asked for by ada@gpu1`."""
    by = f", asked for by {who(control.by)}" if control.by else ""
    epoch = None if control.epoch is None or not with_epoch else display_epoch(control.epoch)
    at = "" if epoch is None else f" at epoch {epoch}"
    if control.command == "lr":
        change = "" if control.new is None else f" {short_lr(control.old)} → {short_lr(control.new)}"
        return f"learning rate{change or ' changed'}{at}{by}"
    words = {"stop": "stop after", "stop_now": "stop within"}
    if control.command in words:
        return f"{words[control.command]} {'this epoch' if epoch is None else f'epoch {epoch}'}{by}"
    return f"{printable(control.command)}{at}{by}"


def who(by: str) -> str:
    """Who stopped a run or asked for something: a callback, or a person without the number of the process."""
    return printable(_PERSON.sub(r"\1", by))


def stopping(run: Run) -> ControlApplied | None:
    """The stop that was asked for and has not come to be."""
    attempt = run.current
    if attempt.ended:
        return None
    reached = max([*attempt.epochs[-1:], *([run.progress.epoch] if run.progress else [])], default=-1)
    for control in reversed(controls(attempt)):
        if control.command in ("stop", "stop_now"):
            return control if control.epoch is not None and control.epoch >= reached else None
    return None


def is_cut_short(attempt: Attempt) -> bool:
    """Whether the last epoch certainly was: too short for all its steps, after a stop within it was asked for.

    From the end of its first step on it took at least what the others would have taken together.
    """
    asked = controls(attempt)
    if not (attempt.ended and attempt.epochs and asked and attempt.started and attempt.started.steps):
        return False
    if asked[-1].command != "stop_now" or asked[-1].epoch != attempt.epochs[-1]:
        return False
    took, validation, step = (
        column.last() if (column := attempt.seconds.get(name)) else None
        for name in ("epoch", "validation", "step")
    )
    if took is None or not step:
        return False
    return took - (validation or 0.0) < CUT_SLACK * (attempt.started.steps - 1) * step


def is_schedule(attempt: Attempt, changes: Sequence[object]) -> bool:
    """Whether the learning rate changes so often that single changes are no news."""
    count = len(changes)
    return count > SCHEDULE_MOST or (count > SCHEDULE_CHANGES and count > len(attempt.epochs) / 2)


# --- what is so now -------------------------------------------------------------------------------------------


def _unrecorded(number: int, attempt: Attempt, metrics: dict[str, Column]) -> list[Alert]:
    """What CSVLogger leaves out, and how to have it; Monitor's own logs need no such advice."""
    if not metrics or attempt.started or attempt.rate.count or attempt.rates or attempt.times.count:
        return []
    if any(map(_RATE_NAME.search, attempt.columns)):
        return []
    text = "no learning rate: CSVLogger logs one only after a callback that sets it"
    return [_alert(number, None, Severity.INFO, "no-learning-rate", text)]


def _diverging(number: int, attempt: Attempt, metrics: dict[str, Column]) -> list[Alert]:
    """Losses beyond all their scale; one that is NaN by now has been told."""
    found = []
    for name, column in metrics.items():
        if column.first_non_finite is not None or not is_loss(name):
            continue
        divergence = attempt.memo.get(f"diverging {name}")
        if divergence is None:
            divergence = attempt.memo[f"diverging {name}"] = Divergence(name)
        row = divergence.since(column)
        if row is not None:
            epoch = attempt.epochs[row]
            text = f"{printable(name)} diverging since epoch {display_epoch(epoch)}"
            found.append(_alert(number, epoch, Severity.ERROR, "diverged", text, name))
    return found


def _trends(number: int, attempt: Attempt, metrics: dict[str, Column]) -> list[Alert]:
    """Where the metric that the run is judged by is going: one sentence at most, the one that says more.

    After the end one thing is worth a word: that the last weights are not the best, if nobody has seen to it.
    """
    name = target(tuple(metrics))
    towards = direction(name) if name else None
    if name is None or towards is None or metrics[name].first_non_finite is not None:
        return []
    rows = len(attempt.epochs)
    known = attempt.memo.get("trends")
    if known is None or known[0] != (rows, name):
        twin = training_twin(name, tuple(metrics))
        turned = overfitting_since(metrics[twin], metrics[name], towards) if twin else None
        known = attempt.memo["trends"] = (rows, name), twin, turned, flat_since(metrics[name], towards)
    _, twin, turned, flat = known
    shown, beside = printable(name, NAME_LIMIT), printable(twin or "", NAME_LIMIT)
    ended = attempt.ended
    if turned is not None and (ended is None or (ended.how != "stopped" and ended.restored is None)):
        epoch = attempt.epochs[turned]
        better, worse = ("falls", "rises") if is_loss(name) else ("improves", "worsens")
        text = (
            f"overfitting? {shown} was best at epoch {display_epoch(epoch)} and {worse} "
            f"while {beside} {better}"
        )
        return [_alert(number, epoch, Severity.WARNING, "overfitting", text, name)]
    if flat is not None and ended is None:
        epoch = attempt.epochs[flat]
        little = (
            "not improved" if flat == metrics[name].best(towards) else f"improved by less than {MATERIAL:.0%}"
        )
        text = f"plateau: {shown} has {little} since epoch {display_epoch(epoch)}"
        return [_alert(number, epoch, Severity.WARNING, "plateau", text, name)]
    return []


def _tempo(number: int, run: Run, state: Status) -> list[Alert]:
    """Silence, standstill and slowness of a run that has not ended."""
    attempt = run.current
    if state not in (Status.QUIET, Status.RUNNING, Status.GROWING):
        return []
    epoch = attempt.epochs[-1] if attempt.epochs else None
    now = run.seen.time if run.seen else None
    if state is Status.QUIET:
        if attempt.started:
            text = f"no word from the training process{_after(epoch)}"
        elif (
            len(attempt.arrivals) > 1 and (took := epoch_seconds(attempt)) is not None
        ):  # it was seen to grow
            since = clock(last_sign(run), now)
            text = f"no row since {since}, epochs took {duration(took)}: finished, or stuck?"
        else:
            return []
        return [_alert(number, epoch, Severity.WARNING, "quiet", text)]
    if is_stuck(run):
        took = epoch_seconds(attempt)
        pace = "" if took is None else f", epochs take {duration(took)}"
        text = f"no step since {clock(last_work(run), now)}{pace}: stuck?"
        return [_alert(number, epoch, Severity.WARNING, "stuck", text)]
    paces = early_and_late(attempt)
    if paces and paces[1] >= SLOWER_LEAST_S and paces[1] > SLOWER_FACTOR * paces[0]:
        text = f"epochs take {duration(paces[1])}, were {duration(paces[0])}"
        return [_alert(number, None, Severity.WARNING, "slower", text)]
    return []


def is_stuck(run: Run) -> bool:
    """Whether a run has made no step for longer than its own pace explains."""
    work = last_work(run)
    return _is_older(run, work, STUCK_LEAST_S) and _is_older(run, work, stuck_after(run))


def _is_quiet(run: Run) -> bool:
    sign = last_sign(run)
    return _is_older(run, sign, QUIET_LEAST_S) and _is_older(run, sign, quiet_after(run.current))


def _is_older(run: Run, sign: float | None, limit_s: float | None) -> bool:
    """Whether a sign of life is older than the limit, at the time of the source's last look."""
    now = run.seen.time if run.seen else None
    return sign is not None and now is not None and limit_s is not None and now - sign > limit_s


def _end(number: int, attempt: Attempt, state: Status) -> list[Alert]:
    """How the current attempt ended."""
    epoch = attempt.epochs[-1] if attempt.epochs else None
    at, reason = _after(epoch), _reason(attempt)
    severity = Severity.ERROR if state in (Status.CRASHED, Status.FAILED) else Severity.INFO
    match state:
        case Status.CRASHED:
            text = f"crashed{at}: the training process is gone and wrote no end"
        case Status.FAILED:
            text = f"failed{at}: {reason or 'no reason recorded'}"
        case Status.INTERRUPTED:
            text = f"interrupted{at}: {reason}" if reason else f"interrupted{at}"
        case Status.STOPPED:
            by = " and ".join(map(who, attempt.ended.by)) if attempt.ended else ""
            if is_cut_short(attempt):
                at = at.replace("after", "within")
            text = f"stopped by {by or 'its own code'}{at}"
        case Status.FINISHED:
            text = f"finished{at}"
        case _:
            return []
    return [_alert(number, epoch, severity, state.value, text)]


def _missing(number: int, run: Run, since: float, state: Status) -> Alert:
    """The file was deleted or moved away; of a run that had ended somebody tidied up."""
    has_ended = run.current.ended is not None or state is Status.CRASHED
    severity = Severity.INFO if has_ended else Severity.WARNING
    text = (
        f"the file is gone since {clock(since, run.seen.time if run.seen else None)}: deleted or moved away"
    )
    return _alert(number, None, severity, Status.GONE.value, text)


def _reason(attempt: Attempt) -> str:
    """The exception that ended an attempt, on one line.

    TensorFlow and Keras write many: the first one and the next that is no part of a stack trace tell it.
    """
    error = _STYLE.sub("", attempt.ended.error) if attempt.ended else ""
    first, *others = error.strip().splitlines() or [""]
    telling = (line for line in others if line and not line.startswith((" ", "\t", "<")) and line[-1] != ":")
    return printable(" ".join([first, *islice(telling, 1)]))


def _after(epoch: int | None) -> str:
    return "" if epoch is None else f" after epoch {display_epoch(epoch)}"


def _alert(
    number: int, epoch: int | None, severity: Severity, kind: str, message: str, subject: str = ""
) -> Alert:
    return Alert(attempt=number, epoch=epoch, severity=severity, kind=kind, message=message, subject=subject)
