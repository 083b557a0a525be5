"""What a record says beside its epochs becomes an alert or a mark."""

from __future__ import annotations

import pytest

from cbmon.chart import MarkKind
from cbmon.events import CheckpointSaved, EpochsEnded, Heartbeat, NonFinite, RunStarted, Tick
from cbmon.rules import QUIET_LOG_S, Severity, Status, alerts, last_sign, status
from cbmon.run import Run, fold
from cbmon.views import chart_view, is_unhealthy

ONE_EPOCH = EpochsEnded(epochs=[0], metrics={"loss": [1.0]})


@pytest.mark.parametrize(
    ("metric", "severity", "unhealthy"),
    [("loss", Severity.ERROR, True), ("grad_norm", Severity.WARNING, False)],
)
def test_a_number_that_breaks_within_an_epoch_is_told_before_the_epoch_ends(
    metric: str, severity: Severity, unhealthy: bool
) -> None:
    run = Run()
    for event in (ONE_EPOCH, NonFinite(epoch=1, step=7, metric=metric)):
        fold(run, event)
    (alert,) = alerts(run)
    assert (alert.epoch, alert.severity, alert.kind) == (1, severity, "nan")
    assert alert.message == f"NaN or infinite {metric} within epoch 2", "epochs are told from 1"
    assert is_unhealthy(run) is unhealthy


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
