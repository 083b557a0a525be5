"""Monitor and its recorder: first hooks called by hand, then real fits of Keras, then whole processes."""

import copy
import csv
import importlib.util
import json
import math
import os
import pickle
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from cbmon.callbacks import Monitor
from cbmon.callbacks import fit as fit_module
from cbmon.callbacks import recorder as recorder_module
from cbmon.callbacks.layouts import JsonLines
from cbmon.callbacks.recorder import Recorder
from cbmon.endpoint import is_gone, this_process
from cbmon.events import (
    CallbackStates,
    CheckpointSaved,
    EpochsEnded,
    Heartbeat,
    Malformed,
    NonFinite,
    Progress,
    RecordedEvent,
    RunEnded,
    RunStarted,
    Tick,
    decode_line,
)
from cbmon.pace import idle_since
from cbmon.run import Run, fold

ROOT = Path(__file__).parent.parent
RATES = [0.1, 0.1, 0.05, 0.025]
"""In effect when a flat metric is cut by half after epochs 2, 3 and 4."""


def events(path: Path) -> list[RecordedEvent]:
    """A record without a single line that cannot be read."""
    read = [decode_line(line) for line in path.read_bytes().splitlines(keepends=True)]
    assert not [event for event in read if isinstance(event, Malformed)]
    return [event for event in read if not isinstance(event, Malformed)]


def kinds(path: Path) -> str:
    """A record in short: one letter an event, such as "seee." for a start, three epochs and an end."""
    letters = {
        RunStarted: "s",
        EpochsEnded: "e",
        CallbackStates: "c",
        CheckpointSaved: "k",
        NonFinite: "n",
        Progress: "p",
        RunEnded: ".",
        Heartbeat: "h",
    }
    return "".join(letters[type(event)] for event in events(path))


def epochs(path: Path) -> list[EpochsEnded]:
    return [event for event in events(path) if isinstance(event, EpochsEnded)]


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.005)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own, which finds cbmon and shows no TensorFlow chatter."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, timeout=120)


# Hooks called by hand: no Keras.


def begin(monitor: Monitor, epochs: int = 3) -> None:
    """What Keras does before the first epoch."""
    optimizer = SimpleNamespace(learning_rate=0.5)
    monitor.set_model(SimpleNamespace(optimizer=optimizer, stop_training=False))
    monitor.set_params({"epochs": epochs, "steps": 7, "verbose": 0})
    monitor.on_train_begin({})


def run_epoch(monitor: Monitor, epoch: int, logs: Any = None) -> None:
    monitor.on_epoch_begin(epoch, {})
    monitor.on_train_batch_begin(0, {})
    monitor.on_train_batch_end(0, {"loss": 1.0})
    monitor.on_epoch_end(epoch, {"loss": 1.0} if logs is None else logs)


def drive(monitor: Monitor, count: int = 1) -> None:
    """A whole fit by hand."""
    begin(monitor, count)
    for epoch in range(count):
        run_epoch(monitor, epoch)
    monitor.on_train_end({})


def test_a_look_in_the_file_is_not_taken_for_a_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes every ten seconds: whoever has only the file must not take the pause for a standstill."""
    monkeypatch.setattr(fit_module, "PROGRESS_S", 0)
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    monitor.on_epoch_begin(0, {})
    for batch in range(4):
        monitor.on_train_batch_begin(batch, {})
        monitor.on_train_batch_end(batch, {"loss": 1.0})
    wait_for(lambda: path.exists() and "p" in kinds(path))
    run = Run()
    for event in events(path):
        fold(run, event)
    assert run.progress is not None
    fold(run, Tick(time=(run.progress.time or 0.0) + 9))
    assert idle_since(run) is None
    fold(run, Tick(time=(run.progress.time or 0.0) + 3600))
    assert idle_since(run) == run.progress.time
    monitor.on_train_end({})


def test_a_folder_gets_one_new_file_per_instance(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "logs"
    drive(Monitor(folder))
    drive(Monitor(str(folder) + "/"))
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 2
    assert all(
        len(name) == len("2026-11-23_04-50-12_ab12.jsonl") and name.endswith(".jsonl") for name in names
    )


def test_a_record_says_what_was_planned_what_came_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    before = time.time()
    drive(Monitor(path), 2)
    started, first, _, ended = events(path)
    assert isinstance(started, RunStarted)
    assert (started.epochs, started.steps, started.process) == (2, 7, this_process())
    assert len(started.run_id) == 32
    assert isinstance(first, EpochsEnded)
    assert first.time is not None
    assert before <= first.time <= time.time()
    assert (first.epochs, first.metrics, first.learning_rate) == ([0], {"loss": [1.0]}, [0.5])
    assert isinstance(ended, RunEnded)
    assert (ended.how, ended.by) == ("finished", [])


def test_records_are_for_the_owner_only(tmp_path: Path) -> None:
    drive(Monitor(tmp_path / "run.jsonl"))
    assert stat.S_IMODE((tmp_path / "run.jsonl").stat().st_mode) == 0o600


def test_nothing_is_written_before_training_begins(tmp_path: Path) -> None:
    Monitor(tmp_path / "run.jsonl")
    Monitor(tmp_path / "logs")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path",
    ["run.CSV", "run.json", "runs.d", "unix://run", "unix:///tmp/a.jsonl", "gs://bucket/logs", "v1.0", ""],
)
def test_a_place_that_monitor_cannot_write_is_refused_at_once(path: str) -> None:
    with pytest.raises(ValueError, match=r"folder .* or a \.csv file"):
        Monitor(path)


def test_a_folder_with_a_dot_in_its_name_ends_in_a_slash(tmp_path: Path) -> None:
    drive(Monitor(f"{tmp_path}/v1.0/"))
    assert kinds(only_file(tmp_path / "v1.0")) == "se."


def test_an_existing_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    drive(Monitor(path))
    before = path.read_bytes()
    drive(Monitor(path))
    assert path.read_bytes().startswith(before)
    assert kinds(path) == "se.se."


def test_a_torn_last_line_of_an_existing_file_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"event":"run_sta')
    drive(Monitor(path))
    torn, *lines = path.read_bytes().splitlines(keepends=True)
    assert torn == b'{"event":"run_sta\n'
    assert not [line for line in lines if isinstance(decode_line(line), Malformed)]
    assert len(lines) == 3


def test_several_fits_of_one_instance_are_attempts_in_one_file(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "logs")
    drive(monitor, 2)
    drive(monitor)
    path = only_file(tmp_path / "logs")
    assert kinds(path) == "see.se."
    assert len({event.run_id for event in events(path) if isinstance(event, RunStarted)}) == 1


def test_two_runs_of_one_second_and_one_id_take_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "2026-11-23_04-50-12")
    monkeypatch.setattr("uuid.uuid4", lambda: SimpleNamespace(hex="ab12" * 8))
    drive(Monitor(tmp_path))
    drive(Monitor(tmp_path))
    assert [kinds(path) for path in tmp_path.iterdir()] == ["se.", "se."]


@pytest.mark.parametrize("name", ["logs", "run.jsonl"])
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("is_used", [False, True])
def test_each_copy_records_a_run_of_its_own(
    tmp_path: Path, name: str, copied: Callable[[Monitor], Monitor], is_used: bool
) -> None:
    monitor = Monitor(tmp_path / name)
    if is_used:
        begin(monitor)  # a copy in the middle of a fit holds no thread, file or model either
    twins = [copied(monitor), copied(monitor)]
    for each in [monitor, *twins]:
        drive(each)
    paths = list(tmp_path.rglob("*.jsonl"))
    assert len(paths) == 3
    assert sorted(map(kinds, paths)) == sorted(["s.se." if is_used else "se.", "se.", "se."])
    assert len({events(path)[0].run_id for path in paths}) == 3  # type: ignore[union-attr]


class Named(Monitor):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.label = "mine"


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_a_subclass_has_what_that_keeps(tmp_path: Path, copied: Callable[[Any], Any]) -> None:
    monitor = Named(tmp_path)
    begin(monitor)
    twin = copied(monitor)
    monitor.on_train_end()
    assert twin.label == "mine"
    assert vars(twin).keys() == vars(Named(tmp_path)).keys()


def test_every_number_is_kept_to_the_bit_and_the_rest_costs_its_own_value(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")

    class Broken:
        def __float__(self) -> float:
            raise RuntimeError("no number today")

    logs = {
        "a": 0.1,
        "b": np.float32(0.1),
        "c": np.float64(1 / 3),
        "d": 5e-324,
        "minus zero": -0.0,
        "int": 3,
        "bool": True,
        "zero_d": np.array(2.5),
        "nan": math.nan,
        "inf": np.float32("inf"),
        "-inf": -math.inf,
        "absent": None,
        "text": "0.5",
        "vector": np.array([0.5]),
        "list": [1.0],
        "broken": Broken(),
        "huge": 10**400,
        "lone \ud800": 1.0,
        "learning_rate": 9.0,
        "lr": 9.0,
    }
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor)
    run_epoch(monitor, 0, MappingProxyType(logs))  # which cannot be mutated
    monitor.on_train_end()
    (epoch,) = epochs(tmp_path / "run.jsonl")
    values = {name: value for name, (value,) in epoch.metrics.items()}
    assert math.isnan(values.pop("nan") or 0.0)
    assert repr(values.pop("minus zero")) == "-0.0"
    assert values == {
        "a": 0.1,
        "b": 0.10000000149011612,
        "c": 1 / 3,
        "d": 5e-324,
        "int": 3.0,
        "bool": 1.0,
        "zero_d": 2.5,
        "inf": math.inf,
        "-inf": -math.inf,
        "absent": None,
        "text": None,
        "vector": None,
        "list": None,
        "broken": None,
        "huge": None,
        "lone \\ud800": 1.0,
    }
    assert sorted(epoch.not_numbers) == ["broken", "huge", "list", "text", "vector"]
    assert epoch.learning_rate == [0.5]


def test_a_learning_rate_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor)
    monitor._model.optimizer = SimpleNamespace()
    run_epoch(monitor, 0)
    monitor.on_train_end()
    assert [epoch.learning_rate for epoch in epochs(tmp_path / "run.jsonl")] == [None]


def test_hooks_never_raise_and_say_the_first_failure_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    monitor.on_epoch_end(0, {"loss": 1.0})  # before any fit
    monitor.on_train_end()
    begin(monitor)
    for _ in range(2):
        monitor.on_epoch_end("one", {"loss": 1.0})  # type: ignore[arg-type]
        monitor.on_epoch_end(0, 7)  # type: ignore[arg-type]
    run_epoch(monitor, 0)
    monitor.on_train_end()
    assert kinds(tmp_path / "run.jsonl") == "se."
    assert capfd.readouterr().err.count("training goes on") == 1


def test_a_place_that_cannot_be_made_is_said_once_and_costs_the_training_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    drive(Monitor(tmp_path / "file" / "logs"), 3)
    assert capfd.readouterr().err.count("cbmon: cannot write") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_what_a_full_disk_refused_is_written_when_there_is_room(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.jsonl"
    path.symlink_to("/dev/full")
    monitor = Monitor(path)
    begin(monitor)
    run_epoch(monitor, 0)
    run_epoch(monitor, 1)
    assert monitor._recorder is not None
    wait_for(lambda: monitor._recorder._refused.count(b"\n") == 2)  # type: ignore[union-attr]
    path.unlink()
    run_epoch(monitor, 2)
    monitor.on_train_end()
    assert kinds(path) == "seee."
    assert [epoch.epochs for epoch in epochs(path)] == [[0], [1], [2]]
    said = capfd.readouterr().err
    assert said.count("cannot write") == said.count("is written again") == 1


def test_a_line_that_the_disk_took_by_half_is_written_again_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    wait_for(lambda: path.exists() and path.read_bytes().endswith(b"\n"))
    write, refusals = os.write, iter([False, True])

    def write_half(file: int, data: bytes) -> int:
        if next(refusals, None):
            raise OSError(28, "No space left on device")
        return write(file, data[: len(data) // 2] if b'"epochs":[0]' in data else data)

    monkeypatch.setattr(os, "write", write_half)
    run_epoch(monitor, 0)
    wait_for(lambda: bool(monitor._recorder and monitor._recorder._refused))
    monkeypatch.setattr(os, "write", write)
    run_epoch(monitor, 1)
    monitor.on_train_end()
    read = [decode_line(line) for line in path.read_bytes().splitlines()]
    assert [type(event) for event in read] == [RunStarted, Malformed, EpochsEnded, EpochsEnded, RunEnded]


def test_a_folder_removed_during_the_run_is_made_again_with_the_start_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.jsonl"
    monitor = Monitor(path)
    begin(monitor)
    run_epoch(monitor, 0)
    wait_for(lambda: path.exists() and kinds(path) == "se")
    shutil.rmtree(tmp_path / "logs")
    run_epoch(monitor, 1)
    monitor.on_train_end()
    assert kinds(path) == "se."
    assert epochs(path)[0].epochs == [1]


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, free, write = tmp_path / "run.jsonl", threading.Event(), os.write

    def hang(file: int, data: bytes) -> int:
        free.wait()
        return write(file, data)

    monkeypatch.setattr(os, "write", hang)
    recorder = Recorder(path, JsonLines(RunStarted(run_id="r")), is_new=True)
    for epoch in range(3):
        recorder.put(EpochsEnded(epochs=[epoch]))
    recorder.close(0.01)
    assert recorder._thread.is_alive()
    free.set()
    recorder._thread.join(10)
    assert kinds(path) == "seee"


def test_a_queue_that_is_full_takes_nothing_more_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recorder_module, "WAITING_MAX", 0)
    recorder = Recorder(tmp_path / "run.jsonl", JsonLines(RunStarted(run_id="r")), is_new=True)
    recorder.put(EpochsEnded(epochs=[0]))
    recorder.put(EpochsEnded(epochs=[1]))
    recorder.close()
    assert kinds(tmp_path / "run.jsonl") == "s"
    assert capfd.readouterr().err.count("are not recorded") == 1


def test_of_epochs_with_a_thousand_metrics_few_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    monkeypatch.setattr(Recorder, "_open", lambda self: free.wait())
    recorder = Recorder(tmp_path / "run.jsonl", JsonLines(RunStarted(run_id="r")), is_new=True)
    wide = {f"m{number}": [0.5] for number in range(1000)}
    for epoch in range(400):
        recorder.put(EpochsEnded(epochs=[epoch], metrics=wide))
        recorder.put(Heartbeat())
    assert 150 < recorder._waiting.qsize() < 200
    monkeypatch.undo()
    free.set()
    recorder.close()


def test_a_long_silence_is_broken_by_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "HEARTBEAT_S", 0.01)
    recorder = Recorder(tmp_path / "run.jsonl", JsonLines(RunStarted(run_id="r")), is_new=True)
    path = tmp_path / "run.jsonl"
    wait_for(lambda: path.exists() and path.read_bytes().count(b"heartbeat") >= 2)
    recorder.close()
    assert kinds(path).startswith("shh")


def test_a_fit_that_raised_is_interrupted_once_a_new_fit_of_the_instance_begins_a_new_attempt(
    tmp_path: Path,
) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor)
    run_epoch(monitor, 0)
    first = monitor._recorder
    drive(monitor)
    assert kinds(tmp_path / "run.jsonl") == "se.se."
    assert first is not None
    assert not first._thread.is_alive()


def test_a_monitor_that_is_dropped_after_a_fit_that_raised_ends_its_thread(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run.jsonl")
    begin(monitor)
    run_epoch(monitor, 0)
    assert monitor._recorder is not None
    thread = monitor._recorder._thread
    del monitor
    assert not thread.is_alive()
    assert kinds(tmp_path / "run.jsonl") == "se."


DRIVER = """
import os, sys
from types import SimpleNamespace
from cbmon.callbacks import Monitor

def begin(monitor):
    monitor.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.5), stop_training=False))
    monitor.set_params({"epochs": 2, "steps": 7})
    monitor.on_train_begin()

monitor = Monitor(sys.argv[1])
begin(monitor)
monitor.on_epoch_end(0, {"loss": 1.0})
"""


def test_an_uncaught_exception_still_gets_the_last_epoch_to_the_disk(tmp_path: Path) -> None:
    assert python(DRIVER + "1 / 0", tmp_path / "run.jsonl").returncode == 1
    assert kinds(tmp_path / "run.jsonl") == "se."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_nothing_into_its_parents_record_but_may_train_itself(tmp_path: Path) -> None:
    script = (
        DRIVER
        + """
if os.fork() == 0:
    monitor.on_epoch_end(7, {"loss": 7.0})
    monitor.on_train_end()
    begin(monitor)
    monitor.on_train_end()
    sys.exit()
os.wait()
monitor.on_train_end()
"""
    )
    result = python(script, tmp_path / "run.jsonl")
    assert (result.returncode, result.stderr) == (0, "")
    assert kinds(tmp_path / "run.jsonl") == "se."
    assert sorted(kinds(path) for path in tmp_path.iterdir()) == ["s.", "se."]


def test_a_forked_child_keeps_no_events_that_nobody_would_write(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl", JsonLines(RunStarted(run_id="r")), is_new=True)
    if (pid := os.fork()) == 0:
        recorder.put(Heartbeat())
        os._exit(recorder._waiting.qsize())
    assert os.waitpid(pid, 0)[1] == 0
    recorder.close()


def test_importing_the_callbacks_loads_no_keras_and_nothing_of_the_screen() -> None:
    result = python("import sys, cbmon.callbacks; print(*sys.modules)")
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert "cbmon" in loaded
    assert not loaded & {
        "keras",
        "tf_keras",
        "tensorflow",
        "jax",
        "torch",
        "numpy",
        "textual",
        "rich",
        "click",
        "polars",
    }


# Real fits.


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    keras = pytest.importorskip("keras", reason="real fits need Keras")
    pytest.importorskip("tensorflow", reason="real fits are on TensorFlow")
    return keras


def fit(keras: Any, callbacks: list[Any], rate: Any = 0.1, **options: Any) -> Any:
    """A small seeded fit with validation, four epochs of three steps; returns the model."""
    np = pytest.importorskip("numpy")
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).random((48, 4), dtype="float32")
    y = (x.sum(axis=1) > 2).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"])
    defaults = {"epochs": 4, "batch_size": 16, "verbose": 0, "validation_data": (x[:16], y[:16])}
    model.fit(x, y, callbacks=callbacks, **(defaults | options))
    return model


def flat_cut(keras: Any) -> Any:
    """Cuts the learning rate by half after each epoch but the first: a falling loss never improves up."""
    return keras.callbacks.ReduceLROnPlateau("loss", mode="max", factor=0.5, patience=1, min_delta=0)


@pytest.mark.parametrize(
    "options", [{}, {"validation_freq": 2}, {"initial_epoch": 2}, {"validation_data": None}]
)
def test_monitor_and_csvlogger_side_by_side_agree_on_every_metric_to_the_bit(
    keras: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    fit(keras, [flat_cut(keras), Monitor(tmp_path / "run.jsonl"), logger], **options)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    recorded = epochs(tmp_path / "run.jsonl")
    assert [event.epochs[0] for event in recorded] == [int(row["epoch"]) for row in rows]
    assert recorded
    for event, row in zip(recorded, rows, strict=True):
        logged = {name: float(cell) for name, cell in row.items() if name != "epoch" and cell != "NA"}
        assert event.learning_rate == [logged.pop("learning_rate")]
        assert event.metrics == {name: [value] for name, value in logged.items()}


LISTS: dict[str, Callable[[Any, Any, Any], list[Any]]] = {
    "before": lambda monitor, cut, keep: [monitor, cut],
    "after": lambda monitor, cut, keep: [cut, monitor],
    "before both": lambda monitor, cut, keep: [monitor, keep, cut],
    "after both, key overwritten": lambda monitor, cut, keep: [cut, keep, monitor],
    "between": lambda monitor, cut, keep: [cut, monitor, keep],
}


@pytest.mark.parametrize("order", LISTS)
def test_the_learning_rate_is_the_one_in_effect_at_any_place_in_the_list(
    keras: Any, tmp_path: Path, order: str
) -> None:
    keep = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)
    fit(keras, LISTS[order](Monitor(tmp_path / "run.jsonl"), flat_cut(keras), keep))
    rates = [rate for event in epochs(tmp_path / "run.jsonl") for rate in event.learning_rate or []]
    assert rates == pytest.approx(RATES, rel=1e-7)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_scheduler_before_or_after_monitor_gives_the_rate_it_set(
    keras: Any, tmp_path: Path, is_first: bool
) -> None:
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 * 0.5**epoch)
    monitor = Monitor(tmp_path / "run.jsonl")
    fit(keras, [scheduler, monitor] if is_first else [monitor, scheduler])
    rates = [rate for event in epochs(tmp_path / "run.jsonl") for rate in event.learning_rate or []]
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.0125], rel=1e-7)


def test_a_schedule_object_gives_the_rate_of_each_epochs_first_step(keras: Any, tmp_path: Path) -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5)
    fit(keras, [Monitor(tmp_path / "run.jsonl")], rate=schedule)
    rates = [rate for event in epochs(tmp_path / "run.jsonl") for rate in event.learning_rate or []]
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.0125], rel=1e-6)


def test_a_mirrored_learning_rate_and_a_loss_scaled_optimizer_are_read(keras: Any, tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    with tensorflow.distribute.MirroredStrategy(["CPU:0"]).scope():
        fit(keras, [Monitor(tmp_path / "run.jsonl")], epochs=1)
    monitor = Monitor(tmp_path / "run.jsonl")
    monitor.set_model(
        SimpleNamespace(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5)))
    )
    monitor.on_train_begin()
    monitor.on_epoch_end(0, {})
    monitor.on_epoch_begin(1)
    monitor.on_epoch_end(1, {})
    monitor.on_train_end()
    assert [epoch.learning_rate for epoch in epochs(tmp_path / "run.jsonl")] == [
        [0.10000000149011612],
        [0.5],
        [0.5],
    ]


def test_weights_history_and_logs_are_the_same_with_and_without_monitor(keras: Any, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")

    class Shared(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types here
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seen.append(repr(logs))

    runs = []
    for monitors in ([], [Monitor(tmp_path / "run.jsonl")]):
        shared = Shared()
        model = fit(keras, [flat_cut(keras), *monitors, shared])
        runs.append((model.get_weights(), model.history.history, shared.seen))
    assert kinds(tmp_path / "run.jsonl") == "secececec."
    (weights, *plain), (monitored_weights, *monitored) = runs
    assert plain == monitored
    assert all(np.array_equal(one, other) for one, other in zip(weights, monitored_weights, strict=True))


def test_a_record_names_keras_and_its_backend_and_counts_from_initial_epoch(
    keras: Any, tmp_path: Path
) -> None:
    fit(keras, [Monitor(tmp_path / "run.jsonl")], initial_epoch=2)
    started = events(tmp_path / "run.jsonl")[0]
    assert isinstance(started, RunStarted)
    assert (started.keras, started.backend, started.optimizer) == (keras.__version__, "tensorflow", "SGD")
    assert (started.epochs, started.steps) == (4, 3)
    assert [event.epochs for event in epochs(tmp_path / "run.jsonl")] == [[2], [3]]


def test_a_fit_of_no_epochs_has_a_start_and_an_end(keras: Any, tmp_path: Path) -> None:
    fit(keras, [Monitor(tmp_path / "run.jsonl")], epochs=2, initial_epoch=2)
    assert kinds(tmp_path / "run.jsonl") == "s."


def test_evaluate_and_predict_alone_record_nothing(keras: Any, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    model = fit(keras, [], epochs=1)
    x = np.zeros((8, 4), "float32")
    model.evaluate(x, x[:, 0], verbose=0, callbacks=[Monitor(tmp_path / "logs")])
    model.predict(x, verbose=0, callbacks=[Monitor(tmp_path / "logs")])
    assert not list(tmp_path.iterdir())


def early_stopping(keras: Any, patience: int) -> Any:
    return keras.callbacks.EarlyStopping("loss", mode="max", patience=patience)


def own_stop(keras: Any) -> Any:
    class Enough(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types here
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    return Enough()


STOPS: dict[str, tuple[Callable[[Any], list[Any]], str, list[str]]] = {
    "nobody": (lambda keras: [early_stopping(keras, 9)], "finished", []),
    "patience": (lambda keras: [early_stopping(keras, 2)], "stopped", ["EarlyStopping"]),
    "one of two": (
        lambda keras: [early_stopping(keras, 9), early_stopping(keras, 1)],
        "stopped",
        ["EarlyStopping"],
    ),
    "both": (lambda keras: [early_stopping(keras, 1)] * 2, "stopped", ["EarlyStopping"] * 2),
    "somebody": (lambda keras: [own_stop(keras)], "stopped", []),
}


@pytest.mark.parametrize("who", STOPS)
def test_a_stop_names_the_callbacks_that_stopped_it(keras: Any, tmp_path: Path, who: str) -> None:
    siblings, how, by = STOPS[who]
    fit(keras, [Monitor(tmp_path / "run.jsonl"), *siblings(keras)])
    end = events(tmp_path / "run.jsonl")[-1]
    assert isinstance(end, RunEnded)
    assert (end.how, end.by) == (how, by)


def test_a_loss_that_is_no_number_is_recorded_and_terminate_on_nan_named(keras: Any, tmp_path: Path) -> None:
    fit(keras, [keras.callbacks.TerminateOnNaN(), Monitor(tmp_path / "run.jsonl")], rate=math.nan)
    (epoch,) = epochs(tmp_path / "run.jsonl")
    assert math.isnan(epoch.metrics["loss"][0] or 0.0)
    assert [math.isnan(rate or 0.0) for rate in epoch.learning_rate or []] == [True]
    end = events(tmp_path / "run.jsonl")[-1]
    assert isinstance(end, RunEnded)
    assert (end.how, end.by) == ("stopped", ["TerminateOnNaN"])


def test_a_folder_removed_in_the_middle_of_a_real_fit_does_not_reach_it(keras: Any, tmp_path: Path) -> None:
    class Remove(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types here
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                shutil.rmtree(tmp_path / "logs")

    model = fit(keras, [Monitor(tmp_path / "logs"), Remove()])
    assert len(model.history.epoch) == 4
    assert epochs(only_file(tmp_path / "logs"))[-1].epochs == [3]


def test_asynchronous_batch_dispatch_stays_on_where_keras_has_it(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.src.backend.IS_THREAD_SAFE", True)
    monkeypatch.setattr("keras.src.callbacks.callback_list.backend.IS_THREAD_SAFE", True)
    callbacks = keras.callbacks.CallbackList([Monitor(tmp_path)])
    assert (callbacks._async_train, callbacks._async_test, callbacks._async_predict) == (True, True, True)


# Whole processes.

FIT = """
import os, signal, sys, time
import numpy as np
import {keras} as keras
from cbmon.callbacks import Monitor

def fit(callbacks, rate=0.1, **options):
    keras.utils.set_random_seed(1)  # or a loss may once not fall, and nothing stops
    x = np.random.default_rng(0).random((48, 4)).astype("float32")
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"])
    y = x[:, 0] > 0.5
    model.fit(x, y, epochs=4, batch_size=12, validation_split=0.25, verbose=0, callbacks=callbacks)

def cut():
    return keras.callbacks.ReduceLROnPlateau("loss", mode="max", factor=0.5, patience=1, min_delta=0)

folder = sys.argv[1] + "/"
"""


def test_a_fit_killed_with_9_leaves_every_ended_epoch_and_is_known_to_be_gone(
    keras: Any, tmp_path: Path
) -> None:
    script = """
class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            time.sleep(0.2)  # what a kill may cost, says DESIGN section 8
            os.kill(os.getpid(), signal.SIGKILL)

fit([Monitor(folder + "run.jsonl"), Kill()])
"""
    assert python(FIT.format(keras="keras") + script, tmp_path).returncode == -9
    assert kinds(tmp_path / "run.jsonl") == "seee"
    started = events(tmp_path / "run.jsonl")[0]
    assert isinstance(started, RunStarted)
    assert started.process is not None
    assert this_process().boot_id is None or is_gone(started.process)


@pytest.mark.skipif(importlib.util.find_spec("tf_keras") is None, reason="needs tf_keras")
def test_tf_keras_takes_the_same_class_and_gives_the_same_record(tmp_path: Path) -> None:
    script = """
logger = keras.callbacks.CSVLogger(folder + "log.csv")
fit([Monitor(folder + "before.jsonl"), cut(), Monitor(folder + "after.jsonl"), logger,
     keras.callbacks.EarlyStopping("loss", mode="max", patience=3)])
halving = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5)
fit([Monitor(folder + "schedule.jsonl")], rate=halving)
print(keras.__version__)
"""
    result = python(FIT.format(keras="tf_keras") + script, tmp_path)
    assert (result.returncode, result.stderr if result.returncode else "") == (0, "")
    started, *_, ended = events(tmp_path / "before.jsonl")
    assert isinstance(started, RunStarted)
    assert isinstance(ended, RunEnded)
    assert (started.keras, started.backend, started.optimizer) == (
        result.stdout.split()[-1],
        "tensorflow",
        "SGD",
    )
    assert (ended.how, ended.by) == ("stopped", ["EarlyStopping"])
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(epochs(tmp_path / "before.jsonl")) == 4
    for name in ("before", "after"):
        recorded = epochs(tmp_path / f"{name}.jsonl")
        assert [rate for event in recorded for rate in event.learning_rate or []] == pytest.approx(
            RATES, rel=1e-7
        )
        logged = [
            {key: [float(cell)] for key, cell in row.items() if key not in ("epoch", "lr")} for row in rows
        ]
        assert [event.metrics for event in recorded] == logged
    rates = [rate for event in epochs(tmp_path / "schedule.jsonl") for rate in event.learning_rate or []]
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.0125], rel=1e-6)


def test_two_writers_of_one_file_get_a_file_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.jsonl"
    first, second = Monitor(path), Monitor(path)
    for monitor in (first, second):
        begin(monitor)
        wait_for(lambda: monitor._recorder._has_begun)  # type: ignore[union-attr]  # noqa: B023
    for monitor in (first, second):
        run_epoch(monitor, 0)
        monitor.on_train_end()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        kinds = [json.loads(line)["event"] for line in file.read_text().splitlines()]
        assert kinds == ["run_started", "epochs_ended", "run_ended"]
    assert "this one is recorded in" in capfd.readouterr().err


def test_somebody_elses_jsonl_is_left_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "hi"}\n')
    monitor = Monitor(path)
    begin(monitor)
    run_epoch(monitor, 0)
    monitor.on_train_end()
    assert path.read_text() == '{"prompt": "hi"}\n'
    assert len(list(tmp_path.iterdir())) == 2
    assert "this one is recorded in" in capfd.readouterr().err
