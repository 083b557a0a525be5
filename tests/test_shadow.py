"""Policies followed beside a live run: what they count is what a replay would decide, however the rows came."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cbmon.errors import BadCall, KerasRefuses
from cbmon.events import CallbackState, EpochsEnded, RunStarted
from cbmon.policies import EarlyStopping, ReduceLROnPlateau, float32, resolve
from cbmon.profiles import PROFILES
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.shadow import Shadow
from cbmon.run import Attempt, Run, fold
from cbmon.views import strip_lines
from tests.test_replay_engine import Log, Values, log

NAN, INF = math.nan, math.inf


def shadow(text: str, keras: str = "3.15") -> Shadow:
    (call,) = parse_calls(text, PROFILES[keras])
    return Shadow(call, PROFILES[keras])


def beside(text: str, recording: Log | Attempt, keras: str = "3.15") -> tuple[Shadow, CallbackState]:
    followed = shadow(text, keras)
    return followed, followed.look(recording)


def batch(*values: float | None, first: int = 0, **more: Any) -> EpochsEnded:
    return EpochsEnded(epochs=[*range(first, first + len(values))], metrics={"val_loss": [*values]}, **more)


def counted(state: CallbackState) -> tuple[object, ...]:
    return state.wait, state.best, state.best_epoch, state.cooldown


def same(one: object, other: object) -> bool:
    """Equal, and NaN equals NaN."""
    return repr(one) == repr(other)


# --- what it counts -----------------------------------------------------------------------------------------

STOPS: list[tuple[str, Values, list[int], tuple[object, ...], str]] = [
    ("patience=2", [1, 0.9, 1, 1], [3], (2, 0.9, 1, None), "it waits from the best on"),
    ("patience=3", [1, 0.9, 1, 1], [], (2, 0.9, 1, None), "not yet"),
    ("patience=1", [1, 1, 1, 1], [1], (3, 1, 0, None), "it stops once: after that there was no training"),
    ("patience=1", [1, 1, 1, 0.5, 0.6, 0.7], [1], (2, 0.5, 3, None), "also after a new best"),
    ("patience=2", [1, None, 1, None, 1, None, 1], [4], (3, 1, 0, None), "an absent value is no wait"),
    ("patience=1", [NAN, 0.5, 0.4], [1], (2, NAN, 0, None), "a NaN that comes first is the best for good"),
    ("patience=1, baseline=0.1", [1, 0.9, 0.8], [], (3, 0.8, 2, None), "an improvement never stops"),
    ("patience=1, start_from_epoch=2", [1, 1, 1, 1], [3], (1, 1, 2, None), "it begins later"),
    ("patience=9", [2, -INF, 1], [], (1, -INF, 1, None), "what is infinitely good stays the best"),
    ("patience=9, mode='max'", [1, 3, 2], [], (1, 3, 1, None), "the other direction"),
]


@pytest.mark.parametrize(("arguments", "values", "fired", "expected", "why"), STOPS)
def test_an_early_stopping_counts_on_as_the_run_goes_on(
    arguments: str, values: Values, fired: list[int], expected: tuple[object, ...], why: str
) -> None:
    followed, state = beside(f"EarlyStopping({arguments})", log(*values))
    assert (followed.trouble, followed.fired) == ("", fired), why
    assert same(counted(state), expected), why
    assert (state.name, state.monitor) == ("EarlyStopping", "val_loss")


CUTS: list[tuple[str, Values, list[int], tuple[object, ...], str]] = [
    ("patience=1", [1, 1, 1, 1], [1, 2, 3], (0, 1, 0, 0), "every cut is one"),
    ("patience=2, cooldown=2", [1] * 7, [2, 5], (0, 1, 0, 1), "it rests after a cut"),
    ("patience=2", [1, 0.9, 1, 0.8], [], (0, 0.8, 3, 0), "an improvement begins anew"),
]


@pytest.mark.parametrize(("arguments", "values", "fired", "expected", "why"), CUTS)
def test_a_reduce_lr_counts_waits_and_cooldowns(
    arguments: str, values: Values, fired: list[int], expected: tuple[object, ...], why: str
) -> None:
    followed, state = beside(f"ReduceLROnPlateau({arguments})", log(*values))
    assert (followed.trouble, followed.fired, counted(state)) == ("", fired, expected), why


def test_before_the_first_epoch_nothing_is_counted() -> None:
    followed, state = beside("EarlyStopping('nonsense', patience=5)", Attempt())
    assert (followed.trouble, followed.fired, counted(state)) == ("", [], (0, None, None, None))
    assert strip_lines(Run(), [(followed.name, state, followed.trouble, followed.fired)]) == [
        "EarlyStopping('nonsense', patience=…: nonsense · wait 0/5"
    ]


@pytest.mark.parametrize("keras", ["3.15", "3.6", "2"])
def test_a_best_that_is_no_value_of_the_log_is_none(keras: str) -> None:
    for text in ("EarlyStopping(restore_best_weights=True)", "EarlyStopping()", "ReduceLROnPlateau()"):
        _, state = beside(text, log(INF, NAN), keras)
        expected = (INF, 0) if keras == "3.15" else (None, None)
        if keras == "3.6" and text.startswith("Reduce"):
            expected = (None, None)
        assert (state.best, state.best_epoch) == expected, text


def test_arguments_out_of_all_bounds_do_not_end_the_screen() -> None:
    huge = "1" + "0" * 400
    for arguments in (
        f"patience={huge}",
        "patience=1e400",
        "patience=-1e400",
        f"patience={huge}, mode='min'",
    ):
        _, state = beside(f"EarlyStopping({arguments})", log(1, 1))
        assert strip_lines(Run(), [("", state, "", [])])
    for arguments in (
        "patience=1, cooldown=1e400",
        "patience=1, cooldown=-1e400",
        f"cooldown={huge}, patience=1",
    ):
        _, state = beside(f"ReduceLROnPlateau({arguments})", log(1, 1, 1))
        assert state.cooldown is not None
        assert state.cooldown >= 0
        assert strip_lines(Run(), [("", state, "", [])])
    followed, _ = beside(f"EarlyStopping(min_delta={huge})", log(1, 1))
    assert "too large" in followed.trouble


# --- why it cannot be followed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["TerminateOnNaN()", "ModelCheckpoint('m.keras')", "LearningRateScheduler(lambda e: 1.0)"]
)
def test_only_the_two_that_wait_can_be_followed(text: str) -> None:
    with pytest.raises(BadCall, match="only EarlyStopping and ReduceLROnPlateau can be followed"):
        shadow(text)


def test_what_the_constructor_refuses_is_told_at_once() -> None:
    with pytest.raises(KerasRefuses, match=r"factor >= 1\.0"):
        shadow("ReduceLROnPlateau(factor=2)")


def test_a_direction_that_keras_cannot_tell_is_told_with_the_first_epoch() -> None:
    followed, state = beside("EarlyStopping(monitor='psnr')", log(1.0, psnr=[30.0]))
    assert "give mode='min' or mode='max'" in followed.trouble
    assert followed.fired == []
    (line,) = strip_lines(Run(), [(followed.name, state, followed.trouble, followed.fired)])
    assert line == "EarlyStopping('psnr'): give mode='min' or mode='max' (Keras raises ValueError)"
    following = beside("EarlyStopping(monitor='psnr')", log(1.0, psnr=[30.0]), "2")[0]
    assert following.trouble == "", "Keras 2 takes it for something to be minimised"


def test_the_name_leaves_out_what_is_keras_default_and_others_are_refused_as_such() -> None:
    followed = shadow('EarlyStopping(monitor="val_loss", patience=50, verbose=0, min_delta=0)')
    assert followed.name == "EarlyStopping(patience=50)"
    with pytest.raises(BadCall, match="only EarlyStopping and ReduceLROnPlateau"):
        shadow("ModelCheckpoint('x')")


def test_a_metric_that_is_not_in_the_log_is_told_until_it_is() -> None:
    followed, grown = shadow("EarlyStopping(patience=2)"), Run()
    fold(grown, EpochsEnded(epochs=[0], metrics={"loss": [1.0]}))
    followed.look(grown.current)
    assert followed.trouble == "'val_loss' is not in this log: Keras only warns, and it never acts"
    fold(grown, EpochsEnded(epochs=[1], metrics={"loss": [1.0], "val_loss": [2.0]}))
    state = followed.look(grown.current)
    assert (followed.trouble, counted(state)) == ("", (0, 2.0, 1, None))


def test_a_column_of_text_or_lists_has_no_order() -> None:
    mixed = log(1.0, 1.0, 1.0)
    mixed.not_numbers = {"val_loss"}
    followed, _ = beside("EarlyStopping(patience=1)", mixed)
    assert followed.trouble == "some cells of 'val_loss' are lists or text, not numbers"
    assert followed.fired == []
    assert beside("EarlyStopping(monitor='loss', patience=1)", mixed)[0].trouble == ""


def test_without_a_learning_rate_a_cut_is_a_cut_and_a_floor_cannot_be_judged() -> None:
    assert beside("ReduceLROnPlateau(patience=1)", log(1, 1))[0].fired == [1]
    followed, state = beside("ReduceLROnPlateau(patience=1, min_lr=1e-5)", log(1, 1, 1))
    assert followed.trouble == "it depends on the learning rate, and this log has none"
    assert (followed.fired, state.wait) == ([], 0)
    assert beside("ReduceLROnPlateau(patience=5, min_lr=1e-5)", log(1, 1, 1))[0].trouble == "", "no cut yet"
    assert beside("ReduceLROnPlateau(patience=1, factor=0, min_lr=-1)", log(1, 1))[0].trouble


def test_a_recorded_learning_rate_at_its_floor_is_not_cut() -> None:
    recorded = log(1, 1, 1, 1)
    recorded.learning_rate = [0.1, 0.1, 1e-5, 1e-5]
    followed, state = beside("ReduceLROnPlateau(patience=1, min_lr=1e-5)", recorded)
    assert (followed.trouble, followed.fired, state.wait) == ("", [1], 2)


def test_a_missing_cell_of_the_learning_rate_means_the_one_before() -> None:
    recorded = log(1, 1, 1, 1)
    recorded.learning_rate = [0.1, None, None, 1e-5]
    followed, _ = beside("ReduceLROnPlateau(patience=1, min_lr=1e-5)", recorded)
    assert (followed.trouble, followed.fired) == ("", [1, 2])


# --- however the rows come ----------------------------------------------------------------------------------


def test_a_new_attempt_begins_anew_even_if_it_is_as_long_as_the_old_one() -> None:
    run, followed = Run(), shadow("EarlyStopping(patience=2)")
    fold(run, batch(1.0, 2.0, 2.0))
    followed.look(run.current)
    assert followed.fired == [2]
    fold(run, RunStarted(run_id="again"))
    fold(run, batch(5.0, 4.0, 3.0, 2.0))
    state = followed.look(run.current)
    assert (followed.fired, counted(state)) == ([], (0, 2.0, 3, None))


def test_an_attempt_that_has_just_begun_has_counted_nothing() -> None:
    run, followed = Run(), shadow("EarlyStopping(monitor='psnr')")
    fold(run, EpochsEnded(epochs=[0], metrics={"psnr": [1.0]}))
    followed.look(run.current)
    assert followed.trouble
    fold(run, RunStarted(run_id="again"))
    assert followed.look(run.current).wait == 0
    assert (followed.trouble, followed.fired) == ("", [])


@pytest.mark.parametrize(
    ("later", "fired", "expected"),
    [
        ([0.5], [], (0, 0.5, 2, None)),
        ([0.5, 0.6], [], (1, 0.5, 2, None)),
        ([2.0, 2.0], [2], (3, 1.0, 0, None)),
        ([None, 1.0], [3], (2, 1.0, 0, None)),
    ],
)
def test_a_last_row_that_a_later_one_replaces_was_never_counted(
    later: Values, fired: list[int], expected: tuple[object, ...]
) -> None:
    run, followed = Run(), shadow("EarlyStopping(patience=2)")
    fold(run, batch(1.0, 2.0, 2.0))
    followed.look(run.current)
    fold(run, batch(*later, first=2))
    assert len(run.attempts) == 1
    assert same(counted(followed.look(run.current)), expected)
    assert followed.fired == fired


def test_a_refused_row_that_a_later_one_replaces_was_never_refused() -> None:
    run, followed = Run(), shadow("EarlyStopping(patience=1)")
    fold(run, batch(1.0, 1e300))
    assert "out of range" in (followed.look(run.current), followed.trouble)[1]
    fold(run, EpochsEnded(epochs=[2], metrics={"val_loss": [0.1]}))
    followed.look(run.current)
    assert followed.trouble, "what Keras refuses ends the training"
    run, followed = Run(), shadow("EarlyStopping(patience=1)")
    fold(run, batch(1.0, 1e300))
    followed.look(run.current)
    fold(run, batch(2.0, first=1))
    assert (followed.look(run.current).wait, followed.trouble, followed.fired) == (1, "", [1])


VALUES = st.lists(
    st.none()
    | st.sampled_from([NAN, INF, -INF, 0.0, 1.0, 1.0, 1.0, 0.5, 0.5000001, 2.0, -1.0])
    | st.floats(width=32),
    max_size=25,
)
NUMBERS = st.sampled_from([0, 1, 1, 2, 2, 3, 5, 1.5])
DELTAS = st.sampled_from([0, 0, 1e-4, 0.1, -0.1])
COMMON = {
    "monitor": st.sampled_from(["val_loss", "val_loss", "val_acc"]),
    "mode": st.sampled_from(["auto", "min", "max"]),
    "patience": NUMBERS,
    "min_delta": DELTAS,
}
STOPPINGS = st.fixed_dictionaries(
    COMMON,
    optional={
        "baseline": st.sampled_from([0.7, 0.0]),
        "start_from_epoch": st.sampled_from([1, 4]),
        "restore_best_weights": st.just(True),
    },
).map(lambda given: f"EarlyStopping({', '.join(f'{name}={value!r}' for name, value in given.items())})")
PLATEAUS = st.fixed_dictionaries(
    COMMON,
    optional={
        "cooldown": NUMBERS,
        "factor": st.sampled_from([0.5, 0.1, 0.0]),
        "min_lr": st.sampled_from([0.01, 1.0]),
    },
).map(lambda given: f"ReduceLROnPlateau({', '.join(f'{name}={value!r}' for name, value in given.items())})")
KERAS = st.sampled_from(["3.15", "3.10", "3.6", "2", "2.12"])


@st.composite
def recordings(draw: st.DrawFn) -> Log:
    """An attempt with gaps in its epochs, with or without a learning rate, which stays the same."""
    values = draw(VALUES)
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 3]), min_size=len(values), max_size=len(values)))
    epochs = [sum(steps[: row + 1]) - 1 for row in range(len(values))]
    made = Log(
        metrics={"loss": [1.0] * len(values), "val_loss": values, "acc": values[::-1], "val_acc": values},
        epochs=epochs,
        learning_rate=draw(st.sampled_from([None, [0.1] * len(values), [0.005] * len(values)])),
    )
    made.epochs = epochs
    return made


def scalar_fold(text: str, recording: Log, keras: str) -> tuple[object, ...]:
    """Wait and best by `policies.step` alone, over all rows."""
    profile = PROFILES[keras]
    (call,) = parse_calls(text, profile)
    policy = call.build(profile)
    assert isinstance(policy, EarlyStopping | ReduceLROnPlateau)
    policy = resolve(policy, profile, recording.columns)
    state: Any = policy.begin(profile)
    for row, epoch in enumerate(recording.epochs):
        value = recording.metrics[policy.monitor][row]
        if isinstance(policy, EarlyStopping):
            state, _ = policy.step(state, epoch, value, profile)
        else:
            rates = recording.learning_rate
            rate = None if rates is None else rates[row]
            state, _ = policy.step(state, epoch, value, None if rate is None else float32(rate), profile)
    best = policy.best(state, profile)
    return state.wait, best and best[1], best and best[0]


@settings(deadline=None, max_examples=400)
@given(STOPPINGS | PLATEAUS, recordings(), KERAS)
@example("EarlyStopping(patience=1)", log(1e300, 1.0), "3.15")
@example("ReduceLROnPlateau(patience=1, min_lr=0.01)", log(1.0, 1.0, 1.0), "3.15")
def test_it_decides_first_what_a_replay_decides_and_counts_what_the_policy_counts(
    text: str, recording: Log, keras: str
) -> None:
    followed, state = beside(text, recording, keras)
    profile = PROFILES[keras]
    result = replay(recording, parse_calls(text, profile), profile)
    made = result.decisions
    if made is None:
        assert followed.trouble or followed.fired, "a stop before a value beyond float32 is a stop"
        assert not recording.epochs or followed.trouble
        return
    if made.stopped is None:
        assert followed.trouble == ""
    acts = [made.stopped.epoch] if made.stopped else [epoch for epoch, _ in made.cuts]
    assert followed.fired[:1] == acts[:1]
    if not followed.trouble and recording.epochs:
        assert same(counted(state)[:3], scalar_fold(text, recording, keras))


@settings(deadline=None)
@given(STOPPINGS | PLATEAUS, recordings(), KERAS, st.data())
def test_row_by_row_is_the_same_as_all_at_once(
    text: str, recording: Log, keras: str, data: st.DataObject
) -> None:
    run, live = Run(), shadow(text, keras)
    cut = data.draw(st.sets(st.integers(0, len(recording.epochs))))
    at = sorted({0, len(recording.epochs), *cut})
    for start, stop in pairwise(at):
        columns = {name: column[start:stop] for name, column in recording.metrics.items()}
        rates = recording.learning_rate
        row = EpochsEnded(
            epochs=recording.epochs[start:stop],
            metrics=columns,
            learning_rate=None if rates is None else rates[start:stop],
        )
        fold(run, row)
        live.look(run.current)
    state = live.look(run.current)
    whole, at_once = beside(text, run.current, keras)
    assert (live.fired, live.trouble) == (whole.fired, whole.trouble)
    assert same(state, at_once)
