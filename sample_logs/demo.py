"""The training that `cbmon demo` watches: `python -m cbmon.sample_logs.demo FOLDER`.

Two real trainings of a small convolutional network, with Monitor as a user would add it: one whose learning
rate is cut on a plateau and that stops early, one whose learning rate is raised until the loss is NaN. Under
a minute in all. The images are drawn here, so Keras with any backend is all that it needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from cbmon.callbacks import Monitor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

GLYPHS = ["75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717"]
"""The digits 0 to 9 in 3×5 pixels: one octal figure a row."""

SIDE = 14
TRAINING, VALIDATION = 4000, 1000


def drawn_digits(count: int, seed: int) -> tuple[Any, Any]:
    """Noisy images of digits at random places: shapes (count, 14, 14, 1) and (count,)."""
    import numpy as np

    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count)
    images = random.normal(0, 0.6, (count, SIDE, SIDE, 1)).astype("float32")
    glyphs = [np.array([[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in glyph]) for glyph in GLYPHS]
    for image, label, top, left in zip(images, labels, *random.integers(0, 4, (2, count)), strict=True):
        image[top : top + 10, left : left + 6, 0] += np.kron(glyphs[label], np.ones((2, 2)))
    return images, labels


def network(optimizer: Any, loss: Any) -> Any:
    """A small convolutional network."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def train_until_it_stops(folder: Path) -> None:
    """A learning rate drop on a plateau, then an early stop."""
    import keras

    x, y = drawn_digits(TRAINING, 1)
    callbacks = [
        keras.callbacks.ReduceLROnPlateau(factor=0.2, patience=4),
        keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
        Monitor(folder / "plateau.jsonl"),
    ]
    model = network(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.fit(
        x,
        y,
        validation_data=drawn_digits(VALIDATION, 2),
        epochs=80,
        batch_size=32,
        verbose=0,
        callbacks=callbacks,
    )


def train_until_it_diverges(folder: Path) -> None:
    """A learning rate that grows under a loss without a safeguard: log(0) in the end, and the loss is NaN."""
    import keras
    import numpy as np

    def cross_entropy(truth: Any, probability: Any) -> Any:
        return -keras.ops.sum(truth * keras.ops.log(probability), axis=-1)

    (x, y), (val_x, val_y) = drawn_digits(TRAINING, 1), drawn_digits(VALIDATION, 2)
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.02 * 1.2**epoch),
        keras.callbacks.TerminateOnNaN(),
        Monitor(folder / "too-fast.jsonl"),
    ]
    model = network(keras.optimizers.SGD(0.02), cross_entropy)
    validation = (val_x, np.eye(10)[val_y])
    model.fit(
        x, np.eye(10)[y], validation_data=validation, epochs=40, batch_size=32, verbose=0, callbacks=callbacks
    )


def main() -> None:
    """Run both trainings, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the two records go")
    folder = parser.parse_args().folder
    try:
        import keras  # noqa: F401  # also loads the backend
    except ImportError as error:
        sys.exit(f"cbmon demo trains a Keras model. Missing: {error}. Do: pip install 'cbmon[tensorflow]'")
    train_until_it_stops(folder)
    train_until_it_diverges(folder)


if __name__ == "__main__":
    main()
