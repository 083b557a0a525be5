"""The one widget: a panel that shows rows of spans and repaints only the lines that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.events import Click, Resize
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from cbmon.chart import Role, Row

Draw = Callable[[int, int], Sequence[Row]]
"""Width and height in, rows out."""


class Panel(Widget):
    """Draws what a pure function gives for its size; `redraw` refreshes the lines that differ, often none."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"role--{role.replace('.', '-')}" for role in Role}

    class Picked(Message):
        """A line was clicked."""

        def __init__(self, panel: Panel, row: int) -> None:
            super().__init__()
            self.panel = panel
            self.row = row

    def __init__(self, draw: Draw, *, id: str) -> None:
        super().__init__(id=id)
        self._draw = draw
        self._rows: tuple[Row, ...] = ()

    def redraw(self) -> None:
        """Compute the rows anew and repaint the lines that changed."""
        width, height = self.size
        if not width or not height:
            return
        old, self._rows = self._rows, tuple(self._draw(width, height))
        changed = [
            Region(0, y, width, 1)
            for y in range(height)
            if (old[y] if y < len(old) else ()) != (self._rows[y] if y < len(self._rows) else ())
        ]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        """One row as a strip; every segment has a style, or Textual fails under NO_COLOR."""
        row = self._rows[y] if y < len(self._rows) else ()
        segments = [
            Segment(text, self.get_component_rich_style(f"role--{role.replace('.', '-')}"))
            for text, role in row
        ]
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)

    def on_resize(self, event: Resize) -> None:
        """Another size is another picture."""
        self.redraw()

    def on_click(self, event: Click) -> None:
        """Tell which line was clicked."""
        self.post_message(self.Picked(self, event.y))
