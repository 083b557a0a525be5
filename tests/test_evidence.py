"""What a log tells about itself: what its learning rate means (judges: real lists), whether it was cut short."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from cbmon.events import EpochsEnded, RunEnded, RunStarted
from cbmon.formats.csvlog import CsvDecoder
from cbmon.profiles import PROFILES
from cbmon.replay.calls import parse_calls
from cbmon.replay.cases import Beginning
from cbmon.replay.engine import replay
from cbmon.replay.evidence import InEffect, Meaning, cut_short, in_effect, rate_meaning
from cbmon.replay.results import Replay
from cbmon.run import Attempt, Run, fold
from tests.driven import Real, Rows, real_keras

K3 = PROFILES["3.15"]
PLATEAU = "ReduceLROnPlateau(patience={patience}, factor=0.5, cooldown={cooldown}, min_lr={floor})"
IDENTITY = "LearningRateScheduler(lambda epoch, lr: lr)"


@pytest.fixture(params=["keras", "tf_keras"])
def real(request: pytest.FixtureRequest) -> Real:
    return real_keras(request.param)


def noisy(chance: random.Random, epochs: int) -> Rows:
    value, made = 1.0, []
    for _ in range(epochs):
        value *= chance.choice([0.8, 0.95, 1.0, 1.02])
        made.append({"loss": value, "val_loss": value * chance.uniform(0.9, 1.3)})
    return Rows(list(range(epochs)), made)


def recorded(path: Path) -> Attempt:
    run, decoder = Run(), CsvDecoder()
    for event in [*decoder.feed(path.read_bytes()), *decoder.finish()]:
        fold(run, event)
    return run.current


@pytest.mark.parametrize("order", ["U", "A", "LRS first"])
def test_the_meaning_is_never_told_wrong_about_a_real_list(real: Real, order: str, tmp_path: Path) -> None:
    chance, told = random.Random(order), dict.fromkeys(Meaning, 0)
    for number in range(40):
        log, path = noisy(chance, chance.randint(10, 40)), tmp_path / f"{number}.csv"
        plateau = PLATEAU.format(
            patience=chance.choice([1, 2, 3]), cooldown=chance.choice([0, 2]), floor=chance.choice([0, 0.01])
        )
        texts = {"U": [plateau], "A": [plateau, IDENTITY], "LRS first": [IDENTITY, plateau]}[order]
        real.drive([*texts, f"CSVLogger({str(path)!r})"], log, 0.1)
        attempt = recorded(path)
        assert attempt.learning_rate is not None
        rates = list(attempt.rate)
        meaning = rate_meaning(rates, {name: list(column) for name, column in attempt.metrics.items()})
        told[meaning] += 1
        if len(set(rates)) < 2:
            continue
        wrong = Meaning.USED if order == "A" else Meaning.AFTER
        assert meaning is not wrong, (number, texts, rates)
        if meaning is Meaning.AFTER:
            result = replay(attempt, parse_calls("EarlyStopping(patience=99)", K3), K3)
            assert result.decisions is not None
            made = result.decisions.learning_rate
            assert made == pytest.approx(real.rates[:-1], rel=1e-6), "corrected, they are those in effect"
            assert result.decisions.learning_rate_next == pytest.approx(real.rates[-1], rel=1e-6)
            assert any("after the epoch" in warning for warning in result.warnings)
    assert told[Meaning.AFTER if order == "A" else Meaning.USED] >= 10, told


def test_replaying_the_list_that_wrote_the_log_is_exact_in_either_order(real: Real, tmp_path: Path) -> None:
    chance, corrected = random.Random(3), 0
    for number in range(30):
        log, path = noisy(chance, 40), tmp_path / f"{number}.csv"
        plateau = PLATEAU.format(patience=2, cooldown=0, floor=0)
        real.drive([plateau, IDENTITY, f"CSVLogger({str(path)!r})"], log, 0.1)
        attempt = recorded(path)
        recording, _ = in_effect(attempt)
        if isinstance(recording, InEffect):
            corrected += 1
            text = f"{plateau}; {IDENTITY}"
            result = replay(attempt, parse_calls(text, real.profile), real.profile)
            assert result.decisions is not None
            assert result.decisions.exact is True, "as if it had recorded the rates in effect"
    assert corrected >= 5


MEANINGS: list[tuple[list[float | None], list[float], Meaning, str]] = [
    ([0.1] * 5, [1, 1, 1, 1, 1], Meaning.USED, "a constant says nothing, and both are the same"),
    (
        [0.1, 0.1, 0.1, 0.01, 0.01],
        [1, 0.9, 0.9, 0.8, 0.7],
        Meaning.USED,
        "cut after 3, where it did not improve",
    ),
    (
        [0.1, 0.1, 0.01, 0.01, 0.01],
        [1, 0.9, 0.9, 0.8, 0.7],
        Meaning.UNKNOWN,
        "one drop may be a schedule's too",
    ),
    ([0.1, 0.1, 0.05, 0.025], [1, 1, 1, 1], Meaning.USED, "flat, patience 1, the usual order"),
    ([0.1, 0.05, 0.025, 0.0125], [1, 1, 1, 1], Meaning.UNKNOWN, "flat, patience 1: or a schedule"),
    (
        [0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.001],
        [1, 0.9, 0.9, 0.8, 0.7, 0.6, 0.7],
        Meaning.AFTER,
        "at two drops the epoch itself did not improve, and the one before did",
    ),
    (
        [0.1, 0.09, 0.08, 0.07],
        [1, 0.9, 0.8, 0.7],
        Meaning.USED,
        "a schedule: no plateau cuts while it improves",
    ),
    ([0.1, 0.2, 0.1], [1, 1, 1], Meaning.USED, "a rate that rises is no plateau's"),
    ([0.1, None, 0.01], [1, 1, 1], Meaning.USED, "a gap: nothing is told"),
]


@pytest.mark.parametrize(
    ("rates", "values", "meaning", "sentence"), MEANINGS, ids=[row[-1] for row in MEANINGS]
)
def test_the_meaning_of_small_cases(
    rates: list[float | None], values: list[float | None], meaning: Meaning, sentence: str
) -> None:
    assert rate_meaning(rates, {"val_loss": values}) is meaning, sentence


def test_a_doubtful_meaning_is_said_and_a_record_of_ours_has_none() -> None:
    attempt = Attempt()
    batch = EpochsEnded(
        epochs=[0, 1, 2, 3], metrics={"val_loss": [1.0] * 4}, learning_rate=[0.1, 0.05, 0.025, 0.0125]
    )
    attempt.extend(batch, slice(0, 4))
    for text, is_said in (("EarlyStopping(patience=9)", False), ("ReduceLROnPlateau(patience=1)", True)):
        result = replay(attempt, parse_calls(text, K3), K3)
        found = any("cannot be told from its rows" in warning for warning in result.warnings)
        assert found is is_said, "only where something hangs on it"
    attempt.started, attempt.memo = RunStarted(run_id="1"), {}
    assert in_effect(attempt) == (attempt, None), "Monitor reads the rate at the first step"


# --- cut short ------------------------------------------------------------------------------------------


def worse_from(best: int, epochs: int) -> Rows:
    values = [1.0 - 0.01 * min(e, best) + 0.01 * max(0, e - best) for e in range(epochs)]
    return Rows(list(range(epochs)), [{"val_loss": value} for value in values])


def warned(log: Any, text: str = "EarlyStopping(patience=50)", **options: Any) -> list[str]:
    result: Replay = replay(log, parse_calls(text, K3), K3, **options)
    assert result.error is None
    return [warning for warning in result.warnings if "not within" in warning]


def test_a_log_of_odd_length_that_ends_past_its_best_may_have_been_stopped() -> None:
    assert warned(worse_from(17, 23)) == [
        "EarlyStopping: not within 23 epochs; the log itself may have been stopped early: it ends after epoch 23, "
        "5 epochs past the best val_loss"
    ]
    both = warned(worse_from(17, 23), "EarlyStopping(patience=50); ReduceLROnPlateau(patience=50)")
    assert both[0].startswith("EarlyStopping, ReduceLROnPlateau: not within 23 epochs; ")


@pytest.mark.parametrize(
    ("log", "text", "options"),
    [
        (worse_from(17, 25), "EarlyStopping(patience=50)", {}),
        (worse_from(22, 23), "EarlyStopping(patience=50)", {}),
        (worse_from(3, 7), "EarlyStopping(patience=50)", {}),
        (worse_from(17, 23), "EarlyStopping(patience=2)", {}),
        (worse_from(17, 23), "EarlyStopping(patience=50)", {"planned": 23}),
        (worse_from(17, 23), "ModelCheckpoint('m.keras')", {}),
    ],
    ids=["a round number", "at its best", "too short", "it fires", "as planned", "nothing that waits"],
)
def test_nothing_is_said_where_nothing_says_so(log: Rows, text: str, options: dict[str, Any]) -> None:
    assert warned(log, text, **options) == []


def test_the_plan_and_the_record_say_so() -> None:
    assert "23 of 100 planned epochs" in warned(worse_from(22, 23), planned=100)[0]
    attempt = Attempt()
    attempt.extend(EpochsEnded(epochs=[0, 1], metrics={"val_loss": [1.0, 0.9]}), slice(0, 2))
    attempt.started = RunStarted(run_id="1", epochs=9)
    assert "2 of 9 planned epochs" in str(cut_short(attempt))
    attempt.ended = RunEnded(how="stopped", by=["EarlyStopping"])
    assert cut_short(attempt) == "the recorded run itself was stopped after epoch 2 by EarlyStopping"
    attempt.ended = RunEnded(how="failed")
    assert cut_short(attempt) == "the recorded run itself failed after epoch 2"
    attempt.started, attempt.ended = RunStarted(run_id="1", epochs=2), RunEnded(how="finished")
    assert cut_short(attempt, 100) is None


def test_the_first_rows_of_a_recording_mean_what_the_whole_tells() -> None:
    attempt = Attempt()
    values: list[float | None] = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4]
    rates: list[float | None] = [0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.0125, 0.0125, 0.0125, 0.00625, 0.00625]
    attempt.extend(
        EpochsEnded(epochs=range(11), metrics={"val_loss": values}, learning_rate=rates), slice(0, 11)
    )
    for started in (None, RunStarted(run_id="1")):
        attempt.started, attempt.memo = started, {}
        whole, _ = in_effect(attempt)
        assert whole.learning_rate is not None
        for rows in range(12):
            first, _ = in_effect(Beginning(attempt, rows))
            again, _ = in_effect(Beginning(whole, rows))
            for each in (first, again):
                assert each.learning_rate is not None
                told = [each.learning_rate[row] for row in range(rows)]
                assert told == [whole.learning_rate[row] for row in range(rows)], (started, rows)


def test_rates_that_were_moved_are_not_moved_again() -> None:
    attempt = Attempt()
    attempt.extend(
        EpochsEnded(epochs=[0, 1], metrics={"val_loss": [1.0, 1.0]}, learning_rate=[0.1, 0.05]), slice(0, 2)
    )
    moved = InEffect(attempt)
    assert in_effect(moved) == (moved, None)


def test_a_value_that_keras_cannot_compare_stops_no_guess() -> None:
    rates: list[float | None] = [0.1, 0.1, 0.05, 0.05, 0.025]
    metrics: dict[str, list[float | None]] = {"val_loss": [1e300] * 5, "loss": [1.0, 0.5, 0.4, 0.3, 0.2]}
    assert rate_meaning(rates, metrics) is Meaning.USED
