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
from cbmon.profiles import NEWEST
from cbmon.replay.ranking import rank
from cbmon.replay.sweep_page import sweep_page
from cbmon.replay.sweep_report import document, report
from cbmon.replay.sweeping import SweepSource
from cbmon.replay.sweeping import sweep as sweep_sources
from cbmon.run import Attempt

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
        for factor, name in enumerate("ab", 1):  # the same twice would be one
            write(tmp_path / folder / f"{name}.csv", [value * factor for value in values])
    _, document, _ = swept(capsys, tmp_path, "-c", GRID)
    assert document["recommended"]["leave_one_out"] == {"lost": 1, "of": 2, "unit": "folder"}


def test_a_run_that_never_improved_is_flagged_and_left_out(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(logs / "never.csv", NEVER)
    code, out, _ = told(capsys, logs, "-c", GRID)
    assert code == 0
    assert "stops 2 of 2 runs and saves 25 % of the epochs (5 of 20)" in out
    assert "left out: 1 run whose best is the first epoch" in out
    # The table counts the same runs as the advice.
    assert next(line for line in out.splitlines() if line.endswith("recommended")).split()[1:6] == [
        *("2", "of", "2", "25", "%")
    ]


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
    assert "harms a.csv\n" in out
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
        (["-c", GRID, "--parts", "/dev/null/parts"], 2, "no folder for the parts"),
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
    call = "EarlyStopping('val_mae', patience=range(1, 3), mode=grid('min', 'max'))"
    code, document, err = swept(capsys, logs, "-c", call)
    assert code == 0
    assert err == (
        "cbmon: EarlyStopping monitors 'val_mae': none of these 2 runs has it; Keras only warns, so it never "
        "stops\n"
    )
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


def test_a_metric_that_some_logs_lack_is_one_line(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(logs / "c.csv", NEEDS_3, "val_mae")
    code, _, err = swept(capsys, logs, "-c", f"TerminateOnNaN(); {GRID}; ModelCheckpoint('a.keras')")
    assert code == 0
    assert err == (
        "cbmon: EarlyStopping monitors 'val_loss': 1 of 3 runs do not have it; Keras only warns, so it never stops "
        "there\n"
    )


def test_nothing_judged_says_why_and_shows_no_empty_tables(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = told(capsys, logs, "-c", GRID.replace("patience", "monitor='val_mae', mode='min', patience"))
    assert "no run of these can be judged (monitored metric absent: 2 runs)" in " ".join(out.split())
    assert "Nothing beats" not in out
    assert "runs harmed" not in out
    for name in "ab":
        write(logs / f"{name}.csv", NEVER)
    _, out, _ = told(capsys, logs, "-c", GRID)
    assert "(best is the first epoch: 2 runs)" in " ".join(out.split())


def test_what_comes_after_a_cut_that_the_log_did_not_make_is_not_known_rather_than_harm(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = "ReduceLROnPlateau(patience=2); EarlyStopping(patience=grid(1, 4), restore_best_weights=True)"
    _, document, _ = swept(capsys, logs, "-c", call)
    one, four = document["policies"]
    assert (len(one["harmful"]), one["unknown"]) == (1, [])
    assert (four["harmful"], four["unknown"]) == ([], [0, 1])
    assert document["recommended"] is None
    _, out, _ = told(capsys, logs, "-c", call.replace("grid(1, 4)", "4"))
    assert "still harms 0 of 2, and of 2 more nobody knows: a cut" in " ".join(out.split())
    _, out, _ = told(capsys, logs, "-c", call)
    assert "not known" in out
    assert "harmed or not known" in out


def test_the_advice_says_where_it_stops_each_run(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told(capsys, logs, "-c", GRID)
    (a,) = [line for line in out.splitlines() if line.endswith("  a.csv")]
    (b,) = [line for line in out.splitlines() if line.endswith("  b.csv")]
    assert a.split()[:3] == ["3", "8", "10"]  # needs 3, is stopped after epoch 8 of 10
    assert b.split()[:3] == ["1", "7", "10"]


def test_one_run_is_told_by_its_epochs_and_nothing_is_left_out_of_it(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = told(capsys, logs / "a.csv", "-c", GRID)
    assert "after 8 of 10" in out
    assert "too few runs to tell: 9 runs for 10 %, here is 1;" in " ".join(out.split())
    assert "leave one" not in out


def test_the_promise_is_for_patience_alone_and_says_so(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def words(call: str) -> str:
        return " ".join(told(capsys, logs, "-c", call)[1].split())

    assert "probability of at most 33 % regrets" in words(GRID)
    assert "at most 33 %; a little more, for min_delta was chosen by them too" in words(
        GRID.replace("patience", "min_delta=grid(0, 1e-6), patience")
    )
    # More patience may keep a worse last epoch, so order statistics promise nothing.
    assert "probability" not in words("EarlyStopping(patience=range(1, 6))")
    lasting = words("EarlyStopping(patience=range(1, 6)) ; TerminateOnNaN()")
    assert "restore_best_weights=True keeps the best" in lasting


def write_timed(path: Path, values: list[float]) -> None:
    """A record of Monitor's, two hours an epoch."""
    rows = [
        {"event": "epochs_ended", "time": 1e9 + 7200 * e, "epochs": [e], "metrics": {"val_loss": [v]}}
        for e, v in enumerate(values)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_time_saved_is_told_where_all_logs_have_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_timed(tmp_path / "a.jsonl", NEEDS_3)
    _, document, _ = swept(capsys, tmp_path, "-c", GRID)
    assert [policy["seconds_saved"] for policy in document["policies"][:3]] == [7 * 7200, 6 * 7200, 2 * 7200]
    # A run that is left out saves no time in the advice, as it saves no epochs there.
    write_timed(tmp_path / "never.jsonl", NEVER)
    _, out, _ = told(capsys, tmp_path, "-c", GRID)
    assert "saves 20 % of the epochs (2 of 10, 4.0 h)" in out
    (best,) = [line for line in out.splitlines() if line.endswith("recommended")]
    assert "20 %  4.0 h" in best
    write(tmp_path / "b.csv", NEEDS_1)  # it does not tell
    _, document, _ = swept(capsys, tmp_path, "-c", GRID)
    assert document["policies"][0]["seconds_saved"] is None


def test_what_the_grid_holds_cannot_move_a_cursor(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = r"EarlyStopping(monitor=grid('val_loss', 'x\x1b[31m', '\u202ey'), mode='min', patience=grid(1, 2))"
    _, out, err = told(capsys, logs, "-c", call)
    assert "x\\x1b[31m" in out
    assert not [char for char in out + err if char != "\n" and not char.isprintable()]


def test_a_log_whose_name_is_no_utf_8_has_its_parts(
    logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    try:
        (logs / "a.csv").rename(logs / "\udcff.csv")
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    assert main(["sweep", str(logs), "-c", GRID, "--parts", str(folder)]) == 0


def test_a_share_of_a_best_of_0_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.csv", [1.0, 0.5, 0.6, 0.0, 0.1, 0.1])
    write(tmp_path / "b.csv", [3.0, 2.0, 1.0, 2.0, 2.0, 2.0])
    code, out, _ = told(capsys, tmp_path, "-c", GRID)
    assert code == 0
    assert next(line for line in out.splitlines() if line.startswith("         1 ")).split()[-2:] == [
        "of",
        "0",
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_the_report_keeps_to_the_screen(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    write(logs / "never.csv", NEVER)
    grid = "patience=range(1, 40), min_delta=linspace(0, 0.0123, 20)"
    for call in (GRID, GRID.replace("patience=range(1, 6)", grid), "ReduceLROnPlateau(patience=range(1, 4))"):
        _, out, _ = told(capsys, logs, "-c", call)
        assert all(len(line) <= width for line in out.splitlines()), out


def test_parts_are_whole_parquet_files(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    import polars as pl

    folder = tmp_path_factory.mktemp("parts")
    assert main(["sweep", str(logs), "-c", GRID, "--parts", str(folder)]) == 0
    assert not list(folder.glob("*.tmp"))
    parts = [path for path in folder.glob("*.parquet") if "part" in path.name]
    assert sum(pl.read_parquet(path).height for path in parts) == 2 * 5


def test_an_interrupt_before_the_first_run_is_an_empty_report() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    attempt = Attempt()
    attempt.epochs.append(0)
    sources = [SweepSource(log="a", attempt=1, recording=attempt, group="")]
    for call in (
        GRID,
        "ReduceLROnPlateau(patience=grid(1, 2))",
        "ModelCheckpoint('a.keras', save_best_only=True)",
    ):
        ranking = rank(sweep_sources(sources, call, NEWEST, progress=interrupt), sources)
        assert "Interrupted: 0 of 1 runs are in these figures." in report(ranking)
        assert document(ranking)["done"] == 0
        assert "<table" in sweep_page(ranking)


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


def test_a_log_that_was_copied_while_it_grew_is_one_witness(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(logs / "a-at-5.csv", NEEDS_3[:5])
    write(logs / "b-again.csv", NEEDS_1)
    write(logs / "c.csv", [*NEEDS_3[:4], 0.6, 0.7])  # begins alike, goes on otherwise
    _, out, _ = told(capsys, logs, "-c", GRID)
    assert "stops 2 of 3 runs" in out
    assert "2 runs that repeat another one from its start" in " ".join(out.split())


def test_runs_too_short_to_be_stopped_are_no_trial(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 10):
        write(logs / f"short-{number}.csv", [1.0, 0.9 - number / 100, 0.8])
    _, out, _ = told(capsys, logs, "-c", GRID)
    words = " ".join(out.split())
    assert "patience=3, restore" in words
    assert "too few runs to tell: 9 runs for 10 %, here are 2 that it could stop, of 11" in words
    assert "the next run that it could stop (as these 2 of 11)" in words
    assert "at most 33 %" in words


def test_an_amount_larger_than_the_metric_is_doubted(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, err = swept(capsys, logs, "-c", GRID, "--tolerance", "5")
    assert code == 0
    assert "As a share: 5%" in err
    assert any("As a share: 5%" in warning for warning in document["warnings"])
    assert swept(capsys, logs, "-c", GRID, "--tolerance", "0.05")[2] == ""


def test_a_bound_below_one_percent_is_not_told_as_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(300):
        write(tmp_path / f"{number}.csv", [value + number / 1000 for value in NEEDS_1])
    _, out, _ = told(capsys, tmp_path, "-c", GRID)
    words = " ".join(out.split())
    assert "at most 0.33 %" in words  # one of 301
    assert "at most 0 %" not in words
