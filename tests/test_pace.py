"""How long epochs take, when a run is done and when it would stop: tables, and every odd clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given

from cbmon.events import (
    CallbackState,
    CallbackStates,
    EpochsEnded,
    Event,
    Heartbeat,
    Progress,
    RunEnded,
    RunStarted,
    Tick,
)
from cbmon.pace import (
    PACE_EPOCHS,
    QUIET_FACTOR,
    QUIET_LEAST_S,
    QUIET_LOG_S,
    QUIET_RECORD_S,
    STUCK_EPOCHS,
    STUCK_LEAST_S,
    STUCK_MOST_S,
    STUCK_STEPS,
    Stop,
    done_at,
    early_and_late,
    early_stop,
    epoch_seconds,
    idle_since,
    last_work,
    quiet_after,
    slowest_seconds,
    stuck_after,
)
from cbmon.run import ARRIVALS_KEPT, Attempt, Run, fold
from tests.test_fold_laws import event_lists

START = 1_700_000_000.0
NA = None


def a_run(*events: Event) -> Run:
    run = Run()
    for event in events:
        fold(run, event)
    return run


def epochs(
    ends: Sequence[float | None],
    took: Sequence[float | None] | None = None,
    *,
    first: int = 0,
    every: int = 1,
    **seconds: Sequence[float | None],
) -> EpochsEnded:
    """Epochs by the moments at which they ended, after `START`, and by what they took."""
    return EpochsEnded(
        epochs=list(range(first, first + every * len(ends), every)),
        metrics={"loss": [1.0] * len(ends)},
        times=[None if end is None else START + end for end in ends],
        seconds={name: column for name, column in {"epoch": took, **seconds}.items() if column is not None},
    )


# --- what an epoch takes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "pace", "slowest", "sentence"),
    [
        (epochs([]), None, None, "nothing yet"),
        (epochs([60]), None, None, "one end is no duration"),
        (epochs([60], [55]), 55, 55, "but what it took is one"),
        (epochs([60], [55], first_step=[31], step=[1]), 25, 25, "without the first step, which compiles"),
        (epochs([60, 120, 181]), 60.5, 61, "ends apart"),
        (epochs([60, 120, 180], [50, 50, 50]), 60, 60, "with what callbacks add between"),
        (epochs([60, 120, 180, 1000]), 60, 820, "one slow epoch is no pace"),
        (epochs([60, 120, 30, 90], [50] * 4), 55, 60, "the clock was put back: what it took stands"),
        (epochs([60, 120, 30, 90]), 60, 60, "put back, and nothing else known"),
        (epochs([60, 120, 9000, 9060], [50] * 4), 55, 60, "the laptop slept: what it took stands"),
        (epochs([60, NA, 180, 240]), 60, 60, "an end is not known"),
        (epochs([NA, NA, NA]), None, None, "no end is known"),
        (epochs([60, 300, 540], every=4), 60, 60, "rows of every fourth epoch"),
        (epochs([60, 60, 60]), None, None, "ends at once tell nothing"),
        (epochs([math.nan, math.inf, -math.inf, 60]), None, None, "ends that are no times"),
        (epochs([60, 120], [math.nan, -5]), 60, 60, "durations that are none"),
        (
            epochs([60.0 + 10 * row for row in range(5)] + [100.0 + 99 * row for row in range(1, 31)]),
            99,
            99,
            "late",
        ),
    ],
)
def test_what_an_epoch_takes(
    batch: EpochsEnded, pace: float | None, slowest: float | None, sentence: str
) -> None:
    attempt = a_run(batch).current
    assert (epoch_seconds(attempt), slowest_seconds(attempt)) == (pace, slowest), sentence


def test_an_absurd_duration_is_no_slowest_one() -> None:
    attempt = a_run(epochs([60, 120, 180, 9000, 9060])).current
    assert slowest_seconds(attempt) == 60


def test_validation_in_every_other_epoch_gives_one_pace() -> None:
    ends, now = [], 0.0
    paces = []
    for row in range(40):
        now += 100.0 if row % 2 else 60.0
        ends.append(now)
        if row >= PACE_EPOCHS:
            paces.append(epoch_seconds(a_run(epochs(ends)).current))
    assert set(paces) == {80.0}


def took_in_turn(*seconds: float) -> Attempt:
    return a_run(epochs([NA] * len(seconds), list(seconds))).current


@pytest.mark.parametrize(
    ("attempt", "paces", "sentence"),
    [
        (took_in_turn(*[60.0] * 12), None, "too few"),
        (took_in_turn(*[60.0] * 13), (60, 60), "six and six, without the first"),
        (took_in_turn(300.0, *[60.0] * 20, *[118.0] * 20), (60, 118), "slower"),
        (took_in_turn(*[60.0] * 40, *[400.0] * 4), (60, 60), "four slow ones are no pace yet"),
        (took_in_turn(*[60.0, 100.0] * 20), (80, 80), "validation in every other epoch"),
        (took_in_turn(*[10.0, 50.0] * 20), (30, 30), "however much longer that makes it"),
        (took_in_turn(*[60.0] * 20, *[math.nan] * 20), None, "now unknown"),
    ],
)
def test_early_and_late_pace(attempt: Attempt, paces: tuple[float, float] | None, sentence: str) -> None:
    assert early_and_late(attempt) == paces, sentence


# --- a log without times: when it was seen to grow ------------------------------------------------------------


def seen(*looks: tuple[int, float | None]) -> Run:
    """A log that had so many rows when its source looked and it had last changed at a time after `START`."""
    run, rows = Run(), 0
    for count, written in looks:
        if count > rows:
            fold(run, EpochsEnded(epochs=list(range(rows, count)), metrics={"loss": [1.0] * (count - rows)}))
            rows = count
        fold(run, Tick(time=START + 1e6, written=None if written is None else START + written))
    return run


@pytest.mark.parametrize(
    ("run", "pace", "sentence"),
    [
        (seen((5, 0)), None, "found as it is"),
        (seen((5, 0), (6, 60)), 60, "one row more"),
        (seen((5, 0), (6, 60), (8, 180)), 60, "two rows at once"),
        (seen((5, 0), (5, 30), (6, 60)), 60, "a look at half a row"),
        (seen((5, 0), (200, 0), (900, 0), (901, 60)), 60, "a large log comes in pieces"),
        (seen((5, 100), (6, 40), (7, 100)), 60, "the clock was put back"),
        (seen((5, None), (6, math.nan), (7, 0), (8, 50)), 50, "not known at first"),
        (seen((0, 0), (1, 60), (2, 120)), 60, "the header alone"),
    ],
)
def test_a_log_without_times_has_the_pace_at_which_it_was_seen_to_grow(
    run: Run, pace: float | None, sentence: str
) -> None:
    assert epoch_seconds(run.current) == pace, sentence


def test_only_the_latest_moments_are_kept_and_they_are_no_part_of_what_a_run_is() -> None:
    grown = seen(*((row, 60.0 * row) for row in range(1, 100)))
    assert len(grown.current.arrivals) == ARRIVALS_KEPT
    assert grown.attempts == seen((99, 0.0)).attempts


def test_each_attempt_has_its_own_moments() -> None:
    run = seen((5, 0), (6, 60))
    fold(run, EpochsEnded(epochs=[0], metrics={"loss": [1.0]}))
    fold(run, Tick(time=START + 90, written=START + 80))
    assert run.current.arrivals == [(1, START + 80)]


# --- done -----------------------------------------------------------------------------------------------------

PACED = epochs([60, 120, 180])
STEPPED = epochs([60, 120, 180], step=[0.6] * 3)


def step(
    number: int, at: float, *, steps: int | None = 100, each: float | None = 0.6, phase: str = "train"
) -> Progress:
    return Progress(time=START + at, epoch=3, step=number, steps=steps, step_seconds=each, phase=phase)


def live(
    number: int,
    at: float,
    *,
    epoch: int = 3,
    steps: int | None = 100,
    each: float | None = 0.6,
    phase: str = "train",
    speed: float | None = None,
) -> Progress:
    """A look that came over the wire: it tells when the epoch began."""
    return Progress(
        time=START + at, epoch=epoch, step=number, steps=steps, step_seconds=each, phase=phase,
        steps_per_second=speed, begun=START + 180,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("events", "planned", "done", "sentence"),
    [
        ([PACED], 10, 180 + 7 * 60, "at its pace"),
        ([PACED], 3, 180, "at the end"),
        ([PACED], 2, 180, "beyond the plan"),
        ([PACED], None, None, "no plan"),
        ([epochs([60])], 10, None, "no pace"),
        ([PACED, step(50, 210)], 10, 240 + 6 * 60, "half an epoch, as fast as ever"),
        ([PACED, step(50, 240, each=1.2)], 10, 300 + 6 * 60, "half an epoch, at half the speed"),
        ([PACED, step(50, 210, each=None)], 10, 180 + 7 * 60, "it does not tell how fast"),
        ([PACED, step(50, 210, steps=None)], 10, 180 + 7 * 60, "nor how far"),
        ([PACED, step(900, 230)], 10, 230 + 6 * 60, "more steps than planned"),
        ([PACED, step(10, 235, steps=20, each=0.5, phase="validation")], 10, 240 + 6 * 60, "validation"),
        (
            [epochs([60, 120, 180], validation=[9, 10, 11]), step(50, 210, each=0.4)],
            10,
            240 + 6 * 60,
            "validation is still to come",
        ),
        (
            [PACED, Progress(time=START + 1, epoch=1, step=5, steps=10, step_seconds=9.0)],
            10,
            600,
            "an old look",
        ),
        (
            [Progress(time=START, epoch=0, step=25, steps=100, step_seconds=1.0)],
            10,
            75 + 900,
            "the first epoch",
        ),
        ([Progress(time=START, epoch=20, step=25, steps=100, step_seconds=1.0)], 30, 975, "a resumed one"),
        (
            [Progress(time=START, epoch=0, step=5, steps=10, step_seconds=1.0, phase="validation")],
            10,
            None,
            "?",
        ),
        ([PACED, Tick(time=START + 230)], 10, 600, "nothing is late yet"),
        ([PACED, Tick(time=START + 270)], 10, 600, "the running epoch is late, and nothing slides"),
        ([PACED, Tick(time=START + 300)], 10, 600, "as late as the slowest was long"),
        ([PACED, Tick(time=START + 301)], 10, None, "later: nobody knows"),
        (
            [epochs([60, 120, 300]), Tick(time=START + 550)],
            10,
            300 + 7 * 120,
            "another slow one may be that late",
        ),
        ([PACED, live(50, 210), Tick(time=START + 213)], 10, 600, "a look of a moment ago"),
        ([PACED, live(50, 210), Tick(time=START + 223)], 10, None, "no step for a while: no forecast"),
        ([PACED, step(50, 210), Tick(time=START + 223)], 10, 600, "a file tells of steps now and then"),
        ([PACED, live(50, 210, each=6.0, speed=2.0)], 10, 235 + 6 * 60, "it stood still in this epoch"),
        ([STEPPED, live(50, 210, each=0.7)], 10, 210 + 35 + 6 * 60, "steps much as before"),
        ([STEPPED, live(50, 210, each=6.0)], 10, 600, "it stood still, and how fast it is now is not known"),
        ([epochs([4, 188], [4, 184])], 10, 188 + 8 * 4, "and here in the second"),
        ([epochs([4, 188, 192], [4, 184, 4])], 10, 192 + 7 * 4, "which is forgotten"),
        ([PACED, Tick(time=START + 601)], 10, None, "the end has passed: no forecast"),
        ([PACED, Tick(time=START + 241)], 4, None, "the last epoch is late: no forecast"),
    ],
)
def test_it_will_be_done(events: list[Event], planned: int | None, done: float | None, sentence: str) -> None:
    found = done_at(a_run(*events), planned)
    assert found == (None if done is None else pytest.approx(START + done, rel=0, abs=0.01)), sentence


def test_a_csv_log_that_was_seen_to_grow_will_be_done() -> None:
    run = seen((5, 0), (6, 60))
    fold(run, Tick(time=START + 61, written=START + 60))
    assert done_at(run, 10) == START + 60 + 4 * 60


# --- an early stop --------------------------------------------------------------------------------------------


def stopping(
    wait: int | None = 3, patience: float | None = 5.0, best: float | None = 0.4, **other: str
) -> CallbackState:
    return CallbackState(
        **{"name": "EarlyStopping", "monitor": "val_loss", **other}, wait=wait, patience=patience, best=best
    )


REDUCING = CallbackState(name="ReduceLROnPlateau", monitor="val_loss", wait=2, patience=3.0, best=0.4)


@pytest.mark.parametrize(
    ("states", "stop", "sentence"),
    [
        ([], None, "none"),
        ([REDUCING], None, "one that does not stop"),
        ([stopping()], (4, 300), "after two epochs more"),
        ([stopping(wait=0)], (7, 480), "it has just improved"),
        ([stopping(wait=5)], (3, 240), "as late as can be"),
        ([stopping(wait=9)], (3, 240), "nothing was done about it"),
        ([stopping(patience=0.0, wait=0)], (3, 240), "no patience is that of one epoch"),
        ([stopping(patience=2.5, wait=1)], (4, 300), "half an epoch"),
        ([stopping(patience=math.inf)], None, "patience without end"),
        ([stopping(patience=1e300)], None, "and nearly so"),
        ([stopping(best=None, wait=0)], None, "start_from_epoch has not come"),
        ([stopping(wait=None)], None, "it does not tell"),
        ([stopping(patience=None)], None, "it does not tell"),
        ([stopping(patience=100.0)], None, "the plan ends before"),
        ([stopping(wait=1), stopping(wait=2, monitor="loss")], (5, 360), "the first of two"),
        ([stopping(name="PatientEarlyStopping")], (4, 300), "a class of the user's own"),
    ],
)
def test_it_would_stop(states: list[CallbackState], stop: tuple[int, float] | None, sentence: str) -> None:
    run = a_run(RunStarted(run_id="r", epochs=20), PACED, CallbackStates(epoch=2, states=states))
    found = early_stop(run)
    if stop is None:
        assert found is None, sentence
    else:
        assert found is not None, sentence
        assert (found.epoch, found.at) == (stop[0], START + stop[1]), sentence


def test_where_no_pace_is_known_it_would_stop_at_an_epoch_and_no_time() -> None:
    run = a_run(epochs([60]), CallbackStates(epoch=0, states=[stopping()]))
    assert early_stop(run) == Stop("EarlyStopping", 2, None)


def test_what_has_ended_or_was_counted_too_long_ago_stops_nowhere() -> None:
    run = a_run(PACED, CallbackStates(epoch=0, states=[stopping(wait=4)]))
    assert early_stop(run) is None, (
        "epoch 2 has passed and it did not stop: it has counted something else by now"
    )
    run = a_run(PACED, CallbackStates(epoch=2, states=[stopping()]), RunEnded(how="finished"))
    assert early_stop(run) is None


# --- silence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "limit", "sentence"),
    [
        (a_run(RunStarted(run_id="r"), PACED), QUIET_RECORD_S, "a record has a heartbeat"),
        (seen((1, 0)), QUIET_LOG_S, "a log of unknown pace"),
        (seen((1, 0), (2, 3600)), QUIET_FACTOR * 3600, "hours"),
        (seen((1, 0), (2, 1)), QUIET_LEAST_S, "seconds"),
        (seen((1, 0), (2, 60), (3, 300)), QUIET_FACTOR * 240, "by the slowest"),
        (a_run(epochs([0, 100, 200])), QUIET_FACTOR * 100, "a log with times"),
    ],
)
def test_it_is_quiet_after(run: Run, limit: float, sentence: str) -> None:
    assert quiet_after(run.current) == limit, sentence


def test_a_heartbeat_is_life_and_no_work() -> None:
    run = a_run(RunStarted(run_id="r", time=START), PACED, Heartbeat(time=START + 9000))
    assert (last_work(run), run.heard) == (START + 180, START + 9000)
    assert stuck_after(run) == QUIET_FACTOR * 60
    fold(run, step(5, 200))
    assert last_work(run) == START + 200
    assert stuck_after(seen((1, 0), (2, 60))) is None, "a log's rows are all it has"


MONITORED = RunStarted(run_id="r", time=START)
SHORT = epochs([4, 8, 12], step=[0.013] * 3)
VALIDATED = epochs([4, 8, 12], step=[0.013] * 3, validation=[1.0] * 3)
HOURS = epochs([3600, 7200, 10_800], step=[0.1] * 3)


@pytest.mark.parametrize(
    ("events", "age_s", "is_idle", "sentence"),
    [
        ([SHORT], 999, False, "between epochs nothing is known of steps"),
        ([SHORT, live(232, 13, each=0.013, steps=300)], 2.9, False, "a pause of the collector"),
        ([SHORT, live(232, 13, each=0.013, steps=300)], 3.1, True, "200 steps' worth"),
        ([SHORT, live(5, 13, each=1.5)], 29, False, "slow steps: a batch of long sequences"),
        ([SHORT, live(5, 13, each=1.5)], 31, True, "20 of them"),
        ([SHORT, live(5, 13, each=None)], 3.1, True, "by the steps of the epochs before"),
        ([SHORT, live(0, 13, each=None)], 59, False, "buffers are filled, workers started"),
        ([SHORT, live(1, 13, each=None)], 61, True, "for a minute"),
        ([SHORT, live(100, 13)], 59, False, "all steps are done: callbacks save"),
        ([SHORT, live(100, 13)], 61, True, "for a minute"),
        ([MONITORED, live(0, 0, epoch=0, each=None)], 9999, False, "the first step compiles"),
        ([MONITORED, live(9, 0, epoch=0, each=0.1)], 3.1, True, "the first epoch has steps by now"),
        ([SHORT, live(0, 13, each=None, phase="validation")], 9999, False, "validation for the first time"),
        ([VALIDATED, live(0, 13, each=None, phase="validation")], 61, True, "and again"),
        ([SHORT, step(5, 13, each=0.1)], 59, False, "a file tells of a step every 10 s"),
        ([SHORT, step(5, 13, each=0.1)], 61, True, "but has not for a minute"),
    ],
)  # fmt: skip
def test_a_look_that_is_too_old_for_one_step_is_told_to_be(
    events: list[Event], age_s: float, is_idle: bool, sentence: str
) -> None:
    run = a_run(*events)
    at = run.progress.time if run.progress else START
    assert at is not None
    fold(run, Tick(time=at + age_s))
    assert idle_since(run) == (at if is_idle else None), sentence


@pytest.mark.parametrize(
    ("events", "limit", "sentence"),
    [
        ([SHORT, live(5, 13)], STUCK_EPOCHS * 4, "epochs of 4 s: 40 s within one"),
        ([epochs([1, 2, 3]), live(5, 13)], STUCK_LEAST_S, "of 1 s: nobody is called for 10 s"),
        ([HOURS, live(5, 13, each=0.1)], STUCK_MOST_S, "of an hour: 10 minutes for a fast step"),
        ([HOURS, live(5, 13, each=30.0)], STUCK_STEPS * 30, "and longer for a slow one"),
        ([PACED, live(5, 200)], 600, "of a minute"),
        ([SHORT], QUIET_RECORD_S, "between epochs callbacks may save for minutes"),
        ([SHORT, live(100, 13)], QUIET_RECORD_S, "or after the last step, before the Monitor hears of the end"),
        ([SHORT, live(5, 13, steps=None)], QUIET_RECORD_S, "nobody knows whether it is the last"),
        ([SHORT, step(5, 13)], QUIET_RECORD_S, "a file alone"),
        ([epochs([40, 44, 48], [40, 4, 4]), live(5, 51)], 400, "another epoch was as long"),
        ([live(0, 0, epoch=0)], None, "the very first step compiles for any time"),
        ([live(7, 0, epoch=0)], STUCK_MOST_S, "the first epoch: a last batch of another size compiles again"),
        ([SHORT, live(0, 13, phase="validation")], STUCK_MOST_S, "validation for the first time"),
        ([SHORT, live(9, 13, phase="validation")], STUCK_MOST_S, "to its last step"),
        ([VALIDATED, live(9, 13, phase="validation")], STUCK_EPOCHS * 4, "and again"),
    ],
)  # fmt: skip
def test_it_is_stuck_the_sooner_the_faster_it_goes(
    events: list[Event], limit: float | None, sentence: str
) -> None:
    assert stuck_after(a_run(MONITORED, *events)) == limit, sentence


@given(event_lists)
def test_no_events_make_a_pace_raise(events: list[Event]) -> None:
    run = Run()
    for event in events:
        fold(run, event)
        attempt = run.current
        for ask in (epoch_seconds, slowest_seconds, early_and_late, quiet_after):
            ask(attempt)
        for look in (stuck_after, idle_since):
            look(run)
        early_stop(run)
        last_work(run)
        for planned in (None, 0, 1, 7, 2**53):
            found = done_at(run, planned)
            assert found is None or math.isfinite(found)
