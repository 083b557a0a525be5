"""The kernels against folds of the scalar machines, over random curves."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbmon.policies import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from cbmon.profiles import PROFILES, Profile
from cbmon.replay import kernels

LAWS = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
DELTAS = (0.0, 1e-9, 1e-7, 1e-4, 1e-3, 0.1)


def random_curve(choose: random.Random, rows: int) -> list[float]:
    """Ties, near-ties, NaN and ±inf."""
    value, curve = choose.choice([1.0, 0.5, 100.0, 0.0, -1.0]), list[float]()
    is_odd = choose.random() < 0.4
    for _ in range(rows):
        value += choose.choice([-1, -1, 1]) * choose.choice([0.0, 0.0, 1e-9, 6e-8, 1e-7, 1e-4, 1e-3, 0.1])
        odd = choose.choice([math.nan, math.inf, -math.inf, 1e-40, -1e-42])
        curve.append(odd if is_odd and choose.random() < 0.2 else value)
    return curve


def slab(choose: random.Random) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded curves (T, R), their lengths and their first epochs."""
    lengths = np.array([choose.randint(0, 14) for _ in range(choose.randint(1, 4))])
    values = np.full((max(1, lengths.max()), len(lengths)), np.nan)
    for run, rows in enumerate(lengths):
        values[:rows, run] = random_curve(choose, rows)
    return values, lengths, np.array([choose.choice([0, 0, 1, 3]) for _ in lengths])


def compared(values: np.ndarray, profile_compares_float32: bool) -> np.ndarray:
    return kernels.compared(values) if profile_compares_float32 else values


@LAWS
@given(choose=st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", ["3.15", "3.6", "2"])
def test_early_stops_are_those_of_the_fold(name: str, choose: random.Random) -> None:
    profile: Profile = PROFILES[name]
    values, lengths, firsts = slab(choose)
    rows, runs = values.shape
    epochs = np.arange(rows)[:, None] + firsts
    deltas = np.array(sorted(choose.sample(DELTAS, choose.randint(1, 3))))
    starts = np.array(sorted({choose.choice([0, 0, 2, 5, 99]) for _ in range(2)}))
    baselines = np.array([np.nan, *[0.5, 0.9][: choose.randint(0, 2)]])
    patiences = np.array(sorted({choose.choice([1, 2, 3, 5, 40]) for _ in range(3)}))
    live = np.arange(rows)[:, None] < lengths
    admitted = live[:, None] & (epochs[:, None] >= starts[:, None])
    with np.errstate(invalid="ignore"):
        value = compared(values[:, None] + deltas[:, None], profile.float32_stopping)
        reference = compared(values, profile.float32_stopping)[:, None]
        improved = kernels.improvements(value, reference, admitted, is_first_free=profile.empty_stopping_best)
        beats = None
        if len(baselines) > 1:
            rounded = compared(np.repeat(baselines[:, None], runs, axis=1), profile.float32_stopping)
            beats = (value[:, :, None] < rounded) | np.isnan(baselines)[:, None]
    stops = kernels.early_stops(improved, beats, admitted, epochs > 0, patiences)
    assert stops.shape == (len(patiences), len(deltas), len(starts), len(baselines), runs)
    for place in np.ndindex(stops.shape):
        p, d, s, b, run = place
        baseline = None if math.isnan(baselines[b]) else float(baselines[b])
        policy = EarlyStopping(
            min_delta=float(deltas[d]),
            patience=int(patiences[p]),
            mode="min",
            baseline=baseline,
            start_from_epoch=int(starts[s]),
        )
        state, stopped = policy.begin(profile), rows
        for row in range(lengths[run]):
            seen = state.best
            state, stops_now = policy.step(state, int(epochs[row, run]), float(values[row, run]), profile)
            has_improved = state.best is not seen and admitted[row, s, run]
            assert improved[row, d, s, run] == has_improved, (policy, values[:, run], row)
            if stops_now:
                stopped = row
                break
        assert stops[place] == stopped, (policy, values[:, run], firsts[run])


@LAWS
@given(choose=st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", ["3.15", "3.10"])
def test_reductions_are_those_of_the_fold(name: str, choose: random.Random) -> None:
    profile: Profile = PROFILES[name]
    values, lengths, _ = slab(choose)
    rows, runs = values.shape
    deltas = np.array(sorted(choose.sample(DELTAS, choose.randint(1, 3))))
    patiences = np.array(sorted({choose.choice([1, 2, 3, 5, 40]) for _ in range(3)}))
    cooldowns = np.array(sorted({choose.choice([1, 2, 3, 40]) for _ in range(2)}))
    live = (np.arange(rows)[:, None] < lengths)[:, None]
    with np.errstate(invalid="ignore"):
        if profile.shared_monitor:
            value, reference = (
                kernels.compared(values[:, None] + deltas[:, None]),
                kernels.compared(values)[:, None],
            )
        else:
            value, reference = values[:, None], values[:, None] - deltas[:, None]
        improved = kernels.improvements(value, reference, live, is_first_free=profile.shared_monitor)
    cells, found, numbers = kernels.reductions(improved[:, :, 0], lengths, patiences, cooldowns)
    shape = (len(deltas), len(patiences), len(cooldowns), runs)
    for cell, place in enumerate(np.ndindex(shape)):
        d, p, c, run = place
        pause = choose.choice([0, 1]) if cooldowns[c] == 1 else int(cooldowns[c])
        policy = ReduceLROnPlateau(
            mode="min", patience=int(patiences[p]), min_delta=float(deltas[d]), cooldown=pause, min_lr=0
        )
        state, cuts = policy.begin(profile), []
        for row in range(lengths[run]):
            state, cut = policy.step(state, row, float(values[row, run]), None, profile)
            cuts += [row] if cut else []
        mine = cells == cell
        assert found[mine].tolist() == cuts, (policy, values[:, run])
        assert numbers[mine].tolist() == list(range(len(cuts)))


@LAWS
@given(choose=st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", ["3.15", "3.10"])
def test_record_lows_are_those_of_the_fold(name: str, choose: random.Random) -> None:
    profile: Profile = PROFILES[name]
    values, lengths, _ = slab(choose)
    rows, runs = values.shape
    thresholds = np.repeat(np.array([[np.nan], [0.5], [1.0]]), runs, axis=1)
    present = (np.arange(rows)[:, None] < lengths) & (np.random.default_rng(rows).random(values.shape) < 0.8)
    lows = kernels.record_lows(
        compared(values, profile.shared_monitor),
        present,
        compared(thresholds, profile.shared_monitor),
        is_first_free=profile.shared_monitor,
    )
    for b, run in np.ndindex(thresholds.shape):
        threshold = None if math.isnan(thresholds[b, run]) else float(thresholds[b, run])
        policy = ModelCheckpoint(
            "m.keras", mode="min", save_best_only=True, initial_value_threshold=threshold
        )
        state = policy.begin(profile)
        for row in range(rows):
            saves = False
            if present[row, run]:
                state, saves = policy.step(state, row, float(values[row, run]), profile)
            assert lows[row, b, run] == saves, (policy, values[:, run], present[:, run], row)


def test_rows_beyond_16_bits_are_numbered_too() -> None:
    rows = 40_000
    values = np.zeros((rows, 1))
    values[0] = 1.0
    admitted = np.ones((rows, 1, 1), np.bool_)
    improved = kernels.improvements(values[:, None], values[:, None], admitted, is_first_free=True)
    patiences = np.array([1, 39_000, 50_000])
    stops = kernels.early_stops(improved, None, admitted, np.ones((rows, 1), np.bool_), patiences)
    assert stops.reshape(-1).tolist() == [2, 39_001, rows]
    _, found, _ = kernels.reductions(improved[:, :, 0], np.array([rows]), np.array([39_000]), np.array([1]))
    assert found.tolist() == [39_001]


def test_a_wait_that_jumps_over_a_patience_ends_it_too() -> None:
    # The baseline is not beaten, so improving epochs add to the wait and the first other epoch finds it at 4.
    values = np.array([5.0, 4.0, 3.0, 3.0])[:, None]
    admitted = np.ones((4, 1, 1), np.bool_)
    improved = kernels.improvements(values[:, None], values[:, None], admitted, is_first_free=True)
    beats = np.zeros((4, 1, 1, 1), np.bool_)
    stops = kernels.early_stops(improved, beats, admitted, np.ones((4, 1), np.bool_), np.array([1, 2, 4, 5]))
    assert stops.reshape(-1).tolist() == [3, 3, 3, 4]
