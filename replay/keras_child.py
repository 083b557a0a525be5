"""The real Keras callbacks over recorded attempts, in a process of its own: all of replay that imports Keras.

`python -m cbmon.replay.keras_child` reads one job (JSON) on stdin, drives every list of callbacks over its
attempt through `keras.callbacks.CallbackList` and a stand-in for the model, and writes one JSON line an answer to
what was its stdout. Everything that callbacks print goes to stderr. Stock callbacks write into a temporary folder
alone: their paths are rebased there, and RemoteMonitor's posts are kept back. A class of the user's own is their
code with their rights: it runs in their working directory, and what it does is done.

The process does not know what a log cannot tell; `keras_engine`, which starts it, does.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cbmon.errors import CbmonError, NeedsLearningRate
from cbmon.policies import Tensor
from cbmon.profiles import PROFILES, Profile
from cbmon.replay import observers
from cbmon.replay.calls import Call, parse_calls, parse_variant
from cbmon.replay.decays import DECAYS
from cbmon.replay.schedules import Expression, UserFunction

_DECIDING = (
    "EarlyStopping",
    "ReduceLROnPlateau",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "TerminateOnNaN",
)
"""Callbacks that look neither at validation nor at every batch."""
_WITH_BEST = ("EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint")
_SETTING = ("ReduceLROnPlateau", "LearningRateScheduler")
"""Stock callbacks that set the learning rate: with one of them, the recorded rate stands no more."""
_PATHS = {
    **{"CSVLogger": ("filename", None), "ModelCheckpoint": ("filepath", None)},
    **{"BackupAndRestore": ("backup_dir", None), "TensorBoard": ("log_dir", "logs")},
}
"""The argument of a stock callback that says where it writes, and its default."""
STAND_IN_RATE = 1e-3
"""What a user's own code sees where no learning rate is known: the default of Keras' Adam."""
_BEAT_S = 1.0
"""How often the parent hears that epochs go by."""


# --- Keras -----------------------------------------------------------------------------------------------


class Kit:
    """The Keras that decides: keras or tf_keras, imported here and nowhere else."""

    def __init__(self, module: str) -> None:
        """Import it; raises what the import raises.

        Stock callbacks with `verbose=1` say nothing: the answer tells it, with the user's own paths.
        """
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # tf_keras warns through it, in every epoch
        if module == "tf_keras":
            import tf_keras as keras
        else:
            import keras
        self.keras: Any = keras
        if module == "tf_keras" or keras.__version__.startswith("2."):
            keras.utils.disable_interactive_logging()
        else:
            keras.config.disable_interactive_logging()
        self.is_keras_3 = int(keras.__version__.split(".")[0]) >= 3
        self.posts: list[str] = []
        """Addresses to which RemoteMonitor would have posted."""
        self._directions: dict[str, Any] = {}

    def warm_up(self) -> None:
        """Do what the backend greets at: the first variable."""
        self.number(self.keras.optimizers.SGD(1.0).learning_rate)

    def callback(self, name: str) -> Any:
        """A stock class of `keras.callbacks`."""
        return getattr(self.keras.callbacks, name)

    def number(self, variable: Any) -> float:
        """A scalar variable or tensor as a Python float."""
        if self.is_keras_3:
            return float(self.keras.ops.convert_to_numpy(variable))
        return float(self.keras.backend.get_value(variable))

    def tensor(self, value: float) -> Any:
        """A float32 tensor, as `tf.math.…` in a schedule gives one."""
        if self.is_keras_3:
            return self.keras.ops.convert_to_tensor(value, dtype="float32")
        return self.keras.backend.constant(value, dtype="float32")

    def compiled(self, columns: Sequence[str]) -> list[Any]:
        """What `model.metrics` has where the model was compiled with metrics of the log's names.

        Only names of Keras' own metrics, with a number where Keras made them unique, tell what they are.
        """
        if not self.is_keras_3:
            return []  # Keras 2 goes by the name alone
        found = []
        for name in columns:
            kind, _, number = name.rpartition("_")
            for known in (name, kind) if number.isdecimal() else (name,):
                if name != "loss" and (metric := self._metric(known)) is not None:
                    found.append(_Metric(name, metric))
                    break
        metrics_list = importlib.import_module("keras.src.trainers.compile_utils").MetricsList([])
        metrics_list.metrics = found
        return [metrics_list]

    def _metric(self, name: str) -> str | None:
        """The `_direction` of the metric that `compile` finds under a name, None if there is none."""
        if name not in self._directions:
            self._directions[name] = None
            try:
                kind = self.keras.metrics.get("accuracy" if name == "acc" else name)
            except (ValueError, TypeError):  # no metric of Keras', or one whose constructor needs arguments
                kind = _needing_arguments(self.keras.metrics, name)
            self._directions[name] = getattr(kind, "_direction", None)
        found: str | None = self._directions[name]
        return found

    def hold_back_posts(self) -> None:
        """Give the module of RemoteMonitor a `requests` that sends nothing."""
        module = sys.modules[self.callback("RemoteMonitor").__module__]
        module.requests = _Requests(self.posts)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class _Metric:
    """As much of a compiled metric as a monitor looks at."""

    name: str
    _direction: str


def _needing_arguments(metrics: Any, name: str) -> Any:
    """A metric of this name whose constructor has no defaults, such as precision_at_recall."""
    for kind in vars(metrics).values():
        if isinstance(kind, type) and kind.__name__.casefold() == name.replace("_", ""):
            at = kind.__name__.rpartition("At")[2].casefold()
            for arguments in ({}, {"num_classes": 2}, {"num_classes": 2, "target_class_ids": [0]}, {at: 0.5}):
                with suppress(TypeError, ValueError):
                    return kind(**arguments)
    return None


class _Requests:
    """In the place of the package `requests`: notes an address and sends nothing."""

    class exceptions:
        """Where RemoteMonitor looks for the one it swallows."""

        class RequestException(OSError):
            """Never raised here."""

    def __init__(self, posts: list[str]) -> None:
        self._posts = posts

    def post(self, url: str, *_: Any, **__: Any) -> None:
        self._posts.append(url)


# --- the sandbox -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A folder in which one stock callback may write: paths go in, and come out as the user wrote them."""

    root: str
    _ABOVE: ClassVar[str] = "\u2025above"
    """Stands for `..`, which would lead out again."""

    def rebase(self, path: str, *, is_template: bool = False) -> str:
        """The place in here of a path; the folder above it is made."""
        root = os.path.join(self.root, "rooted" if os.path.isabs(path) else "here")
        if is_template:
            root = root.replace("{", "{{").replace("}", "}}")
        inside = "/".join(self._ABOVE if part == ".." else part for part in path.split("/"))
        rebased = f"{root}/{inside}"
        if not is_template:
            os.makedirs(os.path.dirname(rebased), exist_ok=True)
        return rebased

    def without(self, words: str) -> str:
        """A message that names a path in here, with the one that the user wrote."""
        for folder in ("rooted", "here"):
            start = os.path.join(self.root, folder) + "/"
            for each in (start, start.replace("{", "{{").replace("}", "}}")):
                words = words.replace(each, "")
        return words.replace(self._ABOVE, "..")

    def original(self, path: str) -> str:
        """What `rebase` was given; a path from elsewhere stays."""
        for folder in ("rooted", "here"):
            start = os.path.join(self.root, folder) + "/"
            if path.startswith(start):
                inside = path[len(start) :]
                return "/".join(".." if part == self._ABOVE else part for part in inside.split("/"))
        return path


# --- the list of callbacks -------------------------------------------------------------------------------


def build(call: Call, kit: Kit, sandbox: Sandbox, *, is_rate_known: bool = True) -> Any:
    """The real callback of a call; raises what its constructor raises."""
    name, arguments = call.policy.__name__, dict(call.arguments)
    if call.policy is observers.UserClass:
        kind: Any = importlib.import_module(arguments["module"])
        for part in str(arguments["name"]).split("."):
            kind = getattr(kind, part)
        return kind(*arguments["positional"], **arguments["arguments"])
    if call.policy is observers.LambdaCallback:
        hooks = {hook: function.load().function for hook, function in arguments.items()}
        return kit.callback(name)(**hooks)
    if name == "LearningRateScheduler":
        arguments["schedule"] = _schedule(arguments["schedule"], kit, is_rate_known)
    if name == "RemoteMonitor":
        kit.hold_back_posts()
    if name in _PATHS:
        key, default = _PATHS[name]
        path = arguments.get(key, default)
        if not isinstance(path, str):
            raise TypeError(f"{name}: {key}={path!r} is not a path")
        if path or name != "BackupAndRestore":  # an empty one is what Keras itself refuses
            arguments[key] = sandbox.rebase(path, is_template=name == "ModelCheckpoint")
    callback = kit.callback(name)(**arguments)
    if name == "BackupAndRestore" and not kit.is_keras_3:
        # Keras 2 backs up the model's TensorFlow objects, and a replay has none; nothing depends on it.
        return kit.callback("Callback")()
    return callback


def _schedule(schedule: Expression | UserFunction, kit: Kit, is_rate_known: bool) -> Callable[..., object]:
    if isinstance(schedule, UserFunction):
        function = schedule.function
        assert function is not None
        if not is_rate_known and schedule.function_takes(2):
            raise NeedsLearningRate(str(schedule))
        return function

    def run(*arguments: float) -> object:
        value = schedule(*arguments)
        return kit.tensor(value) if isinstance(value, Tensor) else value

    return run


# --- the stand-in for the model --------------------------------------------------------------------------


class Weights(list[Any]):
    """No weights, and of which epoch they would be: so it shows which ones are restored."""

    epoch: int | None = None


class StandIn:
    """What callbacks find where a training has its model: a real optimizer, and notes of what is asked of it."""

    name = "replay"
    built = compiled = True
    run_eagerly = jit_compile = False
    steps_per_execution = 1
    loss = train_function = test_function = predict_function = train_tf_function = None
    _is_graph_network = False
    _initial_epoch = 0
    stop_evaluating = stop_predicting = False

    def __init__(self, outcome: Outcome, optimizer: Any, metrics: list[Any]) -> None:
        self.optimizer = optimizer
        self.metrics = metrics
        self.metrics_names = [each.name for group in metrics for each in group.metrics]
        self.layers: list[Any] = []
        self.weights: list[Any] = []
        self.variables = self.trainable_variables = self.trainable_weights = self.weights
        self.non_trainable_variables = self.non_trainable_weights = self.weights
        self.inputs = self.outputs = self.weights
        self.outcome = outcome
        self.owner: int | None = None
        """Index in the list of the callback whose hook runs."""
        self.epoch: int | None = None
        self.batch: int | None = None
        self._is_stopped = False

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a replay has no model, so there is no model.{name}")

    @property
    def stop_training(self) -> bool:
        """As Keras': looked at after each epoch and each batch."""
        return self._is_stopped

    @stop_training.setter
    def stop_training(self, value: Any) -> None:
        self._is_stopped = value
        if value and self.owner is not None:
            self.outcome.stoppers.add(self.owner)

    def get_weights(self) -> Weights:
        """The epoch's."""
        if self.owner is not None:
            self.outcome.weighed.add(self.owner)
        weights = Weights()
        weights.epoch = self.epoch
        return weights

    def set_weights(self, weights: Any) -> None:
        """Note which epoch's they are."""
        epoch = getattr(weights, "epoch", None)
        if epoch is not None and self.owner is not None:
            self.outcome.restored[self.owner] = epoch

    def save(self, filepath: Any = None, *_: Any, **__: Any) -> None:
        """Note that it was asked for."""
        if filepath is not None and self.epoch is not None and self.owner is not None:
            self.outcome.saves.append(Save(self.epoch, os.fspath(filepath), self.owner, self.batch))

    save_weights = save
    export = save

    def load_weights(self, *_: Any, **__: Any) -> None:
        """There are none."""

    def get_config(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def to_json(self, **_: Any) -> str:
        """Empty."""
        return "{}"

    def count_params(self) -> int:
        """None."""
        return 0

    def summary(self, *_: Any, **__: Any) -> None:
        """Nothing to print."""


@dataclass(frozen=True, slots=True)
class Save:
    """A save that was asked for."""

    epoch: int
    path: str
    by: int
    batch: int | None
    """None: at the end of the epoch."""


@dataclass(slots=True)
class Log:
    """A recorded attempt."""

    epochs: Sequence[int]
    columns: Sequence[str]
    metrics: Mapping[str, Sequence[float | None]]
    learning_rate: Sequence[float | None] | None = None

    def row(self, index: int) -> dict[str, float]:
        """The values of an epoch; an absent one is no key."""
        return {name: value for name, column in self.metrics.items() if (value := column[index]) is not None}


@dataclass(slots=True)
class Outcome:
    """What the real callbacks did. Callbacks by their index in the list."""

    error: tuple[str, str] | None = None
    """Type and message."""
    error_by: int | None = None
    epochs: int = 0
    stopped_epoch: int | None = None
    stoppers: set[int] = field(default_factory=set)
    is_raised: bool = False
    """TerminateOnNaN(raise_error=True) has ended the training."""
    rates: list[float | None] = field(default_factory=list)
    """In effect at the first step of each epoch that began; None = unknown."""
    next_rate: float | None = None
    is_rate_set: bool = False
    is_changed: bool = False
    """Whether a callback has changed the rate."""
    changed_row: int | None = None
    """First row at whose first step a callback had changed the rate."""
    cuts: list[tuple[int, float, int]] = field(default_factory=list)
    """Epoch, new over old, by whom."""
    saves: list[Save] = field(default_factory=list)
    best: dict[int, tuple[int, float]] = field(default_factory=dict)
    restored: dict[int, int] = field(default_factory=dict)
    weighed: set[int] = field(default_factory=set)
    """Who asked for the model's weights."""


# --- driving ---------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Setting:
    """How a list is driven."""

    rate: float | None
    """The first one; None = unknown."""
    steps: int | None = None
    """Batches of an epoch."""
    planned: int | None = None
    """`epochs=` of the training."""
    decay: Any = None
    """The optimizer's own schedule."""
    beat: Callable[[], None] = lambda: None
    """Called once an epoch."""


def drive(kit: Kit, callbacks: Sequence[Any], log: Log, setting: Setting) -> Outcome:
    """Drive real callbacks over one attempt; None in the list is no callback.

    Raises nothing of what the callbacks raise: that is the outcome's error.
    """
    return _Drive(kit, callbacks, log, setting).run()


class _Drive:
    """One training under way."""

    def __init__(self, kit: Kit, callbacks: Sequence[Any], log: Log, setting: Setting) -> None:
        self.kit, self.callbacks, self.log, self.setting = kit, callbacks, log, setting
        self.outcome = Outcome()
        kinds = [type(callback) for callback in callbacks if callback is not None]
        stock = {kit.callback(name): name for name in _DECIDING}
        names = [stock.get(kind, "") for kind in kinds]
        self.needs_all = not all(names) or setting.decay is not None
        """Whether somebody may look at validation, at every batch or at the optimizer's steps."""
        self.needs_batches = self.needs_all or any(
            getattr(callback, "save_freq", "epoch") != "epoch" for callback in callbacks
        )
        self.has_batches = self.needs_batches or "TerminateOnNaN" in names
        """Whether anybody looks at a batch at all."""
        self.is_foreign = not all(kind.__module__.startswith(("keras.", "tf_keras.")) for kind in kinds)
        self.is_foreign = self.is_foreign or any(kind.__name__ == "LambdaCallback" for kind in kinds)
        self.follows_recorded = not any(name in _SETTING for name in names) and setting.decay is None
        self.is_known = setting.rate is not None or setting.decay is not None
        """Whether the optimizer's rate is the run's, not a stand-in."""
        self._held: float | None = None
        """The rate as it was last read; stock callbacks change it in one way alone."""
        self.optimizer = self._optimizer()
        self.model = self._model()
        for index, callback in enumerate(callbacks):
            if stock.get(type(callback)) in _WITH_BEST:
                self._watch_best(index, callback)

    # -- the rate

    def _optimizer(self) -> Any:
        keras, rate = self.kit.keras, self.setting.rate
        if self.setting.decay is not None:
            optimizer = keras.optimizers.SGD(self.setting.decay)
            optimizer.build([])
            return optimizer
        optimizer = keras.optimizers.SGD(1.0, use_ema=True)  # SwapEMAWeights asks for its averages
        optimizer.build([])
        variable = optimizer._learning_rate
        self._assign = variable.assign
        if rate is None and self.is_foreign:
            rate = STAND_IN_RATE
        if rate is not None:
            self._assign(rate)
        variable.assign = self._note_assigned
        return optimizer

    def _note_assigned(self, value: Any, *arguments: Any, **options: Any) -> Any:
        """In the place of the variable's `assign`: who sets the rate, and to what part of the old one."""
        index, epoch, before = self.model.owner, self.model.epoch, self._rate()
        callback: Any = None if index is None or index >= len(self.callbacks) else self.callbacks[index]
        is_plateau = isinstance(callback, self.kit.callback("ReduceLROnPlateau"))
        is_scheduler = isinstance(callback, self.kit.callback("LearningRateScheduler"))
        # An unknown rate stays the stand-in: cut again and again that would become 0, the real one perhaps not.
        is_frozen = not self.is_known and not self.is_foreign and is_plateau and callback.factor > 0
        result = None if is_frozen else self._assign(value, *arguments, **options)
        self._held = None
        after = self._rate()
        self.outcome.is_rate_set = True
        if is_frozen or not self.is_known or _bits(after) != _bits(before):
            self.outcome.is_changed = True
        if index is not None and epoch is not None:
            if is_plateau:
                self.outcome.cuts.append((epoch, _factor(callback, before, after, is_frozen), index))
            elif self.is_foreign and not is_scheduler and after < before:
                self.outcome.cuts.append((epoch, after / before, index))
        if is_scheduler or (is_plateau and not is_frozen and not self.is_foreign):
            self.is_known = True  # whatever it was before
        return result

    def _rate(self) -> float:
        if self._held is None or self.is_foreign or self.setting.decay is not None:
            self._held = self._read_rate()
        return self._held

    def _read_rate(self) -> float:
        if self.setting.decay is not None and not self.kit.is_keras_3:
            return self.kit.number(self.setting.decay(self.optimizer.iterations))
        return self.kit.number(self.optimizer.learning_rate)

    def _known_rate(self) -> float | None:
        return self._rate() if self.is_known else None

    # -- the model

    def _model(self) -> StandIn:
        model = StandIn(self.outcome, self.optimizer, self.kit.compiled(self.log.columns))
        if not self.kit.is_keras_3:
            tensorflow = importlib.import_module("tensorflow")
            tf_model: Any = model
            tf_model.distribute_strategy = tensorflow.distribute.get_strategy()
            tf_model._distribution_strategy = None
            tf_model._train_counter = tensorflow.Variable(0, dtype="int64")
            tf_model._test_counter = tensorflow.Variable(0, dtype="int64")
        return model

    def _watch_best(self, index: int, callback: Any) -> None:
        """Note each new best with its epoch: some callbacks keep the value alone."""
        kind, model, best = type(callback), self.model, self.outcome.best
        steps = self.setting.steps

        def set_attribute(self: Any, name: str, value: Any) -> None:
            object.__setattr__(self, name, value)
            is_first = model.batch is not None and model.batch + 1 != (steps or 1)
            if name == "best" and value is not None and model.epoch is not None and not is_first:
                best[index] = (model.epoch, float(value))

        watched = type(kind.__name__, (kind,), {"__setattr__": set_attribute, "__module__": kind.__module__})
        callback.__class__ = watched

    def _marked(self) -> list[Any]:
        """The list, with a callback before each one that tells the model whose turn it is."""
        model, base = self.model, self.kit.callback("Callback")

        def marker(index: int) -> Any:
            def mark(self: Any, *_: Any, **__: Any) -> None:
                model.owner = index

            when = ["set_model", *(f"on_{what}_{end}" for what in _MARKED for end in ("begin", "end"))]
            made = type("Marker", (base,), dict.fromkeys(when, mark))()
            made._supports_tf_logs = True
            return made

        listed = [(index, each) for index, each in enumerate(self.callbacks) if each is not None]
        return [part for index, each in listed for part in (marker(index), each)] + [
            marker(len(self.callbacks))
        ]

    # -- the events

    def run(self) -> Outcome:
        outcome, model, log = self.outcome, self.model, self.log
        rate_before: float | None = None
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"(keras|tf_keras|tensorflow)\b")
                hooks = self._hooks()
                model.stop_training = False
                hooks.on_train_begin({})
                row: dict[str, float] = {}
                for index, epoch in enumerate(log.epochs):
                    self.setting.beat()
                    row = log.row(index)
                    model.epoch = epoch
                    rate_before = self._known_rate() if self.has_batches else None
                    self._epoch(hooks, index, epoch, row)
                    if model.stop_training:
                        outcome.stopped_epoch = epoch
                        break
                model.batch = None
                self._forget_epoch()
                hooks.on_train_end(dict(row))
                outcome.next_rate = self._known_rate()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code, the border is here
            self._raised(error, rate_before)
        return outcome

    def _forget_epoch(self) -> None:
        """What is saved or assigned from here on belongs to no epoch of the log."""
        self.last_epoch, self.model.epoch = self.model.epoch, None

    def _hooks(self) -> Any:
        log, setting = self.log, self.setting
        last = log.epochs[-1] + 1 if len(log.epochs) else 0
        return self.kit.callback("CallbackList")(
            self._marked(),
            add_history=self.needs_all,
            model=self.model,
            verbose=0,
            epochs=max(setting.planned or 0, last),
            steps=setting.steps,
        )

    def _epoch(self, hooks: Any, index: int, epoch: int, row: dict[str, float]) -> None:
        """One epoch's events, in the order of `fit`."""
        outcome, model, log, steps = self.outcome, self.model, self.log, self.setting.steps or 1
        if self.is_foreign and self.follows_recorded and not outcome.is_rate_set and log.learning_rate:
            recorded = log.learning_rate[index]
            if recorded is not None:
                self._assign(recorded)
        hooks.on_epoch_begin(epoch, {})
        outcome.rates.append(self._known_rate())
        if outcome.is_changed and outcome.changed_row is None:
            outcome.changed_row = index
        train = {name: value for name, value in row.items() if not name.startswith("val_")}
        stoppers, saves = set(outcome.stoppers), len(outcome.saves)
        for batch in range(0 if self.needs_batches else steps - 1, steps if self.has_batches else 0):
            model.batch = batch
            hooks.on_train_batch_begin(batch, {})
            hooks.on_train_batch_end(batch, dict(train))
            if model.stop_training:
                break
        model.batch = None
        if self.needs_all:
            self._advance(steps)
            validation = {name[4:]: value for name, value in row.items() if name.startswith("val_")}
            if validation:
                hooks.on_test_begin({})
                hooks.on_test_end(validation)
        if any(self._is_nan_stop(by) for by in outcome.stoppers - stoppers):
            del outcome.saves[saves:]  # at which batch the loss became NaN, no log tells
        hooks.on_epoch_end(epoch, dict(row))
        outcome.epochs += 1

    def _advance(self, steps: int) -> None:
        optimizer = self.optimizer
        if self.setting.decay is not None and not self.kit.is_keras_3:
            # Keras 2 keeps the rate of the last step taken.
            optimizer._current_learning_rate.assign(self.setting.decay(optimizer.iterations + (steps - 1)))
        optimizer.iterations.assign(optimizer.iterations + steps)

    def _is_nan_stop(self, index: int) -> bool:
        return index < len(self.callbacks) and isinstance(
            self.callbacks[index], self.kit.callback("TerminateOnNaN")
        )

    def _raised(self, error: BaseException, rate_before: float | None) -> None:
        outcome, owner, epoch = self.outcome, self.model.owner, self.model.epoch
        nan_stop = owner is not None and self._is_nan_stop(owner)
        if isinstance(error, RuntimeError) and nan_stop and epoch is not None and owner is not None:
            outcome.is_raised, outcome.stopped_epoch, outcome.next_rate = True, epoch, rate_before
            outcome.stoppers.add(owner)
            outcome.saves = [save for save in outcome.saves if save.epoch != epoch]
            return
        kind = "" if isinstance(error, CbmonError) else type(error).__name__
        outcome.error = (kind, str(error))
        outcome.error_by = owner if owner is not None and owner < len(self.callbacks) else None


_MARKED = ("train", "epoch", "train_batch", "batch", "test", "test_batch")


def _factor(callback: Any, before: float, after: float, is_frozen: bool) -> float:
    """New over old: the callback's own factor, unless `min_lr` was the floor."""
    if is_frozen:
        return float(callback.factor)
    import numpy  # Keras has it

    # Keras 2 reads the rate as a NumPy float32; what that times a Python float is depends on NumPy.
    is_float32 = type(callback).__module__.startswith("tf_keras")
    product = float((numpy.float32(before) if is_float32 else before) * callback.factor)
    return after / before if product < callback.min_lr else float(callback.factor)


def _bits(value: float) -> bytes:
    return struct.pack("<d", value) if value == value else b"nan"


# --- the process -----------------------------------------------------------------------------------------


def answer(
    kit: Kit, profile: Profile, task: Mapping[str, Any], job: Mapping[str, Any], beat: Callable[[], None]
) -> dict[str, Any]:
    """One task's answer as JSON: an `Outcome`, checkpoints with the user's own paths."""
    log = Log(**job["logs"][task["log"]])
    root = Path(job["folder"], str(task["number"]))
    kit.posts.clear()
    decay, calls, callbacks, boxes = None, list[Call](), list[Any](), list[Sandbox]()
    outcome = Outcome()
    try:
        calls = _calls(task, profile)
        boxes = [Sandbox(str(root / str(index))) for index in range(len(calls))]
        for call, box in zip(calls, boxes, strict=True):
            if call.policy in DECAYS:
                decay = getattr(kit.keras.optimizers.schedules, call.policy.__name__)(**call.arguments)
                callbacks.append(None)
            else:
                callbacks.append(
                    build(call, kit, box, is_rate_known=task["rate"] is not None or decay is not None)
                )
    except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code, the border is here
        kind = "" if isinstance(error, CbmonError) else type(error).__name__
        outcome.error, outcome.error_by = (kind, str(error)), len(callbacks)
    else:
        setting = Setting(
            rate=task["rate"], steps=task["steps"], planned=task["planned"], decay=decay, beat=beat
        )
        outcome = drive(kit, callbacks, log, setting)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if outcome.error:
        for box in boxes:
            outcome.error = (outcome.error[0], box.without(outcome.error[1]))
    own = [
        i for i, call in enumerate(calls) if call.policy in (observers.UserClass, observers.LambdaCallback)
    ]
    backups = {i for i, call in enumerate(calls) if call.policy is observers.BackupAndRestore}
    return {
        **{name: getattr(outcome, name) for name in _PLAIN},
        "stoppers": sorted(outcome.stoppers),
        "weighed": [i for i in own if i in outcome.weighed],
        "in_batches": [
            i for i in own if i < len(callbacks) and _has_batch_hooks(callbacks[i], calls[i], kit)
        ],
        "saves": [
            (save.epoch, boxes[save.by].original(save.path) if save.by < len(boxes) else save.path, save.by)
            for save in outcome.saves
            if save.by not in backups
        ],
        "best": [(index, *best) for index, best in outcome.best.items()],
        "restored": list(outcome.restored.items()),
        "posts": kit.posts[:],
    }


_BATCH_HOOKS = tuple(hook for hook in observers.HOOKS if "train_batch" in hook or hook.startswith("on_batch"))


def _has_batch_hooks(callback: Any, call: Call, kit: Kit) -> bool:
    if call.policy is observers.LambdaCallback:
        return any(hook in call.arguments for hook in _BATCH_HOOKS)
    base = kit.callback("Callback")
    return any(getattr(type(callback), hook, None) is not getattr(base, hook) for hook in _BATCH_HOOKS)


_PLAIN = (
    *("error", "error_by", "epochs", "stopped_epoch", "is_raised", "rates", "next_rate", "is_rate_set"),
    *("is_changed", "changed_row", "cuts"),
)


def _calls(task: Mapping[str, Any], profile: Profile) -> list[Call]:
    """The list as the parent read it, from the same text."""
    if task["is_variant"]:
        return parse_variant(task["texts"][0], profile)[1]
    return [call for text in task["texts"] for call in parse_calls(text, profile)]


@contextmanager
def _quiet() -> Iterator[None]:
    """No stderr: TensorFlow's C++ greets there, whatever its log level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main() -> None:
    """Read the job, answer its tasks in order, one line each."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anybody prints, C code too, is words and no answer
    sys.stdout = sys.stderr
    job = json.loads(sys.stdin.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def tell(**words: Any) -> None:
        lines.write(json.dumps(words) + "\n")
        lines.flush()

    try:
        with _quiet():
            kit = Kit(job["module"])
            kit.warm_up()
    except Exception as error:  # noqa: BLE001  # a broken install of somebody else's
        tell(fatal=f"{type(error).__name__}: {error}")
        return
    tell(keras=kit.keras.__version__)
    sys.path.insert(0, os.getcwd())  # the user's own modules, and only now: no file here may stand for Keras
    profile, last = PROFILES[job["profile"]], time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > _BEAT_S:
            last = time.monotonic()
            tell(beat=True)

    for task in job["tasks"]:
        tell(begins=task["number"])
        tell(number=task["number"], answer=answer(kit, profile, task, job, beat))
    tell(done=True)


if __name__ == "__main__":
    main()
