"""The one widget: a panel that shows rows of spans and repaints only the lines that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual._styles_cache import StylesCache
from textual.events import Click, MouseScrollDown, MouseScrollUp, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from cbmon.chart import Role, Row
from cbmon.frame import clip
from cbmon.units import printable

Draw = Callable[[int, int], Sequence[Row]]
"""Width and height in, rows out."""
COLORS_KEPT = 256
"""Pairs of backgrounds; a theme has some ten."""


def _forget_closed_widgets() -> None:
    """Have Textual remember colours by colours alone.

    Its 8.2 has an `lru_cache` on a method of the object that keeps a widget's drawn lines, so that 1,024 of these
    stay, some 200 KB for each page that was opened and closed (its issue 6665).
    """
    colors = vars(StylesCache).get("get_inner_outer")
    if colors is not None and hasattr(colors, "cache_info"):  # else it is mended there
        alone = lru_cache(COLORS_KEPT)(partial(colors.__wrapped__, StylesCache))  # it looks at no object
        StylesCache.get_inner_outer = staticmethod(alone)  # type: ignore[assignment, method-assign]


_forget_closed_widgets()


def broken(error: Exception) -> str:
    """What is said in place of something that we failed to draw."""
    return f"cannot be drawn, a bug of cbmon: {type(error).__name__}: {error}"


class Palette(Widget):
    """The style of each role, once for all panels: Textual works out every component class of every widget."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"role--{role.replace('.', '-')}" for role in Role}

    def __init__(self) -> None:
        super().__init__()
        self._styles: dict[tuple[Role, Style], Style] = {}

    def style(self, role: Role, on: Style) -> Style:
        """The role's colour and weight on the background of a panel."""
        if (role, on) not in self._styles:
            own = self.get_component_rich_style(f"role--{role.replace('.', '-')}")
            self._styles[role, on] = own + Style(bgcolor=on.bgcolor)
        return self._styles[role, on]

    def notify_style_update(self) -> None:
        """Another theme."""
        self._styles.clear()
        super().notify_style_update()


class Panel(Widget):
    """Draws what a pure function gives for its size; `redraw` refreshes the lines that differ, often none."""

    class Picked(Message):
        """A line was clicked."""

        def __init__(self, panel: Panel, row: int, column: int) -> None:
            super().__init__()
            self.panel = panel
            self.row = row
            self.column = column

    class Wheeled(Message):
        """The mouse wheel was turned over the panel: 1 down, -1 up."""

        def __init__(self, panel: Panel, by: int) -> None:
            super().__init__()
            self.panel = panel
            self.by = by

    def __init__(self, draw: Draw, palette: Palette, *, id: str) -> None:
        super().__init__(id=id)
        self._draw = draw
        self._palette = palette
        self._rows: tuple[Row, ...] = ()
        self._drawn_for = Size()
        self._own = Style()

    def redraw(self) -> None:
        """Compute the rows anew and repaint the lines that changed."""
        width, height = self.size
        if not width or not height:
            self._drawn_for = Size()
            return
        old, self._rows, self._drawn_for = self._rows, self._drawn(width, height), self.size
        changed = [
            Region(0, y, width, 1)
            for y in range(height)
            if (old[y] if y < len(old) else ()) != (self._rows[y] if y < len(self._rows) else ())
        ]
        if changed:
            self.refresh(*changed)

    def _drawn(self, width: int, height: int) -> tuple[Row, ...]:
        """The rows; the border where an error in drawing becomes something shown, in this panel alone."""
        try:
            return tuple(self._draw(width, height))
        except Exception as error:  # noqa: BLE001  # whatever it is, the other panels go on
            return (clip([(printable(broken(error)), Role.NEEDS)], width),)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The rows as strips; the panel's own style is worked out once for all of them."""
        self._own = self.rich_style
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """One row as a strip; every segment has a style, or Textual fails under NO_COLOR."""
        if self._drawn_for != self.size:  # the picture at a new size is painted before `Resize` comes
            self._rows, self._drawn_for = self._drawn(*self.size), self.size
        row = self._rows[y] if y < len(self._rows) else ()
        own, style = self._own, self._palette.style
        segments = [Segment(text, style(role, own)) for text, role in row]
        return Strip(segments).adjust_cell_length(self.size.width, own)

    def on_resize(self, event: Resize) -> None:
        """Another size is another picture."""
        if self._drawn_for != self.size:
            self.redraw()

    def on_click(self, event: Click) -> None:
        """Tell which line was clicked."""
        self.post_message(self.Picked(self, event.y, event.x))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Tell the wheel."""
        self.post_message(self.Wheeled(self, 1))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Tell the wheel."""
        self.post_message(self.Wheeled(self, -1))
