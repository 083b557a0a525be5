"""The watcher's end of the live wire: against a trainer that speaks the protocol, and one that breaks it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cbmon.endpoint import Answer, Dropped, Process, encode_frame, this_process
from cbmon.errors import BadCall
from cbmon.events import EpochsEnded, Progress, RecordReplaced, RunEnded, encode_line
from cbmon.rules import Status, status
from cbmon.run import Run, fold
from cbmon.sources import Follower
from cbmon.wire import Line, Silent, Wires, answer_words, read_rate, read_target
from tests.fake_trainer import NOON, PATIENCE_S, FakeTrainer, a_record, append, epoch, hello, start, until

QUIET_S = 0.5


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, with a short path; and nobody else's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="cbw", dir="/tmp"))
    for module in ("endpoint", "sources"):
        monkeypatch.setattr(f"cbmon.{module}.runtime_folders", lambda: [folder / "cbmon"])
    monkeypatch.setattr("tests.fake_trainer.runtime_folders", lambda: [folder / "cbmon"])
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


class Watching:
    """A follower with its wires, folded in a thread as the screen does."""

    def __init__(self, *paths: str | Path, poll: bool = False) -> None:
        self.wires = Wires()
        self.follower = Follower(
            [str(path) for path in paths], poll=poll, wires=self.wires, now=lambda: NOON + 101
        )
        self.runs: dict[str, Run] = {}
        self.batches = 0
        self.progress: list[Progress] = []
        self.failure: Exception | None = None
        self._take(None)
        self.follower.start()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        try:
            while not self.follower.is_stopped:
                self._take(self.follower.wait())
        except Exception as error:  # noqa: BLE001  # looked at in the end
            self.failure = error

    def _take(self, changed: set[Path] | None) -> None:
        for log, events in self.follower.read(changed):
            self.batches += 1
            for event in events:
                fold(self.runs.setdefault(log.name, Run()), event)
                if isinstance(event, Progress):
                    self.progress.append(event)

    def run(self, name: str = "run1") -> Run:
        return self.runs.setdefault(name, Run())

    def step(self, name: str = "run1") -> int | None:
        progress = self.run(name).progress
        return progress.step if progress else None


@pytest.fixture
def watching() -> Iterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def make(*paths: str | Path, **options: Any) -> Watching:
        made.append(Watching(*paths, **options))
        return made[-1]

    yield make
    for each in made:
        each.follower.stop()
        assert each.failure is None


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path


def look(epoch: int, step: int, at: float = NOON + 100, **fields: Any) -> Progress:
    return Progress(epoch=epoch, step=step, time=at, **({"steps": 100} | fields))


Make = Callable[..., Any]


# --- of a record --------------------------------------------------------------------------------------------


def test_the_looks_of_a_live_record_come_into_the_same_fold(
    logs: Path, trainers: Make, watching: Make
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello())
    watched = watching(logs)
    until(lambda: trainer.attached)
    assert trainer.attached[0].run_id == "r"
    assert trainer.attached[0].role == "watch"
    assert str(os.getpid()) in trainer.attached[0].who
    trainer.send(look(1, 10, metrics={"loss": 0.25}, steps_per_second=52.0))
    until(lambda: watched.step() == 10)
    assert watched.run().current.epochs.tolist() == [0]
    append(record, epoch(1, at=NOON + 120))
    until(lambda: len(watched.run().current.epochs) == 2)
    assert watched.run().progress is None
    trainer.send(look(1, 99, at=NOON + 119))  # it was on its way while the epoch ended
    trainer.send(look(2, 5, at=NOON + 121))
    until(lambda: watched.step() == 5)
    assert 99 not in [each.step for each in watched.progress]


def test_a_look_that_came_before_the_end_of_the_epoch_before_is_told_behind_it(
    logs: Path, trainers: Make, watching: Make
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello())
    watched = watching(logs)
    until(lambda: trainer.attached)
    trainer.send(look(2, 7))
    until(lambda: watched.step() == 7)
    append(record, epoch(1))
    until(lambda: len(watched.run().current.epochs) == 2)
    assert watched.step() == 7


def test_of_a_record_nothing_but_looks_is_taken_over_the_wire(
    logs: Path, trainers: Make, watching: Make
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello(), first=(epoch(7), RunEnded(how="failed"), look(1, 3)))
    watched = watching(logs)
    until(lambda: watched.step() == 3)
    assert watched.run().current.epochs.tolist() == [0]
    assert status(watched.run()) is not Status.FAILED
    assert trainer.connections == 1


def test_a_socket_that_comes_after_the_record_is_found(logs: Path, trainers: Make, watching: Make) -> None:
    record = a_record(logs / "run1.jsonl", start())
    watched = watching(logs)
    time.sleep(0.2)
    trainers(record, greeting=hello(), first=(look(0, 3),))
    until(lambda: watched.step() == 3)


def test_the_next_fit_in_the_same_record_has_a_wire_of_its_own(
    logs: Path, trainers: Make, watching: Make
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    first = trainers(record, greeting=hello(), first=(look(1, 3),))
    watched = watching(logs)
    until(lambda: watched.step() == 3)
    append(record, RunEnded(how="finished", time=NOON + 130))
    first.end(words="the fit has ended")
    until(lambda: watched.run().current.ended)
    append(record, start(at=NOON + 140))
    trainers(record, greeting=hello(started=NOON + 140), first=(look(0, 4, at=NOON + 141),))
    until(lambda: watched.step() == 4)
    assert len(watched.run().attempts) == 2


def test_looks_of_another_fit_than_the_record_s_latest_are_left_out(
    logs: Path, trainers: Make, watching: Make
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello(started=NOON + 500), first=(look(1, 3),))
    watched = watching(logs)
    until(lambda: trainer.attached)
    time.sleep(QUIET_S)
    assert watched.step() is None
    append(record, start(at=NOON + 500))
    until(lambda: watched.step() == 3)  # the file has come up to it


def test_a_csv_of_monitor_s_has_a_wire_once_it_grows(logs: Path, trainers: Make, watching: Make) -> None:
    record = logs / "run1.csv"
    record.write_text(f"epoch,loss,cbmon_time\n0,0.5,{NOON}\n")
    watched = watching(logs)
    trainers(record, greeting=hello(), first=(look(2, 3, at=NOON + 70),))
    with record.open("a") as file:
        file.write(f"1,0.25,{NOON + 60}\n")
    until(lambda: watched.step() == 3)
    with record.open("a") as file:
        file.write(f"2,0.25,{NOON + 99}\n")
    until(lambda: len(watched.run().current.epochs) == 3)
    assert watched.step() is None  # of an epoch that was over when it was read


@pytest.mark.parametrize(
    "process",
    [
        Process(host="elsewhere", boot_id="b", pid_namespace="p", pid=1, start=1),
        this_process().__class__(host="elsewhere", pid=os.getpid()),
    ],
)
def test_nothing_is_tried_for_a_process_elsewhere(
    logs: Path, trainers: Make, watching: Make, process: Process
) -> None:
    record = a_record(logs / "run1.jsonl", start(process=process))
    trainer = trainers(record, greeting=hello())
    watched = watching(logs)
    time.sleep(QUIET_S)
    assert trainer.attached == []
    assert watched.wires._thread is None


def test_a_thousand_records_without_a_process_cost_nothing(logs: Path, watching: Make) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    dead = Process(
        **{**{f: getattr(this_process(), f) for f in this_process().__struct_fields__}, "pid": gone.pid}
    )
    for number in range(1000):
        a_record(logs / f"run{number}.jsonl", start(process=dead), epoch(0))
    (logs / "keras.csv").write_text("epoch,loss\n0,1\n1,2\n")
    watched = watching(logs)
    assert watched.wires._thread is None
    assert watched.wires._links == {}


# --- what may be wrong at the other end ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting",
    [
        hello(run_id="another"),
        hello(replays=True),
        b"\x00\xff garbage\n",
        b"[1, 2]\n",
        b'{"frame":"hello","version":"x"}\n',
        b"x" * (2**20 + 1),
        encode_frame(Answer(id=1, done=True, words="")),
        encode_line(look(1, 3)),
        b"",
    ],
)
def test_what_does_not_say_hello_properly_is_no_wire(
    logs: Path, trainers: Make, watching: Make, monkeypatch: pytest.MonkeyPatch, greeting: Any
) -> None:
    monkeypatch.setattr("cbmon.wire.HELLO_S", 0.2)
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=greeting)
    watched = watching(logs)
    until(lambda: trainer.connections)
    until(lambda: watched.wires._links[record].socket is None and watched.wires._links[record].failures)
    append(record, epoch(1))
    until(lambda: len(watched.run().current.epochs) == 2)
    assert trainer.attached == []
    assert trainer.connections == 1  # and it is left in peace for a while
    assert watched.wires.why_not(record)


def test_a_trainer_that_says_nothing_is_given_up(
    logs: Path, trainers: Make, watching: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmon.wire.HELLO_S", 0.1)
    record = a_record(logs / "run1.jsonl", start())
    trainers(record, greeting=None)
    watched = watching(logs)
    until(lambda: watched.wires.why_not(record) == "it did not say hello")
    assert watched.wires.ask(record, "stop", lambda answer: None) == "it did not say hello"


@pytest.mark.parametrize(
    "line", [b"\x1b[31m\n", b"{}\n", b'{"frame":"answer","id":"x"}\n', b"y" * (2**20 + 1)]
)
def test_garbage_ends_the_connection_and_nothing_else(
    logs: Path, trainers: Make, watching: Make, line: bytes
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello(), first=(look(1, 3),))
    watched = watching(logs)
    until(lambda: watched.step() == 3)
    with suppress(OSError):  # it hangs up in the middle of a long line
        trainer.send(line)
    until(lambda: not watched.wires.is_there(record))
    append(record, epoch(1))
    until(lambda: len(watched.run().current.epochs) == 2)


def test_what_only_a_newer_cbmon_sends_is_ignored(logs: Path, trainers: Make, watching: Make) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello())
    watched = watching(logs)
    until(lambda: trainer.attached)
    trainer.send(b'{"frame":"gpu","load":3}\n', b'{"event":"brain_wave"}\n', look(1, 8))
    until(lambda: watched.step() == 8)


def test_a_trainer_that_is_killed_while_attached_is_crashed_at_once(
    logs: Path, watching: Make, runtime: Path
) -> None:
    record = logs / "run1.jsonl"
    script = f"""
import sys, time, threading
sys.path.insert(0, {str(Path.cwd())!r})
import tests.fake_trainer as fake
from pathlib import Path
fake.runtime_folders = lambda: [Path({str(runtime)!r})]
record = fake.a_record(Path({str(record)!r}), fake.start(), fake.epoch(0))
from cbmon.events import Progress
fake.FakeTrainer(record, greeting=fake.hello(), first=(Progress(epoch=1, step=3, time=fake.NOON + 100),))
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout
        assert trainer.stdout.readline()
        watched = watching(logs)
        until(lambda: watched.step() == 3)
        began = time.monotonic()
        trainer.kill()
        trainer.wait()
        until(lambda: status(watched.run()) is Status.CRASHED)
        assert time.monotonic() - began < 3.0  # not only when processes are looked at again


def test_a_flood_of_looks_is_merged(logs: Path, trainers: Make, watching: Make) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello())
    watched = watching(logs)
    until(lambda: trainer.attached)
    before = watched.batches
    lines = b"".join(encode_line(look(1, step)) for step in range(20_000))
    trainer.send(lines)
    until(lambda: watched.step() == 19_999)
    assert watched.batches - before < 2_000
    assert watched.wires._links[record].events == []


def test_an_attached_wire_wakes_nobody_while_nothing_comes(
    logs: Path, trainers: Make, watching: Make
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainers(record, greeting=hello(), first=(look(1, 3),))
    watched = watching(logs)
    until(lambda: watched.step() == 3)
    selects: list[object] = []
    selector = watched.wires._selector
    select = selector.select
    selector.select = lambda timeout=None: (selects.append(timeout), select(timeout))[1]
    watched.wires._wake()
    until(lambda: selects)
    time.sleep(QUIET_S)
    assert selects == [None]


def test_what_goes_wrong_here_costs_one_wire_and_not_the_others(
    logs: Path, trainers: Make, watching: Make
) -> None:
    records = [a_record(logs / f"run{number}.jsonl", start(), epoch(0)) for number in (1, 2)]
    both = [trainers(record, greeting=hello()) for record in records]
    watched = watching(logs)
    until(lambda: all(map(watched.wires.is_there, records)))
    watched.wires.ask(records[0], "stop", lambda answer: 1 / 0)
    until(lambda: "ZeroDivisionError" in watched.wires.why_not(records[0]))
    both[1].send(look(1, 8))
    until(lambda: watched.step("run2") == 8)


# --- a run without a file -----------------------------------------------------------------------------------


def a_live_run(runtime: Path, name: str = "live-12.sock") -> Path:
    runtime.mkdir(mode=0o700, exist_ok=True)
    return runtime / name


@pytest.mark.parametrize("is_bare", [True, False])
def test_a_run_without_a_file_is_what_comes_over_its_socket(
    runtime: Path, trainers: Make, watching: Make, is_bare: bool
) -> None:
    path = a_live_run(runtime)
    events = (start(), *(epoch(number) for number in range(5)), look(5, 3))
    trainer = trainers(at=path, greeting=hello(name="live-12.sock", replays=True), first=events)
    watched = watching("unix://" if is_bare else f"unix://{path}")
    until(lambda: watched.step("live-12") == 3)
    run = watched.run("live-12")
    assert run.current.epochs.tolist() == [0, 1, 2, 3, 4]
    assert status(run) is Status.RUNNING
    trainer.send(epoch(5), RunEnded(how="finished", time=NOON + 99))
    trainer.end(words="the fit has ended")
    until(lambda: status(run) is Status.FINISHED)


def test_a_run_without_a_file_that_comes_later_is_seen_at_once(
    runtime: Path, trainers: Make, watching: Make
) -> None:
    path = a_live_run(runtime)
    watched = watching(f"unix://{path}")
    assert [skip.is_missing for skip in watched.follower.skipped] == [True]
    trainers(at=path, greeting=hello(name="live-12.sock", replays=True), first=(start(), epoch(0)))
    until(lambda: len(watched.run("live-12").current.epochs) == 1)
    assert watched.follower.skipped == []


def test_two_of_one_name_are_told_apart(runtime: Path, trainers: Make, watching: Make) -> None:
    for number in (1, 2):
        at = a_live_run(runtime, f"live-{number}.sock")
        trainers(at=at, greeting=hello(name="live", replays=True), first=(start(), epoch(number)))
    watched = watching("unix://")
    until(lambda: sum(len(run.current.epochs) for run in watched.runs.values()) == 2)
    assert len(watched.runs) == 2
    assert "live" in watched.runs


def test_each_connection_is_a_fresh_read(runtime: Path, trainers: Make, watching: Make) -> None:
    path = a_live_run(runtime)
    greeting = hello(name="live-12.sock", replays=True)
    first = trainers(at=path, greeting=greeting, first=(start(), epoch(0), RunEnded(how="finished")))
    watched = watching("unix://")
    until(lambda: watched.run("live-12").current.ended)
    first.end(words="the fit has ended")
    until(lambda: not watched.wires.is_there(Path(f"unix://{path}")))
    second = (start(), epoch(0), RunEnded(how="finished"), start(at=NOON + 9), epoch(0))
    trainers(at=path, greeting=hello(name="live-12.sock", replays=True, started=NOON + 9), first=second)
    until(lambda: len(watched.run("live-12").attempts) == 2)
    assert len(watched.run("live-12").attempts[0].epochs) == 1


@pytest.mark.parametrize(("is_dead", "state"), [(True, Status.CRASHED), (False, Status.GONE)])
def test_one_that_ends_without_a_goodbye_is_not_said_to_be_finished(
    runtime: Path, trainers: Make, watching: Make, is_dead: bool, state: Status
) -> None:
    process = this_process()
    if is_dead:
        gone = subprocess.Popen([sys.executable, "-c", "pass"])
        gone.wait()
        process = Process(
            **{f: getattr(process, f) for f in process.__struct_fields__ if f != "pid"}, pid=gone.pid
        )
    path = a_live_run(runtime)
    greeting = hello(name="live-12.sock", replays=True, process=process)
    trainer = trainers(at=path, greeting=greeting, first=(start(process=process), epoch(0)))
    watched = watching("unix://")
    until(lambda: len(watched.run("live-12").current.epochs) == 1)
    trainer.end()
    until(lambda: status(watched.run("live-12")) is state)


def test_a_socket_that_a_killed_run_left_is_no_run(runtime: Path, trainers: Make, watching: Make) -> None:
    path = a_live_run(runtime)
    trainers(at=path, greeting=hello(replays=True)).end()
    watched = watching("unix://")
    key = Path(f"unix://{path}")
    until(lambda: watched.wires.has_settled(key))
    assert watched.follower.logs == {}
    assert watched.follower.skipped == []
    named = watching(f"unix://{path}")
    until(lambda: named.follower.skipped)
    assert "refused" in named.follower.skipped[0].reason


def test_the_socket_of_a_recorded_run_says_to_watch_the_record(
    runtime: Path, trainers: Make, watching: Make
) -> None:
    path = a_live_run(runtime, "x.sock")
    trainers(at=path, greeting=hello())
    watched = watching(f"unix://{path}")
    until(lambda: watched.wires.why_not(Path(f"unix://{path}")).endswith("watch that"))


def test_what_the_trainer_keeps_no_more_is_said(runtime: Path, trainers: Make, watching: Make) -> None:
    path = a_live_run(runtime)
    trainer = trainers(at=path, greeting=hello(name="live-12.sock", replays=True), first=(start(),))
    watched = watching("unix://")
    until(lambda: watched.run("live-12").current.started)
    trainer.send(encode_frame(Dropped(events=12, progress=3)), epoch(20))
    until(lambda: len(watched.run("live-12").current.epochs) == 1)
    assert "the oldest 12 events" in watched.run("live-12").warnings[0].reason


def test_events_beyond_the_bound_wait_in_the_trainer(
    runtime: Path, trainers: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmon.wire.PENDING_MAX", 10_000)
    path, key = a_live_run(runtime), Path("unix://x")
    many = tuple(epoch(number) for number in range(20_000))
    trainers(at=path, greeting=hello(replays=True), first=(start(), *many))
    wires = Wires()
    wires.follow(key, at=path)
    until(lambda: wires._links[key].is_paused)
    time.sleep(QUIET_S)
    assert wires._links[key].size < 10_000 + 2 * (1 << 16)
    found: list[Any] = []

    def is_all() -> bool:
        found.extend(wires.take(key).events)
        return len(found) == 1 + 1 + len(many)

    until(is_all)
    wires.stop()
    assert isinstance(found[0], RecordReplaced)
    assert [each.epochs[0] for each in found if isinstance(each, EpochsEnded)] == list(range(20_000))


# --- requests -----------------------------------------------------------------------------------------------


def test_a_request_is_answered_by_its_number(logs: Path, trainers: Make, watching: Make) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello())
    watched = watching(logs)
    until(lambda: watched.wires.is_there(record))
    answers: list[Answer] = []
    for what in ("stop", "save"):
        assert watched.wires.ask(record, what, answers.append, path="/x.keras") == ""
    until(lambda: len(answers) == 2)
    assert [each.words for each in answers] == ["stop is done", "save is done"]
    assert [each.id for each in trainer.asked] == [1, 2]
    assert trainer.asked[1].path == "/x.keras"


def test_who_asked_is_told_when_the_training_ends_before_it_answers(
    logs: Path, trainers: Make, watching: Make
) -> None:
    record = a_record(logs / "run1.jsonl", start(), epoch(0))
    trainer = trainers(record, greeting=hello(), answer=lambda ask: None)
    watched = watching(logs)
    until(lambda: watched.wires.is_there(record))
    answers: list[Answer] = []
    watched.wires.ask(record, "lr", answers.append, value=0.1)
    until(lambda: trainer.asked)
    trainer.end(words="the fit has ended")
    until(lambda: answers)
    assert (answers[0].done, answers[0].words) == (False, "no answer came: the fit has ended")
    until(lambda: watched.wires.ask(record, "stop", answers.append))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", (3e-4, None)),
        (" 1e9 ", (1e9, None)),
        ("x0.5", (None, 0.5)),
        ("×2", (None, 2.0)),
        ("* .1", (None, 0.1)),
    ],
)
def test_a_rate_or_a_factor_is_read(text: str, value: tuple[float | None, float | None]) -> None:
    assert read_rate(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "fast", "0", "-1", "-0.0", "nan", "inf", "-inf", "1e39", "x0", "x-1", "xnan", "1e999", "0.1x"],
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadCall, match="no learning rate: give one above 0") as refused:
        read_rate(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["a.keras", "~/a.weights.h5", "/x/../a.b.keras", "ä b.keras"])
def test_a_file_to_save_to_becomes_an_absolute_path(text: str) -> None:
    assert read_target(text) == os.path.abspath(os.path.expanduser(text))


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("foo.h5", "foo.keras"),
        ("foo", "foo.keras"),
        ("models/", "models.keras"),
        ("", "model.keras"),
        ("foo.KERAS", "foo.keras"),
        ("foo.weights.h5 ", "foo.weights.keras"),
        ("a.keras/", "a.keras"),
    ],
)
def test_a_file_that_keras_would_not_write_is_refused_by_its_ending(text: str, instead: str) -> None:
    with pytest.raises(BadCall) as refused:
        read_target(text)
    words = str(refused.value)
    assert words.startswith(f"save {text!r}: the name has to end in .keras")
    assert words.endswith(f": {instead}")
    assert ".weights.h5" in words
    assert "absolute" not in words


@pytest.mark.parametrize(
    ("words", "old", "new", "told"),
    [
        ("learning rate 0.005 → 0.003", 0.005, 0.003, "learning rate 5e-3 → 3e-3"),
        (
            "learning rate 0.1 → 0.01; ReduceLROnPlateau goes on from it; x",
            0.1, 0.01,
            "learning rate 0.1 → 0.01; ReduceLROnPlateau goes on from it; x",
        ),
        ("learning rate 0.1 → 0.1, 1 → 2", None, None, "learning rate 0.1 → 0.1, 1 → 2"),
        ("learning rate 0.001234 → 0.001233", 0.001234, 0.0012334, "learning rate 0.001234 → 0.001233"),
        ("in words of a later version", 0.1, 0.2, "in words of a later version"),
        ("saved a.keras", None, None, "saved a.keras"),
    ],
)  # fmt: skip
def test_an_answer_has_its_rates_as_everything_else_has_them(
    words: str, old: float | None, new: float | None, told: str
) -> None:
    assert answer_words(Answer(id=1, done=True, words=words, old=old, new=new)) == told


# --- one question -------------------------------------------------------------------------------------------


def test_a_trainer_that_says_nothing_is_silent_and_known_by_its_process(
    tmp_path: Path, trainers: Any
) -> None:
    trainer = trainers(tmp_path / "run1.jsonl", greeting=None)
    began = time.monotonic()
    with pytest.raises(Silent) as silent:
        Line(trainer.path, 0.2)
    assert silent.value.pid in (os.getpid(), None if sys.platform != "linux" else os.getpid())
    assert 0.2 <= time.monotonic() - began < 10


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses like nobody")
def test_before_a_full_door_one_waits(tmp_path: Path, runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    path = runtime / "full.sock"
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as first:
        door.bind(str(path))
        door.listen(0)
        first.connect(str(path))
        with pytest.raises(Silent):
            Line(path, 0.1)

        def open_it() -> None:
            time.sleep(0.3)
            door.accept()[0].close()
            with door.accept()[0] as inside:
                inside.sendall(encode_frame(hello()))
                inside.recv(1)

        opened = threading.Thread(target=open_it)
        opened.start()
        line = Line(path, PATIENCE_S)
        line.close()
        opened.join()
        assert line.hello == hello()
