"""The writer of a record: one daemon thread that owns the file and the live wire, fed by a bounded queue.

The training thread only puts events; it never waits for a disk. What the disk refuses is kept and tried
again, with one message when that starts and one when it is over. Only the process that made a recorder
writes: in a forked child it does nothing, and the child lets go of the file.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import RLock, Thread, current_thread
from typing import TypeAlias

from cbmon.callbacks import exits, forks
from cbmon.callbacks.layouts import Layout
from cbmon.callbacks.wire import Wire
from cbmon.events import Heartbeat, RecordedEvent, RunEnded

HEARTBEAT_S = 60.0
"""Longest silence in the record of a living process (DESIGN §5): readers measure "quiet" with it."""

LOOK_S = 0.5
"""How often to ask whether `fit` was left without a word: often while its exception is still being handled, which
tells which one it was."""

RETRY_S = 5.0
"""How long to wait before a refused write is tried again, if no event comes first."""

DRAIN_S = 2.0
"""The most that the end of training waits for the disk (DESIGN law 5)."""

WAITING_MAX = 200_000
"""Numbers that may wait for a disk that hangs, some 40 MB; what comes after is left out."""

EVENT_SIZE = 20
"""What an event costs beside its metrics, in numbers."""

REFUSED_MAX = 16 * 2**20
"""Bytes kept for a disk that refuses them; what comes after is left out."""

ERROR_MAX = 1000
"""Characters kept of an exception's text."""

_START_BYTES = 1 << 16
"""Read of an existing file to see whether it may be appended to; a header of 1,000 metrics has 20 KB."""

Deferred: TypeAlias = Callable[[], Iterable[RecordedEvent]]
"""Events that are known only after asking a disk: asked in the recorder's thread."""

_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def say(message: str) -> None:
    """Tell the user on stderr. Not `warnings.warn`: under `-W error` that would raise into the training."""
    with suppress(Exception):  # a closed or missing stderr is no reason to fail
        sys.stderr.write(f"cbmon: {message}\n")  # print() would take stdout for a missing one
        sys.stderr.flush()


class Recorder:
    """Writes one attempt into a record file; makes the folder and the file in its own thread."""

    def __init__(
        self,
        path: Path,
        layout: Layout,
        *,
        is_new: bool,
        whereabouts: exits.Whereabouts | None = None,
        wire: Wire | None = None,
    ) -> None:
        """Start the thread.

        Args:
            path: absolute path of the file.
            layout: how events become lines.
            is_new: never write into a file that exists: another name is taken instead.
            whereabouts: where the fit runs, to see when it is left without a word.
            wire: where watchers come in; None if nobody can.
        """
        self.path = path
        self.whereabouts = whereabouts or exits.Whereabouts()
        self._layout = layout
        self._wire = wire
        self._is_new = is_new
        self._has_begun = False
        self._owner = os.getpid()
        self._waiting: SimpleQueue[RecordedEvent | Deferred | None] = SimpleQueue()
        self._is_closing = False
        self._has_waited = False
        self._has_end = False
        self._end_lock = RLock()
        self._is_full = False
        self._size = 0
        """Of the largest event so far, in numbers."""
        self._refused = b""
        self._has_failed = False
        self._trouble = ""
        self._spoke_at = self._tried_at = time.monotonic()
        self._file: int | None = None
        self._thread = Thread(target=self._work, name="cbmon-recorder", daemon=True)
        _recorders.add(self)
        exits.watch(self)
        try:
            self._thread.start()
        except RuntimeError:  # the user may have no more threads
            exits.unwatch(self)
            if wire is not None:
                wire.forget()
            raise

    @property
    def is_ours(self) -> bool:
        """Whether this process made it: a forked child inherits the object, not the thread."""
        return self._owner == os.getpid()

    def put(self, event: RecordedEvent | Deferred) -> None:
        """Hand over one event; returns at once, whatever the disk does."""
        if not self.is_ours or not self._may_put(event):
            return
        self._size = max(self._size, EVENT_SIZE + len(getattr(event, "metrics", ())))
        is_full = self._waiting.qsize() * self._size >= WAITING_MAX
        if is_full != self._is_full and not self._has_end:
            self._is_full = is_full
            outcome = "takes nothing: the next epochs are not recorded" if is_full else "is written again"
            say(f"{self.path} {outcome}")
        if not is_full or self._has_end:
            self._hand_over(event)

    def _hand_over(self, item: RecordedEvent | Deferred | None) -> None:
        self._waiting.put(item)
        if wire := self._wire:
            wire.wake()

    def _may_put(self, event: RecordedEvent | Deferred) -> bool:
        """Whether the fit goes on so far; nothing comes after its end, and there is one end."""
        if not isinstance(event, RunEnded):
            return not self._has_end
        with self._end_lock:  # the thread may see the fit left while another one puts the end
            is_first, self._has_end = not self._has_end, True
            return is_first

    def leave(self, error: BaseException | None) -> None:
        """Record that the fit was left by an exception (None: it is not known which one); waits for nothing."""
        if not self.is_ours:
            return
        how, text = exits.in_words(error, ERROR_MAX)
        self.put(RunEnded(time=time.time(), how=how, error=text))
        self._finish()

    def close(self, wait_s: float = DRAIN_S) -> None:
        """Write what waits and end the thread; gives up waiting after `wait_s` seconds, and waits once."""
        if self.is_ours:
            self._finish()
            if self._has_waited or self._thread is current_thread():  # as the garbage collector may do
                return
            self._has_waited = True
            self._thread.join(wait_s)
            if self._thread.is_alive():
                say(f"{self.path} takes nothing: what came last may be missing in it")

    def abandon(self) -> None:
        """Nobody can end this fit any more, its Monitor or the interpreter goes: it was left without a word."""
        if self.is_ours and not self._has_end:
            self.leave(self.whereabouts.exception())
        self.close()

    def _finish(self) -> None:
        self._is_closing = True
        self._hand_over(None)

    def _work(self) -> None:
        try:
            if self._layout.opens_at_once:
                self._write(b"")
            while not (self._is_closing and self._waiting.empty()):
                lines = self._take()
                is_due = self._is_closing or time.monotonic() - self._tried_at >= RETRY_S
                if lines or (self._refused and is_due):
                    self._write(lines)
            if self._refused:
                say(f"{self.path} could not be written to the end: what came last is missing in it")
        except Exception as error:  # noqa: BLE001  # border of the worker thread: recording ends, training goes on
            say(f"recording into {self.path} ended: {error!r}")
        finally:
            self._close_file()
            if self._wire is not None:
                self._wire.close()
            exits.unwatch(self)

    def _take(self) -> bytes:
        """Everything that waits, as lines; a heartbeat after a long silence."""
        if len(self._refused) > REFUSED_MAX:
            self._sleep(RETRY_S)  # takes nothing more: what comes now waits in the queue, which is bounded
            return b""
        items = self._wait(min(LOOK_S, HEARTBEAT_S))
        if not items:
            if self.whereabouts.is_running() is False and not self._has_end:
                self.leave(self.whereabouts.exception())
            elif not self._refused and time.monotonic() - self._spoke_at >= HEARTBEAT_S:
                self._spoke_at = time.monotonic()
                return self._encoded(Heartbeat(time=time.time()))
            return b""
        return b"".join(self._encoded(item) for item in items if item is not None)

    def _wait(self, timeout: float) -> list[RecordedEvent | Deferred | None]:
        """Everything that waits, after so many seconds at most; meanwhile watchers are served."""
        items: list[RecordedEvent | Deferred | None] = []
        with suppress(Empty):
            if self._wire is None:
                items.append(self._waiting.get(timeout=timeout))
            else:
                self._serve(timeout)
            while True:
                items.append(self._waiting.get_nowait())
        return items

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._wire is None:
                time.sleep(left)
            else:
                self._serve(left)

    def _serve(self, seconds: float) -> None:
        """Serve watchers for so long, or until something is put. Recording goes on without them if that fails."""
        assert self._wire is not None
        try:
            self._wire.tend(self.path)
            self._wire.wait(seconds)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong with a watcher, the file is to be written
            say(f"nobody can watch {self.path} live any more ({error!r}); training goes on")
            wire, self._wire = self._wire, None
            wire.close()

    def _encoded(self, item: RecordedEvent | Deferred) -> bytes:
        try:
            return b"".join(map(self._line, item() if callable(item) else (item,)))
        except Exception as error:  # noqa: BLE001  # somebody's value; it costs its own event, not the record
            if not self._has_failed:
                self._has_failed = True
                say(f"{self.path} lacks something that cannot be written ({error!r}); training goes on")
            return b""

    def _line(self, event: RecordedEvent) -> bytes:
        line = self._layout.encode(event)
        if self._wire is not None:
            self._wire.published(event)
        return line

    def _write(self, lines: bytes) -> None:
        """Write what was refused before and these lines; keep from the first line on that is not whole."""
        lead, block, written = b"", self._refused + lines, 0
        self._tried_at = time.monotonic()
        try:
            if self._file is None or self._is_gone(self._file):
                lead = self._open()
                block = lead + block
            else:
                self._follow(self._file)
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
            self._spoke_at = time.monotonic()
            if self._trouble:
                say(f"{self.path} is written again")
                self._trouble = ""
        self._has_begun = self._has_begun or 0 < len(lead) <= written

    def _is_gone(self, file: int) -> bool:
        """Whether the file was removed, or another one has taken its place: writing to it would be for nobody.

        One that was moved away is written on, whatever its old name is used for: whoever moved it wants it there.
        """
        return os.fstat(file).st_nlink == 0

    def _follow(self, file: int) -> None:
        """Go by the new name of a file that was moved, if the system tells it: watchers look for its wire."""
        with suppress(OSError):
            if _is_same(self.path, file):
                return
        with suppress(OSError):
            there = Path(os.readlink(f"/proc/self/fd/{file}"))
            if _is_same(there, file):
                self.path = there

    def _open(self) -> bytes:
        """Open the file, made if need be; returns what has to be written first."""
        self._close_file()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        lead = None
        while lead is None:
            try:
                with forks.making():
                    self._file = os.open(self.path, flags | (os.O_EXCL if self._is_new else 0), 0o600)
            except FileExistsError:  # two runs of one second and the same four digits: not the same file
                self._take_another_name()
                continue
            lead = self._lead(self._file)
            if lead is None:
                self._close_file()
                self._take_another_name()
        self._is_new = False
        return lead

    def _lead(self, file: int) -> bytes | None:
        """What has to be written first; None if the file is not ours to append to."""
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            return self._layout.lead(b"", has_begun=self._has_begun)
        lead = self._layout.lead(os.pread(file, _START_BYTES, 0), has_begun=self._has_begun)
        if lead is None or not _lock(file):
            return None
        is_torn = facts.st_size > 0 and os.pread(file, 1, facts.st_size - 1) != b"\n"
        return b"\n" + lead if is_torn else lead

    def _take_another_name(self) -> None:
        name = self.path.name
        self.path = self.path.with_stem(f"{self.path.stem}-{secrets.token_hex(2)}")
        if not self._is_new:
            say(f"{name} is another run's or no record: this one is recorded in {self.path}")

    def _close_file(self) -> None:
        if self._file is not None:
            if self.is_ours:
                with suppress(OSError):  # closing is not enough where a child has been forked meanwhile
                    fcntl.flock(self._file, fcntl.LOCK_UN)
            with forks.making():
                file, self._file = self._file, None
                with suppress(OSError):  # a full network disk says so here, too; what it took is all there is
                    os.close(file)


def _is_same(path: Path, file: int) -> bool:
    return os.path.samestat(path.stat(), os.fstat(file))


def _lock(file: int) -> bool:
    """Take the file for this writer; False if another one has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _let_go() -> None:
    """In a forked child: its copies of the files would keep the locks of a trainer that is gone."""
    for recorder in list(_recorders):
        with suppress(Exception):  # a fork in the middle of whatever; the child is not ours to disturb
            recorder._close_file()


forks.in_child(_let_go)
