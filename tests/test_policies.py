"""The step machines: what each decides, as tables. "trap N" numbers the known ways to get Keras wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from cbmon.errors import BadCall, KerasRefuses, NeedsLearningRate
from cbmon.policies import (
    EarlyStopping,
    EarlyStoppingState,
    LearningRateScheduler,
    ModelCheckpoint,
    PlateauState,
    ReduceLROnPlateau,
    Tensor,
    TerminateOnNaN,
    float32,
    resolve,
)
from cbmon.profiles import NEWEST, PROFILES, Profile, find_profile

NAN, INF = math.nan, math.inf
K3, K2 = PROFILES["3.15"], PROFILES["2"]
Values = Sequence[float | None]


def stop(
    policy: EarlyStopping,
    values: Values,
    profile: Profile = NEWEST,
    first_epoch: int = 0,
    previous: EarlyStoppingState | None = None,
) -> tuple[int | None, EarlyStoppingState]:
    """The epoch it stops at, None = not, and the state it is left in."""
    state = policy.begin(profile, previous)
    for epoch, value in enumerate(values, first_epoch):
        state, stops = policy.step(state, epoch, value, profile)
        if stops:
            return epoch, state
    return None, state


def rates(
    policy: ReduceLROnPlateau,
    values: Values,
    rate: float = 0.1,
    profile: Profile = NEWEST,
    previous: PlateauState | None = None,
) -> tuple[list[float], PlateauState]:
    """The learning rate after each epoch, and the state at the end."""
    state, after, rate = policy.begin(profile, previous), [], float32(rate)
    for epoch, value in enumerate(values):
        state, cut = policy.step(state, epoch, value, rate, profile)
        if cut:
            assert cut.learning_rate is not None
            rate = float32(cut.learning_rate)
        after.append(rate)
    return after, state


def saves(policy: ModelCheckpoint, values: Values, profile: Profile = NEWEST) -> list[int]:
    state, saved = policy.begin(profile), []
    for epoch, value in enumerate(values):
        state, does = policy.step(state, epoch, value, profile)
        saved += [epoch] * does
    return saved


def stopping(**arguments: float | bool | str | None) -> EarlyStopping:
    return EarlyStopping(mode="min", **arguments)  # type: ignore[arg-type]


def plateau(**arguments: float) -> ReduceLROnPlateau:
    return ReduceLROnPlateau(mode="min", **({"factor": 0.5} | arguments))  # type: ignore[arg-type]


# --- EarlyStopping --------------------------------------------------------------------------------

STOPS: list[tuple[EarlyStopping, Values, int | None, str]] = [
    (stopping(patience=2), [NAN, 1, 0.9, 0.8, 0.7], 2, "trap 1: a NaN first is the best for good"),
    (stopping(patience=2), [1, NAN, NAN, 0.8], 2, "trap 2: NaN counts as no improvement"),
    (stopping(patience=2), [1, NAN, 0.9, NAN, 0.8], None, "a NaN between improvements stops nothing"),
    (stopping(patience=0), [1, 1.1, 1.2], 1, "trap 3: patience 0 stops at the second epoch"),
    (stopping(patience=1), [1, 1.1, 1.2], 1, "trap 3: patience 1 is patience 0"),
    (stopping(patience=-1), [1, 1.1, 1.2], 1, "trap 3: a negative patience is patience 1"),
    (stopping(patience=1.5), [1, 1, 1], 2, "trap 3: patience 1.5 is patience 2"),
    (stopping(patience=0), [1, 1, 1], 1, "trap 4: an equal value is no improvement"),
    (stopping(baseline=0.5), [1.0], None, "trap 5: the first monitored epoch never stops"),
    (stopping(patience=3, baseline=0.5), [1, 0.9, 0.8, 0.7], None, "trap 6: an improving epoch never stops"),
    (stopping(patience=3, baseline=0.5), [1, 1.1, 1.2, 0.4], 2, "trap 7: below the baseline waits count"),
    (stopping(patience=1, start_from_epoch=2), [1, 1.1, 1.2, 1.3], 3, "trap 8: the warm-up sees nothing"),
    (stopping(patience=2), [1, None, 1.1, None, 1.2], 4, "trap 10: gaps do not consume patience"),
    (stopping(patience=2), [1, 1 - 1e-9, 1 - 2e-9], 2, "trap 11: a float32 tie is no improvement"),
    (stopping(patience=2, min_delta=0.01), [1, 0.99, 0.985, 0.98], None, "trap 12: better by min_delta"),
    (stopping(patience=2, min_delta=-0.01), [1, 0.99, 0.985, 0.98], None, "trap 12: min_delta is absolute"),
    (stopping(patience=2), [INF, 1, 0.9], None, "anything is better than inf"),
    (stopping(patience=2), [-INF, 1, 0.9, 0.8], 2, "nothing is better than -inf"),
    (stopping(patience=1), [1e-40, 1e-41, 1e-42], 1, "denormals are all 0 to TensorFlow"),
    (EarlyStopping(mode="max", patience=1), [0.5, 0.6, 0.6], 2, "max: higher is better, strictly"),
]


@pytest.mark.parametrize(("policy", "values", "epoch", "sentence"), STOPS, ids=[row[3] for row in STOPS])
def test_early_stopping_stops_where_keras_does(
    policy: EarlyStopping, values: Values, epoch: int | None, sentence: str
) -> None:
    assert stop(policy, values)[0] == epoch, sentence


@pytest.mark.parametrize("name", ["3.6", "2", "2.15", "2.12", "3.0"])
def test_trap_1_older_versions_recover_from_a_nan_first(name: str) -> None:
    epoch, state = stop(stopping(patience=2), [NAN, 1, 0.9, 0.8, 0.7], PROFILES[name])
    assert (epoch, state.best) == (None, 0.7)


@pytest.mark.parametrize("name", PROFILES)
def test_trap_2_a_nan_later_counts_as_a_wait_in_every_version(name: str) -> None:
    assert stop(stopping(patience=2), [1, NAN, NAN, 0.8], PROFILES[name])[0] == 2


def test_trap_5_and_6_the_wait_goes_on_below_the_baseline() -> None:
    assert stop(stopping(baseline=0.5), [1.0])[1].wait == 1
    assert stop(stopping(patience=3, baseline=0.5), [1, 0.9, 0.8, 0.7])[1].wait == 4


def test_trap_7_a_stop_on_the_baseline_restores_the_best_epoch() -> None:
    policy = stopping(patience=3, baseline=0.5, restore_best_weights=True)
    _, state = stop(policy, [1, 1.1, 1.2, 0.4])
    assert policy.restored_epoch(state, K3) == 0


def test_trap_8_the_best_is_that_of_the_monitored_epochs() -> None:
    policy = stopping(patience=1, start_from_epoch=2, restore_best_weights=True)
    epoch, state = stop(policy, [1, 1.1, 1.2, 1.3, 1.4])
    assert (epoch, state.best, policy.restored_epoch(state, K3)) == (3, 1.2, 2)


def test_trap_9_start_from_epoch_is_absolute() -> None:
    assert stop(stopping(patience=1, start_from_epoch=3), [1, 2, 3, 4], first_epoch=2)[0] == 4


def test_trap_11_versions_that_compare_in_double_see_near_ties() -> None:
    assert stop(stopping(patience=2), [1, 1 - 1e-9, 1 - 2e-9], K2)[0] is None


def test_trap_12_the_best_moves_by_more_than_min_delta_only() -> None:
    state = stop(stopping(patience=2, min_delta=0.01), [1, 0.99, 0.985, 0.98])[1]
    assert (state.best, state.best_epoch, state.wait) == (0.985, 2, 1)


def test_trap_13_not_stopping_restores_the_best_weights_in_keras_3_and_tf_keras() -> None:
    policy = stopping(patience=10, restore_best_weights=True)
    for name, restored in {"3.15": 1, "3.0": 1, "2": 1, "2.15": None, "2.12": None}.items():
        state = stop(policy, [1, 0.5, 0.7, 0.8], PROFILES[name])[1]
        assert policy.restored_epoch(state, PROFILES[name]) == restored, name


def test_trap_14_a_reused_instance_takes_its_best_along_in_some_versions() -> None:
    for name, expected in {"3.15": None, "3.10": None, "3.12": 1, "3.6": 1, "2": None}.items():
        first = stop(stopping(patience=2), [0.1, 0.2], PROFILES[name])[1]
        assert (
            stop(stopping(patience=2), [1, 0.9, 0.8, 0.7], PROFILES[name], previous=first)[0] == expected
        ), name


def test_values_beyond_float32_are_refused_as_tensorflow_does_but_only_when_compared() -> None:
    assert stop(stopping(patience=1), [1e39])[1].best == 1e39
    with pytest.raises(KerasRefuses, match="out of range"):
        stop(stopping(patience=1), [1, 1e39])
    assert stop(stopping(patience=1), [1, 1e39], K2)[0] == 1


# --- direction ------------------------------------------------------------------------------------

COLUMNS = ["loss", "accuracy", "auc_1", "auc", "a_loss", "mine", "f1_score", "MSE", "loss_1"]
DIRECTIONS: list[tuple[str, str, str | None, str]] = [
    ("val_loss", "3.15", "min", "loss is always min"),
    ("val_accuracy", "3.15", "max", "a compiled metric has its direction"),
    ("val_accuracy", "3.0", "max", "already in 3.0"),
    ("val_a_loss", "3.15", None, "trap 17: Keras 3 cannot tell for a loss of several outputs"),
    ("val_a_loss", "2", "min", "trap 17: Keras 2 can"),
    ("val_auc_1", "3.15", "max", "trap 18: a de-duplicated name keeps its metric's direction"),
    ("val_auc_1", "2", "min", "trap 18: Keras 2 goes by the end of the name"),
    ("val_auc", "2", "max", "Keras 2: EarlyStopping knows auc"),
    ("foo", "3.15", None, "trap 16: a name that is no metric"),
    ("val_precision", "3.15", None, "a known metric that this log does not have is not compiled"),
    ("mine", "3.15", None, "a name of the user's own"),
    ("learning_rate", "3.15", None, "no metric"),
    ("val_MSE", "3.15", "min", "an upper-case alias is the name of its metric"),
    ("loss_1", "3.15", None, "no metric is called loss"),
    ("val_val_loss", "3.15", None, "one val_ is stripped"),
]


@pytest.mark.parametrize(
    ("monitor", "name", "mode", "sentence"), DIRECTIONS, ids=[row[3] for row in DIRECTIONS]
)
def test_auto_mode_of_early_stopping(monitor: str, name: str, mode: str | None, sentence: str) -> None:
    policy = EarlyStopping(monitor=monitor)
    if mode is None:
        with pytest.raises(KerasRefuses, match=r"give mode='min' or mode='max'$"):
            resolve(policy, PROFILES[name], COLUMNS)
    else:
        assert resolve(policy, PROFILES[name], COLUMNS).mode == mode, sentence


@pytest.mark.parametrize("name", ["2", "2.12", "3.6", "3.10"])
def test_trap_18_before_3_11_plateau_and_checkpoint_go_by_acc_in_the_name(name: str) -> None:
    for monitor, mode in {"val_auc": "min", "val_accuracy": "max", "vacca": "max", "mine": "min"}.items():
        assert resolve(ReduceLROnPlateau(monitor=monitor), PROFILES[name], COLUMNS).mode == mode, monitor
        assert resolve(ModelCheckpoint("m.keras", monitor=monitor), PROFILES[name], COLUMNS).mode == mode, (
            monitor
        )
    assert resolve(ModelCheckpoint("m.keras", monitor="fmeasure_x"), PROFILES[name], []).mode == "max"
    assert resolve(ReduceLROnPlateau(monitor="fmeasure_x"), PROFILES[name], []).mode == "min"


@pytest.mark.parametrize(
    "policy", [ReduceLROnPlateau(monitor="foo"), ModelCheckpoint("m.keras", monitor="foo")]
)
def test_from_3_11_plateau_and_checkpoint_ask_the_metric_as_well(
    policy: ReduceLROnPlateau | ModelCheckpoint,
) -> None:
    assert resolve(policy, PROFILES["3.10"], COLUMNS).mode == "min"
    with pytest.raises(KerasRefuses, match="ValueError"):
        resolve(policy, PROFILES["3.11"], COLUMNS)


def test_an_unknown_mode_is_auto() -> None:
    assert resolve(EarlyStopping(mode="up", monitor="val_accuracy"), K3, COLUMNS).mode == "max"


# --- ReduceLROnPlateau ----------------------------------------------------------------------------

FLAT = [1.0] * 9
RATES: list[tuple[ReduceLROnPlateau, Values, float, list[float], str]] = [
    (
        plateau(patience=1),
        FLAT[:5],
        0.1,
        [
            0.10000000149011612,
            0.05000000074505806,
            0.02500000037252903,
            0.012500000186264515,
            0.0062500000931322575,
        ],
        "trap 20: exact float32 halves",
    ),
    (plateau(patience=0), FLAT[:3], 1, [1, 0.5, 0.25], "trap 21: patience 0 is patience 1"),
    (plateau(patience=2, cooldown=0), FLAT[:5], 1, [1, 1, 0.5, 0.5, 0.25], "trap 22: no cooldown"),
    (
        plateau(patience=2, cooldown=1),
        FLAT[:5],
        1,
        [1, 1, 0.5, 0.5, 0.25],
        "trap 22: a cooldown of 1 is none",
    ),
    (
        plateau(patience=1, cooldown=2),
        FLAT[:8],
        1,
        [1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625],
        "trap 22: cooldown 2 cuts at 1, 3, 5, 7",
    ),
    (
        plateau(patience=1, cooldown=3),
        FLAT[:5],
        1,
        [1, 0.5, 0.5, 0.5, 0.25],
        "trap 22: cooldown 3 cuts at 1, 4",
    ),
    (
        plateau(patience=1, cooldown=2),
        [1, 1, 1, 0.5, 1, 1, 1],
        1,
        [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125],
        "trap 23: an improvement does not stop the cooldown",
    ),
    (
        plateau(patience=1, cooldown=2),
        [1, 1, None, None, None, 1, 1, 1, 1],
        1,
        [1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125],
        "trap 24: gaps freeze the cooldown",
    ),
    (
        plateau(patience=2),
        [1, None, 1, None, 1, None, 1, None, 1],
        1,
        [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25],
        "trap 25: gaps freeze the wait",
    ),
    (
        plateau(patience=1, min_lr=0.01),
        FLAT[:2],
        0.001,
        [float32(0.001)] * 2,
        "trap 27: a rate below min_lr stays",
    ),
    (
        plateau(patience=2),
        [1, 0.9999, 0.9998, 0.9997],
        1,
        [1, 1, 1, 1],
        "trap 30: .9999 + 1e-4 is no better than 1",
    ),
    (
        plateau(patience=2),
        [NAN, 1, 0.5, 0.4, 0.3],
        0.1,
        [float32(rate) for rate in (0.1, 0.1, 0.05, 0.05, 0.025)],
        "trap 31: a NaN first is the best for good",
    ),
    (plateau(patience=1, factor=0.0), FLAT[:3], 0.1, [float32(0.1), 0, 0], "trap 32: factor 0 gives rate 0"),
    (plateau(patience=1, factor=-0.5), FLAT[:3], 0.1, [float32(0.1), 0, 0], "trap 32: a negative factor too"),
]


@pytest.mark.parametrize(
    ("policy", "values", "rate", "after", "sentence"), RATES, ids=[row[4] for row in RATES]
)
def test_plateau_cuts_where_and_to_what_keras_does(
    policy: ReduceLROnPlateau, values: Values, rate: float, after: list[float], sentence: str
) -> None:
    assert rates(policy, values, rate)[0] == after, sentence


def test_trap_26_at_the_floor_the_wait_grows() -> None:
    after, state = rates(plateau(patience=1, min_lr=0.03), FLAT[:6])
    assert after[1:] == [0.05000000074505806, *[0.029999999329447746] * 4]
    assert state.wait == 3


def test_trap_28_a_rate_raised_from_the_floor_is_cut_at_the_next_bad_epoch() -> None:
    policy = plateau(patience=3, min_lr=0.25)
    _, state = rates(policy, FLAT[:5], 0.25)
    state, cut = policy.step(state, 5, 1.0, 1.0, NEWEST)
    assert cut is not None
    assert cut.learning_rate == 0.5


def test_trap_29_the_new_rate_as_computed_and_as_held() -> None:
    policy = ReduceLROnPlateau(mode="min", patience=1, factor=0.1, min_lr=0.001)
    _, cut = policy.step(PlateauState(best=1.0), 1, 1.0, float32(0.01), NEWEST)
    assert cut is not None
    assert cut.learning_rate == 0.001
    assert float32(0.001) == 0.0010000000474974513
    assert cut.factor == pytest.approx(0.1)


def test_trap_30_the_best_after_a_float32_tie() -> None:
    state = rates(plateau(patience=2), [1, 0.9999, 0.9998, 0.9997])[1]
    assert (state.best, state.wait) == (0.9998, 1)


@pytest.mark.parametrize("name", ["3.10", "3.0", "2", "2.15"])
def test_trap_31_older_versions_recover_from_a_nan_first(name: str) -> None:
    after, _ = rates(plateau(patience=2), [NAN, 1, 0.5, 0.4, 0.3], profile=PROFILES[name])
    assert set(after) == {float32(0.1)}


@pytest.mark.parametrize("factor", [1.0, 2, INF])
def test_trap_32_a_factor_of_1_or_more_is_refused(factor: float) -> None:
    with pytest.raises(
        KerasRefuses, match=r"ValueError: ReduceLROnPlateau does not support a factor >= 1\.0"
    ):
        plateau(factor=factor)


def test_trap_34_a_reused_instance_takes_its_best_along_in_some_versions() -> None:
    for name, expected in {"3.12": [0.5, 0.25, 0.125, 0.0625], "3.15": [1] * 4, "3.10": [1] * 4}.items():
        first = rates(plateau(patience=1), [0.1, 0.2], 1, PROFILES[name])[1]
        again = rates(plateau(patience=1), [1, 0.9, 0.8, 0.7], 1, PROFILES[name], previous=first)[0]
        assert again == expected, name


def test_before_3_11_min_delta_is_used_with_its_sign() -> None:
    values = [1, 1.05, 1.1, 1.15]
    assert rates(plateau(patience=1, min_delta=-0.1), values, 1, PROFILES["3.10"])[0] == [1, 1, 1, 1]
    assert rates(plateau(patience=1, min_delta=-0.1), values, 1, PROFILES["3.11"])[0] == [1, 0.5, 0.25, 0.125]


def test_tf_keras_multiplies_in_float32() -> None:
    double = rates(plateau(patience=1, factor=0.3), FLAT[:4], 0.1)[0]
    single = rates(plateau(patience=1, factor=0.3), FLAT[:4], 0.1, K2)[0]
    assert double != single
    assert double == pytest.approx(single)


UNKNOWN_RATE: list[tuple[dict[str, float], tuple[float | None, float] | None, str]] = [
    ({}, (None, 0.5), "without a floor a cut is relative"),
    ({"factor": 0}, (0.0, 0.0), "factor 0 makes any rate 0"),
    ({"factor": -0.1}, (0.0, 0.0), "a negative factor too"),
    ({"min_lr": 1e-5}, None, "a floor needs the rate"),
    ({"min_lr": -1, "factor": -0.1}, None, "a negative rate at a negative floor needs the rate"),
]


@pytest.mark.parametrize(("arguments", "cut", "sentence"), UNKNOWN_RATE, ids=[row[2] for row in UNKNOWN_RATE])
def test_a_cut_of_an_unknown_rate(
    arguments: dict[str, float], cut: tuple[float | None, float] | None, sentence: str
) -> None:
    policy = plateau(patience=1, **arguments)
    if cut is None:
        assert policy.step(PlateauState(best=1.0), 0, 0.5, None, NEWEST)[1] is None, (
            "an improvement needs none"
        )
        with pytest.raises(NeedsLearningRate, match="--learning-rate"):
            policy.step(PlateauState(best=1.0), 1, 1.0, None, NEWEST)
    else:
        assert policy.step(PlateauState(best=1.0), 1, 1.0, None, NEWEST)[1] == cut, sentence


# --- LearningRateScheduler, TerminateOnNaN --------------------------------------------------------

SCHEDULED: list[tuple[object, Profile, bool, str]] = [
    (0.5, K3, True, "a float"),
    (NAN, K3, True, "trap 39: NaN is a float"),
    (-1.0, K3, True, "a negative float"),
    (1, K3, False, "trap 39: an int is refused"),
    (True, K3, False, "a bool is refused"),
    (None, K3, False, "None is refused"),
    (0.1 + 0j, K3, False, "a complex is refused"),
    (Tensor(0.5), K3, False, "a tensor is refused by Keras 3"),
    (Tensor(0.5), K2, True, "a tensor is taken by Keras 2"),
]


@pytest.mark.parametrize(
    ("result", "profile", "is_taken", "sentence"), SCHEDULED, ids=[r[3] for r in SCHEDULED]
)
def test_what_a_schedule_may_give(result: object, profile: Profile, is_taken: bool, sentence: str) -> None:
    policy = LearningRateScheduler(lambda epoch, lr: result)
    if is_taken:
        assert repr(policy.step(0, 0.1, profile)) == repr(float(result)), sentence  # type: ignore[arg-type]
    else:
        with pytest.raises(KerasRefuses, match="should be a float"):
            policy.step(0, 0.1, profile)


def test_trap_39_numpy_results_and_the_retry_after_a_type_error() -> None:
    numpy = pytest.importorskip("numpy", reason="comes with TensorFlow only")
    for result in (numpy.float64(0.5), numpy.float32(0.5)):
        assert LearningRateScheduler(lambda epoch, lr, result=result: result).step(0, 0.1, K3) == 0.5
    for result in (numpy.float16(0.5), numpy.array(0.5)):
        with pytest.raises(KerasRefuses, match="ValueError"):
            LearningRateScheduler(lambda epoch, lr, result=result: result).step(0, 0.1, K3)
    with pytest.raises(KerasRefuses, match=r"TypeError: .*missing 1 required positional argument"):
        LearningRateScheduler(lambda epoch, lr: None + 1).step(0, 0.1, K3)  # type: ignore[operator]
    assert LearningRateScheduler(lambda epoch: epoch / 4).step(2, 0.1, K3) == 0.5


@pytest.mark.parametrize(
    ("loss", "ends"), [(1.0, False), (NAN, True), (INF, True), (-INF, True), (None, False), (1e300, False)]
)
def test_trap_52_terminate_on_nan_looks_for_a_loss_that_is_not_finite(loss: float | None, ends: bool) -> None:
    assert TerminateOnNaN().step(loss) is ends


# --- ModelCheckpoint ------------------------------------------------------------------------------


def best_only(**arguments: float | None) -> ModelCheckpoint:
    return ModelCheckpoint("m.keras", mode="min", save_best_only=True, **arguments)  # type: ignore[arg-type]


SAVES: list[tuple[ModelCheckpoint, Values, str, list[int], str]] = [
    (best_only(), [1, 0.9, 0.95, 0.9, 0.8], "3.15", [0, 1, 4], "saves what is strictly better"),
    (best_only(), [NAN, 1, 0.9], "3.15", [0], "a NaN first is the best for good"),
    (best_only(), [NAN, 1, 0.9], "3.10", [1, 2], "before 3.11 it is not"),
    (best_only(), [1, None, 1.1, None], "3.10", [0, 1, 3], "trap 62: an absent metric saves from 3.10 on"),
    (best_only(), [1, None, 1.1, None], "3.9", [0], "trap 62: and is skipped before"),
    (best_only(), [None, 1, None, 0.9], "2", [1, 3], "trap 62: and in Keras 2"),
    (best_only(initial_value_threshold=0.33), [0.339, 0.329, 0.320], "3.15", [1, 2], "trap 65: a threshold"),
    (best_only(initial_value_threshold=0.33), [NAN, 0.32], "3.15", [1], "NaN is not better than a threshold"),
    (best_only(), [1, 1 - 1e-9], "3.15", [0], "float32 from 3.11 on"),
    (best_only(), [1, 1 - 1e-9], "3.10", [0, 1], "double before"),
    (ModelCheckpoint("m.keras"), [NAN, None, 1], "3.15", [0, 1, 2], "every time, whatever the metric"),
]


@pytest.mark.parametrize(
    ("policy", "values", "name", "saved", "sentence"), SAVES, ids=[row[4] for row in SAVES]
)
def test_checkpoint_saves_where_keras_does(
    policy: ModelCheckpoint, values: Values, name: str, saved: list[int], sentence: str
) -> None:
    assert saves(policy, values, PROFILES[name]) == saved, sentence


def test_trap_65_the_best_survives_the_next_fit() -> None:
    policy = best_only()
    state, _ = policy.step(policy.begin(K3), 0, 0.5, K3)
    assert policy.step(policy.begin(K3, previous=state), 0, 0.6, K3)[1] is False


PATHS: list[tuple[str, bool, str, bool, str]] = [
    ("m.keras", False, "3.15", True, "a whole model"),
    ("m.h5", False, "3.8", True, "in .h5 from 3.8 on"),
    ("m.h5", False, "3.7", False, "but not before"),
    ("m", False, "3.15", False, "no suffix"),
    ("m", False, "2", True, "Keras 2 takes any path"),
    ("m.keras", True, "3.15", False, "weights have their own suffix"),
    ("m.weights.h5", True, "3.15", True, "which is this"),
]


@pytest.mark.parametrize(
    ("path", "weights", "name", "is_taken", "sentence"), PATHS, ids=[row[4] for row in PATHS]
)
def test_checkpoint_paths(path: str, weights: bool, name: str, is_taken: bool, sentence: str) -> None:
    policy = ModelCheckpoint(path, save_weights_only=weights)
    if is_taken:
        policy.check_path(PROFILES[name])
    else:
        with pytest.raises(KerasRefuses, match="must end in"):
            policy.check_path(PROFILES[name])


def test_save_freq_is_epoch_or_an_integer() -> None:
    with pytest.raises(KerasRefuses, match="Unrecognized save_freq"):
        ModelCheckpoint("m.keras", save_freq="batch")
    with pytest.raises(KerasRefuses, match="Unrecognized save_freq"):
        ModelCheckpoint("m.keras", save_freq=2.0)


def test_trap_63_batches_are_counted_across_epochs() -> None:
    policy = ModelCheckpoint("m.keras", save_freq=3)
    state, due = policy.begin(K3), []
    for _ in range(3):
        state, batches = policy.due_batches(state, 4)
        due.append(batches)
    assert due == [[2], [1], [0, 3]]


# --- profiles -------------------------------------------------------------------------------------

VERSIONS: list[tuple[str, str, bool]] = [
    *((f"3.{minor}", f"3.{minor}", False) for minor in range(16)),
    ("3.15.1", "3.15", False),
    ("3", "3.15", False),
    ("3.16", "3.15", True),
    ("4.0", "3.15", True),
    ("2", "2", False),
    ("2.21.0", "2", False),
    ("2.16", "2", False),
    ("2.15", "2.15", False),
    ("2.13.1", "2.15", False),
    ("2.12", "2.12", False),
    ("2.6", "2.12", True),
]


@pytest.mark.parametrize(("version", "name", "has_note"), VERSIONS)
def test_versions_find_their_profile(version: str, name: str, has_note: bool) -> None:
    profile, note = find_profile(version)
    assert profile.name == name
    assert (note is not None) is has_note


@pytest.mark.parametrize("version", ["tf_keras", "tf-keras"])
def test_tf_keras_is_the_profile_called_2(version: str) -> None:
    assert find_profile(version) == (PROFILES["2"], None)


@pytest.mark.parametrize("version", ["9" * 5000, "٣.1", "", "keras", "1.2", "3.x", "3.15rc1", "-3"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(BadCall, match="--keras"):
        find_profile(version)


def test_without_a_version_the_installed_or_newest_profile_is_taken() -> None:
    assert find_profile()[0] in PROFILES.values()


@pytest.mark.parametrize(
    "build",
    [
        lambda: EarlyStopping(patience="5"),  # type: ignore[arg-type]
        lambda: EarlyStopping(baseline="low"),  # type: ignore[arg-type]
        lambda: ReduceLROnPlateau(min_lr=None),  # type: ignore[arg-type]
        lambda: EarlyStopping(monitor=3),  # type: ignore[arg-type]
        lambda: ModelCheckpoint(None),  # type: ignore[arg-type]
    ],
)
def test_what_keras_would_choke_on_is_refused_by_name(build: object) -> None:
    with pytest.raises(KerasRefuses, match="TypeError"):
        build()  # type: ignore[operator]
