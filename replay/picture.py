"""The replay as a text chart: the monitored metric, below it a line of life for each list of callbacks. Pure.

What the callbacks would not have let happen is drawn dotted and grey: it was measured, but under them it is not
trained. Never a curve that nobody measured: a learning rate is proposed, a metric never.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from cbmon.axes import LABEL_COLUMNS, Limits, only_tick
from cbmon.chart import CURVE_GLYPHS, CURVE_ROLES, Curve, MarkKind, Role, Row, Span, chart, column_of
from cbmon.plots import DECADES, GREY
from cbmon.policies import ModelCheckpoint, Monitor, TerminateOnNaN
from cbmon.replay.results import Decisions, Replay
from cbmon.series import Column, headline
from cbmon.thin import CurveValues, buffer, extremes
from cbmon.units import cells, display_epoch, fit, plural, printable, short, short_lr

HEIGHT = 11
"""Rows of the chart: with the words below it fits a terminal of 24."""
RATE_HEIGHT = 6
LANES_MAX = 8
"""Variants drawn: as many as there are colours."""
_GUTTER = LABEL_COLUMNS + 1
RATE_RATIO = 5.0
"""Ratio of learning rates above which their axis is logarithmic: on a linear one the low ones lie on 0."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What one list of callbacks makes of an attempt: how far it trains and what happens on the way."""

    name: str
    last: int | None
    """The row of its last epoch, None if not even one is trained."""
    marks: tuple[tuple[int, MarkKind], ...]
    """(row, what), the more important kinds last."""


def monitored(replays: Sequence[Replay]) -> str | None:
    """The metric that the picture shows: the first one that a callback watches and the log has."""
    metrics = replays[0].recording.metrics
    made = [replay.decisions for replay in replays if replay.decisions]
    policies = [member.policy for each in made for member in each.members]
    for policy in policies:
        if isinstance(policy, Monitor) and policy.monitor in metrics and not _saves_all(policy):
            return policy.monitor
    if any(isinstance(policy, TerminateOnNaN) for policy in policies) and "loss" in metrics:
        return "loss"
    return headline(metrics) or next(iter(metrics), None)


def lane(replay: Replay, made: Decisions, metric: str | None) -> Lane:
    """The line of life of one list of callbacks."""
    rows = {epoch: row for row, epoch in enumerate(replay.recording.epochs)}
    marks = [(rows[epoch], MarkKind.CHECKPOINT) for epoch in dict.fromkeys(e for e, _ in made.checkpoints)]
    best = [member.best for member in made.members if member.best and not _saves_all(member.policy)]
    marks += [(rows[each.epoch], MarkKind.BEST) for each in best if each.monitor == metric][:1]
    marks += [(rows[epoch], MarkKind.LR) for epoch, _ in made.cuts]
    if made.stopped:
        marks.append((rows[made.stopped.epoch], MarkKind.STOP))
    last = rows[made.stopped.epoch] if made.stopped else len(rows) - 1
    return Lane(printable(replay.variant), last if rows else None, tuple(marks))


def _saves_all(policy: object) -> bool:
    return isinstance(policy, ModelCheckpoint) and not policy.save_best_only


def picture(replays: Sequence[Replay], width: int, *, ascii: bool = False) -> list[Row]:
    """The chart of one attempt under one list of callbacks or several; no rows where there is nothing to draw.

    Args:
        replays: All of the same attempt.
        width: Columns.
        ascii: For terminals without UTF-8.
    """
    recording, metric = replays[0].recording, monitored(replays)
    told = [(replay, replay.decisions) for replay in replays if replay.decisions][:LANES_MAX]
    if metric is None or not told or width < 2 * _GUTTER or len(recording.epochs) < 2:
        return []
    lanes = [lane(replay, made, metric) for replay, made in told]
    x = (float(display_epoch(recording.epochs[0])), float(display_epoch(recording.epochs[-1])))
    column = recording.metrics[metric]
    values = column if isinstance(column, Column) else [column[row] for row in range(len(column))]
    trained = max((each.last + 1 for each in lanes if each.last is not None), default=0)
    low, high = extremes(values) or (0.0, 0.0)
    rows = [_title(printable(metric), lanes, trained < len(recording.epochs), width, ascii)]
    rows += chart(
        _parts(recording.epochs, values, trained), width=width, height=HEIGHT, x_limits=x, ascii=ascii,
        log=low > 0 and high > DECADES * low, empty="no values",
    )  # fmt: skip
    names, letters = _names(lanes)
    rows += [
        _life(each, name, recording.epochs, x, width, ascii) for each, name in zip(lanes, names, strict=True)
    ]
    return rows + _rates(told, letters, x, width, ascii)


def _parts(epochs: Sequence[int], values: CurveValues, trained: int) -> Iterator[Curve]:
    """What is not trained, from the last trained epoch on so that the line does not break, then what is."""
    if trained < len(epochs):
        start = max(trained - 1, 0)
        yield Curve(
            label="", x=epochs[start:], y=buffer(values)[start:], x_offset=1, dashed=True, number=GREY
        )
    if trained:
        yield Curve(label="", x=epochs[:trained], y=values, x_offset=1, number=0)


_WORDS = {
    MarkKind.STOP: "stops",
    MarkKind.LR: "cuts",
    MarkKind.BEST: "best",
    MarkKind.CHECKPOINT: "saves",
}


def _glyph(kind: MarkKind, ascii: bool) -> str:
    return kind.ascii_glyph if ascii else kind.glyph


def _title(metric: str, lanes: Sequence[Lane], has_rest: bool, width: int, ascii: bool) -> Row:
    spans: list[Span] = [(f" {metric}", Role.TITLE)]
    if has_rest:
        solid, dotted = (CURVE_GLYPHS[0] * 2, CURVE_GLYPHS[GREY] * 2) if ascii else ("━━", "┅┅")
        spans += [
            (f"  {solid} trained", CURVE_ROLES[0]),
            (f"  {dotted} recorded, not trained", CURVE_ROLES[GREY]),
        ]
    kinds = {kind for each in lanes for _, kind in each.marks}
    spans += [
        (f"  {_glyph(kind, ascii)} {word}", kind.role) for kind, word in _WORDS.items() if kind in kinds
    ]
    return _clipped(spans, width)


def _clipped(spans: Sequence[Span], width: int) -> Row:
    """As many of the spans as fit."""
    kept: list[Span] = []
    for text, role in spans:
        if cells(text) > width:
            kept.append((fit(text, width), role))
            break
        kept.append((text, role))
        width -= cells(text)
    return tuple(kept)


def _names(lanes: Sequence[Lane]) -> tuple[list[str], list[str]]:
    """What stands left of each line of life (nothing where there is only one), and a letter for each curve."""
    if len(lanes) == 1:
        return [""], [""]
    letters = [each.name[:1] for each in lanes]
    if len(set(letters)) == len(lanes) and all(cells(letter) == 1 for letter in letters):
        return [each.name for each in lanes], letters
    letters = [chr(ord("a") + number) for number in range(len(lanes))]
    return [f"{letter} {each.name}" for letter, each in zip(letters, lanes, strict=True)], letters


def _life(lane: Lane, name: str, epochs: Sequence[int], x: Limits, width: int, ascii: bool) -> Row:
    """`━━━▼━━★━━■┄┄┄`: trained, what happened, not trained."""

    def at(row: int) -> int:
        return (column_of(display_epoch(epochs[row]), width, x, ascii=ascii) or _GUTTER) - _GUTTER

    solid, dotted = "-." if ascii else "━┄"
    end = -1 if lane.last is None else at(lane.last)
    drawn = [(solid, Role.BAR) if column <= end else (dotted, Role.DIM) for column in range(width - _GUTTER)]
    for row, kind in lane.marks:
        drawn[at(row)] = (_glyph(kind, ascii), kind.role)
    spans: list[Span] = [(fit(f" {name}", _GUTTER - 1) + " ", Role.LABEL)]
    spans += [
        ("".join(glyph for glyph, _ in run), role) for role, run in groupby(drawn, key=lambda each: each[1])
    ]
    return tuple(spans)


# --- learning rates --------------------------------------------------------------------------------------


def _rates(
    told: Sequence[tuple[Replay, Decisions]], letters: Sequence[str], x: Limits, width: int, ascii: bool
) -> list[Row]:
    """The proposed learning rates over the recorded one; no rows where nothing is proposed or known."""
    recording = told[0][0].recording
    epochs, recorded = recording.epochs, recording.learning_rate
    proposed = drawn_rates(told, recorded)
    if not proposed:
        return []
    curves, legend = [], [(" learning rate", Role.TITLE)]
    solid, dotted = "━━", "┅┅"
    if recorded is not None:
        curves.append(_steps(epochs, [recorded[row] for row in range(len(recorded))], GREY, dashed=True))
        mark = CURVE_GLYPHS[GREY] * 2 if ascii else dotted
        legend.append((f"  {mark} recorded", CURVE_ROLES[GREY]))
    for number in proposed:
        (replay, made), letter = told[number], letters[number]
        name = printable(replay.variant) if letter else "proposed"
        name = name if name.startswith(letter) else f"{letter} {name}"
        curves.append(_steps(epochs, list(made.learning_rate or ()), number, letter=letter))
        mark = CURVE_GLYPHS[number % len(CURVE_GLYPHS)] * 2 if ascii else solid
        legend.append((f"  {mark} {name}", CURVE_ROLES[number % len(CURVE_ROLES)]))
    spans = [found for curve in curves if (found := extremes(curve.y, least=0.0))]
    ratio = max(high for _, high in spans) / min(low for low, _ in spans) if spans else 1.0
    return [
        _clipped(legend, width),
        *chart(
            curves, width=width, height=RATE_HEIGHT, x_limits=x, ascii=ascii, log=ratio > RATE_RATIO,
            y_ticks=rate_ticks([curve.y for curve in curves], log=ratio > RATE_RATIO),
        ),
    ]  # fmt: skip


def rate_ticks(rates: Iterable[CurveValues], *, log: bool) -> list[tuple[float, str]]:
    """Where each curve begins and ends, and its limits: actual rates, where round ones may lie far from any."""
    told: list[float] = []
    for values in rates:
        found = [value for value in values if value is not None and math.isfinite(value)]
        if found := [value for value in found if value > 0 or not log]:
            told += found[0], found[-1], max(found), min(found)
    return [only_tick(value) for value in dict.fromkeys(told)]


def drawn_rates(told: Sequence[tuple[Replay, Decisions]], recorded: object) -> list[int]:
    """Whose learning rates are drawn: of none if none proposes any; else without a recorded one of all."""
    is_any = any(proposes(made) for _, made in told)
    return [
        number
        for number, (_, made) in enumerate(told)
        if proposes(made) or (is_any and recorded is None and made.learning_rate is not None)
    ]


def proposes(made: Decisions) -> bool:
    """Whether there is a learning rate to show that is not simply the recorded one."""
    return made.learning_rate is not None and (
        made.changed_at is not None or bool(made.cuts) or made.exact is None
    )


def _steps(
    epochs: Sequence[int], values: CurveValues, number: int, *, dashed: bool = False, letter: str = ""
) -> Curve:
    return Curve(
        label="", x=epochs[: len(values)], y=values, x_offset=1, steps=True, number=number, dashed=dashed,
        letter=letter,
    )  # fmt: skip


RATE_ROWS = 12
"""Rows of the table of learning rates; a schedule changes in every epoch."""


def rate_cells(replays: Sequence[Replay]) -> list[list[str]]:
    """The proposed learning rates beside the recorded one, by stretches of epochs in which none changes.

    A heading and a row each; nothing where nothing is proposed. `◂` stands where a list first trains at another
    rate than was recorded; `–` is not trained or unknown.
    """
    told = [(replay, replay.decisions) for replay in replays if replay.decisions][:LANES_MAX]
    if not any(proposes(made) for _, made in told):
        return []
    epochs, recorded = told[0][0].recording.epochs, told[0][0].recording.learning_rate
    titles = ["proposed"] if len(told) == 1 else [printable(replay.variant) for replay, _ in told]
    columns = [[_rate(made, row) for row in range(len(epochs))] for _, made in told]
    leaves = [made.diverges_at for _, made in told]
    if recorded is not None:
        titles.insert(0, "recorded")
        columns.insert(0, [short_lr(recorded[row]) for row in range(len(epochs))])
        leaves.insert(0, None)

    def line(row: int) -> list[str]:
        marks = ("◂" if leave == epochs[row] else "" for leave in leaves)
        return [column[row] + mark for column, mark in zip(columns, marks, strict=True)]

    def state(row: int) -> list[tuple[str, bool]]:
        gone = (leave is not None and epochs[row] >= leave for leave in leaves)
        return list(zip((column[row] for column in columns), gone, strict=True))

    table = [["epochs", *titles]]
    for _, found in groupby(range(len(epochs)), key=state):
        stretch = list(found)
        one, other = display_epoch(epochs[stretch[0]]), display_epoch(epochs[stretch[-1]])
        table.append([f"{one}–{other}" if other > one else str(one), *line(stretch[0])])
    return table


def rate_table(replays: Sequence[Replay], width: int) -> list[str]:
    """The same as lines, no more of them than a screen takes."""
    table = rate_cells(replays)
    if not table:
        return []
    shown = table[: RATE_ROWS + 1]
    widths = [max(cells(line[at]) for line in shown) for at in range(len(shown[0]))]
    while len(widths) > 2 and sum(widths) + 2 * len(widths) > width:
        widths.pop()  # the last variants have their lines of life
    lines = ["Learning rate in each epoch:"]
    for line in shown:
        told = [fit(cell, wide) for cell, wide in zip(line, widths, strict=False)]
        lines.append(f"  {'  '.join(told)}".rstrip())
    if (more := len(table) - len(shown)) > 0:
        lines.append(f"  and {plural(more, 'more change')}")
    return lines


def _rate(made: Decisions, row: int) -> str:
    rates = made.learning_rate
    return short_lr(rates[row]) if rates and row < len(rates) else short(None)


# --- colours ---------------------------------------------------------------------------------------------

_COLOURS = {
    Role.AXIS: "90", Role.LABEL: "90", Role.DIM: "90", Role.BAR: "36", Role.TITLE: "1",
    Role.STOP: "1;31", Role.BAD: "1;31", Role.LR: "33", Role.BEST: "1;32", Role.CHECKPOINT: "34",
    **dict(zip(CURVE_ROLES, ("36", "35", "33", "32", "34", "31", "95", "90"), strict=True)),
}  # fmt: skip
"""SGR codes of the terminal's own 16 colours, which its user chose to be readable."""


def drawn(rows: Sequence[Row], *, colours: bool) -> list[str]:
    """The rows as lines of text."""
    lines = []
    for row in rows:
        if not colours:
            lines.append("".join(text for text, _ in row).rstrip())
            continue
        parts = [
            f"\x1b[{_COLOURS[role]}m{text}\x1b[0m" if role in _COLOURS and text.strip() else text
            for text, role in row
        ]
        lines.append("".join(parts))
    return lines
