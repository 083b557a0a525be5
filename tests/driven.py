"""The real callbacks driven over rows, through `CallbackList` and a stub model: for keras and tf_keras."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cbmon.profiles import Profile, find_profile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclass(frozen=True)
class Rows:
    """A recorded attempt, as the replay reads it."""

    epochs: list[int]
    rows: list[dict[str, float]]
    learning_rate: list[float] | None = None
    not_numbers: frozenset[str] = frozenset()

    @property
    def columns(self) -> list[str]:
        return list(self.metrics)

    @property
    def metrics(self) -> dict[str, list[float | None]]:
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name) for row in self.rows] for name in names}


def rows(*rows: dict[str, float], first: int = 0) -> Rows:
    return Rows(list(range(first, first + len(rows))), list(rows))


@dataclass
class Real:
    """One of the two libraries."""

    keras: Any
    profile: Profile
    rates: list[float] = field(default_factory=list)
    """Of the last drive: in effect during each epoch, and after the last one."""

    def drive(self, texts: Sequence[str], log: Rows, rate: float) -> list[Any]:
        """Give the callbacks as they are after the training; what they raise is the caller's."""

        class Model:
            stop_training = False
            built = True

            def get_weights(self) -> int:
                return 0

            def set_weights(self, weights: int) -> None:
                pass

        model: Any = Model()
        model.optimizer = self.keras.optimizers.SGD(rate)
        model.optimizer.build([])
        if not self.profile.is_keras_3:
            model.distribute_strategy = importlib.import_module("tensorflow").distribute.get_strategy()
        callbacks = [eval(text, dict(vars(self.keras.callbacks))) for text in texts]  # the tests' own text
        hooks = self.keras.callbacks.CallbackList(callbacks, model=model, verbose=0, epochs=99, steps=1)
        self.rates = []
        hooks.on_train_begin({})
        for epoch, row in zip(log.epochs, log.rows, strict=True):
            hooks.on_epoch_begin(epoch, {})
            self.rates.append(float(model.optimizer.learning_rate.numpy()))
            train = {name: value for name, value in row.items() if not name.startswith("val_")}
            hooks.on_train_batch_begin(0, {})
            hooks.on_train_batch_end(0, train)
            hooks.on_epoch_end(epoch, dict(row))
            if model.stop_training:
                break
        hooks.on_train_end({})
        self.rates.append(float(model.optimizer.learning_rate.numpy()))
        return callbacks


_REALS: dict[str, Real] = {}


def real_keras(module: str) -> Real:
    """The library by name; skips where it is not installed."""
    if module not in _REALS:
        keras: Any = pytest.importorskip(module, reason=f"{module} is not installed: nothing to compare with")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        if module == "keras" and keras.backend.backend() != "tensorflow":
            pytest.skip("the profiles are those of the TensorFlow backend")
        _REALS[module] = Real(keras, find_profile(keras.__version__ if module == "keras" else "2")[0])
    return _REALS[module]
