"""What the alerts say of a hundred published logs: each alarm is listed and defended here, and there is no other.

The second table is about every fit as it would have been watched, epoch by epoch: what was told and taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from cbmon.events import EpochsEnded
from cbmon.rules import Severity, alerts
from cbmon.run import Attempt, Run, fold
from tests.test_corpus import CORPUS, INDEX, Entry, entries, look, name

pytestmark = pytest.mark.skipif(
    not INDEX.is_file(), reason="the corpus of published logs is not beside the checkout (../shared/corpus)"
)

IRFANET = "keras_csv/AhmedImtiazPrio__irfanet-10__"
FACES = "keras_csv/kduy410__FaceRecognition__csv_logger-"
EEG = "keras_csv/Yeganehfrh__EEGModalNet__"
EXPERT = "keras_csv/HUST-NingKang-Lab__EXPERT__"

AT_THE_END = {
    # val_loss 4.2 at epoch 1, 5.5 at epoch 50; loss 4.9 → 1.7
    "keras_csv/AKBoles__Voice-Identification__speaker250_training.log": {"overfitting": 1},
    # val_loss .534 at epoch 8, then .57 to .60 for 13 epochs; loss falls, but validation does not go on rising
    f"{IRFANET}growing-4.log": {"plateau": 8},
    # val_loss .587 at epoch 8, 1.03 at epoch 29; loss 1.3 → .075
    f"{IRFANET}training_logs191017(3).log": {"overfitting": 8},
    # loss .0684 to .0683 for 461 of 1000 epochs
    "keras_csv/AmineEchraibi__BrainCNN__BrainCNN.log": {"plateau": 539},
    # loss 7.464 → 7.461 in 1000 epochs: it never learned
    "keras_csv/AmineEchraibi__BrainCNN__predict_age.log": {"plateau": 1},
    # both losses jump from 4 to 19 at epoch 90 and come back to 13 only: the best model is 582 epochs old
    f"{EXPERT}others-training-history-for-combined.csv": {"plateau": 52},
    # val_loss .254 at epoch 281, .279 at epoch 647; loss .19 → .03
    f"{EXPERT}training_history_by_csv_logger-99cols.csv": {"overfitting": 281},
    # val_loss .92 at epoch 1, 4.14 at epoch 130; loss 1e-7
    f"{EEG}models-classifier-transformer_16.09.2024.csv": {"overfitting": 1},
    # d_loss, g_loss and three more become NaN, 8 of 30 epochs before the end
    f"{EEG}logs-test_06.01.2025.csv": {"nan": 23},
    # val_loss .509 at epoch 13, .668 at epoch 29; loss .63 → .25
    "keras_csv/karray__pathology_gan__model_history_log.csv": {"overfitting": 13},
}
"""Kind, and the 1-based epoch since when."""

NINE_FITS = {
    (5, "plateau", 47),
    *((6, "plateau", epoch) for epoch in (13, 26, 56)),
    *((8, "plateau", epoch) for epoch in (1, 24, 81, 160)),
    *((9, "plateau", epoch) for epoch in (55, 107)),
}
ON_THE_WAY = {
    # at epoch 24 of a first fit as in growing-4
    f"{IRFANET}growing-5.log": {(1, "plateau", 8)},
    # val_loss .51 at epoch 4, 1.86 at epoch 133; then the user began anew, three times
    f"{IRFANET}training_logs221017.log": {(1, "overfitting", 4)},
    # once, at epoch 32: 12 epochs without 1 %
    f"{EXPERT}training_history_by_csv_logger-99cols.csv": {(1, "plateau", 20)},
    # before it rises val_loss stays at .51 to .53 for 19 epochs
    "keras_csv/karray__pathology_gan__model_history_log.csv": {(1, "plateau", 3)},
    # nine fits on one another: loss .52 ± .01, .48 ± .01, .45 ± .01, .41 ± .01; each wins 1 % in 30 to 70 epochs
    f"{FACES}v3-epochonlyrows.log": NINE_FITS,
    f"{FACES}v4-nofinalnewline.log": NINE_FITS,
}
"""(Attempt, kind, epoch since when) of what was told at some epoch and not at the end of the file."""

SAID_OF_ALL = {"no-learning-rate", "learning-rate"}


def told(run: Run) -> dict[str, int]:
    """What is said of the current attempt's course: kind and the 1-based epoch since when."""
    return {
        alert.kind: alert.epoch + 1
        for alert in alerts(run)
        if alert.kind not in SAID_OF_ALL and alert.epoch is not None
    }


@cache
def run_of(entry: Entry) -> Run:
    """What a file tells; an empty run if it is refused."""
    _, runs = look(entry.path)
    return runs[0] if runs else Run()


def test_every_entry_of_the_tables_is_in_the_index() -> None:
    known = {entry.file for entry in entries()}
    assert known >= AT_THE_END.keys() | ON_THE_WAY.keys()


@pytest.mark.parametrize("entry", entries(), ids=name)
def test_no_alarm_but_those_of_the_table(entry: Entry) -> None:
    run = run_of(entry)
    assert told(run) == AT_THE_END.get(entry.file, {})


@pytest.mark.parametrize("entry", entries(), ids=name)
def test_an_alarm_is_one_line(entry: Entry) -> None:
    run = run_of(entry)
    assert [alert.message for alert in alerts(run) if len(alert.message) > 78] == []


def as_watched(attempt: Attempt) -> Iterator[Run]:
    """The fit as it grew, epoch by epoch."""
    run = Run()
    for row, epoch in enumerate(attempt.epochs):
        batch = EpochsEnded(
            epochs=[epoch], metrics={name: [column[row]] for name, column in attempt.columns.items()}
        )
        fold(run, batch)
        yield run


@pytest.mark.parametrize("entry", entries(), ids=name)
def test_what_was_told_on_the_way_and_taken_back(entry: Entry) -> None:
    run = run_of(entry)
    on_the_way = set()
    for number, attempt in enumerate(run.attempts, 1):
        seen = {item for grown in as_watched(attempt) for item in told(grown).items()}
        on_the_way |= {(number, kind, epoch) for kind, epoch in seen}
    at_the_end = {(len(run.attempts), kind, epoch) for kind, epoch in AT_THE_END.get(entry.file, {}).items()}
    assert on_the_way - at_the_end == ON_THE_WAY.get(entry.file, set())
    assert on_the_way >= at_the_end, "rows that come one by one say the same"


@pytest.mark.parametrize("entry", entries(), ids=name)
def test_only_what_became_nan_needs_somebody(entry: Entry) -> None:
    run = run_of(entry)
    errors = {alert.kind for alert in alerts(run) if alert.severity is Severity.ERROR}
    assert errors == ({"nan"} if "nan" in AT_THE_END.get(entry.file, {}) else set())


def test_the_corpus_is_where_the_tables_say() -> None:
    assert (CORPUS / next(iter(AT_THE_END))).is_file()
