"""What the course of a metric says, as tables; and that asking after every row says the same as asking once."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.series import BULK_ROWS, MATERIAL, Column, Direction, room
from cbmon.trends import (
    DIVERGED_FACTOR,
    DIVERGING_EPOCHS,
    DIVERGING_FACTOR,
    FLAT_EPOCHS,
    FLAT_SHARE,
    OVERFIT_EPOCHS,
    Divergence,
    flat_since,
    overfitting_since,
    target,
    training_twin,
)

NA = None
NAN = math.nan
Values = Sequence[float | None]


def column(values: Values) -> Column:
    made = Column()
    made.extend(values)
    return made


# --- improvements ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "towards", "best", "improved", "sentence"),
    [
        ([], Direction.MIN, None, None, "nothing yet"),
        ([NA, NAN, math.inf], Direction.MIN, None, None, "nothing finite yet"),
        ([NA, 1.0], Direction.MIN, 1, 1, "the first value is one"),
        ([1.0, 0.995], Direction.MIN, 1, 0, "half a percent is the best, and no improvement"),
        ([1.0, 0.98], Direction.MIN, 1, 1, "two percent are one"),
        ([1.0, 0.995, 0.991, 0.989], Direction.MIN, 3, 3, "small steps add up"),
        ([1.0, 0.5, 1.0, 0.5], Direction.MIN, 1, 1, "coming back is none"),
        ([-1.0, -1.02], Direction.MIN, 1, 1, "below 0 too"),
        ([-5.0, -5.02], Direction.MIN, 1, 0, "below 0 too"),
        ([0.5, 0.51], Direction.MAX, 1, 1, "upwards"),
        ([0.990, 0.991], Direction.MAX, 1, 1, "a tenth of what is missing of an accuracy"),
        ([25.0, 25.1], Direction.MAX, 1, 0, "no share of 1: by its own size"),
        ([0.0, 0.0], Direction.MIN, 0, 0, "at its end"),
        ([2.0, -math.inf, 1.0], Direction.MIN, 2, 2, "an infinite value is no best"),
    ],
)
def test_an_improvement_is_material_or_not(
    values: Values, towards: Direction, best: int | None, improved: int | None, sentence: str
) -> None:
    made = column(values)
    assert (made.best(towards), made.improved(towards)) == (best, improved), sentence


def improved_by_its_definition(values: Values, towards: Direction) -> tuple[int | None, int | None]:
    sign = 1.0 if towards is Direction.MIN else -1.0
    finite = [(sign * value, row) for row, value in enumerate(values) if value is not None]
    finite = [(value, row) for value, row in finite if math.isfinite(value)]
    reference: float | None = None
    improved = None
    for value, row in finite:
        if reference is None or value < reference - MATERIAL * room(reference):
            reference, improved = value, row
    return min(finite, default=(0.0, None))[1], improved


cells = st.none() | st.floats() | st.sampled_from([0.0, 1.0, 0.99, 0.5, -0.5, -0.505])


@given(st.lists(cells, max_size=40), st.sampled_from(Direction), st.integers(1, 7))
def test_what_a_column_keeps_is_what_all_its_rows_say(
    values: list[float | None], towards: Direction, step: int
) -> None:
    asked = Column()
    for start in range(0, len(values), step):
        asked.extend(values[start : start + step])
        asked.best(towards)
    for made in (asked, column(values)):
        assert (made.best(towards), made.improved(towards)) == improved_by_its_definition(values, towards)


def test_long_columns_too() -> None:
    values = [1e3 / (row + 1) + (row % 7) for row in range(3000)]
    for towards in Direction:
        made = column(values)
        assert (made.best(towards), made.improved(towards)) == improved_by_its_definition(values, towards)


@pytest.mark.parametrize("towards", list(Direction))
@pytest.mark.parametrize("hole", [None, NAN, math.inf, -math.inf])
@pytest.mark.parametrize("shape", ["falling", "noise", "constant", "zeros of both signs"])
def test_through_numpy_the_best_and_the_improvements_of_many_rows_are_the_same(
    monkeypatch: pytest.MonkeyPatch, shape: str, hole: float | None, towards: Direction
) -> None:
    pytest.importorskip("numpy")
    random = Random(shape)
    shapes: dict[str, Callable[[int], float]] = {
        "falling": lambda row: 1.0 / (row + 1) + random.random() * 0.01,
        "noise": lambda row: random.gauss(0.0, 1.0),
        "constant": lambda row: 0.25,
        "zeros of both signs": lambda row: random.choice([0.0, -0.0, 1.0]),
    }
    values = array("d", map(shapes[shape], range(3 * BULK_ROWS + 77)))
    if hole is not None:
        for row in (0, 5, 4000, 9000, len(values) - 1):
            values[row] = hole
    told = {}
    for is_loaded in (True, False):
        monkeypatch.setattr(
            "cbmon.series.has_numpy", lambda rows, answer=is_loaded: answer and rows >= BULK_ROWS
        )
        made = Column()
        for cut in (slice(0, 300), slice(300, BULK_ROWS + 900), slice(BULK_ROWS + 900, None)):
            made.extend(values[cut])
            made.best(towards)
        told[is_loaded] = made.best(towards), made.improved(towards), made.first_non_finite
    assert told[True] == told[False]


# --- diverging ------------------------------------------------------------------------------------------------

DOWN = [2.0, 1.0, 0.5, 0.4]


@pytest.mark.parametrize(
    ("name", "values", "since", "sentence"),
    [
        ("loss", [], None, "nothing yet"),
        ("loss", DOWN, None, "it falls"),
        ("loss", [*DOWN, 2.1, 2.2], None, "two bad epochs come and go"),
        ("loss", [*DOWN, 2.1, 2.2, 2.3], 4, "three epochs above the first, after most of it was lost"),
        ("loss", [*DOWN, 2.1, NA, 2.2, 2.3], 4, "an absent value is no recovery"),
        ("loss", [*DOWN, 2.1, 2.2, 2.3, 1.9], None, "it came back: no trend any more"),
        ("loss", [*DOWN, 2.1, 2.2, 1.9, 2.1, 2.2, 2.3], 7, "since it was last below"),
        ("loss", [*DOWN, 1.9, 1.9, 1.9, 1.9], None, "bad, and still better than untrained"),
        ("loss", [2.0, 1.8, 2.1, 2.2, 2.3], None, "it had learned nothing that it could lose"),
        ("loss", [2.0, 30.0, 40.0, 50.0], 1, "explodes from the start"),
        ("loss", [2.0, 3.0, 4.0, 5.0], None, "rises from the start: an annealed term may"),
        ("loss", [2.0, 1e5], 1, "beyond all scale at once"),
        ("loss", [NA, 2.0, 1e5], 2, "the first value is the first that there is"),
        ("loss", [0.0, 5.0, 5.0, 5.0], None, "a loss that begins at 0 has no scale"),
        ("loss", [-5.0, -20.0, 1.0, 2.0, 3.0], 2, "below 0 too"),
        ("loss", [-1.0, -1e5], 1, "an unbounded one runs away downwards"),
        ("train_loss", [*DOWN, 2.1, 2.2, 2.3], 4, "other names of it"),
        ("val_loss", [*DOWN, 2.1, 2.2, 2.3], None, "validation does so where a run overfits"),
        ("val_loss", [2.0, 3e4], 1, "but not so much"),
        ("decoder_loss", [*DOWN, 2.1, 2.2, 2.3], None, "a part may rise for the sake of another"),
        ("d_loss", [0.01, 9.5, 50.0], None, "a critic's part goes anywhere"),
        ("d_loss", [0.01, 9.5, 150.0], 2, "but not so far"),
    ],
)
def test_a_loss_diverges_or_not(name: str, values: Values, since: int | None, sentence: str) -> None:
    assert Divergence(name).since(column(values)) == since, sentence


def test_the_thresholds_are_those_of_the_table() -> None:
    assert (DIVERGED_FACTOR, DIVERGING_FACTOR, DIVERGING_EPOCHS) == (1e4, 10.0, 3)


@given(
    st.sampled_from(["loss", "val_loss", "d_loss"]),
    st.lists(
        st.none() | st.sampled_from([0.0, 0.1, 1.0, 1.1, 2.0, 30.0, -30.0, 2e4, -2e4, 1e9]), max_size=30
    ),
    st.integers(1, 5),
)
def test_divergence_asked_at_every_step_is_divergence_asked_once(
    name: str, values: list[float | None], step: int
) -> None:
    grown, asked = Column(), Divergence(name)
    since = None
    for start in range(0, len(values), step):
        grown.extend(values[start : start + step])
        since = asked.since(grown)
    assert since == Divergence(name).since(column(values))


# --- flat -----------------------------------------------------------------------------------------------------


def noisy(levels: Sequence[float], noise: float = 0.004) -> list[float]:
    """Values around the levels, the same each time."""
    random = Random(7)
    return [level * math.exp(random.gauss(0, noise)) for level in levels]


def falling(rows: int, to: float = 0.2) -> list[float]:
    return [to + 2.0 * math.exp(-6 * row / max(1, rows)) for row in range(rows)]


@pytest.mark.parametrize(
    ("values", "towards", "since", "sentence"),
    [
        ([], Direction.MIN, None, "nothing yet"),
        ([1.0] * FLAT_EPOCHS, Direction.MIN, None, "not for long enough"),
        ([1.0] * (FLAT_EPOCHS + 1), Direction.MIN, 0, "it has learned nothing"),
        (noisy([1.0] * 20), Direction.MIN, 0, "noise is no improvement"),
        (falling(40), Direction.MIN, None, "a healthy run"),
        ([*falling(40), *noisy([0.2] * 12)], Direction.MIN, None, "12 of 52 epochs are not long"),
        ([*falling(40), *noisy([0.2] * 24)], Direction.MIN, 40, "23 of 64 are"),
        ([*falling(10), *noisy([0.2] * 30), 0.1], Direction.MIN, None, "it goes on: no plateau any more"),
        ([1.0, 0.2, *noisy([0.9 * 0.98**row for row in range(30)])], Direction.MIN, None, "a lucky best"),
        ([1.0, 0.2, *noisy([0.9] * 30)], Direction.MIN, 1, "a lucky best, and nothing after it"),
        ([0.5 + 0.01 * row for row in range(30)], Direction.MAX, None, "upwards"),
        ([0.5, *[0.9] * 20], Direction.MAX, 1, "upwards"),
        ([0.5, *[1.0] * 30], Direction.MAX, None, "nothing is left to gain"),
        ([1.0, *[0.0] * 30], Direction.MIN, None, "nothing is left to gain"),
        ([1.0, *([NA] * 30)], Direction.MIN, None, "not measured is not flat"),
        ([1.0 if row % 4 == 0 else NA for row in range(80)], Direction.MIN, 0, "measured now and then"),
    ],
)
def test_a_metric_is_flat_or_not(
    values: Values, towards: Direction, since: int | None, sentence: str
) -> None:
    assert flat_since(column(values), towards) == since, sentence


def test_flat_is_relative_to_the_length_of_the_run() -> None:
    learned = [1000.0 * 0.98**row for row in range(400)]
    flat = [learned[-1]] * 300
    first = next(rows for rows in range(300) if flat_since(column(learned + flat[:rows]), Direction.MIN))
    assert first == math.ceil(FLAT_SHARE * (400 + first))


# --- overfitting ----------------------------------------------------------------------------------------------

LEARNED = [2.0 * 0.93**row + 0.01 for row in range(60)]
"""Training loss that goes on falling."""


def turned(at: int, rate: float, rows: int = 60, noise: float = 0.01) -> list[float]:
    """Validation loss that falls to its best and changes by a share of that from then on."""
    best = 2.0 * 0.93**at + 0.2
    levels = [2.0 * 0.93**row + 0.2 if row < at else best * (1 + rate * (row - at)) for row in range(rows)]
    return noisy(levels, noise)


@pytest.mark.parametrize(
    ("train", "validation", "since", "sentence"),
    [
        (LEARNED, turned(20, 0.01), 20, "it has turned"),
        (LEARNED, turned(55, 0.05), None, "five epochs tell nothing"),
        (LEARNED, turned(20, 0.0005), None, "it is flat, not rising"),
        (LEARNED, turned(60, 0.0), None, "both fall"),
        (
            [*LEARNED[:20], *[LEARNED[20]] * 40],
            turned(20, 0.01),
            None,
            "training has stopped falling as well",
        ),
        ([*LEARNED[:20], *LEARNED[40::-1][:40]], turned(20, 0.01, 60), None, "both rise: it unlearns"),
        (LEARNED, [*turned(20, 0.0)[:59], 5.0], None, "one bad epoch"),
        (LEARNED, turned(20, 0.002, noise=0.2), None, "within its noise"),
        (LEARNED, [NA] * 60, None, "no validation"),
        (
            LEARNED,
            [value if row % 2 else NA for row, value in enumerate(turned(20, 0.02))],
            21,
            "every other",
        ),
        (
            LEARNED,
            [value if row % 20 == 0 else NA for row, value in enumerate(turned(20, 0.02))],
            None,
            "3 values",
        ),
    ],
)
def test_a_run_overfits_or_not(train: Values, validation: Values, since: int | None, sentence: str) -> None:
    assert overfitting_since(column(train), column(validation), Direction.MIN) == since, sentence


def test_accuracy_turns_the_other_way() -> None:
    train, validation = (
        column([1 - value / 4 for value in values]) for values in (LEARNED, turned(20, 0.02))
    )
    assert overfitting_since(train, validation, Direction.MAX) == 20
    assert overfitting_since(train, validation, Direction.MIN) is None


def test_it_takes_the_patience_of_an_early_stopping() -> None:
    validation = [1.0 + 0.1 * row for row in range(21)]
    train = [0.9**row for row in range(21)]
    told = [
        rows
        for rows in range(22)
        if overfitting_since(column(train[:rows]), column(validation[:rows]), Direction.MIN) is not None
    ]
    assert told == list(range(OVERFIT_EPOCHS + 1, 22))


# --- which metric ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "judged", "sentence"),
    [
        (["loss", "val_loss"], "val_loss", "validation"),
        (["acc", "loss"], "loss", "the loss"),
        (["d_loss", "g_loss"], None, "parts that pull against each other"),
        (["d_loss", "g_loss", "loss"], "loss", "with a whole"),
        (["train/box_loss", "val/box_loss"], "val/box_loss", "a part of validation alone"),
        (["acc"], "acc", "no loss"),
        ([], None, "nothing"),
    ],
)
def test_a_run_is_judged_by_what_it_tries_to_better(
    names: list[str], judged: str | None, sentence: str
) -> None:
    assert target(names) == judged, sentence


@pytest.mark.parametrize(
    ("name", "names", "twin"),
    [
        ("val_loss", ["acc", "loss", "val_loss"], "loss"),
        ("validation loss", ["train loss", "validation loss"], "train loss"),
        ("DEV_LOSS", ["TRAIN_LOSS", "DEV_LOSS"], "TRAIN_LOSS"),
        ("val_loss", ["val_loss", "acc"], None),
        ("loss", ["loss", "val_loss"], None),
    ],
)
def test_the_twin_of_a_validation_metric_is_its_training_column(
    name: str, names: list[str], twin: str | None
) -> None:
    assert training_twin(name, names) == twin


@given(st.lists(cells, max_size=60), st.lists(cells, max_size=60), st.sampled_from(Direction))
def test_no_values_make_a_trend_raise(
    first: list[float | None], second: list[float | None], towards: Direction
) -> None:
    rows = min(len(first), len(second))
    a, b = column(first[:rows]), column(second[:rows])
    looks: list[Callable[[], object]] = [
        lambda: flat_since(a, towards),
        lambda: overfitting_since(a, b, towards),
    ]
    for look in looks:
        look()
