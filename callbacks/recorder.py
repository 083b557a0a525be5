"""The writer of a record: one daemon thread that owns the file, fed by a bounded queue.

The training thread only puts events; it never waits for a disk. What the disk refuses is kept and tried
again, with one message when that starts and one when it is over. Only the process that made a recorder
writes: in a forked child it does nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, current_thread

from cbmon.events import Heartbeat, RecordedEvent, RunStarted, encode_line

HEARTBEAT_S = 60.0
"""Longest silence in the record of a living process (DESIGN §5): readers measure "quiet" with it."""

RETRY_S = 5.0
"""How long to wait before a refused write is tried again, if no event comes first."""

DRAIN_S = 2.0
"""The most that the end of training waits for the disk (DESIGN law 5)."""

WAITING_MAX = 10_000
"""Events that may wait for a disk that hangs, some MB; what comes after is left out."""

_RECORD_START = b'{"event":'
"""How every record begins; a `.jsonl` that begins otherwise is somebody's data."""

REFUSED_MAX = 16 * 2**20
"""Bytes kept for a disk that refuses them; what comes after is left out."""


def say(message: str) -> None:
    """Tell the user on stderr. Not `warnings.warn`: under `-W error` that would raise into the training."""
    with suppress(Exception):  # a closed or missing stderr is no reason to fail
        print(f"cbmon: {message}", file=sys.stderr, flush=True)


class Recorder:
    """Writes one attempt into a record file; makes the folder and the file in its own thread."""

    def __init__(self, path: Path, started: RunStarted, *, is_new: bool) -> None:
        """Start the thread.

        Args:
            path: absolute path of the file.
            started: the attempt's first event; written again if the file is removed under the writer.
            is_new: never write into a file that exists: another name is taken instead.
        """
        self.path = path
        self._is_new = is_new
        self._first = encode_line(started)
        self._has_begun = False
        self._owner = os.getpid()
        self._events: SimpleQueue[RecordedEvent | None] = SimpleQueue()
        self._is_closing = False
        self._is_full = False
        self._refused = b""
        self._trouble = ""
        self._file: int | None = None
        self._thread = Thread(target=self._work, name="cbmon-recorder", daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """Whether this process made it: a forked child inherits the object, not the thread."""
        return self._owner == os.getpid()

    def put(self, event: RecordedEvent) -> None:
        """Hand over one event; returns at once, whatever the disk does."""
        if not self.is_ours:
            return
        if self._events.qsize() < WAITING_MAX:
            self._events.put(event)
        elif not self._is_full:
            self._is_full = True
            say(f"{self.path} takes nothing: the next epochs are not recorded")

    def close(self, wait_s: float = DRAIN_S) -> None:
        """Write what waits and end the thread; gives up waiting after `wait_s` seconds."""
        if self.is_ours:
            self._is_closing = True
            self._events.put(None)
            if self._thread is not current_thread():  # the garbage collector may call this in any thread
                self._thread.join(wait_s)

    def _work(self) -> None:
        try:
            self._write(b"")  # the file is there at once, before the first epoch ends
            while not (self._is_closing and self._events.empty()):
                self._write(self._take())
        except Exception as error:  # noqa: BLE001  # border of the worker thread: recording ends, training goes on
            say(f"recording into {self.path} ended: {error!r}")
        finally:
            self._close_file()

    def _take(self) -> bytes:
        """Everything that waits, as lines; a heartbeat after a long silence."""
        if len(self._refused) > REFUSED_MAX:
            time.sleep(RETRY_S)  # takes nothing more: what comes now waits in the queue, which is bounded
            return b""
        try:
            events = [self._events.get(timeout=RETRY_S if self._refused else HEARTBEAT_S)]
        except Empty:
            return b"" if self._refused else encode_line(Heartbeat(time=time.time()))
        with suppress(Empty):
            while True:
                events.append(self._events.get_nowait())
        return b"".join(encode_line(event) for event in events if event is not None)

    def _write(self, lines: bytes) -> None:
        """Write what was refused before and these lines; keep from the first line on that is not whole."""
        lead, block, written = b"", self._refused + lines, 0
        try:
            if self._file is None or os.fstat(self._file).st_nlink == 0:  # 0: the file was removed
                lead = self._open()
                block = lead + block
            assert self._file is not None
            while written < len(block):
                written += os.write(self._file, block[written:])
        except OSError as error:
            self._close_file()
            self._refused = block[max(len(lead), block.rfind(b"\n", 0, written) + 1) :]
            if not self._trouble:
                self._trouble = error.strerror or str(error)
                say(f"cannot write {self.path} ({self._trouble}); training goes on, it is tried again")
        else:
            self._refused = b""
            if self._trouble:
                say(f"{self.path} is written again")
                self._trouble = ""
        self._has_begun = self._has_begun or 0 < len(lead) <= written

    def _open(self) -> bytes:
        """Open the file, made if need be; returns what has to be written first."""
        self._close_file()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        while self._file is None:
            try:
                self._file = os.open(self.path, flags | (os.O_EXCL if self._is_new else 0), 0o600)
            except FileExistsError:  # two runs of one second and the same four digits: not the same file
                self._take_another_name()
            else:
                if not self._may_have(self._file):
                    self._close_file()
                    self._take_another_name()
        self._is_new = False
        size = os.fstat(self._file).st_size
        is_torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        needs_first = size == 0 or not self._has_begun
        return (b"\n" if is_torn else b"") + (self._first if needs_first else b"")

    def _may_have(self, file: int) -> bool:
        """Whether the file is ours to append to: a record, and nobody else is writing it."""
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return True
        start = os.pread(file, len(_RECORD_START), 0)
        if start and not start.startswith(_RECORD_START):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def _take_another_name(self) -> None:
        name = self.path.name
        self.path = self.path.with_stem(f"{self.path.stem}-{secrets.token_hex(2)}")
        if not self._is_new:
            say(f"{name} is another run's or no record: this one is recorded in {self.path}")

    def _close_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # a full network disk says so here, too; what it took is all there is
                os.close(file)
