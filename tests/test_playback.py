"""`cbmon replay --play` on its screen: a recorded run, a clock that stands still until it is told to go on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from cbmon.cli import main
from cbmon.errors import BadCall
from cbmon.profiles import NEWEST
from cbmon.replay.calls import parse_calls
from cbmon.replay.player import Player, Position, Script
from cbmon.replay.shadow import Shadow
from cbmon.sources import find, read_whole
from cbmon.tui.keys import KEYS, PLAY_KEYS, footer_text
from cbmon.tui.playback import EpochPrompt, PlayApp, play, position_line
from cbmon.tui.screens import HelpScreen
from cbmon.tui.whatif import WhatIfScreen
from tests.test_watch_app import (
    PATIENCE_S,
    faults,  # noqa: F401  # autouse: what a border of drawing caught fails the test
    in_utc,  # noqa: F401  # autouse
    is_whole,
    panel,
    press,
    screen,
    until,
)
from tests.test_watch_pty import QUIET_S, Terminal

SAMPLES = Path(__file__).resolve().parent.parent / "sample_logs"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def playing(
    name: str = "plateau",
    *calls: str,
    size: tuple[int, int] = (80, 24),
    **options: Any,
) -> AsyncIterator[tuple[PlayApp, Pilot[None], Clock]]:
    (log,) = find([str(SAMPLES / name)]).logs
    clock = Clock()
    read = [call for text in calls for call in parse_calls(text, NEWEST)]
    player = Player(log, list(read_whole(log, 0.0)), now=clock)
    app = PlayApp(player, policies=lambda: [Shadow(call, NEWEST) for call in read], **options)
    async with app.run_test(size=size) as pilot:
        await until(pilot, app.first_read.is_set)
        await pilot.pause()
        yield app, pilot, clock


def line(app: PlayApp) -> str:
    """Where it is, as it is told, without the bar."""
    return panel(app, "position")[0].partition("/s")[0].strip() + "/s"


def epochs(app: PlayApp) -> int:
    """What is folded."""
    (run,) = app._runs.values()
    return sum(len(attempt.epochs) for attempt in run.attempts)


async def at(app: PlayApp, pilot: Pilot[None], epoch: int) -> None:
    """Wait until an epoch is on the screen."""
    await until(pilot, lambda: epochs(app) == epoch and f"epoch {epoch:>2}/" in line(app))


async def test_it_begins_at_the_start_and_plays_as_if_it_were_live() -> None:
    async with playing() as (app, pilot, clock):
        assert line(app) == "▶ epoch  0/50 · 2/s"
        clock.now += 5.0
        await at(app, pilot, 10)
        assert "10/50" in panel(app, "runs")[0]
        assert panel(app, "head")[0].startswith(" cbmon  replay ")


async def test_at_the_end_it_stays_on_the_screen_paused() -> None:
    async with playing() as (app, pilot, clock):
        clock.now += 1000.0
        await at(app, pilot, 50)
        assert line(app).startswith("‖")
        await press(pilot, "p")  # again, from the start
        await until(pilot, lambda: line(app) == "▶ epoch  0/50 · 2/s")


async def test_p_pauses_and_plays_on() -> None:
    async with playing() as (app, pilot, clock):
        clock.now += 1.0
        await at(app, pilot, 2)
        await press(pilot, "p")
        await until(pilot, lambda: line(app) == "‖ epoch  2/50 · 2/s")
        clock.now += 100.0
        await press(pilot, "p")
        await until(pilot, lambda: line(app) == "▶ epoch  2/50 · 2/s")
        clock.now += 0.5
        await at(app, pilot, 3)


async def test_it_steps_forward_and_back() -> None:
    async with playing() as (app, pilot, _):
        await press(pilot, ".", ".", ".")
        await at(app, pilot, 3)
        await press(pilot, ",")
        await at(app, pilot, 2)
        assert line(app).startswith("‖")


async def test_braces_go_to_what_happens_and_say_when_there_is_no_more() -> None:
    call = "EarlyStopping(patience=3)"
    async with playing("plateau", call) as (app, pilot, _):
        found = []
        for _ in range(20):
            await press(pilot, "}")
            await until(pilot, lambda: app._moments is not None)
            await press(pilot)
            if "no more events in that direction" in " ".join(panel(app, "alerts")):
                break
            row = app._player._from
            await at(app, pilot, row)
            found.append(row)
        assert found == app._moments
        assert found[-1] == 50
        (fired,) = [shadow.fired for shadow in app._shadows[next(iter(app._runs))]]
        assert fired[0] + 1 in found
        await press(pilot, "{")
        await at(app, pilot, found[-2])


async def test_parentheses_change_the_speed() -> None:
    async with playing() as (app, pilot, _):
        await press(pilot, ")", ")")
        await until(pilot, lambda: line(app) == "▶ epoch  0/50 · 10/s")
        await press(pilot, "(")
        await until(pilot, lambda: line(app) == "▶ epoch  0/50 · 5/s")


async def test_dollar_and_circumflex_go_to_the_ends() -> None:
    async with playing() as (app, pilot, _):
        await press(pilot, "$")
        await at(app, pilot, 50)
        await press(pilot, "^")
        await at(app, pilot, 0)


async def test_an_epoch_can_be_typed() -> None:
    async with playing() as (app, pilot, _):
        await pilot.press("colon", "2", "1", "enter")
        await at(app, pilot, 21)
        assert app._look.filter == ""
        assert not app.query(EpochPrompt)
        await pilot.press("colon", "9", "9", "enter")
        await at(app, pilot, 50)
        await pilot.press("colon", "x", "enter")
        await until(pilot, lambda: "'x' is no epoch" in panel(app, "alerts")[0])
        await pilot.press("colon", "3", "escape")
        await until(pilot, lambda: not app.query(EpochPrompt))
        assert epochs(app) == 50


async def test_each_attempt_plays_after_the_one_before() -> None:
    async with playing("resumed") as (app, pilot, _):
        first, second = app._player.script.starts
        app._player.pause_at(second)
        await until(pilot, lambda: line(app).startswith("‖ attempt 1 of 2 · epoch "))
        await press(pilot, ".")
        await until(pilot, lambda: line(app).startswith("‖ attempt 2 of 2 · epoch "))
        assert first == 0
        assert "attempt 2 of 2" in panel(app, "main")[0]


async def test_policies_run_beside_it_and_are_counted_anew_after_a_step_back() -> None:
    async with playing("overfitting", "EarlyStopping(patience=5)") as (app, pilot, _):
        await press(pilot, "$")
        await until(pilot, lambda: "would have stopped after epoch 26" in panel(app, "strip")[0])
        app._player.pause_at(25)
        await until(pilot, lambda: "wait 4/5" in panel(app, "strip")[0])
        await press(pilot, ".")
        await until(pilot, lambda: "would have stopped after epoch 26" in panel(app, "strip")[0])


async def test_callbacks_that_cannot_be_followed_are_told_in_one_line() -> None:
    (log,) = find([str(SAMPLES / "plateau")]).logs
    calls = parse_calls("TerminateOnNaN(); EarlyStopping(patience=3); ModelCheckpoint('m.keras')", NEWEST)
    app = play(log, read_whole(log, 0.0), calls, NEWEST)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, app.first_read.is_set)
        assert [shadow.call.text for shadow in app._policies()] == ["EarlyStopping(patience=3)"]
        told = " ▲ not followed while it plays: TerminateOnNaN(), ModelCheckpoint('m.keras')"
        await until(pilot, lambda: told in panel(app, "alerts"))


def test_an_attempt_can_be_asked_for() -> None:
    (log,) = find([str(SAMPLES / "resumed")]).logs
    events = list(read_whole(log, 0.0))
    app = play(log, events, [], NEWEST, attempt=2)
    assert app._player._from == Script(events).starts[1]
    with pytest.raises(BadCall, match="no attempt 3 with an epoch; it has 2"):
        play(log, events, [], NEWEST, attempt=3)


@pytest.mark.parametrize("is_ascii", [False, True])
@pytest.mark.parametrize("size", [(80, 24), (160, 45), (50, 12)])
async def test_every_row_has_its_width_and_the_keys_are_told(size: tuple[int, int], is_ascii: bool) -> None:
    async with playing("nan", "EarlyStopping(patience=3)", size=size, is_ascii=is_ascii) as (app, pilot, _):
        for key in (".", "$", "}", "p"):
            await press(pilot, key)
            assert is_whole(app)
        assert not is_ascii or "".join(screen(app)).isascii()
        assert panel(app, "footer")[0].startswith(" p pause  , . step")
        assert size[0] < 80 or "w what-if  " in panel(app, "footer")[0]
        assert panel(app, "footer")[0].endswith("? help  q quit")
        assert panel(app, "position")[0].startswith(" >" if is_ascii else " ▶")


async def test_help_tells_the_keys_of_playback_first() -> None:
    async with playing(size=(100, 60)) as (app, pilot, _):
        await press(pilot, "?")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        text = "\n".join(screen(app))
        assert text.index("{ }        to the event before") < text.index("next metric")


async def test_what_if_works_on_what_was_played() -> None:
    async with playing() as (app, pilot, _):
        await press(pilot, "w")
        await until(pilot, lambda: "no epoch yet of which to ask what if" in panel(app, "alerts")[0])
        await press(pilot, "$")
        await at(app, pilot, 50)
        await press(pilot, "w")
        await until(pilot, lambda: isinstance(app.screen, WhatIfScreen))


async def test_what_if_begins_with_the_policy_beside_and_does_not_call_the_part_played_cut_short() -> None:
    call = "ReduceLROnPlateau(patience=40.0, min_delta=0.01)"
    async with playing("overfitting", call) as (app, pilot, _):
        app._player.pause_at(33)
        await at(app, pilot, 33)
        await press(pilot, "w")
        await until(pilot, lambda: isinstance(app.screen, WhatIfScreen))
        asked = app.screen
        assert isinstance(asked, WhatIfScreen)
        await until(pilot, lambda: asked._answer is not None)
        assert asked._answer is not None
        assert asked.question.text == 'ReduceLROnPlateau(monitor="val_loss", patience=40, min_delta=0.01)'
        assert asked._answer.answer.startswith("not within 33 epochs")
        assert not any("stopped early" in note for note in asked._answer.notes)
        asked.action_keep()
        assert "taken away" in asked._notice  # the same policy, however its CALL is written


def test_no_key_of_playback_means_something_else_on_the_screen_of_watch() -> None:
    own = {name for key in PLAY_KEYS for name in key.keys.split(",")}
    assert own.isdisjoint(name for key in KEYS for name in key.keys.split(","))
    assert len(footer_text(ascii=False, keys=PLAY_KEYS)) < 60


def test_the_position_is_told_in_figures_that_keep_their_places() -> None:
    place = Position(row=7, rows=1000, epoch=6, last=999, attempt=1, attempts=1, speed=1000, is_playing=False)
    assert position_line(place) == "‖ epoch     7/1,000 · 1,000/s"
    assert position_line(place, ascii=True) == "= epoch     7/1,000 - 1,000/s"


async def test_an_empty_log_says_so(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    path.write_text("epoch,loss\n")
    (log,) = find([str(path)]).logs
    app = play(log, read_whole(log, 0.0), [], NEWEST)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, app.first_read.is_set)
        await press(pilot, "}", "$", "p", ".")
        assert "no epoch in this log" in panel(app, "position")[0]
        assert PATIENCE_S


# --- the command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plateau"], 2, "--play needs a terminal"),
        ([""], 2, "--play plays one log, here are"),
        (["plateau", "--json"], 2, "give --json, --html, --explain, --write and --engine without it"),
        (["plateau", "--engine", "both"], 2, "and --engine without it"),
        (["plateau", "--write", "new.csv"], 2, "and --engine without it"),
        (["plateau", "-c", "EarlyStoping()"], 2, "no such callback"),
        (["make.py"], 3, "make.py"),
    ],
)
def test_what_cannot_be_played_is_told_on_stderr(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = arguments
    assert main(["replay", str(SAMPLES / name), *options, "--play"]) == code
    out, err = capsys.readouterr()
    assert words in err
    assert not out


def test_a_log_plays_in_a_terminal_and_paused_it_sends_nothing() -> None:
    terminal = Terminal(SAMPLES, "replay", "plateau", "-c", "EarlyStopping(patience=3)", "--play")
    try:
        terminal.shows("▶ epoch  2/50 · 2/s")
        terminal.press(b"p")
        terminal.shows("‖ epoch")
        terminal.press(b"$")
        terminal.shows("‖ epoch 50/50")
        terminal.settle()
        assert terminal.read(QUIET_S) == b""
        terminal.press(b"w5")
        terminal.shows("stops after epoch 12")
        terminal.press(b"qq")
        assert terminal.end() == 0
    finally:
        terminal.close()
