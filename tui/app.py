"""`cbmon watch`: the application. Glue only: a thread reads, the handlers fold, pure functions draw.

The worker thread owns the `Follower` and touches no widget; it hands batches of events to the loop. Changes are
drawn at once when it was calm, and else at most `REDRAWS_PER_S` times a second.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import Resize
from textual.message import Message
from textual.timer import Timer

from cbmon import frame
from cbmon.chart import Role, Row
from cbmon.events import Event
from cbmon.rules import Severity
from cbmon.run import Run, fold
from cbmon.sources import Follower, Log
from cbmon.tui.keys import KEYS, footer_text
from cbmon.tui.screens import HelpScreen
from cbmon.tui.widgets import Panel
from cbmon.units import printable
from cbmon.views import RunView, alert_lines, chart_view, facts_view, newest_first, run_view, unreadable_view

REDRAWS_PER_S = 10.0
"""Fast enough to look live, slow enough that a burst costs a few percent of a core."""
WIDE = 120
"""Columns from which the facts of the run stand beside the chart."""


class EventsRead(Message):
    """Batches of events, by log, from the worker."""

    def __init__(self, batches: list[tuple[Log, list[Event]]], *, is_all: bool = False) -> None:
        super().__init__()
        self.batches = batches
        self.is_all = is_all
        """Whether everything there is has been read now."""


class ReadingFailed(Message):
    """The worker ended by an error of ours."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class WatchApp(App[None]):
    """The screen: head, runs, chart with facts beside it, alerts, keys."""

    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(name, key.action, key.description, show=False, priority=name == "ctrl+c")
        for key in KEYS
        for name in key.keys.split(",")
    ]

    def __init__(self, follower: Follower, *, planned: int | None = None, is_ascii: bool = False) -> None:
        # Without an ANSI theme from the start, Textual answers NO_COLOR with shades of grey: black on black, here.
        has_color = not os.environ.get("NO_COLOR")
        super().__init__(ansi_color=None if has_color else True)
        if not has_color:
            self.theme = "ansi-dark"
        self.animation_level = "none"
        self._follower = follower
        self._title = " ".join(map(printable, follower.paths))
        self._planned = planned
        self._is_ascii = is_ascii
        self._runs: dict[Path, Run] = {}
        self._logs: dict[Path, Log] = {}
        self._views: dict[Path, RunView] = {}
        """In the order shown: newest first, as they were first seen."""
        self._dirty: set[Path] = set()
        self._is_chosen_anew = True
        """Whether the user chose something else to see since the last drawing."""
        self._alerts: list[tuple[Severity, str]] = []
        """Of the run under the cursor, and what is wrong with the watching itself."""
        self._has_read = False
        self._cursor: Path | None = None
        self._group = 0
        self._height = 24
        """Rows of the terminal, as the latest resize told: `size` still has those before it."""
        self._is_log: bool | None = None
        """What the user chose; None: the chart decides by its values."""
        self._shows_alerts = False
        self._pending: Timer | None = None
        self._drawn_at = 0.0
        self.first_read = asyncio.Event()
        """Set once everything there was at the start is on the screen."""
        self._failure = ""
        """What ended the reading, empty while it goes on."""

    def compose(self) -> ComposeResult:
        """The panels; each draws itself from this app's state."""
        yield Panel(self._draw_head, id="head")
        yield Panel(self._draw_runs, id="runs")
        yield Panel(self._draw_rule, id="rule")
        with Container(id="middle"):
            yield Panel(self._draw_chart, id="chart")
            yield Panel(self._draw_facts, id="facts")
        yield Panel(self._draw_alerts, id="alerts")
        yield Panel(self._draw_footer, id="footer")

    def on_mount(self) -> None:
        """Start reading, in a thread that ends with the screen."""
        Thread(target=self._follow, name="cbmon-follower", daemon=True).start()

    def on_unmount(self) -> None:
        """End the reading before the loop that it reports to."""
        self._follower.stop()

    def _follow(self) -> None:
        """The worker thread: read, hand over, wait. The border where an error becomes something shown."""
        try:
            changed: set[Path] | None = None
            is_first = True
            while not self._follower.is_stopped:
                self._hand_over(changed)
                if is_first and not self._follower.is_stopped:
                    self._follower.start()
                    is_first = False
                changed = self._follower.wait()
        except Exception as error:  # noqa: BLE001  # the worker's border: shown, not swallowed
            self._tell(ReadingFailed(f"reading stopped, restart cbmon: {type(error).__name__}: {error}"))

    def _hand_over(self, changed: set[Path] | None) -> None:
        """Read what changed and post it; a long read in several parts, so that the screen keeps up."""
        batches: list[tuple[Log, list[Event]]] = []
        handed_over = monotonic()
        for batch in self._follower.read(changed):
            batches.append(batch)
            if monotonic() - handed_over > 1 / REDRAWS_PER_S:
                self._tell(EventsRead(batches))
                batches, handed_over = [], monotonic()
        self._tell(EventsRead(batches, is_all=True))

    def _tell(self, message: Message) -> None:
        """Post from the worker, as long as there is a screen to tell."""
        if not self._follower.is_stopped:
            self.post_message(message)

    def on_reading_failed(self, message: ReadingFailed) -> None:
        """Show what ended the reading."""
        self._failure = message.reason
        self._schedule()

    def on_events_read(self, message: EventsRead) -> None:
        """Fold what the worker read."""
        for log, events in message.batches:
            run = self._runs.setdefault(log.path, Run())
            for event in events:
                fold(run, event)
            self._logs[log.path] = log
            self._dirty.add(log.path)
        self._has_read = self._has_read or message.is_all
        self._schedule()

    def _schedule(self) -> None:
        """Draw at once if it was calm, else a little later, together with what comes until then."""
        if self._pending is None:
            wait_s = self._drawn_at + 1 / REDRAWS_PER_S - monotonic()
            if wait_s > 0:
                self._pending = self.set_timer(wait_s, self._draw)
            else:
                self._draw()

    def _draw(self) -> None:
        """Build the views of what changed and redraw the panels; only changed lines reach the terminal."""
        self._pending, self._drawn_at = None, monotonic()
        is_stale = self._is_chosen_anew or self._shows_alerts or self._cursor in self._dirty
        fresh = {path: run_view(self._logs[path], self._runs[path], self._planned) for path in self._dirty}
        self._dirty.clear()
        self._is_chosen_anew = False
        new = newest_first({path: view for path, view in fresh.items() if path not in self._views})
        self._views = new | self._views | {path: view for path, view in fresh.items() if path not in new}
        if self._cursor is None and self._views and self._has_read:
            self._cursor, is_stale = next(iter(self._views)), True
        if is_stale:
            self._alerts = alert_lines(self._runs[self._cursor]) if self._cursor else []
        self._layout()
        for panel in self.query(Panel):
            if is_stale or panel.id not in ("chart", "facts"):
                panel.redraw()
        if self._has_read:
            self.first_read.set()

    def _layout(self) -> None:
        """Give the panels the rows they need; the chart has the rest."""
        height = self._height
        listed = len(self._listed())
        self.query_one("#runs").styles.height = min(listed, max(1, height // frame.RUNS_SHARE))
        self.query_one("#rule").styles.height = min(listed, 1)
        alerts = 0 if self._shows_alerts else len(self._alert_lines())
        self.query_one("#alerts").styles.height = min(alerts, max(1, height // frame.ALERTS_SHARE))

    # --- what the panels draw -----------------------------------------------------------------------------

    def _listed(self) -> list[RunView]:
        """The runs, and below them the files that look like logs and cannot be read."""
        unreadable = [unreadable_view(skip) for skip in self._follower.skipped if skip.looks_like_log]
        return [*self._views.values(), *unreadable]

    def _now(self) -> float | None:
        """The time of the last look at any log: the screen itself reads no clock."""
        return max((run.seen.time for run in self._runs.values() if run.seen and run.seen.time), default=None)

    def _alert_lines(self) -> list[tuple[Severity, str]]:
        failure = [(Severity.ERROR, printable(self._failure))] if self._failure else []
        trouble = [(Severity.WARNING, printable(self._follower.trouble))] if self._follower.trouble else []
        return [*failure, *self._alerts, *trouble]

    def _draw_head(self, width: int, height: int) -> list[Row]:
        return [frame.head(self._listed(), self._title, width, self._now(), ascii=self._is_ascii)]

    def _draw_rule(self, width: int, height: int) -> list[Row]:
        return [frame.rule(width, ascii=self._is_ascii)]

    def _draw_runs(self, width: int, height: int) -> tuple[Row, ...]:
        cursor = list(self._views).index(self._cursor) if self._cursor else None
        return frame.runs(self._listed(), width, height, self._now(), cursor=cursor, ascii=self._is_ascii)

    def _draw_chart(self, width: int, height: int) -> tuple[Row, ...]:
        if self._cursor is None:
            folder = printable(self._follower.paths[0])
            return frame.empty_rows(folder, width, height, ascii=self._is_ascii) if self._has_read else ()
        name = self._views[self._cursor].name
        if self._shows_alerts:
            lines = self._alert_lines()
            words = "alerts and warnings" if lines else "no alerts, no warnings"
            title = frame.clip([(f" {name}  {words}", Role.TITLE)], width, self._is_ascii)
            return (title, *frame.alert_rows(lines, width, height - 1, ascii=self._is_ascii))
        view = chart_view(self._runs[self._cursor], self._group, self._planned)
        return frame.curves(view, name, width, height, log=self._is_log, ascii=self._is_ascii)

    def _draw_facts(self, width: int, height: int) -> tuple[Row, ...]:
        if self._cursor is None:
            return ()
        return frame.facts(facts_view(self._runs[self._cursor]), width, height, ascii=self._is_ascii)

    def _draw_alerts(self, width: int, height: int) -> tuple[Row, ...]:
        return frame.alert_rows(self._alert_lines(), width, height, key="e", ascii=self._is_ascii)

    def _draw_footer(self, width: int, height: int) -> list[Row]:
        return [frame.clip([(" " + footer_text(ascii=self._is_ascii), Role.DIM)], width)]

    # --- what the keys do ---------------------------------------------------------------------------------

    def on_resize(self, event: Resize) -> None:
        """Facts beside the chart only where there is room."""
        self._height = event.size.height
        self.set_class(event.size.width < WIDE, "narrow")
        self._choose_anew()

    def on_panel_picked(self, message: Panel.Picked) -> None:
        """A click on a run chooses it."""
        if message.panel.id == "runs" and self._cursor:
            paths = list(self._views)
            height, cursor = message.panel.size.height, paths.index(self._cursor)
            shown = frame.visible(len(self._listed()), height, cursor)
            if message.row < len(shown) and shown[message.row] < len(paths):
                self._choose(paths[shown[message.row]])

    def action_move(self, by: int) -> None:
        """Choose another run."""
        if self._cursor:
            paths = list(self._views)
            self._choose(paths[max(0, min(len(paths) - 1, paths.index(self._cursor) + by))])

    def action_metric(self, by: int) -> None:
        """Show another metric."""
        self._group, self._is_log = self._group + by, None
        self._choose_anew()

    def action_log(self) -> None:
        """Logarithmic y axis, on and off."""
        if self._cursor:
            view = chart_view(self._runs[self._cursor], self._group, self._planned)
            self._is_log = not (view.spans_decades if self._is_log is None else self._is_log)
            self._choose_anew()

    def action_alerts(self) -> None:
        """All alerts in place of the chart, and back."""
        self._shows_alerts = not self._shows_alerts
        self._choose_anew()

    def action_redraw(self) -> None:
        """Send the whole screen again: something else wrote over it."""
        self.screen.refresh()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen(is_ascii=self._is_ascii))

    def _choose(self, path: Path) -> None:
        if path != self._cursor:
            self._cursor, self._group, self._is_log = path, 0, None
            self._choose_anew()

    def _choose_anew(self) -> None:
        self._is_chosen_anew = True
        self._schedule()
