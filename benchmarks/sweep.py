"""1,000 runs × 100 epochs × 10,000 policies: seconds and memory of a sweep, beside driving the real callbacks.

Run: python -m benchmarks.sweep [ROUNDS]   (the second part needs Keras and is left out without it)

Ours is CPU time of one process, everything from the text of the grid to the result; Keras' is CPU time of its
`on_epoch_end` alone, with a stub model and no training, an epoch. The ratio counts the epochs that Keras would
see, those up to each stop.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from array import array
from importlib.util import find_spec
from typing import Any

import numpy as np

from cbmon.profiles import find_profile
from cbmon.replay.sweeping import SweepSource, sweep
from cbmon.run import Attempt
from cbmon.series import Column

RUNS, EPOCHS = 1000, 100
GRIDS = {
    "EarlyStopping": "EarlyStopping(patience=range(1, 51), "
    "min_delta=grid(0, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2), "
    "start_from_epoch=grid(0, 5, 10, 20, 30), baseline=grid(None, 0.5, 0.3, 0.2), restore_best_weights=True)",
    # Cooldown 0 is cooldown 1, so 1 to 10 are ten policies.
    "ReduceLROnPlateau": "ReduceLROnPlateau(patience=range(1, 21), cooldown=range(1, 11), "
    "min_delta=grid(0, 1e-4, 1e-3, 1e-2, 5e-2), factor=linspace(0.05, 0.95, 10), min_lr=1e-5)",
}


def curves(runs: int = RUNS, epochs: int = EPOCHS) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Validation losses: decay, later rise, noise; shape (runs, epochs), as float32 holds them."""
    make, time_ = np.random.default_rng(1), np.arange(epochs)
    values = []
    for _ in range(runs):
        rise = make.uniform(0, 0.01) * np.maximum(0, time_ - make.uniform(20, epochs))
        noise = make.normal(0, make.uniform(0.001, 0.05), epochs)
        values.append(np.exp(-time_ / make.uniform(5, 40)) + rise + noise)
    return np.array(values, np.float32).astype(np.float64)


def sources(runs: int = RUNS, epochs: int = EPOCHS) -> list[SweepSource]:
    """The same as logs."""
    made = []
    for number, values in enumerate(curves(runs, epochs)):
        attempt, column = Attempt(), Column()
        attempt.epochs = array("q", range(epochs))
        column.extend(array("d", values))
        attempt.columns["val_loss"] = column
        made.append(SweepSource(log=f"{number}.csv", attempt=1, recording=attempt, group="logs"))
    return made


def peak() -> float:
    """Peak resident memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 * (1024 / 1000) ** 2


def ours(name: str, keeps_cells: str, rounds: int) -> None:
    """In a process of its own, so that the peak is that of one sweep: seconds a round, and the peak."""
    profile, _ = find_profile()
    logs, seconds, saved = sources(), list[float](), list[int]()
    before = peak()
    for _ in range(rounds):
        start = time.process_time()
        result = sweep(logs, GRIDS[name], profile, learning_rate=1e-3, keep_cells=keeps_cells == "cells")
        seconds.append(time.process_time() - start)
        if len(result.policies) != 10_000 or result.scalar:
            raise SystemExit(f"{len(result.policies)} policies, {result.scalar}")
        saved = result.totals.saved.tolist()
        del result  # the next one must not stand beside it
    share = 1 - statistics.mean(saved) / (RUNS * EPOCHS)
    print(statistics.median(seconds), peak(), before, share)


def keras_seconds(name: str, policies: int = 40) -> float:
    """CPU seconds of the real callback an epoch."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    class Stub:
        stop_training = False
        metrics = ()

        def get_weights(self) -> list[object]:
            return []

        def set_weights(self, weights: list[object]) -> None:
            pass

    values, spent, epochs = curves(policies), 0.0, 0
    for number, run in enumerate(values.tolist()):
        stub: Any = Stub()
        stub.optimizer = keras.optimizers.SGD(1e-3)
        stub.optimizer.build([])
        callback: Any
        if name == "EarlyStopping":
            callback = keras.callbacks.EarlyStopping(
                patience=1 + number, min_delta=1e-4, restore_best_weights=True
            )
        else:
            callback = keras.callbacks.ReduceLROnPlateau(patience=1 + number % 20, cooldown=number % 10)
        callback.set_model(stub)
        callback.on_train_begin({})
        start = time.process_time()
        for epoch, value in enumerate(run):
            callback.on_epoch_end(epoch, {"val_loss": value})
            epochs += 1
            if stub.stop_training:
                break
        if number:  # the first is the warm-up
            spent += time.process_time() - start
        else:
            epochs = 0
    return spent / epochs


def told(*arguments: str) -> list[float]:
    """The figures that another process of this file prints."""
    command = [sys.executable, "-m", "benchmarks.sweep", *arguments]
    return [float(word) for word in subprocess.run(command, check=True, capture_output=True).stdout.split()]


def main(rounds: int = 3) -> None:
    """Both callbacks, streamed and with every cell kept, and the ratio."""
    for name in GRIDS:
        an_epoch = told(name, "keras")[0] if find_spec("keras") else None
        for way in ("streamed", "cells"):
            seconds, most, before, share = told(name, way, str(rounds))
            line = f"{name:18} {way:9} {seconds:5.2f} s CPU (median of {rounds}), peak {most:.0f} MB"
            line += f" (logs and imports {before:.0f})"
            if an_epoch is not None:
                theirs = an_epoch * RUNS * EPOCHS * 10_000 * share
                line += f"; Keras {an_epoch * 1e6:.0f} µs an epoch, {theirs / 3600:.0f} h: {theirs / seconds:,.0f}"
                line += " times as long"
            print(line)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in GRIDS:
        if sys.argv[2] == "keras":
            print(keras_seconds(sys.argv[1]))
        else:
            ours(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:2]))
