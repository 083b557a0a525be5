"""What a chart shows of a run or of several, what is read at an epoch, and where the jumps go."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cbmon import frame
from cbmon.chart import Curve, Mark, MarkKind
from cbmon.events import (
    CallbackState,
    CallbackStates,
    CheckpointSaved,
    EpochsEnded,
    Event,
    NonFinite,
    Process,
    RunEnded,
    RunStarted,
)
from cbmon.formats.sniff import Format
from cbmon.plots import (
    EARLIER_MAX,
    GREY,
    ChartView,
    chart_view,
    nearest,
    next_mark,
    next_metric,
    other_views,
    overlay_view,
    reading,
    row_at,
    x_limits,
)
from cbmon.run import Run, fold
from cbmon.series import base_name
from cbmon.sources import Log
from cbmon.units import cells, display_epoch, short
from cbmon.views import RunView, alert_lines, epochs_view, facts_view, metric_groups, run_view, strip_lines
from tests.test_fold_laws import event_lists

NAN, INF = math.nan, math.inf
EVIL = "\x1b]0;owned\x07\u202e\x9b31m\n[bold]"


def a_run(*events: Event) -> Run:
    run = Run()
    for event in events:
        fold(run, event)
    return run


def rows(
    *values: float | None,
    first: int = 1,
    rates: Sequence[float | None] | None = None,
    **more: Sequence[float | None],
) -> EpochsEnded:
    """A batch of `loss` and other metrics from the 1-based epoch `first` on."""
    return EpochsEnded(
        epochs=[*range(first - 1, first - 1 + len(values))],
        metrics={"loss": values, **more},
        learning_rate=rates,
    )


def started(epochs: int | None = None, run_id: str = "r") -> RunStarted:
    return RunStarted(run_id=run_id, epochs=epochs)


def drawn(view: ChartView) -> dict[str, list[float | None]]:
    """The curves' values by name."""
    return {name: list(curve.y) for name, curve in zip(view.names, view.curves, strict=True)}


def spans(view: ChartView) -> dict[str, tuple[float, float]]:
    """First and last epoch of each curve, as shown."""
    found = zip(view.names, view.curves, strict=True)
    return {name: (each.x[0] + each.x_offset, each.x[-1] + each.x_offset) for name, each in found}


def marks(view: ChartView) -> list[tuple[float, str]]:
    return sorted((mark.x, mark.kind.name) for mark in view.marks)


def strings(value: object) -> Iterator[str]:
    """All text within a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings([*value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)
    elif isinstance(value, msgspec.Struct):
        yield from strings(msgspec.structs.astuple(value))


def is_harmless(text: str) -> bool:
    """Whether text is as `printable` leaves it."""
    return text.isprintable()


# --- one run ------------------------------------------------------------------------------------------------


def test_training_and_validation_of_a_metric_are_drawn_together() -> None:
    view = chart_view(a_run(rows(2.0, 1.0, val_loss=[3.0, None], acc=[0.1, 0.2], rates=[0.1, 0.01])))
    assert (view.title, drawn(view)) == ("loss", {"train": [2.0, 1.0], "val": [3.0, None]})
    assert [curve.label for curve in view.curves] == ["train 1.000", "val 3.000"]
    assert [curve.dashed for curve in view.curves] == [False, True]
    assert (view.first, view.last, view.planned, view.rate) == (1, 2, None, 0.01)
    assert view.rates is not None
    assert [view.rates.at(epoch) for epoch in (0, 1, 2, 3)] == [None, 0.1, 0.01, None]
    assert chart_view(a_run(rows(1.0))).rates is None


def test_the_plan_of_the_record_goes_before_that_of_the_command_line() -> None:
    assert chart_view(a_run(started(20), rows(1.0)), planned=50).planned == 20
    assert chart_view(a_run(rows(1.0)), planned=50).planned == 50
    assert x_limits(chart_view(a_run(started(20), rows(1.0)))) == (1, 20)


def test_a_run_without_epochs_is_an_empty_chart() -> None:
    for run in (a_run(), a_run(started(9))):
        view = chart_view(run)
        assert (view.title, view.curves, view.marks, view.first, view.last) == ("", (), (), 1, 1)
        assert (reading(view, 1), next_mark(view, None, 1), nearest(view, 7)) == ([], None, 1)
        assert (other_views(run, None, 3), next_metric(run, None, 1)) == ([], None)


def test_an_earlier_attempt_stands_grey_behind_and_the_seam_is_marked() -> None:
    view = chart_view(a_run(started(), rows(2.0, 1.0, 0.5), started(), rows(1.9, 0.9)))
    assert drawn(view) == {"train of attempt 1": [2.0, 1.0, 0.5], "train": [1.9, 0.9]}
    assert [curve.number for curve in view.curves] == [GREY, 0], "drawn first is drawn behind"
    assert view.title == "loss · attempt 2 of 2"
    assert (1, "RESTART") in marks(view)
    assert (view.first, view.last) == (1, 3)


def test_a_run_that_went_on_at_a_later_epoch_is_drawn_in_both_parts() -> None:
    view = chart_view(a_run(started(9), rows(4.0, 3.0, 2.0), started(9), rows(1.0, 0.5, first=4)))
    assert spans(view) == {"train of attempt 1": (1, 3), "train": (4, 5)}
    assert (4, "RESTART") in marks(view)
    assert (view.first, view.last, x_limits(view)) == (1, 5, (1, 9))
    assert [reading(view, epoch) for epoch in (3, 4)] == [
        [("train of attempt 1", "2.000"), ("train", "–")],
        [("train of attempt 1", "–"), ("train", "1.000")],
    ]


def test_epochs_that_fall_back_begin_an_attempt_too() -> None:
    view = chart_view(a_run(rows(4.0, 3.0, 2.0), rows(1.0, 0.5, first=2)))
    assert spans(view) == {"train of attempt 1": (1, 3), "train": (2, 3)}
    assert (2, "RESTART") in marks(view)


def test_an_attempt_without_epochs_yet_shows_what_was_before() -> None:
    run = a_run(started(), rows(2.0, 1.0, val_loss=[3.0, 2.0], acc=[0.1, 0.2]), started(30))
    view = chart_view(run)
    assert drawn(view) == {"train of attempt 1": [2.0, 1.0], "val of attempt 1": [3.0, 2.0]}
    assert (view.title, view.planned) == ("loss · attempt 2 of 2", 30)
    assert view.marks == ()
    assert chart_view(run, "acc").title == "acc · attempt 2 of 2"


def test_of_many_attempts_the_latest_are_drawn() -> None:
    view = chart_view(a_run(*(rows(float(number), 1.0) for number in range(EARLIER_MAX + 3))))
    assert [*drawn(view)] == [*(f"train of attempt {at}" for at in range(3, EARLIER_MAX + 3)), "train"]
    assert view.title == f"loss · attempt {EARLIER_MAX + 3} of {EARLIER_MAX + 3}"


def test_an_attempt_without_this_metric_is_left_out() -> None:
    view = chart_view(a_run(rows(2.0, 1.0), EpochsEnded(epochs=[0], metrics={"acc": [0.5]})))
    assert drawn(view) == {"train": [0.5]}


@pytest.mark.parametrize(
    ("attempts", "is_log"),
    [([[1e-6, 1.0]], True), ([[0.5, 1.0]], False), ([[1.0, 1e30], [0.5, 0.4]], True), ([[0.0, 1e9]], False)],
    ids=["decades", "none", "decades of an earlier attempt, drawn behind", "zero has no logarithm"],
)
def test_what_is_drawn_tells_whether_the_chart_begins_with_a_log_axis(
    attempts: list[list[float]], is_log: bool
) -> None:
    assert chart_view(a_run(*(rows(*values) for values in attempts))).spans_decades is is_log


def test_notes_say_in_words_what_the_rail_marks() -> None:
    run = a_run(
        rows(2.0, NAN),
        started(),
        rows(2.0, 1.0, NAN, rates=[0.1, 0.01, 0.01]),
        CheckpointSaved(epoch=1, path="best.keras"),
    )
    view = chart_view(run, fired={"EarlyStopping(patience=1)": [2], "ReduceLROnPlateau()": [1, 2]})
    assert dict(view.notes) == {
        1: ("attempt 2 began; the one before wrote no end",),
        2: (
            "learning rate 0.1 → 0.01 at epoch 2",
            "saved best.keras",
            "best loss 1.000",
            "ReduceLROnPlateau() would act here",
        ),
        3: (
            "NaN loss at epoch 3",
            "EarlyStopping(patience=1) would act here",
            "ReduceLROnPlateau() would act here",
        ),
    }  # fmt: skip
    assert marks(view) == [
        (1, "RESTART"),
        *((2, kind) for kind in ("BEST", "CHECKPOINT", "LR", "SHADOW")),
        *((3, kind) for kind in ("BAD", "SHADOW", "SHADOW")),
    ]


def test_the_best_that_is_noted_is_that_of_the_star_on_the_rail() -> None:
    view = chart_view(a_run(rows(3.0, 2.0, 1.0, val_loss=[0.5, 0.75, 0.875])))
    assert dict(view.notes) == {1: ("best val_loss .5000",)}
    assert marks(view) == [(1, "BEST")]


def test_rows_of_the_table_are_gone_through_one_by_one_within_the_run() -> None:
    run = a_run(EpochsEnded(epochs=[0, 9, 30], metrics={"loss": [1.0, 2.0, 3.0]}))
    assert row_at(a_run(), None, 1) is None
    steps = [
        (None, -1, 10),
        (None, 1, 31),
        (31, -1, 10),
        (10, 1, 31),
        (31, -99, 1),
        (1, 99, 31),
        (99, -1, 10),
    ]
    assert [row_at(run, epoch, by) for epoch, by, _ in steps] == [wanted for _, _, wanted in steps]


def test_the_other_metrics_come_in_the_order_in_which_they_are_stepped_through() -> None:
    run = a_run(rows(2.0, 1.0, val_acc=[0.3, 0.4], acc=[0.1, 0.2], mae=[3.0, 2.0]))
    order = [base_name(group[0]) for group in metric_groups(run.current)]
    assert order == ["loss", "acc", "mae"]
    for metric, others in ((None, ["acc", "mae"]), ("acc", ["mae", "loss"]), ("mae", ["loss", "acc"])):
        assert [view.title for view in other_views(run, metric, 9)] == others
        assert [view.title for view in other_views(run, metric, 1)] == others[:1]
        assert next_metric(run, metric, 1) == others[0]
        assert next_metric(run, metric, -1) == others[-1]
    assert drawn(other_views(run, None, 1)[0]) == {"train": [0.1, 0.2], "val": [0.3, 0.4]}
    assert next_metric(run, "gone", 1) == "acc"


# --- several runs -------------------------------------------------------------------------------------------


def marked(run: Run, name: str, mark: int, planned: int | None = None) -> tuple[RunView, Run]:
    from msgspec.structs import replace

    log = Log(Path(name), name, Format.KERAS_CSV)
    return replace(run_view(log, run, planned), mark=mark), run


VALIDATED = a_run(rows(2.0, 1.0, 0.5, val_loss=[2.5, 1.5, 1.0], acc=[0.1, 0.2, 0.3]))
PLAIN = a_run(rows(1e-9, 1.0, first=4))
WITHOUT = a_run(EpochsEnded(epochs=[0, 1], metrics={"psnr": [30.0, 31.0]}))


def test_marked_runs_are_drawn_together_by_validation_where_they_have_it() -> None:
    view = overlay_view([marked(VALIDATED, "run1", 2), marked(PLAIN, "run2", 0)])
    assert drawn(view) == {"c run1": [2.5, 1.5, 1.0], "a run2": [1e-9, 1.0]}
    assert [(curve.letter, curve.number, curve.dashed) for curve in view.curves] == [
        ("c", 2, False),
        ("a", 0, False),
    ]
    assert (view.title, view.letters, view.first, view.last) == ("loss of 2 marked runs", True, 1, 5)
    assert reading(view, 2) == [("c run1", "1.500"), ("a run2", "–")]


def test_a_run_without_the_metric_is_skipped_and_not_counted() -> None:
    both = [marked(WITHOUT, "run1", 0), marked(VALIDATED, "run2", 1)]
    assert [*drawn(overlay_view(both, "loss"))] == ["b run2"]
    assert [*drawn(overlay_view(both))] == ["a run1"], "the first run's own metric, where none was asked for"
    assert overlay_view(both, "acc").title == "acc of 1 marked run"
    nothing = overlay_view(both, "gone")
    assert (nothing.title, nothing.curves) == ("gone of 0 marked runs", ())
    assert nearest(nothing, 5) == 1
    assert overlay_view([marked(a_run(), "new", 0)]).curves == ()


def test_a_run_keeps_its_colour_and_letter_when_another_is_unmarked() -> None:
    before = overlay_view([marked(VALIDATED, "run1", 0), marked(PLAIN, "run2", 1)]).curves[1]
    after = overlay_view([marked(PLAIN, "run2", 1)]).curves[0]
    assert (before.number, before.letter) == (after.number, after.letter) == (1, "b")


def test_the_longest_plan_is_the_end_of_the_axis_and_not_of_the_data() -> None:
    view = overlay_view([marked(VALIDATED, "run1", 0, 200), marked(PLAIN, "run2", 1, 20)])
    assert (view.last, view.planned, x_limits(view)) == (5, 200, (1, 200))
    assert overlay_view([marked(VALIDATED, "run1", 0)], planned=50).planned == 50
    assert x_limits(overlay_view([marked(VALIDATED, "run1", 0)])) == (1, 10)


def test_only_what_is_drawn_makes_an_overlay_logarithmic() -> None:
    run = a_run(rows(1e-9, 1.0, val_loss=[2.0, 1.0]))
    assert not overlay_view([marked(run, "run1", 0)]).spans_decades
    assert overlay_view([marked(PLAIN, "run1", 0)]).spans_decades


def test_a_metric_with_a_hostile_name_is_drawn_in_an_overlay_too() -> None:
    run = a_run(EpochsEnded(epochs=[0], metrics={f"{EVIL}psnr": [1.0]}))
    view = overlay_view([marked(run, EVIL, 0)])
    assert len(view.curves) == 1
    assert all(map(is_harmless, strings(view)))


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (1, [("train", "2.000"), ("val", "–"), ("lr", "0.1")]),
        (2, [("train", "nan"), ("val", "inf"), ("lr", "–")]),
        (5, [("train", ".1235"), ("val", "1.23e-5"), ("lr", "2.5e-4")]),
        (3, [("train", "–"), ("val", "–"), ("lr", "–")]),
        (0, [("train", "–"), ("val", "–"), ("lr", "–")]),
        (6, [("train", "–"), ("val", "–"), ("lr", "–")]),
    ],
    ids=["a gap", "not finite", "behind missing epochs", "no such epoch", "before", "after"],
)
def test_what_is_read_is_the_value_of_exactly_this_epoch(epoch: int, expected: list[tuple[str, str]]) -> None:
    run = a_run(
        EpochsEnded(
            epochs=[0, 1, 4],
            metrics={"loss": [2.0, NAN, 0.12345], "val_loss": [None, INF, 1.23e-5]},
            learning_rate=[0.1, None, 2.5e-4],
        )
    )
    assert reading(chart_view(run), epoch) == expected


@given(event_lists)
def test_every_epoch_is_read_as_its_row_has_it(events: list[Event]) -> None:
    run = a_run(*events)
    attempt = run.current
    for group in metric_groups(attempt):
        view = chart_view(run, base_name(group[0]))
        for row, epoch in enumerate(attempt.epochs):
            read = [value for name, value in reading(view, display_epoch(epoch)) if " of attempt" not in name]
            assert read[: len(group)] == [short(attempt.metrics[name][row]) for name in group]


@pytest.mark.parametrize(
    ("epoch", "by", "expected"),
    [
        (1, 0, 1), (2, 0, 2), (3, 0, 2), (9, 0, 10), (6, 0, 2), (99, 0, 11), (-5, 0, 1), (5.9, 0, 2), (6.1, 0, 10),
        (3, 1, 10), (9, -1, 2), (12, 1, 11), (0, -1, 1), (5, 5, 10), (10, 1, 10),
    ],
)  # fmt: skip
def test_the_nearest_epoch_is_one_that_has_a_row_ahead_if_one_moves(
    epoch: float, by: int, expected: int
) -> None:
    view = chart_view(a_run(rows(1.0, 2.0), rows(3.0, 4.0, first=10)))
    assert nearest(view, epoch, by) == expected


def test_stepping_goes_through_the_epochs_of_all_that_is_drawn() -> None:
    view = overlay_view([marked(VALIDATED, "run1", 0), marked(PLAIN, "run2", 1)])
    there, epoch = [], 1
    for _ in range(6):
        there.append(epoch)
        epoch = nearest(view, epoch + 1, 1)
    assert there == [1, 2, 3, 4, 5, 5]


def test_a_row_that_went_away_under_the_chart_does_no_harm() -> None:
    run = a_run(rows(1.0, 2.0, 3.0))
    view = chart_view(run)
    run.current.drop_last()
    assert (nearest(view, 3), reading(view, 3)) == (2, [("train", "–")])


MARKED = st.lists(st.builds(Mark, st.integers(-5, 30) | st.floats(), st.sampled_from(MarkKind)), max_size=12)


@given(MARKED, st.integers(1, 10), st.integers(0, 15))
def test_the_jumps_visit_each_epoch_with_an_event_once_in_both_directions(
    found: list[Mark], first: int, more: int
) -> None:
    view = ChartView(title="", curves=(), names=(), marks=tuple(found), first=first, last=first + more)
    places = sorted({int(mark.x) for mark in found if first <= mark.x <= first + more})
    for by, start, expected in ((1, first - 1, places), (-1, first + more + 1, places[::-1])):
        visited: list[int] = []
        at: int | None = start
        while (at := next_mark(view, at, by)) is not None:
            visited.append(at)
            assert len(visited) <= len(places)
        assert visited == expected
    assert next_mark(view, None, 1) == next_mark(view, None, -1) == (places[-1] if places else None)


# --- whatever was folded ------------------------------------------------------------------------------------


def all_views(run: Run, metric: str | None, epoch: int | None) -> list[object]:
    """Everything that can be shown of a run."""
    view = run_view(Log(Path("x"), EVIL, Format.KERAS_CSV), run)
    chart = chart_view(run, metric, fired={EVIL: [0, 3, 99]})
    pair = marked(run, EVIL, 9)
    followed = CallbackState(name=EVIL, monitor=EVIL)
    at = nearest(chart, epoch or 0, 1)
    return [
        view, chart, other_views(run, metric, 3), overlay_view([pair, pair], metric, epoch), pair[0],
        reading(chart, at), facts_view(run), epochs_view(run, 5, epoch), epochs_view(run, -1, epoch),
        strip_lines(run, [(EVIL, followed, EVIL, []), (EVIL, followed, "", [0, 9, 9, 9])]), alert_lines(run),
        next_metric(run, metric, 1) and "", next_mark(chart, epoch, 1), x_limits(chart),
    ]  # fmt: skip


@settings(deadline=None)
@given(
    event_lists,
    st.sampled_from([None, "loss", "acc", "gone", "[b]x[/b]\x1b[2J"]),
    st.none() | st.integers(-3, 12),
    st.tuples(st.integers(0, 240), st.integers(0, 60)),
    st.booleans(),
)
@example([started(), rows(1.0, 2.0), started()], None, None, (80, 24), False)
def test_nothing_raises_and_no_control_byte_passes_whatever_was_folded(
    events: list[Event], metric: str | None, epoch: int | None, size: tuple[int, int], ascii: bool
) -> None:
    run = a_run(*events)
    shown = all_views(run, metric, epoch)
    assert not [text for text in strings(shown) if not is_harmless(text)]
    width, height = size
    chart = shown[1]
    assert isinstance(chart, ChartView)
    others = other_views(run, metric, 3)
    drawing, _ = frame.curves(chart, "run", width, height, epoch=epoch, others=others, ascii=ascii)
    assert len(drawing) == height
    assert {cells("".join(text for text, _ in row)) for row in drawing} <= {width}
    assert not ascii or frame.text(drawing).isascii()


def test_text_from_outside_is_escaped_wherever_a_chart_carries_it() -> None:
    process = Process(host=EVIL, pid=1)
    run = a_run(
        RunStarted(
            run_id="r", model=EVIL, optimizer=EVIL, keras=EVIL, backend=EVIL, devices=[EVIL], process=process,
            config={EVIL: {EVIL: [EVIL]}}, command=[EVIL],
        ),
        EpochsEnded(
            epochs=[0, 1],
            metrics={f"{EVIL}loss": [1.0, NAN], f"val_{EVIL}": [1.0, INF]},
            learning_rate=[0.1, 0.2],
            learning_rates={EVIL: [0.1, 0.2]},
            not_numbers=[EVIL],
        ),
        CheckpointSaved(epoch=0, path=EVIL),
        NonFinite(epoch=1, metric=EVIL),
        CallbackStates(epoch=1, states=[CallbackState(name=EVIL, monitor=EVIL, wait=1)]),
        RunEnded(how="stopped", by=[EVIL], error=EVIL),
    )  # fmt: skip
    found: list[Any] = []
    for metric in (None, EVIL, f"{EVIL}loss"):
        found += strings(all_views(run, metric, 1))
    assert sum("owned" in text for text in found) > 40
    assert [text for text in found if not is_harmless(text)] == []
    evil = Curve(label="x", x=[1], y=[1.0])
    assert [*strings(ChartView(title="t", curves=(evil,), names=("n",)))] == ["t", "x", "", "n"]
