"""Advice from a sweep: which policy to take, what the logs promise of it, and when they are too few to tell.

Pure functions of arrays with one row a run and one column a policy: `saved` (int, epochs saved; 0 where it did
not stop) and `harmed` (bool, it lost more than the tolerance). The rule of choice is one: the greatest sum of
saved epochs among the policies that harm at most `allowed` runs. What it is worth on a log that it has not seen
is asked by leaving out each run, or each folder, in turn and choosing again by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cbmon.policies import EarlyStopping, resolve
from cbmon.profiles import Profile
from cbmon.replay.results import Recording

Integers = NDArray[np.integer]
Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How much worse than its whole run's best a run may end before a policy has harmed it."""

    amount: float = 0.01
    is_share: bool = True
    """Of the best value, without its sign; else in the unit of the metric."""

    def within(self, best: float) -> float:
        """The tolerated loss of a run with this best value, in the metric's unit."""
        return self.amount * abs(best) if self.is_share else self.amount

    def __str__(self) -> str:
        """As it is written: `1 %` or `0.001`."""
        return f"{100 * self.amount:g} %" if self.is_share else f"{self.amount:g}"


def harmed(regret: Floats, best: Floats, tolerance: Tolerance) -> Flags:
    """Which policy harmed which run.

    Args:
        regret: [run, policy], in the metric's unit; NaN where nothing comparable was kept, which is harm.
        best: [run], the best value of each whole run.
        tolerance: What is no harm.
    """
    within = np.array([tolerance.within(float(value)) for value in best])
    return ~(regret <= within[:, None])


# --- the choice ------------------------------------------------------------------------------------------


def choose(saved: Integers, harms: Integers, allowed: int) -> int | None:
    """The policy with the greatest sum of saved epochs among those that harm at most `allowed` runs.

    Args:
        saved: [policy], summed over the runs.
        harms: [policy], number of runs harmed.
        allowed: Runs that may be harmed.

    Returns:
        Its index; of equals the one with fewer harms, then the last: a grid rises, so that is the most patient.
        None if every policy harms more.
    """
    (feasible,) = np.nonzero(harms <= allowed)
    if not feasible.size:
        return None
    order = np.lexsort((feasible, -harms[feasible], saved[feasible]))
    return int(feasible[order[-1]])


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """How often the choice made without a unit harms that unit."""

    lost: int
    of: int
    unit: str
    """ "run", or "folder" where the logs lie in several: runs of one project are not independent."""

    @property
    def bound(self) -> float:
        """One-sided 95 % upper bound of the share lost; rough, for the folds share most of their data."""
        return upper_bound(self.lost, self.of)


def leave_one_out(saved: Integers, harms: Flags, units: Sequence[str], allowed: int) -> LeaveOneOut:
    """Choose again without each unit in turn, and look what the choice does to the unit.

    `allowed` stays what it is in every fold: a share of fewer runs would be another rule. Equal to choosing
    anew from the remaining rows, without their sums being taken again.

    Args:
        saved: [run, policy].
        harms: [run, policy].
        units: [run], the name of each run's unit.
        allowed: As for `choose`; at least one policy must be feasible.
    """
    names = sorted(set(units))
    rows = {name: [row for row, unit in enumerate(units) if unit == name] for name in names}
    sums, counts = saved.sum(axis=0, dtype=np.int64), harms.sum(axis=0, dtype=np.int64)
    # Only these can be feasible in some fold.
    (columns,) = np.nonzero(counts <= allowed + max(map(len, rows.values())))
    sums, counts, saved, harms = sums[columns], counts[columns], saved[:, columns], harms[:, columns]
    lost = 0
    for name in names:
        without_saved = sums - saved[rows[name]].sum(axis=0, dtype=np.int64)
        without_harms = counts - harms[rows[name]].sum(axis=0, dtype=np.int64)
        pick = choose(without_saved, without_harms, allowed)
        lost += pick is not None and bool(harms[rows[name], pick].any())
    return LeaveOneOut(lost=lost, of=len(names), unit="run" if len(names) == len(units) else "folder")


def upper_bound(lost: int, of: int, confidence: float = 0.95) -> float:
    """The Clopper-Pearson upper bound of a share: the greatest one under which so few losses are plausible."""
    if lost >= of:
        return 1.0

    def at_most(share: float) -> float:
        logs = (
            math.lgamma(of + 1)
            - math.lgamma(i + 1)
            - math.lgamma(of - i + 1)
            + i * math.log(share)
            + (of - i) * math.log1p(-share)
            for i in range(lost + 1)
        )
        return math.fsum(map(math.exp, logs))

    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > 1 - confidence else (low, middle)
    return high


def promise(units: int, allowed: int) -> float:
    """The greatest probability of losing on the next unit, for one group of policies chosen beforehand.

    Holds for any distribution if the next unit is exchangeable with the logged ones (order statistics, the
    split-conformal argument); choosing more than patience from the same logs makes it a little worse.
    """
    return min(1.0, (allowed + 1) / (units + 1))


def units_for(share: float, allowed: int = 0) -> int:
    """How many units a promise of at most `share` takes: 9 for 10 %, 19 for 5 %, 99 for 1 %."""
    return math.ceil(round((allowed + 1) / share - 1, 9))


# --- what a run needed -----------------------------------------------------------------------------------


def needed_patience(
    recording: Recording, policy: EarlyStopping, profile: Profile, tolerance: Tolerance
) -> int | None:
    """The smallest patience with which this run would have kept a value within the tolerance of its best.

    With restored weights more patience never keeps a worse value, so one number holds a run's whole axis.

    Args:
        recording: The run.
        policy: Its other parameters count, its own patience does not; best weights are restored.
        profile: Which Keras.
        tolerance: What is no loss.

    Returns:
        None where no patience would do (such as with a `min_delta` that hides the best), or nothing is finite.

    Raises:
        KerasRefuses: Keras cannot tell the direction, or cannot compare a value.
    """
    column = recording.metrics.get(policy.monitor)
    if column is None:
        return None
    machine = resolve(
        replace(policy, patience=math.inf, restore_best_weights=True), profile, recording.columns
    )
    sign = 1 if machine.mode == "min" else -1
    values = [column[row] for row in range(len(recording.epochs))]
    finite = [sign * value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return None
    best = min(finite)
    within = tolerance.within(best)
    state, longest = machine.begin(profile), 0
    by_epoch = dict(zip(recording.epochs, values, strict=True))
    for epoch, value in by_epoch.items():
        before = state
        state, _ = machine.step(state, epoch, value, profile)
        if state.held_epoch is not None:
            kept = by_epoch[state.held_epoch]
            if kept is not None and sign * kept - best <= within:  # as `harmed` compares
                return longest + 1
        is_check = value is not None and epoch >= machine.start_from_epoch and epoch > 0
        if is_check and state.best is before.best:
            longest = max(longest, state.wait)
    return None


# --- more than one good answer -----------------------------------------------------------------------------


def pareto(saved: Integers, worst: Floats) -> list[int]:
    """Policies than which no other saves more and regrets less, the most saving first; of equals the last.

    Args:
        saved: [policy], summed.
        worst: [policy], the greatest regret, as a share where runs differ in scale; NaN is the worst.
    """
    cost = np.where(np.isnan(worst), np.inf, worst)
    front: list[int] = []
    least = math.inf
    for index in np.lexsort((-np.arange(len(saved)), cost, -saved)):
        if cost[index] < least or not front:
            front.append(int(index))
            least = cost[index]
    return front
