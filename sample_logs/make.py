"""Makes the logs of this folder anew: `python -m cbmon.sample_logs.make [FOLDER] [--as-host NAME]`.

Trains small Keras models on scikit-learn's digits, seeded and with deterministic operations, and lets Keras'
CSVLogger or cbmon's Monitor write what a user would find. Nothing in a log is edited, but for the facts about
the machine that `--as-host` replaces. A minute in all; needs Keras on TensorFlow, and scikit-learn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cbmon.callbacks import Monitor
from cbmon.events import Process, RunStarted, decode_line, encode_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NEUTRAL = Process(
    host="gpu-box",
    boot_id="00000000-0000-4000-8000-000000000000",
    pid_namespace="pid:[4026531836]",
    pid=4242,
    start=100000,
)
"""What `--as-host` writes in place of this machine's facts, under the given host name."""

KILLED_IN_EPOCH = 23


def digits() -> tuple[Any, Any, Any, Any]:
    """Scikit-learn's 8×8 digits, shuffled: 1200 images and labels to train on, 597 to validate."""
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype("float32"), labels[order]
    return images[:1200], labels[:1200], images[1200:], labels[1200:]


def network(optimizer: Any, *, units: int = 32, dropout: float = 0.0, loss: Any = None) -> Any:
    """One hidden layer, seeded; the default loss is Keras' cross entropy, which guards against log(0)."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer, loss or "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(
    model: Any,
    *callbacks: Any,
    rows: int = 1200,
    wrong_every: int | None = None,
    is_validated: bool = True,
    **options: Any,
) -> None:
    """Train quietly on the first `rows` digits, every `wrong_every`th of them under a wrong label."""
    x, y, val_x, val_y = digits()
    if wrong_every:
        y[::wrong_every] = (y[::wrong_every] + 3) % 10
    if callable(model.loss):
        import numpy as np

        y, val_y = np.eye(10)[y], np.eye(10)[val_y]
    if is_validated:
        options["validation_data"] = (val_x, val_y)
    model.fit(x[:rows], y[:rows], callbacks=list(callbacks), **{"verbose": 0, "batch_size": 32} | options)


def csv_logger(folder: Path, *, append: bool = False) -> Any:
    """Keras' CSVLogger, writing `training.csv`."""
    import keras

    return keras.callbacks.CSVLogger(str(folder / "training.csv"), append=append)


def monitor(folder: Path) -> Monitor:
    """Monitor, writing `training.jsonl`."""
    return Monitor(folder / "training.jsonl", record_argv=False)  # the path of a machine


def healthy(folder: Path) -> None:
    """Adam at a moderate rate with dropout, 40 epochs: both losses fall and flatten together."""
    fit(network("adam", dropout=0.3), monitor(folder), epochs=40)


def overfitting(folder: Path) -> None:
    """400 images, some labels wrong, 60 epochs: training learns them by heart, validation turns and rises."""
    import keras

    fit(
        network(keras.optimizers.Adam(0.006), units=256),
        csv_logger(folder),
        rows=400,
        wrong_every=8,
        epochs=60,
    )


def plateau(folder: Path) -> None:
    """SGD with momentum from a high rate; ReduceLROnPlateau, before CSVLogger, cuts it on each plateau."""
    import keras

    reduce = keras.callbacks.ReduceLROnPlateau(factor=0.3, patience=5, min_lr=1e-3)
    model = network(keras.optimizers.SGD(0.2, momentum=0.7), dropout=0.1)
    fit(model, reduce, csv_logger(folder), wrong_every=6, epochs=50, batch_size=16)


def nan(folder: Path) -> None:
    """A loss without a guard against log(0), under a learning rate that grows by 30 % each epoch: NaN."""
    import keras

    def unguarded(truth: Any, probability: Any) -> Any:
        return -keras.ops.sum(truth * keras.ops.log(probability), axis=-1)

    rising = keras.callbacks.LearningRateScheduler(lambda epoch: 0.02 * 1.3**epoch)
    model = network(keras.optimizers.SGD(0.02), loss=unguarded)
    fit(model, rising, monitor(folder), keras.callbacks.TerminateOnNaN(), epochs=40)


def early_stop(folder: Path) -> None:
    """60 epochs planned; EarlyStopping with patience 6 ends it when the validation loss has turned."""
    import keras

    stop = keras.callbacks.EarlyStopping(patience=6, restore_best_weights=True)
    fit(
        network(keras.optimizers.Adam(0.005), units=128),
        stop,
        monitor(folder),
        rows=600,
        wrong_every=8,
        epochs=60,
    )


def resumed(folder: Path) -> None:
    """Two trainings into one file by `append=True`: the second one counts from epoch 0 again."""
    fit(network("sgd"), csv_logger(folder), epochs=12)
    fit(network("adam"), csv_logger(folder, append=True), epochs=30)


def continued(folder: Path) -> None:
    """One model in two fits into one file: the second goes on by `initial_epoch=20`."""
    model = network("adam", dropout=0.2)
    fit(model, csv_logger(folder), epochs=20)
    fit(model, csv_logger(folder, append=True), initial_epoch=20, epochs=45)


def killed(folder: Path) -> None:
    """60 epochs planned; a child process that gets SIGKILL in the middle of an epoch. Monitor's record."""
    _kill(folder, monitor)


def killed_csv(folder: Path) -> None:
    """The same end as CSVLogger leaves it."""
    _kill(folder, csv_logger)


def no_validation(folder: Path) -> None:
    """`fit` without validation data: CSVLogger writes `val_*` columns of NA all the same."""
    fit(network("rmsprop"), csv_logger(folder), is_validated=False, epochs=30)


def validation_every_second(folder: Path) -> None:
    """`validation_freq=2`: every other row has NA for validation."""
    fit(network("adam", dropout=0.1), csv_logger(folder), epochs=30, validation_freq=2)


def _kill(folder: Path, recording: Callable[[Path], Any]) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(folder, recording))
    child.start()
    child.join()
    if child.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the child ended with {child.exitcode}, not by SIGKILL")


def _train_and_die(folder: Path, recording: Callable[[Path], Any]) -> None:
    import keras

    class Kill(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types here
        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if self.epoch == KILLED_IN_EPOCH and batch == 20:
                time.sleep(
                    0.2
                )  # the record's thread has written the last epoch by now, as in a slower training
                os.kill(os.getpid(), signal.SIGKILL)

    fit(network("adam", dropout=0.2), recording(folder), Kill(), epochs=60)


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "healthy": healthy,
    "overfitting": overfitting,
    "plateau": plateau,
    "nan": nan,
    "early-stop": early_stop,
    "resumed": resumed,
    "continued": continued,
    "killed": killed,
    "killed-csv": killed_csv,
    "no-validation": no_validation,
    "validation-freq-2": validation_every_second,
}
"""Folder, which is the run's name, and what fills it."""


def rename_host(record: Path, host: str) -> None:
    """Replace the facts about this machine in a record by neutral ones."""
    lines = []
    for line in record.read_bytes().splitlines(keepends=True):
        event = decode_line(line)
        if isinstance(event, RunStarted):
            process = msgspec.structs.replace(NEUTRAL, host=host)
            line = encode_line(msgspec.structs.replace(event, process=process))
        lines.append(line)
    record.write_bytes(b"".join(lines))


def main() -> None:
    """Make all logs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--as-host", metavar="NAME", help="write neutral machine facts under this host name")
    options = parser.parse_args()
    for name, make in SCENARIOS.items():
        folder = options.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        if options.as_host:
            for record in folder.glob("*.jsonl"):
                rename_host(record, options.as_host)
        print(name, *sorted(f"{file.name} {file.stat().st_size}" for file in folder.iterdir()))


if __name__ == "__main__":
    main()
