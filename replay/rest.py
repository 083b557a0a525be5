"""What a plan cannot prove to be independent: one run, every policy through the scalar engine.

The same cells and sums as `judge` gives for a block of one run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cbmon.policies import EarlyStopping, ModelCheckpoint, Monitor, TerminateOnNaN
from cbmon.profiles import Profile
from cbmon.replay.blocks import NO_OBSERVATION, NOT_WITHIN, REFUSED, Cells, Judged, Longs, Totals
from cbmon.replay.calls import Call
from cbmon.replay.engine import replay
from cbmon.replay.evidence import in_effect
from cbmon.replay.grid import Grid, parse_grid
from cbmon.replay.plan import Keep, Kind, Plan
from cbmon.replay.results import Decisions, Member, Recording, Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    """A recording that another process can take: lists of what a replay reads."""

    epochs: Sequence[int]
    columns: frozenset[str]
    metrics: Mapping[str, Sequence[float | None]]
    learning_rate: Sequence[float | None] | None
    not_numbers: frozenset[str]
    memo: dict[str, Any] = field(default_factory=dict)


def _plain(recording: Recording) -> _Plain:
    recording, _ = in_effect(recording)
    rate, rows = recording.learning_rate, range(len(recording.epochs))
    plain = _Plain(
        epochs=list(recording.epochs),
        columns=frozenset(recording.columns),
        metrics={name: [column[row] for row in rows] for name, column in recording.metrics.items()},
        learning_rate=None if rate is None else [rate[row] for row in rows],
        not_numbers=frozenset(recording.not_numbers),
    )
    plain.memo["in_effect"] = (len(plain.epochs), (plain, None))  # it is that already
    return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """One run and all policies."""

    number: int
    text: str
    """Of the grid: a worker reads it again, for a schedule is code and does not travel."""
    profile: Profile
    kind: Kind
    keep: Keep
    is_as_if_restored: bool
    has_cuts: bool
    choices: Longs
    """Shape (policy, axis)."""
    recording: Recording
    learning_rate: float | None
    sign: float
    """Of the judged metric; -1 where more is better."""
    best: float | None
    tolerance: float
    seen: Sequence[float | None] = field(default=())
    """The judged metric as last seen up to each row."""


def make_rest(
    plan: Plan,
    number: int,
    recording: Recording,
    *,
    learning_rate: float | None,
    sign: float,
    best: float | None,
    tolerance: float,
) -> Rest:
    """Take what another process needs.

    Args:
        plan: Of the sweep.
        number: Of the run.
        recording: The attempt.
        learning_rate: The first one, for logs that have none.
        sign: Of the judged metric; -1 where more is better.
        best: Its best value over the whole run, None without a finite one.
        tolerance: Share of |best|.
    """
    seen, last = list[float | None](), None
    column = recording.metrics.get(plan.judged.monitor)
    for row in range(len(recording.epochs)):
        last = last if column is None or column[row] is None else column[row]
        seen.append(last)
    return Rest(
        number=number,
        text=plan.grid.source,
        profile=plan.profile,
        kind=plan.kind,
        keep=plan.keep,
        is_as_if_restored=plan.is_as_if_restored,
        has_cuts=plan.cuts,
        choices=plan.choices,
        recording=_plain(recording),
        learning_rate=learning_rate,
        sign=sign,
        best=best,
        tolerance=tolerance,
        seen=seen,
    )


def refusal(plan: Plan, recording: Recording, learning_rate: float | None) -> str | None:
    """What `replay` says of the first policy."""
    calls = plan.grid.calls(plan.choices[0].tolist())
    return replay(recording, calls, plan.profile, learning_rate=learning_rate).error


@dataclass(slots=True)
class _Verdict:
    """One policy on the run."""

    stop: int = NOT_WITHIN
    saved: int = 0
    regret: float = math.nan
    reductions: int = 0
    lr_final: float = math.nan
    saves: int = 0
    exact: bool = True


def judge_rest(rest: Rest, with_cells: bool) -> Judged:
    """Judge every policy on the run, one after the other."""
    grid = _grid(rest.text, rest.profile)
    verdicts = [_verdict(rest, grid.calls(choice)) for choice in rest.choices.tolist()]
    is_stop, is_cut = rest.kind == "stop", rest.kind == "cut"
    stops = np.array([verdict.stop for verdict in verdicts], np.int32)
    regret = np.array([verdict.regret for verdict in verdicts])
    exact = np.array([verdict.exact for verdict in verdicts], np.bool_)
    saved = np.array([verdict.saved for verdict in verdicts], np.int32)
    refused, unobserved, fired = stops == REFUSED, stops == NO_OBSERVATION, stops >= 0
    judged = ~refused & ~unobserved & (rest.best is not None)
    is_fine = regret <= abs(rest.best or 0.0) * rest.tolerance
    if rest.keep == "last":
        is_fine |= ~fired

    def count(flags: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Longs:
        return flags.astype(np.int64)

    totals = Totals(
        runs=count(judged),
        refused=count(refused),
        unobserved=count(unobserved),
        fired=count(fired),
        saved=saved.astype(np.int64),
        harmful=count(judged & ~is_fine & (not is_cut)),
        worst=np.where(judged & ~np.isnan(regret) & (not is_cut), regret, 0.0),
        counterfactual=count(fired & ~exact & is_stop),
    )
    cells = None
    if with_cells:
        reductions = np.array([verdict.reductions for verdict in verdicts], np.int32)
        lr_final = np.array([verdict.lr_final for verdict in verdicts])
        saves = np.array([verdict.saves for verdict in verdicts], np.int32)
        cells = Cells(
            stops=stops[:, None],
            saved=saved[:, None],
            regret=None if is_cut else regret[:, None],
            reductions=reductions[:, None] if rest.has_cuts else None,
            lr_final=lr_final[:, None] if rest.has_cuts else None,
            saves=saves[:, None] if rest.kind == "save" else None,
            exact=exact[:, None] if rest.has_cuts and is_stop else None,
        )
    refusals = np.array([refused.sum()], np.int64)
    return Judged(numbers=(rest.number,), totals=totals, refused=refusals, cells=cells)


@lru_cache(1)
def _grid(text: str, profile: Profile) -> Grid:
    return parse_grid(text, profile)


def _verdict(rest: Rest, calls: Sequence[Call]) -> _Verdict:
    recording = rest.recording
    if rest.is_as_if_restored:
        calls = [
            replace(call, arguments={**call.arguments, "restore_best_weights": True})
            if call.policy is EarlyStopping
            else call
            for call in calls
        ]
    result: Replay = replay(recording, calls, rest.profile, learning_rate=rest.learning_rate)
    made = result.decisions
    if made is None:
        return _Verdict(stop=REFUSED, exact=False)
    verdict, members = _Verdict(), made.members
    cuts = [epoch for member in members for epoch, _ in member.cuts]
    verdict.reductions = len(cuts)
    if made.learning_rate_next is not None:
        verdict.lr_final = made.learning_rate_next
    if rest.kind == "stop" and made.stopped is not None:
        verdict.stop = made.stopped.epoch
        verdict.saved = len(recording.epochs) - 1 - list(recording.epochs).index(made.stopped.epoch)
    elif rest.kind == "cut" and cuts:
        verdict.stop = min(cuts)
    elif rest.kind == "save":
        saved = next(member.saved_epochs for member in members if isinstance(member.policy, ModelCheckpoint))
        verdict.saves = len(saved)
        verdict.stop = saved[-1] if saved else NOT_WITHIN
    if verdict.stop == NOT_WITHIN and not any(
        _has_observation(member, rest.kind, recording) for member in members
    ):
        verdict.stop = NO_OBSERVATION
    if rest.kind == "stop":
        verdict.exact = not rest.has_cuts or (
            made.changed_at is None if made.stopped is None else made.stopped.exact
        )
    if rest.kind != "cut" and verdict.exact:
        verdict.regret = _regret(rest, _kept(rest, made, verdict))
    return verdict


def _has_observation(member: Member, kind: Kind, recording: Recording) -> bool:
    """Whether a member that decides has seen a value."""
    policy = member.policy
    if isinstance(policy, TerminateOnNaN):
        name, start = "loss", -math.inf
    elif isinstance(policy, EarlyStopping):
        name, start = policy.monitor, policy.start_from_epoch
    elif isinstance(policy, Monitor) and kind != "stop":
        name, start = policy.monitor, -math.inf
    else:
        return False
    column = recording.metrics.get(name)
    return column is not None and any(
        epoch >= start and column[row] is not None for row, epoch in enumerate(recording.epochs)
    )


def _kept(rest: Rest, made: Decisions, verdict: _Verdict) -> int | None:
    """The epoch whose weights are kept, None for none."""
    ends = rest.recording.epochs[made.epochs_replayed - 1] if made.epochs_replayed else None
    if rest.kind == "save":
        if rest.keep == "last":
            return ends
        return verdict.stop if verdict.saves else None
    if rest.keep == "restored":
        for member in made.members:
            if isinstance(member.policy, EarlyStopping):
                held = member.restored_epoch
                if rest.is_as_if_restored:
                    held = getattr(member.state, "held_epoch", None)
                ends = ends if held is None else held
    return ends


def _regret(rest: Rest, epoch: int | None) -> float:
    """In the metric's unit; NaN where nothing finite is kept."""
    if epoch is None or rest.best is None:
        return math.nan
    value = rest.seen[list(rest.recording.epochs).index(epoch)]
    return math.nan if value is None or not math.isfinite(value) else rest.sign * (value - rest.best)
