"""What a replay works on and what it answers: the recording it needs, and the frozen result with its JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cbmon.errors import NeedsLearningRate
from cbmon.policies import CheckpointState, EarlyStoppingState, PlateauState
from cbmon.profiles import Profile
from cbmon.replay.calls import Listed
from cbmon.replay.observers import RemoteMonitor
from cbmon.replay.written import Course, requests
from cbmon.units import printable
from cbmon.views import json_number


class Series(Protocol):
    """One column: None where a cell is absent, NaN and ±inf as values."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, row: int, /) -> float | None:
        """The value of a row."""


class Recording(Protocol):
    """What a replay reads of an attempt (`cbmon.run.Attempt`)."""

    @property
    def epochs(self) -> Sequence[int]:
        """0-based, strictly rising; gaps and a first one above 0 are allowed."""

    @property
    def columns(self) -> Collection[str]:
        """Every column's name but epoch and learning rate, those without a value included."""

    @property
    def metrics(self) -> Mapping[str, Series]:
        """The columns that have a value."""

    @property
    def learning_rate(self) -> Series | None:
        """In effect during each epoch, None if not recorded."""

    @property
    def not_numbers(self) -> Collection[str]:
        """Columns in which some cell is text or a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Training ends after this epoch (0-based)."""

    epoch: int
    by: tuple[str, ...]
    """Every callback that stopped it in that epoch, in list order."""
    exact: bool
    """Whether everything up to it was trained at the recorded learning rate, as far as known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best value that one callback saw."""

    callback: str
    monitor: str
    epoch: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One callback of the list as the replay left it: parameters with the mode resolved, and state."""

    text: str
    policy: Listed
    state: EarlyStoppingState | PlateauState | CheckpointState | None
    restored_epoch: int | None = None
    """EarlyStopping: the epoch whose weights are put back at the end of training."""
    best: Best | None = None
    stopped_epoch: int | None = None
    cuts: tuple[tuple[int, float], ...] = ()
    """ReduceLROnPlateau: its own of `Decisions.cuts`."""
    saved_epochs: tuple[int, ...] = ()
    """ModelCheckpoint: one a save."""
    words: str = ""
    """What it would have written or done, of a callback that decides nothing; empty for one that decides."""
    course: Course | None = field(default=None, repr=False, compare=False)
    """The same as rows, for those who want the file or the requests; None of a callback that decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What the callbacks would have done. Epochs are 0-based."""

    epochs_replayed: int
    stopped: Stop | None
    learning_rate: tuple[float | None, ...] | None
    """In effect at the first step of each replayed epoch; None if unknown."""
    learning_rate_next: float | None
    """In effect after the last replayed epoch's callbacks."""
    cuts: tuple[tuple[int, float], ...]
    """(epoch after which, new over old learning rate)."""
    checkpoints: tuple[tuple[int, str], ...]
    """(epoch, path)."""
    best: tuple[Best, ...]
    exact: bool | None
    """None: the log has no learning rate, and a callback changed it."""
    diverges_at: int | None
    """First epoch trained at another learning rate than the recorded one; None without a recorded one."""
    changed_at: int | None
    """The same also without a recorded one: then the first epoch not trained at the first learning rate."""
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One result: one log, one attempt, one list of callbacks."""

    log: str
    attempt: int
    variant: str
    callbacks: tuple[str, ...]
    recording: Recording = field(repr=False, compare=False)
    decisions: Decisions | None
    """None where there is an `error`."""
    error: str | None
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The result as DESIGN.md §6 has it: epochs 0-based, non-finite numbers as strings."""
        document: dict[str, Any] = {
            "log": printable(self.log, limit=4096),
            "attempt": self.attempt,
            "variant": printable(self.variant),
            "callbacks": [printable(text, limit=4096) for text in self.callbacks],
            "epochs_recorded": len(self.recording.epochs),
        }
        made = self.decisions
        if made is None:
            return document | {"error": self.error, "warnings": list(self.warnings)}
        stop, rates = made.stopped, made.learning_rate
        return document | {
            "epochs_replayed": made.epochs_replayed,
            "stopped": stop and {"epoch": stop.epoch, "by": list(stop.by), "exact": stop.exact},
            "learning_rate": None if rates is None else [json_number(rate) for rate in rates],
            "learning_rate_next": json_number(made.learning_rate_next),
            "cuts": [{"epoch": epoch, "factor": json_number(factor)} for epoch, factor in made.cuts],
            "checkpoints": [{"epoch": epoch, "path": path} for epoch, path in made.checkpoints],
            "best": [
                {
                    "callback": b.callback,
                    "monitor": b.monitor,
                    "epoch": b.epoch,
                    "value": json_number(b.value),
                }
                for b in made.best
            ],
            "exact": made.exact,
            "diverges_at": made.diverges_at,
            "warnings": list(self.warnings),
            **_observed(made),
        }


def _observed(made: Decisions) -> dict[str, Any]:
    """What observers would have done: keys that are there only if the list has such callbacks."""
    found: dict[str, Any] = {}
    if said := [member for member in made.members if member.words]:
        found["observers"] = [
            {"callback": printable(member.text, limit=4096), "words": printable(member.words, limit=4096)}
            for member in said
        ]
    for member in made.members:
        if isinstance(member.policy, RemoteMonitor) and member.course is not None:
            try:
                sent, _ = requests(member.policy, member.course.rows)
            except NeedsLearningRate:
                found["requests"] = None
                break
            found.setdefault("requests", []).extend(sent)
    return found


def document(replays: Sequence[Replay], profile: Profile) -> dict[str, Any]:
    """The whole document of `cbmon replay --json`."""
    return {"version": 1, "keras": profile.name, "results": [replay.as_json() for replay in replays]}
