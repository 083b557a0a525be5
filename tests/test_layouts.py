"""The `.csv` record of Monitor: real fits beside CSVLogger, files that are there already, odd names and values."""

import csv
import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbmon.callbacks import Monitor
from cbmon.callbacks.layouts import SECONDS, CsvRows
from cbmon.callbacks.recorder import Recorder
from cbmon.cli import main
from cbmon.events import EpochsEnded, RunStarted, encode_line
from cbmon.formats.sniff import Format, decoder, sniff
from cbmon.run import Attempt, Run, fold
from cbmon.series import Column
from tests.test_monitor import DRIVER, RATES, ROOT, begin, drive, events, flat_cut, run_epoch, wait_for
from tests.test_monitor import keras as keras  # a fixture
from tests.test_monitor_faults import Trainer, read

OWN = ["learning_rate", "cbmon_time", *(f"cbmon_{name}_s" for name in SECONDS)]


def rows(path: Path) -> list[dict[str, str]]:
    """What everybody else reads: the standard library's reader, nothing of cbmon."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def columns(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file, strict=True))


def bits(cell: str) -> bytes | None:
    """A cell as a float to the bit, None where it is absent."""
    return None if cell == "NA" else struct.pack("<d", float(cell))


def values(attempt: Attempt) -> dict[str, Any]:
    """What a reader knows of an attempt's epochs; columns without any value say nothing."""

    def filled(table: dict[str, Column]) -> dict[str, Column]:
        return {name: column for name, column in table.items() if column.count}

    return {
        "epochs": list(attempt.epochs),
        "metrics": attempt.metrics,
        "rate": attempt.learning_rate,
        "rates": filled(attempt.rates),
        "seconds": filled(attempt.seconds),
        "times": attempt.times,
    }


def as_csv(path: Path, record: Path) -> Path:
    """The same fit as `record`, event by event, in a `.csv` record."""
    recorder = Recorder(path, CsvRows(), is_new=True)
    for event in events(record):
        recorder.put(event)
    recorder.close()
    return path


def log_epochs(path: Path, *logs: dict[str, Any]) -> Monitor:
    """A fit by hand with these logs."""
    monitor = Monitor(path)
    begin(monitor, len(logs))
    for epoch, metrics in enumerate(logs):
        run_epoch(monitor, epoch, metrics)
    monitor.on_train_end()
    return monitor


# Real fits.


@pytest.fixture(scope="module")
def trainer(keras: Any) -> Trainer:
    return Trainer(keras)


FITS: dict[str, dict[str, Any]] = {
    "validation": {},
    "validation every second epoch": {"validation_freq": 2},
    "no validation": {"validation_data": None},
    "from the third epoch on": {"initial_epoch": 2},
}


@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_it_is_the_file_of_a_csvlogger_beside_it_with_our_columns_after_the_metrics(
    keras: Any, trainer: Trainer, tmp_path: Path, options: dict[str, Any]
) -> None:
    path, log, record = (tmp_path / name for name in ("run.csv", "log.csv", "run.jsonl"))
    trainer.train([Monitor(path), keras.callbacks.CSVLogger(str(log)), Monitor(record)], **options)
    assert columns(path) == [*columns(log), *OWN]
    assert [bits(row["epoch"]) for row in rows(path)] == [bits(row["epoch"]) for row in rows(log)]
    for ours, theirs in zip(rows(path), rows(log), strict=True):
        assert {name: bits(ours[name]) for name in theirs} == {
            name: bits(cell) for name, cell in theirs.items()
        }
    own, full = values(read(path).current), values(read(record).current)
    for same in ("epochs", "metrics", "rate", "rates"):
        assert own[same] == full[same]
    assert own["seconds"].keys() == full["seconds"].keys()


@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_it_reads_back_as_the_same_run_as_the_full_record_of_the_fit(
    keras: Any, trainer: Trainer, tmp_path: Path, options: dict[str, Any]
) -> None:
    record = tmp_path / "run.jsonl"
    trainer.train([Monitor(record), flat_cut(keras)], **options)
    path = as_csv(tmp_path / "run.csv", record)
    assert values(read(path).current) == values(read(record).current)
    assert read(path).warnings == []
    assert sniff(path.read_bytes(), path) == Format.CBMON_CSV


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_the_learning_rate_is_the_one_in_effect_at_any_place_in_the_list(
    keras: Any, trainer: Trainer, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "run.csv"
    monitor, cut = Monitor(path), flat_cut(keras)
    keep = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)  # writes what holds after the cut
    lists = {"before": [monitor, cut, keep], "between": [cut, monitor, keep], "after": [cut, keep, monitor]}
    trainer.train(lists[place])
    assert [float(row["learning_rate"]) for row in rows(path)] == pytest.approx(RATES, rel=1e-7)
    assert columns(path).count("learning_rate") == 1
    assert "val_learning_rate" not in columns(path)


def test_a_second_fit_is_a_second_attempt_for_the_reader(trainer: Trainer, tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    monitor = Monitor(path)
    trainer.train([monitor])
    trainer.train([monitor], epochs=2)
    trainer.train([Monitor(path)])
    run = read(path)
    assert [list(attempt.epochs) for attempt in run.attempts] == [[0, 1, 2, 3], [0, 1], [0, 1, 2, 3]]
    assert run.warnings == []
    assert list(tmp_path.iterdir()) == [path]
    assert run.attempts[0].metrics == run.attempts[2].metrics


def test_a_csvlogger_goes_on_in_a_file_of_its_own_and_ours_in_ours(
    keras: Any, trainer: Trainer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    trainer.train([keras.callbacks.CSVLogger(str(log))])
    before = log.read_bytes()
    trainer.train([Monitor(log)])
    assert log.read_bytes() == before
    (other,) = set(tmp_path.iterdir()) - {log}
    assert list(read(other).current.epochs) == [0, 1, 2, 3]
    assert capfd.readouterr().err == (
        f"cbmon: log.csv is another run's or no record: this one is recorded in {other}\n"
    )


def test_a_kill_leaves_rows_that_everybody_reads(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    script = (
        DRIVER
        + "\nfor epoch in range(1, 50):\n    monitor.on_epoch_end(epoch, {'loss': 1.0})\nsys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, env=environment
    ) as process:
        wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") == 51)
        process.send_signal(signal.SIGKILL)
    assert [int(row["epoch"]) for row in rows(path)] == list(range(50))
    assert list(read(path).current.epochs) == list(range(50))
    assert read(path).warnings == []


# Files that are there already: hooks called by hand.


def test_nothing_is_made_before_the_first_epoch_has_ended(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run.csv")
    begin(monitor)
    monitor.on_train_end()
    assert list(tmp_path.iterdir()) == []


def test_other_columns_take_another_name_and_say_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.csv"
    log_epochs(path, {"loss": 1.0})
    before = path.read_bytes()
    log_epochs(path, {"loss": 1.0, "accuracy": 0.5})
    assert path.read_bytes() == before
    (other,) = set(tmp_path.iterdir()) - {path}
    assert other.name.startswith("run-")
    assert other.suffix == ".csv"
    assert "accuracy" in columns(other)
    assert capfd.readouterr().err.count(f"this one is recorded in {other}") == 1


FOREIGN = {
    "a CSVLogger file of the same metrics": b"epoch,loss,val_loss\r\n0,1.0,NA\r\n",
    "a table": b"name,age\nAnn,40\n",
    "a header that only begins like ours": b"epoch,loss,val_loss,learning_rate,cbmon_time\n",
    "binary": bytes(range(256)) * 300,
    "a broken encoding": b"\xff\xfe\x00e",
    "JSON": b'{"loss": [1.0]}\n',
    "our JSON lines": encode_line(RunStarted(run_id="r")),
    "a blank line": b"\n",
    "one byte": b"e",
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_somebody_elses_file_is_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes(data)
    log_epochs(path, {"loss": 1.0})
    assert path.read_bytes() == data
    (other,) = set(tmp_path.iterdir()) - {path}
    assert [row["loss"] for row in rows(other)] == ["1.0"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_an_empty_file_and_one_with_our_header_are_taken(tmp_path: Path, line_end: bytes) -> None:
    path = tmp_path / "run.csv"
    path.touch()
    drive(Monitor(path))
    assert len(rows(path)) == 1
    header = path.read_bytes().splitlines()[0]
    path.write_bytes(header + line_end)
    drive(Monitor(path))
    assert len(rows(path)) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_costs_that_line_and_what_follows_stands_on_its_own(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "run.csv"
    log_epochs(path, {"loss": 1.0}, {"loss": 0.5})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    monitor = Monitor(path)
    begin(monitor)
    run_epoch(monitor, 2, {"loss": 0.25})
    run_epoch(monitor, 3, {"loss": 0.125})
    monitor.on_train_end()
    assert path.read_bytes().startswith(whole[:-cut] + b"\n2,0.25,")
    run = read(path)
    losses = run.current.metrics["loss"]
    assert list(run.current.epochs)[-2:] == [2, 3]
    assert list(losses)[-2:] == [0.25, 0.125]
    assert len(run.warnings) == (cut > 1)  # without its newline alone it is whole
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_get_a_file_each(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    first, second = Monitor(path), Monitor(path)
    for monitor in (first, second):
        begin(monitor)
        run_epoch(monitor, 0)
        wait_for(lambda: monitor._recorder._has_begun)  # type: ignore[union-attr]  # noqa: B023
    for monitor in (first, second):
        run_epoch(monitor, 1)
        monitor.on_train_end()
    assert [[row["epoch"] for row in rows(each)] for each in tmp_path.iterdir()] == [["0", "1"], ["0", "1"]]


# Rows.


def test_validation_that_comes_later_has_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    log_epochs(path, {"loss": 1.0}, {"loss": 0.5, "val_loss": 0.75}, {"loss": 0.25})
    assert columns(path) == ["epoch", "loss", "val_loss", *OWN]
    assert [row["val_loss"] for row in rows(path)] == ["NA", "0.75", "NA"]
    assert list(read(path).current.metrics["val_loss"]) == [None, 0.75, None]


def test_the_first_epoch_decides_about_the_columns_as_in_csvlogger(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    log_epochs(path, {"loss": 1.0, "a": 1.0, "val_loss": 2.0}, {"loss": 0.5, "b": 3.0}, {})
    assert columns(path) == ["epoch", "loss", "a", "val_loss", *OWN]
    assert [[row[name] for name in ("loss", "a", "val_loss")] for row in rows(path)] == [
        ["1.0", "1.0", "2.0"],
        ["0.5", "NA", "NA"],
        ["NA", "NA", "NA"],
    ]


def test_an_epoch_without_metrics_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    log_epochs(path, {}, {})
    assert columns(path) == ["epoch", *OWN]
    assert list(read(path).current.epochs) == [0, 1]


def test_each_of_several_learning_rates_has_a_column(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    monitor = Monitor(path)
    begin(monitor)
    several = [
        SimpleNamespace(name="sgd", learning_rate=0.5),
        SimpleNamespace(name="adam, the 2nd", learning_rate=0.25),
    ]
    monitor._model.optimizer = SimpleNamespace(optimizers=several)
    run_epoch(monitor, 0)
    monitor.on_train_end()
    assert "learning_rate" not in columns(path)
    assert columns(path)[-2:] == ["cbmon_learning_rate_sgd", "cbmon_learning_rate_adam, the 2nd"]
    assert {name: list(column) for name, column in read(path).current.rates.items()} == {
        "sgd": [0.5],
        "adam, the 2nd": [0.25],
    }


@pytest.mark.parametrize(
    "name",
    [
        "epoch",
        "Epoch",
        " EPOCH ",
        "epoch #",
        "cbmon_time",
        "cbmon_x",
        "LR",
        "Learning_Rate",
        "lr",
        "learning_rate",
    ],
)
def test_a_metric_that_is_called_like_a_column_of_ours_takes_no_place_from_it(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "run.csv"
    log_epochs(path, {name: 7.0, "loss": 1.0}, {name: 7.0, "loss": 0.5})
    assert columns(path) == ["epoch", "loss", "val_loss", *OWN]
    attempt = read(path).current
    assert list(attempt.epochs) == [0, 1]
    assert list(attempt.rate) == [0.5, 0.5]
    assert "7.0" not in path.read_text()


ODD_NAMES = [
    "a,b",
    'a "quoted" one',
    '"',
    "two\nlines",
    "carriage\rreturn",
    "tab\tand;semicolon|bar",
    "größe",
    "損失",
    "🙂",
    "=1+1",
    "a=b",
    "a: b",
    "nan",
    "0.5",
    "NA",
    "x" * 3000,
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: repr(name[:10]))
def test_an_odd_name_is_the_same_name_for_every_reader_and_the_next_fit_finds_its_file(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "run.csv"
    for _ in range(2):
        log_epochs(path, {name: 0.5, "loss": 1.0}, {name: 0.25, "loss": 2.0})
    assert list(tmp_path.iterdir()) == [path]
    assert [row[name] for row in rows(path)] == ["0.5", "0.25"] * 2
    assert [list(attempt.metrics[name]) for attempt in read(path).attempts] == [[0.5, 0.25]] * 2


def test_a_lone_surrogate_in_a_name_is_escaped_as_in_the_full_record(tmp_path: Path) -> None:
    logs = {"lone \ud800": 0.5}
    log_epochs(tmp_path / "run.csv", logs)
    log_epochs(tmp_path / "run.jsonl", logs)
    assert [row["lone \\ud800"] for row in rows(tmp_path / "run.csv")] == ["0.5"]
    assert read(tmp_path / "run.csv").current.metrics == read(tmp_path / "run.jsonl").current.metrics


def test_numbers_that_are_not_finite_are_values_and_what_is_no_number_is_absent(tmp_path: Path) -> None:
    logs = {
        "a": math.nan,
        "b": math.inf,
        "c": -math.inf,
        "d": None,
        "e": "text",
        "f": [1.0],
        "g": -0.0,
        "h": 5e-324,
    }
    log_epochs(tmp_path / "run.csv", logs)
    log_epochs(tmp_path / "run.jsonl", logs)
    (row,) = rows(tmp_path / "run.csv")
    assert [row[name] for name in "abcdefgh"] == ["nan", "inf", "-inf", "NA", "NA", "NA", "-0.0", "5e-324"]
    assert read(tmp_path / "run.csv").current.metrics == read(tmp_path / "run.jsonl").current.metrics


def test_a_clock_that_is_no_number_leaves_the_row(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.csv", CsvRows(), is_new=True)
    recorder.put(EpochsEnded(time=math.nan, epochs=[0], metrics={"loss": [1.0]}))
    recorder.close()
    assert list(read(tmp_path / "run.csv").current.epochs) == [0]
    assert read(tmp_path / "run.csv").heard is None


def test_show_knows_its_format_and_reads_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.csv"
    log_epochs(path, {"loss": 1.0}, {"loss": 0.5})
    assert main(["show", "--json", str(path)]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["format"], run["warnings"]) == ("cbmon-csv", [])
    (attempt,) = run["attempts"]
    assert (attempt["epochs"], attempt["learning_rate"]) == (2, 0.5)
    assert attempt["metrics"] == {"loss": {"last": 0.5, "best": 0.5, "best_epoch": 1}}


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=8
).filter(
    lambda name: (
        name == name.strip()  # the reader strips cells
        and name.casefold() not in ("epoch", "epoch#", "epoch #", "lr", "learning_rate")
        and not name.startswith("cbmon_")
    )
)
metric_values = st.none() | st.floats()
metric_rows = st.dictionaries(names, metric_values, max_size=5)


@settings(deadline=None, max_examples=200)
@given(st.lists(metric_rows, min_size=1, max_size=4), st.none() | st.floats(allow_nan=False), st.booleans())
def test_any_metrics_read_back_as_from_the_full_record(
    logs: list[dict[str, float | None]], rate: float | None, is_crlf: bool
) -> None:
    layout = CsvRows()
    stream = [
        EpochsEnded(
            time=1e9 + epoch,
            epochs=[epoch],
            metrics={name: [metrics.get(name)] for name in logs[0]},
            learning_rate=[rate],
            seconds={"epoch": [0.5 + epoch], "step": [0.125]},
        )
        for epoch, metrics in enumerate(logs)
    ]
    encoded = b"".join(map(layout.encode, stream))
    lead = layout.lead(b"", has_begun=False)
    assert lead is not None
    data = lead + encoded
    assert layout.lead(data.replace(b"\n", b"\r\n") if is_crlf else data, has_begun=True) == b""
    ours, theirs = decoder(Format.CBMON_CSV), decoder(Format.RECORD)
    one, other = Run(), Run()
    for reader, text, run in ((ours, data, one), (theirs, b"".join(map(encode_line, stream)), other)):
        for event in [*reader.feed(text), *reader.finish()]:
            fold(run, event)
    assert one.warnings == other.warnings == []
    assert values(one.current) == values(other.current)


def test_what_a_row_cannot_say_is_left_out_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.csv"
    drive(Monitor(path, config={"batch": 32}), 2)
    assert len(path.read_bytes().splitlines()) == 3
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr().err == ""
