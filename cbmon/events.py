"""The alphabet: everything cbmon knows about a training run arrives as one of these events.

A closed, versioned union of frozen msgspec structs. A record (`.jsonl`) holds one event a line; row logs
(CSVLogger files) are decoded into the same events. Unknown fields are ignored, unknown kinds become
`Malformed`, so an older cbmon reads a newer record. Nothing here reads a file or a clock.

Epoch numbers are 0-based, as in Keras hooks and CSVLogger; times are Unix seconds; durations are seconds.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypeGuard, get_args

import msgspec

RECORD_VERSION = 1
"""Version of the record's format, written into each `RunStarted`."""

EPOCH_MAX = 2**53
"""Largest epoch number taken: beyond it a float could not hold the number and JSON readers would round it."""

Epoch: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=EPOCH_MAX)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=EPOCH_MAX)]
Values: TypeAlias = Sequence[float | None]
"""One column of a batch: `None` = absent (NA), NaN and ±inf are values. An `array('d')` has no absent ones."""


class Process(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which process writes a record: only if all of it matches may a reader say that the process is gone."""

    host: str
    boot_id: str | None = None
    """Kernel boot id: a pid means nothing after a reboot."""
    pid_namespace: str | None = None
    """A pid means nothing in another container."""
    pid: int
    start: int | None = None
    """Start time of the process in clock ticks since boot: tells a re-used pid."""


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    time: float | None = None
    """When it happened, Unix seconds; None where the log does not tell."""


class RunStarted(_Event, frozen=True, kw_only=True, tag="run_started", omit_defaults=False):
    """`fit` began: starts a new attempt of the run."""

    version: int = RECORD_VERSION
    run_id: str
    epochs: Count | None = None
    """Planned epochs (the `epochs=` of `fit`), None if unknown."""
    steps: Count | None = None
    """Steps per epoch, None where Keras does not know."""
    keras: str | None = None
    """Keras version, such as "3.15.1"."""
    backend: str | None = None
    backend_version: str | None = None
    """Version of TensorFlow, JAX or torch."""
    python: str | None = None
    model: str | None = None
    """The model's name."""
    parameters: Count | None = None
    """Number of weights, trained or not; None where the model was not built yet."""
    optimizer: str | None = None
    callbacks: list[str] = []
    """Class names of the fit's callbacks, in order; empty where they could not be seen."""
    devices: list[str] = []
    """What the backend trains on, such as "GPU: NVIDIA H100"."""
    command: list[str] = []
    """The process's arguments, secrets masked; empty if not to be recorded."""
    config: dict[str, Any] = {}
    """What the user gave to `Monitor(config=…)`, secrets masked."""
    worker: Count | None = None
    """Rank of the worker that writes, None if it is the only one or the chief."""
    process: Process | None = None


class EpochsEnded(_Event, frozen=True, kw_only=True, tag="epochs_ended"):
    """A columnar batch of ended epochs: a live epoch is a batch of one, a large file a few large ones."""

    epochs: Sequence[Epoch]
    metrics: dict[str, Values] = {}
    """One column per metric, each as long as `epochs`. All-absent columns say that the name was in the log."""
    learning_rate: Values | None = None
    """In effect during each epoch."""
    learning_rates: dict[str, Values] = {}
    """In effect during each epoch, by optimizer, where there are several (Keras' `MultiOptimizer`)."""
    seconds: dict[str, Values] = {}
    """How long things took: "epoch", "validation", "step" (mean without the first one), "first_step" (which
    compiles: of the first epoch of a fit)."""
    times: Values | None = None
    """When each epoch ended, Unix seconds: row logs that tell it. A record has `time`."""
    first_line: int | None = None
    """Row logs: line number of the first row; the batch's rows stand on consecutive lines. Never recorded."""
    not_numbers: list[str] = []
    """Columns with a cell in this batch that is text or a list, not a number."""

    def __post_init__(self) -> None:
        """Refuse columns of unequal length, so that no fold has to."""
        for name, column in self.columns():
            if len(column) != len(self.epochs):
                raise ValueError(f"{name!r} has {len(column)} values for {len(self.epochs)} epochs")

    def columns(self) -> list[tuple[str, Values]]:
        """All columns with their names, the metrics first."""
        alone = (("learning_rate", self.learning_rate), ("times", self.times))
        single = [(name, column) for name, column in alone if column is not None]
        return [*self.metrics.items(), *self.learning_rates.items(), *self.seconds.items(), *single]


class Progress(_Event, frozen=True, kw_only=True, tag="progress"):
    """A sampled look into a running epoch."""

    epoch: Epoch
    step: Count
    """Steps done in this phase of the epoch."""
    steps: Count | None = None
    phase: str = "train"
    """"train" or "validation"."""
    metrics: dict[str, float | None] = {}
    """Running means since the phase began, as Keras keeps them."""
    step_seconds: float | None = None
    """Mean duration of a step in this phase, without its first one."""
    steps_per_second: float | None = None
    """In the last two seconds or so; None where the record does not tell, or no step ended in them."""
    learning_rate: float | None = None
    """At the first step of this epoch; what it was set to where a watcher asked for another one since."""
    begun: float | None = None
    """When this epoch began, Unix seconds; None in a file, which has a look only every ten seconds."""


class LearningRateChanged(_Event, frozen=True, kw_only=True, tag="learning_rate_changed"):
    """The learning rate in effect became another one, from the start of `epoch` on."""

    epoch: Epoch
    old: float | None = None
    new: float


class CheckpointSaved(_Event, frozen=True, kw_only=True, tag="checkpoint_saved"):
    """A checkpoint of `epoch` was written."""

    epoch: Epoch
    path: str


class CallbackState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a callback with patience has counted; None where it has no such thing."""

    name: str
    """Its class."""
    monitor: str = ""
    patience: float | None = None
    wait: Count | None = None
    best: float | None = None
    best_epoch: Epoch | None = None
    cooldown: Count | None = None
    """Epochs of cooldown left."""


class CallbackStates(_Event, frozen=True, kw_only=True, tag="callback_states"):
    """The fit's callbacks with patience, after all of them have seen the end of `epoch`."""

    epoch: Epoch
    states: list[CallbackState] = []


class NonFinite(_Event, frozen=True, kw_only=True, tag="non_finite"):
    """A metric became NaN or infinite within an epoch, before its end."""

    epoch: Epoch
    step: Count | None = None
    metric: str


class StopRequested(_Event, frozen=True, kw_only=True, tag="stop_requested"):
    """Something set `stop_training`: who (callback or user), and why."""

    epoch: Epoch | None = None
    by: list[str] = []
    reason: str = ""


class ControlApplied(_Event, frozen=True, kw_only=True, tag="control_applied"):
    """A request from a watcher was carried out in the training thread."""

    epoch: Epoch | None = None
    command: str
    by: str = ""
    old: float | None = None
    new: float | None = None


class Heartbeat(_Event, frozen=True, kw_only=True, tag="heartbeat"):
    """The training process is alive, though no epoch ended."""


class RunEnded(_Event, frozen=True, kw_only=True, tag="run_ended"):
    """`fit` ended, as far as the record could tell how."""

    how: str
    """"finished", "stopped" (early), "interrupted" or "failed"; another word is read as "finished"."""
    by: list[str] = []
    """Callbacks that stopped it."""
    error: str = ""
    """The exception, such as "ValueError: ..."."""
    restored: Epoch | None = None
    """The epoch whose weights a callback put back."""


class RecordReplaced(_Event, frozen=True, kw_only=True, tag="record_replaced"):
    """From a source: the file was truncated or replaced; what follows is a fresh read from its start."""


class Tick(_Event, frozen=True, kw_only=True, tag="tick"):
    """From a source: it is `time` now, and this is what can be seen of the record from outside."""

    written: float | None = None
    """When the record last changed."""
    process_gone: bool = False
    """True only if the writing process is known to be gone."""
    missing_since: float | None = None
    """When the record was first found deleted, or moved away; None while it is there."""


class Malformed(_Event, frozen=True, kw_only=True, tag="malformed"):
    """Something in a log that was left out: counted and shown, never raised."""

    line: int | None = None
    """1-based; None if it concerns the whole file."""
    reason: str


RecordedEvent: TypeAlias = (
    RunStarted
    | EpochsEnded
    | Progress
    | LearningRateChanged
    | CheckpointSaved
    | CallbackStates
    | NonFinite
    | StopRequested
    | ControlApplied
    | Heartbeat
    | RunEnded
)
"""What may stand in a record. The other kinds come from readers: a line that claims to be one is malformed."""
Event: TypeAlias = RecordedEvent | RecordReplaced | Tick | Malformed

KINDS = frozenset(kind.__struct_config__.tag for kind in get_args(RecordedEvent))
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[RecordedEvent] = msgspec.json.Decoder(RecordedEvent, strict=False)


def encode_line(event: RecordedEvent) -> bytes:
    """Write one event as one JSON line, newline included.

    Non-finite numbers become "nan", "inf", "-inf" (msgspec alone would write `null`, which means absent), and
    a lone surrogate is escaped: what cannot be encoded costs its own value, never the line.
    """
    return _encoder.encode(_plain(msgspec.to_builtins(event, enc_hook=_built_in))) + b"\n"


def _built_in(value: Any) -> Any:
    """What msgspec has no JSON for: a kind of str of somebody's (torch's version), and our columns."""
    return str(value) if isinstance(value, str) else list(value)


def decode_line(line: bytes, number: int | None = None) -> RecordedEvent | Malformed:
    """Read one line of a record; never raises.

    Args:
        line: the bytes, with or without the newline.
        number: the line's 1-based number, for the `Malformed` that an unreadable line becomes.
    """
    try:
        try:
            return _decoder.decode(line)
        except msgspec.DecodeError:
            # The standard library reads what other writers write: NaN, 1e400, a lone surrogate.
            event: RecordedEvent = msgspec.convert(
                _without_odd_values(json.loads(line.decode("utf-8", "surrogatepass"))),
                RecordedEvent,
                strict=False,
            )
            return event
    except (ValueError, RecursionError) as error:
        return Malformed(line=number, reason=f"no event of a cbmon record ({error})")


def _plain(value: Any) -> Any:
    """The same JSON value with non-finite numbers as text and without lone surrogates."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _without_odd_values(raw: Any) -> Any:
    """A decoded `epochs_ended` line in which each metric value that is no number is absent instead.

    Somebody else's writer may put an array or an object there; that costs the value, not the row.
    """
    if not (
        isinstance(raw, dict) and raw.get("event") == "epochs_ended" and isinstance(raw.get("metrics"), dict)
    ):
        return raw
    columns = _lists(raw["metrics"])
    rate = raw.get("learning_rate")
    return raw | {
        "metrics": {name: _numbers(column) for name, column in columns.items()},
        "learning_rate": _numbers(rate) if isinstance(rate, list) else None,
        **{
            table: {name: _numbers(column) for name, column in _lists(raw.get(table)).items()}
            for table in ("learning_rates", "seconds")
        },
        "not_numbers": [name for name, column in columns.items() if not all(map(_is_value, column))],
    }


def _lists(table: object) -> dict[str, list[Any]]:
    """The columns of a table that are lists; none if it is no table."""
    items = table.items() if isinstance(table, dict) else ()
    return {name: column for name, column in items if isinstance(column, list)}


def _numbers(column: list[Any]) -> list[Any]:
    return [value if is_number(value) else None for value in column]


def _is_value(value: object) -> bool:
    return value is None or is_number(value)


def is_number(value: object) -> TypeGuard[float | str]:
    """Whether a JSON value is a metric value: a number, or one of the words for a non-finite one."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, float) or value in ("nan", "inf", "-inf")
