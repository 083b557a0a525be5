"""The screen as rows of text with roles: what the TUI's panels draw and `watch --once` prints. Pure.

Every function gives rows of exactly `width` columns, from view values and a size alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from msgspec.structs import replace

from cbmon.axes import LABEL_COLUMNS, Limits, only_tick, sane
from cbmon.chart import (
    CURVE_GLYPHS,
    CURVE_ROLES,
    Curve,
    Role,
    Row,
    Span,
    chart,
    fit_y,
    level,
    lr_strip,
    sparkbar,
)
from cbmon.plots import GREY, ChartView, latest, reading
from cbmon.plots import x_limits as all_epochs
from cbmon.rules import Severity, Status
from cbmon.strokes import Scale
from cbmon.thin import extremes
from cbmon.units import UNKNOWN, cells, clock, fit, short, short_lr
from cbmon.views import (
    EpochsView,
    FactsView,
    RunView,
    ascii_only,
    best_runs,
    needs_you_line,
    summary_cells,
)

BEST_OF_ALL = "◂"
"""Behind the best value of all runs: colour alone is not for all eyes."""
NAME_MAX = 28
"""Columns for a run's name: more would push its numbers off a screen of 80."""
NAME_MIN = 12
"""Columns that a name keeps, whatever the state's words need."""
WORDS_MIN = 24
"""Columns that the state's words have before names and times: "stopped by EarlyStopping"."""
METRIC_SHARE = 5
"""The metric's name takes at most one fifth of the width: its value is what people look for."""
MIDDLE_MIN = 12
"""Columns for the bar or the state in words, below which the metric goes."""
MIDDLE_MAX = 48
"""More would put a run's numbers too far from its name."""
SUMMARY_MIN = 4
"""Columns of the table of all runs: name, state, epoch and best; the last goes where the state has no room."""
CHART_SHARE = 3
"""Runs, callbacks and alerts together take at most one third of the screen's height: the rest is the chart's."""
ALERTS_SHARE = 6
"""The alerts alone take at most one sixth of it."""

STRIP_MAX = 4
"""Callbacks told below the chart; with more the chart would go."""
OLD_S = 6 * 3600.0
"""Quiet for longer than this is old news: few epochs take six hours."""
BAND_FROM = 22
"""Rows of the chart's panel from which the learning rate and the other metrics get small charts below it."""
BAND_ROWS = 8
SMALL_MIN = 36
"""Columns of a small chart."""

GUTTER = LABEL_COLUMNS + 1
"""Columns left of a chart's plot: labels and the axis."""

_STATE_ROLES = {
    Status.RUNNING: Role.TEXT,
    Status.GROWING: Role.TEXT,
    Status.QUIET: Role.LOOK,
    Status.FINISHED: Role.GOOD,
    Status.STOPPED: Role.GOOD,
    Status.INTERRUPTED: Role.LOOK,
    Status.FAILED: Role.NEEDS,
    Status.CRASHED: Role.NEEDS,
    Status.EMPTY: Role.DIM,
    Status.GONE: Role.DIM,
}
_SEVERITY = {
    Severity.INFO: ("·", Role.DIM),
    Severity.WARNING: ("▲", Role.LOOK),
    Severity.ERROR: ("✗", Role.NEEDS),
}


def shares(height: int, listed: int, told: int, alerts: int) -> tuple[int, int, int]:
    """How many rows of a screen the runs, the callbacks' lines and the alerts get of what they have.

    Where that is too much for the chart, what is further down goes first: it is counted, and a key shows it.
    """
    room = max(1, height // CHART_SHARE)
    rows = {"runs": min(listed, room), "strip": min(told, STRIP_MAX)}
    rows["alerts"] = min(alerts, max(1, height // ALERTS_SHARE))
    least = ("alerts", 2), ("runs", 4), ("strip", 2), ("runs", 3), ("strip", 0), ("runs", 1), ("alerts", 0)
    for name, keeps in least:
        rows[name] -= max(0, min(sum(rows.values()) - room, rows[name] - keeps))
    return rows["runs"], rows["strip"], rows["alerts"]


def worst_first(lines: Sequence[tuple[Severity, str]]) -> list[tuple[Severity, str]]:
    """Alerts by how bad they are: where there is room for one, it is the worst."""
    return sorted(lines, key=lambda line: -list(_SEVERITY).index(line[0]))


def head(views: Sequence[RunView], title: str, width: int, now: float | None, *, ascii: bool = False) -> Row:
    """The top line: what is watched, how many runs need somebody, when something last changed."""
    changed = max((view.since for view in views if view.since is not None), default=None)
    when = f"    {clock(changed, now)}" if changed else ""
    left = f" cbmon  {title}"
    for names in (True, False):
        right = f"{needs_you_line(views, names=names) if views else 'no runs yet'}{when} "
        if cells(left) + 2 + cells(right) <= width:
            break
    return clip(
        [(fit(left, max(0, width - cells(right) - 1)) + " ", Role.TITLE), (right, Role.TITLE)], width, ascii
    )


def runs(
    views: Sequence[RunView],
    width: int,
    height: int,
    now: float | None,
    *,
    cursor: int | None = None,
    ascii: bool = False,
) -> tuple[Row, ...]:
    """One line a run, scrolled so that the cursor is in view; at most `height` rows.

    Where room is short the word "done" goes first, then the times, then the metrics' names and the metrics; the
    state goes last.
    """
    indices = visible(len(views), height, cursor)
    first, shown = indices.start, views[indices.start : indices.stop]
    best = best_runs(views)
    marks = _column([view.letter for view in shown])
    epochs = _column(["" if view.epochs_text == UNKNOWN else view.epochs_text for view in shown])
    metrics = _metrics(shown, width // METRIC_SHARE)
    words = max((MIDDLE_MIN if _has_bar(view) else cells(view.word) for view in shown), default=0)
    words = min(words, WORDS_MIN)
    names = max((cells(view.name) for view in shown), default=0)
    for done in ("done ≈ ", "≈ "):
        times = _column([_time(view, now, done) for view in shown], right=True)
        fixed = (
            3
            + bool(marks)
            + bool(best)
            + sum(2 + cells(column[0]) for column in (epochs, metrics, times) if column)
            + 2
            + 1
        )
        if fixed + min(names, NAME_MAX) + words <= width:
            break
    name_width = min(names, NAME_MAX, max(NAME_MIN, width - fixed - words))
    middle = width - fixed - name_width
    if middle < words and times:
        middle, times = middle + 2 + cells(times[0]), []
    least = min(words, MIDDLE_MIN)
    if middle < least and metrics and (values := _metrics(shown, 0)):
        middle, metrics = middle + cells(metrics[0]) - cells(values[0]), values
    if middle < least and metrics:
        middle, metrics = middle + 2 + cells(metrics[0]) + bool(best), []
    middle = max(0, min(middle, MIDDLE_MAX))
    rows = []
    for index, view in enumerate(shown):
        role = _state_role(view, now)
        at = first + index == cursor
        spans: list[Span] = [
            ("▸" if at else " ", Role.CURSOR),
            *([(marks[index], mark_role(view.mark))] if marks else []),
            (view.glyph + " ", role),
            (fit_name(view.name, name_width) + "  ", Role.CURSOR if at else Role.TEXT),
        ]
        if epochs:
            spans.append((epochs[index] + "  ", Role.TEXT))
        spans += _middle(view, middle, role)
        if metrics:
            is_best = first + index in best
            spans.append(("  " + metrics[index], Role.GOOD if is_best else Role.TEXT))
            if best:
                spans.append((BEST_OF_ALL if is_best else " ", Role.GOOD))
        if times:
            spans.append(("  " + times[index], Role.DIM))
        rows.append(clip(spans, width, ascii))
    if len(rows) < min(len(views), height):
        rows.append(_more(indices, len(views), width, ascii))
    return tuple(rows)


def mark_role(mark: int | None) -> Role:
    """The colour of a marked run, the same in the list and on the chart."""
    return Role.TEXT if mark is None else CURVE_ROLES[mark % len(CURVE_ROLES)]


def summary(
    views: Sequence[RunView],
    width: int,
    height: int,
    now: float | None,
    *,
    cursor: int | None = None,
    ascii: bool = False,
) -> tuple[Row, ...]:
    """All runs as a table on the whole screen: a heading, then as many as fit around the cursor.

    Where room is short the last columns go first, before the state's words.
    """
    indices = visible(len(views), max(0, height - 1), cursor)
    shown = views[indices.start : indices.stop]
    best, marks = best_runs(views), _column([view.letter for view in shown])
    table = summary_cells(shown, now, width // METRIC_SHARE)
    columns = [_column(texts, right=at >= 2) for at, texts in enumerate(zip(*table, strict=True))]
    name_least = min(cells(columns[0][0]), NAME_MIN) + 2
    while True:
        room = width - 1 - 2 * bool(marks) - sum(2 + cells(column[0]) for column in columns[2:])
        words = min(cells(columns[1][0]), WORDS_MIN if len(columns) > SUMMARY_MIN else MIDDLE_MIN)
        if room >= name_least + words or len(columns) < SUMMARY_MIN:
            break
        columns.pop()
    name_width = min(cells(columns[0][0]), max(NAME_MIN, room // 2))
    state_width = max(0, min(cells(columns[1][0]), room - name_width - 2))
    rows = []
    for line in range(len(shown) + 1):
        index = indices.start + line - 1
        view = shown[line - 1] if line else None
        at = view is not None and index == cursor
        role = Role.DIM if view is None else Role.TEXT
        state = role if view is None else _state_role(view, now)
        spans: list[Span] = [("▸" if at else " ", Role.CURSOR)]
        if marks:
            mark = marks[line - 1] if view else " "
            spans.append((f"{mark} ", mark_role(view.mark if view else None)))
        spans.append((fit_name(columns[0][line].rstrip(), name_width) + "  ", Role.CURSOR if at else role))
        spans.append((fit(columns[1][line].rstrip(), state_width), state))
        for number, column in enumerate(columns[2:]):
            is_best = view is not None and number == 1 and index in best
            spans.append(("  " + column[line], Role.GOOD if is_best else role))
        rows.append(clip(spans, width, ascii))
    if len(shown) < len(views) and height > len(rows):
        rows.append(_more(indices, len(views), width, ascii))
    return tuple(rows[:height])


def epochs(view: EpochsView, width: int, height: int, *, ascii: bool = False) -> tuple[Row, ...]:
    """A stretch of the epochs as a table, its heading first; columns that have no room are counted."""
    table = [view.names, *view.rows]
    columns = [_column(texts, right=True) or [""] * len(table) for texts in zip(*table, strict=True)]
    room, kept = width - 1, len(columns)
    widths = [2 + cells(column[0]) for column in columns]
    while kept and sum(widths[:kept]) > room - (0 if kept == len(columns) else len(_left_out(columns, kept))):
        kept -= 1
    rows = []
    for line in range(len(table)):
        is_heading, at = line == 0, view.cursor is not None and line - 1 == view.cursor
        text = "".join("  " + column[line] for column in columns[:kept])
        if is_heading and kept < len(columns):
            text += _left_out(columns, kept)
        role = Role.DIM if is_heading else Role.CURSOR if at else Role.TEXT
        rows.append(clip([("▸" if at else " ", Role.CURSOR), (text, role)], width, ascii))
    return tuple(rows[:height])


def _left_out(columns: Sequence[object], kept: int) -> str:
    return f"  +{len(columns) - kept}"


def _more(shown: range, count: int, width: int, ascii: bool) -> Row:
    """How many runs are above and below those shown."""
    parts = [
        f"{more} more {where}"
        for more, where in ((shown.start, "above"), (count - shown.stop, "below"))
        if more
    ]
    return clip([(f"   {', '.join(parts)}", Role.DIM)], width, ascii)


def _state_role(view: RunView, now: float | None) -> Role:
    """Red, amber or green; a log that cannot tell that it ended is dim once it is old."""
    if (
        view.status is Status.QUIET
        and view.since is not None
        and now is not None
        and now - view.since > OLD_S
    ):
        return Role.DIM
    if view.needs_you or view.status is None:
        return Role.NEEDS
    return Role.LOOK if view.is_stuck else _STATE_ROLES[view.status]


def visible(count: int, height: int, cursor: int | None) -> range:
    """Which runs are shown: the cursor in the middle where it can be, a row left to say how many are not."""
    if count <= height:
        return range(count)
    rows = height - 1 if height > 2 else height
    first = max(0, min((cursor or 0) - rows // 2, count - rows))
    return range(first, first + rows)


def curves(
    view: ChartView,
    name: str,
    width: int,
    height: int,
    *,
    log: bool | None = None,
    x_limits: Limits | None = None,
    y_before: Limits | None = None,
    epoch: int | None = None,
    others: Sequence[ChartView] = (),
    ascii: bool = False,
) -> tuple[tuple[Row, ...], Limits | None]:
    """The chart of one metric: title and legend, or what is read at an epoch, above; the learning rate below.

    Args:
        view: What to draw.
        name: The run's name, for the title; "" where several runs are shown.
        width: Columns.
        height: Rows.
        log: Logarithmic y axis; None: if the values span decades.
        x_limits: Epochs shown; None: all.
        y_before: The y limits of the last drawing of the same picture: they only widen.
        epoch: The epoch that is read, 1-based.
        others: Other metrics, drawn small below where there is room.
        ascii: For terminals without UTF-8.

    Returns:
        The rows, and the y limits.
    """
    log = view.spans_decades if log is None else log
    x_limits = x_limits or all_epochs(view)
    small = _small(view, others, width, height)
    has_band = bool(small)
    rate_rows = BAND_ROWS if has_band else 0 if view.rates is None or height <= 8 else 1
    y_limits = fit_y(view.curves, x_limits, log=log, previous=y_before)
    body = chart(
        view.curves,
        width=width,
        height=max(0, height - 1 - rate_rows),
        x_limits=x_limits,
        y_limits=y_limits,
        log=log,
        ascii=ascii,
        marks=view.marks,
        cursor=epoch,
        empty="no values here" if view.last > 1 else "no values yet",
    )
    rows = [_title_row(view, name, width, log, epoch, ascii), *body]
    notes = " · ".join(view.notes.get(epoch, ())) if epoch is not None else ""
    if has_band:
        rows += _band(small, width, rate_rows, x_limits, epoch, ascii)
    elif rate_rows:
        rows.append(_rate_row(view, width, x_limits, ascii))
    if notes and len(rows) > 2:  # over the plot's first row, beside its label
        rows[1] = clip([*_start(rows[1], GUTTER), (f" {notes}", Role.LOOK)], width, ascii)
    return tuple(rows[:height]), y_limits


def small_at(
    view: ChartView, others: Sequence[ChartView], width: int, height: int, row: int, column: int
) -> int | None:
    """In which small chart below the large one a row and a column are: 1 for the first of `others`, and so on.

    0 is that of the learning rate, None the large chart.
    """
    small = _small(view, others, width, height)
    if not small or row < height - BAND_ROWS:
        return None
    place = sum(column >= width * number // len(small) for number in range(1, len(small)))
    return place + (view.rates is None)


def _small(view: ChartView, others: Sequence[ChartView], width: int, height: int) -> list[ChartView]:
    """What is drawn small below the chart, where there is room."""
    if height < BAND_FROM:
        return []
    return [*([_rates_view(view, view.rates)] if view.rates else []), *others][: width // SMALL_MIN]


def _start(row: Row, columns: int) -> list[Span]:
    """The first columns of a row of a chart, whose characters have one column each."""
    kept: list[Span] = []
    for text, role in row:
        kept.append((text[:columns], role))
        columns -= len(kept[-1][0])
    return kept


def _band(
    views: Sequence[ChartView], width: int, height: int, x_limits: Limits, epoch: int | None, ascii: bool
) -> list[Row]:
    """Small charts side by side, over the same epochs."""
    rows: list[Row] = [()] * height
    for number, view in enumerate(views):
        columns = (width * (number + 1)) // len(views) - (width * number) // len(views)
        log, y_limits, y_ticks = view.spans_decades, None, None
        if view.curves and view.curves[0].steps and (rate := level(view.curves[0], x_limits)):
            log, y_limits, y_ticks = False, (0.0, 2 * rate), [only_tick(rate)]  # a line in the middle
        body = chart(
            view.curves,
            width=columns,
            height=height - 1,
            x_limits=x_limits,
            y_limits=y_limits or fit_y(view.curves, x_limits, log=log),
            log=log,
            ascii=ascii,
            cursor=epoch,
            y_ticks=y_ticks,
        )
        told = latest(view) if epoch is None else reading(view, epoch)
        values = "".join(f"  {value}" for _, value in told)
        name = fit(f" {view.title}", min(1 + cells(view.title), max(0, columns - 1 - cells(values))))
        title: Row = clip([(name, Role.LABEL), (values, Role.TEXT)], columns, ascii)
        rows = [row + more for row, more in zip(rows, (title, *body), strict=True)]
    return rows


def _rates_view(view: ChartView, rates: Curve) -> ChartView:
    """The learning rate as a chart of its own."""
    lowest, highest = extremes(rates.y, slice(rates.count), 0.0) or (0.0, 0.0)
    return replace(
        view,
        title="learning rate",
        curves=(rates,),
        names=("lr",),
        rates=None,
        spans_decades=lowest < highest,
        letters=False,
    )


def _title_row(view: ChartView, name: str, width: int, log: bool, epoch: int | None, ascii: bool) -> Row:
    """Name and metric at the left; the legend, or the values at an epoch, at the right."""
    title = view.title if epoch is None else view.title.partition(" · ")[0]  # the epoch before the attempt
    metric = f"  {title}{' (log)' if log else ''}" + ("" if epoch is None else f"   epoch {epoch}")
    rate = "" if view.rate is None or epoch is not None else f"   lr {short_lr(view.rate)}"
    legend = _legend(view, width, cells(name) + 2 + cells(metric + rate), epoch, ascii)
    room = max(0, width - sum(cells(text) for text, _ in legend))
    if min(cells(name), NAME_MIN) + 1 + cells(metric + rate) <= room:
        metric += rate
    columns = max(0, min(cells(name), room - cells(metric) - 2))
    shown = f" {fit_name(name, columns)}" if columns else ""
    return clip(
        [(fit(shown + (metric if shown.strip() else " " + metric[2:]), room), Role.TITLE), *legend],
        width,
        ascii,
    )


def _legend(view: ChartView, width: int, title: int, epoch: int | None, ascii: bool) -> list[Span]:
    """What each curve is and its value, beside a title of so many columns; what has no room is counted.

    Values go before the title's end, the title before earlier attempts.
    """
    if epoch is not None:
        read = reading(view, epoch)
        values = [f"{label} {value}" for label, value in read]
        if view.letters and sum(6 + cells(value) for value in values) + title > width:
            values = [f"{curve.letter} {value}" for curve, (_, value) in zip(view.curves, read, strict=False)]
    else:
        values = list(view.names) if view.letters else [curve.label for curve in view.curves]
    entries: list[list[Span]] = []
    earlier: list[list[Span]] = []
    for index, text in enumerate(values):
        if index < len(view.curves):
            curve = view.curves[index]
            number = index if curve.number is None else curve.number
            line = CURVE_GLYPHS[number % 8] * 2 if ascii else ("┄┄" if curve.dashed else "──")
            kind = earlier if curve.number == GREY and not view.letters else entries
            kind.append([(f"  {line} ", CURVE_ROLES[number % 8]), (f"{text} ", Role.TEXT)])
        else:
            entries.append([(f"  {text} ", Role.TEXT)])
    entries, now = [*entries, *earlier], len(entries)
    widths = [sum(cells(text) for text, _ in entry) for entry in entries]
    for kept in range(len(entries), -1, -1):
        more = _left_out(entries, kept) + " " if kept < len(entries) else ""
        beside = title if kept > now else min(title, width // METRIC_SHARE)
        if kept <= 1 or sum(widths[:kept]) + cells(more) + beside <= width:
            break
    return [*(span for entry in entries[:kept] for span in entry), *([(more, Role.DIM)] if more else [])]


def strip_rows(lines: Sequence[str], width: int, height: int, *, ascii: bool = False) -> tuple[Row, ...]:
    """Where the callbacks stand, one a row; what has no room is left out from its end, item by item."""
    return tuple(
        clip([(f" {_whole_items(line, width - 1)}", Role.LABEL)], width, ascii) for line in lines[:height]
    )


def _whole_items(line: str, width: int) -> str:
    """The first items of a line that have room, none of them cut but the only one."""
    kept = ""
    for item in re.split("(?= · | ★)", line):
        if kept and cells(kept + item) > width:
            break
        kept += item
    return kept


def alerts_page(
    lines: Sequence[tuple[Severity, str]],
    name: str,
    width: int,
    height: int,
    first: int = 0,
    *,
    ascii: bool = False,
) -> tuple[Row, ...]:
    """All alerts and warnings of a run from the `first` one on, under a title."""
    title = f" {name}  {'alerts and warnings' if lines else 'no alerts, no warnings'}"
    if first:
        title += f", from {first + 1} of {len(lines)}"
    rows = alert_rows(lines[first:], width, height - 1, key="PgDn", ascii=ascii)
    return (clip([(title, Role.TITLE)], width, ascii), *rows)[: max(0, height)]


def alert_rows(
    lines: Sequence[tuple[Severity, str]], width: int, height: int, *, key: str = "", ascii: bool = False
) -> tuple[Row, ...]:
    """The first alerts, one a row; what does not fit is counted in the last, with the `key` that shows it.

    In a single row the count stands behind the first alert.
    """
    shown = lines if len(lines) <= height else lines[: max(1, height - 1)]
    how = f" ({key})" if key else ""
    more = f"{len(lines) - len(shown)} more{how}" if len(shown) < len(lines) else ""
    beside = f"  +{more.replace(' more', '')} " if more and height == 1 else ""
    rows = []
    for severity, text in shown[: max(0, height)]:
        glyph, role = _SEVERITY[severity]
        row: list[Span] = [(f" {glyph} ", role), (text, Role.TEXT)]
        if beside:
            row[1] = fit(text, min(cells(text), max(0, width - 3 - cells(beside)))), Role.TEXT
            row.append((beside, Role.DIM))
        rows.append(clip(row, width, ascii))
    if more and height > 1:
        rows.append(clip([(f" · {more}", Role.DIM)], width, ascii))
    return tuple(rows)


def facts(view: FactsView, width: int, height: int, *, ascii: bool = False) -> tuple[Row, ...]:
    """The metrics in numbers, then what the record says about the run."""
    rows: list[Row] = []
    at = [f" ★{best[1]}" if best else "" for _, _, best in view.metrics]
    name_width = max(8, width - 20 - max(map(len, at), default=0))
    if view.metrics:
        rows.append(clip([(fit("", name_width) + f"{'last':>9}  {'best':>9}", Role.DIM)], width, ascii))
    for (name, last, best), epoch in zip(view.metrics, at, strict=True):
        numbers = f"{short(last):>9}  {short(best[0]) if best else '':>9}{epoch}"
        rows.append(clip([(fit(name, name_width), Role.LABEL), (numbers, Role.TEXT)], width, ascii))
    info = view.info[: max(height // 2, height - len(rows) - 1)]
    room = max(2, height - len(info) - 1) if info else height
    if len(rows) > room:
        more = f"{len(rows) - room + 1} more (m)"
        rows = [*rows[: room - 1], clip([(more, Role.DIM)], width, ascii)]
    if info and rows:
        rows.append(clip([], width))
    label_width = min(max([11, *(cells(label) + 1 for label, _ in info)]), 20)
    free = height - len(rows) - len(info)
    for label, value in info:
        lines = _wrapped(value, width - label_width, 1 + max(0, free))
        free -= len(lines) - 1
        for number, line in enumerate(lines):
            name = fit("" if number else label, label_width)
            rows.append(clip([(name, Role.DIM), (line, Role.TEXT)], width, ascii))
    return tuple(rows[:height])


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """Text in lines of so many columns, cut between its parts where it has any; the last of `most` has the rest."""
    lines: list[str] = []
    while len(lines) < most - 1 and 0 < width < cells(text):
        taken = next(at for at in range(len(text) + 1) if cells(text[: at + 1]) > width)
        ends = (text.rfind(" · ", 1, taken + 3), text.rfind(" ", 1, taken + 1), text.rfind("/", 1, taken) + 1)
        taken = next((end for end in ends if end > 0), taken)
        if not taken:
            break
        lines.append(text[:taken].rstrip())
        text = text[taken:].lstrip()
    return [*lines, text]


def rule(width: int, *, ascii: bool = False) -> Row:
    """A line between panels."""
    return clip([("─" * width, Role.AXIS)], width, ascii)


def empty_rows(
    title: str, width: int, height: int, *, remote: Sequence[str] = (), ascii: bool = False
) -> tuple[Row, ...]:
    """What an empty folder shows: the lines to add to the training script.

    `remote` is the call of RemoteMonitor that sends to us, in lines; empty where nobody listens.
    """
    is_live = title.startswith("unix://")
    what = "live runs" if is_live else "training logs"
    lines = [
        (f"No {what} here yet: they will appear by themselves.", Role.TITLE),
        ("", Role.TEXT),
    ]
    if remote:
        lines += [
            ("Listening. In the training script, with a NAME of its own:", Role.DIM),
            (f"    keras.callbacks.{remote[0]}", Role.TEXT),
            *((f"    {line}", Role.TEXT) for line in remote[1:]),
            ("", Role.TEXT),
        ]
    lines += [
        ("Or, where this folder can be written:" if remote else "In the training script:", Role.DIM),
        ("    from cbmon.callbacks import Monitor", Role.TEXT),
        (f"    model.fit(..., callbacks=[Monitor({title!r})])", Role.TEXT),
    ]
    if not is_live:
        lines += [
            ("", Role.TEXT),
            ("Or with Keras alone:", Role.DIM),
            (f"    keras.callbacks.CSVLogger({title.rstrip('/') + '/training.csv'!r})", Role.TEXT),
        ]
    above = [("", Role.TEXT)] * ((height - len(lines)) // 2)
    below = [("", Role.TEXT)] * height
    return tuple(
        clip([("  " + text, role)], width, ascii) for text, role in [*above, *lines, *below][: max(0, height)]
    )


def frame(
    views: Sequence[RunView],
    chart_of: ChartView | None,
    lines: Sequence[tuple[Severity, str]],
    title: str,
    width: int,
    height: int,
    now: float | None,
    *,
    cursor: int = 0,
    strip: Sequence[str] = (),
    folder: str | None = None,
    ascii: bool = False,
) -> tuple[Row, ...]:
    """One whole screen, as `watch --once` prints it: exactly `height` rows.

    `strip` is what goes on in the chosen run; `folder` is where a script should log to, told if there is no run;
    None: the title.
    """
    rows: list[Row] = [head(views, title, width, now, ascii=ascii)]
    listed, told, warned = shares(height, len(views), len(strip), len(lines))
    if views:
        rows += runs(views, width, listed, now, cursor=cursor, ascii=ascii)
        rows.append(rule(width, ascii=ascii))
    below = (
        *strip_rows(strip, width, told, ascii=ascii),
        *alert_rows(worst_first(lines), width, warned, ascii=ascii),
    )
    room = max(0, height - len(rows) - len(below))
    if not views:
        rows += empty_rows(folder or title, width, room, ascii=ascii)
    elif chart_of:
        rows += curves(chart_of, views[cursor].name, width, room, ascii=ascii)[0]
    else:
        rows += [clip([], width)] * room
    return tuple([*rows, *below][:height])


def clip(spans: Sequence[Span], width: int, ascii: bool = False) -> Row:
    """Spans as a row of exactly `width` columns: cut at the right or padded. All rows but a chart's end here."""
    row: list[Span] = []
    room = width
    for text, role in spans:
        if room <= 0:
            break
        if cells(text) > room:
            text = fit(text, room)
        room -= cells(text)
        row.append((ascii_only(text) if ascii else text, role))
    if room > 0:
        row.append((" " * room, Role.TEXT))
    return tuple(row)


def text(rows: Sequence[Row]) -> str:
    """The rows without their roles, lines stripped at the right."""
    return "\n".join("".join(part for part, _ in row).rstrip() for row in rows)


def _column(texts: Sequence[str], *, right: bool = False) -> list[str]:
    """The texts in one width; none if all are empty."""
    width = max(map(cells, texts), default=0)
    return [fit(text, width, right=right) for text in texts] if width else []


def _metrics(views: Sequence[RunView], name_max: int) -> list[str]:
    """Metric, best value (the last, where no direction is known) and its epoch, in columns."""
    names = [fit(view.metric or "", min(name_max, cells(view.metric or ""))) for view in views]
    values = [
        "" if view.metric is None else short(view.last if view.best is None else view.best) for view in views
    ]
    epochs = ["" if view.best_epoch is None else f" ★{view.best_epoch}" for view in views]
    columns = (_column(names), _column([f" {value}" for value in values], right=True), _column(epochs))
    if not any(view.metric for view in views):
        return []
    texts = ["".join(parts) for parts in zip(*filter(None, columns), strict=True)]
    return texts if any(names) else [text.removeprefix(" ") for text in texts]


def _time(view: RunView, now: float | None, done: str) -> str:
    """When it will be done, or was last heard."""
    if view.done_at is not None:
        return done + clock(view.done_at, now)
    return "" if view.since is None else clock(view.since, now)


def fit_name(name: str, width: int) -> str:
    """A name cut in its middle: names of one experiment differ at the end."""
    if cells(name) <= width:
        return fit(name, width)
    start = fit(name, width // 3).rstrip()
    end = ""
    for char in reversed(name):
        if cells(start + char + end) > width:
            break
        end = char + end
    return fit(start + end, width)


def _has_bar(view: RunView) -> bool:
    goes_on = view.status in (Status.RUNNING, Status.GROWING) and not view.needs_you
    return goes_on and not view.says and bool(view.planned)


def _middle(view: RunView, width: int, role: Role) -> list[Span]:
    """A bar where it runs by a plan, else the state in words."""
    if _has_bar(view) and view.planned:
        done = view.epoch or (0 if view.part is None else view.behind) or 0
        return [(sparkbar((done + (view.part or 0.0)) / view.planned, width), Role.BAR)]
    return [(fit(view.word, width), role)]


def _rate_row(view: ChartView, width: int, limits: tuple[float, float], ascii: bool) -> Row:
    """The learning rate in one row, its epochs below those of the chart."""
    plot, sides, strip = max(0, width - GUTTER), 1 if ascii else 2, ""
    if view.rates and (count := view.rates.count):
        x, y, offset = view.rates.x, view.rates.y, view.rates.x_offset
        across = Scale.over(*sane(limits), plot * sides)

        def column_of(epoch: float) -> int:
            return across.dot(epoch + offset) // sides

        shown = range(min(plot, 1 + column_of(x[count - 1])))
        rows = (bisect_right(x, column, 0, count, key=column_of) for column in shown)
        strip = lr_strip([y[row - 1] if row else None for row in rows], len(shown))
    return clip([(fit(" lr", GUTTER), Role.LABEL), (strip, Role.LR)], width, ascii)
