"""`cbmon sweep` as a command: answers that can be checked by hand, the JSON contract, words and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cbmon.cli import main

NEEDS_3 = [1.0, 0.8, 0.85, 0.9, 0.7, 0.75, 0.76, 0.77, 0.78, 0.79]
"""Two epochs without improvement before the best, at row 4: a patience of 2 stops too early."""
NEEDS_1 = [1.0, 0.9, 0.8, 0.7, 0.75, 0.76, 0.77, 0.78, 0.79, 0.8]
NEVER = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0]
GRID = "EarlyStopping(patience=range(1, 6), restore_best_weights=True)"


def write(path: Path, values: list[float], metric: str = "val_loss") -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(values))
    path.write_text(f"epoch,{metric}\n{rows}")
    return path


def swept(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and stderr of `cbmon sweep ... --json`."""
    code = main(["sweep", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out, parse_constant=pytest.fail), err


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["sweep", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert all(len(line) <= 100 for line in out.splitlines())
    return code, out, err


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    write(tmp_path / "a.csv", NEEDS_3)
    write(tmp_path / "b.csv", NEEDS_1)
    return tmp_path


def test_the_document_has_the_keys_of_the_contract_and_the_right_figures(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, err = swept(capsys, logs, "-c", GRID, "--keras", "3.15", "--cells")
    assert (code, err) == (0, "")
    assert list(document)[:5] == ["version", "keras", "runs", "policies", "recommended"]
    assert (document["version"], document["keras"]) == (1, "3.15")
    runs = {Path(run["log"]).name: run for run in document["runs"]}
    assert {"log", "attempt", "epochs", "best", "needed_patience"} <= runs["a.csv"].keys()
    assert runs["a.csv"]["best"] == {"epoch": 4, "value": 0.7}
    assert [runs[name]["needed_patience"] for name in ("a.csv", "b.csv")] == [3, 1]
    names = [Path(run["log"]).name for run in document["runs"]]
    calls = [policy["call"] for policy in document["policies"]]
    assert calls == [f"EarlyStopping(patience={p}, restore_best_weights=True)" for p in range(1, 6)]
    two, three = document["policies"][1:3]
    assert dict(zip(names, two["stops"], strict=True)) == {"a.csv": 3, "b.csv": 5}
    assert two["harmful"] == [names.index("a.csv")]
    assert two["regret"] == {"median": pytest.approx(0.05), "worst": pytest.approx(0.1)}
    assert (two["fired"], two["epochs_saved"]) == (2, 6 + 4)
    assert dict(zip(names, three["stops"], strict=True)) == {"a.csv": 7, "b.csv": 6}
    assert (three["harmful"], three["regret"]) == ([], {"median": 0, "worst": 0})
    advice = document["recommended"]
    assert document["policies"][advice["policy"]] is three
    assert (advice["tolerance"], advice["tolerance_unit"]) == (0.01, "share")
    # Without a.csv patience 1 is chosen, which harms it; without b.csv 3 is.
    assert advice["leave_one_out"] == {"lost": 1, "of": 2, "unit": "run"}
    assert advice["note"] == "too few runs to tell: 9 runs for 10 %, here are 2"


def test_patience_below_1_is_1_and_stands_under_its_name(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, document, _ = swept(capsys, logs, "-c", "EarlyStopping(patience=grid(-1, 0, 1, 1.5, 2))")
    assert [policy["equivalent"] for policy in document["policies"]] == [
        [f"EarlyStopping(patience={p})" for p in ("-1", "0", "1")],
        [f"EarlyStopping(patience={p})" for p in ("1.5", "2")],
    ]
    assert "stops" not in document["policies"][0]


def test_logs_in_several_folders_are_left_out_by_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, values in (("x", NEEDS_3), ("y", NEEDS_1)):
        for name in "ab":
            write(tmp_path / folder / f"{name}.csv", values)
    _, document, _ = swept(capsys, tmp_path, "-c", GRID)
    assert document["recommended"]["leave_one_out"] == {"lost": 1, "of": 2, "unit": "folder"}


def test_a_run_that_never_improved_is_flagged_and_left_out(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(logs / "never.csv", NEVER)
    code, out, _ = told(capsys, logs, "-c", GRID)
    assert code == 0
    assert "stops 2 of 2 runs and saves 25 % of the epochs (5 of 20)" in out
    assert "1 run whose best is the first epoch is left out" in out


def test_nothing_feasible_is_said_not_relaxed(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, document, _ = swept(
        capsys, logs, "-c", "EarlyStopping(patience=range(1, 3), restore_best_weights=True)"
    )
    assert document["recommended"] is None
    (warning,) = document["warnings"]
    assert "no policy of this grid harms no run (tolerance 1 %)" in warning
    _, document, _ = swept(capsys, logs, "-c", GRID, "--may-harm", "1")
    assert document["policies"][document["recommended"]["policy"]]["call"].startswith(
        "EarlyStopping(patience=1,"
    )


@pytest.mark.parametrize(("tolerance", "needed"), [("0", 3), ("20%", 1), ("0.11", 1), ("5 %", 3)])
def test_the_tolerance_is_a_share_or_an_amount(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tolerance: str, needed: int
) -> None:
    log = write(tmp_path / "a.csv", NEEDS_3)
    _, document, _ = swept(capsys, log, "-c", GRID, "--tolerance", tolerance)
    assert document["runs"][0]["needed_patience"] == needed


def test_of_cuts_only_the_first_is_told_and_no_regret(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = swept(capsys, logs, "-c", "ReduceLROnPlateau(patience=range(1, 4))")
    assert code == 0
    assert document["recommended"] is None
    assert {policy["regret"] for policy in document["policies"]} == {None}
    code, out, _ = told(capsys, logs, "-c", "ReduceLROnPlateau(patience=range(1, 4))")
    assert "Only the first cut is exact" in out
    assert "nobody measured" in out


def test_the_text_names_whom_it_harms_and_how_far_to_trust_it(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = told(capsys, logs, "-c", GRID, "--may-harm", "1")
    assert code == 0
    assert "Recommended  EarlyStopping(patience=1, restore_best_weights=True)" in out
    assert "harms a.csv;" in out
    assert "too few runs to tell: 19 runs for 10 %, here are 2" in out
    assert "Smallest patience with which each run keeps its best" in out


def test_the_map_marks_harm_and_fills_the_rest(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told(capsys, logs, "-c", GRID.replace("patience", "min_delta=grid(0, 0.5), patience"))
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Epochs saved in %"))
    assert lines[start + 1].split() == ["1", "2", "3", "4", "5"]
    assert lines[start + 2].split() == ["0", "×1", "×1", "25", "15", "5"]
    assert lines[start + 3].split() == ["0.5", *["×2"] * 5]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-c", "EarlyStopping(patience=range(3, 3))"], 2, "range"),
        (["-c", "EarlyStopping(patience=grid())"], 2, "grid"),
        (["-c", "EarlyStopping(patience=range(1, 10**9))"], 2, "range"),
        (["-c", "EarlyStopping(patience=range(1, 1000000))"], 2, "Take fewer"),
        (["-c", GRID, "--tolerance", "much"], 2, "--tolerance much"),
        (["-c", GRID, "--tolerance", "-1%"], 2, "--tolerance -1%"),
        (["-c", GRID, "--learning-rate", "nan"], 2, "--learning-rate nan"),
        (["-c", GRID, "--attempt", "7"], 3, "attempt 7"),
        (["-c", "ReduceLROnPlateau(factor=grid(0.5, 2))"], 2, "factor"),
    ],
)
def test_what_cannot_be_swept_is_one_line(
    logs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert main(["sweep", str(logs), *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("cbmon: ")
    assert words in line


def test_no_logs_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(tmp_path), "-c", GRID]) == 3


def test_a_metric_that_no_log_has_judges_nothing_and_says_so(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, _ = swept(
        capsys, logs, "-c", "EarlyStopping('val_mae', patience=range(1, 3), mode='min')"
    )
    assert code == 0
    assert document["recommended"] is None
    assert all("monitored metric absent" in run["flags"] for run in document["runs"])
    assert {policy["fired"] for policy in document["policies"]} == {0}


def test_a_direction_that_keras_cannot_tell_is_refused(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(logs / "a.csv", NEEDS_3, "val_mine")
    write(logs / "b.csv", NEEDS_3, "val_mine")
    code, document, err = swept(capsys, logs, "-c", "EarlyStopping('val_mine', patience=range(1, 3))")
    assert code == 2
    assert all("give mode='min' or mode='max'" in run["error"] for run in document["runs"])
    assert "give mode=" in err


def test_parts_are_whole_parquet_files(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import polars as pl

    folder = tmp_path_factory.mktemp("parts")
    assert main(["sweep", str(logs), "-c", GRID, "--parts", str(folder)]) == 0
    assert not list(folder.glob("*.tmp"))
    parts = [path for path in folder.glob("*.parquet") if "part" in path.name]
    assert sum(pl.read_parquet(path).height for path in parts) == 2 * 5


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    """A real process, a real SIGINT: the figures of what is done, how much that is, and 130."""
    for number in range(60):
        write(
            tmp_path / f"{number}.csv", [1 / (1 + row) + (row * 7 + number) % 5 / 50 for row in range(2000)]
        )
    # Of two that write the learning rate nothing is proven: the slow, scalar road.
    call = "LearningRateScheduler('lr * 0.999'); ReduceLROnPlateau(patience=range(1, 100))"
    process = subprocess.Popen(
        [sys.executable, "-m", "cbmon", "sweep", str(tmp_path), "-c", call, "--learning-rate", "0.1", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    document = json.loads(out)
    assert document["total"] == 60
    assert document["done"] == len(document["runs"]) < 60
    assert f"interrupted: {document['done']} of 60 runs judged" in err
