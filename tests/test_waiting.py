"""`cbmon wait`: conditions read and refused, epochs asked one by one, how a run's end ends the waiting."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbmon.cli import main
from cbmon.errors import BadCall, CannotReplay, ExitCode
from cbmon.events import EpochsEnded, Event, RunEnded, RunStarted, Tick, encode_line
from cbmon.run import Run, fold
from cbmon.waiting import Condition, Waiter, parse_timeout

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30.0
NAN = float("nan")


def run_of(*events: Event) -> Run:
    run = Run()
    for event in events:
        fold(run, event)
    return run


def epochs(
    first: int = 0, rate: list[float | None] | None = None, **columns: list[float | None]
) -> EpochsEnded:
    count = len(next(iter(columns.values())))
    return EpochsEnded(
        time=1.0, epochs=list(range(first, first + count)), metrics=dict(columns), learning_rate=rate
    )


STARTED = RunStarted(run_id="a")


# --- conditions -----------------------------------------------------------------------------------------------


LOSSES: list[float | None] = [0.9, 0.5, 0.6, 0.2, 0.3]
ACCURACIES: list[float | None] = [0.1, None, 0.7, 0.6, None]


@pytest.mark.parametrize(
    ("text", "met", "why"),
    [
        ("val_loss < 0.5", 3, "the first epoch below, though a later one is above"),
        ("val_loss <= 0.5", 1, "equal counts"),
        ("val_loss < 0.1", None, "never"),
        ("best(val_loss) < 0.55 and val_loss > 0.55", 2, "the best so far, not the best there will be"),
        ("best(accuracy) >= 0.7", 2, "the best of an accuracy is its highest"),
        ("highest(val_loss) > 0.89", 0, "by the word, not by the name"),
        ("lowest(odd) < 2", 1, "of a metric whose name does not tell"),
        ("accuracy == 0.1 and epoch == 2", 1, "where an epoch has no value, the one before stands"),
        ("epoch >= 4", 3, "epochs are counted from 1, as people do"),
        ("lr < 0.05", 2, "the learning rate"),
        ("learning_rate < 0.05", 2, "by its other name"),
        ("train_x > 0", 0, "a name that cannot be written, with _ in its place"),
        ("0.2 < val_loss < 0.4", 4, "a chain"),
        ("not val_loss > 0.5", 1, "not"),
        ("val_los < 1", None, "what is not there is not met"),
        ("val_los < 1 or epoch == 2", None, "nor is anything that hangs on it"),
        ("epoch == 2 or val_los < 1", 1, "but for what is decided before"),
        ("broken < 1", None, "NaN is not below anything"),
        ("best(broken_loss) < 1", None, "nor the best of anything"),
        ("1 / (epoch - 1) > 0.9 and epoch == 2", 1, "a division by 0 is not met"),
        ("abs(val_loss - 0.6) < 1e-9", 2, "functions"),
        ("math.log(val_loss) < -1", 3, "of math"),
        ("val_loss < inf", 0, "constants"),
    ],
)
def test_condition_is_met_at_the_first_such_epoch(text: str, met: int | None, why: str) -> None:
    run = run_of(
        epochs(
            rate=[0.1, 0.1, 0.01, 0.01, 0.01],
            val_loss=LOSSES,
            accuracy=ACCURACIES,
            odd=[3, 1, 2, 2, 2],
            broken=[NAN] * 5,
            broken_loss=[NAN] * 5,
            **{"train/x": [1.0] * 5},
        )
    )
    assert Condition(text).met(run.current) == met, why


def test_epochs_one_by_one_give_the_same_as_all_at_once() -> None:
    condition, run = Condition("best(val_loss) < 0.55 and val_loss > 0.55"), Run()
    found = []
    for epoch, loss in enumerate(LOSSES):
        fold(run, epochs(epoch, val_loss=[loss]))
        found.append(condition.met(run.current))
    assert found == [None, None, 2, 2, 2]


def test_an_epoch_that_comes_again_is_asked_again() -> None:
    condition, run = Condition("val_loss < 0.5"), run_of(epochs(val_loss=[0.9, 0.8]))
    assert condition.met(run.current) is None
    fold(run, epochs(1, val_loss=[0.4]))
    assert condition.met(run.current) == 1


def test_the_latest_attempt_counts() -> None:
    run = run_of(epochs(val_loss=[0.9, 0.1]), epochs(0, val_loss=[0.9]))
    assert Condition("val_loss < 0.5").met(run.current) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("val_loss <", "cannot be read"),
        ("val_loss = 0.2", "a comparison is =="),
        ("val_loss", "no condition"),
        ("val_loss + 1", "no condition"),
        ("best(val_loss)", "no condition"),
        ("best(odd) < 1", r"lowest\(odd\) or highest\(odd\)"),
        ("best(0.1) < 1", "of one metric"),
        ("best(a, b) < 1", "of one metric"),
        ("lowest(x=1) < 1", "of one metric"),
        ("'a' < 'b'", "cannot stand there"),
        ("val_loss.real < 1", "not known"),
        ("__import__('os').system('x') == 0", "not known"),
        ("open(val_loss) == 1", "not known"),
        ("[x for x in val_loss] == 1", "cannot stand there"),
        ("(lambda: 1)() == 1", "not known"),
        ("val_loss in (1, 2)", "cannot stand there"),
        ("random() < 2", "not known"),
        pytest.param("(" * 500 + "1" + ")" * 500 + " < 1", "cannot be read", id="brackets"),
        pytest.param("-" * 100_000 + "1 < 2", "cannot be read", id="signs"),
        pytest.param("-" * 700 + "1 < 2", "too deep", id="deep"),
    ],
)
def test_what_is_no_condition_is_refused_before_anything_is_read(text: str, words: str) -> None:
    with pytest.raises(BadCall, match=words) as caught:
        Condition(text)
    assert "schedule" not in str(caught.value)
    assert str(caught.value).startswith("--until")


def test_a_power_beyond_all_bounds_is_refused_when_it_is_asked() -> None:
    with pytest.raises(CannotReplay, match="absurd"):
        Condition("9 ** 9 ** 9 > epoch").met(run_of(epochs(val_loss=[1.0])).current)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = Condition(text)
    except BadCall:
        return
    with suppress(CannotReplay):
        condition.met(run_of(epochs(val_loss=[1.0])).current)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("45", 45), ("1.5 h", 5400), ("1d", 86400)],
)
def test_timeouts(text: str, seconds: float) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2x", "-5s", "0", "0s", "1h-", "nan", "inf", "9" * 30, "1 2"])
def test_what_is_no_timeout_is_refused(text: str) -> None:
    with pytest.raises(BadCall, match="--timeout"):
        parse_timeout(text)


# --- outcomes -------------------------------------------------------------------------------------------------


def judged(
    run: Run, until: str | None = None, *, has_limit: bool = False
) -> tuple[ExitCode | None, list[str]]:
    said: list[str] = []
    condition = Condition(until) if until else None
    outcome = Waiter("run4", condition, said.append, has_limit=has_limit).judge(run)
    return (outcome.code, [*said, outcome.words]) if outcome else (None, said)


RECORDED = epochs(val_loss=[0.9, 0.5])


@pytest.mark.parametrize(
    ("events", "until", "code", "words"),
    [
        ([], None, None, []),
        ([STARTED, RECORDED], None, None, []),
        ([STARTED, RECORDED, RunEnded(how="finished")], None, 0, ["run4: finished after epoch 2"]),
        ([STARTED, RECORDED, RunEnded(how="stopped", by=["EarlyStopping"])], None, 0,
         ["run4: stopped by EarlyStopping after epoch 2"]),
        ([STARTED, RECORDED, RunEnded(how="failed", error="ValueError: x")], None, 1,
         ["run4: failed after epoch 2: ValueError: x"]),
        ([STARTED, RECORDED, RunEnded(how="interrupted")], None, 1, ["run4: interrupted after epoch 2"]),
        ([STARTED, RECORDED, Tick(time=2.0, process_gone=True)], None, 1,
         ["run4: crashed after epoch 2: the training process is gone and wrote no end"]),
        ([STARTED, RECORDED], "val_loss < 0.6", 0, ["run4 epoch 2: val_loss < 0.6"]),
        ([STARTED, RECORDED, RunEnded(how="failed")], "val_loss < 0.6", 0, ["run4 epoch 2: val_loss < 0.6"]),
        ([STARTED, RECORDED], "val_loss < 0.1", None, []),
        ([STARTED, RECORDED, RunEnded(how="finished")], "val_loss < 0.1", 1,
         ["run4: finished after epoch 2, without val_loss < 0.1 (val_loss .5000)"]),
        ([RECORDED, epochs(2, val_loss=[NAN])], "val_loss < 0.1", 1,
         ["run4: NaN val_loss at epoch 3, without val_loss < 0.1 (val_loss nan)"]),
        ([RECORDED], "val_loss < 0.1", None, []),
        ([RECORDED], "val_los < 0.1", None,
         ["run4: no metric val_los so far; there are val_loss. Did you mean val_loss?"]),
    ],
)  # fmt: skip
def test_outcomes(events: list[Event], until: str | None, code: int | None, words: list[str]) -> None:
    assert judged(run_of(*events), until) == (code, words)


def test_nan_alone_is_no_end_for_who_waits_for_the_end() -> None:
    assert judged(run_of(STARTED, epochs(val_loss=[NAN])))[0] is None


def test_a_log_that_cannot_tell_its_end_is_not_waited_for_without_a_limit() -> None:
    with pytest.raises(BadCall, match="--until 'epoch >= 50', or --timeout"):
        judged(run_of(RECORDED))
    assert judged(run_of(RECORDED), has_limit=True) == (None, [])


# --- the command ----------------------------------------------------------------------------------------------


def write(path: Path, *events: Event) -> Path:
    with open(path, "ab") as file:
        for event in events:
            file.write(encode_line(event))  # type: ignore[arg-type]
    return path


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jsonl", STARTED, RECORDED, RunEnded(how="finished"))
    asked: list[tuple[tuple[str, ...], int]] = [
        ((str(path),), 0),
        ((str(tmp_path),), 0),
        ((str(path), "--until", "val_loss < 0.6"), 0),
        ((str(path), "--until", "val_loss < 0.1"), 1),
        ((str(path), "--until", "val_loss <"), 2),
        ((str(path), "--timeout", "soon"), 2),
        ((str(tmp_path / "nothing"),), 3),
    ]
    for arguments, code in asked:
        assert main(["wait", *arguments]) == code, arguments
    assert capsys.readouterr().out == ""


def test_an_empty_folder_and_no_log_have_no_run(tmp_path: Path) -> None:
    assert main(["wait", str(tmp_path)]) == 3
    (tmp_path / "x.txt").write_text("hello")
    assert main(["wait", str(tmp_path / "x.txt")]) == 3


def test_several_runs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", STARTED, RECORDED)
    assert main(["wait", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "here are 2" in said
    assert "a.jsonl" in said
    assert "b.jsonl" in said


def test_timeout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "training.csv"
    path.write_text("epoch,loss,val_loss\n0,1.0,0.9\n")
    assert main(["wait", str(path), "--until", "val_loss < 0.1", "--timeout", "0.2s"]) == 124
    assert "epoch 1, val_loss .9000, after 200 ms of waiting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("until", "code"), [(["--until", "val_loss < 0.3"], 0), ([], 1), (["--until", "epoch > 9"], 1)]
)
def test_a_run_is_followed_as_it_grows(tmp_path: Path, until: list[str], code: int) -> None:
    path = write(tmp_path / "a.jsonl", STARTED, RECORDED)

    def train() -> None:
        time.sleep(0.2)
        write(path, epochs(2, val_loss=[0.2]))
        time.sleep(0.2)
        write(path, RunEnded(how="interrupted"))

    trainer = Thread(target=train)
    trainer.start()
    assert main(["wait", str(path), *until, "--timeout", "30s"]) == code
    trainer.join()


def test_who_waits_is_not_busy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", STARTED, RECORDED)
    code = (
        "import sys, time; from cbmon.cli import main; began = time.process_time();"
        f"main(['wait', {str(path)!r}, '--until', 'epoch > 9', '--timeout', '3s'][:]);"
        "print(time.process_time() - began, 'textual' in sys.modules, 'polars' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    spent, *loaded = done.stdout.split()
    assert float(spent) < 1.0, "of 3 s, importing included"
    assert loaded == ["False", "False"]


def first_look_gone(path: Path) -> Callable[[], None]:
    def take() -> None:
        time.sleep(0.3)
        path.unlink()

    return take


def test_a_deleted_log_ends_the_waiting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jsonl", STARTED, RECORDED)
    taker = Thread(target=first_look_gone(path))
    taker.start()
    assert main(["wait", str(path), "--timeout", "30s"]) == 1
    taker.join()
    assert "the file is gone" in capsys.readouterr().err


# --- what is not there yet ------------------------------------------------------------------------------------


def finished(path: Path, delay_s: float) -> Thread:
    """A trainer that begins late: it makes the folder and the file, and ends."""

    def train() -> None:
        time.sleep(delay_s)
        path.parent.mkdir(exist_ok=True)
        write(path, STARTED)
        time.sleep(0.2)
        write(path, RECORDED, RunEnded(how="finished"))

    trainer = Thread(target=train)
    trainer.start()
    return trainer


@pytest.mark.parametrize("asked", ["logs/a.jsonl", "logs", "logs/*.jsonl"])
@pytest.mark.parametrize("has_folder", [True, False])
@pytest.mark.parametrize("poll", [[], ["--poll"]])
def test_with_a_time_limit_a_log_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, asked: str, has_folder: bool, poll: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if has_folder:
        (tmp_path / "logs").mkdir()
    trainer = finished(tmp_path / "logs" / "a.jsonl", 0.3)
    path = str(tmp_path / asked)
    assert main(["wait", path, "--timeout", "30s", *poll]) == 0
    trainer.join()
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"cbmon: {path}: no log there yet; waiting for one, 30 s at most"
    assert told[1:] == ["cbmon: a: finished after epoch 2"]


def test_what_never_comes_is_no_log_when_the_time_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("typo.jsonl", "no such file"),
        ("no/such", "no such file"),
        ("empty", "no training log here"),
    ):
        began = time.monotonic()
        assert main(["wait", str(tmp_path / name), "--timeout", "0.4s"]) == 3
        assert time.monotonic() - began >= 0.4
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_without_a_time_limit_what_is_not_there_is_refused_at_once_and_the_way_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wait", str(tmp_path / "typo.jsonl")]) == 3
    assert "no such file or directory (--timeout 2m waits for it)" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["x.txt", "unix:///tmp/x.sock", ""])
def test_what_can_never_be_a_log_is_refused_at_once_in_spite_of_a_time_limit(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("hello")
    began = time.monotonic()
    assert main(["wait", path, "--timeout", "1h"]) == (3 if path else 2)
    assert time.monotonic() - began < PATIENCE_S


def test_the_time_limit_is_one_for_the_log_and_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    real = threading.Timer

    def timer(limit_s: float, function: Callable[[], None]) -> threading.Timer:
        limits.append(limit_s)
        return real(0.0, function)

    monkeypatch.setattr("threading.Timer", timer)
    trainer = finished(tmp_path / "a.jsonl", 0.5)
    assert main(["wait", str(tmp_path / "a.jsonl"), "--until", "epoch > 9", "--timeout", "30s"]) in (1, 124)
    trainer.join()
    assert len(limits) == 1
    assert 0.0 < limits[0] < 29.6, "what the log took to come is gone"
