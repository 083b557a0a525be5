"""The process at the other end of a record: whether it is gone, and the live wire to it while it is there.

A pid alone says nothing after a reboot, in another container or on another machine, and pids are used again.
So a record names all of host, boot, pid namespace, pid and start time, and `is_gone` says True only where all
of them can be compared and match. What the platform does not tell is None.

**The live wire** is a unix socket on which the training process listens while `fit` runs. It carries what the file
does not hold, the progress within the epoch, and requests back. Both ends follow this:

- Where: `socket_paths(record)` are the places to look for a record's socket, by a hash of its real path, in cbmon's
  runtime folders; or the path that the user gave as `unix:///path.sock`. Nothing read from a log is connected to.
- Who: only processes of the same user, checked on both sides (`connect` does it for a watcher).
- Frames: one JSON object a line, at most `ASK_MAX` bytes from a watcher, `FRAME_MAX` bytes to it. The trainer sends
  frames (their first key is `"frame"`) and events (their first key is `"event"`); `decode_from_trainer` reads both.
  Unknown fields are ignored, so are frames of an unknown kind: `None`. A line that is no JSON object, or a frame
  whose fields have other types, ends the connection.
- Order: the trainer sends `Hello` at once; a watcher answers `Attach` within `ATTACH_S`; from then on the trainer
  sends events, and the watcher may send `Ask` at any time. Each `Ask` gets one `Answer` with its `id`, once the
  training thread has done it: in the worst case after a whole validation. `Goodbye` says why the trainer hangs
  up: the fit has ended, it is another run, there are too many watchers. An end without it: the process died.
- Events: of a run with a file `Progress` alone, a few times a second while it changes; all else stands in the file.
  Of a run without one (`Hello.replays`) first the whole run from its start, then every event as it comes: each
  connection is a fresh read. A watcher that reads slowly misses progress and heartbeats, never other events;
  `Dropped` says how many, before the next thing it gets.
- Attempts: a wire lives as long as one call of `fit`. `Hello.run_id` and `Hello.started` are those of its
  `RunStarted` (`run_id`, `time`). The next fit in the same file listens anew: so look again when a wire has ended.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from cbmon.errors import CbmonError
from cbmon.events import Malformed, Process, RecordedEvent, decode_line

WIRE_VERSION = 1
"""Version of the protocol, written into `Hello` and `Attach`."""

ASK_MAX = 64 * 2**10
"""Bytes of a line from a watcher, newline included."""

FRAME_MAX = 2**20
"""Bytes of a line to a watcher: what readers take of a record's line."""

ATTACH_S = 10.0
"""How long the trainer waits for a watcher's `Attach`."""

PATH_MAX = 107 if sys.platform == "linux" else 103
"""Bytes of a unix socket's path: sun_path without its NUL (unix(7); 104 on BSD and macOS)."""

LIVE_PREFIX = "live-"
"""How the name of a socket in a runtime folder begins that belongs to no file."""

_LOGIN_FOLDERS = "/run/user"
"""Where $XDG_RUNTIME_DIR points to: a job that was queued may not have it set, who logs in to watch it has."""

_COMMON = "/tmp"
"""Before $TMPDIR, which clusters set for each job: who logs in to watch it has another one."""

_NAME_BYTES = 37
"""Of a socket's name in a runtime folder."""

_STATE, _START = 0, 19
"""Places of "state" and "starttime" among the fields of /proc/PID/stat that follow the command's name."""


class NoWire(CbmonError):
    """There is no live wire, or it must not be used; the text says why."""


class NoAnswer(NoWire):
    """Somebody listens and says nothing: a process that stands still, or one with too many at its door."""


class _Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="frame"):
    pass


class Hello(_Frame, frozen=True, kw_only=True, tag="hello", omit_defaults=False):
    """The trainer's first frame."""

    version: int = WIRE_VERSION
    run_id: str
    started: float | None = None
    """`RunStarted.time` of the fit that runs."""
    name: str
    """Name of the record's file, or of the socket where there is none."""
    process: Process
    control: bool
    """Whether requests are taken; if not, each one is answered with why."""
    replays: bool
    """Whether the whole run comes over this wire: there is no file."""


class Attach(_Frame, frozen=True, kw_only=True, tag="attach", omit_defaults=False):
    """A watcher's first frame."""

    version: int = WIRE_VERSION
    run_id: str | None = None
    """The run it takes this to be, None if it does not know: another one hangs up."""
    who: str = ""
    """As `who()` says it: stands in the record beside what this watcher asked for."""
    role: str = "watch"
    """"watch" gets events; "ctl" only asks, and gets answers alone."""


class Ask(_Frame, frozen=True, kw_only=True, tag="ask", omit_defaults=False):
    """A request, carried out in the training thread."""

    id: int
    """The watcher's own number for it."""
    what: str
    """"stop": end after this epoch; "stop_now": end after this batch; "lr": set the learning rate; "save"."""
    value: float | None = None
    """"lr": the new rate."""
    scale: float | None = None
    """"lr", instead of `value`: multiply the present one by this."""
    path: str | None = None
    """"save": absolute path; None is a new name beside the record."""


class Answer(_Frame, frozen=True, kw_only=True, tag="answer"):
    """What became of an `Ask`."""

    id: int
    done: bool
    words: str
    """One sentence for people; if not done, why."""
    old: float | None = None
    new: float | None = None
    """"lr": the rates before and after, as the optimizer holds them."""
    path: str | None = None
    """"save": the file that was written."""


class Dropped(_Frame, frozen=True, kw_only=True, tag="dropped"):
    """What this watcher did not get, since the last such frame."""

    progress: int = 0
    """Looks into an epoch and heartbeats that it was too slow for."""
    events: int = 0
    """Of a run without a file: the oldest events of a very long run, which the trainer keeps no more."""


class Goodbye(_Frame, frozen=True, kw_only=True, tag="goodbye"):
    """The trainer hangs up."""

    words: str


FromTrainer: TypeAlias = Hello | Answer | Dropped | Goodbye
FromWatcher: TypeAlias = Attach | Ask


class _Kind(msgspec.Struct):
    frame: str


_encoder = msgspec.json.Encoder()
_kind: msgspec.json.Decoder[_Kind] = msgspec.json.Decoder(_Kind)
_from_trainer: msgspec.json.Decoder[FromTrainer] = msgspec.json.Decoder(FromTrainer)
_from_watcher: msgspec.json.Decoder[FromWatcher] = msgspec.json.Decoder(FromWatcher)
_TO_WATCHER = ("hello", "answer", "dropped", "goodbye")
_TO_TRAINER = ("attach", "ask")


def encode_frame(frame: FromTrainer | FromWatcher) -> bytes:
    """One frame as a line, newline included. A lone surrogate (an odd file name) is escaped."""
    try:
        return _encoder.encode(frame) + b"\n"
    except UnicodeEncodeError:
        plain = {
            name: value.encode("utf-8", "backslashreplace").decode()
            for name, value in msgspec.structs.asdict(frame).items()
            if isinstance(value, str)
        }
        return _encoder.encode(msgspec.structs.replace(frame, **plain)) + b"\n"


def decode_from_trainer(line: bytes) -> FromTrainer | RecordedEvent | None:
    """What a watcher received; None for what only a newer cbmon knows.

    Raises:
        NoWire: the line is neither frame nor event.
    """
    if line.startswith(b'{"frame":'):
        try:
            return _from_trainer.decode(line) if _kind.decode(line).frame in _TO_WATCHER else None
        except (ValueError, RecursionError) as error:
            raise NoWire(f"the trainer sent what is no frame ({error})") from error
    event = decode_line(line)
    if not isinstance(event, Malformed):
        return event
    if line.startswith(b'{"event":'):
        return None
    raise NoWire(f"the trainer sent what is no frame ({event.reason})")


def decode_from_watcher(line: bytes) -> FromWatcher | None:
    """What a trainer received; None for a frame that only a newer cbmon knows.

    Raises:
        NoWire: the line is no frame.
    """
    try:
        return _from_watcher.decode(line) if _kind.decode(line).frame in _TO_TRAINER else None
    except (ValueError, RecursionError) as error:
        raise NoWire(f"a watcher sent what is no frame ({error})") from error


class Lines:
    """Cuts what comes from a socket into lines, and keeps no more of an unfinished one than the limit."""

    def __init__(self, limit: int) -> None:
        """Begin; `limit` is the most bytes of a line, newline included."""
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now, without their newlines.

        Raises:
            NoWire: a line is longer than the limit.
        """
        *lines, rest = (self._rest + data).split(b"\n")
        if any(len(line) >= self._limit for line in (*lines, rest)):
            raise NoWire(f"a line of more than {self._limit} bytes")
        self._rest = rest
        return lines


def who() -> str:
    """This process's user, host and pid, as `Attach.who` says it."""
    name = ""
    with suppress(Exception):  # a container without this user, a platform without users
        import getpass

        name = getpass.getuser()
    return f"{name or _uid()}@{socket.gethostname()}:{os.getpid()}"


def _uid() -> int:
    return os.geteuid()


def runtime_folders() -> list[Path]:
    """The folders a socket may be in, the preferred one first: trainer and watcher may not share an environment.

    A trainer takes the first one that it can have (`own_folder`); a watcher looks into all that are safe. Nothing
    is imported for it (`tempfile`): a thread of the trainer asks, and its process may be forked at any moment.
    """
    runtime, temporary, uid = os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", ""), _uid()
    folders = [Path(runtime, "cbmon")] if _is_own_runtime(runtime) else []
    if sys.platform == "linux":
        folders.append(Path(_LOGIN_FOLDERS, str(uid), "cbmon"))
    folders += [Path(base, f"cbmon-{uid}") for base in (_COMMON, temporary) if os.path.isabs(base)]
    return list(dict.fromkeys(folders))


def _is_own_runtime(folder: str) -> bool:
    """Whether $XDG_RUNTIME_DIR is this user's, as it has to be: after `su` and `sudo -E` it is somebody else's.

    Root can write there, and its folder would keep the owner out.
    """
    try:
        facts = os.lstat(folder)
    except (OSError, ValueError):
        return False
    is_closed = stat.S_ISDIR(facts.st_mode) and not facts.st_mode & 0o022
    return os.path.isabs(folder) and is_closed and facts.st_uid == _uid()


def why_unsafe(folder: Path) -> str:
    """Why this folder must not be used; "" if it may: a real folder, the user's own, closed to all others."""
    try:
        facts = os.lstat(folder)
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(facts.st_mode):
        return "not a folder"
    if facts.st_uid != _uid():
        return "somebody else's"
    if stat.S_IMODE(facts.st_mode) & 0o077:
        return "open to others"
    return ""


def own_folder() -> Path:
    """The runtime folder of this user, made if need be.

    Raises:
        NoWire: none can be had; the text names each with the reason.
    """
    reasons = []
    for folder in runtime_folders():
        with suppress(OSError):
            folder.mkdir(mode=0o700)  # not its parents: a login makes those
        is_long = len(os.fsencode(folder)) + 1 + _NAME_BYTES > PATH_MAX
        reason = "too long a path" if is_long else why_unsafe(folder)
        if not reason and not os.access(folder, os.W_OK | os.X_OK):
            reason = "not writable"
        if not reason:
            return folder
        reasons.append(f"{folder}: {reason}")
    raise NoWire(f"no folder for a socket ({'; '.join(reasons)})")


def socket_name(record: str | os.PathLike[str]) -> str:
    """The name of a record's socket: a hash, so neither the path's length nor its signs matter."""
    import hashlib  # 2 ms, which a start without a live run does not pay

    real = os.fsencode(os.path.realpath(record))
    return f"{hashlib.sha256(real).hexdigest()[:32]}.sock"


def socket_paths(record: str | os.PathLike[str]) -> list[Path]:
    """Where the socket of this record may be, the likeliest place first: in the runtime folders that are safe."""
    name = socket_name(record)
    return [folder / name for folder in runtime_folders() if not why_unsafe(folder)]


def live_sockets() -> list[Path]:
    """The sockets of runs without a file (`Monitor("unix://")`) in the runtime folders that are safe."""
    folders = [folder for folder in runtime_folders() if not why_unsafe(folder)]
    return [path for folder in folders for path in sorted(folder.glob(f"{LIVE_PREFIX}*.sock"))]


def connect(path: str | os.PathLike[str], *, timeout_s: float | None = None) -> socket.socket:
    """A blocking connection to the trainer that listens at `path`, a process of the same user.

    `timeout_s` is for connecting, and stays set on the socket; None waits for ever.

    Raises:
        NoAnswer: somebody listens there and lets nobody in.
        NoWire: nobody does, or it is not the user's own.
    """
    reason = why_foreign(path)
    if reason:
        raise NoWire(f"{os.fspath(path)}: {reason}")
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        wire.settimeout(timeout_s)
        wire.connect(os.fspath(path))
        if peer_uid(wire) != _uid():
            raise NoWire(f"{os.fspath(path)}: somebody else listens there")
    except (TimeoutError, BlockingIOError) as error:
        wire.close()
        raise NoAnswer(f"{os.fspath(path)}: it lets nobody in") from error
    except OSError as error:
        wire.close()
        raise NoWire(f"{os.fspath(path)}: {error.strerror or error}") from error
    except NoWire:
        wire.close()
        raise
    return wire


def why_foreign(path: str | os.PathLike[str]) -> str:
    """Why what stands at `path` must be neither connected to nor removed; "" if it is the user's own socket."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:
        return "no path"
    if not stat.S_ISSOCK(facts.st_mode):
        return "a link" if stat.S_ISLNK(facts.st_mode) else "no socket"
    return "" if facts.st_uid == _uid() else "somebody else's"


def peer_uid(wire: socket.socket) -> int | None:
    """The user at the other end of a connected unix socket, as the kernel says; None if it does not."""
    if _PEERCRED is not None:
        return _peer(wire)[1]
    with suppress(Exception):  # BSD and macOS
        import ctypes

        uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
        if ctypes.CDLL(None).getpeereid(wire.fileno(), ctypes.byref(uid), ctypes.byref(gid)) == 0:
            return uid.value
    return None


def peer_pid(wire: socket.socket) -> int | None:
    """The process at the other end, where the kernel says: Linux."""
    return _peer(wire)[0] if _PEERCRED is not None else None


_PEERCRED: int | None = getattr(socket, "SO_PEERCRED", None)


def _peer(wire: socket.socket) -> tuple[int | None, int | None]:
    """Pid and uid, of Linux' `struct ucred`; the pid is 0 for a process of another pid namespace."""
    try:
        raw = wire.getsockopt(socket.SOL_SOCKET, _PEERCRED or 0, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", raw)
    except (OSError, struct.error):
        return None, None
    return pid or None, uid


def this_process() -> Process:
    """The facts of the calling process, as a record's `RunStarted` carries them."""
    pid = os.getpid()
    stat = _stat(pid)
    return Process(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=pid,
        start=int(stat[_START]) if stat else None,
    )


def is_gone(process: Process) -> bool:
    """Whether the process is known to have ended; anything that cannot be compared means False.

    A zombie is gone: it will write no more.
    """
    here = (socket.gethostname(), _boot_id(), _pid_namespace())
    if None in here or (process.host, process.boot_id, process.pid_namespace) != here or process.pid <= 0:
        return False
    try:
        os.kill(
            process.pid, 0
        )  # 0: no signal, only the question; /proc may hide the processes of other users
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    stat = _stat(process.pid)
    if stat is None:
        return False
    return stat[_STATE] in "ZX" or process.start not in (None, int(stat[_START]))


def is_here(process: Process) -> bool:
    """Whether the process runs, or ran, on this machine since it was started last, as far as that can be told."""
    return process.host == socket.gethostname() and process.boot_id in (None, _boot_id())


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except (OSError, AttributeError):  # AttributeError: no links on this platform
        return None


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name, which may itself hold blanks and brackets."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return fields if len(fields) > _START and fields[_START].isdecimal() else None
