"""L, S and X on the screen: what they ask, what means no, what is said, and where it can be read later."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from cbmon.endpoint import Answer, Ask
from cbmon.events import (
    CallbackState,
    CallbackStates,
    ControlApplied,
    EpochsEnded,
    LearningRateChanged,
    Progress,
    RunEnded,
)
from cbmon.rules import Severity, present_rate
from cbmon.run import Run, fold
from cbmon.sources import Follower
from cbmon.tui.app import WatchApp
from cbmon.tui.control import Choice, ControlPrompt, rate_words
from cbmon.tui.screens import legend_lines
from cbmon.tui.told import ANSWERS_KEPT, Answered, tell, wrap
from cbmon.units import cells
from cbmon.wire import Wires
from tests.fake_trainer import NOON, FakeTrainer, a_record, append, hello, start
from tests.test_watch_app import is_whole, panel, press, screen, until

SCHEDULE = (
    "the optimizer's learning rate comes from ExponentialDecay at every step: it cannot be set from outside"
)
LONG_NAME = "2026-11-23_14-38-21_543c_resnet50_imagenet_warmup"
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="cbw", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    for module in ("cbmon.endpoint", "cbmon.sources", "tests.fake_trainer"):
        monkeypatch.setattr(f"{module}.runtime_folders", lambda: [folder / "cbmon"])
    yield folder / "cbmon"
    shutil.rmtree(folder)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def trainers(logs: Path) -> Iterator[Make]:
    """Makes a live run of a name, in the middle of its second epoch."""
    made: list[FakeTrainer] = []

    def make(name: str = "run1", *, control: bool = True, **fields: Any) -> FakeTrainer:
        record = a_record(logs / f"{name}.jsonl", start(), epoch(0))
        greeting = hello(name=record.name, control=control)
        made.append(FakeTrainer(record, greeting=greeting, first=(look(),), **fields))
        return made[-1]

    yield make
    for each in made:
        each.end()


def epoch(number: int, rate: float = 0.01) -> EpochsEnded:
    return EpochsEnded(
        epochs=[number],
        metrics={"loss": [0.5]},
        learning_rate=[rate],
        seconds={"epoch": [10.0]},
        time=NOON + 60,
    )


def look(**fields: Any) -> Progress:
    return Progress(epoch=1, step=40, steps=160, time=NOON + 64, **fields)


@asynccontextmanager
async def watching(
    *, size: tuple[int, int] = (80, 24), is_live: bool = True, read_only: bool = False, **options: Any
) -> AsyncIterator[tuple[WatchApp, Pilot[None]]]:
    wires = Wires()
    follower = Follower(["logs"], wires=wires, now=lambda: NOON + 70)
    app = WatchApp(follower, **options)
    app.wires = None if read_only else wires
    async with app.run_test(size=size) as pilot:
        await asyncio.wait_for(app.first_read.wait(), 20)
        if is_live:
            await until(pilot, lambda: "step 40" in text(app))
        yield app, pilot
    follower.stop()


def text(app: WatchApp) -> str:
    return "\n".join(screen(app))


def bottom(app: WatchApp) -> str:
    """The last line: the keys, or what is asked in their place."""
    return screen(app)[-1].rstrip()


def footer(app: WatchApp) -> str:
    return panel(app, "footer")[0]


def said(app: WatchApp) -> str:
    """What stands below the chart, without the breaks of its lines."""
    return " ".join(" ".join(panel(app, "alerts")).split())


def choose(app: WatchApp, name: str) -> None:
    app._choose(next(path for path in app._runs if path.stem == name))


def refuse(words: str) -> Callable[[Ask], Answer]:
    return lambda ask: Answer(id=ask.id, done=False, words=words)


# --- no means no --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no", ["n", "N", "escape", "enter", "q", "y"])
@pytest.mark.parametrize("keys", [["X"], ["X", "!"], ["L", *"0.1", "enter"]])
async def test_n_escape_and_every_other_key_mean_no(trainers: Make, keys: list[str], no: str) -> None:
    if no == "y" and len(keys) > 1:
        pytest.skip("there it is the answer")
    trainer = trainers()
    async with watching() as (app, pilot):
        await press(pilot, *keys)
        await until(pilot, lambda: app.query(Choice))
        await press(pilot, no)
        await until(pilot, lambda: not app.query(Choice))
        await press(pilot, "y", "y")  # keys of the screen again
        assert app.is_running
        assert trainer.asked == []


@pytest.mark.parametrize("name", ["run1", LONG_NAME])
@pytest.mark.parametrize("width", [80, 160])
async def test_the_questions_fit_with_the_name_and_say_what_is_no(
    trainers: Make, name: str, width: int
) -> None:
    trainers(name)
    async with watching(size=(width, 24)) as (app, pilot):
        shown = name if name == "run1" or width == 160 else "2026-"
        await press(pilot, "X")
        await until(pilot, lambda: "other keys no" in bottom(app))
        assert bottom(app).startswith(f" stop {shown}")
        assert bottom(app).endswith("?  e after this epoch, ! now, other keys no")
        assert name[-5:] in bottom(app), "names of one experiment differ at the end"
        await press(pilot, "!")
        assert bottom(app).startswith(f" stop {shown}")
        assert bottom(app).endswith(" now, cutting the epoch short?  y yes, other keys no")
        await press(pilot, "n", "L", *"x0.5", "enter")
        await until(pilot, lambda: "other keys no" in bottom(app))
        assert bottom(app).startswith(f" learning rate of {shown}")
        assert bottom(app).endswith(" x0.5: 0.01 → 5e-3?  y yes, other keys no")


async def test_a_stop_now_takes_two_keys_however_quick(trainers: Make) -> None:
    trainer = trainers()
    async with watching() as (app, pilot):
        await pilot.press("X", "exclamation_mark", "y", "y")
        await until(pilot, lambda: trainer.asked)
        assert [ask.what for ask in trainer.asked] == ["stop_now"]
        await pilot.press("X", "exclamation_mark", "exclamation_mark")
        await until(pilot, lambda: not app.query(Choice))
        assert len(trainer.asked) == 1


# --- what is typed ------------------------------------------------------------------------------------------


async def test_what_is_asked_for_stands_before_what_is_typed(trainers: Make) -> None:
    trainers()
    async with watching() as (app, pilot):
        await press(pilot, "L")
        await until(pilot, lambda: bottom(app) == " learning rate 0.01 → 3e-4, or x0.5; Esc: leave it")
        await press(pilot, *"0.1")
        await until(pilot, lambda: bottom(app) == " learning rate 0.01 → 0.1")
        await press(pilot, "escape", "S")
        hint = " save run1 as Enter: beside the record; or FILE.keras; Esc: no"
        await until(pilot, lambda: bottom(app) == hint)
        await press(pilot, *"a.ker")
        await until(pilot, lambda: bottom(app) == " save run1 as a.ker")
        await press(pilot, "escape")
        await until(pilot, lambda: not app.query(ControlPrompt))
        assert "X stop" in bottom(app)


async def test_the_questions_are_ascii_where_asked(trainers: Make) -> None:
    trainers("läuft")
    async with watching(is_ascii=True) as (app, pilot):
        for keys in (["L", "1"], ["enter"], ["escape", "X"], ["!"], ["escape", "S", "a"], ["escape", "?"]):
            await press(pilot, *keys)
            assert text(app).isascii(), keys


@pytest.mark.parametrize("typed", ["y", "best", "best.h5", "logs/"])
async def test_a_path_that_keras_does_not_save_to_is_refused_at_once(trainers: Make, typed: str) -> None:
    trainer = trainers()
    async with watching() as (app, pilot):
        await press(pilot, "S", *typed, "enter")
        await until(pilot, lambda: "▲" in said(app))
        assert repr(typed) in said(app)
        assert ".keras" in said(app)
        assert ".weights.h5" in said(app)
        assert trainer.asked == []


@pytest.mark.parametrize("typed", ["a.keras", "~/a.weights.h5"])
async def test_a_path_that_keras_saves_to_is_asked_for(trainers: Make, typed: str) -> None:
    trainer = trainers()
    async with watching() as (_, pilot):
        await press(pilot, "S", *typed, "enter")
        await until(pilot, lambda: trainer.asked)
        assert trainer.asked[0].path == str(Path(typed).expanduser().absolute())


@pytest.mark.parametrize(
    ("events", "rate", "sentence"),
    [
        ((), None, "nobody told one"),
        ((epoch(0), epoch(1, 0.02)), 0.02, "that of the last epoch"),
        ((epoch(0), look(learning_rate=1e-3)), 1e-3, "a later epoch began with another"),
        ((epoch(0), LearningRateChanged(epoch=1, new=5e-3)), 5e-3, "it was changed for the next epoch"),
        (
            (look(learning_rate=0.01), ControlApplied(epoch=1, command="lr", old=0.01, new=0.5)),
            0.5,
            "it was asked for within the epoch",
        ),
        (
            (ControlApplied(epoch=0, command="lr", old=0.01, new=0.5), epoch(0), look(learning_rate=0.1)),
            0.1,
            "what was asked for is over",
        ),
        ((epoch(0), ControlApplied(epoch=0, command="stop")), 0.01, "a stop changes none"),
        (
            (EpochsEnded(epochs=[0], metrics={}, learning_rates={"a": [0.1], "b": [0.2]}),),
            None,
            "two optimizers have no common one",
        ),
    ],
)
def test_the_rate_before_the_prompt_is_the_latest_that_was_told(
    events: tuple[Any, ...], rate: float | None, sentence: str
) -> None:
    run = Run()
    for event in (start(), *events):
        fold(run, event)
    assert present_rate(run) == rate, sentence


def test_a_factor_is_said_with_what_comes_out_where_that_is_known() -> None:
    assert rate_words(None, 0.5, 0.01) == " x0.5: 0.01 → 5e-3"
    assert rate_words(3e-4, None, 0.01) == " 0.01 → 3e-4"
    assert rate_words(None, 0.5, None) == " x0.5"
    assert rate_words(3e-4, None, None) == " → 3e-4"


# --- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_an_answer_is_shown_whole_and_without_the_name_of_the_chosen_run(
    trainers: Make, size: tuple[int, int]
) -> None:
    trainers(LONG_NAME, answer=refuse(SCHEDULE))
    async with watching(size=size) as (app, pilot):
        await press(pilot, "l", *"0.1", "enter", "y")
        await until(pilot, lambda: "ExponentialDecay" in text(app))
        assert said(app) == f"▲ {SCHEDULE}"
        assert [line[:3] for line in panel(app, "alerts")] == [" ▲ ", "   "][: len(panel(app, "alerts"))]
        assert is_whole(app)


async def test_a_long_path_in_an_answer_can_be_read_to_its_end(trainers: Make) -> None:
    path = "/scratch/" + "experiments-of-this-year/" * 4 + "run1-epoch3.keras"
    trainers(answer=lambda ask: Answer(id=ask.id, done=True, words=f"saved {path}"))
    async with watching() as (app, pilot):
        await press(pilot, "S", "enter")
        await until(pilot, lambda: "run1-epoch3.keras" in text(app))
        assert "".join(said(app).split()) == f"·saved{path}"


async def test_an_answer_leaves_a_row_to_count_the_alerts_below_it(trainers: Make, logs: Path) -> None:
    trainer = trainers(answer=refuse(SCHEDULE))
    for number in range(1, 8):
        with (logs / "run1.jsonl").open("ab") as file:
            file.write(b"no event\n")
        append(logs / "run1.jsonl", epoch(number))
    async with watching(is_live=False) as (app, pilot):
        await until(pilot, lambda: "X stop" in footer(app))
        await press(pilot, "L", *"0.1", "enter", "y")
        await until(pilot, lambda: trainer.asked and "ExponentialDecay" in text(app))
        await press(pilot)
        assert said(app).startswith(f"▲ {SCHEDULE} ▲ line 3: ")
        assert panel(app, "alerts")[-1].endswith("more (e)")
        assert is_whole(app)


async def test_a_long_answer_has_its_rows_where_runs_and_callbacks_fill_theirs(
    trainers: Make, logs: Path
) -> None:
    for number in range(6):
        a_record(logs / f"old{number}.jsonl", start(f"old{number}"), epoch(0), RunEnded(how="finished"))
    trainers(answer=refuse(f"{SCHEDULE}, {SCHEDULE}"))
    states = [CallbackState(name=f"Callback{number}", wait=1, patience=3) for number in range(4)]
    append(logs / "run1.jsonl", CallbackStates(epoch=0, states=states))
    async with watching(is_live=False) as (app, pilot):
        choose(app, "run1")
        await until(pilot, lambda: "X stop" in footer(app))
        await press(pilot, "L", "1", "enter", "y")
        await until(pilot, lambda: f"{SCHEDULE}, {SCHEDULE}" in said(app))


async def test_the_answer_of_another_run_than_the_chosen_one_has_its_name(trainers: Make, logs: Path) -> None:
    answers: list[Answer] = []
    trainer = trainers(answer=lambda ask: answers.append(Answer(id=ask.id, done=True, words="it is done")))
    a_record(logs / "other.jsonl", start("over"), RunEnded(how="finished"))
    async with watching(is_live=False) as (app, pilot):
        choose(app, "run1")
        await until(pilot, lambda: "X stop" in footer(app))
        await press(pilot, "X", "e")
        await until(pilot, lambda: answers)
        choose(app, "other")
        trainer.send(answers[0])
        await until(pilot, lambda: "· run1: it is done" in text(app))
        await press(pilot, "e")
        assert "it is done" not in text(app), "nor on the page of the other one"
        choose(app, "run1")
        await until(pilot, lambda: "answered: it is done" in text(app))


async def test_the_last_answers_can_be_read_on_the_page_of_alerts(trainers: Make) -> None:
    numbers = iter(range(100))
    trainer = trainers(
        answer=lambda ask: Answer(
            id=ask.id, done=True, words=f"answer {next(numbers)} " + "and so on " * 12 + "END"
        )
    )
    async with watching() as (app, pilot):
        for number in range(ANSWERS_KEPT + 1):
            await press(pilot, "S", "enter")
            await until(pilot, lambda number=number: f"answer {number} " in text(app))
        await press(pilot, "e")
        await until(pilot, lambda: "alerts and warnings" in panel(app, "main")[0])
        page = "\n".join(panel(app, "main"))
        kept = [f"answered: answer {number} " in page for number in range(ANSWERS_KEPT + 1)]
        assert kept == [False] + [True] * ANSWERS_KEPT
        assert page.count("END") == ANSWERS_KEPT
        assert page.index(f"answer {ANSWERS_KEPT}") < page.index("answer 1 "), "the newest first"
        assert page.count(" · ") == ANSWERS_KEPT, "one sign each"
        await press(pilot, "S", "enter")
        await until(pilot, lambda: len(trainer.asked) == ANSWERS_KEPT + 2)
        await until(pilot, lambda: f"answer {ANSWERS_KEPT + 1} " in text(app))
        assert text(app).count(f"answer {ANSWERS_KEPT + 1} ") == 1, "not as what came of the key as well"


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 5), (12, 24), (300, 80)])
async def test_the_page_of_long_answers_scrolls_to_its_end_at_every_size(
    trainers: Make, size: tuple[int, int]
) -> None:
    trainers(answer=refuse(SCHEDULE))
    async with watching(is_live=False, size=size) as (app, pilot):
        await until(pilot, lambda: app.wires and app.wires.is_there(next(iter(app._runs))))
        for _ in range(ANSWERS_KEPT):
            await press(pilot, "L", "1", "enter", "y")
        await until(pilot, lambda: len(app._answers.get(next(iter(app._runs)), ())) == ANSWERS_KEPT)
        await press(pilot, "e", *["pagedown"] * 20)
        assert is_whole(app)
        if size[1] > 5 and size[0] > 20:
            assert "from outside" in " ".join(" ".join(panel(app, "main")).split()[-4:])


async def test_what_a_key_could_not_do_is_said_below_the_table_of_all_runs(logs: Path) -> None:
    a_record(logs / "run1.jsonl", start(), epoch(0), RunEnded(how="finished"))
    async with watching(is_live=False) as (app, pilot):
        await press(pilot, "a", "X")
        assert panel(app, "alerts") == [" ▲ cannot be asked: its training has ended"]
        await press(pilot, "o")
        assert panel(app, "alerts") == []


@pytest.mark.parametrize("width", [20, 21, 40, 77])
@pytest.mark.parametrize(
    "words", [SCHEDULE, "saved " + "/deep" * 40, "x" * 300, "漢" * 90, "", "a  b " * 30, "é" * 99]
)
def test_wrapping_loses_nothing_and_keeps_the_width(words: str, width: int) -> None:
    parts = wrap(words, width)
    assert "".join(parts).replace(" ", "") == words.replace(" ", "")
    assert max(map(cells, parts)) <= width
    few = wrap(words, width, 2)
    assert len(few) <= 2
    assert few[0] == parts[0]


def test_the_lines_that_go_on_have_no_sign_but_the_count_of_the_rest_has() -> None:
    lines = tell([(Severity.WARNING, "word " * 20), (Severity.INFO, "short")], 40)
    assert lines.going_on == {1, 2}
    rows = tuple(((f" {sign} ", Any), ("text", Any)) for sign in "abcd")
    assert [row[0][0].strip() for row in lines.unsigned(rows)] == ["a", "", "", "d"]
    assert [row[0][0].strip() for row in lines.unsigned(rows[:2])] == ["a", "b"], (
        "the last one counts the rest"
    )
    assert [row[0][0].strip() for row in lines.unsigned(rows[1:3], 1)] == ["", "c"]


def test_an_answer_without_a_time_is_told_without_one() -> None:
    assert Answered(None, False, "no").line == (Severity.WARNING, "answered: no")


# --- where nothing can be asked -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_the_footer_of_a_live_run_has_all_three_keys(trainers: Make, size: tuple[int, int]) -> None:
    trainers()
    async with watching(size=size) as (app, _):
        assert "  L lr  S save  X stop  " in footer(app)
        assert footer(app).endswith("w what-if  ? help  q quit")
        assert len(footer(app)) <= size[0]


async def test_a_run_that_takes_no_requests_has_no_such_keys_and_says_so_at_once(trainers: Make) -> None:
    trainer = trainers(control=False)
    async with watching() as (app, pilot):
        assert not any(hint in footer(app) for hint in ("L lr", "S save", "X stop"))
        for key in "LSX":
            await press(pilot, "o", key)
            assert said(app) == "▲ cannot be asked: it takes no requests, by Monitor(control=False)"
            assert not app.query(ControlPrompt)
            assert not app.query(Choice)
        assert trainer.asked == []


async def test_read_only_is_said_when_a_key_is_pressed_and_in_the_footer(trainers: Make) -> None:
    trainer = trainers()
    async with watching(read_only=True) as (app, pilot):
        assert footer(app).endswith("? help  q quit  read-only")
        assert len(footer(app)) <= 80
        for key in "LSX":
            await press(pilot, key)
            assert said(app).startswith("▲ read-only: L, S and X ask nothing of a training")
            await press(pilot, "o")
            assert "read-only:" not in said(app)
        assert trainer.asked == []
    async with watching() as (app, _):
        assert "read-only" not in text(app)


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
async def test_the_help_shows_what_the_glyphs_mean_without_scrolling(
    trainers: Make, size: tuple[int, int]
) -> None:
    trainers()
    async with watching(size=size) as (app, pilot):
        await press(pilot, "?")
        await until(pilot, lambda: "any other key closes this" in text(app))
        assert "scroll" in text(app)
        assert all(line in text(app) for line in legend_lines())
        await press(pilot, "end")
        await until(pilot, lambda: "only L, S and X ask something of it" in text(app))
