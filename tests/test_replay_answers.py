"""What `cbmon replay` shows people: text chart, learning rates, other Keras versions, lines to paste."""

from __future__ import annotations

import ast
import io
import math
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cbmon.chart import MarkKind
from cbmon.cli import main
from cbmon.cli.terminal import page_shape
from cbmon.profiles import PROFILES
from cbmon.replay import compare
from cbmon.replay.calls import parse_calls
from cbmon.replay.cases import Case
from cbmon.replay.compare import versions_sentence
from cbmon.replay.paste import literal, script_lines
from cbmon.replay.picture import drawn, lane, monitored, picture, rate_cells, rate_table
from cbmon.replay.replay_page import figure
from cbmon.replay.report import Page, report
from cbmon.replay.results import Member, Replay
from cbmon.run import Attempt
from cbmon.series import Column
from cbmon.units import cells

NAN = math.nan
FALLING = [1.0, 0.8, 0.7, 0.75, 0.76, 0.77, 0.6]


def attempt(rates: list[float | None] | None = None, **columns: list[float | None]) -> Attempt:
    found = Attempt(epochs=array("q", range(len(next(iter(columns.values()))))))
    for name, column in columns.items():
        found.columns[name] = Column()
        found.columns[name].extend(column)
    if rates:
        found.rate.extend(rates)
    return found


def asked(recording: Attempt, text: str, keras: str = "3.15", variant: str = "1") -> tuple[Replay, Case]:
    profile = PROFILES[keras]
    case = Case(recording=recording, calls=tuple(parse_calls(text, profile)), profile=profile)
    return replace(case.answer(), log="training.log", variant=variant), case


def lines_of(text: str, width: int = 80, *, ascii: bool = False, **columns: list[float | None]) -> list[str]:
    replay, case = asked(attempt(**(columns or {"loss": FALLING, "val_loss": FALLING})), text)
    return report([replay], PROFILES["3.15"], [case], Page(width=width, ascii=ascii))


# --- the text chart --------------------------------------------------------------------------------------


def test_the_line_of_life_shows_what_is_trained_where_it_cuts_and_stops_and_what_is_best() -> None:
    lines = lines_of("EarlyStopping(patience=3); ReduceLROnPlateau(patience=2)", 49, ascii=True)
    (life,) = [line for line in lines if line.startswith("       ") and set(line.strip()) <= set("-.#v*")]
    assert life[7:] == "--------------*------------v------#......."


def test_what_is_not_trained_is_dotted_and_said_so() -> None:
    lines = lines_of("EarlyStopping(patience=2)")
    assert "━━ trained  ┅┅ recorded, not trained  ■ stops  ★ best" in lines[1]
    assert lines[13].strip().endswith("┄")
    lines = lines_of("EarlyStopping(patience=9)")
    assert "not trained" not in "\n".join(lines)


@pytest.mark.parametrize("width", [20, 40, 80, 100])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_every_row_of_the_chart_fits(width: int, is_ascii: bool) -> None:
    rates: list[float | None] = [0.1] * 7
    names = {"val_loss": FALLING, "Überlänge" * 9: FALLING}
    replays = [
        asked(attempt(rates, **names), text, variant=name)[0]
        for name, text in (
            ("a long name of a variant", "EarlyStopping(patience=1)"),
            ("b", "ReduceLROnPlateau(patience=1)"),
        )
    ]
    for rows in (picture(replays[:1], width, ascii=is_ascii), picture(replays, width, ascii=is_ascii)):
        for line in drawn(rows, colours=False):
            assert cells(line) <= width
            assert not is_ascii or line.isascii() or "…" in line


@pytest.mark.parametrize(
    "values", [[], [0.5], [None, None], [NAN, NAN, NAN], [math.inf, 1.0, NAN, None, 1e308, -1e308], [0.0] * 5]
)
def test_no_values_break_the_chart(values: list[float | None]) -> None:
    assert lines_of("EarlyStopping(patience=1)", val_loss=values)


def test_the_metric_that_is_watched_is_the_one_drawn() -> None:
    recording = attempt(loss=FALLING, val_loss=FALLING, accuracy=FALLING)
    for text, metric in (
        ("EarlyStopping(monitor='accuracy', patience=1)", "accuracy"),
        ("TerminateOnNaN()", "loss"),
        ("EarlyStopping(monitor='absent', mode='min')", "val_loss"),
        ("LearningRateScheduler('0.1'); EarlyStopping(monitor='loss')", "loss"),
        ("ModelCheckpoint('a.keras'); EarlyStopping(monitor='loss')", "loss"),
    ):
        assert monitored([asked(recording, text)[0]]) == metric


def test_a_lane_marks_decisions_at_their_rows() -> None:
    replay, _ = asked(attempt(val_loss=FALLING), "EarlyStopping(patience=2); ReduceLROnPlateau(patience=1)")
    assert replay.decisions is not None
    found = lane(replay, replay.decisions, "val_loss")
    assert found.last == 4
    assert (4, MarkKind.STOP) in found.marks
    assert (2, MarkKind.BEST) in found.marks
    assert (3, MarkKind.LR) in found.marks


def test_colours_are_for_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert page_shape().colours
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not page_shape().colours
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert not page_shape().colours
    rows = picture([asked(attempt(val_loss=FALLING), "EarlyStopping(patience=1)")[0]], 60)
    assert "\x1b[" not in "".join(drawn(rows, colours=False))
    assert "\x1b[1;31m■\x1b[0m" in "".join(drawn(rows, colours=True))


def test_a_pipe_gets_the_same_lines_without_an_escape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("epoch,val_loss\n" + "".join(f"{e},{v}\n" for e, v in enumerate(FALLING)))
    assert main(["replay", str(path), "-c", "EarlyStopping(patience=2)", "--keras", "3.15"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "■" in out
    assert max(map(len, out.splitlines())) <= 100
    assert 'keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, mode="min")' in out.splitlines()


def test_one_answer_loads_nothing_that_only_others_need(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("epoch,val_loss\n" + "".join(f"{e},{v}\n" for e, v in enumerate(FALLING)))
    code = (
        "import sys; from cbmon.cli import main;"
        f"main(['replay', {str(path)!r}, '-c', 'EarlyStopping(patience=2)']);"
        "heavy = {'numpy', 'polars', 'textual', 'cbmon.replay.explain', 'cbmon.replay.webpage'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.splitlines()[-1] == "[]"


# --- several variants ------------------------------------------------------------------------------------


def variants(rates: list[float | None]) -> list[Replay]:
    recording = attempt(rates, val_loss=[1.0] * 6)
    texts = {"mild": "ReduceLROnPlateau(patience=2, factor=0.5)", "stop": "EarlyStopping(patience=2)"}
    return [asked(recording, text, variant=name)[0] for name, text in texts.items()]


def test_learning_rates_stand_side_by_side_by_stretches_with_the_first_difference_marked() -> None:
    assert rate_cells(variants([0.1, 0.1, 0.1, 0.1, 0.05, 0.05])) == [
        ["epochs", "recorded", "mild", "stop"],
        ["1–3", "0.1", "0.1", "0.1"],
        ["4", "0.1", "0.05◂", "–"],
        ["5", "0.05", "0.05", "–"],
        ["6", "0.05", "0.025", "–"],
    ]


def test_a_schedule_fills_no_screen_with_its_rates() -> None:
    recording = attempt([1.0 / (1 + row) for row in range(50)], val_loss=[1.0] * 50)
    lines = rate_table([asked(recording, "LearningRateScheduler('0.1')")[0]], 80)
    assert len(lines) == 15
    assert lines[-1].strip() == "and 38 more changes"


def test_no_rates_are_told_where_none_is_proposed() -> None:
    recording = attempt([0.1] * 4, val_loss=[1.0] * 4)
    assert rate_table([asked(recording, "EarlyStopping(patience=9)")[0]], 80) == []


def test_variants_share_a_chart_with_a_line_of_life_each() -> None:
    lines = report(variants([0.1] * 6), PROFILES["3.15"], page=Page(width=60))
    lives = [line for line in lines if line[1:5] in ("mild", "stop") and "━" in line]
    assert len(lives) == 2
    assert any("learning rate" in line and "recorded" in line for line in lines)


# --- other versions --------------------------------------------------------------------------------------


def test_versions_are_told_only_where_they_decide_otherwise() -> None:
    first_nan: dict[str, Any] = {"val_loss": [NAN, 1.0, 0.9, 0.8, 0.7]}
    replay, case = asked(attempt(**first_nan), "EarlyStopping(patience=2)")
    assert versions_sentence(case, replay) == (
        "Other versions of Keras decide otherwise: 3.6 and 2 would not stop within this log (here after 3)."
    )
    replay, case = asked(attempt(**first_nan), "EarlyStopping(patience=2)", "2")
    assert "3.15, 3.12 and 3.10 would stop after epoch 3 (here not within it)" in versions_sentence(
        case, replay
    )
    replay, case = asked(
        attempt(val_loss=FALLING), "EarlyStopping(patience=2); ReduceLROnPlateau(patience=1)"
    )
    assert versions_sentence(case, replay) == ""


def test_what_follows_another_stop_is_no_difference_of_its_own() -> None:
    values: list[float | None] = [NAN, 1.0, 0.9, 0.8, 0.7]
    replay, case = asked(
        attempt(val_loss=values), "EarlyStopping(patience=2); ModelCheckpoint('m-{epoch}.keras')"
    )
    assert "save" not in versions_sentence(case, replay)


def test_a_version_that_refuses_is_told() -> None:
    replay, case = asked(
        attempt(val_custom=FALLING, custom=FALLING), "EarlyStopping(monitor='val_custom')", "2"
    )
    told = versions_sentence(case, replay)
    assert "3.15, 3.12, 3.10 and 3.6 would refuse: ValueError: EarlyStopping callback received" in told
    replay, case = asked(attempt(loss=FALLING), "TerminateOnNaN(raise_error=True)")
    assert "2 cannot be asked: TerminateOnNaN has no argument raise_error" in versions_sentence(case, replay)
    replay, case = asked(attempt(loss=FALLING), "BaseLogger()", "2")
    assert "3.15, 3.12, 3.10 and 3.6 cannot be asked: there is no BaseLogger." in versions_sentence(
        case, replay
    )


def test_a_long_log_or_code_of_the_user_is_not_run_five_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ROWS_MAX", 3)
    replay, case = asked(attempt(val_loss=[NAN, 1.0, 0.9, 0.8]), "EarlyStopping(patience=2)")
    assert versions_sentence(case, replay) == ""
    monkeypatch.undo()
    replay, case = asked(
        attempt(val_loss=[NAN, 1.0, 0.9, 0.8]), "EarlyStopping(patience=2); LearningRateScheduler('math:sin')"
    )
    assert versions_sentence(case, replay) == ""


# --- to paste --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("EarlyStopping(patience=5)", 'keras.callbacks.EarlyStopping(monitor="val_loss", patience=5, mode="min")'),
        ("EarlyStopping('auc', 0, 3)", 'keras.callbacks.EarlyStopping(monitor="auc", patience=3, mode="max")'),
        ("TerminateOnNaN()", "keras.callbacks.TerminateOnNaN()"),
        ("ModelCheckpoint('m.keras')", 'keras.callbacks.ModelCheckpoint(filepath="m.keras")'),
        ("ModelCheckpoint('m.keras', 'loss', save_best_only=True)",
         'keras.callbacks.ModelCheckpoint(filepath="m.keras", monitor="loss", save_best_only=True, mode="min")'),
        ("LearningRateScheduler('lr * 0.9')", "keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.9)"),
        ("LearningRateScheduler(lambda e: 0.1)", "keras.callbacks.LearningRateScheduler(lambda e: 0.1)"),
    ],
)  # fmt: skip
def test_the_line_to_paste_has_the_mode_resolved_and_no_defaults(text: str, line: str) -> None:
    columns = {name: list(FALLING) for name in ("loss", "val_loss", "auc")}
    replay, case = asked(attempt([0.1] * 7, **columns), text)
    assert replay.decisions is not None, replay.error
    assert script_lines(replay.decisions.members, case.profile, 200) == [line]


def test_a_schedule_of_the_users_own_is_imported_and_tf_keras_is_named() -> None:
    replay, case = asked(attempt([0.1] * 3, val_loss=[1.0] * 3), "LearningRateScheduler('math:exp')", "2")
    assert replay.decisions is not None, replay.error
    assert script_lines(replay.decisions.members, case.profile, 100) == [
        "from math import exp",
        "tf_keras.callbacks.LearningRateScheduler(exp)",
    ]


@pytest.mark.parametrize("width", [20, 60, 100])
def test_a_list_to_paste_is_python_at_any_width_and_reads_back_the_same(width: int) -> None:
    text = (
        "EarlyStopping(patience=3, min_delta=1e-4, baseline=0.2, restore_best_weights=True);"
        "ReduceLROnPlateau(factor=0.5, min_lr=1e-6, cooldown=2); TerminateOnNaN();"
        "ModelCheckpoint('a \"b\" {epoch:03d}.keras', save_best_only=True, initial_value_threshold=0.5)"
    )
    replay, case = asked(attempt([0.1] * 7, loss=FALLING, val_loss=FALLING), text)
    assert replay.decisions is not None
    written = "\n".join(script_lines(replay.decisions.members, case.profile, width))
    ast.parse(written)
    again = parse_calls(written.removeprefix("callbacks = "), case.profile)
    assert [call.build(case.profile) for call in again] == [
        member.policy for member in replay.decisions.members
    ]


def test_what_only_watches_is_listed_as_written_and_an_optimizer_stands_apart() -> None:
    text = "[CSVLogger('a.csv'), Adam(learning_rate=CosineDecay(0.1, 100)), own.module:Mine(f=2), TerminateOnNaN()]"
    profile = PROFILES["3.15"]
    case = Case(
        recording=attempt([0.1] * 3, loss=[1.0] * 3), calls=tuple(parse_calls(text, profile)), profile=profile,
        steps_per_epoch=10,
    )  # fmt: skip
    made = case.answer().decisions
    if made is None:  # a class of one's own may be refused here: Keras runs it
        case = replace(case, calls=tuple(call for call in case.calls if ":" not in call.text))
        made = case.answer().decisions
    assert made is not None
    lines = script_lines(made.members, profile, 100)
    decay = "keras.optimizers.schedules.CosineDecay(0.1, 100)"
    assert f"optimizer = keras.optimizers.Adam(learning_rate={decay})" in lines, (
        "no name that is not imported"
    )
    assert "    keras.callbacks.CSVLogger('a.csv')," in lines
    assert not any("optimizers" in line for line in lines[lines.index("callbacks = [") :])


def test_hooks_are_pasted_as_functions_and_imported_once() -> None:
    profile = PROFILES["3.15"]
    (call,) = parse_calls(
        "LambdaCallback(on_epoch_end='own.hooks:note', on_train_end='own.hooks:note')", profile
    )
    member = Member(text=call.text, policy=call.build(profile), state=None)
    assert script_lines([member], profile, 100) == [
        "from own.hooks import note",
        "keras.callbacks.LambdaCallback(on_epoch_end=note, on_train_end=note)",
    ]


def test_who_was_not_asked_to_the_end_did_not_fire_within_what_was_trained() -> None:
    words = "\n".join(lines_of("EarlyStopping(patience=2); ReduceLROnPlateau(patience=5)"))
    assert "stops after epoch 5" in words
    assert "ReduceLROnPlateau(patience=5)   not within 5 epochs" in words, "of 7 recorded ones"


def test_no_low_learning_rate_lies_on_a_tick_of_zero() -> None:
    log = attempt([1e-3] * 7, val_loss=[1.0] * 7)
    replay, _ = asked(log, "ReduceLROnPlateau(patience=1, factor=0.6)")
    text = "\n".join(drawn(picture([replay], 80), colours=False))
    assert "0.000" not in text
    rates = text.partition("learning rate")[2]
    assert " 1e-3 ┤" in rates
    assert "1e-4" not in rates, "no round value near which no rate is"


def test_the_rates_axis_has_actual_rates_and_a_variant_that_changes_none_is_drawn() -> None:
    log = attempt(val_loss=[1.0] * 7)
    variants = ("a", "EarlyStopping(patience=9)"), ("b", "ReduceLROnPlateau(patience=3)")
    replays = [replay_at(log, text, name, 1e-3) for name, text in variants]
    text = "\n".join(drawn(picture(replays, 80), colours=False))
    rates = text.partition("learning rate")[2]
    assert rates.startswith("  ━━ a  ━━ b")
    assert " 1e-3 ┤" in rates
    assert " 1e-4 ┤" in rates
    assert figure(replays).count('class="rate ') == 2
    flat = drawn(
        picture([replay_at(attempt(val_loss=FALLING), variants[1][1], "1", 1e-3)], 80), colours=False
    )
    assert not any("1e-5" in line for line in flat)


def replay_at(recording: Attempt, text: str, variant: str, rate: float) -> Replay:
    calls = tuple(parse_calls(text, PROFILES["3.15"]))
    case = Case(recording=recording, calls=calls, profile=PROFILES["3.15"], learning_rate=rate)
    return replace(case.answer(), variant=variant)


def test_a_log_without_epochs_has_no_epochs_yet() -> None:
    assert lines_of("EarlyStopping(patience=3)", val_loss=[])[1:] == ["  no epochs yet"]


def test_nothing_saved_is_not_told_and_the_legend_names_both_curves() -> None:
    text = "\n".join(lines_of("EarlyStopping(patience=1)", val_loss=[1.0, 2.0]))
    assert "stops after epoch 2" in text
    assert "Saves" not in text
    legend = figure([asked(attempt(loss=FALLING, val_loss=FALLING), "EarlyStopping(patience=3)")[0]])
    assert "━ val_loss" in legend
    assert "─ loss" in legend


def test_a_table_cuts_names_in_their_middle_and_leaves_columns_out_before() -> None:
    names = [f"/a/long/folder/of/all/somebody__a-long-name-of-a-project__training-{at}.log" for at in (1, 2)]
    results = [
        replace(asked(attempt(val_loss=FALLING), "EarlyStopping(patience=3)")[0], log=name) for name in names
    ]
    lines = report(results, PROFILES["3.15"], [], Page(width=60))
    shown = [line.split()[0] for line in lines[2:4]]
    assert shown == ["somebody__a-long-na…ect__training-1.log", "somebody__a-long-na…ect__training-2.log"]
    assert max(map(cells, lines)) <= 60
    wide = report(results, PROFILES["3.15"], [], Page(width=100, columns=160))
    assert "project__training-1.log" in wide[2]


def test_a_literal_is_python_for_whatever_value() -> None:
    for value in ('a"b\\c', "tab\tand\x1b[31m and \u202e", 5, 0.1, True, None):
        assert ast.literal_eval(literal(value)) == value
        assert literal(value).isprintable()
    assert literal(math.inf) == 'float("inf")'
