"""`cbmon show`: the contract of DESIGN §6, through the command line's own entry point."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cbmon.cli import main
from cbmon.endpoint import this_process
from cbmon.events import (
    EpochsEnded,
    Process,
    RecordedEvent,
    RunEnded,
    RunStarted,
    StopRequested,
    encode_line,
)
from cbmon.units import clock

LOG = b"""epoch,loss,val_loss,acc,custom,lr
0,1.0,1.1,0.5,3,0.1
1,0.5,0.6,0.7,2,0.1
2,0.4,0.7,0.6,1,0.01
"""
PROSE = b"Training...\nColor space HLS\n"
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a call of `cbmon show` gave."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert isinstance(found, dict)
        return found

    @property
    def run(self) -> dict[str, Any]:
        (run,) = self.document["runs"]
        return dict(run)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Shown:
        code = main(["show", *arguments])
        output = capsys.readouterr()
        return Shown(code=int(code), stdout=output.out, stderr=output.err)

    return call


def write(path: str, data: bytes = LOG, *, age_s: float = 0.0) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    written = time.time() - age_s
    os.utime(file, (written, written))
    return file


def record(*events: RecordedEvent) -> bytes:
    return b"".join(map(encode_line, events))


def started(process: Process | None = None, *, age_s: float = 0.0) -> RunStarted:
    return RunStarted(time=time.time() - age_s, run_id="a", epochs=20, process=process)


def epoch(number: int, loss: float, *, age_s: float = 0.0) -> EpochsEnded:
    return EpochsEnded(
        time=time.time() - age_s, epochs=[number], metrics={"loss": [loss]}, learning_rate=[0.1]
    )


def monitor_csv(*, age_s: float = 0.0) -> bytes:
    """What `Monitor("x.csv")` writes, the last epoch ended so long ago; with a column of a later cbmon's."""
    last = time.time() - age_s
    return (
        "epoch,loss,val_loss,learning_rate,cbmon_time,cbmon_epoch_s,cbmon_first_step_s,cbmon_tomorrow\n"
        f"0,1.0,1.1,0.1,{last - 120!r},60.5,4.0,x\n"
        f"1,0.5,0.6,0.1,{last - 60!r},59.5,NA,x\n"
        f"2,0.4,0.7,0.05,{last!r},60.0,NA,x\n"
    ).encode()


def ended_process() -> Process:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        start = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        return msgspec.structs.replace(this_process(), pid=child.pid, start=start)
    finally:
        child.kill()
        child.communicate()


# The document


def test_the_document_has_exactly_the_agreed_keys(show: Any) -> None:
    write("logs/run1/training.csv", LOG + b"3,nan,0.8,0.6,1,0.01\n4\n")
    write("logs/notes.txt", PROSE)
    shown = show("logs", "--json")
    document = shown.document
    assert list(document) == ["version", "runs", "skipped"]
    assert document["version"] == 1
    (run,) = document["runs"]
    assert list(run) == ["name", "path", "format", "status", "attempts", "alerts", "warnings"]
    (attempt,) = run["attempts"]
    assert list(attempt) == ["first_epoch", "last_epoch", "epochs", "metrics", "learning_rate"]
    assert all(list(metric) == ["last", "best", "best_epoch"] for metric in attempt["metrics"].values())
    assert run["alerts"]
    assert all(list(alert) == ["attempt", "epoch", "severity", "kind", "message"] for alert in run["alerts"])
    (skip,) = document["skipped"]
    assert list(skip) == ["path", "reason"]


def test_the_document_of_a_row_log(show: Any) -> None:
    write("logs/run1/training.csv")
    shown = show("logs", "--json")
    assert shown.code == 0
    assert shown.stderr == ""
    assert shown.run == {
        "name": "run1",
        "path": "logs/run1/training.csv",
        "format": "keras-csv",
        "status": "growing",
        "attempts": [
            {
                "first_epoch": 0,
                "last_epoch": 2,
                "epochs": 3,
                "metrics": {
                    "loss": {"last": 0.4, "best": 0.4, "best_epoch": 2},
                    "val_loss": {"last": 0.7, "best": 0.6, "best_epoch": 1},
                    "acc": {"last": 0.6, "best": 0.7, "best_epoch": 1},
                    "custom": {"last": 1.0, "best": None, "best_epoch": None},
                },
                "learning_rate": 0.01,
            }
        ],
        "alerts": [
            {
                "attempt": 1,
                "epoch": 2,
                "severity": "info",
                "kind": "learning-rate",
                "message": "learning rate 0.1 → 0.01 at epoch 3",
            }
        ],
        "warnings": [],
    }


def test_epochs_are_counted_from_0_in_json_and_from_1_in_words(show: Any) -> None:
    write("run1.csv", b"epoch,loss,lr\n0,1,0.1\n1,nan,0.1\n")
    run = show("run1.csv", "--json").run
    (alert,) = run["alerts"]
    assert alert["epoch"] == 1
    assert alert["message"] == "NaN loss at epoch 2"
    table = show("run1.csv").stdout
    assert "NaN loss, epoch 2" in table


@pytest.mark.parametrize(("cell", "said"), [(b"nan", "nan"), (b"inf", "inf"), (b"-inf", "-inf")])
def test_a_number_that_json_does_not_know_is_a_word(show: Any, cell: bytes, said: str) -> None:
    write("run1.csv", b"epoch,loss,lr\n0,0.5,0.1\n1,%s,%s\n" % (cell, cell))
    (attempt,) = show("run1.csv", "--json").run["attempts"]
    assert attempt["metrics"]["loss"] == {"last": said, "best": 0.5, "best_epoch": 0}
    assert attempt["learning_rate"] == said


def test_a_learning_rate_that_stays_nan_changed_once(show: Any) -> None:
    write("run1.csv", b"epoch,loss,lr\n0,1,0.1\n1,1,nan\n2,1,nan\n3,1,nan\n")
    assert [alert["epoch"] for alert in show("run1.csv", "--json").run["alerts"]] == [1]


def test_what_a_log_does_not_tell_is_null(show: Any) -> None:
    write("run1.csv", b"epoch,loss,val_loss\n0,nan,NA\n1,NA,NA\n")
    (attempt,) = show("run1.csv", "--json").run["attempts"]
    assert attempt["metrics"] == {"loss": {"last": "nan", "best": None, "best_epoch": None}}
    assert attempt["learning_rate"] is None


def test_list_and_text_cells_are_no_metrics(show: Any) -> None:
    write("run1.csv", b'epoch,l,note,loss\n0,"[1, 2]",good,0.5\n')
    (attempt,) = show("run1.csv", "--json").run["attempts"]
    assert list(attempt["metrics"]) == ["loss"]


def test_each_restart_is_an_attempt(show: Any) -> None:
    write("run1.csv", b"epoch,loss,lr\n3,1,0.1\n5,0.5,0.1\n0,nan,0.1\n")
    run = show("run1.csv", "--json").run
    assert [(each["first_epoch"], each["last_epoch"], each["epochs"]) for each in run["attempts"]] == [
        (3, 5, 2),
        (0, 0, 1),
    ]
    assert [alert["attempt"] for alert in run["alerts"]] == [2]


def test_rows_left_out_are_warnings_by_line(show: Any) -> None:
    write("run1.csv", b"epoch,loss\n0,1\n1\n2\n3,1,1\n4,0.5\n5,0.")
    shown = show("run1.csv", "--json")
    assert shown.run["warnings"] == [
        "lines 3-4: left out, the epoch alone, without metrics",
        "line 5: left out, 3 cells under a header of 2",
        "line 7: left out, no newline at its end: it may be cut",
    ]
    assert shown.code == 0


FORMATS = [
    ("training.csv", LOG, "keras-csv"),
    ("training.jsonl", record(RunStarted(run_id="a"), EpochsEnded(epochs=[0])), "cbmon-jsonl"),
    ("training.csv", b"epoch,loss,cbmon_time\n0,1.0,9\n", "cbmon-csv"),
    ("history.json", b'{"loss": [1.0, 0.5]}', "keras-history-json"),
]


@pytest.mark.parametrize(("name", "data", "format"), FORMATS)
def test_the_format_is_named(show: Any, name: str, data: bytes, format: str) -> None:
    write(f"run1/{name}", data)
    run = show("run1", "--json").run
    assert run["format"] == format
    assert run["name"] == "run1"


def test_columns_of_our_own_are_no_metrics_and_no_word_is_lost_on_them(show: Any) -> None:
    write("run1.csv", monitor_csv())
    run = show("run1.csv", "--json").run
    (attempt,) = run["attempts"]
    assert list(attempt["metrics"]) == ["loss", "val_loss"]
    assert attempt["learning_rate"] == 0.05
    assert run["warnings"] == []


def test_text_where_a_time_should_be_is_named_like_a_metrics(show: Any) -> None:
    write("run1.csv", b"epoch,loss,cbmon_time\n0,1.0,noon\n")
    run = show("run1.csv", "--json").run
    assert run["attempts"][0]["epochs"] == 1
    assert run["warnings"] == ["column 'cbmon_time': some cells are text or lists, taken as absent"]


@pytest.mark.parametrize(
    ("recorded_s", "written_s", "status", "since_s"),
    [
        (0.0, 0.0, "growing", 0.0),
        (DAY_S, DAY_S, "quiet", DAY_S),
        (3600.0, DAY_S, "quiet", 3600.0),
        (3600.0, 7200.0, "quiet", 3600.0),
        (0.0, DAY_S, "growing", 0.0),
        (DAY_S, 0.0, "growing", 0.0),
    ],
)
def test_the_time_of_the_last_epoch_is_a_sign_of_life(
    show: Any, recorded_s: float, written_s: float, status: str, since_s: float
) -> None:
    now = time.time()
    write("run1.csv", monitor_csv(age_s=recorded_s), age_s=written_s)
    assert show("run1.csv", "--json").run["status"] == status
    row = columns(show("run1.csv").stdout.splitlines()[1])
    minute = {clock(now - since_s + late_s, now) for late_s in (0.0, 5.0)}  # a minute may end meanwhile
    assert row[-1] in minute
    assert row[1] in ({"◐ growing"} if status == "growing" else {f"◌ quiet since {at}" for at in minute})


def test_what_monitor_wrote_as_csv_is_replayed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run1.csv").write_bytes(monitor_csv())
    call = "EarlyStopping(patience=1)"
    assert main(["replay", str(tmp_path / "run1.csv"), "-c", call, "--keras", "3.15", "--json"]) == 0
    output = capsys.readouterr()
    (result,) = json.loads(output.out)["results"]
    assert (output.err, result["warnings"]) == ("", [])
    assert result["stopped"] == {"epoch": 2, "by": ["EarlyStopping"], "exact": True}
    assert result["learning_rate"] == [0.1, 0.1, 0.05]


needs_proc = pytest.mark.skipif(
    this_process().boot_id is None, reason="this platform does not tell which process wrote a record"
)


def statuses() -> list[Any]:
    def ended(how: str, **facts: Any) -> bytes:
        return record(started(), epoch(0, 1.0), RunEnded(time=time.time(), how=how, **facts))

    day = {"age_s": DAY_S}
    return [
        pytest.param("empty", "training.csv", b"", 0.0, id="an empty file"),
        pytest.param("empty", "training.csv", b"epoch,loss\n", DAY_S, id="a header alone"),
        pytest.param("empty", "history.json", b"", 0.0, id="an empty file that is named"),
        pytest.param("growing", "training.csv", LOG, 0.0, id="a row log written just now"),
        pytest.param("quiet", "training.csv", LOG, DAY_S, id="a row log of yesterday"),
        pytest.param("quiet", "history.json", b'{"loss": [1]}', DAY_S, id="a history of yesterday"),
        pytest.param(
            "running", "a.jsonl", record(started(this_process()), epoch(0, 1.0)), 0.0, id="its process lives"
        ),
        pytest.param("running", "a.jsonl", record(started()), 0.0, id="before its first epoch"),
        pytest.param(
            "quiet", "a.jsonl", record(started(**day), epoch(0, 1.0, **day)), DAY_S, id="no word since yesterday"
        ),
        pytest.param("finished", "a.jsonl", ended("finished"), DAY_S, id="finished"),
        pytest.param("finished", "a.jsonl", ended("tomorrow's word"), DAY_S, id="ended in a way we do not know"),
        pytest.param("stopped", "a.jsonl", ended("stopped", by=["EarlyStopping"]), DAY_S, id="stopped"),
        pytest.param("interrupted", "a.jsonl", ended("interrupted"), DAY_S, id="interrupted"),
        pytest.param("failed", "a.jsonl", ended("failed", error="ValueError: x"), DAY_S, id="failed"),
        pytest.param(
            "running", "a.jsonl", ended("finished") + record(started(), epoch(1, 1.0)), 0.0, id="resumed"
        ),
        pytest.param(
            "running", "a.jsonl", ended("finished")[:-1] + b"x\n" + record(started()), 0.0, id="after a bad line"
        ),
    ]  # fmt: skip


COLLECTED = time.time()


@pytest.mark.parametrize(("status", "name", "data", "age_s"), statuses())
def test_status(
    show: Any, status: str, name: str, data: bytes, age_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: COLLECTED)  # when the records above were made
    write(name, data, age_s=age_s)
    assert show(name, "--json").run["status"] == status


@needs_proc
def test_crashed_is_said_where_the_process_is_known_to_be_gone(show: Any) -> None:
    write("run1.jsonl", record(started(ended_process()), epoch(0, 1.0)))
    shown = show("run1.jsonl", "--json", "--check")
    assert shown.run["status"] == "crashed"
    assert [alert["kind"] for alert in shown.run["alerts"]] == ["crashed"]
    assert shown.code == 1


@needs_proc
def test_crashed_is_not_said_of_a_process_elsewhere(show: Any) -> None:
    elsewhere = msgspec.structs.replace(ended_process(), host="elsewhere")
    write("run1.jsonl", record(started(elsewhere), epoch(0, 1.0)))
    assert show("run1.jsonl", "--json", "--check").run["status"] == "running"


# Exit codes


def test_a_refused_file_is_in_skipped_and_one_line_on_stderr(show: Any) -> None:
    write("good.csv")
    write("notes.txt", PROSE)
    shown = show("good.csv", "notes.txt", "--json")
    assert shown.code == 0, "something was readable"
    reason = "no header line with an 'epoch' column; it begins 'Training...'"
    assert shown.document["skipped"] == [{"path": "notes.txt", "reason": reason}]
    assert shown.stderr == f"cbmon: notes.txt: {reason}\n"


@pytest.mark.parametrize(
    "path", ["notes.txt", "absent.csv", "empty-folder", "*.nothing", "unix:///tmp/x", "~nobody/x.csv"]
)
def test_the_document_is_printed_though_nothing_was_readable(show: Any, path: str) -> None:
    write("notes.txt", PROSE)
    Path("empty-folder").mkdir()
    shown = show(path, "--json")
    assert shown.code == 3
    assert shown.document["runs"] == []
    assert shown.stderr.startswith("cbmon: ")
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("path", ["unix://", "unix:///tmp/x.sock"])
def test_a_socket_is_named_as_it_was_given(show: Any, path: str) -> None:
    assert show(path).stderr == f"cbmon: {path}: a socket keeps nothing: it can only be watched live\n"


def test_a_path_without_a_log_is_exit_code_3_and_said(show: Any) -> None:
    shown = show("absent.csv")
    assert shown.code == 3
    assert "absent.csv: no such file" in shown.stderr
    Path("folder").mkdir()
    shown = show("folder")
    assert (shown.code, shown.stdout) == (3, "")
    assert "no training log" in shown.stderr


@pytest.mark.parametrize("data", [b"", b"epoch,loss\n", b"\xef\xbb\xbfepoch,loss\r\n", b"\n\n"])
def test_a_log_that_has_not_begun_is_a_run_and_fine(show: Any, data: bytes) -> None:
    write("training.csv", data)
    shown = show("training.csv", "--json", "--check")
    assert shown.code == 0
    assert shown.run["status"] == "empty"
    assert shown.run["attempts"] == []
    assert show("training.csv").code == 0


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        (LOG, 0, "a healthy run"),
        (b"epoch,loss\n0,1\n1,nan\n", 1, "NaN loss"),
        (b"epoch,loss\n0,1\n1,inf\n", 1, "infinite loss"),
        (b"epoch,loss,val_loss\n0,1,nan\n", 1, "NaN validation loss"),
        (b"epoch,loss,gp\n0,1,nan\n", 0, "NaN in what is no loss is a warning"),
        (b"epoch,loss\n0,1\n1,2e5\n", 1, "diverged"),
        (b"epoch,loss\n0,1\n1,2e5\n2,1.5\n", 0, "it came back"),
        (b"epoch,loss\n0,1\n1,nan\n0,1\n1,0.5\n", 0, "an earlier attempt had it, this one is fine"),
        (record(RunStarted(run_id="a"), RunEnded(how="failed", error="X")), 1, "failed"),
        (record(RunStarted(run_id="a"), StopRequested(), RunEnded(how="stopped")), 0, "stopped on purpose"),
        (record(RunStarted(run_id="a"), RunEnded(how="interrupted")), 0, "the user's own doing"),
    ],
)
def test_check_tells_an_unhealthy_run_by_the_exit_code(
    show: Any, data: bytes, code: int, sentence: str
) -> None:
    write("run1.jsonl", data)
    assert show("run1.jsonl", "--check", "--json").code == code, sentence
    assert show("run1.jsonl", "--check").code == code, sentence
    assert show("run1.jsonl").code == 0, "without --check it is not asked"


def test_the_document_is_whole_whatever_the_exit_code(show: Any) -> None:
    write("a/training.csv", b"epoch,loss\n0,nan\n")
    write("b/training.csv")
    shown = show("a", "b", "absent", "--json", "--check")
    assert shown.code == 1
    assert [run["name"] for run in shown.document["runs"]] == ["a", "b"]
    assert len(shown.document["skipped"]) == 1


@pytest.mark.parametrize("arguments", [[], ["--frobnicate", "x"], ["x", "--epochs", "0"]])
def test_a_call_that_cannot_be_read_is_exit_code_2(show: Any, arguments: list[str]) -> None:
    shown = show(*arguments)
    assert (shown.code, shown.stdout) == (2, "")
    assert shown.stderr.startswith("cbmon: ")
    assert shown.stderr.count("\n") == 1


def test_a_log_that_cannot_be_read_any_more_is_skipped(show: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cbmon.sources import Log

    def gone(log: Log, limit: int = 0) -> None:
        raise OSError(5, "Input/output error")

    write("run1.csv")
    monkeypatch.setattr(Log, "read", gone)
    shown = show("run1.csv", "--json")
    assert shown.code == 3
    assert shown.document["skipped"] == [{"path": "run1.csv", "reason": "input/output error"}]


# For people


def columns(line: str) -> list[str]:
    """The cells of a table's line: two spaces or more between them."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_table_answers_what_one_asks_of_a_run(show: Any) -> None:
    write("logs/run1/training.csv", age_s=DAY_S)
    write("logs/run2.jsonl", record(started(), epoch(0, 2.0), epoch(1, float("nan"))))
    write("logs/notes.txt", PROSE)
    shown = show("logs")
    head, *rows, last = shown.stdout.splitlines()
    assert columns(head)[:3] == ["run", "state", "epoch"]
    assert columns(head)[-3:] == ["last", "lr", "since"]
    found = {columns(row)[0]: columns(row) for row in rows}
    assert found.keys() == {"run1", "run2"}
    assert found["run1"][1].startswith("◌ quiet since ")
    assert found["run1"][2] == "3"
    assert ".6000 ★2" in found["run1"][3], "the best validation loss at its epoch, counted from 1"
    assert found["run1"][4:6] == [".7000", "0.01"]
    assert found["run2"][1:3] == ["✗ NaN loss, epoch 2", "2/20"]
    assert found["run2"][4:6] == ["nan", "0.1"]
    assert "1 needs you: run2" in last
    assert "1 file here is no training log (--skipped lists it)" in last
    assert shown.stderr == ""


def test_an_unknown_number_is_a_dash_not_a_zero(show: Any) -> None:
    write("run1.csv", b"epoch,loss\n")
    row = show("run1.csv").stdout.splitlines()[1]
    assert columns(row)[2:6] == ["–", "–", "–", "–"]
    assert "0" not in "".join(columns(row)[2:6])


def test_the_plan_may_be_given_for_logs_that_cannot_tell_it(show: Any) -> None:
    write("run1.csv")
    assert columns(show("run1.csv", "--epochs", "40").stdout.splitlines()[1])[2] == "3/40"


def test_skipped_lists_the_files_that_are_no_logs(show: Any) -> None:
    write("logs/run1.csv")
    write("logs/notes.txt", PROSE)
    write("logs/picture.png", b"\x89PNG\0")
    assert show("logs").stderr == ""
    told = show("logs", "--skipped").stderr.splitlines()
    assert told == [
        "cbmon: logs/notes.txt: no header line with an 'epoch' column; it begins 'Training...'",
        "cbmon: logs/picture.png: a binary file",
    ]


def test_an_unreadable_log_is_a_row_of_the_table(show: Any) -> None:
    write("logs/run1.csv")
    write("logs/run2.csv", b"5,0.5,0.4\n6,0.4,0.3\n")
    shown = show("logs")
    assert "cannot be read: no header line" in shown.stdout
    assert "1 needs you" in shown.stdout
    assert shown.code == 0


def test_warnings_are_told_on_stderr_and_only_the_first_ones(show: Any) -> None:
    write("run1.csv", b"epoch,loss\n" + b"0\n0,1,1\n" * 20 + b"1,0.5\n")
    told = show("run1.csv").stderr.splitlines()
    assert told[0] == "cbmon: run1.csv: line 2: left out, the epoch alone, without metrics"
    assert len(told) < 10
    assert "more warnings" in told[-1]


def test_without_utf8_the_table_is_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("run1.csv", age_s=DAY_S)
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["show", "run1.csv"]) == 0
    output.seek(0)
    assert "run1" in output.read()


# Text from outside

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\u2066\u200b[red]{x}\\[/]\udcff\x00\r\n"


def is_safe(text: str) -> bool:
    """No control but the line end, no bidi or zero-width sign."""
    bad = {
        *range(0x20),
        *range(0x7F, 0xA0),
        *range(0x200B, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
    }
    return not any(ord(char) in bad - {0x0A} or 0xD800 <= ord(char) < 0xE000 for char in text)


def hostile_files() -> None:
    name = HOSTILE.replace("\x00", "").replace("/", "")
    header = b'epoch,"' + HOSTILE.encode("utf-8", "replace").replace(b"\0", b"").replace(b"\n", b"").replace(
        b"\r", b""
    )
    write(f"logs/{name}.csv", header + b'_loss"\n0,nan\n\x1b[2J,1\n')
    write(f"logs/{name}.txt", b"\x1b]0;x\x07 words\n")
    write(f"logs/{name}-2.csv", b"5,0.5,0.4\n")
    write(
        "logs/record.jsonl",
        record(
            RunStarted(run_id=HOSTILE, keras=HOSTILE, backend=HOSTILE, optimizer=HOSTILE),
            EpochsEnded(epochs=[0], metrics={HOSTILE: [float("nan")], f"{HOSTILE}loss": [1.0]}),
            RunEnded(how="failed", error=HOSTILE, by=[HOSTILE]),
        )
        + b'{"event":"\x1b[2J"}\n',
    )


@pytest.mark.parametrize("options", [[], ["--json"], ["--skipped"], ["--json", "--skipped", "--check"]])
def test_no_text_from_outside_reaches_the_terminal_raw(show: Any, options: list[str]) -> None:
    hostile_files()
    shown = show("logs", f"{HOSTILE.replace(chr(0), '')}", *options)
    assert is_safe(shown.stdout), ascii(shown.stdout)
    assert is_safe(shown.stderr), ascii(shown.stderr)
    assert "\\x1b" in shown.stdout, "it is shown, escaped"
    assert "[red]" in shown.stdout, "markup is text"


def test_no_text_from_outside_is_a_control_in_the_document(show: Any) -> None:
    hostile_files()

    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(text for item in value.values() for text in texts(item))]
        if isinstance(value, list):
            return [text for item in value for text in texts(item)]
        return [value] if isinstance(value, str) else []

    found = texts(show("logs", "--json").document)
    assert all(is_safe(text) and "\n" not in text for text in found), [ascii(text) for text in found]


def test_a_long_path_stays_whole_in_the_document(show: Any) -> None:
    folder = "/".join(["x" * 80] * 5)
    write(f"{folder}/training.csv")
    write(f"{folder}/notes.csv", b"1,2\n")
    document = show(folder, "--json").document
    assert document["runs"][0]["path"] == f"{folder}/training.csv"


# What only a record can tell


def test_the_plan_and_the_end_of_a_record_are_in_the_document(show: Any) -> None:
    end = RunEnded(how="failed", error="ValueError: \x1bx", by=["A"], restored=0, time=1.5)
    write("run.jsonl", record(started(), epoch(0, 1.0), end, started(), epoch(1, 1.0)))
    write("run.csv", LOG)
    by_name = {run["format"]: run for run in show(".", "--json").document["runs"]}
    first, second = by_name["cbmon-jsonl"]["attempts"]
    assert first["planned_epochs"] == 20
    assert first["ended"] == {
        "how": "failed",
        "time": 1.5,
        "by": ["A"],
        "error": "ValueError: \\x1bx",
        "restored_epoch": 0,
    }
    assert (second["planned_epochs"], second["ended"]) == (20, None)
    assert not {"planned_epochs", "ended"} & by_name["keras-csv"]["attempts"][0].keys()


@pytest.mark.parametrize("command", [["show"], ["watch", "--once"], ["replay", "-c", "EarlyStopping()"]])
def test_an_empty_path_is_no_folder(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("run.csv")
    assert main([*command, ""]) == 2
    assert capsys.readouterr().err.startswith("cbmon: an empty PATH")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "run.csv", "--epochs", "9" * 400], "--epochs"),
        (["watch", "--once", "run.csv", "--epochs", "9" * 400], "--epochs"),
        (["watch", "--once", "run.csv", "--max-fps", "nan"], "--max-fps"),
    ],
)
def test_numbers_beyond_all_use_are_refused_in_a_line(
    arguments: list[str], words: str, show: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write("run.csv")
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def in_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parent.parent
    return subprocess.run(
        ["sh", "-c", line, sys.executable], cwd=folder, env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_full_disk_under_the_output_is_no_bug_of_ours(show: Any, tmp_path: Path, option: str) -> None:
    write("run.csv")
    done = in_shell(f'"$0" -m cbmon show {option} run.csv > /dev/full', tmp_path)
    assert (done.returncode, done.stderr) == (2, "cbmon: cannot write the output: No space left on device\n")


def test_a_closed_output_is_no_bug_of_ours(show: Any, tmp_path: Path) -> None:
    write("run.csv")
    done = in_shell('"$0" -m cbmon show run.csv >&-', tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_current_folder_that_is_gone_is_said(show: Any, tmp_path: Path) -> None:
    write("run.csv")
    line = 'mkdir gone && cd gone && rmdir "$PWD" && "$0" -m cbmon {}'
    done = in_shell(line.format("show ."), tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the current folder is gone" in done.stderr
    assert in_shell(line.format(f"show {tmp_path}/run.csv"), tmp_path).returncode == 0, "another one is read"
