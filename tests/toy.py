"""A small application to test drivers with: `python -m tests.toy ours|stock`.

After each key it writes a title with how many keys it has seen, its size and the latest one, once all is painted.
"""

from __future__ import annotations

import signal
import sys
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Click, Key, Resize
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from cbmon.tui.driver import driver_class, redraw

NAMES = ["run", "日本語", "cafe\u0301", "⣀⣤⣶⣿", "🙂 emoji", "─│┌", "Ωμέγα"]
LOOKS = [
    "bold #ff8800",
    "dim",
    "italic color(39)",
    "underline red",
    "reverse",
    "strike on #203040",
    "not bold",
]


class Rows(ScrollView, can_focus=True):
    """Forty lines, most of them in several colours."""

    DEFAULT_CSS = "Rows { height: 1fr; background: $surface; }"

    def __init__(self) -> None:
        super().__init__()
        self.virtual_size = Size(40, 40)
        self.count = 0
        self.turn = 0

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        base = self.rich_style
        name, look = NAMES[(row + self.turn) % len(NAMES)], Style.parse(LOOKS[row % len(LOOKS)])
        value = f"{self.count:9}" if row == 1 else f"{row / 7:9.4f}"
        segments = [Segment(f"{row:3} ", base), Segment(name, base + look), Segment(f" {value} ", base)]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def on_resize(self, event: Resize) -> None:
        toy = self.app
        assert isinstance(toy, Toy)
        toy.mark("")


class Question(ModalScreen[None]):
    """A dialogue over the rows, which stay dimly visible."""

    DEFAULT_CSS = "Question { align: center middle; } Question Static { width: 24; border: round red; }"

    def compose(self) -> ComposeResult:
        yield Static("really? 本当に?\nany key closes this")

    def on_key(self, event: Key) -> None:
        event.stop()
        self.dismiss()
        toy = self.app
        assert isinstance(toy, Toy)
        toy.mark(event.key)


class Toy(App[None]):
    """The application."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+z", "suspend_process", "stop", priority=True),
    ]

    def __init__(self, *, is_ours: bool) -> None:
        super().__init__(driver_class=driver_class() if is_ours else None)
        self.animation_level = "none"
        self.keys = 0

    def compose(self) -> ComposeResult:
        yield Static(" toy 日本 ", id="head")
        yield Rows()
        yield Static("", id="last")

    def mark(self, key: str) -> None:
        """Tell the terminal, once this is painted, that a key was seen."""
        self.keys += bool(key)
        size = self.query_one(Rows).size
        title = f"{self.keys} {size.width}x{size.height} {key}"
        self.screen.call_after_refresh(lambda: self._driver and self._driver.write(f"\x1b]2;{title}\x07"))

    def on_click(self, event: Click) -> None:
        self.mark(f"click {event.screen_x},{event.screen_y}")

    def on_key(self, event: Key) -> None:
        rows = self.query_one(Rows)
        match event.key:
            case "c":
                rows.count += 1
                rows.refresh()
            case "w":
                rows.turn += 1
                rows.refresh()
            case "t":
                self.query_one("#last", Static).update("日本語 " * (self.keys % 3) + "x" * self.keys)
            case "d":
                rows.scroll_down(animate=False)
            case "p":
                rows.scroll_page_down(animate=False)
            case "u":
                rows.scroll_home(animate=False)
            case "m":
                self.push_screen(Question())
            case "a":
                self.refresh()
            case "ctrl+l":
                redraw(self)
            case "b":
                self.bell()
            case "s":
                signal.raise_signal(signal.SIGWINCH)
            case "z":
                with self.suspend():
                    print("in between")
            case "q":
                self.exit()
        self.mark(event.key)


if __name__ == "__main__":
    Toy(is_ours=sys.argv[1] == "ours").run()
