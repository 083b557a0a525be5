"""How a fit ended, as its record and `cbmon show` tell it: real fits of Keras in real processes, few by hand."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cbmon.callbacks import exits
from cbmon.callbacks.exits import Whereabouts, in_words
from cbmon.cli import main
from cbmon.events import CallbackStates, CheckpointSaved, RunEnded
from tests.test_monitor import ROOT, events, kinds, wait_for

HAS_TF_KERAS = importlib.util.find_spec("tf_keras") is not None

STAGE = """
import code, contextlib, gc, json, logging, os, signal, sys, threading, time, weakref
import numpy as np
import keras
from cbmon.callbacks import Monitor
from cbmon.callbacks import recorder as recorder_module

logging.getLogger("tensorflow").setLevel("ERROR")  # small fits are traced anew all the time

def fit(callbacks, keras=keras, data=None, model=None, **options):
    # Four epochs of two steps whose loss falls.
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).random((32, 4)).astype("float32")
    inputs, outputs = keras.layers.Input((4,)), keras.layers.Dense(1)
    model = model or keras.Sequential([inputs, outputs])
    rate = options.pop("rate", 0.01)
    if not getattr(model, "optimizer", None):
        model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    feed = {"x": data} if data is not None else {"x": x, "y": x[:, 0], "batch_size": 16}
    return model.fit(**feed, **{"epochs": 4, "verbose": 0, "callbacks": callbacks, **options})

def call(**hooks):
    # A callback that does this in its hooks, given the number of the epoch or batch.
    callback = keras.callbacks.Callback()
    for hook, do in hooks.items():
        setattr(callback, hook, lambda number=None, logs=None, do=do: do(number))
    return callback

def at(epoch, do):
    # A callback that does this at the end of this epoch, 0-based.
    return call(on_epoch_end=lambda number: do() if number == epoch else None)

def throw(error):
    raise error

def boom():
    # Raises at the end of the second epoch.
    return at(1, lambda: throw(ValueError("boom")))

def mark(name):
    open(name, "w").close()

def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.005)

def record(name="run"):
    with contextlib.suppress(FileNotFoundError), open(f"{name}.jsonl") as file:
        return [json.loads(line) for line in file]
    return []

def is_over(name="run"):
    return record(name)[-1:] != [] and record(name)[-1]["event"] == "run_ended"

gc.freeze()  # so that a fork's collector copies no pages
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), flush=True)
        continue
    if pid := os.fork():
        print(pid, flush=True)
        continue
    os.chdir(request["folder"])
    for number, name in enumerate(["/dev/null", "stdout", "stderr"]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    exec(compile(request["script"], "script.py", "exec"))
    break
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What `cbmon show` says of one record, in JSON and to people."""

    status: str
    end: tuple[str, int | None, str] | None
    """Severity, epoch and words of the alert that tells the end."""
    attempts: list[int]
    text: str
    is_unhealthy: bool

    @property
    def words(self) -> str | None:
        return self.end and self.end[2]


def show(path: Path) -> Shown:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["show", "--check", "--json", str(path)])
    (run,) = json.loads(out.getvalue())["runs"]
    ends = [
        (alert["severity"], alert["epoch"], alert["message"])
        for alert in run["alerts"]
        if alert["kind"] == run["status"]
    ]
    assert len(ends) < 2
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        main(["show", str(path)])
    return Shown(
        status=run["status"],
        end=ends[0] if ends else None,
        attempts=[attempt["epochs"] for attempt in run["attempts"]],
        text=text.getvalue(),
        is_unhealthy=bool(code),
    )


class Play:
    """A script in a process of its own, in a folder of its own."""

    def __init__(self, stage: subprocess.Popen[str], folder: Path, script: str) -> None:
        self._stage = stage
        self.folder = folder
        self.pid = int(self._ask({"folder": str(folder), "script": script}))

    def _ask(self, request: dict[str, Any]) -> str:
        assert self._stage.stdin
        assert self._stage.stdout
        print(json.dumps(request), file=self._stage.stdin, flush=True)
        return self._stage.stdout.readline()

    def end(self) -> int:
        """Wait for its end; gives the exit code, -9 after a kill with 9."""
        return int(self._ask({"wait": self.pid}))

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def path(self, name: str = "run") -> Path:
        return self.folder / f"{name}.jsonl"

    def show(self, name: str = "run") -> Shown:
        return show(self.path(name))

    def end_of(self, name: str = "run") -> RunEnded:
        """The last event of a record."""
        last = events(self.path(name))[-1]
        assert isinstance(last, RunEnded)
        return last


@pytest.fixture(scope="module")
def stage() -> Iterator[subprocess.Popen[str]]:
    """A process that has imported Keras and forks for each script: the import alone takes seconds."""
    if importlib.util.find_spec("keras") is None or not hasattr(os, "fork"):
        pytest.skip("needs Keras and fork")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE],
        env=os.environ | quiet,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        yield process
        assert process.stdin
        process.stdin.close()


def played(stage: subprocess.Popen[str], folder: Path, script: str) -> Play:
    """A play that is over and went well: what its `assert`s say is in the message."""
    play = Play(stage, folder, script)
    assert (play.end(), play.stderr) == (0, "")
    return play


# A process that goes on after its fits.

AFTER = """
recorder_module.LOOK_S = 0.02

def patience(epochs):
    return keras.callbacks.EarlyStopping("loss", mode="max", patience=epochs)

def in_thread(do):
    threading.excepthook = lambda args: None  # what it says is not the matter here
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
    threading.excepthook = threading.__excepthook__


fit([Monitor("finished.jsonl")])
fit([Monitor("no epochs.jsonl")], initial_epoch=4)
fit([Monitor("early.jsonl"), patience(9), patience(2)])
fit([patience(1), Monitor("two.jsonl"), patience(1)])
stop = at(1, lambda: setattr(stop.model, "stop_training", True))
fit([Monitor("own.jsonl"), stop])
fit([Monitor("nan.jsonl"), keras.callbacks.TerminateOnNaN()], rate=np.nan)
try:
    fit([Monitor("nan raised.jsonl"), keras.callbacks.TerminateOnNaN(raise_error=True)], rate=np.nan)
except RuntimeError:
    wait_for(lambda: is_over("nan raised"))
try:
    fit([Monitor("handled.jsonl"), boom()])
except ValueError:
    wait_for(lambda: is_over("handled"))
try:
    fit([Monitor("handled in no time.jsonl"), boom()])
except ValueError:
    pass
in_thread(lambda: fit([Monitor("thread.jsonl"), boom()]))
in_thread(lambda: fit([Monitor("thread exit.jsonl"), at(1, sys.exit)]))
for name in ("handled in no time", "thread", "thread exit"):
    wait_for(lambda: is_over(name))
"""

ENDS: dict[str, tuple[str, int, tuple[str, int | None, str] | None, str]] = {
    "early": (
        "stopped",
        3,
        ("info", 2, "stopped by EarlyStopping after epoch 3"),
        "stopped by EarlyStopping",
    ),
    "two": (
        "stopped",
        2,
        ("info", 1, "stopped by EarlyStopping and EarlyStopping after epoch 2"),
        "stopped by EarlyStopping and EarlyStopping",
    ),
    "own": ("stopped", 2, ("info", 1, "stopped by its own code after epoch 2"), "stopped early"),
    "nan": ("stopped", 1, ("info", 0, "stopped by TerminateOnNaN after epoch 1"), "NaN loss, epoch 1"),
    "nan raised": (
        "failed",
        0,
        (
            "error",
            None,
            "failed: RuntimeError: NaN or Inf loss encountered at batch 1. Loss value: nan. "
            "Terminating training immediately.",
        ),
        "NaN or infinite loss within epoch 1",
    ),
    "handled": (
        "failed",
        2,
        ("error", 1, "failed after epoch 2: ValueError: boom"),
        "failed after epoch 2: ValueError: boom",
    ),
    "handled in no time": ("interrupted", 2, ("info", 1, "interrupted after epoch 2"), "interrupted"),
    "thread": (
        "failed",
        2,
        ("error", 1, "failed after epoch 2: ValueError: boom"),
        "failed after epoch 2: ValueError: boom",
    ),
    "thread exit": ("interrupted", 2, ("info", 1, "interrupted after epoch 2: SystemExit"), "interrupted"),
}
"""By record: status, epochs, the end's alert, and the state in words."""


@pytest.fixture(scope="module")
def after(stage: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Play:
    return played(stage, tmp_path_factory.mktemp("after"), AFTER)


@pytest.mark.parametrize("name", ENDS)
def test_each_end_that_the_process_survives_is_told_apart(after: Play, name: str) -> None:
    status, epochs, end, words = ENDS[name]
    shown = after.show(name)
    assert (shown.status, shown.attempts, shown.end) == (status, [epochs], end)
    assert f" {words}  " in shown.text
    assert shown.is_unhealthy == (status == "failed" or "nan" in name)


@pytest.mark.parametrize(("name", "epochs"), [("finished", 4), ("no epochs", 0)])
def test_a_fit_that_went_through_all_its_epochs_is_finished(after: Play, name: str, epochs: int) -> None:
    shown = after.show(name)
    assert (shown.status, shown.attempts, shown.is_unhealthy) == ("finished", [epochs], False)
    assert " finished  " in shown.text
    assert f" {epochs}/4  " in shown.text


# Processes that end while they train, or nearly.

GENERATOR = """
def batches():
    for _ in range(5):
        yield np.zeros((4, 4), "float32"), np.zeros((4, 1), "float32")
    raise RuntimeError("no more cats")

fit([Monitor("run.jsonl")], data=batches(), steps_per_epoch=2)
"""

STEP = """
class Broken(keras.Model):
    def train_step(self, data):
        raise TypeError("no such layer")

fit([Monitor("run.jsonl")], model=Broken())
"""


def at_second_epoch(do: str) -> str:
    """A script whose fit is left in its second epoch; what came before is on the disk."""
    return f"""
def leave():
    wait_for(lambda: len(record()) > 1)
    {do}

fit([at(1, leave), Monitor("run.jsonl")])
"""


CRASHED = "crashed after epoch 1: the training process is gone and wrote no end"
LAST: dict[str, tuple[str, int, str, str]] = {
    "callback": (
        at_second_epoch("1 / 0"),
        1,
        "failed",
        "failed after epoch 1: ZeroDivisionError: division by zero",
    ),
    "generator": (
        GENERATOR,
        1,
        "failed",
        "failed after epoch 2: UnknownError: Graph execution error: RuntimeError: no more cats",
    ),
    "train_step": (STEP, 1, "failed", "failed: TypeError: no such layer"),
    "sys.exit": (at_second_epoch("sys.exit(3)"), 3, "interrupted", "interrupted after epoch 1"),
    "os._exit": (at_second_epoch("os._exit(3)"), 3, "crashed", CRASHED),
    "SIGTERM": (at_second_epoch("signal.raise_signal(signal.SIGTERM)"), -15, "crashed", CRASHED),
    "SIGKILL": (at_second_epoch("signal.raise_signal(signal.SIGKILL)"), -9, "crashed", CRASHED),
}
"""By what ends the process: script, exit code, status, message."""


@pytest.mark.parametrize("what", LAST)
def test_each_end_of_a_process_is_told_apart(stage: subprocess.Popen[str], tmp_path: Path, what: str) -> None:
    script, code, status, message = LAST[what]
    play = Play(stage, tmp_path, script)
    assert play.end() == code, play.stderr
    shown = play.show()
    assert (shown.status, shown.words) == (status, message)
    assert shown.is_unhealthy == (status != "interrupted")
    assert f" {message}  " in shown.text or (status == "interrupted" and " interrupted  " in shown.text)


TRAIN_AND_WAIT = """
def wait():
    mark("here")
    time.sleep(60)  # a signal ends it

def train():
    fit([Monitor("run.jsonl"), at(1, wait)])
"""


def test_ctrl_c_that_ends_the_script_is_an_interruption_and_no_failure(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    play = Play(stage, tmp_path, TRAIN_AND_WAIT + "train()")
    wait_for((tmp_path / "here").exists)
    wait_for(lambda: kinds(play.path()) == "see")
    running = play.show()
    assert (running.status, running.is_unhealthy) == ("running", False)
    os.kill(play.pid, signal.SIGINT)
    assert play.end() == -signal.SIGINT
    shown = play.show()
    assert shown.status == "interrupted"
    assert shown.end == ("info", 1, "interrupted after epoch 2: KeyboardInterrupt")
    assert not shown.is_unhealthy


@pytest.mark.parametrize(
    ("do", "message", "sentence"),
    [
        ("pass", "interrupted after epoch 2", "it was over before anybody could ask for it"),
        (
            "kept.append(error)",
            "interrupted after epoch 2",
            "its frames live on, as after a logger or in pdb",
        ),
        ("go_on()", "interrupted after epoch 2: KeyboardInterrupt", "it is still being handled"),
    ],
)
def test_ctrl_c_that_the_script_catches_is_told_within_seconds_while_the_process_lives_on(
    stage: subprocess.Popen[str], tmp_path: Path, do: str, message: str, sentence: str
) -> None:
    script = f"""
def go_on():
    mark("caught")
    wait_for(lambda: os.path.exists("enough"))

kept = []
try:
    train()
except KeyboardInterrupt as error:
    {do}
if not os.path.exists("caught"):
    go_on()
"""
    play = Play(stage, tmp_path, TRAIN_AND_WAIT + script)
    wait_for((tmp_path / "here").exists)
    os.kill(play.pid, signal.SIGINT)
    wait_for(lambda: (tmp_path / "caught").exists() and kinds(play.path()) == "see.")
    os.kill(play.pid, 0)  # it is there
    shown = play.show()
    assert (shown.status, shown.words) == ("interrupted", message), sentence
    assert (play.end_of().time or 0.0) - (tmp_path / "caught").stat().st_mtime < 4, "asked every 2 s"
    (tmp_path / "enough").touch()
    assert (play.end(), play.stderr) == (0, "")
    assert play.show() == shown, "the end of the process adds nothing"


@pytest.mark.parametrize("shows", ["through the hook", "by itself"])
def test_a_notebooks_cell_that_raises_is_told_at_once_and_the_next_cell_is_a_new_attempt(
    stage: subprocess.Popen[str], tmp_path: Path, shows: str
) -> None:
    script = f"""
class Shell(code.InteractiveConsole):
    if {shows == "by itself"}:  # as IPython does
        def showtraceback(self):
            sys.last_value = sys.exc_info()[1]

if {shows == "by itself"}:
    recorder_module.LOOK_S = 0.02

shell = Shell(globals())
shell.runsource('monitor = Monitor("run.jsonl")')
shell.runsource('fit([monitor, boom()])')
wait_for(is_over)
mark("first")
shell.runsource('fit([monitor])')
shell.runsource('1 / 0')
shell.runsource('fit([monitor, at(0, lambda: throw(KeyboardInterrupt()))])')
wait_for(lambda: len([event for event in record() if event["event"] == "run_ended"]) == 3)
"""
    play = Play(stage, tmp_path, script)
    assert play.end() == 0, play.stderr
    assert kinds(play.path()) == "see.seeee.se."
    ends = [event for event in events(play.path()) if isinstance(event, RunEnded)]
    assert [(end.how, end.error) for end in ends] == [
        ("failed", "ValueError: boom"),
        ("finished", ""),
        ("interrupted", "KeyboardInterrupt"),
    ]
    shown = play.show()
    assert (shown.status, shown.attempts) == ("interrupted", [2, 4, 1])


def test_retries_with_one_monitor_are_attempts_though_python_gives_them_all_one_address(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
monitor = Monitor("run.jsonl")
for number in range(3):
    try:
        fit([monitor, at(number, lambda: throw(ValueError()))])
    except ValueError:
        pass
fit([monitor])
"""
    play = played(stage, tmp_path, script)
    assert kinds(play.path()) == "se.see.seee.seeee."
    assert (play.show().status, play.show().attempts) == ("finished", [1, 2, 3, 4])


def test_a_monitor_that_nobody_holds_any_more_ends_its_record(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
kept = []

def handled():
    try:
        fit([Monitor("run.jsonl"), boom()])
    except ValueError as error:
        kept.append(error)  # so that its frames, and in them the callbacks, live on

recorder_module.LOOK_S = 1000
handled()
assert not is_over()
kept.clear()
gc.collect()
assert is_over()
"""
    play = played(stage, tmp_path, script)
    assert play.show().words == "interrupted after epoch 2"


def test_a_fit_inside_a_fit_of_one_monitor_is_left_out_and_the_outer_one_goes_on(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
def inner(*more):
    with contextlib.suppress(ValueError):
        fit([monitor, *more], epochs=2)

def inner_held():
    try:
        fit([monitor, boom()], epochs=2)
    except ValueError as error:
        kept.append(error)

kept = []
monitor = Monitor("run.jsonl")
fit([monitor, at(0, inner), at(1, lambda: inner(boom())), at(2, inner_held)])
other = Monitor("inner.jsonl")
monitor = Monitor("outer.jsonl")
fit([monitor, at(0, lambda: inner(other)), at(1, lambda: inner(other, boom()))])
"""
    play = Play(stage, tmp_path, script)
    assert play.end() == 0, play.stderr
    assert set(play.stderr.splitlines()) == {
        f"cbmon: Monitor({name!r}) records one fit at a time: one that begins meanwhile is left out"
        for name in ("run.jsonl", "outer.jsonl")
    }
    assert play.stderr.count("\n") == 5
    for name in ("run", "outer"):
        assert kinds(play.path(name)) == "seeee."
        assert play.show(name).status == "finished"
    assert kinds(play.path("inner")) == "see.see."
    inner = [event.how for event in events(play.path("inner")) if isinstance(event, RunEnded)]
    assert inner == ["finished", "interrupted"]


def test_hooks_of_the_users_own_are_called_and_put_back_or_left_in_place(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
def mine(kind, error, trace):
    print("mine", error, file=sys.stderr)

def later(kind, error, trace):
    print("later", error, file=sys.stderr)
    before_later(kind, error, trace)

def show_what_is_handled():
    try:
        1 / 0
    except ZeroDivisionError:
        sys.excepthook(*sys.exc_info())

def set_later():
    global before_later
    before_later = sys.excepthook
    sys.excepthook = later

def hooks():
    return [sys.excepthook, threading.excepthook]

sys.excepthook = mine
before = hooks()
seen = []
fit([Monitor("run.jsonl"), at(0, lambda: seen.extend(hooks())), at(1, show_what_is_handled)])
assert not set(seen) & set(before)
assert hooks() == before, "put back after a fit"
try:
    fit([Monitor("handled.jsonl"), boom()])
except ValueError:
    pass
wait_for(lambda: hooks() == before)
fit([Monitor("later.jsonl"), at(0, set_later)])
assert hooks() == [later, before[1]], "one that was set during the fit stays"
fit([Monitor("next.jsonl")])
assert hooks() == [later, before[1]]
fit([Monitor("uncaught.jsonl"), boom()])
"""
    play = Play(stage, tmp_path, script)
    assert play.end() == 1
    assert play.stderr.splitlines() == ["mine division by zero", "later boom", "mine boom"]
    assert [play.show(name).status for name in ("run", "handled", "later", "next")] == [
        "finished",
        "interrupted",
        "finished",
        "finished",
    ]
    assert play.show("uncaught").words == "failed after epoch 2: ValueError: boom"


def test_neither_the_model_nor_the_data_live_longer_for_being_monitored(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
def train(raises):
    # What still lives: the data once `fit` has returned, the model once nobody else holds it.
    data = np.zeros((32, 4), "float32")
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    refs = weakref.ref(data), weakref.ref(model)
    monitor = Monitor("run.jsonl")

    def look(epoch):
        monitor._recorder.whereabouts.is_running()
        if raises:
            raise ValueError

    callbacks = [monitor, call(on_epoch_end=look)]
    try:
        model.fit(data, data[:, 0].copy(), verbose=0, epochs=2, callbacks=callbacks)
    except ValueError:
        pass
    del data
    gc.collect()
    lives = [refs[0]() is not None]
    del model, monitor, callbacks, look
    gc.collect()
    return [*lives, refs[1]() is not None]

for raises in (False, True):
    assert train(raises) == [False, False], raises
"""
    played(stage, tmp_path, script)


# What the other callbacks say.

SCORES = """
class Score(keras.callbacks.Callback):
    # Puts these values into the logs, for whoever comes later in the list.
    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.values[epoch]
"""


def test_the_restored_epoch_is_the_one_whose_weights_the_model_has(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
def restoring(patience):
    return keras.callbacks.EarlyStopping("score", mode="min", patience=patience, restore_best_weights=True)

truth = {}
for name, values, patience in (
    ("stopped", [3.0, 1.0, 2.0, 2.0], 2),
    ("ran to its end", [3.0, 2.0, 1.0, 2.0], 9),
    ("best was last", [4.0, 3.0, 2.0, 1.0], 9),
    ("nothing to judge by", [np.nan, np.nan, np.nan, np.nan], 9),
):
    weights = []
    keep = call(on_epoch_end=lambda epoch: weights.append(keep.model.get_weights()))
    monitors = [Monitor(f"{name} {place}.jsonl") for place in ("before", "after")]
    fit([Score(values), keep, monitors[0], restoring(patience), monitors[1]])
    truth[name] = [
        epoch for epoch, then in enumerate(weights)
        if all(map(np.array_equal, then, keep.model.get_weights()))
    ]
fit([Score([1.0, 2.0, 3.0, 4.0]), Monitor("two.jsonl"), restoring(1), restoring(9)])
fit([keras.callbacks.EarlyStopping("loss"), Monitor("restores nothing.jsonl")])
json.dump(truth, open("truth.json", "w"))
"""
    play = played(stage, tmp_path, SCORES + script)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["stopped"] == [1]
    for place in ("before", "after"):
        assert {name: [play.end_of(f"{name} {place}").restored] for name in truth} == truth
    assert (play.end_of("two").restored, play.end_of("two").by) == (0, ["EarlyStopping"])
    assert play.end_of("restores nothing").restored is None


def test_what_callbacks_have_counted_is_recorded_as_they_have_it_at_any_place_in_the_list(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
values = [1.0, 0.9, 1.1, 1.2, 0.8, 0.85, 0.9, np.nan]
stop = keras.callbacks.EarlyStopping("score", mode="min", patience=5)
cut = keras.callbacks.ReduceLROnPlateau("score", mode="min", patience=1, cooldown=2, factor=0.5)
truth = []

def look(epoch):
    truth.append([
        ["EarlyStopping", "score", 5, stop.wait, stop.best, stop.best_epoch, None],
        ["ReduceLROnPlateau", "score", 1, cut.wait, cut.best, None, cut.cooldown_counter],
    ])

places = [Monitor(f"{place}.jsonl") for place in range(4)]
score = Score(values)
fit([places[0], score, places[1], stop, places[2], cut, places[3], call(on_epoch_end=look)], epochs=8)
json.dump(truth, open("truth.json", "w"))
"""
    play = played(stage, tmp_path, SCORES + script)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [row[0][3] for row in truth] == [0, 0, 1, 2, 0, 1, 2, 3], "the table of the test tells something"
    assert [row[1][6] for row in truth] == [0, 0, 2, 1, 0, 2, 1, 2]
    for place in range(4):
        seen = [event for event in events(play.path(str(place))) if isinstance(event, CallbackStates)]
        assert [event.epoch for event in seen] == list(range(8))
        recorded = [
            [
                [each.name, each.monitor, each.patience, each.wait, each.best, each.best_epoch, each.cooldown]
                for each in event.states
            ]
            for event in seen
        ]
        assert recorded == truth


def test_a_callback_that_cannot_be_asked_costs_only_what_it_would_have_told(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
class EarlyStopping(keras.callbacks.Callback):
    # The user's own, of the same name.
    monitor = property(lambda self: 1 / 0)
    best = stopped_epoch = restore_best_weights = monitor

each_batch = keras.callbacks.ModelCheckpoint("{epoch}-{batch}.keras", save_freq=2)
each_epoch = keras.callbacks.ModelCheckpoint("{epoch}.keras")
stop = keras.callbacks.EarlyStopping("score", mode="min", restore_best_weights=True)
fit([Score([1.0, 2.0]), EarlyStopping(), each_batch, Monitor("run.jsonl"), each_epoch, stop])
"""
    play = played(stage, tmp_path, SCORES + script)
    end = play.end_of()
    assert (end.how, end.by, end.restored) == ("stopped", ["EarlyStopping"], 0)
    seen = events(play.path())
    assert [len(event.states) for event in seen if isinstance(event, CallbackStates)] == [1, 1]
    paths = [event.path for event in seen if isinstance(event, CheckpointSaved)]
    assert paths == ["1.keras", "2.keras"]


def test_the_checkpoints_of_a_record_are_those_that_were_saved_in_their_epochs(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
def saver(path, **options):
    return keras.callbacks.ModelCheckpoint(path, **{"monitor": "score", "mode": "min"} | options)

callbacks = [
    Score([3.0, 4.0, 2.0, 5.0]),
    saver("saved/every-{epoch:02d}.keras"),
    saver("saved/score-{epoch}-{score:.2f}.weights.h5", save_weights_only=True),
    saver("saved/best.keras", save_best_only=True),
    saver("saved/best-{epoch}-{loss:.3f}.keras", save_best_only=True),
    saver("saved/last.weights.h5", save_weights_only=True),
]
saved = []
for kind, method in ((keras.Model, "save"), (keras.Model, "save_weights")):
    def save(model, path, *args, real=getattr(kind, method), **options):
        saved.append([epoch, path])
        return real(model, path, *args, **options)
    setattr(kind, method, save)

epoch = None

def begin(number):
    global epoch
    epoch = number

first, last = Monitor("first.jsonl"), Monitor("last.jsonl")
fit([call(on_epoch_begin=begin), first, *callbacks, last])
json.dump(saved, open("truth.json", "w"))
"""
    play = played(stage, tmp_path, SCORES + script)
    saved = json.loads((tmp_path / "truth.json").read_text())
    assert len(saved) == 4 + 4 + 2 + 2 + 4
    for name in ("first", "last"):
        seen = [event for event in events(play.path(name)) if isinstance(event, CheckpointSaved)]
        assert [[event.epoch, event.path] for event in seen] == saved
        on_disk = {str(path.relative_to(tmp_path)) for path in (tmp_path / "saved").iterdir()}
        assert {event.path for event in seen} == on_disk


def test_a_checkpoint_of_the_fit_just_before_is_not_counted_again(
    stage: subprocess.Popen[str], tmp_path: Path
) -> None:
    script = """
best = keras.callbacks.ModelCheckpoint("best.keras", "score", mode="min", save_best_only=True)
monitor = Monitor("run.jsonl")
for score in (1.0, 2.0, 0.5):
    fit([Score([score]), best, monitor], epochs=1)
"""
    play = played(stage, tmp_path, SCORES + script)
    assert kinds(play.path()) == "sek.se.sek."


# tf_keras: the same in short.


@pytest.mark.skipif(not HAS_TF_KERAS, reason="needs tf_keras")
def test_tf_keras_fits_end_in_the_same_ways(stage: subprocess.Popen[str], tmp_path: Path) -> None:
    script = """
import tf_keras

recorder_module.LOOK_S = 0.02

class Boom(tf_keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise ValueError("boom")

def train(*callbacks):
    x = np.random.default_rng(0).random((32, 4)).astype("float32")
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(1)])
    model.compile(tf_keras.optimizers.SGD(0.01), "mse")
    model.fit(x, x[:, 0], epochs=4, batch_size=16, verbose=0, callbacks=list(callbacks))

train(Monitor("finished.jsonl"))
train(
    tf_keras.callbacks.EarlyStopping("loss", mode="max", patience=2, restore_best_weights=True),
    Monitor("early.jsonl"),
    tf_keras.callbacks.ModelCheckpoint("{epoch}.keras"),
)
monitor = Monitor("retries.jsonl")
for number in range(3):
    try:
        train(monitor, Boom())
    except ValueError:
        pass
train(Monitor("run.jsonl"), Boom())
"""
    play = Play(stage, tmp_path, script)
    assert play.end() == 1
    assert "ValueError: boom" in play.stderr
    assert (play.show("finished").status, play.show("finished").attempts) == ("finished", [4])
    assert play.show("early").words == "stopped by EarlyStopping after epoch 3"
    assert play.end_of("early").restored == 0
    saved = [event.path for event in events(play.path("early")) if isinstance(event, CheckpointSaved)]
    assert saved == ["1.keras", "2.keras", "3.keras"]
    assert kinds(play.path("retries")) == "se.se.se."
    assert play.show().words == "failed after epoch 1: ValueError: boom"


# By hand: no Keras.


class Told:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.whereabouts = Whereabouts()
        self.errors: list[BaseException | None] = []

    def leave(self, error: BaseException | None) -> None:
        self.errors.append(error)


class Callbacks:
    """As Keras' list of callbacks: made for each fit, and all that holds it is the fit's frame."""

    def __init__(self) -> None:
        self.callbacks: list[object] = []

    def on_train_begin(self) -> Told:
        return Told()


class Model:
    def fit(self, inside: Callable[[Told], object]) -> Told:
        callbacks = Callbacks()
        told = callbacks.on_train_begin()
        exits.watch(told)
        inside(told)
        return told


@pytest.fixture
def hooks() -> Iterator[list[Any]]:
    """The hooks as they are: a test that leaves others behind fails."""
    before = [sys.excepthook, threading.excepthook]
    yield before
    assert [sys.excepthook, threading.excepthook] == before


def test_a_fit_is_running_as_long_as_it_is_on_the_stack(hooks: list[Any]) -> None:
    seen: list[bool | None] = []
    told = Model().fit(lambda told: seen.append(told.whereabouts.is_running()))
    exits.unwatch(told)
    assert [*seen, told.whereabouts.is_running()] == [True, False]
    assert Whereabouts().is_running() is None, "outside any fit nobody knows"


def test_a_fit_is_seen_from_other_threads_and_each_has_its_own(hooks: list[Any]) -> None:
    go_on, met = threading.Event(), threading.Event()
    inside: list[Told] = []

    def wait(told: Told) -> None:
        inside.append(told)
        met.set()
        go_on.wait(10)

    thread = threading.Thread(target=Model().fit, args=(wait,))
    thread.start()
    met.wait(10)
    assert inside[0].whereabouts.is_running()
    go_on.set()
    thread.join()
    assert inside[0].whereabouts.is_running() is False
    exits.unwatch(inside[0])


class Stepwise(Callbacks):
    def fit(self) -> Iterator[Told]:
        yield self.on_train_begin()


def test_a_fit_that_yields_is_not_left_though_its_frame_is_off_the_stack(hooks: list[Any]) -> None:
    fit = Stepwise().fit()
    told = next(fit)
    assert told.whereabouts.is_running() is None
    fit.close()


def test_a_generator_that_yields_during_the_look_hides_no_fit(
    hooks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool | None] = []

    def look(told: Told) -> None:
        data: Any = (number for number in range(2))
        next(data)
        monkeypatch.setattr(sys, "_current_frames", lambda: {told.whereabouts.thread: data.gi_frame})
        seen.append(told.whereabouts.is_running())
        monkeypatch.undo()

    exits.unwatch(Model().fit(look))
    assert seen == [True]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="a bug of Python 3.11")
@pytest.mark.parametrize("is_on", [True, False])
def test_no_garbage_is_collected_while_python_is_asked_for_its_threads(
    hooks: list[Any], monkeypatch: pytest.MonkeyPatch, is_on: bool
) -> None:
    seen: list[bool] = []

    def ask() -> dict[int, Any]:
        seen.append(gc.isenabled())
        return {}

    def look(told: Told) -> None:
        monkeypatch.setattr(sys, "_current_frames", ask)
        monkeypatch.setattr(sys, "_current_exceptions", ask)
        told.whereabouts.is_running()
        told.whereabouts.exception()
        monkeypatch.undo()

    if not is_on:
        gc.disable()
    try:
        exits.unwatch(Model().fit(look))
        assert (seen, gc.isenabled()) == ([False, False], is_on)
    finally:
        gc.enable()


def test_a_fit_that_was_left_is_told_as_soon_as_its_frames_are_gone(hooks: list[Any]) -> None:
    inside: list[Told] = []

    def leave(told: Told) -> None:
        inside.append(told)
        raise ValueError("boom")

    kept: list[BaseException | None] = []
    try:
        Model().fit(leave)
    except ValueError as error:
        kept = [error, inside[0].whereabouts.exception()]
    assert kept[0] is kept[1]
    assert inside[0].errors == []
    assert inside[0].whereabouts.is_running() is False
    assert inside[0].whereabouts.exception() is None
    kept.clear()
    assert inside[0].errors == [None]
    exits.unwatch(inside[0])


def test_an_exception_that_was_there_before_the_fit_did_not_leave_it(hooks: list[Any]) -> None:
    try:
        raise KeyError("earlier")
    except KeyError:
        told = Model().fit(lambda told: None)
        assert told.whereabouts.exception() is None
    exits.unwatch(told)


def test_what_a_session_showed_last_is_no_news_of_a_fit_in_another_thread(
    hooks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Told] = []
    thread = threading.Thread(target=lambda: found.append(Model().fit(lambda told: None)))
    thread.start()
    thread.join()
    found.append(Model().fit(lambda told: None))
    shown = ValueError("of the next cell")
    monkeypatch.setattr(sys, "last_value", shown, raising=False)
    assert [told.whereabouts.exception() for told in found] == [None, shown]
    for told in found:
        exits.unwatch(told)


def test_hooks_are_put_back_by_the_last_fit_whoever_set_others_between(hooks: list[Any]) -> None:
    calls: list[str] = []
    first, second = Told(), Told()
    exits.watch(first)
    ours = sys.excepthook
    exits.watch(second)
    assert sys.excepthook is ours is not hooks[0], "ours is in front once"

    def theirs(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        calls.append("theirs")

    sys.excepthook = theirs
    third = Told()
    exits.watch(third)
    error = ValueError()
    sys.excepthook(ValueError, error, None)
    assert (calls, first.errors, third.errors) == (["theirs"], [error], [error])
    for told in (first, second, third):
        assert sys.excepthook is not theirs
        exits.unwatch(told)
    assert sys.excepthook is theirs
    assert threading.excepthook is hooks[1]
    sys.excepthook = ours  # whoever kept it may still put it there: it passes on
    exits.watch(first)
    exits.unwatch(first)
    assert sys.excepthook is ours
    sys.excepthook = hooks[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_the_hooks_that_were_there_before(hooks: list[Any]) -> None:
    told = Told()
    exits.watch(told)
    assert sys.excepthook is not hooks[0]
    if (pid := os.fork()) == 0:
        os._exit([sys.excepthook, threading.excepthook] != hooks)
    assert os.waitpid(pid, 0)[1] == 0
    exits.unwatch(told)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "how", "text"),
    [
        (None, "interrupted", ""),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (SystemExit(3), "interrupted", "SystemExit: 3"),
        (ValueError("boom"), "failed", "ValueError: boom"),
        (ValueError(), "failed", "ValueError"),
        (Mute(), "failed", "Mute"),
        (ValueError("a" * 5 + "-" * 99 + "cause"), "failed", "ValueError: aaaaa … ----------cause"),
    ],
)
def test_an_exception_in_words(error: BaseException | None, how: str, text: str) -> None:
    assert in_words(error, 20) == (how, text)
