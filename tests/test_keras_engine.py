"""`--engine keras` and `both`: the real callbacks in a child, the user's own ones, and what the sandbox keeps."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cbmon.cli import main
from cbmon.errors import CbmonError
from cbmon.events import EpochsEnded, RecordedEvent, RunStarted, encode_line
from cbmon.profiles import PROFILES, find_profile
from cbmon.replay import keras_engine
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.keras_child import Sandbox
from cbmon.replay.keras_engine import Task, Written, differences, find_keras, replay_with_keras
from cbmon.replay.results import Replay
from cbmon.run import Run, fold
from cbmon.sources import find, read_whole

needs_keras = pytest.mark.skipif(
    find_spec("keras") is None, reason="keras is not installed: --engine keras has nothing to drive"
)
needs_tf_keras = pytest.mark.skipif(
    find_spec("tf_keras") is None, reason="tf_keras is not installed: --keras 2 has nothing to drive"
)
LOSSES = (1.0, 0.8, 0.7, 0.75, 0.76, 0.77, 0.6)
PLAIN = "epoch,loss,val_loss\n" + "".join(f"{epoch},{loss},{loss}\n" for epoch, loss in enumerate(LOSSES))
OWN = '''
import json, os, sys
import keras

class StopAt(keras.callbacks.Callback):
    """Stops after one epoch; lowers the rate before."""

    def __init__(self, epoch, lowers=False, note=None):
        super().__init__()
        self.epoch, self.lowers, self.note = epoch, lowers, note

    def on_epoch_end(self, epoch, logs=None):
        print('{"answer": "spoilt"}', flush=True)
        os.write(1, b"also from C\\n")
        if self.note:
            with open(self.note, "a") as file:
                file.write(f"{epoch} {sorted(logs)}\\n")
        if self.lowers and epoch == 1:
            self.model.optimizer.learning_rate = 0.5 * float(self.model.optimizer.learning_rate)
        if epoch == self.epoch:
            self.model.stop_training = True

class Broken(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise LookupError(f"no such thing in epoch {epoch}")

class Dies(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        os._exit(7)

class Hangs(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        import time
        time.sleep(600)

class Batches(keras.callbacks.Callback):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def on_train_batch_end(self, batch, logs=None):
        self.model.get_weights()

def note(epoch, logs):
    with open("hook.txt", "a") as file:
        file.write(f"{epoch} {logs['loss']}\\n")
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's working directory, with a log and a module of their own."""
    (tmp_path / "training.csv").write_text(PLAIN)
    (tmp_path / "own_callbacks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replayed(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, document and stderr, the child's included, of `cbmon replay training.csv ... --json`."""
    code = main(["replay", "training.csv", *map(str, arguments), "--json"])
    out, err = capfd.readouterr()
    return code, json.loads(out, parse_constant=pytest.fail), err


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, and what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


# --- which Keras -----------------------------------------------------------------------------------------


def test_a_keras_that_is_not_installed_is_one_line_with_what_to_install(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = "3.2" if find_profile()[0].name != "3.2" else "3.1"
    code = main(["replay", "training.csv", "-c", "EarlyStopping()", "--engine", "keras", "--keras", absent])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"Keras {absent} is not installed" in err
    assert "pip install" in err


def test_without_any_keras_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(CbmonError, match=r"there is none.*pip install 'cbmon\[tensorflow\]'"):
        find_keras(PROFILES["3.15"])
    with pytest.raises(CbmonError, match="pip install tf_keras"):
        find_keras(PROFILES["2"])


def test_the_parent_never_imports_keras() -> None:
    code = (
        "import sys, cbmon.cli, cbmon.replay.keras_engine, cbmon.replay.keras_child;"
        "print([name for name in ('keras', 'tf_keras', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# --- decisions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [("--explain", "2"), ("--write", "x.csv")])
def test_what_only_our_own_engine_tells_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    call = ("-c", "CSVLogger('a.csv'); EarlyStopping()", "--engine", "both")
    assert main(["replay", "training.csv", *call, *flags]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "leave out --engine" in err


@needs_keras
def test_keras_and_cbmon_give_the_same_document_and_say_so(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = [
        *("-c", "ReduceLROnPlateau(patience=1, factor=0.5, min_lr=0.03, verbose=1)"),
        *("-c", "EarlyStopping(patience=2, restore_best_weights=True, verbose=1)"),
        *("-c", "ModelCheckpoint('m/{epoch:02d}-{val_loss:.2f}.keras', save_best_only=True, verbose=1)"),
        *("-c", "TerminateOnNaN()", "--learning-rate", "0.1"),
    ]
    documents = {}
    for engine in ("cbmon", "keras", "both"):
        code, documents[engine], err = replayed(capfd, *calls, "--engine", engine)
        assert code == 0
        last = "cbmon: no difference between cbmon and Keras in 1 replay\n" if engine == "both" else ""
        assert err == last, "and Keras' own messages of verbose=1 are not repeated"
    assert documents["keras"] == documents["cbmon"]
    (result,) = documents["both"]["results"]
    assert result.pop("differences") == []
    assert result == documents["cbmon"]["results"][0]
    assert result["stopped"] == {"epoch": 4, "by": ["EarlyStopping"], "exact": False}
    assert result["checkpoints"][0] == {"epoch": 0, "path": "m/01-1.00.keras"}


@needs_keras
def test_what_keras_raises_is_that_results_error_and_the_others_still_come(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, document, err = replayed(
        capfd,
        *("--variant", "a: EarlyStopping(monitor='mine')", "--variant", "b: EarlyStopping(patience=2)"),
        *("--variant", "c: ModelCheckpoint('x/{nothing}.keras')", "--engine", "keras"),
    )
    first, second, third = document["results"]
    assert code == 2
    assert first["error"].startswith("Keras raises ValueError: EarlyStopping callback received monitor=mine")
    assert second["stopped"]["epoch"] == 4
    assert third["error"].startswith("Keras raises KeyError: ")
    assert '"x/{nothing}.keras"' in third["error"], "the user's own path, not the sandbox's"
    assert err.count("\n") == 2


@needs_keras
def test_what_a_log_cannot_tell_is_refused_whoever_decides(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    variants = [
        *("--variant", "a: LearningRateScheduler(lambda epoch, lr: lr * 0.9)"),
        *("--variant", "b: ModelCheckpoint('m.keras', save_freq=3)"),
        *("--variant", "c: ReduceLROnPlateau(patience=1); EarlyStopping(patience=2)"),
    ]
    code, document, _ = replayed(capfd, *variants, "--engine", "both")
    a, b, c = document["results"]
    assert code == 2
    assert "needs one. Give the first one: --learning-rate" in a["error"]
    assert "--steps-per-epoch" in b["error"]
    assert (c["learning_rate"], c["cuts"][0]) == (None, {"epoch": 3, "factor": 0.1})
    assert [result["differences"] for result in document["results"]] == [[], [], []]


@needs_tf_keras
def test_keras_2_is_tf_keras(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    calls = (
        "TerminateOnNaN(); ReduceLROnPlateau(patience=1); EarlyStopping(patience=2); LearningRateScheduler("
    )
    calls += "lambda epoch: 0.1); CSVLogger('c.csv'); TensorBoard(); BackupAndRestore('b'); RemoteMonitor()"
    code, document, err = replayed(capfd, "--variant", calls, "--engine", "both", "--keras", "2")
    (result,) = document["results"]
    assert (code, result["differences"]) == (0, []), err
    assert result["stopped"]["epoch"] == 4
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "own_callbacks.py",
        "training.csv",
    ]


# --- the sandbox -----------------------------------------------------------------------------------------


@needs_keras
def test_a_scripts_own_list_leaves_every_file_as_it_was(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    temporary = tmp_path_factory.mktemp("sandboxes")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    backup, events = folder / "backup", folder / "logs" / "train"
    backup.mkdir()
    events.mkdir(parents=True)
    (backup / "latest.weights.h5").write_bytes(b"weeks of work")
    (backup / "training_metadata.json").write_text('{"epoch": 3, "batch": 0}')
    (events / "events.out.tfevents.1.host.1.0.v2").write_bytes(b"as it was")
    before = contents(folder)
    log = folder / "training.csv"
    script = (
        f"[CSVLogger(filename={str(log)!r}), CSVLogger('training.csv', append=True), "
        "BackupAndRestore('backup', double_checkpoint=True), BackupAndRestore('../backup', save_freq=1), "
        "TensorBoard(write_steps_per_second=True), TensorBoard('logs', update_freq=1), "
        "RemoteMonitor('http://127.0.0.1:9'), "
        "ModelCheckpoint('../../m/{epoch}.keras'), SwapEMAWeights(), ProgbarLogger(), History(), "
        "EarlyStopping(patience=2, restore_best_weights=True)]"
    )
    code, document, err = replayed(capfd, "-c", script, "--engine", "keras")
    assert code == 0, err
    (result,) = document["results"]
    assert result["stopped"]["epoch"] == 4, "the backup of epoch 3 is not resumed from"
    assert [each["path"] for each in result["checkpoints"]] == [f"../../m/{n}.keras" for n in range(1, 6)]
    assert contents(folder) == before
    assert not (folder.parent / "backup").exists()
    assert list(temporary.iterdir()) == [], "and nothing stays in the sandbox"


@needs_keras
def test_remote_monitor_posts_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        call = f"RemoteMonitor('http://127.0.0.1:{server.server_port}')"
        code = main(["replay", "training.csv", "-c", call, "--engine", "keras"])
        server.shutdown()
    assert (code, asked) == (0, [])
    told = "".join(capfd.readouterr().out.split())  # lines may break anywhere in an address
    assert "wouldpost7timestohttp://127.0.0.1" in told


def test_a_path_comes_out_of_the_sandbox_as_it_went_in(tmp_path: Path) -> None:
    box = Sandbox(str(tmp_path / "{odd}"))
    for path in (
        "m.keras",
        "a/b.keras",
        "/abs/m.keras",
        "../../up.keras",
        "gs://bucket/m.keras",
        "./m.keras",
    ):
        rebased = box.rebase(path, is_template=True).format()
        assert box.original(rebased) == path
        assert Path(rebased).resolve().is_relative_to(box.root)
    assert box.original("/elsewhere/m.keras") == "/elsewhere/m.keras"


# --- the user's own code ---------------------------------------------------------------------------------


@needs_keras
def test_a_class_of_ones_own_runs_and_what_it_prints_spoils_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, document, err = replayed(
        capfd,
        *("-c", "own_callbacks:StopAt(epoch=3, lowers=True, note='seen.txt')"),
        *("-c", "EarlyStopping(patience=5)", "--engine", "keras", "--learning-rate", "0.1"),
    )
    (result,) = document["results"]
    assert code == 0
    assert result["stopped"] == {"epoch": 3, "by": ["StopAt"], "exact": False}
    assert result["cuts"] == [{"epoch": 1, "factor": 0.5}]
    assert result["learning_rate"] == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert result["best"][0]["epoch"] == 2
    assert err.count('{"answer": "spoilt"}') == 4
    assert err.count("also from C") == 4
    assert any("with your rights" in warning for warning in result["warnings"])
    # What the user's own code writes is the user's: in their working directory, and it stays.
    assert (folder / "seen.txt").read_text().startswith("0 ['loss', 'val_loss']\n")


@needs_keras
def test_one_batch_an_epoch_and_no_weights_are_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("-c", "own_callbacks:Batches(0.36)", "--engine", "keras", "--learning-rate", "0.1")
    code, _, err = replayed(capfd, *arguments)
    assert code == 0, err
    assert "Batches: without --steps-per-epoch it sees one batch an epoch" in err
    assert "Batches: model.get_weights() is empty, for a replay has no model" in err
    _, _, err = replayed(capfd, *arguments, "--steps-per-epoch", "3")
    assert "one batch an epoch" not in err
    _, _, err = replayed(capfd, "-c", "LambdaCallback(on_epoch_end='own_callbacks:note')", *arguments[2:])
    assert "one batch" not in err
    assert "get_weights" not in err


@needs_keras
def test_hooks_of_lambda_callback_are_functions_of_ones_own(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call = "LambdaCallback(on_epoch_end='own_callbacks:note')"
    code, document, err = replayed(capfd, "-c", call, "--engine", "both")
    (result,) = document["results"]
    assert code == 0, err
    assert (folder / "hook.txt").read_text().splitlines()[:2] == ["0 1.0", "1 0.8"]
    assert result["differences"] is None
    assert "not compared, for only Keras can run code of your own" in err


@needs_keras
def test_a_schedule_of_ones_own_is_imported_once_and_by_the_child(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "own_schedule.py").write_text(
        "open('imported.txt', 'a').write('once\\n')\n"
        "def halve(epoch, lr):\n    return lr * 0.5\n"
        "def fixed(epoch):\n    return 0.25\n"
    )
    halve = ("-c", "LearningRateScheduler('own_schedule:halve')", "-c", "CSVLogger('new.csv')")
    options = ("--learning-rate", "0.1", "--engine", "keras")
    code, document, err = replayed(capfd, *halve, *options)
    (result,) = document["results"]
    assert (code, (folder / "imported.txt").read_text()) == (0, "once\n"), err
    assert "own_schedule" not in sys.modules
    assert result["learning_rate"][:2] == pytest.approx([0.05, 0.025])
    assert "(epoch, learning_rate, loss, val_loss)" in result["observers"][0]["words"]
    assert main(["replay", "training.csv", *halve, *options]) == 0
    assert "from own_schedule import halve" in capfd.readouterr().out
    code, document, err = replayed(capfd, *halve, "--engine", "keras")
    assert (code, "own_schedule:halve needs one. Give the first one" in err) == (2, True), (
        "no stand-in for it"
    )
    fixed = ("-c", "LearningRateScheduler('own_schedule:fixed')", "--engine", "keras")
    code, document, err = replayed(capfd, *fixed)
    assert (code, document["results"][0]["learning_rate"]) == (0, [0.25] * 7), err


@needs_keras
def test_a_record_tells_keras_the_steps_of_an_epoch(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[RecordedEvent] = [RunStarted(run_id="a", steps=10)]
    events += [EpochsEnded(epochs=[epoch], metrics={"loss": [1.0]}) for epoch in range(3)]
    (folder / "run.jsonl").write_bytes(b"".join(map(encode_line, events)))
    arguments = ["replay", "run.jsonl", "-c", "ExponentialDecay(0.1, 10, 0.5)", "--engine", "both", "--json"]
    assert main(arguments) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["results"][0]["learning_rate"] == pytest.approx([0.1, 0.05, 0.025])
    assert "no difference between cbmon and Keras in 1 replay" in err


@needs_keras
def test_ones_own_code_that_raises_dies_or_is_not_there_costs_its_own_result_alone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    variants = ["own_callbacks:Broken()", "own_callbacks:Dies()", "own_callbacks:Nowhere()", "nowhere:A()"]
    listed = [part for text in (*variants, "EarlyStopping(patience=2)") for part in ("--variant", text)]
    code, document, _ = replayed(capfd, *listed, "--engine", "keras")
    broken, dies, absent, nowhere, good = document["results"]
    assert code == 2
    assert broken["error"] == "own_callbacks:Broken() raises LookupError: no such thing in epoch 0"
    assert dies["error"] == "the process that runs Keras ended with exit code 7 here"
    assert "raises AttributeError: module 'own_callbacks' has no attribute 'Nowhere'" in absent["error"]
    assert "raises ModuleNotFoundError: No module named 'nowhere'" in nowhere["error"]
    assert good["stopped"]["epoch"] == 4


def task(path: Path, text: str) -> Task:
    (log,) = find([str(path)]).logs
    run = Run()
    for event in read_whole(log, 0.0):
        fold(run, event)
    profile = find_profile()[0]
    calls = parse_calls(text, profile)
    return Task(ours=replay(run.current, calls, profile), written=Written(calls=calls, texts=[text]))


@needs_keras
def test_a_hook_that_never_ends_is_ended(folder: Path) -> None:
    tasks = [task(folder / "training.csv", text) for text in ("own_callbacks:Hangs()", "EarlyStopping()")]
    hangs, good = replay_with_keras(tasks, find_profile()[0], silence_s=3)
    assert hangs.error == "the process that runs Keras said nothing for 3 s and was stopped here"
    assert good.error is None


@needs_keras
def test_a_file_of_the_working_directory_does_not_stand_for_a_library(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("keras", "tensorflow", "json", "random"):
        (folder / f"{name}.py").write_text("raise SystemExit('a trap in a folder of logs')\n")
    code, _, err = replayed(capfd, "-c", "EarlyStopping()", "--engine", "both")
    assert code == 0, err


# --- differences -----------------------------------------------------------------------------------------


def test_each_difference_is_a_sentence_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(tasks: list[Task], *_: Any, **__: Any) -> list[Replay]:
        text = "EarlyStopping(patience=1)"
        return [task(folder / "training.csv", text).ours for _ in tasks]

    monkeypatch.setattr(keras_engine, "replay_with_keras", other)
    monkeypatch.setattr(keras_engine, "find_keras", lambda _: "keras")
    code = main(["replay", "training.csv", "-c", "EarlyStopping(patience=2)", "--engine", "both", "--json"])
    out, err = capsys.readouterr()
    (result,) = json.loads(out)["results"]
    assert code == 1
    assert result["differences"] == [
        "the stop: cbmon after epoch 5 by EarlyStopping, Keras after epoch 4 by EarlyStopping",
        "epochs replayed: cbmon 5, Keras 4",
    ]
    assert [line.partition("attempt 1, variant 1: ")[2] for line in err.splitlines()] == result["differences"]


def test_differences_are_found_in_cuts_checkpoints_best_and_rates(folder: Path) -> None:
    log = folder / "training.csv"
    texts = (
        "ReduceLROnPlateau(patience=1, factor={0}); ModelCheckpoint('{0}.keras'); "
        "LearningRateScheduler(lambda epoch: {0}); "
        "EarlyStopping(patience=3, min_delta={0}, restore_best_weights=True)"
    )
    one, other = (task(log, texts.format(number)).ours for number in (0.1, 0.3))
    found = " | ".join(differences(one, other))
    for what in (
        "learning rate of row 1",
        "cuts, number 1 of",
        "checkpoints, number 1 of 5 and 4",
        "restores",
    ):
        assert what in found
    assert differences(one, one) == []
