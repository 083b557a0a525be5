"""A block of runs as arrays, and what judging it gives: cells, and sums that add up in any order.

A block's arrays are time-major, `T` rows (its longest run, at least 1) × `R` runs, all metrics signed so that
less is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cbmon.replay.canonical import Monitored

NOT_WITHIN = -1
"""Not within the recorded epochs: the policy did not fire. Not "never": the log ends where it ends."""
NO_OBSERVATION = -2
"""The policy has not seen a single value: metric absent, or every value lies before `start_from_epoch`."""
REFUSED = -3
"""Keras would have raised, or the decision needs a learning rate that the log does not have."""

Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Whole: TypeAlias = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A monitored column of every run of a block."""

    values: Floats
    """Shape (T, R); times `sign`; NaN where absent."""
    present: Bools
    """Shape (T, R)."""
    sign: Floats
    """Shape (R,); -1 where more is better."""
    refused: Bools
    """Shape (R,); where Keras would raise, or a replay cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Runs of similar length, as arrays."""

    numbers: tuple[int, ...]
    """Which of the sweep's runs these are."""
    lengths: Longs
    """Shape (R,); rows."""
    epochs: Longs
    """Shape (T, R); 0-based epoch of each row."""
    looked: Mapping[Monitored, Looked]
    seen: Floats
    """Shape (T, R); the judged metric, signed, as last seen up to each row; NaN before."""
    best: Floats
    """Shape (R,); its best, signed; NaN: none."""
    allowed: Floats
    """Shape (R,); regret that is not harmful."""
    first_rate: Floats
    """Shape (R,); the learning rate to start from, NaN: unknown."""
    is_rate_known: Bools
    """Shape (R,)."""
    recorded: Floats | None
    """Shape (T, R); learning rates as float32 holds them; NaN where none is recorded. None: no run has any."""
    is_recorded: Bools | None
    """Shape (T, R)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums and maxima over runs, one per policy (shape [policy]); they need no cells.

    Integers and maxima only, so they are the same for any number of workers and any order of blocks.
    """

    runs: Longs
    """Runs on which the policy could be judged: not refused, with an observation, and with a finite best value."""
    refused: Longs
    unobserved: Longs
    """Runs with NO_OBSERVATION."""
    fired: Longs
    saved: Longs
    """Epochs."""
    harmful: Longs
    """Of `runs`: those whose regret is not within the tolerance, NaN included; 0 for kind "cut". Where the last
    weights are kept, only of those that it stopped: the others end as they ended, whatever the policy."""
    worst: Floats
    """Greatest regret over `runs`, in the metric's unit; NaN regrets left out; 0 without any."""
    counterfactual: Longs
    """Of `fired`, kind "stop": those after a change of the learning rate that the log did not make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Shape [policy, run] throughout; the fields of `Sweep`, None where its kind has none."""

    stops: Ints
    saved: Ints
    regret: Floats | None
    reductions: Ints | None
    lr_final: Floats | None
    saves: Ints | None
    exact: Bools | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a work unit gives back."""

    numbers: tuple[int, ...]
    totals: Totals
    refused: Longs
    """Shape (R,); policies refused on each run."""
    cells: Cells | None


def no_totals(policies: int) -> Totals:
    """The totals of no run."""
    names = [field.name for field in fields(Totals) if field.name != "worst"]
    return Totals(**{name: np.zeros(policies, np.int64) for name in names}, worst=np.zeros(policies))


def summed(one: Totals, other: Totals) -> Totals:
    """The totals of both."""
    names = [field.name for field in fields(Totals) if field.name != "worst"]
    sums = {name: getattr(one, name) + getattr(other, name) for name in names}
    return Totals(**sums, worst=np.maximum(one.worst, other.worst))
