"""Alerts and states: what a run's course means, as tables; that asking often is asking once; that events stay."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.chart import MarkKind
from cbmon.events import (
    CheckpointSaved,
    ControlApplied,
    EpochsEnded,
    Event,
    Heartbeat,
    NonFinite,
    Progress,
    RunEnded,
    RunStarted,
    Tick,
)
from cbmon.pace import QUIET_FACTOR, QUIET_LEAST_S, QUIET_LOG_S, QUIET_RECORD_S
from cbmon.plots import chart_view
from cbmon.rules import (
    SCHEDULE_MOST,
    SLOWER_FACTOR,
    Alert,
    Severity,
    Status,
    alerts,
    headline_metric,
    is_schedule,
    last_sign,
    rate_changes,
    status,
)
from cbmon.run import Run, fold
from cbmon.sources import find, read_whole
from cbmon.units import clock
from cbmon.views import is_unhealthy
from tests.test_fold_laws import event_lists, values

ONE_EPOCH = EpochsEnded(epochs=[0], metrics={"loss": [1.0]})
STARTED = RunStarted(run_id="r", epochs=100)
START = 1_700_000_000.0
Values = Sequence[float | None]


def a_run(*events: Event) -> Run:
    run = Run()
    for event in events:
        fold(run, event)
    return run


def rows(rate: Values | None = None, first: int = 0, **metrics: Values) -> EpochsEnded:
    count = len(next(iter([*metrics.values(), rate or []])))
    return EpochsEnded(epochs=list(range(first, first + count)), metrics=metrics, learning_rate=rate)


def told(run: Run, *but: str) -> list[str]:
    """Its alerts as a list of short words, without some kinds."""
    return [f"{alert.severity.value}: {alert.message}" for alert in alerts(run) if alert.kind not in but]


# --- numbers that broke ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "expected", "sentence"),
    [
        ([rows(loss=[1.0, math.nan])], ["error: NaN loss at epoch 2"], "a loss"),
        ([rows(loss=[1.0, math.inf])], ["error: infinite loss at epoch 2"], "infinite"),
        (
            [rows(loss=[1.0, 0.5], f1=[math.nan, 0.1])],
            ["warning: NaN f1 at epoch 1"],
            "0 / 0 in another metric",
        ),
        ([rows(loss=[1.0, math.nan, 0.5])], ["error: NaN loss at epoch 2"], "it stays told"),
        ([rows(loss=[1.0, None])], [], "absent is not NaN"),
        (
            [rows(loss=[1.0]), NonFinite(epoch=1, step=7, metric="loss")],
            ["error: NaN or infinite loss within epoch 2"],
            "before the epoch ends",
        ),
        (
            [rows(loss=[1.0]), NonFinite(epoch=1, metric="loss"), rows(first=1, loss=[math.nan])],
            ["error: NaN loss at epoch 2"],
            "once when it has ended",
        ),
        (
            [rows(loss=[1.0]), *(NonFinite(epoch=epoch, metric="loss") for epoch in (1, 2, 3))],
            ["error: NaN or infinite loss within epoch 2"],
            "the first time is told",
        ),
        (
            [rows(loss=[1.0, math.nan]), rows(loss=[1.0])],
            ["error: NaN loss at epoch 2"],
            "of an earlier attempt too",
        ),
    ],
)
def test_what_is_no_number_any_more(events: list[Event], expected: list[str], sentence: str) -> None:
    assert told(a_run(STARTED, *events), "no-learning-rate") == expected, sentence


@pytest.mark.parametrize(
    ("metric", "severity", "unhealthy"),
    [("loss", Severity.ERROR, True), ("grad_norm", Severity.WARNING, False)],
)
def test_a_number_that_breaks_within_an_epoch_is_told_before_the_epoch_ends(
    metric: str, severity: Severity, unhealthy: bool
) -> None:
    run = a_run(STARTED, ONE_EPOCH, NonFinite(epoch=1, step=7, metric=metric))
    (alert,) = alerts(run)
    assert (alert.epoch, alert.severity, alert.kind) == (1, severity, "nan")
    assert alert.message == f"NaN or infinite {metric} within epoch 2", "epochs are told from 1"
    assert is_unhealthy(run) is unhealthy


# --- the learning rate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1, 0.1, 0.1], []),
        ([0.1, 0.1, 0.01], ["info: learning rate 0.1 → 0.01 at epoch 3"]),
        ([0.1, 0.1 + 1e-9, 0.1], []),
        ([None, 0.1, None, 0.01], ["info: learning rate 0.1 → 0.01 at epoch 4"]),
        (
            [0.4, 0.3, 0.2, 0.1],
            [
                "info: learning rate 0.4 → 0.3 at epoch 2",
                "info: learning rate 0.3 → 0.2 at epoch 3",
                "info: learning rate 0.2 → 0.1 at epoch 4",
            ],
        ),
        ([0.5, 0.4, 0.3, 0.2, 0.1], ["info: learning rate on a schedule, first 0.5 → 0.4 at epoch 2"]),
    ],
)
def test_changes_of_the_learning_rate(rates: Values, expected: list[str]) -> None:
    run = a_run(STARTED, rows(rate=rates, loss=[1.0 / (row + 1) for row in range(len(rates))]))
    assert told(run) == expected


def test_a_million_changes_are_a_schedule_and_cost_no_memory() -> None:
    count = 50 * SCHEDULE_MOST
    run = a_run(
        STARTED, rows(rate=[0.1 if row % 20 < 10 else 0.2 for row in range(count)], loss=[1.0] * count)
    )
    changes = rate_changes(run.current)
    assert len(changes) == SCHEDULE_MOST + 1
    assert is_schedule(run.current, changes)
    assert len(told(run, "plateau")) == 1


@given(
    st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.1 + 1e-9, math.nan]), max_size=60), st.integers(1, 9)
)
def test_changes_looked_for_row_by_row_are_those_of_the_whole(rates: list[float | None], step: int) -> None:
    grown = Run()
    for start in range(0, len(rates), step):
        part = rates[start : start + step]
        fold(grown, rows(first=start, rate=part, loss=[1.0] * len(part)))
        rate_changes(grown.current)
    whole = a_run(rows(rate=rates, loss=[1.0] * len(rates))) if rates else Run()
    assert repr(rate_changes(grown.current)) == repr(rate_changes(whole.current)), "NaN is NaN"


@pytest.mark.parametrize(
    ("run", "expected", "sentence"),
    [
        (a_run(rows(loss=[1.0])), True, "a log of CSVLogger without a column for it"),
        (a_run(rows(loss=[1.0], rate=[0.1])), False, "with one"),
        (a_run(rows(loss=[1.0], rate=[None])), True, "with an empty one"),
        (a_run(rows(**{"loss": [1.0], "lr/pg0": [0.1]})), False, "with one of another name"),
        (a_run(STARTED, rows(loss=[1.0])), False, "a record: there is none to have"),
        (a_run(EpochsEnded(epochs=[0], metrics={"loss": [1.0]}, times=[START])), False, "Monitor's own .csv"),
        (
            a_run(EpochsEnded(epochs=[0], metrics={"loss": [1.0]}, learning_rates={"adam": [0.1]})),
            False,
            "several",
        ),
        (a_run(), False, "nothing yet"),
        (a_run(rows(loss=[None])), False, "nothing yet"),
    ],
)
def test_a_log_without_a_learning_rate_says_how_to_have_one(run: Run, expected: bool, sentence: str) -> None:
    found = [alert for alert in alerts(run) if alert.kind == "no-learning-rate"]
    assert bool(found) is expected, sentence
    assert not [alert for alert in found if alert.severity is not Severity.INFO or len(alert.message) > 78]


# --- trends ---------------------------------------------------------------------------------------------------

FALLING = [2.0 * 0.9**row for row in range(30)]
RISING = [1.0 + 0.05 * abs(row - 8) for row in range(30)]
FLAT = [1.0] * 30
LOST = [2.0, 1.0, 0.2, 5.0, 6.0, 7.0]
OVERFITTING = "warning: overfitting? val_loss was best at epoch 9 and rises while loss falls"
PLATEAU = "warning: plateau: val_loss has not improved since epoch 1"


@pytest.mark.parametrize(
    ("events", "expected", "sentence"),
    [
        ([rows(loss=FALLING, val_loss=FALLING)], [], "healthy"),
        ([rows(loss=FALLING, val_loss=RISING)], [OVERFITTING], "the one that says more: it is flat too"),
        ([rows(loss=FALLING, val_loss=FLAT)], [PLATEAU], "flat"),
        (
            [rows(loss=[*FALLING[:10], *(FALLING[9] * 0.9995**row for row in range(20))])],
            ["warning: plateau: loss has improved by less than 1% since epoch 10"],
            "nearly flat",
        ),
        (
            [
                rows(
                    val_accuracy=[0.9 - value / 9 for value in RISING],
                    accuracy=[1 - value / 2 for value in FALLING],
                )
            ],
            ["warning: overfitting? val_accuracy was best at epoch 9 and worsens while accuracy improves"],
            "another metric",
        ),
        ([rows(d_loss=FLAT, g_loss=FLAT)], [], "parts of an adversarial loss are not judged"),
        ([rows(whatever=FLAT)], [], "nobody knows which way it should go"),
        (
            [rows(loss=FALLING, val_loss=FLAT), rows(first=30, loss=[0.1], val_loss=[0.5])],
            [],
            "it has passed",
        ),
        (
            [rows(loss=FALLING, val_loss=RISING), rows(loss=[2.0], val_loss=[2.0])],
            [],
            "in an earlier attempt",
        ),
        ([rows(loss=LOST)], ["error: loss diverging since epoch 4"], "diverging"),
        ([rows(loss=LOST), rows(first=6, loss=[0.1])], [], "it came back"),
        ([rows(loss=[*LOST, math.nan])], ["error: NaN loss at epoch 7"], "what it came to says more"),
        (
            [rows(loss=[2.0, *[math.nan] * 29], val_loss=FLAT)],
            ["error: NaN loss at epoch 2", PLATEAU],
            "both",
        ),
        ([rows(loss=LOST * 5, val_loss=FLAT)], ["error: loss diverging since epoch 28"], "worse than flat"),
        (
            [rows(loss=LOST), rows(loss=[2.0])],
            ["error: loss diverging since epoch 4"],
            "how an attempt ended",
        ),
        (
            [rows(loss=FALLING, val_loss=RISING), RunEnded(how="finished")],
            [OVERFITTING, "info: finished after epoch 30"],
            "the last weights are not the best",
        ),
        (
            [rows(loss=FALLING, val_loss=RISING), RunEnded(how="finished", restored=8)],
            ["info: finished after epoch 30"],
            "but the best are back",
        ),
        (
            [rows(loss=FALLING, val_loss=RISING), RunEnded(how="stopped", by=["EarlyStopping"])],
            ["info: stopped by EarlyStopping after epoch 30"],
            "somebody has seen to it",
        ),
        (
            [rows(loss=FALLING, val_loss=FLAT), RunEnded(how="finished")],
            ["info: finished after epoch 30"],
            "nothing is left to be done about a plateau",
        ),
    ],
)
def test_the_course_of_a_run(events: list[Event], expected: list[str], sentence: str) -> None:
    assert told(a_run(STARTED, *events), "no-learning-rate") == expected, sentence


def test_a_row_that_comes_again_is_judged_as_it_is() -> None:
    run = a_run(STARTED, rows(loss=LOST))
    assert told(run) == ["error: loss diverging since epoch 4"]
    fold(run, rows(first=5, loss=[0.1]))
    assert told(run) == []


def test_long_names_are_cut_in_a_sentence() -> None:
    name = "a" * 300
    run = a_run(STARTED, rows(**{name + "_loss": FALLING, "val_" + name + "_loss": RISING}))
    (alert,) = alerts(run)
    assert alert.kind == "overfitting"
    assert len(alert.message) < 150
    assert alert.subject == f"val_{name}_loss", "whole, for who looks it up"


def test_a_state_keeps_its_key_while_it_lasts() -> None:
    run, keys = a_run(STARTED, rows(loss=FALLING, val_loss=RISING)), set()
    for row in range(30, 60):
        fold(run, rows(first=row, loss=[0.05], val_loss=[2.0 + 0.05 * (row - 30)]))
        keys |= {alert.key for alert in alerts(run)}
    assert keys == {(1, "overfitting", "val_loss", 8)}


# --- how it goes, and how it ended ----------------------------------------------------------------------------


def asked(number: int, old: float | None, new: float | None, by: str = "ada@gpu1:7") -> ControlApplied:
    return ControlApplied(epoch=number - 1, command="lr", by=by, old=old, new=new)


ADA = ", asked for by ada@gpu1"


@pytest.mark.parametrize(
    ("events", "expected", "marks", "sentence"),
    [
        (
            [rows(rate=[0.1]), asked(2, 0.1, 0.05)],
            [f"info: learning rate 0.1 → 0.05 at epoch 2{ADA}"], [2], "at once, before its epoch ends",
        ),
        (
            [rows(rate=[0.1]), asked(2, 0.1, 0.05), rows(first=1, rate=[0.1, 0.05])],
            [f"info: learning rate 0.1 → 0.05 at epoch 2{ADA}"], [2], "an old record has it an epoch later",
        ),
        (
            [rows(rate=[0.1]), asked(2, 0.1, 0.05), rows(first=1, rate=[0.05, 0.05])],
            [f"info: learning rate 0.1 → 0.05 at epoch 2{ADA}"], [2], "a new one at the epoch itself",
        ),
        (
            [rows(rate=[0.1]), asked(2, 0.1, 0.05), rows(first=1, rate=[0.05000000074505806])],
            [f"info: learning rate 0.1 → 0.05 at epoch 2{ADA}"], [2], "rounded to float32",
        ),
        (
            [rows(rate=[0.1]), asked(2, 0.1, 0.05), rows(first=1, rate=[0.1, 0.005])],
            [f"info: learning rate 0.1 → 0.05 at epoch 2{ADA}", "info: learning rate 0.1 → 5e-3 at epoch 3"],
            [2, 3], "and a callback cut it again",
        ),
        (
            [rows(rate=[0.1]), asked(2, 0.1, 0.05), rows(first=1, rate=[0.05, 0.1, 0.05])],
            [
                f"info: learning rate 0.1 → 0.05 at epoch 2{ADA}",
                "info: learning rate 0.05 → 0.1 at epoch 3", "info: learning rate 0.1 → 0.05 at epoch 4",
            ],
            [2, 3, 4], "later the same value by another cause",
        ),
        (
            [rows(rate=[0.1]), asked(2, 0.1, 0.05), asked(2, 0.05, 0.02, "bob@x:1"), rows(first=1, rate=[0.02])],
            [
                f"info: learning rate 0.1 → 0.05 at epoch 2{ADA}",
                "info: learning rate 0.05 → 0.02 at epoch 2, asked for by bob@x",
            ],
            [2, 2], "two in one epoch are two events",
        ),
        (
            [rows(rate=[0.1]), ControlApplied(epoch=0, command="stop", by="ada@gpu1:7")],
            [f"info: stop after epoch 1{ADA}"], [], "a stop",
        ),
        (
            [rows(rate=[0.1]), *(ControlApplied(epoch=0, command=word) for word in ("stop_now", "save"))],
            ["info: stop within epoch 1"], [], "nobody known; a save shows in what was saved",
        ),
    ],
)  # fmt: skip
def test_a_learning_rate_that_was_asked_for_is_one_event_and_names_who(
    events: list[Event], expected: list[str], marks: list[int], sentence: str
) -> None:
    run = a_run(STARTED, *events)
    assert told(run) == expected, sentence
    assert sorted(mark.x for mark in chart_view(run).marks if mark.kind is MarkKind.LR) == marks, sentence
    assert len({alert.key for alert in alerts(run)}) == len(expected), "each can be told once"
    fold(run, RunEnded(how="finished"))
    assert told(run)[: len(expected)] == expected


def paced(*seconds: float, first: int = 0, at: float = 0.0) -> EpochsEnded:
    ends = [START + at + sum(seconds[: row + 1]) for row in range(len(seconds))]
    return EpochsEnded(
        epochs=list(range(first, first + len(seconds))),
        metrics={"acc_x": [1.0] * len(seconds)},
        times=ends,
        time=ends[-1],
    )


def looked(at: float, written: float | None = None) -> Tick:
    return Tick(time=START + at, written=None if written is None else START + written)


@pytest.mark.parametrize(
    ("seconds", "expected", "sentence"),
    [
        ([61.0] * 30, [], "as ever"),
        ([300.0, *[61.0] * 29], [], "the first one compiled"),
        ([61.0] * 15 + [118.0] * 15, ["warning: epochs take 2.0 min, were 61 s"], "twice as long"),
        ([61.0] * 15 + [80.0] * 15, [], "a third longer: others use the machine too"),
        ([0.1] * 15 + [0.5] * 15, [], "nobody waits for half a second"),
        ([61.0] * 15 + [118.0] * 15 + [61.0] * 15, [], "it has passed"),
        ([61.0] * 25 + [900.0], [], "one slow epoch is none"),
        ([61.0] * 5 + [118.0] * 5, [], "too few to say"),
    ],
)
def test_epochs_become_slower(seconds: list[float], expected: list[str], sentence: str) -> None:
    assert told(a_run(STARTED, paced(*seconds))) == expected, sentence
    assert SLOWER_FACTOR == 1.5


def at(seconds: float, now: float) -> str:
    return clock(START + seconds, START + now)


def within(number: int, *, at: float, step: int = 5, phase: str = "train") -> Progress:
    """A look into an epoch that came over the wire."""
    return Progress(
        time=START + at, epoch=number, step=step, steps=100, phase=phase, step_seconds=0.04, begun=START + at
    )


@pytest.mark.parametrize(
    ("events", "state", "expected", "sentence"),
    [
        ([STARTED, paced(60, 60), looked(240)], Status.RUNNING, [], "within its pace"),
        (
            [STARTED, paced(60, 60), Heartbeat(time=START + 370), looked(380)],
            Status.RUNNING,
            [f"warning: no step since {at(120, 380)}, epochs take 60 s: stuck?"],
            "the process lives and nothing happens",
        ),
        (
            [STARTED, paced(60, 60), Heartbeat(time=START + 350), looked(350)],
            Status.RUNNING,
            [],
            "not for long enough",
        ),
        (
            [STARTED, paced(600, 600), Heartbeat(time=START + 2000), looked(2000)],
            Status.RUNNING,
            [],
            "its epochs are long",
        ),
        (
            [STARTED, paced(60, 60), Progress(time=START + 370, epoch=2, step=5), looked(380)],
            Status.RUNNING,
            [],
            "a step has been made",
        ),
        (
            [STARTED, Heartbeat(time=START + 9000), looked(9001)],
            Status.RUNNING,
            [],
            "the first epoch may take any time",
        ),
        (
            [STARTED, paced(4, 4), within(2, at=12), Heartbeat(time=START + 40), looked(51)],
            Status.RUNNING,
            [],
            "ten epochs' worth are not over",
        ),
        (
            [STARTED, paced(4, 4), within(2, at=12), looked(53)],
            Status.RUNNING,
            [f"warning: no step since {at(12, 53)}, epochs take 4.0 s: stuck?"],
            "the sooner the faster it went",
        ),
        (
            [STARTED, paced(4, 4), within(2, at=12), looked(53), within(2, at=54), looked(54)],
            Status.RUNNING,
            [],
            "it goes on",
        ),
        ([STARTED, paced(4, 4), looked(150)], Status.RUNNING, [], "a checkpoint that takes minutes"),
        (
            [STARTED, paced(4, 4), within(2, at=12, step=100), looked(150)],
            Status.RUNNING,
            [],
            "and one before the Monitor hears of the epoch's end",
        ),
        (
            [STARTED, paced(4, 4), within(2, at=12, phase="validation", step=0), looked(150)],
            Status.RUNNING,
            [],
            "the first validation compiles",
        ),
        (
            [STARTED, paced(1, 1), within(2, at=2, step=0), Heartbeat(time=START + 33), looked(33)],
            Status.RUNNING,
            [],
            "what comes before the first step of an epoch is no step: data made anew",
        ),
        (
            [STARTED, within(0, at=2, step=0), Heartbeat(time=START + 3000), looked(3001)],
            Status.RUNNING,
            [],
            "as does the first step",
        ),
        (
            [STARTED, within(0, at=2), Heartbeat(time=START + 600), looked(603)],
            Status.RUNNING,
            [f"warning: no step since {at(2, 603)}: stuck?"],
            "in the first epoch: ten minutes without a step",
        ),
        (
            [STARTED, paced(60, 60), looked(120 + QUIET_RECORD_S + 1)],
            Status.QUIET,
            ["warning: no word from the training process after epoch 2"],
            "no heartbeat",
        ),
        ([paced(60, 60), looked(120 + QUIET_FACTOR * 60)], Status.GROWING, [], "a log at its pace"),
        ([paced(60, 60), looked(121 + QUIET_FACTOR * 60)], Status.QUIET, [], "an old log is no alarm"),
        ([paced(1, 1), looked(QUIET_LEAST_S)], Status.GROWING, [], "a short silence is none"),
        ([paced(5000, 5000), looked(11000)], Status.GROWING, [], "long epochs"),
        (
            [paced(60), looked(60, 60), paced(60, first=1, at=60), looked(120, 120), looked(700, 120)],
            Status.QUIET,
            [f"warning: no row since {at(120, 700)}, epochs took 60 s: finished, or stuck?"],
            "it was seen to grow",
        ),
    ],
)
def test_silence_and_standstill(
    events: list[Event], state: Status, expected: list[str], sentence: str
) -> None:
    run = a_run(*events)
    assert status(run) is state, sentence
    assert told(run, "no-learning-rate") == expected, sentence


@pytest.mark.parametrize(
    ("ended", "state", "expected"),
    [
        (RunEnded(how="finished"), Status.FINISHED, "info: finished after epoch 1"),
        (RunEnded(how="some day"), Status.FINISHED, "info: finished after epoch 1"),
        (RunEnded(how="stopped"), Status.STOPPED, "info: stopped by its own code after epoch 1"),
        (RunEnded(how="stopped", by=["A", "B"]), Status.STOPPED, "info: stopped by A and B after epoch 1"),
        (RunEnded(how="interrupted"), Status.INTERRUPTED, "info: interrupted after epoch 1"),
        (
            RunEnded(how="interrupted", error="KeyboardInterrupt"),
            Status.INTERRUPTED,
            "info: interrupted after epoch 1: KeyboardInterrupt",
        ),
        (RunEnded(how="failed"), Status.FAILED, "error: failed after epoch 1: no reason recorded"),
        (
            RunEnded(how="failed", error="ValueError: x"),
            Status.FAILED,
            "error: failed after epoch 1: ValueError: x",
        ),
        (
            Tick(time=1.0, process_gone=True),
            Status.CRASHED,
            "error: crashed after epoch 1: the training process is gone and wrote no end",
        ),
    ],
)
def test_how_a_run_ends(ended: Event, state: Status, expected: str) -> None:
    run = a_run(STARTED, ONE_EPOCH, ended)
    assert (status(run), told(run)) == (state, [expected])
    before_an_epoch = told(a_run(STARTED, ended))
    assert before_an_epoch == [expected.replace(" after epoch 1", "")]


@pytest.mark.parametrize(
    ("heard", "written", "sign", "sentence"),
    [
        (None, None, None, "nothing is known"),
        (None, 50.0, 50.0, "a row log without times"),
        (50.0, None, 50.0, "no look at the file yet"),
        (50.0, 40.0, 50.0, "the server's clock is behind"),
        (40.0, 50.0, 50.0, "later rows tell no time, or the training host's clock is behind"),
    ],
)
def test_of_a_row_log_the_later_of_its_time_and_the_files_is_the_last_sign(
    heard: float | None, written: float | None, sign: float | None, sentence: str
) -> None:
    run = Run()
    rows = EpochsEnded(time=heard, epochs=[0], metrics={"loss": [1.0]}, times=[heard])
    for event in (rows, Tick(time=60.0, written=written)):
        fold(run, event)
    assert last_sign(run) == sign, sentence
    if sign is not None:
        fold(run, Tick(time=sign + QUIET_LOG_S, written=written))
        assert status(run) is Status.GROWING
        fold(run, Tick(time=sign + QUIET_LOG_S + 1.0, written=written))
        assert status(run) is Status.QUIET


def test_a_record_has_a_heartbeat_so_a_copy_made_today_is_no_sign_of_life() -> None:
    run = Run()
    for event in (RunStarted(time=1.0, run_id="a"), Heartbeat(time=2.0), Tick(time=9e6, written=9e6)):
        fold(run, event)
    assert last_sign(run) == 2.0
    assert status(run) is Status.QUIET


def test_a_saved_checkpoint_is_a_mark_under_the_chart() -> None:
    run = Run()
    for event in (ONE_EPOCH, CheckpointSaved(epoch=0, path="m.keras")):
        fold(run, event)
    marks = [(mark.x, mark.kind) for mark in chart_view(run).marks]
    assert (1, MarkKind.CHECKPOINT) in marks


# --- laws -----------------------------------------------------------------------------------------------------


@given(event_lists)
def test_asking_after_every_event_is_asking_once(events: list[Event]) -> None:
    asked = Run()
    for event in events:
        fold(asked, event)
        alerts(asked)
        status(asked)
    once = a_run(*events)
    assert alerts(asked) == alerts(once) == alerts(copy.deepcopy(asked))
    assert asked.attempts == once.attempts, "what is kept between calls is no part of a run"


curves = st.lists(
    st.sampled_from([None, 0.0, 0.1, 0.5, 0.51, 1.0, 1.5, 30.0, 2e5, -3.0, math.nan, math.inf]) | values,
    min_size=1,
    max_size=50,
)


@given(curves, curves, st.integers(1, 5), st.booleans())
def test_rows_that_come_one_by_one_give_the_alerts_of_the_whole(
    loss: list[float | None], validation: list[float | None], step: int, is_record: bool
) -> None:
    count = min(len(loss), len(validation))
    grown = a_run(STARTED) if is_record else Run()
    whole = copy.deepcopy(grown)
    fold(whole, rows(loss=loss[:count], val_loss=validation[:count], rate=validation[:count]))
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        fold(grown, rows(first=start, loss=loss[part], val_loss=validation[part], rate=validation[part]))
        alerts(grown)
    assert alerts(grown) == alerts(whole)


@given(curves, curves, st.lists(st.tuples(st.integers(0, 49), st.sampled_from(["loss", "acc"])), max_size=3))
def test_what_happened_stays_told(
    loss: list[float | None], rate: list[float | None], notes: list[tuple[int, str]]
) -> None:
    """But changes of the learning rate that turn out to be a schedule: of those the first stays."""
    run, before = a_run(STARTED), set[tuple[int, str, str, int | None]]()
    for row in range(min(len(loss), len(rate))):
        fold(run, rows(first=row, loss=[loss[row]], rate=[rate[row]]))
        for epoch, metric in notes:
            if epoch == row:
                fold(run, NonFinite(epoch=epoch, metric=metric))
        found = [alert for alert in alerts(run) if alert.kind in ("nan", "learning-rate")]
        keys = {alert.key for alert in found}
        if not is_schedule(run.current, rate_changes(run.current)):
            assert keys >= before
        else:
            assert {key for key in keys if key[1] == "nan"} >= {key for key in before if key[1] == "nan"}
            assert sum(key[1] == "learning-rate" for key in keys) == 1
        before = keys


@given(event_lists)
def test_alerts_come_in_order_and_fit_a_line(events: list[Event]) -> None:
    run = a_run(*events)
    found = alerts(run)
    happened = [
        (alert.attempt, alert.epoch or 0) for alert in found if alert.kind in ("nan", "learning-rate")
    ]
    assert happened == sorted(happened)
    assert all(alert.message.isprintable() for alert in found)
    assert len({alert.key for alert in found}) == len(found), "each can be told once"
    assert headline_metric(run.current) in {None, *run.current.metrics}


# --- the samples ----------------------------------------------------------------------------------------------

SAMPLES = Path(__file__).parent.parent / "sample_logs"
SAID = {
    "continued": ["info no-learning-rate"],
    "early-stop": ["info stopped"],
    "healthy": ["info finished"],
    "killed": ["warning quiet"],
    "killed-csv": ["info no-learning-rate"],
    "nan": ["info learning-rate", "error nan", "error nan", "info stopped"],
    "no-validation": ["info no-learning-rate"],
    "overfitting": ["info no-learning-rate", "warning overfitting"],
    "plateau": [*["info learning-rate"] * 5, "warning plateau"],
    "resumed": ["info no-learning-rate"],
    "validation-freq-2": ["info no-learning-rate"],
}


@pytest.mark.parametrize("name", SAID)
def test_the_samples_are_told_what_their_names_say(name: str) -> None:
    (log,) = find([str(SAMPLES / name)]).logs
    run = Run()
    for event in read_whole(log, 2e9):
        fold(run, event)
    assert [f"{alert.severity.value} {alert.kind}" for alert in alerts(run)] == SAID[name]


def test_the_sample_that_becomes_nan_was_told_to_diverge_eleven_epochs_before() -> None:
    (log,) = find([str(SAMPLES / "nan")]).logs
    run, first = Run(), dict[str, int]()
    for event in read_whole(log, 2e9):
        fold(run, event)
        for alert in alerts(run):
            first.setdefault(alert.kind, len(run.current.epochs))
    assert (first["diverged"], first["nan"]) == (22, 32), "the second within the epoch"


def test_an_alert_is_what_it_was() -> None:
    alert = Alert(attempt=2, epoch=3, severity=Severity.INFO, kind="x", message="m", subject="s")
    assert alert.key == (2, "x", "s", 3)
