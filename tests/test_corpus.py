"""One hundred published logs: what is read and what is left out by name adds up, and none gives a traceback."""

import csv
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cbmon.rules import Severity, alerts
from cbmon.run import Run, fold
from cbmon.sources import Finding, find, read_whole
from cbmon.views import facts_view, is_unhealthy, run_view, show_json, show_table, unreadable_view

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
INDEX = CORPUS / "INDEX.tsv"
NOW = 2e9

pytestmark = pytest.mark.skipif(
    not INDEX.is_file(), reason="the corpus of published logs is not beside the checkout (../shared/corpus)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of INDEX.tsv."""

    file: str
    kind: str
    expect: str
    rows: int

    @property
    def path(self) -> Path:
        return CORPUS / self.file


def entries(*kinds: str) -> list[Entry]:
    if not INDEX.is_file():
        return []
    with INDEX.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        found = [Entry(line["file"], line["kind"], line["expect"], int(line["rows"])) for line in lines]
    return [entry for entry in found if not kinds or entry.kind in kinds]


def name(entry: Entry) -> str:
    return entry.file


def look(path: Path) -> tuple[Finding, list[Run]]:
    """What the command line does with a file that was named."""
    finding = find([str(path)])
    runs = []
    for log in finding.logs:
        run = Run()
        for event in read_whole(log, NOW):
            fold(run, event)
        runs.append(run)
    return finding, runs


@cache
def document(path: Path) -> dict[str, Any]:
    finding, runs = look(path)
    text = json.dumps(show_json(zip(finding.logs, runs, strict=True), finding.skipped), allow_nan=False)
    return dict(json.loads(text))


def lines_named(run: Run) -> int:
    """Lines that the warnings name, read off their text."""
    named = 0
    for warning in run.warnings:
        if match := re.match(r"line (\d+): ", str(warning)):
            named += 1
        elif match := re.match(r"lines (\d+)-(\d+): ", str(warning)):
            named += int(match[2]) - int(match[1]) + 1
    return named


def test_the_corpus_is_the_one_that_the_figures_below_are_about() -> None:
    assert len(entries()) == 100
    assert len(entries("keras_csv", "keras_json")) == 49
    assert len(entries("odd")) == 11


@pytest.mark.parametrize("entry", entries("keras_csv", "keras_json"), ids=name)
def test_each_row_of_a_keras_log_is_read_or_left_out_by_name(entry: Entry) -> None:
    finding, (run,) = look(entry.path)
    assert finding.skipped == []
    read = sum(len(attempt.epochs) for attempt in run.attempts)
    assert read > 0
    assert read + lines_named(run) == entry.rows, [str(warning) for warning in run.warnings]
    assert run.warnings_dropped == 0


CLEAN_BUT = {
    "kduy410__FaceRecognition__csv_logger-v3-epochonlyrows.log",
    "kduy410__FaceRecognition__csv_logger-v4-nofinalnewline.log",
}


@pytest.mark.parametrize("entry", entries("keras_csv", "keras_json"), ids=name)
def test_nothing_is_left_out_of_a_log_that_has_nothing_odd(entry: Entry) -> None:
    _, (run,) = look(entry.path)
    if entry.path.name not in CLEAN_BUT:
        assert run.warnings == []


def test_rows_with_the_epoch_alone_are_named_by_their_lines() -> None:
    _, (run,) = look(CORPUS / "keras_csv" / "kduy410__FaceRecognition__csv_logger-v3-epochonlyrows.log")
    assert [str(warning) for warning in run.warnings] == [
        "lines 829-836: left out, the epoch alone, without metrics"
    ]


def test_a_last_line_without_newline_is_named() -> None:
    _, (run,) = look(CORPUS / "keras_csv" / "kduy410__FaceRecognition__csv_logger-v4-nofinalnewline.log")
    assert [str(warning) for warning in run.warnings] == [
        "line 828: left out, no newline at its end: it may be cut"
    ]


@pytest.mark.parametrize(
    ("file", "attempts"),
    [
        ("AhmedImtiazPrio__irfanet-10__growing-5.log", 2),
        ("AhmedImtiazPrio__irfanet-10__training_logs221017.log", 4),
        ("bytearchive__cs-653-project__model_history_log.csv", 3),
        ("kduy410__FaceRecognition__csv_logger-v3-epochonlyrows.log", 9),
    ],
)
def test_restarts_are_attempts(file: str, attempts: int) -> None:
    _, (run,) = look(CORPUS / "keras_csv" / file)
    assert len(run.attempts) == attempts


@pytest.mark.parametrize("entry", entries("odd"), ids=name)
def test_an_odd_file_is_one_run_or_refused_in_one_sentence(entry: Entry) -> None:
    finding, runs = look(entry.path)
    if entry.expect == "refuse":
        assert runs == []
    if runs:
        (run,) = runs
        assert sum(len(attempt.epochs) for attempt in run.attempts) > 0
        assert finding.skipped == []
    else:
        (skip,) = finding.skipped
        assert skip.looks_like_log, "it was named on the command line"
        assert len(skip.reason) < 250
        assert "\n" not in skip.reason
        assert skip.reason[-1] != "."


@pytest.mark.parametrize("entry", [entry for entry in entries("odd") if entry.expect != "refuse"], ids=name)
def test_each_odd_file_that_can_be_a_log_of_one_run_is_read_whole(entry: Entry) -> None:
    _, (run,) = look(entry.path)
    assert sum(len(attempt.epochs) for attempt in run.attempts) + lines_named(run) == entry.rows


@pytest.mark.parametrize("entry", entries(), ids=name)
def test_no_file_gives_a_traceback(entry: Entry) -> None:
    found = document(entry.path)
    assert len(found["runs"]) + len(found["skipped"]) == 1
    finding, runs = look(entry.path)
    views = [run_view(log, run) for log, run in zip(finding.logs, runs, strict=True)]
    views += map(unreadable_view, finding.skipped)
    for run in runs:
        facts_view(run)
    assert all(line.isprintable() for line in show_table(views, finding.skipped, NOW))


def test_the_whole_corpus_at_once_hides_nothing() -> None:
    finding = find([str(CORPUS)])
    named = {log.path for log in finding.logs} | {skip.path for skip in finding.skipped}
    assert named >= {entry.path for entry in entries()}
    assert len({log.name for log in finding.logs}) == len(finding.logs), (
        "each run can be told from the others"
    )


IS_KNOWN_TO_BE_NAN = "Yeganehfrh__EEGModalNet__logs-test_06.01.2025.csv"


@pytest.mark.parametrize("entry", entries("keras_csv", "keras_json"), ids=name)
def test_a_published_run_is_healthy_but_for_the_one_that_became_nan(entry: Entry) -> None:
    _, (run,) = look(entry.path)
    errors = [alert for alert in alerts(run) if alert.severity is Severity.ERROR]
    if entry.path.name == IS_KNOWN_TO_BE_NAN:
        assert {alert.kind for alert in errors} == {"nan"}
        assert min(alert.epoch for alert in errors if alert.epoch is not None) == 22
        assert is_unhealthy(run)
    else:
        assert errors == []
