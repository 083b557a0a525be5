"""What is said of a run: words and glyphs of each state, the metric it is judged by, its sentences."""

import math
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pytest

from cbmon.chart import MarkKind
from cbmon.events import EpochsEnded, Event, Malformed, Process, RunEnded, RunStarted, Tick
from cbmon.formats.sniff import Format
from cbmon.rules import Severity, Status, alerts
from cbmon.run import Run, fold
from cbmon.sources import Log, Skipped
from cbmon.views import (
    FactsView,
    RunView,
    alert_lines,
    alert_sentence,
    ascii_only,
    chart_view,
    epoch_sentence,
    facts_view,
    headline_metric,
    metric_groups,
    needs_you_line,
    newest_first,
    run_view,
    show_table,
    state_sentence,
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
        "12:41 run4 epoch 41/200 loss .3010 val_loss .4188 (best .4120 at 37) lr 1e-4 done ≈ 17:59"
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


# --- chart, facts, alerts, table ----------------------------------------------------------------------------


def test_the_chart_takes_the_metrics_in_turn_and_round_again() -> None:
    run = a_run(
        epoch(1, loss=2.0, val_loss=3.0, accuracy=0.5), epoch(2, loss=1.0, val_loss=4.0, accuracy=0.6)
    )
    titles = [chart_view(run, group).title for group in (-1, 0, 1, 2)]
    assert titles == ["accuracy", "loss", "accuracy", "loss"]
    curves = chart_view(run).curves
    assert [(curve.label, [*curve.y], curve.dashed) for curve in curves] == [
        ("train 1.000", [2.0, 1.0], False),
        ("val 4.000", [3.0, 4.0], True),
    ]
    assert [*curves[0].x] == [1, 2]


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
    elif isinstance(value, RunView | FactsView):
        yield from strings(astuple(value))
