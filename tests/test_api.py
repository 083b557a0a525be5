"""Replay and sweep from Python: logs of all kinds, texts and instances, frames; and the page in docs about it."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import cbmon.replay.sweeping  # the function has its module's package to itself
from cbmon.errors import BadCall, NoRunsFound
from cbmon.profiles import NEWEST, PROFILES
from cbmon.replay import epochs_frame, policies_frame, replay, sweep
from cbmon.replay.api import calls_of

ROOT = Path(__file__).parents[1]
VALUES = [1.0, 0.8, 0.7, 0.75, 0.76, 0.77, 0.6]
PAGE = ROOT / "docs" / "replay-in-python.md"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "training.csv"
    rows = "".join(f"{epoch},{value},{value}\n" for epoch, value in enumerate(VALUES))
    path.write_text(f"epoch,loss,val_loss\n{rows}")
    return path


def test_a_log_may_be_a_file_a_history_or_a_frame(log: Path) -> None:
    import polars as pl

    table = {"epoch": list(range(len(VALUES))), "val_loss": VALUES}
    frame = pl.DataFrame(table)
    found = [
        result.decisions.stopped
        for one in (log, str(log), {"val_loss": VALUES}, table, frame, [log, frame])
        for result in replay(one, "EarlyStopping(patience=2)", keras="3.15")
        if result.decisions
    ]
    assert len(found) == 7
    assert {stop and stop.epoch for stop in found} == {4}


def test_keras_instances_give_their_arguments_and_stay_as_they_are() -> None:
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    callbacks = keras.callbacks
    listed = [
        callbacks.EarlyStopping(
            monitor="val_accuracy", min_delta=-0.01, patience=3, mode="max", baseline=0.5
        ),
        callbacks.ReduceLROnPlateau(factor=0.5, cooldown=2, min_lr=1e-5),
        callbacks.ModelCheckpoint("m.keras", save_best_only=True, initial_value_threshold=0.3),
        callbacks.CSVLogger("x.csv", separator=";"),
        callbacks.TerminateOnNaN(),
    ]
    before = [dict(vars(each)) for each in listed]
    assert [call.text for call in calls_of(listed, NEWEST)] == [
        "EarlyStopping(monitor='val_accuracy', min_delta=0.01, patience=3, mode='max', baseline=0.5)",
        "ReduceLROnPlateau(factor=0.5, cooldown=2, min_lr=1e-05)",
        "ModelCheckpoint(filepath='m.keras', save_best_only=True, initial_value_threshold=0.3)",
        "CSVLogger(filename='x.csv', separator=';')",
        "TerminateOnNaN()",
    ]
    assert [dict(vars(each)) for each in listed] == before


def test_instances_of_keras_2_tell_their_direction() -> None:
    tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    callbacks = tf_keras.callbacks
    listed = [
        callbacks.EarlyStopping(monitor="val_mine", mode="max", min_delta=0.1),
        callbacks.EarlyStopping(monitor="val_mine"),
    ]
    assert [call.arguments["mode"] for call in calls_of(listed, PROFILES["2"])] == ["max", "min"]
    assert [call.arguments["min_delta"] for call in calls_of(listed, PROFILES["2"])] == [0.1, 0]


def test_a_schedule_may_be_any_function(log: Path) -> None:
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    halving = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    (result,) = replay(log, [halving], learning_rate=1.0)
    assert result.decisions is not None
    assert result.decisions.learning_rate == tuple(0.5**n for n in range(1, 8))


@pytest.mark.parametrize("odd", [object(), 3, [], [3], "EarlyStopping(patience=print())"])
def test_what_is_no_callback_is_refused(log: Path, odd: Any) -> None:
    with pytest.raises(BadCall):
        replay(log, odd)


def test_code_is_not_taken_for_a_callback_without_hooks(log: Path) -> None:
    keras = pytest.importorskip("keras", reason="Keras is not installed")

    class Mine(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        """A user's own."""

    for callback in (keras.callbacks.LambdaCallback(on_epoch_end=print), Mine()):
        with pytest.raises(BadCall):
            replay(log, [callback])


@pytest.mark.parametrize("logs", ["nowhere.csv", {"val_loss": []}, []])
def test_no_epochs_is_said(logs: Any) -> None:
    with pytest.raises(NoRunsFound):
        replay(logs, "EarlyStopping()")
    with pytest.raises(NoRunsFound):
        sweep(logs, "EarlyStopping(patience=range(1, 3))")


def test_a_table_that_is_no_log_is_refused() -> None:
    with pytest.raises(BadCall):
        replay(3.5, "EarlyStopping()")  # type: ignore[arg-type]


def test_the_frame_of_a_replay_has_a_row_an_epoch(log: Path) -> None:
    (result,) = replay(
        log, "ReduceLROnPlateau(patience=2); EarlyStopping(patience=3)", learning_rate=0.1, keras="3.15"
    )
    frame = epochs_frame([result])
    assert frame["epoch"].to_list() == [0, 1, 2, 3, 4, 5]
    assert frame["cut"].to_list() == [None, None, None, None, 0.1, None]
    assert frame["stops"].to_list() == [False] * 5 + [True]
    assert frame["exact"].to_list() == [True] * 5 + [None]  # the log has no learning rate
    assert frame["learning_rate"][0] == pytest.approx(0.1)


def test_a_refused_replay_has_no_rows(log: Path) -> None:
    (result,) = replay(log, "EarlyStopping('mine')", keras="3.15")
    assert result.error is not None
    assert epochs_frame([result]).is_empty()


def test_a_sweep_and_its_frame(log: Path) -> None:
    ranking = sweep(log, "EarlyStopping(patience=range(1, 6), restore_best_weights=True)", keras="3.15")
    frame = policies_frame(ranking)
    assert frame["patience"].to_list() == [1, 2, 3, 4, 5]
    assert frame["epochs_saved"].to_list() == [3, 2, 1, 0, 0]
    assert frame["harmful"].to_list() == [1, 1, 1, 0, 0]
    assert ranking.needed == (4,)
    with ThreadPoolExecutor(2) as executor:
        again = sweep(log, "EarlyStopping(patience=range(1, 6))", keras="3.15", executor=executor)
    assert (again.sweep.stops == ranking.sweep.stops).all()


def test_the_function_hides_no_module_and_no_module_the_function() -> None:
    assert callable(sweep)
    assert cbmon.replay.sweep is sweep
    assert cbmon.replay.sweeping.sweep is not sweep
    with pytest.raises(AttributeError):
        _ = cbmon.replay.no_such_name


def _blocks() -> list[tuple[str, str | None]]:
    """Each block of code of the page, with the output that it is shown with."""
    found = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    blocks: list[tuple[str, str | None]] = []
    for kind, text in found:
        if kind == "python":
            blocks.append((text, None))
        elif kind == "text":
            blocks[-1] = (blocks[-1][0], text)
    return blocks


def test_the_page_in_docs_runs_and_shows_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    blocks = _blocks()
    assert len(blocks) > 3
    for code, shown in blocks:
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(code, str(PAGE), "exec"), names)
        assert shown is None or out.getvalue() == shown
