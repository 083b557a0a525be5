"""Asking something of a training: `cbmon ctl`, and the keys of the screen; a faked trainer first, then Keras."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from cbmon.cli import main
from cbmon.cli.ctl import HELLO_S
from cbmon.endpoint import Answer, Ask, Process, this_process
from cbmon.events import ControlApplied, Progress, RunEnded
from cbmon.formats.sniff import Format
from cbmon.plots import chart_view, reading
from cbmon.rules import control_words
from cbmon.run import Run, fold
from cbmon.sources import Follower, Log, find
from cbmon.tui.app import WatchApp
from cbmon.tui.control import Choice, ControlPrompt
from cbmon.tui.screens import HelpScreen
from cbmon.views import no_control, run_view, strip_lines
from cbmon.wire import Wires
from tests.fake_trainer import NOON, FakeTrainer, a_record, append, epoch, hello, start, until
from tests.test_watch_app import panel, press, screen
from tests.test_watch_app import until as until_shown
from tests.test_watch_pty import QUIET_S, Terminal

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, with a short path; for child processes too."""
    folder = Path(tempfile.mkdtemp(prefix="cbw", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    for module in ("cbmon.endpoint", "cbmon.sources", "tests.fake_trainer"):
        monkeypatch.setattr(f"{module}.runtime_folders", lambda: [folder / "cbmon"])
    yield folder / "cbmon"
    shutil.rmtree(folder)


@pytest.fixture
def trainers() -> Iterator[Callable[..., FakeTrainer]]:
    made: list[FakeTrainer] = []

    def make(*args: Any, **fields: Any) -> FakeTrainer:
        made.append(FakeTrainer(*args, **fields))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


Make = Callable[..., Any]


def dead_process() -> Process:
    """One of this machine that is known to be gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return msgspec.structs.replace(this_process(), pid=process.pid)


# --- cbmon ctl ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "ask"),
    [
        (["stop"], Ask(id=1, what="stop")),
        (["stop", "--now"], Ask(id=1, what="stop_now")),
        (["lr", "3e-4"], Ask(id=1, what="lr", value=3e-4)),
        (["lr", "x0.5"], Ask(id=1, what="lr", scale=0.5)),
        (["save"], Ask(id=1, what="save")),
    ],
)
@pytest.mark.parametrize("run", ["logs", "logs/run1.jsonl"])
def test_ctl_asks_the_live_run_and_says_the_answer(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str], run: str, words: list[str], ask: Ask
) -> None:
    a_record(logs / "run2.jsonl", start("over"), RunEnded(how="finished"))
    trainer = trainers(a_record(logs / "run1.jsonl", start(), epoch(0)), greeting=hello())
    assert main(["ctl", run, *words]) == 0
    assert capsys.readouterr() == (f"run1: {ask.what} is done\n", "")
    assert trainer.asked == [ask]
    assert trainer.attached[0].role == "ctl"
    assert trainer.attached[0].run_id == "r"


def test_ctl_saves_to_the_path_that_is_meant_here(logs: Path, trainers: Make) -> None:
    trainer = trainers(a_record(logs / "run1.jsonl", start()), greeting=hello())
    assert main(["ctl", "logs", "save", "best.keras"]) == 0
    assert trainer.asked[0].path == str(logs.parent / "best.keras")


@pytest.mark.parametrize("is_bare", [True, False])
def test_ctl_asks_a_run_without_a_file(runtime: Path, trainers: Make, logs: Path, is_bare: bool) -> None:
    runtime.mkdir(mode=0o700)
    at = runtime / "live-1.sock"
    trainer = trainers(at=at, greeting=hello(name="live-1.sock", replays=True))
    assert main(["ctl", "unix://" if is_bare else f"unix://{at}", "stop"]) == 0
    assert trainer.asked


def test_what_the_training_refuses_is_1_with_its_words(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainers(
        a_record(logs / "run1.jsonl", start()),
        greeting=hello(),
        answer=lambda ask: Answer(id=ask.id, done=False, words="a schedule\x1b[31m sets it"),
    )
    assert main(["ctl", "logs", "lr", "0.1"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "cbmon: run1: a schedule\\x1b[31m sets it\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["logs", "lr"], "lr needs a learning rate"),
        (["logs", "lr", "fast"], "no learning rate"),
        (["logs", "lr", ""], "no learning rate"),
        (["logs", "lr", "0"], "give one above 0"),
        (["logs", "lr", "nan"], "give one above 0"),
        *((["logs", "lr", rate], "give one above 0") for rate in ("-1", "-.5", "-1e-3", "-inf", "-nan")),
        (["logs", "lr", "--", "-1"], "give one above 0"),
        (["logs", "--timeout", "9s", "lr", "-1"], "give one above 0"),
        (["logs", "stop", "-1"], "No such option"),
        (["logs", "save", "foo.h5"], "save 'foo.h5': the name has to end in .keras"),
        (["logs", "save", ""], "save '': the name has to end in .keras"),
        (["logs", "stop", "soon"], "stop takes no 'soon'"),
        (["logs", "save", "--now"], "--now is for stop"),
        (["logs", "dance"], "dance"),
        (["logs"], "Missing argument"),
        (["logs", "stop", "--timeout", "soon"], "timeout"),
    ],
)
def test_what_cannot_be_read_is_2(
    logs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["ctl", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_several_live_runs_are_2_and_named(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        trainers(a_record(logs / f"{name}.jsonl", start(name)), greeting=hello(name)).asked
        for name in ("run1", "run2")
    ]
    assert main(["ctl", "logs", "stop"]) == 2
    words = "here are 2 live runs: logs/run1.jsonl, logs/run2.jsonl; name one"
    assert capsys.readouterr().err == f"cbmon: logs: {words}\n"
    assert asked == [[], []]


@pytest.mark.parametrize("hanging", ["run1", "run2"])
def test_one_that_hangs_is_a_live_run_too_and_the_other_is_not_asked_for_it(
    logs: Path,
    trainers: Make,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    hanging: str,
) -> None:
    monkeypatch.setattr("cbmon.cli.ctl.HELLO_S", 0.2)
    asked = []
    for name in ("run1", "run2"):
        record = a_record(logs / f"{name}.jsonl", start(name))
        asked.append(trainers(record, greeting=None if name == hanging else hello(name)).asked)
    assert main(["ctl", "logs", "lr", ".1"]) == 2
    names = [f"logs/{name}.jsonl" + " (does not answer)" * (name == hanging) for name in ("run1", "run2")]
    assert f"here are 2 live runs: {', '.join(names)}; name one" in capsys.readouterr().err
    assert asked == [[], []]


def test_however_short_the_time_one_that_hangs_does_not_hide_the_other(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, greeting in (("run1", None), ("run2", hello("run2"))):
        trainers(a_record(logs / f"{name}.jsonl", start(name)), greeting=greeting)
    assert main(["ctl", "logs", "stop", "--timeout", "0.1s"]) == 2
    assert "run1.jsonl (does not answer), logs/run2.jsonl;" in capsys.readouterr().err


def test_several_runs_without_a_file_are_named_as_they_are_given(
    runtime: Path, trainers: Make, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime.mkdir(mode=0o700)
    for name in ("live-1.sock", "live-2.sock"):
        trainers(at=runtime / name, greeting=hello(name, name=name, replays=True))
    assert main(["ctl", "unix://", "stop"]) == 2
    assert f"unix://{runtime}/live-1.sock, unix://{runtime}/live-2.sock" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("logs", "a"),
        ("logs/a", "a"),
        ("logs/a/training.jsonl", "a"),
        (".", "logs/a"),
        ("logs/*/*.jsonl", "a"),
    ],
)
def test_the_answer_names_the_run_as_the_list_of_watch_does(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str], given: str, name: str
) -> None:
    (logs / "a").mkdir()
    trainers(a_record(logs / "a" / "training.jsonl", start()), greeting=hello(name="training.jsonl"))
    assert main(["ctl", given, "stop"]) == 0
    assert capsys.readouterr().out == f"{name}: stop is done\n"
    assert [log.name for log in find((given,)).logs] == [name]


def test_the_answer_s_rates_are_written_as_all_others(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(ask: Ask) -> Answer:
        return Answer(id=ask.id, done=True, words="learning rate 0.005 → 0.003; x", old=0.005, new=0.003)

    trainers(a_record(logs / "run1.jsonl", start()), greeting=hello(), answer=answer)
    assert main(["ctl", "logs", "lr", "3e-3"]) == 0
    assert capsys.readouterr().out == "run1: learning rate 5e-3 → 3e-3; x\n"


ELSEWHERE = Process(host="gpu7", boot_id="b", pid=1)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("logs/ended.jsonl", "its training has ended"),
        ("logs/elsewhere.jsonl", "it runs on gpu7: ask it there"),
        ("logs/keras.csv", "only a run that Monitor records can be asked"),
        ("logs/silent.jsonl", "no training listens for it here"),
        ("logs", "no run here is live"),
        ("nowhere", "no such file"),
        ("unix:///tmp/nobody.sock", "No such file"),
        ("unix://", "no training listens"),
    ],
)
def test_no_such_live_run_is_3_and_says_why(
    logs: Path, capsys: pytest.CaptureFixture[str], path: str, words: str
) -> None:
    a_record(logs / "ended.jsonl", start(), epoch(0), RunEnded(how="finished"))
    a_record(logs / "elsewhere.jsonl", start(process=ELSEWHERE))
    a_record(logs / "silent.jsonl", start())
    (logs / "keras.csv").write_text("epoch,loss\n0,1\n1,2\n")
    assert main(["ctl", path, "stop"]) == 3
    assert words in capsys.readouterr().err


def test_another_run_at_the_record_s_socket_is_not_asked(logs: Path, trainers: Make) -> None:
    trainer = trainers(a_record(logs / "run1.jsonl", start()), greeting=hello("another"))
    assert main(["ctl", "logs", "stop"]) == 3
    assert trainer.asked == []


def test_a_training_that_does_not_answer_in_time_is_124(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainers(a_record(logs / "run1.jsonl", start()), greeting=hello(), answer=lambda ask: None)
    assert main(["ctl", "logs", "stop", "--timeout", "0.2s"]) == 124
    assert "it may still be done" in capsys.readouterr().err


def test_what_says_no_hello_to_ctl_is_no_live_run(logs: Path, trainers: Make) -> None:
    trainers(a_record(logs / "run1.jsonl", start()), greeting=b"garbage\n")
    assert main(["ctl", "logs", "stop"]) == 3


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_process_that_is_there_and_says_nothing_is_124_and_it_is_said_what_to_do(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    record = logs / f"run1{suffix}"
    record.write_text("epoch,loss,cbmon_time\n0,1.0,1700049600.0\n") if suffix == ".csv" else a_record(
        record, start(), epoch(0)
    )
    trainer = trainers(record, greeting=None)
    began = time.monotonic()
    assert main(["ctl", "logs", "stop", "--timeout", "0.3s"]) == 124
    assert 0.3 <= time.monotonic() - began < HELLO_S
    (err,) = capsys.readouterr().err.splitlines()
    assert err.startswith(f"cbmon: run1 does not answer: its process (pid {os.getpid()}) is there")
    assert f"kill -CONT {os.getpid()}" in err
    assert "sock" not in err
    assert trainer.asked == []


@pytest.mark.parametrize("over", [RunEnded(how="finished"), start(process=dead_process())])
def test_what_listens_for_a_run_that_is_over_and_says_nothing_is_3(
    logs: Path, trainers: Make, monkeypatch: pytest.MonkeyPatch, over: Any
) -> None:
    monkeypatch.setattr("cbmon.cli.ctl.HELLO_S", 0.2)
    trainers(a_record(logs / "run1.jsonl", start(), over), greeting=None)
    assert main(["ctl", "logs", "stop"]) == 3


HANGS = """
import sys, time
from pathlib import Path
from tests.fake_trainer import FakeTrainer, a_record, hello, start
record = a_record(Path(sys.argv[1]), start())
trainer = FakeTrainer(record, greeting=hello())
print("ready", flush=True)
time.sleep(600)
"""


def test_a_stopped_trainer_is_waited_for_as_long_as_one_says(
    logs: Path, runtime: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmon.cli.ctl.HELLO_S", 0.2)
    with subprocess.Popen(
        [sys.executable, "-c", HANGS, str(logs / "run1.jsonl")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as trainer:
        try:
            assert trainer.stdout is not None
            assert trainer.stdout.readline() == b"ready\n"
            trainer.send_signal(signal.SIGSTOP)
            assert main(["ctl", "logs", "stop", "--timeout", "0.5s"]) == 124
            first, last = capsys.readouterr().err.splitlines()
            assert first == "cbmon: run1 does not answer yet; waiting up to 0.5s"
            assert f"(pid {trainer.pid})" in last
            threading.Timer(0.5, trainer.send_signal, [signal.SIGCONT]).start()
            assert main(["ctl", "logs", "stop", "--timeout", "60s"]) == 0
            assert capsys.readouterr().out == "run1: stop is done\n"
            trainer.send_signal(signal.SIGSTOP)
            threading.Timer(0.5, trainer.kill).start()
            assert main(["ctl", "logs", "stop", "--timeout", "60s"]) == 3
            assert "run1: no answer came: " in capsys.readouterr().err
        finally:
            trainer.kill()


def test_a_training_that_ends_before_it_answers_is_3(
    logs: Path, trainers: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[FakeTrainer] = []

    def end(ask: Ask) -> None:
        made[0].end(words="the fit has ended")

    made.append(trainers(a_record(logs / "run1.jsonl", start()), greeting=hello(), answer=end))
    assert main(["ctl", "logs", "stop"]) == 3
    assert "no answer came: the fit has ended" in capsys.readouterr().err


# --- what is shown ------------------------------------------------------------------------------------------


def a_run(*events: Any) -> Run:
    run = Run()
    for event in events:
        fold(run, event)
    return run


def test_what_was_asked_for_stands_on_the_rail_and_in_the_read_out() -> None:
    run = a_run(
        start(),
        *(epoch(number) for number in range(5)),
        ControlApplied(epoch=2, command="lr", by="ada@gpu1:7", old=1e-3, new=5e-4),
        ControlApplied(epoch=3, command="save", by="ada@gpu1:7"),
        ControlApplied(epoch=4, command="stop", by="\x1b[31m"),
    )
    view = chart_view(run)
    assert [(mark.x, mark.kind.name) for mark in view.marks if mark.kind.name != "BEST"] == [
        (3, "LR"),
        (5, "STOP"),
    ]
    assert view.notes[3] == ("learning rate 1e-3 → 5e-4 at epoch 3, asked for by ada@gpu1",)
    assert view.notes[4] == ("save, asked for by ada@gpu1",)
    assert view.notes[5] == ("stop after epoch 5, asked for by \\x1b[31m",)
    assert reading(view, 3)[0][1] == ".5000"


def test_an_odd_control_is_told_in_words() -> None:
    assert control_words(ControlApplied(command="lr")) == "learning rate changed"
    assert control_words(ControlApplied(command="dance\x07", by="x")) == "dance\\x07, asked for by x"


def look(**fields: Any) -> Progress:
    return Progress(epoch=1, step=40, time=NOON + 64, **fields)


@pytest.mark.parametrize(
    ("progress", "line", "part"),
    [
        (
            look(steps=160, steps_per_second=52.4, metrics={"acc": 0.5, "loss": 0.301}),
            "epoch 2: step 40/160 · 52 steps/s · ≈ 2.3 s left · loss .3010 · acc .5000 · an epoch takes 10 s", 0.25,
        ),
        (look(steps=160, steps_per_second=0.5),
         "epoch 2: step 40/160 · 2.0 s a step · ≈ 4.0 min left · an epoch takes 10 s", 0.25),
        (look(steps_per_second=3.25), "epoch 2: step 40 · 3.2 steps/s · an epoch takes 10 s", None),
        (look(begun=NOON + 60), "epoch 2: step 40 · an epoch takes 10 s", 0.4),
        (
            look(steps=80, phase="validation", steps_per_second=99.0, metrics={"a": float("nan")}),
            "epoch 2: step 40/80 of validation · 99 steps/s · ≈ 404 ms left · val_a nan · an epoch takes 10 s", 1.0,
        ),
    ],
)  # fmt: skip
def test_the_running_epoch_in_words_and_on_the_bar(progress: Progress, line: str, part: float | None) -> None:
    run = a_run(start(), epoch(0), progress)
    shown = strip_lines(run)[0]
    assert shown == line
    assert run_view(Log(Path("run1.jsonl"), "run1", Format.RECORD), run).part == part


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((start(), RunEnded(how="failed")), "its training has ended"),
        ((start(process=ELSEWHERE),), "it runs on gpu7: ask it there"),
        ((epoch(0),), "only a run that Monitor records can be asked, and this is none"),
        ((start(),), ""),
    ],
)
def test_why_a_run_takes_no_requests(events: tuple[Any, ...], words: str) -> None:
    assert no_control(a_run(*events)) == words


# --- the keys -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def watching(
    *paths: str, can_ask: bool = True, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[WatchApp, Pilot[None]]]:
    wires = Wires()
    follower = Follower(paths or ("logs",), wires=wires, now=lambda: NOON + 70)
    app = WatchApp(follower)
    app.wires = wires if can_ask else None
    async with app.run_test(size=size) as pilot:
        await asyncio.wait_for(app.first_read.wait(), 20)
        yield app, pilot
    follower.stop()


async def until_live(app: WatchApp, pilot: Pilot[None]) -> None:
    """Wait for the wire, and for what it tells."""
    await until_shown(pilot, lambda: "step 40" in text(app))


def text(app: WatchApp) -> str:
    return "\n".join(screen(app))


@pytest.fixture
def live(logs: Path, trainers: Make) -> Any:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    return trainers(record, greeting=hello(), first=(look(steps=160, steps_per_second=52.0),))


async def test_progress_moves_strip_and_bar_but_redraws_no_chart(live: FakeTrainer) -> None:
    async with watching() as (app, pilot):
        await until_live(app, pilot)
        before, picture = panel(app, "runs")[0], app._picture
        live.send(Progress(epoch=1, step=150, steps=160, time=NOON + 65, steps_per_second=52.0))
        await until_shown(pilot, lambda: "step 150/160" in text(app))
        assert panel(app, "runs")[0] != before
        assert app._picture is picture


@pytest.mark.parametrize(
    ("keys", "ask"),
    [
        (["X", "e"], Ask(id=1, what="stop")),
        (["X", "!", "y"], Ask(id=1, what="stop_now")),
        (["S", "enter"], Ask(id=1, what="save")),
        (["L", *"3e-4", "enter", "y"], Ask(id=1, what="lr", value=3e-4)),
        (["L", *"x.5", "enter", "y"], Ask(id=1, what="lr", scale=0.5)),
    ],
)
async def test_a_key_asks_and_shows_the_answer(live: FakeTrainer, keys: list[str], ask: Ask) -> None:
    async with watching() as (app, pilot):
        await until_live(app, pilot)
        assert "X stop" in panel(app, "footer")[0]
        await press(pilot, *keys)
        await until_shown(pilot, lambda: live.asked)
        await until_shown(pilot, lambda: f" · {ask.what} is done" in text(app))
        assert live.asked == [ask]
        assert app._look.filter == ""


@pytest.mark.parametrize(
    "keys",
    [["X", "escape"], ["X", "q"], ["X", "enter"], ["S", "escape"], ["L", "escape"], ["L", "enter"],
     ["L", *"0.1", "enter", "n"], ["L", *"0.1", "enter", "enter"], ["L", *"fast", "enter"]],
)  # fmt: skip
async def test_what_is_not_confirmed_is_not_asked(live: FakeTrainer, keys: list[str]) -> None:
    async with watching() as (app, pilot):
        await until_live(app, pilot)
        await press(pilot, *keys)
        await until_shown(pilot, lambda: not app.query(ControlPrompt) and not app.query(Choice))
        assert ("'fast' is no learning rate" in text(app)) is ("f" in keys)
        await press(pilot, "a", "a")  # the keys do again what they did
        assert app.is_running
        assert live.asked == []


async def test_quick_keys_ask_once(live: FakeTrainer) -> None:
    async with watching() as (app, pilot):
        await until_live(app, pilot)
        await pilot.press("X", "e", "e", "n")
        await until_shown(pilot, lambda: live.asked)
        await pilot.pause()
        assert [ask.what for ask in live.asked] == ["stop"]


async def test_a_path_to_save_to_is_the_one_meant_here(live: FakeTrainer, logs: Path) -> None:
    async with watching() as (app, pilot):
        await until_live(app, pilot)
        await press(pilot, "S", *"a.keras", "enter")
        await until_shown(pilot, lambda: live.asked)
        assert live.asked[0].path == str(logs.parent / "a.keras")


async def test_read_only_takes_the_keys_away(live: FakeTrainer) -> None:
    async with watching(can_ask=False) as (app, pilot):
        await until_live(app, pilot)
        assert "X stop" not in panel(app, "footer")[0]
        await press(pilot, "X", "e", "e")
        assert not app.query(Choice)
        await press(pilot, "?")
        assert isinstance(app.screen, HelpScreen)
        assert "ask the training" not in text(app)
        assert live.asked == []


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((start(), epoch(0), RunEnded(how="finished")), " ▲ cannot be asked: its training has ended"),
        ((start(process=ELSEWHERE), epoch(0)), " ▲ cannot be asked: it runs on gpu7: ask it there"),
        ((start(), epoch(0)), " ▲ cannot be asked: no training listens for it here"),
        ((epoch(0),), " ▲ cannot be asked: only a run that Monitor records can be asked"),
    ],
)
async def test_a_run_that_takes_no_requests_says_why(logs: Path, events: tuple[Any, ...], words: str) -> None:
    a_record(logs / "run1.jsonl", *events)
    async with watching() as (app, pilot):
        for key in "LSX":
            await press(pilot, key)
            assert words in text(app)
        assert not app.query(Choice)
        assert "X stop" not in panel(app, "footer")[0]


async def test_a_training_that_dies_before_it_answers_is_told(logs: Path, trainers: Make) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    first = (look(steps=160),)
    trainer = trainers(record, greeting=hello(), first=first, answer=lambda ask: None)
    async with watching() as (app, pilot):
        await until_live(app, pilot)
        await press(pilot, "X", "!", "y")
        await until_shown(pilot, lambda: trainer.asked)
        trainer.end()
        await until_shown(pilot, lambda: "no answer came: it hung up" in text(app))


async def test_a_run_without_a_file_is_on_the_screen_and_can_be_asked(runtime: Path, trainers: Make) -> None:
    runtime.mkdir(mode=0o700)
    events = (start(), epoch(0), look(steps=160))
    trainer = trainers(
        at=runtime / "live-1.sock", greeting=hello(name="live-1.sock", replays=True), first=events
    )
    async with watching("unix://") as (app, pilot):
        await until_live(app, pilot)
        assert "live-1" in panel(app, "runs")[0]
        await press(pilot, "X", "e")
        await until_shown(pilot, lambda: trainer.asked)


# --- in a real terminal -------------------------------------------------------------------------------------


def test_an_idle_screen_with_a_wire_sends_nothing_and_a_look_costs_few_bytes(
    logs: Path, trainers: Make, runtime: Path
) -> None:
    record = a_record(logs / "run1.jsonl", start(at=time.time()), epoch(0, at=time.time()))
    began = json.loads(record.read_text().splitlines()[0])["time"]
    first = Progress(epoch=1, step=40, steps=160, time=time.time(), steps_per_second=52.0)
    trainer = trainers(record, greeting=hello(started=began), first=(first,))
    terminal = Terminal(logs.parent, "watch", "logs", XDG_RUNTIME_DIR=str(runtime.parent))
    try:
        terminal.shows("step 40/160")
        terminal.settle()
        assert terminal.read(QUIET_S) == b""
        before = len(terminal.output)
        trainer.send(Progress(epoch=1, step=50, steps=160, time=time.time(), steps_per_second=53.0))
        terminal.shows("step 50/160")
        terminal.settle()
        assert len(terminal.output) - before < 300
        trainer.end()
        terminal.press(b"q")
        assert terminal.end() == 0
        assert b"Traceback" not in terminal.output
    finally:
        terminal.close()


def test_lines_tell_no_look_into_the_epoch(logs: Path, trainers: Make, runtime: Path) -> None:
    record = a_record(logs / "run1.jsonl", start(at=NOON), epoch(0))
    trainer = trainers(record, greeting=hello(), first=(look(steps=160),))
    terminal = Terminal(logs.parent, "watch", "logs", "--plain", XDG_RUNTIME_DIR=str(runtime.parent))
    try:
        terminal.until(lambda: b"watching 1 run\r\n" in terminal.output)
        until(lambda: trainer.attached)
        told = len(terminal.output)
        for step in range(41, 60):
            trainer.send(Progress(epoch=1, step=step, time=time.time()))
        append(record, epoch(1))
        terminal.until(lambda: b"epoch 2/10" in terminal.output)
        assert b"step" not in terminal.output[told:]
        assert terminal.output[told:].count(b"\n") <= 2  # that it is running again, and the epoch
    finally:
        terminal.close()


# --- a real training ----------------------------------------------------------------------------------------

TRAINING = """
import os, sys, time, json
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, keras
from cbmon.callbacks import Monitor
class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None): time.sleep(0.01)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.125), "mse")
x = np.zeros((800, 4), "float32")
history = model.fit(x, x[:, :1], epochs=1000, batch_size=8, verbose=0,
    callbacks=[Slow(), Monitor(sys.argv[1]), keras.callbacks.ReduceLROnPlateau("loss", patience=10000)])
print(json.dumps([len(history.epoch), history.history["learning_rate"]]))
"""


def test_a_real_training_moves_obeys_and_ends_with_its_history_intact(
    logs: Path, runtime: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keras: Any = pytest.importorskip("keras", reason="keras is not installed: nothing to train")
    record = logs / "run1.jsonl"
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(record)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not record.exists() or b"epochs_ended" not in record.read_bytes():
            assert time.monotonic() < deadline
            assert training.poll() is None, training.stderr and training.stderr.read()
            time.sleep(0.05)
        wires = Wires()
        follower = Follower([str(logs)], wires=wires)
        run, steps = Run(), set()
        for _, events in follower.read():
            for event in events:
                fold(run, event)
        follower.start()
        while len(steps) < 4:
            assert time.monotonic() < deadline
            for _, events in follower.read(follower.wait()):
                for event in events:
                    fold(run, event)
            if run.progress is not None:
                steps.add((run.progress.epoch, run.progress.step))
                assert run.progress.steps == 100
        follower.stop()
        assert main(["ctl", "logs", "lr", "x0.5"]) == 0
        assert capsys.readouterr().out.startswith("run1: learning rate 0.125 → 0.0625")
        while b'"learning_rate":[0.0625]' not in record.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert main(["ctl", str(record), "save", str(logs / "now.keras")]) == 0
        assert main(["ctl", "logs", "stop"]) == 0
        out, err = training.communicate(timeout=60)
    finally:
        training.kill()
        training.wait()
    assert training.returncode == 0, err
    epochs, rates = json.loads(out.splitlines()[-1])
    assert len(rates) == epochs < 1000
    assert rates[-1] == 0.0625
    assert keras.saving.load_model(logs / "now.keras").count_params() == 5
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert lines[-1]["how"] == "stopped"
    assert [line["command"] for line in lines if line["event"] == "control_applied"] == ["lr", "save", "stop"]
    assert main(["ctl", "logs", "stop"]) == 3
    assert "its training has ended" in capsys.readouterr().err
