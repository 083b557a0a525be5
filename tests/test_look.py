"""The state of looking, without a screen: which run, marks, what opens and how Esc goes back."""

from pathlib import Path

import pytest

from cbmon.axes import Window
from cbmon.tui.look import MARKS_MAX, Look, Main

A, B, C = map(Path, "abc")
ZOOM = Window(10, 20, follows=False)


def looking(**state: object) -> Look:
    """A look at run A with everything opened, but for what is said."""
    everything: dict[str, object] = {
        "run": A, "epoch": 12, "window": ZOOM, "y_limits": (0.0, 1.0), "first_line": 3, "filter": "nan",
        "metric": "acc", "is_log": True, "order": "best", "is_full": True, "main": Main.ALERTS,
    }  # fmt: skip
    return Look(**{**everything, **state})  # type: ignore[arg-type]


def marked(*runs: Path) -> dict[Path, int]:
    return {run: place for place, run in enumerate(runs)}


# --- another run --------------------------------------------------------------------------------------------


def test_another_run_is_seen_whole_at_the_same_metric_on_an_axis_of_its_own() -> None:
    look = looking()
    look.choose(B)
    assert look == looking(run=B, epoch=None, window=None, y_limits=None, first_line=0)


def test_the_same_run_again_changes_nothing() -> None:
    look = looking()
    look.choose(A)
    assert look == looking()


def test_another_run_beside_a_chart_of_marked_ones_leaves_that_chart() -> None:
    look = looking(marks=marked(A, C))
    look.choose(B)
    assert look == looking(run=B, first_line=0, marks=marked(A, C))


# --- marks --------------------------------------------------------------------------------------------------


def after(*runs: Path, look: Look) -> dict[Path, int]:
    """The marks after Space on each of these runs."""
    for run in runs:
        look.choose(run)
        assert look.toggle_mark()
    return look.marks


@pytest.mark.parametrize(
    ("runs", "marks"),
    [
        ((A,), {A: 0}),
        ((A, A), {}),
        ((A, B, C), {A: 0, B: 1, C: 2}),
        ((A, B, C, B), {A: 0, C: 2}),
        ((A, B, C, A, B, A), {C: 2, A: 0}),
        ((A, B, A, C), {B: 1, C: 0}),
    ],
)
def test_a_marked_run_keeps_its_place_and_a_new_one_gets_the_first_free(
    runs: tuple[Path, ...], marks: dict[Path, int]
) -> None:
    assert after(*runs, look=Look()) == marks


def test_there_are_as_many_marks_as_colours_and_one_more_is_refused_until_one_is_free() -> None:
    look = Look()
    runs = [Path(f"run{number}") for number in range(MARKS_MAX)]
    assert sorted(after(*runs, look=look).values()) == list(range(MARKS_MAX))
    look.choose(A)
    assert not look.toggle_mark()
    assert A not in look.marks
    assert after(runs[3], A, look=look)[A] == 3


def test_a_mark_fits_the_y_axis_anew_and_without_a_run_there_is_nothing_to_mark() -> None:
    look = looking()
    assert look.toggle_mark()
    assert look == looking(y_limits=None, marks={A: 0})
    look = Look()
    assert look.toggle_mark()
    assert look == Look()


# --- what stands in the middle ------------------------------------------------------------------------------


@pytest.mark.parametrize("main", Main)
@pytest.mark.parametrize("before", Main)
def test_a_key_opens_a_page_from_any_other_at_its_top_and_closes_it_again(before: Main, main: Main) -> None:
    look = looking(main=before)
    look.toggle(main)
    assert look.main is (Main.CHART if before is main else main)
    assert look.first_line == 0


@pytest.mark.parametrize(
    ("main", "shows"),
    [(Main.CHART, True), (Main.EPOCHS, True), (Main.ALERTS, False), (Main.SUMMARY, False)],
)
def test_epochs_are_read_where_they_are_seen(main: Main, shows: bool) -> None:
    assert Look(main=main).shows_epochs is shows


# --- back ---------------------------------------------------------------------------------------------------


def test_back_goes_from_page_to_screen_to_reading_to_zoom_to_filter_and_never_drops_marks() -> None:
    look = looking(marks=marked(A))
    steps = [
        {"main": Main.CHART},
        {"is_full": False},
        {"epoch": None},
        {"window": None, "y_limits": None},
        {"filter": ""},
        {},
        {},
    ]
    expected: dict[str, object] = {"marks": marked(A)}
    for step in steps:
        look.back()
        expected |= step
        assert look == looking(**expected), step
    look.unmark()
    assert look.marks == {}


@pytest.mark.parametrize("main", [Main.EPOCHS, Main.ALERTS, Main.SUMMARY])
def test_back_from_any_page_is_the_chart(main: Main) -> None:
    look = Look(run=A, main=main)
    look.back()
    assert look == Look(run=A)


def test_back_keeps_the_run_its_metric_the_axis_and_the_order() -> None:
    look = looking()
    for _ in range(9):
        look.back()
    assert look == Look(run=A, metric="acc", is_log=True, order="best", first_line=3)
