"""The committed sample logs show what their names say. Nothing is trained here."""

import csv
import math
from pathlib import Path

import pytest

from cbmon.events import EpochsEnded, Malformed, RecordedEvent, RunEnded, RunStarted, decode_line
from cbmon.sample_logs.make import SCENARIOS, digits, rename_host

FOLDER = Path(__file__).parent.parent / "sample_logs"
CSV_RUNS = sorted(path.parent.name for path in FOLDER.glob("*/training.csv"))
RECORDS = sorted(path.parent.name for path in FOLDER.glob("*/training.jsonl"))


def rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name / "training.csv", newline="") as file:
        return list(csv.DictReader(file))


def column(name: str, metric: str) -> list[float]:
    return [float(row[metric]) for row in rows(name)]


def record(name: str) -> list[RecordedEvent]:
    events = [decode_line(line) for line in (FOLDER / name / "training.jsonl").read_bytes().splitlines()]
    assert not [event for event in events if isinstance(event, Malformed)]
    return [event for event in events if not isinstance(event, Malformed)]


def losses(name: str, metric: str = "loss") -> list[float]:
    values = [event.metrics[metric][0] for event in record(name) if isinstance(event, EpochsEnded)]
    return [math.nan if value is None else value for value in values]


def end(name: str) -> RunEnded:
    last = record(name)[-1]
    assert isinstance(last, RunEnded)
    return last


def test_every_scenario_is_committed_as_one_log_and_named_in_the_readme() -> None:
    assert sorted(CSV_RUNS + RECORDS) == sorted(SCENARIOS)
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert not [name for name in SCENARIOS if f"| `{name}` |" not in readme]


def test_the_logs_are_small_and_name_no_machine() -> None:
    logs = [*FOLDER.glob("*/training.*")]
    assert max(log.stat().st_size for log in logs) <= 30_000
    assert sum(log.stat().st_size for log in logs) <= 300_000
    started = [event for name in RECORDS for event in record(name) if isinstance(event, RunStarted)]
    assert {event.process and event.process.host for event in started} == {"gpu-box"}
    assert not [log for log in logs if b"/" in log.read_bytes()]


@pytest.mark.parametrize("name", CSV_RUNS)
def test_a_csv_log_is_as_csvlogger_wrote_it(name: str) -> None:
    text = (FOLDER / name / "training.csv").read_bytes()
    assert text.startswith(b"epoch,accuracy,")
    assert text.endswith(b"\r\n")
    assert text.count(b"\n") == text.count(b"\r\n") == len(rows(name)) + 1


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_begins_with_its_start_and_counts_every_epoch(name: str) -> None:
    started, *events = record(name)
    assert isinstance(started, RunStarted)
    assert started.steps == (19 if name == "early-stop" else 38)
    epochs = [event.epochs[0] for event in events if isinstance(event, EpochsEnded)]
    assert epochs == list(range(len(epochs)))


def test_healthy_ends_lower_than_it_began_on_both_splits_and_finished() -> None:
    assert losses("healthy")[-1] < 0.3 * losses("healthy")[0]
    assert losses("healthy", "val_loss")[-1] < 0.3 * losses("healthy", "val_loss")[0]
    assert end("healthy").how == "finished"


def test_overfitting_learns_the_training_set_while_validation_turns() -> None:
    validation = column("overfitting", "val_loss")
    assert column("overfitting", "loss")[-1] < 0.02
    assert validation[-1] > 1.2 * min(validation)


def test_plateau_shows_falling_learning_rates() -> None:
    rates = column("plateau", "learning_rate")
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) >= 4


def test_nan_becomes_non_finite_in_its_last_epoch_and_was_stopped_for_it() -> None:
    assert not math.isfinite(losses("nan")[-1])
    assert all(map(math.isfinite, losses("nan")[:-1]))
    assert (end("nan").how, end("nan").by) == ("stopped", ["TerminateOnNaN"])


def test_early_stop_ended_before_its_plan_by_early_stopping() -> None:
    started = record("early-stop")[0]
    assert isinstance(started, RunStarted)
    assert started.epochs == 60 > len(losses("early-stop"))
    assert (end("early-stop").how, end("early-stop").by) == ("stopped", ["EarlyStopping"])
    validation = losses("early-stop", "val_loss")
    assert validation.index(min(validation)) == len(validation) - 1 - 6


def test_resumed_counts_from_zero_again_and_continued_goes_on() -> None:
    resumed = [int(row["epoch"]) for row in rows("resumed")]
    assert resumed == [*range(12), *range(30)]
    assert [int(row["epoch"]) for row in rows("continued")] == list(range(45))


def test_killed_has_no_end() -> None:
    started, *events = record("killed")
    assert isinstance(started, RunStarted)
    assert started.epochs == 60
    assert [type(event) for event in events] == [EpochsEnded] * 23
    assert len(rows("killed-csv")) == 23


def test_no_validation_has_columns_of_na_and_every_second_has_every_other() -> None:
    assert {row["val_loss"] for row in rows("no-validation")} == {"NA"}
    assert [row["val_loss"] == "NA" for row in rows("validation-freq-2")] == [True, False] * 15


def test_renaming_the_host_changes_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "training.jsonl"
    copy.write_bytes((FOLDER / "nan" / "training.jsonl").read_bytes())
    rename_host(copy, "other")
    rename_host(copy, "gpu-box")
    assert copy.read_bytes() == (FOLDER / "nan" / "training.jsonl").read_bytes()


def test_the_digits_are_split_into_training_and_validation() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn has the digits")
    x, y, val_x, val_y = digits()
    assert (len(x), len(y), len(val_x), len(val_y)) == (1200, 1200, 597, 597)
