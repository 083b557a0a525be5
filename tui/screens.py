"""Screens that come over the main one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.command import CommandPalette
from textual.containers import VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Static

from cbmon.chart import MarkKind
from cbmon.frame import BEST_OF_ALL
from cbmon.rules import Status
from cbmon.tui.keys import KEYS, help_lines
from cbmon.tui.keys import Key as TableKey
from cbmon.views import GLYPHS, NEEDS_YOU, ascii_only

_STATES = {
    Status.RUNNING: "running",
    Status.GROWING: "growing (a plain log)",
    Status.QUIET: "quiet",
    Status.FINISHED: "finished",
    Status.STOPPED: "stopped",
    Status.INTERRUPTED: "interrupted",
    Status.GONE: "file gone",
}
_MARKS = {
    MarkKind.LR: "lr changed",
    MarkKind.BEST: "best",
    MarkKind.CHECKPOINT: "saved",
    MarkKind.STOP: "stopped",
    MarkKind.BAD: "NaN or infinite",
    MarkKind.RESTART: "another attempt",
    MarkKind.QUIET: "no word for long",
    MarkKind.SHADOW: "--policy would act",
}
_LEGEND = {
    "runs": [
        *(f"{GLYPHS[state]} {words}" for state, words in _STATES.items()),
        f"{NEEDS_YOU} needs you",
        "▸ chosen",
        f"{BEST_OF_ALL} best of all",
        "★37 epoch of the best",
    ],
    "chart": [f"{kind.glyph} {words}" for kind, words in _MARKS.items()],
    "alerts": ["✗ error", "▲ warning", "· note"],
}
LEGEND_COLUMNS = 74
"""What a terminal of 80 has within the help's border."""


def legend_lines() -> list[str]:
    """What the glyphs mean, in few lines: they are to be seen without scrolling."""
    lines: list[str] = []
    for place, entries in _LEGEND.items():
        line = f"{place:6}"
        for entry in entries:
            if len(line) + 2 + len(entry) > LEGEND_COLUMNS:
                lines.append(line)
                line = " " * 6
            line += f"  {entry}"
        lines.append(line)
    return lines


def palette(*, is_ascii: bool) -> CommandPalette:
    """Textual's command palette; in ASCII its borders and its lens are changed or gone, see `app.tcss`."""
    return CommandPalette(placeholder="name of a command", classes="ascii" if is_ascii else "")


class Following(ModalScreen[None]):
    """A screen over the main one that shows the runs too: told of each drawing."""

    def follow(self) -> None:
        """Something may have changed."""
        raise NotImplementedError


class HelpScreen(ModalScreen[None]):
    """What the glyphs mean, and the keys; arrows scroll, any other key closes it."""

    SCROLLING: ClassVar[dict[str, int]] = {
        **{"down": 1, "j": 1, "pagedown": 10, "space": 10, "end": 1000},
        **{"up": -1, "k": -1, "pageup": -10, "home": -1000},
    }

    def __init__(
        self,
        *,
        is_ascii: bool,
        more: Sequence[str] = (),
        keys: Sequence[TableKey] = KEYS,
        last: str = "cbmon only reads: the training never waits.",
    ) -> None:
        """Take what is shown before and behind the keys of every screen."""
        super().__init__(classes="ascii" if is_ascii else "")
        self._is_ascii = is_ascii
        self._more = more
        self._keys = keys
        self._last = last
        self._has_left = False

    def compose(self) -> ComposeResult:
        """One block of text."""
        lines = [
            "Arrows scroll down to more keys, any other key closes this.",
            "",
            *legend_lines(),
            "",
            *self._more,
            *help_lines(ascii=self._is_ascii, keys=self._keys),
            "",
            self._last,
        ]
        text = "\n".join(lines)
        with VerticalScroll():
            yield Static(ascii_only(text) if self._is_ascii else text, markup=False)

    def on_key(self, event: Key) -> None:
        """Scroll or close."""
        event.stop()
        if event.key in self.SCROLLING:
            self.query_one(VerticalScroll).scroll_relative(y=self.SCROLLING[event.key], animate=False)
        else:
            self._leave()

    def on_click(self) -> None:
        """Close."""
        self._leave()

    def _leave(self) -> None:
        """Two quick keys: the second may come while the first is still closing it."""
        if self.is_current and not self._has_left:
            self._has_left = True
            self.dismiss()
