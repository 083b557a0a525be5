"""The what-if screen: turn the parameters of a callback and see at once what it would have done to a run.

Glue only: `replay.whatif` knows the parameters and the answers, `plots` and `frame` draw. Long runs are asked in a
thread, one question at a time.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from threading import Thread
from time import monotonic
from typing import Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Key, Resize
from textual.timer import Timer

from cbmon import frame, plots
from cbmon.chart import Role, Row
from cbmon.errors import CbmonError
from cbmon.profiles import find_profile
from cbmon.replay.shadow import Shadow
from cbmon.replay.whatif import Outcome, Snapshot, WhatIf, outcome
from cbmon.run import Run
from cbmon.series import base_name
from cbmon.tui.screens import Following
from cbmon.tui.widgets import Palette, Panel, broken
from cbmon.units import display_epoch, fit, printable
from cbmon.views import ascii_only

AT_ONCE_ROWS = 5_000
"""Runs of so many epochs are asked while the key is answered: about 20 ms."""
ASKING_SHARE = 0.1
"""Of the time may be spent on asking a long run again as it grows."""
ANSWER_ROWS = 3
TWO_COLUMNS = 60
"""Screen columns from which the parameters stand in two columns."""
NO_BREAK = "\xa0"
MARKS_MAX = 1000
"""More marks than any chart has columns: of more, one in so many is drawn."""
SHARE_MAX = 48
"""Screen columns of a column of parameters at most: what belongs together stands together."""
NAME_COLUMNS = 22
"""Of the longest parameter, and a space."""


class WhatIfScreen(Following):
    """A chart with marks where the callback would have acted, its parameters, and the answer in a sentence."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(keys, action, show=False)
        for keys, action in (
            ("tab,shift+tab", "other"),
            ("up,k", "choose(-1)"),
            ("down,j", "choose(1)"),
            ("left,minus", "turn(-1)"),
            ("right,plus,equals_sign", "turn(1)"),
            ("shift+left,pageup", "turn(-10)"),
            ("shift+right,pagedown", "turn(10)"),
            ("enter", "keep"),
            ("c", "call"),
            ("escape,q,w", "leave"),
            ("ctrl+c", "app.quit"),
        )
    ]
    HINTS = "↑↓ choose  ←→ change, or type  Tab other callback  ⏎ keep  c CALL  Esc close"
    ASCII_HINTS = "j k choose  + - change, or type  Tab other callback  Enter keep  c CALL  Esc close"
    SHORT_HINTS = "↑↓ ←→ or type  Tab other  ⏎ keep  c CALL  Esc"
    SHORT_ASCII_HINTS = "j k + - or type  Tab other  Enter keep  c CALL  Esc"

    def __init__(
        self,
        run: Run,
        name: str,
        keep: Callable[[Shadow], bool],
        *,
        question: WhatIf | None = None,
        is_growing: Callable[[], bool] = lambda: False,
        planned: int | None = None,
        is_ascii: bool = False,
    ) -> None:
        """Ask about a run.

        Args:
            run: it may grow, and begin anew.
            name: its name.
            keep: follows a policy beside the run, or no longer; gives whether it does now.
            question: what to begin with.
            is_growing: whether more epochs are to come.
            planned: epochs, where the log cannot tell.
            is_ascii: no characters beyond ASCII.
        """
        super().__init__()
        self._run, self._name, self._keep = run, name, keep
        self._planned, self._is_ascii, self._is_growing = planned, is_ascii, is_growing
        self.question = question or WhatIf.begin(run.current, find_profile()[0])
        self._row = 1
        """The parameter that the keys turn: first the one after the monitor."""
        self._typed = ""
        """What was typed for it so far."""
        self._notice = ""
        """What the last key did, or could not do."""
        self._answer: Outcome | None = None
        """The latest; None while there is none to the question."""
        self._asked: tuple[WhatIf, object] | None = None
        """What the answer, or the thread at work, is for: a question, and the run as it was."""
        self._is_asking = False
        self._took_s = 0.0
        """What the latest answer from a thread took."""
        self._answered_at = 0.0
        self._pending: Timer | None = None
        """Until a run that grows is asked again."""

    def compose(self) -> ComposeResult:
        """Panels, as on the main screen."""
        palette = self.app.query_one(Palette)
        yield Panel(self._draw_head, palette, id="what-head")
        yield Panel(self._draw_chart, palette, id="what-chart")
        yield Panel(self._draw_form, palette, id="what-form")
        yield Panel(self._draw_answer, palette, id="what-answer")
        yield Panel(self._draw_footer, palette, id="what-footer")

    def on_mount(self) -> None:
        """Ask for the first time."""
        self.follow()

    def on_resize(self, event: Resize) -> None:
        """The parameters in one column or two."""
        rows = len(self.question.rows)
        is_wide = event.size.width >= TWO_COLUMNS
        self.query_one("#what-form").styles.height = -(-rows // 2) if is_wide else rows
        self._redraw()

    # --- asking -------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Ask again where the question, or the run, is another one; then draw."""
        attempt = self._run.current
        column = attempt.metrics.get(self._monitor)
        is_growing = self._is_growing()
        seen = id(attempt), len(attempt.epochs), repr(column.last() if column else None), is_growing
        if self._asked != (self.question, seen) and not self._is_asking:
            is_grown = self._asked is not None and self._asked[0] == self.question
            wait_s = self._answered_at + self._took_s / ASKING_SHARE - monotonic()
            if is_grown and wait_s > 0:
                self._pending = self._pending or self.set_timer(wait_s, self._look_again)
            else:
                self._asked, rows = (
                    (self.question, seen),
                    Snapshot.of(attempt, self._monitor, is_growing=is_growing),
                )
                if len(attempt.epochs) <= AT_ONCE_ROWS:
                    self._answer = _found(self.question, rows)
                else:
                    self._is_asking = True
                    arguments = self.app, self.question, rows
                    Thread(target=self._ask, args=arguments, name="cbmon-what-if", daemon=True).start()
        self._redraw()

    def _look_again(self) -> None:
        self._pending = None
        self.follow()

    @property
    def _monitor(self) -> str:
        return str(self.question.value("monitor"))

    def _ask(self, app: App[Any], question: WhatIf, rows: Snapshot) -> None:
        """The thread."""
        began = monotonic()
        found = _found(question, rows)
        if app.is_running:
            app.call_later(self._answered, question, found, monotonic() - began)

    def _answered(self, question: WhatIf, found: Outcome, took_s: float) -> None:
        """The thread is done; what it was asked may not be what is asked now."""
        self._is_asking, self._took_s, self._answered_at = False, took_s, monotonic()
        if question == self.question:
            self._answer = found
        if self.is_attached:
            self.follow()

    # --- drawing ------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        for panel in self.query(Panel):
            panel.redraw()

    def _clip(self, text: str, width: int, role: Role = Role.TEXT) -> Row:
        return frame.clip(
            [(ascii_only(text.replace("×", "x")) if self._is_ascii else text, role)], width, self._is_ascii
        )

    def _draw_head(self, width: int, height: int) -> list[Row]:
        other = self.question.other().callback
        spans = [
            (" what if  ", Role.DIM),
            (self.question.callback, Role.TITLE),
            (f"  (Tab: {other})", Role.DIM),
            (f"   {self._name}", Role.TEXT),
        ]
        return [
            frame.clip(
                [(ascii_only(text) if self._is_ascii else text, role) for text, role in spans],
                width,
                self._is_ascii,
            )
        ]

    def _draw_chart(self, width: int, height: int) -> tuple[Row, ...]:
        fired = self._answer.fired if self._answer else ()
        fired = fired[:: 1 + len(fired) // MARKS_MAX]
        view = plots.chart_view(
            self._run, base_name(self._monitor), self._planned, {self.question.text: fired} if fired else None
        )
        stops = fired and self.question.callback == "EarlyStopping"
        rows, _ = frame.curves(
            view, "", width, height, epoch=display_epoch(fired[0]) if stops else None, ascii=self._is_ascii
        )
        return rows

    def _draw_form(self, width: int, height: int) -> list[Row]:
        names = self.question.rows
        share = self._share(width, height)
        lines = []
        for line in range(height):
            spans: list[tuple[str, Role]] = []
            for at in range(line, len(names), height):
                is_chosen = at == self._row
                mark = (">" if self._is_ascii else "▸") if is_chosen else " "
                value = f"{self._typed}_" if is_chosen and self._typed else self.question.shown(names[at])
                value = ascii_only(value) if self._is_ascii else value
                spans.append(
                    (f" {mark} {names[at]:{NAME_COLUMNS}}", Role.CURSOR if is_chosen else Role.LABEL)
                )
                spans.append((fit(value, share - NAME_COLUMNS - 3), Role.CURSOR if is_chosen else Role.TEXT))
            lines.append(frame.clip(spans, width, self._is_ascii))
        return lines

    def _share(self, width: int, height: int) -> int:
        """Screen columns of a column of parameters."""
        return min(SHARE_MAX, width // -(-len(self.question.rows) // max(height, 1)))

    def _draw_answer(self, width: int, height: int) -> list[Row]:
        if self._notice:
            lines = [(self._notice, Role.LOOK)]
        elif self._answer is None:
            lines = [("…", Role.DIM)]
        else:
            lines = [(self._answer.answer, Role.NEEDS if self._answer.is_refused else Role.TITLE)]
            lines += [(note, Role.LOOK) for note in self._answer.notes]
        rows: list[Row] = []
        for text, role in lines:
            for part in textwrap.wrap(text, max(1, width - 2), break_on_hyphens=False) or [""]:
                rows.append(self._clip(f" {part.replace(NO_BREAK, ' ')}", width, role))
        return rows[:height]

    def _draw_footer(self, width: int, height: int) -> list[Row]:
        hints = self.ASCII_HINTS if self._is_ascii else self.HINTS
        if len(hints) > width - 2:
            hints = self.SHORT_ASCII_HINTS if self._is_ascii else self.SHORT_HINTS
        return [self._clip(f" {hints}", width, Role.DIM)]

    # --- what the keys do ---------------------------------------------------------------------------------

    def on_key(self, event: Key) -> None:
        """Digits, and what else a number has, are typed into the chosen row."""
        name, sign = self.question.rows[self._row], event.character or ""
        if event.key == "backspace" and self._typed:
            self._type(self._typed[:-1])
        elif WhatIf.takes_digits(name) and sign and (sign in "0123456789." or (self._typed and sign in "e-")):
            event.stop()
            event.prevent_default()
            self._type(self._typed + sign)

    def _type(self, text: str) -> None:
        self._typed, self._notice = text, ""
        if text and text[-1].isdigit():
            self._change(lambda: self.question.typed(self.question.rows[self._row], text))
        else:
            self._redraw()

    def _change(self, change: Callable[[], WhatIf]) -> None:
        """Another question, or why it is none."""
        self._notice = ""
        try:
            question = change()
        except CbmonError as error:
            self._notice = printable(str(error))
        else:
            if question != self.question:
                self.question = question
                if len(self._run.current.epochs) > AT_ONCE_ROWS:
                    self._answer = None
        self.follow()

    def action_other(self) -> None:
        """The other callback."""
        self._typed = ""
        name = self.question.rows[self._row]
        self._change(self.question.other)
        rows = self.question.rows
        self._row = rows.index(name) if name in rows else 1
        self._redraw()

    def action_choose(self, by: int) -> None:
        """Another parameter."""
        self._typed, self._notice = "", ""
        self._row = (self._row + by) % len(self.question.rows)
        self._redraw()

    def action_turn(self, by: int) -> None:
        """Another value of it."""
        self._typed = ""
        name = self.question.rows[self._row]
        self._change(lambda: self.question.stepped(name, by, self._run.current))

    def action_keep(self) -> None:
        """Follow the policy beside the run, as `--policy` does, or no longer."""
        self._typed = ""
        try:
            is_kept = self._keep(Shadow(self.question.call(), self.question.profile))
        except CbmonError as error:
            self._notice = printable(str(error))
        else:
            does = "kept beside this run, Enter again takes it away" if is_kept else "taken away"
            self._notice = f"{does}: {self.question.text}"
        self._redraw()

    def action_call(self) -> None:
        """Show CALL, and give it to the terminal's clipboard where there is one."""
        self._typed, self._notice = "", self.question.text
        self.app.copy_to_clipboard(self.question.text)
        self._redraw()

    def action_leave(self) -> None:
        """Back to the runs; two quick keys may come before it is closed."""
        if self.is_current:
            self.dismiss()

    def on_panel_picked(self, message: Panel.Picked) -> None:
        """A click chooses a parameter."""
        message.stop()
        if message.panel.id == "what-form":
            width, height = message.panel.size
            row = message.row + height * (message.column // self._share(width, height))
            if row < len(self.question.rows):
                self.action_choose(row - self._row)

    def on_panel_wheeled(self, message: Panel.Wheeled) -> None:
        """The wheel turns the chosen parameter."""
        message.stop()
        self.action_turn(-message.by)


def _found(question: WhatIf, rows: Snapshot) -> Outcome:
    """The answer; the border where an error of ours becomes something shown."""
    try:
        return outcome(question, rows)
    except Exception as error:  # noqa: BLE001  # shown, not swallowed
        return Outcome(answer=printable(broken(error)), is_refused=True)
