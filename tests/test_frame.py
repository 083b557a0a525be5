"""The screen as rows: literal tables at the sizes people have, and the shape of every row at all sizes."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbmon import frame
from cbmon.chart import Curve, Mark, MarkKind, Role, Row
from cbmon.rules import Severity, Status
from cbmon.units import cells, printable
from cbmon.views import GLYPHS, NEEDS_YOU, ChartView, FactsView, RunView

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
    rates=(1e-3, 1e-3, 1e-4, 1e-4),
    first=1,
    last=4,
    planned=None,
    spans_decades=False,
)
NOTHING = ChartView(
    title="", curves=(), marks=(), rates=(), first=1, last=1, planned=None, spans_decades=False
)


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
        " ● run4  41/200  ━━━━━─────────────────────  val_loss  .4120 ★37   done ≈ 14:30",
        "▸✗ run3  22      NaN loss, epoch 21          val_loss  .9120 ★14          11:50",
        " ✓ run2  200     finished                    val_loss .01234 ★188         10:00",
    ]


def test_the_word_done_goes_first_then_the_times_then_the_metrics_and_the_state_last() -> None:
    narrower = {width: texts(frame.runs(FOUR[:2], width, 2, NOON))[1] for width in (72, 66, 60, 44, 24)}
    assert narrower == {
        72: " ✗ run3  22      NaN loss, epoch 21    val_loss .9120 ★14         11:50",
        66: " ✗ run3  22      NaN loss, epoch 21   val_loss .9120 ★14    11:50",
        60: " ✗ run3  22      NaN loss, epoch 21      val_loss .9120 ★14",
        44: " ✗ run3  22      NaN loss, epoch 21",
        24: " ✗ run3  22      NaN l…",
    }


def test_a_long_metric_name_is_cut_and_its_value_stays() -> None:
    rows = texts(frame.runs(FOUR, 80, 4, NOON))
    assert rows[3] == " ■ run1  61      stopped by EarlyStopping          psnr_of_nobody_…  31.20"
    assert rows[2] == " ✓ run2  200     finished                          val_loss         .01234 ★188"


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
    assert texts(frame.curves(FALLING, "run4", 60, 12)) == [
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
        " lr    ▔▔▔▔▔▔▔▔▔╲▁▁▁▁▁▁▁▁",
    ]


def test_the_chart_in_ascii_tells_the_curves_apart_by_their_glyphs() -> None:
    assert texts(frame.curves(FALLING, "run4", 60, 9, ascii=True)) == [
        " run4  loss   lr 1e-4         ** train .3010   oo val .4188",
        "      |",
        "    2 +*o*",
        "      |   o*o*********",
        "    0 +               **o",
        "      ++-----+----------+-----------+----------+-----------+",
        "       1     2          4           6          8          10",
        "                   v    *",
        " lr    ^^^^^^^^^\\________",
    ]


def test_a_small_chart_has_no_row_for_the_rate_and_keeps_the_metric_longer_than_the_name() -> None:
    assert texts(frame.curves(FALLING, "a_rather_long_name_of_a_run", 54, 3))[0] == (
        " a_r…  loss   lr 1e-4   ── train .3010   ┄┄ val .4188"
    )
    assert not any(row.startswith(" lr") for row in texts(frame.curves(FALLING, "run4", 60, 8)))


def test_a_run_without_epochs_says_so_in_its_chart() -> None:
    rows = texts(frame.curves(NOTHING, "run4", 40, 8))
    assert rows[0] == " run4"
    assert rows[3] == "      │          no values yet"


@pytest.mark.parametrize(
    ("height", "expected"),
    [
        (0, []),
        (1, [" · 3 more (e)"]),
        (2, [" ✗ NaN loss at epoch 21", " · 2 more (e)"]),
        (3, [" ✗ NaN loss at epoch 21", " · learning rate 1e-3 → 1e-4 at epoch 32", " ▲ left out"]),
    ],
)
def test_alerts_that_do_not_fit_are_counted_with_the_key_that_shows_them(
    height: int, expected: list[str]
) -> None:
    lines = [ERROR, NEWS, (Severity.WARNING, "left out")]
    assert texts(frame.alert_rows(lines, 50, height, key="e")) == expected


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
)
VALUES = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20)


@st.composite
def charts(draw: st.DrawFn) -> ChartView:
    values = draw(VALUES)
    epochs = [*range(1, len(values) + 1)]
    return ChartView(
        title=draw(NAMES),
        curves=tuple(
            Curve(label=draw(NAMES), x=epochs, y=[pair[side] for pair in values], dashed=bool(side))
            for side in range(draw(st.integers(0, 2)))
        ),
        marks=tuple(Mark(draw(st.floats()), kind) for kind in draw(st.lists(st.sampled_from(MarkKind)))),
        rates=tuple(draw(st.lists(NUMBERS, max_size=20))),
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


def test_every_glyph_of_ours_has_an_ascii_stand_in_of_its_own_width() -> None:
    rows = frame.frame(
        [a_run(status.value, status, metric="m", best=1.0, best_epoch=2, done_at=NOON) for status in Status],
        FALLING, [ERROR, NEWS, (Severity.WARNING, "x – y…")], "logs", 100, 40, NOON, ascii=True,
    )  # fmt: skip
    text = frame.text(rows)
    assert text.isascii()
    assert "?" not in text
