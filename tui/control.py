"""Lines in the place of the keys, in which it is said what is asked of a training; loaded when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from textual.events import Key
from textual.widgets import Input, Static

from cbmon.tui.prompt import FilterPrompt


class ControlPrompt(FilterPrompt):
    """A line in which something is typed for a training: Enter goes on, Esc gives up."""

    def __init__(self, placeholder: str, go: Callable[[str], None]) -> None:
        super().__init__("")
        self.placeholder = placeholder
        self._go = go

    def on_input_changed(self, event: Input.Changed) -> None:
        """Wait for Enter."""
        event.stop()
        event.prevent_default()  # Textual calls the base class's handler too: that one filters

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go on with what was typed, which may be nothing."""
        event.stop()
        event.prevent_default()
        await self.remove()
        self._go(event.value)

    async def action_give_up(self) -> None:
        """Ask nothing."""
        await self.remove()


class Choice(Static, can_focus=True):
    """A question that single keys answer; any other key is no."""

    def __init__(self, question: str, answers: Mapping[str, Callable[[], None]]) -> None:
        """Take the question and what each key does."""
        super().__init__(question, markup=False)
        self._answers = answers
        self._is_answered = False

    async def on_key(self, event: Key) -> None:
        """Answer it, once: two quick keys may both come before it is gone."""
        event.stop()
        event.prevent_default()
        if not self._is_answered:
            self._is_answered = True
            await self.remove()
            self._answers.get(event.key, lambda: None)()
