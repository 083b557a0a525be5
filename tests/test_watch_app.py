"""`cbmon watch` on its screen: real files, the real follower, keys pressed by Textual's pilot."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Static

from cbmon.events import EpochsEnded, RunStarted, encode_line
from cbmon.sources import Follower
from cbmon.tui.app import WatchApp
from cbmon.tui.screens import HelpScreen
from cbmon.tui.widgets import Panel
from cbmon.views import ChartView, chart_view

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC: the frozen clock."""
PATIENCE_S = 20.0
"""After which a condition that is not met fails the test; never waited for where all is well."""
HEADER = "epoch,accuracy,loss,lr,val_accuracy,val_loss\n"


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


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
    return [line.split()[1 if line[0] == " " else 0] for line in panel(app, "runs") if line]


def cursor(app: WatchApp) -> str:
    return next(line.split()[1] for line in panel(app, "runs") if line.startswith(("▸", ">")))


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
            await pilot.pause()


async def until_title(app: WatchApp, pilot: Pilot[None], start: str) -> None:
    """Wait until the chart's title begins with this."""
    await until(pilot, lambda: panel(app, "chart")[0].startswith(start))


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
        assert panel(app, "chart")[0].startswith(" newest  loss   lr 0.01 ")
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
        await pilot.click("#chart", offset=(20, 5))
        await pilot.pause()
        assert cursor(app) == "oldest"


async def test_m_and_shift_m_go_through_the_metrics_and_round_again(three: Path) -> None:
    async with watching() as (app, pilot):
        for key, metric in (("m", "accuracy"), ("m", "loss"), ("M", "accuracy"), ("left", "loss")):
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
        assert panel(app, "alerts")[-1] == " · 6 more (e)"
        await pilot.press("e")
        await until(pilot, lambda: "alerts and warnings" in panel(app, "chart")[0])
        text = "\n".join(panel(app, "chart"))
        assert text.count("learning rate") == 8
        assert "line 20: " in text
        assert panel(app, "alerts") == []
        await pilot.press("e")
        await until_title(app, pilot, " run  loss")


async def test_e_says_so_where_there_are_none(three: Path) -> None:
    async with watching() as (app, pilot):
        await pilot.press("e")
        await until(pilot, lambda: panel(app, "chart")[0] == " newest  no alerts, no warnings")


@pytest.mark.parametrize("key", ["q", "escape", "question_mark", "down", "ctrl+c"])
async def test_help_opens_by_its_key_and_any_key_closes_it(three: Path, key: str) -> None:
    async with watching() as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert "quit; the training goes on" in "\n".join(screen(app))
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
        await until(pilot, lambda: ".2500" in panel(app, "chart")[0])
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
        await pilot.click("#chart")
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
        await until(pilot, lambda: "train .1250" in panel(app, "chart")[0])


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
        assert any("Monitor('logs')" in line for line in panel(app, "chart"))
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
        assert panel(app, "chart")[0].startswith(" middle")


async def test_a_nan_turns_the_glyph_red_and_tells_the_epoch(logs: Path) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False) as (app, pilot):
        assert panel(app, "runs")[0].startswith("▸◐ run")
        append(path, row(5, "nan"))
        await until(pilot, lambda: panel(app, "runs")[0].startswith("▸✗ run  6  NaN loss, epoch 6"))
        assert "1 run · 1 needs you: run " in panel(app, "head")[0]
        await until(pilot, lambda: " ✗ NaN loss at epoch 6" in panel(app, "alerts"))
        assert any("✗" in line for line in panel(app, "chart"))


async def test_a_learning_rate_change_is_an_alert_and_a_mark_on_the_rail(logs: Path) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False) as (app, pilot):
        assert not any("▼" in line for line in panel(app, "chart"))
        append(path, row(5, 0.3, 0.001))
        await until(pilot, lambda: panel(app, "alerts") == [" · learning rate 0.01 → 1e-3 at epoch 6"])
        await until(pilot, lambda: any("▼" in line for line in panel(app, "chart")))
        assert "╲" in panel(app, "chart")[-1]


async def test_a_record_that_is_truncated_and_written_anew_starts_anew(logs: Path) -> None:
    path = a_log(logs, "run", 20)
    async with watching(poll=False) as (app, pilot):
        assert " 20 " in panel(app, "runs")[0]
        path.write_text(HEADER + row(0, 7.5))
        await until(pilot, lambda: " 1 " in panel(app, "runs")[0])
        assert "7.500 ★1" in panel(app, "runs")[0]


async def test_a_deleted_log_says_that_it_cannot_be_read_and_keeps_its_curve(logs: Path) -> None:
    path = a_log(logs, "run")
    async with watching(poll=False) as (app, pilot):
        path.unlink()
        await until(pilot, lambda: "cannot be read: no such file" in panel(app, "runs")[0])
        assert panel(app, "chart")[0].startswith(" run  loss")


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
        assert any("Monitor(" in line for line in panel(app, "chart"))


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
        await until(pilot, lambda: app.query_one("#chart").size.width == 100)
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


async def test_hostile_names_never_reach_a_strip_as_they_are(logs: Path) -> None:
    evil = "[bold red]x[/] \x1b[31m\x9b2J\x1b]0;owned\x07\u202e\u200b"
    folder = logs / evil.replace("/", "%")
    folder.mkdir()
    text = record(None, NOON) + record(0, NOON, f"{evil}_loss") + record(0, NOON, f"val_{evil}_loss")
    append(folder / "training.jsonl", f"{text}{evil}\n")
    async with watching(size=(160, 45)) as (app, pilot):
        for keys in ((), ("e",), ("e", "m")):
            await pilot.press(*keys)
            await pilot.pause()
            text = "".join(screen(app))
            assert not set(text) & set("\x1b\x9b\x07\u202e\u200b")
            assert "[bold red]x" in text
            assert "\\x1b[31m" in text


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


async def test_quitting_leaves_no_thread_of_ours(three: Path) -> None:
    before = set(threading.enumerate())
    async with watching(poll=False) as (app, pilot):
        append(three / "newest.csv", row(5))
        await until(pilot, lambda: " 6 " in panel(app, "runs")[0])
        await pilot.press("q")
    for thread in set(threading.enumerate()) - before:
        thread.join(1.0)
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()] == []


async def test_quitting_in_the_midst_of_the_first_read_leaves_no_thread_and_no_error(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, gate = set(threading.enumerate()), threading.Event()
    read = Follower.read

    def slow(follower: Follower, changed: set[Path] | None = None) -> Iterator[Any]:
        gate.wait(PATIENCE_S)
        yield from read(follower, changed)

    monkeypatch.setattr(Follower, "read", slow)
    a_log(logs, "run")
    app = WatchApp(Follower(["logs"], now=lambda: NOON))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q")
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(1.0)
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()] == []


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


async def test_a_chart_of_a_million_rows_is_not_computed_anew_for_another_run(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def counted(*arguments: Any) -> ChartView:
        drawn.append("chart")
        return chart_view(*arguments)

    async with watching(poll=False) as (app, pilot):
        monkeypatch.setattr("cbmon.tui.app.chart_view", counted)
        append(three / "oldest.csv", row(9, 1.5))
        await until(pilot, lambda: "10 " in panel(app, "runs")[2])
        assert drawn == []
        append(three / "newest.csv", row(5, 1.5))
        await until(pilot, lambda: drawn == ["chart"])


async def test_many_runs_scroll_with_the_cursor_and_keep_a_third_of_the_screen(logs: Path) -> None:
    for number in range(30):
        a_log(logs, f"run{number:02}", age_s=60.0 * number)
    async with watching() as (app, pilot):
        assert len(panel(app, "runs")) == 8
        await pilot.press(*["j"] * 15)
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
