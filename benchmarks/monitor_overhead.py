"""What Monitor costs a training run: its hooks called directly, its record, then real fits beside other callbacks.

Run: python -m benchmarks.monitor_overhead [ROUNDS]

The fits take turns, a round each, so that a drifting machine moves them all. Needs TensorFlow; TensorBoard and
W&B (offline) only if they are installed.
"""

from __future__ import annotations

import importlib.util
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("WANDB_SILENT", "true")

import keras
import numpy as np

from cbmon.callbacks import Monitor
from cbmon.endpoint import NoWire, connect, socket_paths
from cbmon.events import EpochsEnded, decode_line

BATCHES = 100_000
WATCHERS = (0, 1, 20)
KILLS = 20
EPOCHS = 1000
STARTS = 20
BATCH_SIZE = 32
STEPS = 500
FIT_EPOCHS = 2
FEATURES = 20
WIDTH = 32

Callbacks = Callable[[Path], list[Any]]


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types here
    """First in the list: from one epoch's begin to the next lie its steps and all that callbacks do at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.laps: list[float] = []
        self._begun = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """The end of the lap before."""
        now = time.perf_counter()
        if epoch:
            self.laps.append(now - self._begun)
        self._begun = now

    def on_train_end(self, logs: Any = None) -> None:
        """The end of the last lap."""
        self.laps.append(time.perf_counter() - self._begun)


def network() -> Any:
    """A model so small that a step takes about a millisecond on a CPU: little to hide behind."""
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(WIDTH, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def logs(metrics: int) -> dict[str, float]:
    """So many metrics, half of them of validation, with all the digits that real ones have."""
    names = ["loss", *(f"metric_{at}" for at in range(1, math.ceil(metrics / 2)))]
    names += [f"val_{name}" for name in names]
    return {name: random.random() for name in names[:metrics]}


@contextmanager
def begun(path: Path, siblings: Sequence[Any] = ()) -> Iterator[Monitor]:
    """A Monitor in the middle of a fit, as Keras would have begun it."""
    monitor = Monitor(path)
    callbacks = keras.callbacks.CallbackList(
        [monitor, *siblings], add_history=True, model=network(), epochs=EPOCHS, steps=BATCHES
    )
    callbacks.on_train_begin()
    yield monitor
    callbacks.on_train_end()


def spread(seconds: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in µs."""
    return statistics.median(seconds) * 1e6, statistics.quantiles(seconds, n=100)[98] * 1e6


def batch_cost(folder: Path, watchers: int) -> tuple[float, float]:
    """Both hooks of a training batch together, the clock included, while so many watchers read the live wire."""
    clock, took, values = time.perf_counter, [], logs(3)
    path = folder / f"batches-{watchers}.jsonl"
    with begun(path) as monitor, watched(path, watchers):
        monitor.on_epoch_begin(0)
        for batch in range(BATCHES):
            start = clock()
            monitor.on_train_batch_begin(batch, {})
            monitor.on_train_batch_end(batch, values)
            took.append(clock() - start)
        monitor.on_epoch_end(0, values)
    return spread(took)


WATCH = """
import select, sys
from cbmon.endpoint import Attach, connect, encode_frame

wires = [connect(sys.argv[1]) for _ in range(int(sys.argv[2]))]
for wire in wires:
    wire.sendall(encode_frame(Attach()))
    wire.recv(65536)
print("attached", flush=True)
while wires:
    for wire in select.select(wires, [], [])[0]:
        if not wire.recv(65536):
            wires.remove(wire)
"""


@contextmanager
def watched(record: Path, watchers: int) -> Iterator[None]:
    """So many watchers of a run, in a process of their own, which read all they get."""
    if not watchers:
        yield
        return
    command = [sys.executable, "-c", WATCH, str(door(record)), str(watchers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"attached\n"
        try:
            yield
        finally:
            process.kill()


def door(record: Path) -> Path:
    """The socket of a run, once it listens."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for path in socket_paths(record):
            try:
                connect(path).close()
            except NoWire:
                continue
            return path
        time.sleep(0.01)
    raise TimeoutError(record)


TRAIN = """
import sys, time
from types import SimpleNamespace
from cbmon.callbacks import Monitor

monitor = Monitor(sys.argv[1])
monitor.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1), stop_training=False))
monitor.set_params({"epochs": 10**6, "steps": 1})
monitor.on_train_begin()
for epoch in range(10**6):
    monitor.on_epoch_begin(epoch)
    monitor.on_train_batch_begin(0)
    monitor.on_train_batch_end(0, {"loss": 0.5})
    time.sleep(0.001)
    print(epoch, time.time(), flush=True)
    monitor.on_epoch_end(epoch, {"loss": 0.5})
"""


def lost(folder: Path) -> list[float]:
    """Milliseconds of a run that its record lacks, each time that it was killed with -9.

    An epoch is said to end before Monitor hears of it: what is lost is from the first one that is missing on.
    """
    found = []
    for at in range(KILLS):
        path = folder / f"killed-{at}.jsonl"
        with subprocess.Popen([sys.executable, "-c", TRAIN, path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.2 + random.random() / 10)
            process.send_signal(signal.SIGKILL)
            killed = time.time()
            lines = process.stdout.read().splitlines(keepends=True)
            said = dict(line.split() for line in lines if line.endswith(b"\n"))
        whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        there = sum(isinstance(decode_line(line), EpochsEnded) for line in whole)
        missing = [float(when) for epoch, when in said.items() if int(epoch) >= there]
        found.append((killed - min(missing)) * 1e3 if missing else 0.0)
    return found


def epoch_cost(folder: Path, metrics: int) -> tuple[float, float]:
    """The hook at the end of an epoch, while the recorder's thread writes the ones before."""
    clock, took = time.perf_counter, []
    with begun(folder / f"epochs-{metrics}.jsonl") as monitor:
        for epoch in range(EPOCHS):
            values = logs(metrics)
            monitor.on_epoch_begin(epoch)
            monitor.on_train_batch_begin(0)
            monitor.on_train_batch_end(0, values)
            start = clock()
            monitor.on_epoch_end(epoch, values)
            took.append(clock() - start)
            time.sleep(0.0002)  # as in a real fit, the recorder's thread gets a turn
    return spread(took)


def start_costs(folder: Path) -> list[float]:
    """The start of several fits, each of a Monitor of its own, in ms; the first finds nothing ready."""
    clock, took, model = time.perf_counter, [], network()
    for at in range(STARTS):
        monitor = Monitor(folder / f"start-{at}.jsonl")
        callbacks = keras.callbacks.CallbackList([monitor], add_history=True, model=model, epochs=1, steps=1)
        start = clock()
        callbacks.on_train_begin()
        took.append((clock() - start) * 1e3)
        callbacks.on_train_end()
    return took


def bytes_an_epoch(folder: Path, metrics: int, *, has_early_stopping: bool) -> float:
    """What an epoch adds to the record, with validation and all durations."""
    path = folder / f"bytes-{metrics}-{has_early_stopping}.jsonl"
    stopping = keras.callbacks.EarlyStopping("loss", mode="min", patience=EPOCHS)
    siblings = [stopping] if has_early_stopping else []
    with begun(path, siblings) as monitor:
        for epoch in range(EPOCHS):
            values = logs(metrics)
            monitor.on_epoch_begin(epoch)
            for batch in range(3):
                monitor.on_train_batch_begin(batch)
                monitor.on_train_batch_end(batch, values)
            monitor.on_test_begin()
            monitor.on_test_end()
            monitor.on_epoch_end(epoch, values)
            for callback in siblings:
                callback.on_epoch_end(epoch, values)
    lines = path.read_bytes().splitlines(keepends=True)
    return sum(map(len, lines[1:-1])) / EPOCHS


def rivals() -> dict[str, Callbacks | str]:
    """Lists of callbacks by what to call them; for what cannot be measured here, why."""
    lists: dict[str, Callbacks | str] = {
        "nothing": lambda folder: [],
        "Monitor": lambda folder: [Monitor(folder / "run.jsonl")],
        "CSVLogger": lambda folder: [keras.callbacks.CSVLogger(str(folder / "log.csv"))],
    }
    frequencies: tuple[str | int, ...] = ("epoch", 1)
    for frequency in frequencies:
        lists[f"TensorBoard(update_freq={frequency!r})"] = (
            tensorboard(frequency)
            if importlib.util.find_spec("tensorboard")
            else "tensorboard is not installed"
        )
    lists["WandbMetricsLogger(log_freq='batch')"] = (
        weights_and_biases if importlib.util.find_spec("wandb") else "wandb is not installed"
    )
    return lists


def tensorboard(frequency: str | int) -> Callbacks:
    """Keras' own callback, which needs the package of that name."""
    return lambda folder: [keras.callbacks.TensorBoard(folder, update_freq=frequency)]


def weights_and_biases(folder: Path) -> list[Any]:
    """W&B without a network: it writes its file on this machine."""
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    wandb.init(mode="offline", dir=folder, project="overhead")
    end = keras.callbacks.LambdaCallback(on_train_end=lambda logs: wandb.finish())
    return [WandbMetricsLogger(log_freq="batch"), end]


def fits(folder: Path, rounds: int) -> dict[str, list[float] | str]:
    """Milliseconds a step, one figure an epoch, for each list of callbacks."""
    x = np.random.default_rng(0).random((BATCH_SIZE * STEPS, FEATURES), dtype="float32")
    y = np.random.default_rng(1).integers(0, 10, BATCH_SIZE * STEPS)
    measured: dict[str, list[float] | str] = {}
    ready: list[tuple[str, Callbacks, Any]] = []
    for name, callbacks in rivals().items():
        if isinstance(callbacks, str):
            measured[name] = callbacks
        else:
            measured[name] = []
            ready.append((name, callbacks, network()))
    for turn in range(rounds + 1):
        first = turn % len(ready)
        for name, callbacks, model in ready[first:] + ready[:first]:
            place = folder / f"{turn}-{list(measured).index(name)}"
            place.mkdir()
            watch = Stopwatch()
            model.fit(
                x,
                y,
                batch_size=BATCH_SIZE,
                epochs=FIT_EPOCHS,
                verbose=0,
                callbacks=[watch, *callbacks(place)],
            )
            took = measured[name]
            if turn and isinstance(took, list):  # the first turn compiles
                took += [lap / STEPS * 1e3 for lap in watch.laps]
    return measured


def row(what: str, figure: str, target: str = "") -> None:
    """One line of the table."""
    print(f"{what:<48}{figure:<34}{target}".rstrip(), flush=True)


def print_own_costs(folder: Path) -> None:
    """The hooks called directly, and the size of the record."""
    first, *others = start_costs(folder)
    row(
        "start of a fit",
        f"{statistics.median(others):.2f} ms (first {first:.2f}, most {max(others):.2f})",
        "≤ 5 ms",
    )
    for watchers in WATCHERS:
        median, p99 = batch_cost(folder, watchers)
        name = f"hooks of a batch, begin + end, {watchers} watchers"
        row(name, f"{median:.2f} µs (p99 {p99:.2f})", "≤ 5 µs")
    for metrics in (3, 20):
        median, p99 = epoch_cost(folder, metrics)
        row(f"on_epoch_end, {metrics} metrics", f"{median:.0f} µs (p99 {p99:.0f})")
    for metrics in (3, 20):
        plain, stopping = (
            bytes_an_epoch(folder, metrics, has_early_stopping=has_one) for has_one in (False, True)
        )
        row(
            f"record of an epoch, {metrics} metrics", f"{plain:.0f} bytes (with EarlyStopping {stopping:.0f})"
        )
    gone = lost(folder)
    row(
        f"killed with -9, {KILLS} times: the record lacks",
        f"the last {statistics.median(gone):.1f} ms (most {max(gone):.1f})",
        "≤ 200 ms",
    )


def print_fits(folder: Path, rounds: int) -> None:
    """The real fits: the ratios are those of an epoch to the one without callbacks in the same round."""
    measured = fits(folder, rounds)
    nothing = measured["nothing"]
    assert isinstance(nothing, list)
    print(
        f"\nA fit of {STEPS} steps an epoch with a batch of {BATCH_SIZE}: medians of {len(nothing)} epochs,"
    )
    print("and how many times as long as the one without callbacks in the same round")
    for name, took in measured.items():
        if isinstance(took, str):
            row(name, f"not measured: {took}")
            continue
        ratios = [one / other for one, other in zip(took, nothing, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        row(
            name,
            f"{statistics.median(took):.3f} ms a step",
            f"× {ratio:.2f} (half of them {low:.2f} to {high:.2f})",
        )


def main(rounds: int = 8) -> None:
    """Print the table."""
    random.seed(0)
    row("what", "measured here", "target")
    with tempfile.TemporaryDirectory() as folder:
        print_own_costs(Path(folder))
        print_fits(Path(folder), rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
