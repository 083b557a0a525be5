"""Charts as literal text first, then the laws: exact size, gaps, spikes, limits that only widen."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cbmon.axes import Limits, ticks, x_limits, y_limits
from cbmon.chart import (
    CURVE_GLYPHS,
    CURVE_ROLES,
    Curve,
    Mark,
    MarkKind,
    Role,
    Row,
    chart,
    lr_strip,
    sparkbar,
)
from cbmon.units import short, short_lr

nan, inf = math.nan, math.inf


def curve(y: Sequence[float | None], *, dashed: bool = False, letter: str = "") -> Curve:
    return Curve(label="loss", x=range(1, len(y) + 1), y=y, dashed=dashed, letter=letter)


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
        "      │        b        ",
        "      │⠉⠉⠉⠉⠉⠉⠉⠁a        ",
        "    0 ┤                 ",
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
    order = [MarkKind.BAD, MarkKind.STOP, MarkKind.RESTART, MarkKind.LR, MarkKind.BEST]
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
    assert ["".join(row.split()) for row in shown] == ["✗■↻▼★◌◇◆", "!#rv*.od"]


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
    ((1e-4, 1, 5, True), ["1e-4", "0.001", "0.01", "0.1", "1"]),
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
    return Curve(label="", x=x, y=y, dashed=draw(st.booleans()), letter=draw(st.sampled_from(["", "a"])))


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
)
@example([curve([1.7976931348623157e308])], 1, 1, (1, 1), (-1e300, 1e300), False, True, None)
def test_any_values_at_any_size_fill_exactly_that_size(
    curves: list[Curve],
    width: int,
    height: int,
    x: Limits | None,
    y: Limits | None,
    log: bool,
    ascii: bool,
    marks: list[Mark] | None,
) -> None:
    rows = chart(
        curves, width=width, height=height, x_limits=x, y_limits=y, log=log, ascii=ascii, marks=marks
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
