"""The other end of a live wire without a training: speaks the protocol over a real unix socket, or breaks it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cbmon.endpoint import (
    Answer,
    Ask,
    Attach,
    FromTrainer,
    Goodbye,
    Hello,
    decode_from_watcher,
    encode_frame,
    runtime_folders,
    socket_name,
    this_process,
)
from cbmon.events import EpochsEnded, Process, RecordedEvent, RunStarted, encode_line

PATIENCE_S = 20.0
NOON = 1_700_049_600.0


def hello(run_id: str = "r", started: float | None = NOON, **fields: Any) -> Hello:
    known = {"name": "run1.jsonl", "process": this_process(), "control": True, "replays": False}
    return Hello(run_id=run_id, started=started, **(known | fields))


def start(run_id: str = "r", at: float = NOON, process: Process | None = None, **fields: Any) -> RunStarted:
    known = {"epochs": 10, "steps": 100}
    return RunStarted(run_id=run_id, time=at, process=process or this_process(), **(known | fields))


def epoch(number: int, at: float = NOON + 60, loss: float = 0.5) -> EpochsEnded:
    return EpochsEnded(epochs=[number], metrics={"loss": [loss]}, seconds={"epoch": [10.0]}, time=at)


def a_record(path: Path, *events: RecordedEvent) -> Path:
    path.write_bytes(b"".join(map(encode_line, events)))
    return path


def append(path: Path, *events: RecordedEvent) -> None:
    with path.open("ab") as file:
        file.write(b"".join(map(encode_line, events)))


def until(is_so: Callable[[], object], what: str = "") -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, what or "it did not come"
        time.sleep(0.005)


def done(ask: Ask) -> Answer:
    return Answer(id=ask.id, done=True, words=f"{ask.what} is done")


class FakeTrainer:
    """Listens for a record, or at a path; one thread for each watcher."""

    def __init__(
        self,
        record: Path | None = None,
        *,
        at: Path | None = None,
        greeting: Hello | bytes | None,
        first: tuple[RecordedEvent, ...] = (),
        answer: Callable[[Ask], Answer | None] = done,
    ) -> None:
        """Listen.

        Args:
            record: whose socket it is.
            at: the socket, where there is no record.
            greeting: the first line; None: it never says anything.
            first: events for each one who attached.
            answer: what is answered; None: nothing.
        """
        folder = runtime_folders()[0]
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = at or folder / socket_name(record or "")
        self.attached: list[Attach] = []
        self.asked: list[Ask] = []
        self.connections = 0
        self._greeting = greeting if isinstance(greeting, bytes | None) else encode_frame(greeting)
        self._first, self._answer = first, answer
        self._all: list[socket.socket] = []
        self._watchers: list[socket.socket] = []
        """Those that attached."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                watcher, _ = self._listener.accept()
            except OSError:
                return
            self._all.append(watcher)
            self.connections += 1
            threading.Thread(target=self._serve, args=(watcher,), daemon=True).start()

    def _serve(self, watcher: socket.socket) -> None:
        if self._greeting is None:
            return
        try:
            watcher.sendall(self._greeting)
            for line in watcher.makefile("rb"):
                frame = decode_from_watcher(line)
                if isinstance(frame, Attach):
                    watcher.sendall(b"".join(map(encode_line, self._first)))
                    self._watchers.append(watcher)
                    self.attached.append(frame)
                elif isinstance(frame, Ask):
                    self.asked.append(frame)
                    if (answer := self._answer(frame)) is not None:
                        watcher.sendall(encode_frame(answer))
        except OSError:
            return

    def send(self, *lines: RecordedEvent | FromTrainer | bytes) -> None:
        """To all who attached."""
        frames = (Hello, Answer, Goodbye)
        for watcher in self._watchers:
            for line in lines:
                if isinstance(line, frames):
                    watcher.sendall(encode_frame(line))
                else:
                    watcher.sendall(line if isinstance(line, bytes) else encode_line(line))  # type: ignore[arg-type]

    def end(self, *, words: str = "") -> None:
        """Go: with a goodbye, or as a process that dies; its socket's file stays in that case."""
        if words:
            self.send(Goodbye(words=words))
            self.path.unlink(missing_ok=True)
        for end in (self._listener, *self._all):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._watchers.clear()
