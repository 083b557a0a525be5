"""Wrong calls, absurd arguments and poor logs: each gets its exit code and one clear line, and none a traceback."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cbmon.cli import main
from cbmon.formats.csvlog import CsvDecoder
from cbmon.run import Run, fold

LOG = "epoch,loss,val_loss\n" + "".join(
    f"{e},{v},{v}\n" for e, v in enumerate([1.0, 0.8, 0.7, 0.75, 0.76, 0.6])
)
LOGS = {
    "plain": LOG,
    "one": "epoch,loss,val_loss\n0,1.0,1.0\n",
    "nan": "epoch,loss,val_loss\n0,nan,nan\n1,nan,nan\n2,nan,nan\n",
    "empty": "",
    "header": "epoch,loss,val_loss\n",
    "lists": 'epoch,loss,confusion\n0,1.0,"""[1, 2]"""\n1,0.9,"""[1, 2]"""\n',
}

BAD: list[tuple[str, list[str], str]] = [
    ("plain", [], "nothing to replay"),
    ("plain", ["-c", ""], "an empty CALL"),
    ("plain", ["-c", "   "], "an empty CALL"),
    ("plain", ["-c", "[]"], "an empty CALL"),
    ("plain", ["-c", "EarlyStoping()"], "Did you mean EarlyStopping?"),
    ("plain", ["-c", "earlystopping()"], "no such callback"),
    ("plain", ["-c", "EarlyStopping"], "this is no call"),
    ("plain", ["-c", "EarlyStopping("], "never closed"),
    ("plain", ["-c", "EarlyStopping(patience==3)"], "is no literal"),
    ("plain", ["-c", "EarlyStopping(patience)"], "is no literal"),
    ("plain", ["-c", "EarlyStopping(patience=1+1)"], "is no literal"),
    ("plain", ["-c", "EarlyStopping(patience='3')"], "patience='3' is not a number"),
    ("plain", ["-c", "EarlyStopping(monitor=3)"], "monitor is not a string"),
    ("plain", ["-c", "EarlyStopping(monitor='nothing')"], "give mode='min' or mode='max'"),
    ("plain", ["-c", "EarlyStopping(baseline='x')"], "baseline='x' is not a number"),
    ("plain", ["-c", "EarlyStopping(min_delta=1e300)"], "out of range for float32"),
    ("plain", ["-c", "ReduceLROnPlateau(factor=1)"], "factor >= 1.0"),
    ("plain", ["-c", "ReduceLROnPlateau(patience=1, min_lr=1e-5)"], "--learning-rate"),
    ("plain", ["-c", "ReduceLROnPlateau(factor='a')"], "is not a number"),
    ("plain", ["-c", "LearningRateScheduler(lambda epoch, lr: lr / 2)"], "--learning-rate"),
    ("plain", ["-c", "LearningRateScheduler(lambda epoch: 1 / epoch)"], "ZeroDivisionError"),
    ("plain", ["-c", "LearningRateScheduler(lambda epoch: 1)"], "should be a float. Got: 1"),
    ("plain", ["-c", "LearningRateScheduler(lambda epoch: 9**9**9)"], "that number is absurd"),
    ("plain", ["-c", "LearningRateScheduler(decay)"], "give the schedule as a lambda"),
    ("plain", ["-c", "LearningRateScheduler('no_such_module:f')"], "cannot import it"),
    ("plain", ["-c", "ModelCheckpoint()"], "needs filepath"),
    ("plain", ["-c", "ModelCheckpoint('m.h6')"], "must end in"),
    ("plain", ["-c", "ModelCheckpoint('{val_acc}.keras')"], "KeyError: Failed to format"),
    ("plain", ["-c", "ModelCheckpoint('{epoch:z}.keras')"], "ValueError"),
    ("plain", ["-c", "ModelCheckpoint('m.keras', save_freq='often')"], "Unrecognized save_freq"),
    ("plain", ["-c", "ModelCheckpoint('m.keras', save_freq=5)"], "--steps-per-epoch"),
    ("plain", ["-c", "BackupAndRestore('')"], "Empty `backup_dir`"),
    ("plain", ["-c", "BackupAndRestore('d', save_freq='x')"], "Invalid value for argument `save_freq`"),
    ("plain", ["-c", "TensorBoard(profile_batch='x')"], "invalid literal for int()"),
    ("plain", ["-c", "CSVLogger('x', separator='ab')"], "1-character string"),
    ("plain", ["-c", "RemoteMonitor(headers='x')"], "is not a dict"),
    ("plain", ["-c", "BaseLogger()"], "has no BaseLogger"),
    ("plain", ["-c", "SwapEMAWeights()", "--keras", "2"], "Keras 2 has no SwapEMAWeights"),
    ("plain", ["-c", "LambdaCallback(on_epoch_end=print)"], "'module:function'"),
    ("plain", ["-c", "LambdaCallback(on_epoch_end='m:f')"], "only --engine keras can run it"),
    ("plain", ["-c", "no_such_module:Mine(x=1)"], "only --engine keras can run it"),
    ("plain", ["-c", "no_such_module:Mine(1)"], "only --engine keras can run it"),
    ("plain", ["-c", "mine.Mine(x=1)"], "mine:Mine("),
    ("plain", ["-c", "ExponentialDecay(0.1, 10, 0.9)"], "--steps-per-epoch"),
    ("plain", ["-c", "ExponentialDecay(0.1, 0, 0.9)", "--steps-per-epoch", "3"], "`decay_steps` must be > 0"),
    ("plain", ["-c", "ExponentialDecay(0.1, 10)"], "needs decay_rate"),
    ("plain", ["-c", "SGD(0.1)"], "--learning-rate"),
    (
        "plain",
        ["-c", "CosineDecay(0.1, 9)", "-c", "LearningRateScheduler(lambda e: 0.1)", "--steps-per-epoch", "3"],
        "not settable",
    ),
    ("plain", ["-c", "EarlyStopping()", "--keras", "1"], "no such version"),
    ("plain", ["-c", "EarlyStopping()", "--keras", "new"], "no such version"),
    ("plain", ["-c", "EarlyStopping()", "--learning-rate", "inf"], "a finite number"),
    ("plain", ["-c", "EarlyStopping()", "--learning-rate", "x"], "--learning-rate"),
    ("plain", ["-c", "EarlyStopping()", "--steps-per-epoch", "0"], "--steps-per-epoch"),
    ("plain", ["-c", "EarlyStopping()", "--attempt", "7"], "no attempt 7 with an epoch"),
    ("plain", ["-c", "EarlyStopping()", "--epochs", "0"], "--epochs"),
    ("plain", ["--variant", "a: EarlyStoping()"], "Did you mean EarlyStopping?"),
    ("plain", ["--variant", ":"], "Write it as in the training script"),
    ("plain", ["-c", "EarlyStopping()", "--write", "new.csv"], "--write is for one list with one CSVLogger"),
    ("plain", ["-c", "CSVLogger('a'); CSVLogger('b')", "--write", "new.csv"], "one CSVLogger"),
    ("lists", ["-c", "EarlyStopping('confusion', mode='min')"], "are lists or text"),
    ("lists", ["-c", "CSVLogger('a')", "--write", "new.csv"], "are lists or text"),
    ("one", ["-c", "ModelCheckpoint('{nothing}.keras')"], "Failed to format"),
    ("nan", ["-c", "EarlyStopping('foo')"], "give mode="),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in LOGS.items():
        (tmp_path / f"{name}.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("log", "arguments", "words"), BAD, ids=[" ".join(row[1])[:70] or "no call" for row in BAD]
)
def test_each_gets_exit_code_2_and_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], log: str, arguments: list[str], words: str
) -> None:
    if "--keras" not in arguments:
        arguments = [*arguments, "--keras", "3.15"]
    code = main(["replay", f"{log}.csv", *arguments])
    _, err = capsys.readouterr()
    assert code == 2, err
    assert words in err
    about_the_log = log == "lists"  # whose column of lists has a line of its own
    assert err.count("\n") == 1 + about_the_log, err
    assert err.startswith("cbmon: ")
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.csv" for name in LOGS)


POOR: list[tuple[str, list[str], int, str]] = [
    ("one", ["-c", "EarlyStopping(patience=0)"], 0, ""),
    ("one", ["-c", "ReduceLROnPlateau(patience=0)"], 0, ""),
    ("nan", ["-c", "EarlyStopping(patience=1)"], 0, ""),
    ("nan", ["-c", "TerminateOnNaN()"], 0, ""),
    ("header", ["-c", "EarlyStopping()"], 0, ""),
    ("empty", ["-c", "EarlyStopping()"], 0, ""),
    ("plain", ["-c", "EarlyStopping('val_acc', mode='max')"], 0, "'val_acc' is not in this log"),
    ("plain", ["-c", "ReduceLROnPlateau('val_acc', mode='max')"], 0, "never cuts"),
    ("plain", ["-c", "EarlyStopping(mode='biggest')"], 0, "is unknown"),
    ("plain", ["-c", "EarlyStopping(patience=10**9)".replace("10**9", "1000000000")], 0, ""),
    ("plain", ["-c", "EarlyStopping(patience=-5)"], 0, ""),
    ("absent", ["-c", "EarlyStopping()"], 3, "no such file"),
]


@pytest.mark.parametrize(
    ("log", "arguments", "code", "words"), POOR, ids=[f"{row[0]} {row[1][1]}" for row in POOR]
)
def test_a_poor_log_or_an_odd_argument_still_has_an_answer(
    folder: Path, capsys: pytest.CaptureFixture[str], log: str, arguments: list[str], code: int, words: str
) -> None:
    assert main(["replay", f"{log}.csv", *arguments, "--keras", "3.15", "--json"]) == code
    out, err = capsys.readouterr()
    document = json.loads(out, parse_constant=pytest.fail)
    assert len(document["results"]) == (code != 3)
    assert err.count("\n") == bool(words), err
    assert words in err


# --- --write --------------------------------------------------------------------------------------------

STOPS = ["-c", "EarlyStopping(patience=2)", "-c", "CSVLogger('x')", "--keras", "3.15"]


def test_write_makes_the_log_that_would_have_been(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "plain.csv", *STOPS, "--write", "new.csv"]) == 0
    assert (folder / "new.csv").read_bytes() == LOG.replace("\n", "\r\n").encode()[: -len("5,0.6,0.6\r\n")]
    assert capsys.readouterr().err == "cbmon: new.csv: written, 5 rows\n"
    run, decoder = Run(), CsvDecoder()
    for event in [*decoder.feed((folder / "new.csv").read_bytes()), *decoder.finish()]:
        fold(run, event)
    assert list(run.current.epochs) == [0, 1, 2, 3, 4], "and it can be replayed again"


def test_write_never_overwrites_and_makes_no_half_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "link.csv").symlink_to(folder / "plain.csv")
    (folder / "nowhere.csv").symlink_to(folder / "gone.csv")
    for name in ("plain.csv", "./plain.csv", "link.csv", "nowhere.csv", "one.csv", "."):
        assert main(["replay", "plain.csv", *STOPS, "--write", name]) == 2
        err = capsys.readouterr().err
        assert (err.count("\n"), "it exists already" in err) == (1, True)
    assert main(["replay", "plain.csv", *STOPS, "--write", "no/folder/x.csv"]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert main(["replay", "plain.csv", "one.csv", *STOPS, "--write", "new.csv"]) == 2
    assert "not 2 (--attempt N picks one)" in capsys.readouterr().err
    assert (folder / "plain.csv").read_text() == LOG
    assert not (folder / "gone.csv").exists()
    assert not (folder / "new.csv").exists()


def test_write_asks_for_the_rate_where_a_column_holds_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", "plain.csv", "-c", "ReduceLROnPlateau(patience=1)", *STOPS, "--write", "new.csv"]
    assert main(arguments) == 2
    assert "--learning-rate" in capsys.readouterr().err
    assert not (folder / "new.csv").exists()
    assert main([*arguments, "--learning-rate", "0.1"]) == 0
    assert (folder / "new.csv").read_text().startswith("epoch,learning_rate,loss,val_loss")
    assert math.isclose(float((folder / "new.csv").read_text().split(",")[4]), 0.1, rel_tol=1e-7)


def test_epochs_tells_that_the_log_was_cut_short(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", "plain.csv", "-c", "EarlyStopping(patience=50)", "--keras", "3.15"]
    assert main([*arguments, "--epochs", "6"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*arguments, "--epochs", "100"]) == 0
    assert capsys.readouterr().err == (
        "cbmon: plain.csv: EarlyStopping: not within 6 epochs; the log itself may have been stopped early: "
        "6 of 100 planned epochs\n"
    )
