"""The live wire: the socket on which a recorder's thread listens for watchers while a fit runs.

Everything here but `wake` and `forget` belongs into that thread. Nothing waits for a watcher: what one is too slow
for is left out and counted, and memory per watcher is bounded. No socket is no reason to stop: it is said once and
tried again. `cbmon.endpoint` describes the protocol.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import ceil
from pathlib import Path
from threading import RLock

from cbmon.callbacks import forks
from cbmon.callbacks.control import Control, Request
from cbmon.endpoint import (
    ASK_MAX,
    ATTACH_S,
    FRAME_MAX,
    LIVE_PREFIX,
    PATH_MAX,
    Answer,
    Ask,
    Attach,
    Dropped,
    Goodbye,
    Hello,
    Lines,
    NoWire,
    decode_from_watcher,
    encode_frame,
    own_folder,
    peer_pid,
    peer_uid,
    socket_name,
    why_foreign,
    why_unsafe,
)
from cbmon.events import EpochsEnded, Heartbeat, Progress, RecordedEvent, RunEnded, RunStarted, encode_line

WATCHERS_MAX = 32
"""At once: each costs a buffer and a turn; people have a few."""

CONNECTIONS_MAX = WATCHERS_MAX + 8
"""At once, with those who only ask: watchers must not keep them out."""

CHECK_S = 5.0
"""How often to look whether the socket is still there: a logout removes $XDG_RUNTIME_DIR under a training."""

CONNECT_S = 0.5
"""How long to knock at a socket that stands where ours should: a stopped process does not answer."""

FRAMES_MAX = 100
"""Frames a second from one watcher; people press keys."""

WAITING_MAX = 64
"""Answers that wait for one watcher to read them."""

CHUNK = 1 << 16
"""Bytes handed to the kernel at once, and read at once."""

TURNS = 16
"""Chunks for one watcher before the next one has its turn."""

HISTORY_MAX = 16 * 2**20
"""Bytes kept of a run without a file, some 50,000 epochs; then the oldest go."""

END_S = 0.5
"""The most that the end of a fit gives watchers to take the rest; what their kernel buffers take needs no time."""

IDLE_S = 0.02
"""How long the end waits while no watcher takes anything: stopped ones get no more."""

SWEEP_S = 0.1
"""How long one start looks for sockets of killed runs: thousands; other runs wait for the folder."""

_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)
"""A script may have given SIGPIPE its default back: a watcher that goes would kill it."""
_NO_SIGPIPE: int | None = getattr(socket, "SO_NOSIGPIPE", None)

_NOTHING = b""

_wires: weakref.WeakSet[Wire] = weakref.WeakSet()
_passing: list[Callable[[], object]] = []
"""What closes the descriptors that are open for a moment only."""


class History:
    """The events of a run without a file, as lines from its first fit on; beyond the limit the oldest go."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.first = 0
        """Number of the first line that is still there."""
        self._size = 0
        self._starts: list[int] = []
        self._start = b""
        """The latest start among the lines that went, and below its number."""
        self._start_at = -1

    def add(self, line: bytes, *, is_start: bool) -> None:
        """Keep one more line."""
        if is_start:
            self._starts.append(self.first + len(self.lines))
        self.lines.append(line)
        self._size += len(line)
        if self._size > HISTORY_MAX:
            self._cut()

    def _cut(self) -> None:
        """Let a quarter go: not one for each new line."""
        size, count = self._size, 0
        while size > HISTORY_MAX * 3 // 4:
            size -= len(self.lines[count])
            count += 1
        while self._starts and self._starts[0] < self.first + count:
            self._start_at = self._starts.pop(0)
            self._start = self.lines[self._start_at - self.first]
        del self.lines[:count]
        self.first += count
        self._size = size

    def after(self, number: int) -> tuple[bytes, int, int]:
        """Some lines from this number on, the number to go on from, and how many that went are missing."""
        lead, missing = b"", max(0, self.first - number)
        if number <= self._start_at:
            lead, missing = self._start, missing - 1
        number = max(number, self.first)
        size, to = len(lead), number
        while to - self.first < len(self.lines) and size < CHUNK:
            size += len(self.lines[to - self.first])
            to += 1
        return lead + b"".join(self.lines[number - self.first : to - self.first]), to, missing


class _Watcher:
    """One connection."""

    def __init__(self, end: socket.socket, now: float) -> None:
        self.socket = end
        self.lines = Lines(ASK_MAX)
        self.role: str | None = None
        """None until it has attached."""
        self.who = ""
        self.attach_by = now + ATTACH_S
        self.out = b""
        """What the kernel has not taken yet; what follows it is chosen when it has."""
        self.answers: deque[bytes] = deque()
        self.number = 0
        """Of the next line of the history."""
        self.look: bytes = _NOTHING
        """The latest look into the epoch, if it has not got that yet."""
        self.seen: tuple[object, ...] = ()
        """What the latest look made for it was about."""
        self.missed = 0
        self.lost = 0
        self.goodbye = b""
        """The last thing to send."""
        self.is_done = False
        self.second = 0.0
        self.frames = 0
        """Received since then."""


class Wire:
    """Listens, and serves those who watch."""

    def __init__(
        self,
        hello: Hello,
        control: Control | None,
        look: Callable[[], Progress | None],
        *,
        every_s: float,
        path: Path | None = None,
        history: History | None = None,
        say: Callable[[str], None],
    ) -> None:
        """Make the wire; nothing listens before the first `tend`.

        Args:
            hello: the first frame for each watcher; `replays` tells whether there is no file.
            control: takes requests; None refuses them.
            look: what the running epoch has come to, None between epochs.
            every_s: seconds between two looks.
            path: the socket's, where the user gave one.
            history: of earlier fits, to go on with.
            say: tells the user.

        Raises:
            OSError: this process may open no more files.
        """
        self._hello = hello
        self._control = control
        self._look = look
        self._every_s = every_s
        self._given = path
        self._say = say
        self.history = history or History()
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._there: tuple[int, int] | None = None
        self._record: Path | None = None
        self._check_at = self._accept_at = self._look_at = 0.0
        self._trouble = 0
        """Times that listening failed since it last worked."""
        self._watchers: list[_Watcher] = []
        self._lock = RLock()
        with forks.making():
            self._woken, bell = socket.socketpair()
            self._bell: socket.socket | None = bell
            _wires.add(self)
        self._woken.setblocking(False)
        bell.setblocking(False)

    # Any thread.

    def wake(self) -> None:
        """End the thread's waiting; returns at once."""
        with self._lock, suppress(OSError):  # full: it is woken already
            if self._bell is not None:
                self._bell.send(b"!", _NO_SIGNAL)

    def forget(self) -> None:
        """In a forked child, or without a thread: let go of everything, and touch nothing that is the parent's."""
        self._lock = RLock()  # another thread of the parent may have held it
        for end in (self._bell, self._woken, self._listener, *(each.socket for each in self._watchers)):
            if end is not None:
                with suppress(OSError):
                    end.close()
        self._bell = self._listener = None
        self._watchers = []

    # The socket's file.

    def tend(self, record: Path) -> None:
        """See to it that there is a socket for this record, now and then."""
        now = time.monotonic()
        if record == self._record and now < self._check_at:
            return
        if self._listener and record == self._record and self._is_there():
            self._check_at = now + CHECK_S
            return
        self._record, self._check_at = record, now + CHECK_S
        self._stop_listening()
        try:
            self._listen(self._place(record))
        except (NoWire, OSError) as error:
            self._trouble += 1
            # A second run on the same CSV learns only after its first epoch that it needs another name.
            if self._trouble == 1 + isinstance(error, _Taken):
                self._say(f"nobody can watch {self._hello.name} over a socket ({error}); training goes on")
        else:
            self._trouble = 0

    def _place(self, record: Path) -> Path:
        if self._given:
            return self._given
        name = f"{LIVE_PREFIX}{self._hello.run_id[:8]}.sock" if self._hello.replays else socket_name(record)
        return own_folder() / name

    def _listen(self, path: Path) -> None:
        if len(os.fsencode(path)) > PATH_MAX:
            raise NoWire(f"{path} is longer than the {PATH_MAX} bytes of a socket's path")
        if self._given:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(path.parent):
            if not why_unsafe(path.parent):
                _sweep(path.parent, path)
            _make_way(path)
            with forks.making():
                self._listener = listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.setblocking(False)
                with suppress(OSError):  # Linux: the file has this mode from the start; others may refuse
                    os.fchmod(listener.fileno(), 0o600)
                listener.bind(os.fspath(path))
                facts = os.lstat(path)
                if stat.S_IMODE(facts.st_mode) & 0o177:
                    os.chmod(path, 0o600)
                listener.listen(CONNECTIONS_MAX)
            except BaseException:
                self._close_listener()
                raise
        self._path, self._there = path, (facts.st_dev, facts.st_ino)
        if self._hello.replays and not self._given and not self.history.lines:
            self._say(f"watch this run with: cbmon watch unix://{path}")

    def _is_there(self) -> bool:
        try:
            facts = os.lstat(self._path or "")
        except OSError:
            return False
        return (facts.st_dev, facts.st_ino) == self._there

    def _stop_listening(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                if self._path and self._is_there():
                    self._path.unlink()
            self._close_listener()
        self._path = self._there = None

    def _close_listener(self) -> None:
        with forks.making():
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.close()

    # Serving.

    def wait(self, timeout: float) -> None:
        """Serve watchers until somebody calls `wake`, or for so many seconds."""
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            self._expire(now)
            due = min([deadline, *(each.attach_by for each in self._watchers if each.role is None)])
            if any(each.role == "watch" for each in self._watchers):
                if now >= self._look_at:
                    self._take_a_look(now)
                due = min(due, self._look_at)
            if self._serve(max(0.0, due - now), now) or time.monotonic() >= deadline:
                return

    def _expire(self, now: float) -> None:
        for each in self._watchers.copy():
            if each.role is None and now >= each.attach_by:
                self._hang_up(each)

    def _take_a_look(self, now: float) -> None:
        """Hand the latest look at the epoch to each watcher to whom it is news."""
        self._look_at = now + self._every_s
        look = self._look()
        if look is None:
            return
        # Also that the steps stand still: then there is no speed any more.
        seen = (look.epoch, look.phase, look.step, look.steps_per_second is None)
        line = b""
        for each in self._watchers.copy():
            if each.role == "watch" and each.seen != seen:
                line = line or encode_line(look)
                each.seen = seen
                self._show(each, line)
                self._send(each)

    def _show(self, watcher: _Watcher, line: bytes) -> None:
        if watcher.look or len(line) > FRAME_MAX:
            watcher.missed += 1
        if len(line) <= FRAME_MAX:
            watcher.look = line

    def _serve(self, timeout: float, now: float) -> bool:
        """Wait once, and do what can be done; whether somebody called `wake`."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self._listener and now >= self._accept_at:
            poll.register(self._listener, select.POLLIN)
        by_file = {each.socket.fileno(): each for each in self._watchers}
        for file, each in by_file.items():
            poll.register(file, (0 if each.goodbye else select.POLLIN) | (select.POLLOUT if each.out else 0))
        ready = dict(poll.poll(ceil(timeout * 1000)))
        if self._listener and self._listener.fileno() in ready:
            self._accept()
        for file, each in by_file.items():
            happened = ready.get(file, 0)
            if happened & ~select.POLLOUT and each in self._watchers:
                self._read(each)
            if happened & select.POLLOUT and each in self._watchers:
                self._send(each)
        if self._woken.fileno() not in ready:
            return False
        with suppress(OSError):
            while self._woken.recv(CHUNK):
                pass
        return True

    def _accept(self) -> None:
        """Let those in who wait at the door and are of the same user."""
        assert self._listener is not None
        for _ in range(CONNECTIONS_MAX):
            try:
                with forks.making():
                    end, _ = self._listener.accept()
                    watcher = _Watcher(end, time.monotonic())
                    self._watchers.append(watcher)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ECONNABORTED:  # no more files: the door would ring without end
                    self._accept_at = time.monotonic() + 1.0
                return
            end.setblocking(False)
            if _NO_SIGPIPE is not None:
                end.setsockopt(socket.SOL_SOCKET, _NO_SIGPIPE, 1)
            if peer_uid(end) != os.geteuid():
                self._hang_up(watcher)
            elif len(self._watchers) > CONNECTIONS_MAX:
                self._part(watcher, f"{CONNECTIONS_MAX} others are there already")
            else:
                watcher.answers.append(encode_frame(self._hello))
                self._send(watcher)

    def _read(self, watcher: _Watcher) -> None:
        """Take what came, once: who sends without end has to wait for the others."""
        try:
            data = watcher.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(watcher)
            return
        try:
            for line in watcher.lines.feed(data):
                self._count(watcher)
                self._take(watcher, line)
        except NoWire as error:
            self._part(watcher, str(error))
        self._send(watcher)

    def _count(self, watcher: _Watcher) -> None:
        now = time.monotonic()
        if now - watcher.second >= 1.0:
            watcher.second, watcher.frames = now, 0
        watcher.frames += 1
        if watcher.frames > FRAMES_MAX or len(watcher.answers) > WAITING_MAX:
            raise NoWire("too many requests")

    def _take(self, watcher: _Watcher, line: bytes) -> None:
        """One frame.

        Raises:
            NoWire: it must not come, or not now.
        """
        frame = decode_from_watcher(line)
        if isinstance(frame, Attach):
            if watcher.role is not None:
                raise NoWire("attached twice")
            if frame.run_id not in (None, self._hello.run_id):
                raise NoWire("this is another run")
            if frame.role == "watch":
                if sum(each.role == "watch" for each in self._watchers) >= WATCHERS_MAX:
                    raise NoWire(f"{WATCHERS_MAX} watchers are there already")
                self._look_at = 0.0  # what it sees first is not as old as the last look
            watcher.role = frame.role
            watcher.who = _one_word(frame.who) or f"pid {peer_pid(watcher.socket)}"
        elif watcher.role is None and frame is not None:
            raise NoWire("the first frame has to be attach")
        elif isinstance(frame, Ask):
            refusal = "it takes no requests: Monitor(control=False)"
            if self._control is not None:
                refusal = self._control.take(
                    Request(ask=frame, who=watcher.who, reply=partial(self._answer, watcher))
                )
            if refusal:
                self._answer(watcher, Answer(id=frame.id, done=False, words=refusal))

    def _answer(self, watcher: _Watcher, answer: Answer) -> None:
        if watcher in self._watchers:
            watcher.answers.append(encode_frame(answer))
            self._send(watcher)

    def published(self, event: RecordedEvent) -> None:
        """An event has come to the file; where there is none, it goes to the watchers."""
        if isinstance(event, EpochsEnded | RunEnded):
            for each in self._watchers:  # it is about what is over now
                each.missed += bool(each.look)
                each.look = _NOTHING
        if not self._hello.replays:
            return
        line = encode_line(event)
        if len(line) > FRAME_MAX:
            raise ValueError(f"a line of {len(line)} bytes")
        if isinstance(event, Progress | Heartbeat):
            for each in self._watchers:
                if each.role == "watch" and not each.look:
                    each.look = line
        else:
            self.history.add(line, is_start=isinstance(event, RunStarted))
        for each in self._watchers.copy():
            self._send(each)

    def _send(self, watcher: _Watcher) -> None:
        """Hand over as much as the kernel takes."""
        for _ in range(TURNS):
            watcher.out = watcher.out or self._next(watcher)
            if not watcher.out:
                if watcher.is_done:
                    self._hang_up(watcher)
                return
            try:
                sent = watcher.socket.send(watcher.out, _NO_SIGNAL)
            except BlockingIOError:
                return
            except OSError:
                self._hang_up(watcher)
                return
            watcher.out = watcher.out[sent:]
        watcher.out = watcher.out or self._next(watcher)  # so that the next turn comes

    def _next(self, watcher: _Watcher) -> bytes:
        """What this watcher gets next: whole lines."""
        if watcher.answers:
            lines = b"".join(watcher.answers)
            watcher.answers.clear()
            return lines
        if watcher.role == "watch":
            lines = _NOTHING
            if self._hello.replays:
                lines, watcher.number, lost = self.history.after(watcher.number)
                watcher.lost += lost
            if not lines:
                lines, watcher.look = watcher.look, _NOTHING
            if watcher.missed or watcher.lost:
                lines = encode_frame(Dropped(progress=watcher.missed, events=watcher.lost)) + lines
                watcher.missed = watcher.lost = 0
            if lines:
                return lines
        if watcher.goodbye:
            lines, watcher.goodbye, watcher.is_done = watcher.goodbye, b"", True
            return lines
        return b""

    def _part(self, watcher: _Watcher, words: str) -> None:
        """Say why, and hang up without waiting for that to be read."""
        watcher.answers.append(encode_frame(Goodbye(words=words)))
        self._send(watcher)
        self._hang_up(watcher)

    def _hang_up(self, watcher: _Watcher) -> None:
        if watcher in self._watchers:
            with forks.making():  # else a child may keep it, and the watcher waits for its end
                self._watchers.remove(watcher)
                watcher.socket.close()

    def close(self) -> None:
        """The fit has ended: nobody comes any more, those who are there get what they can take at once."""
        with suppress(Exception):  # whatever it is, the rest has to be let go
            self._stop_listening()
            if self._control is not None:
                for request in self._control.rest():
                    request.reply(Answer(id=request.ask.id, done=False, words="the fit has ended"))
            for each in self._watchers.copy():
                self._read(each)  # requests that came last; "ended" is their answer, too
            for each in self._watchers.copy():
                each.goodbye = encode_frame(Goodbye(words="the fit has ended"))
                self._send(each)
            deadline = time.monotonic() + END_S
            while self._watchers and time.monotonic() < deadline and self._flush():
                pass
        with self._lock, forks.making():
            bell, self._bell = self._bell, None
            if bell is not None:
                bell.close()
            self._woken.close()
        for each in self._watchers.copy():
            self._hang_up(each)

    def _flush(self) -> bool:
        """Hand over more of the rest; whether anybody takes it."""
        poll = select.poll()
        by_file = {each.socket.fileno(): each for each in self._watchers}
        for file in by_file:
            poll.register(file, select.POLLOUT)
        ready = poll.poll(ceil(IDLE_S * 1000))
        for file, _ in ready:
            self._send(by_file[file])
        return bool(ready)


class _Taken(NoWire):
    """Another run listens where ours should."""


def _one_word(text: str) -> str:
    """Somebody's name for himself, fit for a line on a terminal and in a record."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:100])


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a runtime folder while a socket is put into it: two runs could take each other's for a dead one.

    Raises:
        NoWire: another run holds it, and goes on to.
    """
    if why_unsafe(folder):  # somebody's own choice, such as /tmp: not ours to lock
        yield
        return
    with forks.making():
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        close = _passes(partial(os.close, file))
    try:
        for _ in range(20):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        else:
            raise _Taken(f"{folder} is held by another run")
        yield
    finally:
        with suppress(OSError):  # closing is not enough where a child has been forked meanwhile
            fcntl.flock(file, fcntl.LOCK_UN)
        close()


def _passes(close: Callable[[], object]) -> Callable[[], None]:
    """Note what closes a descriptor, for children; gives what closes it and forgets that."""
    _passing.append(close)

    def closed() -> None:
        with forks.making():
            close()
            _passing.remove(close)

    return closed


def _is_dead(path: Path) -> bool:
    """Whether the socket at `path` is the user's own, and nobody listens there.

    Raises:
        NoWire: it is something else, and not ours to touch.
    """
    reason = why_foreign(path)
    if reason:
        raise NoWire(f"{path}: {reason}")
    with forks.making():
        knock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        close = _passes(knock.close)
    try:
        knock.settimeout(CONNECT_S)
        knock.connect(os.fspath(path))
    except ConnectionRefusedError:
        return True
    except OSError:  # it does not answer: its process is stopped, or many knock
        return False
    finally:
        close()
    return False


def _make_way(path: Path) -> None:
    """Remove the socket of a run that was killed.

    Raises:
        NoWire: what stands there is another run's, or no socket of this user's.
    """
    if not os.path.lexists(path):
        return
    if not _is_dead(path):
        raise _Taken(f"{path}: another run listens there")
    path.unlink(missing_ok=True)


def _sweep(folder: Path, ours: Path) -> None:
    """Remove the sockets that killed runs have left in the runtime folder: nobody else would."""
    deadline = time.monotonic() + SWEEP_S
    with suppress(OSError):
        for path in folder.glob("*.sock"):
            if time.monotonic() > deadline:
                return
            with suppress(OSError, NoWire):
                if path != ours and _is_dead(path):
                    path.unlink(missing_ok=True)


def _forget() -> None:
    """In a forked child: let go of all that is the parent's."""
    for let_go in [*(wire.forget for wire in _wires), *_passing]:
        with suppress(Exception):  # a fork in the middle of whatever; the child is not ours to disturb
            let_go()
    _passing.clear()


forks.in_child(_forget)
