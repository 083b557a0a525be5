"""The screen as rows of text with roles: what the TUI's panels draw and `watch --once` prints. Pure.

Every function gives rows of exactly `width` columns, from view values and a size alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from cbmon.axes import LABEL_COLUMNS, x_limits
from cbmon.chart import CURVE_GLYPHS, CURVE_ROLES, Role, Row, Span, chart, lr_strip, sparkbar
from cbmon.rules import Severity, Status
from cbmon.units import UNKNOWN, cells, clock, fit, short, short_lr
from cbmon.views import ChartView, FactsView, RunView, ascii_only, needs_you_line

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
RUNS_SHARE = 3
"""The list of runs takes at most one third of the screen's height."""
ALERTS_SHARE = 6
"""The alerts below the chart take at most one sixth of it."""

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
}
_SEVERITY = {
    Severity.INFO: ("·", Role.DIM),
    Severity.WARNING: ("▲", Role.LOOK),
    Severity.ERROR: ("✗", Role.NEEDS),
}


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

    Where room is short the word "done" goes first, then the times, then the metrics; the state goes last.
    """
    indices = visible(len(views), height, cursor)
    first, shown = indices.start, views[indices.start : indices.stop]
    epochs = _column(["" if view.epochs_text == UNKNOWN else view.epochs_text for view in shown])
    metrics = _metrics(shown, width // METRIC_SHARE)
    words = max((MIDDLE_MIN if _has_bar(view) else cells(view.word) for view in shown), default=0)
    words = min(words, WORDS_MIN)
    names = max((cells(view.name) for view in shown), default=0)
    for done in ("done ≈ ", "≈ "):
        times = _column([_time(view, now, done) for view in shown], right=True)
        fixed = 3 + sum(2 + cells(column[0]) for column in (epochs, metrics, times) if column) + 2 + 1
        if fixed + min(names, NAME_MAX) + words <= width:
            break
    name_width = min(names, NAME_MAX, max(NAME_MIN, width - fixed - words))
    middle = width - fixed - name_width
    if middle < words and times:
        middle, times = middle + 2 + cells(times[0]), []
    if middle < MIDDLE_MIN and metrics:
        middle, metrics = middle + 2 + cells(metrics[0]), []
    middle = max(0, min(middle, MIDDLE_MAX))
    rows = []
    for index, view in enumerate(shown):
        role = Role.NEEDS if view.needs_you else (_STATE_ROLES[view.status] if view.status else Role.NEEDS)
        at = first + index == cursor
        spans: list[Span] = [
            ("▸" if at else " ", Role.CURSOR),
            (view.glyph + " ", role),
            (_fit_name(view.name, name_width) + "  ", Role.CURSOR if at else Role.TEXT),
        ]
        if epochs:
            spans.append((epochs[index] + "  ", Role.TEXT))
        spans += _middle(view, middle, role)
        if metrics:
            spans.append(("  " + metrics[index], Role.TEXT))
        if times:
            spans.append(("  " + times[index], Role.DIM))
        rows.append(clip(spans, width, ascii))
    if len(rows) < min(len(views), height):
        above, below = indices.start, len(views) - indices.stop
        parts = [f"{count} more {where}" for count, where in ((above, "above"), (below, "below")) if count]
        rows.append(clip([(f"   {', '.join(parts)}", Role.DIM)], width, ascii))
    return tuple(rows)


def visible(count: int, height: int, cursor: int | None) -> range:
    """Which runs are shown: the cursor in the middle where it can be, a row left to say how many are not."""
    if count <= height:
        return range(count)
    rows = height - 1 if height > 2 else height
    first = max(0, min((cursor or 0) - rows // 2, count - rows))
    return range(first, first + rows)


def curves(
    view: ChartView, name: str, width: int, height: int, *, log: bool | None = None, ascii: bool = False
) -> tuple[Row, ...]:
    """The chart of one metric with its title and legend above and the learning rate below.

    Args:
        view: What to draw.
        name: The run's name, for the title.
        width: Columns.
        height: Rows.
        log: Logarithmic y axis; None: if the values span decades.
        ascii: For terminals without UTF-8.
    """
    log = view.spans_decades if log is None else log
    metric = f"  {view.title}{' (log)' if log else ''}"
    known = [rate for rate in view.rates if rate is not None]
    if known:
        metric += f"   lr {short_lr(known[-1])}"
    room = max(0, width - _legend_width(view))
    heading = fit(f" {name}", max(0, min(cells(name) + 1, room - cells(metric) - 1))) + metric
    legend: list[Span] = [(fit(heading, room), Role.TITLE)]
    for index, curve in enumerate(view.curves):
        line = CURVE_GLYPHS[index % 8] * 2 if ascii else ("┄┄" if curve.dashed else "──")
        legend += [(f"  {line} ", CURVE_ROLES[index % 8]), (f"{curve.label} ", Role.TEXT)]
    rate_rows = 1 if known and height > 8 else 0
    limits = x_limits(view.first, view.last, view.planned)
    body = chart(
        view.curves,
        width=width,
        height=max(0, height - 1 - rate_rows),
        x_limits=limits,
        log=log,
        ascii=ascii,
        marks=view.marks,
    )
    rows = [clip(legend, width, ascii), *body]
    if rate_rows:
        rows.append(_rate_row(view, width, limits, ascii))
    return tuple(rows[:height])


def alert_rows(
    lines: Sequence[tuple[Severity, str]], width: int, height: int, *, key: str = "", ascii: bool = False
) -> tuple[Row, ...]:
    """The first alerts, one a row; what does not fit is counted in the last, with the `key` that shows it."""
    shown = lines if len(lines) <= height else lines[: max(0, height - 1)]
    rows = []
    for severity, text in shown:
        glyph, role = _SEVERITY[severity]
        rows.append(clip([(f" {glyph} ", role), (text, Role.TEXT)], width, ascii))
    if len(shown) < len(lines) and height > 0:
        more = f" · {len(lines) - len(shown)} more{f' ({key})' if key else ''}"
        rows.append(clip([(more, Role.DIM)], width, ascii))
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
    label_width = max([11, *(cells(label) + 1 for label, _ in info)])
    for label, value in info:
        rows.append(clip([(fit(label, min(label_width, 20)), Role.DIM), (value, Role.TEXT)], width, ascii))
    return tuple(rows[:height])


def rule(width: int, *, ascii: bool = False) -> Row:
    """A line between panels."""
    return clip([("─" * width, Role.AXIS)], width, ascii)


def empty_rows(title: str, width: int, height: int, *, ascii: bool = False) -> tuple[Row, ...]:
    """What an empty folder shows: the lines to add to the training script."""
    lines = [
        ("No training logs here yet: they will appear by themselves.", Role.TITLE),
        ("", Role.TEXT),
        ("In the training script:", Role.DIM),
        ("    from cbmon.callbacks import Monitor", Role.TEXT),
        (f"    model.fit(..., callbacks=[Monitor({title!r})])", Role.TEXT),
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
    folder: str | None = None,
    ascii: bool = False,
) -> tuple[Row, ...]:
    """One whole screen, as `watch --once` prints it: exactly `height` rows.

    `folder` is where a script should log to, told if there is no run; None: the title.
    """
    rows: list[Row] = [head(views, title, width, now, ascii=ascii)]
    if views:
        listed = max(1, min(len(views), height // RUNS_SHARE))
        rows += runs(views, width, listed, now, cursor=cursor, ascii=ascii)
        rows.append(rule(width, ascii=ascii))
    below = alert_rows(lines, width, min(len(lines), max(1, height // ALERTS_SHARE)), ascii=ascii)
    room = max(0, height - len(rows) - len(below))
    if not views:
        rows += empty_rows(folder or title, width, room, ascii=ascii)
    elif chart_of:
        rows += curves(chart_of, views[cursor].name, width, room, ascii=ascii)
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
    return ["".join(parts) for parts in zip(*filter(None, columns), strict=True)] if any(names) else []


def _time(view: RunView, now: float | None, done: str) -> str:
    """When it will be done, or was last heard."""
    if view.done_at is not None:
        return done + clock(view.done_at, now)
    return "" if view.since is None else clock(view.since, now)


def _fit_name(name: str, width: int) -> str:
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
    return view.status in (Status.RUNNING, Status.GROWING) and not view.needs_you and bool(view.planned)


def _middle(view: RunView, width: int, role: Role) -> list[Span]:
    """A bar where it runs by a plan, else the state in words."""
    if _has_bar(view) and view.planned:
        return [(sparkbar((view.epoch or 0) / view.planned, width), Role.BAR)]
    return [(fit(view.word, width), role)]


def _legend_width(view: ChartView) -> int:
    return sum(6 + cells(curve.label) for curve in view.curves)


def _rate_row(view: ChartView, width: int, limits: tuple[float, float], ascii: bool) -> Row:
    """The learning rate in one row, its epochs below those of the chart."""
    plot = max(0, width - GUTTER)
    reached = (view.last - limits[0]) / max(1.0, limits[1] - limits[0])
    strip = lr_strip(view.rates, min(plot, 1 + round(reached * (plot - 1))))
    return clip([(fit(" lr", GUTTER), Role.LABEL), (strip, Role.LR)], width, ascii)
