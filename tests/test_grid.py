"""Grids in a CALL: what they mean, and what is refused in one line."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbmon.errors import BadCall
from cbmon.profiles import NEWEST, PROFILES
from cbmon.replay.calls import parse_calls
from cbmon.replay.grid import MOST_POLICIES, parse_grid

# --- what a grid is -------------------------------------------------------------------------------------------

READ = [
    (
        "EarlyStopping(patience=range(1, 4))",
        ["EarlyStopping(patience=1)", "EarlyStopping(patience=2)", "EarlyStopping(patience=3)"],
    ),
    ("EarlyStopping(patience=range(6, 0, -3))", ["EarlyStopping(patience=6)", "EarlyStopping(patience=3)"]),
    ("EarlyStopping(patience=range(2))", ["EarlyStopping(patience=0)", "EarlyStopping(patience=1)"]),
    # What stands in grid(…) is kept as it is written.
    (
        "EarlyStopping(min_delta=grid(0, 1e-4, -1E-3))",
        ["EarlyStopping(min_delta=0)", "EarlyStopping(min_delta=1e-4)", "EarlyStopping(min_delta=-1E-3)"],
    ),
    (
        "EarlyStopping(monitor=grid('loss', \"val_loss\"))",
        ["EarlyStopping(monitor='loss')", 'EarlyStopping(monitor="val_loss")'],
    ),
    (
        "EarlyStopping(baseline=grid(None, 0.5))",
        ["EarlyStopping(baseline=None)", "EarlyStopping(baseline=0.5)"],
    ),
    # Equal texts are one.
    ("EarlyStopping(patience=grid(1, 1))", ["EarlyStopping(patience=1)"]),
    # Computed values are what they are shown as.
    (
        "ReduceLROnPlateau(factor=linspace(0.1, 0.3, 3))",
        ["ReduceLROnPlateau(factor=0.1)", "ReduceLROnPlateau(factor=0.2)", "ReduceLROnPlateau(factor=0.3)"],
    ),
    ("ReduceLROnPlateau(factor=np.linspace(0.1, 0.3, 1))", ["ReduceLROnPlateau(factor=0.1)"]),
    (
        "EarlyStopping(min_delta=logspace(-4, -2, 3))",
        [
            "EarlyStopping(min_delta=0.0001)",
            "EarlyStopping(min_delta=0.001)",
            "EarlyStopping(min_delta=0.01)",
        ],
    ),
    # By place, nested in a list, several, over lines, with signs beyond ASCII.
    (
        "keras.callbacks.EarlyStopping('loss', grid(0, 1))",
        ["keras.callbacks.EarlyStopping('loss', 0)", "keras.callbacks.EarlyStopping('loss', 1)"],
    ),
    (
        "[EarlyStopping(monitor='é',\n   patience=grid(1, 2)),\n ]",
        ["EarlyStopping(monitor='é', patience=1)", "EarlyStopping(monitor='é', patience=2)"],
    ),
    (
        "TerminateOnNaN(); EarlyStopping(patience=grid(1, 2))",
        ["TerminateOnNaN(); EarlyStopping(patience=1)", "TerminateOnNaN(); EarlyStopping(patience=2)"],
    ),
    # A plain list is one value; Keras may not like it.
    ("EarlyStopping(patience=[1, 2])", ["EarlyStopping(patience=[1, 2])"]),
    ("EarlyStopping()", ["EarlyStopping()"]),
]


@pytest.mark.parametrize(("text", "policies"), READ)
def test_a_grid_is_read(text: str, policies: list[str]) -> None:
    grid = parse_grid(text, NEWEST)
    assert list(grid.texts()) == policies
    assert len(grid) == len(policies)


def test_policies_come_in_call_order_the_last_axis_moving_fastest() -> None:
    grid = parse_grid(
        "ReduceLROnPlateau(patience=grid(1, 2)); EarlyStopping(patience=range(3, 5), min_delta=grid(0, 1))",
        NEWEST,
    )
    assert [axis.name for axis in grid.axes] == [
        "ReduceLROnPlateau.patience",
        "EarlyStopping.patience",
        "min_delta",
    ]
    texts = list(grid.texts())
    assert texts[:3] == [
        "ReduceLROnPlateau(patience=1); EarlyStopping(patience=3, min_delta=0)",
        "ReduceLROnPlateau(patience=1); EarlyStopping(patience=3, min_delta=1)",
        "ReduceLROnPlateau(patience=1); EarlyStopping(patience=4, min_delta=0)",
    ]
    assert len(texts) == len(grid) == 8


def test_two_callbacks_of_one_class_are_told_apart() -> None:
    text = "EarlyStopping(patience=grid(1, 2)); EarlyStopping('loss', patience=grid(1, 2))"
    grid = parse_grid(text, NEWEST)
    assert [axis.name for axis in grid.axes] == ["EarlyStopping#1.patience", "EarlyStopping#2.patience"]


def test_an_argument_that_keras_ignores_is_still_an_axis() -> None:
    (axis,) = parse_grid("ReduceLROnPlateau(epsilon=grid(1, 2))", NEWEST).axes
    assert (axis.name, axis.argument, axis.values) == ("epsilon", None, (1, 2))
    (axis,) = parse_grid("ReduceLROnPlateau(epsilon=grid(1, 2))", PROFILES["2"]).axes
    assert (axis.argument, axis.values) == ("min_delta", (1, 2))


PARTS = (
    "patience=grid(1, 2)",
    "min_delta=linspace(0, 0.1, 3)",
    "monitor=grid('a', 'b  c')",
    "verbose=grid(0, True)",
)


@given(some=st.lists(st.sampled_from(PARTS), unique=True), other=st.sampled_from(["", "; TerminateOnNaN()"]))
def test_every_choice_is_the_call_that_its_text_says(some: list[str], other: str) -> None:
    grid = parse_grid(f"EarlyStopping({', '.join(some)}){other}", NEWEST)
    for choice, text in zip(product(*map(range, grid.shape)), grid.texts(), strict=True):
        assert text == grid.text(choice)
        written = parse_calls(text, NEWEST)
        assert [(call.policy, call.arguments) for call in written] == [
            (call.policy, call.arguments) for call in grid.calls(choice)
        ]
        assert "; ".join(call.text for call in grid.calls(choice)) == text
        assert list(grid.values(choice).values()) == [
            axis.values[n] for axis, n in zip(grid.axes, choice, strict=True)
        ]


@example(0.0, -0.0, 2)
@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(1, 9))
def test_spaces_are_numpys_to_twelve_digits(first: float, last: float, count: int) -> None:
    for kind, numpys in (("linspace", np.linspace), ("logspace", np.logspace)):
        (axis,) = parse_grid(f"EarlyStopping(baseline={kind}({first!r}, {last!r}, {count}))", NEWEST).axes
        wanted = list(dict.fromkeys(float(f"{value:.12g}") for value in numpys(first, last, count)))
        assert list(axis.values) == pytest.approx(wanted, rel=3e-12, abs=1e-300)


def test_logspace_of_values_instead_of_exponents_is_doubted() -> None:
    (note,) = parse_grid("EarlyStopping(min_delta=logspace(1e-5, 1e-1, 5))", NEWEST).notes
    assert "takes exponents" in note
    assert "logspace(-5, -1, COUNT)" in note


# --- what is refused --------------------------------------------------------------------------------------------

REFUSED = {
    "EarlyStopping(patience=range(4, 1))": "it has no values",
    "EarlyStopping(patience=range(1, 4, 0))": "one to three whole numbers",
    "EarlyStopping(patience=range(1.5))": "one to three whole numbers",
    "EarlyStopping(patience=range(True))": "one to three whole numbers",
    "EarlyStopping(patience=range())": "one to three whole numbers",
    "EarlyStopping(patience=range(a))": "a is no literal",
    "EarlyStopping(patience=range(1, 1000000000))": f"more than {MOST_POLICIES:,}",
    f"EarlyStopping(patience=range({10**30}))": f"more than {MOST_POLICIES:,}",
    "EarlyStopping(patience=range(1, 1001), min_delta=linspace(0, 1, 1001))": "1,001,000 policies",
    "EarlyStopping(patience=grid())": "it has no values",
    "EarlyStopping(patience=grid([1, 2]))": "no literal",
    "EarlyStopping(patience=grid(range(3)))": "no literal",
    "EarlyStopping(patience=grid(*[1]))": "write the values out",
    "EarlyStopping(patience=range(stop=3))": "write the values out",
    "EarlyStopping(patience=linspace(0, 1))": "a first value, a last value and a count",
    "EarlyStopping(patience=linspace(0, 1, 0))": "a first value, a last value and a count",
    "EarlyStopping(patience=linspace(0, 1e999, 2))": "a first value, a last value and a count",
    "EarlyStopping(patience=logspace(0, 999, 2))": "takes exponents",
    "EarlyStopping(patience=list(range(3)))": "no literal",
    "EarlyStopping(patience=os.system('true'))": "no literal",
    "EarlyStopping(patiense=grid(1, 2))": "Did you mean patience",
    "EarlyStopping(patience=grid(1, 2), patience=3)": "given twice",
    "LearningRateScheduler(grid(1, 2))": "schedule",
    "Nothing(a=grid(1, 2))": "no such callback",
    "grid(1, 2)": "no such callback",
    "EarlyStopping(": "never closed",
    "a = 1": "no call",
    "": "empty",
    "EarlyStopping": "no call",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_grid_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadCall) as refusal:
        parse_grid(text, NEWEST)
    assert REFUSED[text] in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for written in (text, f"EarlyStopping(patience=grid({text}))", f"EarlyStopping(patience=range({text}))"):
        try:
            parse_grid(written, NEWEST)
        except BadCall:
            continue
