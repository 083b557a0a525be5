"""A run without a model, for `watch`: Monitor's hooks called as Keras calls them, by the clock.

Run: python -m benchmarks.one_run RECORD EPOCHS BATCHES. On its stdout is a line for each epoch: its number and the
time of the monotonic clock just before the hook.
"""

from __future__ import annotations

import random
import sys
import time

from benchmarks.trainers import CallbackList, Model
from cbmon.callbacks import Monitor


def main(record: str, epochs: int, batches: int) -> None:
    """Train."""
    pause = random.Random(1)
    monitor = Monitor(record)
    fit = CallbackList([monitor], Model(), 1000, batches)  # while it is there, the fit goes on
    fit.on_train_begin()
    for epoch in range(epochs):
        monitor.on_epoch_begin(epoch)
        for batch in range(batches):
            monitor.on_train_batch_begin(batch)
            time.sleep(0.002)
            monitor.on_train_batch_end(batch, {"loss": pause.random()})
        time.sleep(0.2 + pause.random() * 0.1)
        value = 0.09 + pause.random() * 0.01
        print(epoch, time.monotonic(), flush=True)
        monitor.on_epoch_end(epoch, {"loss": value, "val_loss": value, "accuracy": 0.9, "val_accuracy": 0.9})
    time.sleep(0.5)
    monitor.on_train_end()
    del fit


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
