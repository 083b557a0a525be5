"""The what-if screen: keys in, an answer and marks out; over real files."""

import os
from pathlib import Path

import pytest
from textual.pilot import Pilot

from cbmon.chart import MarkKind
from cbmon.tui import whatif
from cbmon.tui.app import WatchApp
from cbmon.tui.whatif import WhatIfScreen
from tests.test_watch_app import (
    NOON,
    append,
    faults,  # noqa: F401  # autouse: what a border of drawing caught fails the test
    in_utc,  # noqa: F401  # autouse
    panel,
    press,
    screen,
    until,
    watching,
)

LOSSES = [1.0, 0.8, 0.5, 0.6, 0.7, 0.6, 0.4, 0.9]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "run.csv"
    rows = "".join(f"{epoch},0.5,{loss},0.01\n" for epoch, loss in enumerate(LOSSES))
    path.write_text(f"epoch,accuracy,val_loss,lr\n{rows}")
    os.utime(path, (NOON, NOON))
    return path


async def opened(app: WatchApp, pilot: Pilot[None]) -> WhatIfScreen:
    await press(pilot, "w")
    await until(pilot, lambda: isinstance(app.screen, WhatIfScreen) and app.screen.query("#what-answer"))
    await pilot.pause()
    assert isinstance(app.screen, WhatIfScreen)
    return app.screen


def told(screen_: WhatIfScreen, name: str = "answer") -> str:
    widget = screen_.query_one(f"#what-{name}", whatif.Panel)
    widget.redraw()
    return "\n".join("".join(text for text, _ in row).rstrip() for row in widget._rows)


async def test_typing_a_number_answers_at_once_and_marks_the_epoch(log: Path) -> None:
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        assert told(asked) == " not within 8 epochs; best .4000 ★7, wait 1 of 10"
        await press(pilot, "3")
        assert told(asked).startswith(" stops after epoch 6, keeps .5000 ★3, saves 2 of 8 epochs")
        assert MarkKind.SHADOW.glyph in told(asked, "chart")
        assert "epoch 6" in told(asked, "chart").splitlines()[0]
        await press(pilot, "backspace", "9")
        assert told(asked).startswith(" not within 8 epochs")
        assert MarkKind.SHADOW.glyph not in told(asked, "chart")


async def test_arrows_choose_and_change(log: Path) -> None:
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await press(pilot, "left", "left")
        assert asked.question.value("patience") == 8
        await press(pilot, "shift+right", "down", "right", "+")
        assert asked.question.value("patience") == 18
        assert asked.question.value("min_delta") == 3e-5
        await press(pilot, "k", "k", "right")
        assert asked.question.value("monitor") == "accuracy"
        assert " accuracy" in told(asked, "chart").splitlines()[0]
        await press(pilot, "up", "right")
        assert asked.question.value("keras") != asked.question.stepped("keras", -1, asked._run.current).keras
        assert "▸ keras" in told(asked, "form")


async def test_tab_asks_the_other_callback_and_each_cut_is_marked(log: Path) -> None:
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await press(pilot, "tab", "1")
        assert told(asked, "head").startswith(" what if  ReduceLROnPlateau")
        assert told(asked).startswith(" cuts ×0.1 after epochs 4, 5, 6 and 8; exact to epoch 4")
        assert told(asked, "chart").count(MarkKind.SHADOW.glyph) == 4
        await press(pilot, "tab")
        assert told(asked, "head").startswith(" what if  EarlyStopping")


async def test_what_keras_refuses_and_what_is_no_number_are_lines(log: Path) -> None:
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await press(pilot, "tab", "up", "2")
        assert "does not support a factor >= 1.0" in told(asked)
        await press(pilot, "enter")
        assert "does not support a factor >= 1.0" in told(asked)
        assert app.is_running
        await press(pilot, "down", "1", ".", "5")
        assert told(asked) == " patience=1.5: not a whole number"


async def test_enter_keeps_the_policy_beside_the_run_and_enter_again_does_not(log: Path) -> None:
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await press(pilot, "3", "enter")
        assert told(asked).startswith(" kept beside this run, Enter again takes it away:")
        await press(pilot, "escape")
        await until(pilot, lambda: not isinstance(app.screen, WhatIfScreen))
        await until(
            pilot, lambda: any("would have stopped after epoch 6" in row for row in panel(app, "strip"))
        )
        assert MarkKind.SHADOW.glyph in "".join(panel(app, "main"))
        again = await opened(app, pilot)
        assert again.question == asked.question
        await press(pilot, "enter")
        assert told(again).startswith(" taken away: EarlyStopping")
        await press(pilot, "escape")
        await until(pilot, lambda: panel(app, "strip") == [])


async def test_c_shows_the_call_and_gives_it_to_the_clipboard(log: Path) -> None:
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await press(pilot, "3", "c")
        call = 'EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)'
        assert told(asked).strip() == call
        assert app.clipboard == call


@pytest.mark.parametrize("key", ["escape", "q", "w"])
async def test_it_closes_and_the_screen_below_is_as_it_was(log: Path, key: str) -> None:
    async with watching() as (app, pilot):
        before = screen(app)
        await opened(app, pilot)
        await press(pilot, key)
        await until(pilot, lambda: not isinstance(app.screen, WhatIfScreen))
        await pilot.pause()
        assert screen(app) == before


async def test_ctrl_c_quits(log: Path) -> None:
    async with watching() as (app, pilot):
        await opened(app, pilot)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)


async def test_it_follows_the_run_as_it_grows(log: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        asked = await opened(app, pilot)
        await press(pilot, "4")
        assert told(asked).startswith(" not within 8 epochs")
        append(log, "8,0.5,0.9,0.01\n9,0.5,0.9,0.01\n10,0.5,0.9,0.01\n")
        await until(pilot, lambda: told(asked).startswith(" stops after epoch 11, keeps .4000 ★7"))


async def test_a_long_run_is_asked_in_a_thread(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatif, "AT_ONCE_ROWS", 4)
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await until(pilot, lambda: told(asked).startswith(" not within 8 epochs"))
        await press(pilot, "3")
        await until(pilot, lambda: told(asked).startswith(" stops after epoch 6"))
        assert "…" not in told(asked)


async def test_the_latest_question_is_answered_however_fast_they_come(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whatif, "AT_ONCE_ROWS", 4)
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        for _ in range(7):
            asked.action_turn(-1)
        assert told(asked) == " …"
        await until(pilot, lambda: told(asked).startswith(" stops after epoch 6"))


async def test_a_fault_of_ours_is_shown(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(whatif, "AT_ONCE_ROWS", 4)
    monkeypatch.setattr(whatif, "outcome", fails)
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await until(pilot, lambda: "a bug of cbmon: RuntimeError: odd" in told(asked))


async def test_a_run_without_an_epoch_cannot_be_asked(log: Path) -> None:
    log.write_text("epoch,loss\n")
    async with watching() as (app, pilot):
        await press(pilot, "w")
        await until(pilot, lambda: panel(app, "alerts") == [" ▲ no epoch yet of which to ask what if"])


async def test_a_click_chooses_and_the_wheel_turns(log: Path) -> None:
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await pilot.click("#what-form", offset=(45, 1))
        await until(pilot, lambda: "▸ start_from_epoch" in told(asked, "form"))
        asked.on_panel_wheeled(whatif.Panel.Wheeled(asked.query_one("#what-form", whatif.Panel), -1))
        assert asked.question.value("start_from_epoch") == 1


@pytest.mark.parametrize("is_ascii", [False, True])
@pytest.mark.parametrize("size", [(80, 24), (160, 45), (60, 14)])
async def test_nothing_is_clipped_and_ascii_is_ascii(
    log: Path, size: tuple[int, int], is_ascii: bool
) -> None:
    async with watching(size=size, is_ascii=is_ascii) as (app, pilot):
        await opened(app, pilot)
        for key in ("3", "tab", "1", "down", "9", "c", "enter"):
            await press(pilot, key)
            lines = screen(app)
            assert "patience" in "".join(lines)
            assert not is_ascii or "".join(lines).isascii()
            assert size[0] < 80 or lines[-1].rstrip().endswith(("Esc", "Esc close"))
            assert not lines[-1].rstrip().endswith(("…", "~"))


async def test_without_colour_it_is_the_same_text(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with watching() as (app, pilot):
        asked = await opened(app, pilot)
        await press(pilot, "3")
        assert told(asked).startswith(" stops after epoch 6")
