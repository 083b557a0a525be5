"""What a sweep says, as frozen values: harms, order, recommendation, needed patience; for text, JSON and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from cbmon.errors import BadCall, CannotReplay
from cbmon.policies import EarlyStopping
from cbmon.replay.advice import (
    Flags,
    LeaveOneOut,
    Tolerance,
    choose,
    harmed,
    leave_one_out,
    needed_patience,
    pareto,
    promise,
    units_for,
)
from cbmon.replay.calls import parse_calls
from cbmon.replay.sweeping import Sweep, SweepSource
from cbmon.units import plural

SHARE_WANTED = 0.1
"""A promise weaker than one loss in ten is no basis for a choice: 9 runs for it."""
NEVER_IMPROVED = "best is the first epoch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The policy that saves most among those that harm at most `allowed` runs, and what that is worth."""

    policy: int
    """Index in `Sweep.policies`."""
    leave_one_out: LeaveOneOut
    promise: float
    """For a group of policies chosen beforehand, the greatest probability of harm to the next unit."""
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """A sweep with its answers. Arrays have one row a run and one column a policy, as in the sweep."""

    sweep: Sweep
    tolerance: Tolerance
    allowed: int
    """Runs that the recommended policy may harm."""
    harms: Flags
    """[run, policy]: the weights kept are worse than the run's best by more than the tolerance."""
    judged: Flags
    """[run]: those that the recommendation rests on."""
    needed: tuple[int | None, ...]
    """One a run: the smallest patience that keeps its best, see `needed_for`; None if unknown or none does."""
    needed_for: str
    """The other arguments that `needed` holds for, as a CALL; empty if the sweep has no EarlyStopping."""
    best_first: tuple[int, ...]
    """Policies that no other beats in both epochs saved and worst regret, the most saving first."""
    recommended: Recommendation | None
    why_none: str
    """Why nothing is recommended; empty if something is."""

    def fired(self, policy: int) -> int:
        """Runs on which it stopped, cut or saved."""
        return int((self.sweep.stops[:, policy] >= 0).sum())

    def saved(self, policy: int) -> int:
        """Epochs saved, over all runs."""
        return int(self.sweep.saved[:, policy].sum())

    def saved_seconds(self, policy: int) -> float | None:
        """Recorded time of the epochs saved; None where a run with such epochs does not tell."""
        total = 0.0
        for run, saved in zip(self.sweep.runs, self.sweep.saved[:, policy], strict=True):
            if saved and run.epoch_seconds is None:
                return None
            total += int(saved) * (run.epoch_seconds or 0.0)
        return total

    def harmful(self, policy: int) -> list[int]:
        """Indices of the runs that it harms."""
        return [int(run) for run in np.flatnonzero(self.harms[:, policy])]

    def regrets(self, policy: int, *, as_share: bool = False) -> list[float]:
        """Its finite regrets, a run each; in the metric's unit, or as shares of |best| where that is not 0."""
        if self.sweep.regret is None:
            return []
        column = self.sweep.regret[:, policy]
        pairs = [(float(r), run.best[1]) for r, run in zip(column, self.sweep.runs, strict=True) if run.best]
        if as_share:
            return [regret / abs(best) for regret, best in pairs if np.isfinite(regret) and best]
        return [regret for regret, _ in pairs if np.isfinite(regret)]


def rank(
    sweep: Sweep, sources: Sequence[SweepSource], *, tolerance: Tolerance | None = None, allowed: int = 0
) -> Ranking:
    """Judge a sweep.

    Args:
        sweep: With its cells.
        sources: What was swept; those not done are passed over.
        tolerance: What is no harm; 1 % of the best by default.
        allowed: Runs that the recommended policy may harm.
    """
    tolerance = tolerance or Tolerance()
    runs, policies = sweep.runs, sweep.policies
    is_judgeable = np.array([run.error is None and run.best is not None for run in runs], dtype=bool)
    harms: Flags = np.zeros((len(runs), len(policies)), dtype=bool)
    if sweep.regret is not None and len(runs):
        bests = np.array([run.best[1] if run.best else np.nan for run in runs])
        harms = harmed(sweep.regret, bests, tolerance) & is_judgeable[:, None]
        if sweep.keep == "last":
            harms &= sweep.stops >= 0  # what was not stopped ends as it ended, whatever the policy
    judged = is_judgeable & np.array([NEVER_IMPROVED not in run.flags for run in runs], dtype=bool)
    recommended, why_none = _recommend(sweep, harms, judged, tolerance, allowed)
    machine = _stopper(sweep, recommended.policy if recommended else 0)
    return Ranking(
        sweep=sweep,
        tolerance=tolerance,
        allowed=allowed,
        harms=harms,
        judged=judged,
        needed=_needed(sweep, sources, machine, tolerance),
        needed_for="" if machine is None else _others(machine),
        best_first=tuple(_front(sweep, judged)),
        recommended=recommended,
        why_none=why_none,
    )


def _recommend(
    sweep: Sweep, harms: Flags, judged: Flags, tolerance: Tolerance, allowed: int
) -> tuple[Recommendation | None, str]:
    if sweep.kind == "cut":
        return None, (
            "no regret and no recommendation for ReduceLROnPlateau: after the first cut nobody measured what "
            "would have come"
        )
    if sweep.kind == "save":
        return None, "no recommendation for ModelCheckpoint: it saves no epochs"
    rows = np.flatnonzero(judged)
    if not rows.size:
        return None, "no recommendation: no run of these can be judged"
    saved, lost = sweep.saved[rows], harms[rows]
    order = _by_patience(sweep)
    saved, lost = saved[:, order], lost[:, order]
    pick = choose(saved.sum(axis=0, dtype=np.int64), lost.sum(axis=0), allowed)
    if pick is None:
        least = int(lost.sum(axis=0).min())
        most = "no run" if not allowed else f"at most {plural(allowed, 'run')}"
        return None, (
            f"no recommendation: no policy of this grid harms {most} (tolerance {tolerance}); the least "
            f"harmful one still harms {least} of {len(rows)}"
        )
    groups = [sweep.runs[row].group for row in rows]
    units = groups if len(set(groups)) > 1 else [str(row) for row in rows]
    out = leave_one_out(saved, lost, units, allowed)
    if not saved[:, pick].any():
        return None, f"no recommendation: whatever harms no run (tolerance {tolerance}) saves no epoch either"
    needs = units_for(SHARE_WANTED, allowed)
    note = ""
    if out.of < needs:
        note = f"too few {out.unit}s to tell: {needs} {out.unit}s for {100 * SHARE_WANTED:g} %, here are {out.of}"
    return Recommendation(
        policy=order[pick], leave_one_out=out, promise=promise(out.of, allowed), note=note
    ), ""


def _by_patience(sweep: Sweep) -> list[int]:
    """The policies' indices, the most patient last: of equals it is the one to take."""

    def key(index: int) -> list[float]:
        arguments = sweep.policies[index].arguments
        names = sorted(arguments, key=lambda name: not name.endswith("patience"))
        numbers = [sweep.axes[name].index(arguments[name]) for name in names]
        values = [
            float(value) if isinstance(value := arguments[name], int | float) else number
            for name, number in zip(names, numbers, strict=True)
        ]
        # A larger min_delta calls fewer epochs better, so it stops sooner.
        return [-abs(v) if n.endswith("min_delta") else v for n, v in zip(names, values, strict=True)]

    return sorted(range(len(sweep.policies)), key=key)


def _stopper(sweep: Sweep, policy: int) -> EarlyStopping | None:
    """The only EarlyStopping of a policy."""
    if sweep.kind != "stop" or not sweep.policies:
        return None
    calls = parse_calls(sweep.policies[policy].call, sweep.profile)
    built = [call.build(sweep.profile) for call in calls if call.policy is EarlyStopping]
    machine = built[0] if len(built) == 1 else None
    return machine if isinstance(machine, EarlyStopping) else None


def _others(machine: EarlyStopping) -> str:
    default = EarlyStopping()
    names = ("monitor", "min_delta", "mode", "baseline", "start_from_epoch")
    told = [f"{n}={getattr(machine, n)!r}" for n in names if getattr(machine, n) != getattr(default, n)]
    return f"EarlyStopping({', '.join([*told, 'restore_best_weights=True'])})"


def _needed(
    sweep: Sweep, sources: Sequence[SweepSource], machine: EarlyStopping | None, tolerance: Tolerance
) -> tuple[int | None, ...]:
    recordings = {(source.log, source.attempt): source.recording for source in sources}
    needed: list[int | None] = []
    for run in sweep.runs:
        number = None
        if machine is not None and run.error is None and run.best is not None:
            with suppress(CannotReplay):
                number = needed_patience(recordings[run.log, run.attempt], machine, sweep.profile, tolerance)
        needed.append(number)
    return tuple(needed)


def _front(sweep: Sweep, judged: Flags) -> list[int]:
    if sweep.regret is None or not judged.any():
        return []
    bests = np.array([abs(run.best[1]) if run.best else np.nan for run in sweep.runs])[judged]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(sweep.regret[judged] == 0, 0.0, sweep.regret[judged] / bests[:, None])
    return pareto(sweep.saved[judged].sum(axis=0, dtype=np.int64), shares.max(axis=0))


# --- from the command line -------------------------------------------------------------------------------


def parse_tolerance(text: str) -> Tolerance:
    """Read `1%`, a share of the best, or `0.002`, in the metric's unit.

    Raises:
        BadCall: It is neither.
    """
    number, is_share = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount >= 0):
        raise BadCall(
            f"--tolerance {text}: give a share of the best value, such as 1%, or an amount, such as 0.002"
        )
    return Tolerance(amount=amount / 100 if is_share else amount, is_share=is_share)
