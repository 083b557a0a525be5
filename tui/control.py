"""Lines in the place of the keys, in which it is said what is asked of a training; loaded when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.events import Key
from textual.widgets import Input, Static

from cbmon.tui.prompt import FilterPrompt
from cbmon.units import short_lr

YES_NO = "?  y yes, other keys no"

Do: TypeAlias = Callable[[], None]


class _Line(FilterPrompt):
    """Where the answer is typed; what holds it does the rest."""

    def __init__(self, placeholder: str, give_up: Do) -> None:
        super().__init__("")
        self.placeholder = placeholder
        self._give_up = give_up

    def on_input_changed(self, event: Input.Changed) -> None:
        """Wait for Enter."""
        event.stop()
        event.prevent_default()  # Textual calls the base class's handler too: that one filters

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Let it bubble."""
        event.prevent_default()

    async def action_give_up(self) -> None:
        """Ask nothing."""
        self._give_up()


class ControlPrompt(Horizontal):
    """A line in which something is typed for a training, behind what it is: Enter goes on, Esc gives up."""

    def __init__(self, label: str, placeholder: str, go: Callable[[str], None]) -> None:
        super().__init__()
        self._label = label
        self.line = _Line(placeholder, self._give_up)
        """What takes the keys."""
        self._go = go

    def compose(self) -> ComposeResult:
        """The label stays while it is typed."""
        yield Static(self._label, markup=False)
        yield self.line

    def _give_up(self) -> None:
        self.call_later(self.remove)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go on with what was typed, which may be nothing."""
        event.stop()
        await self.remove()
        self._go(event.value)


class Question(msgspec.Struct, frozen=True):
    """What is asked in one line, and what each key does: something, or ask on."""

    words: str
    answers: Mapping[str, Do | Question]


class Choice(Static, can_focus=True):
    """A question that single keys answer; any other key is no."""

    def __init__(self, question: Question) -> None:
        super().__init__(question.words, markup=False)
        self._question = question
        self._is_answered = False

    async def on_key(self, event: Key) -> None:
        """Answer it, once: two quick keys may both come before it is gone."""
        event.stop()
        event.prevent_default()
        if self._is_answered:
            return
        found = self._question.answers.get(event.character or "")
        if isinstance(found, Question):
            self._question = found
            self.update(found.words)
            return
        self._is_answered = True
        await self.remove()
        if found is not None:
            found()


def rate_words(value: float | None, scale: float | None, present: float | None) -> str:
    """What becomes of the learning rate: ` 0.01 → 3e-4`, ` x0.5: 0.01 → 5e-3`; less where it is not known now."""
    factor = "" if scale is None else f" x{scale:.4g}"
    if present is None:
        return factor or f" → {short_lr(value)}"
    after = value if scale is None else present * scale
    return f"{factor}{':' if factor else ''} {short_lr(present)} → {short_lr(after)}"
