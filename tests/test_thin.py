"""Long curves: whichever way leaves points out, the picture is the one of all points read one by one."""

from __future__ import annotations

import math
import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cbmon import thin
from cbmon.axes import Limits, y_limits
from cbmon.chart import Curve, Row, chart, fit_y
from cbmon.series import Column

nan, inf = math.nan, math.inf
NEVER = sys.maxsize
WAYS = {"slices": NEVER, "numpy": 1}
"""How many points are large, so that every curve goes each way."""


@contextmanager
def large_from(points: int) -> Iterator[None]:
    """Curves of any density and of so many points are thinned by NumPy, shorter ones by slices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thin, "LARGE", points)
        patch.setattr(thin, "LARGE_ALONE", points)
        patch.setattr(thin, "_DENSE", 0)
        yield


def column_of(values: Sequence[float | None]) -> Column:
    column = Column()
    column.extend(values)
    return column


values = (
    st.floats(0.1, 5)
    | st.sampled_from([1e-3, 0.01, 0.1, 1.0, 10.0, 100.0])
    | st.sampled_from([None, nan, 0.0, -1.0, inf, -inf, 1e308, -1e308])
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[int], list[float | None]]:
    """Epochs that rise by one or by more, and values: with single gaps, long gaps, or every n-th only."""
    y = draw(st.lists(draw(st.sampled_from([values, st.floats(0.1, 5)])), max_size=120))
    step = draw(st.sampled_from([1, 1, 2, 5]))
    y = [value if row % step == 0 else None for row, value in enumerate(y)]
    pauses = draw(
        st.lists(st.sampled_from([1, 1, 1, 2, 40]), min_size=len(y), max_size=len(y)) | st.just([1] * len(y))
    )
    return [epoch - 1 for epoch in accumulate(pauses)], y


whole = st.integers(-3, 200)


@settings(deadline=None, max_examples=300)
@given(
    run=runs(),
    x_limits=st.none() | st.tuples(whole, whole),
    y=st.none() | st.sampled_from([(0.1, 1.0), (0.5, 2.0), (-2.0, 5.0), (1e-3, 100.0)]),
    log=st.booleans(),
    dashed=st.booleans(),
    steps=st.booleans(),
    ascii=st.booleans(),
    width=st.integers(1, 40),
    height=st.integers(1, 12),
)
@example(([0, 1, 2], [0.1, nan, 10.0]), None, None, True, False, False, False, 20, 8)
def test_every_way_gives_the_picture_of_all_points(
    run: tuple[list[int], list[float | None]],
    x_limits: Limits | None,
    y: Limits | None,
    log: bool,
    dashed: bool,
    steps: bool,
    ascii: bool,
    width: int,
    height: int,
) -> None:
    epochs, found = run

    def drawn(x: Sequence[float], y_of: thin.CurveValues, offset: int = 0) -> tuple[Row, ...]:
        curve = Curve(label="", x=x, y=y_of, x_offset=offset, dashed=dashed, steps=steps, letter="a")
        return chart([curve], width=width, height=height, x_limits=x_limits, y_limits=y, log=log, ascii=ascii)

    expected = drawn([epoch + 1 for epoch in epochs], found)
    column = column_of(found)
    for name, large in WAYS.items():
        with large_from(large):
            assert drawn(array("q", epochs), column, offset=1) == expected, name


@settings(deadline=None)
@given(run=runs(), first=whole, last=whole, log=st.booleans())
def test_every_way_gives_the_same_limits(
    run: tuple[list[int], list[float | None]], first: int, last: int, log: bool
) -> None:
    epochs, found = run
    kept = [y for x, y in zip(epochs, found, strict=True) if first <= x + 1 <= last]
    column = column_of(found)
    curve = Curve(label="", x=array("q", epochs), y=column, x_offset=1)
    for name, large in WAYS.items():
        with large_from(large):
            assert y_limits([column], log=log) == y_limits([found], log=log), name
            assert fit_y([curve], log=log) == y_limits([found], log=log), name
            assert fit_y([curve], (first, last), log=log) == y_limits([kept], log=log), name


@pytest.mark.parametrize("way", WAYS)
def test_a_long_curve_keeps_its_spike_its_gap_and_its_infinity(way: str) -> None:
    y = array("d", [0.5]) * 100_000
    y[33_333] = 2.9
    y[60_000:80_000] = array("d", [nan]) * 20_000
    y[90_000] = inf
    with large_from(WAYS[way]):
        rows = chart([Curve(label="", x=range(100_000), y=y)], width=12, height=2, y_limits=(0, 3))
    assert ["".join(text for text, _ in row) for row in rows] == [
        "    ⡇     ✗ ",
        "⠤⠤⠤⠤⠧⠤⠤⠄ ⠤⠤⠤",
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_column_can_grow_after_it_was_drawn_and_the_curve_stays_what_it_was(way: str) -> None:
    epochs, column = array("q", range(500)), column_of([1.0, nan] * 250)
    before = Curve(label="", x=epochs, y=column)
    with large_from(WAYS[way]):
        rows = chart([before], width=30, height=6)
        epochs.append(500)
        column.extend([9.0])
        after = Curve(label="", x=epochs, y=column)
        assert before != after
        assert chart([before], width=30, height=6) == rows
        assert chart([after], width=30, height=6) != rows
        column.drop_last()
        column.drop_last()
        assert len(chart([before], width=30, height=6)) == 6, "a row that it had was taken back"


def test_a_curve_on_buffers_is_read_at_an_epoch() -> None:
    column = column_of([0.5, None, nan, 2.0])
    curve = Curve(label="", x=array("q", [0, 1, 4, 5]), y=column, x_offset=1)
    assert [curve.at(epoch) for epoch in (0, 1, 2, 3, 6, 7)] == [None, 0.5, None, None, 2.0, None]
    assert math.isnan(curve.at(5) or 0.0), "NaN is a value, absent is none"
    assert Curve(label="", x=[3.0, 1.0], y=[1.0, 2.0]).at(1) == 2.0, "an x that does not rise is read through"


CHARTS = """
import sys
from array import array
from cbmon.chart import Curve, chart, fit_y
from cbmon.thin import LARGE_ALONE
for length in (200, LARGE_ALONE - 1, LARGE_ALONE):
    curve = Curve(label="", x=range(length), y=array("d", [1.0]) * length)
    chart([curve], width=112, height=30, y_limits=fit_y([curve]))
    print("numpy" in sys.modules)
"""


def test_only_a_large_curve_imports_numpy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHARTS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "False", "True"]
