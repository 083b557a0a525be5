"""What RemoteMonitor sends becomes records: its real requests, real sockets, and what nobody should send."""

import ast
import errno
import json
import math
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cbmon.cli import main
from cbmon.errors import BadCall
from cbmon.events import EPOCH_MAX, EpochsEnded, decode_line, encode_line
from cbmon.frame import empty_rows, text
from cbmon.receiver import (
    KEYS_MAX,
    Caps,
    Listening,
    Receiver,
    Refusal,
    Writer,
    bind,
    decode_epoch,
    parse_address,
    record_name,
    script_lines,
)
from cbmon.rules import Status, status
from cbmon.run import Run, fold
from cbmon.sources import find, read_whole
from cbmon.units import cells
from cbmon.word import Notes
from tests.test_watch_pty import Terminal

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
PATIENCE_S = 20.0


def form(field: str = "data", **values: Any) -> bytes:
    """As RemoteMonitor sends it."""
    return urlencode({field: json.dumps(values)}).encode()


# --- what is in a request -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(epoch=3, loss=0.5, val_loss=0.25), FORM),
        (form("metrics", epoch=3, loss=0.5, val_loss=0.25), FORM),
        (b"x=1&" + form("y", epoch=3, loss=0.5, val_loss=0.25), FORM),
        (b'{"epoch": 3, "loss": 0.5, "val_loss": 0.25}', JSON),
        (b'{"epoch": 3, "loss": 0.5, "val_loss": 0.25}', "application/json; charset=utf-8"),
        (b' {"epoch": 3, "loss": 0.5, "val_loss": 0.25}\n', ""),
    ],
)
def test_epoch_is_read_from_a_form_and_from_json(body: bytes, kind: str) -> None:
    event = decode_epoch(body, kind, 7.0)
    assert event == EpochsEnded(time=7.0, epochs=[3], metrics={"loss": [0.5], "val_loss": [0.25]})


def test_numbers_that_json_does_not_have_are_taken() -> None:
    event = decode_epoch(form(epoch=0, a=math.nan, b=math.inf, c=-math.inf), FORM, None)
    assert math.isnan(event.metrics["a"][0] or 0)
    assert (event.metrics["b"], event.metrics["c"]) == ([math.inf], [-math.inf])
    assert decode_line(encode_line(event)).metrics["b"] == [math.inf]  # type: ignore[union-attr]


def test_a_value_that_is_no_number_costs_itself() -> None:
    event = decode_epoch(form(epoch=0, loss=1.5, matrix=[[1, 2]], word="x", on=True, none=None), FORM, None)
    assert event.metrics == {"loss": [1.5], "matrix": [None], "word": [None], "on": [None], "none": [None]}
    assert event.not_numbers == ["matrix", "word", "on"]


@pytest.mark.parametrize("name", ["lr", "learning_rate"])
def test_learning_rate_is_no_metric(name: str) -> None:
    event = decode_epoch(form(epoch=0, loss=1, **{name: 0.01}), FORM, None)
    assert (event.learning_rate, event.metrics) == ([0.01], {"loss": [1.0]})


DEEP = b"[" * 200_000
MANY = json.dumps({"epoch": 0} | {f"m{i}": 0 for i in range(KEYS_MAX + 1)}).encode()
LARGE = b'{"epoch": 0, "x": ' + b"9" * 10_000 + b"}"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", FORM, "no form"),
        (b"", JSON, "no JSON"),
        (b"data=", FORM, "no JSON"),
        (b"data=1", FORM, "no form"),
        (b"hello", FORM, "no JSON"),
        (b"[1]", JSON, "no JSON object"),
        (b'{"loss": 1}', JSON, "no epoch number"),
        (b'{"epoch": 1.5}', JSON, "epoch 1.5: no epoch number"),
        (b'{"epoch": 1.0}', JSON, "no epoch number"),
        (b'{"epoch": "1"}', JSON, "no epoch number"),
        (b'{"epoch": true}', JSON, "no epoch number"),
        (b'{"epoch": -1}', JSON, "no epoch number"),
        (b'{"epoch": %d}' % (EPOCH_MAX + 1), JSON, "no epoch number"),
        (b'{"epoch": NaN}', JSON, "no epoch number"),
        (b'{"epoch": 0, ', JSON, "no JSON"),
        (b"\xff\xfe{}", JSON, "no JSON"),
        (DEEP, JSON, "JSON"),
        (LARGE, JSON, "no JSON"),
        (MANY, JSON, "values in one epoch"),
        (b"&".join(b"a=1" for _ in range(100)), FORM, "more than 16 fields"),
    ],
)  # fmt: skip
def test_what_is_no_epoch_is_a_bad_request(body: bytes, kind: str, words: str) -> None:
    with pytest.raises(Refusal, match=words) as refusal:
        decode_epoch(body, kind, None)
    assert refusal.value.status == "400 Bad Request"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
bodies = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.text(), json_values, max_size=5).map(lambda each: json.dumps(each | {"epoch": 1}).encode()),
    st.dictionaries(st.text(), json_values, max_size=5).map(lambda each: form(**{"epoch": 1, "x": each})),
)  # fmt: skip


@given(bodies, st.sampled_from([FORM, JSON, "", "text/plain", "JSON\xff"]))
@example(b'{"epoch": 1, "\\ud800": 1e999, "nan": "nan"}', JSON)
def test_any_body_is_an_epoch_that_can_be_recorded_or_a_bad_request(body: bytes, kind: str) -> None:
    try:
        event = decode_epoch(body, kind, 1.0)
    except Refusal:
        return
    line = encode_line(event)
    assert line.count(b"\n") == 1
    read = decode_line(line)
    assert isinstance(read, EpochsEnded)
    assert read.epochs == event.epochs


# --- names ----------------------------------------------------------------------------------------------------


def test_one_path_is_one_record_however_many_slashes() -> None:
    name = record_name("/publish/epoch/end/")
    assert name.startswith("publish-epoch-end-")
    assert {
        record_name(path) for path in ("//publish/epoch/end/", "publish/epoch/end", "/publish//epoch/end")
    } == {name}


def test_paths_that_look_alike_are_different_records() -> None:
    paths = ["/run/7", "/run-7", "/Run-7", "/run 7", "/run?7", "/", "/run"]
    names = [record_name(path).casefold() for path in paths]
    assert len(set(names)) == len(paths)


@given(st.text(max_size=300))
@example("/../../etc/passwd")
@example("/" + "a" * 300)
@example("/.hidden")
def test_any_path_is_a_plain_name_in_the_folder(path: str) -> None:
    name = record_name(path)
    assert name == os.path.basename(name)
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith((".", "-"))
    assert len(name) < 100


# --- a receiver that listens ----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A receiver on a port of its own, and what it says."""

    def __init__(
        self, folder: Path, address: str, token: str | None, caps: Caps | None, clock: Clock
    ) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.receiver = Receiver(
            str(folder), token=token, say=self.said.append, now=clock, monotonic=clock, caps=caps
        )
        self.listening = Listening(bind(address, has_token=token is not None), self.receiver)
        self.url = self.listening.url
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.address = host.strip("[]"), int(port)

    def ask(self, raw: bytes, wait_s: float = PATIENCE_S) -> bytes:
        """The answer to bytes; empty if the connection was closed without one."""
        with socket.create_connection(self.address, timeout=wait_s) as connection:
            connection.sendall(raw)
            answer = b""
            try:
                while data := connection.recv(65536):
                    answer += data
            except ConnectionResetError:
                pass
            return answer

    def post(self, body: bytes, path: str = "/run", kind: str = JSON, **headers: str) -> int:
        """The status of the answer to a request."""
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Type: {kind}"]
        lines += [
            f"Content-Length: {len(body)}",
            *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
        ]
        answer = self.ask("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return int(answer.split()[1])

    def runs(self) -> dict[str, Run]:
        """What cbmon reads in the folder, by name."""
        found = {}
        for log in find([str(self.folder)]).logs:
            run = Run()
            for event in read_whole(log, time.time()):
                fold(run, event)
            found[log.name] = run
        return found


@contextmanager
def place(
    folder: Path,
    *,
    address: str = "127.0.0.1:0",
    token: str | None = None,
    caps: Caps | None = None,
    clock: Clock | None = None,
) -> Iterator[Place]:
    made = Place(folder, address, token, caps, clock or Clock())
    made.listening.start()
    try:
        yield made
    finally:
        made.listening.close()


def line(epoch: int, **values: float) -> bytes:
    return json.dumps({"epoch": epoch, **values}).encode()


def test_epochs_are_answered_and_recorded(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        assert [here.post(line(i, loss=1 / (i + 1))) for i in range(3)] == [200] * 3
        assert here.post(form(epoch=0, loss=2.0), "/other", FORM) == 200
    runs = here.runs()
    assert [name.rpartition("-")[0] for name in runs] == ["other", "run"]
    other, run = runs.values()
    assert list(run.current.epochs) == [0, 1, 2]
    assert list(run.current.columns["loss"]) == [1.0, 0.5, 1 / 3]
    assert list(other.current.columns["loss"]) == [2.0]
    assert not run.warnings
    assert status(run) in (Status.GROWING, Status.QUIET), "it says nothing of an end, so nothing is claimed"
    assert here.receiver.summary() == "4 epochs of 2 runs taken in"
    assert not here.said


def test_a_record_is_private_and_appended_to(tmp_path: Path) -> None:
    for first in (0, 3):
        with place(tmp_path) as here:
            for epoch in range(first, first + 3):
                assert here.post(line(epoch, loss=1)) == 200
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (run,) = here.runs().values()
    assert [list(attempt.epochs) for attempt in run.attempts] == [[0, 1, 2, 3, 4, 5]]


def test_a_training_that_starts_anew_is_another_attempt(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        for epoch in (0, 1, 2, 0, 1):
            here.post(line(epoch, loss=1))
    (run,) = here.runs().values()
    assert [list(attempt.epochs) for attempt in run.attempts] == [[0, 1, 2], [0, 1]]


def test_a_torn_last_line_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / record_name("/run")
    path.write_bytes(encode_line(EpochsEnded(epochs=[0], metrics={"loss": [1.0]})) + b'{"event":"epo')
    with place(tmp_path) as here:
        here.post(line(1, loss=0.5))
    (run,) = here.runs().values()
    assert list(run.current.epochs) == [0, 1]
    assert len(run.warnings) == 1


@pytest.mark.parametrize("data", [b"precious\n", b'{"mine": 1}\n'])
def test_somebody_elses_file_is_left_alone(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / record_name("/run")
    path.write_bytes(data)
    with place(tmp_path) as here:
        here.post(line(0, loss=1))
        until = time.monotonic() + PATIENCE_S
        while not here.receiver.writer.foreign and time.monotonic() < until:
            time.sleep(0.01)
        assert here.post(line(1, loss=1)) == 409
    assert path.read_bytes() == data
    assert "no record of cbmon" in here.said[0]


EVENT = b'{"event":"epochs"}\n'


def refuse_one(refused: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system refuse a file: who runs the tests may be allowed everything."""
    real = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if path == refused:
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **named)

    monkeypatch.setattr("cbmon.receiver.os.open", opened)


def written_beside(folder: Path, refused: Path) -> list[str]:
    """What is said while lines for a file that cannot be written stand between those of another."""
    said: list[str] = []
    writer = Writer(said.append, retry_s=PATIENCE_S)
    for path in (folder / "a.jsonl", refused, folder / "a.jsonl", refused, folder / "a.jsonl"):
        assert writer.put(path, EVENT)
    writer.start()
    until = time.monotonic() + PATIENCE_S
    while writer._bytes_done < 5 * len(EVENT) and time.monotonic() < until:
        time.sleep(0.01)
    assert (folder / "a.jsonl").read_bytes() == 3 * EVENT, "no other run waits"
    assert list(writer.foreign) == [refused]
    writer.close()
    return said


def test_a_link_is_not_followed_and_the_others_are_written(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / record_name("/run")
    path.symlink_to(target)
    said = written_beside(tmp_path, path)
    assert not target.exists()
    assert said == [
        f"{path}: this is a link, and none is followed; this run is not recorded",
        "2 epochs could not be written",
    ]


@pytest.mark.parametrize("kind", ["folder", "socket", "pipe", "long name", "foreign file"])
def test_what_is_no_file_of_ours_is_said_once_and_the_others_are_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / (("a" * 300 if kind == "long name" else "run") + ".jsonl")
    match kind:
        case "folder":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as own:
                own.bind(os.path.relpath(path))
        case "pipe":
            os.mkfifo(path)
        case "foreign file":
            path.write_bytes(b"precious\n")
    said = written_beside(tmp_path, path)
    assert len(said) == 2
    assert said[0].startswith(f"{path}: ")
    assert said[1] == "2 epochs could not be written"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EFBIG, errno.ETXTBSY])
def test_a_file_that_may_not_be_written_is_said_once_and_the_others_are_written(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_one(tmp_path / "run.jsonl", number, monkeypatch)
    said = written_beside(tmp_path, tmp_path / "run.jsonl")
    assert os.strerror(number) in said[0]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("number", "is_open"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EIO, True),
        (errno.ENOENT, True),
        (errno.ENOTDIR, True),
        (errno.EROFS, True),
        (errno.EACCES, False),
    ],
)
def test_trouble_of_the_disk_and_of_the_folder_may_pass(
    tmp_path: Path, number: int, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    writer = Writer(said.append, retry_s=0.01)
    with monkeypatch.context() as patch:
        refuse_one(tmp_path / "run.jsonl", number, patch)
        patch.setattr("cbmon.receiver.os.access", lambda *_: is_open)
        writer.put(tmp_path / "run.jsonl", EVENT)
        writer.start()
        until = time.monotonic() + PATIENCE_S
        while not said and time.monotonic() < until:
            time.sleep(0.01)
        assert not writer.foreign
    while len(said) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    writer.close()
    assert (tmp_path / "run.jsonl").read_bytes() == EVENT
    assert ["written later" in said[0], "can be written again" in said[1]] == [True, True]


def test_the_trainer_of_a_run_that_cannot_be_written_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / record_name("/run")).mkdir()
    with place(tmp_path) as here:
        assert here.post(line(0, loss=1)) == 200, "the disk is not waited for"
        until = time.monotonic() + PATIENCE_S
        while not here.receiver.writer.foreign and time.monotonic() < until:
            time.sleep(0.01)
        assert here.post(line(1, loss=1)) == 409
        assert here.post(line(0, loss=1), "/other") == 200
    assert [list(run.current.epochs) for run in here.runs().values()] == [[0]]
    assert "Is a directory; this run is not recorded" in here.said[0]
    assert "409 Conflict" in here.said[1]
    assert here.said[2:] == ["1 epoch could not be written"]


def test_what_waits_is_bounded_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbmon.receiver.QUEUE_BYTES_MAX", 3 * len(EVENT))
    writer = Writer([].append)
    path = tmp_path / "run.jsonl"
    assert [writer.put(path, EVENT) for _ in range(5)] == [True] * 3 + [False] * 2
    writer.start()
    until = time.monotonic() + PATIENCE_S
    while not writer.put(path, EVENT) and time.monotonic() < until:
        time.sleep(0.01)
    writer.close()
    assert path.read_bytes() == 4 * EVENT, "what was written makes room"


def test_more_than_may_wait_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbmon.receiver.QUEUE_BYTES_MAX", 10)
    with place(tmp_path) as here:
        assert here.post(line(0, loss=1)) == 503
    assert "wait for the disk" in here.said[0]
    assert here.receiver.taken == 0


def test_a_disk_that_refuses_is_said_once_and_asked_again(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "away"
    writer = Writer(said.append, retry_s=0.01)
    writer.start()
    for number in range(3):
        writer.put(folder / "a.jsonl", b'{"event":%d}\n' % number)
    until = time.monotonic() + PATIENCE_S
    while not said and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    folder.mkdir()
    while len(said) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    writer.close()
    assert (folder / "a.jsonl").read_bytes() == b'{"event":0}\n{"event":1}\n{"event":2}\n'
    assert len(said) == 2
    assert "epochs are kept and written later" in said[0]
    assert "can be written again" in said[1]


def test_a_line_cut_by_a_full_disk_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, rooms = os.write, iter([5, 0, 3])

    def full(handle: int, data: bytes) -> int:
        room = next(rooms, None)
        if room == 0:
            raise OSError(28, "No space left on device")
        return real(handle, data if room is None else data[:room])

    monkeypatch.setattr("cbmon.receiver.os.write", full)
    writer = Writer([].append, retry_s=0.01)
    writer.start()
    writer.put(tmp_path / "a.jsonl", b'{"event":1}\n')
    writer.put(tmp_path / "a.jsonl", b'{"event":2}\n')
    until = time.monotonic() + PATIENCE_S
    while not (tmp_path / "a.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.01)
    while next(rooms, None) is not None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    writer.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"event":1}\n{"event":2}\n'


# --- what is refused ------------------------------------------------------------------------------------------


def test_a_web_page_may_not_send(tmp_path: Path) -> None:
    with place(tmp_path) as here:
        assert here.post(line(0), Origin="http://evil.example") == 403
        assert here.post(line(0), Origin="null") == 403
        assert here.post(form(epoch=0), kind=FORM, Sec_Fetch_Site="cross-site") == 403
    assert not list(tmp_path.iterdir())
    assert len(here.said) == 1
    assert "403 Forbidden" in here.said[0]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 401),
        ({"X_Token": "wrong"}, 401),
        ({"X_Token": ""}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"X_Token": "secret"}, 200),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "bearer  secret"}, 200),
    ],
)
def test_the_token_is_asked_for(tmp_path: Path, headers: dict[str, str], code: int) -> None:
    with place(tmp_path, token="secret") as here:
        assert here.post(line(0, loss=1), **headers) == code
    assert len(list(tmp_path.iterdir())) == (code == 200)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"])
def test_only_posts_are_taken(tmp_path: Path, method: str) -> None:
    with place(tmp_path) as here:
        answer = here.ask(f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert b" 405 " in answer.splitlines()[0]
    assert b"Allow: POST" in answer


def test_each_cap_is_answered_and_said_once(tmp_path: Path) -> None:
    clock = Clock()
    caps = Caps(body=1000, rate=5.0, runs=2, written=400)
    with place(tmp_path, caps=caps, clock=clock) as here:
        assert here.post(b" " * 1001) == 413
        assert here.post(b" " * 100_000) == 413
        clock.now += 10
        assert [here.post(line(0, loss=1), f"/{name}") for name in "abc"] == [200, 200, 507]
        clock.now += 10
        assert [here.post(b"", "/a") for _ in range(12)] == [400] * 10 + [429, 429]
        clock.now += 10
        codes = [here.post(line(i, loss=1), "/a") for i in range(1, 8)]
        assert codes == [200] * codes.count(200) + [507] * codes.count(507)
        assert 0 < codes.count(200) < 7
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 400
    kinds = [words.partition(", ")[2][:3] for words in here.said]
    assert sorted(kinds) == ["400", "413", "429", "507"]


def test_a_web_page_cannot_use_up_the_rate(tmp_path: Path) -> None:
    with place(tmp_path, caps=Caps(rate=1.0)) as here:
        assert [here.post(line(0), Origin="http://evil.example") for _ in range(10)] == [403] * 10
        assert here.post(line(0, loss=1)) == 200


def test_chunked_bodies_are_taken_and_broken_ones_refused(tmp_path: Path) -> None:
    head = b"POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = line(0, loss=1)
    with place(tmp_path) as here:
        whole = here.ask(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        broken = here.ask(head + b"zz\r\n" + body)
        endless = here.ask(head + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n" * 1 + b"ffffff\r\n" + b"x" * 300_000)
        after = here.post(line(1, loss=1))
    assert b" 200 " in whole.splitlines()[0]
    assert b" 400 " in broken.splitlines()[0]
    assert b" 413 " in endless.splitlines()[0] or not endless
    assert after == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"X: " + b"a" * 300_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_nothing(tmp_path: Path, raw: bytes) -> None:
    with place(tmp_path) as here:
        with socket.create_connection(here.address, timeout=PATIENCE_S) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            try:
                answer = connection.recv(65536)
            except ConnectionResetError:
                answer = b""
        assert not answer or answer.split()[1][:1] in (b"4", b"5")
        assert here.post(line(0, loss=1)) == 200


def test_who_sends_a_byte_now_and_then_is_cut_off_and_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbmon.receiver.IDLE_S", 1)
    with place(tmp_path) as here:
        here.listening._server.adj.cleanup_interval = 0.2
        here.listening._server.adj.asyncore_loop_timeout = 0.2
        with socket.create_connection(here.address, timeout=PATIENCE_S) as slow:
            slow.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
            assert here.post(line(0, loss=1)) == 200
            slow.settimeout(0.1)
            until = time.monotonic() + PATIENCE_S
            is_closed = False
            while not is_closed and time.monotonic() < until:
                try:
                    slow.sendall(b" ")
                    is_closed = slow.recv(100) == b""
                except TimeoutError:
                    pass
                except OSError:
                    is_closed = True
            assert is_closed


# --- addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("[::1]:9000", ("::1", 9000)),
        ("localhost:0", ("localhost", 0)),
        ("9000", ("127.0.0.1", 9000)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "host", "127.0.0.1", "127.0.0.1:", ":9000", "::1:9000", "a:99999", "http://localhost:9000", "a:-1"],
)
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(BadCall, match=r"127\.0\.0\.1:9000"):
        parse_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:0", "[::]:0"])
def test_beyond_this_machine_a_token_is_needed(text: str) -> None:
    with pytest.raises(BadCall, match="--token"):
        bind(text, has_token=False)


def test_a_taken_port_is_said() -> None:
    with bind("127.0.0.1:0", has_token=False) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadCall, match=f"127.0.0.1:{port}: cannot listen there, address already in use"):
            bind(f"127.0.0.1:{port}", has_token=False)


def test_an_address_of_another_machine_is_said() -> None:
    with pytest.raises(BadCall, match="cannot listen there"):
        bind("192.0.2.1:9000", has_token=True)
    with pytest.raises(BadCall, match=r"no\.such\.host\.invalid"):
        bind("no.such.host.invalid:9000", has_token=True)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_ipv6(tmp_path: Path) -> None:
    with place(tmp_path, address="[::1]:0") as here:
        assert here.url.startswith("http://[::1]:")
        assert here.post(line(0, loss=1)) == 200


# --- what the script needs ------------------------------------------------------------------------------------


def test_the_call_for_the_script_names_an_address_that_others_reach(tmp_path: Path) -> None:
    with place(tmp_path, address="0.0.0.0:0", token="secret") as here:
        assert here.url == f"http://{socket.gethostname()}:{here.address[1]}"
    with place(tmp_path, address="127.0.0.1:0") as here:
        assert here.url.startswith("http://127.0.0.1:")


def test_the_call_for_the_script_is_python_and_has_no_token_in_it() -> None:
    for has_token in (False, True):
        call = ast.parse(" ".join(map(str.strip, script_lines("http://gpu1:9000", has_token=has_token))))
        told = ast.unparse(call)
        assert "RemoteMonitor(root='http://gpu1:9000', path='/NAME'" in told
        assert ("headers={'X-Token': os.environ['CBMON_TOKEN']}" in told) is has_token


@pytest.mark.parametrize("has_token", [False, True])
def test_an_empty_screen_has_the_call_for_the_script_while_it_listens(has_token: bool) -> None:
    lines = script_lines("http://127.0.0.1:65535", has_token=has_token)
    rows = empty_rows("logs", 80, 16, remote=lines)
    shown = [row.strip() for row in text(rows).split("\n")]
    assert f"keras.callbacks.{lines[0]}" in shown
    assert [part.strip() for part in lines[1:]] == [part for part in shown if "X-Token" in part]
    assert any("Monitor('logs')" in row for row in shown)
    assert {sum(cells(part) for part, _ in row) for row in rows} == {80}
    assert "RemoteMonitor" not in text(empty_rows("logs", 80, 16)), "not where nobody listens"


def test_a_note_stands_until_the_first_epoch(tmp_path: Path) -> None:
    notes, drawn = Notes(), list[bool]()
    notes.changed = lambda: drawn.append(True)
    notes.stand("listening")
    for number in range(5):
        notes(f"word {number}")
    assert notes.lines == ["listening", "word 2", "word 3", "word 4"]
    with place(tmp_path) as here:
        here.receiver._began = notes.sit
        assert here.post(b"nonsense") == 400
        assert notes.lines[0] == "listening"
        assert [here.post(line(0, loss=1)), here.post(line(1, loss=1))] == [200, 200]
    assert notes.lines == ["word 2", "word 3", "word 4"]
    assert len(drawn) == 7, "told once that it sits"


# --- the real one ---------------------------------------------------------------------------------------------


def fit(callbacks: list[Any], *, breaks_at: int | None = None, epochs: int = 3) -> dict[str, list[float]]:
    """A real fit; its loss is NaN from an epoch on."""
    keras = pytest.importorskip("keras")
    numpy = pytest.importorskip("numpy")
    x = numpy.ones((8, 2), "float32")
    y = numpy.ones((8, 1), "float32")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    class Break(keras.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == breaks_at:
                model.set_weights([weight * numpy.nan for weight in model.get_weights()])

    made = model.fit(
        x, y, validation_data=(x, y), epochs=epochs, batch_size=4, verbose=0, callbacks=[Break(), *callbacks]
    )
    history: dict[str, list[float]] = made.history
    return history


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_real_remote_monitor_sends_forms(tmp_path: Path, slash: str) -> None:
    keras = pytest.importorskip("keras")
    with place(tmp_path) as here:
        history = fit([keras.callbacks.RemoteMonitor(root=here.url + slash)], breaks_at=2)
    (run,) = here.runs().values()
    assert list(run.current.epochs) == [0, 1, 2]
    for name in ("loss", "val_loss"):
        assert list(map(repr, run.current.columns[name])) == list(map(repr, history[name]))
    assert math.isnan(history["loss"][2])
    assert not here.said


def test_the_real_remote_monitor_sends_json_with_headers(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    with place(tmp_path, token="secret") as here:
        monitor = keras.callbacks.RemoteMonitor(
            root=here.url, path="/team/run 7", field="x", send_as_json=True, headers={"X-Token": "secret"}
        )
        rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
        history = fit([rate, monitor])
    ((name, run),) = here.runs().items()
    assert name.startswith("team-run-7-")
    assert list(run.current.columns["loss"]) == history["loss"]
    assert list(run.current.rate) == pytest.approx([0.1, 0.05, 0.1 / 3])


def test_a_second_fit_of_the_real_one_is_another_attempt(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    with place(tmp_path) as here:
        monitor = keras.callbacks.RemoteMonitor(root=here.url)
        fit([monitor])
        fit([monitor], epochs=2)
    (run,) = here.runs().values()
    assert [list(attempt.epochs) for attempt in run.attempts] == [[0, 1, 2], [0, 1]]


# --- the commands ---------------------------------------------------------------------------------------------


ROOT = Path(__file__).resolve().parent.parent


def let_signals_through() -> None:
    """Who runs the tests in the background may have them ignored, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `cbmon` of its own; its words come by `stderr`."""
    child = subprocess.Popen(
        [sys.executable, "-m", "cbmon", *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=let_signals_through,
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


def port_of(said: str) -> int:
    found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
    assert found, said
    return int(found[1])


def send(port: int, epoch: int, **values: float) -> int:
    requests = pytest.importorskip("requests")
    url = f"http://127.0.0.1:{port}/run7"
    return int(requests.post(url, json={"epoch": epoch, **values}, timeout=PATIENCE_S).status_code)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_listen_writes_all_it_took_in_when_it_is_ended(tmp_path: Path, number: int, code: int) -> None:
    with process(tmp_path, "listen", "127.0.0.1:0", "logs") as child:
        assert child.stderr
        port = port_of(child.stderr.readline())
        child.send_signal(signal.SIGTSTP)  # stopped, it would stop the trainings too: there is no time limit
        assert [send(port, epoch, loss=1.0) for epoch in range(20)] == [200] * 20
        child.send_signal(number)
        out, said = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == code
    assert out == ""
    assert said.strip() == "cbmon: 20 epochs of 1 run taken in"  # click ends the line of a Ctrl-C
    (path,) = (tmp_path / "logs").iterdir()
    assert path.name.startswith("run7-")
    assert len(path.read_text().splitlines()) == 20


def test_listen_on_all_addresses_says_where_and_how_and_keeps_the_token(tmp_path: Path) -> None:
    with process(tmp_path, "listen", "0.0.0.0:0", "logs", "--token", "hush-hush") as child:
        assert child.stderr
        said = child.stderr.readline()
        child.send_signal(signal.SIGINT)
        child.wait(PATIENCE_S)
    host = re.escape(socket.gethostname())
    assert re.match(rf"cbmon: RemoteMonitor\(root='http://{host}:\d+', path='/NAME', headers=", said)
    assert "os.environ['CBMON_TOKEN']" in said
    assert "hush-hush" not in said


def test_watch_tells_in_lines_what_it_takes_in(tmp_path: Path) -> None:
    with process(tmp_path, "watch", "--plain", "--listen", "127.0.0.1:0", "logs") as child:
        assert child.stderr
        assert child.stdout
        port = port_of(child.stderr.readline())
        assert child.stdout.readline().startswith("watching")
        assert send(port, 0, loss=0.5) == 200
        told = child.stdout.readline()
        child.send_signal(signal.SIGINT)
    assert re.search(r" run7-\w+ epoch 1 loss \.5000", told)


def test_the_screen_shows_what_it_takes_in_and_what_it_refuses(tmp_path: Path) -> None:
    with bind("127.0.0.1:0", has_token=False) as free:
        port = free.getsockname()[1]
    terminal = Terminal(tmp_path, "watch", "--listen", f"127.0.0.1:{port}", "logs")
    requests = pytest.importorskip("requests")
    try:
        terminal.shows("q quit")
        terminal.shows(f"listening for RemoteMonitor(root='http://127.0.0.1:{port}', path='/NAME')")
        assert send(port, 0, loss=0.5) == 200
        terminal.shows("run7-")
        terminal.settle()
        assert not any("listening for" in row for row in terminal.screen.display)
        url = f"http://127.0.0.1:{port}/run7"
        assert requests.post(url, data="nonsense", timeout=PATIENCE_S).status_code == 400
        terminal.shows("refused a request from 127.0.0.1, 400 Bad Request")
        terminal.press(b"\x1a")
        terminal.shows("not suspended: trainings that send here would wait for it")
        assert send(port, 1, loss=0.25) == 200
        terminal.shows(".2500 ★2")
        terminal.press(b"q")
        assert terminal.end() == 0
    finally:
        terminal.close()
    assert b"2 epochs of 1 run taken in, 1 request refused" in terminal.output.rpartition(b"\x1b[?1049l")[2]


def test_what_cannot_be_listened_to_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CBMON_TOKEN", raising=False)
    (tmp_path / "file").touch()
    with bind("127.0.0.1:0", has_token=False) as taken:
        port = taken.getsockname()[1]
        logs, other = str(tmp_path / "logs"), str(tmp_path)
        for arguments, words in (
            (["listen", f"127.0.0.1:{port}", logs], "address already in use"),
            (["watch", "--listen", f"127.0.0.1:{port}", logs], "address already in use"),
            (["listen", "0.0.0.0:0", logs], "a token is needed"),
            (["watch", "--listen", "0.0.0.0:0", logs], "a token is needed"),
            (["listen", "nonsense", logs], "give an address and a port"),
            (["listen", "127.0.0.1:0", str(tmp_path / "no" / "such")], "No such file"),
            (["listen", "127.0.0.1:0", "--token", "", logs], "--token"),
            (["listen", "127.0.0.1:0", "--token", "two words", logs], "--token"),
            (["watch", "--listen", "127.0.0.1:0", logs, other], "one folder"),
            (["watch", "--listen", "127.0.0.1:0", str(tmp_path / "file")], "no folder"),
        ):
            assert main(arguments) == 2, arguments
            said = capsys.readouterr()
            assert words in said.err
            assert said.err.count("\n") == 1
            assert said.out == ""


def test_who_does_not_listen_loads_no_server(tmp_path: Path) -> None:
    code = (
        "import sys; from cbmon.cli import main; main(['watch', '--once', '.']);"
        "print(sorted({'waitress', 'cbmon.receiver', 'cbmon.word', 'cbmon.waiting'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
