"""`cbmon replay --html`: each attempt with its chart, and the answers in words. Pure.

Each epoch of a chart tells its values when the mouse is on it, without a script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from cbmon.axes import Limits, sane, ticks, y_limits
from cbmon.chart import MarkKind
from cbmon.plots import DECADES
from cbmon.profiles import Profile
from cbmon.replay.cases import Case
from cbmon.replay.compare import versions_sentence
from cbmon.replay.explain import explain
from cbmon.replay.paste import script_lines
from cbmon.replay.picture import (
    LANES_MAX,
    RATE_RATIO,
    Lane,
    drawn_rates,
    lane,
    monitored,
    rate_cells,
    rate_ticks,
)
from cbmon.replay.report import NO_EPOCHS, TO_THE_LEFT, member_words, sentences, summary_cells
from cbmon.replay.results import Decisions, Recording, Replay, Series
from cbmon.replay.webpage import LEFT, RIGHT, WIDTH, page, section, table, text, words_list
from cbmon.series import base_name
from cbmon.thin import extremes
from cbmon.units import display_epoch, fit, plural, short, short_lr

CHARTS_MAX = 100
"""Attempts with a chart and its words; of more only the table, for a file that a browser opens at once."""
_TOP = 30.0
_POINTS_MAX = 1500
"""Points of a curve that are drawn: twice as many as there are pixels; the extremes are always among them."""
_HOVERS_MAX = 600
"""Epochs that tell their values under the mouse; of more, evenly picked ones."""


def replay_page(replays: Sequence[Replay], cases: Sequence[Case], profile: Profile) -> str:
    """The report of `cbmon replay --html`.

    Args:
        replays: The results, in order.
        cases: What they came from, one each.
        profile: Which Keras decided.
    """
    logs = dict.fromkeys(replay.log for replay in replays)
    title = f"Replay of {next(iter(logs), 'nothing') if len(logs) == 1 else plural(len(logs), 'log')}"
    parts = [f"<p>What these callbacks would have decided, as Keras {text(profile.name)} does.</p>"]
    if len(replays) > 1:
        parts.append(table(summary_cells(replays), TO_THE_LEFT))
        variants = {replay.variant: replay.callbacks for replay in replays}
        parts.append(words_list([f"{name}: {'; '.join(texts)}" for name, texts in variants.items()], "calls"))
    pairs = list(zip(replays, cases, strict=True))
    groups = [list(found) for _, found in groupby(pairs, key=lambda pair: id(pair[0].recording))]
    parts += [_attempt_section(group, profile, with_log=len(groups) > 1) for group in groups[:CHARTS_MAX]]
    if (more := len(groups) - CHARTS_MAX) > 0:
        parts.append(f"<p>{text(plural(more, 'more attempt'))} in the table above, without a chart.</p>")
    return page(title, parts)


def _attempt_section(pairs: Sequence[tuple[Replay, Case]], profile: Profile, *, with_log: bool) -> str:
    replays = [replay for replay, _ in pairs]
    first = replays[0]
    attempt = f", attempt {first.attempt}" if first.attempt > 1 else ""
    heading = (f"{first.log}{attempt}, " if with_log else "") + plural(len(first.recording.epochs), "epoch")
    rates = rate_cells(replays)
    few = rates[: 1 + 40]
    return section(
        heading.removeprefix(", "),
        figure(replays),
        *(_answer(replay, case, profile, with_name=len(pairs) > 1) for replay, case in pairs),
        table(few, ["epochs"], "Learning rate in each epoch") if few else "",
        f"<p>{text(plural(len(rates) - len(few), 'more change'))}.</p>" if len(rates) > len(few) else "",
    )


def _answer(replay: Replay, case: Case, profile: Profile, *, with_name: bool) -> str:
    """One list of callbacks on one attempt, in words."""
    made = replay.decisions
    parts = [f"<h3>{text(replay.variant)}</h3>"] if with_name else []
    if made is None:
        return "".join([*parts, f'<p class="bad">No answer: {text(replay.error)}</p>'])
    if not case.recording.epochs:
        return "".join([*parts, f"<p>{NO_EPOCHS}</p>", words_list(replay.warnings, "warnings")])
    parts.append(
        "<dl>"
        + "".join(
            f"<dt><code>{text(member.text)}</code></dt><dd>{text(member_words(replay, made, member))}</dd>"
            for member in made.members
        )
        + "</dl>"
    )
    told = [*sentences(replay, made), versions_sentence(case, replay)]
    parts += [f"<p>{text(sentence)}</p>" for sentence in told if sentence]
    parts.append(words_list(replay.warnings, "warnings"))
    if made.stopped and not any(call.is_foreign for call in case.calls):
        row = case.recording.epochs.index(made.stopped.epoch)
        why = "".join(
            f"<dt><code>{text(call)}</code></dt><dd>{words_list(words)}</dd>"
            for call, words in explain(case, row, only_stoppers=True)
        )
        number = display_epoch(made.stopped.epoch)
        parts.append(f"<details><summary>Why after epoch {number}?</summary><dl>{why}</dl></details>")
    lines = "\n".join(text(line) for line in script_lines(made.members, profile, 100))
    parts.append(f"<pre>{lines}</pre>")
    return "".join(parts)


# --- the figure ------------------------------------------------------------------------------------------

_CHART, _RATE, _LANE, _GAP = 280.0, 110.0, 26.0, 34.0
"""Heights of a chart, of the learning rates, of a line of life, and between the first two."""


_LABEL = 13.0
"""Height of a label."""


class _Axes:
    """A rectangle of the figure with its scales."""

    def __init__(self, top: float, height: float, x: Limits, y: Limits, log: bool) -> None:
        self.top, self.height, self.log = top, height, log
        self.x_limits, self.y_limits = sane(x), sane(y, log)

    def x(self, value: float) -> float:
        low, high = self.x_limits
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_limits
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        room = 8.0 if self.height < 150 else 0.0  # steps lie on the limits, and are not to lie on the axis
        return self.top + room + (1 - share) * (self.height - 2 * room)

    def lines(
        self, title: str, *, with_epochs: bool, y_ticks: Sequence[tuple[float, str]] | None = None
    ) -> Iterator[str]:
        """Grid, labels and title; `y_ticks` in place of round values."""
        if y_ticks is None:
            y_ticks = ticks(*self.y_limits, 6 if self.height > 150 else 3, self.log)
        told: list[float] = []
        for value, label in y_ticks:
            if any(abs(self.y(value) - at) < _LABEL for at in told):
                continue  # two labels in one place could not be read
            told.append(self.y(value))
            at = self.y(value)
            yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at:.1f}" y2="{at:.1f}"/>'
            yield f'<text class="tick" x="{LEFT - 8:g}" y="{at + 4:.1f}" text-anchor="end">{text(label)}</text>'
        low, high = self.x_limits
        bottom = self.top + self.height
        found = [(low, f"{low:g}"), *ticks(low, high, 12, whole=True)] if with_epochs else []
        if len(found) > 1 and self.x(found[1][0]) - self.x(low) < 9 * len(found[0][1]):
            del found[1]  # the label of the first epoch has its place
        if found:
            yield f'<text class="tick" x="{LEFT - 8:g}" y="{bottom + 18:g}" text-anchor="end">epoch</text>'
        for value, label in found:
            at = self.x(value)
            yield f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom:g}" y2="{bottom + 5:g}"/>'
            yield f'<text class="tick" x="{at:.1f}" y="{bottom + 18:g}" text-anchor="middle">{text(label)}</text>'
        yield f'<line class="axis" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{bottom:g}" y2="{bottom:g}"/>'
        yield f'<text class="title" x="{LEFT:g}" y="{self.top - 10:g}">{text(title, 80)}</text>'

    def curve(
        self, epochs: Sequence[int], values: Sequence[float | None], kind: str, *, steps: bool = False
    ) -> str:
        """A line, broken where there is no value; a lone value is a dot."""
        parts: list[str] = []
        for points in _strokes(_thinned(epochs, values), self.log):
            places = [(self.x(display_epoch(epoch)), self.y(value)) for epoch, value in points]
            path = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
            if len(places) == 1:
                path += "h.01"
            for x, y in places[1:]:
                path += f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}"
            parts.append(path)
        return f'<path class="{kind}" d="{"".join(parts)}"/>' if parts else ""


def _thinned(epochs: Sequence[int], values: Sequence[float | None]) -> list[tuple[int, float | None]]:
    """Of a long curve the first, lowest, highest and last point of each stretch."""
    points = list(zip(epochs, values, strict=False))
    if len(points) <= _POINTS_MAX:
        return points
    size, kept = math.ceil(4 * len(points) / _POINTS_MAX), []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        told = [
            (value, at) for at, (_, value) in enumerate(stretch) if value is not None and math.isfinite(value)
        ]
        rows = {0, len(stretch) - 1} | ({min(told)[1], max(told)[1]} if told else set())
        kept += [stretch[at] for at in sorted(rows)]
    return kept


def _strokes(points: Iterable[tuple[int, float | None]], log: bool) -> Iterator[list[tuple[int, float]]]:
    stroke: list[tuple[int, float]] = []
    for epoch, value in points:
        if value is not None and math.isfinite(value) and (value > 0 or not log):
            stroke.append((epoch, value))
        elif stroke:
            yield stroke
            stroke = []
    if stroke:
        yield stroke


def figure(replays: Sequence[Replay]) -> str:
    """The chart of one attempt: its metric, the learning rates, a line of life for each list of callbacks."""
    recording, metric = replays[0].recording, monitored(replays)
    told = [(replay, replay.decisions) for replay in replays if replay.decisions][:LANES_MAX]
    if metric is None or not told or len(recording.epochs) < 2:
        return ""
    return _Figure(recording, metric, told).svg()


class _Figure:
    def __init__(self, recording: Recording, metric: str, told: Sequence[tuple[Replay, Decisions]]) -> None:
        self.recording, self.metric, self.told = recording, metric, told
        self.epochs = recording.epochs
        self.lanes: list[Lane] = [lane(replay, made, metric) for replay, made in told]
        rows = len(self.epochs)
        self.columns = {name: _list(recording.metrics[name], rows) for name in self._drawn()}
        self.x = (float(display_epoch(self.epochs[0])), float(display_epoch(self.epochs[-1])))
        spans = [found for values in self.columns.values() if (found := extremes(values))]
        log = bool(spans) and min(low for low, _ in spans) > 0
        log = log and max(high for _, high in spans) > DECADES * min(low for low, _ in spans)
        y = y_limits(self.columns.values(), log=log) or (0.0, 1.0)
        self.axes = _Axes(_TOP, _CHART, self.x, y, log)
        self.rates = self._rate_axes()
        bottom = (self.rates or self.axes).top + (self.rates or self.axes).height
        self.lanes_top = bottom + 30
        self.height = self.lanes_top + _LANE * len(self.lanes) + 10

    def _drawn(self) -> list[str]:
        """The metric, and its twin of training or validation behind it."""
        base = base_name(self.metric)
        twins = [name for name in self.recording.metrics if base_name(name) == base and name != self.metric]
        return [*twins[:1], self.metric]

    def _rate_axes(self) -> _Axes | None:
        self.recorded = self.recording.learning_rate
        self.proposed = [
            (at, list(self.told[at][1].learning_rate or ())) for at in drawn_rates(self.told, self.recorded)
        ]
        if not self.proposed:
            return None
        lists = [values for _, values in self.proposed]
        if self.recorded is not None:
            lists.append(_list(self.recorded, len(self.epochs)))
        spans = [found for values in lists if (found := extremes(values, least=0.0))]
        log = bool(spans) and max(high for _, high in spans) > RATE_RATIO * min(low for low, _ in spans)
        self.rate_ticks = rate_ticks(lists, log=log)
        limits = y_limits(lists, log=log) or (0.0, 1.0)
        return _Axes(_TOP + _CHART + _GAP + 16, _RATE, self.x, limits, log)

    def svg(self) -> str:
        """The drawing with its words for those who do not see it."""
        stops = []
        for each, (_, made) in zip(self.lanes, self.told, strict=True):
            end = made.stopped and f"{_SAID[MarkKind.STOP]} {display_epoch(made.stopped.epoch)}"
            stops.append(f"{each.name}: {end or 'does not stop within this log'}")
        parts = [
            *self.axes.lines(self.metric, with_epochs=self.rates is None),
            *self._curves(),
            *self._stops(),
            *self._rate_lines(),
            *self._lane_lines(),
            *self._hovers(),
            *self._legend(),
        ]
        return (
            f'<figure><svg viewBox="0 0 {WIDTH:g} {self.height:g}" role="img">'
            f"<desc>{text('; '.join(stops))}</desc>{''.join(parts)}</svg></figure>"
        )

    def _curves(self) -> Iterator[str]:
        trained = max((each.last + 1 for each in self.lanes if each.last is not None), default=0)
        for name, values in self.columns.items():
            kind = "curve" if name == self.metric else "twin"
            start = max(trained - 1, 0)
            if trained < len(self.epochs):
                yield self.axes.curve(self.epochs[start:], values[start:], f"{kind} rest")
            yield self.axes.curve(self.epochs[:trained], values[:trained], kind)
        for row, value in enumerate(self.columns[self.metric]):
            if value is not None and not math.isfinite(value):
                x = self.axes.x(display_epoch(self.epochs[row]))
                yield f'<text class="bad" x="{x:.1f}" y="{_TOP + 12:g}" text-anchor="middle">✗</text>'
                break  # the first is what matters; a run that stays NaN would paint a bar

    def _stops(self) -> Iterator[str]:
        for at, each in enumerate(self.lanes):
            values = self.columns[self.metric]
            for row, kind in each.marks:
                x = self.axes.x(display_epoch(self.epochs[row]))
                value = values[row]
                if kind is MarkKind.STOP:
                    bottom = self.lanes_top + _LANE * (at + 0.5)
                    yield f'<line class="drop c{at % 8}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:g}" y2="{bottom:g}"/>'
                elif kind is MarkKind.BEST and value is not None and math.isfinite(value):
                    yield f'<circle class="best c{at % 8}" cx="{x:.1f}" cy="{self.axes.y(value):.1f}" r="5"/>'

    def _rate_lines(self) -> Iterator[str]:
        if self.rates is None:
            return
        yield from self.rates.lines("learning rate", with_epochs=True, y_ticks=self.rate_ticks)
        if self.recorded is not None:
            values = _list(self.recorded, len(self.epochs))
            yield self.rates.curve(self.epochs, values, "twin rest", steps=True)
        for at, values in self.proposed:
            yield self.rates.curve(self.epochs[: len(values)], values, f"rate c{at % 8}", steps=True)

    def _lane_lines(self) -> Iterator[str]:
        for at, each in enumerate(self.lanes):
            y = self.lanes_top + _LANE * (at + 0.5)
            right = WIDTH - RIGHT
            end = LEFT if each.last is None else self.axes.x(display_epoch(self.epochs[each.last]))
            name = fit(each.name, 18).rstrip() if len(self.lanes) > 1 else "trained"
            place = f'x="{LEFT - 12:g}" y="{y + 4:.1f}" text-anchor="end"'
            yield f'<text class="name c{at % 8}" {place}>{text(name)}</text>'
            yield f'<line class="grid rest" x1="{end:.1f}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<line class="life c{at % 8}" x1="{LEFT:g}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            for row, kind in each.marks:
                number = display_epoch(self.epochs[row])
                yield _mark(kind, self.axes.x(number), y, f"{each.name}: {_SAID[kind]} {number}")

    def _hovers(self) -> Iterator[str]:
        """A strip an epoch that tells its values."""
        rows = range(0, len(self.epochs), math.ceil(len(self.epochs) / _HOVERS_MAX))
        places = [self.axes.x(display_epoch(self.epochs[row])) for row in rows]
        edges = [
            LEFT,
            *((one + other) / 2 for one, other in pairwise(places)),
            WIDTH - RIGHT,
        ]
        for at, row in enumerate(rows):
            told = [f"{name} {short(values[row])}" for name, values in reversed(self.columns.items())]
            if self.recorded is not None:
                told.append(f"lr {short_lr(self.recorded[row])}")
            told += [
                f"lr {self.lanes[number].name} {short_lr(values[row])}"
                for number, values in self.proposed
                if row < len(values)
            ]
            words = text(f"epoch {display_epoch(self.epochs[row])}: {', '.join(told)}")
            yield (
                f'<rect class="hover" x="{edges[at]:.1f}" width="{max(edges[at + 1] - edges[at], 0.1):.1f}" '
                f'y="{_TOP:g}" height="{self.lanes_top - _TOP - 30:g}"><title>{words}</title></rect>'
            )

    def _legend(self) -> Iterator[str]:
        """At the right of the title: what lines and marks mean."""
        kinds = {kind for each in self.lanes for _, kind in each.marks}
        entries = [
            (f"{kind.glyph} {word}", f"m{kind.name.lower()}")
            for kind, word in _LEGEND.items()
            if kind in kinds
        ]
        if any(each.last is not None and each.last < len(self.epochs) - 1 for each in self.lanes):
            entries.insert(0, ("┄ recorded, not trained", "tick"))
        twins = [name for name in self.columns if name != self.metric]
        if twins:
            entries = [(f"━ {self.metric}", ""), *((f"─ {name}", "twinname") for name in twins), *entries]
        spans = "&#8195;".join(f'<tspan class="{kind}">{text(words, 80)}</tspan>' for words, kind in entries)
        yield f'<text class="legend" x="{WIDTH - RIGHT:g}" y="{_TOP - 10:g}" text-anchor="end">{spans}</text>'


_LEGEND = {
    MarkKind.STOP: "stops",
    MarkKind.LR: "cuts the learning rate",
    MarkKind.BEST: "best",
    MarkKind.CHECKPOINT: "saves",
}
_SAID = {
    MarkKind.STOP: "stops after epoch",
    MarkKind.LR: "cuts the learning rate after epoch",
    MarkKind.BEST: "best in epoch",
    MarkKind.CHECKPOINT: "saves after epoch",
}
_SHAPES = {
    MarkKind.STOP: "M-6-6H6V6H-6Z",
    MarkKind.LR: "M-6-5H6L0 6Z",
    MarkKind.CHECKPOINT: "M0-6L6 0 0 6-6 0Z",
    MarkKind.BEST: "M0-8L2.1-2.6 7.6-2.5 3.2 1 4.7 6.5 0 3.3-4.7 6.5-3.2 1-7.6-2.5-2.1-2.6Z",
}


def _mark(kind: MarkKind, x: float, y: float, words: str) -> str:
    name = f"m{kind.name.lower()}"
    place = f'transform="translate({x:.1f} {y:.1f})" d="{_SHAPES[kind]}"'
    return f'<path class="mark {name}" {place}><title>{text(words)}</title></path>'


def _list(series: Series | Sequence[float | None], rows: int) -> list[float | None]:
    return [series[row] for row in range(rows)]
