"""Advice from a sweep: the closed forms against doing it the long way, and promises against simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.policies import EarlyStopping
from cbmon.profiles import NEWEST, PROFILES
from cbmon.replay.advice import (
    Tolerance,
    choose,
    harmed,
    leave_one_out,
    needed_patience,
    pareto,
    promise,
    units_for,
    upper_bound,
)


@dataclass(frozen=True)
class Log:
    """A recorded attempt of one metric."""

    values: list[float | None]
    epochs: list[int] = field(default_factory=list)
    learning_rate: None = None
    not_numbers: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ("val_loss",)

    @property
    def metrics(self) -> dict[str, list[float | None]]:
        return {"val_loss": self.values}


def _log(values: list[float | None], first: int = 0) -> Log:
    return Log(values, list(range(first, first + len(values))))


def _regret(log: Log, policy: EarlyStopping, profile: Any) -> float:
    """What stopping there and restoring loses against the whole run, by running the policy."""
    machine = replace(policy, mode="min")
    state = machine.begin(profile)
    for epoch, value in zip(log.epochs, log.values, strict=True):
        state, stops = machine.step(state, epoch, value, profile)
        if stops:
            break
    kept = None if state.held_epoch is None else log.values[log.epochs.index(state.held_epoch)]
    best = min(v for v in log.values if v is not None and math.isfinite(v))
    return math.nan if kept is None else kept - best


CELLS = st.one_of(
    st.none(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1.0, 0.5]),
    st.floats(0, 2, allow_nan=False).map(lambda x: round(x, 2)),
)


@given(
    st.lists(CELLS, min_size=1, max_size=14),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([0, 2]),
    st.sampled_from([None, 0.6]),
    st.sampled_from(["3.15", "3.10", "3.6", "2"]),
    st.sampled_from([Tolerance(amount=0), Tolerance(), Tolerance(amount=0.2, is_share=False)]),
)
def test_needed_patience_is_the_smallest_that_keeps_the_best(
    values: list[float | None],
    first: int,
    min_delta: float,
    start: int,
    baseline: float | None,
    keras: str,
    tolerance: Tolerance,
) -> None:
    log, profile = _log(values, first), PROFILES[keras]
    policy = EarlyStopping(
        min_delta=min_delta,
        start_from_epoch=start,
        baseline=baseline,
        restore_best_weights=True,
        mode="min",
    )
    needed = needed_patience(log, policy, profile, tolerance)
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        assert needed is None
        return
    best = min(finite)
    enough = [
        patience
        for patience in range(1, len(values) + 2)
        if _regret(log, replace(policy, patience=patience), profile) <= tolerance.within(best)
    ]
    assert needed == (min(enough) if enough else None)
    if enough:
        assert enough == list(range(min(enough), len(values) + 2))  # more patience never keeps less


def test_needed_patience_and_harm_agree_at_the_very_edge_of_the_tolerance() -> None:
    values = [0.707, 0.8, 0.7]
    assert 0.707 <= 0.7 + 0.01 * 0.7
    assert not 0.707 - 0.7 <= 0.01 * 0.7  # and this is what harm is
    policy = EarlyStopping(mode="min")
    assert needed_patience(_log(list(values)), policy, NEWEST, Tolerance()) == 2
    assert harmed(np.array([[0.707 - 0.7]]), np.array([0.7]), Tolerance()).all()


def test_needed_patience_of_a_metric_that_is_absent_is_unknown() -> None:
    policy = EarlyStopping(monitor="val_mae", mode="min")
    assert needed_patience(_log([1.0, 0.5]), policy, NEWEST, Tolerance()) is None


@st.composite
def tables(draw: st.DrawFn) -> tuple[Any, Any, list[str], int]:
    runs, policies = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    saved = draw(
        st.lists(
            st.lists(st.integers(0, 5), min_size=policies, max_size=policies), min_size=runs, max_size=runs
        )
    )
    harms = draw(
        st.lists(st.lists(st.booleans(), min_size=policies, max_size=policies), min_size=runs, max_size=runs)
    )
    units = draw(st.lists(st.sampled_from("abc"), min_size=runs, max_size=runs))
    return np.array(saved), np.array(harms), units, draw(st.integers(0, 2))


@given(tables(), st.booleans())
def test_leaving_one_out_is_choosing_anew_from_the_others(
    table: tuple[Any, Any, list[str], int], by_folder: bool
) -> None:
    saved, harms, units, allowed = table
    units = units if by_folder else [str(row) for row in range(len(units))]
    lost = 0
    for unit in set(units):
        others = np.array([name != unit for name in units])
        pick = choose(saved[others].sum(axis=0), harms[others].sum(axis=0), allowed)
        lost += pick is not None and bool(harms[~others, pick].any())
    found = leave_one_out(saved, harms, units, allowed)
    assert (found.lost, found.of) == (lost, len(set(units)))


def test_a_choice_saves_most_then_harms_least_then_is_the_most_patient() -> None:
    assert choose(np.array([9, 5, 5, 5]), np.array([2, 1, 0, 0]), allowed=1) == 3
    assert choose(np.array([9, 5]), np.array([2, 1]), allowed=2) == 0
    assert choose(np.array([9, 5]), np.array([2, 1]), allowed=0) is None


@pytest.mark.parametrize(("lost", "of", "bound"), [(0, 9, 0.28), (1, 9, 0.43), (0, 59, 0.05), (0, 299, 0.01)])
def test_bounds_of_clopper_and_pearson(lost: int, of: int, bound: float) -> None:
    assert upper_bound(lost, of) == pytest.approx(bound, abs=0.005)


def test_all_lost_bounds_nothing() -> None:
    assert upper_bound(4, 4) == 1.0


@pytest.mark.parametrize(("share", "runs"), [(0.1, 9), (0.05, 19), (0.01, 99)])
def test_a_promise_takes_so_many_runs(share: float, runs: int) -> None:
    assert units_for(share) == runs
    assert promise(runs, 0) <= share < promise(runs - 1, 0)


def test_the_promise_holds_for_runs_drawn_alike() -> None:
    """Choosing the greatest needed patience of 9 runs loses on one in ten of fresh ones, not more."""
    generator = np.random.default_rng(7)
    needed = generator.integers(1, 10_000, size=(20_000, 10))
    assert (needed[:, :9].max(axis=1) < needed[:, 9]).mean() == pytest.approx(0.1, abs=0.01)


def test_regret_that_is_not_a_number_is_harm() -> None:
    regret = np.array([[0.0, 0.004, 0.006, math.nan]])
    assert harmed(regret, np.array([-0.5]), Tolerance()).tolist() == [[False, False, True, True]]
    assert harmed(regret, np.array([-0.5]), Tolerance(amount=0.1, is_share=False)).tolist() == [
        [False, False, False, True]
    ]


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1) | st.just(math.nan)), min_size=1, max_size=9))
def test_on_the_pareto_list_nothing_is_beaten_and_everything_else_is(points: list[tuple[int, float]]) -> None:
    saved, worst = np.array([s for s, _ in points]), np.array([w for _, w in points])
    cost = [math.inf if math.isnan(w) else w for _, w in points]
    front = pareto(saved, worst)

    def beats(i: int, j: int) -> bool:
        no_worse = saved[i] >= saved[j] and cost[i] <= cost[j]
        return bool(no_worse and (saved[i] > saved[j] or cost[i] < cost[j]))

    everything = range(len(points))
    assert all(not beats(i, j) for j in front for i in everything)
    for j in set(everything) - set(front):
        equal = any(saved[i] == saved[j] and cost[i] == cost[j] for i in front)
        assert equal or any(beats(i, j) for i in everything)
