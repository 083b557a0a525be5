"""What the plan takes apart, and what it does not dare to."""

from __future__ import annotations

import pytest

from cbmon.errors import BadCall
from cbmon.profiles import NEWEST, PROFILES
from cbmon.replay.canonical import Monitored
from cbmon.replay.grid import parse_grid
from cbmon.replay.plan import Plan, make_plan


def plan_of(text: str, version: str = "3.15") -> Plan:
    profile = PROFILES[version]
    return make_plan(parse_grid(text, profile), profile)


MERGED = [
    ("EarlyStopping(patience=grid(-3, 0, 1))", "3.15", 1, "below 1 it is 1"),
    ("EarlyStopping(patience=grid(1.5, 2))", "3.15", 1, "a fraction rounds up"),
    ("EarlyStopping(patience=grid(1, True))", "3.15", 1, "True is 1"),
    ("EarlyStopping(min_delta=grid(1e-3, -1e-3))", "3.15", 1, "its sign does not count"),
    ("EarlyStopping(min_delta=grid(0, 0.0))", "3.15", 1, "0 is 0.0"),
    ("EarlyStopping(start_from_epoch=grid(1.5, 2))", "3.15", 1, "epochs are whole"),
    ("EarlyStopping(verbose=grid(0, 1, 2))", "3.15", 1, "it decides nothing"),
    ("EarlyStopping(mode=grid('auto', 'what'))", "3.15", 1, "an unknown mode is auto"),
    ("EarlyStopping(mode=grid('auto', 'min'))", "3.15", 2, "what auto is depends on the log"),
    ("EarlyStopping(baseline=grid(None, 0, 0.0))", "3.15", 2, "None is no number"),
    ("ReduceLROnPlateau(cooldown=grid(0, 1, 0.5))", "3.15", 1, "it waits from the next epoch on either way"),
    ("ReduceLROnPlateau(cooldown=grid(1.5, 2))", "3.15", 1, "a fraction rounds up"),
    ("ReduceLROnPlateau(min_delta=grid(1e-3, -1e-3))", "3.15", 1, "its sign does not count"),
    ("ReduceLROnPlateau(min_delta=grid(1e-3, -1e-3))", "3.10", 2, "before 3.11 its sign counts"),
    ("ReduceLROnPlateau(epsilon=grid(1, 2))", "3.15", 1, "Keras 3 ignores it"),
    ("ModelCheckpoint(grid('a.keras', 'b.keras'), save_best_only=True)", "3.15", 1, "a name decides nothing"),
    ("TerminateOnNaN()", "3.15", 1, "there is nothing to vary"),
    ("CSVLogger(grid('a', 'b'), separator=grid(',', ';')); EarlyStopping()", "3.15", 1, "it only watches"),
]


@pytest.mark.parametrize(("text", "version", "count", "why"), MERGED)
def test_equal_policies_are_one(text: str, version: str, count: int, why: str) -> None:
    plan = plan_of(text, version)
    assert len(plan) == count, why
    assert sorted(number for some in plan.equivalents for number in some) == list(range(len(plan.grid)))


def test_the_order_is_that_of_the_call_and_the_most_patient_stands_for_the_others() -> None:
    plan = plan_of("EarlyStopping(patience=grid(3, 1.5, 2, 0, 1))")
    assert plan.equivalents == ((0,), (1, 2), (3, 4))
    assert [plan.grid.text(choice) for choice in plan.choices] == [
        "EarlyStopping(patience=3)",
        "EarlyStopping(patience=2)",
        "EarlyStopping(patience=1)",
    ]


@pytest.mark.parametrize(
    ("text", "kind", "keep"),
    [
        ("EarlyStopping()", "stop", "last"),
        ("EarlyStopping(restore_best_weights=True)", "stop", "restored"),
        ("EarlyStopping(restore_best_weights=grid(1, True)); EarlyStopping()", "stop", "restored"),
        ("TerminateOnNaN(); ReduceLROnPlateau()", "stop", "last"),
        ("ReduceLROnPlateau(); ModelCheckpoint('a.keras')", "cut", "last"),
        (
            "CSVLogger(grid('a', 'b')); History(); TensorBoard(); BackupAndRestore('a'); RemoteMonitor(); "
            "ProgbarLogger(); SwapEMAWeights(); EarlyStopping()",
            "stop",
            "last",
        ),
        ("ModelCheckpoint('a.keras', save_best_only=True)", "save", "restored"),
    ],
)
def test_the_kind_and_what_is_kept(text: str, kind: str, keep: str) -> None:
    plan = plan_of(text)
    assert (plan.kind, plan.keep, plan.scalar) == (kind, keep, ())
    assert plan.groups is not None


def test_the_metric_judged_is_that_of_the_first_that_decides() -> None:
    text = "ReduceLROnPlateau('loss'); EarlyStopping('val_mae', mode='min'); EarlyStopping()"
    assert plan_of(text).judged == Monitored("EarlyStopping", "val_mae", "min")
    assert plan_of("TerminateOnNaN()").judged == Monitored("TerminateOnNaN", "loss", "min")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ReduceLROnPlateau(); ReduceLROnPlateau('loss')", "two ReduceLROnPlateau"),
        ("LearningRateScheduler(lambda e: 0.1); EarlyStopping()", "LearningRateScheduler is not proven"),
        ("LambdaCallback(on_epoch_end='code:hook'); EarlyStopping()", "LambdaCallback is not proven"),
        ("TerminateOnNaN(raise_error=grid(False, True))", "raise_error"),
        ("ReduceLROnPlateau('learning_rate', mode='min')", "monitors the learning rate"),
        ("ModelCheckpoint('a.keras', save_freq=7); EarlyStopping()", "counts batches"),
        ("ModelCheckpoint('{loss}.keras'); EarlyStopping()", "more than the epoch"),
        ("ModelCheckpoint('a.keras')", "saves every epoch"),
        ("CSVLogger('a'); ModelCheckpoint('a.keras')", "saves every epoch"),
        (
            "ModelCheckpoint('a.keras', save_best_only=True); ModelCheckpoint('b.keras', save_best_only=True)",
            "several",
        ),
        ("EarlyStopping(patience=1e400)", "no number that an array holds"),
        (f"EarlyStopping(min_delta={2**53 + 1})", "no number that an array holds"),
        ("EarlyStopping(min_delta=1e39)", "beyond float32"),
    ],
)
def test_what_is_not_proven_is_left_to_the_scalar_engine_with_the_reason(text: str, reason: str) -> None:
    plan = plan_of(text)
    assert plan.groups is None
    assert any(reason in why for why in plan.scalar), plan.scalar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EarlyStopping(restore_best_weights=grid(False, True))", "sweep each by itself"),
        ("EarlyStopping(patience=grid(1, 'two'))", "is not a number"),
        ("ReduceLROnPlateau(factor=linspace(0.5, 1, 3))", "factor >= 1.0"),
        ("ModelCheckpoint('a.keras', save_weights_only=grid(False, True))", "weights.h5"),
        ("CSVLogger('a.csv')", "nothing here to judge"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(BadCall, match=message) as refusal:
        plan_of(text)
    assert "\n" not in str(refusal.value)


def test_ten_thousand_policies_are_four_small_axes() -> None:
    text = "EarlyStopping(patience=range(1, 51), min_delta=linspace(0, 1, 20), start_from_epoch=range(10))"
    plan = make_plan(parse_grid(text, NEWEST), NEWEST)
    assert len(plan) == 10_000
    assert plan.groups is not None
    (stopper,) = plan.groups.stoppers
    assert [len(axis) for axis in (stopper.patiences, stopper.deltas, stopper.starts, stopper.baselines)] == [
        50,
        20,
        10,
        1,
    ]
