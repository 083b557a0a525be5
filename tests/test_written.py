"""What the observers would have written, against the real ones: CSVLogger's bytes, RemoteMonitor's requests."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cbmon.errors import CannotReplay, NeedsLearningRate
from cbmon.profiles import PROFILES, Profile
from cbmon.replay.calls import parse_calls
from cbmon.replay.engine import replay
from cbmon.replay.observers import CSVLogger, RemoteMonitor
from cbmon.replay.results import Member, Replay
from cbmon.replay.written import csv_log, requests
from tests.driven import Real, Rows, real_keras, rows

K3, K2, K212 = PROFILES["3.15"], PROFILES["2"], PROFILES["2.12"]


@pytest.fixture(params=["keras", "tf_keras"])
def real(request: pytest.FixtureRequest) -> Real:
    return real_keras(request.param)


def run(log: Rows, text: str, profile: Profile, rate: float | None = 0.1, **options: Any) -> Replay:
    return replay(log, parse_calls(text, profile), profile, learning_rate=rate, **options)


def member(result: Replay, kind: type[Any]) -> Member:
    assert result.decisions is not None, result.error
    (found,) = [each for each in result.decisions.members if isinstance(each.policy, kind)]
    return found


def csv_of(log: Rows, text: str, profile: Profile = K3, rate: float | None = 0.1) -> bytes:
    found = member(run(log, text, profile, rate), CSVLogger)
    assert isinstance(found.policy, CSVLogger)
    assert found.course is not None
    return csv_log(found.policy, found.course)


PLATEAU = "ReduceLROnPlateau('loss', patience=1)"
GOLDEN: list[tuple[Rows, str, Profile, bytes, str]] = [
    (
        rows({"acc": 0.1, "loss": 0.1}),
        f"{PLATEAU}; CSVLogger('x')",
        K3,
        b"epoch,acc,learning_rate,loss,val_acc,val_learning_rate,val_loss\r\n0,0.1,0.10000000149011612,0.1,NA,NA,NA\r\n",
        "a plateau before it, and phantom columns",
    ),
    (
        rows({"loss": 1.0}, {"loss": 0.9, "val_loss": 1.0}, {"loss": 0.8}),
        "CSVLogger('x')",
        K3,
        b"epoch,loss,val_loss\r\n0,1.0,NA\r\n1,0.9,1.0\r\n2,0.8,NA\r\n",
        "validation every other epoch",
    ),
    (rows({}, {}), "CSVLogger('x')", K3, b"epoch\r\n0\r\n1\r\n", "empty logs"),
    (
        rows({"loss": 0.1}, {"loss": math.nan}),
        "CSVLogger('x', ';')",
        K3,
        b"epoch;loss;val_loss\r\n0;0.1;NA\r\n1;nan;NA\r\n",
        "another separator, and NaN is a value",
    ),
    (
        rows({"loss": 0.1, "mae": 0.2, "val_loss": math.inf}),
        f"{PLATEAU}; CSVLogger('x')".replace("'loss'", "'val_loss'"),
        K2,
        b"epoch,loss,lr,mae,val_loss\r\n0,0.1,0.1,0.2,inf\r\n",
        "Keras 2 writes the float32 in short",
    ),
    (rows({"loss": 0.1}), "CSVLogger('x')", K212, b"epoch,loss\r\n0,0.1\r\n", "no phantoms before 2.13"),
    (
        rows({"loss": 0.1}, {"loss": 0.2, "new": 1.0}),
        "CSVLogger('x')",
        K3,
        b"epoch,loss,val_loss\r\n0,0.1,NA\r\n1,0.2,NA\r\n",
        "a key that comes later never appears",
    ),
    (
        rows({"loss": 0.1}, {"loss": 0.2}, {"loss": 0.1}),
        "CSVLogger('x'); EarlyStopping('loss', patience=1); " + PLATEAU,
        K3,
        b"epoch,loss,val_loss\r\n0,0.1,NA\r\n1,0.2,NA\r\n",
        "cut off at the stop; a plateau after it adds no column",
    ),
    (rows({'a"b,c': 1.0}, first=7), "CSVLogger('x')", K212, b'epoch,"a""b,c"\r\n7,1.0\r\n', "quoting"),
    (rows(), "CSVLogger('x')", K3, b"", "no epoch: an empty file"),
]


@pytest.mark.parametrize(
    ("log", "text", "profile", "data", "sentence"), GOLDEN, ids=[case[-1] for case in GOLDEN]
)
def test_golden_bytes(log: Rows, text: str, profile: Profile, data: bytes, sentence: str) -> None:
    assert csv_of(log, text, profile) == data, sentence


LISTS = [
    ["CSVLogger({!r})"],
    ["ReduceLROnPlateau('loss', 0.5, 1)", "CSVLogger({!r})"],
    ["CSVLogger({!r}, '\\t')", "ReduceLROnPlateau('loss', 0.5, 1)"],
    ["LearningRateScheduler(lambda epoch, lr: lr * 0.7)", "CSVLogger({!r}, separator=';')"],
    ["ReduceLROnPlateau('loss', 0.5, 1)", "LearningRateScheduler(lambda epoch, lr: lr)", "CSVLogger({!r})"],
    ["LearningRateScheduler(lambda epoch, lr: lr)", "ReduceLROnPlateau('loss', 0.5, 1)", "CSVLogger({!r})"],
    ["EarlyStopping('loss', patience=2)", "CSVLogger({!r}, append=True)"],
    ["CSVLogger({!r})", "TerminateOnNaN()"],
]


def random_log(chance: random.Random) -> Rows:
    names = chance.sample(["loss", "accuracy", "mse", "val_loss", "val_accuracy", "Zeta", "a b"], 3)
    number: Callable[[], float] = lambda: chance.choice([chance.random(), 1.0, 1e-5, 1e20, math.nan, 0.1])  # noqa: E731
    made = []
    for _ in range(chance.randint(1, 6)):
        row = {name: number() for name in ["loss", *names] if chance.random() < 0.9 or name == "loss"}
        made.append(row)
    return rows(*made, first=chance.choice([0, 0, 3]))


@pytest.mark.parametrize("texts", LISTS, ids=" ".join)
def test_the_file_is_the_real_csv_loggers(real: Real, texts: list[str], tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(12):
        log, path = random_log(chance), tmp_path / f"{number}.csv"
        written = [text.format(str(path)) for text in texts]
        real.drive(written, log, 0.1)
        assert csv_of(log, "; ".join(written), real.profile) == path.read_bytes(), (log, written)


def test_an_unknown_rate_is_asked_for_only_by_the_file() -> None:
    log = rows({"loss": 0.1})
    assert run(log, "CSVLogger('x')", K3, None).error is None
    assert csv_of(log, "CSVLogger('x')", rate=None)
    with pytest.raises(NeedsLearningRate, match="--learning-rate"):
        csv_of(log, f"{PLATEAU}; CSVLogger('x')", rate=None)


def test_cells_that_are_lists_make_no_file() -> None:
    log = Rows(epochs=[0], rows=[{"loss": 0.1}], not_numbers=frozenset(["confusion"]))
    with pytest.raises(CannotReplay, match="confusion"):
        csv_of(log, "CSVLogger('x')")


# --- requests -------------------------------------------------------------------------------------------


def sent(log: Rows, text: str, profile: Profile = K3) -> tuple[list[dict[str, Any]], int]:
    found = member(run(log, text, profile), RemoteMonitor)
    assert isinstance(found.policy, RemoteMonitor)
    assert found.course is not None
    return requests(found.policy, found.course.rows)


@pytest.mark.parametrize(
    "call",
    [
        "RemoteMonitor()",
        "RemoteMonitor(send_as_json=True)",
        "RemoteMonitor('http://a.test/', 'p', 'f', {'X-Key': 'k', 'content-type': 'text/x'})",
        "RemoteMonitor(root='localhost:9000')",
        "RemoteMonitor(root='')",
    ],
)
@pytest.mark.filterwarnings("ignore:Could not reach")
def test_the_requests_are_those_of_the_real_remote_monitor(
    real: Real, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("requests")
    posted: list[Any] = []

    def send(self: object, request: Any, **_: Any) -> Any:
        posted.append(request)
        response = library.Response()
        response.status_code = 200
        return response

    monkeypatch.setattr(library.adapters.HTTPAdapter, "send", send)
    log = rows({"loss": 0.5, "val_loss": 0.25}, {"loss": math.nan, "val_loss": math.inf}, {"loss": 1e-7})
    plateau = "ReduceLROnPlateau('loss', 0.5, 1)"
    real.drive([plateau, call], log, 0.1)
    ours, refused = sent(log, f"{plateau}; {call}", real.profile)
    assert len(ours) == len(posted)
    assert len(ours) + refused == 3
    for mine, their in zip(ours, posted, strict=True):
        body = their.body if isinstance(their.body, str) else their.body.decode()
        assert (mine["method"], mine["content_type"]) == (their.method, their.headers["Content-Type"])
        assert mine["url"] == their.url
        if real.profile.is_keras_3:
            assert mine["body"] == body
        else:  # the order of Keras 2's own logs is in no log
            assert sorted(mine["body"]) == sorted(body)
        assert {name: their.headers[name] for name in mine["headers"]} == mine["headers"]


def test_requests_stand_in_the_document_and_nowhere_else() -> None:
    log = rows({"loss": 0.5}, {"loss": math.nan})
    found = run(log, "RemoteMonitor(send_as_json=True)", K3).as_json()
    assert found["requests"] == [
        {
            "epoch": 0,
            "method": "POST",
            "url": "http://localhost:9000/publish/epoch/end/",
            "content_type": "application/json",
            "headers": {},
            "body": '{"epoch": 0, "loss": 0.5}',
        }
    ]
    assert "1 with NaN or infinity are dropped" in found["observers"][0]["words"]
    assert "requests" not in run(log, "EarlyStopping('loss')", K3).as_json()
    assert "observers" not in run(log, "EarlyStopping('loss')", K3).as_json()
    unknown = run(log, f"{PLATEAU}; RemoteMonitor()", K3, None).as_json()
    assert unknown["requests"] is None
    assert "--learning-rate" in unknown["observers"][0]["words"]


# --- the others, in words -------------------------------------------------------------------------------


def words(log: Rows, text: str, profile: Profile = K3, **options: Any) -> str:
    result = run(log, text, profile, **options)
    assert result.decisions is not None, result.error
    return result.decisions.members[-1].words


THREE = rows(*({"loss": 1.0, "val_loss": 1.0} for _ in range(3)))
WORDS: list[tuple[str, Profile, dict[str, Any], str]] = [
    ("CSVLogger('x')", K3, {}, "writes 3 rows (epoch, loss, val_loss); --write FILE makes the file"),
    ("History()", K3, {}, "decides nothing, and Keras adds one by itself"),
    ("ProgbarLogger()", K3, {}, "decides nothing, and Keras adds one by itself"),
    ("SwapEMAWeights()", K3, {}, "use_ema=True, which no log tells"),
    ("BaseLogger()", K2, {}, "KeyError: 'metrics'"),
    (
        "TensorBoard()",
        K3,
        {},
        "writes epoch_loss, epoch_learning_rate to logs/train and epoch_loss to logs/validation, at steps 0-2",
    ),
    ("TensorBoard()", K2, {}, "writes epoch_loss to logs/train and epoch_loss to logs/validation, at steps"),
    ("TensorBoard(update_freq=3)", K3, {"steps_per_epoch": 5}, "only at steps 2"),
    ("TensorBoard(update_freq=3)", K3, {}, "multiple of 3 (--steps-per-epoch tells which)"),
    (
        "TensorBoard(update_freq='batch')",
        K3,
        {},
        "at steps 0-2; the training metrics as batch_* at every batch",
    ),
    ("TensorBoard(update_freq=5)", K3, {"steps_per_epoch": 10}, "at steps 0-2; "),
    ("TensorBoard(update_freq=5)", K3, {"steps_per_epoch": 10}, "batch_* every 5 batches; "),
    (
        "TensorBoard(update_freq=5)",
        PROFILES["3.14"],
        {},
        "at steps 0-2; the training metrics as batch_* at every",
    ),
    ("TensorBoard(update_freq=5)", PROFILES["3.6"], {}, "batch_* at every batch, all at step 0"),
    ("TensorBoard(histogram_freq=1)", K3, {}, "histograms of the weights (histogram_freq=1)"),
    (
        "BackupAndRestore('b')",
        K3,
        {},
        "after a crash in epoch 3, a resume would start at epoch 3; at the end of training it deletes b",
    ),
    ("BackupAndRestore('b', delete_checkpoint=False)", K3, {}, "keeps b, and the next fit starts at epoch 4"),
    ("BackupAndRestore('b', save_freq=5)", K3, {}, "depends on the batches: --steps-per-epoch tells"),
    ("BackupAndRestore('b', save_freq=5)", K3, {"steps_per_epoch": 2}, "a resume would start at epoch 3"),
    ("BackupAndRestore('b', save_freq=7)", K3, {"steps_per_epoch": 2}, "from the beginning"),
]


@pytest.mark.parametrize(("text", "profile", "options", "sentence"), WORDS, ids=[row[0] for row in WORDS])
def test_an_observer_says_what_a_log_can_tell(
    text: str, profile: Profile, options: dict[str, Any], sentence: str
) -> None:
    assert sentence in words(THREE, text, profile, **options)


def test_a_training_ended_by_nan_loses_its_backup() -> None:
    nan = rows({"loss": 1.0}, {"loss": math.nan})
    assert "deletes b" in words(nan, "TerminateOnNaN(); BackupAndRestore('b')")
    raised = words(nan, "TerminateOnNaN(raise_error=True); BackupAndRestore('b')")
    assert "deletes" not in raised


@pytest.mark.parametrize(("every", "steps"), itertools.product(["epoch", 1, 0, 3, 5, 100], [1, 2, 4]))
def test_where_a_resume_starts_is_what_the_real_one_saved(every: object, steps: int, tmp_path: Path) -> None:
    real = real_keras("keras")

    class Model:
        built, stop_training, optimizer = True, False, None

        def save_weights(self, filepath: str, overwrite: bool) -> None:
            Path(filepath).touch()

    for epochs in (1, 2, 3):
        folder = tmp_path / f"{every}-{steps}-{epochs}"
        callback = real.keras.callbacks.BackupAndRestore(str(folder), save_freq=every)
        callback.set_model(Model())
        callback.on_train_begin()
        for epoch in range(epochs):
            callback.on_epoch_begin(epoch)
            for batch in range(steps):
                callback.on_train_batch_end(batch, {})
            if epoch < epochs - 1:  # it crashes at the end of the last epoch
                callback.on_epoch_end(epoch, {})
        metadata = folder / "training_metadata.json"
        text = f"BackupAndRestore('b', save_freq={every!r})"
        found = words(rows(*({"loss": 1.0} for _ in range(epochs))), text, steps_per_epoch=steps)
        if metadata.exists():
            assert f"start at epoch {json.loads(metadata.read_text())['epoch'] + 1};" in found
        else:
            assert "from the beginning" in found


@pytest.mark.parametrize("options", ["", "update_freq=3", "update_freq='batch'"])
def test_tags_and_steps_are_those_of_the_real_tensorboard(real: Real, options: str, tmp_path: Path) -> None:
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    np = pytest.importorskip("numpy")
    keras, data = real.keras, np.zeros((10, 1))
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    texts = ["ReduceLROnPlateau('loss', patience=9)", f"TensorBoard({str(tmp_path)!r}, {options})"]
    callbacks = [eval(text, dict(vars(keras.callbacks))) for text in texts]  # this file's own text
    fit = {"validation_data": (data, data), "batch_size": 2, "epochs": 4, "verbose": 0}
    history = model.fit(data, data, callbacks=callbacks, **fit).history
    columns = {name: history[name] for name in history if name not in ("lr", "learning_rate")}
    log = rows(*({name: float(values[row]) for name, values in columns.items()} for row in range(4)))
    said = words(log, "; ".join(texts), real.profile, steps_per_epoch=5)
    for place in ("train", "validation"):
        events = board.EventAccumulator(str(tmp_path / place), size_guidance={"tensors": 0})
        events.Reload()
        tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("epoch_")]
        match = re.search(rf"(?:writes|and) ([^/]*) to {re.escape(str(tmp_path))}/{place}", said)
        assert match is not None, said
        assert sorted(match[1].split(", ")) == sorted(tags)
        for tag in tags:
            steps = [event.step for event in events.Tensors(tag)]
            is_gated = options == "update_freq=3" and real.profile.gates_board
            assert steps == ([2] if is_gated else [0, 1, 2, 3])
            assert ("only at steps 2" if is_gated else "at steps 0-3") in said
        every = 3 if "3" in options and real.profile.gates_board else 1
        batches = (
            [event.step for event in events.Tensors("batch_loss")]
            if "batch_loss" in events.Tags()["tensors"]
            else []
        )
        if place == "train":
            assert ("batch_*" in said) is bool(batches)
            assert batches in ([], list(range(every, 21, every)))
            assert ("the graph" in said) is ("keras" in events.Tags()["tensors"])
        else:
            found = "evaluation_loss_vs_iterations" in events.Tags()["tensors"]
            assert "evaluation_*_vs_iterations" in said
            assert found
