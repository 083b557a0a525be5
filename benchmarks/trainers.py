"""A process of trainings without a model, for `soak`: as many as it is told at a time, a new one where one ends.

Run: python -m benchmarks.trainers PLAN, a `Plan` as JSON. It ends its fits and then itself by SIGTERM.

Most are recorded by the real Monitor with its live wire, whose hooks a loop calls as Keras does; one in ten writes
a CSVLogger's file, one posts what RemoteMonitor posts. Each goes its own way, drawn by its name: how long it and
its epochs take, what its curves look like, whether it meets a NaN or an exception. On its stdout is what it did.
"""

from __future__ import annotations

import csv
import json
import math
import os
import random
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Protocol

from cbmon.callbacks import Monitor, wire
from cbmon.endpoint import Dropped
from cbmon.events import Progress

STEP_S = 0.03
"""A step takes so long, or a tenth of its epoch."""
TEST_STEPS = 3
NAN_SHARE, FAIL_SHARE, STOP_SHARE = 0.15, 0.1, 0.5
"""Trainings that meet a NaN, an exception, and that have an EarlyStopping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one process does."""

    folder: str
    name: str
    """The process': its runs are called after it."""
    runs: int
    """At a time."""
    hour_s: float
    """Real seconds of a simulated hour."""
    hz: float
    """Monitor's `live_hz`."""
    url: str = ""
    """Where RemoteMonitor posts to; "": all runs are Monitor's."""


@dataclass(slots=True)
class Done:
    """What a process has done."""

    runs: int = 0
    epochs: int = 0
    looks: int = 0
    """Looks into an epoch that were made for the watchers' wires."""
    dropped: int = 0
    """Of them those that a watcher was told it had missed."""
    unposted: int = 0
    """Epochs that the receiver did not take."""


DONE, LOCK, END = Done(), Lock(), Event()


def count_frames() -> None:
    """Count what the wires encode: each look once for all watchers, each word of what one has missed."""
    module: Any = wire
    encode_line, encode_frame = module.encode_line, module.encode_frame

    def line(event: Any) -> bytes:
        with LOCK:
            DONE.looks += isinstance(event, Progress)
        encoded: bytes = encode_line(event)
        return encoded

    def frame(each: Any) -> bytes:
        with LOCK:
            DONE.dropped += each.progress if isinstance(each, Dropped) else 0
        encoded: bytes = encode_frame(each)
        return encoded

    module.encode_line, module.encode_frame = line, frame


class Adam:
    """An optimizer, as far as Monitor asks."""

    learning_rate = 1e-3


class Model:
    """A model, as far as Monitor asks."""

    name = "soak"
    stop_training = False

    def __init__(self) -> None:
        """With an optimizer of its own."""
        self.optimizer = Adam()

    def count_params(self) -> int:
        """Its size."""
        return 1_234_567

    def save(self, path: str) -> None:
        """A file."""
        Path(path).write_bytes(b"weights")

    save_weights = save


class EarlyStopping:
    """What Monitor looks at of Keras' own; it never stops."""

    monitor, patience, restore_best_weights, best_weights, stopped_epoch = "val_loss", 1000, False, None, 0

    def __init__(self) -> None:
        """Nothing seen."""
        self.wait, self.best, self.best_epoch = 0, math.inf, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Count."""
        self.wait += 1
        if logs["val_loss"] < self.best:
            self.wait, self.best, self.best_epoch = 0, logs["val_loss"], epoch


@dataclass(frozen=True, slots=True)
class Course:
    """How one training goes."""

    epochs: int
    epoch_s: float
    metrics: int
    floor: float
    noise: float
    overfits: float
    bad_at: float
    """From this epoch on its loss is NaN."""
    fails_at: float

    @staticmethod
    def draw(choice: random.Random, hour_s: float, *, is_first: bool) -> Course:
        """A length of half an hour to six, in epochs of half a minute to five; the first ones are under way."""
        life_h, epoch_h = choice.uniform(0.1 if is_first else 0.5, 6.0), choice.uniform(0.5, 5.0) / 60
        epochs = max(2, int(life_h / epoch_h))
        bad_at = choice.uniform(0, epochs) if choice.random() < NAN_SHARE else math.inf
        fails_at = choice.uniform(1, epochs) if choice.random() < FAIL_SHARE else math.inf
        return Course(
            epochs,
            epoch_h * hour_s,
            choice.choice((1, 1, 2, 4)),
            choice.uniform(0.01, 0.5),
            choice.uniform(0.001, 0.05),
            choice.choice((0.0, 0.0, 0.5)),
            bad_at,
            fails_at,
        )

    def logs(self, epoch: float, choice: random.Random, *, has_validation: bool) -> dict[str, float]:
        """The values at a moment."""
        part = epoch / self.epochs
        loss = self.floor + 2 / (1 + 10 * part) + choice.gauss(0, self.noise)
        if epoch >= self.bad_at:
            loss = math.nan
        values = {"loss": loss}
        values |= {f"metric_{at}": 1 - loss / 4 + choice.random() * 0.01 for at in range(1, self.metrics)}
        if has_validation:
            worse = 1 + self.overfits * part
            values |= {f"val_{name}": value * worse for name, value in values.items()}
        return values


class Hooks(Protocol):
    """A callback, as far as the loop calls it."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """An epoch has ended."""


class CallbackList:
    """Keras' list: Monitor finds its siblings and the call of `fit` by it."""

    def __init__(self, callbacks: list[Any], model: Model, epochs: int, steps: int) -> None:
        """Tell them what Keras tells."""
        self.callbacks = callbacks
        for each in callbacks:
            if isinstance(each, Monitor):
                each.set_model(model)
                each.set_params({"epochs": epochs, "steps": steps, "verbose": 0})

    def on_train_begin(self) -> None:
        """A fit begins."""
        for each in self.callbacks:
            if isinstance(each, Monitor):
                each.on_train_begin()


class Training:
    """One run."""

    def __init__(self, course: Course, choice: random.Random, callbacks: list[Any]) -> None:
        """Take its course."""
        self.model = Model()
        self._course = course
        self._choice = choice
        self._callbacks = callbacks
        self._monitors = [each for each in callbacks if isinstance(each, Monitor)]

    def fit(self) -> None:
        """Train.

        Raises:
            FloatingPointError: so it was drawn.
        """
        course = self._course
        steps = max(2, int(course.epoch_s * 0.9 / STEP_S))
        hooks = CallbackList(self._callbacks, self.model, course.epochs, steps)
        hooks.on_train_begin()
        for epoch in range(course.epochs):
            self._train(epoch, steps, course.epoch_s * 0.9 / steps)
            self._validate(epoch, course.epoch_s * 0.1 / TEST_STEPS)
            logs = course.logs(epoch + 1, self._choice, has_validation=True)
            for each in self._callbacks:
                each.on_epoch_end(epoch, logs)
            with LOCK:
                DONE.epochs += 1
            if self.model.stop_training or END.is_set():
                break
            if epoch >= course.fails_at:
                raise FloatingPointError(f"so it was drawn for epoch {epoch}")
        for each in self._monitors:
            each.on_train_end()

    def _train(self, epoch: int, steps: int, step_s: float) -> None:
        for each in self._monitors:
            each.on_epoch_begin(epoch)
        for batch in range(steps):
            for each in self._monitors:
                each.on_train_batch_begin(batch)
            END.wait(step_s)
            logs = self._course.logs(epoch + batch / steps, self._choice, has_validation=False)
            for each in self._monitors:
                each.on_train_batch_end(batch, logs)
            if self.model.stop_training or END.is_set():
                return

    def _validate(self, epoch: int, step_s: float) -> None:
        for each in self._monitors:
            each.on_test_begin()
        for batch in range(TEST_STEPS):
            END.wait(step_s)
            for each in self._monitors:
                each.on_test_batch_end(batch, {"loss": 0.5})
        for each in self._monitors:
            each.on_test_end()


class CsvLogger:
    """Writes what Keras' CSVLogger writes, into a file that it empties first."""

    def __init__(self, path: Path) -> None:
        """Take the place; what was there goes with the first row."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._is_new = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """A row."""
        names = sorted(logs)
        with self._path.open("w" if self._is_new else "a", newline="") as file:
            rows = csv.writer(file)
            if self._is_new:
                rows.writerow(["epoch", *names])
            rows.writerow([epoch, *(logs[name] for name in names)])
        self._is_new = False


class RemoteMonitor:
    """Posts what Keras' RemoteMonitor posts."""

    def __init__(self, url: str) -> None:
        """Take the address."""
        self._url = url

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """A request; a receiver that is gone costs the epoch."""
        try:
            body = json.dumps({"epoch": epoch, **logs}).encode()
            request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10):
                pass
        except OSError:
            with LOCK:
                DONE.unposted += 1


class Checkpoints:
    """A file beside the log, now and then: notices of what is no log come as well."""

    def __init__(self, stem: Path) -> None:
        """Take the place."""
        self._stem = stem

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Every tenth epoch under a new name, and the latest in one place."""
        self._stem.with_suffix(".latest.weights.h5").write_bytes(b"weights")
        if epoch % 10 == 9:
            self._stem.with_suffix(f".{epoch}.weights.h5").write_bytes(b"weights")


def callbacks_of(plan: Plan, slot: int, turn: int, choice: random.Random) -> list[Hooks]:
    """How the runs of a place are recorded: eight of ten by Monitor."""
    stem = Path(plan.folder) / plan.name / f"{plan.name}{slot}-{turn}"
    if plan.url and slot == 0:  # the first process' files are rewritten, run after run
        place = stem.with_name(f"{plan.name}{slot}-rewritten" if plan.name == "a" else stem.name)
        return [CsvLogger(place / "training.csv")]
    if plan.url and slot == 1:
        return [RemoteMonitor(f"{plan.url}/{stem.name}")]
    path: str | Path = stem.with_suffix(".csv" if slot == 2 else ".jsonl")
    monitor: Any = Monitor(path, live_hz=plan.hz, config={"slot": slot, "turn": turn, "batch_size": 32})
    early: list[Any] = [EarlyStopping()] if choice.random() < STOP_SHARE and slot != 2 else []
    return [monitor, *early, Checkpoints(stem)]


def fits(plan: Plan, slot: int) -> Iterator[Training]:
    """The runs of one place, one after another."""
    turn = 0
    while not END.is_set():
        choice = random.Random(f"{plan.name}-{slot}-{turn}")
        course = Course.draw(choice, plan.hour_s, is_first=turn == 0)
        yield Training(course, choice, callbacks_of(plan, slot, turn, choice))
        turn += 1


def work(plan: Plan, slot: int) -> None:
    """One thread: one run at a time."""
    for training in fits(plan, slot):
        with LOCK:
            DONE.runs += 1
        with suppress(FloatingPointError):
            training.fit()
        del training


def main(text: str) -> None:
    """Train until SIGTERM."""
    plan = Plan(**json.loads(text))
    count_frames()
    signal.signal(signal.SIGTERM, lambda *_: END.set())
    os.makedirs(os.path.join(plan.folder, plan.name), exist_ok=True)
    threads = [Thread(target=work, args=(plan, slot), name=f"run-{slot}") for slot in range(plan.runs)]
    for each in threads:
        each.start()
    while not END.wait(0.5):  # a signal's handler needs this thread
        pass
    for each in threads:
        each.join(20)
    print(json.dumps(asdict(DONE)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
