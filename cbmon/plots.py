"""What a chart shows of one run or several: curves, marks, what is read at an epoch. Pure; epochs are 1-based."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from cbmon.axes import Limits
from cbmon.axes import x_limits as axis_limits
from cbmon.chart import Curve, Mark, MarkKind
from cbmon.rules import (
    alerts,
    control_words,
    controls,
    headline_metric,
    is_schedule,
    present_rate,
    saved,
    unasked_changes,
)
from cbmon.run import Attempt, Run
from cbmon.series import Column, base_name, direction, is_validation
from cbmon.thin import CurveValues, extremes
from cbmon.units import display_epoch, plural, printable, short, short_lr
from cbmon.views import RunView, metric_groups

DECADES = 1e5
"""Ratio of the largest to the smallest value from which a chart begins with a logarithmic axis."""


GREY = 7
"""The colour of what is over: earlier attempts."""

EARLIER_MAX = 6
"""Curves of earlier attempts that are drawn: the latest ones."""


class ChartView(msgspec.Struct, frozen=True, kw_only=True):
    """One metric over the epochs: of one run, training and validation together, or of several."""

    title: str
    curves: tuple[Curve, ...]
    names: tuple[str, ...]
    """What each curve is, for the legend and the read-out."""
    marks: tuple[Mark, ...] = ()
    notes: Mapping[int, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """What happened, in words, by epoch."""
    rates: Curve | None = None
    """The learning rate, None if none is recorded or several runs are shown."""
    rate: float | None = None
    """The latest one."""
    first: int = 1
    last: int = 1
    """First and last epoch."""
    planned: int | None = None
    letters: bool = False
    """Whether the curves are told apart by letters: one a run."""
    spans_decades: bool = False
    """Whether a linear axis would show nothing but the largest values."""


def chart_view(
    run: Run,
    metric: str | None = None,
    planned: int | None = None,
    fired: Mapping[str, Sequence[int]] | None = None,
) -> ChartView:
    """The chart of one metric of a run: its current attempt, and the earlier ones behind it.

    Args:
        run: the run.
        metric: base name, as of "loss" and "val_loss" together; None, or one it has not: its headline's.
        planned: epochs, where the log cannot tell.
        fired: by CALL, the 0-based epochs after which a callback followed beside the run would have acted.
    """
    attempt, number = run.current, len(run.attempts)
    told = next((each for each in reversed(run.attempts) if each.metrics), attempt)
    names = _group(told, metric)
    before = [
        (f"{_kind(name)} of attempt {at}", each, name)
        for at, each in enumerate(run.attempts[:-1], 1)
        for name in names
        if name in each.metrics
    ][-EARLIER_MAX:]
    earlier = [(words, _curve(each, name, number=GREY, label=words)) for words, each, name in before]
    now = names if told is attempt else []
    curves = [(_kind(name), _curve(attempt, name, number=at)) for at, name in enumerate(now)]
    epochs = [each.epochs for each in run.attempts if each.epochs]
    marks = [*_marks(attempt, now), *_shadow_marks(fired or {})]
    if number > 1 and attempt.epochs:
        marks.append(Mark(display_epoch(attempt.epochs[0]), MarkKind.RESTART))
    rate = attempt.learning_rate
    title = printable(base_name(names[0])) if names else ""
    return ChartView(
        title=f"{title} · attempt {number} of {number}" if number > 1 else title,
        curves=tuple(curve for _, curve in (*earlier, *curves)),
        names=tuple(name for name, _ in (*earlier, *curves)),
        marks=tuple(marks),
        notes=_notes(run, now, fired or {}),
        rates=Curve(label="lr", x=attempt.epochs, x_offset=1, y=rate, steps=True) if rate else None,
        rate=present_rate(run),
        first=display_epoch(min((each[0] for each in epochs), default=0)),
        last=display_epoch(max((each[-1] for each in epochs), default=0)),
        planned=_planned(run, planned),
        spans_decades=any(_spans_decades(curve.y) for _, curve in (*earlier, *curves)),
    )


def other_views(run: Run, metric: str | None, count: int) -> list[ChartView]:
    """The next metrics of a run, in the order in which they are stepped through."""
    found: list[ChartView] = []
    bases = [base_name(group[0]) for group in metric_groups(run.current)]
    at = bases.index(metric) if metric in bases else 0
    for base in (*bases[at + 1 :], *bases[:at])[:count]:
        names = _group(run.current, base)
        curves = tuple(_curve(run.current, name, number=place) for place, name in enumerate(names))
        view = ChartView(
            title=printable(base),
            curves=curves,
            names=tuple(map(_kind, names)),
            first=display_epoch(run.current.epochs[0]),
            last=display_epoch(run.current.epochs[-1]),
            spans_decades=any(_spans_decades(curve.y) for curve in curves),
        )
        found.append(view)
    return found


def _planned(run: Run, planned: int | None) -> int | None:
    """Where the epoch axis ends: at the plan while the run may reach it, then at its last epoch."""
    attempt = run.current
    if attempt.ended and attempt.epochs:
        return display_epoch(max(each.epochs[-1] for each in run.attempts if each.epochs))
    return attempt.started.epochs if attempt.started and attempt.started.epochs else planned


def overlay_view(
    marked: Sequence[tuple[RunView, Run]], metric: str | None = None, planned: int | None = None
) -> ChartView:
    """The same metric of several runs in one chart, each with its colour and letter: validation if it has it."""
    judged = (headline_metric(run.current) for _, run in marked)
    base = metric or base_name(next(filter(None, judged), ""))
    curves, names, first, last, drawn = [], [], [], [1], set()
    plans = [plan for view, run in marked if (plan := _planned(run, view.planned or planned))]
    for view, run in marked:
        attempt = run.current
        group = [name for name in attempt.metrics if base_name(name) == base]
        if not group:
            continue
        name = max(group, key=is_validation)
        curves.append(_curve(attempt, name, number=view.mark or 0, letter=view.letter))
        names.append(f"{view.letter} {view.name}")
        drawn.add(name)
        first.append(display_epoch(attempt.epochs[0]))
        last.append(display_epoch(attempt.epochs[-1]))
    return ChartView(
        title=f"{printable(drawn.pop() if len(drawn) == 1 else base)} of {plural(len(curves), 'marked run')}",
        curves=tuple(curves),
        names=tuple(names),
        letters=True,
        first=min(first, default=1),
        last=max(last),
        planned=max(plans, default=None),
        spans_decades=any(_spans_decades(curve.y) for curve in curves),
    )


def next_metric(run: Run, metric: str | None, by: int) -> str | None:
    """The base name of the next metric that can be drawn, counted round."""
    bases = [base_name(group[0]) for group in metric_groups(run.current)]
    if not bases:
        return None
    at = bases.index(metric) if metric in bases else 0
    return bases[(at + by) % len(bases)]


def x_limits(view: ChartView) -> Limits:
    """All epochs of a chart, to the planned end."""
    return axis_limits(view.first, view.last, view.planned)


def nearest(view: ChartView, epoch: float, by: int = 0) -> int:
    """The epoch that has a row next to `epoch`; from there on in the direction of `by`, if none has."""
    found = []
    for curve in view.curves:
        row = bisect_left(curve.x, epoch - curve.x_offset, 0, curve.count)
        found += [curve.x[at] + curve.x_offset for at in (row - 1, row) if 0 <= at < curve.count]
    ahead = [x for x in found if (x - epoch) * by >= 0] or found
    return int(min(ahead, key=lambda x: abs(x - epoch), default=view.last))


def row_at(run: Run, epoch: int | None, by: int) -> int | None:
    """The epoch so many rows of the table on from an epoch, else from the last one; None if there are no rows."""
    epochs = run.current.epochs
    if not epochs:
        return None
    last = len(epochs) - 1
    at = last if epoch is None else min(bisect_left(epochs, epoch - 1), last)
    return display_epoch(epochs[max(0, min(at + by, last))])


def last_of(view: ChartView, run: Run) -> int:
    """Where reading begins: at the last epoch of the chosen run, whatever others in the chart have."""
    return display_epoch(run.current.epochs[-1]) if run.current.epochs else view.last


def next_mark(view: ChartView, epoch: int | None, by: int) -> int | None:
    """The next epoch at which something happened, from the end backwards at first; None if there is no more."""
    places = sorted({int(mark.x) for mark in view.marks if view.first <= mark.x <= view.last})
    if epoch is None:
        return places[-1] if places else None
    ahead = [place for place in places if (place - epoch) * by > 0]
    return (min if by > 0 else max)(ahead, default=None)


def reading(view: ChartView, epoch: int) -> list[tuple[str, str]]:
    """What the chart's curves and the learning rate are at an epoch: name and value; – where there is none."""
    found = list(zip(view.names, view.curves, strict=True))
    if view.rates is not None:
        found.append(("lr", view.rates))
    return [(name, _value(curve, curve.at(epoch))) for name, curve in found]


def latest(view: ChartView) -> list[tuple[str, str]]:
    """The last value that each curve has: name and value."""
    return [
        (name, _value(curve, _last(curve.y))) for name, curve in zip(view.names, view.curves, strict=True)
    ]


def _last(values: CurveValues) -> float | None:
    if isinstance(values, Column):
        return values.last()
    return next((value for value in reversed(values) if value is not None), None)


def _value(curve: Curve, value: float | None) -> str:
    return short_lr(value) if curve.steps else short(value)


def _group(attempt: Attempt, metric: str | None) -> list[str]:
    groups = metric_groups(attempt)
    return next((group for group in groups if base_name(group[0]) == metric), groups[0] if groups else [])


def _kind(name: str) -> str:
    return "val" if is_validation(name) else "train"


def _curve(attempt: Attempt, name: str, *, number: int, letter: str = "", label: str = "") -> Curve:
    column = attempt.metrics[name]
    return Curve(
        label=label or f"{_kind(name)} {short(column.last())}",
        x=attempt.epochs,
        x_offset=1,
        y=column,
        dashed=is_validation(name) and not letter,
        letter=letter,
        number=number,
    )


def _spans_decades(values: CurveValues) -> bool:
    lowest, highest = extremes(values) or (0.0, 0.0)
    return lowest > 0 and highest > DECADES * lowest


def _notes(run: Run, names: Sequence[str], fired: Mapping[str, Sequence[int]]) -> dict[int, tuple[str, ...]]:
    """What happened in the current attempt, in words, by epoch."""
    found: dict[int, list[str]] = {}
    number = len(run.attempts)
    for alert in alerts(run):
        if alert.attempt == number and alert.epoch is not None:
            found.setdefault(display_epoch(alert.epoch), []).append(alert.message)
    if number > 1 and run.current.epochs:
        before = run.attempts[-2].ended
        how = f"was {printable(before.how)}" if before else "wrote no end"
        text = f"attempt {number} began; the one before {how}"
        found.setdefault(display_epoch(run.current.epochs[0]), []).append(text)
    checkpoints = saved(run.current)
    for note in checkpoints.latest:
        found.setdefault(display_epoch(note.epoch), []).append(f"saved {printable(note.path)}")
    if checkpoints.untold:
        text = f"{plural(checkpoints.untold, 'earlier checkpoint')} not marked"
        found[display_epoch(checkpoints.latest[0].epoch)].append(text)
    for control in controls(run.current):
        if control.epoch is not None and control.command == "save":  # the others are alerts
            found.setdefault(display_epoch(control.epoch), []).append(control_words(control))
    if judged := _best(run.current, names):
        row, name = judged
        text = f"best {printable(name)} {short(run.current.metrics[name].values[row])}"
        found.setdefault(display_epoch(run.current.epochs[row]), []).append(text)
    for call, epochs in fired.items():
        for epoch in epochs:
            found.setdefault(display_epoch(epoch), []).append(f"{printable(call)} would act here")
    return {epoch: tuple(texts) for epoch, texts in found.items()}


def _best(attempt: Attempt, names: Sequence[str]) -> tuple[int, str] | None:
    """Row and name of the best value: of the validation metric, if there is one beside that of training."""
    towards = direction(names[-1]) if names else None
    row = attempt.metrics[names[-1]].best(towards) if towards else None
    return None if row is None else (row, names[-1])


def _shadow_marks(fired: Mapping[str, Sequence[int]]) -> Iterator[Mark]:
    return (Mark(display_epoch(epoch), MarkKind.SHADOW) for epochs in fired.values() for epoch in epochs)


_CONTROL_MARKS = {"lr": MarkKind.LR, "stop": MarkKind.STOP, "stop_now": MarkKind.STOP}
"""What a watcher asked for; a save has the mark of its checkpoint."""


def _marks(attempt: Attempt, names: Sequence[str]) -> Iterable[Mark]:
    """What the event rail shows of an attempt, for the metrics drawn."""
    epochs = attempt.epochs
    changes = unasked_changes(attempt)
    for row, _, _ in () if is_schedule(attempt, changes) else changes:
        yield Mark(display_epoch(epochs[row]), MarkKind.LR)
    for note in saved(attempt).latest:
        yield Mark(display_epoch(note.epoch), MarkKind.CHECKPOINT)
    for control in controls(attempt):
        if control.epoch is not None and control.command in _CONTROL_MARKS:
            yield Mark(display_epoch(control.epoch), _CONTROL_MARKS[control.command])
    for name in names:
        column = attempt.metrics[name]
        if column.first_non_finite is not None:
            yield Mark(display_epoch(epochs[column.first_non_finite]), MarkKind.BAD)
    if best := _best(attempt, names):
        yield Mark(display_epoch(epochs[best[0]]), MarkKind.BEST)
    if attempt.ended and attempt.ended.how != "finished" and epochs:
        yield Mark(display_epoch(epochs[-1]), MarkKind.STOP)
