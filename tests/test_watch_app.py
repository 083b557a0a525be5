"""`cbmon watch` on its screen: real files, the real follower, keys pressed by Textual's pilot."""

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.command import CommandList, CommandPalette
from textual.events import Key, MouseScrollDown, MouseScrollUp, Paste, Resize
from textual.geometry import Size
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widgets import Static

from cbmon.chart import CURVE_ROLES, Role
from cbmon.events import EpochsEnded, Event, RunStarted, encode_line
from cbmon.plots import GREY, ChartView, chart_view
from cbmon.profiles import find_profile
from cbmon.replay.calls import parse_calls
from cbmon.replay.shadow import Shadow
from cbmon.run import Run
from cbmon.sources import Follower, Log
from cbmon.tui.app import WatchApp
from cbmon.tui.keys import CONTROL, KEYS
from cbmon.tui.prompt import FilterPrompt
from cbmon.tui.screens import Following, HelpScreen
from cbmon.tui.widgets import Panel, broken
from cbmon.units import cells
from cbmon.views import RunView, run_view

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC: the frozen clock."""
PATIENCE_S = 20.0
"""After which a condition that is not met fails the test; never waited for where all is well."""
LISTED = re.compile("([▸> ])[a-z ]?[●◐◌✓■⏸✗] (\\S+)")
HEADER = "epoch,accuracy,loss,lr,val_accuracy,val_loss\n"


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """What a border of drawing caught: the screen would go on, the test must not."""
    caught: list[Exception] = []

    def kept(error: Exception) -> str:
        caught.append(error)
        return broken(error)

    monkeypatch.setattr("cbmon.tui.app.broken", kept)
    monkeypatch.setattr("cbmon.tui.widgets.broken", kept)
    yield caught
    if caught:
        raise ExceptionGroup("the drawing failed by", caught)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, named as people do."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def row(epoch: int, loss: float | str = 1.0, rate: float = 0.01) -> str:
    return f"{epoch},0.5,{loss},{rate},0.6,{loss}\n"


def a_log(folder: Path, name: str, rows: int = 5, *, age_s: float = 0.0, text: str | None = None) -> Path:
    path = folder / f"{name}.csv"
    falling = "".join(row(epoch, round(2.0 / (epoch + 1), 4)) for epoch in range(rows))
    path.write_text(HEADER + falling if text is None else text)
    os.utime(path, (NOON - age_s, NOON - age_s))
    return path


def append(path: Path, text: str) -> None:
    """What a training does at the end of an epoch."""
    with path.open("a") as file:
        file.write(text)


def record(epoch: int | None, at: float, name: str = "loss") -> str:
    """A line of Monitor's record: the start, or an epoch."""
    if epoch is None:
        event = RunStarted(run_id="r", epochs=10, steps=3, keras="3.15.1", optimizer="Adam", time=at)
        return encode_line(event).decode()
    return encode_line(EpochsEnded(epochs=[epoch], metrics={name: [1.0]}, time=at)).decode()


def screen(app: WatchApp) -> list[str]:
    """What stands on the screen, line by line."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def panel(app: WatchApp, name: str) -> list[str]:
    """What stands in a panel."""
    widget = app.query_one(f"#{name}", Panel)
    return [widget.render_line(y).text.rstrip() for y in range(widget.size.height)]


def runs(app: WatchApp) -> list[str]:
    """The names in the list, read behind cursor, letter and glyph."""
    return [found[2] for line in panel(app, "runs") if (found := LISTED.match(line))]


def cursor(app: WatchApp) -> str:
    found = [match for line in panel(app, "runs") if (match := LISTED.match(line)) and match[1] != " "]
    return found[0][2]


@asynccontextmanager
async def watching(
    *paths: str | Path, size: tuple[int, int] = (80, 24), poll: bool = True, **options: Any
) -> AsyncIterator[tuple[WatchApp, Pilot[None]]]:
    follower = Follower([str(path) for path in paths or ("logs",)], poll=poll, now=lambda: NOON)
    app = WatchApp(follower, **options)
    async with app.run_test(size=size) as pilot:
        await asyncio.wait_for(app.first_read.wait(), PATIENCE_S)
        await pilot.pause()
        yield app, pilot


async def until(pilot: Pilot[None], is_so: Callable[[], object]) -> None:
    """Wait for a condition, letting the application work."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_title(app: WatchApp, pilot: Pilot[None], start: str) -> None:
    """Wait until the chart's title begins with this."""
    await until(pilot, lambda: panel(app, "main")[0].startswith(start))


def is_whole(app: WatchApp) -> bool:
    """Whether each row of each panel is as wide as the panel, and no panel has more rows than fit."""
    return all(
        len(panel._rows) <= panel.size.height
        and all(sum(cells(text) for text, _ in row) == panel.size.width for row in panel._rows)
        for panel in app.query(Panel)
        if panel.size.width and panel.size.height
    )


def title(app: WatchApp) -> str:
    return panel(app, "main")[0].strip()


def axis(app: WatchApp) -> list[int]:
    """The epochs written below the chart."""
    lines = panel(app, "main")
    return list(map(int, lines[next(at for at, line in enumerate(lines) if "└" in line) + 1].split()))


def rail(app: WatchApp) -> str:
    lines = panel(app, "main")
    return lines[next(at for at, line in enumerate(lines) if "└" in line) + 2]


def roles(app: WatchApp, name: str, text: str) -> set[Role]:
    """How what contains a text is coloured in a panel."""
    return {role for row in app.query_one(f"#{name}", Panel)._rows for span, role in row if text in span}


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys, each when the one before has been answered, and let what they changed be drawn.

    `pilot.press` and `pilot.pause` wait until the whole process is idle: much longer.
    """
    app = pilot.app
    assert isinstance(app, WatchApp)
    for key in keys:
        character = key if len(key) == 1 else " " if key == "space" else None
        name = _character_to_key(key) if len(key) == 1 and not key.isalnum() else key
        app.post_message(Key(name, character))
        await answered(app)
    await answered(app)
    await until(pilot, lambda: is_laid_out(app))


def is_laid_out(app: WatchApp) -> bool:
    """Whether the panels have the rows that they were given; in a low terminal nobody can tell."""
    if not app.is_running:
        return True
    if app.screen._layout_required or app._pending is not None or app._is_chosen_anew:
        return False
    if app.screen.size.height < 20:
        return True
    given = [panel for panel in app.query(Panel) if panel.id in ("runs", "strip", "alerts")]
    return all(panel.styles.height and panel.styles.height.value == panel.size.height for panel in given)


async def answered(app: WatchApp) -> None:
    """Let each queue work off what a key puts into it, on its way down and up again."""
    async with asyncio.timeout(PATIENCE_S):
        for pump in (app, app.screen, app.focused, app.screen, app) * 2:
            done = asyncio.Event()
            if pump is not None and pump.call_later(done.set):
                while not done.is_set() and pump.is_running and pump.is_attached:
                    await asyncio.sleep(0)


async def wheel(pilot: Pilot[None], name: str, by: int) -> None:
    """Turn the wheel over a panel: 1 down, -1 up."""
    kind = MouseScrollDown if by > 0 else MouseScrollUp
    await pilot._post_mouse_events([kind], widget=f"#{name}", offset=(10, 0))
    await pilot.pause()


# --- runs and keys ------------------------------------------------------------------------------------------


@pytest.fixture
def three(logs: Path) -> Path:
    a_log(logs, "middle", 7, age_s=60)
    a_log(logs, "oldest", 9, age_s=600)
    a_log(logs, "newest", 5)
    return logs


async def test_runs_are_listed_newest_first_and_the_newest_is_drawn(three: Path) -> None:
    async with watching() as (app, _):
        assert [line[3:9] for line in panel(app, "runs")] == ["newest", "middle", "oldest"]
        assert panel(app, "main")[0].startswith(" newest  loss   lr 0.01 ")
        assert panel(app, "head") == [f"{' cbmon  logs':64}3 runs    12:00"]


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (["down"], "middle"),
        (["j", "j"], "oldest"),
        (["j", "j", "j", "k"], "middle"),
        (["up"], "newest"),
        (["end"], "oldest"),
        (["G", "home"], "newest"),
        (["G", "g"], "newest"),
    ],
)
async def test_cursor_keys_choose_a_run_and_the_chart_follows(
    three: Path, keys: list[str], chosen: str
) -> None:
    async with watching() as (app, pilot):
        await pilot.press(*keys)
        await until(pilot, lambda: cursor(app) == chosen)
        await until_title(app, pilot, f" {chosen}  loss")


async def test_a_click_chooses_the_run_under_it_and_one_below_the_list_does_nothing(three: Path) -> None:
    async with watching() as (app, pilot):
        await pilot.click("#runs", offset=(20, 2))
        await until_title(app, pilot, " oldest")
        await pilot.click("#main", offset=(20, 5))
        await pilot.pause()
        assert cursor(app) == "oldest"


async def test_m_and_shift_m_go_through_the_metrics_and_round_again(three: Path) -> None:
    async with watching() as (app, pilot):
        for key, metric in (("m", "accuracy"), ("m", "loss"), ("M", "accuracy"), ("M", "loss")):
            await pilot.press(key)
            await until_title(app, pilot, f" newest  {metric}   lr")


async def test_y_switches_the_log_axis_on_and_off(three: Path) -> None:
    async with watching() as (app, pilot):
        for title in (" newest  loss (log)   lr", " newest  loss   lr"):
            await pilot.press("y")
            await until_title(app, pilot, title)


async def test_e_shows_all_alerts_in_place_of_the_chart_and_back(logs: Path) -> None:
    rows = "".join(row(epoch, 1.0, 10.0 ** -(epoch // 2)) for epoch in range(18))
    a_log(logs, "run", text=f"{HEADER}{rows}18,1\n")
    async with watching() as (app, pilot):
        assert panel(app, "alerts")[-1] == " · 7 more (e)"
        await pilot.press("e")
        await until(pilot, lambda: "alerts and warnings" in panel(app, "main")[0])
        text = "\n".join(panel(app, "main"))
        assert text.count("learning rate") == 8
        assert "plateau" in text
        assert "line 20: " in text
        assert panel(app, "alerts") == []
        await pilot.press("e")
        await until_title(app, pilot, " run  loss")


async def test_e_says_so_where_there_are_none(three: Path) -> None:
    async with watching() as (app, pilot):
        await pilot.press("e")
        await until(pilot, lambda: panel(app, "main")[0] == " newest  no alerts, no warnings")


@pytest.mark.parametrize("key", ["q", "escape", "question_mark", "m", "ctrl+c"])
async def test_help_opens_by_its_key_and_any_key_that_does_not_scroll_closes_it(
    three: Path, key: str
) -> None:
    async with watching() as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert "any other key closes this" in "\n".join(screen(app))
        await pilot.press(key)
        if key == "ctrl+c":
            await until(pilot, lambda: not app.is_running)
        else:
            await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
            assert app.is_running
            assert cursor(app) == "newest"


async def test_help_closes_by_a_click_and_the_screen_below_goes_on_meanwhile(three: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        append(three / "newest.csv", row(5, 0.25))
        await until(pilot, lambda: ".2500" in panel(app, "main")[0])
        await pilot.click(Static)
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))


async def test_ctrl_l_sends_the_whole_screen_again(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching() as (app, pilot):
        drawn: list[bool] = []
        monkeypatch.setattr(app.screen, "refresh", lambda *regions, **_: drawn.append(not regions))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: drawn == [True])


async def test_keys_do_nothing_harmful_without_a_run(logs: Path) -> None:
    async with watching() as (app, pilot):
        await pilot.press("j", "k", "home", "end", "m", "M", "y", "e", "e", "ctrl+l")
        await pilot.click("#main")
        await pilot.pause()
        assert any("No training logs here yet" in line for line in screen(app))


# --- what changes on disk -----------------------------------------------------------------------------------


async def test_a_growing_log_appears_on_the_screen_by_itself(logs: Path) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False, planned=20) as (app, pilot):
        assert "5/20" in panel(app, "runs")[0]
        append(path, row(5, 0.125))
        await until(pilot, lambda: "6/20" in panel(app, "runs")[0])
        assert ".1250 ★6" in panel(app, "runs")[0]
        await until(pilot, lambda: "train .1250" in panel(app, "main")[0])


async def test_half_a_row_waits_for_its_other_half(logs: Path) -> None:
    path = a_log(logs, "run")
    other = a_log(logs, "other", age_s=60)
    async with watching(poll=False) as (app, pilot):
        append(path, row(5, 0.125)[:12])
        append(other, row(5, 0.125))
        await until(pilot, lambda: " 6 " in panel(app, "runs")[1])
        assert " 5 " in panel(app, "runs")[0]
        append(path, row(5, 0.125)[12:])
        await until(pilot, lambda: " 6 " in panel(app, "runs")[0])


async def test_a_new_run_appears_in_an_empty_folder(logs: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        assert panel(app, "head")[0].endswith("no runs yet")
        assert panel(app, "runs") == []
        assert any("Monitor('logs')" in line for line in panel(app, "main"))
        (logs / "deep").mkdir()
        a_log(logs / "deep", "training")
        await until(pilot, lambda: panel(app, "runs"))
        assert panel(app, "runs")[0].startswith("▸◐ deep  5  ")
        await until_title(app, pilot, " deep  loss")


async def test_a_run_that_begins_later_is_listed_first_and_the_cursor_stays(three: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await pilot.press("j")
        a_log(three, "later", age_s=-60)
        await until(pilot, lambda: len(panel(app, "runs")) == 4)
        assert [line[3:9].strip() for line in panel(app, "runs")] == ["later", "newest", "middle", "oldest"]
        assert panel(app, "main")[0].startswith(" middle")


async def test_a_nan_turns_the_glyph_red_and_tells_the_epoch(logs: Path) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False) as (app, pilot):
        assert panel(app, "runs")[0].startswith("▸◐ run")
        append(path, row(5, "nan"))
        await until(pilot, lambda: panel(app, "runs")[0].startswith("▸✗ run  6  NaN loss, epoch 6"))
        assert "1 run · 1 needs you: run " in panel(app, "head")[0]
        await until(pilot, lambda: " ✗ NaN loss at epoch 6" in panel(app, "alerts"))
        assert any("✗" in line for line in panel(app, "main"))


async def test_a_learning_rate_change_is_an_alert_and_a_mark_on_the_rail(logs: Path) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False) as (app, pilot):
        assert not any("▼" in line for line in panel(app, "main"))
        append(path, row(5, 0.3, 0.001))
        await until(pilot, lambda: panel(app, "alerts") == [" · learning rate 0.01 → 1e-3 at epoch 6"])
        await until(pilot, lambda: any("▼" in line for line in panel(app, "main")))
        assert "╲" in panel(app, "main")[-1]


async def test_a_record_that_is_truncated_and_written_anew_starts_anew(logs: Path) -> None:
    path = a_log(logs, "run", 20)
    async with watching(poll=False) as (app, pilot):
        assert " 20 " in panel(app, "runs")[0]
        path.write_text(HEADER + row(0, 7.5))
        await until(pilot, lambda: " 1 " in panel(app, "runs")[0])
        assert "7.500 ★1" in panel(app, "runs")[0]


async def test_a_deleted_log_is_gone_since_when_keeps_its_curve_and_comes_back(logs: Path) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False) as (app, pilot):
        path.unlink()
        await until(pilot, lambda: "∅ run" in panel(app, "runs")[0])
        assert "gone since 12:00" in panel(app, "runs")[0]
        assert "need" not in panel(app, "head")[0], "whoever deleted it knows"
        said = "the file is gone since 12:00: deleted or moved away"
        await until(pilot, lambda: said in "".join(panel(app, "alerts")))
        assert panel(app, "main")[0].startswith(" run  loss")
        a_log(logs, "run", 7)
        await until(pilot, lambda: "◐ run" in panel(app, "runs")[0])
        assert " 7 " in panel(app, "runs")[0]


async def test_a_path_that_is_not_there_yet_is_waited_for_and_said(logs: Path) -> None:
    async with watching("missing/", poll=False) as (app, pilot):
        (said,) = panel(app, "runs")
        assert "missing" in said
        assert "no such path yet, waiting for it (a typo?)" in said
        assert "0 runs" in panel(app, "head")[0]
        assert "need" not in panel(app, "head")[0]
        (logs.parent / "missing").mkdir()
        a_log(logs.parent / "missing", "run")
        await until(pilot, lambda: "◐ run" in panel(app, "runs")[0])
        assert len(panel(app, "runs")) == 1


async def test_an_unreadable_log_is_a_visible_row_and_hides_nothing(logs: Path) -> None:
    a_log(logs, "run")
    os.symlink(logs / "ring", logs / "ring")
    (logs / "training.log").write_text("epoch;what\nthis is prose\n")
    (logs / "notes.txt").write_text("prose\n")
    async with watching("logs/training.log", "logs") as (app, pilot):
        rows = panel(app, "runs")
        assert rows[0].startswith("▸◐ run")
        assert len(rows) == 2
        assert rows[1].startswith(" ✗ ")
        assert "cannot be read: " in rows[1]
        await pilot.press("end", "m")
        await pilot.click("#runs", offset=(5, 1))
        assert rows[0].startswith("▸◐ run")


async def test_with_only_an_unreadable_log_it_is_shown_with_the_lines_for_the_script(logs: Path) -> None:
    (logs / "training.csv").write_text("this is prose\n")
    async with watching("logs/training.csv") as (app, _):
        assert "cannot be read: " in panel(app, "runs")[0]
        assert any("Monitor(" in line for line in panel(app, "main"))


async def test_a_monitor_record_shows_its_plan_its_bar_and_when_it_will_be_done(logs: Path) -> None:
    append(logs / "run.jsonl", record(None, NOON - 90) + record(0, NOON - 60) + record(1, NOON - 30))
    async with watching(size=(160, 45)) as (app, _):
        assert panel(app, "runs")[0].startswith("▸● run  2/10  ━━━")
        assert panel(app, "runs")[0].endswith("done ≈ 12:03")
        facts = "\n".join(panel(app, "facts"))
        assert "plan       10 epochs of 3 steps" in facts
        assert "optimizer  Adam" in facts


# --- sizes, terminals, hostile text -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
@pytest.mark.parametrize("ascii", [False, True])
async def test_every_line_is_as_wide_as_the_screen(three: Path, size: tuple[int, int], ascii: bool) -> None:
    async with watching(size=size, is_ascii=ascii) as (app, pilot):
        for keys in ((), ("e",), ("question_mark",)):
            await pilot.press(*keys)
            await pilot.pause()
            lines = screen(app)
            assert [len(line) for line in lines] == [size[0]] * size[1]
            assert not ascii or "".join(lines).isascii()


async def test_facts_stand_beside_the_chart_only_where_there_is_room(three: Path) -> None:
    async with watching(size=(160, 45)) as (app, pilot):
        assert "val_loss" in "\n".join(panel(app, "facts"))
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: app.query_one("#main").size.width == 100)
        assert not app.query_one("#facts").display


async def test_a_storm_of_resizes_down_to_one_cell_and_back_leaves_the_same_screen(three: Path) -> None:
    append(three / "newest.csv", row(5, "nan"))
    async with watching() as (app, pilot):
        before = screen(app)
        for size in ((1, 1), (200, 2), (3, 60), (119, 10), (120, 7), (1, 24), (80, 1), (12, 5), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("m")
            await pilot.pause()
            assert len(screen(app)) == size[1]
        await pilot.press("m")
        await until(pilot, lambda: screen(app) == before)


async def test_no_color_sends_no_colours_of_ours(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    append(three / "newest.csv", row(5, "nan"))
    async with watching(size=(160, 45)) as (app, pilot):
        await pilot.press("question_mark")
        await pilot.pause()
        await pilot.press("q", "m")
        await pilot.pause()
        colours = {
            colour.triplet
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style
            for colour in (segment.style.color, segment.style.bgcolor)
            if colour
        }
        assert any("✗" in line for line in screen(app))
        assert colours <= {None}


# --- the worker ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_an_error_of_the_reading_is_shown_and_the_screen_goes_on(
    logs: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = a_log(logs, "run")
    read = Follower.read

    def broken(follower: Follower, changed: set[Path] | None = None) -> Iterator[Any]:
        if when == "at the start" or path.stat().st_size > size:
            raise ZeroDivisionError("by \x1b[31mnought")
        return read(follower, changed)

    size = path.stat().st_size
    monkeypatch.setattr(Follower, "read", broken)
    app = WatchApp(Follower(["logs"], now=lambda: NOON))
    async with app.run_test(size=(80, 24)) as pilot:
        if when == "later":
            await asyncio.wait_for(app.first_read.wait(), PATIENCE_S)
            append(path, row(5))
        await until(
            pilot,
            lambda: (
                panel(app, "alerts")
                == [" ✗ reading stopped, restart cbmon: ZeroDivisionError: by \\x1b[31mnought"]
            ),
        )
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))


async def test_trouble_with_notices_is_said(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(follower: Follower) -> None:
        follower.trouble = "no notices from the file system (limit): looking every 2 s"
        follower._notices.put(None)

    monkeypatch.setattr(Follower, "start", refuse)
    async with watching(poll=False) as (app, pilot):
        await until(pilot, lambda: any("no notices" in line for line in panel(app, "alerts")))


def still_alive(before: set[threading.Thread]) -> list[str]:
    """The threads that are more than before and do not end."""
    more = [thread for thread in threading.enumerate() if thread not in before]
    for thread in more:
        thread.join(1.0)
    return [thread.name for thread in more if thread.is_alive()]


async def test_quitting_leaves_no_thread_of_ours(three: Path) -> None:
    before = set(threading.enumerate())
    async with watching(poll=False) as (app, pilot):
        append(three / "newest.csv", row(5))
        await until(pilot, lambda: " 6 " in panel(app, "runs")[0])
        await pilot.press("q")
    assert still_alive(before) == []


async def test_quitting_in_the_midst_of_the_first_read_leaves_no_thread_and_no_error(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, gate = set(threading.enumerate()), threading.Event()
    read = Follower.read

    def slow(follower: Follower, changed: set[Path] | None = None) -> Iterator[Any]:
        for batch in read(follower, changed):
            yield batch  # the first one is read before the first picture, the next in the thread
            gate.wait(PATIENCE_S)

    monkeypatch.setattr("cbmon.tui.app.FIRST_READ_S", 0.0)
    monkeypatch.setattr(Follower, "read", slow)
    a_log(logs, "run")
    a_log(logs, "other")
    app = WatchApp(Follower(["logs"], now=lambda: NOON))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: any(thread.name == "cbmon-follower" for thread in threading.enumerate()))
        assert not app.first_read.is_set()
        await pilot.press("q")
    gate.set()
    assert still_alive(before) == []


# --- as little drawing as can be ----------------------------------------------------------------------------


@pytest.fixture
def repaints(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Panel and number of lines of each repaint that a panel asked for."""
    asked: list[tuple[str, int]] = []
    refresh = Panel.refresh

    def counted(panel: Panel, *regions: Any, **options: Any) -> Panel:
        asked.append((panel.id or "", len(regions)))
        return refresh(panel, *regions, **options)

    monkeypatch.setattr(Panel, "refresh", counted)
    return asked


async def test_a_look_that_finds_nothing_new_repaints_nothing(
    three: Path, repaints: list[tuple[str, int]]
) -> None:
    async with watching(size=(160, 45)) as (app, pilot):
        await pilot.pause()
        repaints.clear()
        looked = app._drawn_at
        app._follower._notices.put(None)
        await until(pilot, lambda: app._drawn_at > looked)
        await pilot.pause()
        assert repaints == []


async def test_an_epoch_of_another_run_repaints_its_row_alone(
    three: Path, repaints: list[tuple[str, int]]
) -> None:
    path = three / "record.jsonl"
    append(path, record(None, NOON - 660) + record(0, NOON - 660))
    async with watching(poll=False) as (app, pilot):
        repaints.clear()
        append(path, record(1, NOON - 600))
        await until(pilot, lambda: "2/10 " in panel(app, "runs")[3])
        await pilot.pause()
        assert set(repaints) == {("runs", 1)}


async def test_a_chart_of_a_million_rows_is_not_computed_anew_for_another_run_or_a_mere_look(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def counted(*arguments: Any) -> ChartView:
        drawn.append("chart")
        return chart_view(*arguments)

    async with watching(poll=False) as (app, pilot):
        monkeypatch.setattr("cbmon.plots.chart_view", counted)
        append(three / "oldest.csv", row(9, 1.5))
        await until(pilot, lambda: "10 " in panel(app, "runs")[2])
        assert drawn == []
        looked = app._drawn_at
        app._follower._notices.put(None)  # look at everything
        await until(pilot, lambda: app._drawn_at > looked)
        assert drawn == []
        append(three / "newest.csv", row(5, 1.5))
        await until(pilot, lambda: drawn == ["chart"])


async def test_the_first_picture_does_not_wait_for_the_rest_of_a_long_log(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three small logs whole and the beginning of a long one; a thread reads the rest."""
    monkeypatch.setattr("cbmon.tui.app.FIRST_READ_S", PATIENCE_S)
    monkeypatch.setattr("cbmon.tui.app.FIRST_LEFT", 10)
    monkeypatch.setattr("cbmon.sources.FIRST_BYTES", 1000)
    a_log(three, "aaa", rows=100)
    read: list[tuple[str, str, int]] = []
    read_log = Log.read

    def noted(log: Log, limit: int = 1 << 20) -> list[Event] | None:
        events = read_log(log, limit)
        read.append((threading.current_thread().name, log.name, log.left))
        return events

    monkeypatch.setattr(Log, "read", noted)
    async with watching() as (app, pilot):
        await until(pilot, lambda: any(" 100 " in line for line in panel(app, "runs")))
        first = [(name, left > 0) for thread, name, left in read if thread == "MainThread"]
        assert first == [("aaa", True), ("middle", False), ("newest", False), ("oldest", False)]


async def test_a_log_of_100_000_rows_is_in_the_first_picture_whole(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmon.tui.app.FIRST_READ_S", PATIENCE_S)
    a_log(logs, "long", rows=100_000)
    first: list[int] = []
    draw_runs = WatchApp._draw_runs

    def noted(app: WatchApp, width: int, height: int) -> Any:
        first.extend(len(run.current.epochs) for run in app._runs.values())
        return draw_runs(app, width, height)

    monkeypatch.setattr(WatchApp, "_draw_runs", noted)
    async with watching():
        assert first[0] == 100_000


async def test_in_a_crowd_the_follower_is_told_what_is_on_the_screen(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmon.tui.app.CROWD", 20)
    for number in range(40):
        a_log(logs, f"run{number:02}", age_s=60.0 * number)
    async with watching() as (app, pilot):
        await pilot.pause()
        assert {path.stem for path in app._follower.seen or ()} >= {f"run{number:02}" for number in range(7)}
        assert len(app._follower.seen or ()) < 24, "no more than the terminal has rows"
        await press(pilot, *["j"] * 35)
        await until(pilot, lambda: Path("logs/run35.csv") in (app._follower.seen or ()))


async def test_where_there_is_no_crowd_nothing_waits(three: Path) -> None:
    async with watching() as (app, _):
        assert app._follower.seen is None


async def test_many_runs_scroll_with_the_cursor_and_keep_a_third_of_the_screen(logs: Path) -> None:
    for number in range(30):
        a_log(logs, f"run{number:02}", age_s=60.0 * number)
    async with watching() as (app, pilot):
        assert len(panel(app, "runs")) == 8
        await press(pilot, *["j"] * 15)
        await until_title(app, pilot, " run15")
        assert [line[3:8] for line in panel(app, "runs")] == [f"run{number}" for number in range(12, 19)] + [
            "12 mo"
        ]
        await pilot.click("#runs", offset=(5, 0))
        await until_title(app, pilot, " run12")
        await pilot.press("end")
        await until(pilot, lambda: panel(app, "runs")[-2].startswith("▸◌ run29"))
        assert panel(app, "runs")[-1] == "   23 more above"
        await pilot.resize_terminal(80, 48)
        await until(pilot, lambda: len(panel(app, "runs")) == 16)


async def test_two_quick_keys_in_the_help_close_it_once(logs: Path) -> None:
    a_log(logs, "run1")
    async with watching() as (app, pilot):
        await pilot.press("question_mark")
        help_screen = app.screen
        assert isinstance(help_screen, HelpScreen)
        for _ in range(2):
            help_screen.post_message(Key("x", "x"))
        await until(pilot, lambda: app.screen is not help_screen)
        await pilot.pause()
        assert app.return_code in (None, 0)


# --- reading values, events, zoom ---------------------------------------------------------------------------


async def test_the_cursor_reads_the_exact_values_of_an_epoch_nan_and_absent_ones_as_such(logs: Path) -> None:
    a_log(
        logs,
        "run",
        text=HEADER + "0,.1,2.5,.01,.2,2.75\n1,.1,1.25,.01,.2,nan\n2,.1,.5,.001,.2,\n3,.1,.25,,.2,.5\n",
    )
    async with watching() as (app, pilot):
        assert "epoch" not in title(app)
        values = []
        for _ in range(5):
            await press(pilot, "left")
            values.append(title(app).split("epoch ")[1].replace("──", "").replace("┄┄", "").split())
        assert values == [
            ["4", "train", ".2500", "val", ".5000", "lr", "–"],
            ["3", "train", ".5000", "val", "–", "lr", "1e-3"],
            ["2", "train", "1.250", "val", "nan", "lr", "0.01"],
            ["1", "train", "2.500", "val", "2.750", "lr", "0.01"],
            ["1", "train", "2.500", "val", "2.750", "lr", "0.01"],
        ]
        assert any("┼" in line or "┴" in line for line in panel(app, "main"))
        await press(pilot, "shift+right")
        assert "epoch 4 " in title(app)
        await press(pilot, "m")
        assert title(app).startswith("run  accuracy   epoch 4 ")
        await press(pilot, "escape")
        assert "epoch" not in title(app)


async def test_epochs_that_the_log_skips_are_stepped_over(logs: Path) -> None:
    a_log(logs, "run", text=HEADER + row(0) + row(9) + row(30))
    async with watching() as (app, pilot):
        seen = []
        for key in ("left", "left", "left", "right", "shift+right", "shift+left"):
            await press(pilot, key)
            seen.append(title(app).split("epoch ")[1].split()[0])
        assert seen == ["31", "10", "1", "10", "31", "10"]


async def test_brackets_go_through_the_events_and_say_them_in_words(logs: Path) -> None:
    rows = (
        row(0, 3.0)
        + row(1, 2.0)
        + row(2, 1.0, 0.001)
        + row(3, 2.0, 0.001)
        + row(4, "nan", 0.001)
        + row(5, 3, 0.001)
    )
    a_log(logs, "run", text=HEADER + rows)
    async with watching() as (app, pilot):
        assert rail(app).split() == ["▼", "✗"]
        await press(pilot, "[")
        assert "epoch 5 " in title(app)
        assert "NaN loss at epoch 5 · NaN val_loss at epoch 5" in panel(app, "main")[1]
        await press(pilot, "[")
        assert "epoch 3 " in title(app)
        assert "learning rate 0.01 → 1e-3 at epoch 3" in panel(app, "main")[1]
        await press(pilot, "[")
        assert "epoch 3 " in title(app)
        assert panel(app, "alerts")[0] == " ▲ no more events in that direction"
        await press(pilot, "]")
        assert "epoch 5 " in title(app)
        assert not any("no more events" in line for line in panel(app, "alerts"))


async def test_plus_and_minus_zoom_and_the_window_pans(logs: Path) -> None:
    a_log(logs, "run", 40)
    async with watching(planned=40) as (app, pilot):
        whole = axis(app)
        assert (whole[0], whole[-1]) == (1, 40)
        await press(pilot, "+")
        assert (axis(app)[0], axis(app)[-1]) == (21, 40)
        await press(pilot, "<")
        first = axis(app)[0]
        assert first < 21
        await press(pilot, ">", ">", ">")
        assert axis(app)[-1] == 40
        await press(pilot, "<", "<", "<", "<", "<")
        assert axis(app)[0] == 1
        await press(pilot, "-", "-")
        assert axis(app) == whole
        await press(pilot, "-", "<", ">")
        assert axis(app) == whole
        await press(pilot, *["="] * 9)
        assert len(axis(app)) == 4
        await press(pilot, "0")
        assert axis(app) == whole


async def test_the_first_zoom_of_a_young_run_shows_what_was_measured_and_the_next_its_end(logs: Path) -> None:
    a_log(logs, "run", 20)
    async with watching(planned=100) as (app, pilot):
        whole = axis(app)
        assert whole[-1] == 100
        for epochs in ((1, 20), (11, 20)):
            await press(pilot, "+")
            assert (axis(app)[0], axis(app)[-1]) == epochs
        await press(pilot, "-", "-")
        assert axis(app) == whole


async def test_a_zoom_is_around_what_is_read_and_the_window_goes_with_the_cursor(logs: Path) -> None:
    a_log(logs, "run", 40)
    async with watching(planned=40) as (app, pilot):
        await press(pilot, "left", "shift+left", "shift+left", "+", "+")
        low, high = axis(app)[0], axis(app)[-1]
        assert low < 20 < high
        assert high - low < 12
        await press(pilot, "shift+left")
        assert axis(app)[0] <= 10
        await press(pilot, *["right"] * 25)
        assert "epoch 35 " in title(app)
        assert axis(app)[0] < 35 <= axis(app)[-1]


async def test_the_wheel_zooms_the_chart_and_a_click_reads_an_epoch(logs: Path) -> None:
    a_log(logs, "run", 40)
    async with watching(planned=40) as (app, pilot):
        whole = axis(app)
        await wheel(pilot, "main", -1)
        assert axis(app)[0] == 21
        await wheel(pilot, "main", 1)
        await wheel(pilot, "main", 1)
        assert axis(app) == whole
        await wheel(pilot, "head", -1)
        await wheel(pilot, "footer", -1)
        assert axis(app) == whole
        for column, epoch in ((7, 1), (79, 40), (43, 20)):
            await pilot.click("#main", offset=(column, 5))
            await pilot.pause()
            assert abs(int(title(app).split("epoch ")[1].split()[0]) - epoch) <= 1
        await pilot.click("#main", offset=(2, 5))
        await pilot.pause()
        assert "epoch 20" in title(app) or "epoch 21" in title(app)


async def test_a_click_on_a_small_chart_shows_its_metric_large_and_reads_nothing(logs: Path) -> None:
    a_log(logs, "run", 40)
    async with watching(size=(100, 45)) as (app, pilot):
        lines = panel(app, "main")
        at = next(place for place, line in enumerate(lines) if line.startswith(" learning rate"))
        assert lines[at].index("accuracy") > 50
        for column, metric in ((20, "loss"), (70, "accuracy")):
            await pilot.click("#main", offset=(column, at + 3))
            await until(pilot, lambda: title(app).startswith(f"run  {metric} "))  # noqa: B023
            assert "epoch" not in title(app)


async def test_a_zoom_at_the_end_follows_a_growing_log_and_one_elsewhere_stays(logs: Path) -> None:
    path = a_log(logs, "run", 30)
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "+", "+")
        before = axis(app)
        assert before[-1] >= 30
        for epoch in range(30, 45):
            append(path, row(epoch, 0.01))
        await until(pilot, lambda: "▸◐ run  45 " in panel(app, "runs")[0])
        await until(pilot, lambda: axis(app)[-1] >= 45)
        assert axis(app)[-1] - axis(app)[0] <= before[-1] - before[0] + 2
        await press(pilot, "<", "<")
        stays = panel(app, "main")[1:-1]
        append(path, row(45, 9.0))
        await until(pilot, lambda: "train 9.000" in title(app))
        assert panel(app, "main")[1:-1] == stays


async def test_a_new_epoch_leaves_what_is_read_and_a_y_axis_that_still_fits(logs: Path) -> None:
    path = a_log(logs, "run", 10)
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "left", "left")
        read = title(app)
        assert "epoch 9 " in read
        labels = set(re.findall(r"[\d.]+ ┤", "".join(panel(app, "main"))))
        append(path, row(10, 0.18))
        await until(pilot, lambda: "▸◐ run  11 " in panel(app, "runs")[0])
        assert title(app) == read
        assert set(re.findall(r"[\d.]+ ┤", "".join(panel(app, "main")))) == labels


async def test_the_y_axis_fits_the_window_and_all_is_shown_again_by_0(logs: Path) -> None:
    a_log(logs, "run", text=HEADER + row(0, 1000.0) + "".join(row(epoch, 1.0) for epoch in range(1, 60)))
    async with watching() as (app, pilot):
        assert "1000" in "".join(panel(app, "main"))
        await press(pilot, "+")
        assert "1000" not in "".join(panel(app, "main"))
        await press(pilot, "0")
        assert "1000" in "".join(panel(app, "main"))


# --- marked runs --------------------------------------------------------------------------------------------


async def test_marked_runs_share_a_chart_each_with_its_letter_and_its_colour(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "space", "j", "space", "j", "space")
        assert [line[1] for line in panel(app, "runs")] == ["a", "b", "c"]
        assert "loss of 3 marked runs " in title(app)
        assert title(app).endswith("── a newest   ── b middle   ── c oldest")
        assert {"a", "b", "c"} <= set("".join(panel(app, "main")[1:-3]))
        for place, letter in enumerate("abc"):
            assert CURVE_ROLES[place] in roles(app, "runs", letter)
            assert CURVE_ROLES[place] in roles(app, "main", letter)
        await press(pilot, "k", "space")
        assert [line[1] for line in panel(app, "runs")] == ["a", " ", "c"]
        assert "loss of 2 marked runs " in title(app)
        await press(pilot, "space")
        assert [line[1] for line in panel(app, "runs")] == ["a", "b", "c"]
        await press(pilot, "m")
        assert "accuracy of 3 marked runs " in title(app)
        await press(pilot, "left")
        assert re.search(r" epoch 7 .*── a.* –   ── b.* \.6000   ── c.* \.6000$", title(app))
        await press(pilot, *["escape"] * 5)
        assert [line[1] for line in panel(app, "runs")] == ["a", "b", "c"]
        await press(pilot, "x")
        assert title(app).startswith("middle  accuracy ")
        assert [line[1] for line in panel(app, "runs")] == ["◐", "◐", "◐"]


async def test_marked_runs_of_which_some_or_all_lack_the_metric(logs: Path) -> None:
    a_log(logs, "both", 4)
    a_log(logs, "plain", text="epoch,loss\n0,1\n1,.5\n", age_s=60)
    a_log(logs, "other", text="epoch,score\n0,1\n1,.5\n", age_s=120)
    async with watching() as (app, pilot):
        await press(pilot, "space", "j", "space")
        assert "loss of 2 marked runs " in title(app)
        await press(pilot, "k", "m", "m", "M")  # the metrics of the chosen run
        assert "accuracy of 1 marked run" in title(app)
        assert "b plain" not in title(app)
        await press(pilot, "G", "m")
        await press(pilot, "left", "right", "+", "<", "[", "]", "t", "e", "a", "escape", "y")
        await press(pilot, "g", "space", "j", "space", "j", "space")
        assert title(app).endswith("── a other")


async def test_reading_marked_runs_begins_at_the_last_epoch_of_the_chosen_one(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "space", "G", "space", "g", "left")
        assert "  epoch 5 " in title(app)
        await press(pilot, "escape", "G", "left")
        assert "  epoch 9 " in title(app)


async def test_a_marked_run_that_grows_is_drawn_while_another_is_chosen(three: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "space", "j")
        assert cursor(app) == "middle"
        before = panel(app, "main")
        append(three / "newest.csv", row(5, 7.0))
        await until(pilot, lambda: panel(app, "main") != before)
        assert "loss of 1 marked run" in title(app)


async def test_the_zoom_and_the_reading_of_marked_runs_stay_when_another_is_chosen(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "G", "space", "left", "left", "+")
        before = panel(app, "main")
        assert "epoch 8 " in before[0]
        await press(pilot, "k")
        assert cursor(app) == "middle"
        assert panel(app, "main") == before


async def test_a_ninth_mark_is_refused_with_a_notice_that_the_next_key_takes_away(logs: Path) -> None:
    for number in range(9):
        a_log(logs, f"run{number}", age_s=60.0 * number)
    async with watching(size=(80, 40)) as (app, pilot):
        for _ in range(9):
            await press(pilot, "space", "j")
        assert [line[1] for line in panel(app, "runs")] == [*"abcdefgh", " "]
        await press(pilot, "space")
        assert panel(app, "alerts")[0].startswith(" ▲ no more runs can be marked")
        await press(pilot, "g")
        assert not any("no more runs" in line for line in panel(app, "alerts"))
        await press(pilot, "space", "G", "space")
        assert [line[1] for line in panel(app, "runs")] == [" ", *"bcdefgh", "a"]


# --- filter and order ---------------------------------------------------------------------------------------


def prompt(app: WatchApp) -> FilterPrompt | None:
    return next(iter(app.query(FilterPrompt)), None)


async def test_a_filter_works_while_it_is_typed_and_enter_keeps_it(three: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "/", "o", "l", "d")
        assert runs(app) == ["oldest"]
        await until_title(app, pilot, " oldest  loss")
        assert panel(app, "head")[0].startswith(" cbmon  logs  /old ")
        assert "3 runs" in panel(app, "head")[0]
        assert screen(app)[-1].startswith(" old")
        append(three / "oldest.csv", row(9, 0.03))
        await until(pilot, lambda: ".03000 ★10" in panel(app, "runs")[0])
        a_log(three, "older")
        await until(pilot, lambda: len(runs(app)) == 2)
        await press(pilot, "e", "r")
        assert runs(app) == ["older"]
        await press(pilot, "backspace", "backspace")
        assert runs(app) == ["older", "oldest"]
        await press(pilot, "enter")
        assert prompt(app) is None
        assert " ↑↓ run" in screen(app)[-1]
        await press(pilot, "j", "j")
        assert cursor(app) == "oldest"
        await press(pilot, "escape")
        assert len(runs(app)) == 4
        assert cursor(app) == "oldest"


async def test_escape_in_the_filter_takes_it_away_and_other_keys_there_are_text(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "/", *"q?m t")
        assert prompt(app) is not None
        assert panel(app, "head")[0].startswith(" cbmon  logs  /q?m t ")
        assert panel(app, "runs") == []
        assert app.is_running
        await press(pilot, "escape")
        assert prompt(app) is None
        assert len(runs(app)) == 3
        await press(pilot, "/", "/", "x")
        assert len(app.query(FilterPrompt)) == 1
        assert panel(app, "head")[0].startswith(" cbmon  logs  //x ")
        await press(pilot, "enter", "/", "backspace", "backspace", *"mid", "enter", "/")
        found = prompt(app)
        assert found is not None
        assert found.value == "mid"
        await press(pilot, "ctrl+c")
        await until(pilot, lambda: not app.is_running)


async def test_arrows_choose_runs_while_a_filter_is_typed_and_a_click_leaves_it_open(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "/", "e", "down")
        assert runs(app) == ["newest", "middle", "oldest"]
        assert cursor(app) == "middle"
        await pilot.click("#runs", offset=(10, 2))
        await until(pilot, lambda: cursor(app) == "oldest")
        await press(pilot, "w")
        assert runs(app) == ["newest"]
        await press(pilot, "f1", "tab")
        assert app.screen.focused is prompt(app)
        await press(pilot, "escape")
        assert prompt(app) is None
        assert len(runs(app)) == 3


async def test_keys_that_come_at_once_behind_a_slash_or_a_question_mark_are_for_what_that_opens(
    three: Path,
) -> None:
    async with watching() as (app, pilot):
        for key in ("slash", *"quiet"):
            app.post_message(Key(key, "/" if key == "slash" else key))
        await until(pilot, lambda: panel(app, "head")[0].startswith(" cbmon  logs  /quiet "))
        await press(pilot, "escape")
        for key, character in (("question_mark", "?"), ("q", "q")):
            app.post_message(Key(key, character))
        await answered(app)
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
        await pilot.pause()
        assert app.is_running
        assert app.return_code is None


async def test_a_filter_that_hides_everything_keeps_the_chart_and_says_so_in_the_head(three: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "/", *"zzz", "enter")
        assert panel(app, "runs") == []
        assert panel(app, "alerts") == [" ▲ no run matches 'zzz'"]
        assert title(app).startswith("newest  loss")
        assert panel(app, "head")[0].startswith(" cbmon  logs  /zzz ")
        await press(pilot, "j", "k", "g", "G", "a", "down", "a", "space", "o", "left", "+", "t", "e", "t")
        append(three / "newest.csv", row(5, 0.25))
        await until(pilot, lambda: ".2500" in "".join(panel(app, "main")))
        a_log(three, "zzzz")
        await until(pilot, lambda: runs(app) == ["zzzz"])
        await press(pilot, "j")
        assert cursor(app) == "zzzz"


async def test_a_run_that_a_filter_hides_before_any_was_chosen_is_chosen_all_the_same(logs: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "/", *"zzz")
        a_log(logs, "run")
        await until_title(app, pilot, " run  loss")
        assert panel(app, "runs") == []


async def test_what_is_typed_or_pasted_into_the_filter_is_text_and_nothing_else(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "/", *"[b]x[/] [@click=quit]")
        assert panel(app, "head")[0].startswith(" cbmon  logs  /[b]x[/] [@click=quit]")
        assert screen(app)[-1].startswith(" [b]x[/] [@click=quit]")
        await press(pilot, "escape", "/")
        found = prompt(app)
        assert found is not None
        found.post_message(Paste("\x1b[31mred\x07\u202e\x9b2J\u200b"))
        await until(pilot, lambda: "red" in panel(app, "head")[0])
        assert not set("".join(screen(app))) & set("\x1b\x9b\x07\u202e\u200b")


async def test_a_filter_finds_states_and_metrics_and_excludes_words(logs: Path) -> None:
    a_log(logs, "good")
    a_log(logs, "bad", text=HEADER + row(0, "nan"))
    a_log(logs, "odd", text="epoch,score\n0,1\n")
    (logs / "training.log").write_text("epoch;what\nthis is prose\n")
    async with watching("logs/training.log", "logs") as (app, pilot):
        for text, found in (
            ("nan", ["bad"]),
            ("growing !nan", ["good", "odd"]),
            ("val_loss !nan", ["good"]),
            ("cannot", ["logs/training.log"]),
        ):
            await press(pilot, "/", *text, "enter")
            assert sorted(runs(app)) == found, text
            await press(pilot, "escape")


async def test_o_goes_through_the_orders_and_keeps_the_chosen_run(logs: Path) -> None:
    a_log(logs, "run10", text=HEADER + row(0, 0.5) + row(1, 0.25), age_s=0)
    a_log(logs, "run9", text=HEADER + row(0, 0.125), age_s=60)
    a_log(logs, "run1", text=HEADER + row(0, 1.0) + row(1, 1.0) + row(2, 1.0), age_s=120)
    async with watching() as (app, pilot):
        await press(pilot, "j")
        for order, names in (
            ("name", ["run1", "run9", "run10"]),
            ("best", ["run9", "run10", "run1"]),
            ("progress", ["run1", "run10", "run9"]),
        ):
            await press(pilot, "o")
            assert runs(app) == names
            assert f"by {order}" in panel(app, "head")[0]
            assert cursor(app) == "run9"
            assert title(app).startswith("run9  loss")
        await press(pilot, "o")
        assert runs(app) == ["run10", "run9", "run1"]
        assert " by " not in panel(app, "head")[0]


async def test_a_run_that_gets_better_moves_up_while_the_order_is_by_best(three: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "o", "o")
        assert runs(app) == ["oldest", "middle", "newest"]
        append(three / "newest.csv", row(5, 0.001))
        await until(pilot, lambda: runs(app) == ["newest", "oldest", "middle"])
        assert cursor(app) == "newest"


# --- tables and pages ---------------------------------------------------------------------------------------


async def test_t_shows_the_epochs_as_a_table_around_what_is_read(logs: Path) -> None:
    path = a_log(logs, "run", 100)
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "t")
        lines = panel(app, "main")
        assert lines[0].split() == ["epoch", "loss", "val_loss", "accuracy", "val_accuracy", "lr"]
        assert lines[-1].split() == ["100", ".02000", ".02000", ".5000", ".6000", "0.01"]
        append(path, row(100, 0.125))
        await until(pilot, lambda: panel(app, "main")[-1].split()[:2] == ["101", ".1250"])
        await press(pilot, "left", "shift+left", "shift+left")
        at = next(line for line in panel(app, "main") if line.startswith("▸"))
        assert at.split()[:2] == ["▸", "81"]
        await press(pilot, "pageup")
        page = len(panel(app, "main")) - 2
        at = next(line for line in panel(app, "main") if line.startswith("▸"))
        assert int(at.split()[1]) == 81 - page
        await wheel(pilot, "main", 1)
        at = next(line for line in panel(app, "main") if line.startswith("▸"))
        assert int(at.split()[1]) == 84 - page
        await press(pilot, "t")
        assert f"epoch {84 - page} " in title(app)
        await press(pilot, "t", *["pageup"] * 20)
        assert panel(app, "main")[1].startswith("▸")
        assert panel(app, "main")[1].split()[1] == "1"
        await press(pilot, *["pagedown"] * 20)
        assert panel(app, "main")[-1].split()[1] == "101"


def read_row(app: WatchApp) -> int:
    """The epoch of the table's row that is being read."""
    return next(int(line.split()[1]) for line in panel(app, "main") if line.startswith("▸"))


async def test_arrows_go_through_the_rows_of_the_table_and_letters_through_the_runs(logs: Path) -> None:
    a_log(logs, "run1", 100)
    a_log(logs, "run2", 100, age_s=60)
    async with watching() as (app, pilot):
        assert panel(app, "footer")[0].startswith(" ↑↓ run  ⏎ open")
        await press(pilot, "t")
        assert panel(app, "footer")[0].startswith(" ↑↓ line  j k run  ⏎ open")
        for key, epoch in (
            ("up", 99), ("up", 98), ("down", 99), ("home", 1), ("up", 1), ("down", 2), ("end", 100),
        ):  # fmt: skip
            await press(pilot, key)
            assert read_row(app) == epoch, key
        assert cursor(app) == "run1"
        await press(pilot, "j", "pageup")
        assert cursor(app) == "run2"
        assert read_row(app) == 100 - (len(panel(app, "main")) - 2), "a page at once"
        await press(pilot, "k", "t", "down")
        assert cursor(app) == "run2"
        await press(pilot, "home")
        assert cursor(app) == "run1"


async def test_arrows_scroll_the_alerts_page(logs: Path) -> None:
    rows = "".join(row(epoch, 1.0, 10.0 ** -(epoch // 2)) for epoch in range(80))
    a_log(logs, "run", text=HEADER + rows)
    a_log(logs, "other", age_s=60)
    async with watching() as (app, pilot):
        await press(pilot, "e", "down")
        assert ", from 2 of " in title(app)
        await press(pilot, "end", "up", "home")
        assert title(app) == "run  alerts and warnings"
        await press(pilot, "j")
        assert title(app).startswith("other")


async def test_a_shows_all_runs_and_scrolls_by_keys_wheel_and_clicks(logs: Path) -> None:
    for number in range(50):
        a_log(logs, f"run{number:02}", 3, age_s=60.0 * number)
    async with watching() as (app, pilot):
        await press(pilot, "a")
        lines = panel(app, "main")
        assert lines[0].split() == ["run", "state", "epoch", "val_loss", "best", "last", "lr", "since"]
        assert lines[1].startswith("▸run00")
        assert lines[-1] == "   30 more below"
        assert panel(app, "runs") == []
        await press(pilot, *["j"] * 25)
        at = next(line for line in panel(app, "main") if line.startswith("▸"))
        assert at.startswith("▸run25")
        await wheel(pilot, "main", 1)
        await wheel(pilot, "main", 1)
        await wheel(pilot, "main", -1)
        lines = panel(app, "main")
        place = next(row for row, line in enumerate(lines) if line.startswith("▸run26"))
        await pilot.click("#main", offset=(5, place + 3))
        await until(pilot, lambda: any(line.startswith("▸run29") for line in panel(app, "main")))
        await pilot.click("#main", offset=(5, 0))  # the heading
        await pilot.click("#main", offset=(5, len(lines) - 1))  # how many more
        await pilot.pause()
        assert any(line.startswith("▸run29") for line in panel(app, "main"))
        await press(pilot, "pagedown", "pagedown", "pagedown")
        assert panel(app, "main")[-2].startswith("▸run49")
        await press(pilot, "enter")
        assert title(app).startswith("run49  loss")


async def test_the_table_of_all_runs_grows_with_each_of_them(three: Path) -> None:
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "a")
        append(three / "oldest.csv", row(9, 0.001))
        await until(pilot, lambda: ".001000 ★10" in panel(app, "main")[3])
        a_log(three, "later", age_s=-60)
        await until(pilot, lambda: len([line for line in panel(app, "main") if line]) == 5)


async def test_the_alerts_page_scrolls_to_its_end_and_no_further(logs: Path) -> None:
    rows = "".join(row(epoch, 1.0, 10.0 ** -(epoch // 2)) for epoch in range(80))
    a_log(logs, "run", text=HEADER + rows)
    async with watching() as (app, pilot):
        await press(pilot, "e")
        assert panel(app, "main")[-1].endswith("more (PgDn)")
        seen = set(panel(app, "main"))
        for _ in range(9):
            await press(pilot, "pagedown")
            seen |= set(panel(app, "main"))
        assert len([line for line in seen if "learning rate" in line]) == 39
        last = panel(app, "main")
        assert all(last)
        await press(pilot, "pagedown")
        assert panel(app, "main") == last
        await wheel(pilot, "main", -1)
        assert panel(app, "main") != last
        await press(pilot, *["pageup"] * 9)
        assert title(app) == "run  alerts and warnings"


async def test_the_alerts_page_of_a_log_that_is_written_anew_ends_where_that_ends(logs: Path) -> None:
    rows = "".join(row(epoch, 1.0, 10.0 ** -(epoch // 2)) for epoch in range(80))
    path = a_log(logs, "run", text=HEADER + rows)
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "e", *["pagedown"] * 5)
        path.write_text(HEADER + row(0) + row(1, 1.0, 0.001))
        await until(pilot, lambda: any("→ 1e-3 at epoch 2" in line for line in panel(app, "main")))


async def test_enter_gives_the_chart_the_whole_screen_and_back(three: Path) -> None:
    async with watching(size=(160, 45)) as (app, pilot):
        rows = app.query_one("#main").size
        await press(pilot, "enter")
        await until(pilot, lambda: app.query_one("#main").size.width == 160)
        assert app.query_one("#main").size.height > rows.height
        assert panel(app, "runs") == panel(app, "facts") == []
        await press(pilot, "j")
        assert title(app).startswith("middle  loss")
        await press(pilot, "f")
        await until(pilot, lambda: app.query_one("#main").size == rows)
        assert cursor(app) == "middle"


async def test_escape_goes_back_step_by_step(logs: Path) -> None:
    a_log(logs, "run1", 40)
    a_log(logs, "run2", 40, age_s=60)
    async with watching() as (app, pilot):
        pictures = [screen(app)]
        for keys in (("space",), ("/", "r", "enter"), ("+",), ("left", "left"), ("f",), ("t",)):
            await press(pilot, *keys)
            pictures.append(screen(app))
        assert len(set(map(tuple, pictures))) == 7
        for before in reversed(pictures[1:-1]):
            await press(pilot, "escape")
            assert screen(app) == before
        await press(pilot, "escape", "escape")
        assert screen(app) == pictures[1], "marks stay"
        await press(pilot, "x")
        assert screen(app) == pictures[0]


# --- files that change under what is looked at --------------------------------------------------------------


WAYS_OF_LOOKING = (
    ("+", "+"),
    ("+", "<"),
    ("left", "left"),
    ("space", "left", "+"),
    ("left", "t"),
    ("e",),
    ("a",),
    ("f", "["),
)
"""The keys to: a zoom at the end and in the middle, a reading, marks, both tables, alerts, the whole screen."""


def truncated(path: Path) -> None:
    path.write_text(HEADER + row(0, 7.5))


def emptied(path: Path) -> None:
    path.write_text("")


def without_rows(path: Path) -> None:
    path.write_text(HEADER)


def replaced(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text("epoch,score\n0,1\n1,2\n")
    new.rename(path)


def prose(path: Path) -> None:
    path.write_text("a shopping list:\nbread, butter\n")


def restarted(path: Path) -> None:
    append(path, row(0, 3.0) + row(1, "nan"))


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "change",
    [truncated, emptied, without_rows, replaced, prose, restarted, deleted],
    ids=lambda way: way.__name__,
)
async def test_a_file_may_become_another_while_it_is_looked_at_in_any_way(
    logs: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_log(logs, "run", 60)
    a_log(logs, "other", 3, age_s=60)
    known = Path("logs/run.csv")
    monkeypatch.setattr("cbmon.tui.app.DRAWING_SHARE", 1.0)
    async with watching(poll=False, max_fps=100.0) as (app, pilot):
        for keys in WAYS_OF_LOOKING:
            await press(pilot, *keys)
            drawn = app._drawn_at
            change(path)
            await until(pilot, lambda: app._drawn_at > drawn)  # noqa: B023
            await press(pilot, "left", "right", "]", "[", "+", "<", ">", "pageup", "m", "y", "space", "space")
            await until(pilot, lambda: is_whole(app))
            await press(pilot, *["escape"] * 8)
            if change is not restarted:
                path.unlink(missing_ok=True)
                a_log(logs, "run", 60)
                await until(pilot, lambda: len(app._runs[known].current.epochs) == 60)


async def test_what_is_read_beyond_a_new_end_is_unknown_and_the_next_key_is_within(logs: Path) -> None:
    path = a_log(logs, "run", 60)
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "left", "+", "+")
        truncated(path)
        await until(pilot, lambda: "7.500 ★1" in panel(app, "runs")[0])
        assert "epoch 60" in title(app)
        assert "train –" in title(app)
        await press(pilot, "left")
        assert "epoch 1 " in title(app)
        assert "train 7.500" in title(app)


async def test_a_resumed_run_shows_its_seam_and_the_earlier_attempt_in_grey(logs: Path) -> None:
    path = a_log(logs, "run", 20)
    async with watching(poll=False, size=(160, 45)) as (app, pilot):
        append(path, "".join(row(epoch, 3.0) for epoch in range(10, 14)))
        await until(pilot, lambda: "loss · attempt 2 of 2" in title(app))
        assert "↻" in rail(app)
        assert CURVE_ROLES[GREY] in {
            role for row in app.query_one("#main", Panel)._rows[1:] for _, role in row
        }
        assert "attempt    2 of 2" in "\n".join(panel(app, "facts"))
        assert "14" in panel(app, "runs")[0]
        await press(pilot, "[", "[", "[", "[", "[")
        assert "epoch 11 " in title(app)
        await press(pilot, *["right"] * 20)
        assert "epoch 20 " in title(app)


# --- hostile and odd names ----------------------------------------------------------------------------------

EVIL = "[bold red]x[/] \x1b[31m\x9b2J\x1b]0;owned\x07\u202e\u200b"
ODD_NAMES = {
    "escapes": EVIL.replace("/", "%"),
    "wide": "訓練ログ実験結果" * 3,
    "emoji": "🙂🏳️‍🌈e\u0301👩‍👩‍👧",
    "bidi": "\u202eתוצאות\u2066 evil",
    "markup": "[@click=app.quit]x[%] \\[b",
    "long": "x" * 240,
    "spaces": "  a \u3000 b\u00a0 ",
}


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_odd_names_stay_in_their_columns_in_every_panel_and_are_never_controls(
    logs: Path, name: str, size: tuple[int, int]
) -> None:
    odd = ODD_NAMES[name]
    folder = logs / odd
    folder.mkdir()
    metric = odd.replace("\x07", "")
    text = (
        record(None, NOON)
        + record(0, NOON, metric)
        + record(1, NOON, metric)
        + record(1, NOON, f"val_{metric}")
    )
    append(folder / "training.jsonl", f"{text}{odd}\n")
    a_log(logs, "plain", text=f"epoch,loss,val_loss\n0,1,1\n1,nan,2\n1,2,{odd[:20]}\n")
    (logs / f"{odd[:60]}.csv").write_text("this is prose\n")
    async with watching("logs", f"logs/{odd[:60]}.csv", size=size) as (app, pilot):
        for keys in ("", "G", "e", "t", "tm", "[", " k ", "a", "o", "e", "G"):
            await press(pilot, *keys)
            await until(pilot, lambda: is_whole(app))
            for line in screen(app):
                assert not set(line) & set("\x00\x07\x1b\x9b\u200b\u202e\u2066\u3000\u00a0")


# --- sizes --------------------------------------------------------------------------------------------------

OPENING = {"slash", "question_mark", "h", "f1"}
ALL_KEYS = [
    pressed
    for key in KEYS
    for name in key.keys.split(",")
    if name not in ("q", "ctrl+c", "ctrl+p")
    for pressed in ((name, "escape") if name in OPENING else (name,))
]


def no_run(logs: Path) -> None:
    pass


def one_run(logs: Path) -> None:
    append(a_log(logs, "run", 30), row(30, "nan", 0.001) + row(5, 1.0) + "junk\n")


def unreadable(logs: Path) -> None:
    (logs / "training.csv").write_text("this is prose\n")


def empty_log(logs: Path) -> None:
    (logs / "training.csv").write_text("")


def header_only(logs: Path) -> None:
    (logs / "training.csv").write_text(HEADER)


def no_values(logs: Path) -> None:
    (logs / "training.csv").write_text("epoch,loss\n0,NA\n1,\n")


def one_row(logs: Path) -> None:
    (logs / "training.csv").write_text(HEADER + row(0, 1e308))


def many_runs(logs: Path) -> None:
    for number in range(12):
        a_log(logs, f"run{number}", number, age_s=60.0 * number)
    append(logs / "record.jsonl", record(None, NOON - 90))


@pytest.mark.parametrize(
    ("lay_out", "size"),
    [
        *(
            (way, (80, 24))
            for way in (no_run, unreadable, empty_log, header_only, no_values, one_row, many_runs)
        ),
        *((way, size) for way in (one_run, many_runs) for size in ((40, 10), (160, 45), (240, 60))),
        (empty_log, (40, 10)),
    ],
)
async def test_each_key_leaves_a_whole_screen(
    logs: Path, lay_out: Callable[[Path], None], size: tuple[int, int]
) -> None:
    lay_out(logs)
    path = logs / "training.csv"
    async with watching(path if path.exists() else logs, size=size) as (app, pilot):
        for first in range(0, 2 * len(ALL_KEYS), 8):
            keys = (ALL_KEYS * 2)[first : first + 8]
            await press(pilot, *keys)
            await until(pilot, lambda: is_whole(app))
        await pilot.click("#main", offset=(size[0] // 2, 2))
        await wheel(pilot, "main", 1)
        await press(pilot, *["escape"] * 8)
        assert app.query_one("#main").size.height >= size[1] // 3


async def test_thirty_resizes_in_a_row_end_with_the_picture_of_the_last_size(three: Path) -> None:
    async with watching(size=(97, 31)) as (app, pilot):
        await press(pilot, "j", "space", "k", "space", "left", "+")
        wanted = screen(app)
        sizes = [Size(10 + 7 * number, 3 + 2 * number) for number in range(30)]
        for size in (*sizes, Size(97, 31)):
            app.post_message(Resize(size, size))
            if size is sizes[-1]:
                await until(pilot, lambda: app.query_one("#head").size.width == 213)
        await until(pilot, lambda: app.query_one("#head").size.width == 97)
        await until(pilot, lambda: is_whole(app) and screen(app) == wanted)


# --- a large log --------------------------------------------------------------------------------------------


async def test_keys_are_answered_while_a_large_log_is_read(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (logs / "large.csv").open("w") as file:
        file.write(HEADER)
        file.writelines(row(epoch) for epoch in range(300_000))
    gate, parts = threading.Event(), 0
    read = Follower.read

    def slow(follower: Follower, changed: set[Path] | None = None) -> Iterator[Any]:
        nonlocal parts
        for batch in read(follower, changed):
            parts += 1
            yield batch
            gate.wait(PATIENCE_S)

    monkeypatch.setattr("cbmon.tui.app.FIRST_READ_S", 0.0)
    monkeypatch.setattr(Follower, "read", slow)
    app = WatchApp(Follower(["logs"], now=lambda: NOON))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: panel(app, "runs"))
        assert not app.first_read.is_set()
        early = screen(app)
        assert LISTED.match(panel(app, "runs")[0])
        await press(pilot, "question_mark")
        assert isinstance(app.screen, HelpScreen)
        await press(pilot, "x", "j", "a")
        assert "state" in panel(app, "main")[0]
        await press(pilot, "a", "left")
        assert screen(app) != early
        assert parts == 1
        gate.set()
        await asyncio.wait_for(app.first_read.wait(), PATIENCE_S)
        await until(pilot, lambda: " 300000 " in panel(app, "runs")[0])
        assert parts > 1
        await press(pilot, "escape", "left", "+", "+", "m", "t")
        assert panel(app, "main")[-1].split()[0] == "▸"


# --- errors of ours -----------------------------------------------------------------------------------------


async def test_a_panel_that_cannot_be_drawn_says_so_and_the_others_go_on(
    three: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Exception]
) -> None:
    def broken_curves(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("by \x1b[31mnought")

    async with watching(poll=False) as (app, pilot):
        with monkeypatch.context() as patch:
            patch.setattr("cbmon.frame.curves", broken_curves)
            await press(pilot, "j")
            assert title(app) == "cannot be drawn, a bug of cbmon: ZeroDivisionError: by \\x1b[31mnought"
            assert cursor(app) == "middle"
            append(three / "newest.csv", row(5, 0.125))
            await until(pilot, lambda: ".1250 ★6" in panel(app, "runs")[0])
        await press(pilot, "k")
        assert title(app).startswith("newest  loss")
        assert {type(fault) for fault in faults} == {ZeroDivisionError}
        faults.clear()


async def test_a_run_that_we_fail_on_hides_no_other(
    three: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Exception]
) -> None:
    def broken_view(log: Log, *arguments: Any) -> RunView:
        if log.name == "middle":
            raise ZeroDivisionError("by nought")
        return run_view(log, *arguments)

    monkeypatch.setattr("cbmon.tui.app.run_view", broken_view)
    async with watching() as (app, pilot):
        assert sorted(runs(app)) == ["middle", "newest", "oldest"]
        line = next(line for line in panel(app, "runs") if " middle " in line)
        assert line.split()[1:6] == ["middle", "cannot", "be", "drawn,", "a"]
        await press(pilot, "G", "k", "g")
        assert len(faults) == 1
        faults.clear()


async def test_an_error_before_the_panels_is_an_alert_and_goes_with_the_next_drawing(
    three: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Exception]
) -> None:
    def broken_alerts(run: Run) -> Any:
        raise ZeroDivisionError("by nought")

    async with watching() as (app, pilot):
        with monkeypatch.context() as patch:
            patch.setattr("cbmon.tui.app.alert_lines", broken_alerts)
            await press(pilot, "j")
            assert panel(app, "alerts") == [
                " ✗ cannot be drawn, a bug of cbmon: ZeroDivisionError: by nought"
            ]
            assert cursor(app) == "middle"
        await press(pilot, "j")
        assert panel(app, "alerts") == []
        assert title(app).startswith("oldest  loss")
        faults.clear()


async def test_the_end_of_the_reading_is_shown_on_the_alerts_page_as_well(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False) as (app, pilot):
        await press(pilot, "e")
        monkeypatch.setattr(Follower, "read", lambda *_: 1 // 0)
        append(path, row(5))
        await until(pilot, lambda: "▸◐ run  6 " in panel(app, "runs")[0])  # the worker had looked `read` up
        append(path, row(6))
        await until(pilot, lambda: any("reading stopped" in line for line in panel(app, "main")))


# --- help, commands, callbacks beside a run -----------------------------------------------------------------


async def test_the_help_scrolls_by_arrows_and_shows_all_it_has(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "h")
        seen = set(screen(app))
        assert any("previous run" in line for line in seen)
        for key in ("down", "j", "pagedown", "space", "end", "end"):
            await pilot.press(key)
            await pilot.pause()
            assert isinstance(app.screen, HelpScreen)
            seen |= set(screen(app))
        text = "\n".join(screen(app))
        assert "the training never waits" in text
        assert "previous run" not in text
        assert all(any(key.description in line for line in seen) for key in KEYS if key.action not in CONTROL)
        await press(pilot, "home", "up", "k", "pageup")
        await until(pilot, lambda: "previous run" in "\n".join(screen(app)))
        await press(pilot, "left")
        assert not isinstance(app.screen, HelpScreen)


async def test_each_command_can_be_found_by_its_name(three: Path) -> None:
    async with watching() as (app, pilot):
        provided = list(app.get_system_commands(app.screen))
        own = [key for key in KEYS if key.action not in CONTROL]  # no training can be asked here
        named = [key for key in own if key.description and key.keys != "ctrl+p"]
        assert [found.title for found in provided] == [key.description for key in named]
        assert [found.help for found in provided] == [f"key {key.label}" for key in named]
        for found in provided:
            before = screen(app)
            found.callback()
            await answered(app)
            await pilot.pause()
            if "quit" in found.title:
                await until(pilot, lambda: not app.is_running)
            elif any(
                word in found.title
                for word in ("next metric", "as a table", "logarithmic", "this help", "that match")
            ):
                assert screen(app) != before, found.title
            if app.is_running and (isinstance(app.screen, Following | HelpScreen) or prompt(app)):
                await press(pilot, "escape")


async def test_the_palette_runs_what_is_chosen(three: Path) -> None:
    async with watching() as (app, pilot):
        await press(pilot, "ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await press(pilot, *"order of")
        await until(pilot, lambda: app.screen.query_one(CommandList).option_count)
        await press(pilot, "enter")
        await until(pilot, lambda: "by name" in panel(app, "head")[0])
        await press(pilot, "ctrl+p", *"match")
        await until(pilot, lambda: app.screen.query_one(CommandList).option_count)
        await press(pilot, "enter")
        await until(pilot, lambda: prompt(app))
        await press(pilot, *"mid")
        assert runs(app) == ["middle"]


async def test_the_palette_is_ascii_where_that_is_asked(three: Path) -> None:
    async with watching(is_ascii=True) as (app, pilot):
        for keys in ("", "run", "zzzz"):
            await press(pilot, "ctrl+p", *keys)
            await until(pilot, lambda: isinstance(app.screen, CommandPalette))
            await until(pilot, lambda: app.screen.query_one(CommandList).option_count)
            await until(pilot, lambda: app.screen.query_one("#--container").display)
            await pilot.pause()
            lines = screen(app)
            assert any("run" in line or "No matches" in line for line in lines)
            assert "".join(lines).isascii(), [line for line in lines if not line.isascii()]
            await press(pilot, "escape")


async def test_one_row_of_alerts_is_the_worst_one(logs: Path) -> None:
    rows = "".join(row(epoch, 1.0, 10.0 ** -(epoch // 2)) for epoch in range(18))
    a_log(logs, "run", text=HEADER + rows + row(18, "nan") + "19,1\n")
    async with watching(size=(40, 10)) as (app, pilot):
        assert re.fullmatch(r" ✗ NaN (val_)?loss at epoch 19 .*\+\d+ \(e\)", panel(app, "alerts")[0])
        await press(pilot, "]", "]")
        assert "no more events" in panel(app, "alerts")[0], "what a key could not do, until the next one"


async def test_seven_runs_and_many_alerts_leave_the_chart_eight_rows(logs: Path) -> None:
    rows = "".join(row(epoch, 1.0, 10.0 ** -(epoch // 2)) for epoch in range(18))
    for number in range(7):
        a_log(logs, f"run{number}", text=HEADER + rows + row(18, "nan"), age_s=60.0 * number)
    async with watching() as (app, _):
        plot = [line for line in panel(app, "main") if line[6:7] in ("│", "┤")]
        assert len(plot) >= 8
        assert panel(app, "alerts")[0].startswith(" ✗ NaN")
        assert len(panel(app, "runs")) >= 4


async def test_callbacks_followed_beside_a_run_stand_below_its_chart(logs: Path) -> None:
    profile, _ = find_profile()
    calls = parse_calls("EarlyStopping(patience=2); ReduceLROnPlateau(patience=1)", profile)
    path = a_log(logs, "run", text=HEADER + row(0, 1.0) + row(1, 0.5) + row(2, 0.75))
    a_log(logs, "other", age_s=60)
    async with watching(poll=False, policies=lambda: [Shadow(call, profile) for call in calls]) as (
        app,
        pilot,
    ):
        lines = "\n".join(panel(app, "strip"))
        assert "EarlyStopping(patience=2): val_loss · wait 1/2 · stops ≈ epoch 4 · best .5000" in lines
        assert "ReduceLROnPlateau(patience=1): " in lines
        append(path, row(3, 0.75))
        await until(pilot, lambda: "stopped after epoch 4" in "\n".join(panel(app, "strip")))
        assert "◇" in rail(app)
        await press(pilot, "[")
        assert "EarlyStopping(patience=2) would act here" in panel(app, "main")[1]
        await press(pilot, "j")
        assert "wait 0/2" in "\n".join(panel(app, "strip"))
        await press(pilot, "space")
        assert not any("EarlyStopping" in line for line in panel(app, "strip"))
