"""Monitor where batches end in other threads and out of order: what Keras does on JAX and torch.

First hooks called by hand from a real pool of threads, then real fits, each in a process with its own backend.
"""

import importlib.util
import json
import math
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cbmon.callbacks import Monitor
from cbmon.callbacks import fit as fit_module
from cbmon.events import NonFinite, Progress, RunEnded, RunStarted
from tests.test_monitor import RATES, epochs, events, kinds, python

THREADS = 8
BATCHES = 400


class HereOnly(SimpleNamespace):
    """A model that may be touched in the thread that made it alone: on JAX its buffers are gone during a step."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(_home=threading.get_ident(), **attributes)

    def __getattribute__(self, name: str) -> Any:
        home = object.__getattribute__(self, "__dict__").get("_home")
        if home not in (None, threading.get_ident()):
            raise RuntimeError("Buffer has been deleted or donated.")
        return object.__getattribute__(self, name)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A look into the epoch at every batch, and threads that give way to each other at every chance."""
    monkeypatch.setattr(fit_module, "PROGRESS_S", 0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """A hook that fails says so on stderr, and nothing else: here none may."""
    yield
    assert capfd.readouterr().err == ""


pytestmark = pytest.mark.usefixtures("silent")


def begin(path: Path, *, epochs: int = 2, steps: int | None, test_steps: int | None = None) -> Monitor:
    optimizer = HereOnly(learning_rate=0.5)
    validation = HereOnly(num_batches=test_steps)
    monitor = Monitor(path)
    monitor.set_model(HereOnly(optimizer=optimizer, stop_training=False, _eval_epoch_iterator=validation))
    monitor.set_params({"epochs": epochs, "steps": steps, "verbose": 0})
    monitor.on_train_begin({})
    return monitor


def shuffled(count: int = BATCHES, seed: int = 0) -> list[int]:
    """Every batch once, the last one not at the end."""
    batches = list(range(count))
    random.Random(seed).shuffle(batches)
    return batches


def hammer(
    hook: Callable[..., None],
    batches: Iterable[int],
    logs: Callable[[int], dict[str, float]] = lambda batch: {"loss": float(batch)},
) -> None:
    """Call a hook for these batches, from several threads at once."""
    start = threading.Barrier(THREADS)
    todo = iter(batches)
    lock = threading.Lock()

    def work() -> None:
        start.wait(10)
        while True:
            with lock:
                batch = next(todo, None)
            if batch is None:
                return
            hook(batch, logs=logs(batch))

    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(work) for _ in range(THREADS)]:
            future.result()


def run_epoch(monitor: Monitor, epoch: int, batches: list[int], **options: Any) -> None:
    """As Keras does there: begins in this thread and in order, ends anywhere."""
    monitor.on_epoch_begin(epoch, {})
    for batch in sorted(batches):
        monitor.on_train_batch_begin(batch, {})
    hammer(monitor.on_train_batch_end, batches, **options)
    monitor.on_epoch_end(epoch, {"loss": 1.0})


def looks(path: Path, phase: str = "train") -> list[Progress]:
    return [event for event in events(path) if isinstance(event, Progress) and event.phase == phase]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("seed", range(3))
def test_steps_are_counted_and_learned_whatever_thread_ends_them_in_whatever_order(
    tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = begin(path, steps=None)
    for epoch in range(2):
        run_epoch(monitor, epoch, shuffled(seed=seed))
    monitor.on_train_end({})
    assert {look.steps for look in looks(path) if look.epoch == 0} == {None}
    assert {look.steps for look in looks(path) if look.epoch == 1} == {BATCHES}
    for epoch in range(2):
        steps = [look.step for look in looks(path) if look.epoch == epoch]
        assert (min(steps) >= 1, max(steps)) == (True, BATCHES)
    assert {look.learning_rate for look in looks(path)} == {0.5}
    assert [event.learning_rate for event in epochs(path)] == [[0.5], [0.5]]


@pytest.mark.usefixtures("eager")
def test_durations_are_never_negative_when_batches_end_out_of_order(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    monitor = begin(path, steps=BATCHES)
    run_epoch(monitor, 0, [BATCHES - 1, *range(BATCHES - 1)])  # the last one first, or nearly
    run_epoch(monitor, 1, list(reversed(range(BATCHES))))
    monitor.on_train_end({})
    for event in epochs(path):
        assert all(column[0] >= 0 for column in event.seconds.values() if column[0] is not None)
    assert all(look.step_seconds is None or look.step_seconds >= 0 for look in looks(path))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_stops_being_a_number_is_recorded_once_an_epoch(tmp_path: Path, value: float) -> None:
    path = tmp_path / "run.jsonl"
    monitor = begin(path, epochs=4, steps=BATCHES)
    for epoch in range(4):
        run_epoch(monitor, epoch, shuffled(seed=epoch), logs=lambda batch: {"loss": value})
    monitor.on_train_end({})
    bad = [event for event in events(path) if isinstance(event, NonFinite)]
    assert [(event.epoch, event.metric) for event in bad] == [(epoch, "loss") for epoch in range(4)]


@pytest.mark.usefixtures("eager")
def test_the_two_phases_are_told_apart_though_steps_of_training_end_late(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    monitor = begin(path, epochs=1, steps=BATCHES, test_steps=BATCHES // 2)
    monitor.on_epoch_begin(0, {})
    monitor.on_train_batch_begin(0, {})
    late, *others = range(BATCHES)
    hammer(monitor.on_train_batch_end, others)
    monitor.on_test_begin({})  # Keras waits for the steps of training at the end of the epoch only
    monitor.on_train_batch_end(late, {"loss": 0.0})
    hammer(monitor.on_test_batch_end, shuffled(BATCHES // 2))
    monitor.on_test_end({})
    monitor.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0})
    monitor.on_train_end({})
    for phase, steps in (("train", BATCHES), ("validation", BATCHES // 2)):
        found = looks(path, phase)
        assert {look.steps for look in found} == {steps}
        assert max(look.step for look in found) == steps
    assert kinds(path).endswith("e.")
    assert epochs(path)[0].seconds["validation"][0]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("ends", [[2, 5], [5, 2]])
def test_a_last_execution_of_several_steps_does_not_count_beyond_the_last_one(
    tmp_path: Path, ends: list[int]
) -> None:
    path = tmp_path / "run.jsonl"
    monitor = begin(path, steps=4, test_steps=4)  # steps_per_execution=3: Keras says 2 and 5
    monitor.on_epoch_begin(0, {})
    monitor.on_train_batch_begin(0, {})
    for batch in ends:
        monitor.on_train_batch_end(batch, {"loss": 1.0})
    monitor.on_test_begin({})
    for batch in ends:
        monitor.on_test_batch_end(batch, {"loss": 1.0})
    monitor.on_test_end({})
    monitor.on_epoch_end(0, {"loss": 1.0})
    monitor.on_train_end({})
    for phase in ("train", "validation"):
        found = looks(path, phase)
        assert {look.steps for look in found} == {4}
        assert all(look.step <= 4 for look in found)
        assert found[-1].step == 4


@pytest.mark.usefixtures("eager")
def test_evaluate_alone_records_nothing_before_and_after_a_fit(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    alone = Monitor(path)
    alone.set_model(HereOnly())

    def evaluate(monitor: Monitor) -> None:
        monitor.set_params({"epochs": 1, "steps": BATCHES})
        monitor.on_test_begin({})
        hammer(monitor.on_test_batch_end, shuffled())
        monitor.on_test_end({"loss": 1.0})

    evaluate(alone)
    assert not path.exists()
    monitor = begin(path, epochs=1, steps=BATCHES)
    run_epoch(monitor, 0, shuffled())
    monitor.on_train_end({})
    before = path.read_bytes()
    evaluate(monitor)
    assert path.read_bytes() == before
    assert not looks(path, "validation")


def test_a_version_that_is_a_string_of_its_own_class_does_not_cost_the_start_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TorchVersion(str):
        __slots__ = ()

    class Model(SimpleNamespace):
        __module__ = "keras.src.models.model"

    keras = SimpleNamespace(__version__="3.15.1", backend=SimpleNamespace(backend=lambda: "torch"))
    monkeypatch.setitem(sys.modules, "keras", keras)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__=TorchVersion("2.13.0+cpu")))
    monitor = Monitor(tmp_path / "run.jsonl")
    monitor.set_model(Model(optimizer=None))
    monitor.on_train_begin({})
    monitor.on_train_end({})
    started = events(tmp_path / "run.jsonl")[0]
    assert isinstance(started, RunStarted)
    assert (started.keras, started.backend, started.backend_version) == ("3.15.1", "torch", "2.13.0+cpu")


# Real fits: Keras takes its backend from the environment, once a process.

FITS = """
import json, sys, threading
import numpy as np
import keras
from cbmon.callbacks import Monitor, fit as fit_module

fit_module.PROGRESS_S = 0
folder = sys.argv[1] + "/"
ends = {"train": [], "test": []}
threads = set()

class Watched(Monitor):
    def on_train_batch_end(self, batch, logs=None):
        ends["train"].append(batch)
        threads.add(threading.current_thread().name)
        super().on_train_batch_end(batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        ends["test"].append(batch)
        threads.add(threading.current_thread().name)
        super().on_test_batch_end(batch, logs)

def fit(callbacks, rate=0.1, loss="binary_crossentropy"):
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).random((96, 4)).astype("float32")
    y = (x.sum(axis=1) > 2).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    model.fit(x, y, validation_data=(x[:32], y[:32]), epochs=4, batch_size=8, verbose=0, callbacks=callbacks)
    return [weight.tolist() for weight in model.get_weights()], model.history.history

def cut():
    return keras.callbacks.ReduceLROnPlateau("loss", mode="max", factor=0.5, patience=1, min_delta=0)

plain = fit([cut()])
monitored = fit([Watched(folder + "watched.jsonl"), cut()])
assert plain == fit([cut(), Monitor(folder + "after.jsonl")])
fit([Monitor(folder + "nan.jsonl")], rate=float("nan"), loss="mse")  # torch refuses NaN in the other one
halving = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=12, decay_rate=0.5)
fit([Monitor(folder + "schedule.jsonl")], rate=halving)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.evaluate(np.zeros((8, 4)), np.zeros((8, 1)), verbose=0, callbacks=[Monitor(folder + "evaluated.jsonl")])
print(json.dumps({
    "same": plain == monitored,
    "history": monitored[1],
    "ends": ends,
    "threads": sorted(threads),
    "backend": keras.backend.backend(),
    "keras": keras.__version__,
}))
"""

STEPS, VALIDATION = 12, 4
"""Batches of 8 that the 96 samples make, and the 32 of validation."""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_real_fit_stays_asynchronous_and_the_same_to_the_bit(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not all(importlib.util.find_spec(name) for name in ("keras", backend)):
        pytest.skip(f"needs Keras with {backend}")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    result = python(FITS, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "cbmon:" not in result.stderr
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["backend"] == backend
    assert said["same"]
    assert said["threads"]
    assert all(name.startswith("ThreadPoolExecutor") for name in said["threads"])
    assert sorted(said["ends"]["train"]) == sorted(list(range(STEPS)) * 4)
    assert sorted(said["ends"]["test"]) == sorted(list(range(VALIDATION)) * 4)

    path = tmp_path / "watched.jsonl"
    started, ended = events(path)[0], events(path)[-1]
    assert isinstance(started, RunStarted)
    assert isinstance(ended, RunEnded)
    assert (started.keras, started.backend) == (said["keras"], backend)
    assert started.backend_version
    assert (started.epochs, started.steps, started.parameters) == (4, STEPS, 5)
    assert [device.lower() for device in started.devices] == ["cpu"]
    assert ended.how == "finished"
    history = said["history"]
    history.pop("learning_rate")  # of the callback; the record has the one in effect
    assert {name: [event.metrics[name][0] for event in epochs(path)] for name in history} == history
    for phase, steps in (("train", STEPS), ("validation", VALIDATION)):
        assert {look.steps for look in looks(path, phase)} == {steps}
        assert max(look.step for look in looks(path, phase)) == steps
    for name, rates in (
        ("watched", RATES),
        ("after", RATES),
        ("schedule", [0.1, 0.05, 0.025, 0.0125]),
    ):
        recorded = [event.learning_rate for event in epochs(tmp_path / f"{name}.jsonl")]
        assert [rate for column in recorded for rate in column or []] == pytest.approx(rates, rel=1e-6)
    bad = [event for event in events(tmp_path / "nan.jsonl") if isinstance(event, NonFinite)]
    assert [event.epoch for event in bad] == [0, 1, 2, 3]
    assert not (tmp_path / "evaluated.jsonl").exists()
