"""`cbmon replay` as a command: the JSON contract of DESIGN §6, the words, the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cbmon.cli import main
from cbmon.events import EpochsEnded, RecordedEvent, RunStarted, encode_line

PLAIN = "epoch,loss,val_loss\n" + "".join(
    f"{epoch},{loss},{loss}\n" for epoch, loss in enumerate([1.0, 0.8, 0.7, 0.75, 0.76, 0.77, 0.6])
)
WITH_RATE = "epoch,learning_rate,loss,val_loss\n" + "".join(
    f"{epoch},0.1,{loss},{loss}\n" for epoch, loss in enumerate([1.0, 1.0, 1.0, 1.0, 1.0])
)
RESULT_KEYS = [
    *("log", "attempt", "variant", "callbacks", "epochs_recorded", "epochs_replayed", "stopped"),
    *(
        "learning_rate",
        "learning_rate_next",
        "cuts",
        "checkpoints",
        "best",
        "exact",
        "diverges_at",
        "warnings",
    ),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "training.csv"
    path.write_text(PLAIN)
    return path


def replayed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and stderr of `cbmon replay ... --json`."""
    code = main(["replay", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out, parse_constant=pytest.fail), err


def test_the_document_has_exactly_the_keys_of_the_contract(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, err = replayed(capsys, log, "-c", "EarlyStopping(patience=2)", "--keras", "3.15")
    assert (code, err) == (0, "")
    assert list(document) == ["version", "keras", "results"]
    assert (document["version"], document["keras"]) == (1, "3.15")
    (result,) = document["results"]
    assert list(result) == RESULT_KEYS
    assert result["stopped"] == {"epoch": 4, "by": ["EarlyStopping"], "exact": True}
    assert (result["epochs_recorded"], result["epochs_replayed"]) == (7, 5)
    assert (result["learning_rate"], result["exact"]) == (None, True)
    assert result["best"] == [{"callback": "EarlyStopping", "monitor": "val_loss", "epoch": 2, "value": 0.7}]


def test_results_come_by_log_then_attempt_then_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(PLAIN + "0,1.0,1.0\n1,0.9,0.9\n")
    variants = ("--variant", "x: EarlyStopping(patience=1)", "--variant", "EarlyStopping(patience=9)")
    code, document, _ = replayed(capsys, tmp_path / "a.csv", tmp_path / "b.csv", *variants)
    assert code == 0
    order = [(Path(r["log"]).name, r["attempt"], r["variant"]) for r in document["results"]]
    assert order == [
        (log, attempt, name) for log in ("a.csv", "b.csv") for attempt in (1, 2) for name in ("x", "2")
    ]


def test_what_many_logs_share_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for at in range(6):
        (tmp_path / f"{at}.csv").write_text(PLAIN.replace("val_loss", f"val_{at}"))
    code, _, err = replayed(capsys, tmp_path, "-c", "EarlyStopping(patience=2)")
    warning = "EarlyStopping: 'val_loss' is not in this log; Keras only warns, so it never stops"
    assert (code, err) == (0, f"cbmon: 6 logs: {warning}\n")
    (tmp_path / "5.csv").unlink()
    _, _, err = replayed(capsys, tmp_path, "-c", "EarlyStopping(patience=2)")
    assert err.count(warning) == 5


def test_no_answer_is_told_in_words_once(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(log), "-c", "EarlyStopping(monitor='val_los')"]) == 2
    out, err = capsys.readouterr()
    assert "No answer." in out
    assert (out + err).count("Keras raises ValueError") == 1
    assert "this log has loss, val_loss. Did you mean val_loss?" in err


def test_attempt_picks_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN + "0,1.0,1.0\n1,0.9,0.9\n")
    _, document, _ = replayed(capsys, path, "-c", "EarlyStopping()", "--attempt", 2)
    assert [(r["attempt"], r["epochs_recorded"]) for r in document["results"]] == [(2, 2)]
    code, document, err = replayed(capsys, path, "-c", "EarlyStopping()", "--attempt", 3)
    assert (code, document["results"]) == (2, [])
    assert "no attempt 3 with an epoch; it has 2" in err


def test_a_record_of_attempts_that_all_ended_before_an_epoch_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.jsonl"
    start = encode_line(RunStarted(time=1.0, run_id="a"))
    path.write_bytes(start + start)
    code, document, err = replayed(capsys, path, "-c", "EarlyStopping()")
    assert code == 2
    assert document["results"] == []
    assert "run.jsonl: no attempt with an epoch; it has 2" in err


def test_a_log_without_learning_rate_tells_cuts_relative(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, document, _ = replayed(capsys, log, "-c", "ReduceLROnPlateau(patience=2)")
    (result,) = document["results"]
    assert result["cuts"] == [{"epoch": 4, "factor": 0.1}]
    assert (result["learning_rate"], result["exact"], result["diverges_at"]) == (None, None, None)


def test_a_recorded_learning_rate_shows_where_the_replay_leaves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(WITH_RATE)
    _, document, _ = replayed(capsys, path, "-c", "ReduceLROnPlateau(patience=2, factor=0.5)")
    (result,) = document["results"]
    assert result["cuts"] == [{"epoch": 2, "factor": 0.5}, {"epoch": 4, "factor": 0.5}]
    assert result["learning_rate"] == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05])
    assert result["learning_rate_next"] == pytest.approx(0.025)
    assert (result["exact"], result["diverges_at"]) == (False, 3)


def test_what_keras_refuses_is_that_results_error_and_the_others_still_come(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ("--variant", "bad: ReduceLROnPlateau(factor=2)", "--variant", "good: EarlyStopping(patience=2)")
    code, document, err = replayed(capsys, log, *lists)
    bad, good = document["results"]
    assert code == 2
    assert "factor >= 1.0" in bad["error"]
    assert "stopped" not in bad
    assert good["stopped"]["epoch"] == 4
    assert err.count("\n") == 1, "one line on stderr"


def test_a_metric_the_log_never_has_is_a_warning_and_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("epoch,loss,val_loss\n0,1.0,NA\n1,0.9,NA\n")
    code, document, err = replayed(capsys, path, "-c", "EarlyStopping()")
    assert (code, document["results"][0]["stopped"]) == (0, None)
    assert err.count("\n") == 1
    assert "val_loss" in err


def test_rows_left_out_are_named_in_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(PLAIN + "7,0.5\n8,0.4,0.4\n9,0.3,0.")
    _, document, err = replayed(capsys, path, "-c", "EarlyStopping(patience=9)")
    warnings = document["results"][0]["warnings"]
    assert [warning.partition(":")[0] for warning in warnings[:2]] == ["line 9", "line 11"]
    assert warnings[2].startswith("epoch 8 is not in this log"), "and what that does to the replay is said"
    assert err.count("\n") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-c", "EarlyStoping(patience=5)"], "no such callback. Did you mean EarlyStopping?"),
        (["-c", "EarlyStopping(patienc=5)"], "patience"),
        (["-c", "EarlyStopping(patience="], "EarlyStopping(patience="),
        (["-c", "__import__('os').system('true')"], "no call"),
        (["-c", "EarlyStopping()", "--keras", "1.2"], "--keras 1.2"),
        (["-c", "EarlyStopping()", "--learning-rate", "nan"], "--learning-rate nan"),
        ([], "nothing to replay"),
        (["-c", "EarlyStopping()", "--attempt", "0"], "attempt"),
    ],
)
def test_a_wrong_call_is_one_line_exit_code_2_and_no_data(
    log: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["replay", str(log), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("cbmon: ")
    assert words in err


def test_no_log_is_exit_code_3_with_the_document_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, err = replayed(capsys, tmp_path / "absent.csv", "-c", "EarlyStopping()")
    assert (code, document["results"], err.count("\n")) == (3, [], 1)


def test_people_get_sentences_with_epochs_from_1(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(log), "-c", "EarlyStopping(patience=2)", "--keras", "3.15"]) == 0
    out = capsys.readouterr().out
    assert "7 epochs · as Keras 3.15 would" in out
    assert "stops after epoch 5" in out
    assert ".7000 ★3" in out


def test_replaying_leaves_the_log_byte_identical(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = log.read_bytes()
    main(["replay", str(log), "-c", "EarlyStopping(patience=2)", "-c", "ModelCheckpoint('m-{epoch}.keras')"])
    assert log.read_bytes() == before
    assert [path.name for path in log.parent.iterdir()] == ["training.csv"]


HUGE = "1" + "0" * 400


@pytest.mark.parametrize("keras", ["3.15", "3.9", "2"])
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (f"EarlyStopping(patience={HUGE})", ""),
        (f"EarlyStopping(start_from_epoch={HUGE})", ""),
        (f"ReduceLROnPlateau(patience=1, cooldown={HUGE})", ""),
        (f"EarlyStopping(min_delta={HUGE})", "OverflowError: int too large"),
        (f"ReduceLROnPlateau(min_delta={HUGE})", "OverflowError: int too large"),
        (f"ReduceLROnPlateau(min_lr={HUGE}, patience=1)", "OverflowError: int too large"),
        (f"ReduceLROnPlateau(factor=-{HUGE}, patience=1)", "OverflowError: int too large"),
        (
            f"ModelCheckpoint('a.keras', save_best_only=True, initial_value_threshold={HUGE})",
            "OverflowError: int too large",
        ),
    ],
)
def test_an_int_beyond_all_floats_does_what_it_does_in_keras(
    log: Path, capsys: pytest.CaptureFixture[str], keras: str, call: str, words: str
) -> None:
    more = ["--learning-rate", "0.1", "--keras", keras]
    code, document, err = replayed(capsys, log, "-c", call, *more)
    (result,) = document["results"]
    assert (code, words in result.get("error", "")) == (2 if words else 0, True)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("keras", "words"),
    [("3.15", "ValueError: cannot compare"), ("2", "OverflowError: int too large")],
)
def test_a_baseline_beyond_all_floats_is_refused_as_keras_refuses_it(
    log: Path, capsys: pytest.CaptureFixture[str], keras: str, words: str
) -> None:
    code, document, _ = replayed(capsys, log, "-c", f"EarlyStopping(baseline={HUGE})", "--keras", keras)
    assert code == 2
    assert words in document["results"][0]["error"]


@pytest.mark.parametrize("keras", ["3.15", "2"])
@pytest.mark.parametrize("mode", ["'minimum'", "'MIN'", "None", "['min']"])
@pytest.mark.parametrize(
    "call", ["EarlyStopping(patience=1, {})", "ReduceLROnPlateau({})", "ModelCheckpoint('a.keras', {})"]
)
def test_an_unknown_mode_is_auto_with_a_warning(
    log: Path, capsys: pytest.CaptureFixture[str], call: str, mode: str, keras: str
) -> None:
    keras_option = ["--keras", keras]
    code, document, err = replayed(capsys, log, "-c", call.format(f"mode={mode}"), *keras_option)
    _, auto, _ = replayed(capsys, log, "-c", call.format("mode='auto'"), *keras_option)
    (result,), (expected,) = document["results"], auto["results"]
    assert code == 0
    assert f"mode={mode} is unknown: Keras warns and goes on with 'auto'" in result["warnings"][0]
    assert "is unknown" in err
    assert result["warnings"][1:] == expected["warnings"]
    told = ("stopped", "cuts", "checkpoints", "best")
    assert [result[key] for key in told] == [expected[key] for key in told]


def test_an_unknown_mode_of_a_policy_to_follow_is_said(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--once", str(log), "--policy", "EarlyStopping(mode='minimum')"]) == 0
    assert "is unknown: Keras warns" in capsys.readouterr().err


def test_more_saves_than_any_disk_holds_are_refused_and_fill_no_memory(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("-c", "ModelCheckpoint('a.keras', save_freq=1)")
    code, document, _ = replayed(capsys, log, *call, "--steps-per-epoch", 10**9)
    assert code == 2
    assert "more than 1,000,000 saves" in document["results"][0]["error"]


def test_two_lists_of_one_name_are_refused(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for names in (("a", "a"), ("2", "")):
        texts = [f"{name}: EarlyStopping()" if name else "EarlyStopping()" for name in names]
        assert main(["replay", str(log), *(part for text in texts for part in ("--variant", text))]) == 2
        assert f"two lists are called {names[0]!r}" in capsys.readouterr().err


def test_what_ones_own_schedule_prints_is_no_data(
    log: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loud_schedule.py").write_text(
        "print('hello')\ndef step(epoch):\n    print(epoch)\n    return 0.1\n"
    )
    code, document, err = replayed(capsys, log, "-c", "LearningRateScheduler('loud_schedule:step')")
    assert (code, document["results"][0]["epochs_replayed"]) == (0, 7)
    assert "hello\n0\n1\n" in err


def test_a_script_that_ends_the_process_when_imported_or_asked_costs_one_line(
    log: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ending_script.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "ending_schedule.py").write_text("import sys\ndef step(epoch):\n    sys.exit(0)\n")
    assert main(["replay", str(log), "-c", "LearningRateScheduler('ending_script:step')"]) == 2
    assert "cannot import it: SystemExit: 0" in capsys.readouterr().err
    assert main(["replay", str(log), "-c", "LearningRateScheduler('ending_schedule:step')"]) == 2
    assert "SystemExit" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["999999999", "{epoch}{epoch}{epoch}{epoch}{epoch}", ".999999999f"])
def test_a_path_of_absurd_width_is_refused_at_once(
    width: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(log), "-c", f"ModelCheckpoint('{{epoch:{width}}}.keras')", "--json"]) == 2
    assert "no file system takes a name that long" in capsys.readouterr().err


def test_a_record_tells_the_steps_of_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events: list[RecordedEvent] = [RunStarted(run_id="a", steps=10)]
    events += [EpochsEnded(epochs=[epoch], metrics={"loss": [1.0]}) for epoch in range(3)]
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(map(encode_line, events)))
    call = ("-c", "ExponentialDecay(0.1, 10, 0.5)")
    code, document, _ = replayed(capsys, path, *call)
    assert code == 0
    assert document["results"][0]["learning_rate"] == pytest.approx([0.1, 0.05, 0.025])
    assert main(["replay", str(path), *call, "--explain", "2"]) == 0, "its first rows know them too"
    assert "learning rate 0.05" in capsys.readouterr().out
    _, document, _ = replayed(capsys, path, *call, "--steps-per-epoch", "20")
    assert document["results"][0]["learning_rate"] == pytest.approx([0.1, 0.025, 0.00625]), (
        "what is given stands"
    )
