"""Callbacks that watch a training and decide nothing: their parameters, as Keras has them.

Frozen dataclasses with Keras' argument names, order and defaults; what Keras' constructor refuses, `check`
refuses. What they would write is in `written`; LambdaCallback and a class of the user's own are code, which only
the Keras engine runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from cbmon.errors import KerasRefuses
from cbmon.profiles import Profile

if TYPE_CHECKING:
    from cbmon.replay.schedules import UserFunction


def _require_path(policy: object, name: str) -> None:
    value = getattr(policy, name)
    if not isinstance(value, str):
        raise KerasRefuses("TypeError", f"{type(policy).__name__}: {name}={value!r} is not a path")


@dataclass(frozen=True, slots=True)
class CSVLogger:
    """Writes a row an epoch: `--write` shows the file."""

    filename: str
    separator: str = ","
    append: object = False

    def __post_init__(self) -> None:
        _require_path(self, "filename")

    def check(self, profile: Profile) -> None:
        """Refuse what cannot be written with; Keras notices it at the first row."""
        import csv  # only here

        try:
            csv.writer(_Nowhere(), delimiter=self.separator)
        except (TypeError, ValueError) as error:
            raise KerasRefuses(type(error).__name__, f"{error} (separator={self.separator!r})") from None


class _Nowhere:
    def write(self, text: str, /) -> int:
        return len(text)


@dataclass(frozen=True, slots=True)
class TensorBoard:
    """Writes event files."""

    log_dir: str = "logs"
    histogram_freq: object = 0
    write_graph: object = True
    write_images: object = False
    write_steps_per_second: object = False
    update_freq: object = "epoch"
    profile_batch: object = 0
    embeddings_freq: object = 0
    embeddings_metadata: object = None

    def check(self, profile: Profile) -> None:
        """Refuse a `profile_batch` that is neither a number nor a pair, and what no batch can be divided by."""
        if profile.gates_board and self.update_freq not in ("epoch", "batch"):
            every = self.update_freq
            if not isinstance(every, int | float):
                kind = type(every).__name__
                raise KerasRefuses("TypeError", f"unsupported operand type(s) for %: 'int' and {kind!r}")
            if not every:
                raise KerasRefuses("ZeroDivisionError", f"integer modulo by zero (update_freq={every})")
        first: Any = self.profile_batch
        last: Any = self.profile_batch
        if isinstance(first, str):
            try:
                first = [int(part) for part in first.split(",")]
            except ValueError as error:
                raise KerasRefuses("ValueError", f"{error} (profile_batch={self.profile_batch!r})") from None
        if isinstance(first, list | tuple) and len(first) == 2:
            first, last = first
        if not (isinstance(first, int) and isinstance(last, int)) or not 0 <= first <= last:
            raise KerasRefuses(
                "ValueError",
                "profile_batch must be a non-negative integer or 2-tuple of positive integers. A pair of positive "
                f"integers signifies a range of batches to profile. Found: {self.profile_batch}",
            )


@dataclass(frozen=True, slots=True)
class History:
    """Keeps every epoch's logs; Keras adds one to every list."""

    def check(self, profile: Profile) -> None:
        """It takes no arguments."""


@dataclass(frozen=True, slots=True)
class BackupAndRestore:
    """Saves the state of training for a resume; a replay can tell where a resume would start."""

    backup_dir: str
    save_freq: object = "epoch"
    double_checkpoint: object = False
    """From Keras 3.7 on."""
    delete_checkpoint: object = True
    save_before_preemption: object = False
    """Keras 2 only."""

    def check(self, profile: Profile) -> None:
        """Refuse no folder and no frequency."""
        is_int = isinstance(self.save_freq, int)
        if not profile.is_keras_3:
            if not self.save_freq and not self.save_before_preemption:
                raise KerasRefuses(
                    "ValueError", "Either `save_freq` or `save_before_preemption` must be set."
                )
        elif not self.backup_dir:
            raise KerasRefuses("ValueError", "Empty `backup_dir` argument passed")
        elif self.save_freq != "epoch" and not is_int:
            raise KerasRefuses(
                "ValueError",
                f"Invalid value for argument `save_freq`. Received: save_freq={self.save_freq}. "
                "Expected either 'epoch' or an integer value.",
            )
        _require_path(self, "backup_dir")


@dataclass(frozen=True, slots=True)
class RemoteMonitor:
    """Posts each epoch's logs to a server."""

    root: str = "http://localhost:9000"
    path: str = "/publish/epoch/end/"
    field: str = "data"
    headers: Mapping[str, Any] | None = None
    send_as_json: object = False

    def check(self, profile: Profile) -> None:
        """Refuse what makes no address; Keras notices it at the first epoch's end."""
        for name in ("root", "path"):
            if not isinstance(getattr(self, name), str):
                raise KerasRefuses("TypeError", f"RemoteMonitor: {name} is not a string")
        if self.headers is not None and not isinstance(self.headers, Mapping):
            raise KerasRefuses("AttributeError", f"RemoteMonitor: headers={self.headers!r} is not a dict")


@dataclass(frozen=True, slots=True)
class ProgbarLogger:
    """Prints the progress bar."""

    count_mode: object = "samples"
    """Keras 2 only."""
    stateful_metrics: Sequence[str] | None = None
    """Keras 2 only."""

    def check(self, profile: Profile) -> None:
        """Refuse what Keras 2 does; Keras 3's takes no arguments."""
        if self.count_mode not in ("samples", "steps"):
            raise KerasRefuses(
                "ValueError",
                f'Unknown `count_mode`: {self.count_mode}. Expected values are ["samples", "steps"]',
            )
        _require_names(self.stateful_metrics)


@dataclass(frozen=True, slots=True)
class SwapEMAWeights:
    """Swaps the model's weights with their moving average, for validation."""

    swap_on_epoch: object = False

    def check(self, profile: Profile) -> None:
        """Its constructor refuses nothing; the optimizer it needs is in no log."""


@dataclass(frozen=True, slots=True)
class BaseLogger:
    """Averages the metrics over an epoch; Keras 2 only."""

    stateful_metrics: Sequence[str] | None = None

    def check(self, profile: Profile) -> None:
        """Refuse what is no list of names."""
        _require_names(self.stateful_metrics)


def _require_names(names: object) -> None:
    if names and not isinstance(names, str | Sequence | Mapping):
        raise KerasRefuses("TypeError", f"{type(names).__name__!r} object is not iterable")


@dataclass(frozen=True, slots=True, init=False)
class LambdaCallback:
    """Hooks of the user's own, as functions: `module:function`."""

    hooks: Mapping[str, UserFunction] = field(default_factory=dict)
    """Name of the hook (`on_epoch_end`) and its function, which is not imported yet."""

    def __init__(self, **hooks: UserFunction) -> None:
        """Take the hooks by name."""
        object.__setattr__(self, "hooks", hooks)

    def check(self, profile: Profile) -> None:
        """Its constructor refuses nothing."""


@dataclass(frozen=True, slots=True)
class UserClass:
    """A callback of the user's own, `package.module:Class(argument=literal)`; not imported yet."""

    module: str
    name: str
    arguments: Mapping[str, Any]
    positional: Sequence[Any] = ()

    def check(self, profile: Profile) -> None:
        """What its constructor refuses is known when it runs."""


Observer: TypeAlias = (
    CSVLogger
    | TensorBoard
    | History
    | BackupAndRestore
    | RemoteMonitor
    | ProgbarLogger
    | SwapEMAWeights
    | BaseLogger
    | LambdaCallback
    | UserClass
)
"""A callback on which no decision depends, as far as is known."""
Foreign: TypeAlias = LambdaCallback | UserClass
"""What is code of the user's own: only the Keras engine can run it."""
STOCK: tuple[type[Observer], ...] = (
    *(CSVLogger, TensorBoard, History, BackupAndRestore, RemoteMonitor, ProgbarLogger),
    *(SwapEMAWeights, BaseLogger, LambdaCallback),
)
"""Those of `keras.callbacks`."""
TAKING_MAPPINGS = frozenset(("headers", "embeddings_metadata"))
"""Arguments that Keras takes a dict for."""
HOOKS = tuple(
    f"on_{what}_{when}"
    for what in (
        "epoch",
        "train",
        "train_batch",
        "batch",
        "test",
        "test_batch",
        "predict",
        "predict_batch",
    )
    for when in ("begin", "end")
)
"""What LambdaCallback can hook into, by name or through its `**kwargs`."""
_HOOKS_3 = (
    *("on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end"),
    *("on_train_batch_begin", "on_train_batch_end"),
)
_HOOKS_2 = (
    *("on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end"),
    *("on_train_begin", "on_train_end"),
)


def parameters(observer: type[Observer], profile: Profile) -> list[str]:
    """Keras' argument names, in the order of this version."""
    if observer is LambdaCallback:
        return list(_HOOKS_3 if profile.is_keras_3 else _HOOKS_2)
    names = [each.name for each in fields(observer)]
    if observer is BackupAndRestore and profile.is_keras_3:
        names.remove("save_before_preemption")
        if not profile.can_double_checkpoint:
            names.remove("double_checkpoint")
    elif observer is BackupAndRestore:
        names.remove("double_checkpoint")
    elif observer is ProgbarLogger and profile.is_keras_3:
        return []
    return names


def is_in(observer: type[Observer], profile: Profile) -> bool:
    """Whether this version of Keras has it."""
    absent: type[Observer] = BaseLogger if profile.is_keras_3 else SwapEMAWeights
    return observer is not absent
