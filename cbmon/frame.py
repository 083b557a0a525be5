"""The screen as rows of text with roles: what the TUI's panels draw and `watch --once` prints. Pure.

Every function gives rows of exactly `width` columns, from view values and a size alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from cbmon.axes import LABEL_COLUMNS, x_limits
from cbmon.chart import CURVE_GLYPHS, CURVE_ROLES, Role, Row, Span, chart, lr_strip, sparkbar
from cbmon.rules import Severity, Status
from cbmon.units import UNKNOWN, cells, clock, fit, short, short_lr
from cbmon.views import ChartView, FactsView, RunView, needs_you_line

NAME_MAX = 28
"""Columns for a run's name: more would push its numbers off a screen of 80."""
NAME_MIN = 12
"""Columns that a name keeps, whatever the state's words need."""
MIDDLE_MIN = 12
"""Columns for the bar or the state in words, below which the right-hand column goes."""
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
    Severity.INFO: ("·", "-", Role.DIM),
    Severity.WARNING: ("▲", "^", Role.LOOK),
    Severity.ERROR: ("✗", "!", Role.NEEDS),
}


def head(views: Sequence[RunView], title: str, width: int, now: float | None) -> Row:
    """The top line: what is watched, how many runs need somebody, when something last changed."""
    changed = max((view.since for view in views if view.since is not None), default=None)
    when = f"    {clock(changed, now)}" if changed else ""
    left = f" cbmon  {title}"
    for names in (True, False):
        right = f"{needs_you_line(views, names=names) if views else 'no runs yet'}{when} "
        if cells(left) + 2 + cells(right) <= width:
            break
    return clip([(fit(left, max(0, width - cells(right))), Role.TITLE), (right, Role.TITLE)], width)


def runs(
    views: Sequence[RunView],
    width: int,
    height: int,
    now: float | None,
    *,
    cursor: int | None = None,
    ascii: bool = False,
) -> tuple[Row, ...]:
    """One line a run, scrolled so that the cursor is in view; at most `height` rows."""
    first = first_visible(len(views), height, cursor)
    shown = views[first : first + height]
    lines = [_run_cells(view, now, ascii) for view in shown]
    widths = [max((cells(line[column]) for line in lines), default=0) for column in range(3)]
    words = max((MIDDLE_MIN if _has_bar(view) else cells(view.word) for view in shown), default=0)
    fixed = 3 + widths[0] + widths[1] + widths[2] + 8
    longest = max((cells(view.name) for view in shown), default=0)
    name_width = min(longest, NAME_MAX, max(NAME_MIN, width - fixed - words))
    rows = []
    for index, (view, (epoch, metric, right)) in enumerate(zip(shown, lines, strict=True), first):
        middle = width - fixed - name_width
        right_width = widths[2]
        if middle < MIDDLE_MIN:
            middle, right_width = middle + right_width + 2, 0
        middle = max(0, min(middle, MIDDLE_MAX))
        role = Role.NEEDS if view.needs_you else (_STATE_ROLES[view.status] if view.status else Role.NEEDS)
        at = index == cursor
        spans: list[Span] = [
            ((">" if ascii else "▸") if at else " ", Role.CURSOR),
            (view.glyph[ascii] + " ", role),
            (fit(view.name, name_width) + "  ", Role.CURSOR if at else Role.TEXT),
            (fit(epoch, widths[0]) + "  ", Role.TEXT),
            *_middle(view, middle, role, ascii),
            ("  " + fit(metric, widths[1]), Role.TEXT),
        ]
        if right_width:
            spans.append(("  " + fit(right, right_width, right=True), Role.DIM))
        rows.append(clip(spans, width))
    return tuple(rows)


def first_visible(count: int, height: int, cursor: int | None) -> int:
    """Index of the first run shown, so that the cursor stays in the middle where it can."""
    if cursor is None or count <= height:
        return 0
    return max(0, min(cursor - height // 2, count - height))


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
        legend += [(f"{line} ", CURVE_ROLES[index % 8]), (f"{curve.label}   ", Role.TEXT)]
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
    rows = [clip(legend, width), *body]
    if rate_rows:
        rows.append(_rate_row(view, width, limits, ascii))
    return tuple(rows[:height])


def alert_rows(
    lines: Sequence[tuple[Severity, str]], width: int, height: int, *, ascii: bool = False
) -> tuple[Row, ...]:
    """The newest alerts, one a row; what does not fit is counted in the last."""
    shown = lines if len(lines) <= height else lines[: max(0, height - 1)]
    rows = []
    for severity, text in shown:
        glyph, ascii_glyph, role = _SEVERITY[severity]
        rows.append(clip([(f" {ascii_glyph if ascii else glyph} ", role), (text, Role.TEXT)], width))
    if len(shown) < len(lines) and height > 0:
        rows.append(clip([(f" {'-' if ascii else '·'} {len(lines) - len(shown)} more (e)", Role.DIM)], width))
    return tuple(rows)


def facts(view: FactsView, width: int, height: int, *, ascii: bool = False) -> tuple[Row, ...]:
    """The metrics in numbers, then what the record says about the run."""
    rows: list[Row] = []
    star = "*" if ascii else "★"
    name_width = max(8, width - 24)
    if view.metrics:
        rows.append(clip([(fit("", name_width) + f"{'last':>9}  {'best':>9}", Role.DIM)], width))
    for name, last, best in view.metrics:
        at = "" if best is None else f"{short(best[0]):>9} {star}{best[1]}"
        rows.append(
            clip([(fit(name, name_width), Role.LABEL), (f"{short(last):>9}  {at}", Role.TEXT)], width)
        )
    room = height - len(view.info) - 1
    if len(rows) > max(room, 1):
        hidden = len(rows) - max(room, 1) + 1
        rows = [*rows[: max(room, 1) - 1], clip([(f"{hidden} more (m)", Role.DIM)], width)]
    if view.info:
        rows.append(clip([], width))
    for label, value in view.info:
        rows.append(clip([(fit(label, 11), Role.DIM), (value, Role.TEXT)], width))
    return tuple(rows[:height])


def rule(width: int, *, ascii: bool = False) -> Row:
    """A line between panels."""
    return ((("-" if ascii else "─") * width, Role.AXIS),)


def empty_rows(title: str, width: int, height: int) -> tuple[Row, ...]:
    """What an empty folder shows: the lines to add to the training script."""
    lines = [
        "No training logs here yet: they will appear by themselves.",
        "",
        "In the training script:",
        "    from cbmon.callbacks import Monitor",
        f"    model.fit(..., callbacks=[Monitor({title!r})])",
        "",
        "Or with Keras alone:",
        f"    keras.callbacks.CSVLogger({title.rstrip('/') + '/training.csv'!r})",
    ]
    above = max(0, (height - len(lines)) // 2)
    texts = [""] * above + lines
    return tuple(clip([("  " + text, Role.TEXT)], width) for text in (texts + [""] * height)[:height])


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
    ascii: bool = False,
) -> tuple[Row, ...]:
    """One whole screen, as `watch --once` prints it: exactly `height` rows."""
    rows: list[Row] = [head(views, title, width, now)]
    if not views or chart_of is None:
        rows += empty_rows(title, width, height - 1)
        return tuple(rows[:height])
    rows += runs(views, width, max(1, min(len(views), height // RUNS_SHARE)), now, cursor=cursor, ascii=ascii)
    rows.append(rule(width, ascii=ascii))
    below = alert_rows(lines, width, min(len(lines), max(1, height // ALERTS_SHARE)), ascii=ascii)
    rows += curves(chart_of, views[cursor].name, width, max(0, height - len(rows) - len(below)), ascii=ascii)
    return tuple([*rows, *below][:height])


def clip(spans: Sequence[Span], width: int) -> Row:
    """Spans as a row of exactly `width` columns: cut at the right or padded."""
    row: list[Span] = []
    room = width
    for text, role in spans:
        if room <= 0:
            break
        if cells(text) > room:
            text = fit(text, room)
        room -= cells(text)
        row.append((text, role))
    if room > 0:
        row.append((" " * room, Role.TEXT))
    return tuple(row)


def text(rows: Sequence[Row]) -> str:
    """The rows without their roles, lines stripped at the right."""
    return "\n".join("".join(part for part, _ in row).rstrip() for row in rows)


def _run_cells(view: RunView, now: float | None, ascii: bool) -> tuple[str, str, str]:
    """Epochs; metric with its best; when it will be done or was last heard."""
    metric = ""
    if view.metric is not None:
        star = "*" if ascii else "★"
        best = short(view.last) if view.best is None else f"{short(view.best)} {star}{view.best_epoch}"
        metric = f"{view.metric} {best}"
    if view.done_at is not None:
        right = f"done {'~' if ascii else '≈'} {clock(view.done_at, now)}"
    else:
        right = clock(view.since, now) if view.since is not None else ""
    return ("" if view.epochs_text == UNKNOWN else view.epochs_text, metric, right)


def _has_bar(view: RunView) -> bool:
    return view.status in (Status.RUNNING, Status.GROWING) and not view.needs_you and bool(view.planned)


def _middle(view: RunView, width: int, role: Role, ascii: bool) -> list[Span]:
    """A bar where it runs by a plan, else the state in words."""
    if _has_bar(view) and view.planned:
        return [(sparkbar((view.epoch or 0) / view.planned, width, ascii), Role.BAR)]
    return [(fit(view.word, width), role)]


def _legend_width(view: ChartView) -> int:
    return sum(6 + cells(curve.label) for curve in view.curves)


def _rate_row(view: ChartView, width: int, limits: tuple[float, float], ascii: bool) -> Row:
    """The learning rate in one row, its epochs below those of the chart."""
    plot = max(0, width - GUTTER)
    reached = (view.last - limits[0]) / max(1.0, limits[1] - limits[0])
    strip = lr_strip(view.rates, min(plot, 1 + round(reached * (plot - 1))), ascii)
    return clip([(fit(" lr", GUTTER), Role.LABEL), (strip, Role.LR)], width)
