"""What watchers ask for, in real fits on every backend of Keras that is installed: each in a process of its own.

The gradient of these fits is 1 in each step, whatever the weight is, so each step takes the learning rate off it,
exactly: the weight tells which rate the compiled step really used, and since when. On JAX nobody else may look at
the model within an epoch, for that would fetch its state.
"""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cbmon.events import CheckpointSaved, ControlApplied, EpochsEnded, RunEnded
from tests.test_control import WHO
from tests.test_monitor import ROOT, epochs, events, python, wait_for
from tests.test_wire import socket_of

BACKENDS = ["tensorflow", "jax", "torch"]
RATE, TARGET, STEPS, EPOCHS = 1 / 8, -64, 6, 4

COMMON = """
import csv, json, os, sys, threading, time
from pathlib import Path
import numpy as np
import keras
from cbmon.callbacks import Monitor
from tests.test_control import WHO, Asker, pending, settle
from tests.test_wire import Client, socket_of

folder, names = Path(sys.argv[1]), sys.argv[2:]
threads = set()
x, y = np.ones((48, 1), "float32"), np.full((48, 1), -64, "float32")

class Watched(Monitor):
    def on_train_batch_end(self, batch, logs=None):
        threads.add(threading.current_thread().name.split("-")[0])
        super().on_train_batch_end(batch, logs)

class Seen(keras.callbacks.Callback):
    "What a callback of the user's own sees at the end of each epoch."
    def __init__(self):
        super().__init__()
        self.rates, self.weights = [], []

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "optimizers", [optimizer])[0]
        self.rates.append(number(optimizer.learning_rate))
        self.weights.append(number(self.model.get_weights()[0]))

class Synchronous(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass

    def on_test_batch_end(self, batch, logs=None):
        pass

def number(value):
    return float(np.ravel(keras.ops.convert_to_numpy(value))[0])

def line(optimizer, **options):
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile(optimizer, "mae", **options)
    return model

def loaded(path):
    model = keras.models.load_model(path)
    rate = getattr(model.optimizer, "inner_optimizer", model.optimizer).learning_rate
    return [number(model.get_weights()[0]), int(number(model.optimizer.iterations)), number(rate)]
"""

FITS = (
    COMMON
    + """
class Asks(keras.callbacks.Callback):
    "Asks for things at one hook, by epoch and batch, just before the hook of Monitor."
    def __init__(self, record, monitor, asks):
        super().__init__()
        self.record, self.monitor, self.asks, self.who, self.epoch = record, monitor, asks, None, 0

    def ask(self, hook, batch):
        for what, options in self.asks.get((hook, self.epoch, batch), []):
            self.who = self.who or Asker(Client(socket_of(self.record), role="ctl", who=WHO))
            count = pending(self.monitor)
            self.who.ask(what, **options)
            settle(self.monitor, count + 1)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.ask("epoch", 0)

    def on_train_batch_begin(self, batch, logs=None):
        self.ask("begin", batch)

    def on_test_batch_begin(self, batch, logs=None):
        self.ask("test", batch)

class AsksAtTheEnd(Asks):
    def on_train_batch_end(self, batch, logs=None):
        self.ask("end", batch)

def fit(name, asks, optimizer=None, kind=Asks, more=(), **options):
    record = folder / f"{name}.jsonl"
    monitor, seen = Watched(record), Seen()
    asker = kind(record, monitor, asks)
    model = line(optimizer or keras.optimizers.SGD(1 / 8), **options)
    cut = keras.callbacks.ReduceLROnPlateau("loss", patience=99)  # writes the rate into the logs
    logged = [cut, keras.callbacks.CSVLogger(folder / "log.csv")]
    threads.clear()
    history = model.fit(
        x, y, validation_data=(x, y), epochs=4, batch_size=8, verbose=0,
        callbacks=[asker, monitor, seen, *logged, *more],
    )
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    logged_rates = [float(row[key]) for row in rows for key in row if key.startswith("learning_rate")]
    answers = [asker.who.answer(number + 1) for number in range(asker.who.number)]
    return {
        "answers": [[each.done, each.words, each.old, each.new] for each in answers],
        "saved": [loaded(each.path) for each in answers if each.path],
        "epochs": history.epoch, "history": history.history,
        "rates": seen.rates, "weights": seen.weights, "csv": logged_rates, "threads": sorted(threads),
    }

o = keras.optimizers
quarter, half, zero = [("lr", dict(value=1 / 32))], [("lr", dict(scale=0.5))], [("lr", dict(value=0.0))]
save = [("save", {})]
rates = {("begin", 1, 3): quarter, ("epoch", 2, 0): half, ("begin", 3, 3): zero + save}
at_the_end = {("end", 1, 2): quarter, ("epoch", 2, 0): half, ("end", 3, 2): zero + save}
several = {at: each[:1] for at, each in rates.items()}
of_schedule = o.schedules.ExponentialDecay(1 / 8, 6, 0.5, staircase=True)

class Map:
    def __init__(self):
        self.one = self.default_optimizer = o.SGD(1 / 8)
    def values(self):
        return [self.one]
    def __call__(self, variable):
        return self.one

FITS = {
    "rates": lambda name: fit(name, rates),
    "synchronous": lambda name: fit(name, rates, more=[Synchronous()]),
    "at the end": lambda name: fit(name, at_the_end, kind=AsksAtTheEnd),
    "three at once": lambda name: fit(name, rates, steps_per_execution=3),
    "eager": lambda name: fit(name, rates, run_eagerly=True),
    "scaled": lambda name: fit(name, rates, o.LossScaleOptimizer(o.SGD(1 / 8))),
    "several": lambda name: fit(name, several, o.MultiOptimizer(Map())),
    "schedule": lambda name: fit(name, rates, o.SGD(of_schedule)),
    "saves": lambda name: fit(name, {("begin", 1, 0): save, ("begin", 1, 2): save, ("test", 2, 3): save}),
    "no save": lambda name: fit(name, {("begin", 1, 2): [("save", dict(path=str(folder / "no" / "m.keras")))]}),
    "stop": lambda name: fit(name, {("begin", 1, 2): [("stop", {})]}),
    "stop now": lambda name: fit(name, {("begin", 1, 2): [("stop_now", {})]}),
    "stop now in validation": lambda name: fit(name, {("test", 1, 2): [("stop_now", {})]}),
}
left_out = {
    "jax": [],
    "torch": ["three at once"],  # Keras refuses it there
    # Slow, and much the same as in tests/test_control.py.
    "tensorflow": ["synchronous", "at the end", "eager", "scaled", "several", "no save"],
}
for name in left_out[keras.backend.backend()]:
    FITS.pop(name)
if not hasattr(o, "MultiOptimizer"):
    FITS.pop("several", None)

def devices():
    if os.environ.get("DEVICES"):
        found = keras.distribution.list_devices()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found))
        return len(found)

print(json.dumps({"devices": devices(), **{name: FITS[name](name) for name in names or FITS}}))
"""
)


def skip_without(backend: str) -> None:
    if not all(importlib.util.find_spec(name) for name in ("keras", backend)):
        pytest.skip(f"needs Keras with {backend}")


def on(backend: str, code: str, *arguments: object, **environment: str) -> Any:
    """What a script says at its end, with Keras on this backend."""
    skip_without(backend)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", **environment}.items():
            patch.setenv(name, value)
        ended = python(code, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "training goes on" not in ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    skip_without(found)
    return found


@pytest.fixture(scope="module")
def folder(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(backend)


@pytest.fixture(scope="module")
def fits(backend: str, folder: Path) -> Any:
    """What came of each fit."""
    return on(backend, FITS, folder)


def fit_of(fits: Any, name: str) -> Any:
    if name not in fits:
        pytest.skip(f"{name!r} is not trained with this Keras on this backend")
    return fits[name]


def weights_after(rates: list[float]) -> list[float]:
    """The weight at each epoch's end, if these were the rates of the steps."""
    return [-sum(rates[:steps]) for steps in range(STEPS, len(rates) + 1, STEPS)]


def losses_of(rates: list[float]) -> list[float]:
    """The mean loss of each epoch: that of each step is from before the step."""
    steps = [-sum(rates[:step]) - TARGET for step in range(len(rates))]
    return [sum(steps[at : at + STEPS]) / STEPS for at in range(0, len(rates), STEPS)]


CHANGED = [RATE] * 9 + [RATE / 4] * 3 + [RATE / 8] * 9 + [0.0] * 3
"""The rates of the steps: one set in the middle of the second epoch, halved before the third, 0 in the fourth."""
CHANGES = [("lr", 1, RATE, RATE / 4), ("lr", 2, RATE / 4, RATE / 8), ("lr", 3, RATE / 8, 0.0)]


def check_rates(found: Any, record: Path) -> None:
    """The change was done at that step and stayed: in the weights, the optimizer, the losses and all logs."""
    assert found["weights"] == weights_after(CHANGED)
    assert found["history"]["loss"] == losses_of(CHANGED)
    assert found["history"]["val_loss"] == [weight - TARGET for weight in found["weights"]]
    assert found["rates"] == found["csv"] == [RATE, RATE / 4, RATE / 8, 0.0]
    assert [each[:1] + each[2:] for each in found["answers"]] == [
        *([True, old, new] for _, _, old, new in CHANGES),
        [True, None, None],
    ]
    assert found["saved"] == [[-sum(CHANGED), 21, 0.0]]
    done = [event for event in events(record) if isinstance(event, ControlApplied)]
    assert [(each.command, each.epoch, each.old, each.new) for each in done] == [
        *CHANGES,
        ("save", 3, None, None),
    ]
    in_effect = [event.learning_rate for event in events(record) if isinstance(event, EpochsEnded)]
    assert in_effect == [[rate] for rate in found["rates"]]  # at the epoch's end, if somebody set one within


@pytest.mark.parametrize("name", ["rates", "synchronous", "at the end", "three at once", "eager", "scaled"])
def test_a_rate_that_was_set_is_what_the_compiled_step_uses_from_then_on(
    fits: Any, folder: Path, backend: str, name: str
) -> None:
    found = fit_of(fits, name)
    check_rates(found, folder / f"{name}.jsonl")
    is_synchronous = backend == "tensorflow" or name in ("synchronous", "at the end")
    assert found["threads"] == ["MainThread" if is_synchronous else "ThreadPoolExecutor"]


def test_the_optimizer_inside_another_one_is_set_in_the_compiled_step_too(fits: Any) -> None:
    found = fit_of(fits, "several")
    assert found["weights"] == weights_after(CHANGED)
    assert [each[2:] for each in found["answers"]] == [[old, new] for _, _, old, new in CHANGES]
    assert found["rates"] == found["csv"] == [RATE, RATE / 4, RATE / 8, 0.0]


def test_a_rate_that_a_schedule_decides_about_is_refused_with_the_reason_at_any_step(fits: Any) -> None:
    found = fits["schedule"]
    of_epochs = [RATE / 2**epoch for epoch in range(EPOCHS)]
    assert found["weights"] == weights_after([rate for rate in of_epochs for _ in range(STEPS)])
    *refused, saved = found["answers"]
    assert len(refused) == 3
    for done, words, *_ in refused:
        assert not done
        assert words.startswith("the optimizer's learning rate comes from ExponentialDecay at every step")
    assert saved[0]
    assert found["saved"][0][:2] == [-sum(of_epochs) * STEPS + 3 * of_epochs[3], 21]


def test_what_is_saved_is_the_model_of_that_moment_and_training_goes_on_from_it(fits: Any) -> None:
    found = fits["saves"]
    assert found["weights"] == weights_after([RATE] * STEPS * EPOCHS)
    assert found["history"]["loss"] == losses_of([RATE] * STEPS * EPOCHS)
    # Before the first step of an epoch, between two steps, and during validation: then after it.
    assert found["saved"] == [[-RATE * steps, steps, RATE] for steps in (STEPS, STEPS + 2, STEPS * 3)]


def test_a_save_that_fails_in_the_middle_of_an_epoch_costs_the_training_nothing(fits: Any) -> None:
    found = fit_of(fits, "no save")
    assert [each[0] for each in found["answers"]] == [False]
    assert found["weights"] == weights_after([RATE] * STEPS * EPOCHS)
    assert found["history"]["loss"] == losses_of([RATE] * STEPS * EPOCHS)


@pytest.mark.parametrize(
    ("name", "steps", "words"),
    [
        ("stop", 2 * STEPS, "training ends after epoch 2"),
        ("stop now", STEPS + 3, "training ends with this batch; epoch 2 is validated and logged as it is"),
        ("stop now in validation", 2 * STEPS, "training ends after the validation of epoch 2, which goes on"),
    ],
)
def test_a_stopped_fit_has_done_so_many_steps_and_its_history_is_whole(
    fits: Any, folder: Path, name: str, steps: int, words: str
) -> None:
    found = fits[name]
    assert found["weights"] == [-RATE * STEPS, -RATE * steps]
    assert found["epochs"] == [0, 1]
    assert {len(column) for column in found["history"].values()} == {2}
    assert {"loss", "val_loss"} <= found["history"].keys()
    assert [each[0] for each in found["answers"]] == [True]
    assert found["answers"][0][1].startswith(words)
    last = events(folder / f"{name}.jsonl")[-1]
    assert isinstance(last, RunEnded)
    assert (last.how, last.by) == ("stopped", [WHO])


def test_a_model_on_several_devices_of_one_process_is_controlled_as_any_other(tmp_path: Path) -> None:
    names = ["rates", "three at once"]
    several = "--xla_force_host_platform_device_count=2"
    fits = on("jax", FITS, tmp_path, *names, DEVICES="1", XLA_FLAGS=several)
    assert fits["devices"] == 2
    for name in names:
        check_rates(fits[name], tmp_path / f"{name}.jsonl")


SAME = (
    COMMON
    + """
pixels = np.random.default_rng(0).random((96, 4)).astype("float32")
labels = (pixels.sum(axis=1, keepdims=True) > 2).astype("float32")
syncs = []

class Slow(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.003)

class Cut(keras.callbacks.Callback):
    "What somebody who halves the rate in a callback would write."
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 2):
            self.model.optimizer.learning_rate = 0.5 * number(self.model.optimizer.learning_rate)

class AskCut(keras.callbacks.Callback):
    def __init__(self, record, monitor):
        super().__init__()
        self.record, self.monitor = record, monitor

    on_epoch_begin = Cut.on_epoch_begin

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 2):
            self.who = Asker(Client(socket_of(self.record), role="ctl"))
            self.who.ask("lr", scale=0.5)
            settle(self.monitor)

def train(*callbacks):
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((4,)), layers.Dense(8, activation="relu"), layers.BatchNormalization(),
        layers.Dropout(0.2), layers.Dense(1, activation="sigmoid"),
    ])
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    count = 0
    if hasattr(model, "jax_state_sync"):
        fetch = model.jax_state_sync
        def counted():
            nonlocal count
            count += bool(getattr(model, "_jax_state", None)) and not model._jax_state_synced
            fetch()
        model.jax_state_sync = counted
    history = model.fit(
        pixels, labels, validation_data=(pixels[:32], labels[:32]), epochs=5, batch_size=8, verbose=0,
        callbacks=list(callbacks),
    )
    syncs.append(count)
    weights = [each.tolist() for each in model.get_weights()]
    state = [keras.ops.convert_to_numpy(each).tolist() for each in model.optimizer.variables]
    return [weights, state, history.history, np.random.random(), number(keras.random.uniform(()))]

def busy(path, done):
    "Asks without a pause for what changes nothing, at whatever step the training is."
    who = Asker(Client(socket_of(path), role="ctl"))
    try:
        while True:
            number = who.ask("lr", scale=1.0)
            saved = number % 10 == 0 and who.ask("save", path=str(folder / "busy.weights.h5"))
            done.append(who.answer(number).done and (not saved or who.answer(saved).done))
    except (AssertionError, OSError):
        return  # the fit has ended

plain = train()
same = {"again": plain == train()}
monitor = Monitor(folder / "monitored.jsonl")
same["monitored"] = plain == train(monitor)

def watch(path, seen):
    seen += Client(socket_of(path), role="watch").rest()

for name, role in (("watched", watch), ("asked", busy)):
    path, found = folder / f"{name}.jsonl", []
    other = threading.Thread(target=role, args=(path, found), daemon=True)
    other.start()
    same[name] = plain == train(Slow(), Monitor(path, live_hz=50))
    other.join(20)
    same[f"{name} often"] = len(found) > 4

cut = train(Cut())
path = folder / "cut.jsonl"
monitor = Monitor(path)
same["cut"] = cut == train(AskCut(path, monitor), monitor) != plain
print(json.dumps({"same": same, "syncs": syncs, "names": sorted(os.listdir(folder))}))
"""
)


@pytest.mark.parametrize(
    "backend", ["jax", "torch"]
)  # of TensorFlow: tests/test_wire.py, tests/test_control.py
def test_a_fit_is_the_same_to_the_bit_watched_asked_or_left_alone(tmp_path: Path, backend: str) -> None:
    """With the rate asked to stay, and with one asked for as with one that a callback sets."""
    said = on(backend, SAME, tmp_path)
    assert all(said["same"].values()), said["same"]
    plain, again, monitored, watched, asked, *_ = said["syncs"]
    # On JAX nothing of the model is fetched that was not; but for who asks.
    assert plain == again == monitored == watched
    assert (asked > plain) == (backend == "jax")
    assert not [name for name in said["names"] if name.startswith(".")]


LIVE = (
    COMMON
    + """
class Slow(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.005)

seen = Seen()
model = line(keras.optimizers.SGD(1 / 128))
history = model.fit(
    x, y, validation_data=(x, y), epochs=10_000, batch_size=8, verbose=0,
    callbacks=[Slow(), Monitor(folder / "run.jsonl"), seen],
)
print(json.dumps({
    "rates": seen.rates, "weights": seen.weights, "epochs": len(history.epoch),
    "saved": loaded(next(folder.glob("*.keras"))),
}))
"""
)


def ctl(record: Path, *words: str) -> str:
    """What `cbmon ctl` says on stdout."""
    command = [sys.executable, "-m", "cbmon", "ctl", str(record), *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def rates_in(words: str) -> list[float]:
    """The rates before and after, of what `ctl` says."""
    before, _, after = words.rpartition("learning rate ")[2].partition(" → ")
    return [float(before), float(after)]


def test_a_training_is_controlled_by_a_process_from_outside(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "run.jsonl"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    environment = os.environ | quiet | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", LIVE, str(tmp_path)]
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        trainer = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr)
    try:
        wait_long_for(trainer, record)

        def two_epochs_later() -> int:
            """Epochs there are once two more are whole."""
            count = len(epochs(record)) + 2
            wait_for(lambda: len(epochs(record)) > count)
            return count

        socket_of(record)
        assert rates_in(ctl(record, "lr", "3e-4")) == pytest.approx([2**-7, 0.0003], rel=1e-2)
        assert rates_in(ctl(record, "lr", "x0.5")) == pytest.approx([0.0003, 0.00015], rel=1e-2)
        slow = two_epochs_later()
        assert "saved " in ctl(record, "save")
        two_epochs_later()
        assert rates_in(ctl(record, "lr", "1e-30")) == pytest.approx([0.00015, 1e-30], rel=1e-2, abs=0)
        still = two_epochs_later()
        assert "training ends" in ctl(record, "stop", "--now")
        out, _ = trainer.communicate(timeout=30)
    finally:
        trainer.kill()
        trainer.communicate()
    assert trainer.returncode == 0, errors.read_text()
    said = json.loads(out.splitlines()[-1])
    assert said["epochs"] == len(said["weights"]) == len(epochs(record)) < 10_000

    rates, weights = said["rates"], said["weights"]
    assert rates[slow - 1] == pytest.approx(0.00015)
    assert weights[slow - 1] - weights[slow] == pytest.approx(STEPS * 0.00015, rel=1e-3)
    assert (rates[still - 1], rates[-1]) == pytest.approx((1e-30, 1e-30), rel=1e-2, abs=0)
    assert weights[still - 1] == weights[still] == weights[-1]
    weight, steps, rate = said["saved"]
    assert rate == pytest.approx(0.00015)
    since = steps - slow * STEPS  # by then the rate was this one
    assert weights[slow - 1] - weight == pytest.approx(since * 0.00015, rel=1e-3)

    recorded = [each.learning_rate[0] for each in epochs(record) if each.learning_rate]
    assert [rate for rate, _ in itertools.groupby(recorded)][-2:] == pytest.approx(
        [0.00015, 1e-30], rel=1e-2, abs=0
    )
    done = [event for event in events(record) if isinstance(event, ControlApplied)]
    assert [each.command for each in done] == ["lr", "lr", "save", "lr", "stop_now"]
    (saved,) = [event for event in events(record) if isinstance(event, CheckpointSaved)]
    assert Path(saved.path).exists()
    last = events(record)[-1]
    assert isinstance(last, RunEnded)
    assert (last.how, last.by) == ("stopped", [done[-1].by])


def wait_long_for(trainer: subprocess.Popen[bytes], record: Path) -> None:
    """Until the first epoch has ended: Keras takes its time to be imported."""
    for _ in range(12):
        try:
            return wait_for(lambda: trainer.poll() is not None or (record.exists() and bool(epochs(record))))
        except AssertionError:
            continue
    raise AssertionError("no epoch ended")
