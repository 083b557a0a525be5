"""What a record says beside its epochs becomes an alert or a mark."""

from __future__ import annotations

import pytest

from cbmon.chart import MarkKind
from cbmon.events import CheckpointSaved, EpochsEnded, NonFinite
from cbmon.rules import Severity, alerts
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


def test_a_saved_checkpoint_is_a_mark_under_the_chart() -> None:
    run = Run()
    for event in (ONE_EPOCH, CheckpointSaved(epoch=0, path="m.keras")):
        fold(run, event)
    marks = [(mark.x, mark.kind) for mark in chart_view(run).marks]
    assert (1, MarkKind.CHECKPOINT) in marks
