"""What a sweep says, as frozen values: harms, order, recommendation, needed patience; for text, JSON and HTML."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from cbmon.errors import BadCall, CannotReplay
from cbmon.policies import EarlyStopping
from cbmon.replay.advice import (
    Flags,
    Floats,
    Integers,
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
from cbmon.replay.swept import Sweep, SweepSource
from cbmon.units import plural, printable

SHARE_WANTED = 0.1
"""A promise weaker than one loss in ten is no basis for a choice: 9 runs for it."""
NEVER_IMPROVED = "best is the first epoch"
REPEATED_ROWS = 3
"""So many equal values, not all the same, are no coincidence: floats of a training have 7 digits and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The policy that saves most among those that harm at most `allowed` runs, and what that is worth."""

    policy: int
    """Index in `Sweep.policies`."""
    leave_one_out: LeaveOneOut
    promise: float | None
    """The greatest probability of harm to the next unit, were only patience chosen by these runs; None where more
    patience can keep less, so that nothing is promised."""
    also_chosen: tuple[str, ...]
    """Axes beside patience, chosen by the same runs: the promise is a little worse for them."""
    tried: int
    """Of the units those with a run long enough for the policy to stop it: `promise` rests on them alone."""
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
    unknown: Flags
    """[run, policy]: a cut of the learning rate that the run did not make comes before, so nobody measured what
    would have been kept. For the recommendation that counts as harm."""
    bests: Floats
    """[run]: the best of each whole run, NaN without a finite one."""
    judged: Flags
    """[run]: those that the recommendation rests on."""
    repeats: Flags
    """[run]: the beginning of another one, or the same once more: one training is one witness."""
    needed: tuple[int | None, ...]
    """One a run: the smallest patience that keeps its best, see `needed_for`; None if unknown or none does."""
    needed_for: str
    """The other arguments that `needed` holds for, as a CALL; empty if the sweep has no EarlyStopping."""
    best_first: tuple[int, ...]
    """Policies that no other beats in both epochs saved and worst regret, the most saving first."""
    recommended: Recommendation | None
    why_none: str
    """Why nothing is recommended; empty if something is."""

    @property
    def doubt_of_tolerance(self) -> str:
        """What is odd about an amount that is larger than the values it is about; empty if nothing is."""
        sizes = np.abs(self.bests[np.isfinite(self.bests)])
        if self.tolerance.is_share or not sizes.size or self.tolerance.amount < sizes.max():
            return ""
        return (
            f"an amount, in the unit of {printable(self.sweep.metric)}, and larger than any best value here. "
            f"As a share: {self.tolerance}%"
        )

    def fired(self, policy: int, *, judged: bool = False) -> int:
        """Runs on which it stopped, cut or saved; of all, or of those judged."""
        return int((self._column(self.sweep.stops, policy, judged) >= 0).sum())

    def saved(self, policy: int, *, judged: bool = False) -> int:
        """Epochs saved, over all runs, or over those judged."""
        return int(self._column(self.sweep.saved, policy, judged).sum())

    def saved_seconds(self, policy: int, *, judged: bool = False) -> float | None:
        """Recorded time of the epochs saved; None where a run with such epochs does not tell."""
        saved = self._column(self.sweep.saved, policy, judged)
        runs = [run for run, is_in in zip(self.sweep.runs, self.judged, strict=True) if is_in or not judged]
        total = 0.0
        for row in np.flatnonzero(saved):
            seconds = runs[row].epoch_seconds
            if seconds is None:
                return None
            total += int(saved[row]) * seconds
        return total

    def harmful(self, policy: int) -> list[int]:
        """Indices of the runs that it harms."""
        return [int(run) for run in np.flatnonzero(self.harms[:, policy])]

    def unmeasured(self, policy: int) -> list[int]:
        """Indices of the runs on which nobody knows."""
        return [int(run) for run in np.flatnonzero(self.unknown[:, policy])]

    def regret(self, policy: int) -> tuple[float, float] | None:
        """Median and worst of its finite regrets on all runs, in the metric's unit; None without any."""
        if self.sweep.regret is None:
            return None
        column = self.sweep.regret[:, policy]
        return _median_and_worst(column[np.isfinite(column)])

    def regret_share(self, policy: int) -> tuple[float, float] | None:
        """Median and worst of its regrets as shares of |best|, where it is known what the policy did to the run."""
        shares = _shares(self.sweep, self.bests, self.judged, slice(policy, policy + 1))
        return _median_and_worst(shares[~np.isnan(shares)])

    def _column(self, cells: Integers, policy: int, judged: bool) -> Integers:
        return cells[self.judged, policy] if judged else cells[:, policy]


def _median_and_worst(regrets: Floats) -> tuple[float, float] | None:
    return (float(np.median(regrets)), float(regrets.max())) if regrets.size else None


def _shares(sweep: Sweep, bests: Floats, judged: Flags, policies: slice) -> Floats:
    """[run judged, policy]: regrets as shares of |best|, infinite for any of a best of 0, NaN where not known.

    Where the last weights are kept, a run that was not stopped ends as it ended: 0, whatever it lost.
    """
    if sweep.regret is None:
        return np.empty((0, 0))
    regret = sweep.regret[judged, policies]
    if sweep.keep == "last":
        regret = np.where(sweep.stops[judged, policies] >= 0, regret, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: Floats = np.where(regret == 0, 0.0, regret / np.abs(bests[judged])[:, None])
    return shares


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
    unknown = harms
    bests = np.array([run.best[1] if run.best else math.nan for run in runs], dtype=float)
    if sweep.regret is not None and len(runs):
        harms = harmed(sweep.regret, bests, tolerance) & is_judgeable[:, None]
        if sweep.keep == "last":
            harms &= sweep.stops >= 0  # what was not stopped ends as it ended, whatever the policy
        if sweep.exact is not None:
            harms, unknown = harms & sweep.exact, harms & ~sweep.exact
    repeats = _repeats(sweep, sources)
    judged = is_judgeable & ~repeats & np.array([NEVER_IMPROVED not in run.flags for run in runs], dtype=bool)
    recommended, why_none = _recommend(sweep, harms, unknown, judged, tolerance, allowed)
    machine = _stopper(sweep, recommended.policy if recommended else 0)
    return Ranking(
        sweep=sweep,
        tolerance=tolerance,
        allowed=allowed,
        harms=harms,
        unknown=unknown,
        bests=bests,
        judged=judged,
        repeats=repeats,
        needed=_needed(sweep, sources, machine, tolerance),
        needed_for="" if machine is None else _others(machine),
        best_first=tuple(_front(sweep, bests, judged)),
        recommended=recommended,
        why_none=why_none,
    )


def _recommend(
    sweep: Sweep, harms: Flags, unknown: Flags, judged: Flags, tolerance: Tolerance, allowed: int
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
        return None, _nothing_judged(sweep)
    saved, lost = sweep.saved[rows], harms[rows] | unknown[rows]
    order = _by_patience(sweep)
    saved, lost = saved[:, order], lost[:, order]
    pick = choose(saved.sum(axis=0, dtype=np.int64), lost.sum(axis=0), allowed)
    if pick is None:
        least = order[int(lost.sum(axis=0).argmin())]
        return None, _all_harm(sweep, harms[rows, least], unknown[rows, least], tolerance, allowed)
    if not saved[:, pick].any():
        most = "no run" if not allowed else f"at most {plural(allowed, 'run')}"
        return None, (
            f"no recommendation: what harms {most} (tolerance {tolerance}) saves no epoch either"
            f"{_of_last_weights(sweep)}"
        )
    groups = [sweep.runs[row].group for row in rows]
    units = groups if len(set(groups)) > 1 else [str(row) for row in rows]
    out = leave_one_out(saved, lost, units, allowed)
    tried = len(
        {unit for unit, row in zip(units, rows, strict=True) if _could_stop(sweep, order[pick], int(row))}
    )
    needs = units_for(SHARE_WANTED, allowed)
    note = ""
    if tried < needs:
        here = f"here {'is' if tried == 1 else 'are'} {tried}"
        note = f"too few {out.unit}s to tell: {needs} {out.unit}s for {100 * SHARE_WANTED:g} %, {here}"
        note += f" that it could stop, of {out.of}" if tried < out.of else ""
    advice = Recommendation(
        policy=order[pick],
        leave_one_out=out,
        promise=promise(tried, allowed) if tried and _is_monotone(sweep, order[pick]) else None,
        tried=tried,
        also_chosen=tuple(
            name for name, values in sweep.axes.items() if len(values) > 1 and not name.endswith("patience")
        ),
        note=note,
    )
    return advice, ""


def _could_stop(sweep: Sweep, policy: int, run: int) -> bool:
    """Whether a run is long enough for the policy to stop it, whatever its values: a shorter one is no trial."""
    machine = _stopper(sweep, policy)
    if machine is None:
        return True
    return sweep.runs[run].epochs > max(1, math.ceil(machine.patience)) + max(0, machine.start_from_epoch)


def _repeats(sweep: Sweep, sources: Sequence[SweepSource]) -> Flags:
    """Runs whose values are those that another one begins with: a log copied while it grew, or twice."""
    recordings = {(source.log, source.attempt): source.recording for source in sources}
    found = np.zeros(len(sweep.runs), dtype=bool)
    by_start: dict[tuple[str, ...], list[list[str]]] = {}
    for row in sorted(range(len(sweep.runs)), key=lambda row: -sweep.runs[row].epochs):
        recording = recordings[sweep.runs[row].log, sweep.runs[row].attempt]
        column = recording.metrics.get(sweep.metric)
        if column is None or len(recording.epochs) < REPEATED_ROWS:
            continue
        values = [repr(column[place]) for place in range(len(recording.epochs))]  # as text NaN equals NaN
        if len(set(values)) == 1:
            continue
        longer = by_start.setdefault(tuple(values[:REPEATED_ROWS]), [])
        found[row] = any(other[: len(values)] == values for other in longer)
        if not found[row]:
            longer.append(values)
    return found


def _nothing_judged(sweep: Sweep) -> str:
    """Why no run can be judged, with how many for each reason."""
    reasons = Counter[str]()
    for run in sweep.runs:
        known = (f"{run.error}",) if run.error else run.flags
        reasons.update(
            why
            for why in known
            if run.error or why == NEVER_IMPROVED or why in ("monitored metric absent", "no finite value")
        )
    told = "; ".join(f"{reason}: {plural(count, 'run')}" for reason, count in reasons.most_common(3))
    return "no recommendation: no run of these can be judged" + (f" ({told})" if told else "")


def _all_harm(sweep: Sweep, harms: Flags, unknown: Flags, tolerance: Tolerance, allowed: int) -> str:
    """Why nothing is recommended where every policy harms too many runs; the least harmful one's figures."""
    most = "no run" if not allowed else f"at most {plural(allowed, 'run')}"
    text = (
        f"no recommendation: no policy of this grid harms {most} (tolerance {tolerance}); the least harmful one "
        f"still harms {int(harms.sum())} of {len(harms)}"
    )
    if count := int(unknown.sum()):
        text += f", and of {count} more nobody knows: a cut that the log did not make comes before"
    return text + _of_last_weights(sweep)


def _of_last_weights(sweep: Sweep) -> str:
    if sweep.keep == "restored":
        return ""
    return ". The last weights are kept here; restore_best_weights=True keeps the best"


def _is_monotone(sweep: Sweep, policy: int) -> bool:
    """Whether more patience never keeps less: one EarlyStopping, whose best weights come back in any case."""
    is_back = sweep.keep == "restored" and sweep.profile.restores_unstopped
    return is_back and _stopper(sweep, policy) is not None and sweep.exact is None


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


def _front(sweep: Sweep, bests: Floats, judged: Flags) -> list[int]:
    """Where nothing is known of a run, the regrets of the others count."""
    if sweep.kind != "stop" or sweep.regret is None or not judged.any():
        return []
    shares = _shares(sweep, bests, judged, slice(None))
    if sweep.exact is not None:
        shares = np.where(np.isnan(shares) & ~sweep.exact[judged], 0.0, shares)
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
