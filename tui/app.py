"""`cbmon watch`: the application. Glue only: a thread reads, the handlers fold, pure functions draw.

The worker thread owns the `Follower` and touches no widget; it hands batches of events to the loop. Changes are
drawn at once when it was calm, and else at most so often that drawing takes a tenth of the time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Semaphore, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from msgspec.structs import replace
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.containers import Container
from textual.events import Event as TerminalEvent
from textual.events import Key as KeyPressed
from textual.events import Resize
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer

from cbmon import frame, plots
from cbmon.axes import Limits, Window, window_limits
from cbmon.chart import Role, Row, epoch_at
from cbmon.endpoint import Answer
from cbmon.errors import BadCall
from cbmon.events import CallbackState, EpochsEnded, Event, Progress, Tick
from cbmon.rules import Severity, Status, present_rate, status
from cbmon.run import Run, fold
from cbmon.sources import READ_BYTES, Log, Skipped, Source
from cbmon.tui import told
from cbmon.tui.driver import driver_class, redraw
from cbmon.tui.keys import CONTROL, KEYS, Key, footer_text, label_of
from cbmon.tui.look import Look, Main
from cbmon.tui.screens import Following, HelpScreen, palette
from cbmon.tui.widgets import Palette, Panel, broken
from cbmon.units import cells, printable, short_lr
from cbmon.views import (
    ORDERS,
    RunView,
    alert_lines,
    ascii_only,
    epochs_view,
    facts_view,
    matches,
    newest_first,
    no_control,
    ordered,
    run_view,
    strip_lines,
    unreadable_view,
)
from cbmon.wire import Wires, answer_words, read_rate, read_target

if TYPE_CHECKING:
    from cbmon.replay.shadow import Shadow
    from cbmon.replay.whatif import WhatIf
    from cbmon.tui.control import Question
    from cbmon.tui.whatif import WhatIfScreen
    from cbmon.word import Notes, Word

MAX_FPS = 10.0
"""Fast enough to look live, slow enough that a burst costs a few percent of a core."""
DRAWING_SHARE = 0.1
"""Drawing takes at most this part of the time while changes keep coming."""
PAUSE_MAX_S = 0.4
"""However long a drawing takes: what changed is on the screen that soon."""
CROWD = 64
"""Runs that change at once from which those off the screen wait."""
SWEEP_S = 4.0
"""How long they wait: so late is the head's count of runs that need somebody."""
FIRST_READ_S = 0.1
"""What is read before the first picture: most folders whole, and a second picture is dearer than that."""
FIRST_LEFT = 12 << 20
"""Of a log with more bytes left only the beginning is in that picture: the rest takes 7 ms a MiB."""
NUMPY_ROWS = 50_000
"""Of a log of so many the drawings take 10 ms more without NumPy, whose import (60 ms) no key shall wait for."""
KEYS_FIRST_S = 0.1
"""A large log waits so long for its next part once a key was pressed: on two cores both would be slow."""
PART_S = 0.25
"""What is read for longer is shown in parts: a picture more often would cost the reading a fifth of its time."""
SWITCH_S = 0.001
"""A thread's turn: a key takes the loop five to ten turns, and Python's own 5 ms for each would be seen."""
AHEAD = 1
"""Messages of the worker's that wait while one is folded: it reads on meanwhile, and keys wait behind no queue."""
FACTS_MIN = 46
"""Columns of the facts; a wider screen gives them more."""
OTHERS_MAX = 3
"""Small charts of other metrics below the large one."""
NAME_ASKED = 8
"""Columns that a run's name keeps in a question about it, however narrow the screen."""
NAME_SAVED = 20
"""Columns that it has before what is typed."""
READ_ONLY = "read-only"
READ_ONLY_WORDS = "read-only: L, S and X ask nothing of a training (watch --read-only)"
WIDE = 120
"""Columns from which the facts of the run stand beside the chart."""


T = TypeVar("T")
Batch: TypeAlias = tuple[Log, list[Event]]
"""What the follower hands over: a log and what is new in it."""


def _rows(event: Event) -> int:
    return len(event.epochs) if isinstance(event, EpochsEnded) else 0


def _words(error: Exception) -> str:
    return f"reading stopped, restart cbmon: {type(error).__name__}: {error}"


class EventsRead(Message):
    """Batches of events, by log, from the worker."""

    def __init__(self, batches: list[Batch], *, is_all: bool = False) -> None:
        super().__init__()
        self.batches = batches
        self.is_all = is_all
        """Whether everything there is has been read now."""


class ReadingFailed(Message):
    """The worker ended by an error of ours."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Answered(Message):
    """A training has answered a request, or never will."""

    def __init__(self, path: Path, answer: Answer) -> None:
        super().__init__()
        self.path = path
        self.answer = answer


class Noted(Message):
    """There is another line of `Notes`."""


class WatchApp(App[None]):
    """The screen: head, runs, chart with facts beside it, callbacks' state, alerts, keys."""

    CSS_PATH = "app.tcss"
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(name, key.action, key.description, show=False, priority=name == "ctrl+c" or key.opens)
        for key in KEYS
        for name in key.keys.split(",")
        if key.action != "command_palette"
    ]

    def __init__(
        self,
        follower: Source,
        *,
        planned: int | None = None,
        is_ascii: bool = False,
        max_fps: float = MAX_FPS,
        policies: Callable[[], Sequence[Shadow]] = tuple,
    ) -> None:
        """Take what is watched.

        Args:
            follower: reads the logs.
            planned: epochs, for logs that cannot tell.
            is_ascii: no characters beyond ASCII.
            max_fps: pictures a second at most.
            policies: makes the callbacks to be followed beside a run, new ones for each run.
        """
        # Without an ANSI theme from the start, Textual answers NO_COLOR with shades of grey: black on black, here.
        has_color = not os.environ.get("NO_COLOR")
        super().__init__(driver_class=driver_class(), ansi_color=None if has_color else True)
        if not has_color:
            self.theme = "ansi-dark"
        self.animation_level = "none"
        self._follower = follower
        self._title = " ".join(map(printable, follower.paths))
        self._planned = planned
        self._is_ascii = is_ascii
        self._max_fps = max_fps
        self._policies = policies
        self.word: Word | None = None
        """To whom new alerts are told."""
        self.wires: Wires | None = None
        """By which trainings are asked; None: the keys for that are not there."""
        self.notes: Notes | None = None
        """Lines of who else works in this process; set it before the start."""
        self.is_awaited = False
        """Whether trainings send to this process and wait for its answers."""
        self._unheard: set[Path] = set()
        """Runs that changed since `word` looked at them."""
        self._shadows: dict[Path, Sequence[Shadow]] = {}
        self._what_if: WhatIfScreen | None = None
        """The latest one: the next begins with its question."""
        self._runs: dict[Path, Run] = {}
        self._logs: dict[Path, Log] = {}
        self._views: dict[Path, RunView] = {}
        """In the order shown when nothing else was asked for: newest first, as they were first seen."""
        self._listing: tuple[dict[Path, RunView], str, str, dict[Path, RunView]] = ({}, "", "", {})
        """Of which views, in which order and by which filter the runs were listed last, and what came of it."""
        self._dirty: set[Path] = set()
        """Runs with new events."""
        self._looked: set[Path] = set()
        """Runs whose logs were looked at and have nothing new: only their state may have changed."""
        self._moved: set[Path] = set()
        """Runs that told how far their epoch is, and nothing else: of the chosen one the chart stays as it is."""
        self._is_strip_stale = False
        """Whether that is to be drawn of the chosen run."""
        self._looked_at: float | None = None
        """The time of the last look at any log."""
        self._is_chosen_anew = True
        """Whether the user chose something else to see since the last drawing."""
        self._alerts: list[tuple[Severity, str]] = []
        """Of the chosen run."""
        self._strip: list[str] = []
        """What goes on in the chosen run, in lines."""
        self._is_first_choice = False
        """Whether the chosen run is only the first of those read so far: another one may come before it."""
        self._has_read = False
        self._taken = Semaphore(AHEAD)
        """Released for each message of the worker's that was folded."""
        self._rest: Iterator[Batch] | None = None
        """What is still to be read when the first picture is drawn."""
        self._look = Look()
        self._width, self._height = 80, 24
        """Of the terminal, as the latest resize told: `size` still has those before it."""
        self._picture: plots.ChartView | None = None
        """What the chart shows now."""
        self._limits: Limits = (1.0, 10.0)
        """Its epochs."""
        self._keyed_at = 0.0
        """When a key was last pressed, by the monotonic clock."""
        self._notice, self._is_notice_good = "", False
        """What the last key could not do, or what came of it."""
        self._answers: dict[Path, deque[told.Answered]] = {}
        """The last ones of each run, the newest first."""
        self._pending: Timer | None = None
        self._drawn_at = 0.0
        self._swept_at = 0.0
        """When the views of runs off the screen were made anew."""
        self._drawing_s = 0.0
        """How long the last drawing took."""
        self._drew_looks = False
        """Whether it was of nothing but looks into running epochs."""
        self.first_read = asyncio.Event()
        """Set once everything there was at the start is on the screen."""
        self._failure = ""
        """What ended the reading, empty while it goes on."""
        self._fault = ""
        """What the latest drawing failed by, before it came to the panels."""

    def compose(self) -> ComposeResult:
        """The panels; each draws itself from this app's state."""
        yield (palette := Palette())
        yield Panel(self._draw_head, palette, id="head")
        yield Panel(self._draw_runs, palette, id="runs")
        yield Panel(self._draw_rule, palette, id="rule")
        with Container(id="middle"):
            yield Panel(self._draw_main, palette, id="main")
            yield Panel(self._draw_facts, palette, id="facts")
        yield Panel(self._draw_strip, palette, id="strip")
        yield Panel(self._draw_alerts, palette, id="alerts")
        yield Panel(self._draw_footer, palette, id="footer")

    def on_load(self) -> None:
        """Before the first picture: read what a moment is enough for."""
        try:
            self._rest = self._read_a_moment(iter(self._follower.read()))
        except Exception as error:  # noqa: BLE001  # as in the worker
            self._failure = _words(error)

    async def on_event(self, event: TerminalEvent) -> None:
        """Note when a key was pressed."""
        if isinstance(event, KeyPressed):
            self._keyed_at = monotonic()
        await super().on_event(event)

    def on_mount(self) -> None:
        """What is told to the app from outside."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(RuntimeError, NotImplementedError):  # no main thread, no signals: a test, a browser
                asyncio.get_running_loop().add_signal_handler(number, self.exit, None, 128 + number)
        if self.notes is not None:
            self.notes.changed = lambda: self._tell(Noted())
        self.call_after_refresh(self._settle)

    def _read_a_moment(self, reading: Iterator[Batch]) -> Iterator[Batch] | None:
        """Read before the first picture; gives what is left, None if all was read."""
        until = monotonic() + FIRST_READ_S
        is_long = False
        for count, (log, events) in enumerate(reading, 1):
            self._take([(log, events)])
            is_long |= log.left > FIRST_LEFT
            if monotonic() > until or (is_long and count >= len(self._follower.logs)):
                break
        else:
            self._has_read = True
        if any(len(run.current.epochs) >= NUMPY_ROWS for run in self._runs.values()):
            import_module("numpy")
        return None if self._has_read else reading

    def _settle(self) -> None:
        """After the first picture, which it would hold up: read the rest, and what comes, in a thread."""
        gc.freeze()  # what was made so far stays, 200 KB of garbage too: to find it would hold up a key by 20 ms
        gc.enable()
        sys.setswitchinterval(SWITCH_S)
        if not self._failure:
            Thread(target=self._follow, args=(self._rest,), name="cbmon-follower", daemon=True).start()

    def on_unmount(self) -> None:
        """End the reading before the loop that it reports to."""
        self._follower.stop()
        self._taken.release()

    # --- reading ------------------------------------------------------------------------------------------

    def _follow(self, reading: Iterator[Batch] | None) -> None:
        """The worker thread: read, hand over, wait. The border where an error becomes something shown."""
        try:
            if reading is not None:
                self._hand_over(reading)
            if not self._follower.is_stopped:
                self._follower.start()
            while not self._follower.is_stopped:
                self._hand_over(self._follower.read(self._follower.wait()))
        except Exception as error:  # noqa: BLE001  # the worker's border: shown, not swallowed
            self._tell(ReadingFailed(_words(error)))

    def _hand_over(self, reading: Iterable[Batch]) -> None:
        """Read what changed and post it; a long read in several parts, so that the screen keeps up."""
        batches: list[Batch] = []
        rows: Counter[Path] = Counter()
        handed_over = monotonic()
        for log, events in reading:
            batches.append((log, events))
            read = sum(map(_rows, events))
            rows[log.path] += read
            if rows[log.path] >= NUMPY_ROWS and log.left >= READ_BYTES:
                import_module("numpy")
            if read >= NUMPY_ROWS or monotonic() - handed_over > max(PART_S, 1 / self._max_fps):
                self._tell(EventsRead(batches))
                self._taken.acquire(timeout=1.0)
                batches, handed_over = [], monotonic()
            if log.left:
                sleep(max(0.0, self._keyed_at + KEYS_FIRST_S - monotonic()))
        self._tell(EventsRead(batches, is_all=True))
        self._taken.acquire(timeout=1.0)
        if max(rows.values(), default=0) >= NUMPY_ROWS:
            import_module("numpy")  # now that all is on the screen

    def _tell(self, message: Message) -> None:
        """Post from the worker, as long as there is a screen to tell."""
        if not self._follower.is_stopped:
            self.post_message(message)

    def on_reading_failed(self, message: ReadingFailed) -> None:
        """Show what ended the reading."""
        self._failure = message.reason
        self._schedule()

    def on_answered(self, message: Answered) -> None:
        """Show what a training answered, and keep it."""
        path, done, words = message.path, message.answer.done, printable(answer_words(message.answer), 1000)
        kept = self._answers.setdefault(path, deque(maxlen=told.ANSWERS_KEPT))
        kept.appendleft(told.Answered(self._now(), done, words))
        self._choose_anew(
            words if path == self._look.run else f"{self._views[path].name}: {words}", is_good=done
        )

    def on_noted(self, message: Noted) -> None:
        """Show what somebody else in this process has to say."""
        self._schedule()

    def on_events_read(self, message: EventsRead) -> None:
        """Fold what the worker read."""
        self._take(message.batches)
        self._taken.release()
        if message.is_all and not self._has_read:
            self._has_read = True
            self._draw_at_once()  # all is there
        else:
            self._schedule()

    def _take(self, batches: Iterable[Batch]) -> None:
        for log, events in batches:
            run = self._runs.setdefault(log.path, Run())
            is_look = is_move = True
            for event in events:
                fold(run, event)
                if not isinstance(event, Tick):
                    is_look, is_move = False, is_move and isinstance(event, Progress)
                elif event.time:
                    self._looked_at = max(self._looked_at or event.time, event.time)
            self._logs[log.path] = log
            (self._looked if is_look else self._moved if is_move else self._dirty).add(log.path)

    # --- drawing ------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Draw at once if it was calm, else a little later, together with what comes until then.

        The end of an epoch does not wait behind a look into it: it is drawn before its time, the next one later.
        """
        now = monotonic()
        due = self._drawn_at + max(1 / self._max_fps, min(self._drawing_s / DRAWING_SHARE, PAUSE_MAX_S))
        if due <= now or (self._dirty and self._drew_looks):
            if self._pending is not None:
                self._pending.stop()
            self._draw(max(now, min(due, now + PAUSE_MAX_S / 2)))
        elif self._pending is None:
            self._pending = self.set_timer(due - now, self._draw)

    def _draw(self, drawn_at: float | None = None) -> None:
        """Renew what is shown and redraw the panels; only changed lines reach the terminal."""
        begun = monotonic()
        self._pending, self._drawn_at = None, drawn_at or begun
        self._drew_looks = not (self._dirty or self._is_chosen_anew)
        if not self.is_running:  # it ends: its panels may be gone
            return
        self._fault = ""
        is_stale = self._guarded(self._renew, True)
        self._guarded(self._send_word, None)
        self._guarded(self._layout, None)
        unchanged = {"facts"} | ({"main"} if self._look.shows_epochs else set())
        unchanged |= set() if self._is_strip_stale else {"strip"}
        for panel in self.query(Panel):
            if is_stale or panel.id not in unchanged:
                panel.redraw()
        for screen in self.screen_stack[1:]:
            if isinstance(screen, Following):
                self._guarded(screen.follow, None)
        if self._has_read:
            self.first_read.set()
        self._follower.seen = self._guarded(self._seen, None) if len(self._runs) > CROWD else None
        self._drawing_s = monotonic() - begun
        if self._dirty or self._looked or self._moved:
            self._schedule()

    def _guarded(self, part: Callable[[], T], otherwise: T) -> T:
        """The border of what comes before the panels: an error is shown, and the rest goes on."""
        try:
            return part()
        except Exception as error:  # noqa: BLE001  # shown, not swallowed
            self._fault = broken(error)
            self._dirty.clear()
            self._looked.clear()
            self._moved.clear()
            self.query_one("#alerts").styles.height = 1
            return otherwise

    def _view(self, path: Path) -> RunView:
        """A run as the list shows it; one that we fail on hides no other."""
        try:
            return run_view(self._logs[path], self._runs[path], self._planned)
        except Exception as error:  # noqa: BLE001  # shown, not swallowed
            return replace(
                unreadable_view(Skipped(path, "")),
                name=printable(self._logs[path].name),
                word=printable(broken(error)),
            )

    def _renew(self) -> bool:
        """Build the views of what changed; gives whether what is drawn of the chosen runs is another picture."""
        look = self._look
        is_stale = self._is_chosen_anew or look.run in self._dirty or not self._dirty.isdisjoint(look.marks)
        due = self._due()
        if self.word is not None:
            self._unheard |= due
        fresh = {path: self._view(path) for path in due}
        self._is_strip_stale = look.run in self._moved & due
        if look.run in fresh and not is_stale:
            new, old = fresh[look.run], self._views.get(look.run)
            if self._is_strip_stale and old is not None:
                old = replace(old, part=new.part, done_at=new.done_at, since=new.since)
            is_stale = new != old
        self._dirty -= due
        self._looked -= due
        self._moved -= due
        self._is_chosen_anew = False
        first_seen = newest_first({path: view for path, view in fresh.items() if path not in self._views})
        rest = {path: view for path, view in fresh.items() if path not in first_seen}
        self._views = first_seen | self._views | rest
        if self._views and (look.run is None or self._is_first_choice):
            first = next(iter(self._listed() or self._views))
            if first != look.run:
                look.choose(first)
                is_stale = True
            self._is_first_choice = not self._has_read
        if is_stale or self._is_strip_stale:
            self._alerts = alert_lines(self._runs[look.run]) if look.run else []
            shadows = self._look_at_shadows()
            if is_stale:
                self._picture = self._new_picture({call: fired for call, _, _, fired in shadows})
            self._strip = [] if look.run is None else strip_lines(self._runs[look.run], shadows, self._now())
        return is_stale

    def _send_word(self) -> None:
        """Let word be sent of new alerts: of none that was there when all had been read first."""
        if self.word is None:
            return
        looked = {path for path in self._unheard if self._logs[path].left == 0}
        if self._has_read and not self.word.has_begun:
            looked |= self._runs.keys()
        self._unheard -= looked
        for path in looked:
            self.word.look(path, self._logs[path].name, self._runs[path])
        self.word.tell()
        if self._has_read:
            self.word.begin()

    def send_control(self, text: str) -> None:
        """Send the terminal what changes no cell of it: a bell, a notification."""
        if self._driver is not None:
            self._driver.write(text)

    def _due(self) -> set[Path]:
        """Whose views are to be made anew: in a crowd, those off the screen wait, so that they cost little."""
        waiting = self._dirty | self._looked | self._moved
        if len(waiting) <= CROWD:
            return waiting
        if monotonic() - self._swept_at >= SWEEP_S or not waiting <= self._views.keys():
            self._swept_at = monotonic()
            return waiting
        return waiting & self._seen()

    def _seen(self) -> set[Path]:
        """The runs on the screen, and those that its chart shows."""
        paths = list(self._listed())
        place = paths.index(self._look.run) if self._look.run in paths else None
        shown = frame.visible(len(paths), self._height, place)
        return {*(paths[row] for row in shown), *self._look.marks, *filter(None, [self._look.run])}

    def _new_picture(self, fired: Mapping[str, Sequence[int]]) -> plots.ChartView | None:
        """What the chart shows of the chosen run, or of the marked ones."""
        look = self._look
        if look.run is None:
            return None
        if look.marks:
            marked = [
                (self._marked(path), self._runs[path])
                for path in sorted(look.marks, key=look.marks.__getitem__)
            ]
            return plots.overlay_view(marked, look.metric, self._planned)
        return plots.chart_view(self._runs[look.run], look.metric, self._planned, fired)

    def _look_at_shadows(self) -> list[tuple[str, CallbackState, str, Sequence[int]]]:
        """What the callbacks followed beside the chosen run have counted; for `strip_lines`."""
        path = self._look.run
        if path is None:
            return []
        if path not in self._shadows:
            self._shadows[path] = self._policies()
        attempt = self._runs[path].current
        found: list[tuple[str, CallbackState, str, Sequence[int]]] = []
        for shadow in self._shadows[path]:
            found.append((shadow.name, shadow.look(attempt), shadow.trouble, shadow.fired))
            if shadow.is_behind(attempt):
                self._dirty.add(path)  # the rest with the next drawing
        return found

    def _layout(self) -> None:
        """Give the panels the rows they need; the middle has the rest."""
        height, look = self._height, self._look
        listed = len(self._listed()) + len(self._unreadable())
        is_alone = look.is_full or look.main is Main.SUMMARY
        self.query_one("#rule").styles.height = 0 if is_alone else min(listed, 1)
        alerts = len(self._told_below().lines)
        rows = frame.shares(height, 0 if is_alone else listed, len(self._strip_lines()), alerts)
        for name, count in zip(("runs", "strip", "alerts"), rows, strict=True):
            self.query_one(f"#{name}").styles.height = count
        notice = len(told.tell(self._notice_lines(), self._width, told.NOTICE_ROWS).lines)
        if notice > 1 and look.main is not Main.ALERTS:  # of what a training answered the end is the point
            least = min(notice + (notice < alerts), max(1, height // frame.ALERTS_SHARE))
            self.query_one("#alerts").styles.height = max(rows[2], least)
        self.query_one("#facts").styles.width = max(FACTS_MIN, self._width // 3 - 8)
        self.query_one("#facts").display = self._width >= WIDE and not is_alone

    # --- what the panels draw -----------------------------------------------------------------------------

    def _listed(self) -> dict[Path, RunView]:
        """The runs in their order, those that the filter lets pass; found once for each drawing."""
        views, order, text = self._views, self._look.order, self._look.filter
        if self._listing[0] is not views or self._listing[1:3] != (order, text):
            listed = ordered(views, order)
            if text:
                listed = {path: view for path, view in listed.items() if matches(view, text)}
            self._listing = views, order, text, listed
        return self._listing[3]

    def _marked(self, path: Path) -> RunView:
        return replace(self._views[path], mark=self._look.marks.get(path))

    def _shown(self) -> list[RunView]:
        """The rows of the list: runs with their marks, and below them what cannot be read."""
        listed = self._listed()
        runs = [self._marked(path) for path in listed] if self._look.marks else list(listed.values())
        return [*runs, *self._unreadable()]

    def _unreadable(self) -> list[RunView]:
        """The files that look like logs and cannot be read."""
        found = (
            unreadable_view(skip, is_awaited=True) for skip in self._follower.skipped if skip.looks_like_log
        )
        return [view for view in found if matches(view, self._look.filter)]

    def _place(self) -> int | None:
        """The row of the chosen run in the list; None if the filter hides it."""
        return next((row for row, path in enumerate(self._listed()) if path == self._look.run), None)

    def _now(self) -> float | None:
        """The time of the last look at any log: the screen itself reads no clock."""
        return self._looked_at

    def _told_below(self) -> told.Told:
        """What stands below the chart: what came of the last key, then the alerts where no page has them."""
        notice = [] if self._look.main is Main.ALERTS else self._notice_lines()
        alerts = [] if self._look.main in (Main.ALERTS, Main.SUMMARY) else self._alert_lines()
        first = told.tell(notice, self._width, told.NOTICE_ROWS)
        return replace(first, lines=[*first.lines, *alerts])

    def _told_on_page(self) -> told.Told:
        """The page of alerts: what came of the last key, what the training answered, then the alerts."""
        answers = self._answers.get(self._look.run, ()) if self._look.run else ()
        notice = [] if self._notice in [answer.words for answer in answers] else self._notice_lines()
        lines = [*notice, *(answer.line for answer in answers), *self._alert_lines()]
        return told.tell(lines, self.query_one("#main").size.width)

    def _notice_lines(self) -> list[told.Line]:
        """What the last key could not do, or what came of it."""
        return [(told.severity(is_good=self._is_notice_good), self._notice)] if self._notice else []

    def _alert_lines(self) -> list[told.Line]:
        """What is to be known of the chosen run and of the watching, the worst first."""
        own = [(Severity.ERROR, printable(text)) for text in (self._failure, self._fault) if text]
        if self._look.filter and not self._shown():
            own.append((Severity.WARNING, f"no run matches {printable(self._look.filter)!r}"))
        trouble = [(Severity.WARNING, printable(self._follower.trouble))] if self._follower.trouble else []
        trouble += [(Severity.WARNING, printable(line)) for line in (self.notes.lines if self.notes else ())]
        return frame.worst_first([*own, *self._alerts, *trouble])

    def _strip_lines(self) -> list[str]:
        """What goes on in the chosen run; nothing where several are looked at."""
        return [] if self._look.marks or self._look.main is Main.SUMMARY else self._strip

    def _draw_head(self, width: int, height: int) -> list[Row]:
        look = self._look
        parts = [self._title, f"/{printable(look.filter)}" if look.filter else ""]
        parts.append(f"by {look.order}" if look.order != ORDERS[0] else "")
        title = "  ".join(filter(None, parts))
        return [
            frame.head(
                [*self._views.values(), *self._unreadable()], title, width, self._now(), ascii=self._is_ascii
            )
        ]

    def _draw_rule(self, width: int, height: int) -> list[Row]:
        return [frame.rule(width, ascii=self._is_ascii)]

    def _draw_runs(self, width: int, height: int) -> tuple[Row, ...]:
        return frame.runs(
            self._shown(), width, height, self._now(), cursor=self._place(), ascii=self._is_ascii
        )

    def _draw_main(self, width: int, height: int) -> tuple[Row, ...]:
        look = self._look
        if look.run is None or self._picture is None:
            folder = printable(self._follower.paths[0])
            remote = self.notes.remote if self.notes else ()
            rows = frame.empty_rows(folder, width, height, remote=remote, ascii=self._is_ascii)
            return rows if self._has_read else ()
        run, name = self._runs[look.run], self._views[look.run].name
        if look.main is Main.SUMMARY:
            return frame.summary(
                self._shown(), width, height, self._now(), cursor=self._place(), ascii=self._is_ascii
            )
        if look.main is Main.ALERTS:
            page = self._told_on_page()
            first = min(look.first_line, max(0, len(page.lines) - 1))
            rows = frame.alerts_page(page.lines, name, width, height, first, ascii=self._is_ascii)
            return *rows[:1], *page.unsigned(rows[1:], first)
        if look.main is Main.EPOCHS:
            return frame.epochs(epochs_view(run, height - 1, look.epoch), width, height, ascii=self._is_ascii)
        self._limits = self._x_limits()
        rows, look.y_limits = frame.curves(
            self._picture,
            "" if look.marks else name,
            width,
            height,
            log=look.is_log,
            x_limits=self._limits,
            y_before=look.y_limits,
            epoch=look.epoch,
            others=self._others(run),
            ascii=self._is_ascii,
        )
        return rows

    def _others(self, run: Run) -> list[plots.ChartView]:
        """The small charts below that of one run."""
        return [] if self._look.marks else plots.other_views(run, self._look.metric, OTHERS_MAX)

    def _x_limits(self) -> Limits:
        """The epochs that the chart shows."""
        newest = self._picture.last if self._picture else 1
        return window_limits(self._look.window, self._bounds(), newest)

    def _draw_facts(self, width: int, height: int) -> tuple[Row, ...]:
        if self._look.run is None:
            return ()
        facts = facts_view(self._runs[self._look.run], self._logs[self._look.run])
        return frame.facts(facts, width, height, ascii=self._is_ascii)

    def _draw_strip(self, width: int, height: int) -> tuple[Row, ...]:
        return frame.strip_rows(self._strip_lines(), width, height, ascii=self._is_ascii)

    def _draw_alerts(self, width: int, height: int) -> tuple[Row, ...]:
        below = self._told_below()
        return below.unsigned(frame.alert_rows(below.lines, width, height, key="e", ascii=self._is_ascii))

    def _draw_footer(self, width: int, height: int) -> list[Row]:
        note = f"  {READ_ONLY}" if self._is_read_only else ""
        keys = footer_text(
            ascii=self._is_ascii,
            width=width - 2 - len(note),
            is_page=self._look.has_lines,
            keys=self._keys(live=True),
        )
        return [frame.clip([(" " + keys, Role.DIM), *([(note, Role.LOOK)] if note else [])], width)]

    # --- what the keys do ---------------------------------------------------------------------------------

    def on_resize(self, event: Resize) -> None:
        """Facts beside the chart only where there is room."""
        self._width, self._height = event.size
        self._look.forget_limits()
        self._draw_at_once()

    def on_panel_picked(self, message: Panel.Picked) -> None:
        """A click chooses a run, reads the chart's values there, makes a small chart the large one."""
        panel, look = message.panel, self._look
        is_summary = look.main is Main.SUMMARY
        if panel.id == "runs" or (panel.id == "main" and is_summary):
            paths, shown = list(self._listed()), self._shown()
            height, row = panel.size.height - is_summary, message.row - is_summary
            visible = frame.visible(len(shown), height, self._place())
            if 0 <= row < len(visible) and visible[row] < len(paths):
                self._choose(paths[visible[row]])
        elif panel.id == "main" and look.main is Main.CHART and self._picture and look.run:
            small = frame.small_at(
                self._picture, self._others(self._runs[look.run]), *panel.size, message.row, message.column
            )
            if small:
                self.action_metric(small)
            if small is not None:
                return
            epoch = epoch_at(message.column, panel.size.width, self._limits, ascii=self._is_ascii)
            if epoch is not None:
                look.epoch = plots.nearest(self._picture, epoch)
                self._choose_anew()

    def on_panel_wheeled(self, message: Panel.Wheeled) -> None:
        """The wheel goes through the list, zooms the chart, scrolls the alerts."""
        if message.panel.id == "runs" or self._look.main is Main.SUMMARY:
            self.action_move(message.by)
        elif message.panel.id != "main":
            return
        elif self._look.main is Main.CHART:
            self.action_zoom(2.0 if message.by < 0 else 0.5)
        else:
            self._scroll(message.by * 3)

    def action_move(self, by: int) -> None:
        """Choose another run."""
        paths, place = list(self._listed()), self._place()
        if paths:
            before = -(by > 0) if place is None else place
            self._choose(paths[max(0, min(len(paths) - 1, before + by))])

    def action_line(self, by: int) -> None:
        """A line of the page that is open, else another run."""
        if self._look.has_lines:
            self._scroll(by)
        else:
            self.action_move(by)

    def action_metric(self, by: int) -> None:
        """Show another metric."""
        if self._look.run:
            self._look.metric = plots.next_metric(self._runs[self._look.run], self._look.metric, by)
            self._look.is_log = None
            self._look.forget_limits()
            self._choose_anew()

    def action_log(self) -> None:
        """Logarithmic y axis, on and off."""
        if self._picture:
            is_log = self._picture.spans_decades if self._look.is_log is None else self._look.is_log
            self._look.is_log = not is_log
            self._look.forget_limits()
            self._choose_anew()

    def action_mark(self) -> None:
        """Mark the chosen run for the common chart, or not."""
        is_done = self._look.toggle_mark()
        self._choose_anew(
            "" if is_done else "no more runs can be marked: Space on a marked one frees its colour"
        )

    def action_unmark(self) -> None:
        """Take all marks away."""
        self._look.unmark()
        self._choose_anew()

    def action_cursor(self, by: int) -> None:
        """Read the values at another epoch, those of the chosen run's last one at first."""
        if self._look.run and self._picture and self._look.shows_epochs:
            last = plots.last_of(self._picture, self._runs[self._look.run])
            epoch = last if self._look.epoch is None else self._look.epoch + by
            self._look.epoch = plots.nearest(self._picture, epoch, by)
            self._follow_epoch()

    def action_event(self, by: int) -> None:
        """Read the values at the next thing that happened."""
        if self._picture and self._look.shows_epochs:
            epoch = plots.next_mark(self._picture, self._look.epoch, by)
            if epoch is None:
                self._choose_anew("no more events in that direction")
            else:
                self._look.epoch = epoch
                self._follow_epoch()

    def _follow_epoch(self) -> None:
        """Keep what is read in the window."""
        look = self._look
        if look.window and look.epoch is not None and self._picture:
            look.window = look.window.showing(look.epoch, self._bounds(), self._picture.last)
        self._choose_anew()

    def _bounds(self) -> Limits:
        return plots.x_limits(self._picture) if self._picture else (1.0, 10.0)

    def action_zoom(self, factor: float) -> None:
        """Show fewer or more epochs, around what is read, else around the end."""
        if self._picture and self._look.main is Main.CHART:
            around = self._look.epoch if self._look.epoch is not None else self._picture.last
            self._look.window = Window.zoomed(
                self._look.window, factor, around, self._bounds(), self._picture.last
            )
            self._look.forget_limits()
            self._choose_anew()

    def action_pan(self, by: int) -> None:
        """Move the zoomed chart by half of its width."""
        if self._look.window and self._picture:
            self._look.window = self._look.window.panned(by / 2, self._bounds(), self._picture.last)
            self._look.forget_limits()
            self._choose_anew()

    def action_whole(self) -> None:
        """The whole run again, its axes fitted anew."""
        self._look.window = None
        self._look.forget_limits()
        self._choose_anew()

    def action_full(self) -> None:
        """The chart, or the table, on the whole screen."""
        if self._look.main is Main.SUMMARY:
            self._look.main = Main.CHART
        else:
            self._look.is_full = not self._look.is_full
        self._look.forget_limits()
        self._choose_anew()

    def action_table(self) -> None:
        """The epochs as a table, and back."""
        self._show(Main.EPOCHS)

    def action_summary(self) -> None:
        """All runs as a table, and back."""
        self._show(Main.SUMMARY)

    def action_alerts(self) -> None:
        """All alerts in place of the chart, and back."""
        self._show(Main.ALERTS)

    def _show(self, main: Main) -> None:
        self._look.toggle(main)
        self._choose_anew()

    def action_page(self, by: int) -> None:
        """Scroll what is in the middle by a screen."""
        self._scroll(by * max(1, self.query_one("#main").size.height - 2))

    def _scroll(self, by: int) -> None:
        look = self._look
        if look.main is Main.ALERTS:
            most = len(self._told_on_page().lines) - (self.query_one("#main").size.height - 1)
            look.first_line = max(0, min(look.first_line + by, most))
            self._choose_anew()
        elif look.main is Main.SUMMARY:
            self.action_move(by)
        elif look.main is Main.EPOCHS and look.run:
            look.epoch = plots.row_at(self._runs[look.run], look.epoch, by)
            self._follow_epoch()
        else:
            self.action_cursor(by)

    def action_order(self) -> None:
        """Another order of the runs."""
        self._look.order = ORDERS[(ORDERS.index(self._look.order) + 1) % len(ORDERS)]
        self._choose_anew()

    async def action_filter(self) -> None:
        """Ask for a filter, in the place of the keys."""
        from cbmon.tui.prompt import FilterPrompt

        prompt = FilterPrompt(self._look.filter)
        await self.mount(prompt)
        self.screen.set_focus(prompt)  # now: what was typed at once behind "/" is text already

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What opens something is told at once, before the keys behind it; where something is open, it is text."""
        is_open = len(self.screen_stack) > 1 or self.screen.focused is not None
        return not (is_open and action in ("filter", "help", "what_if", *CONTROL))

    # --- what is asked of a training ----------------------------------------------------------------------

    @property
    def _is_read_only(self) -> bool:
        """Whether trainings could be asked, and are not to be."""
        return self.wires is None and getattr(self._follower, "wires", None) is not None

    def _takes_requests(self, path: Path) -> bool:
        """Whether a run is there to be asked, and lets itself be asked."""
        if self.wires is None or path not in self._runs or not self.wires.is_there(path):
            return False
        return (hello := self.wires.hello(path)) is None or hello.control

    def _keys(self, *, live: bool = False) -> Sequence[Key]:
        """The keys that there are; `live`: those for a training only where the chosen run can be asked."""
        path = self._look.run
        can_ask = self.wires is not None and (not live or (path is not None and self._takes_requests(path)))
        return KEYS if can_ask else [key for key in KEYS if key.action not in CONTROL]

    def _to_ask(self) -> Path | None:
        """The chosen run, to ask it; None, and said why, if it takes no requests."""
        path = self._look.run
        if self.wires is None:
            nobody = "there is no training to ask here"
            self._choose_anew(READ_ONLY_WORDS if self._is_read_only else nobody)
        elif path is None:
            self._choose_anew("no run to ask")
        elif reason := no_control(self._runs[path]) or printable(self.wires.why_not(path), 1000):
            self._choose_anew(f"cannot be asked: {reason}")
        elif not self._takes_requests(path):
            self._choose_anew("cannot be asked: it takes no requests, by Monitor(control=False)")
        else:
            return path
        return None

    async def _open(self, widget: Any, focus: Any = None) -> None:
        """Ask, in the place of the keys."""
        self._choose_anew()
        await self.mount(widget)
        self.screen.set_focus(
            focus or widget
        )  # now: the keys behind the one that opened it are its own already

    def _worded(self, path: Path, before: str, after: str) -> str:
        """A question about a run, with as much of its name as there is room for."""
        name, room = self._views[path].name, self._width - 2 - cells(before + after)
        text = before + frame.fit_name(name, max(NAME_ASKED, room)).rstrip() + after
        return ascii_only(text) if self._is_ascii else text

    async def _prompt(self, label: str, placeholder: str, go: Callable[[str], None]) -> None:
        """Ask for something typed."""
        from cbmon.tui.control import ControlPrompt

        prompt = ControlPrompt(ascii_only(label) if self._is_ascii else label, placeholder, go)
        await self._open(prompt, prompt.line)

    async def _choice(self, question: Question) -> None:
        """Ask for a single key."""
        from cbmon.tui.control import Choice

        await self._open(Choice(question))

    async def action_rate(self) -> None:
        """Ask for a learning rate, and once more whether it is meant."""
        if (path := self._to_ask()) is not None:
            present = present_rate(self._runs[path])
            label = "learning rate: " if present is None else f"learning rate {short_lr(present)} → "
            await self._prompt(label, "3e-4, or x0.5; Esc: leave it", partial(self._confirm_rate, path))

    def _confirm_rate(self, path: Path, text: str) -> None:
        if not text.strip():
            return
        try:
            value, scale = read_rate(text)
        except BadCall as error:
            self._choose_anew(printable(str(error)))
            return
        from cbmon.tui.control import YES_NO, Question, rate_words

        ask = partial(self._ask, path, "lr", value=value, scale=scale)
        after = rate_words(value, scale, present_rate(self._runs[path])) + YES_NO
        question = Question(self._worded(path, "learning rate of ", after), {"y": ask})
        self.call_later(self._choice, question)

    async def action_save(self) -> None:
        """Have the model saved."""
        if (path := self._to_ask()) is not None:
            label = f"save {frame.fit_name(self._views[path].name, NAME_SAVED).rstrip()} as "
            hint = "Enter: beside the record; or FILE.keras; Esc: no"
            await self._prompt(label, hint, partial(self._save, path))

    def _save(self, path: Path, text: str) -> None:
        try:
            target = read_target(text.strip()) if text.strip() else None
        except BadCall as error:
            self._choose_anew(printable(str(error)))
        else:
            self._ask(path, "save", target=target)

    async def action_end(self) -> None:
        """Have the training end."""
        if (path := self._to_ask()) is not None:
            from cbmon.tui.control import YES_NO, Question

            after, now = partial(self._ask, path, "stop"), partial(self._ask, path, "stop_now")
            sure = Question(self._worded(path, "stop ", f" now, cutting the epoch short{YES_NO}"), {"y": now})
            words = self._worded(path, "stop ", "?  e after this epoch, ! now, other keys no")
            await self._choice(Question(words, {"e": after, "!": sure}))

    def _ask(
        self,
        path: Path,
        what: str,
        *,
        value: float | None = None,
        scale: float | None = None,
        target: str | None = None,
    ) -> None:
        """Send a request; its answer comes as `Answered`."""
        if self.wires is None:
            return

        def reply(answer: Answer) -> None:
            self._tell(Answered(path, answer))

        reason = self.wires.ask(path, what, reply, value=value, scale=scale, path=target)
        if reason:
            self._choose_anew(f"cannot be asked: {printable(reason, 1000)}")
        else:
            self._choose_anew("asked: the training answers between two batches", is_good=True)

    def on_filter_prompt_filtered(self, message: Any) -> None:
        """Filter while it is typed."""
        self._look.filter = message.text
        if self._place() is None and (listed := self._listed()):
            self._choose(next(iter(listed)))
        self._choose_anew()

    def action_step_back(self) -> None:
        """One step back."""
        self._look.back()
        self._choose_anew()

    def action_what_if(self) -> None:
        """Ask what a callback would have done to the chosen run."""
        run = self._look.run and self._runs[self._look.run]
        if self._look.run is None or not run or not run.current.epochs:
            self._choose_anew("no epoch yet of which to ask what if")
            return
        from cbmon.tui.whatif import WhatIfScreen

        self._what_if = WhatIfScreen(
            run,
            self._views[self._look.run].name,
            partial(self.toggle_policy, self._look.run),
            question=self._what_if.question if self._what_if else self._kept_question(run),
            is_growing=partial(self._is_growing, run),
            planned=self._planned,
            is_ascii=self._is_ascii,
        )
        self.push_screen(self._what_if)

    def _kept_question(self, run: Run) -> WhatIf | None:
        """The first policy that runs beside the chosen run, as a question; None without one."""
        assert self._look.run is not None
        kept = self._shadows[self._look.run] if self._look.run in self._shadows else self._policies()
        from cbmon.replay.whatif import WhatIf

        return WhatIf.begin(run.current, kept[0].profile, kept[0].call) if kept else None

    def _is_growing(self, run: Run) -> bool:
        """Whether more epochs are to come."""
        return status(run) in (Status.RUNNING, Status.GROWING)

    def toggle_policy(self, path: Path, shadow: Shadow) -> bool:
        """Follow a policy beside a run, as `--policy` does, or no longer; whether it is followed now."""
        before = self._shadows[path] if path in self._shadows else self._policies()
        built = shadow.call.build(shadow.profile)
        others = [each for each in before if each.call.build(each.profile) != built]
        is_new = len(others) == len(before)
        self._shadows[path] = [*others, shadow] if is_new else others
        self._dirty.add(path)
        self._choose_anew()
        return is_new

    def action_suspend_process(self) -> None:
        """Stop, until the shell's `fg`; not while trainings would stop with us: RemoteMonitor has no time limit."""
        if self.is_awaited:
            self._choose_anew("not suspended: trainings that send here would wait for it")
        else:
            super().action_suspend_process()

    def action_redraw(self) -> None:
        """Send the whole screen again: something else wrote over it."""
        redraw(self)

    def action_help(self) -> None:
        """Show the keys."""
        if self.wires is None:
            self.push_screen(HelpScreen(is_ascii=self._is_ascii, keys=self._keys()))
        else:
            last = "The training never waits; only L, S and X ask something of it."
            self.push_screen(HelpScreen(is_ascii=self._is_ascii, keys=self._keys(), last=last))

    def action_command_palette(self) -> None:
        """All commands by name."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(palette(is_ascii=self._is_ascii))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: what the keys do, by name."""
        for key in self._keys():
            if key.description and key.action != "command_palette":
                action = key.action
                yield SystemCommand(
                    key.description,
                    f"key {label_of(key, ascii=self._is_ascii)}",
                    lambda action=action: self.call_later(self.run_action, action),
                )

    def _choose(self, path: Path) -> None:
        self._is_first_choice = False
        if path != self._look.run:
            self._look.choose(path)
            self._choose_anew()

    def _choose_anew(self, notice: str = "", *, is_good: bool = False) -> None:
        """A key has something else to be seen, and what it could not do, or did."""
        self._notice, self._is_notice_good = notice, is_good
        self._draw_at_once()

    def _draw_at_once(self) -> None:
        """Something else is to be seen: at once, however busy it is."""
        self._is_chosen_anew = True
        if self._pending is not None:
            self._pending.stop()
            self._pending = None
        self._drawn_at = 0.0
        self._schedule()
