"""What if: the model without a screen."""

import math
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from cbmon.errors import BadCall
from cbmon.events import EpochsEnded, RunStarted
from cbmon.profiles import NEWEST, PROFILES
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.evidence import in_effect
from cbmon.replay.shadow import Shadow
from cbmon.replay.whatif import CUTTING, KERAS, STOPPING, Snapshot, Value, WhatIf, outcome
from cbmon.run import Attempt, Run, fold
from cbmon.sources import find, read_whole

SAMPLES = Path(__file__).resolve().parent.parent / "sample_logs"


def attempt_of(values: Sequence[float | None], *, rates: Sequence[float] | None = None) -> Attempt:
    run = Run()
    metrics = {"loss": [1.0] * len(values), "accuracy": [0.5] * len(values), "val_loss": values}
    fold(run, EpochsEnded(epochs=range(len(values)), metrics=metrics, learning_rate=rates))
    return run.current


def sample(name: str) -> Attempt:
    (log,) = find([str(SAMPLES / name)]).logs
    run = Run()
    for event in read_whole(log, 0.0):
        fold(run, event)
    return run.current


KEEPS_3, REGRET = "keeps .5000 ★3", "regret .1000 (25 %)"
OTHER, NO_RATE = "the recorded learning rate is another", "this log has no learning rate"
FALLING = [1.0, 0.8, 0.5, 0.6, 0.7, 0.6, 0.4, 0.9]


def ask(attempt: Attempt, callback: str = STOPPING, **values: Value) -> WhatIf:
    question = WhatIf.begin(attempt, NEWEST)
    question = question if callback == STOPPING else question.other()
    for name, value in values.items():
        question = question._with(name, value)
    return question


def answer(question: WhatIf, attempt: Attempt) -> str:
    return outcome(question, Snapshot.of(attempt, str(question.value("monitor")))).answer.replace("\xa0", " ")


# --- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"patience": 3}, "stops after epoch 6, keeps .5000 ★3, saves 2 of 8 epochs, regret .1000 (25 %)"),
        ({"patience": 4}, "not within 8 epochs; best .4000 ★7, wait 1 of 4"),
        (
            {"patience": 3, "restore_best_weights": False},
            "stops after epoch 6, keeps .6000 (nothing restored), saves 2 of 8 epochs, regret .2000 (50 %)",
        ),
        (
            {"patience": 1, "start_from_epoch": 6},
            "stops after epoch 8, keeps .4000 ★7, saves 0 of 8 epochs, no regret",
        ),
        (
            {"patience": 2, "min_delta": 0.25},
            f"stops after epoch 5, {KEEPS_3}, saves 3 of 8 epochs, {REGRET}",
        ),
        ({"patience": 4, "baseline": 0.1}, f"stops after epoch 4, {KEEPS_3}, saves 4 of 8 epochs, {REGRET}"),
        (
            {"mode": "max", "patience": 2},
            "stops after epoch 3, keeps 1.000 ★1, saves 5 of 8 epochs, no regret",
        ),
    ],
)
def test_early_stopping_is_answered_in_a_sentence(values: dict[str, Value], words: str) -> None:
    attempt = attempt_of(FALLING)
    assert answer(ask(attempt, **values), attempt) == words


@pytest.mark.parametrize(
    ("rates", "values", "words"),
    [
        ([0.1] * 8, {"patience": 2}, f"cuts ×0.1 after epoch 5; exact to epoch 5: {OTHER}"),
        (None, {"patience": 2}, f"cuts ×0.1 after epoch 5; exact to epoch 5: {NO_RATE}"),
        (None, {"patience": 9}, "not within 8 epochs"),
        (None, {"patience": 1}, f"cuts ×0.1 after epochs 4, 5, 6 and 8; exact to epoch 4: {NO_RATE}"),
        (
            None,
            {"patience": 1, "mode": "max"},
            f"cuts ×0.1 after epochs 2, 3, 4, 5 and 3 more, last 8; exact to epoch 2: {NO_RATE}",
        ),
        (
            [0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01],
            {"patience": 2},
            "cuts ×0.1 after epoch 5; exact to the end",
        ),
    ],
)
def test_cuts_are_answered_with_how_far_they_are_exact(
    rates: list[float] | None, values: dict[str, Value], words: str
) -> None:
    attempt = attempt_of(FALLING, rates=rates)
    assert answer(ask(attempt, CUTTING, **values), attempt) == words


@pytest.mark.parametrize(
    ("callback", "values", "words"),
    [
        (CUTTING, {"factor": 1.0}, "does not support a factor >= 1.0"),
        (STOPPING, {"monitor": "val_odd"}, "isn't able to automatically determine"),
        (CUTTING, {"min_lr": 1e-5, "patience": 1}, "learning rate"),
        (STOPPING, {"min_delta": 1e300}, "out of range for float32"),
        (STOPPING, {"patience": 10**400}, ""),
    ],
)
def test_what_keras_refuses_is_an_answer(callback: str, values: dict[str, Value], words: str) -> None:
    attempt = attempt_of(FALLING)
    question = ask(attempt, callback, **values)
    found = outcome(question, Snapshot.of(attempt, str(question.value("monitor"))))
    assert words in found.answer
    assert found.is_refused or not words
    assert not found.fired


def test_a_metric_that_is_not_there_is_said() -> None:
    attempt = attempt_of(FALLING)
    question = ask(attempt, monitor="val_mae", mode="min")
    found = outcome(question, Snapshot.of(attempt, "val_mae"))
    assert found.answer == "not within 8 epochs"
    assert "'val_mae' is not in this log" in found.notes[0]


@pytest.mark.parametrize("name", ["plateau", "overfitting", "early-stop", "nan", "no-validation", "healthy"])
@pytest.mark.parametrize("callback", [STOPPING, CUTTING])
@pytest.mark.parametrize("patience", [1, 3, 8])
def test_it_fires_where_a_replay_and_a_policy_beside_the_run_do(
    name: str, callback: str, patience: int
) -> None:
    attempt = sample(name)
    question = ask(attempt, callback, patience=patience)
    found = outcome(question, Snapshot.of(attempt, str(question.value("monitor"))))
    made = replay(attempt, parse_calls(question.text, NEWEST), NEWEST).decisions
    assert made is not None
    assert list(found.fired) == [e for e, _ in made.cuts] + ([made.stopped.epoch] if made.stopped else [])
    if callback == STOPPING:
        shadow = Shadow(question.call(), NEWEST)
        shadow.look(attempt)
        assert shadow.fired == list(found.fired)


def test_a_snapshot_does_not_grow_with_its_run() -> None:
    attempt = attempt_of(FALLING)
    rows = Snapshot.of(attempt, "val_loss")
    attempt.extend(EpochsEnded(epochs=[8], metrics={"val_loss": [math.nan]}), slice(0, 1))
    assert len(rows.epochs) == len(rows.metrics["val_loss"]) == 8


def test_a_run_without_any_value_has_an_answer() -> None:
    attempt = attempt_of([None, None])
    assert answer(ask(attempt, monitor="val_loss"), attempt) == "not within 2 epochs"
    assert answer(WhatIf.begin(Attempt(), NEWEST), Attempt()) == "not within 0 epochs"


# --- what can be turned ---------------------------------------------------------------------------------------


def test_it_begins_with_early_stopping_on_what_the_run_is_judged_by() -> None:
    question = WhatIf.begin(attempt_of(FALLING), NEWEST)
    assert question.text == 'EarlyStopping(monitor="val_loss", patience=10, restore_best_weights=True)'
    assert question.other().text == 'ReduceLROnPlateau(monitor="val_loss", patience=10)'
    assert question.other().other() == question


@pytest.mark.parametrize(
    ("callback", "name", "start", "by", "value"),
    [
        (STOPPING, "patience", 1, -1, 0),
        (STOPPING, "patience", 0, -1, 0),
        (STOPPING, "patience", 5, 10, 15),
        (STOPPING, "min_delta", 0, 1, 1e-5),
        (STOPPING, "min_delta", 0, -1, 0),
        (STOPPING, "min_delta", 2e-4, 1, 3e-4),
        (STOPPING, "min_delta", 2e-4, -1, 1e-4),
        (STOPPING, "min_delta", 0.1, 1, 0.1),
        (STOPPING, "mode", "auto", 1, "min"),
        (STOPPING, "mode", "auto", -1, "auto"),
        (STOPPING, "restore_best_weights", True, -1, False),
        (STOPPING, "monitor", "val_loss", 1, "loss"),
        (STOPPING, "monitor", "val_loss", 99, "accuracy"),
        (STOPPING, "baseline", None, 1, 0.4),
        (STOPPING, "baseline", 0.4, -1, None),
        (STOPPING, "baseline", None, -1, None),
        (STOPPING, "baseline", 0.4, 99, 1.0),
        (STOPPING, KERAS, "3.15", 1, "3.14"),
        (CUTTING, "factor", 0.1, 1, 0.2),
        (CUTTING, "factor", 0.1, -1, 0.1),
        (CUTTING, "cooldown", 0, 1, 1),
        (CUTTING, "min_lr", 0, 1, 1e-7),
    ],
)
def test_a_step_is_a_sensible_one(callback: str, name: str, start: Value, by: int, value: Value) -> None:
    attempt = attempt_of(FALLING)
    question = ask(attempt, callback)._with(name, start)
    assert question.stepped(name, by, attempt).value(name) == value
    assert question.value(name) == start


@pytest.mark.parametrize(
    ("name", "text", "value"), [("patience", "12", 12), ("min_delta", "2e-4", 2e-4), ("baseline", ".5", 0.5)]
)
def test_numbers_may_be_typed(name: str, text: str, value: float) -> None:
    assert ask(attempt_of(FALLING)).typed(name, text).value(name) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("patience", "1.5", "patience=1.5: not a whole number"),
        ("min_delta", "1.2.3", "min_delta=1.2.3: not a number"),
        ("mode", "5", "mode is chosen with the arrows"),
    ],
)
def test_what_is_no_number_is_refused_by_name(name: str, text: str, words: str) -> None:
    with pytest.raises(BadCall, match=words):
        ask(attempt_of(FALLING)).typed(name, text)


def test_call_can_be_pasted_back_whatever_the_arguments_and_the_metric_are() -> None:
    dice, attempt = random.Random(3), attempt_of(FALLING)
    for number in range(200):
        question = ask(attempt, dice.choice([STOPPING, CUTTING]), monitor='val "odd\\ näme"\n')
        for _ in range(6):
            name = dice.choice([row for row in question.rows if row not in ("monitor", KERAS)])
            question = question.stepped(name, dice.choice([-2, -1, 1, 2, 3]), attempt)
        (call,) = parse_calls(question.text, NEWEST)
        own = question.arguments[question.callback]
        built = call.build(NEWEST)
        assert {name: getattr(built, name) for name in own} == own, number


def test_each_keras_can_be_asked() -> None:
    attempt = attempt_of(FALLING)
    answers = {answer(ask(attempt, patience=3, keras=name), attempt) for name in PROFILES}
    assert len(answers) == 1


def test_a_long_run_is_copied_as_columns() -> None:
    run = Run()
    fold(run, EpochsEnded(epochs=array("q", range(1000)), metrics={"loss": array("d", [1.0] * 1000)}))
    rows = Snapshot.of(run.current, "loss")
    assert isinstance(rows.metrics["loss"].values, array)
    assert answer(ask(run.current, patience=5), run.current).startswith("stops after epoch 6, keeps 1.000 ★1")


def test_the_rows_of_a_question_mean_what_they_do_in_a_replay() -> None:
    values = [1.0, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4]
    attempt = attempt_of(values, rates=[0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.0125])
    for started in (None, RunStarted(run_id="1")):
        attempt.started, attempt.memo = started, {}
        told = in_effect(attempt)[0].learning_rate
        seen = in_effect(Snapshot.of(attempt, "loss"))[0].learning_rate
        assert told is not None
        assert seen is not None
        assert [told[row] for row in range(8)] == [seen[row] for row in range(8)]
