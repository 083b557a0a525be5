"""The watcher's end of the live wire: one thread that attaches to the sockets of the runs that are followed.

It keeps what comes until it is taken: of progress the latest look, of a run without a file every event, with a
bound beyond which it reads no more. No socket, another run, garbage or silence at the other end is no wire and
nothing worse; it is tried again when the record changes. Nothing is polled. `cbmon.endpoint` has the protocol.
"""

from __future__ import annotations

import math
import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from threading import Lock, Thread
from typing import TypeAlias

import msgspec

from cbmon.endpoint import (
    FRAME_MAX,
    Answer,
    Ask,
    Attach,
    Dropped,
    Goodbye,
    Hello,
    Lines,
    NoAnswer,
    NoWire,
    connect,
    decode_from_trainer,
    encode_frame,
    peer_pid,
    socket_paths,
    who,
)
from cbmon.errors import BadCall
from cbmon.events import Event, Malformed, Progress, RecordedEvent, RecordReplaced
from cbmon.units import printable, short_lr

SOCKET = "unix://"
"""How a PATH begins that is a socket and no file; alone it means all sockets in the runtime folders."""
CONNECT_S = 1.0
"""How long a connection may take: a stopped trainer with many at its door does not let one in."""
HELLO_S = 5.0
"""How long a trainer may take to say hello: its thread does that between two writes to a disk."""
TRIES_S = (0.0, 0.1, 0.4, 1.5)
"""When to look for a socket after its record told of the fit: that line is written before the socket is there."""
REST_S, REST_MAX_S = 2.0, 60.0
"""After a wire that ended by itself the next is not tried at once, nor soon if that goes on."""
STEADY_S = 30.0
"""A wire that lived so long was a good one."""
KNOCK_S = 0.2
"""How often to knock at a door with too many before it."""
PENDING_MAX = 4 << 20
"""Bytes of events that wait to be taken: then the trainer has to."""
CHUNK = 1 << 16
NOBODY = "no training listens for it here"

Reply: TypeAlias = Callable[[Answer], None]
"""Takes the answer to a request, in the thread of the wires."""

_RATE = re.compile(r"([x×*]?)\s*(.+)", re.IGNORECASE)
RATE_MAX = 3.4e38
"""A larger number is infinite to a float32 optimizer."""
ENDINGS = (".keras", ".weights.h5")
"""Of a file that a model is saved to: whole, and its weights alone. Keras takes no others."""


def read_rate(text: str) -> tuple[float | None, float | None]:
    """A learning rate (`3e-4`) or a factor for the present one (`x0.5`): one of the two.

    A rate of 0 is no error to Keras, but nobody means it: the fit goes on and learns nothing.

    Raises:
        BadCall: it is neither.
    """
    found = _RATE.fullmatch(text.strip())
    try:
        number = float(found[2]) if found else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number <= RATE_MAX:  # nor is NaN
        raise BadCall(
            f"{printable(text)!r} is no learning rate: give one above 0 such as 3e-4, or a factor such as x0.5"
        )
    return (None, number) if found and found[1] else (number, None)


def read_target(text: str) -> str:
    """The absolute path of a file to save a model to.

    Raises:
        BadCall: it has not one of the endings that Keras wants.
    """
    if not text.endswith(ENDINGS):
        stem = printable(os.path.splitext(text.rstrip(os.sep))[0] or "model")
        raise BadCall(
            f"save {printable(text)!r}: the name has to end in {ENDINGS[0]} (the whole model) or {ENDINGS[1]} "
            f"(its weights alone): {stem}{ENDINGS[0]}"
        )
    return os.path.abspath(os.path.expanduser(text))


def answer_words(answer: Answer) -> str:
    """What became of a request, with learning rates as they are written everywhere else here."""
    change, semicolon, remarks = answer.words.partition("; ")
    old, new = short_lr(answer.old), short_lr(answer.new)
    if answer.old is None or answer.new is None or old == new or not change.startswith("learning rate "):
        return answer.words
    return f"learning rate {old} → {new}{semicolon}{remarks}"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What has come over a wire since the last time."""

    hello: Hello | None = None
    """Who is at the other end, or was; None if nobody has been."""
    is_there: bool = False
    """Whether the wire is there now."""
    has_ended: bool = False
    """Whether one ended since the last time."""
    is_farewell: bool = False
    """Whether the trainer said goodbye."""
    latest: Progress | None = None
    """The latest look into the epoch; None without a wire."""
    is_news: bool = False
    """Whether that has not been taken before."""
    events: list[Event] = msgspec.field(default_factory=list)
    """Of a run without a file: `RecordReplaced` and then all, for each connection."""


NOTHING = Taken()


class _Link(msgspec.Struct, eq=False):
    """One run, and the wire to it where there is one."""

    key: Path
    run_id: str | None = None
    started: float | None = None
    """Of its latest fit; a wire of another one is no use any more."""
    at: Path | None = None
    """The socket of a run without a file; None: it is looked for by the record's path."""
    due: float = 0.0
    """When to try next, by the monotonic clock; inf: not by itself."""
    tries: int = 0
    failures: int = 0
    """Wires that ended early, one after another."""
    rests_until: float = 0.0
    socket: socket.socket | None = None
    since: float = 0.0
    lines: Lines = msgspec.field(default_factory=lambda: Lines(FRAME_MAX))
    hello: Hello | None = None
    is_there: bool = False
    """It has said hello."""
    out: bytes = b""
    """What the kernel has not taken yet."""
    is_paused: bool = False
    words: str = ""
    """Why there is no wire."""
    replies: dict[int, Reply] = msgspec.field(default_factory=dict)
    is_told: bool = False
    """There is news that was told and not taken."""
    has_ended: bool = False
    is_farewell: bool = False
    """The trainer said goodbye."""
    latest: Progress | None = None
    is_news: bool = False
    events: list[Event] = msgspec.field(default_factory=list)
    size: int = 0
    """Bytes of `events`."""


class Wires:
    """All wires of a watcher; the thread begins with the first run that is followed."""

    def __init__(self) -> None:
        self.changed: Callable[[Path], None] = lambda key: None
        """Told in the thread that there is something to take; once until it is taken."""
        self._links: dict[Path, _Link] = {}
        self._lock = Lock()
        """Guards what a consumer sees of the links; the sockets are the thread's alone."""
        self._thread: Thread | None = None
        self._bell: socket.socket | None = None
        self._woken: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._who = ""
        self._number = 0
        self._stopped = False

    # --- for the consumer, from any thread ----------------------------------------------------------------

    def follow(
        self, key: Path, run_id: str | None = None, started: float | None = None, *, at: Path | None = None
    ) -> None:
        """Have a wire to the fit of a record, if there is none; costs nothing if there is, or if one is tried.

        Args:
            key: the record's path, or what a run without a file is called by.
            run_id: the run's; None if the record does not tell.
            started: when the fit began, by the record.
            at: the socket of a run without a file.
        """
        with self._lock:
            link = self._links.get(key)
            if link is None:
                link = self._links[key] = _Link(key, run_id, started, at)
            elif (link.run_id, link.started) != (run_id, started):
                link.run_id, link.started, link.tries, link.failures = run_id, started, 0, 0
                if link.socket is None:
                    link.due = 0.0
            elif link.socket is None and link.due == inf and time.monotonic() >= link.rests_until:
                link.due, link.tries = 0.0, len(TRIES_S) - 1
            else:
                return
        self._start()
        self._wake()

    def leave(self, key: Path) -> None:
        """The record has ended: look for no wire any more; one that is there ends by itself."""
        with self._lock:
            link = self._links.get(key)
            if link is not None:
                link.due, link.run_id, link.started = inf, None, None
                if link.socket is None and not link.is_told:
                    del self._links[key]

    def take(self, key: Path) -> Taken:
        """What came over a run's wire since the last time."""
        with self._lock:
            link = self._links.get(key)
            if link is None:
                return NOTHING
            taken = Taken(
                hello=link.hello,
                is_there=link.is_there,
                has_ended=link.has_ended,
                is_farewell=link.is_farewell,
                latest=link.latest,
                is_news=link.is_news,
                events=link.events,
            )
            link.events, link.size = [], 0
            link.is_told = link.has_ended = link.is_news = False
            was_paused = link.is_paused
        if was_paused:
            self._wake()
        return taken

    def is_there(self, key: Path) -> bool:
        """Whether requests can be sent to this run."""
        with self._lock:
            link = self._links.get(key)
            return link is not None and link.is_there

    def hello(self, key: Path) -> Hello | None:
        """Who is at the other end, or was last."""
        with self._lock:
            link = self._links.get(key)
            return link.hello if link else None

    def why_not(self, key: Path) -> str:
        """Why there is no wire to this run; "" if there is."""
        with self._lock:
            link = self._links.get(key)
            return "" if link and link.is_there else (link.words if link else "") or NOBODY

    def has_settled(self, key: Path) -> bool:
        """Whether there is a wire, or none was to be had."""
        with self._lock:
            link = self._links.get(key)
            return link is None or link.is_there or (link.socket is None and link.due == inf)

    def ask(
        self,
        key: Path,
        what: str,
        reply: Reply,
        *,
        value: float | None = None,
        scale: float | None = None,
        path: str | None = None,
    ) -> str:
        """Send a request, as `Ask` has it; gives why it cannot be sent, "" if `reply` will be called."""
        with self._lock:
            link = self._links.get(key)
            if link is None or not link.is_there:
                return (link.words if link else "") or NOBODY
            self._number += 1
            ask = Ask(id=self._number, what=what, value=value, scale=scale, path=path)
            link.replies[ask.id] = reply
            link.out += encode_frame(ask)
        self._wake()
        return ""

    def stop(self) -> None:
        """Hang up everywhere, for good; returns at once."""
        self._stopped = True
        self._wake()

    # --- the thread ---------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None and not self._stopped:
            try:
                self._bell, self._woken = socket.socketpair()
                self._selector = selectors.DefaultSelector()
            except OSError:  # no more files: what stands in the files of the runs is all then
                return
            for end in (self._bell, self._woken):
                end.setblocking(False)
            self._who = who()
            self._selector.register(self._woken, selectors.EVENT_READ)
            self._thread = Thread(target=self._run, name="cbmon-wires", daemon=True)
            self._thread.start()

    def _wake(self) -> None:
        if self._bell is not None:
            with suppress(OSError):  # full: it is woken already; closed: it has ended
                self._bell.send(b"!")

    def _run(self) -> None:
        assert self._selector is not None
        assert self._woken is not None
        assert self._bell is not None
        while not self._stopped:
            for chosen, mask in self._selector.select(self._tend()):
                if isinstance(chosen.data, _Link):
                    self._guarded(chosen.data, partial(self._serve, chosen.data, mask))
                else:
                    with suppress(OSError):
                        while self._woken.recv(CHUNK):
                            pass
        with self._lock:
            links = list(self._links.values())
        for link in links:
            self._end(link, "cbmon ends")
        self._selector.close()
        self._bell.close()
        self._woken.close()

    def _tend(self) -> float | None:
        """Do what is due; gives for how long nothing is, None for ever."""
        now, until = time.monotonic(), inf
        with self._lock:
            links = list(self._links.values())
        for link in links:
            if link.socket is None and link.due <= now:
                self._guarded(link, partial(self._try, link, now))
            if link.socket is not None and link.hello is None and now >= link.since + HELLO_S:
                self._end(link, "it did not say hello")
            if link.socket is not None:
                self._guarded(link, partial(self._attend, link))
            until = min(until, link.due)
            if link.socket is not None and link.hello is None:
                until = min(until, link.since + HELLO_S)
        return None if until == inf else max(0.0, until - time.monotonic())

    def _guarded(self, link: _Link, part: Callable[[], None]) -> None:
        """The border of what is done for one run: whatever goes wrong costs its wire, not those of the others."""
        try:
            part()
        except Exception as error:  # noqa: BLE001  # kept as the reason why there is no wire
            with self._lock:
                link.due, link.words = inf, f"{type(error).__name__}: {error}"
            self._end(link, link.words)

    def _try(self, link: _Link, now: float) -> None:
        """Look for the socket, and connect."""
        reasons = []
        for path in [link.at] if link.at else socket_paths(link.key):
            try:
                if not os.path.lexists(path):
                    continue
                found = connect(path, timeout_s=CONNECT_S)
            except (NoWire, OSError) as error:
                reasons.append(str(error))
                continue
            found.setblocking(False)
            with self._lock:
                link.socket, link.since, link.due = found, now, inf
                link.lines, link.hello, link.out = Lines(FRAME_MAX), None, b""
                link.is_farewell, link.words = False, "it has not answered yet"
            self._select(link, selectors.EVENT_READ)
            return
        with self._lock:
            link.words = reasons[0] if reasons else NOBODY
            link.tries += 1
            is_soon = link.tries < len(TRIES_S) and (
                reasons or link.at is None
            )  # bound, and not listening yet
            link.due = now + TRIES_S[link.tries] if is_soon else inf
        if link.at is not None and not is_soon:
            self.changed(link.key)

    def _attend(self, link: _Link) -> None:
        """Send what is to be sent, read on if there is room again."""
        with self._lock:
            is_paused = link.is_paused = link.size > PENDING_MAX
            out = link.out
        assert link.socket is not None
        if out:
            try:
                sent = link.socket.send(out)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._end(link, error.strerror or str(error))
                return
            with self._lock:
                link.out = link.out[sent:]
                out = link.out
        self._select(link, (0 if is_paused else selectors.EVENT_READ) | (selectors.EVENT_WRITE if out else 0))

    def _select(self, link: _Link, mask: int) -> None:
        assert self._selector is not None
        assert link.socket is not None
        known = self._selector.get_map().get(link.socket)
        if known is None and mask:
            self._selector.register(link.socket, mask, link)
        elif known is not None and not mask:
            self._selector.unregister(link.socket)
        elif known is not None and known.events != mask:
            self._selector.modify(link.socket, mask, link)

    def _serve(self, link: _Link, mask: int) -> None:
        """Read what came; what can be sent is sent before the next waiting."""
        if not mask & selectors.EVENT_READ or link.socket is None:
            return
        try:
            data = link.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(link, link.words if link.is_farewell else "it hung up")
            return
        try:
            for line in link.lines.feed(data):
                self._got(link, line)
        except NoWire as error:
            self._end(link, str(error))
        else:
            self._tell(link)

    def _got(self, link: _Link, line: bytes) -> None:
        """One line from a trainer.

        Raises:
            NoWire: it must not come, or not now.
        """
        frame = decode_from_trainer(line)
        if isinstance(frame, Goodbye):
            with self._lock:
                link.is_farewell, link.words = link.is_there, frame.words
        elif link.hello is None:
            if not isinstance(frame, Hello):
                raise NoWire("it did not say hello")
            self._greet(link, frame)
        elif isinstance(frame, Hello):
            raise NoWire("it said hello twice")
        elif isinstance(frame, Answer):
            with self._lock:
                reply = link.replies.pop(frame.id, None)
            if reply is not None:
                reply(frame)
        elif isinstance(frame, Dropped):
            if frame.events and link.at:
                what = f"the oldest {frame.events:,} events of this run: its process keeps no more of them"
                self._keep(link, Malformed(reason=f"left out, {what}"), len(line))
        elif frame is not None:
            self._keep(link, frame, len(line))

    def _greet(self, link: _Link, hello: Hello) -> None:
        """Judge who is there, and attach."""
        if hello.replays is not (link.at is not None):
            raise NoWire("this socket belongs to a run that is recorded in a file: watch that" if link.at else
                         "this socket belongs to a run without a file")  # fmt: skip
        if link.run_id is not None and hello.run_id != link.run_id:
            raise NoWire("another run listens there")
        with self._lock:
            link.hello, link.is_there, link.words, link.latest = hello, True, "", None
            link.events, link.size = [RecordReplaced()] if link.at else [], 0
            link.out += encode_frame(Attach(run_id=hello.run_id, who=self._who))

    def _keep(self, link: _Link, event: RecordedEvent | Malformed, size: int) -> None:
        with self._lock:
            if link.at is None:
                if isinstance(event, Progress):
                    link.latest, link.is_news = event, True
            elif (
                isinstance(event, Progress) and link.events and isinstance(link.events[-1], Progress)
            ):  # a flood costs one
                link.events[-1] = event
            else:
                link.events.append(event)
                link.size += size

    def _tell(self, link: _Link) -> None:
        """Tell that there is something to take, once until it is taken."""
        with self._lock:
            is_new = (link.is_news or bool(link.events) or link.has_ended) and not link.is_told
            link.is_told = link.is_told or is_new
        if is_new:
            self.changed(link.key)

    def _end(self, link: _Link, words: str) -> None:
        """There is no wire any more; who asked is told so."""
        end = link.socket
        if end is None:
            return
        self._select(link, 0)
        end.close()
        now = time.monotonic()
        with self._lock:
            was_there, link.is_there, link.socket, link.out = link.is_there, False, None, b""
            replies = list(link.replies.items())
            link.replies = {}
            link.words, link.latest = words, None
            link.has_ended = was_there
            is_old = was_there and link.hello is not None and link.hello.started != link.started
            link.failures = 0 if now - link.since > STEADY_S else link.failures + 1
            if link.at is None and link.started is not None and is_old and link.failures < len(TRIES_S):
                link.due, link.tries = now, 0  # the next fit listens by now, or soon
            else:
                rest_s = 0.0 if link.is_farewell else min(REST_MAX_S, REST_S * 2 ** min(link.failures, 10))
                link.due, link.rests_until = inf, now + rest_s
        for number, reply in replies:
            reply(Answer(id=number, done=False, words=f"no answer came: {words}"))
        self._tell(link)


class Silent(NoAnswer):
    """A trainer's process is there and does not say hello."""

    def __init__(self, words: str, pid: int | None = None) -> None:
        """Take the words, and which process it is as far as the kernel says."""
        super().__init__(words)
        self.pid = pid


class Line:
    """A blocking connection to one trainer, to ask it one thing: what `ctl` has."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Connect, and hear who is there.

        Raises:
            Silent: somebody listens and does not say in time who.
            NoWire: nobody listens, or it is no trainer.
        """
        self._lines = Lines(FRAME_MAX)
        self._heard: list[bytes] = []
        until = time.monotonic() + timeout_s
        self._socket = self._knock(path, until)
        try:
            frame = self._next(until)
            if not isinstance(frame, Hello):
                words = frame.words if isinstance(frame, Goodbye) else "it did not say hello"
                raise NoWire(f"{path}: {words}")
        except TimeoutError as error:
            pid = peer_pid(self._socket)
            self.close()
            raise Silent(f"{path}: it did not say hello", pid) from error
        except NoWire:
            self.close()
            raise
        self.hello = frame

    def ask(self, ask: Ask, timeout_s: float) -> Answer:
        """Attach, ask, and wait for the answer.

        Raises:
            NoWire: the trainer hung up.
            TimeoutError: no answer came in time.
        """
        attach = Attach(run_id=self.hello.run_id, who=who(), role="ctl")
        until = time.monotonic() + timeout_s
        try:
            self._socket.sendall(encode_frame(attach) + encode_frame(ask))
        except TimeoutError:
            raise
        except OSError:
            pass  # it has hung up; perhaps it said why
        while True:
            frame = self._next(until)
            if isinstance(frame, Answer) and frame.id == ask.id:
                return frame
            if isinstance(frame, Goodbye):
                raise NoWire(frame.words)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    @staticmethod
    def _knock(path: Path, until: float) -> socket.socket:
        while True:
            try:
                return connect(path, timeout_s=CONNECT_S)
            except NoAnswer as error:
                if time.monotonic() + KNOCK_S > until:
                    raise Silent(str(error)) from error
            time.sleep(KNOCK_S)

    def _next(self, until: float) -> object:
        while not self._heard:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(CHUNK)
            except TimeoutError:
                raise
            except OSError as error:
                raise NoWire(error.strerror or str(error)) from error
            if not data:
                raise NoWire("the training has ended, or its process is gone")
            self._heard += self._lines.feed(data)
        return decode_from_trainer(self._heard.pop(0))
