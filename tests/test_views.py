"""What is said of a run: words and glyphs of each state, the metric it is judged by, its sentences."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.chart import MarkKind
from cbmon.events import (
    CallbackState,
    CallbackStates,
    CheckpointSaved,
    ControlApplied,
    EpochsEnded,
    Event,
    LearningRateChanged,
    Malformed,
    Process,
    Progress,
    RunEnded,
    RunStarted,
    Tick,
)
from cbmon.formats.sniff import Format
from cbmon.plots import chart_view, next_metric
from cbmon.rules import Severity, Status, alerts
from cbmon.run import Run, fold
from cbmon.sources import Log, Skipped
from cbmon.units import duration
from cbmon.views import (
    ORDERS,
    RunView,
    alert_lines,
    alert_sentence,
    ascii_only,
    best_runs,
    callback_sentence,
    epoch_sentence,
    epochs_view,
    facts_view,
    headline_metric,
    matches,
    metric_groups,
    needs_you_line,
    newest_first,
    ordered,
    run_view,
    show_table,
    state_sentence,
    strip_lines,
    summary_cells,
    unreadable_view,
)

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC."""
HOST = Process(host="gpu-box", pid=1)


@pytest.fixture(autouse=True, scope="module")
def in_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def a_log(name: str = "run4") -> Log:
    return Log(Path(name), name, Format.KERAS_CSV)


def a_run(*events: Event) -> Run:
    run = Run()
    for event in events:
        fold(run, event)
    return run


def started(epochs: int | None = 200) -> RunStarted:
    return RunStarted(run_id="r", epochs=epochs, process=HOST, time=NOON)


def ended(how: str, **more: object) -> RunEnded:
    return RunEnded(how=how, time=NOON + 600, **more)  # type: ignore[arg-type]


def epoch(
    number: int, *, rate: float | None = None, at: float | None = None, **metrics: float
) -> EpochsEnded:
    return EpochsEnded(
        epochs=[number - 1],
        metrics={name: [value] for name, value in metrics.items()},
        learning_rate=None if rate is None else [rate],
        time=at,
    )


def look(after_s: float, *, written_s: float | None = None, process_gone: bool = False) -> Tick:
    written = None if written_s is None else NOON + written_s
    return Tick(time=NOON + after_s, written=written, process_gone=process_gone)


TEN = epoch(10, loss=0.5, at=NOON)
STATES: dict[str, tuple[list[Event], Status, str, str, bool]] = {
    "a Monitor run that is alive": ([started(), TEN, look(10)], Status.RUNNING, "●", "running", False),
    "a record without an epoch": ([started(), look(10)], Status.RUNNING, "●", "running", False),
    "a log that grows": (
        [epoch(1, loss=1.0), look(9, written_s=0)], Status.GROWING, "◐", "growing", False,
    ),
    "a log at rest": (
        [epoch(1, loss=1.0), look(9000, written_s=0)], Status.QUIET, "◌", "quiet since 12:00", False,
    ),
    "a log at rest since another day": (
        [epoch(1, loss=1.0), look(86400, written_s=0)], Status.QUIET, "◌", "quiet since 15 Nov 12:00", False,
    ),
    "a Monitor run without a word": ([started(), TEN, look(999)], Status.QUIET, "◌", "quiet since 12:00", False),
    "finished": ([started(), TEN, ended("finished")], Status.FINISHED, "✓", "finished", False),
    "stopped": (
        [started(), TEN, ended("stopped", by=["EarlyStopping"])],
        Status.STOPPED, "■", "stopped by EarlyStopping", False,
    ),
    "stopped by two": (
        [started(), TEN, ended("stopped", by=["EarlyStopping", "Budget"])],
        Status.STOPPED, "■", "stopped by EarlyStopping and Budget", False,
    ),
    "stopped by somebody": (
        [started(), TEN, ended("stopped", by=["root@vm:29033"])],
        Status.STOPPED, "■", "stopped by root@vm", False,
    ),
    "a callback with a colon in its name": (
        [started(), TEN, ended("stopped", by=["Stop@home:x"])],
        Status.STOPPED, "■", "stopped by Stop@home:x", False,
    ),
    "stopped by code of its own": (
        [started(), TEN, ended("stopped")], Status.STOPPED, "■", "stopped early", False,
    ),
    "interrupted": ([started(), TEN, ended("interrupted")], Status.INTERRUPTED, "⏸", "interrupted", False),
    "failed": (
        [started(), TEN, ended("failed", error="ValueError: bad shape")],
        Status.FAILED, "✗", "failed after epoch 10: ValueError: bad shape", True,
    ),
    "crashed": (
        [started(), TEN, look(10, process_gone=True)],
        Status.CRASHED, "✗", "crashed after epoch 10: the training process is gone and wrote no end", True,
    ),
    "no epoch yet": ([look(1)], Status.EMPTY, "◌", "no epoch yet", False),
    "a NaN loss": (
        [epoch(1, loss=1.0), epoch(2, loss=math.nan), look(1, written_s=0)],
        Status.GROWING, "✗", "NaN loss, epoch 2", True,
    ),
    "an infinite loss": (
        [epoch(1, loss=math.inf), look(1, written_s=0)], Status.GROWING, "✗", "infinite loss, epoch 1", True,
    ),
    "a NaN before it finished": (
        [started(), epoch(1, loss=math.nan), ended("finished")],
        Status.FINISHED, "✗", "NaN loss, epoch 1", True,
    ),
    "a NaN metric that is no loss": (
        [epoch(1, loss=1.0, auc=math.nan), look(1, written_s=0)], Status.GROWING, "◐", "growing", False,
    ),
    "a NaN in an attempt that is over": (
        [epoch(2, loss=math.nan), epoch(1, loss=1.0), look(1, written_s=0)],
        Status.GROWING, "◐", "growing", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_each_state_has_its_glyph_and_its_words(case: str) -> None:
    events, status, glyph, word, needs_you = STATES[case]
    view = run_view(a_log(), a_run(*events))
    assert (view.status, view.glyph, view.word, view.needs_you) == (status, glyph, word, needs_you)


def test_a_log_that_cannot_be_read_any_more_needs_you_and_keeps_its_numbers() -> None:
    log = a_log()
    log.trouble = "permission denied"
    view = run_view(log, a_run(TEN))
    assert (view.glyph, view.word, view.needs_you) == ("✗", "cannot be read: permission denied", True)
    assert (view.epoch, view.last) == (10, 0.5)
    log.trouble = "\x1b[2J"
    assert run_view(log, a_run(TEN)).word == r"cannot be read: \x1b[2J"


@pytest.mark.parametrize(
    ("names", "headline"),
    [
        ([], None),
        (["loss", "val_loss", "accuracy"], "val_loss"),
        (["accuracy", "loss"], "loss"),
        (["train loss", "validation loss"], "validation loss"),
        (["train/loss", "val/loss"], "val/loss"),
        (["Loss", "val_Loss"], "val_Loss"),
        (["decoder_loss", "val_decoder_loss"], "val_decoder_loss"),
        (["decoder_loss", "val_accuracy"], "decoder_loss"),
        (["val_psnr", "whatever"], "val_psnr"),
        (["whatever", "foo"], "whatever"),
    ],
)
def test_a_run_is_judged_by_its_validation_loss_else_by_what_comes_nearest(
    names: list[str], headline: str | None
) -> None:
    assert headline_metric(a_run(epoch(1, **dict.fromkeys(names, 1.0))).current) == headline


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ([], []),
        (["val_loss", "accuracy", "loss"], [["loss", "val_loss"], ["accuracy"]]),
        (["train loss", "validation loss", "lr0"], [["train loss", "validation loss"], ["lr0"]]),
        (["train/acc", "val/acc", "val/loss"], [["val/loss"], ["train/acc", "val/acc"]]),
        (["b", "a", "val_a", "x_loss"], [["x_loss"], ["a", "val_a"], ["b"]]),
        (["val_only", "loss"], [["loss"], ["val_only"]]),
    ],
)
def test_train_and_validation_of_one_metric_are_drawn_together_and_the_headline_first(
    names: list[str], groups: list[list[str]]
) -> None:
    assert metric_groups(a_run(epoch(1, **dict.fromkeys(names, 1.0))).current) == groups


def test_a_column_without_a_single_value_is_no_metric() -> None:
    run = a_run(EpochsEnded(epochs=[0], metrics={"loss": [1.0], "val_loss": [None]}))
    assert (headline_metric(run.current), metric_groups(run.current)) == ("loss", [["loss"]])


def test_best_is_unknown_where_the_direction_is() -> None:
    view = run_view(a_log(), a_run(epoch(1, whatever=3.0), epoch(2, whatever=2.0)))
    assert (view.last, view.best, view.best_epoch) == (2.0, None, None)


def at_pace(*times_s: float, first: int = 1, planned: int | None = 10) -> Run:
    epochs = [epoch(first + row, loss=1.0, at=NOON + time_s) for row, time_s in enumerate(times_s)]
    return a_run(RunStarted(run_id="r", epochs=planned), *epochs)


@pytest.mark.parametrize(
    ("run", "done_s"),
    [
        (at_pace(60, 120, 180), 180 + 7 * 60),
        (at_pace(60, 120, 180, 1000), 1000 + 6 * 60),
        (at_pace(60, 120, first=9), 120),
        (at_pace(60), None),
        (at_pace(60, 120, planned=None), None),
        (a_run(epoch(1, loss=1.0), epoch(2, loss=1.0)), None),
    ],
    ids=["even", "one slow epoch does not count", "at the end", "one epoch", "no plan", "no times"],
)
def test_it_will_be_done_at_the_median_pace_of_its_latest_epochs(run: Run, done_s: float | None) -> None:
    assert run_view(a_log(), run).done_at == (None if done_s is None else NOON + done_s)


def test_an_end_that_has_passed_is_no_forecast() -> None:
    run = at_pace(60, 120)
    fold(run, look(120 + 8 * 60 + 1))
    assert run_view(a_log(), run).done_at is None


def test_a_run_that_has_ended_will_not_be_done() -> None:
    run = at_pace(60, 120)
    fold(run, ended("finished"))
    assert run_view(a_log(), run).done_at is None


def test_the_plan_of_the_command_line_is_for_logs_that_cannot_tell() -> None:
    assert run_view(a_log(), a_run(TEN), 50).epochs_text == "10/50"
    assert run_view(a_log(), a_run(started(20), TEN), 50).epochs_text == "10/20"
    assert run_view(a_log(), a_run(TEN)).epochs_text == "10"
    assert run_view(a_log(), a_run(look(1))).epochs_text == "–"
    assert run_view(a_log(), a_run(started(20))).epochs_text == "0/20"


# --- sentences ----------------------------------------------------------------------------------------------


def test_an_epoch_is_one_sentence_as_people_read_it() -> None:
    run = a_run(
        started(),
        *(
            epoch(number, loss=0.301, val_loss=value, rate=1e-4, at=NOON + 60 * number, accuracy=0.9)
            for number, value in ((37, 0.412), (38, 0.43), (41, 0.4188))
        ),
    )
    view = run_view(a_log(), run)
    assert epoch_sentence(view, run, NOON) == (
        "12:41 run4 epoch 41/200 loss .3010 val_loss .4188 (best .4120 at 37) lr 1e-4 done ≈ 15:20"
    )


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([epoch(22, loss=math.nan), look(0, written_s=0)], "12:00 run4 epoch 22 loss nan"),
        (
            [epoch(1, acc=0.5), epoch(2, acc=0.25), look(0, written_s=-86400)],
            "14 Nov 12:00 run4 epoch 2 acc .2500 (best .5000 at 1)",
        ),
        ([epoch(3), look(0)], "– run4 epoch 3"),
    ],
)
def test_an_epoch_sentence_leaves_out_what_is_not_known(events: list[Event], sentence: str) -> None:
    run = a_run(*events)
    assert epoch_sentence(run_view(a_log(), run), run, NOON) == sentence


def test_an_alert_is_one_sentence_with_its_severity() -> None:
    run = a_run(
        started(), epoch(20, loss=1.0, rate=1e-3, at=NOON), epoch(21, loss=math.nan, rate=1e-4, at=NOON + 60)
    )
    view = run_view(a_log("run3"), run)
    assert [alert_sentence(view, alert, NOON) for alert in alerts(run)] == [
        "12:01 run3 ERROR NaN loss at epoch 21",
        "12:01 run3 learning rate 1e-3 → 1e-4 at epoch 21",
    ]


def test_a_state_is_one_sentence() -> None:
    run = a_run(started(), TEN, ended("finished"))
    assert state_sentence(run_view(a_log("run2"), run), NOON) == "12:10 run2 finished"
    view = unreadable_view(Skipped(Path("run5.csv"), "permission denied"))
    assert state_sentence(view, NOON) == "– run5.csv ERROR cannot be read: permission denied"


def plain_view(name: str, since: float | None = None, needs_you: bool = False) -> RunView:
    return RunView(
        name=name, status=Status.GROWING, glyph="◐", word="growing", needs_you=needs_you, since=since
    )


def asked(command: str, number: int, **more: Any) -> ControlApplied:
    return ControlApplied(epoch=number - 1, command=command, by="ada@gpu1:7", time=NOON + 30, **more)


PACED = [epoch(number, loss=0.5, at=NOON - 4.0 * (10 - number)) for number in range(1, 11)]


def stepped(number: int, at: float, **more: Any) -> Progress:
    return Progress(
        epoch=number - 1, step=232, steps=300, time=NOON + at, begun=NOON, step_seconds=0.013,
        steps_per_second=74.0, metrics={"loss": 0.25}, **more,
    )  # fmt: skip


MINUTES = "12:00"


@pytest.mark.parametrize(
    ("events", "word", "strip", "forecasts", "sentence"),
    [
        (
            [stepped(11, 3), look(4)], "running",
            "epoch 11: step 232/300 · 74 steps/s · ≈ 919 ms left · loss .2500 · an epoch takes 4.0 s",
            True, "it goes on",
        ),
        (
            [stepped(11, 3), look(7)], f"no step since {MINUTES}",
            f"epoch 11: step 232/300 · no step since {MINUTES} · loss .2500 · an epoch takes 4.0 s · a step 13 ms",
            False, "neither speed nor what is left, nor when it is done",
        ),
        (
            [stepped(11, 3), look(44)], f"stuck since {MINUTES}?",
            f"epoch 11: step 232/300 · no step since {MINUTES} · loss .2500 · an epoch takes 4.0 s · a step 13 ms",
            False, "ten epochs' worth",
        ),
        (
            [stepped(11, 3), look(180)], f"stuck since {MINUTES}?",
            f"epoch 11: step 232/300 · no step since {MINUTES} · loss .2500 · an epoch takes 4.0 s · a step 13 ms",
            False, "and no more than before, so nothing is drawn",
        ),
        (
            [stepped(11, 3), look(180), stepped(11, 181), look(182)], "running",
            "epoch 11: step 232/300 · 74 steps/s · ≈ 919 ms left · loss .2500 · an epoch takes 4.0 s",
            True, "it goes on again",
        ),
    ],
)  # fmt: skip
def test_a_hung_training_does_not_look_healthy(
    events: list[Event], word: str, strip: str, forecasts: bool, sentence: str
) -> None:
    run = a_run(started(40), *PACED, *events)
    view = run_view(a_log(), run)
    assert (view.status, view.word, strip_lines(run)[0]) == (Status.RUNNING, word, strip), sentence
    assert (view.done_at is not None) is forecasts, sentence
    assert view.is_stuck is word.startswith("stuck")
    assert view.says is (word != "running")


def test_after_the_last_step_nothing_is_told_of_speed() -> None:
    saving = stepped(11, 3)
    saving = Progress(epoch=10, step=300, steps=300, time=saving.time, begun=NOON, steps_per_second=74.0)
    run = a_run(started(40), *PACED, saving, look(20))
    assert strip_lines(run)[0] == "epoch 11: step 300/300 · an epoch takes 4.0 s"
    assert run_view(a_log(), run).word == "running", "a checkpoint is saved"


def test_a_run_that_stands_still_is_the_same_view_at_every_look() -> None:
    run = a_run(started(40), *PACED, stepped(11, 3), look(50))
    first = run_view(a_log(), run)
    for at in (55, 90, 170):
        fold(run, look(at))
        assert run_view(a_log(), run) == first
    run = a_run(started(40), *PACED, look(3))
    first = run_view(a_log(), run)
    assert first.done_at == NOON + 30 * 4
    fold(run, look(6))
    assert run_view(a_log(), run) == first, "between epochs, too, nothing slides"


@pytest.mark.parametrize(
    ("events", "word", "done_s", "sentence"),
    [
        ([asked("stop", 11), stepped(11, 3)], "stops after epoch 11", 3 + 68 * 0.013, "asked for in this epoch"),
        ([stepped(11, 3), asked("stop_now", 11)], "stops within epoch 11", 3 + 68 * 0.013, "at once"),
        ([asked("stop", 10)], "stops after epoch 10", 0, "between epochs"),
        ([asked("stop", 9), stepped(11, 3)], "running", None, "the script went on all the same"),
        ([asked("lr", 11, old=0.1, new=0.01)], "running", None, "something else"),
        ([asked("stop", 11), epoch(11, loss=0.5, at=NOON + 4)], "stops after epoch 11", 4, "it ends"),
        ([asked("stop", 11), ended("stopped", by=["ada@gpu1:7"])], "stopped by ada@gpu1", None, "it has ended"),
    ],
)  # fmt: skip
def test_a_stop_that_was_asked_for_is_told_until_it_comes(
    events: list[Event], word: str, done_s: float | None, sentence: str
) -> None:
    run = a_run(started(40), *PACED, *events)
    view = run_view(a_log(), run)
    assert (view.word, view.says) == (word, word.startswith("stops")), sentence
    if done_s is not None:
        assert view.done_at == pytest.approx(NOON + done_s, rel=0, abs=0.01), sentence


@pytest.mark.parametrize(
    ("events", "rate", "sentence"),
    [
        ([], None, "not recorded"),
        ([epoch(1, rate=0.125)], 0.125, "the last recorded"),
        ([epoch(1, rate=0.125), asked("lr", 1, old=0.125, new=0.0625)], 0.0625, "changed after its epoch"),
        ([epoch(1, rate=0.125), asked("lr", 2, old=0.125, new=0.0625)], 0.0625, "changed in the next"),
        ([asked("lr", 1, old=0.125, new=0.0625), epoch(1, rate=0.125)], 0.0625, "an old record: as it began"),
        (
            [asked("lr", 1, old=0.125, new=0.0625), epoch(1, rate=0.125), epoch(2, rate=0.01)], 0.01,
            "a callback has set another one since",
        ),
        ([asked("lr", 1, old=0.5, new=0.25), asked("lr", 1, old=0.25, new=0.2)], 0.2, "twice"),
        ([epoch(1, rate=0.125), asked("lr", 1)], 0.125, "of several optimizers"),
        ([epoch(1, rate=0.125), stepped(2, 3, learning_rate=0.1)], 0.1, "the running epoch tells"),
        (
            [epoch(1, rate=0.125), asked("lr", 1, old=0.125, new=0.0625), stepped(2, 3, learning_rate=0.1)], 0.1,
            "a schedule has set it again",
        ),
        (
            [epoch(1, rate=0.125), stepped(2, 3, learning_rate=0.1), asked("lr", 2, old=0.1, new=0.05)], 0.05,
            "changed within the running epoch",
        ),
        ([epoch(1, rate=0.125), asked("save", 1)], 0.125, "something else"),
    ],
)  # fmt: skip
def test_the_learning_rate_shown_is_the_one_in_effect(
    events: list[Event], rate: float | None, sentence: str
) -> None:
    run = a_run(started(), *events)
    assert (run_view(a_log(), run).rate, chart_view(run).rate) == (rate, rate), sentence


def cut(steps: int | None, control: ControlApplied | None, end: bool = True, **seconds: float) -> Run:
    row = EpochsEnded(
        epochs=[22], metrics={"loss": [1.0]}, seconds={name: [took] for name, took in seconds.items()}
    )
    begin = RunStarted(run_id="r", epochs=40, steps=steps)
    return a_run(
        begin, epoch(22, loss=1.0), *filter(None, [control]), row, *([ended("stopped")] if end else [])
    )


@pytest.mark.parametrize(
    ("run", "is_part", "sentence"),
    [
        (cut(300, asked("stop_now", 23), epoch=2.0, step=0.01), True, "300 steps would have taken 3 s"),
        (cut(300, asked("stop_now", 23), epoch=3.5, step=0.01), False, "time for all: nobody can say"),
        (cut(300, asked("stop_now", 23), epoch=3.5, step=0.01, validation=1.5), True, "less its validation"),
        (cut(300, asked("stop_now", 23), epoch=2.0), False, "the record does not tell of steps"),
        (cut(None, asked("stop_now", 23), epoch=2.0, step=0.01), False, "nor of how many"),
        (cut(300, asked("stop", 23), epoch=2.0, step=0.01), False, "after its end"),
        (cut(300, asked("stop_now", 22), epoch=2.0, step=0.01), False, "another epoch"),
        (cut(300, None, epoch=2.0, step=0.01), False, "nobody asked"),
        (cut(300, asked("stop_now", 23), False, epoch=2.0, step=0.01), False, "it has not ended"),
    ],
)
def test_an_epoch_that_was_cut_short_is_marked_where_the_record_proves_it(
    run: Run, is_part: bool, sentence: str
) -> None:
    rows = [row[0] for row in epochs_view(run, 9).rows]
    assert rows == ["22", "part of 23" if is_part else "23"], sentence
    told = [alert.message for alert in alerts(run) if alert.kind == "stopped"]
    if run.current.ended:
        assert told == [f"stopped by its own code {'within' if is_part else 'after'} epoch 23"], sentence


def begins(name: str, begun: float | None, status: Status, since: float, **more: Any) -> RunView:
    return listed(name, begun=begun, status=status, since=since, **more)


def test_the_order_at_the_start_is_the_same_for_whoever_looks_whenever() -> None:
    on, off = Status.RUNNING, Status.FINISHED
    for since in ((5.0, 7.0, 6.0), (7.0, 6.0, 5.0)):
        found = [
            begins(name, at, on, last) for name, at, last in zip("abc", (1.0, 2.0, 3.0), since, strict=True)
        ]
        assert [view.name for view in newest_first(dict(enumerate(found))).values()] == ["c", "b", "a"]
    mixed = [
        begins("over", 9.0, off, 9.5),
        begins("long", 1.0, on, 9.0),
        begins("csv", None, Status.GROWING, 2.0),
        begins("NaN", 0.0, off, 0.0, needs_you=True),
        begins("before", 8.0, off, 9.9),
    ]
    assert [view.name for view in newest_first(dict(enumerate(mixed))).values()] == [
        "NaN", "csv", "long", "over", "before",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "begun"),
    [
        ([started(), epoch(1, at=NOON + 9)], NOON),
        ([epoch(1, at=NOON + 9), epoch(2, at=NOON + 18)], NOON + 9),
        ([epoch(1), look(5, written_s=5)], None),
        ([started(), epoch(1), RunStarted(run_id="r", time=NOON + 99)], NOON + 99),
        ([], None),
    ],
)
def test_a_run_began_when_it_says(events: list[Event], begun: float | None) -> None:
    assert run_view(a_log(), a_run(*events)).begun == begun


def test_the_latest_checkpoint_is_named_below_the_alerts() -> None:
    run = a_run(
        started(), epoch(1, loss=1.0), CheckpointSaved(epoch=0, path="m-1.keras"), Malformed(reason="x")
    )
    assert alert_lines(run) == [(Severity.INFO, "saved m-1.keras (epoch 1)"), (Severity.WARNING, "x")]


def test_facts_have_the_path_of_the_record() -> None:
    assert dict(facts_view(a_run(started()), a_log("logs/run4.jsonl")).info)["record"] == "logs/run4.jsonl"
    assert "record" not in dict(facts_view(a_run(started())).info)


def test_runs_are_listed_newest_first_and_by_name_where_that_is_the_same() -> None:
    views = [plain_view("b", 1.0), plain_view("never"), plain_view("a", 1.0), plain_view("new", 2.0)]
    assert [view.name for view in newest_first(dict(enumerate(views))).values()] == ["new", "a", "b", "never"]


@pytest.mark.parametrize(
    ("needing", "healthy", "line"),
    [
        ([], 0, "0 runs"),
        ([], 1, "1 run"),
        (["run3"], 3, "4 runs · 1 needs you: run3"),
        (["a", "b", "c"], 0, "3 runs · 3 need you: a, b, c"),
        (["a", "b", "c", "d"], 1000, "1,004 runs · 4 need you: a, b, c, …"),
    ],
)
def test_the_line_above_all_names_those_that_need_you(needing: list[str], healthy: int, line: str) -> None:
    views = [plain_view(name, needs_you=True) for name in needing] + [plain_view("x")] * healthy
    assert needs_you_line(views) == line
    assert needs_you_line(views, names=False) == line.partition(":")[0]


# --- the list: orders, filter, best -------------------------------------------------------------------------


def listed(name: str, **more: Any) -> RunView:
    facts = {"status": Status.GROWING, "glyph": "◐", "word": "growing", "needs_you": False}
    return RunView(name=name, **(facts | more))


def names_in(order: str, *views: RunView) -> list[str]:
    return [view.name for view in ordered(dict(enumerate(views)), order).values()]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["run10", "run2", "run1"], ["run1", "run2", "run10"]),
        (["b/run2", "a/run10", "A/run9"], ["A/run9", "a/run10", "b/run2"]),
        (["x1y10", "x1y9", "x1", "x", "1x", "10", "9"], ["1x", "9", "10", "x", "x1", "x1y9", "x1y10"]),
        (["run2", "run02", "run1"], ["run1", "run02", "run2"]),
        (["10", "²", "٣", ""], ["", "٣", "10", "²"]),
        (
            ["lr0.1", "lr0.01", "日本10", "lr0.001", "日本2"],
            ["lr0.001", "lr0.01", "lr0.1", "日本2", "日本10"],
        ),
    ],
    ids=["numbers", "case", "mixed", "the same number", "other digits", "powers of ten"],
)
def test_names_are_ordered_as_people_count(names: list[str], expected: list[str]) -> None:
    assert names_in("name", *map(listed, names)) == expected


def test_the_best_of_each_metric_come_first_and_what_has_none_last() -> None:
    views = [
        listed("worse", metric="val_loss", best=0.5),
        listed("no value"),
        listed("better", metric="val_loss", best=0.25),
        listed("accurate", metric="val_accuracy", best=0.9),
        listed("inaccurate", metric="val_accuracy", best=0.1),
        listed("zero", metric="val_loss", best=0.0),
        listed("NaN only", metric="val_loss", last=math.nan),
        listed("negative", metric="val_loss", best=-1.0),
    ]
    best = names_in("best", *views)
    assert best[:2] == ["accurate", "inaccurate"]
    assert best[2:6] == ["negative", "zero", "better", "worse"]
    assert sorted(best[6:]) == ["NaN only", "no value"]


def test_the_nearest_to_their_plan_come_first_then_the_longest() -> None:
    views = [
        listed("new"),
        listed("long", epoch=900),
        listed("half", epoch=50, planned=100),
        listed("done", epoch=10, planned=10),
        listed("begun", planned=10),
        listed("short", epoch=3),
        listed("half of more", epoch=100, planned=200),
    ]
    assert names_in("progress", *views) == ["done", "half of more", "half", "long", "short", "new", "begun"]


def test_newest_keeps_the_places() -> None:
    assert ORDERS[0] == "newest"
    assert names_in("newest", listed("b"), listed("a")) == ["b", "a"]


@given(
    st.lists(
        st.builds(
            listed,
            st.text(max_size=12),
            epoch=st.none() | st.integers(1, 2**53),
            planned=st.none() | st.integers(1, 2**53),
            metric=st.sampled_from([None, "loss", "acc", "x"]),
            best=st.none() | st.floats(),
        )
    ),
    st.sampled_from(ORDERS),
)
def test_every_order_keeps_every_run_and_is_the_same_a_second_time(views: list[RunView], order: str) -> None:
    runs = dict(enumerate(views))
    found = ordered(runs, order)
    assert sorted(found) == sorted(runs)
    if all(view.best is None or math.isfinite(view.best) for view in views):
        assert [*ordered(found, order)] == [*found]


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True), ("  ", True), ("run4", True), ("RUN4", True), ("un", True), ("run5", False),
        ("run4 nan", True), ("run4 finished", False), ("val_loss", True), ("growing", True), ("EPOCH", True),
        ("!run4", False), ("!finished", True), ("run !finished !crashed", True), ("run !nan", False), ("!", True),
        ("! run4", True), ("!!", True), ("ω", True), ("Ω", True), ("[", False), (".*", False),
    ],
)  # fmt: skip
def test_a_filter_wants_all_its_words_and_none_of_those_behind_an_exclamation_mark(
    text: str, passes: bool
) -> None:
    view = listed("lab/Run4-Ω", word="NaN loss, epoch 21", metric="val_loss")
    assert matches(view, text) is passes


def test_a_filter_finds_what_cannot_be_read() -> None:
    view = unreadable_view(Skipped(Path("x/run5.csv"), "permission denied"))
    assert matches(view, "run5 permission")
    assert not matches(view, "!denied")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([("val_loss", 0.5), ("val_loss", 0.25), ("val_loss", 0.3)], {1}),
        ([("acc", 0.5), ("acc", 0.9)], {1}),
        ([("loss", 0.25), ("loss", 0.5), ("loss", 0.25)], {0, 2}),
        ([("loss", 0.25)], set()),
        ([("loss", 0.25), ("loss", None)], set()),
        ([("loss", 0.0), ("loss", 0.1), ("acc", 0.0), ("acc", -0.1)], {0, 2}),
        ([("loss", 1.0), ("acc", 1.0), (None, 1.0)], set()),
        ([("whatever", 1.0), ("whatever", 2.0)], set()),
        ([("loss", math.nan), ("loss", 2.0), ("loss", 1.0)], {2}),
        ([("loss", 2.0), ("loss", math.nan), ("loss", math.inf)], set()),
        ([], set()),
    ],
    ids=[
        "lower", "higher", "ties", "alone", "nobody to beat", "zero, two metrics", "all alone", "no direction",
        "NaN", "one number", "none",
    ],
)  # fmt: skip
def test_the_best_run_of_each_metric_is_told_where_there_are_two(
    found: list[tuple[str | None, float | None]], expected: set[int]
) -> None:
    assert best_runs([listed("x", metric=metric, best=best) for metric, best in found]) == expected


def test_a_run_that_is_nan_from_the_first_epoch_is_no_best_and_hides_none() -> None:
    runs = [a_run(epoch(1, val_loss=value)) for value in (math.nan, 0.5, 0.25, math.inf)]
    assert best_runs([run_view(a_log(), run) for run in runs]) == {2}


# --- chart, facts, alerts, table ----------------------------------------------------------------------------


def test_the_chart_takes_the_metrics_in_turn_and_round_again() -> None:
    run = a_run(
        epoch(1, loss=2.0, val_loss=3.0, accuracy=0.5), epoch(2, loss=1.0, val_loss=4.0, accuracy=0.6)
    )
    assert [chart_view(run, metric).title for metric in (None, "accuracy", "gone")] == [
        "loss",
        "accuracy",
        "loss",
    ]
    assert [next_metric(run, None, by) for by in (-1, 0, 1, 2)] == ["accuracy", "loss", "accuracy", "loss"]
    curves = chart_view(run).curves
    assert [(curve.label, [*curve.y], curve.dashed) for curve in curves] == [
        ("train 1.000", [2.0, 1.0], False),
        ("val 4.000", [3.0, 4.0], True),
    ]
    assert [curves[0].at(number) for number in (0, 1, 2)] == [None, 2.0, 1.0]


def test_the_rail_marks_rate_changes_the_best_the_first_bad_value_and_the_stop() -> None:
    run = a_run(
        started(),
        epoch(1, loss=2.0, rate=0.1),
        epoch(2, loss=1.0, rate=0.1),
        epoch(3, loss=1.5, rate=0.01),
        epoch(4, loss=math.nan, rate=0.01),
        ended("stopped", by=["TerminateOnNaN"]),
    )
    assert sorted((mark.x, mark.kind.name) for mark in chart_view(run).marks) == [
        (2, "BEST"),
        (3, "LR"),
        (4, "BAD"),
        (4, "STOP"),
    ]


def test_a_schedule_is_not_marked_at_every_epoch() -> None:
    run = a_run(*(epoch(number, loss=1.0, rate=0.1 / number) for number in range(1, 20)))
    assert MarkKind.LR not in {mark.kind for mark in chart_view(run).marks}


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        ([1e-6, 1.0], True),
        ([0.01, 1.0], False),
        ([0.0, 1e9], False),
        ([math.nan], False),
        ([1.0, math.inf], False),
    ],
)
def test_the_chart_begins_with_a_log_axis_only_where_a_linear_one_would_show_nothing(
    values: list[float], is_log: bool
) -> None:
    run = a_run(*(epoch(number, loss=value) for number, value in enumerate(values, 1)))
    assert chart_view(run).spans_decades is is_log


def test_facts_name_the_metrics_the_plan_and_the_attempt() -> None:
    run = a_run(
        epoch(1, loss=9.0),
        RunStarted(
            run_id="r", epochs=20, steps=38, keras="3.15.1", backend="jax", optimizer="Adam", process=HOST
        ),
        epoch(1, loss=2.0, whatever=1.0),
    )
    view = facts_view(run)
    assert view.metrics == (("loss", 2.0, (2.0, 1)), ("whatever", 1.0, None))
    assert dict(view.info) == {
        "plan": "20 epochs of 38 steps",
        "optimizer": "Adam",
        "Keras": "3.15.1 on jax",
        "host": "gpu-box",
        "attempt": "2 of 2",
    }


def test_facts_tell_the_model_what_took_how_long_the_callbacks_and_the_users_own_words() -> None:
    run = a_run(
        RunStarted(
            run_id="r", epochs=1, steps=1, model="sequential", parameters=1_234_567, optimizer="MultiOptimizer",
            keras="3.15.1", backend="tensorflow", process=HOST, devices=["GPU: H100", "GPU: H100"],
            command=["train.py", "--name", "two words"], config={"batch size": 32, "layers": [64, 64]},
        ),
        EpochsEnded(
            epochs=[0, 1],
            metrics={"loss": [2.0, 1.0]},
            learning_rates={"adam": [1e-3, 1e-4], "sgd": [0.1, None]},
            seconds={
                "epoch": [70.0, 61.0],
                "step": [0.0042, None],
                "first_step": [8.0, None],
                "validation": [9.0, None],
                "tea": [9.0, 9.0],
            },
        ),
        CheckpointSaved(epoch=0, path="a.keras"),
        CheckpointSaved(epoch=1, path="b.keras"),
        CallbackStates(epoch=1, states=[CallbackState(name="EarlyStopping", monitor="loss", wait=0, patience=5.0)]),
        ended("stopped", restored=1),
    )  # fmt: skip
    assert [*facts_view(run).info] == [
        ("plan", "1 epoch of 1 step"),
        ("model", "sequential · 1,234,567 parameters"),
        ("optimizer", "MultiOptimizer"),
        ("Keras", "3.15.1 on tensorflow"),
        ("host", "gpu-box · GPU: H100 · GPU: H100"),
        ("epoch", "takes 61 s · validation 9.0 s"),
        ("step", "takes 4.2 ms · the first one 8.0 s"),
        ("lr", "adam 1e-4"),
        ("lr", "sgd 0.1"),
        ("EarlyStopping", "loss · wait 0/5"),
        ("saved", "b.keras (epoch 2)"),
        ("restored", "weights of epoch 2"),
        ("config batch size", "32"),
        ("config layers", "[64, 64]"),
        ("command", "train.py --name 'two words'"),
    ]


def test_facts_that_a_record_does_not_tell_are_a_dash_or_left_out() -> None:
    assert dict(facts_view(a_run(RunStarted(run_id="r"))).info) == {
        "plan": "–", "optimizer": "–", "Keras": "–", "host": "–",
    }  # fmt: skip
    assert facts_view(a_run(TEN)).info == ()
    assert dict(facts_view(a_run(RunStarted(run_id="r", parameters=0))).info)["model"] == "0 parameters"


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (
            {"monitor": "val_loss", "wait": 3, "patience": 5.0, "best": 0.412, "best_epoch": 36},
            "val_loss · wait 3/5 · best .4120 ★37",
        ),
        ({"monitor": "loss", "wait": 3, "patience": 2.5}, "loss · wait 3/2.5"),
        ({"monitor": "loss", "wait": 0, "cooldown": 2}, "loss · wait 0 · cooldown 2"),
        ({"monitor": "loss", "wait": 0, "cooldown": 0, "best": math.nan}, "loss · wait 0 · best nan"),
        ({"wait": 1}, "wait 1"),
        ({}, ""),
    ],
)
def test_a_callback_says_where_it_stands(state: dict[str, Any], sentence: str) -> None:
    assert callback_sentence(CallbackState(name="x", **state)) == sentence


STATE = CallbackState(name="EarlyStopping", monitor="loss", wait=1, patience=3.0, best=0.5, best_epoch=8)


def test_the_strip_tells_the_running_epoch_the_callbacks_and_those_followed_beside_them() -> None:
    run = a_run(
        started(),
        *(epoch(number, loss=0.5, at=NOON + 60 * number) for number in (9, 10)),
        CallbackStates(epoch=9, states=[STATE]),
        Progress(epoch=10, step=1200, steps=5000, phase="validation", step_seconds=0.0042),
        look(610),
    )
    call, refused = "EarlyStopping(patience=3)", "Keras raises ValueError: no"
    assert strip_lines(run, [(call, STATE, "", []), ("Bad()", STATE, refused, [])], NOON) == [
        "epoch 11: step 1,200/5,000 of validation · an epoch takes 60 s · a step 4.2 ms",
        "EarlyStopping loss · wait 1/3 · best .5000 ★9 · stops ≈ epoch 12 (12:12)",
        f"{call}: loss · wait 1/3 · stops ≈ epoch 12 (12:12) · best .5000 ★9",
        "Bad(): Keras raises ValueError: no",
    ]


@pytest.mark.parametrize(
    ("name", "fired", "told"),
    [
        ("EarlyStopping", [6, 8], "would have stopped after epoch 7"),
        ("ReduceLROnPlateau", [6], "would have cut after epoch 7 · loss · wait 1/3 · best .5000 ★9"),
        ("ReduceLROnPlateau", [1, 3, 5], "would have cut after epochs 2, 4, 6 · loss · wait 1/3 · best .5000 ★9"),
        (
            "ReduceLROnPlateau", [1, 3, 5, 6, 8],
            "would have cut after epochs 2, 4, 6 and 2 more · loss · wait 1/3 · best .5000 ★9",
        ),
    ],
)  # fmt: skip
def test_what_a_followed_policy_would_have_done_comes_first(name: str, fired: list[int], told: str) -> None:
    run = a_run(started(), *(epoch(number, loss=0.5, at=NOON + 60 * number) for number in (9, 10)), look(610))
    state = CallbackState(name=name, monitor="loss", wait=1, patience=3.0, best=0.5, best_epoch=8)
    assert strip_lines(run, [("x", state, "", fired)], NOON)[-1] == f"x: {told}"


def test_of_a_run_that_has_ended_only_those_beside_it_are_told() -> None:
    run = a_run(started(), TEN, CallbackStates(epoch=9, states=[STATE]), ended("finished"))
    assert strip_lines(run) == []
    assert strip_lines(run, [("x", STATE, "", [])], NOON) == ["x: loss · wait 1/3 · best .5000 ★9"]


def a_table() -> Run:
    return a_run(
        EpochsEnded(
            epochs=[0, 1, 2, 5, 6],
            metrics={"val_loss": [None, 3.0, math.nan, 1.0, 0.5], "acc": [0.1] * 5, "loss": [2.0] * 5},
            learning_rate=[0.1, 0.1, None, 0.01, 0.01],
            learning_rates={"sgd": [1.0] * 5},
            seconds={"epoch": [61.0, 0.34, None, 1e-4, 7.0], "step": [1.0] * 5},
        )
    )


def test_the_epochs_as_a_table_have_a_column_for_all_that_is_known() -> None:
    view = epochs_view(a_table(), 9)
    assert view.names == ("epoch", "loss", "val_loss", "acc", "lr", "lr sgd", "took")
    assert view.rows == (
        ("1", "2.000", "–", ".1000", "0.1", "1", "61 s"),
        ("2", "2.000", "3.000", ".1000", "0.1", "1", "340 ms"),
        ("3", "2.000", "nan", ".1000", "–", "1", "–"),
        ("6", "2.000", "1.000", ".1000", "0.01", "1", "100 µs"),
        ("7", "2.000", ".5000", ".1000", "0.01", "1", "7.0 s"),
    )
    assert (view.cursor, view.above, view.below) == (None, 0, 0)


@pytest.mark.parametrize(
    ("count", "at", "shown", "cursor", "below"),
    [
        (2, None, ["6", "7"], None, 0),
        (3, 1, ["1", "2", "3"], 0, 2),
        (3, 3, ["2", "3", "6"], 1, 1),
        (3, 7, ["3", "6", "7"], 2, 0),
        (3, 4, ["3", "6", "7"], 1, 0),
        (3, 99, ["3", "6", "7"], 2, 0),
        (3, -7, ["1", "2", "3"], 0, 2),
        (1, 3, ["3"], 0, 2),
        (0, None, [], None, 0),
    ],
)
def test_the_table_shows_the_last_epochs_or_those_around_the_one_that_is_read(
    count: int, at: int | None, shown: list[str], cursor: int | None, below: int
) -> None:
    view = epochs_view(a_table(), count, at)
    assert [row[0] for row in view.rows] == shown
    assert (view.cursor, view.below) == (cursor, below)
    assert view.above + len(shown) + view.below == 5


def test_a_table_of_no_epochs_has_its_heading() -> None:
    for run in (a_run(), a_run(started())):
        view = epochs_view(run, 5, 3)
        assert (view.names, view.rows, view.cursor, view.above, view.below) == (("epoch",), (), None, 0, 0)
    assert epochs_view(a_table(), -1, 2).rows == ()


def test_the_summary_has_the_metric_in_its_heading_where_it_is_one_for_all() -> None:
    same = [listed("a", metric="val_loss", best=0.5, best_epoch=3, last=0.75), listed("b")]
    assert summary_cells(same, NOON) == [
        ("run", "state", "epoch", "val_loss best", "last", "lr", "since"),
        ("a", "◐ growing", "–", ".5000 ★3", ".7500", "–", "–"),
        ("b", "◐ growing", "–", "–", "–", "–", "–"),
    ]
    mixed = [*same, listed("c", metric="sparse_categorical_accuracy")]
    assert [row[3] for row in summary_cells(mixed, NOON)] == [
        "best", "val_loss .5000 ★3", "–", "sparse_categorical_accuracy –",
    ]  # fmt: skip
    assert [row[3] for row in summary_cells(mixed, NOON, 8)][1:] == ["val_loss .5000 ★3", "–", "sparse_… –"]
    assert summary_cells(same, NOON, 6)[0][3] == "val_l… best"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (math.nan, "–"), (math.inf, "–"), (-math.inf, "–"), (0, "0 s"), (-0.0, "0 s"),
        (340e-6, "340 µs"), (0.0042, "4.2 ms"), (12.0, "12 s"), (210.0, "3.5 min"), (27_000.0, "7.5 h"),
        (181_440.0, "2.1 d"), (9.94, "9.9 s"), (9.96, "10 s"), (59.96, "60 s"), (99.4, "99 s"), (99.6, "1.7 min"),
        (0.9994, "999 ms"), (0.9996, "1.0 s"), (0.9994e-3, "999 µs"), (0.9996e-3, "1.0 ms"), (2e-6, "2.0 µs"),
        (99.4 * 60, "99 min"), (99.6 * 60, "1.7 h"), (47.9 * 3600, "48 h"), (48 * 3600.0, "2.0 d"),
        (-5.0, "-5.0 s"), (-340e-6, "-340 µs"), (365 * 86400.0, "365 d"), (1e300, "1.16e295 d"), (5e-324, "0.0 µs"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_its_natural_unit(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats())
def test_a_duration_is_short_whatever_it_is(seconds: float) -> None:
    assert len(duration(seconds)) <= 11


def test_alert_lines_have_errors_first_then_the_newest_then_what_was_left_out() -> None:
    run = a_run(
        epoch(1, loss=1.0, rate=0.1),
        epoch(2, loss=math.nan, rate=0.1),
        epoch(3, loss=1.0, rate=0.01),
        epoch(4, loss=1.0, rate=0.001),
        Malformed(line=7, reason="left out, 3 cells"),
    )
    assert alert_lines(run) == [
        (Severity.ERROR, "NaN loss at epoch 2"),
        (Severity.INFO, "learning rate 0.01 → 1e-3 at epoch 4"),
        (Severity.INFO, "learning rate 0.1 → 0.01 at epoch 3"),
        (Severity.WARNING, "line 7: left out, 3 cells"),
    ]


def test_the_table_stands_in_columns_also_with_wide_names_and_in_ascii() -> None:
    views = [
        RunView(
            name=name, status=Status.FINISHED, glyph="✓", word="finished", needs_you=False, epoch=9,
            metric="loss", last=0.5, best=0.25, best_epoch=7, rate=1e-3, since=NOON,
        )
        for name in ("日本", "run4")
    ]  # fmt: skip
    assert show_table(views, [], NOON) == [
        "run   state       epoch  loss best   last    lr  since",
        "日本  ✓ finished      9   .2500 ★7  .5000  1e-3  12:00",
        "run4  ✓ finished      9   .2500 ★7  .5000  1e-3  12:00",
        "2 runs.",
    ]
    skipped = [Skipped(Path("notes.txt"), "prose", looks_like_log=False)]
    assert show_table(views, skipped, NOON, ascii=True)[1:] == [
        "????  + finished      9   .2500 *7  .5000  1e-3  12:00",
        "run4  + finished      9   .2500 *7  .5000  1e-3  12:00",
        "2 runs. 1 file here is no training log (--skipped lists it).",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoch 3", "epoch 3"),
        ("4 runs · 1 needs you: a, …", "4 runs - 1 needs you: a, ~"),
        ("▸● .4120 ★37 ≈ – →", ">* .4120 *37 ~ - >"),
        ("é 日本 e\u0301", "e ???? e"),
        ("Ａ", "AA"),
    ],
)
def test_ascii_takes_as_many_columns_as_what_it_stands_for(text: str, expected: str) -> None:
    assert ascii_only(text) == expected


def test_text_from_outside_is_escaped_wherever_a_view_carries_it() -> None:
    evil = "\x1b]0;owned\x07\u202e\x9b31m"
    run = a_run(
        RunStarted(run_id="r", optimizer=evil, keras=evil, process=Process(host=evil, pid=1)),
        EpochsEnded(epochs=[0, 1], metrics={f"{evil}loss": [math.nan, math.nan]}),
        ended("failed", error=evil),
        Malformed(line=1, reason=f"left out: {evil}"),
    )
    view = run_view(Log(Path("x"), evil, Format.KERAS_CSV), run)
    shown = [
        *strings(view),
        *strings(facts_view(run)),
        chart_view(run).title,
        *(text for _, text in alert_lines(run)),
        *strings(unreadable_view(Skipped(Path(evil), evil))),
        epoch_sentence(view, run, NOON),
        *(alert_sentence(view, alert, NOON) for alert in alerts(run)),
    ]
    assert sum("owned" in text for text in shown) > 10
    assert not [text for text in shown if set(text) & set("\x1b\x07\u202e\x9b")]


def strings(value: object) -> Iterator[str]:
    """All text within a view value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from strings(item)
    elif isinstance(value, msgspec.Struct):
        yield from strings(msgspec.structs.astuple(value))


GONE = Tick(time=NOON, missing_since=NOON - 60.0)


@pytest.mark.parametrize(
    "events",
    [
        [epoch(1, loss=1.0)],
        [epoch(1, loss=math.nan)],
        [started(), epoch(1, loss=1.0), ended("failed", error="ValueError: x")],
        [started(), epoch(1, loss=1.0), ended("finished")],
        [],
    ],
)
def test_a_deleted_log_is_gone_since_when_and_needs_nobody(events: list[Event]) -> None:
    run, log = a_run(*events, GONE), a_log()
    log.trouble = "no such file or directory"
    view = run_view(log, run)
    assert (view.status, view.glyph, view.word) == (Status.GONE, "∅", "gone since 11:59")
    assert not view.needs_you
    assert view.epoch == (1 if events else None), "its data stay"
    assert "the file is gone since 11:59: deleted or moved away" in [alert.message for alert in alerts(run)]
    fold(run, Tick(time=NOON))
    assert run_view(a_log(), run).status is not Status.GONE


def test_how_a_run_ended_stays_told_when_its_file_is_gone() -> None:
    run = a_run(started(), epoch(1, loss=1.0), ended("finished"), GONE)
    assert [(alert.kind, alert.severity) for alert in alerts(run)] == [
        ("finished", Severity.INFO),
        ("gone", Severity.INFO),
    ]


@pytest.mark.parametrize(
    ("events", "text", "sentence"),
    [
        ([started(120)], "0/120", "nothing came before: it begins"),
        ([started(120), Progress(epoch=0, step=1)], "0/120", "it is in its first epoch"),
        (
            [started(120), Progress(epoch=40, step=1)],
            "40/120",
            "a resumed fit in a new file says where it is",
        ),
        ([started(120), epoch(1, loss=1.0), started(120)], "–/120", "resumed or anew: nobody knows yet"),
        ([started(120), epoch(1, loss=1.0), started(120), Progress(epoch=1, step=1)], "1/120", "resumed"),
        ([started(120), epoch(1, loss=1.0), started(120), Progress(epoch=0, step=1)], "0/120", "anew"),
        ([started(120), started(120)], "0/120", "the first attempt came to nothing"),
        ([started(120), epoch(1, loss=1.0), started(None)], "–", "no plan"),
    ],
)
def test_a_resumed_run_does_not_stand_at_0(events: list[Event], text: str, sentence: str) -> None:
    assert run_view(a_log(), a_run(*events)).epochs_text == text, sentence


def test_a_path_that_is_awaited_is_no_trouble() -> None:
    missing = Skipped(Path("runs"), "no such file or directory", is_missing=True)
    view = unreadable_view(missing, is_awaited=True)
    assert (view.needs_you, view.word) == (False, "no such path yet, waiting for it (a typo?)")
    assert unreadable_view(missing).needs_you, "show waits for nothing"
    assert unreadable_view(Skipped(Path("x"), "permission denied"), is_awaited=True).needs_you


def test_more_checkpoints_than_are_marked_are_counted() -> None:
    saves = [CheckpointSaved(epoch=number, path=f"m-{number}.keras") for number in range(1500)]
    changes = [LearningRateChanged(epoch=number, new=0.1) for number in range(1500)]
    run = a_run(started(), epoch(1, loss=1.0), *saves[:1])
    assert ("saved", "m-0.keras (epoch 1)") in facts_view(run).info
    for event in [*saves[1:], *changes]:
        fold(run, event)
    assert ("saved", "m-1499.keras (epoch 1500) · 1,500 in all, the latest 1,000 marked") in facts_view(
        run
    ).info
    view = chart_view(run)
    assert sum(mark.kind is MarkKind.CHECKPOINT for mark in view.marks) == 1000, (
        "not pushed out by other notes"
    )
    assert view.notes[501] == ("saved m-500.keras", "500 earlier checkpoints not marked")
