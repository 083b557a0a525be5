"""The screen as rows: literal tables at the sizes people have, and the shape of every row at all sizes."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cbmon import frame
from cbmon.chart import CURVE_ROLES, Curve, Mark, MarkKind, Role, Row
from cbmon.plots import GREY, ChartView
from cbmon.rules import Severity, Status
from cbmon.units import cells, printable
from cbmon.views import GLYPHS, NEEDS_YOU, EpochsView, FactsView, RunView

NOON = 1_700_049_600.0
"""2023-11-15 12:00 UTC."""
ERROR = (Severity.ERROR, "NaN loss at epoch 21")
NEWS = (Severity.INFO, "learning rate 1e-3 → 1e-4 at epoch 32")


@pytest.fixture(autouse=True, scope="module")
def in_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def a_run(name: str, status: Status | None = Status.GROWING, **more: Any) -> RunView:
    facts = {"status": status, "glyph": GLYPHS[status] if status else NEEDS_YOU, "needs_you": status is None}
    if status:
        facts["word"] = status.value
    return RunView(name=name, **(facts | more))


RUNNING = a_run(
    "run4",
    Status.RUNNING,
    epoch=41,
    planned=200,
    metric="val_loss",
    last=0.4188,
    best=0.412,
    best_epoch=37,
    since=NOON,
    done_at=NOON + 9000,
)
NAN = a_run(
    "run3",
    glyph=NEEDS_YOU,
    word="NaN loss, epoch 21",
    needs_you=True,
    epoch=22,
    metric="val_loss",
    best=0.912,
    best_epoch=14,
    since=NOON - 600,
)
FINISHED = a_run(
    "run2", Status.FINISHED, epoch=200, metric="val_loss", best=0.01234, best_epoch=188, since=NOON - 7200
)
STOPPED = a_run(
    "run1",
    Status.STOPPED,
    word="stopped by EarlyStopping",
    epoch=61,
    metric="psnr_of_nobody_knows_what",
    last=31.2,
    since=NOON - 86400,
)
UNREADABLE = a_run("private/training.log", None, word="cannot be read: permission denied")
FOUR = (RUNNING, NAN, FINISHED, STOPPED)

FALLING = ChartView(
    title="loss",
    curves=(
        Curve(label="train .3010", x=[1, 2, 3, 4], y=[2.3, 1.1, 0.6, 0.301]),
        Curve(label="val .4188", x=[1, 2, 3, 4], y=[2.4, 1.3, None, 0.4188], dashed=True),
    ),
    marks=(Mark(3, MarkKind.LR), Mark(4, MarkKind.BEST)),
    names=("train", "val"),
    rates=Curve(label="lr", x=[1, 2, 3, 4], y=[1e-3, 1e-3, 1e-4, 1e-4], steps=True),
    rate=1e-4,
    first=1,
    last=4,
)
NOTHING = ChartView(title="", curves=(), names=())


def texts(rows: tuple[Row, ...]) -> list[str]:
    """The rows as text; the shape is checked on the way."""
    lines = ["".join(text for text, _ in row) for row in rows]
    assert len({cells(line) for line in lines}) <= 1
    return [line.rstrip() for line in lines]


def roles(row: Row) -> dict[str, Role]:
    return {text.strip(): role for text, role in row if text.strip()}


# --- head ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "title", "width", "expected"),
    [
        ((), "logs/", 40, " cbmon  logs/               no runs yet"),
        ((FINISHED,), "logs/", 40, " cbmon  logs/            1 run    10:00"),
        (FOUR, "logs/", 60, " cbmon  logs/           4 runs · 1 needs you: run3    12:00"),
        (FOUR, "logs/", 46, " cbmon  logs/   4 runs · 1 needs you    12:00"),
        (FOUR, "experiments/2023/november", 50, " cbmon  experiment… 4 runs · 1 needs you    12:00"),
        ((NAN,) * 5, "x", 66, " cbmon  x       5 runs · 5 need you: run3, run3, run3, …    11:50"),
        ((UNREADABLE,), "x", 60, " cbmon  x         1 run · 1 needs you: private/training.log"),
        (FOUR, "logs/", 8, " 4 runs" + "…"),
    ],
    ids=[
        "empty", "healthy", "named", "names do not fit", "title is cut", "more than three", "unreadable", "tiny",
    ],
)  # fmt: skip
def test_the_head_tells_who_needs_you_and_when_something_last_changed(
    views: tuple[RunView, ...], title: str, width: int, expected: str
) -> None:
    assert texts((frame.head(views, title, width, NOON),)) == [expected]


# --- runs ---------------------------------------------------------------------------------------------------


def test_the_runs_stand_in_columns_and_their_numbers_end_in_one_column() -> None:
    assert texts(frame.runs(FOUR[:3], 80, 9, NOON, cursor=1)) == [
        " ● run4  41/200  ━━━━━────────────────────  val_loss  .4120 ★37    done ≈ 14:30",
        "▸✗ run3  22      NaN loss, epoch 21         val_loss  .9120 ★14           11:50",
        " ✓ run2  200     finished                   val_loss .01234 ★188◂         10:00",
    ]


SWEEP = [
    a_run(
        f"experiments/sweep-mlp-dropout/lr-{rate}", Status.FINISHED, epoch=12, planned=12, metric="val_loss",
        best=best, best_epoch=11, since=NOON,
    )
    for rate, best in (("0.1", 0.3745), ("0.01", 0.4), ("0.001", 0.5))
]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, " ✓ experime…-mlp-dropout/lr-0.1  12/12  finished     val_loss .3745 ★11◂  12:00"),
        (70, " ✓ experi…dropout/lr-0.1  12/12  finished  val_loss .3745 ★11◂  12:00"),
        (48, " ✓ exp…t/lr-0.1  12/12  finished     .3745 ★11◂"),
        (36, " ✓ exp…t/lr-0.1  12/12  finished"),
    ],
)
def test_the_best_stays_when_all_runs_have_ended(width: int, expected: str) -> None:
    assert texts(frame.runs(SWEEP, width, 3, NOON))[0] == expected


def test_the_chart_has_the_end_of_a_long_name_as_the_list_has() -> None:
    titles = {texts(frame.curves(FALLING, view.name, 72, 12)[0])[0] for view in SWEEP}
    assert len(titles) == 3


STALLED = replace(RUNNING, says=True, word="no step since 14:57")


def test_a_run_that_has_something_to_say_says_it_in_the_place_of_the_bar() -> None:
    (row,) = frame.runs([STALLED], 80, 1, NOON)
    assert "no step since 14:57" in texts((row,))[0]
    assert "━" not in texts((row,))[0]
    assert roles(row)["no step since 14:57"] is Role.TEXT
    (row,) = frame.runs([replace(STALLED, is_stuck=True)], 80, 1, NOON)
    assert roles(row)["no step since 14:57"] is roles(row)["●"] is Role.LOOK


def test_the_word_done_goes_first_then_the_times_then_the_metrics_and_the_state_last() -> None:
    narrower = {width: texts(frame.runs(FOUR[:2], width, 2, NOON))[1] for width in (72, 66, 60, 44, 24)}
    assert narrower == {
        72: " ✗ run3  22      NaN loss, epoch 21   val_loss .9120 ★14          11:50",
        66: " ✗ run3  22      NaN loss, epoch 21  val_loss .9120 ★14     11:50",
        60: " ✗ run3  22      NaN loss, epoch 21     val_loss .9120 ★14",
        44: " ✗ run3  22      NaN loss, epo…  .9120 ★14",
        24: " ✗ run3  22      NaN l…",
    }


def test_a_long_metric_name_is_cut_and_its_value_stays() -> None:
    rows = texts(frame.runs(FOUR, 80, 4, NOON))
    assert rows[3] == " ■ run1  61      stopped by EarlyStopping         psnr_of_nobody_…  31.20"
    assert rows[2] == " ✓ run2  200     finished                         val_loss         .01234 ★188◂"


def test_a_long_name_is_cut_in_its_middle_for_names_differ_at_the_end() -> None:
    views = [a_run("experiments/2023-11-15_resnet50_lr0.001"), a_run("日本語の実験その一その二その三その四")]
    assert texts(frame.runs(views, 60, 2, NOON)) == [
        " ◐ experime…15_resnet50_lr0.001  growing",
        " ◐ 日本語の…その二その三その四   growing",
    ]


def test_an_unreadable_log_is_a_row_that_needs_you_and_says_why() -> None:
    (row,) = frame.runs([UNREADABLE], 80, 1, NOON)
    assert texts((row,)) == [" ✗ private/training.log  cannot be read: permission denied"]
    assert roles(row)["cannot be read: permission denied"] is Role.NEEDS


def test_the_state_gives_the_colour_and_the_word_says_the_same() -> None:
    for view, role in ((FINISHED, Role.GOOD), (STOPPED, Role.GOOD), (NAN, Role.NEEDS)):
        (row,) = frame.runs([view], 80, 1, NOON)
        assert (roles(row)[view.glyph], roles(row)[view.word]) == (role, role)
    assert roles(frame.runs([RUNNING], 80, 1, NOON)[0])[RUNNING.glyph] is Role.TEXT


@pytest.mark.parametrize(
    ("cursor", "first", "rest"),
    [
        (None, 0, "26 more below"),
        (0, 0, "26 more below"),
        (2, 0, "26 more below"),
        (3, 1, "1 more above, 25 more below"),
        (15, 13, "13 more above, 13 more below"),
        (28, 26, "26 more above"),
        (29, 26, "26 more above"),
    ],
)
def test_the_list_scrolls_so_that_the_cursor_stays_in_the_middle(
    cursor: int | None, first: int, rest: str
) -> None:
    views = [a_run(f"run{number:02}") for number in range(30)]
    rows = texts(frame.runs(views, 40, 5, NOON, cursor=cursor))
    assert [row[3:8] for row in rows[:4]] == [view.name for view in views[first : first + 4]]
    assert rows[4] == f"   {rest}"
    assert [row[3:8] for row in rows if row[0] == "▸"] == ([] if cursor is None else [f"run{cursor:02}"])


# --- chart, alerts, facts -----------------------------------------------------------------------------------


def test_the_chart_has_its_title_and_legend_above_and_the_learning_rate_below() -> None:
    assert texts(frame.curves(FALLING, "run4", 60, 12)[0]) == [
        " run4  loss   lr 1e-4         ── train .3010   ┄┄ val .4188",
        "      │",
        "      │⢆⡀",
        "    2 ┤ ⠑⢅⠄",
        "      │   ⠉⠣⡂⡀",
        "      │     ⠈⠒⠤⣀",
        "      │         ⠉⠒⠤⠤⢄⣀⣀ ⢀",
        "    0 ┤                ⠉⠉",
        "      └┬─────┬──────────┬───────────┬───────────┬──────────┬",
        "       1     2          4           6           8         10",
        "                  ▼     ★",
        " lr    ▔▔▔▔▔▔▔▔▔▔▔╲▁▁▁▁▁▁",
    ]


def test_the_chart_in_ascii_tells_the_curves_apart_by_their_glyphs() -> None:
    assert texts(frame.curves(FALLING, "run4", 60, 9, ascii=True)[0]) == [
        " run4  loss   lr 1e-4         ** train .3010   oo val .4188",
        "      |",
        "    2 +*o*",
        "      |   o*o*********",
        "    0 +               **o",
        "      ++-----+----------+-----------+----------+-----------+",
        "       1     2          4           6          8          10",
        "                   v    *",
        " lr    ^^^^^^^^^^^^\\_____",
    ]


def test_a_small_chart_has_no_row_for_the_rate_and_keeps_the_metric_longer_than_the_name() -> None:
    assert texts(frame.curves(FALLING, "a_rather_long_name_of_a_run", 54, 3)[0])[0] == (
        " a_r…e_of_a_run  loss   ── train .3010   ┄┄ val .4188"
    ), "as in the list: names of one experiment differ at the end"
    assert not any(row.startswith(" lr") for row in texts(frame.curves(FALLING, "run4", 60, 8)[0]))


def test_a_run_without_epochs_says_so_in_its_chart() -> None:
    rows = texts(frame.curves(NOTHING, "run4", 40, 8)[0])
    assert rows[0] == " run4"
    assert rows[3] == "      │          no values yet"


def test_the_learning_rate_changes_below_the_mark_that_says_so() -> None:
    for limits in (None, (1.0, 60.0), (2.0, 4.0), (3.0, 10.0)):
        for width in (30, 60, 113):
            rows = texts(frame.curves(FALLING, "run4", width, 12, x_limits=limits)[0])
            mark, strip = rows[-2].find("▼"), rows[-1]
            assert mark >= frame.GUTTER
            assert strip[mark] == ("▔" if limits == (3.0, 10.0) else "╲"), (limits, width, rows)


def test_the_learning_rate_begins_and_ends_with_its_own_epochs() -> None:
    resumed = replace(
        FALLING, rates=Curve(label="lr", x=[2, 3], x_offset=1, y=[1e-3, 1e-4], steps=True), first=1
    )
    rows = texts(frame.curves(resumed, "run4", 60, 12)[0])
    assert rows[-2:] == ["                  ▼     ★", " lr               ▔▔▔▔▔▔╲"]
    seen = texts(frame.curves(resumed, "run4", 60, 12, x_limits=(5.0, 10.0))[0])
    assert seen[-1] == " lr", "nothing of it is in view"


def test_a_long_learning_rate_costs_no_more_than_its_columns() -> None:
    class Counting(list[float]):
        looked = 0

        def __getitem__(self, row: Any) -> Any:
            Counting.looked += 1
            return super().__getitem__(row)

    rates = Curve(label="lr", x=range(1, 100_001), y=Counting([1e-3] * 100_000), steps=True)
    frame.curves(replace(FALLING, rates=rates, last=100_000), "run4", 80, 12)
    assert Counting.looked <= 80


EARLIER = replace(
    FALLING,
    title="loss · attempt 2 of 2",
    curves=(
        Curve(label="train of attempt 1", x=[1, 2], y=[3.0, 2.9], number=GREY),
        *(replace(curve, number=at) for at, curve in enumerate(FALLING.curves)),
    ),
    names=("train of attempt 1", "train", "val"),
)


@pytest.mark.parametrize(
    ("width", "epoch", "expected"),
    [
        (
            100, None,
            " run4  loss · attempt 2 of 2   lr 1e-4   ── train .3010   ┄┄ val .4188   ── train of attempt 1",
        ),
        (80, None, " run4  loss · attempt 2 of 2   lr 1e-4       ── train .3010   ┄┄ val .4188   +1"),
        (60, None, " loss · attempt 2 of 2  ── train .3010   ┄┄ val .4188   +1"),
        (40, None, " loss · attempt 2…  ── train .3010   +2"),
        (16, None, "  ── train .301…"),
        (
            112, 2,
            " run4  loss   epoch 2   "
            "── train 1.100   ┄┄ val 1.300   lr 1e-3   ── train of attempt 1 2.900",
        ),
        (82, 3, " run4  loss   epoch 3  ── train .6000   ┄┄ val –   lr 1e-4   +1"),
    ],
)  # fmt: skip
def test_of_the_legend_earlier_attempts_go_first_and_the_values_of_now_last(
    width: int, epoch: int | None, expected: str
) -> None:
    title = texts(frame.curves(EARLIER, "run4", width, 12, epoch=epoch)[0])[0]
    assert " ".join(title.split()) == " ".join(expected.split())
    assert title.startswith(expected[:7])


OVERLAY = ChartView(
    title="loss of 3 marked runs",
    curves=tuple(
        Curve(label="val", x=[1, 2], y=[1.0, float(at)], letter=letter, number=at)
        for at, letter in ((0, "a"), (1, "b"), (GREY, "h"))
    ),
    names=("a experiment_1", "b experiment_2", "h experiment_8"),
    letters=True,
    last=2,
)


@pytest.mark.parametrize(
    ("width", "epoch", "expected"),
    [
        (100, None, " loss of 3 marked runs ── a experiment_1 ── b experiment_2 ── h experiment_8"),
        (60, None, "loss of 3 mar… ── a experiment_1 ── b experiment_2 +1"),
        (
            120, 2,
            " loss of 3 marked runs epoch 2 ── a experiment_1 0 ── b experiment_2 1.000 ── h experiment_8 7.000",
        ),
        (80, 2, " loss of 3 marked runs epoch 2 ── a 0 ── b 1.000 ── h 7.000"),
    ],
)  # fmt: skip
def test_marked_runs_are_named_and_where_they_are_read_their_letters_are_enough(
    width: int, epoch: int | None, expected: str
) -> None:
    row = frame.curves(OVERLAY, "", width, 12, epoch=epoch)[0][0]
    assert " ".join(texts((row,))[0].split()) == expected.strip()
    assert texts((row,))[0].startswith(" loss of 3"), "one blank before it"
    lines = [role for text, role in row if text == "  ── "]
    assert lines == [CURVE_ROLES[at] for at in (0, 1, GREY)[: len(lines)]]


def test_an_epoch_that_is_read_shows_its_values_its_line_and_what_happened() -> None:
    view = replace(FALLING, notes={3: ("learning rate 1e-3 → 1e-4 at epoch 3", "saved best.keras")})
    rows = texts(frame.curves(view, "run4", 72, 12, epoch=3)[0])
    assert rows[:3] == [
        " run4  loss   epoch 3               ── train .6000   ┄┄ val –   lr 1e-4",
        "      │ learning rate 1e-3 → 1e-4 at epoch 3 · saved best.keras",
        "      │⢆⠄            │",
    ]
    assert "┼" in rows[-4], "its place on the axis"
    assert "saved" not in frame.text(frame.curves(view, "run4", 72, 12, epoch=2)[0])
    labelled = texts(frame.curves(view, "run4", 72, 9, epoch=3)[0])
    assert labelled[2].startswith("    2 ┤"), "the label of the axis stays"
    assert texts(frame.curves(view, "run4", 72, 2, epoch=3)[0])[0] == rows[0], "too low for the words"


ACCURACY = ChartView(
    title="sparse_categorical_accuracy",
    curves=(
        Curve(label="train", x=[1, 2, 3, 4], y=[0.1, 0.2, 0.3, 0.4]),
        Curve(label="val", x=[1, 2, 3, 4], y=[0.1, 0.2, None, None], dashed=True),
    ),
    names=("train", "val"),
    last=4,
)


def test_where_there_is_room_the_rate_and_other_metrics_have_small_charts_below() -> None:
    rows = texts(frame.curves(FALLING, "run4", 80, frame.BAND_FROM, others=[ACCURACY, ACCURACY])[0])
    titles = rows[-frame.BAND_ROWS]
    assert titles == " learning rate  1e-4                     sparse_categorical_accu…  .4000  .2000"
    assert not any(row.startswith(" lr") for row in rows)
    assert len(rows) == frame.BAND_FROM
    low = texts(frame.curves(FALLING, "run4", 80, frame.BAND_FROM - 1, others=[ACCURACY])[0])
    assert low[-1].startswith(" lr")


@pytest.mark.parametrize(
    ("rates", "row", "column", "found"),
    [
        (True, 21, 5, None),
        (True, 22, 0, 0),
        (True, 29, 39, 0),
        (True, 22, 40, 1),
        (True, 29, 119, 2),
        (False, 22, 39, 1),
        (False, 22, 40, 2),
    ],
)
def test_a_place_in_a_small_chart_tells_how_many_metrics_further_it_is(
    rates: bool, row: int, column: int, found: int | None
) -> None:
    view = FALLING if rates else replace(FALLING, rates=None)
    others = [ACCURACY] * 3
    assert frame.small_at(view, others, 120, 30, row, column) == found
    assert frame.small_at(view, others, 120, 21, 20, column) is None, "no room for small charts"


@pytest.mark.parametrize(
    ("rate", "label"), [(1e-3, "1e-3"), (3.456e-4, "3.5e-4"), (9.9999997e-05, "1e-4"), (0.01, "0.01")]
)
def test_a_constant_learning_rate_is_a_line_in_the_middle_with_its_own_label(rate: float, label: str) -> None:
    view = replace(FALLING, rates=Curve(label="lr", x=[1, 2, 3], y=[rate] * 3, steps=True))
    for ascii, curve in ((False, "⠉"), (True, "*")):
        small = texts(frame.curves(view, "run4", 60, 30, ascii=ascii)[0])[-frame.BAND_ROWS + 1 : -2]
        labels = [row[:6].strip() for row in small]
        assert [text for text in labels if text] == [label]
        at = labels.index(label)
        assert at in (2, 3)
        assert [row for row, text in enumerate(small) if text[8:].strip()] == [at], (curve, small)


def test_a_learning_rate_that_is_constant_in_the_window_alone_is_drawn_like_one() -> None:
    rows = texts(frame.curves(FALLING, "run4", 60, 30, x_limits=(1, 2))[0])[-frame.BAND_ROWS + 1 :]
    assert [row[:6].strip() for row in rows if row[:6].strip()] == ["1e-3"]


def test_small_charts_are_read_with_the_large_one() -> None:
    rows = texts(frame.curves(FALLING, "run4", 120, 30, others=[ACCURACY], epoch=3)[0])
    assert (
        " ".join(rows[-frame.BAND_ROWS].split()) == "learning rate 1e-4 sparse_categorical_accuracy .3000 –"
    )
    assert rows[-2].count("┴") == 2


def test_the_rate_of_a_run_that_began_anew_is_told_though_an_earlier_attempt_went_further() -> None:
    rows = texts(frame.curves(replace(FALLING, last=99), "run4", 80, 30)[0])
    assert rows[-frame.BAND_ROWS] == " learning rate  1e-4"


@pytest.mark.parametrize(
    ("height", "expected"),
    [
        (0, []),
        (1, [" ✗ NaN loss at epoch 21  +2 (e)"]),
        (2, [" ✗ NaN loss at epoch 21", " · 2 more (e)"]),
        (3, [" ✗ NaN loss at epoch 21", " · learning rate 1e-3 → 1e-4 at epoch 32", " ▲ left out"]),
    ],
)
def test_alerts_that_do_not_fit_are_counted_with_the_key_that_shows_them(
    height: int, expected: list[str]
) -> None:
    lines = [ERROR, NEWS, (Severity.WARNING, "left out")]
    assert texts(frame.alert_rows(lines, 50, height, key="e")) == expected


def test_where_one_row_is_left_the_count_stays_and_the_alert_is_cut() -> None:
    lines = [NEWS, ERROR]
    assert texts(frame.alert_rows(lines, 30, 1, key="e")) == [" · learning rate 1e-…  +1 (e)"]


def test_errors_come_before_warnings_and_these_before_news_each_as_they_were() -> None:
    warnings = [(Severity.WARNING, "one"), (Severity.WARNING, "two")]
    assert frame.worst_first([NEWS, *warnings, ERROR, NEWS]) == [ERROR, *warnings, NEWS, NEWS]


@pytest.mark.parametrize(
    ("height", "has", "gets"),
    [
        (24, (4, 2, 1), (4, 2, 1)),
        (24, (30, 0, 0), (8, 0, 0)),
        (24, (7, 0, 4), (6, 0, 2)),
        (24, (7, 3, 4), (4, 2, 2)),
        (10, (7, 3, 5), (2, 0, 1)),
        (45, (7, 4, 9), (7, 4, 4)),
        (3, (7, 3, 5), (1, 0, 0)),
        (0, (7, 3, 5), (1, 0, 0)),
        (24, (0, 0, 0), (0, 0, 0)),
    ],
)
def test_two_thirds_of_a_screen_are_the_charts_and_alerts_give_way_first(
    height: int, has: tuple[int, int, int], gets: tuple[int, int, int]
) -> None:
    assert frame.shares(height, *has) == gets


@pytest.mark.parametrize(
    ("height", "first", "expected"),
    [
        (0, 0, []),
        (1, 0, [" run4  alerts and warnings"]),
        (3, 0, [" run4  alerts and warnings", " ✗ NaN loss at epoch 21", " · 2 more (PgDn)"]),
        (9, 1, [" run4  alerts and warnings, from 2 of 3", f" · {NEWS[1]}", " ▲ left out"]),
    ],
)
def test_the_page_of_alerts_says_where_it_is(height: int, first: int, expected: list[str]) -> None:
    lines = [ERROR, NEWS, (Severity.WARNING, "left out")]
    assert texts(frame.alerts_page(lines, "run4", 50, height, first)) == expected
    assert texts(frame.alerts_page([], "run4", 50, 9)) == [" run4  no alerts, no warnings"]


def test_callbacks_stand_one_a_row_as_far_as_there_is_room() -> None:
    lines = ["EarlyStopping val_loss · wait 3/5", "ReduceLROnPlateau val_loss · wait 1/2"]
    assert texts(frame.strip_rows(lines, 24, 1)) == [" EarlyStopping val_loss"]
    assert texts(frame.strip_rows(lines, 20, 1)) == [" EarlyStopping val_…"]
    assert texts(frame.strip_rows(lines, 50, 9)) == [f" {line}" for line in lines]
    assert frame.strip_rows([], 50, 9) == ()


# --- tables -------------------------------------------------------------------------------------------------


def test_the_table_of_all_runs_has_the_best_of_each_metric_green() -> None:
    rows = frame.summary(FOUR, 100, 9, NOON, cursor=1)
    assert texts(rows) == [
        " run   state                        epoch                    best   last  lr         since",
        " run4  ● running                   41/200      val_loss .4120 ★37  .4188   –         12:00",
        "▸run3  ✗ NaN loss, epoch 21            22      val_loss .9120 ★14      –   –         11:50",
        " run2  ✓ finished                     200    val_loss .01234 ★188      –   –         10:00",
        " run1  ■ stopped by EarlyStopping      61  psnr_of_nobody_know… –  31.20   –  14 Nov 12:00",
    ]
    green = [text.strip() for row in rows for text, role in row if role is Role.GOOD]
    assert green == ["✓ finished", "val_loss .01234 ★188", "■ stopped by EarlyStopping"]


def test_the_table_has_one_heading_for_one_metric_and_the_letters_of_marked_runs() -> None:
    views = [replace(view, mark=mark) for view, mark in zip(FOUR[:3], (1, None, 7), strict=True)]
    rows = frame.summary(views, 80, 9, NOON)
    assert texts(rows) == [
        "   run   state                  epoch  val_loss best   last  lr  since",
        " b run4  ● running             41/200      .4120 ★37  .4188   –  12:00",
        "   run3  ✗ NaN loss, epoch 21      22      .9120 ★14      –   –  11:50",
        " h run2  ✓ finished               200    .01234 ★188      –   –  10:00",
    ]
    assert [rows[1][1], rows[3][1]] == [("b ", Role.CURVE1), ("h ", Role.CURVE7)]


def test_of_a_narrow_table_the_last_columns_go_before_the_state() -> None:
    narrower = {width: texts(frame.summary(FOUR[:2], width, 9, NOON))[2] for width in (68, 67, 56, 44, 30)}
    assert narrower == {
        68: " run3  ✗ NaN loss, epoch 21      22      .9120 ★14      –   –  11:50",
        67: " run3  ✗ NaN loss, epoch 21      22      .9120 ★14      –   –",
        56: " run3  ✗ NaN loss, epoch 21      22      .9120 ★14",
        44: " run3  ✗ NaN loss, e…      22      .9120 ★14",
        30: " run3  ✗ NaN loss, ep…      22",
    }


def test_the_table_scrolls_with_the_cursor_and_counts_the_rest() -> None:
    views = [a_run(f"run{number:02}") for number in range(30)]
    rows = texts(frame.summary(views, 60, 6, NOON, cursor=15))
    assert [row[:6] for row in rows] == [" run  ", " run13", " run14", "▸run15", " run16", "   13 "]
    assert rows[-1] == "   13 more above, 13 more below"
    assert len(frame.summary(views, 60, 31, NOON)) == 31


EPOCHS_SHOWN = EpochsView(
    names=("epoch", "loss", "日本語", "lr"),
    rows=(("9", "2.000", "–", "0.1"), ("10", "nan", ".5000", "0.1")),
    cursor=1,
    above=8,
    below=0,
)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            40,
            ["   epoch   loss  日本語   lr", "       9  2.000       –  0.1", "▸     10    nan   .5000  0.1"],
        ),
        (
            28,
            ["   epoch   loss  日本語   lr", "       9  2.000       –  0.1", "▸     10    nan   .5000  0.1"],
        ),
        (27, ["   epoch   loss  日本語  +1", "       9  2.000       –", "▸     10    nan   .5000"]),
        (26, ["   epoch   loss  +2", "       9  2.000", "▸     10    nan"]),
        (19, ["   epoch   loss  +2", "       9  2.000", "▸     10    nan"]),
        (18, ["   epoch  +3", "       9", "▸     10"]),
        (11, ["   +4", "", "▸"]),
    ],
)
def test_columns_of_epochs_that_have_no_room_are_counted(width: int, expected: list[str]) -> None:
    assert texts(frame.epochs(EPOCHS_SHOWN, width, 9)) == expected
    assert texts(frame.epochs(EPOCHS_SHOWN, width, 2)) == expected[:2]
    assert frame.epochs(EPOCHS_SHOWN, width, 0) == ()


def test_an_epoch_that_is_read_is_the_line_of_the_cursor() -> None:
    rows = frame.epochs(EPOCHS_SHOWN, 40, 9)
    assert [[role for text, role in row if text.strip()] for row in rows] == [
        [Role.DIM],
        [Role.TEXT],
        [Role.CURSOR, Role.CURSOR],
    ]
    unread = frame.epochs(replace(EPOCHS_SHOWN, cursor=None), 40, 9)
    assert "▸" not in frame.text(unread)


FACTS = FactsView(
    metrics=(("loss", 0.301, (0.3, 1188)), ("val_loss", None, None), ("日本語", 4.0, (2.0, 7))),
    info=(("plan", "200 epochs"), ("host", "gpu-box")),
)


def test_facts_show_unknown_as_a_dash_and_epochs_of_four_figures_whole() -> None:
    assert texts(frame.facts(FACTS, 44, 20)) == [
        "                       last       best",
        "loss                  .3010      .3000 ★1188",
        "val_loss                  –",
        "日本語                4.000      2.000 ★7",
        "",
        "plan       200 epochs",
        "host       gpu-box",
    ]


@pytest.mark.parametrize(
    ("text", "width", "most", "lines"),
    [
        ("takes 14 ms · the first one 894 ms", 40, 9, ["takes 14 ms · the first one 894 ms"]),
        ("takes 14 ms · the first one 894 ms", 28, 9, ["takes 14 ms", "· the first one 894 ms"]),
        ("takes 14 ms · the first one 894 ms", 12, 9, ["takes 14 ms", "· the first", "one 894 ms"]),
        ("takes 14 ms · the first one 894 ms", 11, 9, ["takes 14 ms", "· the first", "one 894 ms"]),
        ("takes 14 ms · the first one 894 ms", 10, 2, ["takes 14", "ms · the first one 894 ms"]),
        ("train.py /a/long/path.jsonl", 12, 9, ["train.py", "/a/long/", "path.jsonl"]),
        ("abcdefgh", 5, 9, ["abcde", "fgh"]),
        ("/abcdefgh", 5, 9, ["/abcd", "efgh"]),
        ("日本語日本語", 5, 9, ["日本", "語日", "本語"]),
        ("日本", 1, 9, ["日本"]),
        ("", 5, 9, [""]),
        ("x", 0, 9, ["x"]),
    ],
)
def test_a_fact_that_is_too_wide_goes_on_below(text: str, width: int, most: int, lines: list[str]) -> None:
    assert frame._wrapped(text, width, most) == lines


def test_facts_go_on_below_as_far_as_there_is_room() -> None:
    view = FactsView(metrics=(), info=(("step", "takes 14 ms · the first one 894 ms"), ("host", "gpu-box")))
    assert texts(frame.facts(view, 36, 9)) == [
        "step       takes 14 ms",
        "           · the first one 894 ms",
        "host       gpu-box",
    ]
    full = replace(view, metrics=(("loss", 0.5, None),))
    assert texts(frame.facts(full, 36, 5))[3:] == [
        "step       takes 14 ms · the first …",
        "host       gpu-box",
    ]


def test_what_has_no_room_in_the_strip_is_left_out_whole() -> None:
    line = (
        "epoch 2: step 232/300 · 74 steps/s · ≈ 1.3 s left · loss .3010 · accuracy .4474 · an epoch takes 4 s"
    )
    assert texts(frame.strip_rows([line], 78, 1)) == [
        " epoch 2: step 232/300 · 74 steps/s · ≈ 1.3 s left · loss .3010"
    ]
    assert texts(frame.strip_rows([line], 80, 1))[0].endswith(" · loss .3010 · accuracy .4474")
    assert texts(frame.strip_rows([line], 120, 1)) == [f" {line}"]
    counted = "EarlyStopping loss · wait 3/5 · best .4120 ★37"
    assert texts(frame.strip_rows([counted], 45, 1)) == [" EarlyStopping loss · wait 3/5 · best .4120"]


def test_metrics_that_do_not_fit_are_counted_and_the_facts_below_them_stay() -> None:
    assert texts(frame.facts(FACTS, 44, 5)) == [
        "                       last       best",
        "3 more (m)",
        "",
        "plan       200 epochs",
        "host       gpu-box",
    ]


# --- the whole frame ----------------------------------------------------------------------------------------


def test_a_frame_of_80_by_24_has_all_that_people_ask_first() -> None:
    rows = texts(frame.frame(FOUR, FALLING, [ERROR, NEWS], "logs/", 80, 24, NOON))
    assert len(rows) == 24
    assert rows[0].startswith(" cbmon  logs/")
    assert rows[0].endswith("4 runs · 1 needs you: run3    12:00")
    assert [row[3:7] for row in rows[1:5]] == ["run4", "run3", "run2", "run1"]
    assert rows[1].startswith("▸")
    assert rows[5] == "─" * 80
    assert rows[6].startswith(" run4  loss   lr 1e-4 ")
    assert rows[-2:] == [" ✗ NaN loss at epoch 21", " · learning rate 1e-3 → 1e-4 at epoch 32"]


def test_an_empty_frame_has_the_lines_to_add_to_the_script() -> None:
    rows = texts(frame.frame([], None, [], "logs", 60, 12, NOON))
    assert rows == [
        " cbmon  logs                                    no runs yet",
        "",
        "  No training logs here yet: they will appear by themselves.",
        "",
        "  In the training script:",
        "      from cbmon.callbacks import Monitor",
        "      model.fit(..., callbacks=[Monitor('logs')])",
        "",
        "  Or with Keras alone:",
        "      keras.callbacks.CSVLogger('logs/training.csv')",
        "",
        "",
    ]


def test_a_frame_with_unreadable_logs_alone_still_shows_them() -> None:
    rows = texts(frame.frame([UNREADABLE], None, [], "private", 80, 12, NOON))
    assert rows[1] == "▸✗ private/training.log  cannot be read: permission denied"


def test_the_frame_as_text_has_no_blanks_at_the_ends_of_lines() -> None:
    lines = frame.text(frame.frame(FOUR, FALLING, [ERROR], "logs/", 80, 24, NOON)).split("\n")
    assert len(lines) == 24
    assert lines == [line.rstrip() for line in lines]


# --- every row of every frame -------------------------------------------------------------------------------

NAMES = st.text(max_size=40).map(printable) | st.sampled_from(
    [
        "run4",
        "日本語",
        "e\u0301" * 9,
        "\u0301",
        "\x1b[31mred",
        "[bold]x[/]",
        "a" * 90,
        "Ａ１",
        "שלום",
        "",
        "‮x",
    ]
).map(printable)
NUMBERS = st.floats() | st.none()
EPOCHS = st.integers(1, 10**7) | st.none()
RUNS = st.builds(
    RunView,
    name=NAMES,
    status=st.sampled_from([*Status, None]),
    glyph=st.sampled_from([*GLYPHS.values()]),
    word=NAMES,
    needs_you=st.booleans(),
    epoch=EPOCHS,
    planned=EPOCHS,
    metric=NAMES | st.none(),
    last=NUMBERS,
    best=NUMBERS,
    best_epoch=EPOCHS,
    rate=NUMBERS,
    since=st.floats(0, 4e9) | st.none(),
    done_at=NUMBERS,
    says=st.booleans(),
    is_stuck=st.booleans(),
    mark=st.none() | st.integers(0, 40),
)
VALUES = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20)


@st.composite
def charts(draw: st.DrawFn) -> ChartView:
    values = draw(VALUES)
    epochs = [*range(1, len(values) + 1)]
    curves = tuple(
        Curve(label=draw(NAMES), x=epochs, y=[pair[side] for pair in values], dashed=bool(side))
        for side in range(draw(st.integers(0, 2)))
    )
    rates = Curve(label="lr", x=epochs, y=[pair[0] for pair in values], steps=True)
    return ChartView(
        title=draw(NAMES),
        curves=curves,
        names=tuple(curve.label for curve in curves),
        marks=tuple(Mark(draw(st.floats()), kind) for kind in draw(st.lists(st.sampled_from(MarkKind)))),
        rates=draw(st.sampled_from([None, rates])),
        rate=draw(NUMBERS),
        letters=draw(st.booleans()),
        first=1,
        last=max(1, len(values)),
        planned=draw(EPOCHS),
        spans_decades=draw(st.booleans()),
    )


FRAMES = st.fixed_dictionaries(
    {
        "views": st.lists(RUNS, max_size=30),
        "chart_of": charts() | st.none(),
        "lines": st.lists(st.tuples(st.sampled_from(Severity), NAMES), max_size=8),
        "title": NAMES,
        "width": st.integers(1, 200),
        "height": st.integers(1, 60),
        "now": st.floats(0, 4e9) | st.none(),
    }
)
FULL = {"chart_of": FALLING, "lines": [ERROR, NEWS], "title": "日本語/é", "now": NOON}


@given(FRAMES, st.integers(0, 29), st.booleans())
@example({"views": [RUNNING, UNREADABLE], "width": 1, "height": 1} | FULL, 1, True)
@example({"views": [RUNNING] * 30, "width": 200, "height": 60} | FULL, 29, False)
def test_a_frame_is_exactly_as_wide_and_high_as_asked_whatever_is_in_it(
    asked: dict[str, Any], cursor: int, ascii: bool
) -> None:
    at = min(cursor, max(0, len(asked["views"]) - 1))
    rows = frame.frame(**asked, cursor=at, ascii=ascii)
    assert len(rows) == asked["height"]
    assert {cells("".join(text for text, _ in row)) for row in rows} == {asked["width"]}
    text = frame.text(rows)
    assert not set(text) & set(map(chr, [*range(10), *range(11, 32), *range(127, 160)]))
    if ascii:
        assert text.isascii()


@given(
    st.lists(
        st.tuples(NAMES, NUMBERS, st.tuples(st.floats(), st.integers(1, 10**7)) | st.none()), max_size=40
    ),
    st.lists(st.tuples(NAMES, NAMES), max_size=5),
    st.integers(1, 100),
    st.integers(0, 40),
    st.booleans(),
)
def test_facts_never_leave_their_panel(
    metrics: list[Any], info: list[Any], width: int, height: int, ascii: bool
) -> None:
    view = FactsView(metrics=tuple(metrics), info=tuple(info))
    rows = frame.facts(view, width, height, ascii=ascii)
    assert len(rows) <= height
    assert {cells("".join(text for text, _ in row)) for row in rows} <= {width}
    assert not ascii or frame.text(rows).isascii()


TEXT = st.lists(NAMES, max_size=6)


@st.composite
def epoch_tables(draw: st.DrawFn) -> EpochsView:
    names = draw(st.lists(NAMES, min_size=1, max_size=5))
    row = st.lists(NAMES, min_size=len(names), max_size=len(names)).map(tuple)
    return EpochsView(
        names=tuple(names),
        rows=tuple(draw(st.lists(row, max_size=8))),
        cursor=draw(st.none() | st.integers(-2, 9)),
        above=0,
        below=0,
    )


@settings(deadline=None)
@given(
    st.tuples(st.integers(0, 240) | st.integers(0, 30), st.integers(0, 60) | st.integers(0, 4)),
    st.booleans(),
    st.lists(RUNS, max_size=12),
    epoch_tables(),
    st.lists(st.tuples(st.sampled_from(Severity), NAMES), max_size=8),
    TEXT,
    st.integers(0, 9),
    st.floats(0, 4e9) | st.none(),
)
def test_no_table_leaves_its_panel_whatever_is_in_it(
    size: tuple[int, int],
    ascii: bool,
    views: list[RunView],
    table: EpochsView,
    lines: list[tuple[Severity, str]],
    words: list[str],
    cursor: int,
    now: float | None,
) -> None:
    width, height = size
    drawn = {
        "head": (frame.head(views, "x", width, now, ascii=ascii),)[:height],
        "rule": (frame.rule(width, ascii=ascii),)[:height],
        "runs": frame.runs(views, width, height, now, cursor=cursor, ascii=ascii),
        "summary": frame.summary(views, width, height, now, cursor=cursor, ascii=ascii),
        "epochs": frame.epochs(table, width, height, ascii=ascii),
        "alerts": frame.alert_rows(lines, width, height, key="e", ascii=ascii),
        "page": frame.alerts_page(lines, "日本", width, height, cursor, ascii=ascii),
        "strip": frame.strip_rows(words, width, height, ascii=ascii),
        "empty": frame.empty_rows("日本", width, height, ascii=ascii),
        "frame": frame.frame(views, None, lines, "x", width, height, now, ascii=ascii),
    }
    for name, rows in drawn.items():
        assert len(rows) <= height, name
        assert {cells("".join(text for text, _ in row)) for row in rows} <= {width}, name
        assert not ascii or frame.text(rows).isascii(), name
    assert len(drawn["frame"]) == height
    assert len(drawn["empty"]) == height
    assert len(drawn["runs"]) == min(height, len(views))
    assert len(drawn["summary"]) == min(height, len(views) + 1)


@settings(deadline=None)
@given(
    charts(),
    st.lists(charts(), max_size=3),
    st.tuples(st.integers(0, 240), st.integers(0, 60)),
    st.none() | st.integers(-3, 30),
    st.none() | st.tuples(st.floats(-5, 30), st.floats(-5, 30)),
    st.none() | st.booleans(),
    TEXT.map(tuple),
    st.booleans(),
)
@example(FALLING, [ACCURACY, ACCURACY], (240, 60), 3, None, None, ("x",), False)
@example(EARLIER, [ACCURACY], (40, 30), 3, (3.0, 3.0), True, ("x",), True)
def test_a_chart_is_as_wide_and_high_as_asked_whatever_is_in_it(
    view: ChartView,
    others: list[ChartView],
    size: tuple[int, int],
    epoch: int | None,
    limits: tuple[float, float] | None,
    log: bool | None,
    notes: tuple[str, ...],
    ascii: bool,
) -> None:
    width, height = size
    view = replace(view, notes={epoch or 0: notes})
    rows, _ = frame.curves(
        view, "日本", width, height, log=log, x_limits=limits, epoch=epoch, others=others, ascii=ascii
    )
    assert len(rows) == height
    assert {cells("".join(text for text, _ in row)) for row in rows} <= {width}
    assert not ascii or frame.text(rows).isascii()


def test_every_glyph_of_ours_has_an_ascii_stand_in_of_its_own_width() -> None:
    rows = frame.frame(
        [a_run(status.value, status, metric="m", best=1.0, best_epoch=2, done_at=NOON) for status in Status],
        FALLING, [ERROR, NEWS, (Severity.WARNING, "x – y…")], "logs", 100, 40, NOON, ascii=True,
    )  # fmt: skip
    text = frame.text(rows)
    assert text.isascii()
    assert "?" not in text
