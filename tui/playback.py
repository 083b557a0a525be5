"""`cbmon replay --play`: a recorded run on the screen of `watch`, as if it were trained now. Glue only.

`replay.player` hands the events out; here are the keys that steer it and the line that tells where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Thread
from typing import Any, ClassVar

from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from cbmon import frame
from cbmon.chart import Role, Row, sparkbar
from cbmon.errors import BadCall
from cbmon.events import Event
from cbmon.profiles import Profile
from cbmon.replay.calls import Call
from cbmon.replay.player import Player, Position, moments
from cbmon.replay.shadow import Shadow
from cbmon.run import Run, fold
from cbmon.sources import Log
from cbmon.tui.app import WatchApp
from cbmon.tui.keys import PLAY_KEYS, footer_text, help_lines, label_of
from cbmon.tui.prompt import FilterPrompt
from cbmon.tui.screens import HelpScreen
from cbmon.tui.widgets import Palette, Panel, broken
from cbmon.units import cells, display_epoch, printable
from cbmon.views import ascii_only

FOR_SEVERAL = ("move(1)", "mark", "filter")
"""Of no use where there is one run."""
BAR_MAX = 40
LOOKING_S = 0.05
"""A key waits so long for the list of events; a long log takes longer, and the key says so."""


class PlayApp(WatchApp):
    """The screen of `watch` with a recorded run, and a line with the position."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(name, key.action, key.description, show=False, priority=key.opens)
        for key in PLAY_KEYS
        for name in key.keys.split(",")
    ]

    def __init__(
        self, player: Player, *, policies: Callable[[], Sequence[Shadow]] = tuple, **options: Any
    ) -> None:
        """Take what is played, and what `WatchApp` takes."""
        if options.get("planned") is None and player.script.rows:
            options["planned"] = display_epoch(max(player.script.epochs))
        super().__init__(player, policies=policies, **options)
        self._player = player
        self._title = f"replay {self._title}"
        self._moments: list[int] | None = None
        """Where something happens; None until somebody asks."""
        self._looking: Thread | None = None

    def compose(self) -> ComposeResult:
        """The panels of `watch`, and the position above the keys."""
        palette: Palette | None = None
        for widget in super().compose():
            if isinstance(widget, Palette):
                palette = widget
            if widget.id == "footer" and palette is not None:
                yield Panel(self._draw_position, palette, id="position")
            yield widget

    def _draw_position(self, width: int, height: int) -> list[Row]:
        position = self._player.position
        text = f" {position_line(position, ascii=self._is_ascii)}  "
        bar = sparkbar(
            position.row / max(position.rows, 1), min(BAR_MAX, width - cells(text)), self._is_ascii
        )
        return [frame.clip([(text, Role.TITLE), (bar, Role.BAR)], width, self._is_ascii)]

    def _draw_footer(self, width: int, height: int) -> list[Row]:
        keys = (*PLAY_KEYS, *(key for key in self._keys() if key.action not in FOR_SEVERAL))
        return [
            frame.clip(
                [(f" {footer_text(ascii=self._is_ascii, width=width - 2, keys=keys)}", Role.DIM)], width
            )
        ]

    def _is_growing(self, run: Run) -> bool:
        """While the recording is not played to its end."""
        return self._player.position.row < self._player.script.rows

    # --- what the keys do ---------------------------------------------------------------------------------

    def action_play(self) -> None:
        """Pause, or play on."""
        self._player.toggle()
        self._choose_anew()

    def action_step(self, by: int) -> None:
        """An epoch forward or back, paused."""
        self._player.step(by)
        self._choose_anew()

    def action_pace(self, by: int) -> None:
        """Faster or slower."""
        self._player.pace(by)
        self._choose_anew()

    def action_seek_end(self, by: int) -> None:
        """To the start, or to the end."""
        self._player.seek(self._player.script.rows if by > 0 else 0)
        self._choose_anew()

    def action_moment(self, by: int) -> None:
        """To the next epoch at which something happens, or the one before, and pause there."""
        if self._looking is None:
            self._looking = Thread(target=self._look_for_moments, name="cbmon-moments", daemon=True)
            self._looking.start()
        self._looking.join(LOOKING_S)
        row = self._player.position.row
        if self._moments is None:
            self._choose_anew("still looking for events: press again")
        elif not (ahead := [place for place in self._moments if (place - row) * by > 0]):
            self._choose_anew("no more events in that direction")
        else:
            self._player.pause_at((min if by > 0 else max)(ahead))
            self._choose_anew()

    def _look_for_moments(self) -> None:
        """The thread that looks through the whole log."""
        try:
            self._moments = moments(self._player.script, self._fired)
        except Exception as error:  # noqa: BLE001  # shown, not swallowed
            self._fault, self._moments = broken(error), []

    def _fired(self, run: Run) -> Iterator[Sequence[int]]:
        """The epochs after which each attempt's policies act."""
        for attempt in run.attempts:
            if attempt.epochs:
                shadows = self._policies()
                for shadow in shadows:
                    shadow.look(attempt)
                    while shadow.is_behind(attempt):
                        shadow.look(attempt)
                yield [epoch for shadow in shadows for epoch in shadow.fired]

    async def action_seek(self) -> None:
        """Ask for an epoch, in the place of the keys."""
        prompt = EpochPrompt(self._go_to)
        await self.mount(prompt)
        self.screen.set_focus(prompt)

    def _go_to(self, text: str) -> None:
        """Go to an epoch (1-based) of the attempt that is played."""
        script, position = self._player.script, self._player.position
        if not text.strip().isdecimal():
            self._choose_anew(f"{printable(text)!r} is no epoch: type its number")
        elif script.rows:
            self._player.seek(script.place(position.attempt - 1, int(text) - 1))
            self._choose_anew()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """As for the filter: what opens something is text where something is open."""
        return super().check_action("filter" if action == "seek" else action, parameters)

    def action_help(self) -> None:
        """Show the keys, those of playback first."""
        self.push_screen(
            HelpScreen(
                is_ascii=self._is_ascii,
                more=help_lines(ascii=self._is_ascii, keys=PLAY_KEYS),
                keys=self._keys(),
            )
        )

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: playback's keys first."""
        for key in PLAY_KEYS:
            if key.description:
                action = key.action
                yield SystemCommand(
                    key.description,
                    f"key {label_of(key, ascii=self._is_ascii)}",
                    lambda action=action: self.call_later(self.run_action, action),
                )
        yield from super().get_system_commands(screen)


class EpochPrompt(FilterPrompt):
    """The line in which an epoch is typed: Enter goes there."""

    def __init__(self, go: Callable[[str], None]) -> None:
        super().__init__("")
        self.placeholder = "epoch to go to, of this attempt"
        self._go = go

    def on_input_changed(self, event: Input.Changed) -> None:
        """Wait for Enter."""
        event.stop()
        event.prevent_default()  # else Textual asks the filter's handler too
        event.prevent_default()  # Textual calls the base class's handler too: that one filters

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go."""
        event.stop()
        event.prevent_default()
        event.prevent_default()
        await self.remove()
        if event.value:
            self._go(event.value)

    async def action_give_up(self) -> None:
        """Stay."""
        await self.remove()


def position_line(position: Position, *, ascii: bool = False) -> str:
    """`▶ epoch 12/100 · 5/s`."""
    glyph = (">" if ascii else "▶") if position.is_playing else "=" if ascii else "‖"
    if position.last is None:
        words = ["no epoch in this log"]
    else:
        words = [f"attempt {position.attempt} of {position.attempts}"] if position.attempts > 1 else []
        last = f"{display_epoch(position.last):,}"
        done = 0 if position.epoch is None else display_epoch(position.epoch)
        words += [f"epoch {done:>{len(last)},}/{last}"]
        words += [f"{position.speed:,}/s"]
    text = " · ".join(words)
    return f"{glyph} {ascii_only(text) if ascii else text}"


def play(
    log: Log,
    events: Iterable[Event],
    calls: Sequence[Call],
    profile: Profile,
    *,
    attempt: int | None = None,
    **options: Any,
) -> PlayApp:
    """The application for a recorded log, with the callbacks that can be followed beside it.

    What cannot be followed is told in one line on the screen.

    Args:
        log: as it was found.
        events: as read from its start to its end.
        calls: to be followed.
        profile: which Keras they are of.
        attempt: the one to begin with, 1-based, as `replay` counts them.
        options: those of `PlayApp`.

    Raises:
        BadCall: There is no such attempt.
    """
    followed, others = [], []
    for call in calls:
        try:
            Shadow(call, profile)
        except BadCall:
            others.append(call.text)
        else:
            followed.append(call)
    trouble = f"not followed while it plays: {', '.join(others)}" if others else ""
    player = Player(log, events, trouble=trouble)
    if attempt is not None:
        player.seek(_start_of(player, attempt))
    return PlayApp(player, policies=lambda: [Shadow(call, profile) for call in followed], **options)


def _start_of(player: Player, attempt: int) -> int:
    """The position at which an attempt begins; those without an epoch count too, but cannot be played."""
    run, script = Run(), player.script
    for event in script.between(None, script.rows):
        fold(run, event)
    numbers = [number for number, each in enumerate(run.attempts, 1) if each.epochs]
    if attempt not in numbers:
        raise BadCall(f"{player.paths[0]}: no attempt {attempt} with an epoch; it has {len(run.attempts)}")
    return script.starts[numbers.index(attempt)]
