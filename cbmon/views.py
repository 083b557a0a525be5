"""What is shown of a run: frozen view values, and their JSON and line forms. Pure; computes all that a screen says.

Epochs are 0-based in the JSON documents and 1-based in everything people read.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from cbmon.chart import MarkKind
from cbmon.endpoint import is_here
from cbmon.events import CallbackState, ControlApplied, Progress, RunEnded, RunStarted
from cbmon.pace import Stop, done_at, epoch_seconds, idle_since, is_last_step, last_work, stop_of
from cbmon.rules import (
    Alert,
    Severity,
    Status,
    alerts,
    headline_metric,
    is_cut_short,
    is_stuck,
    last_sign,
    missing_since,
    present_rate,
    saved,
    status,
    stopping,
    who,
)
from cbmon.run import Attempt, Run
from cbmon.series import Column, Direction, base_name, direction, is_loss, is_validation
from cbmon.sources import Log, Skipped
from cbmon.units import (
    UNKNOWN,
    cells,
    clock,
    display_epoch,
    duration,
    fit,
    plural,
    printable,
    short,
    short_lr,
)

JSON_VERSION = 1

GLYPHS = {
    Status.RUNNING: "●",
    Status.GROWING: "◐",
    Status.QUIET: "◌",
    Status.FINISHED: "✓",
    Status.STOPPED: "■",
    Status.INTERRUPTED: "⏸",
    Status.FAILED: "✗",
    Status.CRASHED: "✗",
    Status.EMPTY: "◌",
    Status.GONE: "∅",
}
"""Glyph of each state; the word beside it says the same."""
NEEDS_YOU = "✗"

_ASCII = {ord(kind.glyph): kind.ascii_glyph for kind in MarkKind} | str.maketrans(
    "●◐✓⏸∅▸◂▲·≈…→–━╸─▁▔╲╱", "*~+=0><^-~~>-=>-_^\\/"
)
"""One column each, for the glyphs that we write ourselves."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as a list shows it. Epochs are 1-based here."""

    name: str
    status: Status | None
    """None: the file cannot be read."""
    glyph: str
    word: str
    """The state in words, such as "stopped by EarlyStopping"."""
    needs_you: bool
    epoch: int | None = None
    behind: int | None = None
    """Epochs that lie behind an attempt that has ended none yet; None where nobody told."""
    planned: int | None = None
    metric: str | None = None
    """The metric the run is judged by."""
    last: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    rate: float | None = None
    since: float | None = None
    """Time of the last sign of life, Unix seconds."""
    done_at: float | None = None
    """When the planned epochs will be done at the present pace, Unix seconds."""
    pace: float | None = None
    """Seconds an epoch takes."""
    part: float | None = None
    """How much of the running epoch is done, from 0 to 1; None between epochs and where nobody told."""
    says: bool = False
    """Whether its word says more than that it runs: no step for a while, a stop that was asked for."""
    is_stuck: bool = False
    """Whether that is longer than its own pace explains."""
    begun: float | None = None
    """When it began, as far as it tells itself, Unix seconds."""
    attempts: int = 1
    is_awaited: bool = False
    """It is no run yet: a path that is not there and may come."""
    mark: int | None = None
    """The place of a run that is marked for comparison, which gives its colour and letter."""

    @property
    def letter(self) -> str:
        """What tells a marked run without colour: a, b, …; "" if it is not marked."""
        return "" if self.mark is None else chr(ord("a") + self.mark % 26)

    @property
    def epochs_text(self) -> str:
        """`41/200`, or `22` where the plan is unknown, `–/200` where it is not known where a resumed run stands."""
        if self.planned is None:
            return UNKNOWN if self.epoch is None else str(self.epoch)
        done = self.behind if self.epoch is None else self.epoch
        return f"{UNKNOWN if done is None else done}/{self.planned}"


class FactsView(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of a run in numbers, and what its record says about it."""

    metrics: tuple[tuple[str, float | None, tuple[float, int] | None], ...]
    """Name, last value, best value and its 1-based epoch."""
    info: tuple[tuple[str, str], ...]
    """Label and text."""


def run_view(log: Log, run: Run, planned: int | None = None) -> RunView:
    """The view of one run.

    Args:
        log: where it was read from.
        run: what it told.
        planned: planned epochs, for logs that cannot tell.
    """
    attempt = run.current
    state = status(run)
    is_gone = state is Status.GONE  # whoever deleted it knows what it was
    trouble = next((a for a in _current(run) if a.severity is Severity.ERROR and not is_gone), None)
    unread = "" if is_gone else log.trouble
    planned = attempt.started.epochs if attempt.started and attempt.started.epochs else planned
    metric = headline_metric(attempt)
    column = attempt.metrics[metric] if metric else None
    towards = direction(metric) if metric else None
    best = column.best(towards) if column and towards else None
    is_live = state in _LIVE
    word = f"cannot be read: {printable(unread)}" if unread else _state_words(run, state, trouble)
    has_stuck, stop = is_live and is_stuck(run), stopping(run) if is_live else None
    news = "" if unread or trouble or not is_live else _news(run, stop, has_stuck=has_stuck)
    until = planned if stop is None or stop.epoch is None else display_epoch(stop.epoch)
    return RunView(
        name=printable(log.name),
        status=state,
        glyph=NEEDS_YOU if trouble or unread else GLYPHS[state],
        word=news or word,
        needs_you=bool(trouble or unread),
        epoch=display_epoch(attempt.epochs[-1]) if attempt.epochs else None,
        behind=_epochs_behind(run),
        planned=planned,
        metric=printable(metric) if metric else None,
        last=column.last() if column else None,
        best=None if best is None or column is None else column.values[best],
        best_epoch=None if best is None else display_epoch(attempt.epochs[best]),
        rate=present_rate(run),
        since=last_sign(run),
        done_at=done_at(run, until) if is_live else None,
        attempts=len(run.attempts),
        part=_part(run) if is_live else None,
        says=bool(news),
        is_stuck=has_stuck,
        begun=_begun(attempt),
    )


def _begun(attempt: Attempt) -> float | None:
    """When an attempt began, or its first epoch ended: the same for whoever reads the log, whenever."""
    begun = attempt.started.time if attempt.started else None
    return begun if begun is not None or not attempt.times.count else attempt.times[0]


def _news(run: Run, stop: ControlApplied | None, *, has_stuck: bool) -> str:
    """What a run that goes on has to say, if anything."""
    now = run.seen.time if run.seen else None
    if has_stuck:
        return f"stuck since {clock(last_work(run), now)}?"
    if (idle := idle_since(run)) is not None:
        return f"no step since {clock(idle, now)}"
    if stop is not None and stop.epoch is not None:
        return f"stops {'after' if stop.command == 'stop' else 'within'} epoch {display_epoch(stop.epoch)}"
    return ""


def _part(run: Run) -> float | None:
    """How much of the running epoch is done: by its steps, else by its time; validation has its share of it."""
    progress = run.progress
    if progress is None:
        return None
    took, validation = epoch_seconds(run.current), run.current.seconds.get("validation")
    validates = (validation.last() if validation else None) or 0.0
    training = max(0.0, 1.0 - validates / took) if took and math.isfinite(validates) else 1.0
    done = min(1.0, progress.step / progress.steps) if progress.steps else None
    if progress.phase == "validation":
        return training + (1.0 - training) * (done or 0.0)
    if done is not None:
        return training * done
    if not took or progress.time is None or progress.begun is None:
        return None
    return max(0.0, min(training, (progress.time - progress.begun) / took))


def _epochs_behind(run: Run) -> int | None:
    """Epochs done before the current attempt's first: a resumed one goes on where it says, and not from 0."""
    if run.progress:
        return run.progress.epoch  # 0-based, so it is also how many there were
    return 0 if run.is_empty else None


def facts_view(run: Run, log: Log | None = None) -> FactsView:
    """What the current attempt has told beside its curves, and where its log is, if that is known."""
    attempt = run.current
    metrics = []
    for group in metric_groups(attempt):
        for name in group:
            column = attempt.metrics[name]
            towards = direction(name)
            best = column.best(towards) if towards else None
            at = None if best is None else (column.values[best], display_epoch(attempt.epochs[best]))
            metrics.append((printable(name), column.last(), at))
    info = [*_plan_info(attempt.started), *_course_info(attempt), *_script_info(attempt.started)]
    if log is not None:
        info.append(("record", printable(str(log.path), PATH_SHOWN)))
    if len(run.attempts) > 1:
        info.append(("attempt", f"{len(run.attempts)} of {len(run.attempts)}"))
    return FactsView(metrics=tuple(metrics), info=tuple(info))


PATH_SHOWN = 4096
"""Characters of a path: as many as a path has."""


def _plan_info(started: RunStarted | None) -> Iterator[tuple[str, str]]:
    """What is trained, on what."""
    if started is None:
        return
    steps = f" of {plural(started.steps, 'step')}" if started.steps else ""
    yield "plan", f"{plural(started.epochs, 'epoch')}{steps}" if started.epochs else UNKNOWN
    if started.model or started.parameters is not None:
        size = f"{started.parameters:,} parameters" if started.parameters is not None else ""
        yield "model", printable(" · ".join(filter(None, (started.model, size))))
    yield "optimizer", printable(started.optimizer or UNKNOWN)
    yield "Keras", printable(" on ".join(filter(None, (started.keras, started.backend))) or UNKNOWN)
    host = started.process.host if started.process else None
    yield "host", printable(" · ".join([host or UNKNOWN, *started.devices]))


def _course_info(attempt: Attempt) -> Iterator[tuple[str, str]]:
    """How fast it goes, and where its callbacks stand."""
    took = {name: duration(column.last()) for name, column in attempt.seconds.items() if column.count}
    if "epoch" in took:
        validation = f" · validation {took['validation']}" if "validation" in took else ""
        yield "epoch", f"takes {took['epoch']}{validation}"
    if "step" in took:
        first = f" · the first one {took['first_step']}" if "first_step" in took else ""
        yield "step", f"takes {took['step']}{first}"
    for name, column in attempt.rates.items():
        yield "lr", f"{printable(name)} {short_lr(column.last())}"
    if attempt.callbacks and attempt.ended:  # while it runs, the strip below the chart tells them
        for state in attempt.callbacks.states:
            yield printable(state.name), callback_sentence(state)
    if saves := _saved_words(attempt):
        yield "saved", saves
    if attempt.ended and attempt.ended.restored is not None:
        yield "restored", f"weights of epoch {display_epoch(attempt.ended.restored)}"


def _saved_words(attempt: Attempt) -> str:
    """The latest checkpoint, and how many there are where not all are marked; "" if there is none."""
    checkpoints = saved(attempt)
    if not checkpoints.count:
        return ""
    last, shown = checkpoints.latest[-1], len(checkpoints.latest)
    more = f" · {checkpoints.count:,} in all, the latest {shown:,} marked" if checkpoints.untold else ""
    return f"{printable(last.path)} (epoch {display_epoch(last.epoch)}){more}"


def _script_info(started: RunStarted | None) -> Iterator[tuple[str, str]]:
    """The user's own words for it: config and command line."""
    if started is None:
        return
    for name, value in started.config.items():
        yield f"config {printable(str(name))}", printable(str(value))
    if started.command:
        yield "command", printable(shlex.join(started.command))


def strip_lines(
    run: Run, shadows: Sequence[tuple[str, CallbackState, str, Sequence[int]]] = (), now: float | None = None
) -> list[str]:
    """What goes on in a run, a line each: the running epoch, its callbacks with patience, those followed beside it.

    Args:
        run: the run.
        shadows: CALL, what it has counted, why Keras would have refused it ("" if it would not), and the 0-based
            epochs after which it would have stopped or cut.
        now: for times of another day.
    """
    attempt, lines = run.current, []
    is_live = status(run) in _LIVE
    if is_live and (pace := " · ".join(_pace_parts(run))):
        lines.append(pace)
    if is_live and attempt.callbacks:
        for state in attempt.callbacks.states:
            stop = stop_of(run, state, attempt.callbacks.epoch)
            lines.append(
                f"{printable(state.name)} {callback_sentence(state)}{_stop_words(stop, state.wait, now)}"
            )
    for call, state, trouble, fired in shadows:
        if trouble:
            told = printable(trouble)
        elif fired and "EarlyStopping" in state.name:
            told = f"would have stopped after epoch {display_epoch(fired[0])}"
        else:
            stop = stop_of(run, state, attempt.epochs[-1]) if is_live and attempt.epochs else None
            cuts = f"would have cut after {_epoch_list(fired)} · " if fired else ""
            told = cuts + callback_sentence(state, _stop_words(stop, state.wait, now))
        lines.append(f"{printable(call, CALL_SHOWN)}: {told}")
    return lines


CALL_SHOWN = 36
"""Characters of a CALL before what it would have done: both have to fit into 80 columns."""


def _epoch_list(epochs: Sequence[int]) -> str:
    """`epoch 12`, `epochs 12, 18`, `epochs 12, 18 and 4 more`."""
    shown = ", ".join(str(display_epoch(epoch)) for epoch in epochs[:3])
    more = f" and {len(epochs) - 3} more" if len(epochs) > 3 else ""
    return f"epoch{'' if len(epochs) == 1 else 's'} {shown}{more}"


def _pace_parts(run: Run) -> Iterator[str]:
    """How far the running epoch is and how long things take."""
    attempt, progress, idle = run.current, run.progress, idle_since(run)
    goes_on = progress is not None and idle is None and not is_last_step(progress)
    speed = progress.steps_per_second if progress and goes_on else None
    if progress:
        steps = f"{progress.step:,}/{progress.steps:,}" if progress.steps else f"{progress.step:,}"
        validation = " of validation" if progress.phase == "validation" else ""
        yield f"epoch {display_epoch(progress.epoch)}: step {steps}{validation}"
        if speed and 0.0 < speed < math.inf:
            yield _speed_words(speed)
            if (left := _seconds_left(attempt, progress, speed)) is not None:
                yield f"≈ {duration(left)} left"
        if idle is not None:
            yield f"no step since {clock(idle, run.seen.time if run.seen else None)}"
        yield from _running_means(progress)
    if (seconds := epoch_seconds(attempt)) is not None:
        yield f"an epoch takes {duration(seconds)}"
    step = progress.step_seconds if progress else None
    if step is None and "step" in attempt.seconds:
        step = attempt.seconds["step"].last()
    if step is not None and not speed:
        yield f"a step {duration(step)}"


MEANS_SHOWN = 4
"""Running means that are told, the loss first: more would push the pace off the widest screen."""


def _speed_words(speed: float) -> str:
    """`52 steps/s`; slow ones as `1.9 s a step`."""
    if speed < 1.0:
        return f"{duration(1 / speed)} a step"
    return f"{speed:,.0f} steps/s" if speed >= 9.95 else f"{speed:.1f} steps/s"


def _seconds_left(attempt: Attempt, progress: Progress, speed: float) -> float | None:
    """What is left of the running epoch at this speed, its validation with it as long as the last one."""
    if not progress.steps:
        return None
    left = max(0, progress.steps - progress.step) / speed
    if progress.phase == "train" and (validation := attempt.seconds.get("validation")):
        left += validation.last() or 0.0
    return left


def _running_means(progress: Progress) -> list[str]:
    """`loss .3010`, `accuracy .8830`: as Keras keeps them since the phase began."""
    start = "val_" if progress.phase == "validation" else ""
    names = sorted(progress.metrics, key=lambda name: not is_loss(name))[:MEANS_SHOWN]
    told = ((name, progress.metrics[name]) for name in names)
    return [
        f"{'' if name.startswith('val_') else start}{printable(name, 40)} {short(value)}"
        for name, value in told
        if value is not None
    ]


def no_control(run: Run) -> str:
    """Why this run takes no requests, as far as its record tells; "" if it may."""
    attempt = run.current
    if attempt.ended:
        return "its training has ended"
    if status(run) is Status.CRASHED:
        return "its training process is gone"
    if attempt.started is None:
        return "only a run that Monitor records can be asked, and this is none" if not run.progress else ""
    process = attempt.started.process
    if process is not None and not is_here(process):
        return f"it runs on {printable(process.host)}: ask it there"
    return ""


def _stop_words(stop: Stop | None, wait: int | None, now: float | None) -> str:
    """` · stops ≈ epoch 44 (03:12)`, if nothing gets better; nothing while it gets better."""
    if stop is None or not wait:
        return ""
    return f" · stops ≈ epoch {display_epoch(stop.epoch)}" + (
        "" if stop.at is None else f" ({clock(stop.at, now)})"
    )


def callback_sentence(state: CallbackState, stop: str = "") -> str:
    """Where a callback with patience stands: `val_loss · wait 3/5 · best .4120 ★37`; `stop` before the best."""
    parts = [printable(state.monitor)] if state.monitor else []
    if state.wait is not None:
        parts.append(f"wait {state.wait}" + ("" if state.patience is None else f"/{state.patience:g}"))
    if state.cooldown:
        parts.append(f"cooldown {state.cooldown}")
    if stop:
        parts.append(stop.removeprefix(" · "))
    if state.best is not None:
        at = "" if state.best_epoch is None else f" ★{display_epoch(state.best_epoch)}"
        parts.append(f"best {short(state.best)}{at}")
    return " · ".join(parts)


KeyT = TypeVar("KeyT")

_LIVE = (Status.RUNNING, Status.GROWING)
"""States in which a run goes on."""


def newest_first(views: Mapping[KeyT, RunView]) -> dict[KeyT, RunView]:
    """Runs that need somebody first, then those that go on, each the latest first, then by name.

    The latest is what began last, as far as the logs tell: a moment at which somebody looked, or the last word of
    several that go on, would be another order for each watcher.
    """

    def place(view: RunView) -> tuple[bool, bool, float, str]:
        at = view.since if view.begun is None else view.begun
        return not view.needs_you, view.status not in _LIVE, -(at or 0.0), view.name

    return dict(sorted(views.items(), key=lambda item: place(item[1])))


def unreadable_view(skipped: Skipped, *, is_awaited: bool = False) -> RunView:
    """A file that looks like a log and cannot be read: a visible row, for it must not just be missing.

    Where a path that is not there is awaited that is said, and that it may be a typo.
    """
    if is_awaited and skipped.is_missing:
        return RunView(
            name=printable(str(skipped.path)),
            status=Status.EMPTY,
            glyph=GLYPHS[Status.EMPTY],
            word="no such path yet, waiting for it (a typo?)",
            needs_you=False,
            is_awaited=True,
        )
    return RunView(
        name=printable(str(skipped.path)),
        status=None,
        glyph=NEEDS_YOU,
        word=f"cannot be read: {printable(skipped.reason)}",
        needs_you=True,
    )


def metric_groups(attempt: Attempt) -> list[list[str]]:
    """The metrics in groups to be drawn together (`loss` with `val_loss`), the headline's group first."""
    groups: dict[str, list[str]] = {}
    for name in sorted(attempt.metrics, key=is_validation):
        groups.setdefault(base_name(name), []).append(name)
    headline = headline_metric(attempt)
    first = base_name(headline) if headline else ""
    return sorted(
        groups.values(), key=lambda group: (base_name(group[0]) != first, not is_loss(group[0]), group[0])
    )


class EpochsView(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a run's epochs as a table."""

    names: tuple[str, ...]
    """Heading of each column."""
    rows: tuple[tuple[str, ...], ...]
    """Cells as they are shown."""
    cursor: int | None
    """Which row is being read."""
    above: int
    """Rows before these."""
    below: int


def epochs_view(run: Run, count: int, epoch: int | None = None) -> EpochsView:
    """The last `count` epochs of the current attempt, or those around the 1-based `epoch`."""
    attempt = run.current
    total, count = len(attempt.epochs), max(0, count)
    at = None if epoch is None or not total else min(bisect_left(attempt.epochs, epoch - 1), total - 1)
    first = max(0, total - count if at is None else min(at - count // 2, total - count))
    columns: list[tuple[str, Column, Callable[[float | None], str]]] = [
        (printable(name), attempt.metrics[name], short) for group in metric_groups(attempt) for name in group
    ]
    if attempt.learning_rate:
        columns.append(("lr", attempt.learning_rate, short_lr))
    columns += [(f"lr {printable(name)}", rate, short_lr) for name, rate in attempt.rates.items()]
    if "epoch" in attempt.seconds:
        columns.append(("took", attempt.seconds["epoch"], duration))
    shown = range(first, min(first + count, total))
    cut = total - 1 if is_cut_short(attempt) else None
    return EpochsView(
        names=("epoch", *(name for name, _, _ in columns)),
        rows=tuple(
            (
                f"{'part of ' if row == cut else ''}{display_epoch(attempt.epochs[row])}",
                *(say(column[row]) for _, column, say in columns),
            )
            for row in shown
        ),
        cursor=None if at is None else at - first,
        above=first,
        below=total - shown.stop,
    )


def alert_lines(run: Run) -> list[tuple[Severity, str]]:
    """The run's alerts as text, errors first, then the newest; the latest checkpoint; what was left out."""
    several = len(run.attempts) > 1
    newest = alerts(run)
    newest.reverse()
    found = [
        (alert.severity, f"{alert.message}{f' (attempt {alert.attempt})' if several else ''}")
        for alert in sorted(newest, key=lambda alert: alert.severity is not Severity.ERROR)
    ]
    if saves := _saved_words(run.current):
        found.append((Severity.INFO, f"saved {saves}"))
    return found + [(Severity.WARNING, text) for text in warning_lines(run)]


def warning_lines(run: Run) -> list[str]:
    """What was left out of the log, in order."""
    more = [f"and {plural(run.warnings_dropped, 'more warning')}"] if run.warnings_dropped else []
    texts = sorted(set().union(*(attempt.not_numbers for attempt in run.attempts)))
    return [
        *(printable(str(warning)) for warning in run.warnings),
        *more,
        *(f"column {printable(name)!r}: some cells are text or lists, taken as absent" for name in texts),
    ]


def ascii_only(text: str) -> str:
    """The text for a terminal without UTF-8, in as many columns; charts have an ASCII twin of their own.

    Foreign letters lose their accents, what has no letter is "?".
    """
    if text.isascii():
        return text
    return "".join(
        char if char.isascii() else _plain_letter(char) * cells(char) for char in text.translate(_ASCII)
    )


def _plain_letter(char: str) -> str:
    letter = unicodedata.normalize("NFKD", char)[0]
    return letter if letter.isascii() and letter.isprintable() else "?"


ORDERS = ("newest", "name", "best", "progress")
"""Orders of the list of runs; "newest" keeps the places in which runs first appeared."""


def ordered(views: Mapping[KeyT, RunView], order: str) -> dict[KeyT, RunView]:
    """The runs in one of `ORDERS`; equal ones stay as they are."""

    def by_best(view: RunView) -> tuple[bool, str, float]:
        sign = -1.0 if view.metric and direction(view.metric) is Direction.MAX else 1.0
        return view.best is None, view.metric or "", sign * (view.best or 0.0)

    def by_progress(view: RunView) -> tuple[float, float]:
        share = (view.epoch or 0) / view.planned if view.planned else 0.0
        return -share, -float(view.epoch or 0)

    keys: dict[str, Callable[[RunView], Any]] = {
        "name": lambda view: (_natural(view.name), view.name),
        "best": by_best,
        "progress": by_progress,
    }
    return (
        dict(sorted(views.items(), key=lambda item: keys[order](item[1]))) if order in keys else dict(views)
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """A name as people sort it: run2 before run10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def matches(view: RunView, text: str) -> bool:
    """Whether a run passes a filter: all its words are in the name, the state or the metric; none after `!` is."""
    told = (
        f"{view.name} {view.word} {view.status.value if view.status else ''} {view.metric or ''}".casefold()
    )
    return all(
        (word[1:] not in told or word == "!") if word.startswith("!") else word in told
        for word in text.casefold().split()
    )


def best_runs(views: Sequence[RunView]) -> set[int]:
    """Which runs have the best value of their metric, where at least two have one."""
    by_metric: dict[str, list[int]] = {}
    for index, view in enumerate(views):
        if view.metric and view.best is not None and math.isfinite(view.best) and direction(view.metric):
            by_metric.setdefault(view.metric, []).append(index)
    found = set()
    for metric, indices in by_metric.items():
        pick = max if direction(metric) is Direction.MAX else min
        if len(indices) > 1:
            best = pick(views[index].best or 0.0 for index in indices)
            found |= {index for index in indices if views[index].best == best}
    return found


def needs_you_line(views: Sequence[RunView], *, names: bool = True) -> str:
    """`4 runs · 1 needs you: run3`, or without the names."""
    needing = [view.name for view in views if view.needs_you]
    text = plural(sum(not view.is_awaited for view in views), "run")
    if needing:
        text += f" · {len(needing)} need{'s' if len(needing) == 1 else ''} you"
        if names:
            text += f": {', '.join(needing[:3])}{', …' if len(needing) > 3 else ''}"
    return text


def epoch_sentence(view: RunView, run: Run, now: float | None) -> str:
    """A run's latest epoch in one line: `03:12 run4 epoch 41/200 loss .3010 val_loss .4188 (best ...) lr 1e-4`."""
    attempt = run.current
    parts = [clock(view.since, now), view.name, f"epoch {view.epochs_text}"]
    groups = metric_groups(attempt)
    for name in groups[0] if groups else []:
        parts.append(f"{printable(name)} {short(attempt.metrics[name].last())}")
        if printable(name) == view.metric and view.best is not None:
            parts.append(f"(best {short(view.best)} at {view.best_epoch})")
    if view.rate is not None:
        parts.append(f"lr {short_lr(view.rate)}")
    if view.done_at is not None:
        parts.append(f"done ≈ {clock(view.done_at, now)}")
    return " ".join(parts)


def state_sentence(view: RunView, now: float | None) -> str:
    """A run's state in one line: `01:12 run2 finished`."""
    return f"{clock(view.since, now)} {view.name} {'ERROR ' if view.needs_you else ''}{view.word}"


def alert_sentence(view: RunView, alert: Alert, now: float | None) -> str:
    """An alert in one line: `02:47 run3 ERROR NaN loss at epoch 21`."""
    word = "" if alert.severity is Severity.INFO else f"{alert.severity.value.upper()} "
    return f"{clock(view.since, now)} {view.name} {word}{alert.message}"


def summary_cells(
    views: Sequence[RunView], now: float | None, metric_max: int = 300
) -> list[tuple[str, ...]]:
    """The table of all runs, its heading first: name and state to the left, numbers to the right.

    A metric's name has at most `metric_max` columns.
    """

    def named(metric: str) -> str:
        return fit(metric, min(metric_max, cells(metric)))

    shared = {view.metric for view in views if view.metric}
    heading = f"{named(shared.pop())} best" if len(shared) == 1 else "best"
    rows: list[tuple[str, ...]] = [("run", "state", "epoch", heading, "last", "lr", "since")]
    for view in views:
        best = UNKNOWN if view.best is None else f"{short(view.best)} ★{view.best_epoch}"
        if heading == "best" and view.metric:
            best = f"{named(view.metric)} {best}"
        numbers = (view.epochs_text, best, short(view.last), short_lr(view.rate), clock(view.since, now))
        rows.append((view.name, f"{view.glyph} {view.word}", *numbers))
    return rows


def show_table(
    views: Sequence[RunView], skipped: Sequence[Skipped], now: float, *, ascii: bool = False
) -> list[str]:
    """The table of `cbmon show`, as lines."""
    rows = summary_cells(views, now)
    widths = [max(cells(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            fit(cell, width, right=column >= 2)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    hidden = sum(not skip.looks_like_log for skip in skipped)
    lines.append(needs_you_line(views) + ".")
    if hidden:
        are, it = ("is no training log", "it") if hidden == 1 else ("are no training logs", "them")
        lines[-1] += f" {plural(hidden, 'file')} here {are} (--skipped lists {it})."
    return [ascii_only(line) if ascii else line for line in lines]


def show_json(runs: Iterable[tuple[Log, Run]], skipped: Iterable[Skipped]) -> dict[str, Any]:
    """The document of `cbmon show --json`: 0-based epochs, non-finite numbers as "nan", "inf", "-inf"."""
    return {
        "version": JSON_VERSION,
        "runs": [_run_json(log, run) for log, run in runs],
        "skipped": [
            {"path": printable(str(skip.path), limit=4096), "reason": printable(skip.reason)}
            for skip in skipped
        ],
    }


def json_number(value: float | None) -> float | str | None:
    """A number as the JSON contracts have it."""
    return value if value is None or math.isfinite(value) else str(value)


def _run_json(log: Log, run: Run) -> dict[str, Any]:
    return {
        "name": printable(log.name),
        "path": printable(str(log.path), limit=4096),
        "format": log.format.value,
        "status": status(run).value,
        "attempts": [
            _attempt_json(attempt)
            for attempt in run.attempts
            if len(run.attempts) > 1 or attempt.epochs or attempt.started
        ],
        "alerts": [
            {
                "attempt": alert.attempt,
                "epoch": alert.epoch,
                "severity": alert.severity.value,
                "kind": alert.kind,
                "message": alert.message,
            }
            for alert in alerts(run)
        ],
        "warnings": warning_lines(run),
    }


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    metrics: dict[str, dict[str, Any]] = {}
    for name, column in attempt.metrics.items():
        towards = direction(name)
        best = column.best(towards) if towards else None
        shown = printable(name)
        metrics[shown if shown not in metrics else f"{shown} ({len(metrics)})"] = {
            "last": json_number(column.last()),
            "best": None if best is None else column.values[best],
            "best_epoch": None if best is None else attempt.epochs[best],
        }
    record: dict[str, Any] = {}
    if attempt.started or attempt.ended:  # what only cbmon's own record can tell
        record["planned_epochs"] = attempt.started.epochs if attempt.started else None
        record["ended"] = attempt.ended and _end_json(attempt.ended)
    return {
        "first_epoch": attempt.epochs[0] if attempt.epochs else None,
        "last_epoch": attempt.epochs[-1] if attempt.epochs else None,
        "epochs": len(attempt.epochs),
        "metrics": metrics,
        "learning_rate": json_number(attempt.rate.last()),
    } | record


def _end_json(ended: RunEnded) -> dict[str, Any]:
    """How an attempt ended."""
    return {
        "how": printable(ended.how),
        "time": json_number(ended.time),
        "by": [printable(name) for name in ended.by],
        "error": printable(ended.error, limit=1000) or None,
        "restored_epoch": ended.restored,
    }


def _current(run: Run) -> list[Alert]:
    """Alerts of the current attempt: what an earlier one suffered from is over."""
    return [alert for alert in alerts(run) if alert.attempt == len(run.attempts)]


def is_unhealthy(run: Run) -> bool:
    """Whether the run's current attempt has an error: NaN, diverged, failed, crashed."""
    return any(alert.severity is Severity.ERROR for alert in _current(run))


def _state_words(run: Run, state: Status, trouble: Alert | None) -> str:
    """The state in words; what is wrong comes before whether it still goes on."""
    if trouble is not None:
        if trouble.kind in ("crashed", "failed"):
            return trouble.message
        return trouble.message.replace(" at epoch ", ", epoch ")
    match state:
        case Status.QUIET:
            return f"quiet since {clock(last_sign(run), run.seen.time if run.seen else None)}"
        case Status.STOPPED:
            by = run.current.ended.by if run.current.ended else []
            return f"stopped by {' and '.join(map(who, by))}" if by else "stopped early"
        case Status.EMPTY:
            return "no epoch yet"
        case Status.GONE:
            return f"gone since {clock(missing_since(run), run.seen.time if run.seen else None)}"
        case _:
            return str(state.value)
