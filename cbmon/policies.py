"""Keras' five stock callbacks that decide something, as pure scalar step machines.

Parameters are frozen dataclasses with Keras' argument names, order and defaults; states are small immutable
tuples; `step` gives the next state and a decision. No model, file, clock or screen: replay runs the machines
over history, the live view runs them in shadow. `Profile` says which Keras decides.

What is copied: `keras/src/callbacks` (Keras 3) and `tf_keras/src/callbacks.py` (Keras 2), on the TensorFlow
backend. Judges: tests/test_golden.py, tests/test_keras_parity.py. Feed Python floats, `None` for a metric
that is absent; NaN and ±inf are values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from ctypes import c_float
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias, TypeVar

from cbmon.errors import KerasRefuses, NeedsLearningRate
from cbmon.profiles import Profile
from cbmon.series import KERAS_DIRECTIONS, Direction

# --- numbers ---------------------------------------------------------------------------------------------


def float32(value: float) -> float:
    """Round to float32, as the optimizer's variable holds a learning rate; beyond its range ±inf."""
    return c_float(value).value


_SMALLEST_NORMAL = 2.0**-126


def _compared(value: float) -> float:
    """What `keras.ops.less` sees of a Python float on TensorFlow: float32, denormals as 0.

    Raises:
        KerasRefuses: A finite value beyond float32, which TensorFlow does not convert.
    """
    rounded = c_float(value).value
    if abs(rounded) < _SMALLEST_NORMAL:
        return 0.0
    if math.isinf(rounded) and math.isfinite(value):
        raise KerasRefuses("ValueError", f"cannot compare {value!r}: out of range for float32")
    return rounded


def _improves(value: float, best: float | None, mode: str, min_delta: float, in_float32: bool) -> bool:
    """Keras 3's `MonitorCallback._is_improvement`: shifted in double, then both sides rounded."""
    if best is None:
        return True
    shifted = value - abs(min_delta) if mode == "max" else value + abs(min_delta)
    if in_float32:
        if isinstance(best, int) and not -(2**63) <= best < 2**63:  # a baseline; values are floats
            raise KerasRefuses("ValueError", f"cannot compare {best}: out of range for a 64-bit integer")
        shifted, best = _compared(shifted), _compared(best)
    else:
        best = float(best)  # as NumPy does, which has no larger numbers
    return shifted > best if mode == "max" else shifted < best


def _worst(mode: str) -> float:
    return -math.inf if mode == "max" else math.inf


def _require_numbers(policy: object, *names: str) -> None:
    """Refuse what Keras would choke on with a TypeError at its first comparison."""
    for name in names:
        value = getattr(policy, name)
        if not isinstance(value, int | float):
            raise KerasRefuses("TypeError", f"{type(policy).__name__}: {name}={value!r} is not a number")


# --- direction -------------------------------------------------------------------------------------------

_UPPER_CASE = frozenset(("MSE", "MAE", "MAPE", "MSLE", "BCE", "AUC"))
"""Aliases under which `compile(metrics=[…])` finds a metric, which then bears that name."""


def _metric_direction(monitor: str, columns: Collection[str]) -> Direction | None:
    """The direction that Keras 3 reads off the compiled metric, None where there is none.

    Offline "compiled" means that the log has a column of that name. A de-duplicated default name (`auc_1`)
    has its metric's direction; a name that the user chose has none that a log could tell.
    """
    name = monitor.removeprefix("val_")
    if name == "loss":
        return Direction.MIN
    if name not in columns:
        return None
    kind = re.sub(r"_\d+$", "", name)
    for known in (name, kind):
        if known in _UPPER_CASE:
            known = known.lower()
        if known in KERAS_DIRECTIONS and known != "loss":
            return KERAS_DIRECTIONS[known]
    return None


def _direction(policy: Monitor, profile: Profile, columns: Collection[str]) -> Direction:
    monitor, is_stopping = policy.monitor, isinstance(policy, EarlyStopping)
    if profile.shared_monitor or (is_stopping and profile.float32_stopping):
        direction = _metric_direction(monitor, columns)
        if direction is None:
            raise KerasRefuses(
                "ValueError",
                f"{type(policy).__name__} callback received monitor={monitor}, but Keras isn't able to "
                "automatically determine whether that metric should be maximized or minimized: "
                "give mode='min' or mode='max'",
            )
        return direction
    if is_stopping:
        is_max = monitor.endswith(("acc", "accuracy", "auc"))
    else:
        is_max = "acc" in monitor or (isinstance(policy, ModelCheckpoint) and monitor.startswith("fmeasure"))
    return Direction.MAX if is_max else Direction.MIN


def resolve(policy: AnyMonitor, profile: Profile, columns: Collection[str]) -> AnyMonitor:
    """Replace `mode="auto"` (or an unknown one) by "min" or "max", as this Keras does.

    Args:
        policy: Any of the three that monitor a metric.
        profile: Which Keras. Keras 3 does this at its first `on_epoch_end`, so that is when to call.
        columns: Names of the log's columns, those without a value included.

    Raises:
        KerasRefuses: Keras cannot tell the direction.
    """
    if policy.mode in ("min", "max"):
        return policy
    return replace(policy, mode=_direction(policy, profile, columns).value)


def _require_monitor(policy: Monitor) -> None:
    """Refuse what is no name; a `mode` that is none is only unknown, as any other."""
    if not isinstance(policy.monitor, str):
        raise KerasRefuses("TypeError", f"{type(policy).__name__}: monitor is not a string")


# --- EarlyStopping ---------------------------------------------------------------------------------------


class EarlyStoppingState(NamedTuple):
    """What EarlyStopping remembers between epochs of one fit."""

    best: float | None
    """Best value so far; None = no reference, anything improves."""
    wait: int = 0
    best_epoch: int | None = None
    """Epoch of `best`, or, before any, of the first weights held."""
    held_epoch: int | None = None
    """Epoch whose weights are held for restoring."""
    stopped_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Stops training when the monitored metric has not improved for `patience` epochs.

    Better is better by more than |min_delta|. NaN never improves, but as the very first value it becomes
    the best for good where a profile starts without one. An absent metric changes nothing. The first
    monitored epoch never stops, nor does an improving one. Patience below 1 is 1; a fraction rounds up.
    """

    monitor: str = "val_loss"
    min_delta: float = 0
    patience: float = 0
    verbose: object = 0
    mode: str = "auto"
    baseline: float | None = None
    restore_best_weights: bool = False
    start_from_epoch: float = 0

    def __post_init__(self) -> None:
        _require_monitor(self)
        _require_numbers(self, "min_delta", "patience", "start_from_epoch")
        if self.baseline is not None:
            _require_numbers(self, "baseline")

    def begin(self, profile: Profile, previous: EarlyStoppingState | None = None) -> EarlyStoppingState:
        """The state at the start of a fit; `mode` must be resolved.

        Args:
            profile: Which Keras.
            previous: Where the same instance ended its last fit.
        """
        if previous is not None and profile.keeps_stopping_best:
            return EarlyStoppingState(previous.best)
        return EarlyStoppingState(None if profile.empty_stopping_best else _worst(self.mode))

    def step(
        self, state: EarlyStoppingState, epoch: int, value: float | None, profile: Profile
    ) -> tuple[EarlyStoppingState, bool]:
        """One `on_epoch_end`.

        Args:
            state: From `begin` or the last step.
            epoch: 0-based and absolute, as `start_from_epoch` is.
            value: The monitored metric, None = absent.
            profile: Which Keras.

        Returns:
            The next state, and whether training stops after this epoch.
        """
        if value is None or epoch < self.start_from_epoch:
            return state, False
        best, wait, best_epoch, held_epoch, stopped_epoch = state
        if self.restore_best_weights and held_epoch is None:
            best_epoch = held_epoch = epoch
        wait += 1
        if _improves(value, best, self.mode, self.min_delta, profile.float32_stopping):
            best, best_epoch = value, epoch
            if self.restore_best_weights:
                held_epoch = epoch
            if self.baseline is None or _improves(
                value, self.baseline, self.mode, self.min_delta, profile.float32_stopping
            ):
                wait = 0
            return EarlyStoppingState(best, wait, best_epoch, held_epoch, stopped_epoch), False
        stops = wait >= self.patience and epoch > 0
        stopped_epoch = epoch if stops else stopped_epoch
        return EarlyStoppingState(best, wait, best_epoch, held_epoch, stopped_epoch), stops

    def restored_epoch(self, state: EarlyStoppingState, profile: Profile) -> int | None:
        """The epoch whose weights the model has after training, None where they are the last ones."""
        if profile.restores_unstopped or state.stopped_epoch is not None:
            return state.held_epoch
        return None

    def best(self, state: EarlyStoppingState, profile: Profile) -> tuple[int, float] | None:
        """Epoch and value of the best seen in this fit, None before any improvement."""
        if state.best is None or state.best_epoch is None:
            return None
        if not profile.empty_stopping_best and state.best == _worst(self.mode):
            return None  # the weights of a first epoch are held, but nothing beat ±inf yet
        return state.best_epoch, state.best


# --- ReduceLROnPlateau -----------------------------------------------------------------------------------


class PlateauState(NamedTuple):
    """What ReduceLROnPlateau remembers between epochs of one fit."""

    best: float | None
    wait: int = 0
    cooldown: float = 0
    best_epoch: int | None = None


class Cut(NamedTuple):
    """A reduction of the learning rate."""

    learning_rate: float | None
    """The new one as computed (the optimizer rounds it to float32), None if the old one is unknown."""
    factor: float
    """New over old: the callback's factor, unless `min_lr` was the floor."""


@dataclass(frozen=True, slots=True)
class ReduceLROnPlateau:
    """Multiplies the learning rate by `factor` when the metric has not improved for `patience` epochs.

    An absent metric changes nothing, not even a cooldown. The epoch in which a cooldown reaches 0 counts as a
    wait. At `min_lr` nothing is cut and the wait goes on rising; a rate below it is never raised. NaN as in
    EarlyStopping.
    """

    monitor: str = "val_loss"
    factor: float = 0.1
    patience: float = 10
    verbose: object = 0
    mode: str = "auto"
    min_delta: float = 1e-4
    cooldown: float = 0
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        _require_monitor(self)
        _require_numbers(self, "factor", "patience", "min_delta", "cooldown", "min_lr")
        if self.factor >= 1.0:
            raise KerasRefuses(
                "ValueError",
                f"ReduceLROnPlateau does not support a factor >= 1.0. Received factor={self.factor}",
            )

    def begin(self, profile: Profile, previous: PlateauState | None = None) -> PlateauState:
        """The state at the start of a fit; `mode` must be resolved."""
        if previous is not None and profile.keeps_plateau_best:
            return PlateauState(previous.best)
        return PlateauState(None if profile.shared_monitor else _worst(self.mode))

    def step(
        self,
        state: PlateauState,
        epoch: int,
        value: float | None,
        learning_rate: float | None,
        profile: Profile,
    ) -> tuple[PlateauState, Cut | None]:
        """One `on_epoch_end`.

        Args:
            state: From `begin` or the last step.
            epoch: 0-based.
            value: The monitored metric, None = absent.
            learning_rate: The optimizer's at this moment, rounded to float32; None = unknown, then positive.
            profile: Which Keras.

        Returns:
            The next state, and the cut made after this epoch, if any.

        Raises:
            NeedsLearningRate: Whether or where to cut depends on the unknown learning rate.
        """
        if value is None:
            return state, None
        best, wait, cooldown, best_epoch = state
        if cooldown > 0:
            cooldown, wait = cooldown - 1, 0
        if self._improves(value, best, profile):
            return PlateauState(value, 0, cooldown, epoch), None
        cut = None
        if not cooldown > 0:
            wait += 1
            if wait >= self.patience and (cut := self._cut(learning_rate, profile)):
                wait, cooldown = 0, self.cooldown
        return PlateauState(best, wait, cooldown, best_epoch), cut

    def _improves(self, value: float, best: float | None, profile: Profile) -> bool:
        if profile.shared_monitor or best is None:
            return _improves(value, best, self.mode, self.min_delta, in_float32=True)
        # Before 3.11: the reference is shifted, not the value, by min_delta with its sign, in double.
        return value > best + self.min_delta if self.mode == "max" else value < best - self.min_delta

    def _cut(self, learning_rate: float | None, profile: Profile) -> Cut | None:
        if learning_rate is None:
            if self.min_lr > 0:
                raise NeedsLearningRate(f"min_lr={self.min_lr!r}")
            if self.factor > 0:
                return Cut(None, self.factor)
            if self.min_lr < 0:
                raise NeedsLearningRate(f"factor={self.factor!r} with min_lr={self.min_lr!r}")
            return Cut(0.0, 0.0)  # whatever it was: max(at most 0, 0)
        if not learning_rate > float32(self.min_lr):
            return None
        if profile.float32_cut:
            product = float32(learning_rate * float32(self.factor))
        else:
            product = learning_rate * self.factor
        reduced = max(product, self.min_lr)
        return Cut(reduced, float32(reduced) / learning_rate if product < self.min_lr else self.factor)

    def best(self, state: PlateauState, profile: Profile) -> tuple[int, float] | None:
        """Epoch and value of the best seen in this fit, None before any improvement."""
        return None if state.best is None or state.best_epoch is None else (state.best_epoch, state.best)


# --- LearningRateScheduler -------------------------------------------------------------------------------


class Tensor(float):
    """What `tf.math.…` gives: a float32 scalar that Keras 3 does not take for a float."""


@dataclass(frozen=True, slots=True)
class LearningRateScheduler:
    """Sets the learning rate at the beginning of each epoch to what the schedule says."""

    schedule: Callable[..., object]
    """`(epoch, learning rate, None if unknown) -> float`, or, tried after a TypeError, `(epoch) -> float`."""
    verbose: object = 0

    def step(self, epoch: int, learning_rate: float | None, profile: Profile) -> float:
        """One `on_epoch_begin`: the new learning rate, which the optimizer rounds to float32.

        Raises:
            KerasRefuses: The schedule gives no float, or takes other arguments.
            NeedsLearningRate: From a schedule that reads the unknown learning rate.
        """
        try:
            try:
                result = self.schedule(epoch, learning_rate)
            except TypeError:  # as Keras: any TypeError, also one of the schedule's own
                result = self.schedule(epoch)
        except TypeError as error:
            raise KerasRefuses("TypeError", str(error)) from None
        is_tensor = isinstance(result, Tensor) or type(result).__module__.startswith("tensorflow.")
        is_float32 = type(result).__module__ == "numpy" and type(result).__name__ == "float32"
        if (is_tensor and profile.is_keras_3) or not (isinstance(result, float) or is_tensor or is_float32):
            shown = f"a tensor, {float(result):g}" if isinstance(result, Tensor) else repr(result)
            raise KerasRefuses(
                "ValueError", f"The output of the `schedule` function should be a float. Got: {shown}"
            )
        return float(result)  # type: ignore[arg-type]  # every branch above has __float__


# --- TerminateOnNaN --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TerminateOnNaN:
    """Ends the epoch, and training, at the first batch whose running loss is NaN or ±inf.

    The running loss is a mean since the epoch's start and so stays non-finite: the epoch's `loss` tells
    whether it happened, not at which batch. Only `loss` counts; `val_loss` does not.
    """

    raise_error: object = False

    def step(self, loss: float | None) -> bool:
        """Whether training ends in an epoch with this `loss`, None = absent."""
        return loss is not None and not math.isfinite(loss)


# --- ModelCheckpoint -------------------------------------------------------------------------------------


class CheckpointState(NamedTuple):
    """What ModelCheckpoint remembers; it keeps all of it from one fit to the next."""

    best: float | None
    best_epoch: int | None = None
    batches: int = 0
    """Batches since the last save, for an integer `save_freq`."""
    epochs: int = 0
    """Epochs since the last save, for Keras 2's `period`."""


@dataclass(frozen=True, slots=True)
class ModelCheckpoint:
    """Saves the model after each epoch (or every `save_freq` batches), or only where the metric improves.

    NaN as in EarlyStopping; an absent metric saves or not by profile; `min_delta` is 0.
    """

    filepath: str
    monitor: str = "val_loss"
    verbose: object = 0
    save_best_only: bool = False
    save_weights_only: bool = False
    mode: str = "auto"
    save_freq: object = "epoch"
    initial_value_threshold: float | None = None
    period: float = 1
    """Keras 2 only: epochs between saves."""

    def __post_init__(self) -> None:
        _require_monitor(self)
        _require_numbers(self, "period")
        if not isinstance(self.filepath, str):
            raise KerasRefuses("TypeError", f"ModelCheckpoint: filepath={self.filepath!r} is not a path")
        if self.save_freq != "epoch" and not isinstance(self.save_freq, int):
            raise KerasRefuses(
                "ValueError",
                f"Unrecognized save_freq: {self.save_freq}. Expected save_freq are 'epoch' or integer values",
            )
        if self.initial_value_threshold is not None:
            _require_numbers(self, "initial_value_threshold")

    def check_path(self, profile: Profile) -> None:
        """Refuse a path whose suffix this Keras does not save to."""
        if not profile.is_keras_3:
            return
        kind = "`.keras` (Keras model format)"
        endings: tuple[str, ...] = (".keras", ".h5") if profile.saves_h5 else (".keras",)
        if self.save_weights_only:
            endings, kind = (".weights.h5",), "`.weights.h5` (Keras weights format)"
        if not self.filepath.endswith(endings):
            raise KerasRefuses(
                "ValueError", f"The filepath provided must end in {kind}. Received: filepath={self.filepath}"
            )

    def begin(self, profile: Profile, previous: CheckpointState | None = None) -> CheckpointState:
        """The state at the start of a fit; `mode` must be resolved where the monitor is not shared."""
        if previous is not None:
            return previous
        best = self.initial_value_threshold
        return CheckpointState(_worst(self.mode) if best is None and not profile.shared_monitor else best)

    def due_batches(self, state: CheckpointState, steps: int) -> tuple[CheckpointState, list[int]]:
        """The batches (0-based) of an epoch of `steps` after which an integer `save_freq` tries to save."""
        every = max(1, int(self.save_freq))  # type: ignore[call-overload]  # 0, True and negatives: every batch
        due = list(range(every - state.batches - 1, steps, every))
        return state._replace(batches=steps - 1 - due[-1] if due else state.batches + steps), due

    def due_epoch(self, state: CheckpointState) -> tuple[CheckpointState, bool]:
        """Whether the end of this epoch is a time to try to save."""
        if self.save_freq != "epoch":
            return state, False
        is_due = state.epochs + 1 >= self.period
        return state._replace(epochs=0 if is_due else state.epochs + 1), is_due

    def step(
        self, state: CheckpointState, epoch: int, value: float | None, profile: Profile
    ) -> tuple[CheckpointState, bool]:
        """One try to save; only where one is due.

        Args:
            state: From `begin` or the last step.
            epoch: 0-based.
            value: The monitored metric, None = absent.
            profile: Which Keras.

        Returns:
            The next state, and whether the model is saved.
        """
        if not self.save_best_only:
            return state, True
        if value is None:
            return state, profile.saves_when_absent
        if state.best is not None:
            float(state.best)  # Keras writes it into a message before it compares: OverflowError
        if not _improves(value, state.best, self.mode, 0.0, profile.shared_monitor):
            return state, False
        return state._replace(best=value, best_epoch=epoch), True

    def best(self, state: CheckpointState, profile: Profile) -> tuple[int, float] | None:
        """Epoch and value of the best saved, None before any improvement and without `save_best_only`."""
        return None if state.best is None or state.best_epoch is None else (state.best_epoch, state.best)


Monitor: TypeAlias = EarlyStopping | ReduceLROnPlateau | ModelCheckpoint
"""The policies that monitor a metric."""
AnyMonitor = TypeVar("AnyMonitor", bound=Monitor)
Policy: TypeAlias = Monitor | LearningRateScheduler | TerminateOnNaN
