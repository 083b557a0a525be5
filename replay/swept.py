"""What a sweep takes and gives: recorded attempts, and the judgement of every policy on every one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from cbmon.profiles import Profile
from cbmon.replay.blocks import Bools, Floats, Ints, Totals
from cbmon.replay.evidence import cut_short
from cbmon.replay.plan import Keep, Kind
from cbmon.replay.results import Recording
from cbmon.run import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSource:
    """One recorded attempt, as a sweep takes it."""

    log: str
    """The log's path, as the user is told."""
    attempt: int
    """1-based."""
    recording: Recording
    group: str
    """Folder of the log."""
    epoch_seconds: float | None = None
    """Median recorded seconds an epoch."""
    is_cut_short: bool = False
    """Whether the log says that its training was itself stopped before its planned end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRun:
    """One attempt of one log, judged."""

    log: str
    attempt: int
    """1-based."""
    epochs: int
    """Rows recorded."""
    group: str
    """Folder of the log, for leave-one-folder-out."""
    best: tuple[int, float] | None
    """0-based epoch and value of `Sweep.metric` at its best over the whole recorded run; None: no finite value."""
    epoch_seconds: float | None
    """Median recorded seconds an epoch, None if the log cannot tell."""
    error: str | None
    """Why no policy could be judged on it (as `cbmon replay` says it), else None: then its cells are REFUSED."""
    flags: tuple[str, ...]
    """What makes its figures say less than they seem to: members of FLAGS."""


FLAGS = (
    "best is the first epoch",
    "best is the last epoch",
    "monitored metric absent",
    "no finite value",
    "may itself have been stopped early",
    "some policies refused",
)
"""Every flag of a `SweptRun`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPolicy:
    """One canonical list of callbacks: what provably decides the same on any log is one of them."""

    call: str
    """As written, each grid replaced by its value: the most patient, else the last, of `equivalent`."""
    equivalent: tuple[str, ...]
    """All calls merged into it, in CALL order, itself included."""
    arguments: Mapping[str, object]
    """The values of `call` on each of the sweep's axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The judgement of every policy on every run that was done.

    Cells have the shape [run, policy], in the order of `runs` and `policies`; [0, policy] where they were not kept.
    """

    profile: Profile
    runs: tuple[SweptRun, ...]
    """Those done, in the order given."""
    policies: tuple[SweptPolicy, ...]
    axes: Mapping[str, tuple[object, ...]]
    """Name of each axis and its values, in CALL order: the argument, with its callback's name where two have it."""
    members: Ints
    """[member of the grid]: its policy; in CALL order, the last axis moving fastest."""
    kind: Kind
    """What is judged. "stop": EarlyStopping and TerminateOnNaN. "cut": ReduceLROnPlateau alone, only its first
    reduction is exact. "save": ModelCheckpoint alone."""
    keep: Keep
    """Whose weights the regret is about: those of restore_best_weights (or of the best file), or the last ones."""
    metric: str
    """The metric of `best` and `regret`: what the first monitoring callback of the list monitors."""
    direction: Literal["min", "max"] | None
    """Its better direction; None where the logs resolve "auto" differently, or none could."""
    stops: Ints
    """0-based number of the epoch after which training stops. Kind "cut": of the first reduction. Kind "save": of
    the last save. Else NOT_WITHIN, NO_OBSERVATION or REFUSED."""
    saved: Ints
    """Epochs not trained: rows recorded after the stop; 0 where it did not fire, and for kinds "cut" and "save"."""
    regret: Floats | None
    """Value kept, less the best of the whole run, in the metric's unit, ≥ 0; a lower bound, for the log ends where
    it ends. NaN: nothing finite was kept, or the stop is counterfactual. A policy that did not fire keeps what the
    end of the run keeps. None for kind "cut"."""
    reductions: Ints | None
    """Reductions of the learning rate up to the end or the stop; counterfactual after the first. None without
    ReduceLROnPlateau; 0 in cells that are REFUSED."""
    lr_final: Floats | None
    """Learning rate after them, counterfactual likewise; NaN where unknown. None without ReduceLROnPlateau."""
    saves: Ints | None
    """Kind "save": number of saves, else None."""
    exact: Bools | None
    """Whether the stop lies before any effect of a reduction; None: every stop is a prefix of what was measured."""
    totals: Totals
    tolerance: float
    """Share of |best| by which a regret may exceed 0 before it counts as harmful in `totals`."""
    done: int
    """Attempts judged; fewer than `total` if interrupted."""
    total: int
    scalar: tuple[str, ...]
    """Why something left the vector road, in words; the results are the same, only slower."""
    warnings: tuple[str, ...]

    @property
    def is_partial(self) -> bool:
        """Whether it was interrupted."""
        return self.done < self.total


def sources_of(
    log: str, group: str, attempts: Sequence[Attempt], planned: int | None = None
) -> list[SweepSource]:
    """The attempts of a log that have rows, as a sweep takes them.

    Args:
        log: Its path, as the user is told.
        group: Its folder.
        attempts: All of them.
        planned: Epochs that the training was to have, if known and not in the record.
    """
    return [
        SweepSource(
            log=log,
            attempt=number,
            recording=attempt,
            group=group,
            epoch_seconds=_epoch_seconds(attempt),
            is_cut_short=cut_short(attempt, planned) is not None,
        )
        for number, attempt in enumerate(attempts, 1)
        if attempt.epochs
    ]


def _epoch_seconds(attempt: Attempt) -> float | None:
    """The median of the recorded durations, else of the time between rows."""
    recorded = attempt.seconds.get("epoch", ())
    seconds = [second for second in recorded if second is not None and 0 < second < math.inf]
    if not seconds:
        times = list(attempt.times)
        steps = zip(times, times[1:], attempt.epochs, attempt.epochs[1:], strict=False)
        seconds = [
            (later - one) / (after - before)
            for one, later, before, after in steps
            if one is not None and later is not None and 0 < later - one < math.inf
        ]
    return median(seconds) if seconds else None
