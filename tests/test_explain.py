"""`--explain`: what would have changed a decision really changes it, and nothing nearer does."""

from __future__ import annotations

import math
from array import array
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmon.cli import main
from cbmon.events import EpochsEnded
from cbmon.profiles import PROFILES
from cbmon.replay.calls import parse_calls
from cbmon.replay.cases import Case
from cbmon.replay.changes import Change, cut, later, not_cut, reach, sooner
from cbmon.replay.explain import explain, row_of
from cbmon.run import Attempt
from cbmon.series import Column

NAN = math.nan


def attempt(values: list[float | None], rates: list[float | None] | None = None) -> Attempt:
    """`val_loss` as given, `loss` all ones."""
    found = Attempt(epochs=array("q", range(len(values))))
    for name, column in (("loss", [1.0] * len(values)), ("val_loss", values)):
        found.columns[name] = Column()
        found.columns[name].extend(column)
    if rates:
        found.rate.extend(rates)
    return found


def case(values: list[float | None], text: str, keras: str = "3.15") -> Case:
    profile = PROFILES[keras]
    return Case(recording=attempt(values), calls=tuple(parse_calls(text, profile)), profile=profile)


def stopped(asked: Case) -> int | None:
    made = asked.answer().decisions
    assert made is not None
    return made.members[0].stopped_epoch


def cuts(asked: Case) -> list[int]:
    made = asked.answer().decisions
    assert made is not None
    return [epoch for epoch, _ in made.members[0].cuts]


def words(asked: Case, epoch: int) -> str:
    """Everything that is said of the first callback at a 1-based epoch."""
    row = row_of(asked, epoch - 1)
    assert row is not None
    return "\n".join(explain(asked, row)[0][1])


PLATEAU = [1.0, 0.8, 0.7, 0.71, 0.72, 0.73, 0.74, 0.6, 0.61, 0.62, 0.63]


@pytest.mark.parametrize(
    ("text", "epoch", "sentences"),
    [
        ("EarlyStopping(patience=3)", 6, ["wait 3 of 3", ".7300 is not below .7000 (epoch 3)"]),
        ("EarlyStopping(patience=3)", 6, ["patience ≥ 4 would have gone on (with 4 to epoch 7)"]),
        ("EarlyStopping(patience=4)", 7, ["patience ≥ 5 would have gone on", "log's end, epoch 11, best .6000 ★8"]),
        ("EarlyStopping(patience=4)", 5, ["goes on", "wait 2 of 4", "patience ≤ 2 would have stopped here"]),
        ("EarlyStopping(patience=9)", 9, ["patience ≤ 4 would have stopped by here (after epoch 7)"]),
        ("EarlyStopping(patience=3)", 9, ["is not trained", "patience ≥ 5 would have come here"]),
        ("EarlyStopping(patience=2, min_delta=0.15)", 4, ["stops here", "min_delta ≤ 0.099 would have gone on"]),
        ("EarlyStopping(patience=9, min_delta=0.01)", 4, ["by more than 0.01", "better is from now on below .69"]),
        ("EarlyStopping(patience=2, start_from_epoch=5)", 3, ["does not watch yet: start_from_epoch=5"]),
        ("ReduceLROnPlateau(patience=2)", 5, ["cuts ×0.1 here", "patience ≥ 3 would not have cut here"]),
        ("ReduceLROnPlateau(patience=5)", 5, ["waits · wait 2 of 5", "example patience = 2 or 1 would have cut"]),
        ("ReduceLROnPlateau(patience=2, cooldown=2)", 6, ["cooling down, 1 more epoch"]),
        ("ReduceLROnPlateau(patience=2, cooldown=2)", 5, ["then cools down for 2 epochs"]),
        ("ModelCheckpoint('m-{epoch}.keras', save_best_only=True)", 3, ["saves here: m-3.keras"]),
        ("ModelCheckpoint('m-{epoch}.keras', save_best_only=True)", 4, ["does not save here", "not below .7000"]),
        ("TerminateOnNaN()", 4, ["goes on: loss 1.000 is finite"]),
        ("LearningRateScheduler('0.1')", 4, ["gives this epoch the learning rate"]),
    ],
)  # fmt: skip
def test_what_is_said_of_a_callback_at_an_epoch(text: str, epoch: int, sentences: list[str]) -> None:
    told = words(case(PLATEAU, text), epoch)
    for sentence in sentences:
        assert sentence in told


def test_two_values_that_look_alike_are_told_apart() -> None:
    told = words(case([0.41200001, 0.41200002], "EarlyStopping(patience=1)", "2"), 2)
    assert "0.41200002 is not below 0.41200001" in told


def test_a_nan_that_came_first_is_named_as_what_nothing_beats() -> None:
    told = words(case([NAN, 1.0, 0.9], "EarlyStopping(patience=2)"), 3)
    assert "nothing is better than the nan (epoch 1)" in told


def test_an_epoch_whose_end_nobody_saw_is_told_as_such() -> None:
    recording = attempt([0.5, 0.6, 0.7])
    recording.columns["loss"] = Column()
    recording.columns["loss"].extend([1.0, 1.0, NAN])
    profile = PROFILES["3.15"]
    calls = tuple(parse_calls("TerminateOnNaN(raise_error=True); ReduceLROnPlateau(patience=1)", profile))
    told = dict(explain(Case(recording=recording, calls=calls, profile=profile), 2))
    assert told[calls[0].text] == ["stops in this epoch: its loss is nan"]
    assert told[calls[1].text] == ["does not see the end of this epoch: TerminateOnNaN raises within it"]


def test_another_callback_that_stops_there_too_is_named() -> None:
    told = words(case([0.5, 0.6, 0.7], "EarlyStopping(patience=2); EarlyStopping(patience=2)"), 3)
    assert "but EarlyStopping stops here too" in told


# --- the claims ------------------------------------------------------------------------------------------

values = st.one_of(
    st.sampled_from([1.0, 0.9, 0.8, 0.7, 0.7000001, 0.5, NAN, math.inf, None]),
    st.floats(0.125, 1.0, width=16),
    st.floats(1e-3, 10.0),
)
numbers = st.lists(values, min_size=2, max_size=14)


@st.composite
def stopping(draw: st.DrawFn) -> Case:
    text = (
        f"EarlyStopping(patience={draw(st.integers(0, 5))}, "
        f"min_delta={draw(st.sampled_from([0, 1e-4, 0.05, -0.1, 0.3]))}, "
        f"mode='{draw(st.sampled_from(['min', 'max']))}', "
        f"start_from_epoch={draw(st.sampled_from([0, 0, 2]))}, "
        f"baseline={draw(st.sampled_from([None, None, 0.75]))}, "
        f"restore_best_weights={draw(st.booleans())})"
    )
    return case(draw(numbers), text, draw(st.sampled_from(["3.15", "3.6", "2"])))


def stops_by(asked: Case, row: int, **arguments: float) -> bool:
    epoch = stopped(asked.changed(0, **arguments))
    return epoch is not None and epoch <= row


def check(asked: Case, row: int, change: Change, *, stops: bool) -> None:
    """The change does it, also as it is shown; a value nearer to the given one does not."""
    name, value = change.argument, change.value
    assert stops_by(asked, row, **{name: value}) is stops
    assert stops_by(asked, row, **{name: float(change.shown)}) is stops
    assert stopped(asked.changed(0, **{name: value})) == change.stopped_epoch
    towards = {("≥", "patience"): value - 1, ("≤", "patience"): value + 1}.get((change.sign, name))
    if towards is None:
        is_down = change.sign == "≤" or (change.sign == "=" and not stops)
        towards = math.nextafter(value, math.inf if is_down else 0.0)
    assert stops_by(asked, row, **{name: towards}) is not stops
    if change.beyond is not None:
        assert stops_by(asked, row, **{name: change.beyond}) is not stops
    beyond = {"≥": [value * 2 + 1, value + 1, 1e6], "≤": [0.0, value / 2, value / 3]}.get(change.sign, [])
    for further in beyond:
        assert stops_by(asked, row, **{name: int(further) if name == "patience" else further}) is stops


def differences(asked: Case) -> list[float]:
    """Every min_delta at which a comparison of two values can turn over, and its neighbours."""
    column = asked.recording.metrics.get("val_loss")
    told = [column[row] for row in range(len(column))] if column else []
    finite = [value for value in told if value is not None and math.isfinite(value)] + [0.75]
    gaps = {abs(one - other) for one, other in combinations(finite, 2)}
    return sorted({0.0} | {around for gap in gaps for around in (gap * (1 - 1e-6), gap, gap * (1 + 1e-6))})


@settings(deadline=None, max_examples=200)
@given(stopping())
def test_what_would_have_gone_on_goes_on_and_nothing_nearer_does(asked: Case) -> None:
    row = stopped(asked)
    if row is None:
        return
    changes = later(asked, 0, row)
    for change in changes:
        check(asked, row, change, stops=False)
    assert any(change.argument == "patience" for change in changes)
    given_delta = abs(asked.calls[0].arguments["min_delta"])
    if not any(change.argument == "min_delta" for change in changes):
        assert all(stops_by(asked, row, min_delta=d) for d in differences(asked) if d < given_delta)


@settings(deadline=None, max_examples=200)
@given(stopping(), st.data())
def test_what_would_have_stopped_stops_and_nothing_nearer_does(asked: Case, data: st.DataObject) -> None:
    end = stopped(asked)
    last = len(asked.recording.epochs) - 1 if end is None else end - 1
    if last < 0:
        return
    row = data.draw(st.integers(0, last))
    changes = sooner(asked, 0, row)
    for change in changes:
        check(asked, row, change, stops=True)
    if not any(change.argument == "patience" for change in changes):
        assert not stops_by(asked, row, patience=0)
    if not any(change.argument == "min_delta" for change in changes):
        given_delta = abs(asked.calls[0].arguments["min_delta"])
        assert not any(stops_by(asked, row, min_delta=d) for d in differences(asked) if d > given_delta)


@settings(deadline=None, max_examples=100)
@given(stopping(), st.data())
def test_the_patience_that_reaches_an_epoch_reaches_it_and_one_less_does_not(
    asked: Case, data: st.DataObject
) -> None:
    end = stopped(asked)
    if end is None or end + 1 >= len(asked.recording.epochs):
        return
    row = data.draw(st.integers(end + 1, len(asked.recording.epochs) - 1))
    change = reach(asked, 0, row)
    assert change is not None
    assert not stops_by(asked, row - 1, patience=change.value)
    assert stops_by(asked, row - 1, patience=change.value - 1)


@settings(deadline=None, max_examples=200)
@given(numbers, st.integers(0, 6), st.integers(0, 3), st.sampled_from(["3.15", "3.10", "2"]), st.data())
def test_the_patience_that_cuts_or_not_is_the_nearest_one(
    told: list[float | None], patience: int, cooldown: int, keras: str, data: st.DataObject
) -> None:
    asked = case(told, f"ReduceLROnPlateau(patience={patience}, cooldown={cooldown})", keras)
    row = data.draw(st.integers(0, len(told) - 1))
    if row in cuts(asked):
        change = not_cut(asked, 0, row)
        assert change is not None
        assert row not in cuts(asked.changed(0, patience=change.value))
        between = range(patience, int(change.value))
        assert all(row in cuts(asked.changed(0, patience=tried)) for tried in between)
        if change.sign == "≥":
            assert all(row not in cuts(asked.changed(0, patience=change.value + more)) for more in range(20))
    else:
        change = cut(asked, 0, row)
        lowest = 1 if change is None else int(change.value) + 1
        assert change is None or row in cuts(asked.changed(0, patience=change.value))
        assert not any(row in cuts(asked.changed(0, patience=tried)) for tried in range(lowest, patience))


@settings(deadline=None, max_examples=100)
@given(stopping(), st.data())
def test_every_epoch_of_every_log_is_explained_in_printable_words(asked: Case, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(asked.recording.epochs) - 1))
    for call, sentences in explain(asked, row):
        assert call
        assert sentences
        assert all(sentence.isprintable() for sentence in sentences)
        assert "never" not in " ".join(sentences), "a log that ends knows of no never"


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def log_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("logs") / "a.csv"
    rows = "".join(f"{epoch},{value},{value}\n" for epoch, value in enumerate(PLATEAU))
    path.write_text("epoch,loss,val_loss\n" + rows)
    return str(path)


def test_explain_answers_instead_of_the_report(log_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["replay", log_file, "-c", "EarlyStopping(patience=3)", "--explain", "6", "--keras", "3.15"])
        == 0
    )
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith("epoch 6 of 11 · as Keras 3.15 would")
    assert "stops here · wait 3 of 3" in out
    assert "keras.callbacks" not in out


def test_an_epoch_that_is_not_there_is_one_line_and_exit_code_2(
    log_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", log_file, "-c", "EarlyStopping()", "--explain", "12"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "no epoch 12 in this log; it has epochs 1 to 11" in err


def test_explain_is_not_for_scripts(log_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", log_file, "-c", "EarlyStopping()", "--explain", "3", "--json"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_the_first_rows_begin_with_the_rate_that_a_later_row_tells() -> None:
    recording = Attempt()
    batch = EpochsEnded(epochs=[0, 1, 2], metrics={"loss": [1.0] * 3}, learning_rate=[None, None, 0.1])
    recording.extend(batch, slice(0, 3))
    profile = PROFILES["3.15"]
    calls = tuple(parse_calls("LearningRateScheduler(lambda epoch, lr: lr * 0.5)", profile))
    ((_, words),) = explain(Case(recording=recording, calls=calls, profile=profile), 0)
    assert words == ["gives this epoch the learning rate 0.05"]


def test_a_value_after_the_stop_that_keras_cannot_compare_is_no_failure() -> None:
    calls = tuple(parse_calls("EarlyStopping(patience=1)", PROFILES["3.15"]))
    case = Case(recording=attempt([0.5, 1.0, 1e300, 0.1]), calls=calls, profile=PROFILES["3.15"])
    for row in range(4):
        assert explain(case, row)


def test_an_epoch_that_one_attempt_has_is_told_there_and_each_variant_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "training.csv"
    path.write_text("epoch,val_loss\n" + "".join(f"{epoch},1.0\n" for epoch in [0, 1, 0, 1, 2, 3]))
    variants = ("--variant", "one: EarlyStopping(patience=3)", "--variant", "two: ReduceLROnPlateau()")
    assert main(["replay", str(path), *variants, "--explain", "4"]) == 0
    out, err = capsys.readouterr()
    assert "attempt 2 · one · epoch 4 of 4" in out
    assert "attempt 2 · two · epoch 4 of 4" in out
    assert "no epoch" not in err
    assert main(["replay", str(path), *variants, "--explain", "9"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("no epoch 9 in this log; it has epochs 1 to 4")) == ("", 1)
