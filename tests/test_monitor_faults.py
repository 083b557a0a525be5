"""Law 5 under faults: whatever goes wrong with the record, a real fit ends with the same weights and History.

Each test trains the same seeded model under one fault, then looks at what the record holds and what was said.
"""

import contextlib
import errno
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cbmon.callbacks import Monitor
from cbmon.callbacks import fit as fit_module
from cbmon.callbacks import recorder as recorder_module
from cbmon.callbacks.layouts import JsonLines
from cbmon.callbacks.recorder import Recorder
from cbmon.cli import main
from cbmon.events import (
    CallbackStates,
    EpochsEnded,
    Heartbeat,
    Malformed,
    Progress,
    RecordedEvent,
    RunEnded,
    RunStarted,
    decode_line,
)
from cbmon.formats.sniff import Format, decoder
from cbmon.run import Run, fold
from tests.test_monitor import DRIVER, FIT, ROOT, drive, epochs, events, flat_cut, kinds, python, wait_for
from tests.test_monitor import keras as keras  # a fixture

WHOLE = "secececec."
"""A record of the four epochs in which nothing is missing."""
PATIENCE_S = 5.0
"""The end of a fit waits for 2 s at most; the rest is for a busy machine."""


def read(path: Path) -> Run:
    """A record of either kind, as every reader of cbmon sees it."""
    reader = decoder(Format.CBMON_CSV if path.suffix == ".csv" else Format.RECORD)
    run = Run()
    for event in [*reader.feed(path.read_bytes()), *reader.finish()]:
        fold(run, event)
    return run


def recorded(path: Path) -> list[int]:
    """The epochs of a record that is whole and has one attempt; none if there is no record."""
    run = read(path) if path.exists() else Run()
    assert (len(run.attempts), run.warnings) == (1, [])
    return list(run.current.epochs)


def recorder_of(monitor: Monitor) -> Recorder:
    assert monitor._recorder is not None
    return monitor._recorder


class Trainer:
    """One compiled model that can be trained from the same start again and again."""

    def __init__(self, keras: Any) -> None:
        np = pytest.importorskip("numpy")
        slices = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices
        self.keras = keras
        keras.utils.set_random_seed(1)
        x = np.random.default_rng(0).random((48, 4), dtype="float32")
        self._data = slices((x, (x.sum(axis=1, keepdims=True) > 2).astype("float32"))).batch(16)
        dropout, dense = keras.layers.Dropout(0.2), keras.layers.Dense(1, activation="sigmoid")
        self.model = keras.Sequential([keras.Input((4,)), dropout, dense])
        self.model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9), "binary_crossentropy", metrics=["accuracy"]
        )
        self.model.optimizer.build(self.model.trainable_variables)
        variables = [*self.model.variables, *self.model.optimizer.variables]
        self._start = [(each, each.numpy()) for each in variables]

    def train(self, callbacks: list[Any], **options: Any) -> list[Any]:
        """Four epochs of three steps with validation; gives what must not depend on Monitor, to the bit."""
        for variable, value in self._start:
            variable.assign(value)
        self.keras.utils.set_random_seed(1)
        options = {"epochs": 4, "verbose": 0, "shuffle": False, "validation_data": self._data} | options
        history = self.model.fit(self._data, callbacks=callbacks, **options)
        weights = [variable.numpy().tobytes() for variable, _ in self._start]
        drawn = [random.random(), float(self.keras.random.uniform(()))]
        return [weights, history.epoch, history.history, drawn]


@pytest.fixture(scope="module")
def unharmed(keras: Any) -> Callable[..., None]:
    """Train with these callbacks: weights, History and optimizer are those of a fit without them."""
    trainer = Trainer(keras)
    plain = trainer.train([flat_cut(keras)])
    assert plain == trainer.train([flat_cut(keras)]), "the fit itself is not deterministic"

    def train(*callbacks: Any, **options: Any) -> None:
        expected = trainer.train([flat_cut(keras)], **options) if options else plain
        assert trainer.train([*callbacks, flat_cut(keras)], **options) == expected

    return train


@pytest.fixture
def before(keras: Any) -> Callable[[dict[int, Callable[[], object]]], Any]:
    """A callback that does things before epochs begin, by their 0-based number."""

    def callback(do: dict[int, Callable[[], object]]) -> Any:
        return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: do.get(epoch, bool)())

    return callback


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What cbmon has said on stderr since the last look; nothing of it may be on stdout."""

    def look() -> str:
        out, err = capfd.readouterr()
        assert out == ""
        return "".join(line for line in err.splitlines(keepends=True) if line.startswith("cbmon:"))

    return look


@pytest.fixture
def waits(keras: Any, unharmed: Any) -> Callable[[Monitor], float]:
    """Train, and give the seconds that Monitor keeps the end of training."""

    def train(monitor: Monitor) -> float:
        ends: list[float] = []
        stamp = keras.callbacks.LambdaCallback(on_train_end=lambda _: ends.append(time.monotonic()))
        unharmed(stamp, monitor, stamp)
        return ends[1] - ends[0]

    return train


class Disk:
    """Stands between a recorder and the disk for a file and its neighbours, and can be full or block."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.room: int | None = None
        """Bytes that it still takes, None if it is not full."""
        self.gate = threading.Event()
        self.gate.set()
        self._path = path
        self._write, self._open = os.write, os.open
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "open", self.open)

    def write(self, file: int, data: bytes) -> int:
        there = map(Path.stat, self._path.parent.iterdir())
        if not any(os.path.samestat(os.fstat(file), each) for each in there):
            return self._write(file, data)
        self.gate.wait(60)
        if self.room is None:
            return self._write(file, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._write(file, data[: self.room])
        self.room -= taken
        return taken

    def open(self, path: Any, *rest: Any, **options: Any) -> int:
        if str(path) == str(self._path):
            self.gate.wait(60)
        return self._open(path, *rest, **options)


LAST_REFUSED = {"run.jsonl": b'"epochs":[2]', "run.csv": b"\n2,"}


@pytest.mark.parametrize("room", [0, 40])
@pytest.mark.parametrize("name", LAST_REFUSED)
def test_a_disk_that_is_full_for_two_epochs_loses_nothing(
    unharmed: Any,
    before: Any,
    said: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    room: int,
) -> None:
    path = tmp_path / name
    disk, monitor = Disk(monkeypatch, path), Monitor(path)

    def fill() -> None:
        wait_for(lambda: path.exists() and recorded(path) == [0])
        disk.room = room

    def free() -> None:
        wait_for(lambda: LAST_REFUSED[name] in recorder_of(monitor)._refused)
        disk.room = None

    unharmed(before({1: fill, 3: free}), monitor)
    run = read(path)
    assert list(run.current.epochs) == [0, 1, 2, 3]
    assert len(run.attempts) == 1
    assert len(run.warnings) == (room > 0)  # the line that was torn, and is there again
    assert said().splitlines() == [
        f"cbmon: cannot write {path} (No space left on device); training goes on, it is tried again",
        f"cbmon: {path} is written again",
    ]


@pytest.mark.parametrize("room", [5, 40])
@pytest.mark.parametrize("name", LAST_REFUSED)
def test_a_disk_that_is_full_within_the_first_line_loses_nothing(
    unharmed: Any,
    before: Any,
    said: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    room: int,
) -> None:
    path = tmp_path / name
    disk, monitor = Disk(monkeypatch, path), Monitor(path)
    disk.room = room

    def free() -> None:
        wait_for(lambda: LAST_REFUSED[name] in b"\n" + recorder_of(monitor)._refused)
        disk.room = None

    unharmed(before({3: free}), monitor)
    assert path.stat().st_size >= room
    (last,) = [each for each in tmp_path.iterdir() if each != path] or [
        path
    ]  # the torn line may look foreign
    assert list(read(last).current.epochs) == [0, 1, 2, 3]
    assert last.suffix == ".csv" or kinds_but_torn(last) == WHOLE
    assert said().count("cannot write") == 1


def kinds_but_torn(path: Path) -> str:
    """The kinds of a record in short, without the lines that cannot be read."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if not isinstance(decode_line(line), Malformed)))
    return kinds(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", LAST_REFUSED)
def test_a_device_that_is_full_from_the_start_loses_nothing_once_there_is_a_file(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.symlink_to("/dev/full")
    monitor = Monitor(path)

    def make_room() -> None:
        wait_for(lambda: LAST_REFUSED[name] in b"\n" + recorder_of(monitor)._refused)
        path.unlink()

    unharmed(before({3: make_room}), monitor)
    assert recorded(path) == [0, 1, 2, 3]
    text = said()
    assert text.count("cbmon: cannot write") == text.count("is written again") == text.count("\n") - 1 == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_that_stays_full_holds_up_nothing(waits: Any, said: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.symlink_to("/dev/full")
    assert waits(Monitor(path)) < 1
    assert [line.count("written to the end") for line in said().splitlines()] == [0, 1]


@pytest.mark.parametrize("name", LAST_REFUSED)
def test_a_folder_that_is_removed_is_made_again_and_the_rest_recorded(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "logs" / name

    def remove() -> None:
        wait_for(lambda: path.exists() and recorded(path) == [0, 1])
        shutil.rmtree(path.parent)

    unharmed(before({2: remove}), Monitor(path))
    assert recorded(path) == [2, 3]
    assert path.suffix == ".csv" or isinstance(events(path)[0], RunStarted)
    assert said() == ""


def _rename_file(path: Path) -> Path:
    return path.rename(path.with_name("moved.jsonl"))


def _rename_folder(path: Path) -> Path:
    return path.parent.rename(path.parent.with_name("moved")) / path.name


def _replace_folder(path: Path) -> Path:
    moved = _rename_folder(path)
    path.parent.mkdir()
    return moved


@pytest.mark.parametrize("move", [_rename_file, _rename_folder, _replace_folder])
def test_a_record_that_is_moved_away_is_written_on_where_it_is(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, move: Callable[[Path], Path]
) -> None:
    path, moved = tmp_path / "logs" / "run.jsonl", []

    def act() -> None:
        wait_for(lambda: path.exists() and kinds(path) == "sece")
        moved.append(move(path))

    unharmed(before({2: act}), Monitor(path))
    assert kinds(moved[0]) == WHOLE
    assert not path.exists()
    assert said() == ""


@pytest.mark.parametrize("is_torn", [False, True])
@pytest.mark.parametrize("name", LAST_REFUSED)
def test_a_record_that_a_copy_takes_the_place_of_is_written_on_in_the_copy(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, name: str, is_torn: bool
) -> None:
    path = tmp_path / name

    def synchronise() -> None:
        wait_for(lambda: path.exists() and recorded(path) == [0, 1])
        copy = path.read_bytes()
        (tmp_path / ".run.copy").write_bytes(copy[:-20] if is_torn else copy)
        os.replace(tmp_path / ".run.copy", path)

    unharmed(before({2: synchronise}), Monitor(path))
    if is_torn:
        run = read(path)
        assert (list(run.current.epochs), len(run.attempts), len(run.warnings)) == ([0, 2, 3], 1, 1)
    else:
        assert recorded(path) == [0, 1, 2, 3]
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert said() == ""


def test_somebody_elses_file_in_the_records_place_is_left_as_it_is(
    unharmed: Any, before: Any, said: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"

    def replace() -> None:
        wait_for(lambda: path.exists() and kinds(path) == "sece")
        (tmp_path / "data").write_text('{"prompt": "hi"}\n')
        os.replace(tmp_path / "data", path)

    unharmed(before({2: replace}), Monitor(path))
    assert path.read_text() == '{"prompt": "hi"}\n'
    (other,) = set(tmp_path.iterdir()) - {path}
    assert [event.epochs for event in epochs(other)] == [[2], [3]]
    assert said() == (f"cbmon: run.jsonl is another run's or no record: this one is recorded in {other}\n")


def _file_as_folder(folder: Path) -> Path:
    (folder / "logs").touch()
    return folder / "logs" / "deeper" / "run.jsonl"


def _folder_as_file(folder: Path) -> Path:
    (folder / "run.jsonl").mkdir()
    return folder / "run.jsonl"


def _link_into_nowhere(folder: Path) -> Path:
    (folder / "run.jsonl").symlink_to(folder / "nowhere" / "run.jsonl")
    return folder / "run.jsonl"


def _link_to_itself(folder: Path) -> Path:
    (folder / "run.jsonl").symlink_to(folder / "run.jsonl")
    return folder / "run.jsonl"


def _socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "run.jsonl"))  # relative: its name may have 108 bytes
    return folder / "run.jsonl"


PLACES: dict[str, Callable[[Path], Path]] = {
    "a file where the folder should be": _file_as_folder,
    "a folder where the file should be": _folder_as_file,
    "a file system that takes no folders": lambda folder: Path("/proc/cbmon/run.jsonl"),
    "a link into a folder that is not there": _link_into_nowhere,
    "a link to itself": _link_to_itself,
    "a name that is too long": lambda folder: folder / f"{'x' * 300}.jsonl",
    "a name that no file can have": lambda folder: folder / "a\0b.jsonl",
    "a socket": _socket,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_written_is_said_at_once_and_at_the_end_also_where_warnings_are_errors(
    unharmed: Any, said: Any, tmp_path: Path, place: str
) -> None:
    path = PLACES[place](tmp_path)
    there = sorted(tmp_path.rglob("*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # TensorFlow's own
        unharmed(Monitor(path))
    first, *last = said().splitlines()
    assert "training goes on" in first or "ended" in first
    assert ["written to the end" in line for line in last] == ([] if "ended" in first else [True])
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("name", LAST_REFUSED)
def test_a_disk_that_hangs_holds_the_end_of_training_up_for_two_seconds_once(
    waits: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    disk, monitor = Disk(monkeypatch, path), Monitor(path)
    disk.gate.clear()  # from the first open() on
    assert 2 <= waits(monitor) < PATIENCE_S
    assert monitor._close is not None
    start = time.monotonic()
    monitor._close()  # when the Monitor goes, or the process ends
    assert time.monotonic() - start < 1
    assert said() == f"cbmon: {path} takes nothing: what came last may be missing in it\n"
    disk.gate.set()
    recorder_of(monitor)._thread.join(10)
    assert recorded(path) == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_nobody_reads_holds_the_end_of_training_up_for_two_seconds(
    waits: Any, said: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"\n" * 4096)
        monitor = Monitor(path)
        assert 2 <= waits(monitor) < PATIENCE_S
        assert said().count("cbmon:") == 1
        chunks: list[bytes] = []

        def is_drained() -> bool:
            with contextlib.suppress(BlockingIOError):
                chunks.append(os.read(pipe, 1 << 16))
            return b"run_ended" in b"".join(chunks)

        wait_for(is_drained)
    finally:
        os.close(pipe)
    kinds_read = [json.loads(line)["event"] for line in b"".join(chunks).split(b"\n") if line]
    assert kinds_read == ["run_started", *["epochs_ended", "callback_states"] * 4, "run_ended"]
    recorder_of(monitor)._thread.join(10)
    assert not recorder_of(monitor)._thread.is_alive()


def test_a_queue_that_is_full_leaves_events_out_and_says_when_that_begins_and_ends(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "WAITING_MAX", 1)
    path = tmp_path / "run.jsonl"
    disk, monitor = Disk(monkeypatch, path), Monitor(path)
    disk.gate.clear()

    def free() -> None:
        disk.gate.set()
        wait_for(
            lambda: path.exists() and kinds(path) == "se"
        )  # the first epoch waited, the others found no place

    unharmed(before({3: free}), monitor)
    assert kinds(path).startswith("se")
    assert kinds(path).endswith(".")
    assert recorded(path) in ([0, 3], [0])  # the fourth may find the states before it still waiting
    assert said().splitlines()[:2] == [
        f"cbmon: {path} takes nothing: the next epochs are not recorded",
        f"cbmon: {path} is written again",
    ]


class Awkward:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} today")

    __float__ = __len__ = __bool__ = __eq__ = __str__ = __repr__ = __getattr__  # type: ignore[assignment]
    __hash__ = object.__hash__


def rubbish() -> dict[Any, Any]:
    """What callbacks put into logs: by name, a value that is no number, or one that a float can hold."""
    np = pytest.importorskip("numpy")
    tensorflow = pytest.importorskip("tensorflow")
    return {
        "array": np.zeros(3),
        "ragged": [[1.0], 2.0],
        "object": object(),
        "awkward": Awkward(),
        "huge": 10**400,
        "large": 10**300,
        "complex": 1j,
        "text": "0.5",
        "lone \ud800": 0.5,
        "\x1b[2J\r\n": 0.25,
        "": 0.125,
        7: 2.0,
        "tensor": tensorflow.constant(0.75),
        "tensors": tensorflow.constant([0.75]),
        "variable": tensorflow.Variable(0.5),
        "none": None,
        "event": 1.0,
        "nan": math.nan,
        "class": dict,
    }


def test_metrics_that_cannot_be_encoded_cost_their_own_values_and_reach_the_next_callback_unchanged(
    unharmed: Any, keras: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "PROGRESS_S", 0)  # looks into the epoch at every step, too
    values = rubbish()
    changed: list[Any] = []

    def add(_: int, logs: dict[Any, Any]) -> None:
        logs.update(values)

    def take_out(_: int, logs: dict[Any, Any]) -> None:
        changed.extend(name for name, value in values.items() if logs.pop(name) is not value)

    first, last = (
        keras.callbacks.LambdaCallback(on_epoch_end=do, on_train_batch_end=do) for do in (add, take_out)
    )
    for name in ("run.jsonl", "run.csv"):
        unharmed(first, Monitor(tmp_path / name), last)
    assert changed == []
    assert said() == ""
    assert recorded(tmp_path / "run.jsonl") == recorded(tmp_path / "run.csv") == [0, 1, 2, 3]
    for epoch in epochs(tmp_path / "run.jsonl"):
        numbers = {name: value for name, (value,) in epoch.metrics.items()}
        assert math.isnan(numbers.pop("nan") or 0.0)
        assert {name: value for name, value in numbers.items() if value is not None} == {
            **{name: numbers[name] for name in ("accuracy", "loss", "val_accuracy", "val_loss")},
            "large": 1e300,
            "lone \\ud800": 0.5,
            "\x1b[2J\r\n": 0.25,
            "": 0.125,
            "7": 2.0,
            "tensor": 0.75,
            "variable": 0.5,
            "event": 1.0,
        }
        assert sorted(epoch.not_numbers) == sorted(
            ["array", "ragged", "object", "awkward", "huge", "complex", "text", "tensors", "class"]
        )
    progress = [event for event in events(tmp_path / "run.jsonl") if isinstance(event, Progress)]
    assert len(progress) == 4 * (3 + 3)
    assert progress[0].metrics["variable"] == 0.5


def test_a_thousand_metrics_are_recorded(unharmed: Any, keras: Any, said: Any, tmp_path: Path) -> None:
    names = [f"metric {number} of a model that has many heads" for number in range(1000)]
    add = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(dict.fromkeys(names, epoch))
    )
    take_out = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: [logs.pop(name) for name in names])
    for name in ("run.jsonl", "run.csv"):
        unharmed(add, Monitor(tmp_path / name), take_out)
        run = read(tmp_path / name)
        assert run.warnings == []
        assert all(list(run.current.columns[name]) == [0, 1, 2, 3] for name in names)
    assert said() == ""


CLOCKS: dict[str, Callable[[float], float]] = {
    "an hour back": lambda now: now - 3600,
    "an hour forward": lambda now: now + 3600,
    "a year before 1970": lambda now: -3e7,
    "no number": lambda now: math.nan,
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_jumps_leaves_durations_and_heartbeats_alone(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    monkeypatch.setattr(recorder_module, "HEARTBEAT_S", 0.01)
    real, path = time.time, tmp_path / "run.jsonl"

    def beats() -> int:
        return path.read_bytes().count(b'"heartbeat"') if path.exists() else 0

    def jump() -> None:
        monkeypatch.setattr(time, "time", lambda: CLOCKS[clock](real()))
        seen = beats()
        wait_for(lambda: beats() > seen + 2)

    unharmed(before({2: jump}), Monitor(path), Monitor(tmp_path / "run.csv"))
    monkeypatch.setattr(time, "time", real)
    told = [event for event in events(path) if not isinstance(event, Heartbeat | CallbackStates)]
    assert [type(event) for event in told] == [RunStarted, *[EpochsEnded] * 4, RunEnded]
    for event in epochs(path):
        assert {"epoch", "validation", "step"} <= set(event.seconds)
        assert all(0 <= (took or 0) < 60 for (took,) in event.seconds.values())
    assert recorded(tmp_path / "run.csv") == [0, 1, 2, 3]
    assert main(["show", "--json", str(path), str(tmp_path / "run.csv")]) == 0
    assert main(["show", str(path)]) == 0


class Raising:
    """A stderr that raises."""

    def write(self, text: str) -> None:
        raise ValueError("I/O operation on closed file")

    flush = write


@pytest.mark.parametrize("kind", ["none", "closed", "raising"])
def test_a_stderr_that_is_gone_is_no_reason_to_fail_and_nothing_goes_to_stdout_instead(
    unharmed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    closed = (tmp_path / "stderr").open("w")
    closed.close()
    (tmp_path / "logs").touch()
    monkeypatch.setattr(sys, "stderr", {"none": None, "closed": closed, "raising": Raising()}[kind])
    unharmed(Monitor(tmp_path / "logs" / "run.jsonl"))
    unharmed(Monitor(tmp_path / "run.jsonl"))
    monkeypatch.undo()
    assert kinds(tmp_path / "run.jsonl") == WHOLE
    assert capfd.readouterr().out == ""


def test_a_process_without_a_stderr_records_and_prints_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    script = f"""
os.close(2)
{DRIVER}
monitor.on_train_end()
begin(other := Monitor(sys.argv[2]))
other.on_train_end()
print("done")
"""
    result = python(f"import os{script}", tmp_path / "run.jsonl", tmp_path / "logs" / "run.jsonl")
    assert (result.returncode, result.stdout) == (0, "done\n")
    assert kinds(tmp_path / "run.jsonl") == "se."


def test_warnings_that_are_errors_do_not_reach_the_training(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"{DRIVER}\nmonitor.on_epoch_end('x')\nmonitor.on_train_end()",
    ]
    result = subprocess.run(
        [*command, str(tmp_path / "logs" / "run.jsonl")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0
    assert result.stderr.count("cbmon:") == result.stderr.count("\n") == 3  # the place, the hook, the end


def test_hooks_that_get_rubbish_say_so_once_and_the_epochs_are_recorded(
    unharmed: Any, before: Any, said: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    monitor: Any = Monitor(path)

    hooks = [name for name in dir(monitor) if name.startswith("on_") and not name.startswith("on_train_")]
    one_argument = [
        name for name in hooks if name.startswith(("on_test_", "on_predict_")) and "batch" not in name
    ]
    two_arguments = [*set(hooks) - set(one_argument), "on_train_batch_begin", "on_train_batch_end"]
    values: list[Any] = ["x", None, -1, math.nan, 10**400, [], Awkward()]
    assert len(one_argument) == 4
    assert len(two_arguments) == 10

    def call_all() -> None:
        for odd in values:
            for name in one_argument:
                getattr(monitor, name)(odd)
            for name in two_arguments:
                getattr(monitor, name)(odd, odd)
            monitor.set_params(odd)

    unharmed(before(dict.fromkeys(range(4), call_all)), monitor)
    assert [event.epochs for event in epochs(path)] == [[0], [1], [2], [3]]
    assert re.sub("c+", "c", kinds(path)) == WHOLE
    assert said().count("cbmon:") == 1


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_working_directory_that_is_gone_costs_at_most_the_record(
    unharmed: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    unharmed(Monitor("run.jsonl" if is_relative else tmp_path / "run.jsonl"))
    if is_relative:
        assert said().count("cbmon:") == 1
        assert list(tmp_path.iterdir()) == []
    else:
        assert said() == ""
        assert kinds(tmp_path / "run.jsonl") == WHOLE


def test_a_working_directory_that_goes_during_the_fit_costs_nothing(
    unharmed: Any, before: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    unharmed(before({1: lambda: os.rmdir(tmp_path / "there")}), Monitor("../run.jsonl"))
    assert said().count("cbmon:") <= 1
    assert list(tmp_path.glob("**/run.jsonl"))


def test_two_monitors_in_one_list_record_into_two_files(unharmed: Any, said: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    unharmed(Monitor(path), Monitor(path))
    assert [kinds(each) for each in tmp_path.iterdir()] == [WHOLE, WHOLE]
    assert said().count("cbmon:") == said().count("this one is recorded in") + 1 == 1


def test_one_monitor_twice_in_a_list_records_once(unharmed: Any, said: Any, tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    unharmed(monitor, monitor)
    assert kinds(tmp_path / "run.jsonl") == WHOLE
    assert said() == ""


def awkward_siblings(keras: Any) -> list[Any]:
    """Callbacks with the names that Monitor looks at, whose attributes raise."""

    def fail(self: Any) -> Any:
        raise RuntimeError("not for you")

    names = ("monitor", "best", "wait", "stopped_epoch", "restore_best_weights", "best_weights", "best_epoch")
    looks = {name: property(fail) for name in (*names, "_get_file_path")}
    kinds_of = ("EarlyStopping", "ReduceLROnPlateau", "TerminateOnNaN", "ModelCheckpoint")
    return [type(kind, (keras.callbacks.Callback,), looks)() for kind in kinds_of]


def test_callbacks_whose_attributes_raise_cost_what_they_would_have_told(
    unharmed: Any, keras: Any, said: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    one, other, *rest = awkward_siblings(keras)
    unharmed(one, other, Monitor(path), *rest)
    assert kinds(path).replace("c", "") == "seeee."
    started = events(path)[0]
    assert isinstance(started, RunStarted)
    assert started.callbacks[:2] == ["EarlyStopping", "ReduceLROnPlateau"]
    assert said() == ""


def test_a_negative_epoch_is_left_out_and_said(unharmed: Any, said: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    unharmed(Monitor(path), initial_epoch=-2)
    assert kinds(path) == WHOLE
    assert [event.epochs for event in epochs(path)] == [[0], [1], [2], [3]]
    assert said().count("cbmon:") == 1


def test_a_user_who_may_have_no_more_threads_trains_without_a_record(
    unharmed: Any, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks, start = (sys.excepthook, threading.excepthook), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "cbmon-recorder":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    unharmed(Monitor(tmp_path / "run.jsonl"))
    assert said().count("cbmon:") == 1
    assert list(tmp_path.iterdir()) == []
    assert (sys.excepthook, threading.excepthook) == hooks


def test_an_event_that_cannot_be_encoded_costs_itself_and_is_said_once(tmp_path: Path, said: Any) -> None:
    path = tmp_path / "run.jsonl"
    recorder = Recorder(path, JsonLines(RunStarted(run_id="r")), is_new=True)
    odd: list[RecordedEvent] = [Progress(epoch=object(), step=1), Progress(epoch=0, step=object())]  # type: ignore[arg-type]
    for event in (EpochsEnded(epochs=[0]), *odd, EpochsEnded(epochs=[1])):
        recorder.put(event)
    recorder.put(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    recorder.put(RunEnded(how="finished"))
    recorder.close()
    assert kinds(path) == "see."
    assert said().count("cbmon:") == 1


# Children and ends: whole processes.


@pytest.fixture
def forked_children() -> Iterator[list[int]]:
    """Pids of children that a test leaves behind, ended after it."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A script in a process of its own; it talks by lines."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def open_files(pid: int) -> list[str]:
    """What a process holds open. A file that goes while we look was not ours."""
    found: list[str] = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(each))
    return found


CHILD = {
    "a fork": "child = os.fork() or time.sleep(60)",
    "a process of multiprocessing": """
process = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
process.start()
child = process.pid""",
    "another program that keeps all files": """
process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
child = process.pid""",
}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
@pytest.mark.parametrize("kind", CHILD)
def test_a_child_holds_nothing_of_the_record_open_or_locked_when_its_parent_is_killed(
    tmp_path: Path, forked_children: list[int], kind: str
) -> None:
    path = tmp_path / "run.jsonl"
    script = f"""
import multiprocessing, os, subprocess, sys, time
{DRIVER}
while not (os.path.exists(sys.argv[1]) and b"epochs_ended" in open(sys.argv[1], "rb").read()):
    time.sleep(0.005)
{CHILD[kind]}
print(child, flush=True)
time.sleep(60)
"""
    with start(script, path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        forked_children.append(child)
        assert str(path) in open_files(parent.pid)
        parent.kill()
    wait_for(
        lambda: str(path) not in open_files(child)
    )  # it may not have run at all before the parent was gone
    os.kill(child, 0)  # it lives
    drive(Monitor(path))
    assert list(tmp_path.iterdir()) == [path]
    assert kinds(path) == "sese."


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_fit_writes_nothing_and_holds_nothing_open(
    unharmed: Any, before: Any, said: Any, tmp_path: Path
) -> None:
    path, codes = tmp_path / "run.jsonl", []
    monitor = Monitor(path)

    def fork() -> None:
        wait_for(lambda: path.exists() and kinds(path) == "sece")
        if child := os.fork():
            wait_for(lambda: bool(done := os.waitpid(child, os.WNOHANG)[0]) and not codes.append(done))  # type: ignore[func-returns-value]
            return
        code = 1
        try:
            monitor.on_epoch_end(7, {"loss": 7.0})
            monitor.on_train_end()
            recorder_of(monitor).abandon()
            code = int(str(path) in open_files(os.getpid()))
        finally:
            os._exit(code)

    unharmed(before({2: fork}), monitor)
    assert len(codes) == 1
    assert kinds(path) == WHOLE
    assert list(tmp_path.iterdir()) == [path]
    assert said() == ""


def show_status(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, int]:
    """What `cbmon show` calls the run, and its exit code as a check."""
    code = main(["show", "--check", "--json", str(path)])
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    return run["status"], int(code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_leaves_its_epochs_and_is_shown_as_crashed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    path = tmp_path / "run.jsonl"
    script = DRIVER + "\nprint('ready', flush=True)\nsys.stdin.read()"
    with start(script, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wait_for(lambda: path.exists() and kinds(path) == "se")
        assert show_status(path, capsys) == ("running", 0)
        process.send_signal(number)
        process.wait(10)
        assert process.returncode == -number
    assert kinds(path) == "se"
    assert show_status(path, capsys) == ("crashed", 1)


def test_a_real_fit_that_sigterm_ends_leaves_its_epochs_and_is_shown_as_crashed(
    keras: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
class Terminate(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        while epoch == 3 and any(read(name).count(end) < 3 for name, end in ends.items()):
            time.sleep(0.005)
        if epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

def read(name):
    with open(folder + name, "a+") as file:
        file.seek(0)
        return file.read()

ends = {"run.jsonl": "epochs_ended", "run.csv": "\\n"}
fit([Monitor(folder + "run.jsonl"), Monitor(folder + "run.csv"), Terminate()])
"""
    assert python(FIT.format(keras="keras") + script, tmp_path).returncode == -signal.SIGTERM
    assert kinds(tmp_path / "run.jsonl") == "seee"
    assert show_status(tmp_path / "run.jsonl", capsys) == ("crashed", 1)
    assert recorded(tmp_path / "run.csv")[:2] == [0, 1]
    assert show_status(tmp_path / "run.csv", capsys)[1] == 0  # a CSV cannot tell


def test_a_record_with_a_broken_line_in_the_middle_is_read_around_it(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    drive(Monitor(path), 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join([lines[0], b"\0" * 4096 + b"\n", *lines[1:]])
    )  # what a crash of the machine leaves
    assert [type(decode_line(line)) for line in path.read_bytes().splitlines()].count(Malformed) == 1
    assert list(read(path).current.epochs) == [0, 1]


def test_the_model_of_a_fit_by_hand_may_be_anything(tmp_path: Path, said: Any) -> None:
    for model in (None, SimpleNamespace(), Awkward(), 7):
        monitor = Monitor(tmp_path / "run.jsonl")
        monitor.set_model(model)
        monitor.set_params({"epochs": sys.maxsize, "steps": -1})
        monitor.on_train_begin()
        monitor.on_epoch_begin(0)
        monitor.on_epoch_end(0, {"loss": 1.0})
        monitor.on_train_end()
    assert set(kinds(tmp_path / "run.jsonl")) == set("se.")
    started = [event for event in events(tmp_path / "run.jsonl") if isinstance(event, RunStarted)]
    assert all((event.epochs, event.steps) == (None, None) for event in started)
