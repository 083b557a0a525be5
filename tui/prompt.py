"""The line in which a filter is typed; loaded when it is asked for."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.dom import NoScreen
from textual.message import Message
from textual.widgets import Input


class FilterPrompt(Input):
    """Filters the runs while it is typed: Enter keeps the filter, Esc takes it away."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up", show=False)]

    class Filtered(Message):
        """The filter is another one now; told to the app at once, for what bubbles is lost with the prompt."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, text: str) -> None:
        super().__init__(text, placeholder="words in name, state or metric; !word for not", compact=True)
        self.cursor_blink = False
        self._is_given_up = False

    def on_unmount(self) -> None:
        """Let go: the screen would keep it for good, by the signal that Textual's Input subscribes to."""
        with suppress(NoScreen):
            self.screen.text_selection_started_signal.unsubscribe(self)

    def validate_value(self, value: str) -> str:
        """What is pasted may hold controls, which no strip may carry."""
        return "".join(filter(str.isprintable, value))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Tell the text, unless Esc came before this news of what was typed."""
        event.stop()
        if not self._is_given_up:
            self.app.post_message(self.Filtered(event.value))

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep it."""
        event.stop()
        await self.remove()

    async def action_give_up(self) -> None:
        """Take the filter away."""
        self._is_given_up = True
        self.app.post_message(self.Filtered(""))
        await self.remove()
