"""Charts as literal text first, then the laws: exact size, gaps, spikes, limits that only widen."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cbmon.axes import Limits, Window, ticks, window_limits, x_limits, y_limits
from cbmon.chart import (
    CURVE_GLYPHS,
    CURVE_ROLES,
    Curve,
    Mark,
    MarkKind,
    Role,
    Row,
    chart,
    column_of,
    epoch_at,
    fit_y,
    lr_strip,
    sparkbar,
)
from cbmon.units import short, short_lr

nan, inf = math.nan, math.inf


def curve(y: Sequence[float | None], *, dashed: bool = False, letter: str = "", steps: bool = False) -> Curve:
    return Curve(label="loss", x=range(1, len(y) + 1), y=y, dashed=dashed, letter=letter, steps=steps)


def lines(rows: Sequence[Row]) -> list[str]:
    return ["".join(text for text, _ in row) for row in rows]


FALLING = curve([2.4, 1.6, 1.1, 0.8, 0.6, 0.5, 0.45, 0.42])
STUCK = curve([2.5, 1.9, 1.5, 1.3, 1.2, 1.2, 1.25, 1.3])


# --- literal charts


def test_a_falling_loss() -> None:
    assert lines(chart([FALLING], width=30, height=8, x_limits=(1, 8), y_limits=(0, 2.5))) == [
        "      │⢆                      ",
        "    2 ┤ ⠑⢄                    ",
        "      │   ⠑⠢⡀                 ",
        "    1 ┤     ⠈⠑⠤⢄              ",
        "      │         ⠉⠉⠑⠒⠒⠢⠤⠤⠤⣀⣀⣀⣀⣀",
        "    0 ┤                       ",
        "      └┬──┬─────┬──────┬─────┬",
        "       1  2     4      6     8",
    ]


def test_in_ascii_curves_have_glyphs_and_take_turns_where_they_meet() -> None:
    marks = [Mark(3, MarkKind.LR), Mark(6, MarkKind.BEST)]
    rows = chart([FALLING, STUCK], width=30, height=8, y_limits=(0, 2.5), ascii=True, marks=marks)
    assert lines(rows) == [
        "      |*o                     ",
        "    2 +  *o*                  ",
        "      |     o*oooooooooooooooo",
        "      |        ***************",
        "    0 +                       ",
        "      ++--+-----+------+-----+",
        "       1  2     4      6     8",
        "             v         *      ",
    ]


def test_gaps_stay_gaps_and_infinities_are_marked_at_the_edge() -> None:
    values = [1, 1, 1, None, 1, nan, 1, 1, inf, 0, -inf]
    assert lines(chart([curve(values)], width=29, height=5, y_limits=(0, 2))) == [
        "    2 ┤                 ✗    ",
        "      │⠤⠤⠤⠤⠤   ⠠    ⠤⠤⠄      ",
        "    0 ┤                   ⢀ ✗",
        "      └┬───────┬──────────┬──",
        "       1       5         10  ",
    ]


def test_a_dashed_curve_is_dotted() -> None:
    rows = chart([curve([1] * 8, dashed=True), curve([2] * 8)], width=23, height=5, y_limits=(0, 2))
    assert lines(rows) == [
        "    2 ┤⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉",
        "      │⠄⠄⠄⠄⠄⠄⠄⠄⠄⠄⠄⠄⠄⠄⠄⠄",
        "    0 ┤                ",
        "      └┬─┬───┬────┬───┬",
        "       1 2   4    6   8",
    ]


def test_a_line_is_cut_at_the_edge_not_dropped() -> None:
    assert lines(chart([curve([1, 3, 1])], width=20, height=5, y_limits=(0, 2))) == [
        "    2 ┤ ⢀⠔⠁     ⠉⠢⡀ ",
        "      │⠔⠁         ⠈⠢",
        "    0 ┤             ",
        "      └┬─────┬─────┬",
        "       1     2     3",
    ]


def test_log_axis() -> None:
    assert lines(chart([curve([1e-3, 0.1, 10, 1000])], width=24, height=9, log=True)) == [
        "      │              ⢀⠤⠊",
        "  100 ┤            ⣀⠔⠁  ",
        "      │         ⢀⡠⠊     ",
        "    1 ┤       ⢀⠔⠁       ",
        "      │     ⡠⠊⠁         ",
        " 0.01 ┤  ⢀⠔⠉            ",
        "      │⡠⠒⠁              ",
        "      └┬────┬──────────┬",
        "       1    2          4",
    ]


def test_letters_stand_behind_the_ends_and_make_room_for_each_other() -> None:
    both = [curve([1] * 4, letter="a"), curve([1] * 4, letter="b")]
    assert lines(chart(both, width=24, height=6, x_limits=(1, 8), y_limits=(0, 2)))[:4] == [
        "    2 ┤                 ",
        "      │                 ",
        "      │⠉⠉⠉⠉⠉⠉⠉⠁ab       ",
        "    0 ┤                 ",
    ]


def test_letters_at_the_right_edge_stand_where_no_curve_is() -> None:
    curves = [
        curve([2 - 0.3 * run - 0.1 * epoch for epoch in range(10)], letter="abc"[run]) for run in range(3)
    ]
    assert lines(chart(curves, width=40, height=10, x_limits=(1, 10))) == [
        "  2.0 ┤⣀                                ",
        "      │ ⠉⠉⠒⠢⠤⢄⣀                         ",
        "      │⠒⠒⠤⠤⢄⣀⡀ ⠉⠉⠑⠒⠒⠤⠤⢄⣀⡀               ",
        "  1.5 ┤⠤⣀⣀   ⠈⠉⠑⠒⠤⠤⣀⣀   ⠈⠉⠒⠒⠤⠤⣀⡀       a",
        "      │   ⠉⠉⠑⠒⠒⠤⠤⢄⣀  ⠉⠉⠑⠒⠒⠤⠤⣀⡀ ⠈⠉⠉⠑⠒⠒⠤⠤⣀",
        "  1.0 ┤            ⠉⠉⠒⠒⠢⠤⠤⣀⣀ ⠈⠉⠉⠒⠒⠢⠤⠤⣀⣀ ",
        "      │                     ⠉⠉⠒⠢⠤⢄⣀⡀ cb⠉",
        "  0.5 ┤                            ⠈⠉⠉⠒⠒",
        "      └┬──┬───────┬──────┬──────┬──────┬",
        "       1  2       4      6      8     10",
    ]


def test_zoomed_curves_have_their_letters_where_they_leave() -> None:
    curves = [
        curve([2 - 0.3 * run - 0.1 * epoch for epoch in range(10)], letter="abc"[run]) for run in range(3)
    ]
    assert lines(chart(curves, width=40, height=10, x_limits=(3, 6))) == [
        "  2.0 ┤                                 ",
        "      │⠒⠒⠤⠤⠤⠤⣀⣀⣀⡀                       ",
        "      │         ⠈⠉⠉⠉⠉⠒⠒⠒⠒⠒⠤⠤⠤⠤⢄⣀⣀⣀     a",
        "  1.5 ┤⠒⠒⠤⠤⠤⠤⣀⣀⣀⡀                 ⠉⠉⠉⠉⠒⠒",
        "      │         ⠈⠉⠉⠉⠉⠒⠒⠒⠒⠒⠤⠤⠤⠤⢄⣀⣀⣀     b",
        "      │⠒⠒⠒⠤⠤⠤⠤⠤⢄⣀⣀⣀⣀              ⠉⠉⠉⠉⠒⠒",
        "  1.0 ┤             ⠉⠉⠉⠑⠒⠒⠒⠤⠤⠤⠤⢄⣀⣀⣀⣀⣀  c",
        "      │                              ⠉⠉⠉",
        "      └┬──────────┬─────────┬──────────┬",
        "       3          4         5          6",
    ]


def test_eight_letters_of_equal_curves_hide_neither_each_other_nor_the_curve() -> None:
    curves = [curve([1] * 10, letter=letter) for letter in "abcdefgh"]
    assert lines(chart(curves, width=40, height=6, x_limits=(1, 10), y_limits=(0, 2)))[:4] == [
        "    2 ┤                               hg",
        "      │                              eca",
        "      │⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉",
        "    0 ┤                              fdb",
    ]


def test_a_curve_can_have_the_colour_of_another_place() -> None:
    first, second = (
        Curve(label="", x=[1, 2], y=[at, at], number=number) for at, number in ((1, 9), (2, None))
    )
    roles = [role for row in chart([first, second], width=20, height=6) for _, role in row]
    assert [role for role in roles if role in CURVE_ROLES] == [Role.CURVE1, Role.CURVE1]


# --- the cursor


def test_the_cursor_is_a_line_behind_the_curves_and_a_mark_on_the_axis() -> None:
    rows = chart([FALLING], width=40, height=8, x_limits=(1, 12), y_limits=(0, 2.5), cursor=6)
    assert lines(rows) == [
        "      │⢆              │                 ",
        "    2 ┤ ⠑⢄            │                 ",
        "      │   ⠑⠤⡀         │                 ",
        "    1 ┤     ⠈⠢⠤⡀      │                 ",
        "      │        ⠈⠉⠉⠒⠒⠢⠤⠤⢄⣀⣀⣀⣀            ",
        "    0 ┤               │                 ",
        "      └┬───────────┬──┴──────────┬──────",
        "       1           5            10      ",
    ]
    assert rows[2][-1] == ("│                 ", Role.DIM)
    assert rows[6][1] == ("┴", Role.CURSOR)


def test_the_cursor_in_ascii_and_on_a_tick() -> None:
    rows = chart([FALLING], width=40, height=8, x_limits=(1, 12), y_limits=(0, 2.5), cursor=5, ascii=True)
    assert lines(rows) == [
        "      |*           |                    ",
        "    2 + **         |                    ",
        "      |   **       |                    ",
        "    1 +     ****** |                    ",
        "      |           **********            ",
        "    0 +            |                    ",
        "      ++-----------|-------------+------",
        "       1           5            10      ",
    ]
    rows = chart([FALLING], width=40, height=8, x_limits=(1, 12), y_limits=(0, 2.5), cursor=5)
    assert lines(rows)[6] == "      └┬───────────┼─────────────┬──────"


@pytest.mark.parametrize("cursor", [0, 13, nan, inf])
def test_a_cursor_outside_is_not_drawn(cursor: float) -> None:
    plain = chart([FALLING], width=40, height=8, x_limits=(1, 12))
    assert chart([FALLING], width=40, height=8, x_limits=(1, 12), cursor=cursor) == plain


@given(st.integers(2, 120), st.integers(1, 50), st.integers(1, 400), st.booleans(), st.data())
def test_columns_and_epochs_lead_to_each_other(
    width: int, first: int, epochs: int, ascii: bool, data: st.DataObject
) -> None:
    limits = (float(first), float(first + epochs))
    column = data.draw(st.integers(-2, width + 1))
    epoch = epoch_at(column, width, limits, ascii=ascii)
    gutter = 7 if width >= 16 else 0
    assert (epoch is None) == (not gutter <= column < width)
    if epoch is not None:
        assert limits[0] <= epoch <= limits[1]
        there = column_of(epoch, width, limits, ascii=ascii)
        assert there is not None
        assert abs(there - column) <= 1 + (width - gutter) / epochs / 2
    some = data.draw(st.integers(first, first + epochs))
    at = column_of(some, width, limits, ascii=ascii)
    assert at is not None
    back = epoch_at(at, width, limits, ascii=ascii)
    assert back is not None
    assert abs(back - some) <= 1 + epochs / (width - gutter - 1) / 2
    if width - gutter > 2 * epochs:
        assert back == some, "a click on a point reads that point"


# --- the learning rate: steps in a few rows

FLOAT32_RATES = [0.0010000000474974513] * 12 + [9.999999747378752e-05] * 8 + [9.999999747378752e-06] * 4


def test_a_learning_rate_in_three_rows() -> None:
    rate = curve(FLOAT32_RATES, steps=True)
    assert lines(chart([rate], width=40, height=3, x_limits=(1, 32), log=True, axis=False)) == [
        " 1e-3 ┤⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⢹                    ",
        "      │            ⠸⠤⠤⠤⠤⠤⠤⠤⠤⡄           ",
        " 1e-5 ┤                     ⣇⣀⣀⡀        ",
    ]
    assert lines(chart([rate], width=40, height=4, x_limits=(1, 32), log=True, axis=False, ascii=True)) == [
        " 1e-3 +*************                    ",
        "      |            *                    ",
        "      |            **********           ",
        " 1e-5 +                     ****        ",
    ]
    assert lines(chart([rate], width=40, height=5, x_limits=(1, 32), log=True))[3:] == [
        "      └┬────────┬──────────┬─────────┬──",
        "       1       10         20        30  ",
    ]


def test_steps_with_a_gap_and_dotted() -> None:
    values = [1, 3, None, 2, 2, 0, 2]
    assert lines(chart([curve(values, steps=True)], width=40, height=6, y_limits=(0, 4)))[:4] == [
        "    4 ┤                                 ",
        "    3 ┤     ⢸                           ",
        "    1 ┤⣀⣀⣀⣀⣀⣸          ⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⡇    ⢸",
        "    0 ┤                           ⣇⣀⣀⣀⣀⣸",
    ]
    assert lines(chart([curve(values, steps=True, dashed=True)], width=40, height=6, y_limits=(0, 4)))[
        :4
    ] == [
        "    4 ┤                                 ",
        "    3 ┤     ⠨                           ",
        "    1 ┤⡀⡀⡀⡀⡀⣨          ⠁⠁⠁⠁⠁⠁⠁⠁⠁⠁⠁⠅    ⠨",
        "    0 ┤                           ⡅⡀⡀⡀⡀⣨",
    ]


@pytest.mark.parametrize("curves", [[], [curve([])], [curve([None, nan])]], ids=["none", "no points", "gaps"])
def test_without_values_the_axes_are_empty_and_say_so(curves: list[Curve]) -> None:
    assert lines(chart(curves, width=30, height=6, x_limits=(1, 50), marks=())) == [
        "      │                       ",
        "      │     no values yet     ",
        "      │                       ",
        "      └┬───────┬─────────┬────",
        "       1      20        40    ",
        "                              ",
    ]


def test_a_small_chart_drops_labels_and_then_the_axis() -> None:
    zigzag = [curve([3, 1, 2])]
    assert lines(chart(zigzag, width=8, height=3)) == ["⠢⢄      ", "  ⠉⠒⠤⠒⠒⠉", "┬───┬──┬"]
    assert lines(chart(zigzag, width=8, height=2)) == ["⠢⢄      ", "  ⠉⠒⠤⠒⠒⠉"]
    assert chart(zigzag, width=0, height=2) == ((), ())
    assert chart(zigzag, width=8, height=0) == ()


def test_values_that_differ_in_the_eighth_digit_have_a_readable_axis() -> None:
    rows = lines(chart([curve([0.3, 0.30000004, 0.30000008])], width=24, height=9))
    assert [row[:6].strip() for row in rows[:7] if row[6] == "┤"] == ["+5e-8", "0.3"]


# --- spans


def test_neighbours_of_a_role_are_one_span_and_blanks_join_them() -> None:
    rows = chart([curve([1, 2])], width=20, height=5, y_limits=(0, 3), marks=[Mark(1, MarkKind.BAD)])
    assert rows == (
        (("    2 ", Role.LABEL), ("┤      ", Role.AXIS), ("⢀⣀⣀⣀⡠⠤⠤", Role.CURVE0)),
        (("    0 ", Role.LABEL), ("┤", Role.AXIS), ("⠒⠒⠊⠉⠉⠉⠁      ", Role.CURVE0)),
        (("      └┬───────────┬", Role.AXIS),),
        (("       1           2", Role.LABEL),),
        (("       ✗            ", Role.BAD),),
    )


def test_where_curves_meet_the_later_one_colours_and_the_dots_merge() -> None:
    upper, lower = curve([1.0, 1.0]), curve([0.75, 0.75])
    (row, _) = chart([upper, lower], width=4, height=2, y_limits=(0.125, 1))
    assert row == (("⠭⠭⠭⠭", Role.CURVE1),)


def test_beyond_eight_curves_roles_repeat() -> None:
    rows = chart([curve([n, n]) for n in range(10)], width=20, height=24)
    seen = [role for row in rows for _, role in row if role.startswith("curve")]
    assert sorted(set(seen)) == list(CURVE_ROLES)
    assert len(seen) == 10
    assert len(CURVE_GLYPHS) == len(set(CURVE_GLYPHS)) == len(CURVE_ROLES) == 8


def test_on_the_rail_the_more_severe_mark_wins() -> None:
    order = [MarkKind.BAD, MarkKind.STOP, MarkKind.RESTART, MarkKind.SHADOW, MarkKind.LR]
    assert list(MarkKind)[:5] == order
    for better, worse in pairwise(MarkKind):
        for marks in ([Mark(2, better), Mark(2, worse)], [Mark(2, worse), Mark(2, better)]):
            rows = chart([FALLING], width=30, height=8, marks=marks)
            assert rows[-1] == ((lines(rows)[-1], better.role),)
            assert lines(rows)[-1].strip() == better.glyph


def test_marks_have_ascii_twins_and_stay_away_when_outside() -> None:
    marks = [Mark(x, kind) for x, kind in enumerate(MarkKind, start=1)] + [Mark(99, MarkKind.BAD)]
    marks += [Mark(nan, MarkKind.BAD), Mark(0, MarkKind.BAD)]
    shown = [
        lines(chart([FALLING], width=30, height=8, marks=marks, ascii=ascii))[-1] for ascii in (False, True)
    ]
    assert ["".join(row.split()) for row in shown] == ["✗■↻◇▼★◌◆", "!#rov*.d"]


# --- limits and ticks

LINEAR = [
    ([2.303, 0.301], (0, 2.5)),
    ([0.4187, 0.4201], (0.4186, 0.4202)),
    ([0.91, 0.97], (0.9, 0.98)),
    ([-3, 5], (-4, 6)),
    ([0.5, 0.5], (0, 0.6)),
    ([2.3], (0, 2.5)),
    ([-2.0], (-2.5, 0)),
    ([0.0], (0, 1)),
    ([1e27, 3e27], (5e26, 3.5e27)),
    ([None, nan, inf, 1, 3], (0.5, 3.5)),
]


@pytest.mark.parametrize(("values", "expected"), LINEAR, ids=lambda case: str(case))
def test_y_limits_are_round_and_leave_room(values: list[float | None], expected: Limits) -> None:
    assert y_limits([values]) == pytest.approx(expected)


def test_y_limits_on_a_log_axis() -> None:
    assert y_limits([[2.303, 0.301]], log=True) == (0.2, 5)
    assert y_limits([[3e-6, 0.3, 0, -1]], log=True) == (1e-6, 1)
    assert y_limits([[1.0]], log=True) == (1, 2)
    assert y_limits([[0, -1, nan]], log=True) is None


def test_y_limits_move_only_the_side_that_is_left() -> None:
    assert y_limits([[1, 2]], previous=(0.5, 2.5)) == (0.5, 2.5)
    assert y_limits([[1, 3]], previous=(0.5, 2.5)) == (0.5, 3.5)
    assert y_limits([[nan]], previous=(0.5, 2.5)) == (0.5, 2.5)
    assert y_limits([[nan]]) is None
    assert y_limits([[1, 2]], log=True, previous=(0, 9)) == (1, 2), "limits of the linear axis do not count"


def test_y_limits_on_a_log_axis_do_not_see_that_keras_rounds_to_float32() -> None:
    assert y_limits([FLOAT32_RATES], log=True) == pytest.approx((1e-5, 1e-3))
    assert y_limits([FLOAT32_RATES[:20]], log=True) == pytest.approx((1e-4, 1e-3))


def test_y_limits_of_curves_in_view_widen_until_they_are_fitted_anew() -> None:
    run = [curve([100, 10, 3, 2, 1, 1, 1, 5])]
    for log, steps in ((False, [(0.5, 3.5), (0.5, 12.0), (0.0, 12.0)]), (True, [(1, 5), (1, 10), (0.2, 10)])):
        zoomed = fit_y(run, (3, 7), log=log)
        assert zoomed == pytest.approx(steps[0])
        panned = fit_y(run, (2, 6), log=log, previous=zoomed)
        assert panned == pytest.approx(steps[1])
        assert fit_y(run, (3, 7), log=log, previous=panned) == panned, "limits only widen"
        assert fit_y([curve([*run[0].y, 0.2])], (3, 9), log=log, previous=panned) == pytest.approx(steps[2])
        assert fit_y(run, (3, 7), log=log) == zoomed, "fitted anew"
        assert fit_y(run, (20, 30), log=log, previous=zoomed) == zoomed, "nothing in view"
    assert fit_y(run, (20, 30)) is None


def test_a_chart_without_y_limits_takes_those_of_what_is_in_view() -> None:
    labels = [
        row[:6].strip()
        for row in lines(chart([curve([100, 10, 3, 2, 1])], width=30, height=9, x_limits=(3, 5)))
    ]
    assert [label for label in labels if label] == ["3", "2", "1"]


# --- a window on the epochs


def test_zooming_keeps_what_is_read_and_ends_at_four_epochs_and_at_the_whole() -> None:
    bounds, window, seen = (1.0, 200.0), None, []
    for _ in range(8):
        window = Window.zoomed(window, 2, 41, bounds, newest=41)
        seen.append(window_limits(window, bounds, 41))
    assert seen == [(1, 41), (21, 41), (31, 41), (36, 41), *[(38, 41)] * 4]
    for _ in range(4):
        window = Window.zoomed(window, 0.5, 41, bounds, newest=41)
        seen.append(window_limits(window, bounds, 41))
    assert seen[8:] == [(34, 41), (26, 41), (10, 41), (1, 200)]
    assert window is None
    middle = Window.zoomed(Window.zoomed(None, 2, 11, bounds, newest=41), 2, 11, bounds, newest=41)
    assert window_limits(middle, bounds, 41) == (6, 26), "what is read stays where it was"
    assert Window.zoomed(None, 0.5, 41, bounds, newest=41) is None
    assert Window.zoomed(None, 2, 1, (1, 4), newest=1) is None, "nothing to zoom"


@given(
    st.integers(1, 300),
    st.none() | st.integers(1, 400),
    st.integers(1, 300),
    st.integers(1, 9),
)
def test_zooming_out_as_often_as_in_shows_the_whole_again(
    newest: int, planned: int | None, around: int, times: int
) -> None:
    bounds, window = x_limits(1, newest, planned), None
    for _ in range(times):
        window = Window.zoomed(window, 2, around, bounds, newest)
        low, high = window_limits(window, bounds, newest)
        assert window is None or high <= max(newest, low + 3), "nothing of what is still to come"
    for _ in range(times):
        window = Window.zoomed(window, 0.5, around, bounds, newest)
    assert window is None


def test_a_window_with_the_newest_epoch_follows_it_in_strides() -> None:
    window = Window(21, 41, follows=True)
    shown = [window_limits(window, (1, 200), newest) for newest in (30, 41, 42, 46, 47, 200)]
    assert shown == [(21, 41), (21, 41), (26, 46), (26, 46), (31, 51), (180, 200)]
    fixed = Window(21, 41, follows=False)
    assert window_limits(fixed, (1, 200), 150) == (21, 41)


def test_panning_stops_at_the_bounds_and_follows_again_at_the_newest_epoch() -> None:
    window = Window(21, 41, follows=True)
    back = window.panned(-0.5, (1, 200), newest=41)
    assert back == Window(11, 31, follows=False)
    assert back.panned(-math.inf, (1, 200), newest=41) == Window(1, 21, follows=False)
    assert back.panned(0.5, (1, 200), newest=41) == window
    assert back.panned(math.inf, (1, 200), newest=41) == Window(180, 200, follows=False)
    assert Window(10, 13, follows=False).panned(0.1, (1, 200), newest=41).first == 11, "at least an epoch"


def test_a_window_moves_to_show_an_epoch() -> None:
    window = Window(21, 41, follows=False)
    found = [window.showing(epoch, (1, 200), newest=60) for epoch in (30, 20, 45, 60, 999)]
    assert [(one.first, one.last) for one in found] == [(21, 41), (20, 40), (25, 45), (40, 60), (180, 200)]
    assert [one.follows for one in found] == [False, False, False, True, False]


@given(
    st.lists(
        st.tuples(st.sampled_from(["zoom", "pan", "show"]), st.floats(-3, 3) | st.sampled_from([inf, -inf])),
        max_size=20,
    ),
    st.integers(1, 300),
    st.none() | st.integers(1, 400),
)
def test_a_window_lies_within_the_bounds_whatever_is_done_while_the_run_grows(
    steps: list[tuple[str, float]], newest: int, planned: int | None
) -> None:
    window: Window | None = None
    bounds = x_limits(1, newest, planned)
    for action, by in steps:
        if action == "zoom":
            window = Window.zoomed(window, 2 if by > 0 else 0.5, max(-1e9, min(1e9, by)) * 40, bounds, newest)
        elif window and action == "pan":
            window = window.panned(by, bounds, newest)
        elif window:
            window = window.showing(max(-1e9, min(1e9, by)) * 40, bounds, newest)
        followed = window is not None and window.follows
        newest += 7
        bounds = x_limits(1, newest, planned, bounds)
        low, high = window_limits(window, bounds, newest)
        assert bounds[0] <= low < high <= bounds[1]
        assert (low, high) == (round(low), round(high)), "whole epochs"
        assert window is None or high - low >= min(3, bounds[1] - bounds[0])
        assert not followed or low <= newest <= high


def test_x_limits_are_the_plan_or_widen_by_half() -> None:
    assert x_limits(1, 3, planned=200) == (1, 200)
    assert x_limits(1, 200, planned=200) == (1, 200)
    assert x_limits(1, 3) == (1, 10)
    assert x_limits(1, 11, previous=(1, 10)) == (1, 15)
    assert x_limits(1, 3, previous=(1, 15)) == (1, 15)
    assert x_limits(1, 205, planned=200, previous=(1, 200)) == (1, 300), "a plan that was passed is no plan"


TICKS = [
    ((0, 2.5, 6), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]),
    ((0, 2.5, 3), ["0", "1", "2"]),
    ((0, 12000, 4), ["0", "5000", "10000"]),
    ((0, 5e-5, 5), ["0", "2e-5", "4e-5"]),
    ((0.4186, 0.4202, 4), [".4190", ".4195", ".4200"]),
    ((-2e27, 2e27, 9), ["-2e27", "-1e27", "0", "1e27", "2e27"]),
    ((2.3e27, 2.36e27, 4), ["2.3e27", "+2e25", "+4e25", "+6e25"]),
    ((0.3, 0.3 + 6e-8, 4), ["0.3", "+2e-8", "+4e-8", "+6e-8"]),
    ((0.31415926, 0.31415932, 4), ["-4e-8", "-2e-8", "~.3142", "+2e-8"]),
    ((1234500, 1234900, 5), ["~1.2e6", "+100", "+200", "+300", "+400"]),
    ((0.2, 5, 9, True), ["0.2", "0.5", "1", "2", "5"]),
    ((0.2, 5, 3, True), ["0.2", "1", "5"]),
    ((1e-4, 1, 5, True), ["1e-4", "1e-3", "0.01", "0.1", "1"]),
    ((1e-8, 1e27, 8, True), ["1e-5", "1", "1e5", "1e10", "1e15", "1e20", "1e25"]),
    ((0.31, 0.32, 4, True), ["0.310", "0.315", "0.320"]),
    ((1, 3, 9, False, True), ["1", "2", "3"]),
]


@pytest.mark.parametrize(("arguments", "expected"), TICKS, ids=lambda case: str(case))
def test_tick_labels(arguments: tuple[float, float, int], expected: list[str]) -> None:
    assert [label for _, label in ticks(*arguments)] == expected


# --- numbers and single rows

SHORT = [
    (0.412, ".4120", "0.412"),
    (1.2034, "1.203", "1.2"),
    (123.44, "123.4", "123"),
    (1234.4, "1234", "1.23e3"),
    (12345, "12345", "1.23e4"),
    (0.99996, "1.000", "1"),
    (0.0419, ".04190", "0.0419"),
    (-0.5, "-.5000", "-0.5"),
    (1.2e27, "1.2e27", "1.2e27"),
    (0.00041, "4.1e-4", "4.1e-4"),
    (0.0010000000474974513, ".001000", "1e-3"),
    (0.009999999776482582, ".01000", "0.01"),
    (0, "0", "0"),
    (None, "–", "–"),
    (nan, "nan", "nan"),
    (-inf, "-inf", "-inf"),
]


@pytest.mark.parametrize(("value", "metric", "rate"), SHORT)
def test_short_numbers(value: float | None, metric: str, rate: str) -> None:
    assert (short(value), short_lr(value)) == (metric, rate)


BARS = [
    (0.21, "━━╸─────────", "==>---------"),
    (0, "────────────", "------------"),
    (1e-9, "╸───────────", ">-----------"),
    (0.9999, "━━━━━━━━━━━╸", "===========>"),
    (1, "━━━━━━━━━━━━", "============"),
    (7, "━━━━━━━━━━━━", "============"),
    (None, "────────────", "------------"),
    (nan, "────────────", "------------"),
]


@pytest.mark.parametrize(("fraction", "bar", "ascii_bar"), BARS)
def test_progress_bar(fraction: float | None, bar: str, ascii_bar: str) -> None:
    assert (sparkbar(fraction, 12), sparkbar(fraction, 12, ascii=True)) == (bar, ascii_bar)


STRIPS = [
    ([1e-3] * 4 + [1e-4] * 6, "▔▔▔▔╲▁▁▁▁▁", r"^^^^\_____"),
    ([1e-3] * 3, "▔▔▔▔▔▔▔▔▔▔", "^^^^^^^^^^"),
    ([1e-3, 1e-4, 1e-5, 1e-5, 1e-3], "▔▔╲─╲▁▁▁╱▔", r"^^\-\___/^"),
    ([None, 1e-3, nan, 1e-3, 0], "  ▔▔  ▔▔╲▁", r"  ^^  ^^\_"),
    ([0, 0], "▁▁▁▁▁▁▁▁▁▁", "__________"),
    ([], "          ", "          "),
]


@pytest.mark.parametrize(("rates", "strip", "ascii_strip"), STRIPS)
def test_learning_rate_strip(rates: list[float | None], strip: str, ascii_strip: str) -> None:
    assert (lr_strip(rates, 10), lr_strip(rates, 10, ascii=True)) == (strip, ascii_strip)


# --- laws

numbers = st.floats() | st.sampled_from(
    [0.0, 1e308, -1e308, 1.7976931348623157e308, 5e-324, -5e-324, 1e27, nan]
)
values = st.lists(st.none() | numbers | st.floats(-10, 10), max_size=40)
limits = st.none() | st.tuples(numbers, numbers)


@st.composite
def any_curve(draw: st.DrawFn) -> Curve:
    y = draw(values)
    x: Sequence[float] = range(1, len(y) + 1)
    if draw(st.booleans()):
        x = draw(st.lists(numbers | st.floats(0, 50), min_size=len(y), max_size=len(y)))
    return Curve(
        label="",
        x=x,
        y=y,
        x_offset=draw(st.sampled_from([0, 1])),
        dashed=draw(st.booleans()),
        steps=draw(st.booleans()),
        letter=draw(st.sampled_from(["", "a"])),
        number=draw(st.none() | st.integers(0, 20)),
    )


@settings(deadline=None)
@given(
    curves=st.lists(any_curve(), max_size=4),
    width=st.integers(0, 200),
    height=st.integers(0, 200) | st.integers(0, 8),
    x=limits,
    y=limits,
    log=st.booleans(),
    ascii=st.booleans(),
    marks=st.none()
    | st.lists(st.builds(Mark, numbers | st.floats(0, 40), st.sampled_from(MarkKind)), max_size=9),
    axis=st.booleans(),
    cursor=st.none() | numbers | st.floats(0, 40),
)
@example([curve([1.7976931348623157e308])], 1, 1, (1, 1), (-1e300, 1e300), False, True, None, True, None)
def test_any_values_at_any_size_fill_exactly_that_size(
    curves: list[Curve],
    width: int,
    height: int,
    x: Limits | None,
    y: Limits | None,
    log: bool,
    ascii: bool,
    marks: list[Mark] | None,
    axis: bool,
    cursor: float | None,
) -> None:
    rows = chart(
        curves,
        width=width,
        height=height,
        x_limits=x,
        y_limits=y,
        log=log,
        ascii=ascii,
        marks=marks,
        axis=axis,
        cursor=cursor,
    )
    assert len(rows) == height
    for row in rows:
        assert sum(len(text) for text, _ in row) == width
        assert all(text for text, _ in row)
        assert all(one != other for (_, one), (_, other) in pairwise(row))
        assert all(
            glyph.isprintable() and not (ascii and ord(glyph) > 126) for text, _ in row for glyph in text
        )


def dots(rows: Sequence[Row]) -> set[tuple[int, int]]:
    """The braille dots of a chart without labels and axis, as (column, row)."""
    at = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
    return {
        (column * 2 + right, row * 4 + down)
        for row, line in enumerate(lines(rows))
        for column, glyph in enumerate(line)
        for bit, (right, down) in enumerate(at)
        if glyph != " " and (ord(glyph) - 0x2800) >> bit & 1
    }


def plot(
    y: Sequence[float | None], dashed: bool, x_end: int, y_range: Limits = (0, 1)
) -> set[tuple[int, int]]:
    """15 × 2 cells without labels: 30 × 8 dots."""
    return dots(
        chart([curve(y, dashed=dashed)], width=15, height=2, x_limits=(1, x_end), y_limits=y_range, empty="")
    )


unit = st.floats(0, 1)


@given(st.lists(unit, min_size=1, max_size=400), st.integers(0, 399), st.booleans())
def test_a_spike_of_one_epoch_keeps_its_tip(y: list[float], at: int, dashed: bool) -> None:
    at %= len(y)
    y[at] = 3.0
    column = at / max(len(y) - 1, 1) * 29
    tips = [dot for dot, row in plot(y, dashed, max(len(y), 2), (0, 3)) if row == 0]
    assert min(abs(dot - column) for dot in tips) < 0.501, "half a dot, and rounding"


@given(st.lists(unit, min_size=1, max_size=30), st.lists(unit, min_size=1, max_size=30), st.booleans())
def test_a_gap_is_never_joined(before: list[float], after: list[float], dashed: bool) -> None:
    gap: list[float | None] = [None, nan, inf, None]
    joined = [*before, *gap[:2], *gap[3:], *after]
    lone = Curve(label="", x=range(len(before) + 4, len(joined) + 1), y=after, dashed=dashed)
    parts = dots(
        chart(
            [curve(before, dashed=dashed), lone],
            width=15,
            height=2,
            x_limits=(1, len(joined)),
            y_limits=(0, 1),
            empty="",
        )
    )
    assert plot(joined, dashed, len(joined)) == parts


@given(st.lists(st.none() | unit, min_size=2, max_size=100), st.integers(1, 100), st.booleans())
def test_a_new_epoch_changes_nothing_left_of_the_last_one(
    y: list[float | None], cut: int, dashed: bool
) -> None:
    cut = min(cut, len(y) - 1)
    edge = round((cut - 1) / (len(y) - 1) * 29)
    short_run, long_run = plot(y[:cut], dashed, len(y)), plot(y, dashed, len(y))
    assert {dot for dot in short_run if dot[0] < edge} == {dot for dot in long_run if dot[0] < edge}


@given(st.lists(unit, min_size=1, max_size=12))
def test_every_curve_with_a_value_shows(y: list[float]) -> None:
    assert plot(y, True, max(len(y), 2))
    assert plot([None, y[0], None], True, 3), "a lone point between gaps"


@given(st.lists(st.lists(unit, min_size=1, max_size=30), min_size=1, max_size=8), st.integers(20, 60))
def test_letters_take_blank_cells_as_long_as_there_are_some(runs: list[list[float]], width: int) -> None:
    def drawn(letters: Sequence[str]) -> str:
        curves = [curve(run, letter=letter) for run, letter in zip(runs, letters, strict=False)]
        return "".join(lines(chart(curves, width=width, height=12, x_limits=(1, 30), y_limits=(0, 1.5))))

    with_letters, without = drawn("abcdefgh"), drawn([""] * 8)
    assert "".join(sorted(filter(str.isalpha, with_letters))) == "abcdefgh"[: len(runs)]
    assert without == "".join(" " if glyph.isalpha() else glyph for glyph in with_letters)


@given(st.lists(values, min_size=2, max_size=6), st.booleans())
def test_y_limits_only_widen_and_hold_every_value(batches: list[list[float | None]], log: bool) -> None:
    previous: Limits | None = None
    for batch in batches:
        now = y_limits([batch], log=log, previous=previous)
        for value in batch:
            if value is not None and math.isfinite(value) and (1e-300 if log else -1e300) <= value <= 1e300:
                assert now is not None
                assert now[0] <= value <= now[1]
        assert previous is None or (now is not None and now[0] <= previous[0] and previous[1] <= now[1])
        assert now is None or (now[0] < now[1] and math.isfinite(now[1] - now[0]))
        assert y_limits([batch], log=log, previous=now) == now
        previous = now


@given(st.lists(numbers, min_size=2, max_size=8), st.none() | numbers)
def test_x_limits_hold_the_epochs_and_widen_without_a_plan(ends: list[float], planned: float | None) -> None:
    low, high = x_limits(ends[0], ends[1], planned)
    assert low < high < inf
    previous = x_limits(1, 1)
    for last in range(1, 300, 7):
        now = x_limits(1, last, previous=previous)
        assert now[0] == 1
        assert now[1] >= max(last, previous[1])
        previous = now


@given(numbers, numbers, st.integers(0, 40), st.booleans(), st.booleans())
def test_ticks_fit_their_columns_and_do_not_crowd(
    a: float, b: float, count: int, log: bool, whole: bool
) -> None:
    found = ticks(a, b, count, log, whole)
    assert len(found) <= max(count, 6)
    assert all(0 < len(label) <= 6 for _, label in found)
    assert len({label for _, label in found}) == len(found)
    assert sorted(found) == found


@given(values, st.integers(-1, 90), st.booleans(), st.none() | numbers)
def test_single_rows_have_exactly_their_width(
    y: list[float | None], width: int, ascii: bool, fraction: float | None
) -> None:
    for text in (lr_strip(y, width, ascii), sparkbar(fraction, width, ascii)):
        assert len(text) == max(width, 0)
        assert text.isascii() or not ascii


@given(numbers)
def test_short_numbers_are_short_and_true(value: float) -> None:
    assert len(short(value)) <= 10
    if abs(value) < 1e308:
        assert float(short(value)) == pytest.approx(value, rel=0.006)
        assert float(short_lr(value)) == pytest.approx(value, rel=0.006)


def test_x_labels_never_touch() -> None:
    for width in range(16, 120):
        for end in (1, 2, 7, 60, 199, 1234, 99_999, 1_500_000):
            axis, labels = lines(chart([FALLING], width=width, height=6, x_limits=(1, end)))[4:6]
            assert axis.count("┬") == len(labels.split())
            assert labels.split()[0] == "1"


def test_a_million_points_keep_one_spike_and_buffers_need_no_copy() -> None:
    y = array("d", [0.5]) * 1_000_000
    y[123_456] = 2.9
    million = Curve(label="", x=range(1_000_000), y=y)
    assert lines(chart([million], width=12, height=2, y_limits=(0, 3))) == [
        " ⢸          ",
        "⠤⠼⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤",
    ]
