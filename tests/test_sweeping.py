"""The sweep against its judges, the scalar engine and the real callbacks; and how it is cut up and put together."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cbmon.errors import BadCall
from cbmon.policies import EarlyStopping, ModelCheckpoint
from cbmon.profiles import NEWEST, PROFILES, Profile
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.grid import parse_grid
from cbmon.replay.plan import make_plan
from cbmon.replay.results import Recording, Replay
from cbmon.replay.sweeping import (
    NO_OBSERVATION,
    NOT_WITHIN,
    REFUSED,
    Sweep,
    SweepSource,
    Totals,
    sources_of,
    sweep,
)
from cbmon.run import Attempt, Run, fold
from cbmon.series import Column
from cbmon.sources import find, read_whole
from tests.test_keras_parity import REALS, Log, RealKeras, random_log, random_values

LAWS = settings(deadline=None, suppress_health_check=list(HealthCheck))
CORPUS = Path(__file__).resolve().parent.parent.parent / "shared" / "corpus"


# --- the judge: one policy after the other ------------------------------------------------------------------


class WithRates(Log):
    """A log with a recorded learning rate."""

    def __init__(self, log: Log, rates: list[float | None]) -> None:
        super().__init__(log.epochs, log.rows, log.steps)
        object.__setattr__(self, "learning_rate", rates)


def source(recording: Recording, number: int = 0, group: str = "logs") -> SweepSource:
    return SweepSource(log=f"{number}.csv", attempt=1, recording=recording, group=group)


def curve(*values: float | None, first: int = 0) -> Log:
    """A log of one column, val_loss."""
    rows = [{} if value is None else {"val_loss": value} for value in values]
    return Log(list(range(first, first + len(values))), rows, 1)


def seen(recording: Recording, metric: str, epoch: int) -> float | None:
    """The metric as last seen up to an epoch."""
    column = recording.metrics.get(metric, [])
    values = [column[row] for row, number in enumerate(recording.epochs) if len(column) and number <= epoch]
    return next((value for value in reversed(values) if value is not None), None)


def kept_epoch(made: Replay, keep: str, recording: Recording) -> int | None:
    assert made.decisions is not None
    restored = [m.restored_epoch for m in made.decisions.members if m.restored_epoch is not None]
    if keep == "restored" and restored:
        return restored[-1]
    return recording.epochs[made.decisions.epochs_replayed - 1] if made.decisions.epochs_replayed else None


def assert_cell(swept: Sweep, run: int, policy: int, made: Replay, where: str) -> None:
    """One cell of a sweep is what a replay of the same call says."""
    stop, recording = int(swept.stops[run, policy]), made.recording
    assert (stop == REFUSED) == (made.error is not None), f"{where}\n{stop}, {made.error}"
    if made.decisions is None:
        return
    saved = int(swept.saved[run, policy])
    cuts = [epoch for member in made.decisions.members for epoch, _ in member.cuts]
    if swept.kind == "stop":
        stopped = made.decisions.stopped
        assert (stop if stop >= 0 else None) == (stopped and stopped.epoch), f"{where}\n{stop}, {stopped}"
        left = len(recording.epochs) - made.decisions.epochs_replayed if stopped else 0
        assert saved == left, f"{where}\n{saved}, {left}"
    elif swept.kind == "cut":
        assert (stop if stop >= 0 else None) == (min(cuts) if cuts else None), f"{where}\n{stop}, {cuts}"
        assert saved == 0
    else:
        saves = next(m for m in made.decisions.members if isinstance(m.policy, ModelCheckpoint)).saved_epochs
        assert swept.saves is not None
        assert swept.saves[run, policy] == len(saves), where
        assert (stop if stop >= 0 else None) == (saves[-1] if saves else None), where
    if swept.reductions is not None and swept.lr_final is not None:
        assert swept.reductions[run, policy] == len(cuts), f"{where}\n{swept.reductions[run, policy]}, {cuts}"
        final = made.decisions.learning_rate_next
        ours = swept.lr_final[run, policy]
        is_same = ours == final or (math.isnan(ours) and (final is None or math.isnan(final)))
        assert is_same, f"{where}\n{ours}, {final}"
    is_exact = True
    if swept.exact is not None:
        stopped = made.decisions.stopped
        is_exact = made.decisions.changed_at is None if stopped is None else stopped.exact
        assert swept.exact[run, policy] == is_exact, where
    if swept.regret is None:
        return
    best, regret = swept.runs[run].best, swept.regret[run, policy]
    epoch = kept_epoch(made, swept.keep, recording)
    if swept.kind == "save":
        epoch = stop if stop >= 0 else None
    value = None if epoch is None else seen(recording, swept.metric, epoch)
    if best is None or value is None or not math.isfinite(value) or not is_exact:
        assert math.isnan(regret), f"{where}\n{regret}"
    else:
        assert regret == abs(value - best[1]), (
            f"{where}\n{regret}, kept {value} of epoch {epoch}, best {best}"
        )


def check(text: str, recordings: Sequence[Recording], profile: Profile, rate: float | None = None) -> Sweep:
    """A sweep of every policy of a grid, each cell replayed from its text."""
    swept = sweep([source(r, n) for n, r in enumerate(recordings)], text, profile, learning_rate=rate)
    assert sum(len(policy.equivalent) for policy in swept.policies) == len(
        set(parse_grid(text, profile).texts())
    )
    for number, policy in enumerate(swept.policies):
        assert policy.call in policy.equivalent
        for call in policy.equivalent:
            calls = parse_calls(call, profile)
            for run, recording in enumerate(recordings):
                made = replay(recording, calls, profile, learning_rate=rate)
                where = f"{profile.name}, {call}, of {text}\nlr {rate}, {recording}\n{made.decisions}"
                assert_cell(swept, run, number, made, where)
    assert_totals(swept)
    return swept


def assert_totals(swept: Sweep) -> None:
    """The sums are those of the cells."""
    totals, fired = swept.totals, swept.stops >= 0
    refused, unobserved = swept.stops == REFUSED, swept.stops == NO_OBSERVATION
    has_best = np.array([[run.best is not None] for run in swept.runs])
    judged = ~refused & ~unobserved & has_best
    assert (totals.runs == judged.sum(axis=0)).all()
    assert (totals.refused == refused.sum(axis=0)).all()
    assert (totals.unobserved == unobserved.sum(axis=0)).all()
    assert (totals.fired == fired.sum(axis=0)).all()
    assert (totals.saved == swept.saved.sum(axis=0)).all()
    if swept.exact is not None:
        assert (totals.counterfactual == (fired & ~swept.exact).sum(axis=0)).all()
    if swept.regret is not None:
        best = np.array([[abs(run.best[1]) if run.best else math.nan] for run in swept.runs])
        harmful = judged & ~(swept.regret <= swept.tolerance * best)
        if swept.keep == "last":
            harmful &= fired
        assert (totals.harmful == harmful.sum(axis=0)).all()
        worst = np.nan_to_num(np.where(judged, swept.regret, 0.0)).max(axis=0, initial=0.0)
        assert (totals.worst == worst).all()
    else:
        assert not totals.harmful.any()


def random_grid(choose: random.Random, values: Sequence[object]) -> str:
    """Some values of an argument: one, or a grid."""
    some = [choose.choice(values) for _ in range(choose.choice([1, 1, 2, 3]))]
    return repr(some[0]) if len(some) == 1 else f"grid({', '.join(map(repr, some))})"


def random_member(choose: random.Random, kind: str) -> str:
    """A callback with grids over what decisions depend on."""
    monitor = choose.choice(
        ["'val_loss'"] * 5 + ["'loss'", "'val_accuracy'", "'mine'", "grid('val_loss', 'loss')"]
    )
    mode = choose.choice(["'auto'", "'min'", "'min'", "'max'", "grid('min', 'max')"])
    deltas = (0, 0, 1e-9, 1e-8, 1e-7, 1e-4, 1e-3, -1e-3, 0.1)
    monitored = f"monitor={monitor}, mode={mode}"
    if kind == "E":
        return (
            f"EarlyStopping({monitored}, min_delta={random_grid(choose, deltas)}, "
            f"patience={random_grid(choose, [-1, 0, 1, 1, 1.5, 2, 3, 5, 99])}, "
            f"baseline={random_grid(choose, [None, None, 0.9, 1, 0.5])}, "
            f"restore_best_weights={choose.choice([True, True, False])}, "
            f"start_from_epoch={random_grid(choose, [0, 0, 2, 2.5, 4])})"
        )
    if kind == "R":
        return (
            f"ReduceLROnPlateau({monitored}, factor={random_grid(choose, [0.5, 0.1, 0.3, 0, -0.5, 0.999, 1e-30])}, "
            f"patience={random_grid(choose, [0, 1, 1, 2, 3, 2.5])}, min_delta={random_grid(choose, deltas)}, "
            f"cooldown={random_grid(choose, [0, 0, 1, 2, 3, 1.5])}, "
            f"min_lr={random_grid(choose, [0, 0, 0.03, 0.1, -0.01, 0.001])})"
        )
    if kind == "M":
        return (
            f"ModelCheckpoint('{{epoch}}.keras', {monitored}, save_best_only=True, "
            f"initial_value_threshold={random_grid(choose, [None, None, 0.95, 0.33])})"
        )
    return "TerminateOnNaN()"


def random_text(choose: random.Random, *, may_watch: bool = False) -> str:
    kinds = choose.choice(
        ["E", "E", "R", "R", "M", "T", "EE", "ET", "ER", "RE", "TR", "EM", "MRE", "EET", "RM"]
    )
    watching = (
        []
        if not may_watch
        else choose.choice(
            [[], [], ["CSVLogger(grid('a', 'b'))"], ["TensorBoard()", "BackupAndRestore('a')"]]
        )
    )
    members = [*(random_member(choose, kind) for kind in kinds), *watching]
    if may_watch:
        choose.shuffle(members)
    return "; ".join(members)


def random_recording(choose: random.Random) -> Recording:
    log = random_log(choose)
    if choose.random() < 0.4:
        rates = [choose.choice([0.1, 0.1, 0.1, 0.05, None]) for _ in log.epochs]
        return WithRates(log, rates) if any(rate is not None for rate in rates) else log
    return log


def is_small(text: str, profile: Profile) -> bool:
    return len(parse_grid(text, profile)) <= 60


@settings(LAWS, max_examples=500)
@given(choose=st.randoms(use_true_random=False))
def test_every_cell_is_what_the_scalar_engine_says(choose: random.Random) -> None:
    profile = choose.choice(list(PROFILES.values()))
    text = next(text for _ in range(99) if is_small(text := random_text(choose, may_watch=True), profile))
    recordings = [random_recording(choose) for _ in range(choose.randint(1, 4))]
    check(text, recordings, profile, choose.choice([0.1, 0.1, 1e-3, None]))


@settings(LAWS, max_examples=60)
@given(choose=st.randoms(use_true_random=False))
@pytest.mark.parametrize("kinds", ["E", "EE", "ET", "R", "M", "T", "ER", "TR", "EM", "MRE"])
def test_every_group_of_the_plan_decides_as_the_scalar_engine_does(kinds: str, choose: random.Random) -> None:
    text = "; ".join(random_member(choose, kind) for kind in kinds)
    if not is_small(text, NEWEST):
        return
    plan = make_plan(parse_grid(text, NEWEST), NEWEST)
    assert plan.groups is not None, plan.scalar
    check(text, [random_log(choose) for _ in range(2)], choose.choice(list(PROFILES.values())), 0.1)


SCALAR = {
    "LearningRateScheduler('lr * 0.5'); EarlyStopping(patience=grid(1, 2))": "LearningRateScheduler",
    "ReduceLROnPlateau(patience=grid(1, 2)); ReduceLROnPlateau(factor=0.5, patience=1)": "two ReduceLROnPlateau",
    "TerminateOnNaN(raise_error=True); EarlyStopping(patience=grid(1, 2))": "raise_error",
    "ModelCheckpoint('m.keras', save_best_only=grid(True, False))": "saves every epoch",
    "ModelCheckpoint('m.keras', save_best_only=True, save_freq=grid('epoch', 2))": "counts batches",
    "ModelCheckpoint('{val_loss}.keras'); EarlyStopping(patience=grid(1, 2))": "asks for more than the epoch",
    "EarlyStopping(monitor='learning_rate', mode='min', patience=grid(1, 2))": "monitors the learning rate",
    "EarlyStopping(patience=grid(1, 1e400))": "no number that an array holds",
    "EarlyStopping(baseline=grid(None, 1e39))": "beyond float32",
}


@pytest.mark.parametrize("text", SCALAR)
def test_what_is_not_proven_takes_the_scalar_road_and_says_why(text: str) -> None:
    choose = random.Random(text)
    swept = check(text, [random_log(choose) for _ in range(6)], NEWEST, 0.1)
    assert any(SCALAR[text] in reason for reason in swept.scalar), swept.scalar


def test_a_run_with_values_beyond_float32_takes_the_scalar_road() -> None:
    swept = check("EarlyStopping(patience=range(1, 4))", [curve(2, 1e39, 1, 1, 1), curve(2, 1, 1)], NEWEST)
    assert swept.scalar == ("1 run: values beyond float32, at which TensorFlow raises",)
    assert (swept.stops[0] == REFUSED).all()
    assert swept.runs[0].error is not None
    assert "out of range" in swept.runs[0].error
    assert swept.runs[1].error is None


@settings(LAWS, max_examples=300)
@given(choose=st.randoms(use_true_random=False))
@pytest.mark.parametrize("module", ["keras", "tf_keras"])
def test_the_sweep_decides_as_the_real_callbacks_do(module: str, choose: random.Random) -> None:
    real = REALS.setdefault(module, RealKeras(module)) if module not in REALS else REALS[module]
    text = next(text for _ in range(99) if is_small(text := random_text(choose), real.profile))
    logs = [random_log(choose) for _ in range(2)]
    swept = sweep([source(log, n) for n, log in enumerate(logs)], text, real.profile, learning_rate=0.1)
    for _ in range(4):
        policy, run = choose.randrange(len(swept.policies)), choose.randrange(len(logs))
        call = choose.choice(swept.policies[policy].equivalent)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, _ = real.drive(call.split("; "), logs[run], 0.1)
        stop, where = int(swept.stops[run, policy]), f"{real.profile.name}: {call}\n{logs[run]}\n{theirs}"
        assert (stop == REFUSED) == (theirs.error is not None), where
        if theirs.error is not None:
            continue
        if swept.kind == "stop":
            assert (stop if stop >= 0 else None) == theirs.stopped_epoch, where
        elif swept.kind == "save":
            assert (stop if stop >= 0 else None) == max(
                (save.epoch for save in theirs.saves), default=None
            ), where
        if swept.lr_final is not None and swept.reductions is not None:
            assert swept.lr_final[run, policy] == theirs.next_rate, where
            assert swept.reductions[run, policy] == len(theirs.cuts), where
        if swept.kind == "stop" and swept.regret is not None and not math.isnan(swept.regret[run, policy]):
            ends = logs[run].epochs[theirs.epochs - 1]
            kept = theirs.restored[max(theirs.restored)] if theirs.restored else ends
            value, best = seen(logs[run], swept.metric, kept), swept.runs[run].best
            assert value is not None
            assert best is not None
            assert swept.regret[run, policy] == abs(value - best[1]), where


# --- what is kept, and what is said of a run -----------------------------------------------------------------


def test_equal_policies_are_one_and_the_most_patient_stands_for_them() -> None:
    text = "EarlyStopping(patience=grid(-1, 0, 1, 1.5, 2), min_delta=grid(1e-3, -1e-3))"
    swept = check(text, [curve(1, 1)], NEWEST)
    assert [(policy.call, len(policy.equivalent)) for policy in swept.policies] == [
        ("EarlyStopping(patience=1, min_delta=-1e-3)", 6),
        ("EarlyStopping(patience=2, min_delta=-1e-3)", 4),
    ]
    assert swept.policies[1].arguments == {"patience": 2, "min_delta": -1e-3}
    assert swept.axes == {"patience": (-1, 0, 1, 1.5, 2), "min_delta": (1e-3, -1e-3)}


def test_a_signed_min_delta_of_old_plateaus_is_not_merged() -> None:
    text = (
        "ReduceLROnPlateau(patience=1, min_delta=grid(1e-3, -1e-3), cooldown=grid(0, 1), verbose=grid(0, 1))"
    )
    logs = [curve(1.0, 1.0005, 1.0, 0.9999, 1.0)]
    assert len(check(text, logs, PROFILES["3.10"], 0.1).policies) == 2
    assert len(check(text, logs, PROFILES["3.15"], 0.1).policies) == 1


FLAT, NAN = curve(1, 1, 1, 1, 1), math.nan


def test_cuts_of_an_unknown_rate_are_unlimited_unless_one_is_to_0() -> None:
    swept = check("ReduceLROnPlateau(factor=grid(0.5, 0, -0.5), patience=1)", [FLAT], NEWEST)
    assert swept.reductions is not None
    assert swept.reductions.tolist() == [[4, 1, 1]]
    # A factor of at most 0 above a floor below 0 leads who knows where.
    swept = check("ReduceLROnPlateau(factor=grid(0, -0.5), min_lr=grid(0, -1), patience=1)", [FLAT], NEWEST)
    assert swept.stops.tolist() == [[1, REFUSED, 1, REFUSED]]


def test_the_rate_to_start_from_is_the_first_recorded_one() -> None:
    log = WithRates(FLAT, [None, 0.1, 0.1, 0.1, 0.1])
    text = "ReduceLROnPlateau(factor=0.5, patience=1, min_lr=grid(0, 0.03))"
    swept = check(text, [log, FLAT], NEWEST, 0.2)
    assert swept.reductions is not None
    assert swept.reductions.tolist() == [[4, 2], [4, 3]]


def test_without_a_rate_any_cut_makes_the_rest_counterfactual() -> None:
    text = "ReduceLROnPlateau(factor=0.5, patience=2); EarlyStopping(patience=grid(2, 3))"
    swept = check(text, [FLAT], NEWEST)
    assert swept.exact is not None
    assert swept.exact.tolist() == [[True, False]]


def test_a_cut_after_the_last_epoch_of_a_short_run_changes_nothing_of_it() -> None:
    text = "ReduceLROnPlateau(factor=0.5, patience=3); EarlyStopping(patience=9)"
    swept = check(text, [curve(1, 1, 1, 1), FLAT], NEWEST, 0.1)
    assert swept.exact is not None
    assert swept.exact.tolist() == [[True], [False]]


def test_before_2_16_only_the_callback_that_stops_restores() -> None:
    text = (
        "EarlyStopping(patience=3, restore_best_weights=True); "
        "EarlyStopping('loss', patience=grid(1, 9), restore_best_weights=True)"
    )
    rows = [{"loss": 1.0, "val_loss": value} for value in (1.0, 0.5, 0.8, 0.9, 0.7)]
    swept = check(text, [Log(list(range(5)), rows, 1)], PROFILES["2.15"])
    assert swept.regret is not None
    assert swept.regret.tolist() == [[0.5, 0.0]]


@pytest.mark.parametrize(("version", "saves"), [("3.15", 4), ("3.10", 4), ("3.9", 2), ("2.15", 2)])
def test_an_absent_metric_saves_from_3_10_on(version: str, saves: int) -> None:
    text = "ModelCheckpoint('a.keras', save_best_only=True, initial_value_threshold=grid(None, 0.7))"
    swept = check(text, [curve(1, None, 0.5, None)], PROFILES[version])
    assert swept.saves is not None
    assert swept.saves.tolist() == [[saves, saves - 1]]


@pytest.mark.parametrize(
    ("version", "first", "stops"), [("3.6", 0, [1, 1]), ("3.6", 3, [3, 4]), ("2", 0, [1, 1])]
)
def test_the_epoch_0_never_stops_where_nan_is_no_improvement(
    version: str, first: int, stops: list[int]
) -> None:
    swept = check(
        "EarlyStopping(patience=grid(0, 2))", [curve(NAN, NAN, NAN, first=first)], PROFILES[version]
    )
    assert swept.stops.tolist() == [stops]


def test_the_stop_the_regret_and_the_epochs_saved() -> None:
    log = curve(1.0, 0.5, 0.7, 0.6, 0.75, 0.4, 0.45)
    swept = check("EarlyStopping(patience=grid(1, 3, 4), restore_best_weights=True)", [log], NEWEST)
    assert swept.stops.tolist() == [[2, 4, NOT_WITHIN]]
    assert swept.saved.tolist() == [[4, 2, 0]]
    assert swept.regret is not None
    assert swept.regret[0].tolist() == pytest.approx([0.1, 0.1, 0.0])
    assert (swept.kind, swept.keep, swept.metric, swept.direction) == ("stop", "restored", "val_loss", "min")
    last = check("EarlyStopping(patience=grid(1, 3, 4))", [log], NEWEST)
    assert last.keep == "last"
    assert last.regret is not None
    assert last.regret[0].tolist() == pytest.approx([0.3, 0.35, 0.05])


def test_keep_restored_can_be_asked_for_as_a_checkpoint_of_the_best_would_keep_it() -> None:
    log, text = curve(1.0, 0.5, 0.7, 0.6, 0.75, 0.4, 0.45), "EarlyStopping(patience=grid(1, 3, 4))"
    for profile in (NEWEST, PROFILES["2.15"]):
        swept = sweep([source(log)], text, profile, keep="restored")
        assert swept.regret is not None
        assert swept.regret[0].tolist() == pytest.approx([0.1, 0.1, 0.0])


def test_runs_are_flagged() -> None:
    logs = [curve(1, 2, 3), curve(3, 2, 1), curve(None, None), curve(math.nan, math.inf), curve(3, 2, 1, 2)]
    swept = check("EarlyStopping(patience=grid(1, 2))", logs, NEWEST)
    assert [run.flags for run in swept.runs] == [
        ("best is the first epoch",),
        ("best is the last epoch",),
        ("monitored metric absent",),
        ("no finite value",),
        (),
    ]
    assert [run.best for run in swept.runs] == [(0, 1.0), (2, 1.0), None, None, (2, 1.0)]
    assert (swept.stops[2] == NO_OBSERVATION).all()
    assert (swept.totals.unobserved == 1).all()
    assert (swept.totals.runs == 3).all()


def test_a_direction_that_keras_cannot_tell_is_that_runs_error() -> None:
    log = Log([0, 1, 2], [{"mine": 1.0}, {"mine": 2.0}, {"mine": 3.0}], 1)
    swept = check("EarlyStopping(monitor='mine', patience=grid(1, 2))", [log], NEWEST)
    assert swept.runs[0].error is not None
    assert "mode='min'" in swept.runs[0].error
    assert swept.direction is None


def test_text_in_the_monitored_column_is_that_runs_error() -> None:
    class Text(Log):
        @property
        def not_numbers(self) -> frozenset[str]:
            return frozenset({"val_loss"})

    log = Text.__new__(Text)
    for name, value in (("epochs", [0, 1]), ("rows", [{"val_loss": 1.0}, {"val_loss": 2.0}]), ("steps", 1)):
        object.__setattr__(log, name, value)
    swept = check("EarlyStopping(patience=grid(1, 2))", [log, curve(1, 1, 1)], NEWEST)
    assert swept.runs[0].error is not None
    assert "lists or text" in swept.runs[0].error


def test_a_floor_needs_a_learning_rate_only_where_a_cut_would_come() -> None:
    logs = [curve(1, 1, 1, 1), curve(4, 3, 2, 1)]
    swept = check("ReduceLROnPlateau(patience=1, min_lr=grid(0, 1e-5))", logs, NEWEST)
    assert swept.stops.tolist() == [[1, REFUSED], [NOT_WITHIN, NOT_WITHIN]]
    assert swept.runs[0].flags == ("best is the first epoch", "some policies refused")


def test_a_stop_after_cuts_that_the_log_made_too_is_exact() -> None:
    log = WithRates(curve(1, 1, 1, 1, 1), [0.1, 0.1, 0.05, 0.05, 0.05])
    text = "ReduceLROnPlateau(factor=0.5, patience=grid(1, 2), cooldown=9); EarlyStopping(patience=3)"
    swept = check(text, [log], NEWEST)
    assert swept.exact is not None
    assert swept.exact.tolist() == [[True, False]]
    assert swept.totals.counterfactual.tolist() == [0, 1]


def test_a_grid_over_restore_best_weights_is_refused() -> None:
    with pytest.raises(BadCall, match="sweep each by itself"):
        sweep([], "EarlyStopping(restore_best_weights=grid(True, False))", NEWEST)


def test_what_keras_refuses_is_refused_before_any_log_is_read() -> None:
    with pytest.raises(BadCall, match=r"factor=1\.5"):
        sweep([], "ReduceLROnPlateau(factor=grid(0.5, 1.5))", NEWEST)
    with pytest.raises(BadCall, match="nothing here to judge"):
        sweep([], "CSVLogger('a.csv')", NEWEST)


def test_no_run_at_all_is_an_empty_sweep() -> None:
    swept = sweep([], "EarlyStopping(patience=range(1, 4))", NEWEST)
    assert (swept.done, swept.total, swept.stops.shape) == (0, 0, (0, 3))


def test_an_attempt_without_rows_is_no_source_and_seconds_are_the_median() -> None:
    attempt = Attempt()
    attempt.epochs.extend(range(4))
    attempt.columns["val_loss"] = Column()
    attempt.columns["val_loss"].extend([4.0, 3.0, 2.0, 1.0])
    attempt.times.extend([0.0, 10.0, 12.0, 14.0])
    (only,) = sources_of("a/train.csv", "a", [Attempt(), attempt])
    assert (only.attempt, only.group, only.epoch_seconds) == (2, "a", 2.0)
    swept = check("EarlyStopping(patience=grid(1, 2))", [attempt], NEWEST)
    assert swept.runs[0].best == (3, 1.0)


# --- how it is cut up ----------------------------------------------------------------------------------------


def many(count: int = 300, seed: int = 0) -> list[SweepSource]:
    """Runs of many lengths, some of them dirty."""
    choose = random.Random(seed)
    sources = []
    for number in range(count):
        length = choose.choice([1, 3, 20, 21, 60, 150])
        rows = [
            {name: value for name in ("loss", "val_loss") if (value := values[name][row]) is not None}
            for values in [{name: random_values(choose, length) for name in ("loss", "val_loss")}]
            for row in range(length)
        ]
        sources.append(source(Log(list(range(length)), rows, 1), number))
    return sources


GRID = (
    "EarlyStopping(patience=range(1, 20), min_delta=grid(0, 1e-4, 1e-2), start_from_epoch=grid(0, 5), "
    "baseline=grid(None, 0.5), restore_best_weights=True)"
)


def assert_equal(one: Sweep, other: Sweep) -> None:
    assert one.runs == other.runs
    assert one.policies == other.policies
    for name in ("stops", "saved", "regret", "reductions", "lr_final", "saves", "exact"):
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours is None or theirs is None:
            assert ours is theirs, name
        else:
            assert np.array_equal(ours, theirs, equal_nan=name in ("regret", "lr_final")), name
    for field in fields(Totals):
        assert np.array_equal(getattr(one.totals, field.name), getattr(other.totals, field.name)), field.name


class Backwards(Executor):
    """Gives its results in another order than they were asked for."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.waiting: list[tuple[Future[Any], Any]] = []
        self.most = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        self.most = max(self.most, len(self.waiting))
        if len(self.waiting) >= 4:
            self.flush()
        else:
            threading.Timer(0.2, self.flush).start()
        return future

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        self.choose.shuffle(waiting)
        for future, work in waiting:
            future.set_result(work())


def test_results_do_not_depend_on_the_order_of_runs_or_of_results_or_on_threads() -> None:
    sources = many()
    whole = sweep(sources, GRID, NEWEST)
    assert_equal(whole, sweep(sources, GRID, NEWEST, executor=Backwards(random.Random(1)), workers=2))
    with ThreadPoolExecutor(2) as executor:
        assert_equal(whole, sweep(sources, GRID, NEWEST, executor=executor, workers=2))
    back = sweep(sources[::-1], GRID, NEWEST)
    assert np.array_equal(back.stops[::-1], whole.stops)
    for field in fields(Totals):
        assert np.array_equal(getattr(back.totals, field.name), getattr(whole.totals, field.name)), field.name


def test_processes_give_the_same(tmp_path: Path) -> None:
    sources = many(60)
    assert_equal(sweep(sources, GRID, NEWEST), sweep(sources, GRID, NEWEST, workers=2))
    scalar = "LearningRateScheduler('lr * 0.5'); EarlyStopping(patience=grid(1, 2))"
    assert_equal(
        sweep(sources[:3], scalar, NEWEST, learning_rate=0.1),
        sweep(sources[:3], scalar, NEWEST, learning_rate=0.1, workers=2),
    )


def test_totals_need_no_cells() -> None:
    sources = many(100)
    whole, streamed = sweep(sources, GRID, NEWEST), sweep(sources, GRID, NEWEST, keep_cells=False)
    assert streamed.stops.shape == (0, len(whole.policies))
    assert streamed.regret is not None
    assert streamed.regret.shape == (0, len(whole.policies))
    for field in fields(Totals):
        assert np.array_equal(getattr(whole.totals, field.name), getattr(streamed.totals, field.name)), (
            field.name
        )
    assert_totals(whole)


def test_a_tolerance_is_a_share_of_the_best() -> None:
    sources = many(100)
    swept = sweep(sources, GRID, NEWEST, tolerance=0.05)
    assert_totals(swept)
    assert swept.totals.harmful.sum() < sweep(sources, GRID, NEWEST).totals.harmful.sum()


def test_an_interrupt_keeps_what_is_done() -> None:
    sources, done = many(), list[int]()

    def interrupt(now: int, total: int) -> None:
        done.append(now)
        if now > total // 3:
            os.kill(os.getpid(), signal.SIGINT)

    part = sweep(sources, GRID, NEWEST, progress=interrupt)
    whole = sweep(sources, GRID, NEWEST)
    assert part.is_partial
    assert 100 <= part.done == len(part.runs) < part.total == 300
    assert done == sorted(done)
    names = [run.log for run in part.runs]
    rows = [number for number, run in enumerate(whole.runs) if run.log in names]
    assert np.array_equal(part.stops, whole.stops[rows])
    assert len({run.epochs for run in part.runs}) > 2, "blocks come shuffled: not only the long runs are done"
    assert_totals(part)


def test_an_interrupt_leaves_the_workers_in_peace(tmp_path: Path) -> None:
    def interrupt(now: int, total: int) -> None:
        if now:
            os.kill(os.getpid(), signal.SIGINT)

    part = sweep(many(120), GRID, NEWEST, workers=2, progress=interrupt)
    assert 0 < part.done < part.total
    assert_totals(part)


def test_parts_on_disk_are_whole_and_hold_every_cell(tmp_path: Path) -> None:
    sources = many(80)
    swept = sweep(sources, GRID, NEWEST, parts=tmp_path / "parts", keep_cells=False)
    whole = sweep(sources, GRID, NEWEST)
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert {name for name in names if not name.startswith("part-")} == {"policies.parquet", "runs.parquet"}
    cells = pl.read_parquet(tmp_path / "parts" / "part-*.parquet").sort("run", "policy")
    assert cells.height == whole.stops.size
    assert (
        cells["stop"].fill_null(-9).to_list()
        == np.where(whole.stops >= 0, whole.stops, -9).reshape(-1).tolist()
    )
    assert cells["saved"].to_list() == whole.saved.reshape(-1).tolist()
    assert set(cells["outcome"].unique()) <= {"fired", "not within", "no observation", "refused"}
    assert cells.filter(pl.col("outcome") == "no observation").height == (whole.stops == NO_OBSERVATION).sum()
    policies = pl.read_parquet(tmp_path / "parts" / "policies.parquet")
    assert policies["call"].to_list() == [policy.call for policy in swept.policies]
    with pytest.raises(BadCall, match="empty folder"):
        sweep(sources, GRID, NEWEST, parts=tmp_path / "parts")


# --- real logs -----------------------------------------------------------------------------------------------

REAL_GRIDS = (
    "EarlyStopping(patience=grid(1, 3, 10), min_delta=grid(0, 1e-3), baseline=grid(None, 0.5), "
    "start_from_epoch=grid(0, 5), restore_best_weights=True)",
    "ReduceLROnPlateau(patience=grid(1, 4), cooldown=grid(0, 3), min_delta=grid(1e-4, 1e-2), "
    "factor=grid(0.1, 0.5), min_lr=grid(0, 1e-4))",
    "TerminateOnNaN(); ReduceLROnPlateau(patience=2); "
    "EarlyStopping(monitor=grid('loss', 'val_loss'), patience=grid(2, 6))",
    "ModelCheckpoint('best.keras', save_best_only=True, initial_value_threshold=grid(None, 0.3))",
)


@pytest.mark.skipif(not CORPUS.exists(), reason="../shared/corpus is not here: no real logs to compare on")
@pytest.mark.parametrize("text", REAL_GRIDS)
def test_real_logs_are_judged_as_replayed(text: str) -> None:
    sources: list[SweepSource] = []
    for log in find([str(CORPUS / "keras_csv"), str(CORPUS / "keras_json")]).logs:
        read = Run()
        for event in read_whole(log, 0.0):
            fold(read, event)
        sources += sources_of(str(log.path), "corpus", [a for a in read.attempts if len(a.epochs) < 700])
    assert len(sources) > 30
    swept = sweep(sources, text, NEWEST, learning_rate=1e-2)
    choose = random.Random(text)
    for run, one in enumerate(sources):
        numbers = choose.sample(range(len(swept.policies)), min(6, len(swept.policies)))
        for number in numbers:
            call = swept.policies[number].call
            made = replay(one.recording, parse_calls(call, NEWEST), NEWEST, learning_rate=1e-2)
            assert_cell(swept, run, number, made, f"{one.log}, attempt {one.attempt}: {call}")
    assert_totals(swept)


def test_the_default_parameters_are_those_of_the_policies() -> None:
    plan = make_plan(parse_grid("EarlyStopping()", NEWEST), NEWEST)
    assert plan.groups is not None
    assert plan.groups.stoppers[0].patiences.tolist() == [max(1, EarlyStopping().patience)]
