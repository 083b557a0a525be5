"""The live wire: what watchers see of a running fit, and that no fault of theirs or of the socket's reaches it."""

import contextlib
import errno
import gc
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbmon import endpoint
from cbmon.callbacks import Monitor
from cbmon.callbacks import fit as fit_module
from cbmon.callbacks import wire as wire_module
from cbmon.callbacks.fit import Look, Steps
from cbmon.callbacks.wire import History, Wire
from cbmon.endpoint import (
    ASK_MAX,
    FRAME_MAX,
    Answer,
    Ask,
    Attach,
    Dropped,
    FromTrainer,
    Goodbye,
    Hello,
    Lines,
    connect,
    decode_from_trainer,
    encode_frame,
    live_sockets,
    own_folder,
    socket_paths,
    this_process,
)
from cbmon.events import EpochsEnded, Progress, RecordedEvent, RunEnded, RunStarted
from tests.test_monitor import DRIVER, begin, drive, events, kinds, python, run_epoch, wait_for
from tests.test_monitor import keras as keras  # a fixture
from tests.test_monitor_faults import CHILD, WHOLE, open_files, start
from tests.test_monitor_faults import before as before  # fixtures
from tests.test_monitor_faults import forked_children as forked_children
from tests.test_monitor_faults import said as said
from tests.test_monitor_faults import unharmed as unharmed

Received = FromTrainer | RecordedEvent


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runtime folder of the test's own, with a short name."""
    tmp_path_factory.getbasetemp()  # which asks where temporary folders are: before that is another place
    with tempfile.TemporaryDirectory(prefix="cb") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setattr(endpoint, "_COMMON", f"{folder}/tmp")
        os.mkdir(f"{folder}/tmp")
        yield Path(folder)


def socket_of(record: Path) -> Path:
    """Where a run listens, once it does; a run without a file is named by its socket."""
    found: list[Path] = []

    def listens() -> bool:
        for path in [record] if record.suffix == ".sock" else socket_paths(record):
            with contextlib.suppress(endpoint.NoWire):
                connect(path).close()
                found.append(path)
        return bool(found)

    wait_for(listens)
    return found[0]


class Client:
    """A watcher that waits for what it is to see, for ten seconds at most."""

    def __init__(self, path: Path, **attach: Any) -> None:
        self.socket = connect(path)
        self.socket.settimeout(10)
        self.lines = Lines(FRAME_MAX)
        self.seen: list[Received] = []
        self.waiting: list[Received] = []
        if attach.pop("attach", True):
            self.send(Attach(**{"who": "ana@lab:7"} | attach))

    def send(self, *frames: Attach | Ask) -> None:
        self.socket.sendall(b"".join(map(encode_frame, frames)))

    def next(self) -> Received | None:
        """What comes next; None at the end."""
        while not self.waiting:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.waiting += [each for line in self.lines.feed(data) if (each := decode_from_trainer(line))]
        self.seen.append(self.waiting.pop(0))
        return self.seen[-1]

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        while (event := self.next()) is not None:
            if wanted(event):
                return event
        raise AssertionError(f"the end came first: {self.seen}")

    def hello(self) -> Hello:
        found = self.until(lambda _: True)
        assert isinstance(found, Hello)
        return found

    def rest(self) -> list[Received]:
        """All that comes to the end."""
        found = []
        while (event := self.next()) is not None:
            found.append(event)
        return found

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    """Connect to a record's run, once it listens."""
    clients: list[Client] = []

    def attach(record: Path, **options: Any) -> Client:
        clients.append(Client(socket_of(record), **options))
        return clients[-1]

    yield attach
    for each in clients:
        each.close()


def is_look(event: object) -> bool:
    return isinstance(event, Progress)


def look_at(step: int) -> Callable[[object], bool]:
    return lambda event: isinstance(event, Progress) and event.step == step


def kind_count(client: Client, kind: type) -> int:
    return sum(isinstance(event, kind) for event in client.seen)


def has_thread(monitor: Monitor) -> bool:
    assert monitor._recorder is not None
    return monitor._recorder._thread.is_alive()


def wire_of(monitor: Monitor) -> Wire:
    assert monitor._recorder is not None
    assert monitor._recorder._wire is not None
    return monitor._recorder._wire


def step(monitor: Monitor, batch: int, **logs: float) -> None:
    monitor.on_train_batch_begin(batch, {})
    monitor.on_train_batch_end(batch, {"loss": 1.0} | logs)


def begin_endless(monitor: Monitor) -> None:
    """A fit whose epochs have any number of steps."""
    monitor.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.5), stop_training=False))
    monitor.set_params({"epochs": 3, "steps": None, "verbose": 0})
    monitor.on_train_begin({})


# What is seen.


def test_a_watcher_sees_the_progress_within_the_epoch(tmp_path: Path, client: Any) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin(monitor)
    watcher = client(path)
    hello = watcher.hello()
    before = time.time()
    monitor.on_epoch_begin(0)
    first = watcher.until(is_look)
    assert (first.epoch, first.step, first.steps, first.phase, first.metrics) == (0, 0, 7, "train", {})
    assert before <= first.begun <= time.time()
    for batch in range(3):
        step(monitor, batch, accuracy=0.5)
        look = watcher.until(is_look)
        assert (look.step, look.metrics) == (batch + 1, {"loss": 1.0, "accuracy": 0.5})
    assert look.step_seconds > 0
    assert look.steps_per_second > 0
    assert look.learning_rate == 0.5
    monitor.on_test_begin()
    monitor.on_test_batch_end(0, {"loss": 2.0})
    look = watcher.until(lambda event: is_look(event) and event.step == 1)
    assert (look.phase, look.metrics) == ("validation", {"loss": 2.0})
    monitor.on_test_end()
    monitor.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    monitor.on_train_end()
    rest = watcher.rest()
    assert not [event for event in rest if is_look(event) and event.step > 1]
    assert rest[-1] == Goodbye(words="the fit has ended")
    (started,) = [event for event in events(path) if isinstance(event, RunStarted)]
    assert (hello.run_id, hello.started, hello.name) == (started.run_id, started.time, "run.jsonl")
    assert (hello.process, hello.control, hello.replays) == (this_process(), True, False)
    assert kinds(path) == "se."  # progress of short epochs is not for the disk


def test_who_comes_late_sees_at_once_how_far_the_epoch_is_and_nothing_twice(
    tmp_path: Path, client: Any
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin(monitor)
    monitor.on_epoch_begin(4)
    step(monitor, 5)
    first = client(path)
    assert first.until(is_look).step == 6
    second = client(path)
    assert second.until(is_look).step == 6
    step(monitor, 6)
    assert second.until(is_look).step == 7
    monitor.on_train_end()
    assert [event.step for event in (*first.rest(), *second.rest()) if is_look(event)] in ([7], [6, 7])


def test_who_only_asks_gets_no_progress(tmp_path: Path, client: Any) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin(monitor)
    asker, watcher = client(path, role="ctl"), client(path)
    monitor.on_epoch_begin(0)
    step(monitor, 0)
    watcher.until(is_look)
    monitor.on_train_end()
    assert [type(event) for event in asker.rest()] == [Hello, Goodbye]


def test_the_socket_is_the_owners_alone_and_goes_with_the_fit(tmp_path: Path, runtime: Path) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    there = socket_of(path)
    assert there.parent == runtime / "cbmon"
    assert stat.S_IMODE(there.stat().st_mode) == 0o600
    assert stat.S_IMODE(there.parent.stat().st_mode) == 0o700
    assert not os.get_inheritable(wire_of(monitor)._listener.fileno())  # type: ignore[union-attr]
    monitor.on_train_end()
    assert list(there.parent.iterdir()) == []
    assert not has_thread(monitor)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_a_fit_leaves_nothing_open(tmp_path: Path, client: Any) -> None:
    path = tmp_path / "run.jsonl"
    drive(Monitor(path))
    gc.collect()
    before = len(open_files(os.getpid()))
    monitor = Monitor(path)
    for _ in range(3):
        begin(monitor)
        client(path).hello()
        monitor.on_train_end()
    theirs = 3
    assert len(open_files(os.getpid())) == before + theirs


def test_a_second_fit_listens_anew_and_is_the_next_attempt_of_the_same_run(
    tmp_path: Path, client: Any
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    hellos = []
    for _ in range(2):
        begin(monitor)
        hellos.append(client(path).hello())
        monitor.on_train_end()
    assert hellos[0].run_id == hellos[1].run_id
    assert hellos[0].started < hellos[1].started


def test_a_link_to_the_record_leads_to_the_same_socket(tmp_path: Path, client: Any) -> None:
    path, link = tmp_path / "run.jsonl", tmp_path / "latest.jsonl"
    link.symlink_to(path)
    monitor = Monitor(path)
    begin(monitor)
    assert client(link).hello().name == "run.jsonl"
    monitor.on_train_end()


@pytest.mark.parametrize("hertz", [0, -1, 51, float("nan"), float("inf")])
def test_an_odd_frequency_is_refused(hertz: float) -> None:
    with pytest.raises(ValueError, match="live_hz"):
        Monitor("run.jsonl", live_hz=hertz)


class Clock:
    """Stands in for the module `time`: both clocks are at `now`."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    perf_counter = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fit_module, "time", clock)
    return clock


class Looked:
    """A phase of an epoch whose steps end when a test says so, and who looks at it."""

    def __init__(self, clock: Clock, every_s: float = 0.2) -> None:
        self.clock, self.look, self.steps = clock, Look(every_s), Steps()
        assert self.look.progress() is None

    def step(self, now: float, done: int) -> None:
        self.clock.now = now
        self.steps.ended(done - 1, now)
        self.look.now = ("train", self.steps, done, None, {})

    def at(self, now: float, done: int | None = None) -> Progress:
        if done is not None:
            self.step(now, done)
        self.clock.now = now
        progress = self.look.progress()
        assert progress is not None
        return progress


def test_steps_a_second_are_those_of_the_last_looks(clock: Clock) -> None:
    looked = Looked(clock)
    rates = [looked.at(now, done).steps_per_second for now, done in [(1.0, 1), (2.0, 10), (3.0, 30)]]
    assert rates == [None, 9.0, 14.5]
    looked.look.now = ("validation", Steps(), 0, 3, {})
    assert looked.at(3.2).steps_per_second is None


def test_steps_a_second_are_none_of_a_time_in_which_nobody_looked(clock: Clock) -> None:
    looked = Looked(clock)
    looked.at(1.0, 1)
    assert looked.at(2.0, 101).steps_per_second == 100
    for done in range(102, 462):  # an hour at a step in ten seconds
        looked.step(2.0 + (done - 101) * 10, done)
    told = [looked.at(3602.0 + second, 461 + 100 * second).steps_per_second for second in range(1, 4)]
    assert told == [None, 100, 100]


def test_steps_a_second_are_told_of_slow_steps_too_and_at_once_when_they_are_fast_again(
    clock: Clock,
) -> None:
    looked = Looked(clock)
    for tick in range(151):  # a step in five seconds
        told = looked.at(tick / 5, max(1, tick // 25)).steps_per_second
    assert told == pytest.approx(0.2)
    for tick in range(1, 4):
        told = looked.at(30 + tick / 5, 6 + 20 * tick).steps_per_second
    assert told == pytest.approx(100)


@pytest.mark.parametrize("every_s", [0.02, 0.2, 10.0])
def test_steps_a_second_are_told_however_often_somebody_looks(clock: Clock, every_s: float) -> None:
    looked = Looked(clock, every_s)
    for tick in range(20):
        told = looked.at(tick * every_s, 1 + 50 * tick).steps_per_second
    assert told == pytest.approx(50 / every_s)


def test_a_look_is_as_old_as_its_last_step_and_one_that_stands_still_has_no_speed(clock: Clock) -> None:
    looked = Looked(clock)
    clock.now = 5.0
    looked.look.now = ("train", Steps(), 0, None, {})
    assert looked.at(9.0).time == 5.0  # before the first step: since the phase began
    looked.at(10.0, 1)
    assert looked.at(11.0, 101).steps_per_second == 100
    for now, speed in [(12.0, 100), (13.9, 100), (14.1, None), (20.0, None)]:
        look = looked.at(now)
        assert (look.time, look.step, look.steps_per_second) == (11.0, 101, speed)


def test_a_training_that_hangs_looks_so_to_all_whoever_attaches(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "RECENT_S", 0.3)
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin_endless(monitor)
    early = client(path)
    early.hello()
    monitor.on_epoch_begin(0)
    for batch in range(20):
        step(monitor, batch)
        early.until(look_at(batch + 1))
    last = time.time()
    assert early.seen[-1].steps_per_second is not None
    stands = early.until(is_look)
    assert (stands.step, stands.steps_per_second) == (20, None)
    client(path, role="ctl").hello()
    late = client(path).until(is_look)
    assert (late.step, late.steps_per_second) == (20, None)
    for look in (stands, late):
        assert look.time == pytest.approx(last, abs=0.1)
    assert time.time() - last > 0.25
    time.sleep(0.1)  # five looks
    monitor.on_train_end()
    assert list(map(type, early.rest())) == [Goodbye]


def test_a_total_that_was_learned_is_forgotten_when_an_epoch_is_longer(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    begin_endless(monitor)
    told = {}
    for epoch, count in enumerate([10, 50, 50]):
        monitor.on_epoch_begin(epoch)
        for batch in range(count):
            step(monitor, batch)
            assert monitor._fit is not None
            look = monitor._fit._look.progress()
            assert look is not None
            told[epoch, batch + 1] = (look.step, look.steps)
        monitor.on_epoch_end(epoch, {"loss": 1.0})
    monitor.on_train_end()
    assert told[0, 10] == (10, None)
    assert told[1, 10] == (10, 10)
    assert told[1, 11] == (11, None)
    assert told[1, 50] == (50, None)
    assert told[2, 11] == (11, 50)


def test_a_planned_total_stands_where_several_steps_are_one(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor)
    monitor.on_epoch_begin(0)
    step(monitor, 7)  # of two at once the second is none
    assert monitor._fit is not None
    look = monitor._fit._look.progress()
    assert look is not None
    assert (look.step, look.steps) == (7, 7)
    monitor.on_train_end()


def test_a_loop_of_ones_own_may_count_in_numbers_of_numpy_or_tensors(
    keras: Any, tmp_path: Path, client: Any
) -> None:
    np, tf = pytest.importorskip("numpy"), pytest.importorskip("tensorflow")
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin(monitor)
    watcher = client(path)
    for epoch in [*np.arange(1), tf.constant(1)]:
        monitor.on_epoch_begin(epoch)
        for batch in [*np.arange(2), *tf.range(2, 4)]:
            step(monitor, batch)
            watcher.until(look_at(int(batch) + 1))
        monitor.on_test_begin()
        for batch in np.arange(2):
            monitor.on_test_batch_end(batch, {"loss": 1.0})
        watcher.until(lambda event: is_look(event) and event.phase == "validation" and event.step == 2)
        monitor.on_test_end()
        monitor.on_epoch_end(epoch, {"loss": 1.0})
    monitor.on_train_end()
    assert kinds(path) == "see."


# A run without a file.


def test_a_run_without_a_file_is_replayed_to_whoever_comes(
    tmp_path: Path, runtime: Path, client: Any
) -> None:
    path = runtime / "run.sock"
    monitor = Monitor(f"unix://{path}", live_hz=50)
    for fit in range(2):
        begin(monitor)
        run_epoch(monitor, 0)
        run_epoch(monitor, 1)
        wait_for(path.exists)
        late = client(path)
        assert late.hello().replays
        while kind_count(late, EpochsEnded) < 2 + 3 * fit:
            late.until(lambda event: isinstance(event, EpochsEnded))
        monitor.on_epoch_begin(2)
        step(monitor, 0)
        late.until(lambda event: is_look(event) and event.step == 1)
        monitor.on_epoch_end(2, {"loss": 0.5})
        monitor.on_train_end()
        late.rest()
        kind = [type(event) for event in late.seen if not is_look(event)]
        attempt = [RunStarted, *[EpochsEnded] * 3, RunEnded]
        assert kind == [Hello, *attempt * (fit + 1), Goodbye]
        assert not path.exists()
    assert list(tmp_path.iterdir()) == []
    assert sorted(each.name for each in runtime.iterdir()) == ["tmp"]


def test_a_run_with_neither_file_nor_path_takes_a_name_and_says_it(
    runtime: Path, client: Any, said: Any
) -> None:
    monitor = Monitor("unix://")
    begin(monitor)

    def live() -> list[Path]:  # others may train on this machine
        return [each for each in live_sockets() if each.parent == runtime / "cbmon"]

    wait_for(lambda: bool(live()))
    (path,) = live()
    run_epoch(monitor, 0)
    assert client(path).hello().replays
    monitor.on_train_end()
    assert said() == f"cbmon: watch this run with: cbmon watch unix://{path}\n"


@pytest.mark.parametrize(
    "path", ["unix://run.sock", "unix:///tmp/", "unix:///tmp/a.csv", "unix:///" + "a" * 107]
)
def test_what_can_be_no_socket_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute path of a socket"):
        Monitor(path)


def test_a_very_long_run_keeps_its_latest_epochs_and_says_how_many_went(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire_module, "HISTORY_MAX", 1000)
    history = History()
    history.add(b"start one\n", is_start=True)
    for epoch in range(500):
        if epoch == 100:
            history.add(b"start two\n", is_start=True)
        history.add(b"epoch %d\n" % epoch, is_start=False)
    assert sum(map(len, history.lines)) <= 1000
    lines, number, missing = history.after(0)
    found = lines.splitlines()
    assert found[0] == b"start two"
    assert found[-1] == b"epoch 499"
    assert missing + len(found) == 502
    assert history.after(number) == (b"", number, 0)
    lines, _, missing = history.after(number - 5)
    assert (len(lines.splitlines()), missing) == (5, 0)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=60), st.integers(0, 60))
def test_a_history_gives_each_line_once_whenever_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, added: list[tuple[bool, int]], asked: int
) -> None:
    monkeypatch.setattr(wire_module, "HISTORY_MAX", 300)
    history, number, count, lost = History(), 0, 0, 0
    for at, (is_start, size) in enumerate(added):
        history.add(b"%d" % (at % 10) * size + b"\n", is_start=is_start)
        if asked and at % asked == 0:
            lines, number, missing = history.after(number)
            count, lost = count + lines.count(b"\n"), lost + missing
    lines, number, missing = history.after(number)
    assert number == len(added)
    assert count + lines.count(b"\n") + lost + missing == len(added)


# Watchers with faults: first by hand.


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"\0\xff\n", "no frame"),
        (b"GET / HTTP/1.1\r\n\r\n", "no frame"),
        (b'{"frame":"ask","id":1,"what":"stop"}\n', "first frame has to be attach"),
        (encode_frame(Attach(run_id="another")), "another run"),
        (encode_frame(Attach()) * 2, "attached twice"),
        (encode_frame(Attach()) + b'{"frame":"ask","id":"one","what":"stop"}\n', "no frame"),
        (b"x" * (ASK_MAX + 1), "more than"),
        (encode_frame(Attach()) + encode_frame(Ask(id=1, what="nothing")) * 200, "too many requests"),
    ],
)
def test_who_sends_garbage_is_told_and_hung_up_on_and_the_others_stay(
    tmp_path: Path, client: Any, sent: bytes, words: str
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin(monitor)
    good, bad = client(path), client(path, attach=False)
    with contextlib.suppress(BrokenPipeError):
        bad.socket.sendall(sent)
    last = [event for event in bad.rest() if isinstance(event, Goodbye)]
    assert words in last[0].words
    monitor.on_epoch_begin(0)
    good.until(is_look)
    monitor.on_train_end()
    assert kinds(path) == "s."


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Monitor, Path]]:
    """One run for many watchers."""
    with tempfile.TemporaryDirectory(prefix="cb") as folder:
        monitor = Monitor(f"unix://{folder}/run.sock", live_hz=50)
        begin(monitor)
        monitor.on_epoch_begin(0)
        yield monitor, socket_of(Path(folder, "run.sock"))
        step(monitor, 0)
        monitor.on_train_end()
        assert monitor._recorder is not None
        assert monitor._recorder._wire is not None  # it never broke


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([encode_frame(Attach()), encode_frame(Ask(id=1, what="stop")), b"\n", b"{"]),
        ),
        max_size=8,
    )
)
def test_whatever_bytes_a_watcher_sends_the_next_one_is_served(
    listening: tuple[Monitor, Path], parts: list[bytes]
) -> None:
    bad = Client(listening[1], attach=False)
    with contextlib.suppress(BrokenPipeError):
        for part in parts:
            bad.socket.sendall(part)
    good = Client(listening[1])
    good.until(is_look)
    for each in (bad, good):
        each.close()


def test_a_frame_that_comes_in_pieces_is_one_frame_and_an_unknown_one_is_ignored(
    tmp_path: Path, client: Any
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin(monitor)
    watcher = client(path, attach=False)
    for byte in b'{"frame":"from the future","x":[{}]}\n' + encode_frame(Attach(who="x")):
        watcher.socket.sendall(bytes([byte]))
    monitor.on_epoch_begin(0)
    watcher.until(is_look)
    watcher.socket.sendall(b'{"frame":"as')  # half a frame, then gone
    watcher.close()
    wait_for(lambda: not wire_of(monitor)._watchers)
    monitor.on_train_end()


def test_who_never_attaches_is_hung_up_on(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "ATTACH_S", 0.05)
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    assert [type(event) for event in client(path, attach=False).rest()] == [Hello]
    monitor.on_train_end()


def test_there_is_a_most_of_watchers(tmp_path: Path, client: Any) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    there = socket_of(path)
    wait_for(lambda: not wire_of(monitor)._watchers)  # that looked
    watchers = [Client(there) for _ in range(wire_module.WATCHERS_MAX)]
    for each in watchers:
        each.hello()
    extra = Client(there)
    assert extra.rest()[1:] == [Goodbye(words="32 watchers are there already")]
    askers = [Client(there, role="ctl") for _ in range(8)]
    for each in askers:
        each.send(Ask(id=1, what="dance"))
        assert not each.until(lambda event: isinstance(event, Answer)).done
    crowd = Client(there, attach=False)
    assert crowd.rest() == [Goodbye(words="40 others are there already")]
    watchers[0].close()
    wait_for(lambda: len(wire_of(monitor)._watchers) < wire_module.CONNECTIONS_MAX)
    client(path).hello()
    monitor.on_epoch_begin(0)
    watchers[1].until(is_look)
    monitor.on_train_end()
    for each in (*watchers, *askers, extra, crowd):
        each.close()


def test_what_a_slow_watcher_misses_is_counted_and_told_and_another_one_misses_nothing(
    tmp_path: Path, client: Any
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin_endless(monitor)
    quick, slow = client(path), client(path)
    assert quick.hello() == slow.hello()
    monitor.on_epoch_begin(0)
    wide = {f"metric {number}": 0.5 for number in range(5000)}

    def missed() -> int:
        return sum(each.missed for each in wire_of(monitor)._watchers)

    batch = 0
    while missed() < 3:
        step(monitor, batch, **wide)
        batch += 1
        quick.until(look_at(batch))
    dropped = slow.until(lambda event: isinstance(event, Dropped))
    assert dropped.progress >= 3
    assert slow.until(is_look).step == batch  # the latest, not an old one
    assert sum(map(is_look, slow.seen)) + dropped.progress == sum(map(is_look, quick.seen))
    monitor.on_train_end()
    assert not [event for event in (*quick.seen, *slow.rest()) if isinstance(event, Dropped)]


def test_a_wire_that_breaks_costs_the_watchers_and_not_the_record(
    tmp_path: Path, client: Any, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    watcher = client(path)
    monkeypatch.setattr(Wire, "_take_a_look", lambda self, now: 1 / 0)
    watcher.rest()
    run_epoch(monitor, 0)
    monitor.on_train_end()
    assert kinds(path) == "se."
    assert said().count("live any more") == 1


# Watchers with faults: other processes, real fits.

WATCHER = """
import os, sys, time
from cbmon.endpoint import *
attach = encode_frame(Attach(who="other"))
wires = [connect(sys.argv[1]) for _ in range(int(sys.argv[2]))]
"""

PEERS = {
    "reads all": (1, "[wire.sendall(attach) for wire in wires]", "while wires[0].recv(4096): pass"),
    "reads nothing": (1, "[wire.sendall(attach) for wire in wires]", ""),
    "is stopped": (1, "[wire.sendall(attach) for wire in wires]", "print(wires[0].recv(1))"),
    "is killed": (1, "[wire.sendall(attach) for wire in wires]", ""),
    "says nothing": (3, "", ""),
    "sends garbage": (1, "wires[0].sendall(os.urandom(9000))", ""),
    "sends a line without end": (1, "wires[0].sendall(b'{' * 60000)", ""),
    "sends half a frame": (1, "wires[0].sendall(attach + attach[:9])", ""),
    "is one of twenty": (20, "[wire.sendall(attach) for wire in wires]", "while wires[0].recv(4096): pass"),
    "leaves at once": (9, "[wire.close() for wire in wires]", ""),
}


@pytest.fixture
def watchers() -> Iterator[Callable[[Path, str], subprocess.Popen[str]]]:
    """Start a watcher of a kind in a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def watch(record: Path, kind: str) -> subprocess.Popen[str]:
        count, first, then = PEERS[kind]
        script = f"{WATCHER}\n{first}\nprint('ready', flush=True)\n{then}\nsys.stdin.read()"
        processes.append(start(script, socket_of(record), count))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline() == "ready\n"
        if kind == "is stopped":
            processes[-1].send_signal(signal.SIGSTOP)
        if kind == "is killed":
            processes[-1].kill()
        return processes[-1]

    yield watch
    for each in processes:
        each.kill()
        with each:
            pass


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("has_file", [True, False])
def test_a_fit_is_the_same_to_the_bit_whatever_a_watcher_does(
    unharmed: Any,
    before: Any,
    said: Any,
    tmp_path: Path,
    runtime: Path,
    watchers: Any,
    kind: str,
    has_file: bool,
) -> None:
    path = tmp_path / "run.jsonl" if has_file else runtime / "run.sock"
    monitor = Monitor(path if has_file else f"unix://{path}", live_hz=50)
    unharmed(before({1: lambda: watchers(path, kind)}), monitor)
    if has_file:
        assert kinds(path) == WHOLE
    else:
        assert not path.exists()
    assert said() == ""


@pytest.mark.parametrize("kind", ["reads nothing", "is stopped", "says nothing"])
def test_who_does_not_read_holds_up_the_end_of_no_fit(tmp_path: Path, watchers: Any, kind: str) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin_endless(monitor)
    watchers(path, kind)
    wait_for(lambda: bool(wire_of(monitor)._watchers))
    monitor.on_epoch_begin(0)
    wide = {f"metric {number}": 0.5 for number in range(20000)}
    if kind != "says nothing":
        batch = 0
        while not wire_of(monitor)._watchers[0].missed:  # its kernel buffer is full
            step(monitor, batch, **wide)
            batch += 1
            time.sleep(0.001)
    begun = time.monotonic()
    monitor.on_train_end()
    assert time.monotonic() - begun < 1
    assert not has_thread(monitor)


def test_a_watcher_that_is_stopped_while_far_more_is_said_than_anything_holds_delays_nothing(
    tmp_path: Path, watchers: Any, client: Any
) -> None:
    """A wide look has 200 KB, the kernel holds about as much: all others have to be left out."""
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin_endless(monitor)
    stopped = client(path)  # stopped: it does not read until the end
    watchers(path, "is stopped")
    wait_for(lambda: sum(each.role == "watch" for each in wire_of(monitor)._watchers) == 2)
    wide = {f"metric {number}": 0.5 for number in range(10_000)}
    took = []

    def hook(batch: int) -> None:
        begun = time.perf_counter()
        step(monitor, batch, **wide)
        took.append(time.perf_counter() - begun)

    monitor.on_epoch_begin(0)
    batch = 0
    while min(each.missed for each in wire_of(monitor)._watchers if each.role == "watch") < 30:
        hook(batch)
        batch += 1
        time.sleep(0.005)
    assert all(len(each.out) + len(each.look) < 2 * FRAME_MAX for each in wire_of(monitor)._watchers)
    begun = time.monotonic()
    dropped = stopped.until(lambda event: isinstance(event, Dropped))
    assert dropped.progress >= 30
    latest = stopped.until(is_look)
    assert latest.step > dropped.progress
    monitor.on_epoch_end(0, {"loss": 1.0})
    monitor.on_train_end()
    assert time.monotonic() - begun < 3
    assert not has_thread(monitor)
    assert sorted(took)[len(took) // 2] < 0.1  # who waited for that watcher would wait for ever
    assert kinds(path) == "se."


def test_a_script_that_gave_sigpipe_its_default_back_outlives_its_watchers(
    tmp_path: Path, watchers: Any
) -> None:
    path = tmp_path / "run.jsonl"
    script = f"""
import signal, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
{DRIVER}
monitor._live_s = 0.001
print("ready", flush=True)
sys.stdin.readline()
begin(monitor)
monitor.on_epoch_begin(1)
for batch in range(10**6):
    monitor.on_train_batch_end(batch, {{"loss": 1.0}})
    if os.path.exists(sys.argv[1] + ".stop"):
        break
    time.sleep(0.0001)
monitor.on_train_end()
print("alive", flush=True)
"""
    with start(script, path) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        first = watchers(path, "reads all")
        first.kill()
        first.wait()
        process.stdin.write("\n")
        process.stdin.flush()
        for _ in range(3):
            wait_for(lambda: kinds(path).count("s") >= 2 if path.exists() else False)
            each = watchers(path, "reads all")
            each.kill()
            each.wait()
        Path(f"{path}.stop").touch()
        assert process.stdout.readline() == "alive\n"


# The socket's file.


def test_a_socket_that_a_killed_run_left_gives_way_and_others_are_swept_up(
    tmp_path: Path, client: Any, runtime: Path
) -> None:
    path = tmp_path / "run.jsonl"
    with start(DRIVER + "print('ready', flush=True)\nsys.stdin.read()", path) as process:
        there = socket_of(path)
        other = start(DRIVER + "print('ready', flush=True)\nsys.stdin.read()", tmp_path / "other.jsonl")
        left = socket_of(tmp_path / "other.jsonl")
        living = Monitor(tmp_path / "living.jsonl")
        begin(living)
        alive = socket_of(tmp_path / "living.jsonl")
        for each in (process, other):
            each.kill()
            each.wait()
        with other:
            pass
    assert there.exists()
    assert left.exists()
    monitor = Monitor(path)
    begin(monitor)
    wait_for(lambda: not left.exists())
    assert client(path).hello().process.pid == os.getpid()
    assert alive.exists()
    living.on_train_end()
    monitor.on_train_end()
    assert list((runtime / "cbmon").iterdir()) == []


def test_sockets_of_killed_runs_are_swept_up_behind_any_number_of_living_ones(tmp_path: Path) -> None:
    folder = own_folder()
    living = []
    for number in range(60):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{folder}/dead{number}.sock")
        living.append(socket.socket(socket.AF_UNIX))
        living[-1].bind(f"{folder}/alive{number}.sock")
        living[-1].listen()
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor)
    socket_of(tmp_path / "run.jsonl")
    names = {each.name for each in folder.iterdir()}
    assert len(names) == 61
    assert not [name for name in names if name.startswith("dead")]
    monitor.on_train_end()
    for each in living:
        each.close()


@pytest.mark.parametrize("plant", ["a link", "a dangling link", "a file", "a folder"])
def test_what_was_planted_in_the_sockets_place_is_neither_followed_nor_removed(
    unharmed: Any, said: Any, tmp_path: Path, plant: str
) -> None:
    path = tmp_path / "run.jsonl"
    there = own_folder() / endpoint.socket_name(path)
    victim = tmp_path / "precious.txt"
    victim.write_text("mine")
    if plant == "a folder":
        there.mkdir()
    elif plant == "a file":
        there.write_text("mine")
    else:
        there.symlink_to(victim if plant == "a link" else tmp_path / "nothing")
    facts = there.lstat()
    unharmed(Monitor(path))
    assert there.lstat() == facts
    assert victim.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()
    assert kinds(path) == WHOLE
    assert said().count("nobody can watch run.jsonl") == 1


@pytest.mark.parametrize("fault", ["a file", "open to others", "a link", "somebody else's"])
def test_a_runtime_folder_that_is_not_safe_is_not_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    folder = runtime / "cbmon"
    if fault == "a file":
        folder.touch()
    elif fault == "a link":
        (runtime / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(runtime / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
        if fault == "open to others":
            folder.chmod(0o755)
        else:
            os.chown(folder, 12345, -1) if os.geteuid() == 0 else pytest.skip("needs root")
    assert own_folder() != folder
    assert folder not in [path.parent for path in socket_paths("run.jsonl")]


def test_without_a_runtime_folder_the_temporary_one_has_the_socket(
    tmp_path: Path, runtime: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(endpoint, "_LOGIN_FOLDERS", str(runtime / "none"))
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    assert socket_of(path).parent == runtime / "tmp" / f"cbmon-{os.geteuid()}"
    client(path).hello()
    monitor.on_train_end()


def test_with_no_folder_at_all_there_is_no_wire_and_it_is_said_once(
    unharmed: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(wire_module, "CHECK_S", 0.001)
    monkeypatch.setattr(endpoint, "runtime_folders", lambda: [tmp_path / "file", tmp_path / "none" / "cbmon"])
    unharmed(Monitor(tmp_path / "run.jsonl"))
    assert kinds(tmp_path / "run.jsonl") == WHOLE
    assert said().count("no folder for a socket") == 1


def test_a_socket_that_is_removed_is_made_again(
    tmp_path: Path, runtime: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "CHECK_S", 0.001)
    monkeypatch.setattr("cbmon.callbacks.recorder.LOOK_S", 0.01)
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path, live_hz=50)
    begin(monitor)
    early = client(path)
    early.hello()
    shutil.rmtree(runtime / "cbmon")
    client(path).hello()
    monitor.on_epoch_begin(0)
    early.until(is_look)  # those who are there stay
    monitor.on_train_end()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc for the new name")
def test_a_record_that_is_moved_takes_its_socket_along_and_leaves_the_name_to_another_run(
    tmp_path: Path, client: Any, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "CHECK_S", 0.001)
    monkeypatch.setattr("cbmon.callbacks.recorder.LOOK_S", 0.01)
    path, moved = tmp_path / "run.jsonl", tmp_path / "old.jsonl"
    first, second = Monitor(path), Monitor(path)
    begin(first)
    socket_of(path)
    path.rename(moved)
    begin(second)
    wait_for(path.exists)
    run_epoch(first, 0)
    assert client(moved).hello().run_id == first._run_id
    assert client(path).hello().run_id == second._run_id
    run_epoch(first, 1)
    run_epoch(second, 0)
    first.on_train_end()
    second.on_train_end()
    assert (kinds(moved), kinds(path)) == ("see.", "se.")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["old.jsonl", "run.jsonl"]
    assert said().count("cbmon:") <= 1  # that the second one finds the first one's socket there


def test_a_path_that_is_too_long_for_a_socket_is_passed_over(
    tmp_path: Path, runtime: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    client(path).hello()
    monitor.on_train_end()


def test_two_runs_in_one_process_have_a_socket_each(tmp_path: Path, client: Any) -> None:
    one, other = Monitor(tmp_path / "one.jsonl"), Monitor(tmp_path / "other.jsonl")
    begin(one)
    begin(other)
    hellos = [client(tmp_path / f"{name}.jsonl").hello() for name in ("one", "other")]
    assert hellos[0].run_id != hellos[1].run_id
    one.on_train_end()
    client(tmp_path / "other.jsonl").hello()
    other.on_train_end()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_two_processes_on_one_path_have_a_socket_each_in_the_end(
    tmp_path: Path, client: Any, said: Any, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"run{suffix}"
    with start(DRIVER + "print('ready', flush=True)\nsys.stdin.read()", path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert client(path).hello().process.pid == process.pid
        wait_for(path.exists)
        monitor = Monitor(path)
        begin(monitor)
        run_epoch(monitor, 0)
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        (second,) = [each for each in tmp_path.iterdir() if each != path]
        assert client(second).hello().process.pid == os.getpid()
        monitor.on_train_end()
        assert client(path).hello().process.pid == process.pid
        process.kill()
    assert said().count("cbmon:") == 1


def test_two_runs_on_one_given_socket_the_second_waits_for_the_first(
    runtime: Path, client: Any, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_module, "CHECK_S", 0.001)
    monkeypatch.setattr("cbmon.callbacks.recorder.LOOK_S", 0.01)
    path = runtime / "run.sock"
    first, second = Monitor(f"unix://{path}"), Monitor(f"unix://{path}")
    begin(first)
    wait_for(path.exists)
    begin(second)
    wait_for(lambda: wire_of(second)._trouble > 2)
    run_id = client(path).hello().run_id
    first.on_train_end()
    wait_for(path.exists)
    assert client(path).hello().run_id != run_id
    second.on_train_end()
    assert said().count("another run listens there") == 1


# Users, files, children.


def test_a_process_of_another_user_gets_no_byte(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    there = socket_of(path)
    monkeypatch.setattr(wire_module, "peer_uid", lambda end: 12345)
    stranger = client(there, attach=False)
    assert stranger.rest() == []
    monkeypatch.setattr(wire_module, "peer_uid", lambda end: None)
    assert client(there, attach=False).rest() == []
    monkeypatch.undo()
    client(there).hello()
    monitor.on_train_end()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux who is there")
def test_a_real_process_of_another_user_is_refused(tmp_path: Path, runtime: Path) -> None:
    path = runtime / "run.sock"
    monitor = Monitor(f"unix://{path}")
    begin(monitor)
    wait_for(path.exists)
    runtime.chmod(0o755)
    path.chmod(0o666)
    script = """
import os, socket, sys
os.setuid(12345)
end = socket.socket(socket.AF_UNIX)
end.connect(sys.argv[1])
print(end.recv(100))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout == "b''\n"
    monitor.on_train_end()


def test_a_process_that_may_open_no_more_files_records_all_the_same(
    unharmed: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socketpair", refuse)
    unharmed(Monitor(tmp_path / "run.jsonl"))
    assert kinds(tmp_path / "run.jsonl") == WHOLE
    assert said().count("Too many open files") == 1


def test_a_door_that_cannot_be_opened_does_not_ring_without_end(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    there = socket_of(path)
    wire = wire_of(monitor)
    listener = wire._listener
    assert listener is not None
    tried: list[int] = []

    def refuse() -> Any:
        tried.append(1)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    wire._listener = SimpleNamespace(accept=refuse, fileno=listener.fileno, close=listener.close)  # type: ignore[assignment]
    wire.wake()
    watcher = client(there)
    wait_for(lambda: bool(tried))
    wire._listener = listener
    watcher.hello()
    assert len(tried) == 1
    monitor.on_train_end()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
@pytest.mark.parametrize("kind", CHILD)
def test_a_child_keeps_no_dead_run_alive_for_its_watchers(
    tmp_path: Path, client: Any, forked_children: list[int], kind: str
) -> None:
    path = tmp_path / "run.jsonl"
    script = f"""
import multiprocessing, os, subprocess, sys, time
{DRIVER}
sys.stdin.readline()
{CHILD[kind]}
print(child, flush=True)
time.sleep(60)
"""
    with start(script, path) as parent:
        watcher = client(path)
        watcher.hello()
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write("\n")
        parent.stdin.flush()
        forked_children.append(int(parent.stdout.readline()))
        there = socket_of(path)
        wait_for(lambda: not [each for each in open_files(forked_children[0]) if "socket:" in each])
        parent.kill()
        parent.wait()
        assert Goodbye not in map(type, watcher.rest())
    os.kill(forked_children[0], 0)  # it lives
    with pytest.raises(endpoint.NoWire, match="refused"):
        connect(there)


FORKS = """
import fcntl, os, random, sys, threading, time
from types import SimpleNamespace
from cbmon.callbacks import Monitor
from cbmon.callbacks import wire
from cbmon.endpoint import own_folder

def begin(name):
    monitor = Monitor(f"{sys.argv[1]}/{name}.jsonl")
    monitor.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.5), stop_training=False))
    monitor.set_params({"epochs": 3, "steps": None})
    monitor.on_train_begin({})
    return monitor

def fork():
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child

def end(child):
    os.kill(child, 9)
    os.waitpid(child, 0)

def held(child):
    found = []
    for each in os.listdir(f"/proc/{child}/fd"):
        try:
            found.append(os.readlink(f"/proc/{child}/fd/{each}"))
        except FileNotFoundError:
            pass
    return [each for each in found if "socket:" in each or each.endswith(".jsonl")]
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_children_forked_while_fits_begin_and_end_hold_nothing(tmp_path: Path) -> None:
    script = (
        FORKS
        + """
random.seed(1)
for number in range(100):
    monitor = begin(number)
    time.sleep(random.random() * 0.004)
    children = [fork()]
    monitor.on_epoch_end(0, {"loss": 1.0})
    ending = threading.Thread(target=monitor.on_train_end)
    ending.start()
    time.sleep(random.random() * 0.002)
    children.append(fork())
    ending.join()
    with wire._alone_in(own_folder()):  # or it is held
        pass
    for child in children:
        kept, deadline = held(child), time.monotonic() + 5
        while kept and time.monotonic() < deadline:  # it lets go right after it was forked
            kept = held(child)
        print(*kept, end="")
        end(child)
"""
    )
    ended = python(script, tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert {kinds(path) for path in tmp_path.iterdir()} == {"se."}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_the_runtime_folder_is_held_does_not_go_on_holding_it(tmp_path: Path) -> None:
    """Whether it lets go of its copies or not: not every child can."""
    script = (
        FORKS
        + """
wire._passes = lambda close: close
with wire._alone_in(own_folder()):
    child = fork()
with wire._alone_in(own_folder()):
    print("free")
end(child)
"""
    )
    ended = python(script, tmp_path)
    assert ended.stdout == "free\n", ended.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_a_child_forked_just_before_the_door_opens_keeps_no_door_of_a_killed_run(
    tmp_path: Path, client: Any, forked_children: list[int]
) -> None:
    script = (
        FORKS
        + """
real, bound, goes_on = os.lstat, threading.Event(), threading.Event()

def lstat(path, *rest, **options):
    facts = real(path, *rest, **options)
    if threading.current_thread().name == "cbmon-recorder" and str(path).endswith(".sock"):
        bound.set()
        goes_on.wait()
    return facts

os.lstat = lstat  # asked right after the socket has its name
begin("run")
bound.wait()
print(fork(), flush=True)
sys.stdin.read()
"""
    )
    path = tmp_path / "run.jsonl"
    with start(script, tmp_path) as process:
        assert process.stdout is not None
        forked_children.append(int(process.stdout.readline()))
        process.kill()
        process.wait()
    wait_for(lambda: not [each for each in open_files(forked_children[0]) if "socket:" in each])
    monitor = Monitor(path)
    begin(monitor)
    assert client(path).hello().process.pid == os.getpid()
    monitor.on_train_end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_lets_go_of_all_it_can_and_none_of_its_hooks_hangs(tmp_path: Path) -> None:
    """One recorder that cannot be let go of keeps no other one; locks that other threads held are nobody's."""
    script = (
        FORKS
        + """
monitors = [begin("one"), begin("other")]
time.sleep(0.3)
for monitor in monitors:
    recorder = monitor._recorder
    lock, taken = recorder._wire._lock, threading.Event()

    def hold(lock=lock, taken=taken):
        with lock:
            taken.set()
            time.sleep(60)

    threading.Thread(target=hold, daemon=True).start()
    taken.wait()
def fail():
    raise OSError
broken = next(iter(wire._wires))
broken.forget = fail
next(iter(sys.modules["cbmon.callbacks.recorder"]._recorders))._close_file = fail
mine = held(os.getpid())
child = os.fork()
if child == 0:
    for monitor in monitors:
        if monitor._recorder._wire is not broken:
            monitor._recorder.leave(None)
            monitor._recorder._wire.wake()
    print(len(mine), len(held(os.getpid())), flush=True)
    os._exit(0)
os.waitpid(child, 0)
os._exit(0)
"""
    )
    ended = python(script, tmp_path)
    assert ended.stdout == "8 4\n", ended.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_no_fork_and_no_fit_waits_for_a_descriptor_that_hangs(tmp_path: Path) -> None:
    script = (
        FORKS
        + """
from cbmon.callbacks import forks

made = threading.Event()

def hang():
    with forks.making():
        made.set()
        time.sleep(60)

threading.Thread(target=hang, daemon=True).start()
made.wait()
begun = time.monotonic()
child = os.fork()
if child == 0:
    with forks.making():  # it has a lock of its own
        os._exit(time.monotonic() - begun > 3)
print(os.waitpid(child, 0)[1])
begin("run").on_train_end()
print(time.monotonic() - begun < 5, flush=True)
os._exit(0)
"""
    )
    ended = python(script, tmp_path)
    assert ended.stdout == "0\nTrue\n", ended.stderr
    assert kinds(tmp_path / "run.jsonl") == "s."


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_ends_takes_nothing_away_from_its_parents_watchers(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, client: Any
) -> None:
    path, seen = tmp_path / "run.jsonl", []
    monitor = Monitor(path, live_hz=50)

    def fork() -> None:
        watcher = client(path)
        watcher.hello()
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            assert socket_of(path).exists()
            seen.append(watcher)
            return
        code = 1
        try:
            monitor.on_epoch_end(7, {"loss": 7.0})
            monitor.on_train_end()
            code = 0
        finally:
            os._exit(code)

    unharmed(before({2: fork}), monitor)
    assert seen[0].rest()[-1] == Goodbye(words="the fit has ended")
    assert kinds(path) == WHOLE
    assert said() == ""


TF_KERAS = """
import sys, threading, numpy as np, tf_keras, tensorflow as tf
from cbmon.callbacks import Monitor
from cbmon.endpoint import *
from cbmon.events import Progress

seen, kinds = [], set()

def watch():
    wire = connect(sys.argv[2])
    wire.sendall(encode_frame(Attach()))
    lines = Lines(FRAME_MAX)
    while data := wire.recv(65536):
        for event in map(decode_from_trainer, lines.feed(data)):
            if isinstance(event, Progress) and event.metrics:
                seen.append(event)
                enough.set()

class Slow(tf_keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self._supports_tf_logs = True

    def on_train_batch_end(self, batch, logs=None):
        kinds.add(all(tf.is_tensor(value) for value in logs.values()))
        if batch == 5:
            threading.Thread(target=watch, daemon=True).start()
            print(enough.wait(30))

enough = threading.Event()
model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
model.compile("sgd", "mse", metrics=["mae"])
x = np.ones((64, 2), "float32")
model.fit(x, x[:, :1], batch_size=8, verbose=0, callbacks=[Monitor(sys.argv[1]), Slow()])
print(kinds, sorted(seen[0].metrics), {type(value) for value in seen[0].metrics.values()})
"""


def test_tensors_of_tf_keras_become_numbers_for_who_watches_alone(tmp_path: Path, runtime: Path) -> None:
    pytest.importorskip("tf_keras")
    record = tmp_path / "run.jsonl"
    there = own_folder() / endpoint.socket_name(record)
    ended = python(TF_KERAS, record, there)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "True\n{True} ['loss', 'mae'] {<class 'float'>}\n"
