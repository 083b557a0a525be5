"""What the stock `keras.callbacks.RemoteMonitor` sends, taken in over HTTP and written as records that cbmon reads.

RemoteMonitor posts each epoch from the training's own thread, without a time limit, and looks at no answer: so
every request is answered at once, a thread of ours writes the files, and what is refused is said here, once of a
kind. One record a path of the address, appended to and never truncated. Clocks come in as arguments.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import queue
import re
import socket
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from waitress.channel import HTTPChannel  # type: ignore[import-untyped, unused-ignore]
from waitress.server import create_server  # type: ignore[import-untyped, unused-ignore]
from waitress.task import ErrorTask  # type: ignore[import-untyped, unused-ignore]
from waitress.wasyncore import close_all  # type: ignore[import-untyped, unused-ignore]

from cbmon.errors import BadCall
from cbmon.events import EPOCH_MAX, EpochsEnded, encode_line, is_number
from cbmon.series import is_learning_rate
from cbmon.units import plural, printable

KEYS_MAX = 1000
"""Metrics of one epoch: models with a hundred outputs have some hundreds."""
FIELDS_MAX = 16
"""Fields of a form; RemoteMonitor sends one."""
SLUG_MAX = 60
"""Letters of a path in its record's name."""
HASH_BYTES = 4
"""Of the path, in the name: `run/7` and `run-7` are two runs, on a disk that takes `Run` for `run` too."""
QUEUE_MAX = 10_000
"""Epochs that wait for the disk: an hour of three a second, some 10 MiB."""
QUEUE_BYTES_MAX = 64 << 20
"""Bytes of them: what 10,000 epochs of a hundred metrics have. As large as a request may be, they would be GiBs."""
RETRY_S = 2.0
"""How long a disk that refuses is left in peace."""
CLOSE_S = 5.0
"""How long the end waits for the disk."""
IDLE_S = 10
"""How long a connection may say nothing, or take for one request: RemoteMonitor sends its 1 KiB at once."""
CONNECTIONS_MAX = 200
"""Open at once; RemoteMonitor closes its own after each epoch."""
BURST = 2.0
"""Seconds of the rate that may come at once."""
RECORD_START = b'{"event":'
"""How a record begins; what begins otherwise is somebody's data."""
OF_ONE_FILE = frozenset(
    {
        errno.EISDIR,  # a folder of that name
        errno.ELOOP,  # a link: none is followed
        errno.EACCES,  # somebody else's, or read-only
        errno.EPERM,  # made unchangeable
        errno.ENXIO,  # a socket; elsewhere than on Linux the next one
        errno.EOPNOTSUPP,
        errno.ENAMETOOLONG,  # encrypting file systems take less than others
        errno.EFBIG,  # as long as this file system, or `ulimit -f`, lets one be
        errno.ETXTBSY,  # a program that runs
    }
)
"""What keeps one file from being written, and no waiting mends.

All else is the disk's or the folder's and may pass: full, away, read-only after a fault, no folder (ENOTDIR).
"""

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one receiver takes: a mistake in a training script must not fill a disk."""

    body: int = 256 << 10
    """Bytes of a request; an epoch of twenty metrics has 1 KiB."""
    rate: float = 500.0
    """Requests a second, of all trainers together; more epochs a second than anybody looks at."""
    runs: int = 1000
    """Paths, one record each."""
    written: int = 1 << 30
    """Bytes written in one sitting: some million epochs."""


class Refusal(Exception):
    """A request that is not taken: its HTTP status, and why, for the answer and for people."""

    def __init__(self, status: str, words: str) -> None:
        """Take the status line, such as "400 Bad Request", and the reason."""
        super().__init__(words)
        self.status = status


# --- what is in a request -------------------------------------------------------------------------------------


def decode_epoch(body: bytes, content_type: str, time: float | None) -> EpochsEnded:
    """The epoch that a request reports.

    As JSON, or as a form whose field, whatever its name, holds that JSON. NaN and Infinity are taken as Python
    writes them. A value that is no number costs itself, not the row.

    Args:
        body: what was sent.
        content_type: what the sender calls it; what begins with a brace is JSON in any case.
        time: when it came, Unix seconds.

    Raises:
        Refusal: It is neither, or has no epoch.
    """
    is_json = "json" in content_type.casefold() or body.lstrip()[:1] in (b"{", b"[")
    values = _json(body.decode("utf-8", "replace")) if is_json else _form(body.decode("utf-8", "replace"))
    if not isinstance(values, dict):
        raise _bad("no JSON object with an epoch, as RemoteMonitor sends it")
    if len(values) > KEYS_MAX + 1:
        raise _bad(f"{len(values):,} values in one epoch, {KEYS_MAX:,} at most")
    epoch = values.pop("epoch", None)
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch <= EPOCH_MAX:
        raise _bad(
            "no epoch number" if epoch is None else f"epoch {printable(repr(epoch), 40)}: no epoch number"
        )
    rate = next((name for name, value in values.items() if is_learning_rate(name) and is_number(value)), None)
    rates = None if rate is None else [float(values.pop(rate))]
    return EpochsEnded(
        time=time,
        epochs=[epoch],
        metrics={name: [float(value) if is_number(value) else None] for name, value in values.items()},
        learning_rate=rates,
        not_numbers=[
            name for name, value in values.items() if value is not None and not is_number(value)
        ],
    )  # fmt: skip


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise _bad("JSON that is too deep") from None
    except ValueError:
        raise _bad("no JSON") from None


def _form(text: str) -> object:
    """The first field that holds an object; RemoteMonitor's `field=` names it, and sends no other."""
    try:
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="replace")
    except ValueError:
        raise _bad(f"a form of more than {FIELDS_MAX} fields") from None
    trouble: Refusal | None = None
    for _, value in fields:
        try:
            found = _json(value)
        except Refusal as refusal:
            trouble = refusal
        else:
            if isinstance(found, dict):
                return found
    raise trouble or _bad("no form with a field of JSON, as RemoteMonitor sends it")


def _bad(words: str) -> Refusal:
    return Refusal("400 Bad Request", words)


def record_name(path: str) -> str:
    """The record's file for a path of the address: letters of it, and a hash that tells alike ones apart.

    `/publish/epoch/end/` and `//publish/epoch/end` are one: a root that ends in a slash doubles it.
    """
    plain = "/".join(filter(None, path.split("/")))
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:SLUG_MAX].rstrip("-._") or "run"
    digest = hashlib.blake2s(plain.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).hexdigest()
    return f"{slug}-{digest}.jsonl"


# --- writing --------------------------------------------------------------------------------------------------


class NoRecord(Exception):
    """A file that has a record's name and is none, or cannot be written: why, in words."""


class Writer:
    """Appends lines to records in a thread of its own: a disk that is slow or full makes no trainer wait.

    A disk that refuses is asked again, and all wait for it; one file that refuses is given up, and no other waits.
    """

    def __init__(self, say: Say, retry_s: float = RETRY_S) -> None:
        self._say = say
        self._retry_s = retry_s
        self._lines: queue.Queue[tuple[Path, bytes] | None] = queue.Queue(QUEUE_MAX)
        self._closing = Flag()
        self._half: Path | None = None
        """The record whose last line is not whole because the disk refused the rest of it."""
        self._bytes_put = self._bytes_done = 0
        """Each is counted by one thread, so neither waits for the other."""
        self.foreign: dict[Path, str] = {}
        """Files that are no records, or can be none, and why; they are left alone."""
        self.lost = 0
        """Lines that were taken in and could not be written."""
        self._thread = Thread(target=self._run, name="cbmon-receiver-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, path: Path, line: bytes) -> bool:
        """Have a line written; False if too many wait already. For one thread."""
        if self._bytes_put - self._bytes_done + len(line) > QUEUE_BYTES_MAX:
            return False
        try:
            self._lines.put_nowait((path, line))
        except queue.Full:
            return False
        self._bytes_put += len(line)
        return True

    def close(self) -> None:
        """Write what waits, for some seconds at most."""
        self._closing.set()
        with suppress(queue.Full):
            self._lines.put_nowait(None)  # if it is full the thread sees the flag
        self._thread.join(CLOSE_S)
        if lost := self.lost + self._lines.qsize():
            self._say(f"{plural(lost, 'epoch')} could not be written")

    def _run(self) -> None:
        while (item := self._next()) is not None:
            path, line = item
            if path in self.foreign:  # it waited when that was found out
                self.lost += 1
            else:
                try:
                    self._write(path, line)
                except NoRecord as error:
                    self.lost += 1
                    self.foreign[path] = str(error)
                    self._say(f"{path}: {error}; this run is not recorded")
            self._bytes_done += len(line)

    def _next(self) -> tuple[Path, bytes] | None:
        try:
            return self._lines.get(block=not self._closing.is_set())
        except queue.Empty:
            return None

    def _write(self, path: Path, line: bytes) -> None:
        """Append a line, however often the disk refuses; at the end it is asked once."""
        is_told = False
        while line:
            try:
                line = self._append(path, line)
            except OSError as error:
                needed = os.X_OK if os.path.lexists(path) else os.X_OK | os.W_OK
                if error.errno in OF_ONE_FILE and os.access(path.parent, needed):  # else it is the folder
                    is_link = error.errno == errno.ELOOP
                    words = "this is a link, and none is followed" if is_link else error.strerror
                    raise NoRecord(words or str(error)) from None
                if self._closing.is_set():
                    self.lost += 1
                    return
                if not is_told:
                    self._say(f"{path}: {error.strerror or error}; epochs are kept and written later")
                    is_told = True
                self._closing.wait(self._retry_s)
        if is_told:
            self._say(f"{path}: can be written again")

    def _append(self, path: Path, line: bytes) -> bytes:
        """Write at the file's end; gives what is left of the line."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(path, flags, 0o600)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise NoRecord("this is no file")
            if status.st_size and self._half != path:
                if os.pread(handle, len(RECORD_START), 0) != RECORD_START:
                    raise NoRecord("this file is no record of cbmon, nothing is appended to it")
                if os.pread(handle, 1, status.st_size - 1) != b"\n":  # of a writer that was killed
                    line = b"\n" + line
            written = os.write(handle, line)
        finally:
            os.close(handle)
        self._half = path if written < len(line) else None
        return line[written:]


# --- taking in ------------------------------------------------------------------------------------------------


class Receiver:
    """The WSGI application: judges a request, answers it at once, has the epoch written. For one thread."""

    def __init__(
        self,
        folder: str,
        *,
        token: str | None = None,
        say: Say,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        caps: Caps | None = None,
        began: Callable[[], None] = lambda: None,
    ) -> None:
        """Take where the records go.

        Args:
            folder: an existing one.
            token: what a trainer has to show; None: nothing.
            say: takes one line for people, from any thread.
            now: the time of day.
            monotonic: the clock by which requests a second are counted.
            caps: how much is taken.
            began: called when the first epoch was taken in, from any thread.
        """
        self.caps = caps or Caps()
        self.writer = Writer(say)
        self._folder = folder
        self._token = None if token is None else token.encode("utf-8", "surrogateescape")
        self._say = say
        self._began = began
        self._now, self._monotonic = now, monotonic
        self._runs: set[str] = set()
        """Names of the records written."""
        self._bytes = 0
        self._told: set[str] = set()
        """Kinds of refusals that were said."""
        self._room = self.caps.rate * BURST
        """Requests that may come at once."""
        self._counted_at = monotonic()
        self.taken = 0
        self.refused = 0

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        try:
            self._take(environ)
            status, words = "200 OK", "ok"
        except Refusal as refusal:
            status, words = refusal.status, str(refusal)
            self.refuse(status, words, environ)
        body = f"{words}\n".encode("utf-8", "backslashreplace")
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        if status.startswith("405"):
            headers.append(("Allow", "POST"))
        start_response(status, headers)
        return [body]

    def refuse(self, status: str, words: str, environ: Mapping[str, Any] | None = None) -> None:
        """Count a refusal, and say the first of its kind: RemoteMonitor itself looks at no answer."""
        self.refused += 1
        if status not in self._told:
            self._told.add(status)
            sender = (environ or {}).get("REMOTE_ADDR")
            where = f" from {sender}" if sender else ""
            self._say(f"refused a request{where}, {status}: {words} (said once)")

    def summary(self) -> str:
        """What was done, in one line."""
        words = f"{plural(self.taken, 'epoch')} of {plural(len(self._runs), 'run')} taken in"
        return f"{words}, {plural(self.refused, 'request')} refused" if self.refused else words

    def _take(self, environ: Mapping[str, Any]) -> None:
        """Judge a request, and have its epoch written."""
        self._admit(environ)
        body = environ["wsgi.input"].read(self.caps.body + 1)
        if len(body) > self.caps.body:
            raise Refusal("413 Request Entity Too Large", f"more than {self.caps.body:,} bytes")
        event = decode_epoch(body, environ.get("CONTENT_TYPE", ""), self._now())
        path = self._record(_address(environ))
        line = encode_line(event)
        if self._bytes + len(line) > self.caps.written:
            raise Refusal(
                "507 Insufficient Storage", f"{self.caps.written:,} bytes are written: start cbmon anew"
            )
        if path in self.writer.foreign:
            raise Refusal("409 Conflict", f"{path.name}: {self.writer.foreign[path]}")
        if not self.writer.put(path, line):
            raise Refusal(
                "503 Service Unavailable",
                f"{QUEUE_MAX:,} epochs, or {QUEUE_BYTES_MAX >> 20} MiB of them, wait for the disk",
            )
        self._bytes += len(line)
        self.taken += 1
        if self.taken == 1:
            self._began()
        self._runs.add(path.name)

    def _admit(self, environ: Mapping[str, Any]) -> None:
        """Refuse who may not send, before anything is read; only who may is counted, and can use up the rate."""
        if "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ:
            raise Refusal("403 Forbidden", "from a web page: only trainers may send")
        if self._token is not None and not any(
            hmac.compare_digest(shown.encode("latin-1", "replace"), self._token) for shown in _tokens(environ)
        ):
            raise Refusal("401 Unauthorized", 'no right token: RemoteMonitor(headers={"X-Token": "..."})')
        if environ.get("REQUEST_METHOD") != "POST":
            raise Refusal("405 Method Not Allowed", "cbmon takes in what keras.callbacks.RemoteMonitor posts")
        now = self._monotonic()
        passed, self._counted_at = max(0.0, now - self._counted_at), now
        self._room = min(self.caps.rate * BURST, self._room + passed * self.caps.rate)
        if self._room < 1.0:
            raise Refusal("429 Too Many Requests", f"more than {self.caps.rate:g} requests a second")
        self._room -= 1.0

    def _record(self, address: str) -> Path:
        """The record of a path of the address."""
        name = record_name(address)
        if name not in self._runs and len(self._runs) >= self.caps.runs:
            raise Refusal(
                "507 Insufficient Storage", f"{plural(self.caps.runs, 'path')} already, and no more are taken"
            )
        return Path(self._folder, name)


def _address(environ: Mapping[str, Any]) -> str:
    """The path of the address, with its query if it has one; WSGI hands it over as Latin-1."""
    path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
    text = f"{path}?{query}" if query else path
    return str(text).encode("latin-1", "replace").decode("utf-8", "replace")


def _tokens(environ: Mapping[str, Any]) -> Iterable[str]:
    """What a request shows as its token."""
    kind, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if kind.casefold() == "bearer":
        yield bearer.strip()
    if "HTTP_X_TOKEN" in environ:
        yield environ["HTTP_X_TOKEN"].strip()


# --- listening ------------------------------------------------------------------------------------------------


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:9000`, `[::1]:9000`, `localhost:9000`; a port alone is one of this machine.

    Raises:
        BadCall: It is none of these.
    """
    match = re.fullmatch(
        r"(?:\[(?P<six>[^\[\]]+)\]:|(?P<host>[^\[\]:]+):)?(?P<port>[0-9]{1,5})", text.strip()
    )
    if match is None or int(match["port"]) > 65535:
        raise BadCall(f"{text!r}: give an address and a port, such as 127.0.0.1:9000 or [::1]:9000")
    return match["six"] or match["host"] or "127.0.0.1", int(match["port"])


def bind(text: str, *, has_token: bool) -> socket.socket:
    """A listening socket.

    Raises:
        BadCall: There is no such address here, its port is taken, or it can be reached from other machines
            and no token is asked for.
    """
    host, port = parse_address(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else "no such address"
        raise BadCall(f"{text}: {words.casefold()}") from None
    # RemoteMonitor's localhost is 127.0.0.1 or ::1; requests tries both.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    if not has_token and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise BadCall(
            f"{text}: other machines can reach that address, so a token is needed: --token T here, "
            'RemoteMonitor(headers={"X-Token": "T"}) there'
        )
    try:
        return socket.create_server(address, family=family, backlog=CONNECTIONS_MAX)
    except OSError as error:
        words = error.strerror or str(error)
        raise BadCall(f"{text}: cannot listen there, {words[:1].casefold()}{words[1:]}") from None


def script_lines(url: str, *, has_token: bool) -> list[str]:
    """What a training script needs so that its epochs come to an address; the token itself stands nowhere."""
    root = f"RemoteMonitor(root={url!r},"
    if has_token:
        return [root, "    path='/NAME', headers={'X-Token': os.environ['CBMON_TOKEN']})"]
    return [f"{root} path='/NAME')"]


def _reached_at(host: str) -> str:
    """What others call a host on which we listen: any address of this machine goes by the machine's name."""
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


class _ErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress refuses by itself: too large, no HTTP. Said as our own refusals are."""

    def execute(self) -> None:
        error = self.request.error
        self.channel.server.application.refuse(
            f"{error.code} {error.reason}", printable(str(error.body), 100)
        )
        super().execute()


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection that has so long for a request, however slowly it says something."""

    error_task_class = _ErrorTask
    began: float | None = None
    """When the request began that is not whole yet."""

    def received(self, data: bytes) -> Any:
        found = super().received(data)
        if self.request is None:
            self.began = None
        elif self.began is None:
            self.began = self.last_activity
        return found


class Listening:
    """A receiver that listens, in threads of its own, until it is closed."""

    def __init__(self, bound: socket.socket, receiver: Receiver) -> None:
        # waitress warns through logging, which ends on stderr: a screen is drawn there.
        logging.getLogger("waitress").addHandler(logging.NullHandler())
        host, port = bound.getsockname()[:2]
        self.url = f"http://{_reached_at(host)}:{port}"
        """Where trainers reach it."""
        self._receiver = receiver
        self._sockets: dict[int, Any] = {}
        self._server = create_server(
            receiver,
            map=self._sockets,
            sockets=[bound],
            threads=1,  # the receiver needs no lock, and answers in microseconds
            ident="cbmon",
            max_request_body_size=receiver.caps.body + 1,  # it refuses what is as long, we what is longer
            channel_timeout=IDLE_S,
            cleanup_interval=IDLE_S // 2,
            asyncore_loop_timeout=IDLE_S // 2,  # wakes for nothing else
            asyncore_use_poll=True,
            connection_limit=CONNECTIONS_MAX,
            clear_untrusted_proxy_headers=False,  # nothing is read of them, and it would wrap the receiver
        )
        self._server.channel_class = _Channel
        self._maintenance = self._server.maintenance
        self._server.maintenance = self._maintain
        self._thread = Thread(target=self._server.run, name="cbmon-receiver", daemon=True)

    def start(self) -> None:
        """Begin to take in."""
        self._receiver.writer.start()
        self._thread.start()

    def close(self) -> None:
        """Take in no more, and write what was taken in."""
        self._server.trigger.pull_trigger(lambda: close_all(self._sockets, ignore_all=True))
        self._thread.join(CLOSE_S)
        self._server.task_dispatcher.shutdown()
        self._receiver.writer.close()

    def _maintain(self, now: float) -> None:
        """Also close who takes too long for one request: byte by byte it would never be idle."""
        self._maintenance(now)
        for channel in self._server.active_channels.values():
            if channel.began is not None and now - channel.began > IDLE_S:
                channel.will_close = True
